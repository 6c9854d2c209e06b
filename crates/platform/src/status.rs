//! What the running platform holds and lacks: `tolv status --platform`, and the same in `/metrics`.
//!
//! Asking changes nothing, and nothing is looked at in between. What may hang, a database or a disk,
//! is looked at by [`Probe`]s: that it does not answer is a fact like any other.
//!
//! ```text
//!  Platform ─▶ Facts ─▶ checks: one line each, with a state ─▶ API, command line
//!                └────▶ gauges ─▶ /metrics
//! ```

mod checks;
mod machine;
mod probe;
mod threads;

use std::time::Duration;

use jiff::Timestamp;
use tolv_model::name::Deploy as DeployPath;
use tolv_run::ProcessState;
use tolv_sandbox::{Choice, Level, NetworkChoice};
use tolv_store::{Connections, DatabaseStatus, Holder};

pub(crate) use self::checks::checks;
pub use self::checks::{Check, Health, worst};
pub(crate) use self::machine::{Disk, Machine};
use self::probe::Probe;
pub(crate) use self::threads::ThreadLimit;
use super::error::{Error, chain};
use super::platform::{Platform, blocking};
use super::task::Panicked;

/// What the machine was found to give at the start.
pub(super) struct Findings {
    pub(super) machine: tolv_sandbox::Machine,
    /// What is missing for a higher level, in words.
    pub(super) missing: Vec<String>,
    /// Settings of sizes that are more than there is, in words.
    pub(super) beyond: Vec<String>,
}

/// What is looked at on request.
#[derive(Debug, Default)]
pub(super) struct Probes {
    database: Probe<Result<DatabaseStatus, String>>,
    disk: Probe<Result<Disk, String>>,
    machine: Probe<Result<Machine, String>>,
}

/// Why something is not known.
#[derive(Clone, Debug)]
pub(crate) enum Unknown {
    /// There has been no answer for this long.
    Silent(Duration),
    /// It failed.
    Failed(String),
}

/// What became of the lease.
#[derive(Clone, Debug)]
pub(crate) enum LeaseState {
    Held(Holder),
    /// The connection that held it broke; nothing is written until it is taken again.
    Broken(Holder),
    /// The database did not answer since the start.
    NotTaken,
    /// This platform is ending.
    GivenUp,
    /// Another platform has the database.
    Lost(String),
}

/// Processes of all deploys.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ProcessCounts {
    pub(crate) starting: u64,
    pub(crate) up: u64,
    pub(crate) crashed: u64,
    pub(crate) stopping: u64,
    pub(crate) down: u64,
    /// Those of them that have a shim now.
    pub(crate) shims: u64,
    /// Sockets of processes that were gone from the state folder and are there again.
    pub(crate) sockets_made_again: u64,
}

impl ProcessCounts {
    pub(crate) fn total(&self) -> u64 {
        self.starting + self.up + self.crashed + self.stopping + self.down
    }
}

/// How many of the most that there may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Used {
    pub(crate) now: u64,
    pub(crate) most: u64,
}

impl Used {
    fn of((now, most): (usize, usize)) -> Self {
        let count = |number| u64::try_from(number).unwrap_or(u64::MAX);
        Self { now: count(now), most: count(most) }
    }
}

