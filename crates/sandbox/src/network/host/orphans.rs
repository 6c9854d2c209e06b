//! Networks of spawners that were killed: their apps go on in them, and the next spawner looks after
//! the rules.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::net::UnixDatagram;

use super::table::{Forwarding, Table, delete};
use super::{alive, say};

/// The network of one spawner that is gone.
#[derive(Debug)]
struct Orphan {
    table: Table,
    /// For as long as this spawner has it no other one takes the network on.
    _name: UnixDatagram,
}

/// Those that this spawner has taken on.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    adopted: Vec<Orphan>,
    /// What was complained of last: it is said once, and tried again and again.
    complaint: String,
}

impl Orphans {
    /// Takes on what has nobody. What no app is in any more is removed. Gives the tables whose rules are
    /// to be loaded anew, for nobody has watched them meanwhile.
    pub(super) fn adopt(&mut self, tables: &[Table]) -> Vec<Table> {
        let mut adopted = Vec::new();
        let used = match ids_in_use() {
            Ok(used) => used,
            Err(error) => {
                self.complain(&format!("which networks are in use is not known: {error}"));
                return adopted;
            }
        };
        // Somebody has removed the rules since: what is left is the interfaces.
        let bare = used.iter().filter(|id| tables.iter().all(|table| table.id != **id));
        let bare = bare.map(|&id| Table { id, pid: 0, forwarding: Forwarding::default() });
        for table in tables.iter().copied().chain(bare) {
            // Its spawner lives, or another one has taken it on.
            let Ok(name) = alive(table.id) else { continue };
            if !used.contains(&table.id) {
                if !self.is_removed(table) {
                    self.adopted.push(Orphan { table, _name: name });
                }
                continue;
            }
            adopted.push(table);
            self.adopted.push(Orphan { table, _name: name });
        }
        adopted
    }

    /// Removes those that no app is in any more. One that cannot be removed is tried again.
    pub(super) fn remove_unused(&mut self, used: &BTreeSet<u32>) {
        let mut kept = Vec::new();
        for orphan in std::mem::take(&mut self.adopted) {
            if used.contains(&orphan.table.id) || !self.is_removed(orphan.table) {
                kept.push(orphan);
            }
        }
        self.adopted = kept;
    }

    fn is_removed(&mut self, table: Table) -> bool {
        let removed = delete(table);
        if let Err(error) = &removed {
            let name = table.name();
            self.complain(&format!(
                "the packet rules {name} of a spawner that is gone cannot be removed: {error}"
            ));
        }
        removed.is_ok()
    }

    /// Says it, where that was not said before.
    pub(super) fn complain(&mut self, text: &str) {
        if self.complaint != text {
            say(text);
            text.clone_into(&mut self.complaint);
        }
    }

    pub(super) fn tables(&self) -> impl Iterator<Item = Table> {
        self.adopted.iter().map(|orphan| orphan.table)
    }
}

/// Whether an interface is of a spawner that is gone, and nobody has taken it on.
pub(super) fn is_nobodys(id: u32) -> bool {
    alive(id).is_ok()
}

/// Whose interfaces there are.
pub(super) fn ids_in_use() -> io::Result<BTreeSet<u32>> {
    // Those of this network, whoever mounted /sys.
    let devices = fs::read_to_string("/proc/net/dev")?;
    Ok(devices.lines().filter_map(id_of_interface).collect())
}

/// Of a line of `/proc/net/dev`, which begins with a name as [`super::interfaces`] makes them.
fn id_of_interface(line: &str) -> Option<u32> {
    let (id, _) = line.trim_start().strip_prefix("tv")?.split_once('-')?;
    u32::from_str_radix(id, 16).ok().filter(|_| id.len() == 6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_says_whose_it_is() {
        let prefix = super::super::interfaces(0x00ab_cdef);
        assert_eq!(id_of_interface(&format!("  {prefix}0001f: 0 0")), Some(0x00ab_cdef));
        for line in ["  eth0: 1", "tvabcdef: 0", "tvabcde-0001f: 0", "tvxxxxxx-0: 0", "tv"] {
            assert_eq!(id_of_interface(line), None, "{line}");
        }
    }
}
