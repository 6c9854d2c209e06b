//! Shims that outlived the platform that started them, and how the next one finds them.
//!
//! A shim of the formation has a door: a socket in a folder of the platform, which nobody comes to
//! while the platform that launched it listens. Once that one is gone the next connects, hears what
//! the shim runs, and goes on with it where it is what should run. A shim of another version of the
//! protocol says what it runs in the same words (see [`frozen`](crate::protocol::frozen)).

use std::fs::{self, DirBuilder};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix,
    SocketFlags, SocketType, bind, connect, listen, recvmsg, socket_with,
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tolv_model::slug::Digest;
use tolv_sandbox::Launched;

use crate::plan::Plan;
use crate::protocol::frozen::{Exited, Hello, Word};
use crate::protocol::{PACKET, version};

/// For shims to say what they are. Most do at once.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// The name of a shim's door.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Door {
    folder: PathBuf,
    name: String,
}

impl Door {
    /// For the shim with this hand in the log, and what it listens with.
    ///
    /// # Errors
    ///
    /// The folder or the socket cannot be made.
    pub(crate) fn open(folder: &Path, writer: u64) -> io::Result<(Self, OwnedFd)> {
        let door = Self { folder: folder.to_owned(), name: name_of(writer) };
        let listener = door.listen()?;
        Ok((door, listener))
    }

    /// By a name that is short enough for a socket, however long the folder's is.
    fn at<T>(&self, act: impl FnOnce(&SocketAddrUnix) -> Result<T, Errno>) -> io::Result<T> {
        let folder = fs::File::open(&self.folder)?;
        let path = format!("/proc/self/fd/{}/{}", folder.as_raw_fd(), self.name);
        Ok(act(&SocketAddrUnix::new(path)?)?)
    }

    /// Whether it is still on the disk.
    pub(crate) fn is_there(&self) -> bool {
        let found = fs::symlink_metadata(self.folder.join(&self.name));
        found.is_ok_and(|found| found.file_type().is_socket())
    }

    /// Makes it again where somebody has removed it; `hand` gives the shim what it listens with.
    ///
    /// # Errors
    ///
    /// The folder or the socket cannot be made, or `hand`'s.
    pub(crate) fn make_again(
        &self,
        hand: impl FnOnce(BorrowedFd<'_>) -> io::Result<()>,
    ) -> io::Result<()> {
        self.remove();
        let listener = self.listen()?;
        // A door without a listener is none.
        hand(listener.as_fd()).inspect_err(|_| self.remove())
    }

    fn listen(&self) -> io::Result<OwnedFd> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let listener = socket()?;
        self.at(|address| bind(&listener, address))?;
        listen(&listener, 1)?;
        Ok(listener)
    }

    /// Once nobody is behind it.
    pub(crate) fn remove(&self) {
        // Gone already is what is wanted.
        fs::remove_file(self.folder.join(&self.name)).ok();
    }
}

/// The name of the door of the shim with this hand in the log.
pub(crate) fn name_of(writer: u64) -> String {
    format!("{writer:016x}")
}

/// A shim without a platform.
#[derive(Debug)]
pub(crate) struct Orphan {
    /// Nothing where it said something else: then all that can be done is to stop it.
    pub(crate) hello: Option<Hello>,
    pub(crate) control: OwnedFd,
    pub(crate) launched: Launched,
    pub(crate) door: Door,
}

impl Orphan {
    /// Whether it runs what was digested, speaks as this platform does, and was not told to end.
    pub(crate) fn runs(&self, plan: Digest) -> bool {
        let runs = |hello: &Hello| {
            hello.version == version() && hello.identity.plan == plan && !hello.stopping
        };
        self.hello.as_ref().is_some_and(runs)
    }

    /// Whether it is this process of this release, as another version of the platform or other
    /// settings have started it: not what is wanted, but it answers until that is up.
    pub(crate) fn stands_for(&self, plan: &Plan, digest: Digest) -> bool {
        let stands = |hello: &Hello| {
            hello.process == plan.name.to_string()
                && hello.release == plan.target.release.number.0
                && !hello.stopping
        };
        !self.runs(digest) && self.hello.as_ref().is_some_and(stands)
    }

    /// Kills it, with everything below it.
    pub(crate) fn kill(self) {
        self.launched.kill();
        self.door.remove();
    }
}

