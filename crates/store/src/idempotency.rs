//! Requests that are sent twice are done once. What was answered is sealed: a secret may be in it.

use jiff::Timestamp;
use tolv_model::id::TokenId;
use tolv_model::slug::Digest;

use crate::columns::{Columns, micros};
use crate::db::Store;
use crate::error::{Error, is_taken};
use crate::types::Idempotent;

/// The newest answers of a token that are stored.
const MAX_ANSWERS: i64 = 1000;

fn owner(token: &TokenId, key: &str) -> String {
    format!("answer {token} {key}")
}

impl Store {
    /// A request with a key comes in: whether it is to be done, or what was answered.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn idempotent_begin(
        &self,
        token: &TokenId,
        key: &str,
        fingerprint: &Digest,
        now: Timestamp,
    ) -> Result<Idempotent, Error> {
        let mut write = self.write().await?;
        let row =
            sqlx::query("SELECT * FROM idempotency WHERE token = $1 AND idempotency_key = $2")
                .bind(token.as_str().to_owned())
                .bind(key.to_owned())
                .fetch_optional(&mut *write.tx)
                .await?;
        if let Some(row) = row {
            write.rollback().await?;
            let row = Columns(&row);
            if row.text("fingerprint")? != fingerprint.to_string() {
                return Ok(Idempotent::Mismatch);
            }
            return Ok(match row.maybe_number("status")? {
                None => Idempotent::Running,
                Some(status) => {
                    let sealed = row.maybe_text("body")?.unwrap_or_default();
                    let body = self.unseal(&owner(token, key), &sealed);
                    let body = body.and_then(|body| String::from_utf8(body).ok());
                    let unknown = || "it was sealed with another key".to_owned();
                    let body = body.ok_or_else(|| Error::corrupt("an answer")(unknown()))?;
                    Idempotent::Done { status: u16::try_from(status).unwrap_or(500), body }
                }
            });
        }
        sqlx::query(
            "DELETE FROM idempotency WHERE token = $1 AND status IS NOT NULL AND created < \
             (SELECT i.created FROM idempotency i WHERE i.token = $1 \
                 ORDER BY i.created DESC LIMIT 1 OFFSET $2)",
        )
        .bind(token.as_str().to_owned())
        .bind(MAX_ANSWERS)
        .execute(&mut *write.tx)
        .await?;
        let made = sqlx::query(
            "INSERT INTO idempotency (token, idempotency_key, fingerprint, created) \
             VALUES ($1, $2, $3, $4)",
        )
        .bind(token.as_str().to_owned())
        .bind(key.to_owned())
        .bind(fingerprint.to_string())
        .bind(micros(now))
        .execute(&mut *write.tx)
        .await;
        match made {
            Ok(_) => {
                write.commit().await?;
                Ok(Idempotent::Fresh)
            }
            Err(error) if is_taken(&error) => Ok(Idempotent::Running),
            Err(error) => Err(error.into()),
        }
    }

    /// The request with this key was answered.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn idempotent_end(
        &self,
        token: &TokenId,
        key: &str,
        status: u16,
        body: &str,
    ) -> Result<(), Error> {
        let sealed = self.seal(&owner(token, key), body.as_bytes())?;
        let mut write = self.write().await?;
        sqlx::query(
            "UPDATE idempotency SET status = $1, body = $2 \
             WHERE token = $3 AND idempotency_key = $4",
        )
        .bind(i64::from(status))
        .bind(sealed)
        .bind(token.as_str().to_owned())
        .bind(key.to_owned())
        .execute(&mut *write.tx)
        .await?;
        write.commit().await
    }

    /// Forgets the request with this key, of which nothing was done.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn idempotent_forget(&self, token: &TokenId, key: &str) -> Result<(), Error> {
        let mut write = self.write().await?;
        sqlx::query("DELETE FROM idempotency WHERE token = $1 AND idempotency_key = $2")
            .bind(token.as_str().to_owned())
            .bind(key.to_owned())
            .execute(&mut *write.tx)
            .await?;
        write.commit().await
    }

    /// Forgets keys that are older than `before`, and with `unanswered` those whose request was
    /// never answered, as at a start after a crash.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn forget_idempotent(
        &self,
        before: Timestamp,
        unanswered: bool,
    ) -> Result<(), Error> {
        let mut write = self.write().await?;
        sqlx::query("DELETE FROM idempotency WHERE created < $1 OR (status IS NULL AND $2 = 1)")
            .bind(micros(before))
            .bind(i64::from(unanswered))
            .execute(&mut *write.tx)
            .await?;
        write.commit().await
    }
}
