//! What is asked of the engine and what it answers.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tolv_logs::{Line, store};
use tolv_model::name::{ProcessName, ProcessType};
use tolv_model::release::{Release, ReleaseNumber};
use tolv_model::service::HostServices;
use tolv_model::shortage::Shortage;
use tolv_sandbox::{Level, Limits, Mount, Spawner};

use crate::connector::Connector;
use crate::lost::Living;
use crate::ports::Ports;

/// Gives word when requests in flight to these endpoints are done: called after the endpoints
/// were switched, awaited for [`Timing::drain`] at most, before the old processes get SIGTERM.
pub type Drain =
    Arc<dyn Fn(Vec<Endpoint>) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Proves that what a release runs is what was released: asked before each start of a process. The
/// error says what differs.
pub type Prove = Arc<
    dyn Fn(Arc<Release>) -> Pin<Box<dyn Future<Output = Result<(), StartFailure>> + Send>>
        + Send
        + Sync,
>;

/// How an engine works, fixed for its life.
#[derive(Clone)]
pub struct Settings {
    /// The helper that starts sandboxed processes.
    pub spawner: Spawner,
    /// How much to isolate.
    pub level: Level,
    /// Folder of the deploy's log; made where missing.
    pub logs: PathBuf,
    /// Most bytes of that log.
    pub logs_bytes: u64,
    /// While the disk has fewer bytes free than this that log does not grow.
    pub min_free: u64,
    /// Time-outs.
    pub timing: Timing,
    /// Lets the router finish with old processes.
    pub drain: Option<Drain>,
    /// The host's `PATH` behind the slug's folders, for levels that have no root of their own.
    pub search_path: String,
    /// The services of the machine that processes may reach, where they have networks of their own;
    /// nothing where they share the machine's.
    pub host_services: Option<HostServices>,
    /// Where ports come from; engines of one platform share it.
    pub ports: Arc<Ports>,
    /// Folder of this engine alone, by which the processes of the formation are found by the next
    /// engine on it, where this one is killed; made where missing. Without one they end with it.
    pub doors: Option<PathBuf>,
    /// Another folder for the same, on another disk: where that of `doors` takes nothing new.
    pub doors_aside: Option<PathBuf>,
    /// Until when those behind the doors may say what they are; two seconds from the making of the
    /// engine where it is not set. Engines that begin together share one.
    pub doors_until: Option<Instant>,
    /// The shims that lived before this platform: one of this engine's log that no door leads to any
    /// more is stopped before anything starts. Engines that begin together share them.
    pub living: Arc<[Arc<Living>]>,
    /// Where the task runs that hands out lines; nothing: where the engine is made.
    pub lines: Option<Handle>,
    /// Proves what is about to start; without one everything does.
    pub prove: Option<Prove>,
    /// Whether a process that ends with status 0 is complete: not restarted, and no failure of a
    /// rollout. `web` never is, since others wait for its answers.
    pub completes: bool,
}

impl Settings {
    /// The defaults of the contract.
    pub fn new(spawner: Spawner, level: Level, logs: PathBuf) -> Self {
        Self {
            spawner,
            level,
            logs,
            logs_bytes: 256 << 20,
            min_free: 0,
            timing: Timing::default(),
            drain: None,
            search_path: tolv_model::process_env::STACK_PATH.to_owned(),
            host_services: None,
            ports: Ports::new(),
            doors: None,
            doors_aside: None,
            doors_until: None,
            living: Arc::default(),
            lines: None,
            prove: None,
            completes: false,
        }
    }
}

impl Settings {
    /// How much the log may hold.
    pub(crate) fn log_limits(&self) -> store::Limits {
        store::Limits::of(self.logs_bytes).on_a_disk_with(self.min_free)
    }
}

