//! What runs of a deploy, as its users see it.

use std::collections::BTreeSet;

use tolv_model::name::{Deploy as DeployPath, ProcessName};
use tolv_model::release::ReleaseNumber;
use tolv_run::{Endpoint, ProcessState};
use tolv_sandbox::Limits;

use super::error::Error;
use super::platform::Platform;

/// One process of a deploy, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// `web.1`; during a rollout the old and the new one are both there.
    pub name: ProcessName,
    /// starting, up, draining (up, and others get its requests), unresponsive (up, and no request is
    /// answered in time), crashed, complete (with `tolv up`: it ended with status 0), stopping or down.
    pub state: &'static str,
    /// Which release it is of.
    pub release: ReleaseNumber,
    /// Its id on this machine.
    pub pid: Option<u32>,
    /// How often it was started again.
    pub restarts: u32,
    /// How much it may take.
    pub limits: Limits,
}

impl Process {
    fn new(endpoint: Endpoint, drains: bool, hangs: bool) -> Self {
        let state = match endpoint.state {
            ProcessState::Starting => "starting",
            ProcessState::Up if drains => "draining",
            ProcessState::Up if hangs => "unresponsive",
            ProcessState::Up => "up",
            ProcessState::Crashed => "crashed",
            ProcessState::Complete => "complete",
            ProcessState::Stopping => "stopping",
            ProcessState::Down => "down",
        };
        let pid = endpoint.pid.and_then(|pid| u32::try_from(pid).ok());
        let (name, release, limits) = (endpoint.process, endpoint.release, endpoint.limits);
        Self { name, state, release, pid, restarts: endpoint.restarts, limits }
    }
}

impl Platform {
    /// What runs of a deploy.
    ///
    /// # Errors
    ///
    /// There is no such deploy; the next platform knows.
    pub async fn processes(&self, path: &DeployPath) -> Result<Vec<Process>, Error> {
        let deploy = self.0.store.deploy(path).await?;
        let controller = self.controllers().get(&deploy.id).cloned();
        let endpoints = match controller {
            Some(controller) => controller.known_endpoints().await,
            None => tolv_run::Endpoints::default(),
        };
        // What it lets go of runs on.
        if self.is_leaving() {
            return Err(Error::Stopping);
        }
        let draining: BTreeSet<_> = endpoints.draining().map(|endpoint| endpoint.id).collect();
        let process = |endpoint: Endpoint| {
            let hangs = self.0.hosts.hangs(&endpoint);
            let drains = draining.contains(&endpoint.id);
            Process::new(endpoint, drains, hangs)
        };
        Ok(endpoints.processes.into_iter().map(process).collect())
    }
}
