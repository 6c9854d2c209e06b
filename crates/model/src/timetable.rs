//! Which schedules are due: a decision over time, without a clock.
//!
//! ```text
//!              since                     now
//!  ──┬─────┬─────┬──────┬──────┬──────┬───┬──▶
//!    tick  tick  tick   tick   tick   tick
//!                       └ passed over ┘└ due
//! ```
//!
//! A schedule's ticks are looked at from the last one that was dealt with. Where several have gone
//! by, as after a time in which the platform was down, the last of them is due, once, and only
//! while it is not older than [`LATE`]; the others are passed over.
//!
//! # Invariants
//!
//! * The ticks that come out for one name only ever get later, whatever the clock does, unless it
//!   is put back by more than [`PUT_BACK`].
//! * Nothing comes out that lies in the future.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::app_json::CronJob;
use crate::name::ScheduleName;

/// A tick that could not be fired in time is still fired when it is at most this old.
pub const LATE: Duration = Duration::from_secs(3600);
/// A clock that is put back by more than this was wrong before: schedules begin anew.
pub const PUT_BACK: Duration = Duration::from_secs(86_400);
/// Ticks that are looked at for one name at once: more than there are minutes in [`LATE`].
const LOOKED_AT: usize = 100;

/// A tick to be dealt with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// Of which schedule.
    pub name: ScheduleName,
    /// When it was to be fired.
    pub tick: Timestamp,
    /// Whether it is too late for it: it is noted, and not fired.
    pub is_missed: bool,
    /// Whether there were others between the last that was dealt with and this one.
    pub passed_over: bool,
}

/// The schedules of a deploy and how far each has come.
#[derive(Clone, Debug, Default)]
pub struct Timetable {
    entries: Vec<Entry>,
}

#[derive(Clone, Debug)]
struct Entry {
    job: CronJob,
    /// Ticks up to here are dealt with.
    since: Timestamp,
}

impl Timetable {
    /// Changes the schedules. One that stays as it was keeps its place; for others `since` says
    /// up to when ticks are dealt with.
    pub fn set(&mut self, jobs: Vec<CronJob>, since: impl Fn(&ScheduleName) -> Timestamp) {
        let before = std::mem::take(&mut self.entries);
        let place = |job: &CronJob| {
            let same = |entry: &&Entry| {
                let old = &entry.job;
                old.name == job.name && old.schedule == job.schedule && old.zone == job.zone
            };
            before.iter().find(same).map_or_else(|| since(&job.name), |entry| entry.since)
        };
        self.entries = jobs
            .into_iter()
            .map(|job| {
                let since = place(&job);
                Entry { job, since }
            })
            .collect();
    }

    /// When something is due next; none if nothing ever is.
    pub fn next(&self) -> Option<Timestamp> {
        self.entries.iter().filter_map(|entry| entry.job.next(entry.since)).min()
    }

    /// What is due now, the earliest first. It is dealt with from here on.
    pub fn take(&mut self, now: Timestamp) -> Vec<Due> {
        let mut due: Vec<_> = self.entries.iter_mut().filter_map(|entry| entry.take(now)).collect();
        due.sort_by_key(|due| due.tick);
        due
    }
}

impl Entry {
    fn take(&mut self, now: Timestamp) -> Option<Due> {
        let ahead = self.since.duration_since(now);
        if ahead > SignedDuration::try_from(PUT_BACK).unwrap_or(SignedDuration::MAX) {
            self.since = now;
        }
        let first = self.job.next(self.since).filter(|tick| *tick <= now)?;
        let late = SignedDuration::try_from(LATE).unwrap_or(SignedDuration::MAX);
        let edge = now.checked_sub(late).unwrap_or(Timestamp::MIN);
        // A tick right at the edge is not too late.
        let before = edge.checked_sub(SignedDuration::from_nanos(1)).unwrap_or(Timestamp::MIN);
        let mut last = None;
        let mut from = self.since.max(before);
        for _ in 0..LOOKED_AT {
            let Some(tick) = self.job.next(from).filter(|tick| *tick <= now && *tick > from) else {
                break;
            };
            (last, from) = (Some(tick), tick);
        }
        self.since = last.unwrap_or(now);
        let tick = last.unwrap_or(first);
        Some(Due {
            name: self.job.name.clone(),
            tick,
            is_missed: last.is_none(),
            passed_over: tick != first,
        })
    }
}

#[cfg(test)]
mod tests;
