//! One-off runs (factor XII): processes of a release that somebody asks for, beside the formation.
//!
//! ```text
//!  request ─▶ recorded ─▶ engine: a fresh process ─▶ its end, recorded
//!                              │  ▲
//!               output waits ◀─┘  └─ input is taken
//!                     ▼            ▲
//!             whoever is attached: a place in the output, a place in the input
//! ```
//!
//! # Invariants
//!
//! * A run is recorded before it starts. One that was under way when the platform ended is
//!   recorded as lost by the next.
//! * A connection may break anywhere: no byte of the output is lost or doubled for whoever goes on
//!   where he was, and none of the input is taken twice.
//! * Output that nobody reads is bounded: the process waits.

mod life;
mod live;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tolv_model::env::EnvName;
use tolv_model::id::{DeployId, RunId};
use tolv_model::name::{Deploy as DeployPath, ProcessName, ProcessType};
use tolv_model::release::ReleaseNumber;
use tolv_model::run::{Argv, Connection, WindowSize, check_env};
use tolv_model::size::{Size, Sizes};
use tolv_model::slug::SlugId;
use tolv_run::Job;
use tolv_store::{NewRun, Run};

use self::life::{Life, record_key, records};
use self::live::Live;
pub use self::live::{Attachment, RunOutput, Taken};
use super::error::Error;
use super::logs::Listener;
use super::platform::{Actor, Platform, lock};
use super::quota::Reservation;

/// For a run to end, whoever asks for it.
pub(super) const LIMIT: Duration = Duration::from_secs(24 * 3600);
/// Runs of one deploy at once.
const AT_ONCE: usize = 200;
/// Runs of each deploy that are remembered.
const KEPT: usize = 200;
/// How long the last output of a run that is over waits for its reader.
const LINGER: Duration = Duration::from_secs(3600);
/// Runs that are over and whose output waits.
const LINGERING: usize = 64;
/// For runs to be recorded when everything ends.
const SETTLE: Duration = Duration::from_secs(10);
/// For a run to start before whoever asked for it is answered.
const START_WAIT: Duration = Duration::from_secs(10);

/// What is to be run.
#[derive(Clone, Debug)]
pub struct RunRequest {
    /// The words of the command.
    pub argv: Argv,
    /// Variables over those of the release.
    pub env: Vec<(EnvName, Vec<u8>)>,
    /// The current release without it.
    pub release: Option<ReleaseNumber>,
    /// How it is connected.
    pub streams: RunStreams,
    /// Whether its output is kept.
    pub record: bool,
    /// What it asks for over the size of runs.
    pub size: Size,
}

/// What a run's stdin, stdout and stderr are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunStreams {
    /// Its lines go to the log.
    Detached,
    /// Three pipes.
    Pipes,
    /// A terminal.
    Terminal {
        /// At first.
        size: WindowSize,
        /// What it understands: `TERM`.
        term: Option<String>,
    },
}

/// Runs that somebody may still talk to.
#[derive(Default)]
pub(super) struct Runs {
    live: Mutex<HashMap<RunId, Arc<Live>>>,
    /// Counts runs that are over.
    over: watch::Sender<u64>,
    slugs: Arc<Mutex<Vec<SlugId>>>,
}

/// Keeps a slug from being collected, and room for what runs it.
pub(super) struct Held {
    _reservation: Option<Reservation>,
    slug: SlugId,
    slugs: Arc<Mutex<Vec<SlugId>>>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut slugs = lock(&self.slugs);
        if let Some(place) = slugs.iter().position(|slug| *slug == self.slug) {
            slugs.swap_remove(place);
        }
    }
}

impl Runs {
    fn get(&self, id: &RunId) -> Option<Arc<Live>> {
        lock(&self.live).get(id).cloned()
    }

    /// Keeps a slug for as long as somebody has what comes back.
    pub(super) fn hold(&self, slug: SlugId) -> Held {
        lock(&self.slugs).push(slug);
        Held { _reservation: None, slug, slugs: Arc::clone(&self.slugs) }
    }

    /// Slugs that runs have in use.
    pub(super) fn slugs(&self) -> Vec<SlugId> {
        lock(&self.slugs).clone()
    }

    fn remove(&self, id: &RunId) {
        lock(&self.live).remove(id);
    }

    /// Puts a run where others find it; the oldest of those that are over go.
    fn insert(&self, live: &Arc<Live>) {
        let mut all = lock(&self.live);
        let mut over: Vec<_> = all.iter().filter(|(_, live)| live.is_over()).collect();
        if over.len() > LINGERING {
            over.sort_by_key(|(id, _)| (*id).clone());
            let oldest = over.first().map(|(id, _)| (*id).clone());
            oldest.and_then(|id| all.remove(&id));
        }
        all.insert(live.run().id, Arc::clone(live));
    }

