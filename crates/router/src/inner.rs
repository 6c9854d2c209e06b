//! What is behind the handle: the table, the counts, and what ends everything.

use std::collections::HashMap;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{AcquireError, Notify, OwnedSemaphorePermit, Semaphore, SemaphorePermit, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::AccessLine;
use crate::ids::Ids;
use crate::live::{Live, Registry, lock};
use crate::settings::Settings;
use crate::table::{Hosts, Route};

/// How long a connection that a process has closed may go unnoticed.
const LONGEST_UNSWEPT: Duration = Duration::from_secs(5);

/// One in so many places is free before connections without a request make room.
const SPARE: usize = 16;
/// Between two of them that make room, while nobody can be taken.
const CROWDED: Duration = Duration::from_millis(20);

/// What the handle, the listeners, the connections and their requests share.
pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) on_line: Arc<dyn Fn(AccessLine) + Send + Sync>,
    pub(crate) table: ArcSwap<Hosts<LiveRoute>>,
    /// Held while a table is swapped in: its backends are marked before and after.
    pub(crate) swap: Mutex<()>,
    /// Told of each new table.
    pub(crate) changed: watch::Sender<()>,
    pub(crate) registry: Registry,
    /// Places for requests that wait for a process to boot.
    pub(crate) hold: Semaphore,
    pub(crate) connections: Arc<Semaphore>,
    /// Told to one connection without a request, the one that waits longest: somebody needs its
    /// place.
    pub(crate) crowded: Notify,
    /// Requests that wait for a process to boot, by host.
    pub(crate) held: Mutex<HashMap<String, usize>>,
    pub(crate) tasks: TaskTracker,
    /// No new connections; each open one ends with its request.
    pub(crate) draining: CancellationToken,
    /// Somebody else takes connections from the same listeners.
    pub(crate) handed_on: CancellationToken,
    /// The deadline is over.
    pub(crate) cut: CancellationToken,
    pub(crate) cut_requests: AtomicUsize,
    /// Told when a connection to a process is put aside.
    pub(crate) put_aside: Notify,
    /// Whose turn it is among equals.
    pub(crate) turn: AtomicUsize,
    pub(crate) ids: Ids,
}

/// A request that waits for a process to boot.
pub(crate) struct Held<'a> {
    router: &'a Inner,
    host: String,
    _place: SemaphorePermit<'a>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        let mut held = lock(&self.router.held);
        if let Some(count) = held.get_mut(&self.host) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.host);
            }
        }
    }
}

/// A route and the live side of its backends, in the same order.
pub(crate) struct LiveRoute {
    pub(crate) route: Arc<Route>,
    pub(crate) backends: Vec<Arc<Live>>,
}

impl Inner {
    /// Without routes.
    pub(crate) fn new(settings: Settings, on_line: Arc<dyn Fn(AccessLine) + Send + Sync>) -> Self {
        Self {
            hold: Semaphore::new(settings.hold_requests),
            connections: Arc::new(Semaphore::new(settings.connections)),
            crowded: Notify::new(),
            held: Mutex::default(),
            settings,
            on_line,
            table: ArcSwap::from_pointee(Hosts::default()),
            swap: Mutex::new(()),
            changed: watch::Sender::new(()),
            registry: Registry::default(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            handed_on: CancellationToken::new(),
            cut: CancellationToken::new(),
            cut_requests: AtomicUsize::new(0),
            put_aside: Notify::new(),
            turn: AtomicUsize::new(0),
            ids: Ids::default(),
        }
    }

    /// How many requests one host may have in flight: the other half is for the others.
    pub(crate) fn host_requests(&self) -> usize {
        self.settings.host_requests.min(self.settings.connections.div_ceil(2))
    }

    /// A place for a client's connection, once there is one: connections without a request make
    /// room, a few before the last place is taken.
    pub(crate) async fn place(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        loop {
            if self.connections.available_permits() <= self.settings.connections / SPARE {
                self.crowded.notify_one();
            }
            if let Ok(place) = Arc::clone(&self.connections).try_acquire_owned() {
                return Ok(place);
            }
            let place = Arc::clone(&self.connections).acquire_owned();
            if let Ok(place) = tokio::time::timeout(CROWDED, place).await {
                return place;
            }
        }
    }

    /// Counts a request that waits for a host to boot; nothing where as many wait as may.
    pub(crate) fn hold(&self, host: Option<&str>) -> Option<Held<'_>> {
        let place = self.hold.try_acquire().ok()?;
        let host = host.unwrap_or_default().to_owned();
        let mut held = lock(&self.held);
        let count = held.entry(host.clone()).or_default();
        if *count >= self.settings.host_hold {
            return None;
        }
        *count += 1;
        drop(held);
        Some(Held { router: self, host, _place: place })
    }

    /// Closes unused connections to processes in time, for ever. Sleeps while there are none.
    pub(crate) async fn sweep(&self) {
        let keep = self.settings.upstream_keep_alive;
        loop {
            self.put_aside.notified().await;
            while self.registry.sweep(keep) {
                tokio::time::sleep(keep.min(LONGEST_UNSWEPT)).await;
            }
        }
    }
}
