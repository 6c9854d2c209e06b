//! Operations: the queue of each deploy.

use jiff::{SignedDuration, Timestamp};
use sqlx::any::AnyRow;
use tolv_model::id::{AppId, DeployId, OperationId};
use tolv_model::operation::{Outcome, Request, State};
use tolv_model::release::ReleaseNumber;
use tolv_model::slug::SlugId;

use crate::audit::NewLine;
use crate::columns::{Columns, micros, to_json};
use crate::db::{Store, Transaction, Write};
use crate::error::Error;
use crate::listed::{List, Listed, Value};
use crate::row_mac::{Authenticated, Field};
use crate::types::{Operation, Slug};

/// What decides what an operation does, for as long as it is not over: then the code is removed, so
/// that one that is over cannot be begun again. A copy of the row from before is known by its id, for the
/// deploy's anchor has the last one that was done.
const OPERATIONS: Authenticated = Authenticated {
    table: "operations",
    texts: &["id", "deploy", "request", "actor", "slug"],
    numbers: &["created", "release"],
    families: &[],
};

/// Operations of a deploy that may wait at once.
const MAX_QUEUED: usize = 100;
/// The same, for operations that free disk space or memory: the others never keep them out.
const MAX_QUEUED_THAT_FREE_SPACE: usize = 1000;
/// Characters of a forged row's texts that the audit log shows.
const MAX_SHOWN: usize = 60;
/// Behind every id, in every collation of the alphabet that ids have.
const LAST: &str = "op_zzzzzzzzzzzzzzzzzzzz";

fn operation(row: &AnyRow) -> Result<Operation, Error> {
    let row = Columns(row);
    let state = row.text("state")?;
    let state = State::ALL
        .into_iter()
        .find(|known| known.as_str() == state)
        .ok_or_else(|| Error::corrupt("state")(state))?;
    Ok(Operation {
        id: row.parsed("id")?,
        deploy: row.parsed("deploy")?,
        deploy_name: row.parsed("deploy_name")?,
        request: row.json("request")?,
        actor: row.text("actor")?,
        state,
        created: row.time("created")?,
        started: row.maybe_time("started")?,
        ended: row.maybe_time("ended")?,
        slug: row.maybe_parsed("slug")?.map(SlugId),
        release: row
            .maybe_number("release")?
            .map(|_| row.u32("release"))
            .transpose()?
            .map(ReleaseNumber),
        error: row.maybe_text("error")?,
    })
}

fn forged() -> Error {
    Error::corrupt("an operation")("it was changed outside of the platform".to_owned())
}

fn put_back() -> Error {
    Error::corrupt("an operation")("it was done before, and put back".to_owned())
}

/// The operation of a row that is not over and that this platform wrote.
fn unfinished(store: &Store, row: &AnyRow) -> Result<Operation, Error> {
    match OPERATIONS.holds(store, row) {
        true => operation(row),
        false => Err(forged()),
    }
}

/// Changes a column of an operation that is not over.
async fn set(
    store: &Store,
    tx: &mut Transaction,
    id: &OperationId,
    change: Column,
) -> Result<(), Error> {
    let id = id.as_str().to_owned();
    let read = "SELECT * FROM operations WHERE id = $1";
    let row = sqlx::query(read).bind(id.clone()).fetch_one(&mut **tx).await?;
    if !OPERATIONS.holds(store, &row) {
        return Err(match Columns(&row).maybe_number("ended") {
            Ok(Some(_)) => Error::corrupt("an operation")("it has already finished".to_owned()),
            _ => forged(),
        });
    }
    let changed = match change {
        Column::Slug(slug) => {
            sqlx::query("UPDATE operations SET slug = $1 WHERE id = $2").bind(slug)
        }
        Column::Release(number) => sqlx::query("UPDATE operations SET release = $1 WHERE id = $2")
            .bind(i64::from(number.0)),
    };
    changed.bind(id.clone()).execute(&mut **tx).await?;
    let row = sqlx::query(read).bind(id.clone()).fetch_one(&mut **tx).await?;
    sqlx::query("UPDATE operations SET mac = $1 WHERE id = $2")
        .bind(OPERATIONS.mac_of(store, &row))
        .bind(id)
        .execute(&mut **tx)
        .await?;
    Ok(())
}

