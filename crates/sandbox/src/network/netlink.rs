//! The few messages of rtnetlink(7) that a pair of interfaces needs.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

const HEADER: usize = 16;
/// Of an answer: header, error number, the header that it answers.
const ANSWER: usize = 4096;

/// A message that is being put together.
pub(crate) struct Message(Vec<u8>);

impl Message {
    /// A message of a type, with its fixed part.
    pub(crate) fn new(kind: u16, flags: i32, fixed: &[u8]) -> Self {
        let flags = u16::try_from(flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK).unwrap_or(0);
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(flags.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(fixed);
        Self(bytes)
    }

    /// Adds an attribute.
    pub(crate) fn with(mut self, kind: u16, value: &[u8]) -> Self {
        self.add(kind, |bytes| bytes.extend(value));
        self
    }

    /// Adds an attribute that others are in.
    pub(crate) fn nest(mut self, kind: u16, inner: impl FnOnce(Self) -> Self) -> Self {
        let at = self.0.len();
        self.add(kind, |_| {});
        let mut done = inner(self);
        done.close(at);
        done
    }

    /// Adds bytes as they are.
    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    fn add(&mut self, kind: u16, value: impl FnOnce(&mut Vec<u8>)) {
        let at = self.0.len();
        self.0.extend([0; 2]);
        self.0.extend(kind.to_ne_bytes());
        value(&mut self.0);
        self.close(at);
    }

    /// Writes an attribute's length; the next one begins at a multiple of four.
    fn close(&mut self, at: usize) {
        let length = u16::try_from(self.0.len() - at).unwrap_or(0);
        self.0[at..at + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }
}

/// A socket for such messages, in the namespace that it was opened in.
#[derive(Debug)]
pub(crate) struct Netlink(OwnedFd);

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        // The protocol 0 is NETLINK_ROUTE.
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        Ok(Self(socket_with(family, kind, SocketFlags::CLOEXEC, None)?))
    }

    /// Sends a message and waits for the kernel's answer to it, which comes at once.
    pub(crate) fn ask(&self, message: Message) -> io::Result<()> {
        let Message(mut bytes) = message;
        let length = u32::try_from(bytes.len()).unwrap_or(0);
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.0, &bytes, SendFlags::empty(), &kernel)?;
        let mut answer = [0; ANSWER];
        let (read, _) = recv(&self.0, &mut answer[..], RecvFlags::empty())?;
        let error = answer.get(HEADER..HEADER + 4).filter(|_| read >= HEADER + 4);
        let error = error.and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
        match error {
            Some(0) => Ok(()),
            Some(negative) => Err(io::Error::from_raw_os_error(-negative)),
            None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}