/// Time-outs of the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For a process to become ready (R10).
    pub boot: Duration,
    /// Between SIGTERM and SIGKILL (R12).
    pub grace: Duration,
    /// Delay before the second restart in a row; the first is at once.
    pub back_off: Duration,
    /// The delay that the doubling stops at.
    pub back_off_max: Duration,
    /// Being up this long forgets earlier failures.
    pub settled: Duration,
    /// A process without a check is ready when it has run this long.
    pub uptime: Duration,
    /// For the router to finish requests of old processes.
    pub drain: Duration,
    /// For a one-off to end.
    pub one_off: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            boot: Duration::from_secs(60),
            grace: Duration::from_secs(30),
            back_off: Duration::from_secs(1),
            back_off_max: Duration::from_secs(300),
            settled: Duration::from_secs(300),
            uptime: Duration::from_secs(1),
            drain: Duration::from_secs(30),
            one_off: Duration::from_secs(3600),
        }
    }
}

/// What should run: all of one release.
#[derive(Clone)]
pub struct Target {
    /// Commands, formation, config and identity.
    pub release: Arc<Release>,
    /// Folders of the stack below it, lowest first; none where it runs on the machine's own `/usr`.
    pub stack: Vec<PathBuf>,
    /// The slug at `/app`, its layers at `/layers/<key>`, toolchains at their own paths.
    pub mounts: Vec<Mount>,
    /// Environment that the slug gives, below config.
    pub slug_env: BTreeMap<String, String>,
    /// Folders that the slug puts in front of `PATH`.
    pub slug_path: Vec<String>,
    /// Scripts of the slug that are sourced before each process, as paths in it.
    pub profile: Vec<String>,
    /// Health checks by process type; types without one get the default.
    pub checks: BTreeMap<ProcessType, Vec<tolv_model::health::HealthCheck>>,
    /// How much each process may take.
    pub limits: TypeLimits,
}

/// How much a process may take, by its type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TypeLimits {
    /// Of types that are not below.
    pub default: Limits,
    /// Of others.
    pub types: BTreeMap<ProcessType, Limits>,
}

impl TypeLimits {
    /// Those of a type.
    pub fn of(&self, process_type: &ProcessType) -> &Limits {
        self.types.get(process_type).unwrap_or(&self.default)
    }
}

/// One process outside the formation: the release phase, a job.
#[derive(Clone)]
pub struct OneOff {
    /// The release, slug and environment it runs with.
    pub target: Target,
    /// Its name in the log: `release.1`, `run.3`.
    pub name: ProcessName,
    /// The command line, as in a Procfile.
    pub command: String,
    /// For it to end; [`Timing::one_off`] without it.
    pub limit: Option<Duration>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself, with this status.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// The status as a shell shows it: 128 + the signal's number.
    pub fn status(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Whether it ended by itself with 0.
    pub fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "status {}", self.status())
    }
}

/// A boot that took too long. Prints as `60 seconds; it listens on 127.0.0.1:3000, not on port
/// 20000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The limit.
    pub limit: Duration,
    /// Its port.
    pub port: u16,
    /// Where it did listen.
    pub listens: Vec<SocketAddr>,
}

impl fmt::Display for Boot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} seconds", self.limit.as_secs_f32())?;
        if !self.listens.is_empty() {
            let found: Vec<_> = self.listens.iter().map(SocketAddr::to_string).collect();
            write!(f, "; it listens on {}", found.join(", "))?;
            if self.listens.iter().all(|address| address.port() != self.port) {
                write!(f, ", not on port {}", self.port)?;
            }
        }
        Ok(())
    }
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Its exit.
    pub exit: Exit,
    /// What that means, where it is not the process's own doing: it was not found, memory.
    pub reason: Option<Reason>,
    /// It was stopped because it did not end in time.
    pub late: bool,
}

/// Why a process could not be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartFailure {
    /// What failed, in words.
    pub why: String,
    /// What was missing for it; nothing where that is not the cause.
    pub shortage: Option<Shortage>,
}

impl StartFailure {
    /// A system call failed in what is described.
    pub(crate) fn of(what: impl fmt::Display, error: &std::io::Error) -> Self {
        Self { why: format!("{what}: {error}"), shortage: Shortage::of(error) }
    }

