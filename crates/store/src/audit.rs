//! The audit log: who, what, when, and what became of it. Lines are only ever added; each gets its
//! outcome once.

use jiff::{SignedDuration, Timestamp};
use sqlx::any::AnyRow;
use tolv_model::id::AuditId;
use tolv_model::name::AppName;

use crate::columns::{Columns, micros};
use crate::db::{Store, Write};
use crate::error::Error;
use crate::listed::{List, Listed, Value};
use crate::types::AuditLine;

/// The same thing that is read more than once within this time is one line.
const READ_INTERVAL: SignedDuration = SignedDuration::from_mins(1);
/// Behind every id, in every collation of the alphabet that ids have.
const LAST: &str = "aud_zzzzzzzzzzzzzzzzzzzz";

fn line(row: &AnyRow) -> Result<AuditLine, Error> {
    let row = Columns(row);
    Ok(AuditLine {
        id: row.parsed("id")?,
        at: row.time("at")?,
        actor: row.text("actor")?,
        action: row.text("action")?,
        app: row.maybe_text("app")?,
        deploy: row.maybe_text("deploy")?,
        detail: row.text("detail")?,
        outcome: row.maybe_text("outcome")?,
    })
}

/// A line to be added.
pub(crate) struct NewLine<'a> {
    pub(crate) actor: &'a str,
    pub(crate) action: &'a str,
    pub(crate) app: Option<&'a str>,
    pub(crate) deploy: Option<&'a str>,
    pub(crate) detail: &'a str,
}

impl NewLine<'_> {
    /// Adds it; `random` makes its id.
    pub(crate) async fn insert(
        &self,
        write: &mut Write<'_>,
        random: u64,
        now: Timestamp,
    ) -> Result<AuditId, Error> {
        let id = AuditId::new(now, random);
        sqlx::query(
            "INSERT INTO audit (id, at, actor, action, app, deploy, detail) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id.as_str().to_owned())
        .bind(micros(now))
        .bind(self.actor.to_owned())
        .bind(self.action.to_owned())
        .bind(self.app.map(str::to_owned))
        .bind(self.deploy.map(str::to_owned))
        .bind(self.detail.to_owned())
        .execute(&mut *write.tx)
        .await?;
        Ok(id)
    }
}

impl Store {
    /// Adds a line; its outcome is not known yet.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn audit(
        &self,
        actor: &str,
        action: &str,
        app: Option<&str>,
        deploy: Option<&str>,
        detail: &str,
        now: Timestamp,
    ) -> Result<AuditId, Error> {
        let random = self.random()?;
        let mut write = self.write().await?;
        let line = NewLine { actor, action, app, deploy, detail };
        let id = line.insert(&mut write, random, now).await?;
        write.commit().await?;
        Ok(id)
    }

    /// Records the outcome of a line that has none.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn set_audit_outcome(&self, id: &AuditId, outcome: &str) -> Result<(), Error> {
        let mut write = self.write().await?;
        sqlx::query("UPDATE audit SET outcome = $2 WHERE id = $1 AND outcome IS NULL")
            .bind(id.as_str().to_owned())
            .bind(outcome.to_owned())
            .execute(&mut *write.tx)
            .await?;
        write.commit().await
    }

    /// Adds a line about something that was read; of the same one within a minute, the first.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn audit_read(
        &self,
        actor: &str,
        action: &str,
        app: &str,
        deploy: &str,
        detail: &str,
        now: Timestamp,
    ) -> Result<(), Error> {
        let since = AuditId::new(now - READ_INTERVAL, 0);
        let known = sqlx::query(
            "SELECT id FROM audit WHERE app = $1 AND id > $2 AND actor = $3 AND action = $4 \
             AND deploy = $5 AND detail = $6 LIMIT 1",
        )
        .bind(app.to_owned())
        .bind(since.as_str().to_owned())
        .bind(actor.to_owned())
        .bind(action.to_owned())
        .bind(deploy.to_owned())
        .bind(detail.to_owned())
        .fetch_optional(self.pool())
        .await?;
        match known {
            Some(_) => Ok(()),
            None => self.audit(actor, action, Some(app), Some(deploy), detail, now).await.map(drop),
        }
    }

    /// Lines, the newest first, older than `before`; of one app, or of all.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn audit_lines(
        &self,
        app: Option<&AppName>,
        before: Option<&AuditId>,
        most: usize,
    ) -> Result<Listed<AuditLine>, Error> {
        let before = Value::Text(before.map_or(LAST, AuditId::as_str));
        let (statement, values) = match app {
            None => ("SELECT * FROM audit WHERE id < $1 ORDER BY id DESC LIMIT $2", vec![before]),
            Some(app) => (
                "SELECT * FROM audit WHERE app = $1 AND id < $2 ORDER BY id DESC LIMIT $3",
                vec![Value::Text(app.as_str()), before],
            ),
        };
        let list = List { statement, values: &values, long: &["detail", "outcome"] };
        list.page(self, most, |row| line(row).map(Some)).await
    }
}
