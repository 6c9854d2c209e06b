//! Tokens, by the hash of their text.
//!
//! A platform that somebody can administrate stays so: the last token that is for everything and
//! never expires cannot be revoked. What decides that is read in the transaction that writes.
//!
//! Each row is authenticated with the platform's key: one that was changed or made by somebody else
//! is not a token. Nor is one that was revoked and put back: its code is known outside the database.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sqlx::any::AnyRow;
use tolv_model::access::{Grant, GrantedApps, Role};
use tolv_model::id::TokenId;
use tolv_model::name::AppName;
use tolv_model::slug::Digest;

use crate::audit::NewLine;
use crate::columns::{Columns, micros};
use crate::db::{Store, Write};
use crate::error::Error;
use crate::listed::{List, Listed, Value};
use crate::row_mac::{Authenticated, ShortCode};
use crate::types::{ForgedToken, StoredToken, Token};

const TOKENS: Authenticated = Authenticated {
    table: "tokens",
    texts: &["id", "name", "hash", "role", "apps"],
    numbers: &["created", "expires"],
    families: &[],
};

/// Between the names of apps in a column; no name has one.
const SEPARATOR: &str = ",";

/// Whether a row was revoked, or replaced, and put back.
fn is_spent(store: &Store, row: &AnyRow) -> bool {
    TOKENS.short_code(row).is_some_and(|code| store.0.spent.has(&code))
}

/// Whether this platform wrote a row, and has not revoked it since.
fn holds(store: &Store, row: &AnyRow) -> bool {
    TOKENS.holds(store, row) && !is_spent(store, row)
}

/// The token of a row that this platform wrote; nothing where somebody else did.
fn token(store: &Store, row: &AnyRow) -> Result<Option<Token>, Error> {
    match holds(store, row) {
        true => contents(row).map(Some),
        false => Ok(None),
    }
}

fn stored(store: &Store, row: &AnyRow) -> Result<StoredToken, Error> {
    Ok(match token(store, row)? {
        Some(token) => StoredToken::Valid(token),
        None => {
            let was_revoked = TOKENS.holds(store, row);
            let row = Columns(row);
            StoredToken::Forged(ForgedToken {
                was_revoked,
                id: row.text("id").unwrap_or_default(),
                name: row.text("name").unwrap_or_default(),
                created: row.time("created").unwrap_or(Timestamp::UNIX_EPOCH),
            })
        }
    })
}

fn mac(store: &Store, token: &Token, hash: &str) -> String {
    TOKENS.mac(
        store,
        &[
            token.id.as_str().into(),
            token.name.as_str().into(),
            hash.into(),
            token.grant.role.as_str().into(),
            column(&token.grant.apps).into(),
            micros(token.created).into(),
            token.expires.map(micros).into(),
        ],
    )
}

