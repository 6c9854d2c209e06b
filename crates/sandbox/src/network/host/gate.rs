//! The machine's ends of the pairs, which are shut while the rules of their network are not in
//! force: what nothing refuses must have no way.
//!
//! An end that is down drops what comes from the namespace and what the machine sends there. The
//! kernel removes its routes with that; inside, addresses and routes stay, and so does loopback,
//! which the router's connections and those of the relay go by.

use std::io;

use super::super::link::{ADDRESSES, Link, set_down, set_up};
use super::super::netlink::{Interface, Netlink};
use super::interfaces;
use crate::level::Reason;

/// Sets all ends of a network down. Needs neither a descriptor nor a process.
///
/// # Errors
///
/// The first that stayed up; the others are down all the same.
pub(super) fn shut(netlink: &Netlink, id: u32) -> Result<(), Reason> {
    each(netlink, id, "shut an interface", |index, _| set_down(netlink, index))
}

/// Sets all ends of a network up, with the routes to their namespaces. One that is up stays so.
///
/// # Errors
///
/// The first that stayed down; the others are up all the same.
pub(super) fn open(netlink: &Netlink, id: u32, v6: bool) -> Result<(), Reason> {
    each(netlink, id, "open an interface", |index, number| {
        set_up(netlink, index, Link { number, v6, mtu: 0 })
    })
}

fn each(
    netlink: &Netlink,
    id: u32,
    stage: &'static str,
    act: impl Fn(u32, u32) -> io::Result<()>,
) -> Result<(), Reason> {
    let failed = |error: io::Error| Reason::io(stage, &error);
    let prefix = interfaces(id);
    let mut done = Ok(());
    for end in netlink.interfaces().map_err(failed)? {
        let Some(number) = number(&end, &prefix) else { continue };
        match act(end.index, number) {
            Ok(()) => {}
            // Its namespace has ended meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
            Err(error) => done = done.and(Err(failed(error))),
        }
    }
    done
}

/// Of an end of the network whose interfaces are named so.
fn number(end: &Interface, prefix: &str) -> Option<u32> {
    let number = u32::from_str_radix(end.name.strip_prefix(prefix)?, 16).ok()?;
    (number < ADDRESSES).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_of_one_network_are_known_by_their_names() {
        let names = ["lo", "tv00000a-", "tv00000b-00002", "tv00000a-20000", "tv00000a-1ffff"];
        let end = |name: &str| Interface { index: 1, name: name.to_owned() };
        let found = names.map(|name| number(&end(name), &interfaces(10)));
        assert_eq!(found, [None, None, None, None, Some(0x1_ffff)]);
    }
}
