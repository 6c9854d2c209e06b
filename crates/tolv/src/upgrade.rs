//! Upgrade: a `tolv serve` goes on as another program, without a refused connection.
//!
//! ```text
//!  old: SIGUSR2 ─▶ starts the new program        new: settings, database, key, sandbox are
//!       finishes its operations                       right ─▶ "ready"
//!       lets go of the state folder ─▶ its sockets ─────▶ starts, takes requests ─▶ "up"
//!       finishes its requests, ends
//! ```
//!
//! They talk over the new one's standard input. Where the new one fails before it is ready, the old
//! one goes on; where it fails after that, the old program is started again in the same way, again and
//! again until it takes requests: the sockets stay open and what runs goes on answering. The words are
//! the same in every version.
//!
//! After "up" the old one passes on the connections whose requests wait for a process: see
//! [`connections`].

pub(crate) mod connections;
mod oom;

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};

use crate::output;
use crate::settings::ITSELF;

/// Its settings are right.
const READY: u8 = b'r';
/// The state folder is free; with the sockets.
const GO: u8 = b'g';
/// It takes requests.
const UP: u8 = b'u';

/// For a new program to try its settings.
const SETTINGS: Duration = Duration::from_secs(30);
/// For a new program that does not go on to say why.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// For a new program to take requests, however many deploys there are.
const START: Duration = Duration::from_secs(30);
/// Between two tries to start this program again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// How a successor is started: `--successor` among the arguments.
const SUCCESSOR: &str = "--successor";

/// Where a successor is to be found, as the one before it says: the file that it runs may have got
/// another name meanwhile. Nothing for a program that nobody has started as one.
pub(crate) fn path_of_successor() -> Option<PathBuf> {
    let is_successor = std::env::args_os().skip(1).any(|argument| argument == SUCCESSOR);
    let path = std::env::args_os().next().filter(|_| is_successor).map(PathBuf::from)?;
    path.is_absolute().then_some(path)
}

/// The sockets that are handed on.
#[derive(Debug)]
pub(crate) struct Sockets {
    /// Of the API and git.
    pub(crate) api: TcpListener,
    /// Of the router.
    pub(crate) http: TcpListener,
}

/// The new program, as the old one sees it. It ends itself where nothing is handed to it.
#[derive(Debug)]
pub(crate) struct Successor {
    child: Child,
    socket: UnixStream,
    /// Where the file of an upgrade is looked for, this one and the next.
    path: PathBuf,
}

impl Successor {
    /// Starts `program` with this one's arguments, and waits until its settings are right.
    ///
    /// # Errors
    ///
    /// It cannot be started, or ends before.
    pub(crate) fn start(program: &Path, heir: &Heir) -> io::Result<Self> {
        Self::start_as(program, program, heir)
    }

