//! Schedules of the current release: one task a deploy, which wakes for the next tick only.
//!
//! ```text
//!  an operation is over ─▶ read the schedules ─▶ sleep until the next tick ◀──────┐
//!                                                   │ due                         │
//!                                record the tick ◀──┘ ── one-off of the release ──┘
//!                                (once, whoever asks)     └▶ record how it ended
//! ```
//!
//! # Invariants
//!
//! * A tick is in the store before anything of it runs, and is never fired twice: what a crash cut
//!   off is recorded as failed, and not done again.
//! * What is fired is of the release that is current then; nothing is while the deploy is stopped.
//! * A deploy without schedules wakes nobody.

mod going;
mod run;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::Notify;
use tokio::time::sleep;
use tolv_logs::Line;
use tolv_model::app_json::{Concurrency, CronJob};
use tolv_model::cron::CronOutcome;
use tolv_model::id::CronRunId;
use tolv_model::name::{Deploy as DeployPath, ScheduleName};
use tolv_model::operation::State;
use tolv_model::timetable::{Due, LATE, PutBack, Timetable};
use tolv_store::{CronRun, Deploy, Listed, NewCronRun, Recorded, Release};

use self::going::Going;
use self::run::Run;
use super::controller::Controller;
use super::error::{Error, Kind, chain};
use super::output::Follow;
use super::platform::{Actor, Platform};

/// Clocks may jump: a longer sleep is cut into these.
const LOOK: Duration = Duration::from_secs(60);
/// Between two tries while the database is away.
const AWAY: Duration = Duration::from_secs(5);
/// Runs of a schedule that are looked at for its last.
const LAST: usize = 1;

/// The schedules of one deploy.
#[derive(Default)]
pub(super) struct Cron {
    /// What is current may have changed.
    changed: Notify,
    /// How far each schedule has come, for others to look at.
    table: Mutex<Timetable>,
    pub(super) going: Going,
}

/// A schedule as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scheduled {
    /// What runs when.
    pub job: CronJob,
    /// Its next tick; nothing while the deploy is stopped.
    pub next: Option<Timestamp>,
    /// The clock was put back: ticks up to here were fired before, and are not fired again.
    pub fired_until: Option<Timestamp>,
    /// The last that is known of it.
    pub last: Option<CronRun>,
    /// How many runs of it go on.
    pub going: usize,
}

/// The schedules of what a deploy runs.
struct Current {
    deploy: Deploy,
    release: Release,
    jobs: Vec<CronJob>,
}

impl Cron {
    /// The schedules may be others now.
    pub(super) fn changed(&self) {
        self.changed.notify_one();
    }
}

/// The task of a deploy. Clones are the same one, begun again.
#[derive(Clone)]
pub(super) struct Task {
    platform: Platform,
    controller: Arc<Controller>,
    /// Whether it was begun before: then runs of this platform are under way.
    has_begun: Arc<AtomicBool>,
}

impl Task {
    pub(super) fn new(platform: Platform, controller: Arc<Controller>) -> Self {
        Self { platform, controller, has_begun: Arc::default() }
    }

    /// Fires what is due, until the platform ends or the deploy is gone.
    pub(super) async fn run(self) {
        let ending = self.platform.0.ending.clone();
        let ended = self.controller.ended.clone();
        tokio::select! {
            () = ending.cancelled() => {}
            () = ended.cancelled() => {}
            () = self.fire() => {}
        }
    }

