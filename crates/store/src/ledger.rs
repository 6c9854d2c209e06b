//! The ledger of a deploy as a whole: what of it does not hold, and what of that was accepted.

use std::collections::BTreeMap;

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tolv_model::id::DeployId;
use tolv_model::ledger::{Broken, GENESIS, Row, Settled, audit};
use tolv_model::release::ReleaseNumber;
use tolv_model::slug::Digest;

use crate::anchor::Anchor;
use crate::db::{Columns, Store};
use crate::error::Error;
use crate::releases::{ledger_row, outcome};

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
        write.rollback().await?;
        let mut ledger = Ledger { anchored: anchor.is_some(), ..Ledger::default() };
        let current_number: Option<i64> =
            current.as_ref().and_then(|row| row.try_get("current_release").ok().flatten());
        // Of releases up to this one the config versions are not kept.
        let newest = rows.last().map(|row| Columns(row).number("number")).transpose()?;
        let forgotten = newest.zip(self.0.keep_releases.get());
        let forgotten = forgotten.map(|(newest, keep)| newest - i64::from(*keep));
        let mut raw: BTreeMap<ReleaseNumber, String> = BTreeMap::new();
        for any in &rows {
            let row = Columns(any);
            let number = ReleaseNumber(row.u32("number")?);
            raw.entry(number).or_default().push_str(&stored(any, RELEASE_COLUMNS));
            match ledger_row(any) {
                Ok((found, hash)) => {
                    if configs {
                        let sealed = row.maybe_text("sealed")?;
                        let is_forgotten = sealed.is_none()
                            && forgotten.is_some_and(|last| i64::from(number.0) <= last)
                            && Some(i64::from(number.0)) != current_number;
                        let sealed = sealed.unwrap_or_default();
                        if !is_forgotten && Digest::of(sealed.as_bytes()) != found.config_digest {
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
        let found = current_number.map(|number| ReleaseNumber(u32::try_from(number).unwrap_or(0)));
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
}
