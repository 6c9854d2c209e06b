//! From a host to a connection: the route, a wait while it boots, a process, a socket.
//!
//! ```text
//!   route? ── none ──▶ H31
//!     │
//!   state ── crashed, no web, maintenance ──▶ H10, H14, H80
//!     │  └── booting, or nobody ready ──▶ wait for the next table, 75 s ──▶ H20
//!   process ── none left to try ──▶ H21, H19
//!     │  ▲
//!   connect ── failed: quarantine
//!        └── nothing left to connect with ──▶ H99
//! ```
//!
//! While another platform takes over, nobody knows here whether a process that is gone is started again:
//! in place of H10, H19, H20 and H21 the request waits, and is handed on.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::io::Errno;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tolv_model::shortage::Shortage;

use crate::access::Code;
use crate::balance::{Load, choose};
use crate::exchange::{Failure, Unanswered};
use crate::inner::{Held, Inner, LiveRoute};
use crate::live::InFlight;
use crate::settings::TimeOuts;
use crate::table::{Backend, State};

/// How many processes one request tries.
const TRIES: usize = 8;

/// A process that is ready for the request.
pub(crate) struct Reached {
    pub(crate) request: InFlight,
    pub(crate) stream: TcpStream,
    /// The connection served a request before.
    pub(crate) used: bool,
}

/// What is known of a request's way, also when it failed; for the access line.
pub(crate) struct Way {
    /// When the request came.
    began: Instant,
    pub(crate) route: Option<Arc<LiveRoute>>,
    /// The process tried last.
    pub(crate) backend: Option<Backend>,
    /// Time the last connect took; zero on a connection used before.
    pub(crate) connect: Duration,
    tried: Vec<Backend>,
}

impl Way {
    pub(crate) fn new(began: Instant) -> Self {
        Self { began, route: None, backend: None, connect: Duration::ZERO, tried: Vec::new() }
    }

    /// Tries the process that was tried last no more.
    pub(crate) fn pass_over(&mut self) {
        self.tried.extend(self.backend.clone());
    }

    pub(crate) fn time_outs(&self, router: &Inner) -> TimeOuts {
        self.route.as_ref().and_then(|way| way.route.time_outs).unwrap_or(router.settings.time_outs)
    }
}

/// Finds and connects a process for `host`. `used` allows a connection that was used before.
pub(crate) async fn reach(
    router: &Inner,
    host: Option<&str>,
    used: bool,
    way: &mut Way,
) -> Result<Reached, Unanswered> {
    let mut failure: Option<Failure> = None;
    loop {
        let route = ready(router, host, way).await?;
        let turn = router.turn.fetch_add(1, Ordering::Relaxed);
        let loads: Vec<Load> = route
            .backends
            .iter()
            .map(|live| Load {
                in_flight: live.in_flight(),
                quarantined: live.is_quarantined() || live.is_passed_over(),
                tried: way.tried.contains(&live.backend),
            })
            .collect();
        if loads.iter().map(|load| load.in_flight).sum::<usize>() >= router.host_requests() {
            return Err(Code::H11.into());
        }
        let chosen = choose(&loads, turn).filter(|_| way.tried.len() < TRIES);
        let Some(chosen) = chosen else {
            let failure = failure.unwrap_or(Code::H21.into());
            let next = match router.leaving.is_cancelled() {
                true => next_router(router, &route, way.began, failure).await,
                false => failure.into(),
            };
            return Err(next);
        };
        // It left the table between our look and now: look again.
        let Some(request) = route.backends[chosen].enter() else { continue };
        request.chosen();
        way.backend = Some(request.backend.clone());
        if used && let Some(stream) = request.take_idle(router.settings.upstream_keep_alive) {
            way.connect = Duration::ZERO;
            return Ok(Reached { request, stream, used: true });
        }
        let began = Instant::now();
        let limit = way.time_outs(router).connect;
        let connected = timeout(limit, request.backend.dialer.dial(request.backend.address)).await;
        way.connect = began.elapsed();
        match connected.map_err(|_| Code::H19.into()).and_then(|it| it.map_err(|e| refusal(&e))) {
            Ok(stream) => {
                request.end_quarantine();
                // Fails only on a socket that is gone, which the first write will tell.
                drop(stream.set_nodelay(true));
                return Ok(Reached { request, stream, used: false });
            }
            // Another process would not be reached either.
            Err(failure @ Failure { code: Code::H99, .. }) => return Err(failure.into()),
            Err(refused) => {
                request.quarantine(router.settings.quarantine);
                way.pass_over();
                failure = Some(refused);
            }
        }
    }
}

/// What is missing here is the platform's fault, and not the process's.
fn refusal(error: &io::Error) -> Failure {
    let ours = |detail| Failure { detail: Some(detail), ..Code::H99.into() };
    match Shortage::of(error) {
        Some(Shortage::Descriptors) => return ours("no descriptor is left"),
        Some(Shortage::Memory) => return ours("no memory is left for a connection"),
        Some(Shortage::Processes | Shortage::Spawner) => return ours("no process is left"),
        Some(
            Shortage::DiskSpace
            | Shortage::WritableDisk
            | Shortage::SoundDisk
            | Shortage::DatabaseSpace
            | Shortage::SoundDatabaseDisk,
        )
        | None => {}
    }
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ADDRNOTAVAIL) => ours("no local port is left"),
        _ if error.kind() == io::ErrorKind::TimedOut => Code::H19.into(),
        _ => Code::H21.into(),
    }
}

/// The route of `host`, once it has a process that is ready.
async fn ready(
    router: &Inner,
    host: Option<&str>,
    way: &mut Way,
) -> Result<Arc<LiveRoute>, Unanswered> {
    let mut place = None;
    let mut changed = router.changed.subscribe();
    let deadline = way.began + router.settings.hold;
    loop {
        let route = router.table.load().find(host).cloned().ok_or(Code::H31)?;
        way.route = Some(Arc::clone(&route));
        let code = match route.route.state {
            State::Maintenance => return Err(Code::H80.into()),
            State::Crashed if router.leaving.is_cancelled() => Code::H10,
            State::Crashed => return Err(Code::H10.into()),
            State::NoWeb => return Err(Code::H14.into()),
            State::Up if !route.backends.is_empty() => return Ok(route),
            State::Up | State::Booting => Code::H20,
        };
        if place.is_none() {
            place = Some(hold(router, &route)?);
        }
        tokio::select! {
            biased;
            () = router.handed_on.cancelled() => return Err(Unanswered::HandOn),
            // The sender lives in the router.
            _ = changed.changed() => {}
            () = sleep_until(deadline) => return Err(code.into()),
        }
    }
}

/// A place for a request that waits.
fn hold<'a>(router: &'a Inner, route: &LiveRoute) -> Result<Held<'a>, Failure> {
    let detail = Some("as many requests wait for a process as may");
    router.hold(route).ok_or(Failure { detail, ..Code::H20.into() })
}

/// Waits for the router that is to take requests from here on. Where it does not come in the time that a
/// request may wait, it is `failure`.
async fn next_router(
    router: &Inner,
    route: &LiveRoute,
    began: Instant,
    failure: Failure,
) -> Unanswered {
    let _place = match hold(router, route) {
        Ok(place) => place,
        Err(full) => return full.into(),
    };
    tokio::select! {
        biased;
        () = router.handed_on.cancelled() => Unanswered::HandOn,
        () = sleep_until(began + router.settings.hold) => failure.into(),
    }
}