    async fn fire(&self) {
        let cron = &self.controller.cron;
        // First what ran before is brought back.
        if !self.has_begun.load(Ordering::Relaxed) {
            cron.changed.notified().await;
        }
        let (mut table, mut is_first, mut is_stale) = (Timetable::default(), true, true);
        // Ticks that the store did not take yet.
        let mut waiting = Vec::new();
        // Schedules that begin anew, whose ticks are to be forgotten first.
        let mut anew = Vec::new();
        loop {
            if is_stale {
                match self.read(&mut table, is_first).await {
                    Ok(()) => (is_first, is_stale) = (false, false),
                    // It was destroyed meanwhile, or is not to be read: the next change says more.
                    Err(error) if error.kind() != Kind::Unavailable => is_stale = false,
                    Err(_) => {}
                }
            }
            if !is_stale {
                for put_back in table.put_back(Timestamp::now()) {
                    self.tell(&put_back);
                    if put_back.is_anew {
                        anew.push(put_back.name);
                    }
                }
                anew = self.forget(anew).await;
            }
            if !is_stale && anew.is_empty() {
                waiting.extend(table.take(Timestamp::now()));
                let mut later = Vec::new();
                for due in waiting.drain(..) {
                    match self.deal(&due).await {
                        Ok(()) => {}
                        Err(error) if error.kind() == Kind::Unavailable => later.push(due),
                        Err(error) => {
                            self.say(format!("{} did not run: {}", due.name, chain(&error)))
                        }
                    }
                }
                waiting = later;
            }
            cron.table.lock().unwrap_or_else(PoisonError::into_inner).clone_from(&table);
            let away = is_stale || !waiting.is_empty() || !anew.is_empty();
            let pause = match (away, table.next()) {
                (true, _) => Some(AWAY),
                (false, None) => None,
                (false, Some(next)) => {
                    let left = next.duration_since(Timestamp::now());
                    Some(Duration::try_from(left).unwrap_or_default().min(LOOK))
                }
            };
            tokio::select! {
                () = cron.changed.notified() => is_stale = true,
                () = async {
                    match pause {
                        Some(pause) => sleep(pause).await,
                        None => std::future::pending().await,
                    }
                } => {}
            }
        }
    }

    /// Forgets the ticks that lie ahead of schedules that begin anew; those that are still to be done.
    async fn forget(&self, anew: Vec<ScheduleName>) -> Vec<ScheduleName> {
        let (store, id) = (&self.platform.0.store, &self.controller.place.id);
        let mut later = Vec::new();
        for name in anew {
            match store.forget_cron_ticks(id, &name, Timestamp::now()).await {
                Err(error) if error.is_unavailable() => later.push(name),
                Err(error) => self.say(format!("{name}: its ticks cannot be forgotten: {error}")),
                Ok(()) => {}
            }
        }
        later
    }

    fn tell(&self, put_back: &PutBack) {
        let PutBack { name, from, next, is_anew } = put_back;
        let next = next.map_or_else(|| "never".to_owned(), |next| format!("at {next}"));
        self.say(if *is_anew {
            format!(
                "{name}: the clock was put back behind the tick of {from}: it goes by the clock as it \
                 is now, next {next}"
            )
        } else {
            format!(
                "{name}: the clock was put back behind the tick of {from}: what ran is not run again, \
                 next {next}"
            )
        });
    }

    /// Reads the schedules of what is current.
    async fn read(&self, table: &mut Timetable, is_first: bool) -> Result<(), Error> {
        let store = &self.platform.0.store;
        let id = &self.controller.place.id;
        let now = Timestamp::now();
        let mut since = (BTreeMap::new(), now);
        if is_first {
            if !self.has_begun.load(Ordering::Relaxed) {
                let why = "cut off: the platform ended meanwhile";
                store.cut_off_cron_runs(id, why, now).await?;
                self.has_begun.store(true, Ordering::Relaxed);
            }
            since.0 = store.last_cron_ticks(id).await?.into_iter().collect();
            // An `up` that ended was not down: its schedules begin anew.
            if self.platform.0.options.codebase.is_none() {
                since.1 = store.last_done(id).await?.unwrap_or(now);
            }
        }
        let deploy = store.deploy_by_id(id).await?;
        let jobs = match self.platform.current(deploy).await? {
            Some(current) if !current.deploy.stopped => current.jobs,
            _ => Vec::new(),
        };
        table.set(jobs, |name| since.0.get(name).map_or(since.1, |tick| since.1.max(*tick)));
        Ok(())
    }

