//! Endpoints to routing table: the one place where the engine's and the router's words meet.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tolv_model::name::AppName;
use tolv_router::{Backend, Route, Router, State, Table};
use tolv_run::{Endpoint, Endpoints, ProcessState};

/// What the formation says of `web`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Web {
    /// Not known yet: nothing is built.
    Unknown,
    /// At least one process is wanted.
    Wanted,
    /// The release has no `web`, or it is scaled to 0.
    None,
}

/// Keeps the router's table in step with the engine's endpoints.
#[derive(Clone)]
pub(crate) struct Routes {
    router: Router,
    host: String,
    web: Arc<Mutex<Web>>,
    endpoints: watch::Receiver<Endpoints>,
}

impl Routes {
    pub(crate) fn new(
        router: Router,
        app: &AppName,
        endpoints: watch::Receiver<Endpoints>,
    ) -> Self {
        let host = format!("{app}.localhost");
        let routes = Self { router, host, web: Arc::new(Mutex::new(Web::Unknown)), endpoints };
        routes.publish();
        routes
    }

    /// Says what the formation wants of `web`.
    pub(crate) fn set_web(&self, web: Web) {
        *self.web.lock().unwrap_or_else(PoisonError::into_inner) = web;
        self.publish();
    }

    /// Swaps in the table for the endpoints as they are now.
    pub(crate) fn publish(&self) {
        // The lock is held until the table is in, so that a late caller cannot put back an older
        // one.
        let web = self.web.lock().unwrap_or_else(PoisonError::into_inner);
        let route = Arc::new(route(*web, &self.endpoints.borrow()));
        let mut table = Table::new();
        table.insert(&self.host, Arc::clone(&route));
        table.set_default(route);
        self.router.set_table(&table);
    }

    /// Publishes at each change, for ever.
    pub(crate) async fn follow(mut self) {
        while self.endpoints.changed().await.is_ok() {
            self.publish();
        }
    }

    /// Publishes, then waits until none of `old` answers a request.
    pub(crate) async fn drain(&self, old: Vec<Endpoint>) {
        self.publish();
        for endpoint in old {
            self.router.unused(&backend(&endpoint)).await;
        }
    }
}

fn backend(endpoint: &Endpoint) -> Backend {
    Backend { process: endpoint.process.clone(), address: endpoint.address }
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
    } else if in_state(ProcessState::Crashed) && !in_state(ProcessState::Starting) {
        State::Crashed
    } else {
        State::Booting
    };
    Route::new(state, backends)
}

#[cfg(test)]
mod tests;
