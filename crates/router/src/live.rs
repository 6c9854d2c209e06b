//! What the router knows of each backend while it runs: requests in flight, quarantine, and
//! connections that wait for the next request.
//!
//! # Invariants
//!
//! * A request counts as in flight on a backend before it looks whether the backend is still in
//!   the table, and a removal marks the backend before it reads the count: once a removed
//!   backend's count is zero, it stays zero.
//! * A removed backend keeps no unused connection.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use crate::health::Health;
use crate::table::{Backend, Table};

/// Locks, also after a panic elsewhere: every critical section here leaves a whole value.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One backend as it lives.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) backend: Backend,
    in_flight: AtomicUsize,
    /// How many of them may last for ever: tunnels such as WebSockets, and streams of events.
    lasting: AtomicUsize,
    removed: AtomicBool,
    /// Woken when a request ends or is found to be a lasting one, and no other is in flight.
    ended: Notify,
    /// Tells the WebSockets and streams of this moment that they are to be closed.
    closing: Notify,
    /// Whether another process takes its place, as it was said with that.
    is_replaced: AtomicBool,
    quarantined_until: Mutex<Option<Instant>>,
    health: Mutex<Health>,
    /// Connections without a request, the last used at the end.
    idle: Mutex<Vec<Idle>>,
}

/// A connection that waits for the next request, and its place among all of them.
#[derive(Debug)]
struct Idle {
    stream: TcpStream,
    since: Instant,
    _place: OwnedSemaphorePermit,
}

/// One request on a backend; gone when dropped.
#[derive(Debug)]
pub(crate) struct InFlight {
    live: Arc<Live>,
    is_lasting: AtomicBool,
}

impl InFlight {
    /// Its backend, for longer than the request.
    pub(crate) fn live(&self) -> Arc<Live> {
        Arc::clone(&self.live)
    }

    /// It has become a tunnel or a stream of events, which lasts for as long as its two ends like.
    pub(crate) fn become_lasting(&self) {
        if !self.is_lasting.swap(true, Ordering::SeqCst) {
            self.live.lasting.fetch_add(1, Ordering::SeqCst);
            self.live.tell();
        }
    }

    /// Whether it has.
    pub(crate) fn is_lasting(&self) -> bool {
        self.is_lasting.load(Ordering::SeqCst)
    }
}

impl std::ops::Deref for InFlight {
    type Target = Live;
    fn deref(&self) -> &Live {
        &self.live
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        // Never more of them than requests, whoever looks between the two.
        if self.is_lasting() {
            self.live.lasting.fetch_sub(1, Ordering::SeqCst);
        }
        self.live.in_flight.fetch_sub(1, Ordering::SeqCst);
        self.live.tell();
    }
}