    /// As [`StartFailure::of`], in a file of the platform's own: the disk may be what is missing.
    pub(crate) fn of_file(what: impl fmt::Display, error: &std::io::Error) -> Self {
        let shortage = Shortage::of_disk(error).or_else(|| Shortage::of(error));
        Self { shortage, ..Self::of(what, error) }
    }
}

impl From<String> for StartFailure {
    fn from(why: String) -> Self {
        Self { why, shortage: None }
    }
}

impl fmt::Display for StartFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shortage {
            Some(shortage) => shortage.fmt(f),
            None => f.write_str(&self.why),
        }
    }
}

/// Why a process did not come up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It could not be started at all.
    NotStarted(StartFailure),
    /// The shell did not find the command (127), or may not execute it (126).
    CommandNotFound(Exit),
    /// It ended before it was ready.
    Exited(Exit),
    /// It was ready, and ended while others of the same rollout were not.
    ExitedAfterUp(Exit),
    /// It ran, but was not ready in time (R10).
    BootTimeout(Boot),
    /// A check of app.json failed; which and why.
    CheckFailed(String),
    /// Its memory limit killed it (R15).
    OutOfMemory(Exit),
    /// It was told to stop before it was ready.
    Stopped,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted(why) => write!(f, "could not be started: {why}"),
            Self::CommandNotFound(Exit::Code(126)) => {
                f.write_str("did not start: its command cannot be executed (status 126)")
            }
            Self::CommandNotFound(exit) => {
                write!(f, "did not start: its command was not found ({exit})")
            }
            Self::Exited(exit) => write!(f, "exited with {exit} before it was ready"),
            Self::ExitedAfterUp(exit) => {
                write!(f, "was up, and exited with {exit} before the rollout had finished")
            }
            Self::BootTimeout(boot) => write!(f, "was not ready within {boot} (R10)"),
            Self::CheckFailed(why) => write!(f, "failed its health check: {why}"),
            Self::OutOfMemory(exit) => write!(f, "used more memory than its limit (R15, {exit})"),
            Self::Stopped => f.write_str("was stopped before it was ready"),
        }
    }
}

/// The process that made a rollout fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Culprit {
    /// Which.
    pub process: ProcessName,
    /// Why.
    pub reason: Reason,
    /// The last lines it wrote.
    pub last_lines: Vec<Line>,
}

impl Culprit {
    /// Its exit status, where it had one.
    pub fn exit(&self) -> Option<Exit> {
        match self.reason {
            Reason::CommandNotFound(exit)
            | Reason::Exited(exit)
            | Reason::ExitedAfterUp(exit)
            | Reason::OutOfMemory(exit) => Some(exit),
            Reason::NotStarted(_)
            | Reason::BootTimeout(_)
            | Reason::CheckFailed(_)
            | Reason::Stopped => None,
        }
    }
}

/// What a successful `converge` did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Processes that were started and are ready.
    pub started: Vec<ProcessName>,
    /// Processes of the same release that ran already.
    pub kept: Vec<ProcessName>,
    /// Old processes that were told to stop; they may still be finishing.
    pub stopping: Vec<ProcessName>,
}

