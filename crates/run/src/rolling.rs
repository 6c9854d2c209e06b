//! One rollout: carries out what [`Rollout`] decides.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tolv_model::name::ProcessName;
use tolv_model::operation::Selection;
use tolv_model::rollout::{Action, Event, Rollout};

use crate::board::{Command, Current, Kind};
use crate::maybe::maybe;
use crate::outdated;
use crate::plan::Plan;
use crate::process::{Process, Report};
use crate::shared::Shared;
use crate::target::{Culprit, Error, Outcome, Reason, Target};

/// The longest port, for a look at the environment before there is one.
const SOME_PORT: u16 = 29_999;

/// What each process of the target's formation runs.
///
/// # Errors
///
/// [`Error::UnknownType`], [`Error::Env`].
pub(crate) fn plans(shared: &Shared, target: &Arc<Target>) -> Result<Vec<Plan>, Error> {
    let plan = |name: ProcessName| {
        let command = target.release.process_types.get(&name.process_type);
        let command = command.ok_or_else(|| Error::UnknownType(name.process_type.clone()))?.clone();
        let plan = Plan { target: Arc::clone(target), name, command };
        plan.env(&shared.settings, SOME_PORT)
            .map_err(|source| Error::Env { process: plan.name.clone(), source })?;
        Ok(plan)
    };
    target.release.formation.processes().map(plan).collect()
}

/// How a rollout deals with what is there and with what fails.
#[derive(Clone, Debug)]
pub(crate) enum Manner {
    /// One that fails undoes all.
    AllOrNothing,
    /// One that fails is tried again and again, and what is outdated stays.
    AsFarAsItGoes,
    /// These are replaced though they are what is wanted; one that fails undoes all.
    Renew(Selection),
}

impl Manner {
    fn keeps(&self, name: &ProcessName, outdated: bool) -> bool {
        match self {
            Self::AllOrNothing | Self::Renew(_) if outdated => false,
            Self::AllOrNothing | Self::AsFarAsItGoes => true,
            Self::Renew(Selection::All) => false,
            Self::Renew(Selection::Type(kind)) => name.process_type != *kind,
            Self::Renew(Selection::One(one)) => name != one,
        }
    }
}

struct Rolling {
    shared: Arc<Shared>,
    target: Arc<Target>,
    /// Whether one that fails undoes all.
    strict: bool,
    fresh: BTreeMap<u64, Plan>,
    /// Everything that runs once it is done.
    wanted: BTreeSet<u64>,
    reports: mpsc::UnboundedSender<Report>,
    culprits: BTreeMap<u64, Box<Culprit>>,
    draining: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    outcome: Outcome,
    /// Whether no web process runs before the switch: then each new one gets requests as soon as
    /// it is ready, for nobody else answers them.
    first: bool,
}

/// Replaces what runs by `plans`. After `cancel`, what was not switched to yet is undone.
pub(crate) async fn roll(
    shared: Arc<Shared>,
    target: Arc<Target>,
    plans: Vec<Plan>,
    manner: Manner,
    cancel: CancellationToken,
) -> Result<Outcome, Error> {
    if let Manner::AsFarAsItGoes = manner {
        outdated::take_over(&shared, &plans);
    }
    let current = shared.board.current();
    let mut outcome = Outcome::default();
    let (mut fresh, mut wanted) = (BTreeMap::new(), BTreeSet::new());
    for plan in plans {
        let name = plan.name.clone();
        let same = current
            .iter()
            .filter(|running| running.plan.is_same(&plan) && manner.keeps(&name, running.outdated));
        match same.min_by_key(|running| running.outdated) {
            Some(running) => {
                wanted.insert(running.id);
                outcome.kept.push(name);
            }
            None => {
                let id = shared.board.next_id();
                wanted.insert(id);
                fresh.insert(id, plan);
                outcome.started.push(name);
            }
        }
    }
    let left = current.iter().filter(|running| !wanted.contains(&running.id));
    outcome.stopping = left.map(|running| running.plan.name.clone()).collect();
    let rollout = Rollout::new(current.iter().map(|running| running.id), wanted.iter().copied());
    let (reports, received) = mpsc::unbounded_channel();
    let (culprits, draining) = (BTreeMap::new(), None);
    let is_web = |running: &Current| running.plan.name.process_type.is_web();
    let first = !current.iter().any(is_web);
    let strict = !matches!(manner, Manner::AsFarAsItGoes);
    let rolling = Rolling {
        shared,
        target,
        strict,
        fresh,
        wanted,
        reports,
        culprits,
        draining,
        outcome,
        first,
    };
    let listed = rolling.shared.listed.clone().drop_guard();
    let rolled = rolling.run(rollout, received, cancel).await;
    drop(listed);
    rolled
}