    /// As [`Successor::start`]; the file of later upgrades is at `path`.
    fn start_as(program: &Path, path: &Path, heir: &Heir) -> io::Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let arguments = std::env::args_os().skip(1).filter(|argument| argument != SUCCESSOR);
        let child = Command::new(program)
            .arg0(path)
            .args(arguments)
            .arg(SUCCESSOR)
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        heir.set(child.id());
        // Where memory is short, a failed upgrade takes nothing else along.
        oom::kill_first(child.id());
        let mut successor = Self { child, socket, path: path.to_owned() };
        successor.expect(READY, SETTINGS)?;
        Ok(successor)
    }

    /// Hands the sockets on, and waits until it takes requests. Where it does not, this program is
    /// started in its place, until it does or `heir` is told to end; gives why, then, and who goes on.
    /// `heir` is told who that is, and `say` that this is tried again.
    ///
    /// # Errors
    ///
    /// Neither goes on.
    pub(crate) fn go_on(
        mut self,
        sockets: &Sockets,
        heir: &Heir,
        say: impl Fn(String),
    ) -> io::Result<(Option<io::Error>, Self)> {
        let Err(error) = self.hand_over(sockets) else {
            heir.is_up();
            return Ok((None, self));
        };
        let mut is_said = false;
        loop {
            let again =
                Self::start_as(Path::new(ITSELF), &self.path, heir).and_then(|mut again| {
                    again.hand_over(sockets)?;
                    Ok(again)
                });
            let itself = match again {
                Ok(again) => {
                    heir.is_up();
                    return Ok((Some(error), again));
                }
                Err(itself) => itself,
            };
            let text = format!("{error}; nor does this one, started again: {itself}");
            if heir.is_told() {
                return Err(io::Error::other(text));
            }
            if !is_said {
                is_said = true;
                let what = "this one is started again every second, what runs goes on";
                say(format!("Upgrade failed: the new platform does not go on: {text}; {what}"));
            }
            std::thread::sleep(RETRY_DELAY);
        }
    }

    /// Hands the sockets on, and waits until it takes requests.
    ///
    /// # Errors
    ///
    /// It ends before, or takes too long and is killed.
    fn hand_over(&mut self, sockets: &Sockets) -> io::Result<()> {
        let fds = [sockets.api.as_fd(), sockets.http.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        match sendmsg(&self.socket, &[IoSlice::new(&[GO])], &mut ancillary, SendFlags::NOSIGNAL) {
            // It has ended: how, it is asked below.
            Ok(_) | Err(Errno::PIPE) => self.expect(UP, START)?,
            Err(error) => return Err(error.into()),
        }
        oom::as_this_one(self.child.id());
        Ok(())
    }

    /// Its process, and what connects to it.
    pub(crate) fn into_parts(self) -> (Child, UnixStream) {
        (self.child, self.socket)
    }

    /// Returns once it has ended, or let go of this one.
    pub(crate) async fn is_gone(&self) {
        let watch = || {
            let socket = self.socket.try_clone()?;
            socket.set_nonblocking(true)?;
            tokio::net::UnixStream::from_std(socket)
        };
        match watch() {
            Ok(watched) => drop(watched.readable().await),
            // It is asked at the end, as always.
            Err(_) => std::future::pending().await,
        }
    }

    /// Why one that is gone does not go on.
    pub(crate) fn why(mut self) -> io::Error {
        match self.expect(GO, LAST_WORDS) {
            Err(error) => error,
            Ok(()) => io::ErrorKind::InvalidData.into(),
        }
    }

    /// Gives it the time to say why it ends.
    fn let_end(&mut self) {
        let until = Instant::now() + LAST_WORDS;
        while Instant::now() < until && matches!(self.child.try_wait(), Ok(None)) {
            std::thread::sleep(LAST_WORDS / 100);
        }
    }

    fn expect(&mut self, word: u8, limit: Duration) -> io::Result<()> {
        self.socket.set_nonblocking(false)?;
        self.socket.set_read_timeout(Some(limit))?;
        let mut said = [0];
        let why = match self.socket.read_exact(&mut said) {
            Ok(()) if said[0] == word => return Ok(()),
            Ok(()) => "it is no `tolv` that can be upgraded to".to_owned(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                format!("it was not ready within {limit:?}")
            }
            Err(_) => {
                self.let_end();
                "it ended".to_owned()
            }
        };
        self.child.kill().ok();
        let status = self.child.wait()?;
        Err(io::Error::other(format!("{why} ({status})")))
    }
}

/// The process of the successor that goes on, which nobody waits for then: its id is no other's.
/// Clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heir(Arc<Mutex<Heirs>>);

#[derive(Debug, Default)]
struct Heirs {
    id: Option<Pid>,
    /// Whether this platform was told to end, and which process was told so for it.
    is_told: bool,
    told: Option<Pid>,
}

impl Heir {
    fn lock(&self) -> MutexGuard<'_, Heirs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its process id; 0 where there is none yet.
    pub(crate) fn id(&self) -> i32 {
        self.lock().id.map_or(0, Pid::as_raw_pid)
    }

    /// It is this one now.
    fn set(&self, id: u32) {
        self.lock().id = i32::try_from(id).ok().and_then(Pid::from_raw);
    }

    /// It takes requests: what this platform was told before it hears now.
    fn is_up(&self) {
        let heirs = self.lock();
        let is_news = heirs.is_told && heirs.told != heirs.id;
        drop(heirs);
        if is_news {
            self.terminate();
        }
    }

    /// Whether this platform was told to end.
    fn is_told(&self) -> bool {
        self.lock().is_told
    }

    /// Tells it to end, as this one was told to, now or as soon as it takes requests.
    pub(crate) fn terminate(&self) {
        let mut heirs = self.lock();
        heirs.is_told = true;
        heirs.told = heirs.id;
        if let Some(id) = heirs.id {
            kill_process(id, Signal::TERM).ok();
        }
    }

    /// Ends one that has nothing of the platform yet.
    pub(crate) fn give_up(&self) {
        if let Some(id) = self.lock().id {
            kill_process(id, Signal::KILL).ok();
        }
    }
}

/// Waits for the end of a program that goes on for this one; how it ended, where that was in disorder.
/// Its id stays its own.
pub(crate) fn crash_of(child: &Child) -> Option<String> {
    let id = i32::try_from(child.id()).ok().and_then(Pid::from_raw)?;
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let ended = loop {
        match waitid(WaitId::Pid(id), options) {
            Err(Errno::INTR) => {}
            ended => break ended.ok().flatten()?,
        }
    };
    match (ended.exit_status(), ended.terminating_signal()) {
        (Some(0), _) => None,
        (Some(status), _) => Some(format!("ended with status {status}")),
        (None, signal) => Some(format!("was killed by signal {}", signal.unwrap_or_default())),
    }
}