/// What the engine could not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A new process failed; the new ones are stopped, the old ones still run.
    #[error("process `{}` of release {release} {}", culprit.process, culprit.reason)]
    Rollout {
        /// The release that was to run.
        release: ReleaseNumber,
        /// Who failed and why.
        culprit: Box<Culprit>,
        /// The other new ones, which were stopped again.
        undone: Vec<ProcessName>,
    },
    /// The formation names a type that the release has no command for.
    #[error("process type `{0}` has no command in the Procfile")]
    UnknownType(ProcessType),
    /// A variable does not fit.
    #[error("the environment of `{process}` cannot be made")]
    Env {
        /// Whose.
        process: ProcessName,
        /// Which and why, without the value.
        source: tolv_model::env::EnvError,
    },
    /// The one-off could not be started.
    #[error("`{process}` could not be started: {reason}")]
    NotStarted {
        /// Which.
        process: ProcessName,
        /// Why.
        reason: StartFailure,
    },
    /// The one-off ran too long.
    #[error("`{process}` did not end within {limit:?}")]
    TooLong {
        /// Which.
        process: ProcessName,
        /// The limit.
        limit: Duration,
    },
    /// No port from 20000 to 29999 is free.
    #[error("no port from 20000 to 29999 is free")]
    NoPort,
    /// The log cannot be made.
    #[error("the log folder `{path}` cannot be used")]
    Log {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Processes of an earlier engine cannot be looked for.
    #[error("the folder of processes `{path}` cannot be read")]
    Doors {
        /// Where.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A time-out of the settings cannot be kept.
    #[error("the time-outs of the engine cannot be kept")]
    Timing(#[from] tolv_model::unit::PolicyError),
    /// `stop` or `kill` was called.
    #[error("the engine was stopped")]
    Stopped,
}

impl Error {
    /// What was missing to start a process, where that is the cause.
    pub fn shortage(&self) -> Option<Shortage> {
        match self {
            Self::Rollout { culprit, .. } => match &culprit.reason {
                Reason::NotStarted(failure) => failure.shortage,
                _ => None,
            },
            Self::NotStarted { reason, .. } => reason.shortage,
            Self::Log { source, .. } | Self::Doors { source, .. } => {
                Shortage::of_disk(source).or_else(|| Shortage::of(source))
            }
            _ => None,
        }
    }
}

/// The phase of one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProcessState {
    /// It is being started, or waits for its first readiness.
    Starting,
    /// It is ready.
    Up,
    /// It failed and waits for its restart.
    Crashed,
    /// It ended with status 0, and that was all that it is for.
    Complete,
    /// It was told to stop.
    Stopping,
    /// It is gone.
    Down,
}

impl fmt::Display for ProcessState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Crashed => "crashed",
            Self::Complete => "complete",
            Self::Stopping => "stopping",
            Self::Down => "down",
        })
    }
}

/// One process, as the router and `ps` see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its name; an old and a new process may share it during a rollout.
    pub process: ProcessName,
    /// Unique in the engine's life; tells those two apart.
    pub id: u64,
    /// Whose release it is.
    pub release: ReleaseNumber,
    /// Its phase.
    pub state: ProcessState,
    /// Whether it may get requests: of the release that was switched to last.
    pub routed: bool,
    /// Where it listens: `127.0.0.1:PORT`, or `[::1]:PORT` where it answered there.
    pub address: SocketAddr,
    /// How that is reached, and nothing else that may listen there.
    pub connector: Connector,
    /// The leader's id on the host.
    pub pid: Option<i32>,
    /// Restarts since it was first started.
    pub restarts: u32,
    /// How much it may take.
    pub limits: Limits,
}

/// All processes of the engine at one moment, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Running, starting, stopping, crashed; processes that are gone are not listed.
    pub processes: Vec<Endpoint>,
}

impl Endpoints {
    /// The web processes that get no request any more, since others were switched to, and still answer
    /// those that they have.
    pub fn draining(&self) -> impl Iterator<Item = &Endpoint> {
        let newest = self.web().map(|endpoint| endpoint.id).max();
        self.processes.iter().filter(move |endpoint| {
            !endpoint.routed
                && endpoint.state == ProcessState::Up
                && endpoint.process.process_type.is_web()
                && newest.is_some_and(|newest| endpoint.id < newest)
        })
    }

    /// The web processes that may get requests now.
    pub fn web(&self) -> impl Iterator<Item = &Endpoint> {
        self.processes
            .iter()
            .filter(|p| p.routed && p.state == ProcessState::Up && p.process.process_type.is_web())
    }
}

#[cfg(test)]
mod tests;
