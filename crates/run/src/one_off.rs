//! One process outside the formation, from its start to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tolv_model::env::{EnvError, EnvName, MAX_TOTAL};
use tolv_model::run::Argv;

use crate::board::Command;
use crate::child::exec_failure;
use crate::maybe::maybe;
use crate::plan::Plan;
use crate::protocol::frozen::Word as Frozen;
use crate::protocol::{FromShim, Io, Order, Orders, Word};
use crate::pump::Pump;
use crate::session::{self, Launching, Session, exit_timeout};
use crate::shared::Shared;
use crate::streams::{Handle, Streams};
use crate::target::{Ending, Error, Reason, Settings, StartFailure};

/// For its last lines to reach their reader.
const LAST_LINES: Duration = Duration::from_millis(250);

/// The one-off itself; it ends when the process is gone.
pub(crate) struct Run {
    pub(crate) shared: Arc<Shared>,
    pub(crate) plan: Plan,
    pub(crate) commands: UnboundedReceiver<Command>,
    pub(crate) pump: Pump,
    /// Nobody waits for it any more.
    pub(crate) cancel: CancellationToken,
    pub(crate) errand: Errand,
}

/// What is particular about it.
pub(crate) struct Errand {
    /// Executed as they are; the plan's line without them.
    pub(crate) argv: Option<Argv>,
    /// Over the release's variables.
    pub(crate) env: Vec<(EnvName, Vec<u8>)>,
    pub(crate) io: Io,
    /// For it to end.
    pub(crate) limit: Duration,
    /// Told once it runs.
    pub(crate) started: Option<oneshot::Sender<(Handle, Option<Streams>)>>,
}

impl Errand {
    /// A line of the Procfile.
    pub(crate) fn line(limit: Duration) -> Self {
        Self { argv: None, env: Vec::new(), io: Io::Log, limit, started: None }
    }

    fn change(
        &self,
        plan: &Plan,
        settings: &Settings,
        orders: &mut Orders,
    ) -> Result<(), EnvError> {
        orders.head.io = self.io;
        if let Some(argv) = &self.argv {
            orders.argv = plan.words(settings, argv.words().to_vec());
        }
        for (name, value) in &self.env {
            let start = [name.as_str().as_bytes(), b"="].concat();
            orders.env.retain(|pair| !pair.starts_with(&start));
            orders.env.push([start.as_slice(), value].concat());
        }
        match orders.env.iter().map(|pair| pair.len() + 1).sum() {
            0..=MAX_TOTAL => Ok(()),
            total => Err(EnvError::TooLarge(total)),
        }
    }
}

impl Run {
    /// Its whole life.
    pub(crate) async fn run(mut self) -> Result<Ending, Error> {
        let exit = self.live().await;
        // What comes next is shown after its last lines, unless the reader is slow.
        timeout(LAST_LINES, self.pump.caught_up()).await.ok();
        exit
    }

    async fn live(&mut self) -> Result<Ending, Error> {
        let Self { shared, plan, pump, errand, .. } = &self;
        // Whoever reads the log may not read what a run was told, which may be a secret.
        let shown = errand.argv.as_ref().map(|argv| argv.program().to_string());
        let shown = shown.as_ref().unwrap_or(&plan.command);
        pump.say(format!("Starting process with command `{shown}`"));
        for refused in plan.refused_services(&shared.settings) {
            pump.say(refused);
        }
        let mut launching = Launching::begin_as(shared, plan, |orders| {
            errand.change(plan, &shared.settings, orders)
        })?;
        let started = launching.done().await;
        let opened = started.and_then(|mut started| {
            let ends = started.ends.take();
            let session = launching.open(started, pump)?;
            let streams = ends.map(Streams::new).transpose();
            Ok((session, streams.map_err(|error| StartFailure::of("its streams", &error))?))
        });
        let (session, streams) =
            opened.map_err(|reason| self.not_started(&Reason::NotStarted(reason)))?;
        self.attend(session, streams).await
    }