impl Live {
    fn new(backend: Backend) -> Self {
        Self {
            backend,
            in_flight: AtomicUsize::new(0),
            lasting: AtomicUsize::new(0),
            removed: AtomicBool::new(false),
            ended: Notify::new(),
            closing: Notify::new(),
            is_replaced: AtomicBool::new(false),
            quarantined_until: Mutex::new(None),
            health: Mutex::default(),
            idle: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Counts a request in; `None` when the backend has left the table meanwhile.
    pub(crate) fn enter(self: &Arc<Self>) -> Option<InFlight> {
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        let request = InFlight { live: Arc::clone(self), is_lasting: AtomicBool::new(false) };
        (!self.removed.load(Ordering::SeqCst)).then_some(request)
    }

    /// Requests in flight that come to an end by themselves.
    fn unanswered(&self) -> usize {
        // In this order: a request that ends in between is not counted as less than none.
        let lasting = self.lasting.load(Ordering::SeqCst);
        self.in_flight().saturating_sub(lasting)
    }

    /// Requests that come to an end by themselves, and those that last.
    pub(crate) fn waited_for(&self) -> (usize, usize) {
        (self.unanswered(), self.lasting.load(Ordering::SeqCst))
    }

    /// Wakes who waits, where there may be a reason.
    fn tell(&self) {
        if self.unanswered() == 0 {
            self.ended.notify_waiters();
        }
    }

    /// Resolves once no request is in flight.
    pub(crate) async fn unused(&self) {
        self.wait_until(|live| live.in_flight() == 0).await;
    }

    /// Resolves once every request is answered; tunnels and streams may be left.
    pub(crate) async fn answered(&self) {
        self.wait_until(|live| live.unanswered() == 0).await;
    }

    /// Closes the WebSockets that are open, each by a close frame, and ends the streams soon.
    pub(crate) fn close_lasting(&self, is_replaced: bool) {
        self.is_replaced.store(is_replaced, Ordering::SeqCst);
        self.closing.notify_waiters();
    }

    /// Whether the last [`Live::close_lasting`] said that another process takes its place.
    pub(crate) fn is_replaced(&self) -> bool {
        self.is_replaced.load(Ordering::SeqCst)
    }

    /// Resolves at the first [`Live::close_lasting`] after this call, whenever it is polled.
    pub(crate) fn lasting_close(&self) -> Notified<'_> {
        self.closing.notified()
    }

    async fn wait_until(&self, is_done: impl Fn(&Self) -> bool) {
        loop {
            let ended = self.ended.notified();
            if is_done(self) {
                return;
            }
            ended.await;
        }
    }

    pub(crate) fn quarantine(&self, length: Duration) {
        *lock(&self.quarantined_until) = Instant::now().checked_add(length);
    }

    pub(crate) fn is_quarantined(&self) -> bool {
        lock(&self.quarantined_until).is_some_and(|until| Instant::now() < until)
    }

    /// Whether it takes connections and answers nothing, so that others get its requests.
    pub(crate) fn is_passed_over(&self) -> bool {
        lock(&self.health).is_passed_over(Instant::now())
    }

    /// Whether it takes connections and has answered nothing yet.
    pub(crate) fn hangs(&self) -> bool {
        lock(&self.health).hangs()
    }

    /// A request is about to be sent to it.
    pub(crate) fn chosen(&self) {
        lock(&self.health).chosen(Instant::now());
    }

    /// A request was not answered in time; whether it hangs from here on.
    pub(crate) fn timed_out(&self, pause: Duration) -> bool {
        lock(&self.health).timed_out(Instant::now(), pause)
    }

    /// It answers; whether it was known to hang.
    pub(crate) fn answers(&self) -> bool {
        lock(&self.health).answered()
    }

    pub(crate) fn end_quarantine(&self) {
        *lock(&self.quarantined_until) = None;
    }

    /// A connection that is open, was used less than `keep` ago and has nothing to say.
    pub(crate) fn take_idle(&self, keep: Duration) -> Option<TcpStream> {
        loop {
            let idle = lock(&self.idle).pop()?;
            if idle.since.elapsed() < keep && is_silent(&idle.stream) {
                return Some(idle.stream);
            }
        }
    }

    /// Keeps a connection for the next request, unless there are `most` already, or none of `places`.
    pub(crate) fn put_idle(&self, stream: TcpStream, most: usize, places: &Arc<Semaphore>) {
        let mut idle = lock(&self.idle);
        if idle.len() < most
            && !self.removed.load(Ordering::SeqCst)
            && let Ok(place) = Arc::clone(places).try_acquire_owned()
        {
            idle.push(Idle { stream, since: Instant::now(), _place: place });
        }
    }

    /// Closes what was not used for `keep`, or what the process has closed; whether any is left.
    fn sweep(&self, keep: Duration) -> bool {
        let mut idle = lock(&self.idle);
        idle.retain(|idle| idle.since.elapsed() < keep && is_silent(&idle.stream));
        !idle.is_empty()
    }

    fn remove(&self) {
        self.removed.store(true, Ordering::SeqCst);
        lock(&self.idle).clear();
    }
}

/// Whether a connection without a request is open and has no byte waiting.
fn is_silent(stream: &TcpStream) -> bool {
    let mut byte = [0];
    matches!(stream.try_read(&mut byte), Err(error) if error.kind() == std::io::ErrorKind::WouldBlock)
}

/// All backends of the table, and those that left it with requests in flight.
#[derive(Debug, Default)]
pub(crate) struct Registry(Mutex<HashMap<Backend, Arc<Live>>>);

impl Registry {
    pub(crate) fn get(&self, backend: &Backend) -> Option<Arc<Live>> {
        lock(&self.0).get(backend).cloned()
    }

    /// The live side of `backends`, made where there is none.
    pub(crate) fn enlist(&self, backends: &[Backend]) -> Vec<Arc<Live>> {
        let mut all = lock(&self.0);
        let enlist = |backend: &Backend| {
            let live =
                all.entry(backend.clone()).or_insert_with(|| Arc::new(Live::new(backend.clone())));
            live.removed.store(false, Ordering::SeqCst);
            Arc::clone(live)
        };
        backends.iter().map(enlist).collect()
    }

    /// Marks every backend that is not in `table`, and forgets those nobody uses any more.
    pub(crate) fn retire(&self, table: &Table) {
        let kept: std::collections::HashSet<&Backend> =
            table.routes().flat_map(|route| &route.backends).collect();
        lock(&self.0).retain(|backend, live| {
            let keep = kept.contains(backend);
            if !keep {
                live.remove();
            }
            keep || live.in_flight() > 0
        });
    }

    /// Closes unused connections that have had their time; whether any is left.
    pub(crate) fn sweep(&self, keep: Duration) -> bool {
        lock(&self.0).values().filter(|live| live.sweep(keep)).count() > 0
    }

    /// On all backends: requests that come to an end by themselves, and those that last.
    pub(crate) fn waited_for(&self) -> (usize, usize) {
        let all = lock(&self.0);
        let each = all.values().map(|live| live.waited_for());
        each.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
    }

    /// Requests in flight on all backends.
    pub(crate) fn in_flight(&self) -> usize {
        lock(&self.0).values().map(|live| live.in_flight()).sum()
    }
}

#[cfg(test)]
mod tests;
