//! The ledger of releases.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use sqlx::any::AnyRow;
use sqlx::{Any, Row as _, Transaction};
use tolv_model::formation::Formation;
use tolv_model::id::{DeployId, OperationId};
use tolv_model::ledger::{Broken, GENESIS, Row, Settled, audit};
use tolv_model::operation::{Outcome, State};
use tolv_model::release::ReleaseNumber;
use tolv_model::slug::{Digest, SlugId};

use crate::anchor::Anchor;
use crate::config::no_config;
use crate::db::{Columns, Store, Write, limit, micros, to_json};
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

/// Columns of a release's row, its deploy and number left out.
const RELEASE_COLUMNS: &[&str] = &[
    "operation",
    "slug",
    "commit_id",
    "config_version",
    "config_digest",
    "process_types",
    "reason",
    "actor",
    "created",
    "prev",
    "hash",
    "sealed",
];
/// Those of an outcome.
const OUTCOME_COLUMNS: &[&str] = &["outcome", "error", "ended", "prev", "hash"];

/// A row as it is stored, whatever that means.
fn stored(row: &AnyRow, columns: &[&str]) -> String {
    let shown = |name: &&str| {
        let text: Option<Option<String>> = row.try_get(*name).ok();
        let number: Option<Option<i64>> = row.try_get(*name).ok();
        format!("{name} {text:?} {number:?}\n")
    };
    columns.iter().map(shown).collect()
}

fn outcome_row(any: &AnyRow) -> Result<(Settled, Digest), Error> {
    let row = Columns(any);
    let settled = Settled {
        deploy: row.parsed("deploy")?,
        number: ReleaseNumber(row.u32("number")?),
        outcome: outcome(&row.text("outcome")?)?,
        error: row.maybe_text("error")?,
        ended: row.time("ended")?,
        prev: row.parsed("prev")?,
    };
    Ok((settled, row.parsed("hash")?))
}

fn outcome(text: &str) -> Result<Outcome, Error> {
    match text {
        "succeeded" => Ok(Outcome::Succeeded),
        "failed" => Ok(Outcome::Failed),
        other => Err(Error::corrupt("outcome")(other.to_owned())),
    }
}

/// The last release of a ledger, and the hash of what was appended last.
async fn end_of(
    tx: &mut Transaction<'static, Any>,
    deploy: &DeployId,
) -> Result<(Option<ReleaseNumber>, Digest), Error> {
    let last = sqlx::query(
        "SELECT number, hash FROM releases WHERE deploy = $1 ORDER BY number DESC LIMIT 1",
    )
    .bind(deploy.as_str().to_owned())
    .fetch_optional(&mut **tx)
    .await?;
    let Some(row) = last else { return Ok((None, GENESIS)) };
    let number = ReleaseNumber(Columns(&row).u32("number")?);
    let mut end: Digest = Columns(&row).parsed("hash")?;
    // Each is behind another: a chain without an end is one that was forged.
    for _ in 0..=number.0 {
        let next = sqlx::query("SELECT hash FROM outcomes WHERE deploy = $1 AND prev = $2")
            .bind(deploy.as_str().to_owned())
            .bind(end.to_string())
            .fetch_optional(&mut **tx)
            .await?;
        match next {
            Some(row) => end = Columns(&row).parsed("hash")?,
            None => return Ok((Some(number), end)),
        }
    }
    Err(Broken::Outcome(number).into())
}

