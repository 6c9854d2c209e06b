//! Whether a process gets requests, by whether it answers: a decision over time, without a clock.
//!
//! ```text
//!        MANY time-outs in a row              the pause is over: one request
//!   in ─────────────────────────▶ passed over ─────────────────────────▶ on trial
//!   ▲                                  ▲  pause: twice as long               │
//!   │                                  └───────────── time-out ─────────────┤
//!   └────────────────────────────────────────────────── answer ─────────────┘
//! ```
//!
//! A process that hangs takes connections, and each of its clients waits for half a minute. One slow
//! page is no such thing: any answer in between begins the count anew. Who chooses among processes
//! that are all passed over takes one of them all the same.

use std::time::{Duration, Instant};

/// Time-outs in a row, without an answer in between, after which a process hangs.
const MANY: u32 = 3;
/// How often the first pause the longest is.
const LONGEST: u32 = 10;

/// What is known of one process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// Time-outs since its last answer.
    time_outs: u32,
    out: Option<Out>,
}

/// It is passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Out {
    until: Instant,
    /// How long that is in all.
    pause: Duration,
    /// A request was sent to it since, and is not answered yet.
    on_trial: bool,
}

impl Health {
    /// Whether it gets no request now.
    pub(crate) fn is_passed_over(&self, now: Instant) -> bool {
        self.out.is_some_and(|out| now < out.until)
    }

    /// It gets a request. Where that is its trial, it gets no other for as long as it was passed
    /// over.
    pub(crate) fn chosen(&mut self, now: Instant) {
        if let Some(out) = &mut self.out
            && now >= out.until
        {
            (out.until, out.on_trial) = (now + out.pause, true);
        }
    }

    /// Whether it does not answer, also while a request is its trial.
    pub(crate) fn hangs(&self) -> bool {
        self.out.is_some()
    }

    /// A request was not answered in time; whether it hangs, as nobody knew before. `first` is how long
    /// it is passed over then, before one request is its trial.
    pub(crate) fn timed_out(&mut self, now: Instant, first: Duration) -> bool {
        self.time_outs = self.time_outs.saturating_add(1);
        match &mut self.out {
            None if self.time_outs < MANY => false,
            None => {
                self.out = Some(Out { until: now + first, pause: first, on_trial: false });
                true
            }
            Some(out) if out.on_trial => {
                let pause = (out.pause * 2).min(first * LONGEST);
                *out = Out { until: now + pause, pause, on_trial: false };
                false
            }
            // It was sent before the process was known to hang.
            Some(_) => false,
        }
    }

    /// It answers; whether it was known to hang.
    pub(crate) fn answered(&mut self) -> bool {
        std::mem::take(self).hangs()
    }
}

#[cfg(test)]
mod tests;
