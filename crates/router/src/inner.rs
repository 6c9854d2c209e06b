//! What is behind the handle: the table, the counts, and what ends everything.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::AccessLine;
use crate::clients::Clients;
use crate::handed::Handed;
use crate::ids::Ids;
use crate::live::{Live, Registry, lock};
use crate::settings::Settings;
use crate::table::{Hosts, Route};

/// How long a connection that a process has closed may go unnoticed.
const LONGEST_UNSWEPT: Duration = Duration::from_secs(5);

/// Of the connections, the part whose requests may wait for processes to boot: in all, and for one
/// route.
const HOLD: (usize, usize) = (2, 8);
/// Connections that are told why they are refused, at once.
const REFUSALS: usize = 32;

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
    /// Requests that wait for a process to boot, by the host of their route.
    pub(crate) held: Mutex<HashMap<Arc<str>, usize>>,
    pub(crate) clients: Arc<Clients>,
    /// Places for connections that are refused, until they know why.
    pub(crate) refusals: Arc<Semaphore>,
    /// Places for connections to processes that wait for the next request.
    pub(crate) idle: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    /// No new connections; each open one ends with its request.
    pub(crate) draining: CancellationToken,
    /// Somebody else is about to look after the processes: what is not here may be there soon.
    pub(crate) leaving: CancellationToken,
    /// Somebody else takes connections from the same listeners, and those that wait here for a process.
    pub(crate) handed_on: CancellationToken,
    pub(crate) heir: Mutex<Option<mpsc::UnboundedSender<Handed>>>,
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
    host: Arc<str>,
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
    /// The name that it has in the table; empty for the default.
    pub(crate) host: Arc<str>,
    pub(crate) route: Arc<Route>,
    pub(crate) backends: Vec<Arc<Live>>,
}

impl Inner {
    /// Without routes.
    pub(crate) fn new(settings: Settings, on_line: Arc<dyn Fn(AccessLine) + Send + Sync>) -> Self {
        Self {
            hold: Semaphore::new(settings.hold_requests.min(settings.connections.div_ceil(HOLD.0))),
            held: Mutex::default(),
            clients: Clients::new(settings.connections),
            refusals: Arc::new(Semaphore::new(REFUSALS)),
            idle: Arc::new(Semaphore::new(settings.idle_connections())),
            settings,
            on_line,
            table: ArcSwap::from_pointee(Hosts::default()),
            swap: Mutex::new(()),
            changed: watch::Sender::new(()),
            registry: Registry::default(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            leaving: CancellationToken::new(),
            handed_on: CancellationToken::new(),
            heir: Mutex::default(),
            cut: CancellationToken::new(),
            cut_requests: AtomicUsize::new(0),
            put_aside: Notify::new(),
            turn: AtomicUsize::new(0),
            ids: Ids::default(),
        }
    }

    /// Whether there is somebody to hand connections on to.
    pub(crate) fn has_heir(&self) -> bool {
        lock(&self.heir).as_ref().is_some_and(|heir| !heir.is_closed())
    }

    /// Whether a peer is a proxy of the platform's.
    pub(crate) fn trusts(&self, peer: IpAddr) -> bool {
        self.settings.trusted.iter().any(|network| network.contains(peer))
    }

    /// How many requests one host may have in flight: the other half is for the others.
    pub(crate) fn host_requests(&self) -> usize {
        self.settings.host_requests.min(self.settings.connections.div_ceil(2))
    }

    /// Counts a request that waits for a route's processes to boot; nothing where as many wait as may.
    pub(crate) fn hold(&self, route: &LiveRoute) -> Option<Held<'_>> {
        let place = self.hold.try_acquire().ok()?;
        let max = self.settings.host_hold.min(self.settings.connections.div_ceil(HOLD.1));
        let mut held = lock(&self.held);
        let count = held.entry(Arc::clone(&route.host)).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        drop(held);
        Some(Held { router: self, host: Arc::clone(&route.host), _place: place })
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
