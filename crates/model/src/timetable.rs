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
//! A clock that is put back makes times come twice, as the end of summer time does, and the same
//! rule holds: set minutes and hours ran the first time and do not run again; a pattern with `*` in
//! them goes by the time that passes, which is by the clock as it is now. What is put back by at most
//! [`LITTLE`] is no news: no tick of it is fired again.
//!
//! # Invariants
//!
//! * The ticks that come out for one name only ever get later, whatever the clock does, unless a
//!   [`PutBack`] said before that it begins anew.
//! * Nothing comes out that lies in the future.
//! * [`Timetable::next_of`] is what comes out next, for a clock that goes on.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use crate::app_json::CronJob;
use crate::name::ScheduleName;

/// A tick that could not be fired in time is still fired when it is at most this old.
pub const LATE: Duration = Duration::from_secs(3600);
/// A clock that is put back by more than this was wrong before: all schedules begin anew.
pub const WRONG: Duration = Duration::from_secs(86_400);
/// A clock is put right by so much without a word.
pub const LITTLE: Duration = Duration::from_secs(300);
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

/// A clock was put back behind ticks of a schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutBack {
    /// Of which schedule.
    pub name: ScheduleName,
    /// Ticks up to here were dealt with.
    pub from: Timestamp,
    /// What is dealt with next; none if nothing ever is.
    pub next: Option<Timestamp>,
    /// Whether ticks that were dealt with come again.
    pub is_anew: bool,
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
    /// Whether it was said that the clock was put back behind that.
    told: bool,
}

impl Timetable {
    /// Changes the schedules. One that stays as it was keeps its place; for others `since` says
    /// up to when ticks are dealt with.
    pub fn set(&mut self, jobs: Vec<CronJob>, since: impl Fn(&ScheduleName) -> Timestamp) {
        let before = std::mem::take(&mut self.entries);
        let place = |job: &CronJob| {
            let same = |entry: &&Entry| entry.is_of(job);
            let same = before.iter().find(same);
            same.map_or_else(|| (since(&job.name), false), |entry| (entry.since, entry.told))
        };
        self.entries = jobs
            .into_iter()
            .map(|job| {
                let (since, told) = place(&job);
                Entry { job, since, told }
            })
            .collect();
    }

    /// When something is due next; none if nothing ever is.
    pub fn next(&self) -> Option<Timestamp> {
        self.entries.iter().filter_map(|entry| entry.job.next(entry.since)).min()
    }

    /// When a schedule is due next, and up to where its ticks are not fired again because the clock
    /// was put back. One that is not known here begins now.
    pub fn next_of(&self, job: &CronJob, now: Timestamp) -> (Option<Timestamp>, Option<Timestamp>) {
        let Some(entry) = self.entries.iter().find(|entry| entry.is_of(job)) else {
            return (job.next(now), None);
        };
        if entry.is_anew(now) {
            return (job.next(now), None);
        }
        // One that is due this very moment is not to be seen any more.
        (job.next(entry.since.max(now)), entry.is_put_back(now).then_some(entry.since))
    }

    /// What a clock that was put back means, said once for each schedule. Those that begin anew do
    /// so from here on.
    pub fn put_back(&mut self, now: Timestamp) -> Vec<PutBack> {
        self.entries.iter_mut().filter_map(|entry| entry.put_back(now)).collect()
    }

    /// What is due now, the earliest first. It is dealt with from here on.
    pub fn take(&mut self, now: Timestamp) -> Vec<Due> {
        let mut due: Vec<_> = self.entries.iter_mut().filter_map(|entry| entry.take(now)).collect();
        due.sort_by_key(|due| due.tick);
        due
    }
}

impl Entry {
    fn is_of(&self, job: &CronJob) -> bool {
        let own = &self.job;
        own.name == job.name && own.schedule == job.schedule && own.zone == job.zone
    }

    fn is_ahead(&self, now: Timestamp, by: Duration) -> bool {
        let by = SignedDuration::try_from(by).unwrap_or(SignedDuration::MAX);
        self.since.duration_since(now) > by
    }

    fn is_put_back(&self, now: Timestamp) -> bool {
        self.is_ahead(now, LITTLE)
    }

    fn is_anew(&self, now: Timestamp) -> bool {
        self.is_ahead(now, if self.job.schedule.goes_by_time() { LITTLE } else { WRONG })
    }

    fn put_back(&mut self, now: Timestamp) -> Option<PutBack> {
        let is_anew = self.is_anew(now);
        let is_news = self.is_put_back(now) && (is_anew || !self.told);
        // Said again only after the clock has been right again.
        self.told = !is_anew && (is_news || (self.told && self.is_ahead(now, Duration::ZERO)));
        let from = self.since;
        if is_anew {
            self.since = now;
        }
        let next = is_news.then(|| self.job.next(self.since))?;
        Some(PutBack { name: self.job.name.clone(), from, next, is_anew })
    }

    fn take(&mut self, now: Timestamp) -> Option<Due> {
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
