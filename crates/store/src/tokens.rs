//! Tokens, by the hash of their text.
//!
//! A platform that somebody can administrate stays so: the last token that is for everything and
//! never expires cannot be revoked. What decides that is read in the transaction that writes.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sqlx::any::AnyRow;
use tolv_model::access::{Grant, GrantedApps, Role};
use tolv_model::id::TokenId;
use tolv_model::name::AppName;
use tolv_model::slug::Digest;

use crate::audit::NewLine;
use crate::db::{Columns, Store, Write, limit, micros};
use crate::error::Error;
use crate::types::Token;

/// Between the names of apps in a column; no name has one.
const SEPARATOR: &str = ",";

fn token(row: &AnyRow) -> Result<Token, Error> {
    let row = Columns(row);
    let apps = match row.maybe_text("apps")? {
        None => GrantedApps::All,
        Some(names) => GrantedApps::Only(app_names(&names)?),
    };
    Ok(Token {
        id: row.parsed("id")?,
        name: row.text("name")?,
        grant: Grant { role: row.parsed("role")?, apps },
        created: row.time("created")?,
        expires: row.maybe_time("expires")?,
    })
}

fn app_names(text: &str) -> Result<BTreeSet<AppName>, Error> {
    let names = text.split(SEPARATOR).map(str::parse);
    names.collect::<Result<_, _>>().map_err(|error: tolv_model::name::NameError| {
        Error::corrupt("the apps of a token")(error.to_string())
    })
}

fn column(apps: &GrantedApps) -> Option<String> {
    apps.names().map(|names| names.join(SEPARATOR))
}

/// Inserts a token whose apps all exist.
async fn insert(write: &mut Write<'_>, token: &Token, hash: &Digest) -> Result<(), Error> {
    if let GrantedApps::Only(apps) = &token.grant.apps {
        for app in apps {
            let found = sqlx::query("SELECT id FROM apps WHERE name = $1")
                .bind(app.as_str().to_owned())
                .fetch_optional(&mut *write.tx)
                .await?;
            found.ok_or_else(|| Error::NotFound { what: "app", name: app.to_string() })?;
        }
    }
    sqlx::query(
        "INSERT INTO tokens (id, name, hash, role, apps, created, expires) \
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(token.id.as_str().to_owned())
    .bind(token.name.clone())
    .bind(hash.to_string())
    .bind(token.grant.role.as_str())
    .bind(column(&token.grant.apps))
    .bind(micros(token.created))
    .bind(token.expires.map(micros))
    .execute(&mut *write.tx)
    .await?;
    Ok(())
}

/// Takes a destroyed app out of every token; one that was for no other goes with it.
pub(crate) async fn forget_app(write: &mut Write<'_>, app: &AppName) -> Result<(), Error> {
    let rows = sqlx::query("SELECT * FROM tokens WHERE apps IS NOT NULL")
        .fetch_all(&mut *write.tx)
        .await?;
    for row in &rows {
        let Token { id, grant: Grant { apps: GrantedApps::Only(mut apps), .. }, .. } = token(row)?
        else {
            continue;
        };
        if !apps.remove(app) {
            continue;
        }
        let id = id.as_str().to_owned();
        let change = match apps.is_empty() {
            true => sqlx::query("DELETE FROM tokens WHERE id = $1").bind(id),
            false => sqlx::query("UPDATE tokens SET apps = $2 WHERE id = $1")
                .bind(id)
                .bind(column(&GrantedApps::Only(apps))),
        };
        change.execute(&mut *write.tx).await?;
    }
    Ok(())
}

impl Store {
    /// Records a token.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] where one of its apps does not exist.
    pub async fn create_token(
        &self,
        name: &str,
        grant: &Grant,
        hash: &Digest,
        expires: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Token, Error> {
        let (name, grant) = (name.to_owned(), grant.clone());
        let id = TokenId::new(now, self.random()?);
        let token = Token { id, name, grant, created: now, expires };
        let mut write = self.write().await?;
        insert(&mut write, &token, hash).await?;
        write.commit().await?;
        Ok(token)
    }

    /// Records a platform's first token, for everything; nothing where there is any token.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn create_first_token(
        &self,
        name: &str,
        hash: &Digest,
        now: Timestamp,
    ) -> Result<Option<Token>, Error> {
        let id = TokenId::new(now, self.random()?);
        let grant = Grant::PLATFORM_ADMIN;
        let token = Token { id, name: name.to_owned(), grant, created: now, expires: None };
        let mut write = self.write().await?;
        let any = sqlx::query("SELECT id FROM tokens LIMIT 1").fetch_optional(&mut *write.tx);
        if any.await?.is_some() {
            return Ok(None);
        }
        insert(&mut write, &token, hash).await?;
        write.commit().await?;
        Ok(Some(token))
    }

    /// Records another token for everything, and in the audit log that `actor` did so.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn recover_token(
        &self,
        name: &str,
        hash: &Digest,
        actor: &str,
        now: Timestamp,
    ) -> Result<Token, Error> {
        let id = TokenId::new(now, self.random()?);
        let grant = Grant::PLATFORM_ADMIN;
        let token = Token { id, name: name.to_owned(), grant, created: now, expires: None };
        let line = NewLine {
            actor,
            action: "token.recover",
            app: None,
            deploy: None,
            detail: token.id.as_str(),
        };
        let audit_id = self.random()?;
        let mut write = self.write().await?;
        line.insert(&mut write, audit_id, now).await?;
        insert(&mut write, &token, hash).await?;
        write.commit().await?;
        Ok(token)
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

    /// The token with this id, an expired one too; nothing where it was revoked.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn token(&self, id: &TokenId) -> Result<Option<Token>, Error> {
        let row = sqlx::query("SELECT * FROM tokens WHERE id = $1")
            .bind(id.as_str().to_owned())
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

    /// Revokes a token at once.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::LastAdmin`] where no other token that never expires can
    /// administrate the platform.
    pub async fn revoke_token(&self, id: &TokenId) -> Result<(), Error> {
        let mut write = self.write().await?;
        let row = sqlx::query("SELECT * FROM tokens WHERE id = $1")
            .bind(id.as_str().to_owned())
            .fetch_optional(&mut *write.tx)
            .await?;
        let missing = || Error::NotFound { what: "token", name: id.to_string() };
        let found = token(&row.ok_or_else(missing)?)?;
        if found.grant == Grant::PLATFORM_ADMIN && found.expires.is_none() {
            let other = sqlx::query(
                "SELECT id FROM tokens WHERE id <> $1 AND role = $2 \
                 AND apps IS NULL AND expires IS NULL LIMIT 1",
            )
            .bind(id.as_str().to_owned())
            .bind(Role::Admin.as_str())
            .fetch_optional(&mut *write.tx)
            .await?;
            if other.is_none() {
                return Err(Error::LastAdmin(id.clone()));
            }
        }
        sqlx::query("DELETE FROM tokens WHERE id = $1")
            .bind(id.as_str().to_owned())
            .execute(&mut *write.tx)
            .await?;
        write.commit().await
    }
}
