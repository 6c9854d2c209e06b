//! The lease of a database: one platform at a time runs on it.
//!
//! In PostgreSQL it is an advisory lock of a session of its own, in SQLite a lock on a file beside
//! the database. Both end with their holder, however that ends: nothing has to be cleaned up, and
//! there is no time after which it lapses.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use sqlx::postgres::{PgListener, Postgres};
use sqlx::{Connection as _, Executor as _};
use tokio::time::{Instant, sleep, timeout};

use crate::db::Store;
use crate::error::Error;

/// For one that was killed to be gone from the database too, and for an orderly successor.
const PATIENCE: Duration = Duration::from_secs(3);
const BETWEEN: Duration = Duration::from_millis(100);
/// A connection that has said nothing for this long is asked whether it is still there.
const HEARTBEAT: Duration = Duration::from_secs(15);
/// For a connection to be made, and for an answer: apps may be waiting for it to fail.
const ANSWER: Duration = Duration::from_secs(3);

/// The server finds out within seconds that the holder's machine is gone.
const KEEP_ALIVE: &str = "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 2; \
                          SET tcp_keepalives_count = 3";
const NAME: &str = "SELECT set_config('application_name', $1, false)";
/// The numbers are ours alone.
const TAKE: &str = "SELECT pg_try_advisory_lock(1953459318, 1)";
const HOLDER: &str = "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) \
    WHERE locktype = 'advisory' AND classid = 1953459318 AND objid = 1 AND granted \
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
const FREE: &str = "SELECT pg_advisory_unlock_all()";

/// The right to run on a database. It ends with [`Lease::release`], or with the process.
#[derive(Debug)]
pub struct Lease {
    held: Held,
    holder: String,
}

#[derive(Debug)]
enum Held {
    /// Locked for as long as it is open.
    File {
        _lock: File,
    },
    Session {
        session: Box<PgListener>,
        url: String,
    },
}

impl Store {
    /// Takes the lease for `holder`: who, where and since when, in words for a second comer. One
    /// that is just being given up is waited for, at most three seconds.
    ///
    /// # Errors
    ///
    /// [`Error::Held`] with its holder, [`Error::Unavailable`], [`Error::Full`], [`Error::Folder`].
    pub async fn lease(&self, holder: &str) -> Result<Lease, Error> {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.try_lease(holder).await {
                Err(Error::Held(_)) if Instant::now() < until => sleep(BETWEEN).await,
                done => return done,
            }
        }
    }

    async fn try_lease(&self, holder: &str) -> Result<Lease, Error> {
        let held = match (self.file(), self.postgres()) {
            (Some(file), _) => Held::File { _lock: lock(file, holder)? },
            (None, Some(url)) => Held::Session {
                session: Box::new(session(url, holder).await?),
                url: url.to_owned(),
            },
            (None, None) => return Err(Error::Folder(io::ErrorKind::InvalidInput.into())),
        };
        Ok(Lease { held, holder: holder.to_owned() })
    }
}

impl Lease {
    /// Waits until the lease is somebody else's, and gives who has it. A connection that breaks is
    /// made anew, and the lease taken again.
    pub async fn lost(&mut self) -> String {
        let Held::Session { session, url } = &mut self.held else {
            return std::future::pending().await;
        };
        loop {
            if is_there(session).await {
                continue;
            }
            match self::session(url, &self.holder).await {
                Ok(again) => **session = again,
                Err(Error::Held(other)) => return other,
                // The database is away: nobody else runs on it either.
                Err(_) => sleep(BETWEEN).await,
            }
        }
    }

    /// Gives the lease up; when it returns, the next platform can have it.
    pub async fn release(self) {
        if let Held::Session { mut session, .. } = self.held {
            // Else it ends with the connection.
            timeout(ANSWER, session.execute(FREE)).await.ok();
        }
    }
}

/// Waits for the end of a connection, for a heartbeat's time; says whether it is still there.
async fn is_there(session: &mut PgListener) -> bool {
    match timeout(HEARTBEAT, session.try_recv()).await {
        Ok(Ok(Some(_))) => true,
        Ok(Ok(None) | Err(_)) => false,
        Err(_) => timeout(ANSWER, session.execute("SELECT 1")).await.is_ok_and(|it| it.is_ok()),
    }
}

/// A session that has the lease.
async fn session(url: &str, holder: &str) -> Result<PgListener, Error> {
    let take = async {
        // A server that is not there is seen at once; the listener would try for long.
        sqlx::PgConnection::connect(url).await?.close().await?;
        let mut session = PgListener::connect(url).await?;
        session.execute(KEEP_ALIVE).await?;
        let name = format!("tolv {holder}");
        sqlx::query::<Postgres>(NAME).bind(name).execute(&mut session).await?;
        let is_ours: bool = sqlx::query_scalar(TAKE).fetch_one(&mut session).await?;
        if is_ours {
            return Ok(session);
        }
        let other: Option<String> = sqlx::query_scalar(HOLDER).fetch_optional(&mut session).await?;
        let other = other.unwrap_or_default();
        Err(Error::Held(named(other.strip_prefix("tolv ").unwrap_or(&other))))
    };
    timeout(ANSWER, take).await.unwrap_or_else(|_| Err(Error::away()))
}

fn named(holder: &str) -> String {
    match holder.trim() {
        "" => "a process that is just starting or ending".to_owned(),
        holder => holder.to_owned(),
    }
}

/// The locked file beside a database of SQLite's.
fn lock(database: &Path, holder: &str) -> Result<File, Error> {
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::StorageFull => Error::Full(sqlx::Error::Io(error)),
        _ => Error::Folder(error),
    };
    let mut options = OpenOptions::new();
    let options = options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let mut file = options.open(database.with_added_extension("lease")).map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {
            // The text is for a second comer alone; a full disk does not keep the first away.
            file.set_len(0).and_then(|()| writeln!(file, "{holder}")).ok();
            Ok(file)
        }
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = Vec::new();
            (&file).take(4096).read_to_end(&mut text).map_err(failed)?;
            Err(Error::Held(named(&String::from_utf8_lossy(&text))))
        }
        Err(errno) => Err(failed(errno.into())),
    }
}
