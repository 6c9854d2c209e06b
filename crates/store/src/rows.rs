//! The rows of apps and deploys: each has a code over every column that decides something.
//!
//! What is read is checked first. A deploy's row has a version besides, which grows with each change,
//! and the deploy's anchor has the last one: a row of an earlier time that was put back has a code
//! that holds, and a version that does not.
//!
//! ```text
//!  change, version + 1, code ──▶ commit ──▶ anchor: the version
//! ```
//!
//! A crash in between leaves a row that is ahead of its anchor: only this platform can have made it.
//! The current release is not in the code, for it is in the chain of the ledger.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sqlx::any::AnyRow;
use tolv_model::id::{AppId, DeployId, OperationId};
use tolv_model::ledger::Broken;
use tolv_model::name::{AppName, Deploy as DeployPath};

use crate::anchor::{Anchor, Recorded};
use crate::columns::Columns;
use crate::db::{Store, Transaction, Write};
use crate::error::Error;
use crate::ledger::path_of;
use crate::row_mac::Authenticated;

pub(crate) const APPS: Authenticated = Authenticated {
    table: "apps",
    texts: &["id", "name", "roots", "buildpacks"],
    numbers: &["created"],
    families: &[&["id", "name", "created", "root"], &["roots"], &["buildpacks"]],
    later: &["root"],
};

pub(crate) const DEPLOYS: Authenticated = Authenticated {
    table: "deploys",
    texts: &["id", "app", "app_name", "name", "host", "branch", "formation", "sizes", "stack"],
    numbers: &["created", "config_version", "stopped", "row_version"],
    families: &[
        &["id", "app", "app_name", "name", "created"],
        &["host"],
        &["branch"],
        &["formation"],
        &["sizes"],
        &["stack"],
        &["stopped"],
        &["config_version"],
        &["row_version"],
    ],
    later: &[],
};

/// The file that says, and the name under which the database says, that every row has a code.
const MARK: &str = "rows";

/// Characters of a stored name that an error shows.
const MAX_SHOWN: usize = 64;

/// A row of an app, as an error.
pub(crate) fn forged_app(store: &Store, row: &AnyRow) -> Error {
    let name = shown(&Columns(row).text("name").unwrap_or_default());
    Error::Forged { what: "app", name, why: APPS.changed(store, row) }
}

/// The same of a deploy.
pub(crate) fn forged_deploy(store: &Store, row: &AnyRow) -> Error {
    Error::Forged { what: "deploy", name: shown(&path_text(row)), why: DEPLOYS.changed(store, row) }
}

/// A name as it is stored, which may be any text, for people.
fn shown(name: &str) -> String {
    name.chars().take(MAX_SHOWN).flat_map(char::escape_debug).collect()
}

/// The path of a deploy as it is stored.
pub(crate) fn path_text(row: &AnyRow) -> String {
    let text = |name| Columns(row).text(name).unwrap_or_default();
    format!("{}/{}", text("app_name"), text("name"))
}

/// The version of a deploy's row.
pub(crate) fn version_of(row: &AnyRow) -> i64 {
    Columns(row).number("row_version").unwrap_or_default()
}

async fn fetch_deploy(tx: &mut Transaction, id: &DeployId) -> Result<AnyRow, Error> {
    let row = sqlx::query("SELECT * FROM deploys WHERE id = $1")
        .bind(id.as_str().to_owned())
        .fetch_optional(&mut **tx)
        .await?;
    row.ok_or_else(|| Error::NotFound { what: "deploy", name: id.to_string() })
}

/// The last operation of each deploy that was done, once it is known.
#[derive(Default)]
pub(crate) struct Done(Mutex<HashMap<DeployId, Option<OperationId>>>);

impl Done {
    fn all(&self) -> MutexGuard<'_, HashMap<DeployId, Option<OperationId>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, deploy: &DeployId) -> Option<Option<OperationId>> {
        self.all().get(deploy).cloned()
    }

    /// None before this one is done again.
    pub(crate) fn raise(&self, deploy: &DeployId, operation: Option<&OperationId>) {
        let mut all = self.all();
        let known = all.entry(deploy.clone()).or_default();
        if known.as_ref() < operation {
            *known = operation.cloned();
        }
    }

    pub(crate) fn forget(&self, deploy: &DeployId) {
        self.all().remove(deploy);
    }
}

/// A deploy's row before it is changed.
pub(crate) struct RowBefore {
    pub(crate) path: DeployPath,
    version: i64,
}

