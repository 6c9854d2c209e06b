//! The handle to the helper process that forks the sandboxed ones.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::app::Entered;
use crate::cgroup::{Budget, CgroupFacts};
use crate::error::Error;
use crate::level::Reason;
use crate::network::{Network, NetworkChoice};
use crate::owner;
use crate::spec::{Spec, is_plain_target};
use crate::wire::{self, Answer, MAX_FDS, Request};

/// A function that runs in the forked child, inside the sandbox's namespaces, as pid 1 or child
/// subreaper, with every signal blocked. Its result is the exit code.
pub type Body = fn(Entered) -> i32;

/// A handle to one spawner process; clones share it. The process ends with the last handle and
/// its last child.
#[derive(Clone, Debug)]
pub struct Spawner(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    /// Nothing only while it is dropped.
    socket: Option<OwnedFd>,
    child: Mutex<Child>,
    /// Whether what it has launched goes on.
    left: AtomicBool,
    hidden: OnceLock<PathBuf>,
}

/// How long the last handle waits for the process to be gone, so that nothing is left behind.
const UNTIL_GONE: Duration = Duration::from_secs(2);

impl Drop for Handle {
    fn drop(&mut self) {
        self.socket = None;
        if self.left.load(Ordering::Relaxed) {
            return;
        }
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        let raw = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let flags = rustix::process::PidfdFlags::empty();
        let pidfd = raw.and_then(|pid| rustix::process::pidfd_open(pid, flags).ok());
        if let Some(pidfd) = pidfd {
            let patience = Timespec::try_from(UNTIL_GONE).ok();
            // Still busy after that: it ends by itself.
            poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], patience.as_ref()).ok();
        }
        child.try_wait().ok();
    }
}

/// One process to start.
#[derive(Debug)]
pub struct Launch {
    /// Which body runs.
    pub body: &'static str,
    /// Bytes for the body; they never touch a disk.
    pub payload: Vec<u8>,
    /// Descriptors for the body, in order; at most 200.
    pub fds: Vec<OwnedFd>,
    /// The sandbox.
    pub spec: Spec,
}

/// A body that is running in its sandbox.
#[derive(Debug)]
pub struct Launched {
    /// Its pid on the host.
    pub pid: i32,
    /// Readable when it has ended.
    pub pidfd: OwnedFd,
}

impl Launched {
    /// Kills the body and, with it, everything below it. Total: gone already is fine.
    pub fn kill(&self) {
        // Gone already is what is wanted.
        rustix::process::pidfd_send_signal(&self.pidfd, rustix::process::Signal::KILL).ok();
    }
}

impl Spawner {
    /// Starts the helper: a program whose `main`, given these arguments, is
    /// [`spawner_main`](crate::spawner_main). It gets no environment.
    ///
    /// # Errors
    ///
    /// [`Error::Start`].
    pub fn start(program: &Path, args: &[&str]) -> Result<Self, Error> {
        let failed = |source| Error::Start { program: program.to_path_buf(), source };
        let (socket, theirs) = wire::pair().map_err(failed)?;
        let child = Command::new(program)
            .args(args)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let (child, left) = (Mutex::new(child), AtomicBool::new(false));
        let hidden = OnceLock::new();
        Ok(Self(Arc::new(Handle { socket: Some(socket), child, left, hidden })))
    }

    /// Hides a folder from every sandbox that is launched from now on, but for the mounts that lie
    /// in it: the state of the platform. It matters at level landlock, where folders of the machine
    /// such as `/tmp` are shown, and this one may lie in them. Said once.
    ///
    /// # Errors
    ///
    /// The folder does not exist.
    pub fn hide(&self, folder: &Path) -> Result<(), Error> {
        let real = folder.canonicalize();
        let real =
            real.map_err(|source| Error::Io { what: "cannot find the state folder", source })?;
        self.0.hidden.get_or_init(|| real);
        Ok(())
    }

    /// The folder that is hidden.
    pub(crate) fn hidden(&self) -> Option<&Path> {
        self.0.hidden.get().map(PathBuf::as_path)
    }

    /// What it has launched goes on without this program: the last handle does not wait for it.
    pub fn leave(&self) {
        self.0.left.store(true, Ordering::Relaxed);
    }

