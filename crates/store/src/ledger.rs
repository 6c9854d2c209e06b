//! The ledger of a deploy as a whole: what of it does not hold, and what of that was accepted.

use std::collections::BTreeMap;

use sqlx::Row as _;
use sqlx::any::AnyRow;
use tolv_model::id::{DeployId, OperationId};
use tolv_model::ledger::{Broken, GENESIS, Row, Settled, Stored, audit};
use tolv_model::name::Deploy as DeployPath;
use tolv_model::release::ReleaseNumber;
use tolv_model::slug::Digest;

use crate::anchor::{Anchor, MARK, Recorded};
use crate::apps::readable_deploy;
use crate::columns::Columns;
use crate::db::{Store, Transaction};
use crate::error::Error;
use crate::releases::{ledger_row, outcome};
use crate::rows::{DEPLOYS, version_of};

/// How often a ledger is read again because of an append meanwhile; then appends wait.
const MAX_READS: usize = 3;

/// Columns of a release's row, its deploy and number left out.
pub(crate) const RELEASE_COLUMNS: &[&str] = &[
    "operation",
    "slug",
    "commit_id",
    "config_version",
    "config_digest",
    "process_types",
    "sizes",
    "reason",
    "actor",
    "created",
    "prev",
    "hash",
];
/// Those of an outcome.
pub(crate) const OUTCOME_COLUMNS: &[&str] = &["outcome", "error", "ended", "prev", "hash"];

/// A row as it is stored, whatever that means.
fn stored(row: &AnyRow, columns: &[&str]) -> String {
    let shown = |name: &&str| {
        let text: Option<Option<String>> = row.try_get(*name).ok();
        let number: Option<Option<i64>> = row.try_get(*name).ok();
        format!("{name} {text:?} {number:?}\n")
    };
    columns.iter().map(shown).collect()
}

/// What stands for no row at all.
const ABSENT: &str = "";

/// A release's number; what no release can have is the nearest one.
pub(crate) fn number_of(any: &AnyRow) -> Result<ReleaseNumber, Error> {
    let number = Columns(any).number("number")?.clamp(0, i64::from(u32::MAX));
    Ok(ReleaseNumber(u32::try_from(number).unwrap_or(u32::MAX)))
}

/// The hash that is stored with a row, or a digest of the row where that is none.
pub(crate) fn hash_of(any: &AnyRow, columns: &[&str]) -> Digest {
    let hash = Columns(any).parsed("hash");
    hash.unwrap_or_else(|_| Digest::of(stored(any, columns).as_bytes()))
}

fn entry<T>(
    any: &AnyRow,
    contents: Result<T, Error>,
    columns: &[&str],
) -> Result<Stored<T>, Error> {
    let readable = |name| Columns(any).parsed::<Digest>(name);
    let contents = contents.and_then(|contents| readable("hash").map(|_| contents));
    Ok(Stored {
        number: number_of(any)?,
        contents: contents.map_err(|error| error.to_string()),
        prev: readable("prev").ok(),
        hash: hash_of(any, columns),
    })
}

fn outcome_row(any: &AnyRow) -> Result<Settled, Error> {
    let row = Columns(any);
    Ok(Settled {
        deploy: row.parsed("deploy")?,
        number: ReleaseNumber(row.u32("number")?),
        outcome: outcome(&row.text("outcome")?)?,
        error: row.maybe_text("error")?,
        ended: row.time("ended")?,
        prev: row.parsed("prev")?,
    })
}

/// The name of a deploy.
pub(crate) async fn path_of(tx: &mut Transaction, deploy: &DeployId) -> Result<DeployPath, Error> {
    let row = sqlx::query("SELECT app_name, name FROM deploys WHERE id = $1")
        .bind(deploy.as_str().to_owned())
        .fetch_optional(&mut **tx)
        .await?;
    let row = row.ok_or_else(|| Error::NotFound { what: "deploy", name: deploy.to_string() })?;
    let columns = Columns(&row);
    Ok(DeployPath { app: columns.parsed("app_name")?, name: columns.parsed("name")? })
}

/// All that is stored of a ledger.
pub(crate) struct Contents {
    rows: Vec<AnyRow>,
    outcomes: Vec<AnyRow>,
    /// The row of the deploy itself.
    deploy: Option<AnyRow>,
    current: Option<ReleaseNumber>,
    /// Whether the rows have the configs of the releases too.
    has_configs: bool,
}

