//! The routing table: which processes answer for a host.
//!
//! A [`Table`] is a value: the platform builds one and hands it over whole; the router swaps it in
//! and never changes it. A host is matched exactly, without case, port or a trailing dot. One
//! default route may answer for every other host.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use tolv_model::name::ProcessName;

use crate::dialer::Dialer;
use crate::settings::TimeOuts;

/// One process that listens. Its name alone does not tell it apart: during a rollout the old and
/// the new `web.1` run side by side, on different ports.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    /// Which process it is, for access lines.
    pub process: ProcessName,
    /// Where it listens, as the dialer understands it.
    pub address: SocketAddr,
    /// Makes the connections to it.
    pub dialer: Dialer,
}

impl fmt::Display for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.process, self.address)
    }
}

/// What is known of a deploy's web processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// None is ready yet: requests are held, then refused with `H20`.
    Booting,
    /// Requests go to the backends. With none of them left, they are held as in `Booting`.
    Up,
    /// All of them crashed (`H10`).
    Crashed,
    /// There is no web process: scaled to 0, or no such type (`H14`).
    NoWeb,
    /// The operator switched the maintenance page on (`H80`).
    Maintenance,
}

/// Where the requests for one deploy go.
#[derive(Clone, Debug)]
pub struct Route {
    /// What is known of its processes.
    pub state: State,
    /// Those that are ready.
    pub backends: Vec<Backend>,
    /// Time-outs of its own.
    pub time_outs: Option<TimeOuts>,
}

impl Route {
    /// A route in `state` to `backends`, with the router's time-outs.
    pub fn new(state: State, backends: Vec<Backend>) -> Self {
        Self { state, backends, time_outs: None }
    }
}

/// Every route there is.
#[derive(Clone, Debug, Default)]
pub struct Table(Hosts<Route>);

impl Table {
    /// A table without routes: every request is misdirected (`H31`).
    pub fn new() -> Self {
        Self::default()
    }

    /// Routes `host` to `route`, in place of an earlier route of that host.
    pub fn insert(&mut self, host: &str, route: impl Into<Arc<Route>>) {
        self.0.hosts.insert(host_name(host).into_boxed_str(), route.into());
    }

    /// Routes every host that has no route of its own.
    pub fn set_default(&mut self, route: impl Into<Arc<Route>>) {
        self.0.default = Some(route.into());
    }

    /// The route for a `Host` field's value, port and all; `None` is a request without one.
    pub fn find(&self, host: Option<&str>) -> Option<&Arc<Route>> {
        self.0.find(host)
    }

    /// All routes, the default last.
    pub(crate) fn routes(&self) -> impl Iterator<Item = &Arc<Route>> {
        self.0.hosts.values().chain(&self.0.default)
    }

    /// The same hosts, each with what `with` makes of its name, empty for the default, and its route.
    pub(crate) fn map<R>(&self, with: impl Fn(&str, &Arc<Route>) -> R) -> Hosts<R> {
        let hosts = &self.0.hosts;
        Hosts {
            hosts: hosts.iter().map(|(h, route)| (h.clone(), Arc::new(with(h, route)))).collect(),
            default: self.0.default.as_ref().map(|route| Arc::new(with("", route))),
        }
    }
}

/// Hosts and what is behind each of them.
#[derive(Clone, Debug)]
pub(crate) struct Hosts<R> {
    hosts: HashMap<Box<str>, Arc<R>>,
    default: Option<Arc<R>>,
}

impl<R> Default for Hosts<R> {
    fn default() -> Self {
        Self { hosts: HashMap::new(), default: None }
    }
}

impl<R> Hosts<R> {
    pub(crate) fn find(&self, host: Option<&str>) -> Option<&Arc<R>> {
        host.and_then(|host| self.hosts.get(host_name(host).as_str())).or(self.default.as_ref())
    }
}

/// A host as the table has it: without case, port and trailing dot.
pub fn host_name(host: &str) -> String {
    let name = match host.rfind(':') {
        // The last colon of `[::1]` is no port's.
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    };
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