    /// Starts one sandboxed process; returns once it has entered its sandbox.
    ///
    /// # Errors
    ///
    /// [`Error::Enter`] with the step that failed; nothing is left of the sandbox then.
    /// [`Error::BadLaunch`] before anything was tried.
    pub fn launch(&self, launch: Launch) -> Result<Launched, Error> {
        check(&launch)?;
        let Launch { body, payload, fds, spec } = launch;
        let network = match &spec.network {
            Network::Joined { namespace } => namespace.clone(),
            Network::Machine | Network::Own { .. } | Network::Nowhere => None,
        };
        owner::give(&spec)?;
        owner::give_pipes(&spec, &fds)?;
        let level = spec.level;
        let io = |what| move |source| Error::Io { what, source };
        let bytes = serde_json::to_vec(&spec).map_err(|bad| Error::BadLaunch(bad.to_string()))?;
        let memory = wire::memory_file(&[&bytes, &payload]).map_err(io("make a memory file"))?;
        let hidden = self.0.hidden.get().map(|folder| folder.as_os_str().as_bytes().to_vec());
        let (body, spec_bytes) = (body.to_owned(), bytes.len());
        let joins_network = network.is_some();
        let request = Request::Launch { body, spec_bytes, hidden, joins_network };
        let mut given = vec![memory.as_fd()];
        given.extend(network.iter().map(|network| network.as_fd()));
        given.extend(fds.iter().map(|fd| fd.as_fd()));
        let answer = self.ask(&request, &given)?;
        // The body alone holds them now, so that their other ends see its end.
        drop((memory, fds));
        let launched = match hear(&answer)? {
            Some((Answer::Launched { pid }, mut fds)) => {
                let pidfd = fds.pop().ok_or_else(|| Error::Protocol("no pidfd".to_owned()))?;
                Launched { pid, pidfd }
            }
            Some((Answer::Failed(reason), _)) => return Err(Error::Enter { level, reason }),
            Some((Answer::Bad(why), _)) => return Err(Error::BadLaunch(why)),
            Some((other, _)) => return Err(Error::Protocol(format!("{other:?}"))),
            None => return Err(Error::Gone("it hung up".to_owned())),
        };
        match hear(&answer)? {
            Some((Answer::Entered, _)) => Ok(launched),
            Some((Answer::Failed(reason), _)) => Err(Error::Enter { level, reason }),
            Some((other, _)) => Err(Error::Protocol(format!("{other:?}"))),
            None => Err(Error::Lost),
        }
    }

    /// Says which networks processes are to have; why they have none of their own, if so.
    pub(crate) fn network(&self, choice: NetworkChoice) -> Result<Option<String>, Error> {
        let answer = self.ask(&Request::Network(choice), &[])?;
        match hear(&answer)? {
            Some((Answer::Network(reason), _)) => Ok(reason),
            Some((other, _)) => Err(Error::Protocol(format!("{other:?}"))),
            None => Err(Error::Gone("it hung up".to_owned())),
        }
    }

    /// What the spawner found of cgroups.
    pub(crate) fn cgroups(&self) -> Result<CgroupFacts, Error> {
        let answer = self.ask(&Request::Cgroups, &[])?;
        match hear(&answer)? {
            Some((Answer::Cgroups(facts), _)) => Ok(facts),
            Some((other, _)) => Err(Error::Protocol(format!("{other:?}"))),
            None => Err(Error::Gone("it hung up".to_owned())),
        }
    }

    /// Bounds what everything that spawners of this machine launch may take together. Gives what
    /// could not be bounded, and why.
    ///
    /// # Errors
    ///
    /// The spawner is gone.
    pub fn bound(&self, budget: Budget) -> Result<Vec<Reason>, Error> {
        let answer = self.ask(&Request::Bound(budget), &[])?;
        match hear(&answer)? {
            Some((Answer::Bound(reasons), _)) => Ok(reasons),
            Some((other, _)) => Err(Error::Protocol(format!("{other:?}"))),
            None => Err(Error::Gone("it hung up".to_owned())),
        }
    }

    /// Sends a request with a new answer socket in front of (or, for a launch, behind the first
    /// of) its descriptors.
    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<OwnedFd, Error> {
        let (ours, theirs) =
            wire::pair().map_err(|source| Error::Io { what: "make a socket pair", source })?;
        let mut all = fds.to_vec();
        all.insert(fds.len().min(1), theirs.as_fd());
        let socket = self.0.socket.as_ref().ok_or_else(|| Error::Gone("closed".to_owned()))?;
        wire::send(socket.as_fd(), request, &all)
            .map_err(|error| Error::Gone(error.to_string()))?;
        Ok(ours)
    }
}

fn hear(answer: &OwnedFd) -> Result<Option<(Answer, Vec<OwnedFd>)>, Error> {
    let packet = wire::receive(answer.as_fd()).map_err(|bad| Error::Protocol(bad.to_string()))?;
    let Some((bytes, fds)) = packet else { return Ok(None) };
    let answer = serde_json::from_slice(&bytes).map_err(|bad| Error::Protocol(bad.to_string()))?;
    Ok(Some((answer, fds)))
}

fn check(launch: &Launch) -> Result<(), Error> {
    if launch.fds.len() > MAX_FDS {
        return Err(Error::BadLaunch(format!("{} descriptors", launch.fds.len())));
    }
    for mount in &launch.spec.mounts {
        if !is_plain_target(&mount.target) {
            let target = mount.target.display();
            return Err(Error::BadLaunch(format!(
                "the mount target `{target}` is not a plain path"
            )));
        }
        if !mount.source.is_absolute() || mount.source.symlink_metadata().is_err() {
            let source = mount.source.display();
            return Err(Error::BadLaunch(format!("there is no `{source}` to mount")));
        }
    }
    Ok(())
}
