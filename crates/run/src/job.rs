//! One-offs whose words are executed as they are, connected as somebody asks for.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, DropGuard};
use tolv_model::env::EnvName;
use tolv_model::name::ProcessName;
use tolv_model::run::{Argv, WindowSize};

use crate::board::{Command, Kind};
use crate::local::Local;
use crate::one_off::{Errand, Run};
use crate::plan::Plan;
use crate::protocol::Io;
use crate::shared::Shared;
use crate::streams::{Handle, Streams};
use crate::target::{Ending, Error, Target};

/// Letters of a command that the log shows.
const SHOWN: usize = 1000;

/// One process outside the formation that is not a line of the Procfile.
#[derive(Clone)]
pub struct Job {
    /// The release, slug and environment it runs with.
    pub target: Target,
    /// Its name in the log: `run.3`.
    pub name: ProcessName,
    /// What is executed.
    pub argv: Argv,
    /// Variables over those of the release.
    pub env: Vec<(EnvName, Vec<u8>)>,
    /// Its stdin, stdout and stderr.
    pub connection: Connection,
    /// For it to end.
    pub limit: Duration,
}

/// Where a job's streams go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// Nothing comes in, lines go to the log.
    Log,
    /// Three pipes, whose other ends come in [`Running::started`].
    Pipes,
    /// A terminal of the sandbox, whose other end comes in [`Running::started`].
    Terminal(WindowSize),
}

/// A job that was begun. Dropped, it stops.
#[derive(Debug)]
pub struct Running {
    /// Once it runs, with its streams where it has some; dropped where it never does.
    pub started: oneshot::Receiver<(Handle, Option<Streams>)>,
    /// Its end.
    pub ended: oneshot::Receiver<Result<Ending, Error>>,
    /// To stop it.
    pub stop: Stop,
    _guard: DropGuard,
}

/// Stops a job.
#[derive(Clone)]
pub struct Stop {
    id: u64,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Stop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stop({})", self.id)
    }
}

impl Stop {
    /// SIGTERM, and SIGKILL after the grace period.
    pub fn stop(&self) {
        self.shared.board.tell(self.id, Command::Stop);
    }

    /// SIGKILL to everything.
    pub fn kill(&self) {
        self.shared.board.tell(self.id, Command::Kill);
    }
}

impl Local {
    /// Begins a job, beside the others.
    ///
    /// # Errors
    ///
    /// [`Error::Stopped`]; everything else comes as its end.
    pub fn begin(&self, job: Job) -> Result<Running, Error> {
        let shared = Arc::clone(self.shared());
        let Job { target, name, argv, env, connection, limit } = job;
        let shown: String = argv.to_string().chars().take(SHOWN).collect();
        let plan = Plan { target: Arc::new(target), name, command: shown };
        let id = shared.board.next_id();
        // From before it is on the board: a stop that tells it waits for it.
        let token = shared.tasks.token();
        let commands = shared.board.add(id, &plan, Kind::OneOff).ok_or(Error::Stopped)?;
        let cancel = CancellationToken::new();
        let (started, is_started) = oneshot::channel();
        let (done, ended) = oneshot::channel();
        let pump = shared.pump(&plan, true).ok_or(Error::Stopped)?;
        let errand = Errand {
            argv: Some(argv),
            env,
            io: match connection {
                Connection::Log => Io::Log,
                Connection::Pipes => Io::Pipes,
                Connection::Terminal(WindowSize { rows, columns }) => {
                    Io::Terminal { rows, columns }
                }
            },
            limit,
            started: Some(started),
        };
        let stop = Stop { id, shared: Arc::clone(&shared) };
        let guard = cancel.clone().drop_guard();
        self.shared().tasks.spawn(async move {
            let _token = token;
            let run = Run { shared: Arc::clone(&shared), plan, commands, pump, cancel, errand };
            let ending = run.run().await;
            shared.board.remove(id);
            done.send(ending).ok();
        });
        Ok(Running { started: is_started, ended, stop, _guard: guard })
    }
}
