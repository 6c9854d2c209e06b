//! Whether the packet rules of a spawner are loaded, asked of the kernel (nfnetlink).
//!
//! The request is the 20 bytes of `NFT_MSG_GETTABLE` for all tables of the family inet; the program
//! `nft` would take a process and some milliseconds for the same.

use std::io;
use std::time::Duration;

use rustix::net::netlink::{self, SocketAddrNetlink};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, sendto, socket_with,
};

use super::host::Table;

/// Of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Of `struct nfgenmsg`, behind it.
const FAMILY_HEADER: usize = 4;
/// `NFNL_SUBSYS_NFTABLES`, with `NFT_MSG_NEWTABLE` and `NFT_MSG_GETTABLE`.
const NEW_TABLE: u16 = 10 << 8;
const GET_TABLE: u16 = NEW_TABLE | 1;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
/// `NFPROTO_INET`.
const INET: u8 = 1;
/// `NLMSG_ERROR`, `NLMSG_DONE`.
const ENDS: [u16; 2] = [2, 3];
/// `NFTA_TABLE_NAME` and `NFTA_TABLE_FLAGS`.
const NAME: u16 = 1;
const FLAGS: u16 = 2;
/// `NFT_TABLE_F_DORMANT`: the rules are there and not in force.
const DORMANT: u32 = 1;
/// For the kernel to answer, which it does at once.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(200);

/// The packet rules of one spawner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RulesState {
    /// They are in force.
    Loaded,
    /// They are there, and switched off.
    Dormant,
    /// They are not there.
    Missing,
}

/// The packet rules of the spawner with this process id.
///
/// # Errors
///
/// The system's: a program without root's powers may not ask.
pub fn rules_of(spawner: u32) -> io::Result<RulesState> {
    state_of(|table| table.pid == spawner)
}

/// Whether the rules of a network are in force.
pub(super) fn are_in_force(id: u32) -> bool {
    state_of(|table| table.id == id).is_ok_and(|state| state == RulesState::Loaded)
}

/// The state of the table that is meant.
fn state_of(is_meant: impl Fn(Table) -> bool) -> io::Result<RulesState> {
    let flags = SocketFlags::CLOEXEC;
    let protocol = Some(netlink::NETFILTER);
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, protocol)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(ANSWER_TIMEOUT))?;
    sendto(&socket, &request(), SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
    let mut buffer = vec![0; 64 * 1024];
    let mut state = RulesState::Missing;
    loop {
        let (read, _) = recv(&socket, &mut buffer[..], RecvFlags::empty())?;
        let is_last = each_message(&buffer[..read.min(buffer.len())], |attributes| {
            if let Some(found) = state_in(attributes, &is_meant) {
                state = found;
            }
        })?;
        if is_last || read == 0 {
            return Ok(state);
        }
    }
}

fn request() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER + FAMILY_HEADER);
    bytes.extend(20_u32.to_ne_bytes());
    bytes.extend(GET_TABLE.to_ne_bytes());
    bytes.extend(DUMP.to_ne_bytes());
    bytes.extend([0; 8]);
    bytes.extend([INET, 0, 0, 0]);
    bytes
}

/// Gives the attributes of each table to `see`; says whether the answer ends here.
fn each_message(mut messages: &[u8], mut see: impl FnMut(&[u8])) -> io::Result<bool> {
    while let Some(length) = messages.get(..4).and_then(|bytes| bytes.try_into().ok()) {
        let length = usize::try_from(u32::from_ne_bytes(length)).unwrap_or(0);
        let Some(message) = messages.get(..length).filter(|message| message.len() >= HEADER) else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let kind = u16::from_ne_bytes([message[4], message[5]]);
        if ENDS.contains(&kind) {
            let code = message.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok());
            return match code.map_or(0, i32::from_ne_bytes) {
                0 => Ok(true),
                code => Err(io::Error::from_raw_os_error(code.saturating_neg())),
            };
        }
        if kind == NEW_TABLE {
            see(message.get(HEADER + FAMILY_HEADER..).unwrap_or_default());
        }
        messages = messages.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The state of a table, where it is the one that is meant.
fn state_in(mut attributes: &[u8], is_meant: impl Fn(Table) -> bool) -> Option<RulesState> {
    let (mut is_ours, mut is_dormant) = (false, false);
    while let Some(&[a, b, c, d]) = attributes.first_chunk() {
        let length = usize::from(u16::from_ne_bytes([a, b]));
        let Some(value) = attributes.get(4..length) else { break };
        match u16::from_ne_bytes([c, d]) {
            NAME => {
                let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
                let name = str::from_utf8(name).unwrap_or_default();
                is_ours = Table::parse(name).is_some_and(&is_meant);
            }
            FLAGS => {
                let flags = value.try_into().map_or(0, u32::from_be_bytes);
                is_dormant = flags & DORMANT != 0;
            }
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    let state = if is_dormant { RulesState::Dormant } else { RulesState::Loaded };
    is_ours.then_some(state)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + value.len()).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let mut bytes = length.to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    fn state(messages: &[u8]) -> io::Result<Option<RulesState>> {
        let mut state = None;
        each_message(messages, |attributes| {
            state = state_in(attributes, |table| table.pid == 4711).or(state)
        })?;
        Ok(state)
    }

    #[test]
    fn the_table_of_a_spawner_is_found_among_others() {
        let table = |name: &str, flags: u32| {
            let name = attribute(NAME, &[name.as_bytes(), &[0]].concat());
            let body = [vec![INET, 0, 0, 0], name, attribute(FLAGS, &flags.to_be_bytes())];
            message(NEW_TABLE, &body.concat())
        };
        let done = message(3, &[0; 4]);
        let others = [table("filter", 0), table("tolv_00000a_1_0", 1)].concat();
        assert_eq!(state(&[&others[..], &done].concat()).unwrap(), None);
        let ours = [&others[..], &table("tolv_00000b_4711_4", 0), &done].concat();
        assert_eq!(state(&ours).unwrap(), Some(RulesState::Loaded));
        let asleep = [&others[..], &table("tolv_00000b_4711_4", 1), &done].concat();
        assert_eq!(state(&asleep).unwrap(), Some(RulesState::Dormant));
        let refused = message(2, &(-1_i32).to_ne_bytes());
        assert_eq!(state(&refused).unwrap_err().raw_os_error(), Some(1));
        // Cut off, or nonsense: an error or nothing, never a panic.
        for end in 0..ours.len() {
            state(&ours[..end]).ok();
        }
        for byte in 0..ours.len() {
            let mut odd = ours.clone();
            odd[byte] ^= 0xff;
            state(&odd).ok();
        }
    }
}
