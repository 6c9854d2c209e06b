//! One-off runs: recorded before they start, and how they ended.

use jiff::Timestamp;
use sqlx::any::AnyRow;
use tolv_model::env::EnvName;
use tolv_model::id::{DeployId, RunId};
use tolv_model::name::Deploy as DeployPath;
use tolv_model::release::ReleaseNumber;
use tolv_model::run::{Argv, Connection, End, State};

use crate::columns::{Columns, limit, micros, to_json};
use crate::db::Store;
use crate::error::Error;
use crate::listed::{List, Listed, Value};

/// Behind every id, in every collation of the alphabet that ids have.
const LAST: &str = "run_zzzzzzzzzzzzzzzzzzzz";

/// One run, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which.
    pub id: RunId,
    /// Of which deploy.
    pub deploy: DeployId,
    /// Its path.
    pub deploy_name: DeployPath,
    /// Its place among the deploy's: 3 of `run.3`. Given again after 65,535 others.
    pub number: u16,
    /// With what it ran.
    pub release: ReleaseNumber,
    /// Who asked for it.
    pub actor: String,
    /// What was executed.
    pub argv: Argv,
    /// Names of the variables that were set for it.
    pub env: Vec<EnvName>,
    /// How it was connected.
    pub connection: Connection,
    /// Where it is.
    pub state: State,
    /// When it was asked for.
    pub created: Timestamp,
    /// When it ran.
    pub started: Option<Timestamp>,
    /// When it was over.
    pub ended: Option<Timestamp>,
    /// Its exit status as a shell shows it.
    pub status: Option<u8>,
    /// What there is to say of it beside that.
    pub note: Option<String>,
    /// How many bytes of its output are kept; nothing where none was to be.
    pub recorded: Option<u64>,
}

/// A run that is to be recorded.
#[derive(Clone, Debug)]
pub struct NewRun {
    /// Of which deploy.
    pub deploy: DeployId,
    /// With what it is to run.
    pub release: ReleaseNumber,
    /// Who asks for it.
    pub actor: String,
    /// What is executed.
    pub argv: Argv,
    /// Names of the variables that are set for it.
    pub env: Vec<EnvName>,
    /// How it is connected.
    pub connection: Connection,
    /// When.
    pub now: Timestamp,
}

fn known<T: Copy>(
    column: &'static str,
    text: String,
    all: &[T],
    name: fn(T) -> &'static str,
) -> Result<T, Error> {
    let found = all.iter().copied().find(|&one| name(one) == text);
    found.ok_or_else(|| Error::corrupt(column)(text))
}

fn run(row: &AnyRow) -> Result<Run, Error> {
    let row = Columns(row);
    let number = row.number("number")?;
    Ok(Run {
        id: row.parsed("id")?,
        deploy: row.parsed("deploy")?,
        deploy_name: row.parsed("deploy_name")?,
        number: u16::try_from(number).map_err(|_| Error::corrupt("number")(number.to_string()))?,
        release: ReleaseNumber(row.u32("release")?),
        actor: row.text("actor")?,
        argv: row.json("argv")?,
        env: row.json("env")?,
        connection: known(
            "connection",
            row.text("connection")?,
            &Connection::ALL,
            Connection::as_str,
        )?,
        state: known("state", row.text("state")?, &State::ALL, State::as_str)?,
        created: row.time("created")?,
        started: row.maybe_time("started")?,
        ended: row.maybe_time("ended")?,
        status: row.maybe_number("status")?.and_then(|status| u8::try_from(status).ok()),
        note: row.maybe_text("note")?,
        recorded: row.maybe_number("recorded")?.and_then(|bytes| u64::try_from(bytes).ok()),
    })
}

impl Store {
    /// Records a run before it starts, with the number behind that of the deploy's last.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]: the deploy is gone.
    pub async fn begin_run(&self, new: &NewRun) -> Result<Run, Error> {
        let id = RunId::new(new.now, self.random()?);
        let mut write = self.write().await?;
        let last = sqlx::query(
            "SELECT MAX(number) AS last, MAX(CASE WHEN number < 32768 THEN number END) AS low \
             FROM runs WHERE deploy = $1",
        )
        .bind(new.deploy.as_str().to_owned())
        .fetch_one(&mut *write.tx)
        .await?;
        let (last, low) =
            (Columns(&last).maybe_number("last")?, Columns(&last).maybe_number("low")?);
        // Behind the last number they begin again; those before are forgotten by then.
        let last = last.filter(|&last| last < i64::from(u16::MAX)).or(low);
        let number = last.unwrap_or(0) + 1;
        let made = sqlx::query(
            "INSERT INTO runs (id, deploy, deploy_name, number, release, actor, argv, env, \
             connection, state, created) \
             SELECT $1, id, app_name || '/' || name, CAST($2 AS BIGINT), CAST($3 AS BIGINT), \
             $4, $5, $6, $7, 'starting', CAST($8 AS BIGINT) FROM deploys WHERE id = $9",
        )
        .bind(id.as_str().to_owned())
        .bind(number)
        .bind(i64::from(new.release.0))
        .bind(new.actor.clone())
        .bind(to_json(&new.argv)?)
        .bind(to_json(&new.env)?)
        .bind(new.connection.as_str())
        .bind(micros(new.now))
        .bind(new.deploy.as_str().to_owned())
        .execute(&mut *write.tx)
        .await?;
        if made.rows_affected() == 0 {
            return Err(Error::NotFound { what: "deploy", name: new.deploy.to_string() });
        }
        write.commit().await?;
        self.run(&id).await
    }

