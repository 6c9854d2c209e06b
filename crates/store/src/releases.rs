//! The ledger of releases: what is appended to it, and each release of it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sqlx::any::AnyRow;
use tolv_model::formation::Formation;
use tolv_model::id::{DeployId, OperationId};
use tolv_model::ledger::{Broken, GENESIS, LedgerKey, Row, Settled};
use tolv_model::operation::{Outcome, State};
use tolv_model::release::ReleaseNumber;
use tolv_model::slug::{Digest, SlugId};

use crate::anchor::{Anchor, Recorded};
use crate::columns::{Columns, micros, to_json};
use crate::config::no_config;
use crate::db::{Store, Transaction, Write};
use crate::error::Error;
use crate::ledger::{Contents, OUTCOME_COLUMNS, RELEASE_COLUMNS, hash_of, number_of, path_of};
use crate::listed::{List, Listed, Value};
use crate::operations;
use crate::types::{NewRelease, Release};

const RELEASE: &str = "SELECT r.*, o.outcome, o.error AS outcome_error, o.ended AS outcome_ended \
    FROM releases r LEFT JOIN outcomes o ON o.deploy = r.deploy AND o.number = r.number ";

pub(crate) fn ledger_row(row: &AnyRow) -> Result<Row, Error> {
    let row = Columns(row);
    Ok(Row {
        deploy: row.parsed("deploy")?,
        number: ReleaseNumber(row.u32("number")?),
        slug: SlugId(row.parsed("slug")?),
        commit: row.maybe_text("commit_id")?,
        config_version: row.u32("config_version")?,
        config_digest: row.parsed("config_digest")?,
        process_types: row.json("process_types")?,
        sizes: row.json("sizes")?,
        reason: row.json("reason")?,
        actor: row.text("actor")?,
        created: row.time("created")?,
        prev: row.parsed("prev")?,
    })
}

fn release(any: &AnyRow) -> Result<Release, Error> {
    let found = ledger_row(any)?;
    let row = Columns(any);
    let hash = row.parsed("hash")?;
    let outcome = match row.maybe_text("outcome")?.as_deref() {
        None => Outcome::Pending,
        Some(text) => self::outcome(text)?,
    };
    Ok(Release {
        row: found,
        hash,
        outcome,
        ended: row.maybe_time("outcome_ended")?,
        error: row.maybe_text("outcome_error")?,
    })
}

pub(crate) fn outcome(text: &str) -> Result<Outcome, Error> {
    match text {
        "succeeded" => Ok(Outcome::Succeeded),
        "failed" => Ok(Outcome::Failed),
        other => Err(Error::corrupt("outcome")(other.to_owned())),
    }
}

/// The last release of a ledger, and the hash of what was appended last.
async fn end_of(
    tx: &mut Transaction,
    deploy: &DeployId,
) -> Result<(Option<ReleaseNumber>, Digest), Error> {
    let last = sqlx::query("SELECT * FROM releases WHERE deploy = $1 ORDER BY number DESC LIMIT 1")
        .bind(deploy.as_str().to_owned())
        .fetch_optional(&mut **tx)
        .await?;
    let Some(row) = last else { return Ok((None, GENESIS)) };
    let number = number_of(&row)?;
    let mut end = hash_of(&row, RELEASE_COLUMNS);
    // Each is behind another: a chain without an end is one that was forged. Of two in one place an
    // audit goes on with the same one.
    for _ in 0..=number.0 {
        let next = sqlx::query(
            "SELECT * FROM outcomes WHERE deploy = $1 AND prev = $2 ORDER BY number DESC LIMIT 1",
        )
        .bind(deploy.as_str().to_owned())
        .bind(end.to_string())
        .fetch_optional(&mut **tx)
        .await?;
        match next {
            Some(row) => end = hash_of(&row, OUTCOME_COLUMNS),
            None => return Ok((Some(number), end)),
        }
    }
    Err(Broken::Outcome(number).into())
}