/// What becomes known of an operation while it runs.
enum Column {
    Slug(String),
    Release(ReleaseNumber),
}

/// Records the release that an operation made.
pub(crate) async fn set_release(
    store: &Store,
    tx: &mut Transaction,
    id: &OperationId,
    number: ReleaseNumber,
) -> Result<(), Error> {
    set(store, tx, id, Column::Release(number)).await
}

impl Store {
    /// Refuses an operation where as many are queued as may be.
    pub(crate) async fn require_queue(
        &self,
        tx: &mut Transaction,
        deploy: &DeployId,
        request: &Request,
    ) -> Result<(), Error> {
        let row = sqlx::query(
            "SELECT COUNT(*) AS count FROM operations WHERE deploy = $1 AND ended IS NULL",
        )
        .bind(deploy.as_str().to_owned())
        .fetch_one(&mut **tx)
        .await?;
        let queued = usize::try_from(Columns(&row).number("count")?).unwrap_or(usize::MAX);
        let most = match request.frees_space() {
            true => MAX_QUEUED_THAT_FREE_SPACE,
            false => MAX_QUEUED,
        };
        match queued >= most {
            true => Err(Error::TooMany { what: "queued operations", most }),
            false => Ok(()),
        }
    }

    /// Queues an operation behind those that are not over, and the last one that was done. Ids decide
    /// the order, and clocks stand
    /// still for a millisecond or go back: then its place is the one after theirs.
    pub(crate) async fn put_operation(
        &self,
        tx: &mut Transaction,
        deploy: &DeployId,
        request: &Request,
        actor: &str,
        now: Timestamp,
    ) -> Result<OperationId, Error> {
        let last = sqlx::query(
            "SELECT MAX(id) AS last FROM operations WHERE deploy = $1 AND ended IS NULL",
        )
        .bind(deploy.as_str().to_owned())
        .fetch_one(&mut **tx)
        .await?;
        let last = Columns(&last).maybe_text("last")?.and_then(|id| id.parse().ok());
        let last = last.max(self.done(tx, deploy).await?);
        let place = match last.as_ref().map(OperationId::moment) {
            Some(last) => now.max(last.checked_add(SignedDuration::from_millis(1)).unwrap_or(last)),
            None => now,
        };
        let id = OperationId::new(place, self.random()?);
        let request = to_json(request)?;
        let texts = [id.as_str(), deploy.as_str(), &request, actor].map(Field::from);
        let rest = [Field::Null, micros(now).into(), Field::Null];
        let mac = OPERATIONS.mac(self, &[texts.as_slice(), &rest].concat());
        let made = sqlx::query(
            "INSERT INTO operations (id, deploy, deploy_name, request, actor, state, created, mac) \
             SELECT $1, id, app_name || '/' || name, $2, $3, 'queued', CAST($4 AS BIGINT), $6 \
             FROM deploys WHERE id = $5",
        )
        .bind(id.as_str().to_owned())
        .bind(request)
        .bind(actor.to_owned())
        .bind(micros(now))
        .bind(deploy.as_str().to_owned())
        .bind(mac)
        .execute(&mut **tx)
        .await?;
        match made.rows_affected() {
            0 => Err(Error::NotFound { what: "deploy", name: deploy.to_string() }),
            _ => Ok(id),
        }
    }

    /// Queues an operation. Queued ones whose work it does are superseded, and given back.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]: the deploy is gone.
    pub async fn enqueue(
        &self,
        deploy: &DeployId,
        request: &Request,
        actor: &str,
        now: Timestamp,
    ) -> Result<(Operation, Vec<OperationId>), Error> {
        let mut write = self.write().await?;
        let queued = sqlx::query(
            "SELECT * FROM operations WHERE deploy = $1 AND ended IS NULL AND state = 'queued'",
        )
        .bind(deploy.as_str().to_owned())
        .fetch_all(&mut *write.tx)
        .await?;
        let mut superseded = Vec::new();
        for row in &queued {
            // One that somebody else changed fails when it is its turn.
            let Ok(old) = unfinished(self, row) else { continue };
            if old.request.is_superseded_by(request) {
                sqlx::query(
                    "UPDATE operations SET state = 'superseded', ended = $1, mac = NULL \
                     WHERE id = $2",
                )
                .bind(micros(now))
                .bind(old.id.as_str().to_owned())
                .execute(&mut *write.tx)
                .await?;
                superseded.push(old.id);
            }
        }
        self.require_queue(&mut write.tx, deploy, request).await?;
        let id = self.put_operation(&mut write.tx, deploy, request, actor, now).await?;
        write.commit().await?;
        Ok((self.operation(&id).await?, superseded))
    }