    fn under_way(&self, deploy: Option<&DeployId>) -> usize {
        let its = |live: &Live| deploy.is_none_or(|deploy| live.run().deploy == *deploy);
        lock(&self.live).values().filter(|live| !live.is_over() && its(live)).count()
    }

    fn say_over(&self) {
        self.over.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Waits until the runs of a deploy, or all, are recorded; not for ever.
    async fn settled(&self, deploy: Option<&DeployId>) {
        let mut over = self.over.subscribe();
        let settled = async { while self.under_way(deploy) > 0 && over.changed().await.is_ok() {} };
        tokio::time::timeout(SETTLE, settled).await.ok();
    }
}

impl Platform {
    /// Records a run and begins it. It goes on when nobody is there any more.
    ///
    /// # Errors
    ///
    /// There is no such release, it has no slug any more, a variable is refused, the deploy has
    /// as many runs as it may have.
    pub async fn begin_run(
        &self,
        actor: &Actor,
        path: &DeployPath,
        request: RunRequest,
    ) -> Result<Run, Error> {
        self.on()?;
        let store = &self.0.store;
        check_env(&request.env).map_err(tolv_store::Error::Env)?;
        let deploy = store.deploy(path).await?;
        let number = match request.release {
            Some(number) => number,
            None => deploy.current.ok_or_else(|| Error::NoRelease(path.clone()))?,
        };
        let controller = self.controller(path).await?;
        if self.0.runs.under_way(Some(&deploy.id)) >= AT_ONCE {
            return Err(Error::ManyRuns { deploy: path.clone(), most: AT_ONCE });
        }
        let release = self.proven(&deploy, number).await?;
        let run: ProcessType = "run".parse().map_err(Error::Name)?;
        let asked = Sizes([(run.clone(), request.size)].into());
        self.0.shares.check(&asked)?;
        let (mut target, mut slug) = self.one_off_target(&deploy, &release).await?;
        let size = request.size.or(&release.row.sizes.of(&run));
        let limits = self.0.shares.limits_of_run(&size);
        slug._reservation = Some(self.0.quota.reserve(&deploy.id, &target, &limits)?);
        target.limits.types.insert(run, limits);
        let RunRequest { argv, mut env, streams, record, .. } = request;
        let names: Vec<_> = env.iter().map(|(name, _)| name.clone()).collect();
        let (connection, streams) = match streams {
            RunStreams::Detached => (Connection::Detached, tolv_run::Connection::Log),
            RunStreams::Pipes => (Connection::Pipes, tolv_run::Connection::Pipes),
            RunStreams::Terminal { size, term } => {
                if let Some(term) = term {
                    // What was set by hand is behind it, and wins.
                    env.insert(0, (term_name()?, term.into_bytes()));
                }
                (Connection::Terminal, tolv_run::Connection::Terminal(size))
            }
        };
        let new = NewRun {
            deploy: deploy.id.clone(),
            release: number,
            actor: actor.name.clone(),
            argv: argv.clone(),
            env: names,
            connection,
            now: Timestamp::now(),
        };
        let run = store.begin_run(&new).await?;
        let name = process_name(&run)?;
        let listener = match connection {
            Connection::Detached => Some(Listener::begin(&controller, &name).await?),
            Connection::Pipes | Connection::Terminal => None,
        };
        let job = Job { target, name, argv, env, connection: streams, limit: LIMIT };
        let running = match controller.engine.begin(job) {
            Ok(running) => running,
            Err(tolv_run::Error::Stopped) => {
                store.remove_run(&run.id).await?;
                return Err(Error::Stopping);
            }
            Err(error) => {
                let end = tolv_model::run::End {
                    state: tolv_model::run::State::Failed,
                    status: None,
                    note: Some(error.to_string()),
                };
                store.end_run(&run.id, &end, None, Timestamp::now()).await?;
                return Err(error.into());
            }
        };
        let live = Arc::new(Live::new(run.clone(), running.stop.clone(), slug, record));
        self.0.runs.insert(&live);
        let life = Life { platform: self.clone(), live: Arc::clone(&live), running, listener };
        self.0.tasks.spawn(life.live());
        // The next platform begins one that the end of this one kept from starting.
        match tokio::time::timeout(START_WAIT, live.has_begun()).await {
            Ok(false) => Err(Error::Stopping),
            Ok(true) | Err(_) => Ok(run),
        }
    }

    /// One run.
    ///
    /// # Errors
    ///
    /// There is no such run.
    pub async fn run(&self, id: &RunId) -> Result<Run, Error> {
        match self.0.runs.get(id) {
            Some(live) => Ok(live.run()),
            None => Ok(self.0.store.run(id).await?),
        }
    }