/// Everything that is known at one moment.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    pub(crate) uptime: Duration,
    pub(crate) is_ending: bool,
    pub(crate) lease: LeaseState,
    pub(crate) database_kind: &'static str,
    pub(crate) connections: Connections,
    pub(crate) database: Result<DatabaseStatus, Unknown>,
    /// Why the database was away when its lease was asked for last.
    pub(crate) outage: Option<String>,
    /// Whether the last write failed for the disk of the database server.
    pub(crate) is_database_disk_at_fault: bool,
    pub(crate) home: String,
    pub(crate) disk: Result<Disk, Unknown>,
    /// Bytes that are kept free.
    pub(crate) min_free: u64,
    pub(crate) machine: Result<Machine, Unknown>,
    pub(crate) level: Level,
    pub(crate) is_level_chosen: bool,
    pub(crate) missing: Vec<String>,
    pub(crate) cgroups: tolv_sandbox::CgroupFacts,
    pub(crate) network_choice: NetworkChoice,
    /// Why processes have no networks of their own; nothing where they have.
    pub(crate) no_network: Option<String>,
    pub(crate) deploys: u64,
    pub(crate) processes: ProcessCounts,
    pub(crate) drains: u64,
    pub(crate) failing_drains: u64,
    pub(crate) git: Used,
    pub(crate) pushes: Used,
    /// Apps whose repositories were gone, and are empty.
    pub(crate) lost_repositories: Vec<String>,
    pub(crate) builds: Used,
    /// Lines that wait for standard output.
    pub(crate) lines: Used,
    /// Deploys of which nothing was started, each with the reason.
    pub(crate) not_started: Vec<(DeployPath, String)>,
    /// Operations that are carried out, as the controllers know them.
    pub(crate) at_work: Vec<(DeployPath, String)>,
    /// Panics of tasks that are started again after one.
    pub(crate) panics: u64,
    /// Those tasks.
    pub(crate) panicked: Vec<Panicked>,
}

impl Facts {
    /// Whether the database takes writes, as far as that is known.
    pub(crate) fn is_database_writable(&self) -> bool {
        let takes = |status: &DatabaseStatus| !status.is_read_only;
        self.database.as_ref().is_ok_and(takes) && !self.is_database_disk_at_fault
    }

    /// Of the oldest operation that is not over.
    pub(crate) fn oldest_age(&self) -> Option<Duration> {
        let oldest = self.database.as_ref().ok()?.oldest.as_ref()?;
        // The clock may have been put back since.
        let age = Timestamp::now().duration_since(oldest.created);
        Some(Duration::try_from(age).unwrap_or_default())
    }
}

/// What is known of a platform, judged.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Its version.
    pub version: &'static str,
    /// Its process id.
    pub pid: u32,
    /// Time since its start.
    pub uptime: Duration,
    /// One thing each.
    pub checks: Vec<Check>,
}

impl Platform {
    /// What this platform holds and lacks, within a second, whatever of it hangs.
    pub async fn status(&self) -> Status {
        let facts = self.facts().await;
        Status {
            version: env!("CARGO_PKG_VERSION"),
            pid: std::process::id(),
            uptime: facts.uptime,
            checks: checks(&facts),
        }
    }

    /// Whether the database was asked and has not answered for so long that a status says so.
    pub fn is_database_silent(&self) -> bool {
        self.0.probes.database.is_late()
    }

    /// The sandbox level that processes run in.
    pub fn level(&self) -> Level {
        self.0.level
    }

    /// Settings of sizes that this machine cannot give, with what is done instead.
    pub fn sizes_beyond(&self) -> &[String] {
        &self.0.findings.beyond
    }

    /// What the machine lacks for a higher one, in words.
    pub fn missing(&self) -> &[String] {
        &self.0.findings.missing
    }