async fn put_outcome(
    tx: &mut Transaction,
    key: &LedgerKey,
    settled: &Settled,
) -> Result<Digest, Error> {
    let hash = settled.hash(key);
    sqlx::query(
        "INSERT INTO outcomes (deploy, number, outcome, error, ended, prev, hash) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(settled.deploy.as_str().to_owned())
    .bind(i64::from(settled.number.0))
    .bind(settled.outcome.as_str())
    .bind(settled.error.clone())
    .bind(micros(settled.ended))
    .bind(settled.prev.to_string())
    .bind(hash.to_string())
    .execute(&mut **tx)
    .await?;
    Ok(hash)
}

impl Store {
    /// Appends a release to its deploy's ledger: the next number, linked to the row before. Of
    /// one operation there is one release: asked again, it gives that one.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]: there is no such config version. Then nothing was appended.
    pub async fn append(&self, new: &NewRelease) -> Result<Release, Error> {
        let mut write = self.write().await?;
        let deploy = new.deploy.as_str().to_owned();
        let made = sqlx::query("SELECT number FROM releases WHERE operation = $1")
            .bind(new.operation.as_str().to_owned())
            .fetch_optional(&mut *write.tx)
            .await?;
        if let Some(row) = made {
            let number = ReleaseNumber(Columns(&row).u32("number")?);
            write.rollback().await?;
            // The operation says so too: its row is authenticated.
            if self.operation(&new.operation).await?.release != Some(number) {
                let why = "another operation made it".to_owned();
                return Err(Broken::Unreadable(number, why).into());
            }
            return self.release(&new.deploy, number).await;
        }
        self.row_to_change(&mut write.tx, &new.deploy).await?;
        let (last, prev) = end_of(&mut write.tx, &new.deploy).await?;
        let number = match last {
            None => 1,
            Some(last) => last.0.checked_add(1).ok_or_else(|| {
                Broken::Unreadable(last, "no release can have a number as large".to_owned())
            })?,
        };
        let sealed = sqlx::query("SELECT sealed FROM configs WHERE deploy = $1 AND version = $2")
            .bind(deploy.clone())
            .bind(i64::from(new.config_version))
            .fetch_optional(&mut *write.tx)
            .await?;
        let sealed = match sealed {
            Some(row) => Columns(&row).text("sealed")?,
            None if new.config_version == 0 => String::new(),
            None => return Err(no_config(new.config_version)),
        };
        let row = Row {
            deploy: new.deploy.clone(),
            number: ReleaseNumber(number),
            slug: new.slug,
            commit: new.commit.clone(),
            config_version: new.config_version,
            config_digest: Digest::of(sealed.as_bytes()),
            process_types: new.process_types.clone(),
            sizes: new.sizes.clone(),
            reason: new.reason.clone(),
            actor: new.actor.clone(),
            created: new.now,
            prev,
        };
        let hash = row.hash(&self.0.ledger_key);
        sqlx::query(
            "INSERT INTO releases (deploy, number, operation, slug, commit_id, config_version, \
             config_digest, process_types, reason, actor, created, prev, hash, sizes) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
        )
        .bind(deploy)
        .bind(i64::from(number))
        .bind(new.operation.as_str().to_owned())
        .bind(row.slug.0.to_string())
        .bind(row.commit.clone())
        .bind(i64::from(row.config_version))
        .bind(row.config_digest.to_string())
        .bind(to_json(&row.process_types)?)
        .bind(to_json(&row.reason)?)
        .bind(row.actor.clone())
        .bind(micros(row.created))
        .bind(row.prev.to_string())
        .bind(hash.to_string())
        .bind(to_json(&row.sizes)?)
        .execute(&mut *write.tx)
        .await?;
        operations::set_release(self, &mut write.tx, &new.operation, row.number).await?;
        self.commit_append(write, &new.deploy, (last, prev), Some(row.number), hash, None).await?;
        self.release(&new.deploy, ReleaseNumber(number)).await
    }

    /// Commits an append to a ledger, with its anchor around it: `before` is where it ended, `done` the
    /// operation that has ended with it.
    async fn commit_append(
        &self,
        mut write: Write<'_>,
        deploy: &DeployId,
        before: (Option<ReleaseNumber>, Digest),
        last: Option<ReleaseNumber>,
        end: Digest,
        done: Option<&OperationId>,
    ) -> Result<(), Error> {
        let path = path_of(&mut write.tx, deploy).await?;
        let version = self.held_version(&mut write.tx, deploy).await?;
        // Held until the new end is recorded: the next append writes its anchor after that.
        let writer = self.anchor_writer().await;
        let recorded = self.recorded(&path).await?;
        let is_ahead = match &recorded {
            Recorded::At(anchor) if anchor.deploy == *deploy && !anchor.holds(before.1) => {
                let found = Contents::read(&mut write.tx, deploy, false).await?;
                self.judge(deploy, &found, &recorded)?.is_ahead
            }
            _ => false,
        };
        let found = before.0;
        let anchor = match recorded {
            Recorded::Nothing => Anchor::new(deploy),
            Recorded::Missing => return Err(Broken::Unrecorded { found }.into()),
            Recorded::Damaged(why) => return Err(Broken::Record { why, found }.into()),
            Recorded::At(anchor) if anchor.deploy != *deploy => {
                return Err(Broken::OtherDeploy { recorded: anchor.last, found }.into());
            }
            Recorded::At(anchor) if anchor.holds(before.1) || is_ahead => anchor,
            Recorded::At(anchor) => {
                return Err(Broken::End { recorded: anchor.last, found }.into());
            }
        };
        let anchor = Anchor { end: before.1, next: Some(end), last, pinned: false, ..anchor };
        let writer = writer.put(&path, &anchor).await?;
        write.commit().await?;
        if let Some(done) = done {
            self.0.done.raise(deploy, Some(done));
        }
        // Both ends are in it already.
        let (row, done) = (anchor.row.max(version), anchor.done.clone().max(done.cloned()));
        writer.put(&path, &Anchor { end, next: None, row, done, ..anchor }).await.ok();
        Ok(())
    }

    /// Whether a release's row is as it was recorded.
    pub fn is_genuine(&self, release: &Release) -> bool {
        release.row.hash(&self.0.ledger_key) == release.hash
    }

    /// Records how a release turned out and ends its operation. A release that succeeded is the
    /// deploy's current one from here on. What was said of a release first stands.
    ///
    /// # Errors
    ///
    /// The database's.
    #[expect(clippy::too_many_arguments, reason = "one transaction over three tables")]
    pub async fn settle(
        &self,
        operation: &OperationId,
        deploy: &DeployId,
        number: ReleaseNumber,
        outcome: Outcome,
        state: State,
        error: Option<&str>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut write = self.write().await?;
        let said = sqlx::query("SELECT number FROM outcomes WHERE deploy = $1 AND number = $2")
            .bind(deploy.as_str().to_owned())
            .bind(i64::from(number.0))
            .fetch_optional(&mut *write.tx)
            .await?;
        if said.is_some() {
            operations::end(self, &mut write, operation, state, error, now).await?;
            return self.commit_done(write, deploy, operation).await;
        }
        let (last, prev) = end_of(&mut write.tx, deploy).await?;
        let error_text = error.map(str::to_owned);
        let settled = Settled {
            deploy: deploy.clone(),
            number,
            outcome,
            error: error_text,
            ended: now,
            prev,
        };
        let end = put_outcome(&mut write.tx, &self.0.ledger_key, &settled).await?;
        if outcome == Outcome::Succeeded {
            sqlx::query("UPDATE deploys SET current_release = $1 WHERE id = $2")
                .bind(i64::from(number.0))
                .bind(deploy.as_str().to_owned())
                .execute(&mut *write.tx)
                .await?;
        }
        operations::end(self, &mut write, operation, state, error, now).await?;
        self.commit_append(write, deploy, (last, prev), last, end, Some(operation)).await
    }

    /// Begins a deploy anew: nothing of it is current, it has this formation and no sizes, and what was not over
    /// never will be, for `why`. The ledger stays.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn begin_anew(
        &self,
        deploy: &DeployId,
        formation: &Formation,
        why: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let mut write = self.write().await?;
        let row = self.row_to_reset(&mut write.tx, deploy).await?;
        let (last, before) = end_of(&mut write.tx, deploy).await?;
        let pending = sqlx::query(
            "SELECT r.number FROM releases r WHERE r.deploy = $1 AND NOT EXISTS \
             (SELECT 1 FROM outcomes o WHERE o.deploy = r.deploy AND o.number = r.number) \
             ORDER BY r.number",
        )
        .bind(deploy.as_str().to_owned())
        .fetch_all(&mut *write.tx)
        .await?;
        let mut prev = before;
        for row in &pending {
            let settled = Settled {
                deploy: deploy.clone(),
                number: ReleaseNumber(Columns(row).u32("number")?),
                outcome: Outcome::Failed,
                error: Some(why.to_owned()),
                ended: now,
                prev,
            };
            prev = put_outcome(&mut write.tx, &self.0.ledger_key, &settled).await?;
        }
        sqlx::query(
            "UPDATE operations SET state = $1, error = $2, ended = $3, mac = NULL \
             WHERE deploy = $4 AND ended IS NULL",
        )
        .bind(State::Cancelled.as_str())
        .bind(why.to_owned())
        .bind(micros(now))
        .bind(deploy.as_str().to_owned())
        .execute(&mut *write.tx)
        .await?;
        sqlx::query(
            "UPDATE deploys SET current_release = NULL, stopped = 0, formation = $1, sizes = '{}' \
             WHERE id = $2",
        )
        .bind(to_json(formation)?)
        .bind(deploy.as_str().to_owned())
        .execute(&mut *write.tx)
        .await?;
        self.seal_row(&mut write.tx, deploy, &row).await?;
        self.commit_append(write, deploy, (last, before), last, prev, None).await
    }

    /// One release.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn release(
        &self,
        deploy: &DeployId,
        number: ReleaseNumber,
    ) -> Result<Release, Error> {
        let statement = format!("{RELEASE} WHERE r.deploy = $1 AND r.number = $2");
        let row = sqlx::query(&statement)
            .bind(deploy.as_str().to_owned())
            .bind(i64::from(number.0))
            .fetch_optional(self.pool())
            .await?;
        let row =
            row.ok_or_else(|| Error::NotFound { what: "release", name: number.to_string() })?;
        release(&row).map_err(|error| Broken::Unreadable(number, error.to_string()).into())
    }

    /// The releases of a deploy that can be read, the newest first, older than `before`.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn releases(
        &self,
        deploy: &DeployId,
        before: Option<ReleaseNumber>,
        most: usize,
    ) -> Result<Listed<Release>, Error> {
        let statement = format!(
            "{RELEASE} WHERE r.deploy = $1 AND r.number < $2 ORDER BY r.number DESC LIMIT $3"
        );
        let before = before.map_or(i64::MAX, |number| i64::from(number.0));
        let list = List {
            statement: &statement,
            values: &[Value::Text(deploy.as_str()), Value::Number(before)],
            long: &["process_types", "sizes", "reason", "outcome_error"],
        };
        list.page(self, most, |row| Ok(release(row).ok())).await
    }

    /// The slugs that are still needed: those of the last `last` releases of each deploy, of its
    /// current one, and of operations that are not over.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn kept(&self, last: u32) -> Result<BTreeSet<SlugId>, Error> {
        let rows = sqlx::query(
            "SELECT r.slug FROM releases r JOIN deploys d ON d.id = r.deploy \
             WHERE r.number = d.current_release OR r.number > \
                 (SELECT MAX(n.number) FROM releases n WHERE n.deploy = r.deploy) - $1 \
             UNION SELECT slug FROM operations WHERE ended IS NULL AND slug IS NOT NULL",
        )
        .bind(i64::from(last))
        .fetch_all(self.pool())
        .await?;
        // What cannot be read names no slug.
        Ok(rows.iter().filter_map(|row| Some(SlugId(Columns(row).parsed("slug").ok()?))).collect())
    }
}