    /// One operation.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn operation(&self, id: &OperationId) -> Result<Operation, Error> {
        let row = sqlx::query("SELECT * FROM operations WHERE id = $1")
            .bind(id.as_str().to_owned())
            .fetch_optional(self.pool())
            .await?;
        let missing = || Error::NotFound { what: "operation", name: id.to_string() };
        operation(&row.ok_or_else(missing)?)
    }

    /// How many operations wait, and how many run.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn unfinished(&self) -> Result<(u64, u64), Error> {
        let rows = sqlx::query(
            "SELECT state, COUNT(*) AS count FROM operations WHERE ended IS NULL GROUP BY state",
        )
        .fetch_all(self.pool())
        .await?;
        let (mut queued, mut running) = (0, 0);
        for row in &rows {
            let row = Columns(row);
            let count = u64::try_from(row.number("count")?).unwrap_or(0);
            match row.text("state")?.as_str() {
                "queued" => queued = count,
                _ => running += count,
            }
        }
        Ok((queued, running))
    }

    /// The commits of an app that are to be built by operations that are not over.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn commits_under_way(&self, app: &AppId) -> Result<Vec<String>, Error> {
        let rows = sqlx::query(
            "SELECT o.* FROM operations o JOIN deploys d ON d.id = o.deploy \
             WHERE d.app = $1 AND o.ended IS NULL",
        )
        .bind(app.as_str().to_owned())
        .fetch_all(self.pool())
        .await?;
        let commit = |row: &AnyRow| match operation(row).ok()?.request {
            Request::Deploy { commit, .. } => Some(commit),
            _ => None,
        };
        Ok(rows.iter().filter_map(commit).collect())
    }

    /// The operation that made a release.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn operation_of_release(
        &self,
        deploy: &DeployId,
        number: ReleaseNumber,
    ) -> Result<Operation, Error> {
        let row = sqlx::query(
            "SELECT o.* FROM operations o JOIN releases r ON r.operation = o.id \
             WHERE r.deploy = $1 AND r.number = $2",
        )
        .bind(deploy.as_str().to_owned())
        .bind(i64::from(number.0))
        .fetch_optional(self.pool())
        .await?;
        let missing = || Error::NotFound { what: "release", name: number.to_string() };
        operation(&row.ok_or_else(missing)?)
    }

    /// The operations of a deploy, the newest first, older than `before`.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn operations(
        &self,
        deploy: &DeployId,
        before: Option<&OperationId>,
        most: usize,
    ) -> Result<Listed<Operation>, Error> {
        let before = before.map_or(LAST, OperationId::as_str);
        let list = List {
            statement: "SELECT * FROM operations WHERE deploy = $1 AND id < $2 ORDER BY id DESC \
                        LIMIT $3",
            values: &[Value::Text(deploy.as_str()), Value::Text(before)],
            long: &["request", "error"],
        };
        list.page(self, most, |row| operation(row).map(Some)).await
    }

    /// Forgets the operations of a deploy that are over: all but its newest `last`, and those that
    /// made one of its last `releases` releases, which may be tried again. Gives back which.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn forget_operations(
        &self,
        deploy: &DeployId,
        last: u32,
        releases: u32,
    ) -> Result<Vec<OperationId>, Error> {
        let mut write = self.write().await?;
        let old = sqlx::query(
            "SELECT id FROM operations WHERE deploy = $1 AND ended IS NOT NULL \
             AND id NOT IN (SELECT n.id FROM operations n WHERE n.deploy = $1 \
                 ORDER BY n.id DESC LIMIT $2) \
             AND (release IS NULL OR release <= (SELECT COALESCE(MAX(r.number), 0) \
                 FROM releases r WHERE r.deploy = $1) - $3)",
        )
        .bind(deploy.as_str().to_owned())
        .bind(i64::from(last))
        .bind(i64::from(releases))
        .fetch_all(&mut *write.tx)
        .await?;
        let mut forgotten = Vec::new();
        for row in &old {
            let id: OperationId = Columns(row).parsed("id")?;
            sqlx::query("DELETE FROM operations WHERE id = $1")
                .bind(id.as_str().to_owned())
                .execute(&mut *write.tx)
                .await?;
            forgotten.push(id);
        }
        write.commit().await?;
        Ok(forgotten)
    }

    /// The deploys that have an operation which is not over.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn deploys_with_operations(&self) -> Result<Vec<DeployId>, Error> {
        let rows = sqlx::query("SELECT DISTINCT deploy FROM operations WHERE ended IS NULL")
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(|row| Columns(row).parsed("deploy")).collect()
    }

    /// The oldest operation of a deploy that is not over. One that cannot be read, or was
    /// changed outside of the platform, has failed.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn next(&self, deploy: &DeployId) -> Result<Option<Operation>, Error> {
        loop {
            let row = sqlx::query(
                "SELECT * FROM operations WHERE deploy = $1 AND ended IS NULL ORDER BY id LIMIT 1",
            )
            .bind(deploy.as_str().to_owned())
            .fetch_optional(self.pool())
            .await?;
            let Some(row) = row else { return Ok(None) };
            let (found, is_again) = match unfinished(self, &row) {
                Ok(operation) => {
                    let mut read = self.read().await?;
                    let done = self.done(&mut read, deploy).await?;
                    read.finish().await?;
                    let is_again = done.is_some_and(|done| operation.id <= done);
                    (if is_again { Err(put_back()) } else { Ok(operation) }, is_again)
                }
                Err(error) => (Err(error), false),
            };
            match found {
                Ok(operation) => return Ok(Some(operation)),
                // It cannot be done by anybody, and those behind it wait.
                Err(error) => {
                    let now = Timestamp::now();
                    let mut write = self.write().await?;
                    let ended = sqlx::query(
                        "UPDATE operations SET state = 'failed', ended = $1, error = $2, mac = NULL \
                         WHERE id = $3 AND ended IS NULL",
                    )
                    .bind(micros(now))
                    .bind(error.to_string())
                    .bind(Columns(&row).text("id")?)
                    .execute(&mut *write.tx)
                    .await?;
                    if ended.rows_affected() > 0 && (is_again || !OPERATIONS.holds(self, &row)) {
                        report_forged(self, &mut write, &row, now).await?;
                    }
                    write.commit().await?;
                }
            }
        }
    }

    /// An operation begins, or is gone on with; whether it is not over already.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn begin(&self, id: &OperationId, now: Timestamp) -> Result<bool, Error> {
        let mut write = self.write().await?;
        let begun = sqlx::query(
            "UPDATE operations SET state = 'running', started = COALESCE(started, $1) \
             WHERE id = $2 AND ended IS NULL",
        )
        .bind(micros(now))
        .bind(id.as_str().to_owned())
        .execute(&mut *write.tx)
        .await?;
        write.commit().await?;
        Ok(begun.rows_affected() > 0)
    }

    /// Records the slug that an operation built.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn set_slug(&self, id: &OperationId, slug: &Slug) -> Result<(), Error> {
        let mut write = self.write().await?;
        let hex = slug.id.0.to_string();
        sqlx::query(
            "INSERT INTO slugs (id, app, commit_id, built, bytes) VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (app, id) DO UPDATE SET built = excluded.built",
        )
        .bind(hex.clone())
        .bind(slug.app.as_str().to_owned())
        .bind(slug.commit.clone())
        .bind(micros(slug.built))
        .bind(i64::try_from(slug.bytes).unwrap_or(i64::MAX))
        .execute(&mut *write.tx)
        .await?;
        set(self, &mut write.tx, id, Column::Slug(hex)).await?;
        write.commit().await
    }

    /// Ends an operation; whether it was not over already. A release that it appended and of which
    /// nothing was said has failed with it.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn end(
        &self,
        id: &OperationId,
        state: State,
        error: Option<&str>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let mut write = self.write().await?;
        let left = sqlx::query(
            "SELECT r.deploy, r.number FROM releases r JOIN operations p ON p.id = r.operation \
             WHERE r.operation = $1 AND p.ended IS NULL AND NOT EXISTS \
             (SELECT 1 FROM outcomes o WHERE o.deploy = r.deploy AND o.number = r.number)",
        )
        .bind(id.as_str().to_owned())
        .fetch_optional(&mut *write.tx)
        .await?;
        if let Some(row) = left {
            let row = Columns(&row);
            let (deploy, number) = (row.parsed("deploy")?, ReleaseNumber(row.u32("number")?));
            write.rollback().await?;
            self.settle(id, &deploy, number, Outcome::Failed, state, error, now).await?;
            return Ok(true);
        }
        // The oldest is the one that is carried out: one that is cancelled behind it is not.
        let oldest = sqlx::query(
            "SELECT id, deploy FROM operations WHERE ended IS NULL AND deploy = \
             (SELECT o.deploy FROM operations o WHERE o.id = $1) ORDER BY id LIMIT 1",
        )
        .bind(id.as_str().to_owned())
        .fetch_optional(&mut *write.tx)
        .await?;
        let oldest = oldest.filter(|row| Columns(row).text("id").is_ok_and(|it| it == id.as_str()));
        let ended = end(self, &mut write, id, state, error, now).await?;
        match oldest.and_then(|row| Columns(&row).parsed("deploy").ok()) {
            Some(deploy) => self.commit_done(write, &deploy, id).await?,
            None => write.commit().await?,
        }
        Ok(ended)
    }
}

