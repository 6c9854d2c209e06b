//! Tokens, by the hash of their text.

use jiff::Timestamp;
use sqlx::any::AnyRow;
use tolv_model::access::Grant;
use tolv_model::id::TokenId;
use tolv_model::slug::Digest;

use crate::db::{Columns, Store, limit, micros};
use crate::error::Error;
use crate::types::Token;

fn token(row: &AnyRow) -> Result<Token, Error> {
    let row = Columns(row);
    Ok(Token {
        id: row.parsed("id")?,
        name: row.text("name")?,
        grant: Grant { role: row.parsed("role")?, app: row.maybe_parsed("app")? },
        created: row.time("created")?,
        expires: row.maybe_time("expires")?,
    })
}

impl Store {
    /// Whether there is any token.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn has_tokens(&self) -> Result<bool, Error> {
        Ok(sqlx::query("SELECT id FROM tokens LIMIT 1")
            .fetch_optional(self.pool())
            .await?
            .is_some())
    }

    /// Records a token.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn create_token(
        &self,
        name: &str,
        grant: &Grant,
        hash: &Digest,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Token, Error> {
        let id = TokenId::new(now, self.random()?);
        let mut write = self.write().await?;
        sqlx::query(
            "INSERT INTO tokens (id, name, hash, role, app, created, expires) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(id.as_str().to_owned())
        .bind(name.to_owned())
        .bind(hash.to_string())
        .bind(grant.role.as_str())
        .bind(grant.app.as_ref().map(ToString::to_string))
        .bind(micros(now))
        .bind(expires.map(micros))
        .execute(&mut *write.tx)
        .await?;
        write.commit().await?;
        Ok(Token { id, name: name.to_owned(), grant: grant.clone(), created: now, expires })
    }

    /// The token with this hash, expired ones too.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn token_by_hash(&self, hash: &Digest) -> Result<Option<Token>, Error> {
        let row = sqlx::query("SELECT * FROM tokens WHERE hash = $1")
            .bind(hash.to_string())
            .fetch_optional(self.pool())
            .await?;
        row.as_ref().map(token).transpose()
    }

    /// Tokens, the oldest first, behind `after`.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn tokens(&self, after: Option<&TokenId>, most: usize) -> Result<Vec<Token>, Error> {
        let rows = sqlx::query("SELECT * FROM tokens WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after.map_or("", TokenId::as_str).to_owned())
            .bind(limit(most))
            .fetch_all(self.pool())
            .await?;
        rows.iter().map(token).collect()
    }

    /// Ends a token at once.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`].
    pub async fn revoke_token(&self, id: &TokenId) -> Result<(), Error> {
        let mut write = self.write().await?;
        let gone = sqlx::query("DELETE FROM tokens WHERE id = $1")
            .bind(id.as_str().to_owned())
            .execute(&mut *write.tx)
            .await?;
        write.commit().await?;
        match gone.rows_affected() {
            0 => Err(Error::NotFound { what: "token", name: id.to_string() }),
            _ => Ok(()),
        }
    }
}
