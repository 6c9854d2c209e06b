//! What a pid 1 (or a child subreaper) owes to the processes below it: to hear of their end, to
//! collect it, and to leave none behind.
//!
//! A body starts with every signal blocked. `SIGCHLD` therefore cannot get lost between the
//! start of a child and the first wait: a [`SignalFd`] made at any later time still reports it.

use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, Signal, WaitOptions, getpid, getpriority_process, kill_process, setpriority_process, wait,
};
use serde::{Deserialize, Serialize};

use crate::sys;

/// Of a body: 64 busy processes of its app together have little more CPU time than it then.
const BODY_NICE: i32 = -15;

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ended {
    /// With this exit code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

/// Collects every child that has ended, without waiting.
pub fn reap_all() -> Vec<(Pid, Ended)> {
    reap_all_and(&mut |_| {})
}

/// As [`reap_all`]; `stopped` hears of every child that a signal has stopped since.
pub(crate) fn reap_all_and(stopped: &mut dyn FnMut(Pid)) -> Vec<(Pid, Ended)> {
    let mut ended = Vec::new();
    while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG | WaitOptions::UNTRACED) {
        if status.stopped() {
            stopped(pid);
            continue;
        }
        let how = match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Ended::Exited(code),
            (None, Some(signal)) => Ended::Signaled(signal),
            (None, None) => continue,
        };
        ended.push((pid, how));
    }
    ended
}

/// Whether this process has children, ended and uncollected ones included.
pub fn has_children() -> bool {
    !children_of(getpid()).is_empty()
}

/// Sends a signal to every descendant.
pub fn signal_descendants(signal: Signal) {
    if getpid().is_init() {
        return sys::signal_all(signal.as_raw());
    }
    for pid in descendants_of(getpid()) {
        // Gone already is fine.
        kill_process(pid, signal).ok();
    }
}

/// Lets the calling body run before what it looks after, however many that are: it has to read what
/// they write, and to end them. Where that is not allowed they share. Gives the nice value before.
pub(crate) fn go_first() -> i32 {
    let before = getpriority_process(None).unwrap_or(0);
    setpriority_process(None, BODY_NICE.min(before)).ok();
    before
}

/// For the app: the place that its body had.
pub(crate) fn go_as_before(nice: i32) {
    setpriority_process(None, nice).ok();
}

/// Kills every descendant and collects it, until none is left.
///
/// Works as pid 1 and as a child subreaper. Returns what it collected.
pub fn kill_descendants() -> Vec<(Pid, Ended)> {
    let mut ended = reap_all();
    let alone = getpid();
    let signals = SignalFd::new(&[libc::SIGCHLD]).ok();
    loop {
        if children_of(alone).is_empty() {
            return ended;
        }
        signal_descendants(Signal::KILL);
        if let Some(signals) = &signals {
            // A short time-out: what was forked meanwhile sends no signal.
            signals.wait(Duration::from_millis(5));
            signals.drain();
        }
        ended.extend(reap_all());
    }
}

fn descendants_of(root: Pid) -> Vec<Pid> {
    let mut found = children_of(root);
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(children_of(pid));
        next += 1;
    }
    found
}

/// The children of a single-threaded process, or of all threads of another.
pub(crate) fn children_of(pid: Pid) -> Vec<Pid> {
    let tasks = format!("/proc/{}/task", pid.as_raw_nonzero());
    let Ok(threads) = fs::read_dir(tasks) else {
        return Vec::new();
    };
    let mut children = Vec::new();
    for thread in threads.flatten() {
        let Ok(text) = fs::read_to_string(thread.path().join("children")) else {
            continue;
        };
        children.extend(
            text.split_ascii_whitespace().filter_map(|n| n.parse().ok()).filter_map(Pid::from_raw),
        );
    }
    children
}

/// Blocked signals as a readable descriptor.
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks the signals and makes a descriptor that tells of them.
    ///
    /// # Errors
    ///
    /// The system's, as for too many open files.
    pub fn new(signals: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        #[expect(unsafe_code, reason = "signalfd has no safe wrapper here")]
        // SAFETY: `sigemptyset` fills the set before it is read; all pointers are valid for the
        // calls; the descriptor returned is new and owned by nobody else.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for &signal in signals {
                libc::sigaddset(set.as_mut_ptr(), signal);
            }
            libc::sigprocmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            OwnedFd::from_raw_fd(fd)
        };
        Ok(Self(fd))
    }

    /// Takes every signal that has come, oldest first; never waits.
    pub fn drain(&self) -> Vec<i32> {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut came = Vec::new();
        let mut buffer = [0_u8; SIZE];
        while let Ok(n) = rustix::io::read(self.0.as_fd(), &mut buffer[..]) {
            if n < SIZE {
                break;
            }
            let number = u32::from_ne_bytes([buffer[0], buffer[1], buffer[2], buffer[3]]);
            came.extend(i32::try_from(number));
        }
        came
    }

    /// Waits until a signal has come or the time is up; says whether one has.
    pub fn wait(&self, limit: Duration) -> bool {
        let timeout = Timespec::try_from(limit).ok();
        let mut fds = [PollFd::new(&self.0, PollFlags::IN)];
        matches!(poll(&mut fds, timeout.as_ref()), Ok(n) if n > 0)
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for SignalFd {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}
