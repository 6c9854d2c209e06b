//! The handle to the helper process that forks the sandboxed ones.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::app::Entered;
use crate::cgroup::{Budget, CgroupFacts};
use crate::error::Error;
use crate::level::Reason;
use crate::network::{Network, NetworkChoice};
use crate::owner;
use crate::spec::{Spec, is_plain_target};
use crate::wire::{self, Answer, MAX_FDS, Request};

mod facts;

use facts::Counts;
pub use facts::SpawnerFacts;

/// A function that runs in the forked child, inside the sandbox's namespaces, as pid 1 or child
/// subreaper, with every signal blocked. Its result is the exit code.
pub type Body = fn(Entered) -> i32;

/// A handle to the spawner process; clones share it. The process ends with the last handle and
/// its last child. One that ends before, for it was killed, is replaced: what it has launched goes
/// on, and the next launch comes from the new one.
#[derive(Clone, Debug)]
pub struct Spawner(Arc<Handle>);

#[derive(Debug)]
struct Handle {
    program: PathBuf,
    /// The program as it was when this one began, whatever stands at its path now.
    image: File,
    args: Vec<String>,
    helper: Mutex<Arc<Helper>>,
    /// Whether what it has launched goes on.
    left: AtomicBool,
    hidden: OnceLock<PathBuf>,
    /// What a new helper has to be told again.
    told: Mutex<Told>,
    counts: Counts,
}

/// What was asked of the helper once, for all of its life.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    /// With whether processes have their own.
    network: Option<(NetworkChoice, bool)>,
    budget: Option<Budget>,
}

/// One helper process.
#[derive(Debug)]
struct Helper {
    /// Closed when the last handle is dropped, which tells the process to end.
    socket: Mutex<Option<OwnedFd>>,
    child: Mutex<Child>,
    /// Readable when the process has ended. Nothing where it had ended at once.
    pidfd: Option<OwnedFd>,
    began: Instant,
    /// The answer socket of a question that is not answered yet, and since when.
    unanswered: Mutex<Option<(OwnedFd, Instant)>>,
}

/// How long the last handle waits for the process to be gone, so that nothing is left behind.
const UNTIL_GONE: Duration = Duration::from_secs(2);
/// Between the end of a process's sockets and its own.
const UNTIL_SEEN: Duration = Duration::from_millis(200);
/// One that ends sooner than this after its start is not replaced before that.
const SHORTEST_LIFE: Duration = Duration::from_secs(1);

impl Drop for Handle {
    fn drop(&mut self) {
        let helper = lock(&self.helper).clone();
        lock(&helper.socket).take();
        if self.left.load(Ordering::Relaxed) {
            return;
        }
        // Still busy after that: it ends by itself.
        helper.wait(Some(UNTIL_GONE));
        lock(&helper.child).try_wait().ok();
    }
}

impl Helper {
    /// Takes the command, which holds the other end of the socket: while this program had that open,
    /// it would wait for ever for the answer of a process that is killed.
    fn start(mut command: Command) -> io::Result<Self> {
        let (socket, theirs) = wire::pair()?;
        let child = command
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()?;
        let raw = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let flags = rustix::process::PidfdFlags::empty();
        let pidfd = raw.and_then(|pid| rustix::process::pidfd_open(pid, flags).ok());
        let (socket, child) = (Mutex::new(Some(socket)), Mutex::new(child));
        Ok(Self { socket, child, pidfd, began: Instant::now(), unanswered: Mutex::default() })
    }

    /// Waits until the process has ended, at most for `limit`; says whether it has.
    fn wait(&self, limit: Option<Duration>) -> bool {
        let Some(pidfd) = &self.pidfd else { return true };
        let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
        loop {
            match poll(&mut [PollFd::new(pidfd, PollFlags::IN)], limit.as_ref()) {
                Err(Errno::INTR) => {}
                ready => return ready.is_ok_and(|ready| ready > 0),
            }
        }
    }

