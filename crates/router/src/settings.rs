//! Time-outs, limits and trust: every figure the router goes by, with the contract's defaults.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use crate::head::Limits;

/// How long each part of an exchange may take. A route may bring its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeOuts {
    /// To connect to a process (`H19`).
    pub connect: Duration,
    /// From the request sent to the first byte of the answer (`H12`).
    pub first_byte: Duration,
    /// Without a byte in either direction (`H15` when the process is silent, `H28` when the
    /// client is).
    pub idle: Duration,
}

impl Default for TimeOuts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            first_byte: Duration::from_secs(30),
            idle: Duration::from_secs(55),
        }
    }
}

/// What the router goes by. Everything has the contract's default.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Time-outs of routes that do not bring their own.
    pub time_outs: TimeOuts,
    /// How long a client may keep a connection open between two requests.
    pub client_keep_alive: Duration,
    /// How long an unused connection to a process is kept. Below 90 s.
    pub upstream_keep_alive: Duration,
    /// How many unused connections are kept to one process.
    pub upstream_idle: usize,
    /// How long a process that could not be connected to is passed over.
    pub quarantine: Duration,
    /// How long a process that answers nothing is passed over before a request is its trial; doubling
    /// with each trial that fails, to ten times as long.
    pub hang: Duration,
    /// How long a request waits for a process that is still booting (`H20`).
    pub hold: Duration,
    /// How many requests may wait so at once: at most half of the connections.
    pub hold_requests: usize,
    /// How many client connections may be open, a quarter of them from one address (one /64 network of
    /// IPv6); the loopback and `trusted` may be proxies, and may have all. Where there is no room for
    /// more, those without a request are closed, the longest idle first; else a new one is refused
    /// (`H11`). At most as many connections to processes are in use, and half as many unused.
    pub connections: usize,
    /// How many requests one host may have in flight (`H11`): at most half of the connections.
    pub host_requests: usize,
    /// How many of `hold_requests` may wait for one host (`H20`): at most an eighth of the connections.
    pub host_hold: usize,
    /// Longest request line, and longest header line, in bytes (`H26`).
    pub line: usize,
    /// Most headers in a request or an answer (`H26`, `H25`).
    pub headers: usize,
    /// Longest head as a whole, in bytes: bounds what one connection may hold in memory.
    pub head: usize,
    /// Peers whose `X-Forwarded-*` are believed.
    pub trusted: Vec<Network>,
}

impl Settings {
    /// How many connections to processes may wait for the next request.
    pub(crate) fn idle_connections(&self) -> usize {
        self.connections.div_ceil(2)
    }

    /// What a head may take.
    pub(crate) fn limits(&self) -> Limits {
        Limits { line: self.line, headers: self.headers, head: self.head }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            time_outs: TimeOuts::default(),
            client_keep_alive: Duration::from_secs(60),
            upstream_keep_alive: Duration::from_secs(85),
            upstream_idle: 64,
            quarantine: Duration::from_secs(5),
            hang: Duration::from_secs(30),
            hold: Duration::from_secs(75),
            hold_requests: 1000,
            connections: 10_000,
            host_requests: 5_000,
            host_hold: 250,
            line: 8 * 1024,
            headers: 1000,
            head: 256 * 1024,
            trusted: Vec::new(),
        }
    }
}

/// A range of addresses, as in `10.0.0.0/8`, `::1` or `fd00::/8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// Text that is not a [`Network`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("network `{0}` is not an address with an optional prefix length, as in `10.0.0.0/8`")]
pub struct NetworkError(String);

impl Network {
    /// Whether `peer` is in the range. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, peer: IpAddr) -> bool {
        fn same(a: u128, b: u128, width: u32, prefix: u8) -> bool {
            let differing = a ^ b;
            let free = width.saturating_sub(u32::from(prefix));
            differing.checked_shr(free).unwrap_or(0) == 0
        }
        match (self.address, peer.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                same(u128::from(a.to_bits()), u128::from(b.to_bits()), 32, self.prefix)
            }
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128, self.prefix),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NetworkError;
    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let wrong = || NetworkError(text.to_owned());
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| wrong())?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            None => width,
            Some(prefix) => prefix.trim().parse().ok().filter(|&p| p <= width).ok_or_else(wrong)?,
        };
        Ok(Self { address, prefix })
    }
}

#[cfg(test)]
mod tests;