impl Contents {
    pub(crate) async fn read(
        tx: &mut Transaction,
        deploy: &DeployId,
        has_configs: bool,
    ) -> Result<Self, Error> {
        let select = match has_configs {
            true => {
                "SELECT r.*, c.sealed FROM releases r LEFT JOIN configs c \
                     ON c.deploy = r.deploy AND c.version = r.config_version \
                     WHERE r.deploy = $1 ORDER BY r.number"
            }
            false => "SELECT r.* FROM releases r WHERE r.deploy = $1 ORDER BY r.number",
        };
        let id = deploy.as_str().to_owned();
        let rows = sqlx::query(select).bind(id.clone()).fetch_all(&mut **tx).await?;
        let outcomes = sqlx::query("SELECT * FROM outcomes WHERE deploy = $1 ORDER BY number")
            .bind(id.clone())
            .fetch_all(&mut **tx)
            .await?;
        let deploy = sqlx::query("SELECT * FROM deploys WHERE id = $1")
            .bind(id)
            .fetch_optional(&mut **tx)
            .await?;
        let current = deploy.as_ref().and_then(|row| row.try_get("current_release").ok().flatten());
        let current = current.map(|number: i64| ReleaseNumber(u32::try_from(number).unwrap_or(0)));
        Ok(Self { rows, outcomes, deploy, current, has_configs })
    }
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
    /// Whether a new state folder took it as it was, and [`Store::record_end`] was not called since.
    pub is_adopted: bool,
    /// Whether it continues behind its recorded end, with rows that only this platform can have made.
    pub is_ahead: bool,
    /// Whether the row of the deploy is newer than is recorded; only this platform can have made it.
    pub is_row_ahead: bool,
    is_current: bool,
    /// The version of the deploy's row that is to be recorded.
    row: i64,
    /// The last operation that was done.
    done: Option<OperationId>,
    end: Digest,
    last: Option<ReleaseNumber>,
    /// Of all that is stored of each release, and of its config.
    digests: BTreeMap<ReleaseNumber, Digest>,
    configs: BTreeMap<ReleaseNumber, Digest>,
    /// Configs that were accepted as they are.
    accepted_configs: BTreeMap<ReleaseNumber, Digest>,
}

impl Ledger {
    /// The last release.
    pub fn last(&self) -> Option<ReleaseNumber> {
        self.last
    }

    /// Whether an operator accepted that a release has another config than was recorded, as it is
    /// stored now.
    pub fn has_accepted_config(&self, number: ReleaseNumber, digest: Digest) -> bool {
        self.accepted_configs.get(&number) == Some(&digest)
    }

    fn anchor(&self, deploy: &DeployId) -> Anchor {
        let (end, last, row, done) = (self.end, self.last(), self.row, self.done.clone());
        Anchor { end, last, row, done, ..Anchor::new(deploy) }
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
        let mut reads = 0;
        loop {
            reads += 1;
            let appends_wait = match reads > MAX_READS {
                true => Some(self.anchor_writer().await),
                false => None,
            };
            let mut read = self.read().await?;
            let path = path_of(&mut read, deploy).await?;
            read.finish().await?;
            let before = self.recorded(&path).await?;
            let mut read = self.read().await?;
            let found = Contents::read(&mut read, deploy, configs).await?;
            read.finish().await?;
            // The same anchor before and after: no append finished while the rows were read.
            if appends_wait.is_some() || self.recorded(&path).await? == before {
                return self.judge(deploy, &found, &before);
            }
        }
    }

