//! The life of one supervised process, as a state machine without I/O.
//!
//! A [`Unit`] decides; it never acts. Its shell owns the child, the log and the clock, tells the
//! unit what happened through [`Unit::handle`], and carries out the [`Action`]s it gets back.
//! Tests drive the same type with a made-up clock, so every path below runs without a process.
//!
//! ```text
//!            Start               Spawned             Ready             Stop
//!  Stopped ─────────▶ Starting ──────────▶ Booting ──────────▶ Up ──────────▶ Stopping
//!     ▲                ▲    │              │  │ Woken          │               │ │
//!     │          Woken │    │ SpawnFailed  │  ▼ (R10, kill)    │         Woken │ │ Exited
//!     │                │    ▼       Exited │ Failing           │  (R12, kill) ◀┘ │
//!     ├──── Stop ───── BackingOff ◀────────┴──┴────────────────┘                 │
//!     └──────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Where a success is an end of its own, `Completed` leads from `Booting` and `Up` to `Complete`,
//! which only a stop leaves.
//!
//! # Invariants
//!
//! * At most one child exists: [`Action::Spawn`] is only ever returned from `Stopped` or
//!   `BackingOff`.
//! * After [`Event::Stop`] the unit reaches `Stopped` whatever the child does: it signals once,
//!   and kills once the grace period is over.
//! * Nothing here reads a clock or a random source; `now` and the jitter are arguments.
//!
//! # Sources
//!
//! * The first restart at once, then doubling from 1 s to 5 min, forgotten after 5 min of
//!   health; R10 after 60 s, R12 after 30 s: Heroku's dyno manager, with Kubernetes' curve.
//! * `SIGTERM` first, so that the app can finish (<https://12factor.net/disposability>).

use std::time::Duration;

/// Time since the supervisor started, in milliseconds.
///
/// A newtype and not `std::time::Instant`, so that a test can name a moment and a trace can be
/// written down and replayed. It never goes backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    fn after(self, delay: Duration) -> Self {
        let delay = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(delay))
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

/// How a unit boots, restarts and stops.
///
/// Built only by [`Policy::new`], so a `Policy` in hand is a valid one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    min: Duration,
    max: Duration,
    settled: Duration,
    boot: Duration,
    grace: Duration,
}

/// A [`Policy`] that cannot be honored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A zero delay would spin on a process that dies at once.
    #[error("the restart delay must be longer than zero")]
    NoDelay,
    /// `min` and `max` are the wrong way round.
    #[error("the longest restart delay ({max:?}) is shorter than the first ({min:?})")]
    Crossed {
        /// First delay asked for.
        min: Duration,
        /// Longest delay asked for.
        max: Duration,
    },
}

impl Policy {
    /// Checks and builds a policy.
    ///
    /// | argument  | meaning                                                        |
    /// |-----------|----------------------------------------------------------------|
    /// | `min`     | delay before the second restart in a row; the first is at once |
    /// | `max`     | delay the doubling stops at; at least `min`                    |
    /// | `settled` | being up this long forgets earlier failures                    |
    /// | `boot`    | time to become ready                                           |
    /// | `grace`   | time between `SIGTERM` and `SIGKILL`; zero kills now           |
    ///
    /// # Errors
    ///
    /// [`PolicyError::NoDelay`] if `min` is zero, [`PolicyError::Crossed`] if `max < min`.
    pub fn new(
        min: Duration,
        max: Duration,
        settled: Duration,
        boot: Duration,
        grace: Duration,
    ) -> Result<Self, PolicyError> {
        if min.is_zero() {
            return Err(PolicyError::NoDelay);
        }
        if max < min {
            return Err(PolicyError::Crossed { min, max });
        }
        Ok(Self { min, max, settled, boot, grace })
    }

    /// Delay before restart number `failures` (1 is the first).
    fn delay(&self, failures: u32, jitter: Jitter) -> Duration {
        let Some(doublings) = failures.checked_sub(2) else { return Duration::ZERO };
        let delay = self.min.saturating_mul(1 << doublings.min(31)).min(self.max);
        delay - delay / 5 * u32::from(jitter.0.min(1000)) / 1000
    }
}

/// A random number from 0 to 1000, drawn by the shell: takes up to a fifth off a delay, so that
/// what crashed together does not restart together for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Jitter(pub u16);

/// What happened outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Somebody wants the unit up. Ignored unless it is down.
    Start,
    /// Somebody wants the unit down. Wins over a pending restart.
    Stop,
    /// Somebody wants it down at once.
    Kill,
    /// The child exists.
    Spawned,
    /// The child could not be created; the shell has said why.
    SpawnFailed,
    /// The child answers its health check, or needs none.
    Ready,
    /// The child fails a health check that has a consequence.
    Unhealthy,
    /// The child and all below it are gone and its pipes are drained.
    Exited,
    /// As [`Event::Exited`], of a child that has done all that it is for: it is not restarted, unless it
    /// was on its way to its end for another reason.
    Completed,
    /// The moment given in the last [`Action::WakeAt`] has come.
    Woken,
}

/// Why a child is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// It was not ready in time (R10).
    Boot,
    /// It failed a health check.
    Check,
    /// It did not end in time after `SIGTERM` (R12).
    Grace,
    /// Somebody asked.
    Asked,
}

/// What the shell must do now, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Create the child; answer with `Spawned` or `SpawnFailed`.
    Spawn,
    /// Send `SIGTERM` to the leader.
    Terminate,
    /// Send `SIGKILL` to everything.
    Kill(Cause),
    /// Send [`Event::Woken`] at this moment. Replaces an earlier wake-up.
    WakeAt(Millis),
}

