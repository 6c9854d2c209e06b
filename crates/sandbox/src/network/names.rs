//! How names resolve inside a namespace: `/etc/resolv.conf` and `/etc/hosts`.
//!
//! The machine's name servers are asked directly where a packet gets to them. One that listens on
//! the machine itself (a stub on 127.0.0.53, say) is not reachable from a namespace: where
//! systemd-resolved is behind it, the servers that it asks are; elsewhere the relay asks it.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::host::is_own;

const DNS: u16 = 53;
/// What resolv.conf(5) takes.
const MAX_SERVERS: usize = 3;
/// The servers behind systemd-resolved's stub.
const RESOLVED: &str = "/run/systemd/resolve/resolv.conf";

/// Names for one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Names {
    /// The text of `/etc/resolv.conf`.
    pub(crate) resolv_conf: String,
    /// The server that only the machine itself can ask; the namespace asks 127.0.0.1.
    pub(crate) relayed: Option<SocketAddr>,
}

impl Names {
    /// As this machine resolves names now; `v6` where the namespace has IPv6.
    pub(crate) fn of_machine(v6: bool) -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::of(&read("/etc/resolv.conf"), &read(RESOLVED), v6, is_own)
    }

    fn of(own: &str, resolved: &str, v6: bool, is_own: impl Fn(IpAddr) -> bool) -> Self {
        let reachable = |server: &IpAddr| match server {
            IpAddr::V4(address) => !is_own(*server) && !is_refused(*address),
            IpAddr::V6(address) => v6 && !is_own(*server) && !address.is_unicast_link_local(),
        };
        let (servers, behind) = (servers(own), servers(resolved));
        let is_stub = servers.iter().any(|server| is_own(*server));
        let direct = [&servers, &behind].into_iter().find(|list| list.iter().all(reachable));
        let direct = direct.filter(|list| !list.is_empty() && (!is_stub || *list == &behind));
        let relayed = match direct {
            Some(_) => None,
            None => servers.first().map(|&server| SocketAddr::new(server, DNS)),
        };
        let mut text = String::new();
        let localhost = [IpAddr::from(Ipv4Addr::LOCALHOST)];
        for server in direct.map_or(&localhost[..], |list| list).iter().take(MAX_SERVERS) {
            // Writing to a string does not fail.
            writeln!(text, "nameserver {server}").ok();
        }
        let is_other = |line: &&str| {
            let word = line.split_ascii_whitespace().next().unwrap_or_default();
            ["search", "domain", "options"].contains(&word)
        };
        for line in own.lines().filter(is_other) {
            text.push_str(line);
            text.push('\n');
        }
        Self { resolv_conf: text, relayed }
    }
}

/// Addresses that packets from a namespace do not get to (see the rules in [`super::host`]), and that
/// clouds have name servers at.
fn is_refused(address: Ipv4Addr) -> bool {
    address.is_link_local() || address == Ipv4Addr::new(100, 100, 100, 200)
}

fn servers(text: &str) -> Vec<IpAddr> {
    let server = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        (words.next()? == "nameserver").then_some(())?;
        // `fe80::1%eth0`: the scope means nothing elsewhere.
        words.next()?.split('%').next()?.parse().ok()
    };
    text.lines().filter_map(server).collect()
}

/// `/etc/hosts` for a namespace: the machine's, where `localhost` has one address alone, so that no
/// client tries another first.
pub(crate) fn hosts(machine: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    for line in machine.split_inclusive(|&byte| byte == b'\n') {
        let text = String::from_utf8_lossy(line);
        let mut words = text.split('#').next().unwrap_or_default().split_ascii_whitespace();
        let address = words.next().and_then(|word| word.parse::<IpAddr>().ok());
        // Loopback is the namespace's own: names of the machine there would mean the app.
        if !address.is_some_and(|address| address.is_loopback()) {
            kept.extend_from_slice(line);
        }
    }
    if !kept.is_empty() && !kept.ends_with(b"\n") {
        kept.push(b'\n');
    }
    kept.extend_from_slice(b"::1 ip6-localhost ip6-loopback\n");
    kept
}

#[cfg(test)]
mod tests;