/// A shim that has not said yet what it is: it is stopped, or has no processor. Where this is
/// dropped it goes back to its door.
#[derive(Debug)]
pub(crate) struct Late {
    control: OwnedFd,
    door: Door,
}

impl Late {
    /// Waits for its word; nothing where it has ended.
    pub(crate) async fn answer(self) -> Option<Orphan> {
        let Self { control, door } = self;
        #[expect(unsafe_code, reason = "the descriptor has to stay open and the same")]
        // SAFETY: it is owned, and nobody closes it before it is taken out again.
        let control = unsafe { AsyncFd::register_with_interest(control, Interest::READABLE) };
        let control = control.ok()?;
        control.readable().await.ok()?.clear_ready();
        hear(control.into_inner(), door).ok()
    }
}

/// What was found in a folder.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) orphans: Vec<Orphan>,
    pub(crate) late: Vec<Late>,
}

/// Kills what earlier engines with this folder for [`Settings::doors`](crate::Settings::doors) have left
/// running, and removes the folder: no engine will go on with it. Waits for two seconds at most.
///
/// # Errors
///
/// The folder cannot be read or removed.
pub fn kill_left(folder: &Path) -> io::Result<()> {
    find(folder, Instant::now() + PATIENCE)?.orphans.into_iter().for_each(Orphan::kill);
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Looks who is there. Waits at most until then, for shims that do not answer; the others do so at
/// once.
///
/// # Errors
///
/// The folder cannot be read; one that is not there is empty.
pub(crate) fn find(folder: &Path, until: Instant) -> io::Result<Found> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::default()),
        Err(error) => return Err(error),
    };
    let mut knocked = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let door = Door { folder: folder.to_owned(), name };
        match knock(&door) {
            Ok(control) => knocked.push((door, control)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => door.remove(),
            // Somebody else is inside, or this is no door.
            Err(_) => {}
        }
    }
    let mut found = Found::default();
    for (door, control) in knocked {
        if !is_readable(&control, until)? {
            found.late.push(Late { control, door });
            continue;
        }
        // Otherwise it ended meanwhile.
        found.orphans.extend(hear(control, door));
    }
    Ok(found)
}

fn socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

fn knock(door: &Door) -> io::Result<OwnedFd> {
    let control = socket()?;
    // With every word comes, from the kernel, the pid of who said it.
    set_socket_passcred(&control, true)?;
    door.at(|address| connect(&control, address))?;
    Ok(control)
}

fn is_readable(control: &OwnedFd, until: Instant) -> io::Result<bool> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(control, PollFlags::IN)], timeout.as_ref()) {
            Err(Errno::INTR) => {}
            ready => return Ok(ready? > 0),
        }
    }
}

/// Hears a shim's first word, which is there.
fn hear(control: OwnedFd, door: Door) -> io::Result<Orphan> {
    let mut packet = [0; PACKET];
    let (read, pid) = receive(&control, &mut packet)?;
    let launched = Launched { pid, pidfd: pidfd_open(raw(pid)?, PidfdFlags::empty())? };
    // Still there now: then the pid is no other's.
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut fds = [PollFd::new(&control, PollFlags::RDHUP)];
    poll(&mut fds, Some(&now))?;
    if fds[0].revents().intersects(PollFlags::HUP | PollFlags::RDHUP) {
        return Err(io::ErrorKind::ConnectionReset.into());
    }
    set_socket_passcred(&control, false)?;
    let hello = match serde_json::from_slice(packet.get(..read).unwrap_or_default()) {
        Ok(Word::<Exited>::Hello(hello)) => Some(hello),
        Ok(Word::Exited(_)) | Err(_) => None,
    };
    Ok(Orphan { hello, control, launched, door })
}

/// One packet and the pid of its sender.
fn receive(control: &OwnedFd, packet: &mut [u8]) -> io::Result<(usize, i32)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmCredentials(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [io::IoSliceMut::new(packet)];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(control.as_fd(), &mut buffers, &mut ancillary, flags)?;
    let pid = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmCredentials(sender) => Some(sender.pid.as_raw_nonzero().get()),
        _ => None,
    });
    match pid {
        Some(pid) if received.bytes > 0 => Ok((received.bytes, pid)),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn raw(pid: i32) -> io::Result<Pid> {
    Pid::from_raw(pid).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
