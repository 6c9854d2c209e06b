//! The face: a [`Router`] is a handle; the table, the counts and the connections are behind it.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::access::AccessLine;
use crate::clients::Connections;
use crate::handed::Handed;
use crate::inner::{Inner, LiveRoute};
use crate::listen;
use crate::live::lock;
use crate::settings::Settings;
use crate::table::{Backend, Table};

/// Takes requests and hands them to processes. Clones are the same router.
#[derive(Clone)]
pub struct Router(Arc<Inner>);

/// What a [`Router::drain`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drained {
    /// Requests that were still running at the deadline and were cut. Each has its access line.
    pub cut: usize,
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
        Self(Arc::new(Inner::new(settings, on_line)))
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
        let compiled = table.map(|host, route| LiveRoute {
            host: host.into(),
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

    /// What a [`Router::drain`] would wait for: requests that come to an end by themselves, and those
    /// that last, such as WebSockets and streams of events.
    pub fn waited_for(&self) -> (usize, usize) {
        self.0.registry.waited_for()
    }

    /// The same of `backend` alone.
    pub fn waited_for_at(&self, backend: &Backend) -> (usize, usize) {
        self.0.registry.get(backend).map_or((0, 0), |live| live.waited_for())
    }

    /// How many connections clients have and had.
    pub fn connections(&self) -> Connections {
        self.0.clients.counts()
    }

    /// Whether `backend` has let several requests in a row run into the time-out, and has answered none
    /// since.
    pub fn hangs(&self, backend: &Backend) -> bool {
        self.0.registry.get(backend).is_some_and(|live| live.hangs())
    }

    /// Resolves once `backend` answers no request. Final only when it has left the table.
    pub async fn unused(&self, backend: &Backend) {
        if let Some(live) = self.0.registry.get(backend) {
            live.unused().await;
        }
    }

    /// Resolves once `backend` has answered every request; tunnels such as WebSockets and streams of
    /// events, which may last for ever, may be left. Final only when it has left the table.
    pub async fn answered(&self, backend: &Backend) {
        if let Some(live) = self.0.registry.get(backend) {
            live.answered().await;
        }
    }

    /// Closes the WebSockets of `backend` with a close frame to either side, between two frames: 1012
    /// ("service restart") where it is replaced, else 1001 ("going away"). What is left after 30 seconds is cut. Bytes that are no frames are left
    /// alone, as are other tunnels. Streams of events (`text/event-stream`) end 4 seconds later.
    pub fn close_lasting(&self, backend: &Backend, is_replaced: bool) {
        if let Some(live) = self.0.registry.get(backend) {
            live.close_lasting(is_replaced);
        }
    }

    /// Says that somebody else is about to look after the processes: nobody knows here any more which of
    /// them are gone. A request that reaches none waits for [`Router::hand_on`].
    pub fn leave(&self) {
        self.0.leaving.cancel();
    }

    /// Says that somebody else takes connections from the same listeners: a [`Router::drain`] leaves
    /// theirs in the kernel's queue. Connections whose request waits for a process, and those that reach
    /// none from here on, go to `heir`, until the router is drained; its [`Router::adopt`] takes them.
    pub fn hand_on(&self, heir: mpsc::UnboundedSender<Handed>) {
        *lock(&self.0.heir) = Some(heir);
        self.0.leaving.cancel();
        self.0.handed_on.cancel();
    }

    /// Goes on with a connection of another router's. To be called in the runtime that serves.
    ///
    /// # Errors
    ///
    /// The client is gone, or the system's.
    pub fn adopt(&self, handed: Handed) -> io::Result<()> {
        listen::adopt(&self.0, handed)
    }

    /// Stops taking connections, lets each open one finish its request, and after `grace` cuts
    /// what is left. WebSockets get a close frame at once: 1012 ("service restart") after
    /// [`Router::hand_on`], else 1001 ("going away"). Streams of events end after 2 seconds, unless it
    /// was handed on. Resolves when every connection is closed and every access line written.
    pub async fn drain(&self, grace: Duration) -> Drained {
        self.0.draining.cancel();
        self.0.tasks.close();
        let deadline = Instant::now() + grace;
        if tokio::time::timeout_at(deadline, self.0.tasks.wait()).await.is_err() {
            self.0.cut.cancel();
            self.0.tasks.wait().await;
        }
        // Nothing comes any more.
        lock(&self.0.heir).take();
        // A process may wait for its connections to end before it does.
        self.0.registry.sweep(Duration::ZERO);
        Drained { cut: self.0.cut_requests.load(Ordering::Relaxed) }
    }
}