async fn put_outcome(
    tx: &mut Transaction<'static, Any>,
    settled: &Settled,
) -> Result<Digest, Error> {
    let hash = settled.hash();
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

/// A whole ledger, and what an audit of it found.
#[derive(Clone, Debug)]
pub struct Ledger {
    /// The rows that can be read, by number, with the hash that was stored with each.
    pub rows: Vec<(Row, Digest)>,
    /// What does not hold.
    pub broken: Vec<Broken>,
    /// What does not hold and was accepted as it is.
    pub accepted: Vec<Broken>,
    /// The last release that succeeded.
    pub current: Option<ReleaseNumber>,
    /// Whether it is known where the ledger was left.
    pub anchored: bool,
    is_current: bool,
    end: Digest,
    /// Of all that is stored of each release.
    digests: BTreeMap<ReleaseNumber, Digest>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            broken: Vec::new(),
            accepted: Vec::new(),
            current: None,
            anchored: false,
            is_current: true,
            end: GENESIS,
            digests: BTreeMap::new(),
        }
    }
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
        let (last, prev) = end_of(&mut write.tx, &new.deploy).await?;
        let number = last.map_or(1, |last| last.0 + 1);
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
            reason: new.reason.clone(),
            actor: new.actor.clone(),
            created: new.now,
            prev,
        };
        sqlx::query(
            "INSERT INTO releases (deploy, number, operation, slug, commit_id, config_version, \
             config_digest, process_types, reason, actor, created, prev, hash) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
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
        .execute(&mut *write.tx)
        .await?;
        sqlx::query("UPDATE operations SET release = $1 WHERE id = $2")
            .bind(i64::from(number))
            .bind(new.operation.as_str().to_owned())
            .execute(&mut *write.tx)
            .await?;
        self.commit_append(write, &new.deploy, (last, prev), Some(row.number), row.hash()).await?;
        self.release(&new.deploy, ReleaseNumber(number)).await
    }

    /// Commits an append to a ledger, with its anchor around it: `before` is where it ended.
    async fn commit_append(
        &self,
        write: Write<'_>,
        deploy: &DeployId,
        before: (Option<ReleaseNumber>, Digest),
        last: Option<ReleaseNumber>,
        end: Digest,
    ) -> Result<(), Error> {
        let accepted = match self.anchor(deploy)? {
            Some(anchor) if !anchor.holds(before.1) => {
                return Err(Broken::End { recorded: anchor.last, found: before.0 }.into());
            }
            Some(anchor) => anchor.accepted,
            None => BTreeMap::new(),
        };
        let mut anchor = Anchor { end: before.1, next: Some(end), last, accepted };
        self.set_anchor(deploy, &anchor)?;
        write.commit().await?;
        (anchor.end, anchor.next) = (end, None);
        // Both ends are in it already.
        self.set_anchor(deploy, &anchor).ok();
        Ok(())
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
            operations::end(&mut write.tx, operation, state, error, now).await?;
            return write.commit().await;
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
        let end = put_outcome(&mut write.tx, &settled).await?;
        if outcome == Outcome::Succeeded {
            sqlx::query("UPDATE deploys SET current_release = $1 WHERE id = $2")
                .bind(i64::from(number.0))
                .bind(deploy.as_str().to_owned())
                .execute(&mut *write.tx)
                .await?;
        }
        operations::end(&mut write.tx, operation, state, error, now).await?;
        self.commit_append(write, deploy, (last, prev), last, end).await
    }

    /// Begins a deploy anew: nothing of it is current, it has this formation, and what was not over
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
            prev = put_outcome(&mut write.tx, &settled).await?;
        }
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
            "UPDATE deploys SET current_release = NULL, stopped = 0, formation = $1 WHERE id = $2",
        )
        .bind(to_json(formation)?)
        .bind(deploy.as_str().to_owned())
        .execute(&mut *write.tx)
        .await?;
        self.commit_append(write, deploy, (last, before), last, prev).await
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

    /// The whole ledger of a deploy, and everything in it that does not hold. With `configs` each
    /// release's config is held against its digest too.
    ///
    /// # Errors
    ///
    /// The database's; [`Error::Anchor`]. A ledger that does not hold is none.
    pub async fn ledger(&self, deploy: &DeployId, configs: bool) -> Result<Ledger, Error> {
        // A transaction that writes: nothing is appended while it is read.
        let mut write = self.write().await?;
        let select = match configs {
            true => {
                "SELECT r.*, c.sealed FROM releases r LEFT JOIN configs c \
                     ON c.deploy = r.deploy AND c.version = r.config_version \
                     WHERE r.deploy = $1 ORDER BY r.number"
            }
            false => "SELECT r.* FROM releases r WHERE r.deploy = $1 ORDER BY r.number",
        };
        let id = deploy.as_str().to_owned();
        let rows = sqlx::query(select).bind(id.clone()).fetch_all(&mut *write.tx).await?;
        let outcomes = sqlx::query("SELECT * FROM outcomes WHERE deploy = $1 ORDER BY number")
            .bind(id.clone())
            .fetch_all(&mut *write.tx)
            .await?;
        let current = sqlx::query("SELECT current_release FROM deploys WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut *write.tx)
            .await?;
        let anchor = self.anchor(deploy)?;
        drop(write);
        let mut ledger = Ledger { anchored: anchor.is_some(), ..Ledger::default() };
        let mut raw: BTreeMap<ReleaseNumber, String> = BTreeMap::new();
        for any in &rows {
            let row = Columns(any);
            let number = ReleaseNumber(row.u32("number")?);
            raw.entry(number).or_default().push_str(&stored(any, RELEASE_COLUMNS));
            match ledger_row(any) {
                Ok((found, hash)) => {
                    if configs {
                        let sealed = row.maybe_text("sealed")?.unwrap_or_default();
                        if Digest::of(sealed.as_bytes()) != found.config_digest {
                            ledger.broken.push(Broken::Config(number));
                        }
                    }
                    ledger.rows.push((found, hash));
                }
                Err(error) => {
                    ledger.broken.push(Broken::Unreadable(number, error.to_string()));
                }
            }
        }
        let mut settled = Vec::new();
        for any in &outcomes {
            let number = ReleaseNumber(Columns(any).u32("number")?);
            raw.entry(number).or_default().push_str(&stored(any, OUTCOME_COLUMNS));
            match outcome_row(any) {
                Ok(outcome) => settled.push(outcome),
                Err(_) => ledger.broken.push(Broken::Outcome(number)),
            }
        }
        let audit = audit(&ledger.rows, &settled);
        ledger.broken.extend(audit.broken);
        ledger.current = audit.current;
        let last = ledger.rows.last().map(|(row, _)| row.number);
        if let Some(anchor) = &anchor
            && !anchor.holds(audit.end)
        {
            ledger.broken.push(Broken::End { recorded: anchor.last, found: last });
        }
        let found = current.as_ref().and_then(|row| row.try_get("current_release").ok().flatten());
        let found = found.map(|number: i64| ReleaseNumber(u32::try_from(number).unwrap_or(0)));
        ledger.is_current = found == audit.current;
        if found != audit.current {
            ledger.broken.push(Broken::Current { recorded: audit.current, found });
        }
        ledger.end = audit.end;
        ledger.digests =
            raw.into_iter().map(|(n, text)| (n, Digest::of(text.as_bytes()))).collect();
        if let Some(anchor) = anchor {
            let accepted = |broken: &Broken| {
                let number = broken.release();
                let stored = ledger.digests.get(&number);
                !matches!(broken, Broken::End { .. } | Broken::Current { .. })
                    && stored.is_some()
                    && anchor.accepted.get(&number) == stored
            };
            let (known, broken) = ledger.broken.into_iter().partition(accepted);
            (ledger.accepted, ledger.broken) = (known, broken);
        }
        ledger.broken.sort_by_key(Broken::release);
        Ok(ledger)
    }

    /// Takes a ledger as it is: from here on it ends where it ends now, what does not hold in it now
    /// is accepted for as long as it stays so, and the last release that succeeded is current.
    ///
    /// # Errors
    ///
    /// The database's; [`Error::Anchor`].
    pub async fn accept_ledger(&self, deploy: &DeployId) -> Result<Ledger, Error> {
        let ledger = self.ledger(deploy, true).await?;
        let broken = ledger.broken.iter().chain(&ledger.accepted).map(Broken::release);
        let accepted = broken
            .filter_map(|number| Some((number, *ledger.digests.get(&number)?)))
            .collect::<BTreeMap<_, _>>();
        let last = ledger.rows.last().map(|(row, _)| row.number);
        self.set_anchor(deploy, &Anchor { end: ledger.end, next: None, last, accepted })?;
        if !ledger.is_current {
            let mut write = self.write().await?;
            sqlx::query("UPDATE deploys SET current_release = $1 WHERE id = $2")
                .bind(ledger.current.map(|number| i64::from(number.0)))
                .bind(deploy.as_str().to_owned())
                .execute(&mut *write.tx)
                .await?;
            write.commit().await?;
        }
        Ok(ledger)
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
