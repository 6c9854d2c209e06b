//! From the processes of one release to those of the next, as a state machine without I/O.
//!
//! ```text
//!  Begin            all Ready              Drained
//!  ─────▶ Booting ────────────▶ Draining ───────────▶ Done(Ok), old ones stopping
//!            │ one Failed, or Cancel
//!            ▼            all new Gone
//!         Undoing ──────────────────────▶ Done(Err), old ones untouched
//! ```
//!
//! # Invariants
//!
//! * No old process is stopped before every new one is ready.
//! * After a failure every new process is stopped, and none of the old.
//! * It finishes once, and nothing is asked for after that.

use std::collections::BTreeSet;

/// What happened outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<Id> {
    /// The rollout begins.
    Begin,
    /// A new process is ready.
    Ready(Id),
    /// A new process ended, or was not ready in time.
    Failed(Id),
    /// A new process is gone for good.
    Gone(Id),
    /// Nothing is in flight to the old processes any more.
    Drained,
    /// Somebody wants it undone.
    Cancel,
}

/// What the shell must do now, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action<Id> {
    /// Start a new process; answer with `Ready` or `Failed`, later with `Gone`.
    Start(Id),
    /// From now on requests go to the new processes alone.
    Switch,
    /// Wait until the old ones have answered what they have; answer with `Drained`.
    Drain,
    /// Stop a process, old or new.
    Stop(Id),
    /// The end: `Err` with the process that failed, or with nothing after a cancel.
    Finish(Result<(), Option<Id>>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase<Id> {
    Idle,
    Booting,
    Draining,
    Undoing { culprit: Option<Id> },
    Done,
}

/// One rollout. See the [module](self).
#[derive(Clone, Debug)]
pub struct Rollout<Id> {
    phase: Phase<Id>,
    new: BTreeSet<Id>,
    /// New ones that are not ready yet.
    waiting: BTreeSet<Id>,
    old: BTreeSet<Id>,
}

impl<Id: Copy + Ord> Rollout<Id> {
    /// From `old` to `new`; ids that are in both are left alone.
    pub fn new(old: impl IntoIterator<Item = Id>, new: impl IntoIterator<Item = Id>) -> Self {
        let (old, new): (BTreeSet<_>, BTreeSet<_>) =
            (old.into_iter().collect(), new.into_iter().collect());
        let fresh: BTreeSet<_> = new.difference(&old).copied().collect();
        let left = old.difference(&new).copied().collect();
        Self { phase: Phase::Idle, waiting: fresh.clone(), new: fresh, old: left }
    }

    /// Takes in one event and returns what to do about it, oldest first. Total.
    pub fn handle(&mut self, event: Event<Id>) -> Vec<Action<Id>> {
        match (self.phase, event) {
            (Phase::Idle, Event::Begin) => {
                self.phase = Phase::Booting;
                let mut actions: Vec<_> = self.new.iter().copied().map(Action::Start).collect();
                actions.extend(self.switch_if_ready());
                actions
            }
            (Phase::Booting, Event::Ready(id)) => {
                if self.waiting.remove(&id) {
                    self.switch_if_ready()
                } else {
                    Vec::new()
                }
            }
            (Phase::Booting, Event::Failed(id)) if self.new.contains(&id) => self.undo(Some(id)),
            (Phase::Booting, Event::Gone(id)) if self.new.contains(&id) => {
                let mut actions = self.undo(Some(id));
                actions.extend(self.gone(id));
                actions
            }
            (Phase::Idle, Event::Cancel) => {
                self.new.clear();
                self.undo(None)
            }
            (Phase::Booting, Event::Cancel) => self.undo(None),
            (Phase::Draining, Event::Drained) => self.finish(),
            (Phase::Undoing { .. }, Event::Gone(id)) => self.gone(id),
            _ => Vec::new(),
        }
    }

    fn switch_if_ready(&mut self) -> Vec<Action<Id>> {
        if !self.waiting.is_empty() {
            return Vec::new();
        }
        let mut actions = vec![Action::Switch];
        if self.old.is_empty() {
            actions.extend(self.finish());
        } else {
            self.phase = Phase::Draining;
            actions.push(Action::Drain);
        }
        actions
    }

    fn finish(&mut self) -> Vec<Action<Id>> {
        self.phase = Phase::Done;
        let stops = self.old.iter().copied().map(Action::Stop);
        stops.chain([Action::Finish(Ok(()))]).collect()
    }

    fn undo(&mut self, culprit: Option<Id>) -> Vec<Action<Id>> {
        self.phase = Phase::Undoing { culprit };
        let stops = self.new.iter().copied().map(Action::Stop).collect();
        if self.new.is_empty() { self.end_undo() } else { stops }
    }

    fn gone(&mut self, id: Id) -> Vec<Action<Id>> {
        self.new.remove(&id);
        if self.new.is_empty() { self.end_undo() } else { Vec::new() }
    }

    fn end_undo(&mut self) -> Vec<Action<Id>> {
        let Phase::Undoing { culprit } = self.phase else { return Vec::new() };
        self.phase = Phase::Done;
        vec![Action::Finish(Err(culprit))]
    }
}

#[cfg(test)]
mod tests;
