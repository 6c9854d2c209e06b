//! The clients' connections: how many there may be, in all and of one peer, and which make room.
//!
//! ```text
//!  waiting ── a byte ──▶ reading ── a whole head ──▶ busy ── answered ──▶ waiting
//!     └───── evicted ◀──────┘
//! ```
//!
//! A connection says itself what it does, without a lock. Who looks for places goes through all of
//! them, and closes a few at a time, those that have waited longest.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use crate::live::lock;

/// A connection that has waited for a request for less than this keeps its place.
const MIN_IDLE: Duration = Duration::from_millis(500);
/// And one whose request's head comes in pieces, since the first of them.
const MIN_HEAD: Duration = Duration::from_millis(1500);
/// Where nothing could be evicted, before all connections are looked at again.
const RESCAN_DELAY: Duration = Duration::from_millis(20);
/// One in so many connections is evicted at a time.
const BATCH: usize = 64;
/// One in so many connections may be of one peer.
const PER_PEER: usize = 4;

/// In place of the moment since when a connection waits.
const BUSY: u64 = u64::MAX;
const EVICTED: u64 = u64::MAX - 1;

/// Who is at the other end, as far as connections are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Peer {
    /// A proxy, or what may be one since it is on this machine: everybody may be behind it.
    Proxy,
    /// An IPv4 address.
    V4([u8; 4]),
    /// The network of an IPv6 address: one machine has many addresses in it.
    V6([u8; 8]),
}

impl Peer {
    pub(crate) fn new(address: IpAddr, is_trusted: bool) -> Self {
        match address.to_canonical() {
            address if is_trusted || address.is_loopback() => Self::Proxy,
            IpAddr::V4(address) => Self::V4(address.octets()),
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, h, ..] = address.octets();
                Self::V6([a, b, c, d, e, f, g, h])
            }
        }
    }
}

/// Why there is no place for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// Its peer has as many as it may have.
    Peer,
    /// There are as many as there may be.
    Total,
}

/// How many connections there are and were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Open now.
    pub open: usize,
    /// How many there may be.
    pub max: usize,
    /// Refused, since their peer had as many as it may have.
    pub refused_of_peer: u64,
    /// Refused, since there were as many as there may be.
    pub refused_in_total: u64,
    /// Closed without a request to make room for others.
    pub evicted: u64,
}

/// All connections of clients.
#[derive(Debug)]
pub(crate) struct Clients {
    max: usize,
    began: Instant,
    open: Mutex<Open>,
    /// Told when a connection ends.
    ended: Notify,
    refused_of_peer: AtomicU64,
    refused_in_total: AtomicU64,
    evicted: AtomicU64,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    clients: HashMap<u64, Arc<Client>>,
    peers: HashMap<Peer, PeerState>,
    /// When nothing could be evicted last.
    scanned: Option<Instant>,
}

#[derive(Debug, Default)]
struct PeerState {
    open: usize,
    scanned: Option<Instant>,
}

#[derive(Debug)]
struct Client {
    peer: Peer,
    /// Milliseconds after the beginning since when it waits, or [`BUSY`], or [`EVICTED`].
    waiting: AtomicU64,
    told: Notify,
}

/// One connection, counted as long as this lives.
#[derive(Debug)]
pub(crate) struct Admitted {
    clients: Arc<Clients>,
    id: u64,
    client: Arc<Client>,
}