    /// Fires a tick, or notes why not.
    async fn deal(&self, due: &Due) -> Result<(), Error> {
        let deploy = self.platform.0.store.deploy_by_id(&self.controller.place.id).await?;
        let current = self.platform.current(deploy).await?;
        let Some(current) = current.filter(|current| !current.deploy.stopped) else {
            return Ok(());
        };
        let Some(job) = current.jobs.iter().find(|job| job.name == due.name).cloned() else {
            return Ok(());
        };
        let late = Timestamp::now().duration_since(due.tick);
        let is_late = late > SignedDuration::try_from(LATE).unwrap_or(SignedDuration::MAX);
        let name = &due.name;
        if due.passed_over {
            self.say(format!("{name}: ticks before {} are passed over", due.tick));
        }
        let asked = Asked::Tick { tick: due.tick, is_missed: due.is_missed || is_late };
        self.platform.start_run(&self.controller, &current, &job, asked).await.map(drop)
    }

    fn say(&self, text: String) {
        self.controller.engine.say(&[Line::tolv("cron", text)]);
    }
}

/// Why a schedule is to run.
enum Asked<'a> {
    Tick { tick: Timestamp, is_missed: bool },
    By(&'a Actor),
}

impl Platform {
    /// The release that a deploy runs and its schedules; nothing before the first.
    async fn current(&self, deploy: Deploy) -> Result<Option<Current>, Error> {
        let Some(number) = deploy.current else { return Ok(None) };
        let release = self.0.store.release(&deploy.id, number).await?;
        let jobs = self.runtime(&deploy.app, &release.row.slug).await?.cron;
        Ok(Some(Current { deploy, release, jobs }))
    }

    /// The schedules of a deploy.
    ///
    /// # Errors
    ///
    /// There is no such deploy.
    pub async fn schedules(&self, path: &DeployPath) -> Result<Vec<Scheduled>, Error> {
        let store = &self.0.store;
        let controller = self.controller(path).await?;
        let Some(current) = self.current(store.deploy(path).await?).await? else {
            return Ok(Vec::new());
        };
        let now = Timestamp::now();
        let mut all = Vec::new();
        for job in current.jobs {
            let last = store.cron_runs(&current.deploy.id, &job.name, None, LAST).await?.pop();
            let (next, fired_until) = if current.deploy.stopped {
                (None, None)
            } else {
                let table = controller.cron.table.lock().unwrap_or_else(PoisonError::into_inner);
                table.next_of(&job, now)
            };
            let going = controller.cron.going.of(&job.name).len();
            all.push(Scheduled { job, next, fired_until, last, going });
        }
        Ok(all)
    }

    /// Runs of a schedule, the newest first, older than `before`. One that app.json has no more
    /// still has its own.
    ///
    /// # Errors
    ///
    /// There is no such deploy, or neither a schedule of this name nor a run of one.
    pub async fn schedule_runs(
        &self,
        path: &DeployPath,
        name: &ScheduleName,
        before: Option<&CronRunId>,
        most: usize,
    ) -> Result<Listed<CronRun>, Error> {
        let deploy = self.0.store.deploy(path).await?;
        let found = self.0.store.cron_runs(&deploy.id, name, before, most).await?;
        if found.is_empty() && before.is_none() {
            let known = self.current(deploy).await?.map(|current| current.jobs).unwrap_or_default();
            if !known.iter().any(|job| job.name == *name) {
                let known = known.into_iter().map(|job| job.name).collect();
                return Err(Error::NoSchedule { deploy: path.clone(), name: name.clone(), known });
            }
        }
        Ok(found)
    }

    /// Runs a schedule now, beside its ticks, also while the deploy is stopped.
    ///
    /// # Errors
    ///
    /// The current release has no such schedule, or one run of it goes on and two must not.
    pub async fn run_schedule(
        &self,
        actor: &Actor,
        path: &DeployPath,
        name: &ScheduleName,
    ) -> Result<CronRun, Error> {
        self.on()?;
        let controller = self.controller(path).await?;
        let deploy = self.0.store.deploy(path).await?;
        let current = self.current(deploy).await?;
        let current = current.ok_or_else(|| Error::NoRelease(path.clone()))?;
        let Some(job) = current.jobs.iter().find(|job| job.name == *name) else {
            let known = current.jobs.iter().map(|job| job.name.clone()).collect();
            return Err(Error::NoSchedule { deploy: path.clone(), name: name.clone(), known });
        };
        let made = self.start_run(&controller, &current, job, Asked::By(actor)).await?;
        made.ok_or(Error::Stopping)
    }

