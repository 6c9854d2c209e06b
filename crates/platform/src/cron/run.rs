//! One run of a schedule, from its record to its end.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::sleep;
use tolv_model::cron::CronOutcome;
use tolv_model::operation::State;
use tolv_run::{Exit, OneOff};
use tolv_store::{CronRun, Release};

use super::going::Entered;
use super::{AWAY, run_key};
use crate::controller::Controller;
use crate::error::{Error, Kind, chain};
use crate::logs::Listener;
use crate::platform::Platform;
use crate::runs::LIMIT;

pub(super) struct Run {
    pub(super) platform: Platform,
    pub(super) controller: Arc<Controller>,
    pub(super) run: CronRun,
    pub(super) release: Release,
    pub(super) entered: Arc<Entered>,
    /// Those that it takes the place of.
    pub(super) before: Vec<Arc<Entered>>,
}

impl Run {
    pub(super) async fn run(self) {
        for old in &self.before {
            old.over.cancelled().await;
        }
        let exit = match self.entered.stop.is_cancelled() {
            // A later one took its place before it began.
            true => Err(None),
            false => self.live().await.map_err(Some),
        };
        let status = exit.as_ref().ok().map(|exit| exit.status());
        let (outcome, error) = match exit {
            _ if self.entered.is_replaced() => {
                (CronOutcome::Replaced, Some("replaced by a later run".to_owned()))
            }
            Ok(exit) if exit.is_success() => (CronOutcome::Succeeded, None),
            Ok(_) if self.platform.0.ending.is_cancelled() => {
                (CronOutcome::Failed, Some("stopped with the platform".to_owned()))
            }
            Ok(_) | Err(None) => (CronOutcome::Failed, None),
            Err(Some(error)) => (CronOutcome::Failed, Some(chain(&error))),
        };
        if let Some(error) = &error {
            self.entered.output.say(format!(" !     {error}"));
        }
        self.record(outcome, status, error.as_deref()).await;
        let state = match outcome {
            CronOutcome::Succeeded => State::Succeeded,
            CronOutcome::Replaced => State::Cancelled,
            _ => State::Failed,
        };
        self.platform.0.run_outputs.over(&self.run.id, state);
        self.controller.cron.going.leave(&self.entered);
    }

    async fn live(&self) -> Result<Exit, Error> {
        let deploy = self.platform.0.store.deploy_by_id(&self.run.deploy).await?;
        let (controller, entered) = (&self.controller, &self.entered);
        let (target, _held) = self.platform.one_off_target(&deploy, &self.release).await?;
        let name = entered.process.clone();
        let limits = target.limits.of(&name.process_type);
        let _reservation = self.platform.0.quota.reserve(&deploy.id, &target, limits)?;
        let listener = Listener::begin(controller, &name).await?;
        let one_off =
            OneOff { target, name, command: self.run.command.clone(), limit: Some(LIMIT) };
        let run = controller.engine.run_once_until(one_off, &entered.stop);
        // What it says goes to whoever follows it too.
        Ok(listener.until(run, |line| entered.output.pass_on(&line.text)).await?)
    }

    /// Records how it turned out; a database that is away is waited for while the platform runs.
    async fn record(&self, outcome: CronOutcome, status: Option<i32>, error: Option<&str>) {
        let inner = &self.platform.0;
        let (key, text) = (run_key(&self.run.id), self.entered.output.text());
        // Without it the run is recorded all the same.
        self.platform.keep_output(&self.run.deploy, &key, text).await.ok();
        loop {
            let ended = Timestamp::now();
            let recorded =
                inner.store.end_cron_run(&self.run.id, outcome, status, error, ended).await;
            match recorded.map_err(Error::from) {
                Err(error) if error.kind() == Kind::Unavailable => {}
                // The next platform finds it unfinished, and says so.
                _ => return,
            }
            if inner.ending.run_until_cancelled(sleep(AWAY)).await.is_none() {
                return;
            }
        }
    }
}
