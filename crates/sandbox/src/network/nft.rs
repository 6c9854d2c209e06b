//! The program nft, which runs beside everything else that this process does, and the kernel's word
//! of what became of a table.

use std::fs;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, OFlags, fcntl_setfl, memfd_create};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, kill_process_group};
use rustix::process::{pidfd_open, waitpid};

use crate::level::Reason;
use crate::reap::Ended;

/// Where nft is, by the habits of the distributions.
const PROGRAMS: [&str; 4] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/bin/nft"];
/// For nft to end; it takes some milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What it may print: an error has a line or two.
const MAX_OUTPUT: usize = 64 * 1024;
/// Between two looks whether it has ended, where nothing else says so.
const LOOK_DELAY: Duration = Duration::from_millis(20);

/// One nft, until it has ended or was given up. It is this process's child: whoever collects it with
/// others says so by [`Run::collected`].
#[derive(Debug)]
pub(super) struct Run {
    pid: Pid,
    pidfd: Option<OwnedFd>,
    began: Instant,
    ended: Option<Ended>,
    stderr: ChildStderr,
    /// Whether nothing more can come from there.
    is_silent: bool,
    printed: Vec<u8>,
}

impl Run {
    /// Starts nft on a text, which it reads as its file.
    ///
    /// # Errors
    ///
    /// It is not installed, or cannot be started.
    pub(super) fn start(text: &str) -> Result<Self, Reason> {
        let failed = |error: io::Error| Reason::io("run nft", &error);
        let Some(program) = PROGRAMS.into_iter().find(|program| Path::new(program).exists()) else {
            return Err(Reason::new("nft is not installed (package nftables)", libc::ENOENT));
        };
        let input = memfd_create(c"rules", MemfdFlags::CLOEXEC).map_err(|it| failed(it.into()))?;
        let mut input = fs::File::from(input);
        input.write_all(text.as_bytes()).and_then(|()| input.rewind()).map_err(failed)?;
        let mut child = Command::new(program)
            .args(["-f", "-"])
            .env_clear()
            .current_dir("/")
            .process_group(0)
            .stdin(Stdio::from(input))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let (Some(pid), Some(stderr)) = (pid, child.stderr.take()) else {
            return Err(Reason::new("run nft", libc::ESRCH));
        };
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).ok();
        let began = Instant::now();
        let run =
            Self { pid, pidfd, began, ended: None, stderr, is_silent: false, printed: Vec::new() };
        match fcntl_setfl(&run.stderr, OFlags::NONBLOCK) {
            Ok(()) => Ok(run),
            // Dropped, it is killed.
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Since its start.
    pub(super) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Until it is given up.
    pub(super) fn time_left(&self) -> Duration {
        TIMEOUT.saturating_sub(self.began.elapsed())
    }

    /// Readable when [`Run::look`] has something to look at, beside the end of a child.
    pub(super) fn output(&self) -> Option<BorrowedFd<'_>> {
        (!self.is_silent).then(|| self.stderr.as_fd())
    }

    pub(super) fn pid(&self) -> Pid {
        self.pid
    }

    /// It was collected as one of this process's children.
    pub(super) fn collected(&mut self, ended: Ended) {
        self.ended = Some(ended);
    }

    /// What became of it; nothing while it runs. Never waits. What is not over in time, or prints
    /// without end, is given up: dropped, it is killed.
    pub(super) fn look(&mut self) -> Option<Result<(), Reason>> {
        // Before what it printed is read, which is all there then.
        self.collect();
        let is_too_much = match self.read() {
            Ok(is_too_much) => is_too_much,
            Err(error) => return Some(Err(Reason::io("read what nft prints", &error))),
        };
        if is_too_much {
            let text = format!("nft printed more than {MAX_OUTPUT} bytes and was killed");
            return Some(Err(Reason::new(text, 0)));
        }
        match self.ended {
            Some(Ended::Exited(0)) => Some(Ok(())),
            Some(ended) => Some(Err(Reason::new(format!("nft {}", self.complaint(ended)), 0))),
            None if self.time_left().is_zero() => {
                let limit = TIMEOUT.as_secs();
                let text = format!("nft did not end within {limit} s and was killed");
                Some(Err(Reason::new(text, 0)))
            }
            None => None,
        }
    }

