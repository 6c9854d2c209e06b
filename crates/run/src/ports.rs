//! The ports that processes are told to listen on.
//!
//! A process in a network of its own may have any. In the machine's network a port is given to one
//! process at a time, by all platforms of one user: each holds a lock of that name in a folder that
//! only this user can look into. That somebody else listens on it all the same is found
//! out where the process is connected to (see [`Connector`](crate::Connector)).

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder};
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tolv_sandbox::{NamedLock, sweep_locks};

const RANGE: RangeInclusive<u16> = 20_000..=29_999;

/// A random number, good enough to spread things.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Gives ports out, one after the other from a random one on, so that a port that was given back
/// rests before it is given again. Neither engines that share one, nor platforms of one user,
/// give out a port of the machine that another has given out.
#[derive(Debug)]
pub struct Ports {
    /// Where the locks are; nothing where this user has no folder for such things.
    locks: Option<PathBuf>,
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
    /// Of a port of the machine.
    ports: Option<Arc<Ports>>,
    _lock: Option<NamedLock>,
}

/// Another platform gave this port out.
struct Taken;

impl Ports {
    /// With every port to give.
    pub fn new() -> Arc<Self> {
        let offset = random() % RANGE.len() as u64;
        let next = RANGE.start() + u16::try_from(offset).unwrap_or(0);
        let held = Mutex::new(Held { ports: BTreeSet::new(), next });
        let locks = lock_folder();
        if let Some(folder) = &locks {
            // A platform that was killed has left its own.
            let is_port = |name: &str| name.parse().is_ok_and(|port| RANGE.contains(&port));
            sweep_locks(folder, is_port);
        }
        Arc::new(Self { locks, held })
    }

    /// Some port, for a process that has all of them, but these.
    pub(crate) fn any_but(&self, taken: &BTreeSet<u16>) -> Port {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let mut number = held.pass();
        for _ in RANGE {
            if !taken.contains(&number) {
                break;
            }
            number = held.pass();
        }
        self.known(number)
    }

    /// The port of a process that has all of them, and was told of this one.
    pub(crate) fn known(&self, number: u16) -> Port {
        Port { number, ports: None, _lock: None }
    }

    /// A port of the machine that is free now; nothing where none is.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Port> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        for _ in RANGE {
            let number = held.pass();
            if held.ports.contains(&number) {
                continue;
            }
            // The lock first: to try a port that somebody is about to listen on would be in the way.
            let Ok(lock) = self.lock(number) else { continue };
            if is_free(number) {
                held.ports.insert(number);
                return Some(Port { number, ports: Some(Arc::clone(self)), _lock: lock });
            }
        }
        None
    }

    /// A port of the machine that a process has been told of, whoever gave it out.
    pub(crate) fn hold(self: &Arc<Self>, number: u16) -> Port {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).ports.insert(number);
        // Where another platform has the lock, it finds the port in use.
        let lock = self.lock(number).ok().flatten();
        Port { number, ports: Some(Arc::clone(self)), _lock: lock }
    }

    /// Locks a port against other platforms of this user.
    fn lock(&self, number: u16) -> Result<Option<NamedLock>, Taken> {
        let Some(folder) = &self.locks else { return Ok(None) };
        match NamedLock::try_take(&folder.join(number.to_string())) {
            Ok(Some(lock)) => Ok(Some(lock)),
            Ok(None) => Err(Taken),
            // Without a lock the port can still be tried.
            Err(_) => Ok(None),
        }
    }
}

impl Held {
    fn pass(&mut self) -> u16 {
        let number = self.next;
        self.next = if number == *RANGE.end() { *RANGE.start() } else { number + 1 };
        number
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        if let Some(ports) = &self.ports {
            let mut held = ports.held.lock().unwrap_or_else(PoisonError::into_inner);
            held.ports.remove(&self.number);
        }
    }
}

/// A folder of this user's own that is gone with the machine's next start.
fn lock_folder() -> Option<PathBuf> {
    let user = rustix::process::geteuid();
    let base = match user.is_root() {
        true => PathBuf::from("/run"),
        false => PathBuf::from(format!("/run/user/{}", user.as_raw())),
    };
    let folder = base.join("tolv-ports");
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return None,
        _ => {}
    }
    is_private(&folder, user.as_raw()).then_some(folder)
}

fn is_private(folder: &Path, user: u32) -> bool {
    fs::symlink_metadata(folder)
        .is_ok_and(|meta| meta.is_dir() && meta.uid() == user && meta.mode() & 0o077 == 0)
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