impl Store {
    /// What is wrong with the row of a deploy; nothing where it is as this platform left it.
    pub(crate) fn row_fault(
        &self,
        deploy: &DeployId,
        row: &AnyRow,
        recorded: &Recorded,
    ) -> Option<String> {
        if !DEPLOYS.holds(self, row) {
            let why = DEPLOYS.changed(self, row);
            return Some(format!("was changed outside of the platform: {why}"));
        }
        match recorded {
            Recorded::At(anchor) if anchor.deploy == *deploy && version_of(row) < anchor.row => {
                Some("is one of an earlier time that was put back".to_owned())
            }
            _ => None,
        }
    }

    /// Begins a change of a deploy's row, which has to be as this platform left it.
    ///
    /// # Errors
    ///
    /// [`Error::Forged`]; [`Broken::Row`] of a row that was put back.
    pub(crate) async fn row_to_change(
        &self,
        tx: &mut Transaction,
        id: &DeployId,
    ) -> Result<RowBefore, Error> {
        let (row, recorded, before) = self.row_before(tx, id).await?;
        match self.row_fault(id, &row, &recorded) {
            Some(why) => Err(Broken::Row { why, found: None }.into()),
            None => Ok(before),
        }
    }

    /// Begins a change of a deploy's row that leaves nothing of what it says: one of an earlier time
    /// will do.
    ///
    /// # Errors
    ///
    /// [`Error::Forged`].
    pub(crate) async fn row_to_reset(
        &self,
        tx: &mut Transaction,
        id: &DeployId,
    ) -> Result<RowBefore, Error> {
        let (_, recorded, mut before) = self.row_before(tx, id).await?;
        if let Recorded::At(anchor) = recorded
            && anchor.deploy == *id
        {
            before.version = before.version.max(anchor.row);
        }
        Ok(before)
    }

    async fn row_before(
        &self,
        tx: &mut Transaction,
        id: &DeployId,
    ) -> Result<(AnyRow, Recorded, RowBefore), Error> {
        let row = fetch_deploy(tx, id).await?;
        if !DEPLOYS.holds(self, &row) {
            return Err(forged_deploy(self, &row));
        }
        let columns = Columns(&row);
        let path = DeployPath { app: columns.parsed("app_name")?, name: columns.parsed("name")? };
        let recorded = self.recorded(&path).await?;
        let before = RowBefore { path, version: version_of(&row) };
        Ok((row, recorded, before))
    }

    /// The version of a deploy's row that holds; 0 of one that does not.
    pub(crate) async fn held_version(
        &self,
        tx: &mut Transaction,
        id: &DeployId,
    ) -> Result<i64, Error> {
        let row = fetch_deploy(tx, id).await?;
        Ok(if DEPLOYS.holds(self, &row) { version_of(&row) } else { 0 })
    }

    /// Gives a deploy's row the next version and its code, after it was changed.
    pub(crate) async fn seal_row(
        &self,
        tx: &mut Transaction,
        id: &DeployId,
        before: &RowBefore,
    ) -> Result<i64, Error> {
        self.seal_row_as(tx, id, before.version.saturating_add(1)).await
    }

    /// Gives a deploy's row this version and its code.
    pub(crate) async fn seal_row_as(
        &self,
        tx: &mut Transaction,
        id: &DeployId,
        version: i64,
    ) -> Result<i64, Error> {
        let text = id.as_str().to_owned();
        sqlx::query("UPDATE deploys SET row_version = $1 WHERE id = $2")
            .bind(version)
            .bind(text.clone())
            .execute(&mut **tx)
            .await?;
        let row = fetch_deploy(tx, id).await?;
        sqlx::query("UPDATE deploys SET mac = $1 WHERE id = $2")
            .bind(DEPLOYS.mac_of(self, &row))
            .bind(text)
            .execute(&mut **tx)
            .await?;
        Ok(version)
    }

    /// Gives an app's row its code.
    pub(crate) async fn seal_app(&self, tx: &mut Transaction, id: &AppId) -> Result<(), Error> {
        let row = sqlx::query("SELECT * FROM apps WHERE id = $1")
            .bind(id.as_str().to_owned())
            .fetch_optional(&mut **tx)
            .await?
            .ok_or_else(|| Error::NotFound { what: "app", name: id.to_string() })?;
        sqlx::query("UPDATE apps SET mac = $1 WHERE id = $2")
            .bind(APPS.mac_of(self, &row))
            .bind(id.as_str().to_owned())
            .execute(&mut **tx)
            .await?;
        Ok(())
    }

