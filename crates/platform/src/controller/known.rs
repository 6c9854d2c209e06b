//! What runs of a deploy, once that is known: right after a start it is not.

use tokio::time::timeout;
use tolv_run::{Endpoint, Endpoints, ProcessState};

use super::{Controller, DOORS_WAIT};

impl Controller {
    /// Its processes, once it is known what runs: right after a start the processes of the platform before
    /// have not answered yet.
    pub(in super::super) async fn known_endpoints(&self) -> Endpoints {
        let known = async {
            tokio::select! {
                () = self.restored.cancelled() => {}
                () = self.engine.listed() => {}
            }
        };
        timeout(DOORS_WAIT * 2, known).await.ok();
        self.endpoints()
    }

    /// Waits until requests find what they found before, where something ran: it is there again, and each
    /// `web` of it is up or has failed.
    pub(in super::super) async fn answers_again(&self) {
        if !self.engine.had_orphans() {
            return;
        }
        let mut endpoints = self.engine.endpoints();
        let boots = |endpoint: &Endpoint| {
            endpoint.process.process_type.is_web() && endpoint.state == ProcessState::Starting
        };
        let answers = async {
            self.engine.listed().await;
            endpoints.wait_for(|endpoints| !endpoints.processes.iter().any(boots)).await.map(drop)
        };
        tokio::select! {
            () = self.restored.cancelled() => {}
            _ = answers => {}
        }
    }
}
