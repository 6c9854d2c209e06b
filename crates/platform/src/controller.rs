//! One task a deploy: brings back what ran, then does the deploy's operations in order.
//!
//! ```text
//!  begin ─▶ bring back the current release ─▶ next operation ◀─┐
//!                                                     │ none: wait     │
//!                                                     └─ carry out ────┘
//! ```
//!
//! The queue is the store's: a wake-up is only a hint to look there.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{Notify, broadcast, mpsc, watch};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tolv_logs::Line;
use tolv_model::id::{DeployId, OperationId};
use tolv_model::name::Deploy as DeployPath;
use tolv_model::operation::{Request, State};
use tolv_model::release::Release;
use tolv_model::size::Sizes;
use tolv_run::{Endpoints, Local, Target};

use self::patience::Patience;
pub(super) use self::patience::is_passing;
use super::carry::Carry;
use super::cron::{self, Cron};
use super::drains::Drains;
use super::error::{Error, Kind, chain};
use super::kept::{Kept, Place};
use super::metrics::samples;
use super::options::Said;
use super::platform::{Platform, lock};
use super::proof::before_start;
use crate::routes::{Routes, Web, routed};

mod hold;
mod keep;
mod known;
mod patience;
mod survival;

/// For what ran under an earlier platform to say so.
const DOORS_WAIT: Duration = Duration::from_secs(2);
/// Between two tries while the database is away: first, and most.
const AWAY: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Lines that are handed on together; the channels have room for more.
const LINES_AT_ONCE: usize = 256;
/// Lines that wait for whoever follows a log that takes none.
const UNSTORED: usize = 64;

/// The handle of a deploy's task.
pub(super) struct Controller {
    pub(super) place: Place,
    pub(super) engine: Local,
    pub(super) routes: Routes,
    pub(super) drains: Arc<Drains>,
    pub(super) cron: Cron,
    /// Lines for whoever follows the log, while the log takes none.
    pub(super) unstored: broadcast::Sender<Line>,
    /// Whether the deploy's config asks for runtime metrics in its log.
    samples: watch::Sender<bool>,
    wake: Notify,
    /// What should run was brought back, or nothing of it can be.
    restored: CancellationToken,
    /// What should run is to be brought back once more.
    again: AtomicBool,
    current: Mutex<Option<Current>>,
    /// Why nothing of it was started.
    not_started: Mutex<Option<String>>,
    /// What runs and could not be kept: the disk is full.
    unkept: Mutex<Option<(Target, Sizes)>>,
    /// Whether nothing is under way, and nothing begins: another platform is about to go on.
    resting: watch::Sender<bool>,
    /// The task has ended.
    pub(super) ended: CancellationToken,
}

/// The operation that is being carried out.
struct Current {
    id: OperationId,
    cancel: CancellationToken,
}

/// Starts the task of a deploy.
pub(super) fn begin(platform: &Platform, place: Place) -> Result<Arc<Controller>, Error> {
    let inner = &platform.0;
    let Place { id, app, path, host } = place.clone();
    let mut settings =
        tolv_run::Settings::new(inner.spawner.clone(), inner.level, platform.log_folder(&id));
    settings.search_path = inner.options.host.search_path.to_string_lossy().into_owned();
    settings.ports = Arc::clone(&inner.ports);
    settings.host_services.clone_from(&inner.host_services);
    settings.logs_bytes = inner.options.log_bytes;
    settings.min_free = inner.options.min_free;
    settings.lines = Some(inner.lines_of_deploys.handle().clone());
    settings.completes = inner.options.codebase.is_some();
    settings.prove = Some(before_start(Arc::downgrade(inner), app));
    // What `up` runs ends with it, whatever ends it.
    settings.doors = inner.options.codebase.is_none().then(|| platform.doors_of(&id));
    let is_service = inner.options.codebase.is_none();
    settings.doors_aside = platform.doors_aside_of(&id).filter(|_| is_service);
    // All deploys of a start wait together.
    settings.doors_until = Some(inner.began + DOORS_WAIT);
    settings.living = Arc::clone(&inner.living);
    let hosts = Arc::clone(&inner.hosts);
    let is_default = inner.options.codebase.is_some();
    let (engine, lines, routes) = routed(settings, hosts, host.clone(), is_default)?;
    let controller = Arc::new(Controller {
        place,
        engine,
        routes,
        drains: Arc::new(Drains::new()),
        cron: Cron::default(),
        unstored: broadcast::Sender::new(UNSTORED),
        samples: watch::Sender::new(false),
        wake: Notify::new(),
        restored: CancellationToken::new(),
        again: AtomicBool::new(false),
        current: Mutex::default(),
        not_started: Mutex::default(),
        unkept: Mutex::default(),
        resting: watch::Sender::new(false),
        ended: CancellationToken::new(),
    });
    let task = Task { platform: platform.clone(), controller: Arc::clone(&controller), id };
    let forwarding = {
        let (lines, to) = (Arc::new(tokio::sync::Mutex::new(lines)), inner.lines.clone());
        let path = path.clone();
        task.survive("what shows the lines", move |_| {
            forward(path.clone(), Arc::clone(&lines), to.clone())
        })
    };
    inner.tasks.spawn_on(forwarding, inner.lines_of_deploys.handle());
    // What leaves goes on answering requests.
    let (ended, leaving) = (controller.ended.clone(), inner.leaving.clone());
    let routes = controller.routes.clone();
    task.keep_up("the routes", move |_| {
        let (routes, ended, leaving) = (routes.clone(), ended.clone(), leaving.clone());
        async move {
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                () = leaving.cancelled() => {}
                () = routes.follow() => {}
            }
        }
    });
    let schedules = cron::Task::new(platform.clone(), Arc::clone(&controller));
    task.keep_up("the schedules", move |_| schedules.clone().run());
    task.keep_up("the samples", |task| {
        let asked = task.controller.samples.subscribe();
        samples::follow(task.controller, asked)
    });
    inner.tasks.spawn({
        let log = controller.engine.log();
        let run = task.survive("the drains", move |task| {
            let drains = Arc::clone(&task.controller.drains);
            drains.run(task.platform, task.id, path.clone(), log.clone())
        });
        let drains = Arc::clone(&controller.drains);
        async move {
            run.await;
            drains.give_up();
        }
    });
    inner.tasks.spawn({
        let controller = Arc::clone(&controller);
        let run = task.survive("the task", |task| {
            // What it was at is not under way any more; it begins again from what is recorded.
            lock(&task.controller.current).take();
            task.run()
        });
        async move {
            run.await;
            controller.ended.cancel();
        }
    });
    Ok(controller)
}

