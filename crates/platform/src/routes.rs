//! Endpoints to routing table: the one place where the engine's and the router's words meet.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};
use tolv_logs::Line;
use tolv_router::{Backend, Dialer, Route, Router, State, Table};
use tolv_run::{Endpoint, Endpoints, Local, Log, ProcessState, Settings};

use crate::access::Request;
use crate::traffic::Traffic;

/// For tunnels to end by themselves, and WebSockets by their closing handshake, before their process
/// is told to end.
const TUNNELS: Duration = Duration::from_secs(2);

/// For a crashed process to be started again before requests hear of it: the first time that is done at
/// once, and who comes in between waits for it.
const RESTART: Duration = Duration::from_millis(250);

/// What the formation says of `web`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Web {
    /// Not known yet: nothing is built.
    Unknown,
    /// At least one process is wanted.
    Wanted,
    /// The release has no `web`, or it is scaled to 0.
    None,
    /// The release cannot run: it is not what was released.
    Broken,
    /// The deploy is destroyed: there is no route, whatever its processes still do.
    Gone,
}

/// Every route of the platform; a change of one swaps the whole table.
pub(crate) struct Hosts {
    router: Router,
    routes: Mutex<All>,
    /// Whose log the requests for a host are in.
    logs: Mutex<HashMap<String, Log>>,
    /// Their requests, counted.
    traffic: Arc<Traffic>,
}

#[derive(Default)]
struct All {
    by_host: BTreeMap<String, Arc<Route>>,
    /// For hosts that have no route of their own.
    default: Option<Arc<Route>>,
}

impl Hosts {
    pub(crate) fn new(router: Router, traffic: Arc<Traffic>) -> Arc<Self> {
        Arc::new(Self { router, routes: Mutex::default(), logs: Mutex::default(), traffic })
    }

    /// Requests by host.
    pub(crate) fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// Requests that a process is answering.
    pub(crate) fn in_flight(&self, endpoint: &Endpoint) -> usize {
        self.router.in_flight(&backend(endpoint))
    }

    /// What of it is under way: requests that come to an end by themselves, and those that last.
    pub(crate) fn waited_for(&self, endpoint: &Endpoint) -> (usize, usize) {
        self.router.waited_for_at(&backend(endpoint))
    }

    /// Whether a process lets requests run into the time-out.
    pub(crate) fn hangs(&self, endpoint: &Endpoint) -> bool {
        self.router.hangs(&backend(endpoint))
    }

    /// Puts requests' lines into the logs of the deploys that they were for; gives the rest back.
    pub(crate) fn record(&self, requests: Vec<Request>) -> Vec<Line> {
        let (mut known, mut others) = (HashMap::<_, Vec<Line>>::new(), Vec::new());
        let logs = self.logs();
        for Request { host, line } in requests {
            match host.filter(|host| logs.contains_key(host)) {
                Some(host) => known.entry(host).or_default().push(line),
                None => others.push(line),
            }
        }
        for (host, lines) in known {
            if let Some(log) = logs.get(&host) {
                log.say(&lines);
            }
        }
        others
    }

    fn logs(&self) -> MutexGuard<'_, HashMap<String, Log>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the routes and swaps the table in, before anybody else can.
    fn change(&self, change: impl FnOnce(&mut All)) {
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut routes);
        let mut table = Table::new();
        for (host, route) in &routes.by_host {
            table.insert(host, Arc::clone(route));
        }
        if let Some(default) = &routes.default {
            table.set_default(Arc::clone(default));
        }
        self.router.set_table(&table);
    }
}

/// Keeps one deploy's route in step with its engine's endpoints.
#[derive(Clone)]
pub(crate) struct Routes {
    hosts: Arc<Hosts>,
    host: String,
    /// Whether hosts without a route come here too.
    is_default: bool,
    web: Arc<Mutex<Web>>,
    crash: Arc<Mutex<Crash>>,
    /// A crash is to be told later.
    kept_back: Arc<Notify>,
    endpoints: watch::Receiver<Endpoints>,
}

/// Whether all web processes have crashed, and requests hear of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Crash {
    #[default]
    None,
    /// They wait until then.
    KeptBack(Instant),
    Told,
}

impl Crash {
    /// As it is after a look at `now`.
    fn next(self, is_crashed: bool, now: Instant) -> Self {
        match self {
            _ if !is_crashed => Self::None,
            Self::None => Self::KeptBack(now + RESTART),
            Self::KeptBack(until) if now < until => self,
            Self::KeptBack(_) | Self::Told => Self::Told,
        }
    }
}

impl Routes {
    pub(crate) fn new(
        hosts: Arc<Hosts>,
        host: String,
        is_default: bool,
        endpoints: watch::Receiver<Endpoints>,
    ) -> Self {
        let web = Arc::new(Mutex::new(Web::Unknown));
        let (crash, kept_back) = (Arc::default(), Arc::default());
        let routes = Self { hosts, host, is_default, web, crash, kept_back, endpoints };
        routes.publish();
        routes
    }

    /// Says what the formation wants of `web`.
    pub(crate) fn set_web(&self, web: Web) {
        *self.web.lock().unwrap_or_else(PoisonError::into_inner) = web;
        self.publish();
    }

