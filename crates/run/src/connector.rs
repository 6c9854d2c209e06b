//! How the port of a process is reached, and whether who answers there is believed.
//!
//! In a network of its own a process is alone: a socket made inside connects to its loopback. In the
//! machine's network anybody could listen on its port, and on the other protocol of it: there a
//! connection counts only where the listener is held by the process, before and after it was made.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::net::{TcpSocket, TcpStream};
use tokio::task::spawn_blocking;
use tolv_sandbox::NetworkNamespace;

use crate::listening::{listener_at, sockets_below};

/// Connects to one process. Clones are the same.
#[derive(Clone)]
pub struct Connector(Arc<Inner>);

struct Inner {
    /// Never used again.
    id: u64,
    way: Way,
}

enum Way {
    /// It does not run.
    Nowhere,
    /// Its network could not be looked for, for want of a descriptor, say: that is tried again.
    Unknown { shim: i32 },
    /// In its network, where nobody else is.
    Inside(NetworkNamespace),
    /// In the machine's.
    Machine {
        /// Everything below it is the process.
        shim: i32,
        /// Listeners that were found to be the process's.
        believed: Mutex<HashSet<u64>>,
    },
}

impl Connector {
    /// Of a process that does not run: every connection is refused.
    pub fn nowhere() -> Self {
        Self::new(Way::Nowhere)
    }

    /// To what runs below a shim.
    pub(crate) fn to(shim: i32) -> Self {
        Self::new(match NetworkNamespace::of(shim) {
            Ok(Some(network)) => Way::Inside(network),
            Ok(None) => Way::Machine { shim, believed: Mutex::default() },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Way::Nowhere,
            Err(_) => Way::Unknown { shim },
        })
    }

    fn new(way: Way) -> Self {
        static LAST: AtomicU64 = AtomicU64::new(0);
        Self(Arc::new(Inner { id: LAST.fetch_add(1, Ordering::Relaxed) + 1, way }))
    }

    /// The network of the process, where it has one of its own.
    pub fn network(&self) -> Option<&NetworkNamespace> {
        match &self.0.way {
            Way::Inside(network) => Some(network),
            Way::Machine { .. } | Way::Nowhere | Way::Unknown { .. } => None,
        }
    }

    /// A connection to the process at this address of its own view.
    ///
    /// # Errors
    ///
    /// The system's; `ConnectionRefused` where the process itself does not listen there.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        match &self.0.way {
            Way::Nowhere => Err(io::ErrorKind::ConnectionRefused.into()),
            Way::Unknown { shim } => match NetworkNamespace::of(*shim)? {
                Some(network) => inside(&network, address).await,
                None => through_machine(*shim, &Mutex::default(), address).await,
            },
            Way::Inside(network) => inside(network, address).await,
            Way::Machine { shim, believed } => through_machine(*shim, believed, address).await,
        }
    }

    /// Tells the networks of processes apart that have the same address.
    pub fn id(&self) -> u64 {
        self.0.id
    }
}

async fn inside(network: &NetworkNamespace, address: SocketAddr) -> io::Result<TcpStream> {
    let socket = std::net::TcpStream::from(network.tcp_socket(&address)?);
    TcpSocket::from_std_stream(socket).connect(address).await
}

async fn through_machine(
    shim: i32,
    believed: &Mutex<HashSet<u64>>,
    address: SocketAddr,
) -> io::Result<TcpStream> {
    check(shim, believed, address).await?;
    let stream = TcpStream::connect(address).await?;
    // Nobody else has taken its place meanwhile.
    check(shim, believed, address).await?;
    Ok(stream)
}

/// Refuses a listener that is not the process's.
async fn check(shim: i32, believed: &Mutex<HashSet<u64>>, address: SocketAddr) -> io::Result<()> {
    let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
    let inode = listener_at(address)?.ok_or_else(refused)?;
    if believed.lock().unwrap_or_else(PoisonError::into_inner).contains(&inode) {
        return Ok(());
    }
    let held = spawn_blocking(move || sockets_below(shim)).await.map_err(io::Error::other)??;
    if !held.contains(&inode) {
        return Err(refused());
    }
    believed.lock().unwrap_or_else(PoisonError::into_inner).insert(inode);
    Ok(())
}

impl PartialEq for Connector {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Connector {}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.way {
            Way::Nowhere => f.write_str("nowhere"),
            Way::Unknown { shim } => write!(f, "unknown, below {shim}"),
            Way::Inside(network) => network.fmt(f),
            Way::Machine { shim, .. } => write!(f, "machine, below {shim}"),
        }
    }
}
