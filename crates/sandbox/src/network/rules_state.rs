//! Whether the packet rules of a spawner are loaded, asked of the kernel.

use std::io;

use super::host::Table;
use super::nfnetlink::{GET_TABLE, INET, NEW_TABLE, attributes, list, text};

/// `NFTA_TABLE_NAME` and `NFTA_TABLE_FLAGS`.
const NAME: u16 = 1;
const FLAGS: u16 = 2;
/// `NFT_TABLE_F_DORMANT`: the rules are there and not in force.
const DORMANT: u32 = 1;

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

/// The tables of all spawners.
pub(super) fn tables() -> io::Result<Vec<Table>> {
    let all = list(INET, GET_TABLE, NEW_TABLE)?;
    Ok(all.iter().filter_map(|item| table_in(&item.attributes)).map(|(table, _)| table).collect())
}

/// The state of the table that is meant.
fn state_of(is_meant: impl Fn(Table) -> bool) -> io::Result<RulesState> {
    let mut state = RulesState::Missing;
    for item in list(INET, GET_TABLE, NEW_TABLE)? {
        match table_in(&item.attributes) {
            Some((table, found)) if is_meant(table) => state = found,
            _ => {}
        }
    }
    Ok(state)
}

/// A spawner's table, and its state; nothing of those of others.
fn table_in(bytes: &[u8]) -> Option<(Table, RulesState)> {
    let (mut table, mut is_dormant) = (None, false);
    for (kind, value) in attributes(bytes) {
        match kind {
            NAME => table = Table::parse(text(value)),
            FLAGS => {
                let flags = value.try_into().map_or(0, u32::from_be_bytes);
                is_dormant = flags & DORMANT != 0;
            }
            _ => {}
        }
    }
    let state = if is_dormant { RulesState::Dormant } else { RulesState::Loaded };
    table.map(|table| (table, state))
}

#[cfg(test)]
mod tests {
    use super::super::nfnetlink::{HEADER, each_message};
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
        each_message(messages, |kind, _, body| {
            let found = body.get(4..).filter(|_| kind == NEW_TABLE).and_then(table_in);
            state = found.filter(|(table, _)| table.pid == 4711).map(|it| it.1).or(state);
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
