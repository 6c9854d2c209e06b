//! One process outside the formation, from its start to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::board::Command;
use crate::child::exec_failure;
use crate::plan::Plan;
use crate::process::maybe;
use crate::protocol::Word;
use crate::pump::Pump;
use crate::session::{Launching, Session, exit_timeout};
use crate::shared::Shared;
use crate::target::{Error, Exit, Reason};

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
}

impl Run {
    /// Its whole life.
    pub(crate) async fn run(mut self) -> Result<Exit, Error> {
        let exit = self.live().await;
        // What comes next is shown after its last lines, unless the reader is slow.
        timeout(LAST_LINES, self.pump.caught_up()).await.ok();
        exit
    }

    async fn live(&mut self) -> Result<Exit, Error> {
        let Self { shared, plan, pump, .. } = &self;
        pump.say(format!("Starting process with command `{}`", plan.command));
        let mut launching = Launching::begin(shared, plan)?;
        let started = launching.done().await;
        let opened = started.and_then(|started| launching.open(started, pump));
        let session = opened.map_err(|reason| self.not_started(&Reason::NotStarted(reason)))?;
        self.attend(session).await
    }

    async fn attend(&mut self, mut session: Session) -> Result<Exit, Error> {
        let timing = self.shared.settings.timing;
        let (mut cancel, mut over) = (Some(self.cancel.clone()), false);
        let mut limit = Some(Instant::now() + timing.one_off);
        let mut kill_at = None;
        loop {
            let deaf_at = session.deaf_at;
            tokio::select! {
                biased;
                word = session.control.word() => match word {
                    Some(Word::Started { .. }) => {
                        self.pump.say("State changed from starting to up");
                    }
                    Some(Word::Bell(written)) => self.pump.bell(session.writer, written),
                    Some(Word::ExecFailed { errno, what }) => {
                        self.pump.ended(session.writer, None);
                        let reason = exec_failure(errno, &what);
                        let error = self.not_started(&reason);
                        return match reason {
                            Reason::CommandNotFound(exit) => Ok(exit),
                            _ => Err(error),
                        };
                    }
                    Some(Word::Exited(ended)) => {
                        let exit = session.ended(Some(ended), &self.pump);
                        return self.ended(exit, over);
                    }
                    None => {
                        let exit = session.ended(None, &self.pump);
                        return self.ended(exit, over);
                    }
                },
                Some(command) = self.commands.recv() => match command {
                    Command::Kill => self.kill(&mut session),
                    Command::Stop | Command::Keep => {
                        kill_at.get_or_insert_with(|| self.terminate(&mut session));
                    }
                },
                () = maybe(cancel.as_ref().map(CancellationToken::cancelled)) => {
                    cancel = None;
                    kill_at.get_or_insert_with(|| self.terminate(&mut session));
                }
                () = maybe(limit.map(sleep_until)) => {
                    (limit, over) = (None, true);
                    self.pump.say(format!("Process did not end within {:?}", timing.one_off));
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
        session.terminate(grace);
        Instant::now() + grace
    }

    fn kill(&self, session: &mut Session) {
        self.pump.say("Stopping all processes with SIGKILL");
        session.kill();
    }

    fn ended(&self, exit: Exit, over: bool) -> Result<Exit, Error> {
        let state = if exit.is_success() { "complete" } else { "failed" };
        self.pump.say(format!("State changed from up to {state}"));
        if over {
            let limit = self.shared.settings.timing.one_off;
            return Err(Error::TooLong { process: self.plan.name.clone(), limit });
        }
        Ok(exit)
    }

    fn not_started(&self, reason: &Reason) -> Error {
        self.pump.say(format!("Process {reason}"));
        let why = match reason {
            Reason::NotStarted(why) => why.clone(),
            other => other.to_string(),
        };
        Error::NotStarted { process: self.plan.name.clone(), reason: why }
    }
}
