//! The supervisor's end of a shim's control socket.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType, recv, send, sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::protocol::{FromShim, PACKET, ToShim, frozen};

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
    pub(crate) async fn word(&self) -> Option<FromShim> {
        self.receive(FromShim::from_bytes).await
    }

    /// The next packet that is understood; nothing once the shim is gone.
    async fn receive<T>(&self, understand: impl Fn(&[u8]) -> Option<T>) -> Option<T> {
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
                Ok(read) => {
                    if let Some(word) = understand(&packet[..read]) {
                        return Some(word);
                    }
                }
            }
        }
    }

    /// Gives an order without waiting; whether there was room for it.
    pub(crate) fn order(&self, order: impl Into<ToShim>) -> bool {
        let packet = order.into().to_bytes();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        send(self.0.get_ref(), &packet, flags).is_ok()
    }

    /// Gives an order that a descriptor comes with, without waiting.
    ///
    /// # Errors
    ///
    /// There is no room for it, or the shim is gone.
    pub(crate) fn order_with(
        &self,
        order: impl Into<ToShim>,
        fd: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let packet = order.into().to_bytes();
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        let (fds, buffers) = ([fd], [io::IoSlice::new(&packet)]);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&fds));
        sendmsg(self.0.get_ref(), &buffers, &mut ancillary, flags)?;
        Ok(())
    }
}

/// The control socket of a shim that may be of another version: it takes and gives frozen messages
/// alone.
#[derive(Debug)]
pub(crate) struct FrozenControl(Control);

impl FrozenControl {
    pub(crate) fn new(socket: OwnedFd) -> io::Result<Self> {
        Ok(Self(Control::new(socket)?))
    }

    /// The next frozen word; nothing once the shim is gone. May be dropped at any time.
    pub(crate) async fn word(&self) -> Option<frozen::Word> {
        self.0.receive(|packet| serde_json::from_slice(packet).ok()).await
    }

    /// Gives an order without waiting; whether there was room for it.
    pub(crate) fn order(&self, order: frozen::Order) -> bool {
        self.0.order(order)
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
