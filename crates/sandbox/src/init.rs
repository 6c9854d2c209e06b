//! The body `exec`: a small init that runs one program and reports its end.

use std::ffi::OsStr;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};

use crate::app::Entered;
use crate::reap::{Ended, SignalFd, kill_descendants, reap_all};
use crate::wire;

/// The name of this body; every spawner has it.
pub(crate) const EXEC_BODY: &str = "exec";

/// A program to execute: the payload of the body `exec`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Exec {
    /// Program and arguments; a program without a slash is searched in the `PATH` of `env`.
    pub argv: Vec<Vec<u8>>,
    /// The whole environment, as `KEY=value`.
    pub env: Vec<Vec<u8>>,
    /// Working directory, as the process sees it.
    pub cwd: PathBuf,
}

impl Exec {
    /// The number of arguments, the folder, the arguments, the environment: each ends with a zero
    /// byte, which none of them can hold. Nothing where one does.
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        let count = self.argv.len().to_string();
        let head = [count.as_bytes(), self.cwd.as_os_str().as_bytes()];
        let rest = self.argv.iter().chain(&self.env).map(Vec::as_slice);
        let mut bytes = Vec::new();
        for part in head.into_iter().chain(rest) {
            if part.contains(&0) {
                return None;
            }
            bytes.extend_from_slice(part);
            bytes.push(0);
        }
        Some(bytes)
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let mut parts = bytes.strip_suffix(&[0])?.split(|&byte| byte == 0);
        let count: usize = std::str::from_utf8(parts.next()?).ok()?.parse().ok()?;
        let cwd = PathBuf::from(OsStr::from_bytes(parts.next()?));
        let argv: Vec<_> = parts.by_ref().take(count).map(<[u8]>::to_vec).collect();
        let env = parts.map(<[u8]>::to_vec).collect();
        (argv.len() == count).then_some(Self { argv, env, cwd })
    }
}

/// What the init says on its control socket, one packet each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Report {
    /// The program ended with this code.
    Exited(i32),
    /// The program was ended by this signal.
    Signaled(i32),
    /// The program did not start.
    ExecFailed {
        /// The error number, exactly.
        errno: i32,
        /// The step or the program.
        what: String,
    },
    /// Sent before the end where the kernel killed for want of memory: how often.
    OomKills(u64),
}

/// Descriptors: control, stdin, stdout, stderr. Ends, and all below it, when the program ends or
/// the control socket is closed.
pub(crate) fn body(entered: Entered) -> i32 {
    match serve(entered) {
        Some(()) => 0,
        None => 1,
    }
}

fn serve(mut entered: Entered) -> Option<()> {
    let exec = Exec::from_bytes(&entered.payload)?;
    entered.payload = Vec::new();
    let fds: [OwnedFd; 4] = std::mem::take(&mut entered.fds).try_into().ok()?;
    let [control, stdin, stdout, stderr] = fds;
    let say = |report: &Report| wire::send(control.as_fd(), report, &[]).ok();
    let signals = SignalFd::new(&[libc::SIGCHLD]).ok()?;
    let stdio = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
    let leader = match entered.exec(&exec.argv, &exec.env, &exec.cwd, stdio) {
        Ok(leader) => leader,
        Err(bad) => return say(&Report::ExecFailed { errno: bad.errno, what: bad.what }),
    };
    // The pipes end with the program's.
    drop((stdin, stdout, stderr));
    let mut ended = None;
    while ended.is_none() {
        let mut fds = [PollFd::new(&signals, PollFlags::IN), PollFd::new(&control, PollFlags::IN)];
        if poll(&mut fds, None).is_err() {
            continue;
        }
        if !fds[1].revents().is_empty() {
            break;
        }
        signals.drain();
        ended = reap_all().into_iter().find(|(pid, _)| *pid == leader).map(|(_, how)| how);
    }
    let swept = kill_descendants();
    let swept = swept.into_iter().find(|(pid, _)| *pid == leader).map(|(_, how)| how);
    let oom_kills = entered.oom_kills();
    if oom_kills > 0 {
        say(&Report::OomKills(oom_kills));
    }
    match ended.or(swept)? {
        Ended::Exited(code) => say(&Report::Exited(code)),
        Ended::Signaled(signal) => say(&Report::Signaled(signal)),
    }
}

#[cfg(test)]
mod tests;
