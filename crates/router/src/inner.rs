//! What is behind the handle: the table, the counts, and what ends everything.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::AccessLine;
use crate::ids::Ids;
use crate::live::{Live, Registry};
use crate::settings::Settings;
use crate::table::{Hosts, Route};

/// How long a connection that a process has closed may go unnoticed.
const LONGEST_UNSWEPT: Duration = Duration::from_secs(5);

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
