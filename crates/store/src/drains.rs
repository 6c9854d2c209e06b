//! Drains: where a deploy's lines go besides, and how far each has come.
//!
//! Who knows a drain's URL may write to its receiver: it is sealed, bound to its drain and deploy. What is
//! sealed also says whether a platform admin added the drain, so that nobody else can say so. A drain that
//! was removed, and whose row was put back, stays removed: its id is known outside the database.

use jiff::Timestamp;
use sqlx::any::AnyRow;
use tolv_model::id::{DeployId, DrainId};
use tolv_model::slug::Digest;

use crate::columns::{Columns, micros};
use crate::db::Store;
use crate::error::Error;
use crate::row_mac::ShortCode;
use crate::types::{Drain, DrainProgress};

/// In front of the URL of a drain that a platform admin added.
const BY_OPERATOR: &str = "operator ";

fn owner(id: &DrainId, deploy: &DeployId) -> String {
    format!("drain {id} of {deploy}")
}

fn count(number: i64, name: &'static str) -> Result<u64, Error> {
    u64::try_from(number).map_err(|_| Error::corrupt(name)(number.to_string()))
}

/// What a drain is known by once it is removed.
fn short_code(id: &DrainId) -> Option<ShortCode> {
    Digest::of(format!("drain {id}").as_bytes()).0.first_chunk().copied()
}

/// A count as a database takes it.
fn number(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl Store {
    fn drain(&self, row: &AnyRow) -> Result<Drain, Error> {
        let row = Columns(row);
        let id: DrainId = row.parsed("id")?;
        let bad =
            || Error::corrupt("a drain")(format!("{id} was changed, or sealed with another key"));
        let deploy: DeployId = row.parsed("deploy")?;
        let url = self.unseal(&owner(&id, &deploy), &row.text("sealed")?).ok_or_else(bad)?;
        let text = String::from_utf8(url).map_err(|_| bad())?;
        let (url, by_operator) = match text.strip_prefix(BY_OPERATOR) {
            Some(url) => (url.to_owned(), true),
            None => (text, false),
        };
        let error = row.maybe_text("error")?;
        Ok(Drain {
            url,
            by_operator,
            deploy,
            created: row.time("created")?,
            progress: DrainProgress {
                place: row.text("place")?,
                sent: count(row.number("sent")?, "sent")?,
                retried: count(row.number("retried")?, "retried")?,
                dropped: count(row.number("dropped")?, "dropped")?,
                error: error.zip(row.maybe_time("error_at")?),
            },
            id,
        })
    }

    /// Adds a drain that begins at a place in the log; at most `most` a deploy.
    ///
    /// # Errors
    ///
    /// [`Error::TooMany`].
    pub async fn add_drain(
        &self,
        deploy: &DeployId,
        url: &str,
        by_operator: bool,
        place: &str,
        most: usize,
        now: Timestamp,
    ) -> Result<Drain, Error> {
        let id = DrainId::new(now, self.random()?);
        let mark = if by_operator { BY_OPERATOR } else { "" };
        let sealed = self.seal(&owner(&id, deploy), format!("{mark}{url}").as_bytes())?;
        let mut write = self.write().await?;
        let there = sqlx::query("SELECT id FROM drains WHERE deploy = $1")
            .bind(deploy.as_str().to_owned())
            .fetch_all(&mut *write.tx)
            .await?;
        if there.len() >= most {
            return Err(Error::TooMany { what: "drains", most });
        }
        sqlx::query(
            "INSERT INTO drains (id, deploy, sealed, created, place, sent, retried, dropped) \
             VALUES ($1, $2, $3, $4, $5, 0, 0, 0)",
        )
        .bind(id.as_str().to_owned())
        .bind(deploy.as_str().to_owned())
        .bind(sealed)
        .bind(micros(now))
        .bind(place.to_owned())
        .execute(&mut *write.tx)
        .await?;
        write.commit().await?;
        let progress = DrainProgress { place: place.to_owned(), ..DrainProgress::default() };
        let (deploy, url) = (deploy.clone(), url.to_owned());
        Ok(Drain { id, deploy, url, by_operator, created: now, progress })
    }

    /// The drains of a deploy, the oldest first; none that was removed and put back.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where one was changed behind our back.
    pub async fn drains(&self, deploy: &DeployId) -> Result<Vec<Drain>, Error> {
        let rows = sqlx::query("SELECT * FROM drains WHERE deploy = $1 ORDER BY id")
            .bind(deploy.as_str().to_owned())
            .fetch_all(self.pool())
            .await?;
        let is_removed =
            |drain: &Drain| short_code(&drain.id).is_some_and(|code| self.0.spent.has(&code));
        let drains = rows.iter().map(|row| self.drain(row));
        drains.filter(|drain| !drain.as_ref().is_ok_and(is_removed)).collect()
    }

    /// Records how far a drain has come; of one that was removed, nothing.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn set_drain_progress(
        &self,
        id: &DrainId,
        progress: &DrainProgress,
    ) -> Result<(), Error> {
        let (error, at) = progress.error.clone().unzip();
        let mut write = self.write().await?;
        sqlx::query(
            "UPDATE drains SET place = $1, sent = $2, retried = $3, dropped = $4, error = $5, \
             error_at = $6 WHERE id = $7",
        )
        .bind(progress.place.clone())
        .bind(number(progress.sent))
        .bind(number(progress.retried))
        .bind(number(progress.dropped))
        .bind(error)
        .bind(at.map(micros))
        .bind(id.as_str().to_owned())
        .execute(&mut *write.tx)
        .await?;
        write.commit().await
    }

    /// Removes a drain of a deploy.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::Spent`] where it is removed, and could be put back.
    pub async fn remove_drain(&self, deploy: &DeployId, id: &DrainId) -> Result<(), Error> {
        let mut write = self.write().await?;
        let gone = sqlx::query("DELETE FROM drains WHERE id = $1 AND deploy = $2")
            .bind(id.as_str().to_owned())
            .bind(deploy.as_str().to_owned())
            .execute(&mut *write.tx)
            .await?;
        if gone.rows_affected() == 0 {
            return Err(Error::NotFound { what: "drain", name: id.to_string() });
        }
        // Before the commit: whatever ends this here, it is removed.
        let spent = self.spend(short_code(id).as_slice()).await;
        write.commit().await?;
        spent
    }
}