impl Controller {
    /// Something was queued.
    pub(super) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Brings back what should run once more, as at a start.
    pub(super) fn restore_again(&self) {
        self.again.store(true, Ordering::Relaxed);
        self.wake();
    }

    pub(super) fn endpoints(&self) -> Endpoints {
        self.engine.endpoints().borrow().clone()
    }

    /// Whether the operation was running here, and is being undone now.
    pub(super) fn cancel(&self, id: &OperationId) -> bool {
        let current = lock(&self.current);
        let found = current.as_ref().filter(|current| current.id == *id);
        found.inspect(|current| current.cancel.cancel()).is_some()
    }

    /// Waits until nothing is under way, once nothing begins any more.
    pub(super) async fn rests(&self) {
        let mut resting = self.resting.subscribe();
        tokio::select! {
            _ = resting.wait_for(|resting| *resting) => {}
            () = self.ended.cancelled() => {}
        }
    }

    /// The operation that is being carried out.
    pub(super) fn current(&self) -> Option<OperationId> {
        lock(&self.current).as_ref().map(|current| current.id.clone())
    }

    /// Why nothing of it was started, where that is so.
    pub(super) fn not_started(&self) -> Option<String> {
        lock(&self.not_started).clone()
    }

    /// Records why nothing of it was started; nothing where something is.
    pub(super) fn set_not_started(&self, why: Option<String>) {
        *lock(&self.not_started) = why;
    }

    /// Waits for the end of the task.
    pub(super) async fn ended(&self) {
        self.ended.cancelled().await;
    }

    fn set_current(&self, current: Option<Current>) {
        *lock(&self.current) = current;
    }
}

/// Hands the deploy's lines on, many at a time, for each wait for room is a task that wakes another.
async fn forward(
    path: DeployPath,
    lines: Arc<tokio::sync::Mutex<mpsc::Receiver<Line>>>,
    to: mpsc::Sender<Said>,
) {
    let mut lines = lines.lock().await;
    let mut batch = Vec::new();
    while lines.recv_many(&mut batch, LINES_AT_ONCE).await > 0 {
        // Nobody reads any more: what is left has no reader, and the deploy goes on.
        let Ok(room) = to.reserve_many(batch.len()).await else {
            batch.clear();
            continue;
        };
        for (place, line) in room.zip(batch.drain(..)) {
            place.send(Said { deploy: Some(path.clone()), line });
        }
    }
}

