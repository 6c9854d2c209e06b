//! The program nft, and the kernel's word of what became of a table.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

use crate::level::Reason;
use crate::sys::errno;

/// Where nft is, by the habits of the distributions.
const PROGRAMS: [&str; 4] = ["/usr/sbin/nft", "/sbin/nft", "/usr/bin/nft", "/bin/nft"];
/// For nft to end; it takes some milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);
/// After this it is late.
const LATE: Duration = Duration::from_millis(50);
/// What is read of its output.
const MAX_OUTPUT: usize = 4 << 20;

/// Runs nft; gives what it printed.
///
/// # Errors
///
/// It is not installed, refuses, or does not end in time: then it is killed.
pub(crate) fn run(args: &[&str], input: Option<&str>) -> Result<String, Reason> {
    run_watched(args, input, &mut || {})
}

/// As [`run`]; `late` is called once where it takes longer than it should.
pub(crate) fn run_watched(
    args: &[&str],
    input: Option<&str>,
    late: &mut dyn FnMut(),
) -> Result<String, Reason> {
    let Some(program) = PROGRAMS.into_iter().find(|program| Path::new(program).exists()) else {
        return Err(Reason::new("nft is not installed (package nftables)", libc::ENOENT));
    };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::TimedOut => Reason::new("nft does not end", libc::ETIMEDOUT),
        _ => Reason::new("run nft", errno(&error)),
    };
    let mut child = Command::new(program)
        .args(args)
        .env_clear()
        .stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let ended = finish(&mut child, input, late);
    if ended.is_err() {
        // Gone already is what is wanted.
        child.kill().ok();
        child.wait().ok();
    }
    let (stdout, stderr) = ended.map_err(failed)?;
    if child.wait().map_err(failed)?.success() {
        return Ok(String::from_utf8_lossy(&stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&stderr);
    let said = said.lines().next().unwrap_or_default().trim().to_owned();
    Err(Reason::new(format!("nft {}: {said}", args.first().unwrap_or(&"")), 0))
}

/// Gives it its input and takes its output, to the end of both.
fn finish(
    child: &mut Child,
    input: Option<&str>,
    late: &mut dyn FnMut(),
) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let began = Instant::now();
    let (deadline, mut late_at) = (began + TIMEOUT, Some(began + LATE));
    if let (Some(mut stdin), Some(text)) = (child.stdin.take(), input) {
        // A few KiB: it fits into the pipe.
        stdin.write_all(text.as_bytes())?;
    }
    let (mut stdout, mut stderr) = (child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut buffer = [0; 8192];
    while stdout.is_some() || stderr.is_some() {
        if late_at.is_some_and(|at| at <= Instant::now()) {
            late_at = None;
            late();
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() || out.len() > MAX_OUTPUT {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let fds = stdout.iter().map(|end| end.as_fd()).chain(stderr.iter().map(|end| end.as_fd()));
        let mut fds: Vec<_> =
            fds.map(|fd: BorrowedFd<'_>| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        let until_late = late_at.map(|at| at.saturating_duration_since(Instant::now()));
        let timeout = Timespec::try_from(until_late.map_or(left, |late| late.min(left))).ok();
        if poll(&mut fds, timeout.as_ref()).is_err() {
            continue;
        }
        let ready: Vec<_> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        drop(fds);
        let mut ready = ready.into_iter();
        if stdout.is_some() && ready.next() == Some(true) {
            match stdout.as_mut().map_or(Ok(0), |end| end.read(&mut buffer))? {
                0 => stdout = None,
                read => out.extend_from_slice(&buffer[..read]),
            }
        }
        if stderr.is_some() && ready.next() == Some(true) {
            match stderr.as_mut().map_or(Ok(0), |end| end.read(&mut buffer))? {
                0 => stderr = None,
                read => err.extend_from_slice(&buffer[..read]),
            }
        }
    }
    Ok((out, err))
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

    /// Takes in what has come; of which of these tables something was changed, or may have been.
    pub(crate) fn lost(&self, tables: &[String]) -> Vec<bool> {
        let mut lost = vec![false; tables.len()];
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) | Err(rustix::io::Errno::AGAIN) => return lost,
                Ok((read, _)) => {
                    let messages = &buffer[..read.min(buffer.len())];
                    for (lost, table) in lost.iter_mut().zip(tables) {
                        *lost |= names(messages, table);
                    }
                }
                // More came than there was room for.
                Err(rustix::io::Errno::NOBUFS) => lost.fill(true),
                Err(_) => return lost,
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