/// The old program, as the new one sees it.
#[derive(Debug)]
pub(crate) struct Predecessor {
    socket: UnixStream,
    /// Whether this one takes requests, and needs it no more.
    is_over: Arc<Mutex<bool>>,
}

impl Predecessor {
    /// At the other end of standard input, which is closed to whatever is started from here on.
    ///
    /// # Errors
    ///
    /// Standard input is no socket, or the system's.
    pub(crate) fn meet() -> io::Result<Self> {
        let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        socket.peer_addr()?;
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        let (watched, is_over) = (socket.try_clone()?, Arc::new(Mutex::new(false)));
        let until = Arc::clone(&is_over);
        std::thread::Builder::new()
            .name("old-program".to_owned())
            .spawn(move || end_with(&watched, &until))?;
        Ok(Self { socket, is_over })
    }

    /// Says that the settings are right, and waits for the sockets.
    ///
    /// # Errors
    ///
    /// The old program is gone, or goes on by itself.
    pub(crate) fn sockets(&mut self) -> io::Result<Sockets> {
        self.socket.write_all(&[READY])?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut word = [0];
        let mut buffers = [IoSliceMut::new(&mut word)];
        let flags = RecvFlags::CMSG_CLOEXEC;
        let received = recvmsg(&self.socket, &mut buffers, &mut ancillary, flags)?;
        let fds = ancillary.drain().filter_map(|message| match message {
            RecvAncillaryMessage::ScmRights(fds) => Some(fds),
            _ => None,
        });
        let fds: Vec<OwnedFd> = fds.flatten().collect();
        match (received.bytes, word, <[OwnedFd; 2]>::try_from(fds)) {
            (1, [GO], Ok([api, http])) => Ok(Sockets { api: api.into(), http: http.into() }),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// Says that requests are taken; gives what connections come from then.
    pub(crate) fn up(mut self) -> UnixStream {
        *self.is_over.lock().unwrap_or_else(PoisonError::into_inner) = true;
        // One that is gone needs not know.
        self.socket.write_all(&[UP]).ok();
        self.socket
    }
}

/// Ends this program at once where the old one is gone before this one takes requests: whoever starts
/// another in its place finds the addresses and the state folder free.
#[expect(clippy::exit, reason = "nothing of this program is to go on, whatever it waits for")]
fn end_with(socket: &UnixStream, is_over: &Mutex<bool>) {
    let mut hangup = [PollFd::new(socket, PollFlags::RDHUP)];
    while poll(&mut hangup, None) == Err(Errno::INTR) {}
    let is_over = is_over.lock().unwrap_or_else(PoisonError::into_inner);
    if !*is_over {
        let why = "the program that began this upgrade has ended, and so does this one";
        output::fail(&io::Error::other(why), None);
        std::process::exit(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_handed_on_after_the_settings() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let child = Command::new("true").spawn().unwrap();
        let mut old = Successor { child, socket: ours, path: PathBuf::new() };
        let listen = || TcpListener::bind("127.0.0.1:0").unwrap();
        let sockets = Sockets { api: listen(), http: listen() };
        let new = std::thread::spawn(move || {
            let mut predecessor = Predecessor { socket: theirs, is_over: Arc::default() };
            let sockets = predecessor.sockets().unwrap();
            predecessor.up();
            sockets
        });
        old.expect(READY, SETTINGS).unwrap();
        old.hand_over(&sockets).unwrap();
        let taken = new.join().unwrap();
        let at = |listener: &TcpListener| listener.local_addr().unwrap();
        assert_eq!(at(&taken.api), at(&sockets.api));
        assert_eq!(at(&taken.http), at(&sockets.http));
        old.child.wait().unwrap();
    }

    #[test]
    fn one_that_ends_or_says_nonsense_is_no_successor() {
        let said = |program: &str, words: &[u8]| {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let child = Command::new(program).spawn().unwrap();
            theirs.write_all(words).unwrap();
            drop(theirs);
            let mut old = Successor { child, socket: ours, path: PathBuf::new() };
            old.expect(READY, SETTINGS).unwrap_err().to_string()
        };
        assert!(said("false", b"").starts_with("it ended ("));
        assert!(said("true", b"x").starts_with("it is no `tolv` that can be upgraded to ("));
    }

    #[test]
    fn nothing_is_taken_from_one_that_is_gone() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let mut gone = Predecessor { socket: ours, is_over: Arc::default() };
        assert!(gone.sockets().is_err());
    }
}
