//! The supervisor's end of a shim's control socket.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socketpair,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::protocol::{Order, PACKET, Word};

/// The control socket. The shim ends its app when this is closed.
#[derive(Debug)]
pub(crate) struct Control(AsyncFd<OwnedFd>);

impl Control {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        #[expect(unsafe_code, reason = "tokio asks for the descriptor to stay the same")]
        // SAFETY: an `OwnedFd` that is moved in stays open, and the same, until it is dropped
        // with the `AsyncFd`.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE)? };
        Ok(Self(socket))
    }

    /// The next word; nothing once the shim is gone. May be dropped at any time.
    pub(crate) async fn word(&self) -> Option<Word> {
        let mut packet = [0; PACKET];
        loop {
            let read = self.0.async_io(Interest::READABLE, |socket| {
                Ok(recv(socket, &mut packet, RecvFlags::DONTWAIT)?.0)
            });
            match read.await {
                // It went without having read an order: its words come behind this error.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
                Ok(0) | Err(_) => return None,
                // A word of another version says nothing that is understood here.
                Ok(read) => match serde_json::from_slice(&packet[..read]) {
                    Ok(word) => return Some(word),
                    Err(_) => continue,
                },
            }
        }
    }

    /// Gives an order without waiting; whether there was room for it.
    pub(crate) fn order(&self, order: &Order) -> bool {
        let Ok(packet) = serde_json::to_vec(order) else { return false };
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        send(self.0.get_ref(), &packet, flags).is_ok()
    }
}

/// A control socket and the shim's end of it.
pub(crate) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    // Not at its making: the shim's end, whose flags are its own, polls.
    rustix::io::ioctl_fionbio(&ours, true)?;
    Ok((ours, theirs))
}

#[cfg(test)]
mod tests;
