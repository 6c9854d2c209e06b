//! Schedules and their runs.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tolv_model::cron::CronOutcome;
use utoipa::ToSchema;

/// A schedule of a deploy's current release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Schedule {
    /// Its name.
    pub name: String,
    /// When it runs: the five fields of cron, or `@daily` and its like.
    pub schedule: String,
    /// By whose clock: `UTC`, `Europe/Oslo`.
    pub timezone: String,
    /// What happens at a tick while an earlier run goes on: allow, forbid or replace.
    pub concurrency_policy: String,
    /// The command line.
    pub command: String,
    /// Its next tick; nothing while the deploy is stopped.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next: Option<Timestamp>,
    /// The clock was put back: ticks up to here were fired before, and are not fired again.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub fired_until: Option<Timestamp>,
    /// How many runs of it go on.
    pub going: usize,
    /// The newest that is known of it.
    pub last: Option<CronRun>,
}

/// One run of a schedule, or a tick that was left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CronRun {
    /// Which.
    pub id: String,
    /// Of which schedule.
    pub name: String,
    /// When it was to be fired; nothing where somebody asked for it.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub tick: Option<Timestamp>,
    /// Who asked for it.
    pub actor: Option<String>,
    /// With which release.
    pub release: u32,
    /// The command line.
    pub command: String,
    /// How it turned out: running, succeeded, failed, replaced, skipped or missed.
    #[schema(value_type = String)]
    pub outcome: CronOutcome,
    /// When it was recorded, right before it began.
    #[schema(value_type = String, format = DateTime)]
    pub created: Timestamp,
    /// When it was over.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub ended: Option<Timestamp>,
    /// The status that it ended with; 128 and the number for a signal.
    pub status: Option<i32>,
    /// Why it did not succeed.
    pub error: Option<String>,
}
