//! Packets and descriptors over a `SOCK_SEQPACKET` pair, and the byte form of an [`Exec`].
//!
//! Requests and answers are JSON; what may be large or secret travels in a memfd beside them,
//! so that the spawner itself never reads a payload.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, recvmsg,
    sendmsg, socketpair,
};
use serde::{Deserialize, Serialize};

use crate::cgroup::{Budget, CgroupFacts};
use crate::level::Reason;
use crate::network::NetworkChoice;

/// Most descriptors in one launch; the kernel's own limit is 253.
pub(crate) const MAX_FDS: usize = 200;
const MAX_PACKET: usize = 64 * 1024;

/// From the handle to the spawner.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Request {
    /// Descriptors: memfd, answer socket, the network namespace to join where there is one, then
    /// those of the launch.
    Launch {
        body: String,
        /// The memfd is the spec in JSON, this many bytes, then the payload.
        spec_bytes: usize,
        joins_network: bool,
        /// The bytes of the folder that no sandbox shows, beside the mounts that lie in it.
        hidden: Option<Vec<u8>>,
    },
    /// Descriptor: answer socket. Whether somebody answers.
    Ping,
    /// Descriptor: answer socket.
    Cgroups,
    /// Descriptor: answer socket. From here on launches are as this choice says.
    Network(NetworkChoice),
    /// Descriptor: answer socket.
    Bound(Budget),
}

/// On a request's own answer socket: from the spawner, and from the child that it forked.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Answer {
    /// Descriptor: pidfd.
    Launched {
        pid: i32,
    },
    /// From the child: it is in its sandbox.
    Entered,
    Failed(Reason),
    Bad(String),
    /// To a ping.
    Alive,
    Cgroups(CgroupFacts),
    /// Why processes have no networks of their own, if they have none.
    Network(Option<String>),
    /// What could not be bounded.
    Bound(Vec<Reason>),
}

/// A connected pair.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (kind, flags) = (SocketType::SEQPACKET, SocketFlags::CLOEXEC);
    Ok(socketpair(AddressFamily::UNIX, kind, flags, None)?)
}

/// Sends one packet with descriptors.
pub(crate) fn send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    send_bytes(socket, &bytes, fds)
}

/// As [`send`], where there is room for it.
///
/// # Errors
///
/// [`io::ErrorKind::WouldBlock`] where there is none.
pub(crate) fn try_send(
    socket: BorrowedFd<'_>,
    message: &impl Serialize,
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    send_with(socket, &bytes, fds, SendFlags::DONTWAIT)
}

pub(crate) fn send_bytes(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    send_with(socket, bytes, fds, SendFlags::empty())
}

fn send_with(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS + 3))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags | SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Receives one packet; `None` at the end.
pub(crate) fn receive(socket: BorrowedFd<'_>) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
    let mut buffer = vec![0; MAX_PACKET];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS + 3))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let mut parts = [IoSliceMut::new(&mut buffer)];
        match recvmsg(socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => break got,
            Err(rustix::io::Errno::INTR) => {}
            Err(rustix::io::Errno::CONNRESET) => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    };
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    if got.flags.intersects(ReturnFlags::TRUNC | ReturnFlags::CTRUNC) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "packet too large"));
    }
    if got.bytes == 0 {
        return Ok(None);
    }
    buffer.truncate(got.bytes);
    Ok(Some((buffer, fds)))
}

/// A memfd that holds these parts, one after the other.
pub(crate) fn memory_file(parts: &[&[u8]]) -> io::Result<OwnedFd> {
    let fd = memfd_create(c"launch", MemfdFlags::CLOEXEC)?;
    for part in parts {
        write_all(fd.as_fd(), part)?;
    }
    Ok(fd)
}

/// Writes everything.
pub(crate) fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => bytes = bytes.get(n..).unwrap_or_default(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Reads `length` bytes (or to the end, if it is `None`) from an offset.
pub(crate) fn read_at(
    fd: BorrowedFd<'_>,
    offset: usize,
    length: Option<usize>,
) -> io::Result<Vec<u8>> {
    let size = usize::try_from(rustix::fs::fstat(fd)?.st_size).unwrap_or(0);
    let wanted = length.unwrap_or_else(|| size.saturating_sub(offset));
    if offset.checked_add(wanted).is_none_or(|end| end > size) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut bytes = vec![0; wanted];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match rustix::io::pread(fd, rest, (offset + done) as u64) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => done += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(bytes)
}