    /// Sends a request with a new answer socket in front of (or, for a launch, behind the first
    /// of) its descriptors.
    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<OwnedFd, Error> {
        let (ours, theirs) =
            wire::pair().map_err(|source| Error::Io { what: "make a socket pair", source })?;
        let mut all = fds.to_vec();
        all.insert(fds.len().min(1), theirs.as_fd());
        let socket = {
            // Sending may wait for the helper: not with the lock.
            let socket = lock(&self.socket);
            let socket = socket.as_ref().ok_or_else(|| Error::Gone("closed".to_owned()))?;
            socket.try_clone().map_err(|source| Error::Io { what: "copy a descriptor", source })?
        };
        wire::send(socket.as_fd(), request, &all)
            .map_err(|error| Error::Gone(error.to_string()))?;
        Ok(ours)
    }

    /// The answer to a request that has just one.
    fn answer(&self, request: &Request) -> Result<Answer, Error> {
        let answer = self.ask(request, &[])?;
        match hear(&answer)? {
            Some((answer, _)) => Ok(answer),
            None => Err(hung_up()),
        }
    }
}

impl Handle {
    /// Starts another helper in the place of one that has ended.
    fn replace(&self, dead: &Arc<Helper>) -> Result<Arc<Helper>, Error> {
        let mut helper = lock(&self.helper);
        if !Arc::ptr_eq(&helper, dead) {
            return Ok(Arc::clone(&helper));
        }
        // One that is there, and did not answer, could not take in what was handed to it.
        if !dead.wait(Some(UNTIL_SEEN)) {
            let source = io::Error::from_raw_os_error(libc::EMFILE);
            return Err(Error::Io { what: "hand descriptors to the spawner", source });
        }
        if dead.began.elapsed() < SHORTEST_LIFE {
            return Err(Error::Gone("it has ended right after its start".to_owned()));
        }
        lock(&dead.child).try_wait().ok();
        let failed = |source| Error::Start { program: self.program.clone(), source };
        let image = format!("/proc/self/fd/{}", self.image.as_raw_fd());
        let mut command = Command::new(image);
        command.arg0(&self.program).args(&self.args);
        let new = Helper::start(command).map_err(failed)?;
        // The next one is started a while after this one, whatever becomes of it.
        *helper = Arc::new(new);
        self.counts.replaced(lock(&helper.child).id());
        if let Err(error) = self.tell(&helper) {
            // It would start processes in other sandboxes than theirs.
            lock(&helper.child).kill().ok();
            return Err(error);
        }
        say("the process that starts sandboxes had ended; there is a new one");
        Ok(Arc::clone(&helper))
    }

    /// Tells a new helper what the first one was told.
    fn tell(&self, new: &Helper) -> Result<(), Error> {
        let told = *lock(&self.told);
        if let Some((choice, is_own)) = told.network {
            match new.answer(&Request::Network(choice))? {
                Answer::Network(Some(reason)) if is_own => return Err(Error::Network(reason)),
                _ => {}
            }
        }
        if let Some(budget) = told.budget {
            new.answer(&Request::Bound(budget))?;
        }
        Ok(())
    }