    /// What holds of a ledger, and what does not.
    pub(crate) fn judge(
        &self,
        deploy: &DeployId,
        found: &Contents,
        recorded: &Recorded,
    ) -> Result<Ledger, Error> {
        let (mut rows, mut settled) = (Vec::new(), Vec::new());
        let mut broken_configs = Vec::new();
        // Of releases up to this one the config versions are not kept.
        let newest = found.rows.last().map(|row| Columns(row).number("number")).transpose()?;
        let forgotten = newest.zip(self.0.keep_releases.get());
        let forgotten = forgotten.map(|(newest, keep)| newest.saturating_sub(i64::from(*keep)));
        let mut raw: BTreeMap<ReleaseNumber, String> = BTreeMap::new();
        let mut configs = BTreeMap::new();
        for any in &found.rows {
            let release = entry(any, ledger_row(any), RELEASE_COLUMNS)?;
            let number = release.number;
            raw.entry(number).or_default().push_str(&stored(any, RELEASE_COLUMNS));
            if found.has_configs
                && let Ok(row) = &release.contents
            {
                let sealed = Columns(any).maybe_text("sealed")?;
                let is_forgotten = sealed.is_none()
                    && forgotten.is_some_and(|last| i64::from(number.0) <= last)
                    && Some(number) != found.current;
                let digest = Digest::of(sealed.unwrap_or_default().as_bytes());
                configs.insert(number, digest);
                if !is_forgotten && digest != row.config_digest {
                    broken_configs.push(Broken::Config(number));
                }
            }
            rows.push(release);
        }
        for any in &found.outcomes {
            let outcome = entry(any, outcome_row(any), OUTCOME_COLUMNS)?;
            raw.entry(outcome.number).or_default().push_str(&stored(any, OUTCOME_COLUMNS));
            settled.push(outcome);
        }
        let audit = audit(&self.0.ledger_key, &rows, &settled);
        let mut broken = audit.broken;
        let is_whole = broken.is_empty();
        broken.extend(broken_configs);
        let last = rows.last().map(|row| row.number);
        let mut is_ahead = false;
        match recorded {
            Recorded::Nothing => {}
            Recorded::Missing => broken.push(Broken::Unrecorded { found: last }),
            Recorded::Damaged(why) => {
                broken.push(Broken::Record { why: why.clone(), found: last });
            }
            Recorded::At(anchor) if anchor.deploy != *deploy => {
                broken.push(Broken::OtherDeploy { recorded: anchor.last, found: last });
            }
            Recorded::At(anchor) if anchor.holds(audit.end) => {}
            Recorded::At(anchor) => {
                let mut hashes = rows
                    .iter()
                    .map(|row| row.hash)
                    .chain(settled.iter().map(|outcome| outcome.hash))
                    .chain([GENESIS]);
                is_ahead = is_whole && !anchor.pinned && hashes.any(|hash| hash == anchor.end);
                if !is_ahead {
                    broken.push(Broken::End { recorded: anchor.last, found: last });
                }
            }
        }
        let fault = found.deploy.as_ref().and_then(|row| self.row_fault(deploy, row, recorded));
        let has_row_fault = fault.is_some();
        broken.extend(fault.map(|why| Broken::Row { why, found: last }));
        if found.current != audit.current {
            let (recorded, found) = (audit.current, found.current);
            broken.push(Broken::Current { recorded, found });
        }
        let digests: BTreeMap<_, _> =
            raw.into_iter().map(|(n, text)| (n, Digest::of(text.as_bytes()))).collect();
        let anchor = match recorded {
            Recorded::At(anchor) if anchor.deploy == *deploy => Some(anchor),
            _ => None,
        };
        let known = anchor.map_or(0, |anchor| anchor.row);
        let held = found.deploy.as_ref().filter(|row| DEPLOYS.holds(self, row));
        let row = held.map_or(0, version_of).max(known);
        let absent = Digest::of(ABSENT.as_bytes());
        let is_accepted = |broken: &Broken| {
            let (number, Some(anchor)) = (broken.release(), anchor) else { return false };
            match broken {
                Broken::Config(_) => anchor.accepted_configs.get(&number) == configs.get(&number),
                Broken::Current { .. } => false,
                broken if broken.is_of_end() => false,
                _ => anchor.accepted.get(&number) == Some(digests.get(&number).unwrap_or(&absent)),
            }
        };
        let (accepted, mut broken): (Vec<_>, Vec<_>) = broken.into_iter().partition(is_accepted);
        broken.sort_by_key(Broken::release);
        let accepted_configs = anchor.map(|anchor| anchor.accepted_configs.clone());
        let readable = |row: Stored<Row>| Some((row.contents.ok()?, row.hash));
        Ok(Ledger {
            rows: rows.into_iter().filter_map(readable).collect(),
            broken,
            accepted,
            current: audit.current,
            is_adopted: anchor.is_some_and(|anchor| anchor.adopted),
            is_ahead,
            is_row_ahead: anchor.is_some() && !has_row_fault && row > known,
            row,
            done: anchor.and_then(|anchor| anchor.done.clone()),
            is_current: found.current == audit.current,
            end: audit.end,
            last,
            digests,
            configs,
            accepted_configs: accepted_configs.unwrap_or_default(),
        })
    }

