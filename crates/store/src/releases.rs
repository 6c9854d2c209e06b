//! The ledger of releases.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sqlx::any::AnyRow;
use tolv_model::formation::Formation;
use tolv_model::id::{DeployId, OperationId};
use tolv_model::ledger::{GENESIS, Row};
use tolv_model::operation::{Outcome, State};
use tolv_model::release::ReleaseNumber;
use tolv_model::slug::{Digest, SlugId};

use crate::config::no_config;
use crate::db::{Columns, Store, limit, micros, to_json};
use crate::error::Error;
use crate::operations;
use crate::types::{NewRelease, Release};

const RELEASE: &str = "SELECT r.*, o.outcome, o.error AS outcome_error, o.ended AS outcome_ended \
    FROM releases r LEFT JOIN outcomes o ON o.deploy = r.deploy AND o.number = r.number ";

fn ledger_row(row: &AnyRow) -> Result<(Row, Digest), Error> {
    let row = Columns(row);
    let found = Row {
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
    };
    Ok((found, row.parsed("hash")?))
}

fn release(any: &AnyRow) -> Result<Release, Error> {
    let (found, hash) = ledger_row(any)?;
    let row = Columns(any);
    let outcome = match row.maybe_text("outcome")?.as_deref() {
        None => Outcome::Pending,
        Some("succeeded") => Outcome::Succeeded,
        Some("failed") => Outcome::Failed,
        Some(other) => return Err(Error::corrupt("outcome")(other.to_owned())),
    };
    Ok(Release {
        row: found,
        hash,
        outcome,
        ended: row.maybe_time("outcome_ended")?,
        error: row.maybe_text("outcome_error")?,
    })
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
            drop(write);
            return self.release(&new.deploy, number).await;
        }
        let last = sqlx::query(
            "SELECT number, hash FROM releases WHERE deploy = $1 ORDER BY number DESC LIMIT 1",
        )
        .bind(deploy.clone())
        .fetch_optional(&mut *write.tx)
        .await?;
        let (number, prev) = match &last {
            None => (1, GENESIS),
            Some(row) => (Columns(row).u32("number")? + 1, Columns(row).parsed("hash")?),
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
        .bind(row.hash().to_string())
        .bind(to_json(&row.sizes)?)
        .execute(&mut *write.tx)
        .await?;
        sqlx::query("UPDATE operations SET release = $1 WHERE id = $2")
            .bind(i64::from(number))
            .bind(new.operation.as_str().to_owned())
            .execute(&mut *write.tx)
            .await?;
        write.commit().await?;
        self.release(&new.deploy, ReleaseNumber(number)).await
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
        let said = sqlx::query(
            "INSERT INTO outcomes (deploy, number, outcome, error, ended) \
             VALUES ($1, $2, $3, $4, $5) ON CONFLICT (deploy, number) DO NOTHING",
        )
        .bind(deploy.as_str().to_owned())
        .bind(i64::from(number.0))
        .bind(outcome.as_str())
        .bind(error.map(str::to_owned))
        .bind(micros(now))
        .execute(&mut *write.tx)
        .await?;
        if outcome == Outcome::Succeeded && said.rows_affected() > 0 {
            sqlx::query("UPDATE deploys SET current_release = $1 WHERE id = $2")
                .bind(i64::from(number.0))
                .bind(deploy.as_str().to_owned())
                .execute(&mut *write.tx)
                .await?;
        }
        operations::end(&mut write.tx, operation, state, error, now).await?;
        write.commit().await
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
        sqlx::query(
            "INSERT INTO outcomes (deploy, number, outcome, error, ended) \
             SELECT r.deploy, r.number, $1, $2, CAST($3 AS BIGINT) FROM releases r \
             WHERE r.deploy = $4 AND NOT EXISTS (SELECT 1 FROM outcomes o \
             WHERE o.deploy = r.deploy AND o.number = r.number)",
        )
        .bind(Outcome::Failed.as_str())
        .bind(why.to_owned())
        .bind(micros(now))
        .bind(deploy.as_str().to_owned())
        .execute(&mut *write.tx)
        .await?;
        sqlx::query(
            "UPDATE operations SET state = $1, error = $2, ended = $3 \
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
        write.commit().await
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
        release(&row.ok_or_else(|| Error::NotFound { what: "release", name: number.to_string() })?)
    }

    /// The releases of a deploy, the newest first, older than `before`.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn releases(
        &self,
        deploy: &DeployId,
        before: Option<ReleaseNumber>,
        most: usize,
    ) -> Result<Vec<Release>, Error> {
        let statement = format!(
            "{RELEASE} WHERE r.deploy = $1 AND r.number < $2 ORDER BY r.number DESC LIMIT $3"
        );
        let rows = sqlx::query(&statement)
            .bind(deploy.as_str().to_owned())
            .bind(before.map_or(i64::MAX, |number| i64::from(number.0)))
            .bind(limit(most))
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(release).collect()
    }

    /// The whole ledger of a deploy: each row with the hash that was stored with it, and the
    /// digest of its config version as that is stored now.
    ///
    /// # Errors
    ///
    /// The database's; [`Error::Corrupt`] for a row that cannot be read at all.
    pub async fn ledger(&self, deploy: &DeployId) -> Result<Vec<(Row, Digest, Digest)>, Error> {
        let rows = sqlx::query(
            "SELECT r.*, c.sealed FROM releases r \
             LEFT JOIN configs c ON c.deploy = r.deploy AND c.version = r.config_version \
             WHERE r.deploy = $1 ORDER BY r.number",
        )
        .bind(deploy.as_str().to_owned())
        .fetch_all(self.pool())
        .await?;
        let read = |row: &AnyRow| {
            let (found, hash) = ledger_row(row)?;
            let sealed = Columns(row).maybe_text("sealed")?.unwrap_or_default();
            Ok((found, hash, Digest::of(sealed.as_bytes())))
        };
        rows.iter().map(read).collect()
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
        rows.iter().map(|row| Ok(SlugId(Columns(row).parsed("slug")?))).collect()
    }
}
