//! What a shim hears and says, and where the next supervisor comes in.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recv, recvmsg, send,
};

use crate::protocol::frozen::{self, Identity};
use crate::protocol::{FromShim, PACKET};

/// Where another supervisor comes in.
pub(super) struct Door {
    pub(super) listener: OwnedFd,
    pub(super) identity: Identity,
}

/// One packet, if one is there, and the descriptor that came with it.
pub(super) fn receive(
    control: &OwnedFd,
    packet: &mut [u8],
) -> Result<(usize, Option<OwnedFd>), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut buffers = [IoSliceMut::new(packet)];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(control.as_fd(), &mut buffers, &mut ancillary, flags)?;
    let fds = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(fds) => Some(fds),
        _ => None,
    });
    Ok((received.bytes, fds.flatten().next()))
}

/// Waits until the supervisor has heard the last word; false where it goes without.
pub(super) fn is_heard(control: &OwnedFd) -> bool {
    let mut packet = [0; PACKET];
    loop {
        match recv(control, &mut packet, RecvFlags::empty()) {
            // What it said before it went is behind the second.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Ok((read, _)) if read > 0 => {
                if serde_json::from_slice(&packet[..read]).ok() == Some(frozen::Order::Heard) {
                    return true;
                }
            }
            Ok(_) | Err(_) => return false,
        }
    }
}

/// Sends one packet, waiting `patience` at most for room.
pub(super) fn say(control: &OwnedFd, word: impl Into<FromShim>, patience: Duration) {
    let packet = word.into().to_bytes();
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    if send(control, &packet, flags) == Err(Errno::AGAIN) {
        let timeout = Timespec::try_from(patience).ok();
        if poll(&mut [PollFd::new(control, PollFlags::OUT)], timeout.as_ref()).is_ok() {
            // Still no room, or hung up: nobody listens.
            send(control, &packet, flags).ok();
        }
    }
}