    /// As [`Run::look`], and waits for it: for the start, when nobody else waits for this process.
    pub(super) fn wait(mut self) -> Result<(), Reason> {
        loop {
            if let Some(done) = self.look() {
                return done;
            }
            // A pipe whose other end is closed is readable for ever.
            let mut fds: Vec<_> =
                self.pidfd.iter().map(|pidfd| PollFd::new(pidfd, PollFlags::IN)).collect();
            let timeout = Timespec::try_from(self.time_left().min(LOOK_DELAY)).ok();
            // Interrupted, it is looked at a little earlier.
            poll(&mut fds, timeout.as_ref()).ok();
        }
    }

    fn collect(&mut self) {
        if self.ended.is_some() {
            return;
        }
        self.ended = match waitpid(Some(self.pid), WaitOptions::NOHANG) {
            Ok(Some((_, status))) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => Some(Ended::Exited(code)),
                (None, Some(signal)) => Some(Ended::Signaled(signal)),
                (None, None) => None,
            },
            Ok(None) | Err(_) => None,
        };
    }

    /// Takes in what it has printed; whether that is too much.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 8192];
        while !self.is_silent && self.printed.len() <= MAX_OUTPUT {
            match self.stderr.read(&mut buffer) {
                Ok(0) => {
                    self.is_silent = true;
                    return Ok(false);
                }
                Ok(read) => self.printed.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(!self.is_silent)
    }

    /// The first line that it printed, or how it ended.
    fn complaint(&self, ended: Ended) -> String {
        let printed = String::from_utf8_lossy(&self.printed);
        match (printed.lines().find(|line| !line.trim().is_empty()), ended) {
            (Some(line), _) => {
                format!("said: {}", line.trim().chars().take(300).collect::<String>())
            }
            (None, Ended::Exited(code)) => format!("ended with exit code {code}"),
            (None, Ended::Signaled(signal)) => format!("was ended by signal {signal}"),
        }
    }
}

impl Drop for Run {
    /// Ends it, and what it has started, without waiting for that: it may hang in the kernel.
    /// It is collected with this process's other children.
    fn drop(&mut self) {
        if self.ended.is_none() {
            // Its group may not be there yet. Gone already is what is wanted.
            kill_process(self.pid, Signal::KILL).ok();
            kill_process_group(self.pid, Signal::KILL).ok();
        }
    }
}

/// `NFNLGRP_NFTABLES` as a bit of the groups to hear.
const CHANGES: u32 = 1 << 6;
/// Of `struct nlmsghdr`.
const HEADER: usize = 16;
/// `NFT_MSG_NEWTABLE`, which also says that a table sleeps (`dormant`), `…DELTABLE`, `…NEWCHAIN`,
/// `…DELCHAIN`, `…NEWRULE`, `…DELRULE`, in the low byte of a message's type.
const CHANGED: [u8; 6] = [0, 2, 3, 5, 6, 8];

/// Hears what is changed in the machine's tables (nfnetlink).
#[derive(Debug)]
pub(crate) struct Watch(OwnedFd);

impl Watch {
    pub(crate) fn open() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let protocol = Some(netlink::NETFILTER);
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
        bind(&socket, &SocketAddrNetlink::new(0, CHANGES))?;
        Ok(Self(socket))
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Takes in what has come; of which of these tables something was changed, or may have been: of
    /// all of them where the kernel cannot be heard, and why.
    pub(crate) fn lost(&self, tables: &[String]) -> (Vec<bool>, io::Result<()>) {
        let mut lost = vec![false; tables.len()];
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(rustix::io::Errno::AGAIN) => return (lost, Ok(())),
                Err(rustix::io::Errno::INTR) => {}
                Ok((read, _)) => {
                    let messages = &buffer[..read.min(buffer.len())];
                    for (lost, table) in lost.iter_mut().zip(tables) {
                        *lost |= names(messages, table);
                    }
                }
                // More came than there was room for.
                Err(rustix::io::Errno::NOBUFS) => lost.fill(true),
                Err(error) => {
                    lost.fill(true);
                    return (lost, Err(error.into()));
                }
            }
        }
    }
}

/// Whether one of these messages says that something of a table has changed.
fn names(mut messages: &[u8], table: &str) -> bool {
    while let Some(length) = messages.get(..4).and_then(|bytes| bytes.try_into().ok()) {
        let length = usize::try_from(u32::from_ne_bytes(length)).unwrap_or(0);
        let Some(message) = messages.get(..length).filter(|message| message.len() >= HEADER) else {
            return false;
        };
        let kind = u16::from_ne_bytes([message[4], message[5]]).to_le_bytes()[0];
        let mut parts = message.windows(table.len().max(1));
        if CHANGED.contains(&kind) && parts.any(|part| part == table.as_bytes()) {
            return true;
        }
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    false
}

#[cfg(test)]
mod tests;