impl Clients {
    pub(crate) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            began: Instant::now(),
            open: Mutex::default(),
            ended: Notify::new(),
            refused_of_peer: AtomicU64::new(0),
            refused_in_total: AtomicU64::new(0),
            evicted: AtomicU64::new(0),
        })
    }

    pub(crate) fn counts(&self) -> Connections {
        Connections {
            open: lock(&self.open).clients.len(),
            max: self.max,
            refused_of_peer: self.refused_of_peer.load(Ordering::Relaxed),
            refused_in_total: self.refused_in_total.load(Ordering::Relaxed),
            evicted: self.evicted.load(Ordering::Relaxed),
        }
    }

    /// Counts a connection that is refused.
    pub(crate) fn refuse(&self, why: Full) {
        let counter = match why {
            Full::Peer => &self.refused_of_peer,
            Full::Total => &self.refused_in_total,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Resolves when a connection ends, or one may have become old enough to be evicted.
    pub(crate) async fn changed(&self) {
        tokio::time::timeout(RESCAN_DELAY, self.ended.notified()).await.ok();
    }

    /// Counts one more. Where there are as many as there may be, it takes the place of one that waits
    /// for a request, the longest first.
    pub(crate) fn admit(self: &Arc<Self>, peer: Peer) -> Result<Admitted, Full> {
        let mut open = lock(&self.open);
        let max_of_peer = match peer {
            Peer::Proxy => self.max,
            Peer::V4(_) | Peer::V6(_) => self.max.div_ceil(PER_PEER),
        };
        let of_peer = open.peers.get(&peer).map_or(0, |state| state.open);
        if of_peer >= max_of_peer && !self.evict(&mut open, Some(peer), max_of_peer) {
            return Err(Full::Peer);
        }
        if open.clients.len() >= self.max && !self.evict(&mut open, None, self.max) {
            return Err(Full::Total);
        }
        let id = open.next;
        open.next += 1;
        let waiting = AtomicU64::new(self.now());
        let client = Arc::new(Client { peer, waiting, told: Notify::new() });
        open.clients.insert(id, Arc::clone(&client));
        open.peers.entry(peer).or_default().open += 1;
        Ok(Admitted { clients: Arc::clone(self), id, client })
    }

    /// Closes some connections, of `peer` or of all: whether there was any.
    fn evict(&self, open: &mut Open, peer: Option<Peer>, max: usize) -> bool {
        let Some(scanned) = open.scanned(peer) else { return false };
        if scanned.is_some_and(|scanned| scanned.elapsed() < RESCAN_DELAY) {
            return false;
        }
        *scanned = Some(Instant::now());
        let now = self.now();
        let mut waiting: Vec<(u64, u64)> = open
            .clients
            .iter()
            .filter(|(_, client)| peer.is_none_or(|peer| client.peer == peer))
            .map(|(id, client)| (client.waiting.load(Ordering::SeqCst), *id))
            .filter(|(since, _)| since.saturating_add(millis(MIN_IDLE)) <= now)
            .collect();
        let batch = max.div_ceil(BATCH);
        if waiting.len() > batch {
            waiting.select_nth_unstable(batch);
            waiting.truncate(batch);
        }
        let mut found = false;
        for (since, id) in waiting {
            let Some(client) = open.clients.get(&id) else { continue };
            let evicted =
                client.waiting.compare_exchange(since, EVICTED, Ordering::SeqCst, Ordering::SeqCst);
            // It got a request just now.
            if evicted.is_err() {
                continue;
            }
            client.told.notify_one();
            self.evicted.fetch_add(1, Ordering::Relaxed);
            open.remove(id);
            found = true;
        }
        if found && let Some(scanned) = open.scanned(peer) {
            *scanned = None;
        }
        found
    }

    fn now(&self) -> u64 {
        millis(self.began.elapsed())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(EVICTED - 1)
}

impl Open {
    /// When nothing of a peer, or of all, could be evicted last.
    fn scanned(&mut self, peer: Option<Peer>) -> Option<&mut Option<Instant>> {
        match peer {
            Some(peer) => self.peers.get_mut(&peer).map(|state| &mut state.scanned),
            None => Some(&mut self.scanned),
        }
    }

    fn remove(&mut self, id: u64) {
        let Some(client) = self.clients.remove(&id) else { return };
        if let Some(state) = self.peers.get_mut(&client.peer) {
            state.open -= 1;
            if state.open == 0 {
                self.peers.remove(&client.peer);
            }
        }
    }
}

impl Admitted {
    /// It waits for a request from here on.
    pub(crate) fn waits(&self) {
        self.set(self.clients.now());
    }

    /// A request has begun, and is not read yet.
    pub(crate) fn reads(&self) {
        // Old enough only when its head is.
        self.set(self.clients.now() + millis(MIN_HEAD.saturating_sub(MIN_IDLE)));
    }

    /// It has a request; false where it was evicted just now.
    pub(crate) fn is_busy(&self) -> bool {
        self.set(BUSY)
    }

    fn set(&self, now: u64) -> bool {
        let waiting = &self.client.waiting;
        let set = |before| (before != EVICTED).then_some(now);
        waiting.fetch_update(Ordering::SeqCst, Ordering::SeqCst, set).is_ok()
    }

    /// Resolves when it has to make room.
    pub(crate) async fn evicted(&self) {
        self.client.told.notified().await;
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        lock(&self.clients.open).remove(self.id);
        self.clients.ended.notify_one();
    }
}

#[cfg(test)]
mod tests;
