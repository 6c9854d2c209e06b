//! What an operation says, to whoever waits for it and in the deploy's log.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::sleep;
use tolv_logs::Line;
use tolv_model::formation::Formation;
use tolv_model::operation::Request;
use tolv_run::{Endpoint, Endpoints, ProcessState};

use super::Carry;

/// How long the old processes' requests are waited for before that is said.
const LONG_WAIT: Duration = Duration::from_secs(3);

impl Carry<'_> {
    pub(super) fn head(&self, text: impl AsRef<str>) {
        self.output.say(format!("-----> {}", text.as_ref()));
    }

    /// Whether this is the beginning of `up`, which ends with it where it fails, and says why.
    pub(super) fn ends_up(&self) -> bool {
        self.operation.request == Request::Up && self.deploy.current.is_none()
    }

    /// Says which release is current still, and whether it runs.
    pub(super) async fn tell_current(&self) {
        let Some(current) = self.deploy.current else { return };
        let stopped = self.now().await.map_or(self.deploy.stopped, |deploy| deploy.stopped);
        let name = &self.deploy.name;
        let processes = self.controller.endpoints().processes;
        let is_running = |endpoint: &Endpoint| {
            endpoint.release == current && endpoint.state != ProcessState::Crashed
        };
        let mut formation = Formation::default();
        for endpoint in processes.iter().filter(|endpoint| endpoint.routed) {
            *formation.0.entry(endpoint.process.process_type.clone()).or_default() += 1;
        }
        let is_scaling = matches!(self.operation.request, Request::Scale { .. });
        self.warn(&match (stopped, processes.iter().any(is_running)) {
            (true, _) => format!("Release {current} stays current; {name} is stopped: tolv start"),
            (false, true) if is_scaling && !formation.0.is_empty() => {
                format!("Release {current} goes on with {formation}")
            }
            (false, true) => format!("Release {current} goes on"),
            (false, false) => {
                format!("Release {current} stays current, but no process of it runs: tolv ps")
            }
        });
    }

    pub(super) fn warn(&self, text: &str) {
        if self.ends_up() {
            return;
        }
        for line in text.lines() {
            self.output.say(format!(" !     {line}"));
        }
    }

    /// A line among the deploy's own.
    pub(super) fn tell(&self, text: String) {
        let line = Line::tolv("release", text);
        let release = self.operation.release.map(|number| number.0);
        self.controller.engine.say(&[match release {
            Some(number) => line.of_release(number),
            None => line,
        }]);
    }

    /// Replaces processes, and says which of the old ones are waited for, where that takes long: they
    /// answer the requests that they have.
    pub(super) async fn tell_waits<T>(&self, rollout: impl Future<Output = T>) -> T {
        let mut endpoints = self.controller.engine.endpoints();
        let tell = async {
            loop {
                let drains = |endpoints: &Endpoints| endpoints.draining().next().is_some();
                if endpoints.wait_for(drains).await.is_err() {
                    return;
                }
                sleep(LONG_WAIT).await;
                let waits: BTreeSet<_> = endpoints
                    .borrow_and_update()
                    .draining()
                    .map(|endpoint| {
                        let (requests, lasting) = self.platform.0.hosts.waited_for(endpoint);
                        let process = &endpoint.process;
                        format!(
                            "{process} (requests: {requests}, WebSockets and streams: {lasting})"
                        )
                    })
                    .collect();
                if !waits.is_empty() {
                    let names = waits.into_iter().collect::<Vec<_>>().join(", ");
                    let text =
                        format!("Waiting for requests in flight: {names}; 30 seconds at most");
                    self.head(&text);
                    self.tell(text);
                    return;
                }
            }
        };
        tokio::pin!(rollout);
        tokio::select! {
            biased;
            done = &mut rollout => done,
            () = tell => rollout.await,
        }
    }
}
