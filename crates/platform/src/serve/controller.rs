//! One task a deploy: brings back what ran, then does the deploy's operations in order.
//!
//! ```text
//!  begin ─▶ adopt, converge to the current release ─▶ next operation ◀─┐
//!                                                     │ none: wait     │
//!                                                     └─ carry out ────┘
//! ```
//!
//! The queue is the store's: a wake-up is only a hint to look there.

use std::fs;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tolv_logs::Line;
use tolv_model::id::{DeployId, OperationId};
use tolv_model::name::Deploy as DeployPath;
use tolv_run::{Endpoints, Local};
use tolv_store::{Deploy, Operation};

use super::carry::Carry;
use super::error::{Kind, ServeError, chain};
use super::options::Said;
use super::output::Output;
use super::platform::Platform;
use crate::routes::{Routes, routed};

/// Between two tries while the database is away: first, and most.
const AWAY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// The handle of a deploy's task.
pub(super) struct Controller {
    pub(super) path: DeployPath,
    pub(super) engine: Local,
    pub(super) routes: Routes,
    wake: Notify,
    current: Mutex<Option<Current>>,
    /// The task has ended.
    ended: CancellationToken,
}

/// The operation that is being carried out.
struct Current {
    id: OperationId,
    cancel: CancellationToken,
    output: Arc<Output>,
}

/// Starts the task of a deploy.
pub(super) fn begin(platform: &Platform, deploy: Deploy) -> Result<Arc<Controller>, ServeError> {
    let inner = &platform.0;
    let mut settings = tolv_run::Settings::new(
        inner.spawner.clone(),
        inner.level,
        inner.home.join("logs").join(deploy.id.as_str()),
    );
    settings.search_path = inner.options.host.search_path.to_string_lossy().into_owned();
    settings.keep = Some(inner.home.join("run").join(deploy.id.as_str()));
    settings.ports = inner.ports.clone();
    let hosts = Arc::clone(&inner.hosts);
    let (engine, lines, routes) = routed(settings, hosts, deploy.host.clone(), false)?;
    let controller = Arc::new(Controller {
        path: deploy.name.clone(),
        engine,
        routes,
        wake: Notify::new(),
        current: Mutex::default(),
        ended: CancellationToken::new(),
    });
    inner.tasks.spawn(forward(Arc::clone(&controller), lines, inner.lines.clone()));
    let ended = controller.ended.clone();
    inner.tasks.spawn({
        let routes = controller.routes.clone();
        async move {
            ended.run_until_cancelled(routes.follow()).await;
        }
    });
    let task = Task { platform: platform.clone(), controller: Arc::clone(&controller), id: deploy.id };
    inner.tasks.spawn(task.run());
    Ok(controller)
}

impl Controller {
    /// Something was queued.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    pub(super) fn endpoints(&self) -> Endpoints {
        self.engine.endpoints().borrow().clone()
    }

    /// Whether the operation was running here, and is being undone now.
    pub(super) fn cancel(&self, id: &OperationId) -> bool {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let found = current.as_ref().filter(|current| current.id == *id);
        found.inspect(|current| current.cancel.cancel()).is_some()
    }

    /// Waits for the end of the task.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    fn set_current(&self, current: Option<Current>) {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner) = current;
    }

    /// What the release phase says goes to whoever waits for the operation too.
    fn overhear(&self, line: &Line) {
        if !line.process.starts_with("release.") {
            return;
        }
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(current) = &*current {
            current.output.say([b"       ", line.text.as_slice()].concat());
        }
    }
}

/// Hands the deploy's lines on.
async fn forward(
    controller: Arc<Controller>,
    mut lines: mpsc::Receiver<Line>,
    to: mpsc::Sender<Said>,
) {
    while let Some(line) = lines.recv().await {
        controller.overhear(&line);
        to.send(Said { deploy: Some(controller.path.clone()), line }).await.ok();
    }
}

struct Task {
    platform: Platform,
    controller: Arc<Controller>,
    id: DeployId,
}

/// How an operation left its deploy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// There is more to do.
    GoOn,
    /// The deploy is destroyed.
    Gone,
    /// The platform ends; the operation waits for the next one.
    Stop,
}

impl Task {
    async fn run(self) {
        let mut gone = false;
        if self.patiently(async || self.restore().await).await.is_some() {
            gone = self.work().await == After::Gone;
        }
        let inner = &self.platform.0;
        if gone {
            self.platform.controllers().remove(&self.id);
        } else if inner.stopping.is_cancelled() {
            self.controller.engine.stop().await;
        } else {
            self.controller.engine.release().await;
        }
        self.controller.ended.cancel();
    }