#[derive(Clone)]
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
        let mut patience = Patience::new();
        // Without the database there is nothing to ask it first.
        let mut has_kept = !self.platform.0.prepared.is_cancelled();
        if has_kept {
            self.restore_kept().await;
        }
        let restored = loop {
            match self.restore().await {
                Ok(()) => break true,
                // It was destroyed while another platform had the database.
                Err(Error::Store(tolv_store::Error::NotFound { what: "deploy", .. })) => {
                    Kept::remove(&self.platform.0.home, &self.id).ok();
                    break false;
                }
                Err(error)
                    if matches!(error.kind(), Kind::Unavailable | Kind::Full | Kind::Exhausted)
                        && !has_kept =>
                {
                    has_kept = true;
                    self.restore_kept().await;
                    if !self.wait(&mut patience, &error).await {
                        break false;
                    }
                }
                Err(error)
                    if is_passing(&error)
                        || matches!(error.kind(), Kind::Full | Kind::Exhausted) =>
                {
                    if !self.wait(&mut patience, &error).await {
                        break false;
                    }
                }
                // It stays so. The deploy can be repaired, stopped and destroyed all the same.
                Err(error) => {
                    self.nothing_starts(&error).await;
                    self.controller.routes.set_web(Web::Broken);
                    self.controller.engine.dismiss();
                    break true;
                }
            }
        };
        self.controller.restored.cancel();
        self.controller.cron.changed();
        if restored && self.work().await == After::Gone {
            self.platform.controllers().remove(&self.id);
        } else if self.platform.0.leaving.is_cancelled() {
            self.controller.engine.leave().await;
            self.controller.cron.going.ended().await;
        } else {
            // What runs answers the requests in flight first.
            self.platform.0.drained.cancelled().await;
            self.controller.engine.stop().await;
            self.controller.cron.going.ended().await;
        }
        self.controller.ended.cancel();
    }

    async fn work(&self) -> After {
        let mut patience = Patience::new();
        let mut held = self.platform.0.holding.subscribe();
        loop {
            if self.controller.again.swap(false, Ordering::Relaxed)
                && let Err(error) = self.restore().await
            {
                if is_passing(&error) || matches!(error.kind(), Kind::Full | Kind::Exhausted) {
                    self.controller.again.store(true, Ordering::Relaxed);
                    if !self.wait(&mut patience, &error).await {
                        return After::Stop;
                    }
                    continue;
                }
                self.nothing_starts(&error).await;
            }
            self.controller.keep_again(&self.platform);
            // Before it is asked whether to hold: who waits for the rest asks the other way round.
            self.controller.resting.send_replace(false);
            if *held.borrow_and_update() {
                self.controller.resting.send_replace(true);
                tokio::select! {
                    () = self.platform.0.ending.cancelled() => return After::Stop,
                    _ = held.changed() => continue,
                }
            }
            let next = self.platform.0.store.next(&self.id).await.map_err(Error::from);
            let next = match next {
                Ok(next) => next,
                Err(error) if self.wait(&mut patience, &error).await => continue,
                Err(_) => return After::Stop,
            };
            let Some(operation) = next else {
                patience = Patience::new();
                tokio::select! {
                    () = self.controller.wake.notified() => continue,
                    _ = held.changed() => continue,
                    () = sleep(AWAY.1), if self.controller.has_unkept() => continue,
                    () = self.platform.0.ending.cancelled() => return After::Stop,
                }
            };
            match self.carry_out(&operation.id).await {
                Ok(After::GoOn) => {
                    self.controller.cron.changed();
                    patience = Patience::new();
                }
                Ok(after) => return after,
                // It is done again, from what was recorded of it.
                Err(error) if is_passing(&error) => {
                    if !patience.said && !matches!(error, Error::Stopping) {
                        let output = self.platform.0.outputs.begin(&operation.id);
                        output.say(format!(" !     Waiting: {}", error.chain()));
                    }
                    if !self.wait(&mut patience, &error).await {
                        return After::Stop;
                    }
                }
                // It would fail for ever, and hold up those behind it.
                Err(error) => {
                    let (inner, why) = (&self.platform.0, chain(&error));
                    self.say(format!("Operation {} failed: {why}", operation.id));
                    self.platform.report_forged_deploy(&self.controller.place.path, &error).await;
                    inner.outputs.begin(&operation.id).fail(Arc::new(error));
                    let now = Timestamp::now();
                    let ended = inner.store.end(&operation.id, State::Failed, Some(&why), now);
                    match ended.await {
                        Ok(_) => inner.outputs.over(&operation.id, State::Failed),
                        Err(error) => {
                            if !self.wait(&mut patience, &error.into()).await {
                                return After::Stop;
                            }
                        }
                    }
                }
            }
        }
    }

    async fn carry_out(&self, id: &OperationId) -> Result<After, Error> {
        let store = &self.platform.0.store;
        let operation = store.operation(id).await?;
        let deploy = match store.deploy_by_id(&self.id).await {
            // It ends all the same.
            Err(tolv_store::Error::Forged { .. })
                if matches!(operation.request, Request::Stop | Request::Destroy) =>
            {
                self.platform.stand_in(&self.controller.place).await?
            }
            deploy => deploy?,
        };
        let cancel = CancellationToken::new();
        let output = self.platform.0.outputs.begin(id);
        self.controller.set_current(Some(Current { id: id.clone(), cancel: cancel.clone() }));
        let carry = Carry {
            platform: &self.platform,
            controller: &self.controller,
            deploy,
            operation,
            output: &output,
            cancel: &cancel,
        };
        let after = carry.out().await;
        self.controller.set_current(None);
        after
    }

    /// Brings back what should run. A process that does not come up is tried again and again and keeps none of the others down.
    async fn restore(&self) -> Result<(), Error> {
        self.controller.set_not_started(None);
        if !self.platform.0.prepared.is_cancelled() {
            let why = self.platform.0.store.outage();
            let why = why.unwrap_or_else(|| "the database is not ready".to_owned());
            return Err(tolv_store::Error::Away(why).into());
        }
        let deploy = self.platform.0.store.deploy_by_id(&self.id).await?;
        self.audit().await?;
        let (target, sizes) = match deploy.current {
            Some(number) => {
                let release = self.platform.0.store.release(&self.id, number).await?;
                let target = self.platform.target(&deploy, &release, None).await;
                match target {
                    Ok(target) => (target, release.row.sizes),
                    Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Exhausted) => {
                        return Err(error);
                    }
                    Err(error) => {
                        self.say(format!("Release {number} cannot run: {}", chain(&error)));
                        self.controller.set_not_started(Some(chain(&error)));
                        self.controller.routes.set_web(Web::Broken);
                        self.controller.engine.dismiss();
                        return Ok(());
                    }
                }
            }
            // What `up` is about to build may have one: requests wait.
            None if self.platform.0.options.codebase.is_some() => return Ok(()),
            None => {
                self.controller.routes.set_web(Web::None);
                self.controller.engine.dismiss();
                return Ok(());
            }
        };
        self.controller.route(&target);
        self.controller.keep(&self.platform, &target, &sizes);
        self.bring_back(target).await;
        Ok(())
    }

    async fn bring_back(&self, target: Target) {
        let (inner, engine) = (&self.platform.0, &self.controller.engine);
        let mut restoring = pin!(engine.restore(target));
        tokio::select! {
            restored = &mut restoring => {
                if let Err(error) = restored {
                    self.say(format!("Not everything is up: {}", chain(&error)));
                }
            }
            () = inner.ending.cancelled() => {
                // Before the future is dropped: that would stop what was gone on with just now.
                if inner.leaving.is_cancelled() {
                    engine.leave().await;
                }
            }
        }
    }

    /// Brings back what ran on this machine before, while the database is away.
    async fn restore_kept(&self) {
        let inner = &self.platform.0;
        let Some((release, sizes)) = Kept::get(&inner.home, &inner.store, &self.id) else { return };
        let number = release.number;
        let target = match self.kept_target(release, &sizes).await {
            Ok(target) => target,
            Err(error) => {
                self.say(format!("Release {number} cannot run: {}", chain(&error)));
                self.controller.routes.set_web(Web::Broken);
                return;
            }
        };
        self.controller.samples.send_replace(samples::asks(&target.release.config));
        self.controller.route(&target);
        self.bring_back(target).await;
    }

    async fn kept_target(&self, release: Release, sizes: &Sizes) -> Result<Target, Error> {
        let app = &self.controller.place.app;
        self.platform.prove(app, release.slug).await?;
        let runtime = self.platform.runtime(app, &release.slug).await?;
        Ok(Target {
            release: Arc::new(release),
            stack: runtime.stack,
            mounts: runtime.mounts,
            slug_env: runtime.slug_env,
            slug_path: runtime.slug_path,
            profile: runtime.profile,
            checks: runtime.checks,
            limits: self.platform.0.shares.limits(sizes),
        })
    }

    fn say(&self, text: String) {
        self.controller.engine.say(&[Line::tolv("platform", text)]);
    }

    /// Waits before another try; false where the platform ends first.
    async fn wait(&self, patience: &mut Patience, error: &Error) -> bool {
        if matches!(error, Error::Stopping) {
            return false;
        }
        if let Error::Store(error) = error {
            self.platform.0.store.note_failure(error);
        }
        if !patience.said {
            patience.said = true;
            self.say(format!("Waiting: {}", error.chain()));
        }
        if error.kind() != Kind::Unavailable {
            patience.pause = AWAY.1;
        }
        if *self.platform.0.holding.borrow() {
            self.controller.resting.send_replace(true);
        }
        let pause = sleep(patience.pause);
        patience.pause = (patience.pause * 2).min(AWAY.1);
        self.platform.0.ending.run_until_cancelled(pause).await.is_some()
    }
}