/// Ends an operation, whoever wrote its row; one that somebody else did is in the audit log then.
pub(crate) async fn end(
    store: &Store,
    write: &mut Write<'_>,
    id: &OperationId,
    state: State,
    error: Option<&str>,
    now: Timestamp,
) -> Result<bool, Error> {
    let row = sqlx::query("SELECT * FROM operations WHERE id = $1 AND ended IS NULL")
        .bind(id.as_str().to_owned())
        .fetch_optional(&mut *write.tx)
        .await?;
    if let Some(row) = row.filter(|row| !OPERATIONS.holds(store, row)) {
        report_forged(store, write, &row, now).await?;
    }
    let ended = sqlx::query(
        "UPDATE operations SET state = $1, error = $2, ended = $3, mac = NULL \
         WHERE id = $4 AND ended IS NULL",
    )
    .bind(state.as_str())
    .bind(error.map(str::to_owned))
    .bind(micros(now))
    .bind(id.as_str().to_owned())
    .execute(&mut *write.tx)
    .await?;
    Ok(ended.rows_affected() > 0)
}

/// Adds to the audit log that an operation was refused, for somebody else wrote its row.
async fn report_forged(
    store: &Store,
    write: &mut Write<'_>,
    row: &AnyRow,
    now: Timestamp,
) -> Result<(), Error> {
    let row = Columns(row);
    let text =
        |name| row.text(name).unwrap_or_default().chars().take(MAX_SHOWN).collect::<String>();
    let path = text("deploy_name");
    let (app, deploy) = path.split_once('/').unzip();
    let kind = row.json::<serde_json::Value>("request").ok();
    let kind = kind.as_ref().and_then(|request| request.get("kind")?.as_str());
    let detail = format!(
        "{:?} ({:?}, by {:?})",
        text("id"),
        kind.unwrap_or_default().chars().take(MAX_SHOWN).collect::<String>(),
        text("actor")
    );
    let line =
        NewLine { actor: "platform", action: "operation.forged", app, deploy, detail: &detail };
    let id = line.insert(write, store.random()?, now).await?;
    sqlx::query("UPDATE audit SET outcome = 'refused' WHERE id = $1")
        .bind(id.as_str().to_owned())
        .execute(&mut *write.tx)
        .await?;
    Ok(())
}
