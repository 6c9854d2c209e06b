//! Runs of schedules: recorded before they start, kept for a while.

use jiff::Timestamp;
use sqlx::any::AnyRow;
use tolv_model::cron::CronOutcome;
use tolv_model::id::{CronRunId, DeployId, IdError};
use tolv_model::name::ScheduleName;
use tolv_model::release::ReleaseNumber;

use crate::columns::{Columns, micros};
use crate::db::Store;
use crate::error::Error;
use crate::listed::{List, Listed, Value};

/// Runs of each schedule that are kept.
const KEPT: i64 = 200;
/// Behind every id, in every collation of the alphabet that ids have.
const LAST: &str = "cron_zzzzzzzzzzzzzzzzzzzz";

/// One run of a schedule, or a tick that was left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronRun {
    /// Which.
    pub id: CronRunId,
    /// Of which deploy.
    pub deploy: DeployId,
    /// Of which of its schedules.
    pub name: ScheduleName,
    /// When it was to be fired; nothing where somebody asked for it.
    pub tick: Option<Timestamp>,
    /// Who asked for it.
    pub actor: Option<String>,
    /// With which release.
    pub release: ReleaseNumber,
    /// The command line.
    pub command: String,
    /// How it turned out.
    pub outcome: CronOutcome,
    /// When it was recorded, which is before it starts.
    pub created: Timestamp,
    /// When it was over.
    pub ended: Option<Timestamp>,
    /// The status that it ended with, 128 and the number for a signal.
    pub status: Option<i32>,
    /// Why it did not succeed.
    pub error: Option<String>,
}

/// A run that is to be recorded.
#[derive(Clone, Debug)]
pub struct NewCronRun<'a> {
    /// Of which deploy.
    pub deploy: &'a DeployId,
    /// Of which schedule.
    pub name: &'a ScheduleName,
    /// When it was to be fired; nothing where somebody asks for it.
    pub tick: Option<Timestamp>,
    /// Who asks for it.
    pub actor: Option<&'a str>,
    /// With which release.
    pub release: ReleaseNumber,
    /// The command line.
    pub command: &'a str,
    /// Running, or why it is not.
    pub outcome: CronOutcome,
    /// When.
    pub now: Timestamp,
}

/// A run that was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// It.
    pub run: CronRun,
    /// Old ones that are forgotten for it.
    pub forgotten: Vec<CronRunId>,
}

fn run(row: &AnyRow) -> Result<CronRun, Error> {
    let row = Columns(row);
    let status = row.maybe_number("status")?;
    Ok(CronRun {
        id: row.parsed("id")?,
        deploy: row.parsed("deploy")?,
        name: row.parsed("name")?,
        tick: row.maybe_time("tick")?,
        actor: row.maybe_text("actor")?,
        release: ReleaseNumber(row.u32("release")?),
        command: row.text("command")?,
        outcome: row.parsed("outcome")?,
        created: row.time("created")?,
        ended: row.maybe_time("ended")?,
        status: status.and_then(|status| i32::try_from(status).ok()),
        error: row.maybe_text("error")?,
    })
}