/// The phase of a unit, as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Down, for good.
    Stopped,
    /// Being created, or not ready yet.
    Starting,
    /// Ready.
    Up,
    /// Failed; a restart is due.
    Crashed,
    /// It has done all that it is for.
    Complete,
    /// On its way down.
    Stopping,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Stopped,
    Starting { asked: Asked },
    Booting { deadline: Millis },
    Up { since: Millis },
    Failing,
    BackingOff { until: Millis },
    Complete,
    Stopping { kill_at: Millis, killed: bool },
}

/// What was asked while the child was being created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Nothing,
    Stop,
    Kill,
}

/// One supervised process. See the [module](self) for its states.
#[derive(Clone, Debug)]
pub struct Unit {
    policy: Policy,
    state: State,
    /// Failures in a row, saturating; 0 once settled.
    failures: u32,
}

impl Unit {
    /// A unit that is down and owes nothing.
    pub fn new(policy: Policy) -> Self {
        Self { policy, state: State::Stopped, failures: 0 }
    }

    /// What others see.
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Stopped => Phase::Stopped,
            State::Starting { asked: Asked::Nothing } | State::Booting { .. } => Phase::Starting,
            State::Up { .. } => Phase::Up,
            State::Failing | State::BackingOff { .. } => Phase::Crashed,
            State::Complete => Phase::Complete,
            State::Starting { .. } | State::Stopping { .. } => Phase::Stopping,
        }
    }

    /// Whether the unit is down for good, that is until the next `Start`.
    pub fn is_stopped(&self) -> bool {
        self.state == State::Stopped
    }

    /// Takes in one event and returns what to do about it, oldest first.
    ///
    /// Total: an event that makes no sense in the current state (a late `Woken`, a second
    /// `Stop`) changes nothing and returns no action.
    pub fn handle(&mut self, event: Event, now: Millis, jitter: Jitter) -> Vec<Action> {
        use State::{BackingOff, Booting, Complete, Failing, Starting, Stopped, Stopping, Up};
        match (self.state, event) {
            (Stopped, Event::Start) => self.spawn(),
            (Starting { asked: Asked::Nothing }, Event::Stop) => {
                // The child may already exist; wait for the shell's answer.
                self.state = Starting { asked: Asked::Stop };
                Vec::new()
            }
            (Starting { .. }, Event::Kill) => {
                self.state = Starting { asked: Asked::Kill };
                Vec::new()
            }
            (Starting { asked: Asked::Nothing }, Event::Spawned) => {
                let deadline = now.after(self.policy.boot);
                self.state = Booting { deadline };
                vec![Action::WakeAt(deadline)]
            }
            (Starting { asked: Asked::Stop }, Event::Spawned)
            | (Booting { .. } | Up { .. }, Event::Stop) => {
                let kill_at = now.after(self.policy.grace);
                self.state = Stopping { kill_at, killed: false };
                vec![Action::Terminate, Action::WakeAt(kill_at)]
            }
            (Starting { asked: Asked::Kill }, Event::Spawned)
            | (Booting { .. } | Up { .. } | Stopping { killed: false, .. }, Event::Kill) => {
                self.state = Stopping { kill_at: now, killed: true };
                vec![Action::Kill(Cause::Asked)]
            }
            (Failing, Event::Stop | Event::Kill) => {
                self.state = Stopping { kill_at: now, killed: true };
                Vec::new()
            }
            (Booting { .. }, Event::Ready) => {
                self.state = Up { since: now };
                Vec::new()
            }
            (Booting { deadline }, Event::Woken) if deadline <= now => {
                self.state = Failing;
                vec![Action::Kill(Cause::Boot)]
            }
            (Booting { .. }, Event::Unhealthy) => {
                self.state = Failing;
                vec![Action::Kill(Cause::Check)]
            }
            (Up { since }, Event::Unhealthy) => {
                self.forget_if_settled(since, now);
                self.state = Failing;
                vec![Action::Kill(Cause::Check)]
            }
            (Booting { .. } | Up { .. }, Event::Completed) => {
                self.state = Complete;
                Vec::new()
            }
            (_, Event::Completed) => self.handle(Event::Exited, now, jitter),
            (Up { since }, Event::Exited) => {
                self.forget_if_settled(since, now);
                self.back_off(now, jitter)
            }
            (Starting { asked: Asked::Nothing }, Event::SpawnFailed)
            | (Booting { .. } | Failing, Event::Exited) => self.back_off(now, jitter),
            (BackingOff { until }, Event::Woken) if until <= now => self.spawn(),
            (Stopping { kill_at, killed: false }, Event::Woken) if kill_at <= now => {
                self.state = Stopping { kill_at, killed: true };
                vec![Action::Kill(Cause::Grace)]
            }
            (Starting { .. }, Event::SpawnFailed)
            | (BackingOff { .. } | Complete, Event::Stop | Event::Kill)
            | (Stopping { .. }, Event::Exited) => {
                self.state = Stopped;
                self.failures = 0;
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    fn spawn(&mut self) -> Vec<Action> {
        self.state = State::Starting { asked: Asked::Nothing };
        vec![Action::Spawn]
    }

    fn forget_if_settled(&mut self, since: Millis, now: Millis) {
        if self.policy.settled <= now.since(since) {
            self.failures = 0;
        }
    }

    fn back_off(&mut self, now: Millis, jitter: Jitter) -> Vec<Action> {
        self.failures = self.failures.saturating_add(1);
        let until = now.after(self.policy.delay(self.failures, jitter));
        self.state = State::BackingOff { until };
        vec![Action::WakeAt(until)]
    }
}

#[cfg(test)]
mod tests;
