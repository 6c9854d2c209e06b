//! How connections to a backend are made: whoever starts processes knows where they are.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use tokio::net::TcpStream;

/// A connection that is being made.
pub type Dialing = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send>>;

/// Makes the connections to one backend. Two of the same id are the same.
#[derive(Clone)]
pub struct Dialer {
    id: u64,
    dial: Arc<dyn Fn(SocketAddr) -> Dialing + Send + Sync>,
}

impl Dialer {
    /// One that connects by calling `dial`; `id` is not 0 and tells it apart from every other.
    pub fn new(id: u64, dial: impl Fn(SocketAddr) -> Dialing + Send + Sync + 'static) -> Self {
        Self { id, dial: Arc::new(dial) }
    }

    /// Plain connections in this machine's network.
    pub fn direct() -> Self {
        Self::new(0, |address| Box::pin(TcpStream::connect(address)))
    }

    pub(crate) fn dial(&self, address: SocketAddr) -> Dialing {
        (self.dial)(address)
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dialer({})", self.id)
    }
}

impl PartialEq for Dialer {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

impl Eq for Dialer {}

impl PartialOrd for Dialer {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Dialer {
    fn cmp(&self, other: &Self) -> Ordering {
        self.id.cmp(&other.id)
    }
}

impl Hash for Dialer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.id.hash(state);
    }
}
