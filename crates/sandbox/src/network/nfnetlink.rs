//! The few messages of nfnetlink about tables of packet rules, which the kernel answers at once: what
//! there is, and that a table is to go. The program nft would take a process for each.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

/// Of `struct nlmsghdr`.
pub(super) const HEADER: usize = 16;
/// Of `struct nfgenmsg`, behind it.
const FAMILY_HEADER: usize = 4;
/// `NFNL_SUBSYS_NFTABLES`.
const TABLES: u16 = 10;
/// `NFT_MSG_NEWTABLE`, `…GETTABLE`, `…DELTABLE`, `…NEWCHAIN`, `…GETCHAIN`.
pub(super) const NEW_TABLE: u16 = TABLES << 8;
pub(super) const GET_TABLE: u16 = NEW_TABLE | 1;
const DELETE_TABLE: u16 = NEW_TABLE | 2;
pub(super) const NEW_CHAIN: u16 = NEW_TABLE | 3;
pub(super) const GET_CHAIN: u16 = NEW_TABLE | 4;
/// `NFNL_MSG_BATCH_BEGIN`, `…END`: changes come between them.
const BATCH: [u16; 2] = [16, 17];
/// `NLM_F_REQUEST`, with `NLM_F_DUMP` or `NLM_F_ACK`.
const REQUEST: u16 = 1;
const DUMP: u16 = REQUEST | 0x300;
const ACK: u16 = REQUEST | 4;
/// `NLM_F_DUMP_INTR`: something was changed while it was listed.
const INTERRUPTED: u16 = 0x10;
/// `NFPROTO_INET`, and that of all families.
pub(super) const INET: u8 = 1;
pub(super) const ANY: u8 = 0;
/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ENDS: [u16; 2] = [2, 3];
/// `NFTA_TABLE_NAME`.
const NAME: u16 = 1;
/// Of an attribute's type, what is not `NLA_F_NESTED`.
const KIND: u16 = 0x3fff;
/// For the kernel to answer, which it does at once.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(200);
/// Lists that are begun before one is taken that was changed meanwhile.
const TRIES: u32 = 8;

/// One table or chain: the family that it is of, and its attributes.
pub(super) struct Item {
    pub(super) family: u8,
    pub(super) attributes: Vec<u8>,
}

/// Everything of a kind that there is: what is asked for, and how the kernel calls it.
pub(super) fn list(family: u8, asked: u16, told: u16) -> io::Result<Vec<Item>> {
    let mut tries = 1;
    loop {
        let socket = open()?;
        send(&socket, &message(asked, DUMP, 0, [family, 0, 0, 0], &[]))?;
        let (mut found, mut is_interrupted) = (Vec::new(), false);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            let read = receive(&socket, &mut buffer)?;
            let is_last = each_message(&buffer[..read], |kind, flags, body| {
                is_interrupted |= flags & INTERRUPTED != 0;
                if let (true, Some((head, attributes))) = (kind == told, body.split_at_checked(4)) {
                    let attributes = attributes.to_vec();
                    found.push(Item { family: head[0], attributes });
                }
            })?;
            if is_last || read == 0 {
                break;
            }
        }
        if !is_interrupted || tries == TRIES {
            return Ok(found);
        }
        tries += 1;
    }
}

/// Removes a table of the family inet; whether it was there.
pub(super) fn delete_table(name: &str) -> io::Result<bool> {
    let socket = open()?;
    let [begin, end] = BATCH.map(|kind| {
        let [high, low] = TABLES.to_be_bytes();
        message(kind, REQUEST, 0, [ANY, 0, high, low], &[])
    });
    let delete = message(DELETE_TABLE, ACK, 1, [INET, 0, 0, 0], &attribute(NAME, name));
    send(&socket, &[begin, delete, end].concat())?;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = receive(&socket, &mut buffer)?;
        match each_message(&buffer[..read], |_, _, _| {}) {
            Ok(false) if read > 0 => {}
            Ok(_) => return Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

fn open() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    let protocol = Some(netlink::NETFILTER);
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
    Ok(socket)
}

fn send(socket: &OwnedFd, bytes: &[u8]) -> io::Result<()> {
    sendto(socket, bytes, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    Ok(())
}

fn receive(socket: &OwnedFd, buffer: &mut [u8]) -> io::Result<usize> {
    match recv(socket, &mut *buffer, RecvFlags::empty()) {
        Ok((read, _)) => Ok(read.min(buffer.len())),
        Err(rustix::io::Errno::AGAIN) => {
            let text = format!("the kernel does not answer within {ANSWER_TIMEOUT:?}");
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        }
        Err(error) => Err(error.into()),
    }
}

fn message(kind: u16, flags: u16, sequence: u32, head: [u8; 4], attributes: &[u8]) -> Vec<u8> {
    let length = HEADER + FAMILY_HEADER + attributes.len();
    let mut bytes = Vec::with_capacity(length);
    bytes.extend(u32::try_from(length).unwrap_or(0).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(head);
    bytes.extend(attributes);
    bytes
}

/// A text, which ends with a zero.
fn attribute(kind: u16, text: &str) -> Vec<u8> {
    let length = u16::try_from(4 + text.len() + 1).unwrap_or(0);
    let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend(text.bytes().chain([0]));
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Gives each message's type, flags and body to `see`; says whether the answer ends here.
pub(super) fn each_message(
    mut messages: &[u8],
    mut see: impl FnMut(u16, u16, &[u8]),
) -> io::Result<bool> {
    while let Some(length) = messages.get(..4).and_then(|bytes| bytes.try_into().ok()) {
        let length = usize::try_from(u32::from_ne_bytes(length)).unwrap_or(0);
        let Some(message) = messages.get(..length).filter(|message| message.len() >= HEADER) else {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the kernel's answer is cut off",
            ));
        };
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        let flags = u16::from_ne_bytes([message[6], message[7]]);
        if ENDS.contains(&kind) {
            let code = message.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok());
            return match code.map_or(0, i32::from_ne_bytes) {
                0 => Ok(true),
                code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            };
        }
        see(kind, flags, &message[HEADER..]);
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The type and the value of each.
pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let &[a, b, c, d] = bytes.first_chunk()?;
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((u16::from_ne_bytes([c, d]) & KIND, value))
    })
}

/// A text of an attribute; nothing where it is none.
pub(super) fn text(value: &[u8]) -> &str {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    str::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_gone_already_is_no_error() {
        match delete_table("tolv_none_0_0") {
            Ok(was_there) => assert!(!was_there),
            // It is root's to remove; that is said and not taken for done.
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EPERM)),
        }
    }

    #[test]
    fn attributes_end_where_the_bytes_do() {
        let bytes = [attribute(1, "one"), attribute(0x8002, "two")].concat();
        let found: Vec<_> = attributes(&bytes).map(|(kind, value)| (kind, text(value))).collect();
        assert_eq!(found, [(1, "one"), (2, "two")]);
        for end in 0..bytes.len() {
            assert!(attributes(&bytes[..end]).count() < 2);
        }
        assert_eq!(attributes(&[0; 8]).count(), 0);
    }
}