    /// Replaces the helper whenever it ends, for as long as there is a handle.
    fn watch(handle: &Weak<Self>) {
        let mut is_failing = false;
        loop {
            let Some(helper) = handle.upgrade().map(|handle| lock(&handle.helper).clone()) else {
                return;
            };
            helper.wait(None);
            let Some(handle) = handle.upgrade() else { return };
            // One that is told to end has no socket any more.
            if lock(&helper.socket).is_none() {
                return;
            }
            let replaced = handle.replace(&helper);
            drop(handle);
            match replaced {
                Ok(_) => is_failing = false,
                Err(error) => {
                    if !is_failing {
                        say(&format!("nothing can be started, and is tried again: {error}"));
                    }
                    is_failing = true;
                    std::thread::sleep(SHORTEST_LIFE);
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Standard error is the platform's; nobody may be there to read it.
fn say(text: &str) {
    rustix::io::write(rustix::stdio::stderr(), format!("tolv: {text}\n").as_bytes()).ok();
}

fn hung_up() -> Error {
    Error::Gone("it hung up".to_owned())
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
        let image = File::open(program).map_err(failed)?;
        let mut command = Command::new(program);
        command.args(args);
        let helper = Helper::start(command).map_err(failed)?;
        let counts = Counts::of(lock(&helper.child).id());
        let handle = Arc::new(Handle {
            program: program.to_path_buf(),
            image,
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            helper: Mutex::new(Arc::new(helper)),
            left: AtomicBool::new(false),
            hidden: OnceLock::new(),
            told: Mutex::default(),
            counts,
        });
        let watched = Arc::downgrade(&handle);
        let thread = std::thread::Builder::new().name("spawner".to_owned());
        thread.spawn(move || Handle::watch(&watched)).map_err(failed)?;
        Ok(Self(handle))
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
        let launched = self.try_launch(launch);
        self.0.counts.launched(launched.is_ok());
        launched
    }

    fn try_launch(&self, launch: Launch) -> Result<Launched, Error> {
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
        let (answer, heard) = self.try_again(|helper| {
            let answer = helper.ask(&request, &given)?;
            // Without its word that it has, it has launched nothing.
            let heard = hear(&answer)?.ok_or_else(hung_up)?;
            Ok((answer, heard))
        })?;
        // The body alone holds them now, so that their other ends see its end.
        drop((memory, fds));
        let launched = match heard {
            (Answer::Launched { pid }, mut fds) => {
                let pidfd = fds.pop().ok_or_else(|| Error::Protocol("no pidfd".to_owned()))?;
                Launched { pid, pidfd }
            }
            (Answer::Failed(reason), _) => return Err(Error::Enter { level, reason }),
            (Answer::Bad(why), _) => return Err(Error::BadLaunch(why)),
            (other, _) => return Err(Error::Protocol(format!("{other:?}"))),
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
        match self.answer(&Request::Network(choice))? {
            Answer::Network(reason) => {
                lock(&self.0.told).network = Some((choice, reason.is_none()));
                Ok(reason)
            }
            other => Err(Error::Protocol(format!("{other:?}"))),
        }
    }

    /// What the spawner found of cgroups.
    pub(crate) fn cgroups(&self) -> Result<CgroupFacts, Error> {
        match self.answer(&Request::Cgroups)? {
            Answer::Cgroups(facts) => Ok(facts),
            other => Err(Error::Protocol(format!("{other:?}"))),
        }
    }

    /// Bounds what everything that spawners of this machine launch may take together. Gives what
    /// could not be bounded, and why.
    ///
    /// # Errors
    ///
    /// The spawner is gone.
    pub fn bound(&self, budget: Budget) -> Result<Vec<Reason>, Error> {
        lock(&self.0.told).budget = Some(budget);
        match self.answer(&Request::Bound(budget))? {
            Answer::Bound(reasons) => Ok(reasons),
            other => Err(Error::Protocol(format!("{other:?}"))),
        }
    }

    fn answer(&self, request: &Request) -> Result<Answer, Error> {
        self.try_again(|helper| helper.answer(request))
    }

    /// Asks the helper and, where it turns out to have ended, its successor.
    fn try_again<T>(&self, ask: impl Fn(&Helper) -> Result<T, Error>) -> Result<T, Error> {
        let helper = lock(&self.0.helper).clone();
        match ask(&helper) {
            Err(Error::Gone(_)) => ask(&*self.0.replace(&helper)?),
            done => done,
        }
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
    for layer in &launch.spec.stack {
        if !layer.is_absolute() || !layer.is_dir() {
            let layer = layer.display();
            return Err(Error::BadLaunch(format!("there is no folder `{layer}` of a stack")));
        }
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