    /// The output of a run, from its beginning, to its end.
    ///
    /// # Errors
    ///
    /// There is no such run.
    pub async fn follow_run(&self, id: &CronRunId) -> Result<Follow, Error> {
        if let Some(follow) = self.0.run_outputs.follow(id) {
            return Ok(follow);
        }
        let run = self.0.store.cron_run(id).await?;
        let log = self.output_of(&run_key(id)).await;
        let state = match run.outcome {
            CronOutcome::Succeeded => State::Succeeded,
            // One that another platform left is over as soon as its deploy is looked after.
            CronOutcome::Running | CronOutcome::Failed => State::Failed,
            CronOutcome::Replaced | CronOutcome::Skipped | CronOutcome::Missed => State::Cancelled,
        };
        Ok(Follow::stored(&log, state))
    }

    /// Records a run and starts it; nothing where its tick was recorded before.
    async fn start_run(
        &self,
        controller: &Arc<Controller>,
        current: &Current,
        job: &CronJob,
        asked: Asked<'_>,
    ) -> Result<Option<CronRun>, Error> {
        let inner = &self.0;
        let cron = &controller.cron;
        // Decided, recorded and entered before anybody else decides.
        let _turn = cron.going.turn().await;
        let before = cron.going.of(&job.name);
        let is_left_out = job.concurrency == Concurrency::Forbid && !before.is_empty();
        let (tick, actor, outcome) = match asked {
            Asked::By(_) if is_left_out => return Err(Error::ScheduleRuns(job.name.clone())),
            Asked::By(actor) => (None, Some(actor.name.as_str()), CronOutcome::Running),
            Asked::Tick { tick, is_missed: true } => (Some(tick), None, CronOutcome::Missed),
            Asked::Tick { tick, .. } if is_left_out => (Some(tick), None, CronOutcome::Skipped),
            Asked::Tick { tick, .. } => (Some(tick), None, CronOutcome::Running),
        };
        let new = NewCronRun {
            deploy: &current.deploy.id,
            name: &job.name,
            tick,
            actor,
            release: current.release.row.number,
            command: &job.command,
            outcome,
            now: Timestamp::now(),
        };
        let Some(Recorded { run, forgotten }) = inner.store.record_cron_run(&new).await? else {
            return Ok(None);
        };
        for old in forgotten {
            inner.blobs.delete(&run_key(&old)).await.ok();
        }
        let name = &job.name;
        let said = match (outcome, tick) {
            (CronOutcome::Skipped, Some(tick)) => {
                Some(format!("{name}: the tick of {tick} is left out, an earlier run goes on"))
            }
            (CronOutcome::Missed, Some(tick)) => {
                Some(format!("{name}: the tick of {tick} was missed, it is too late for it"))
            }
            _ => None,
        };
        if let Some(said) = said {
            controller.engine.say(&[Line::tolv("cron", said)]);
        }
        if outcome != CronOutcome::Running {
            return Ok(Some(run));
        }
        let entered = cron.going.enter(&run.id, &job.name, inner.run_outputs.begin(&run.id));
        if job.concurrency == Concurrency::Replace {
            before.iter().for_each(|old| old.replace());
        }
        let begun = Run {
            platform: self.clone(),
            controller: Arc::clone(controller),
            run: run.clone(),
            release: current.release.clone(),
            entered,
            before: if job.concurrency == Concurrency::Replace { before } else { Vec::new() },
        };
        cron.going.spawn(begun.run());
        Ok(Some(run))
    }
}

/// Where a run's output is kept.
pub(super) fn run_key(id: &CronRunId) -> String {
    format!("cron/{id}.log")
}