    pub(super) async fn facts(&self) -> Facts {
        let inner = &self.0;
        let options = &inner.options;
        let found = &inner.findings.machine;
        let no_network = match inner.level {
            Level::Strict => found.network.clone(),
            _ => Some("only at level strict".to_owned()),
        };
        let (database, disk, machine) =
            tokio::join!(self.look_at_database(), self.look_at_disk(), self.look_at_machine());
        let mut facts = Facts {
            uptime: inner.began.elapsed(),
            is_ending: inner.ending.is_cancelled(),
            lease: self.lease_state(),
            database_kind: inner.store.kind(),
            connections: inner.store.connections(),
            database,
            outage: inner.store.outage(),
            is_database_disk_at_fault: inner.store.is_disk_at_fault(),
            home: inner.home.display().to_string(),
            disk,
            min_free: options.min_free,
            machine,
            level: inner.level,
            is_level_chosen: options.sandbox != Choice::Auto,
            missing: inner.findings.missing.clone(),
            cgroups: found.cgroups.clone(),
            network_choice: options.network,
            no_network,
            deploys: 0,
            processes: ProcessCounts::default(),
            drains: 0,
            failing_drains: 0,
            git: Used::of(inner.repos.at_work()),
            pushes: Used::of(inner.repos.waiting_pushes()),
            lost_repositories: inner.repos.lost().iter().map(ToString::to_string).collect(),
            builds: Used::of((inner.building.building(), inner.shares.builds)),
            lines: Used::of((
                inner.lines.max_capacity().saturating_sub(inner.lines.capacity()),
                inner.lines.max_capacity(),
            )),
            not_started: Vec::new(),
            at_work: Vec::new(),
            panics: inner.panics.total(),
            panicked: inner.panics.tasks(),
        };
        let controllers: Vec<_> = self.controllers().values().cloned().collect();
        for controller in controllers {
            facts.deploys += 1;
            for endpoint in controller.endpoints().processes {
                facts.processes.shims += u64::from(endpoint.pid.is_some());
                let count = match endpoint.state {
                    ProcessState::Starting => &mut facts.processes.starting,
                    ProcessState::Up => &mut facts.processes.up,
                    ProcessState::Crashed => &mut facts.processes.crashed,
                    ProcessState::Stopping => &mut facts.processes.stopping,
                    ProcessState::Complete | ProcessState::Down => &mut facts.processes.down,
                };
                *count += 1;
            }
            facts.processes.sockets_made_again += controller.engine.doors_made_again();
            let (drains, failing) = controller.drains.counts();
            facts.drains += drains as u64;
            facts.failing_drains += failing as u64;
            if let Some(why) = controller.not_started() {
                facts.not_started.push((controller.place.path.clone(), why));
            }
            if let Some(id) = controller.current() {
                facts.at_work.push((controller.place.path.clone(), id.to_string()));
            }
        }
        facts.not_started.sort();
        // Ids are in the order of time.
        facts.at_work.sort_by(|a, b| a.1.cmp(&b.1));
        facts
    }

    fn lease_state(&self) -> LeaseState {
        if let Some(other) = self.ousted_by() {
            return LeaseState::Lost(other);
        }
        match self.lease_holder() {
            Some(holder) if self.0.store.may_write() => LeaseState::Held(holder),
            Some(holder) => LeaseState::Broken(holder),
            None if self.0.ending.is_cancelled() => LeaseState::GivenUp,
            None => LeaseState::NotTaken,
        }
    }

    async fn look_at_database(&self) -> Result<DatabaseStatus, Unknown> {
        let look = || {
            let store = self.0.store.clone();
            async move { store.status().await.map_err(|error| chain(&error)) }
        };
        known(self.0.probes.database.look(&self.0.tasks, look).await)
    }

    async fn look_at_disk(&self) -> Result<Disk, Unknown> {
        let look = || {
            let home = self.0.home.clone();
            let read = move || Disk::of(&home).map_err(system("ask how full the disk is"));
            async move { blocking(read).await.map_err(|error| chain(&error)) }
        };
        known(self.0.probes.disk.look(&self.0.tasks, look).await)
    }

    async fn look_at_machine(&self) -> Result<Machine, Unknown> {
        let look = || {
            let spawner = self.0.spawner.clone();
            let has_own_networks = self.0.host_services.is_some();
            let read = move || Ok::<_, Error>(Machine::read(&spawner, has_own_networks));
            async move { blocking(read).await.map_err(|error| chain(&error)) }
        };
        known(self.0.probes.machine.look(&self.0.tasks, look).await)
    }
}

fn known<T>(looked: Result<Result<T, String>, Duration>) -> Result<T, Unknown> {
    match looked {
        Ok(found) => found.map_err(Unknown::Failed),
        Err(silent) => Err(Unknown::Silent(silent)),
    }
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> Error {
    move |source| Error::System { what, source }
}
