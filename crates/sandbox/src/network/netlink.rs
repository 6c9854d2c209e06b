//! The few messages of rtnetlink(7) that a pair of interfaces needs.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

const HEADER: usize = 16;
/// Where the number of a question is in it.
const SEQUENCE: usize = 8;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const IFLA_EXT_MASK: u16 = 29;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
/// More than the kernel sends at once of a list.
const DUMPED: usize = 64 * 1024;
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
pub(crate) struct Netlink {
    socket: OwnedFd,
    /// Of the last question: its answer has it too.
    sequence: AtomicU32,
}

/// An interface of the namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) name: String,
}

impl Netlink {
    pub(crate) fn open() -> io::Result<Self> {
        // The protocol 0 is NETLINK_ROUTE.
        let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
        let socket = socket_with(family, kind, SocketFlags::CLOEXEC, None)?;
        Ok(Self { socket, sequence: AtomicU32::new(0) })
    }

    fn send(&self, message: Message) -> io::Result<u32> {
        let Message(mut bytes) = message;
        let length = u32::try_from(bytes.len()).unwrap_or(0);
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[8..12].copy_from_slice(&sequence.to_ne_bytes());
        let kernel = SocketAddrNetlink::new(0, 0);
        sendto(&self.socket, &bytes, SendFlags::empty(), &kernel)?;
        Ok(sequence)
    }

    /// Sends a message and waits for the kernel's answer to it, which comes at once.
    pub(crate) fn ask(&self, message: Message) -> io::Result<()> {
        let sequence = self.send(message)?;
        let mut answer = [0; ANSWER];
        loop {
            let (read, _) = recv(&self.socket, &mut answer[..], RecvFlags::empty())?;
            let answer = answer.get(..read).unwrap_or_default();
            // What is left of a question that was given up.
            if number(answer, SEQUENCE) != Some(sequence) {
                continue;
            }
            return match number(answer, HEADER) {
                Some(error) => outcome(error),
                None => Err(io::ErrorKind::InvalidData.into()),
            };
        }
    }

    /// The interfaces of the namespace. No descriptor is needed for it.
    pub(crate) fn interfaces(&self) -> io::Result<Vec<Interface>> {
        let all = Message::new(libc::RTM_GETLINK, libc::NLM_F_DUMP, &[0; 16])
            .with(IFLA_EXT_MASK, &RTEXT_FILTER_SKIP_STATS.to_ne_bytes());
        let sequence = self.send(all)?;
        let (mut found, mut buffer) = (Vec::new(), vec![0; DUMPED]);
        loop {
            let (read, _) = recv(&self.socket, &mut buffer[..], RecvFlags::empty())?;
            let mut messages = buffer.get(..read).unwrap_or_default();
            while let Some(length) = number(messages, 0) {
                let length = usize::try_from(length).unwrap_or(0);
                let Some(message) = messages.get(..length).filter(|it| it.len() >= HEADER) else {
                    return Err(io::ErrorKind::InvalidData.into());
                };
                if number(message, SEQUENCE) == Some(sequence) {
                    match u16::from_ne_bytes([message[4], message[5]]) {
                        NLMSG_ERROR | NLMSG_DONE => {
                            outcome(number(message, HEADER).unwrap_or(0))?;
                            return Ok(found);
                        }
                        libc::RTM_NEWLINK => found.extend(interface_in(message)),
                        _ => {}
                    }
                }
                messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }
}

/// Of a message `RTM_NEWLINK`: header, `struct ifinfomsg`, attributes.
fn interface_in(message: &[u8]) -> Option<Interface> {
    let index = number(message, HEADER + 4)?;
    let mut attributes = message.get(HEADER + 16..)?;
    while let Some(&[a, b, c, d]) = attributes.first_chunk() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = attributes.get(4..length)?;
        if u16::from_ne_bytes([c, d]) == libc::IFLA_IFNAME {
            let name = value.split(|byte| *byte == 0).next()?;
            return Some(Interface { index, name: str::from_utf8(name).ok()?.to_owned() });
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map(u32::from_ne_bytes)
}

/// What the number of an answer says: nothing, or an error number below nothing.
fn outcome(error: u32) -> io::Result<()> {
    match error.cast_signed() {
        0 => Ok(()),
        negative => Err(io::Error::from_raw_os_error(negative.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interfaces_of_this_machine_are_listed() {
        let netlink = Netlink::open().unwrap();
        for _ in 0..2 {
            let found = netlink.interfaces().unwrap();
            let is_loopback = |it: &Interface| it.name == "lo" && it.index == 1;
            assert!(found.iter().any(is_loopback), "{found:?}");
            // Answers are those of their questions.
            let missing = Message::new(libc::RTM_DELLINK, 0, &[0; 16]);
            let missing = netlink.ask(missing.with(libc::IFLA_IFNAME, b"none-such\0"));
            assert_eq!(missing.unwrap_err().raw_os_error(), Some(libc::ENODEV));
        }
    }

    #[test]
    fn a_message_that_is_cut_off_is_no_interface() {
        let name = [&12_u16.to_ne_bytes()[..], &3_u16.to_ne_bytes()[..], b"tv0\0\0\0\0\0"].concat();
        let mut message = vec![0; HEADER + 16];
        message[HEADER + 4] = 7;
        message.extend(name);
        let whole = interface_in(&message).map(|it| it.name);
        assert_eq!(whole.as_deref(), Some("tv0"));
        for end in 0..message.len() {
            assert_eq!(interface_in(&message[..end]), None);
        }
    }
}