impl Rolling {
    async fn run(
        mut self,
        mut rollout: Rollout<u64>,
        mut received: mpsc::UnboundedReceiver<Report>,
        cancel: CancellationToken,
    ) -> Result<Outcome, Error> {
        let mut actions = VecDeque::from(rollout.handle(Event::Begin));
        let (mut cancel, ending) = (Some(cancel), self.shared.ending.clone());
        loop {
            while let Some(action) = actions.pop_front() {
                match action {
                    Action::Start(id) => {
                        if !self.start(id) {
                            actions.extend(rollout.handle(Event::Gone(id)));
                        }
                    }
                    Action::Switch => self.switch(),
                    Action::Drain => {}
                    Action::Stop(id) => self.shared.board.tell(id, Command::Stop),
                    Action::Finish(Ok(())) => return Ok(self.outcome),
                    Action::Finish(Err(culprit)) => return Err(self.failure(culprit)),
                }
            }
            self.shared.listed.cancel();
            let event = tokio::select! {
                Some(report) = received.recv() => match report {
                    Report::Ready(id) => Event::Ready(id),
                    // It is started again once it is switched to.
                    Report::Failed(id, _) if !self.strict => Event::Ready(id),
                    Report::Failed(id, culprit) => {
                        self.culprits.insert(id, culprit);
                        Event::Failed(id)
                    }
                    Report::Gone(id) => Event::Gone(id),
                },
                () = maybe(cancel.as_ref().map(CancellationToken::cancelled)) => {
                    cancel = None;
                    Event::Cancel
                }
                () = maybe(self.draining.as_mut()) => {
                    self.draining = None;
                    Event::Drained
                }
                // Everything stops anyhow.
                () = ending.cancelled(), if self.draining.is_some() => {
                    self.draining = None;
                    Event::Drained
                }
            };
            actions.extend(rollout.handle(event));
        }
    }

    /// Starts a new process; false where the engine ends.
    fn start(&self, id: u64) -> bool {
        let Some(plan) = self.fresh.get(&id).cloned() else { return false };
        let shared = &self.shared;
        let Some(commands) = shared.board.add(id, &plan, Kind::Formation) else { return false };
        shared.board.update(id, |process| process.routed = self.first);
        let Some(pump) = shared.pump(&plan, false).map(Arc::new) else { return false };
        let (shared, reports) = (Arc::clone(shared), self.reports.clone());
        let process = Process { shared, id, plan, commands, reports, pump };
        self.shared.tasks.spawn(process.run());
        true
    }

    /// Requests go to the new ones from here on; the old ones finish what they have.
    fn switch(&mut self) {
        let old = self.shared.board.switch(&self.wanted);
        for &id in self.fresh.keys() {
            self.shared.board.tell(id, Command::Keep);
        }
        let (drain, limit) =
            (self.shared.settings.drain.clone(), self.shared.settings.timing.drain);
        self.draining = Some(Box::pin(async move {
            if let (Some(drain), false) = (drain, old.is_empty()) {
                timeout(limit, drain(old)).await.ok();
            }
        }));
    }

    fn failure(&mut self, culprit: Option<u64>) -> Error {
        let Some(id) = culprit.filter(|_| !self.shared.board.is_ending()) else {
            return Error::Stopped;
        };
        let culprit = self.culprits.remove(&id).or_else(|| {
            let process = self.fresh.get(&id)?.name.clone();
            let (reason, last_lines) = (Reason::Stopped, Vec::new());
            Some(Box::new(Culprit { process, reason, last_lines }))
        });
        let release = self.target.release.number;
        let others = self.fresh.iter().filter(|(other, _)| **other != id);
        let mut undone: Vec<_> = others.map(|(_, plan)| plan.name.clone()).collect();
        undone.sort();
        culprit.map_or(Error::Stopped, |culprit| Error::Rollout { release, culprit, undone })
    }
}

#[cfg(test)]
mod tests;