    /// Takes a ledger as it is: from here on it ends where it ends now, what does not hold in it now
    /// is accepted for as long as it stays so, and the last release that succeeded is current. The rows
    /// of the deploy and of its app are this platform's from here on.
    ///
    /// # Errors
    ///
    /// The database's; [`Error::Anchor`]; [`Error::Corrupt`] where the deploy's row cannot be read.
    pub async fn accept_ledger(&self, deploy: &DeployId) -> Result<Ledger, Error> {
        let mut write = self.write().await?;
        let path = path_of(&mut write.tx, deploy).await?;
        let found = Contents::read(&mut write.tx, deploy, true).await?;
        let writer = self.anchor_writer().await;
        let ledger = self.judge(deploy, &found, &self.recorded(&path).await?)?;
        let absent = Digest::of(ABSENT.as_bytes());
        let (mut accepted, mut accepted_configs) = (BTreeMap::new(), BTreeMap::new());
        for broken in ledger.broken.iter().chain(&ledger.accepted) {
            let number = broken.release();
            match broken {
                Broken::Config(_) => {
                    accepted_configs.extend(ledger.configs.get(&number).map(|it| (number, *it)));
                }
                Broken::Row { .. } => {}
                _ => {
                    let digest = ledger.digests.get(&number).unwrap_or(&absent);
                    accepted.insert(number, *digest);
                }
            }
        }
        if !ledger.is_current {
            sqlx::query("UPDATE deploys SET current_release = $1 WHERE id = $2")
                .bind(ledger.current.map(|number| i64::from(number.0)))
                .bind(deploy.as_str().to_owned())
                .execute(&mut *write.tx)
                .await?;
        }
        let mut row = ledger.row;
        if let Some(found) = &found.deploy {
            let app = readable_deploy(found)?.app;
            row = row.max(version_of(found)).saturating_add(1);
            self.seal_row_as(&mut write.tx, deploy, row).await?;
            self.accept_app(&mut write.tx, &app, &path.app).await?;
        }
        let anchor =
            Anchor { accepted, accepted_configs, pinned: true, row, ..ledger.anchor(deploy) };
        let _writer = writer.put(&path, &anchor).await?;
        write.commit().await?;
        Ok(ledger)
    }

    /// Records that a ledger which was adopted, or is ahead of its recorded end, ends where it does, and
    /// a row that is ahead. Any other is left as it is.
    ///
    /// # Errors
    ///
    /// The database's; [`Error::Anchor`].
    pub async fn record_end(&self, deploy: &DeployId) -> Result<(), Error> {
        let mut write = self.write().await?;
        let path = path_of(&mut write.tx, deploy).await?;
        let found = Contents::read(&mut write.tx, deploy, false).await?;
        let writer = self.anchor_writer().await;
        let recorded = self.recorded(&path).await?;
        let ledger = self.judge(deploy, &found, &recorded)?;
        let Recorded::At(anchor) = recorded else { return Ok(()) };
        let row = if ledger.is_row_ahead { ledger.row } else { anchor.row };
        let anchor = match (ledger.is_ahead, ledger.is_adopted || ledger.is_row_ahead) {
            (true, _) => Anchor {
                accepted: anchor.accepted,
                accepted_configs: anchor.accepted_configs,
                row,
                ..ledger.anchor(deploy)
            },
            (false, true) => Anchor { adopted: false, row, ..anchor },
            (false, false) => return Ok(()),
        };
        writer.put(&path, &anchor).await.map(drop)
    }

    /// Takes every ledger as it is, where the state folder records none yet: it is new.
    pub(crate) async fn adopt_ledgers(&self) -> Result<(), Error> {
        if !self.is_unmarked(MARK).await? {
            return self.mark_database().await;
        }
        let rows = sqlx::query("SELECT id FROM deploys ORDER BY id").fetch_all(self.pool()).await?;
        for row in &rows {
            match self.adopt_ledger(&Columns(row).parsed("id")?).await {
                // Skips a deploy whose row cannot be read, or that was destroyed meanwhile.
                Ok(()) | Err(Error::Corrupt { .. } | Error::NotFound { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let database = self.identity().await?.map(|database| database.to_string());
        let writer = self.anchor_writer().await;
        writer.mark(MARK, &database.unwrap_or_default()).await.map(drop)
    }

    async fn adopt_ledger(&self, deploy: &DeployId) -> Result<(), Error> {
        let mut write = self.write().await?;
        let path = path_of(&mut write.tx, deploy).await?;
        let found = Contents::read(&mut write.tx, deploy, false).await?;
        let writer = self.anchor_writer().await;
        let recorded = self.recorded(&path).await?;
        if recorded != Recorded::Nothing {
            return Ok(());
        }
        let ledger = self.judge(deploy, &found, &recorded)?;
        let adopted = ledger.last.is_some();
        writer.put(&path, &Anchor { adopted, ..ledger.anchor(deploy) }).await.map(drop)
    }
}