    async fn work(&self) -> After {
        loop {
            let Some(next) = self.patiently(async || self.next().await).await else {
                return After::Stop;
            };
            let Some(operation) = next else {
                tokio::select! {
                    () = self.controller.wake.notified() => continue,
                    () = self.platform.0.ending.cancelled() => return After::Stop,
                }
            };
            let id = operation.id.clone();
            let cancel = CancellationToken::new();
            let output = self.platform.0.outputs.begin(&id);
            self.controller.set_current(Some(Current {
                id,
                cancel: cancel.clone(),
                output: Arc::clone(&output),
            }));
            let after = self.patiently(async || {
                let carry = Carry {
                    platform: &self.platform,
                    controller: &self.controller,
                    deploy: self.platform.0.store.deploy_by_id(&self.id).await?,
                    // Again, for what was recorded of it before the database went away.
                    operation: self.platform.0.store.operation(&operation.id).await?,
                    output: &output,
                    cancel: &cancel,
                };
                carry.out().await
            });
            let after = after.await.unwrap_or(After::Stop);
            self.controller.set_current(None);
            if after != After::GoOn {
                return after;
            }
        }
    }

    /// The oldest operation that is not over.
    async fn next(&self) -> Result<Option<Operation>, ServeError> {
        let unfinished = self.platform.0.store.unfinished().await?;
        Ok(unfinished.into_iter().find(|operation| operation.deploy == self.id))
    }

    /// Brings back what should run: what still does is adopted, the rest is started. A process
    /// that does not come up is tried again and again and keeps none of the others down.
    async fn restore(&self) -> Result<(), ServeError> {
        let deploy = self.platform.0.store.deploy_by_id(&self.id).await?;
        self.controller.engine.adopt().await;
        let target = match deploy.current {
            Some(number) => {
                let release = self.platform.0.store.release(&self.id, number).await?;
                let target = self.platform.target(&deploy, &release, None).await;
                match target {
                    Ok(target) => target,
                    Err(error) if error.kind() == Kind::Unavailable => return Err(error),
                    Err(error) => {
                        self.say(format!("Release {number} cannot run: {}", chain(&error)));
                        return Ok(());
                    }
                }
            }
            None => return Ok(()),
        };
        self.controller.route(&target);
        let converged = tokio::select! {
            converged = self.controller.engine.restore(target) => converged,
            () = self.platform.0.ending.cancelled() => return Ok(()),
        };
        if let Err(error) = converged {
            self.say(format!("Not everything is up: {}", chain(&error)));
        }
        Ok(())
    }

    fn say(&self, text: String) {
        self.controller.engine.say(Line::tolv("platform", text));
    }

    /// Tries again while the database is away; nothing where the platform ends first. An error
    /// of another kind is said, and tried again more slowly.
    async fn patiently<T>(
        &self,
        work: impl AsyncFn() -> Result<T, ServeError>,
    ) -> Option<T> {
        let ending = &self.platform.0.ending;
        let mut pause = AWAY.0;
        let mut said = false;
        loop {
            match work().await {
                Ok(done) => return Some(done),
                Err(ServeError::Stopping) => return None,
                Err(error) => {
                    if !said {
                        said = true;
                        self.say(format!("Waiting: {}", chain(&error)));
                    }
                    if error.kind() != Kind::Unavailable {
                        pause = AWAY.1;
                    }
                }
            }
            if ending.run_until_cancelled(sleep(pause)).await.is_none() {
                return None;
            }
            pause = (pause * 2).min(AWAY.1);
        }
    }
}

impl Controller {
    /// Removes what the deploy has on this machine.
    pub(super) async fn remove(&self, platform: &Platform, deploy: &Deploy) -> Result<(), ServeError> {
        self.engine.stop().await;
        platform.0.hosts.remove(&deploy.host);
        let folders =
            ["logs", "run"].map(|folder| platform.0.home.join(folder).join(deploy.id.as_str()));
        super::platform::blocking(move || {
            for folder in folders {
                match fs::remove_dir_all(&folder) {
                    Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                        return Err(ServeError::System {
                            what: "remove a destroyed deploy's folder",
                            source,
                        });
                    }
                    _ => {}
                }
            }
            Ok(())
        })
        .await
    }
}