impl Store {
    /// Records a run before it starts; nothing where its tick was recorded before: that is done
    /// once, whoever asks.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn record_cron_run(&self, new: &NewCronRun<'_>) -> Result<Option<Recorded>, Error> {
        let mut write = self.write().await?;
        // Ids decide the order, and clocks stand still for a millisecond or go back.
        let newest =
            sqlx::query("SELECT MAX(id) AS last FROM cron_runs WHERE deploy = $1 AND name = $2")
                .bind(new.deploy.as_str().to_owned())
                .bind(new.name.as_str().to_owned())
                .fetch_one(&mut *write.tx)
                .await?;
        let step = jiff::SignedDuration::from_millis(1);
        let place = match Columns(&newest).maybe_text("last")? {
            Some(last) => {
                let last = last.parse().map_err(|error: IdError| error.to_string());
                let last: CronRunId = last.map_err(Error::corrupt("a run's id"))?;
                new.now.max(last.moment().checked_add(step).unwrap_or(new.now))
            }
            None => new.now,
        };
        let id = CronRunId::new(place, self.random()?);
        let ended = new.outcome.is_over().then(|| micros(new.now));
        let made = sqlx::query(
            "INSERT INTO cron_runs \
             (id, deploy, name, tick, actor, release, command, outcome, created, ended) \
             VALUES ($1, $2, $3, CAST($4 AS BIGINT), $5, $6, $7, $8, $9, CAST($10 AS BIGINT)) \
             ON CONFLICT (deploy, name, tick) DO NOTHING",
        )
        .bind(id.as_str().to_owned())
        .bind(new.deploy.as_str().to_owned())
        .bind(new.name.as_str().to_owned())
        .bind(new.tick.map(micros))
        .bind(new.actor.map(str::to_owned))
        .bind(i64::from(new.release.0))
        .bind(new.command.to_owned())
        .bind(new.outcome.as_str())
        .bind(micros(new.now))
        .bind(ended)
        .execute(&mut *write.tx)
        .await?;
        if made.rows_affected() == 0 {
            return Ok(None);
        }
        let old = sqlx::query(
            "SELECT id FROM cron_runs WHERE deploy = $1 AND name = $2 AND outcome <> 'running' \
             AND id < (SELECT MIN(id) FROM (SELECT id FROM cron_runs WHERE deploy = $1 \
             AND name = $2 ORDER BY id DESC LIMIT $3) AS kept)",
        )
        .bind(new.deploy.as_str().to_owned())
        .bind(new.name.as_str().to_owned())
        .bind(KEPT)
        .fetch_all(&mut *write.tx)
        .await?;
        let mut forgotten = Vec::new();
        for row in &old {
            let id: CronRunId = Columns(row).parsed("id")?;
            sqlx::query("DELETE FROM cron_runs WHERE id = $1")
                .bind(id.as_str().to_owned())
                .execute(&mut *write.tx)
                .await?;
            forgotten.push(id);
        }
        write.commit().await?;
        Ok(Some(Recorded { run: self.cron_run(&id).await?, forgotten }))
    }

    /// Records how a run turned out; whether that was not known already.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn end_cron_run(
        &self,
        id: &CronRunId,
        outcome: CronOutcome,
        status: Option<i32>,
        error: Option<&str>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let mut write = self.write().await?;
        let ended = sqlx::query(
            "UPDATE cron_runs SET outcome = $1, status = CAST($2 AS BIGINT), error = $3, \
             ended = $4 WHERE id = $5 AND outcome = 'running'",
        )
        .bind(outcome.as_str())
        .bind(status.map(i64::from))
        .bind(error.map(str::to_owned))
        .bind(micros(now))
        .bind(id.as_str().to_owned())
        .execute(&mut *write.tx)
        .await?;
        write.commit().await?;
        Ok(ended.rows_affected() > 0)
    }

    /// Ends the runs of a deploy that a platform before this one left: they are not fired again.
    /// How many there were.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn cut_off_cron_runs(
        &self,
        deploy: &DeployId,
        error: &str,
        now: Timestamp,
    ) -> Result<u64, Error> {
        let mut write = self.write().await?;
        let ended = sqlx::query(
            "UPDATE cron_runs SET outcome = 'failed', error = $1, ended = $2 \
             WHERE deploy = $3 AND outcome = 'running'",
        )
        .bind(error.to_owned())
        .bind(micros(now))
        .bind(deploy.as_str().to_owned())
        .execute(&mut *write.tx)
        .await?;
        write.commit().await?;
        Ok(ended.rows_affected())
    }

    /// One run.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn cron_run(&self, id: &CronRunId) -> Result<CronRun, Error> {
        let row = sqlx::query("SELECT * FROM cron_runs WHERE id = $1")
            .bind(id.as_str().to_owned())
            .fetch_optional(self.pool())
            .await?;
        run(&row.ok_or_else(|| Error::NotFound { what: "run", name: id.to_string() })?)
    }

    /// The runs of a schedule, the newest first, older than `before`.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn cron_runs(
        &self,
        deploy: &DeployId,
        name: &ScheduleName,
        before: Option<&CronRunId>,
        most: usize,
    ) -> Result<Listed<CronRun>, Error> {
        let before = Value::Text(before.map_or(LAST, CronRunId::as_str));
        let list = List {
            statement: "SELECT * FROM cron_runs WHERE deploy = $1 AND name = $2 AND id < $3 \
                        ORDER BY id DESC LIMIT $4",
            values: &[Value::Text(deploy.as_str()), Value::Text(name.as_str()), before],
            long: &["command", "error"],
        };
        list.page(self, most, |row| run(row).map(Some)).await
    }

    /// Takes the ticks of a schedule that lie behind `after` off their runs, for the clock was put
    /// back: they come again.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn forget_cron_ticks(
        &self,
        deploy: &DeployId,
        name: &ScheduleName,
        after: Timestamp,
    ) -> Result<(), Error> {
        let mut write = self.write().await?;
        sqlx::query(
            "UPDATE cron_runs SET tick = NULL WHERE deploy = $1 AND name = $2 AND tick > $3",
        )
        .bind(deploy.as_str().to_owned())
        .bind(name.as_str().to_owned())
        .bind(micros(after))
        .execute(&mut *write.tx)
        .await?;
        write.commit().await
    }

    /// The last tick of each schedule that was dealt with.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn last_cron_ticks(
        &self,
        deploy: &DeployId,
    ) -> Result<Vec<(ScheduleName, Timestamp)>, Error> {
        let rows = sqlx::query(
            "SELECT name, MAX(tick) AS last FROM cron_runs \
             WHERE deploy = $1 AND tick IS NOT NULL GROUP BY name",
        )
        .bind(deploy.as_str().to_owned())
        .fetch_all(self.pool())
        .await?;
        let read = |row: &AnyRow| Ok((Columns(row).parsed("name")?, Columns(row).time("last")?));
        rows.iter().map(read).collect()
    }

    /// When something was last done to a deploy; nothing where nothing was.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn last_done(&self, deploy: &DeployId) -> Result<Option<Timestamp>, Error> {
        let row = sqlx::query(
            "SELECT MAX(ended) AS last FROM operations WHERE deploy = $1 AND state = 'succeeded'",
        )
        .bind(deploy.as_str().to_owned())
        .fetch_one(self.pool())
        .await?;
        Columns(&row).maybe_time("last")
    }
}
