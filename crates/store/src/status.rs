//! What can be told of the database itself: whether it answers, how fast, and what waits in it.

use std::time::{Duration, Instant};

use jiff::Timestamp;

use crate::columns::Columns;
use crate::db::Store;
use crate::error::Error;
use crate::lease::require_writable;

/// A look at a database that answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabaseStatus {
    /// How long a connection and an answer took.
    pub response: Duration,
    /// Whether it takes no writes.
    pub is_read_only: bool,
    /// Operations that wait for their turn.
    pub queued: u64,
    /// Operations that have begun.
    pub running: u64,
    /// The oldest operation that is not over.
    pub oldest: Option<OldestOperation>,
    /// Rows that were changed outside of the platform, each in words.
    pub forged: Vec<String>,
}

/// The oldest operation that is not over, as it is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldestOperation {
    /// Its id.
    pub id: String,
    /// Its deploy: `shop/production`.
    pub deploy: String,
    /// `deploy`, `rollback` and so on; empty where it cannot be read.
    pub kind: String,
    /// `queued` or `running`.
    pub state: String,
    /// When it was asked for.
    pub created: Timestamp,
}

/// The connections to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connections {
    /// Open ones.
    pub open: u64,
    /// Open ones that nobody uses.
    pub idle: u64,
    /// Most at once.
    pub most: u64,
}

impl Store {
    /// Which database it is: `SQLite` or `PostgreSQL`.
    pub fn kind(&self) -> &'static str {
        match self.file() {
            Some(_) => "SQLite",
            None => "PostgreSQL",
        }
    }

    /// Whether it is a file on a disk that is read-only. Writes nothing, and does not wait for the disk.
    pub fn is_on_read_only_disk(&self) -> bool {
        self.file().is_some_and(|file| require_writable(file).is_err())
    }

    /// The connections at the moment.
    pub fn connections(&self) -> Connections {
        let pool = self.pool();
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        Connections {
            open: pool.size().into(),
            idle: count(pool.num_idle()),
            most: pool.options().get_max_connections().into(),
        }
    }

    /// Asks the database for what [`DatabaseStatus`] has, and changes nothing. It may take as long as
    /// the database does.
    ///
    /// # Errors
    ///
    /// The database's.
    pub async fn status(&self) -> Result<DatabaseStatus, Error> {
        let asked = Instant::now();
        let (mut connection, is_read_only) = self.connection_for_status().await?;
        let response = asked.elapsed();
        let oldest = sqlx::query(
            "SELECT id, deploy_name, request, state, created FROM operations \
             WHERE ended IS NULL ORDER BY id LIMIT 1",
        )
        .fetch_optional(&mut *connection)
        .await?;
        drop(connection);
        let oldest = oldest.map(|row| {
            let row = Columns(&row);
            // What cannot be read is shown as far as it can.
            let request: Option<serde_json::Value> = row.json("request").ok();
            let kind = request.as_ref().and_then(|request| request.get("kind")?.as_str());
            Ok::<_, Error>(OldestOperation {
                id: row.text("id")?,
                deploy: row.text("deploy_name")?,
                kind: kind.unwrap_or_default().to_owned(),
                state: row.text("state")?,
                created: row.time("created").unwrap_or(Timestamp::UNIX_EPOCH),
            })
        });
        let oldest = oldest.transpose()?;
        let (queued, running) = self.unfinished().await?;
        let rows = self.forged_rows().await?.into_iter().map(|row| row.why);
        let tokens = self.forged_tokens().await?.into_iter();
        let tokens = tokens.map(|token| match token.was_revoked {
            true => format!("token {:?} was revoked, and put back into the database", token.name),
            false => format!("token {:?} was changed outside of the platform", token.name),
        });
        let forged = rows.chain(tokens).collect();
        Ok(DatabaseStatus { response, is_read_only, queued, running, oldest, forged })
    }
}
