//! The ports that processes are told to listen on.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixDatagram};
use std::sync::{Arc, Mutex, PoisonError};

const RANGE: RangeInclusive<u16> = 20_000..=29_999;

/// A random number, good enough to spread things.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Gives ports out, one after the other from a random one on, so that a port that was given back
/// rests before it is given again. Neither engines that share one, nor platforms on one machine,
/// give out a port that another has given out.
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
    /// Says so to other platforms; nothing where there are no such names.
    _name: Option<UnixDatagram>,
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
            if held.ports.contains(&number) {
                continue;
            }
            // First the name: to try a port that somebody is about to listen on would be in the way.
            let Ok(name) = reserve(number) else { continue };
            if is_free(number) {
                held.ports.insert(number);
                return Some(Port { number, ports: Arc::clone(self), _name: name });
            }
        }
        None
    }
}

impl Ports {
    /// A port that a process has been told of, whoever gave it out.
    pub(crate) fn hold(self: &Arc<Self>, number: u16) -> Port {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).ports.insert(number);
        // Where somebody else has the name of it, he finds the port in use.
        let name = reserve(number).ok().flatten();
        Port { number, ports: Arc::clone(self), _name: name }
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        let mut held = self.ports.held.lock().unwrap_or_else(PoisonError::into_inner);
        held.ports.remove(&self.number);
    }
}

/// Another platform gave this port out.
struct Taken;

/// Takes the name of a port among the abstract sockets of this machine, which the kernel gives back
/// with its holder's end.
fn reserve(port: u16) -> Result<Option<UnixDatagram>, Taken> {
    let name = UnixAddress::from_abstract_name(format!("tolv-port-{port}"));
    match name.and_then(|name| UnixDatagram::bind_addr(&name)) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Err(Taken),
        Err(_) => Ok(None),
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