    /// What the formation wants of `web`, as it was said last.
    pub(crate) fn web(&self) -> Web {
        *self.web.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Swaps in the table for the endpoints as they are now.
    pub(crate) fn publish(&self) {
        // The lock is held until the table is in, so that a late caller cannot put back an older
        // one.
        let web = self.web.lock().unwrap_or_else(PoisonError::into_inner);
        if *web == Web::Gone {
            self.hosts.change(|all| {
                all.by_host.remove(&self.host);
            });
            self.hosts.logs().remove(&self.host);
            self.hosts.traffic.remove(&self.host);
            return;
        }
        let mut route = route(*web, &self.endpoints.borrow());
        // What does not run at all is told at once.
        let is_crashed = route.state == State::Crashed && *web != Web::Broken;
        if let Crash::KeptBack(_) = self.look(is_crashed) {
            route.state = State::Booting;
        }
        let route = Arc::new(route);
        self.hosts.change(|all| {
            if self.is_default {
                all.default = Some(Arc::clone(&route));
            }
            all.by_host.insert(self.host.clone(), route);
        });
    }

    fn look(&self, is_crashed: bool) -> Crash {
        let mut crash = self.crash.lock().unwrap_or_else(PoisonError::into_inner);
        let before = *crash;
        *crash = before.next(is_crashed, Instant::now());
        if before == Crash::None && *crash != Crash::None {
            self.kept_back.notify_one();
        }
        *crash
    }

    /// Publishes at each change, for ever.
    pub(crate) async fn follow(mut self) {
        let kept_back = Arc::clone(&self.kept_back);
        loop {
            let crash = *self.crash.lock().unwrap_or_else(PoisonError::into_inner);
            let told = async {
                match crash {
                    Crash::KeptBack(until) => sleep_until(until).await,
                    Crash::None | Crash::Told => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.endpoints.changed() => if changed.is_err() { return },
                () = kept_back.notified() => {}
                () = told => {}
            }
            self.publish();
        }
    }

    /// Publishes, then waits until each of `old` has answered its requests. WebSockets are closed by
    /// then; what is left of tunnels and streams ends when its process, which is told to, closes it.
    pub(crate) async fn drain(&self, old: Vec<Endpoint>) {
        self.publish();
        let mut draining = JoinSet::new();
        for endpoint in old {
            let (router, backend) = (self.hosts.router.clone(), backend(&endpoint));
            let is_replaced = self.web() == Web::Wanted;
            draining.spawn(async move {
                let (owner, whose) = (router.clone(), backend.clone());
                let lasting = Lasting { router: owner, backend: whose, is_replaced };
                router.answered(&backend).await;
                drop(lasting);
                timeout(TUNNELS, router.unused(&backend)).await.ok();
            });
        }
        while draining.join_next().await.is_some() {}
    }
}

/// The WebSockets and streams of a process that is to go: they are closed when this is dropped, also
/// where that is since the process is not waited for any longer.
struct Lasting {
    router: Router,
    backend: Backend,
    /// Whether another process takes its place.
    is_replaced: bool,
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.router.close_lasting(&self.backend, self.is_replaced);
    }
}

/// An engine whose endpoints are routed: under `host`, and where `is_default` under every host
/// that has no route of its own.
pub(crate) fn routed(
    mut settings: Settings,
    hosts: Arc<Hosts>,
    host: String,
    is_default: bool,
) -> Result<(Local, mpsc::Receiver<Line>, Routes), tolv_run::Error> {
    // The engine wants the drain at its making, the drain wants the engine's endpoints: they meet
    // in this cell, which is set before the first rollout.
    let cell: Arc<OnceLock<Routes>> = Arc::default();
    settings.drain = Some({
        let cell = Arc::clone(&cell);
        Arc::new(move |old| {
            let routes = cell.get().cloned();
            Box::pin(async move {
                if let Some(routes) = routes {
                    routes.drain(old).await;
                }
            })
        })
    });
    let (engine, lines) = Local::new(settings)?;
    hosts.logs().insert(host.clone(), engine.log());
    hosts.traffic.insert(host.clone());
    let routes = Routes::new(hosts, host, is_default, engine.endpoints());
    cell.set(routes.clone()).ok();
    Ok((engine, lines, routes))
}

fn backend(endpoint: &Endpoint) -> Backend {
    let connector = endpoint.connector.clone();
    let dialer = Dialer::new(connector.id(), move |address| {
        let connector = connector.clone();
        Box::pin(async move { connector.connect(address).await })
    });
    Backend { process: endpoint.process.clone(), address: endpoint.address, dialer }
}

/// What requests meet: the processes that are up, or why there are none.
fn route(web: Web, endpoints: &Endpoints) -> Route {
    let backends: Vec<_> = endpoints.web().map(backend).collect();
    let in_state = |state| {
        endpoints
            .processes
            .iter()
            .any(|process| process.process.process_type.is_web() && process.state == state)
    };
    let state = if !backends.is_empty() {
        State::Up
    } else if web == Web::None {
        State::NoWeb
    } else if web == Web::Broken
        || (in_state(ProcessState::Crashed) && !in_state(ProcessState::Starting))
    {
        State::Crashed
    } else {
        State::Booting
    };
    Route::new(state, backends)
}

#[cfg(test)]
mod tests;