    /// One run.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn run(&self, id: &RunId) -> Result<Run, Error> {
        let row = sqlx::query("SELECT * FROM runs WHERE id = $1")
            .bind(id.as_str().to_owned())
            .fetch_optional(self.pool())
            .await?;
        run(&row.ok_or_else(|| Error::NotFound { what: "run", name: id.to_string() })?)
    }

    /// Runs of a deploy, the newest first, older than `before`.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn runs(
        &self,
        deploy: &DeployId,
        before: Option<&RunId>,
        most: usize,
    ) -> Result<Listed<Run>, Error> {
        let before = before.map_or(LAST, RunId::as_str);
        let list = List {
            statement: "SELECT * FROM runs WHERE deploy = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
            values: &[Value::Text(deploy.as_str()), Value::Text(before)],
            long: &["argv", "env", "connection", "note"],
        };
        list.page(self, most, |row| run(row).map(Some)).await
    }

    /// Removes a run that never began.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn remove_run(&self, id: &RunId) -> Result<(), Error> {
        let mut write = self.write().await?;
        sqlx::query("DELETE FROM runs WHERE id = $1 AND started IS NULL")
            .bind(id.as_str().to_owned())
            .execute(&mut *write.tx)
            .await?;
        write.commit().await
    }

    /// Records that a run runs now.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn run_started(&self, id: &RunId, now: Timestamp) -> Result<(), Error> {
        let mut write = self.write().await?;
        sqlx::query(
            "UPDATE runs SET state = 'up', started = $1 WHERE id = $2 AND state = 'starting'",
        )
        .bind(micros(now))
        .bind(id.as_str().to_owned())
        .execute(&mut *write.tx)
        .await?;
        write.commit().await
    }

    /// Records how a run was over, once; of one whose deploy is gone nothing is recorded.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn end_run(
        &self,
        id: &RunId,
        end: &End,
        recorded: Option<u64>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut write = self.write().await?;
        sqlx::query(
            "UPDATE runs SET state = $1, status = $2, note = $3, recorded = $4, ended = $5 \
             WHERE id = $6 AND ended IS NULL",
        )
        .bind(end.state.as_str())
        .bind(end.status.map(i64::from))
        .bind(end.note.clone())
        .bind(recorded.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX)))
        .bind(micros(now))
        .bind(id.as_str().to_owned())
        .execute(&mut *write.tx)
        .await?;
        write.commit().await
    }

    /// Records that the runs which were under way when the last platform ended are lost.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn lose_runs(&self, note: &str, now: Timestamp) -> Result<u64, Error> {
        let mut write = self.write().await?;
        let lost = sqlx::query(
            "UPDATE runs SET state = 'lost', note = $1, ended = $2 WHERE ended IS NULL",
        )
        .bind(note.to_owned())
        .bind(micros(now))
        .execute(&mut *write.tx)
        .await?;
        write.commit().await?;
        Ok(lost.rows_affected())
    }

    /// Forgets the runs of a deploy that are over, but for the newest `keep`; gives those whose
    /// output was kept.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn forget_runs(&self, deploy: &DeployId, keep: usize) -> Result<Vec<RunId>, Error> {
        let mut write = self.write().await?;
        let old = sqlx::query(
            "SELECT id, recorded FROM runs WHERE deploy = $1 AND ended IS NOT NULL \
             AND id <= (SELECT id FROM runs WHERE deploy = $1 ORDER BY id DESC LIMIT 1 OFFSET $2)",
        )
        .bind(deploy.as_str().to_owned())
        .bind(limit(keep))
        .fetch_all(&mut *write.tx)
        .await?;
        let mut recorded = Vec::new();
        for row in &old {
            let row = Columns(row);
            let id: RunId = row.parsed("id")?;
            sqlx::query("DELETE FROM runs WHERE id = $1")
                .bind(id.as_str().to_owned())
                .execute(&mut *write.tx)
                .await?;
            if row.maybe_number("recorded")?.is_some() {
                recorded.push(id);
            }
        }
        write.commit().await?;
        Ok(recorded)
    }
}
