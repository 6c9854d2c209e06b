//! The face: a [`Router`] is a handle; the table, the counts and the connections are behind it.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::AccessLine;
use crate::ids::Ids;
use crate::listen;
use crate::live::{Live, Registry, lock};
use crate::settings::Settings;
use crate::table::{Backend, Hosts, Route, Table};

/// How long a connection that a process has closed may go unnoticed.
const LONGEST_UNSWEPT: Duration = Duration::from_secs(5);

/// Takes requests and hands them to processes. Clones are the same router.
#[derive(Clone)]
pub struct Router(pub(crate) Arc<Inner>);

/// What a [`Router::drain`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Requests that were still running at the deadline and were cut. Each has its access line.
    pub cut: usize,
}

pub(crate) struct Inner {
    pub(crate) settings: Settings,
    pub(crate) on_line: Arc<dyn Fn(AccessLine) + Send + Sync>,
    pub(crate) table: ArcSwap<Hosts<LiveRoute>>,
    /// Held while a table is swapped in: its backends are marked before and after.
    swap: Mutex<()>,
    /// Told of each new table.
    pub(crate) changed: watch::Sender<()>,
    pub(crate) registry: Registry,
    /// Places for requests that wait for a process to boot.
    pub(crate) hold: Semaphore,
    pub(crate) connections: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    /// No new connections; each open one ends with its request.
    pub(crate) draining: CancellationToken,
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

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Router").field("in_flight", &self.0.registry.in_flight()).finish()
    }
}

impl Router {
    /// A router without routes. `on_line` is called once per request, from the task that served
    /// it: it must not block.
    pub fn new(settings: Settings, on_line: Arc<dyn Fn(AccessLine) + Send + Sync>) -> Self {
        Self(Arc::new(Inner {
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
            cut: CancellationToken::new(),
            cut_requests: AtomicUsize::new(0),
            put_aside: Notify::new(),
            turn: AtomicUsize::new(0),
            ids: Ids::default(),
        }))
    }

    /// Takes connections from `listener` until the router drains. May be called several times,
    /// with a listener each.
    ///
    /// Returns when no more connections are taken; those that are open go on, and
    /// [`Router::drain`] waits for them.
    pub async fn serve(&self, listener: TcpListener) {
        // Drained only when this has returned, too.
        let _token = self.0.tasks.token();
        tokio::select! {
            () = listen::accept(&self.0, listener) => {}
            () = self.0.sweep() => {}
        }
    }

    /// Replaces the table. Requests that have chosen a process go on with it.
    ///
    /// Returns at once. To stop a process that is not in the table any more, wait for
    /// [`Router::unused`] first.
    pub fn set_table(&self, table: &Table) {
        let _swap = lock(&self.0.swap);
        let compiled = table.map(|route| LiveRoute {
            route: Arc::clone(route),
            backends: self.0.registry.enlist(&route.backends),
        });
        self.0.table.store(Arc::new(compiled));
        self.0.registry.retire(table);
        self.0.changed.send_replace(());
    }

    /// Requests that `backend` is answering.
    pub fn in_flight(&self, backend: &Backend) -> usize {
        self.0.registry.get(backend).map_or(0, |live| live.in_flight())
    }

    /// Resolves once `backend` answers no request. Final only when it has left the table.
    pub async fn unused(&self, backend: &Backend) {
        if let Some(live) = self.0.registry.get(backend) {
            live.unused().await;
        }
    }

    /// Stops taking connections, lets each open one finish its request, and after `grace` cuts
    /// what is left. Resolves when every connection is closed and every access line written.
    pub async fn drain(&self, grace: Duration) -> Drained {
        self.0.draining.cancel();
        self.0.tasks.close();
        let deadline = Instant::now() + grace;
        if tokio::time::timeout_at(deadline, self.0.tasks.wait()).await.is_err() {
            self.0.cut.cancel();
            self.0.tasks.wait().await;
        }
        // A process may wait for its connections to end before it does.
        self.0.registry.sweep(Duration::ZERO);
        Drained { cut: self.0.cut_requests.load(Ordering::Relaxed) }
    }
}

impl Inner {
    /// Closes unused connections to processes in time, for ever. Sleeps while there are none.
    async fn sweep(&self) {
        let keep = self.settings.upstream_keep_alive;
        loop {
            self.put_aside.notified().await;
            while self.registry.sweep(keep) {
                tokio::time::sleep(keep.min(LONGEST_UNSWEPT)).await;
            }
        }
    }
}
