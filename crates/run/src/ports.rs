//! The ports that processes are told to listen on.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, PoisonError};

const RANGE: RangeInclusive<u16> = 20_000..=29_999;

/// A random number, good enough to spread things.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Gives ports out, one after the other from a random one on: two platforms on one machine do not
/// meet, and a port that was given back rests before it is given again. Engines that share one
/// never give out the same port.
#[derive(Debug)]
pub struct Ports {
    held: Mutex<Held>,
}

#[derive(Debug)]
struct Held {
    ports: BTreeSet<u16>,
    next: u16,
}

/// A port that nobody else is given until this is dropped.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) number: u16,
    ports: Arc<Ports>,
}

impl Ports {
    /// With every port to give.
    pub fn new() -> Arc<Self> {
        let offset = random() % RANGE.len() as u64;
        let next = RANGE.start() + u16::try_from(offset).unwrap_or(0);
        Arc::new(Self { held: Mutex::new(Held { ports: BTreeSet::new(), next }) })
    }

    /// A port that is free now; nothing where none is.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Port> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in RANGE {
            let number = held.next;
            held.next = if number == *RANGE.end() { *RANGE.start() } else { number + 1 };
            if !held.ports.contains(&number) && is_free(number) {
                held.ports.insert(number);
                return Some(Port { number, ports: Arc::clone(self) });
            }
        }
        None
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let mut held = self.ports.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.ports.remove(&self.number);
    }
}

/// Whether every address of this machine is free on the port.
fn is_free(port: u16) -> bool {
    let v4 = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
    v4 && match TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
        Ok(_) => true,
        // A machine without IPv6 has nobody on it.
        Err(error) => error.kind() != std::io::ErrorKind::AddrInUse,
    }
}

#[cfg(test)]
mod tests;