    /// Takes the row of an app as it is, where it has this name.
    pub(crate) async fn accept_app(
        &self,
        tx: &mut Transaction,
        id: &AppId,
        name: &AppName,
    ) -> Result<(), Error> {
        let found = sqlx::query("SELECT id FROM apps WHERE id = $1 AND name = $2")
            .bind(id.as_str().to_owned())
            .bind(name.as_str().to_owned())
            .fetch_optional(&mut **tx)
            .await?;
        match found {
            Some(_) => self.seal_app(tx, id).await,
            None => Ok(()),
        }
    }

    /// Commits a change of a deploy's row, and records its version outside the database.
    pub(crate) async fn commit_row(
        &self,
        write: Write<'_>,
        id: &DeployId,
        path: &DeployPath,
        version: i64,
    ) -> Result<(), Error> {
        let writer = self.anchor_writer().await;
        write.commit().await?;
        if let Ok(Recorded::At(anchor)) = self.recorded(path).await
            && anchor.deploy == *id
            && anchor.row < version
        {
            // What cannot be written now is written with the next change, or at the next start.
            writer.put(path, &Anchor { row: version, ..anchor }).await.ok();
        }
        Ok(())
    }

    /// Commits the end of an operation, and records outside the database that it is done.
    pub(crate) async fn commit_done(
        &self,
        mut write: Write<'_>,
        id: &DeployId,
        operation: &OperationId,
    ) -> Result<(), Error> {
        let path = match path_of(&mut write.tx, id).await {
            Ok(path) => Some(path),
            // Its row cannot be read, or is gone.
            Err(Error::Corrupt { .. } | Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let writer = self.anchor_writer().await;
        write.commit().await?;
        self.0.done.raise(id, Some(operation));
        if let Some(path) = path
            && let Ok(Recorded::At(anchor)) = self.recorded(&path).await
            && anchor.deploy == *id
            && anchor.done.as_ref().is_none_or(|done| done < operation)
        {
            // What cannot be written now is written with the next one.
            let done = Some(operation.clone());
            writer.put(&path, &Anchor { done, ..anchor }).await.ok();
        }
        Ok(())
    }

    /// The last operation of a deploy that was done, as far as the state folder knows. It is read once:
    /// only this platform writes it.
    pub(crate) async fn done(
        &self,
        tx: &mut Transaction,
        id: &DeployId,
    ) -> Result<Option<OperationId>, Error> {
        if let Some(done) = self.0.done.get(id) {
            return Ok(done);
        }
        let path = match path_of(tx, id).await {
            Ok(path) => path,
            Err(Error::Corrupt { .. } | Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error),
        };
        let done = match self.recorded(&path).await? {
            Recorded::At(anchor) if anchor.deploy == *id => anchor.done,
            _ => None,
        };
        self.0.done.raise(id, done.as_ref());
        Ok(done)
    }

    /// Changes one column of a deploy.
    pub(crate) async fn change_row<'q>(
        &self,
        id: &DeployId,
        change: sqlx::query::Query<'q, sqlx::Any, sqlx::any::AnyArguments<'q>>,
    ) -> Result<(), Error> {
        let mut write = self.write().await?;
        let before = self.row_to_change(&mut write.tx, id).await?;
        change.bind(id.as_str().to_owned()).execute(&mut *write.tx).await?;
        let version = self.seal_row(&mut write.tx, id, &before).await?;
        self.commit_row(write, id, &before.path, version).await
    }

    /// Gives the rows of an older database, which have no codes, theirs; once. That it was done is
    /// known to the state folder and to the database: neither alone brings it about again.
    pub(crate) async fn adopt_rows(&self) -> Result<(), Error> {
        if !self.is_unmarked(MARK).await? {
            return Ok(());
        }
        let mut write = self.write().await?;
        let done = sqlx::query("SELECT value FROM meta WHERE name = $1")
            .bind(MARK)
            .fetch_optional(&mut *write.tx)
            .await?;
        if done.is_none() {
            for (table, update) in [
                (&APPS, "UPDATE apps SET mac = $1 WHERE id = $2"),
                (&DEPLOYS, "UPDATE deploys SET mac = $1 WHERE id = $2"),
            ] {
                let select = format!("SELECT * FROM {} WHERE mac IS NULL", table.table);
                for row in &sqlx::query(&select).fetch_all(&mut *write.tx).await? {
                    sqlx::query(update)
                        .bind(table.mac_of(self, row))
                        .bind(Columns(row).text("id")?)
                        .execute(&mut *write.tx)
                        .await?;
                }
            }
            sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2)")
                .bind(MARK)
                .bind(self.seal(MARK, MARK.as_bytes())?)
                .execute(&mut *write.tx)
                .await?;
        }
        write.commit().await?;
        self.anchor_writer().await.mark(MARK, "").await.map(drop)
    }
}