    async fn attend(
        &mut self,
        mut session: Session,
        mut streams: Option<Streams>,
    ) -> Result<Ending, Error> {
        let timing = self.shared.settings.timing;
        let (mut cancel, mut late) = (Some(self.cancel.clone()), false);
        let mut limit = Some(Instant::now() + self.errand.limit);
        let mut kill_at = None;
        loop {
            let deaf_at = session.deaf_at;
            tokio::select! {
                biased;
                word = session.control.word() => match word {
                    // Only at a door, and it has none.
                    Some(FromShim::Frozen(Frozen::Hello(_))) => {}
                    Some(FromShim::Versioned(Word::Started { .. })) => {
                        self.pump.say("State changed from starting to up");
                        if let Some(started) = self.errand.started.take() {
                            // Nobody waits for it any more: then it is being stopped.
                            let handle = Handle::new(&session.control, streams.as_ref());
                            started.send((handle, streams.take())).ok();
                        }
                    }
                    Some(FromShim::Versioned(Word::Bell(written))) => self.pump.bell(session.writer, written),
                    Some(FromShim::Versioned(Word::Memory { held, limit })) => {
                        session::memory_quota(&self.pump, held, limit);
                    }
                    Some(FromShim::Versioned(Word::Killed { kills, limit })) => {
                        session::memory_kill(&self.pump, kills, limit);
                    }
                    Some(FromShim::Versioned(Word::ForkRefused { limit })) => session::fork_refused(&self.pump, limit),
                    Some(FromShim::Versioned(Word::ExecFailed { errno, what })) => {
                        session.over(None, &self.pump);
                        let reason = exec_failure(errno, &what);
                        let error = self.not_started(&reason);
                        return match reason {
                            Reason::CommandNotFound(exit) => {
                                Ok(Ending { exit, reason: Some(reason), late: false })
                            }
                            _ => Err(error),
                        };
                    }
                    Some(FromShim::Frozen(Frozen::Exited(ended))) => {
                        let exit = session.ended(Some(ended), &self.pump);
                        let memory = matches!(
                            session::reason(Some(ended)),
                            Reason::OutOfMemory(_)
                        );
                        let level = self.shared.settings.level;
                        session.hint_read_only(level, exit, &self.pump).await;
                        let reason = memory.then_some(Reason::OutOfMemory(exit));
                        return Ok(self.ended(Ending { exit, reason, late }));
                    }
                    None => {
                        let exit = session.ended(None, &self.pump);
                        return Ok(self.ended(Ending { exit, reason: None, late }));
                    }
                },
                Some(command) = self.commands.recv() => match command {
                    Command::Kill => self.kill(&mut session),
                    Command::Stop | Command::Leave | Command::Keep => {
                        kill_at.get_or_insert_with(|| self.terminate(&mut session));
                    }
                },
                () = maybe(cancel.as_ref().map(CancellationToken::cancelled)) => {
                    cancel = None;
                    kill_at.get_or_insert_with(|| self.terminate(&mut session));
                }
                () = maybe(limit.map(sleep_until)) => {
                    (limit, late) = (None, true);
                    let limit = self.errand.limit;
                    self.pump.say(format!("Process did not end within {limit:?}"));
                    kill_at.get_or_insert_with(|| self.terminate(&mut session));
                }
                () = maybe(kill_at.map(sleep_until)) => {
                    // Far enough for the kill to be done by then.
                    kill_at = Some(Instant::now() + timing.one_off);
                    self.pump.say(exit_timeout(timing.grace));
                    self.kill(&mut session);
                }
                () = maybe(deaf_at.map(sleep_until)) => session.force(),
            }
        }
    }

    fn terminate(&self, session: &mut Session) -> Instant {
        let grace = self.shared.settings.timing.grace;
        self.pump.say("Stopping all processes with SIGTERM");
        if let Io::Terminal { .. } = self.errand.io {
            // As a terminal that is closed: an interactive shell does not hear SIGTERM.
            session.control.order(Order::Signal { signal: libc::SIGHUP });
        }
        session.terminate(grace);
        Instant::now() + grace
    }

    fn kill(&self, session: &mut Session) {
        self.pump.say("Stopping all processes with SIGKILL");
        session.kill();
    }

    fn ended(&self, ending: Ending) -> Ending {
        let state = if ending.exit.is_success() { "complete" } else { "failed" };
        self.pump.say(format!("State changed from up to {state}"));
        ending
    }

    fn not_started(&self, reason: &Reason) -> Error {
        self.pump.say(format!("Process {reason}"));
        let why = match reason {
            Reason::NotStarted(why) => why.clone(),
            other => other.to_string().into(),
        };
        Error::NotStarted { process: self.plan.name.clone(), reason: why }
    }
}