fn contents(row: &AnyRow) -> Result<Token, Error> {
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
async fn insert(
    store: &Store,
    write: &mut Write<'_>,
    token: &Token,
    hash: &Digest,
) -> Result<(), Error> {
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
        "INSERT INTO tokens (id, name, hash, role, apps, created, expires, mac) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(token.id.as_str().to_owned())
    .bind(token.name.clone())
    .bind(hash.to_string())
    .bind(token.grant.role.as_str())
    .bind(column(&token.grant.apps))
    .bind(micros(token.created))
    .bind(token.expires.map(micros))
    .bind(mac(store, token, &hash.to_string()))
    .execute(&mut *write.tx)
    .await?;
    Ok(())
}

/// Takes a destroyed app out of every token; one that was for no other goes with it. Gives back the
/// codes of the rows before, which hold no more once this is committed.
pub(crate) async fn forget_app(
    store: &Store,
    write: &mut Write<'_>,
    app: &AppName,
) -> Result<Vec<ShortCode>, Error> {
    let mut spent = Vec::new();
    let rows = sqlx::query("SELECT * FROM tokens WHERE apps IS NOT NULL")
        .fetch_all(&mut *write.tx)
        .await?;
    for row in &rows {
        let Some(mut token) = token(store, row)? else { continue };
        let GrantedApps::Only(apps) = &mut token.grant.apps else { continue };
        if !apps.remove(app) {
            continue;
        }
        let is_for_none = apps.is_empty();
        let id = token.id.as_str().to_owned();
        let change = match is_for_none {
            true => sqlx::query("DELETE FROM tokens WHERE id = $1").bind(id),
            false => sqlx::query("UPDATE tokens SET apps = $2, mac = $3 WHERE id = $1")
                .bind(id)
                .bind(column(&token.grant.apps))
                .bind(mac(store, &token, &Columns(row).text("hash")?)),
        };
        change.execute(&mut *write.tx).await?;
        spent.extend(TOKENS.short_code(row));
    }
    Ok(spent)
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
        insert(self, &mut write, &token, hash).await?;
        write.commit().await?;
        Ok(token)
    }

    /// Records a platform's first token, for everything; nothing where there is any token that this
    /// platform made.
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
        let rows = sqlx::query("SELECT * FROM tokens").fetch_all(&mut *write.tx).await?;
        if rows.iter().any(|row| holds(self, row)) {
            return Ok(None);
        }
        insert(self, &mut write, &token, hash).await?;
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
        insert(self, &mut write, &token, hash).await?;
        write.commit().await?;
        Ok(token)
    }

    /// The token with this hash, expired ones too.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn token_by_hash(&self, hash: &Digest) -> Result<Option<StoredToken>, Error> {
        let row = sqlx::query("SELECT * FROM tokens WHERE hash = $1")
            .bind(hash.to_string())
            .fetch_optional(self.pool())
            .await?;
        row.as_ref().map(|row| stored(self, row)).transpose()
    }

    /// The token with this id, an expired one too; nothing where it was revoked, or changed outside
    /// of the platform.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn token(&self, id: &TokenId) -> Result<Option<Token>, Error> {
        let row = sqlx::query("SELECT * FROM tokens WHERE id = $1")
            .bind(id.as_str().to_owned())
            .fetch_optional(self.pool())
            .await?;
        row.as_ref().map(|row| token(self, row)).transpose().map(Option::flatten)
    }

    /// Tokens, the oldest first, behind `after`; also what somebody else put in their place.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn tokens(
        &self,
        after: Option<&str>,
        most: usize,
    ) -> Result<Listed<StoredToken>, Error> {
        let list = List {
            statement: "SELECT * FROM tokens WHERE id > $1 ORDER BY id LIMIT $2",
            values: &[Value::Text(after.unwrap_or_default())],
            long: &["name", "apps"],
        };
        list.page(self, most, |row| stored(self, row).map(Some)).await
    }

    /// Rows in the place of tokens that somebody else wrote, or put back.
    pub(crate) async fn forged_tokens(&self) -> Result<Vec<ForgedToken>, Error> {
        let rows = sqlx::query("SELECT * FROM tokens ORDER BY id").fetch_all(self.pool()).await?;
        let mut forged = Vec::new();
        for row in rows.iter().filter(|row| !holds(self, row)) {
            if let StoredToken::Forged(found) = stored(self, row)? {
                forged.push(found);
            }
        }
        Ok(forged)
    }

    /// Revokes a token at once; or removes what somebody else put in the place of one.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`]; [`Error::LastAdmin`] where no other token that never expires can
    /// administrate the platform; [`Error::Spent`] where it is revoked, and could be put back.
    pub async fn revoke_token(&self, id: &str) -> Result<(), Error> {
        let mut write = self.write().await?;
        let row = sqlx::query("SELECT * FROM tokens WHERE id = $1")
            .bind(id.to_owned())
            .fetch_optional(&mut *write.tx)
            .await?;
        let missing = || Error::NotFound { what: "token", name: id.to_owned() };
        let row = row.ok_or_else(missing)?;
        let found = token(self, &row)?;
        let is_admin =
            |token: &Token| token.grant == Grant::PLATFORM_ADMIN && token.expires.is_none();
        if let Some(found) = found
            && is_admin(&found)
        {
            let others = sqlx::query(
                "SELECT * FROM tokens WHERE id <> $1 AND role = $2 \
                 AND apps IS NULL AND expires IS NULL",
            )
            .bind(id.to_owned())
            .bind(Role::Admin.as_str())
            .fetch_all(&mut *write.tx)
            .await?;
            if !others.iter().any(|row| holds(self, row)) {
                return Err(Error::LastAdmin(found.id));
            }
        }
        // First: whatever ends this here, it is revoked.
        let code = TOKENS.short_code(&row).filter(|_| holds(self, &row));
        let spent = self.spend(code.as_slice()).await;
        sqlx::query("DELETE FROM tokens WHERE id = $1")
            .bind(id.to_owned())
            .execute(&mut *write.tx)
            .await?;
        write.commit().await?;
        spent
    }
}
