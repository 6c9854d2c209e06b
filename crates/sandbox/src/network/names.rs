//! How names resolve inside a namespace: `/etc/resolv.conf` and `/etc/hosts`.
//!
//! A process always asks 127.0.0.1, where the relay of its sandbox listens, and the relay asks the
//! name servers that the machine has at that moment. They change while processes run (another
//! network, a VPN, another local resolver), and many programs read `/etc/resolv.conf` once.

use std::fmt::Write as _;
use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV6};
use std::os::unix::fs::OpenOptionsExt as _;

const DNS: u16 = 53;
/// What resolv.conf(5) takes.
pub(crate) const MAX_SERVERS: usize = 3;
/// Where the machine says who resolves its names.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// What is read of it. The C library takes a few lines.
const MAX_CONF_BYTES: u64 = 64 << 10;

/// The text of `/etc/resolv.conf` for a sandbox that starts now. The search list and the options are
/// the machine's.
pub(crate) fn resolv_conf() -> String {
    resolv_conf_from(&read(RESOLV_CONF).unwrap_or_default())
}

fn resolv_conf_from(machine: &str) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    writeln!(text, "nameserver {}", Ipv4Addr::LOCALHOST).ok();
    let is_other = |line: &&str| {
        let word = line.split_ascii_whitespace().next().unwrap_or_default();
        ["search", "domain", "options"].contains(&word)
    };
    for line in machine.lines().filter(is_other) {
        text.push_str(line);
        text.push('\n');
    }
    text
}

/// The machine's name servers.
#[derive(Clone, Debug)]
pub(crate) struct Servers(Vec<SocketAddr>);

impl Servers {
    /// Those of now.
    pub(crate) fn of_machine() -> Self {
        // Without any, the one on the machine itself is asked: resolv.conf(5).
        let mut servers = Self(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, DNS))]);
        servers.refresh();
        servers
    }

    /// Reads them again: some microseconds. A file that is missing, unreadable or without a server,
    /// as one is that is being written, changes nothing.
    pub(crate) fn refresh(&mut self) -> &[SocketAddr] {
        self.replace(&read(RESOLV_CONF).unwrap_or_default())
    }

    fn replace(&mut self, text: &str) -> &[SocketAddr] {
        let new: Vec<_> = text.lines().filter_map(server).take(MAX_SERVERS).collect();
        if !new.is_empty() {
            self.0 = new;
        }
        &self.0
    }
}

/// The beginning of a regular file; it never waits for anybody.
fn read(path: &str) -> Option<String> {
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = fs::File::options().read(true).custom_flags(flags).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(MAX_CONF_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Of a line such as `nameserver 10.0.0.53` or `nameserver fe80::1%eth0`.
fn server(line: &str) -> Option<SocketAddr> {
    let mut words = line.split_ascii_whitespace();
    (words.next()? == "nameserver").then_some(())?;
    let word = words.next()?;
    let (address, scope) =
        word.split_once('%').map_or((word, None), |(address, scope)| (address, Some(scope)));
    match (address.parse().ok()?, scope) {
        (IpAddr::V6(address), Some(scope)) => {
            let scope = scope.parse().ok().or_else(|| interface(scope))?;
            Some(SocketAddrV6::new(address, DNS, 0, scope).into())
        }
        (address, _) => Some(SocketAddr::new(address, DNS)),
    }
}

/// The number of an interface of this machine.
fn interface(name: &str) -> Option<u32> {
    let is_plain = !name.contains('/') && !name.starts_with('.');
    let text = is_plain.then(|| read(&format!("/sys/class/net/{name}/ifindex")))??;
    text.trim().parse().ok()
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