    /// Output of a run from a place on, once there is some or its end; nothing of both after
    /// `wait`. Everything before the place is taken as read. `attached` is the number that an
    /// attachment got; without it nobody is kept from reading.
    ///
    /// # Errors
    ///
    /// There is no such run, or somebody else attached to it.
    pub async fn run_output(
        &self,
        id: &RunId,
        from: u64,
        attached: Option<u32>,
        wait: Duration,
    ) -> Result<RunOutput, Error> {
        if let Some(live) = self.0.runs.get(id) {
            return live.output(from, attached, wait).await;
        }
        let run = self.0.store.run(id).await?;
        let over = run.state.is_over().then_some(run);
        if over.is_none() {
            tokio::time::sleep(wait).await;
        }
        Ok(RunOutput { from, pieces: Vec::new(), over })
    }

    /// Gives a run input that begins at a place; answered once it is taken, or after a while with
    /// how much of it was. What was taken before is not taken again.
    ///
    /// # Errors
    ///
    /// There is no such run, somebody else attached to it, or bytes before the place are missing.
    pub async fn run_input(
        &self,
        id: &RunId,
        at: u64,
        bytes: &[u8],
        end: bool,
        attached: Option<u32>,
    ) -> Result<Taken, Error> {
        match self.0.runs.get(id) {
            Some(live) => live.input(at, bytes, end, attached).await,
            None => {
                self.0.store.run(id).await?;
                Ok(Taken { taken: at.saturating_add(bytes.len() as u64), closed: true })
            }
        }
    }

    /// Takes the streams of a run over.
    ///
    /// # Errors
    ///
    /// There is no such run.
    pub async fn attach_run(&self, id: &RunId) -> Result<Attachment, Error> {
        match self.live(id).await? {
            Some(live) => Ok(live.attach().await),
            None => Ok(Attachment::default()),
        }
    }

    /// Changes the size of a run's terminal; of no effect where it has none.
    ///
    /// # Errors
    ///
    /// There is no such run.
    pub async fn resize_run(&self, id: &RunId, size: WindowSize) -> Result<(), Error> {
        if let Some(handle) = self.live(id).await?.as_deref().and_then(Live::handle) {
            handle.resize(size.rows, size.columns);
        }
        Ok(())
    }

    /// Sends a signal to a run and the group of its process; of no effect once it is over.
    ///
    /// # Errors
    ///
    /// There is no such run.
    pub async fn signal_run(&self, id: &RunId, signal: i32) -> Result<(), Error> {
        if let Some(handle) = self.live(id).await?.as_deref().and_then(Live::handle) {
            handle.signal(signal);
        }
        Ok(())
    }

    /// Stops a run: SIGTERM and, after the grace period, SIGKILL; at once with `kill`.
    ///
    /// # Errors
    ///
    /// There is no such run.
    pub async fn stop_run(&self, actor: &Actor, id: &RunId, kill: bool) -> Result<Run, Error> {
        if let Some(live) = self.live(id).await?.filter(|live| !live.is_over()) {
            live.stopped_by(&actor.name);
            match kill {
                true => live.stop.kill(),
                false => live.stop.stop(),
            }
        }
        self.run(id).await
    }

    async fn live(&self, id: &RunId) -> Result<Option<Arc<Live>>, Error> {
        match self.0.runs.get(id) {
            Some(live) => Ok(Some(live)),
            None => self.0.store.run(id).await.map(|_| None).map_err(Into::into),
        }
    }

    /// The output of a run that was kept.
    ///
    /// # Errors
    ///
    /// None was.
    pub async fn recorded(&self, run: &Run) -> Result<Vec<u8>, Error> {
        let none = || Error::NotRecorded(run.id.clone());
        run.recorded.ok_or_else(none)?;
        self.kept_output(&record_key(&run.deploy, &run.id)).await?.ok_or_else(none)
    }

    /// What was under way when the last platform ended is lost.
    pub(super) async fn lose_runs(&self) -> Result<(), Error> {
        let note = "the platform ended while it ran";
        self.0.store.lose_runs(note, Timestamp::now()).await?;
        Ok(())
    }

    /// Waits until runs whose engines are stopped are recorded.
    pub(super) async fn settle_runs(&self) {
        self.0.runs.settled(None).await;
    }

    /// Removes the runs of a deploy whose engine is stopped, with what is kept of them.
    pub(super) async fn remove_runs(&self, deploy: &DeployId) -> Result<(), Error> {
        let runs = &self.0.runs;
        runs.settled(Some(deploy)).await;
        lock(&runs.live).retain(|_, live| live.run().deploy != *deploy);
        for key in self.0.blobs.list(&records(deploy)).await? {
            self.0.blobs.delete(&key).await?;
        }
        Ok(())
    }
}

fn term_name() -> Result<EnvName, Error> {
    Ok("TERM".parse().map_err(tolv_store::Error::Env)?)
}

fn process_name(run: &Run) -> Result<ProcessName, Error> {
    let process_type: ProcessType = "run".parse().map_err(Error::Name)?;
    Ok(ProcessName { process_type, number: run.number })
}
