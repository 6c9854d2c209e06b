//! The lease of a database: one platform at a time runs on it.
//!
//! In PostgreSQL it is an advisory lock of a session of its own, in SQLite a lock on a file beside
//! the database. Both end with their holder, however that ends: nothing has to be cleaned up, and
//! there is no time after which it lapses.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use sqlx::postgres::{PgListener, Postgres};
use sqlx::{Connection as _, Executor as _};
use tokio::time::{Instant, sleep, timeout};

use crate::db::Store;
use crate::error::Error;
use crate::schema::READ_PROOF;

/// For one that was killed to be gone from the database too, and for an orderly successor.
const PATIENCE: Duration = Duration::from_secs(3);
const BETWEEN: Duration = Duration::from_millis(100);
/// A lease of which nothing was heard for this long is looked after.
const HEARTBEAT: Duration = Duration::from_secs(5);
/// For a connection to be made, and for an answer.
const ANSWER: Duration = Duration::from_secs(3);
/// Links that lead to a database.
const LINKS: usize = 40;
/// A holder that has no name yet, or no longer.
const UNNAMED: &str = "a process that is just starting or ending";
/// What PostgreSQL keeps of a session's name.
const NAME_BYTES: usize = 63;

/// The server finds out within seconds that the holder's machine is gone, also where an answer is on
/// its way to it; and it does not end the session for being idle. Only what its version knows.
const SETUP: &str = "SELECT set_config(name, value, false) FROM pg_settings JOIN (VALUES \
    ('tcp_keepalives_idle', '5'), ('tcp_keepalives_interval', '2'), ('tcp_keepalives_count', '3'), \
    ('tcp_user_timeout', '11000'), ('idle_session_timeout', '0')) AS ours(name, value) USING (name)";
const NAME: &str = "SELECT set_config('application_name', $1, false)";
/// The numbers are ours alone.
const TAKE: &str = "SELECT pg_try_advisory_lock(1953459318, 1)";
const HOLDS: &str = "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted \
    AND classid = 1953459318 AND objid = 1 AND objsubid = 2 AND pid = pg_backend_pid())";
const HOLDER: &str = "SELECT application_name FROM pg_locks JOIN pg_stat_activity USING (pid) \
    WHERE locktype = 'advisory' AND classid = 1953459318 AND objid = 1 AND objsubid = 2 AND granted \
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
/// The process of a session.
const SESSION: &str = "SELECT pg_backend_pid()";
const FREE: &str = "SELECT pg_advisory_unlock_all()";

/// Who runs on a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The process.
    pub pid: u32,
    /// Its machine.
    pub host: String,
    /// When it began.
    pub since: Timestamp,
}

impl Holder {
    /// As the name of a session, which is short: the end of a long host is cut off.
    fn to_name(&self) -> String {
        let host = self.host.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' });
        let name = format!("tolv {} {} ", self.pid, self.since.as_second());
        name.chars().chain(host).take(NAME_BYTES).collect()
    }

    fn from_name(name: &str) -> Option<Self> {
        let mut parts = name.strip_prefix("tolv ")?.splitn(3, ' ');
        let (pid, since) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let since = Timestamp::from_second(since).ok()?;
        Some(Self { pid, host: parts.next()?.to_owned(), since })
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} on {} since {:.0}", self.pid, self.host, self.since)
    }
}

/// The right to run on a database. It ends with [`Lease::release`], or with the process.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    held: Held,
    holder: Holder,
}

#[derive(Debug)]
enum Held {
    /// Locked for as long as it is open.
    File { lock: File, database: PathBuf },
    /// None while it is broken.
    Session { session: Option<Box<PgListener>>, url: String },
}

impl Store {
    /// Takes the lease for `holder`. One that is just being given up is waited for, at most three
    /// seconds. A server that does not say within `reach` that it is there counts as away. Until
    /// the lease is had, and whenever it is not, what writes waits.
    ///
    /// # Errors
    ///
    /// [`Error::Held`] with its holder, [`Error::Unavailable`], [`Error::Full`], [`Error::ReadOnly`],
    /// [`Error::Folder`].
    pub async fn lease(&self, holder: &Holder, reach: Duration) -> Result<Lease, Error> {
        self.let_write(false);
        let until = Instant::now() + PATIENCE;
        loop {
            match self.try_lease(holder, reach).await {
                Err(Error::Held(_)) if Instant::now() < until => sleep(BETWEEN).await,
                done => {
                    self.let_write(done.is_ok());
                    self.set_outage(done.as_ref().err());
                    return done;
                }
            }
        }
    }

    /// Makes sure that the database takes a connection.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`] with the reason that a server gave.
    pub async fn require_reachable(&self) -> Result<(), Error> {
        match self.postgres() {
            Some(url) => connect(url, ANSWER).await,
            None => Ok(()),
        }
    }

    async fn try_lease(&self, holder: &Holder, reach: Duration) -> Result<Lease, Error> {
        let held = match (self.file(), self.postgres()) {
            (Some(file), _) => Held::File { lock: lock(file, holder)?, database: file.to_owned() },
            (None, Some(url)) => Held::Session {
                session: Some(Box::new(session(self, url, holder, reach).await?)),
                url: url.to_owned(),
            },
            (None, None) => return Err(Error::Folder(io::ErrorKind::InvalidInput.into())),
        };
        Ok(Lease { store: self.clone(), held, holder: holder.clone() })
    }
}

impl Lease {
    /// Waits until the lease is somebody else's, and gives who has it. A connection that breaks is
    /// made anew, and the lease taken again; nothing is written meanwhile.
    pub async fn lost(&mut self) -> String {
        loop {
            if self.held.lasts(&self.store).await {
                continue;
            }
            self.store.let_write(false);
            let taken = self.held.take_again(&self.store, &self.holder).await;
            self.store.set_outage(taken.as_ref().err());
            match taken {
                Ok(()) => self.store.let_write(true),
                // Our own session: the server has not found out yet that it is broken.
                Err(Error::Held(other)) if other == self.held.name_of(&self.holder) => {
                    sleep(BETWEEN).await;
                }
                // It has let go of it meanwhile, whoever it was: perhaps that session of our own.
                Err(Error::Held(other)) if other == UNNAMED => sleep(BETWEEN).await,
                Err(Error::Held(other)) => {
                    self.store.oust(&other);
                    return other;
                }
                // The database is away: nobody else runs on it either.
                Err(_) => sleep(BETWEEN).await,
            }
        }
    }

    /// After a fault of whoever kept it: its session is in an unknown state, and is made anew.
    pub fn distrust(&mut self) {
        if let Held::Session { session, .. } = &mut self.held {
            *session = None;
        }
    }

    /// Who holds it.
    pub fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Gives the lease up; when it returns, the next platform can have it.
    pub async fn release(self) {
        // What is still queued here is the next platform's.
        self.store.set_lease_session(None);
        if let Held::Session { session: Some(mut session), .. } = self.held {
            // Else it ends with the connection.
            timeout(ANSWER, session.execute(FREE)).await.ok();
        }
    }
}

impl Held {
    /// Waits for the lease to end, for a heartbeat's time; says whether it is still held. After that
    /// it has to be taken again: a session is not used any more.
    async fn lasts(&mut self, store: &Store) -> bool {
        match self {
            Self::File { lock, database } => {
                sleep(HEARTBEAT).await;
                is_at(lock, &beside(database))
            }
            Self::Session { session: kept, .. } => {
                let Some(session) = kept else { return false };
                let lasts = match timeout(HEARTBEAT, session.try_recv()).await {
                    Ok(Ok(Some(_))) => true,
                    Ok(Ok(None) | Err(_)) => false,
                    Err(_) => {
                        let holds = async {
                            let holds = sqlx::query_scalar(HOLDS).fetch_one(&mut **session).await?;
                            require_same(store, session).await?;
                            Ok::<bool, Error>(holds)
                        };
                        matches!(timeout(ANSWER, holds).await, Ok(Ok(true)))
                    }
                };
                if !lasts {
                    *kept = None;
                }
                lasts
            }
        }
    }

    async fn take_again(&mut self, store: &Store, holder: &Holder) -> Result<(), Error> {
        match self {
            Self::File { lock: old, database } => *old = lock(database, holder)?,
            Self::Session { session: kept, url } => {
                *kept = Some(Box::new(session(store, url, holder, ANSWER).await?));
            }
        }
        Ok(())
    }

    /// What [`Error::Held`] says where it is this one that holds it.
    fn name_of(&self, holder: &Holder) -> String {
        match self {
            Self::File { .. } => holder.to_string(),
            Self::Session { .. } => named(&holder.to_name()),
        }
    }
}

/// A server that is not there is seen at once, and says why it takes no connection; what keeps
/// connections would try for long.
async fn connect(url: &str, limit: Duration) -> Result<(), Error> {
    let reached = timeout(limit, async { sqlx::PgConnection::connect(url).await?.close().await });
    let reached = reached.await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
    reached.map_err(|error| Error::from(error).at_connect())
}

/// Makes sure that a session is one of the database that the platform was prepared with.
async fn require_same(store: &Store, session: &mut PgListener) -> Result<(), Error> {
    store.0.known.judge(sqlx::query_scalar(READ_PROOF).fetch_optional(session).await)
}

/// A session that has the lease.
async fn session(
    store: &Store,
    url: &str,
    holder: &Holder,
    reach: Duration,
) -> Result<PgListener, Error> {
    connect(url, reach).await?;
    let take = async {
        let mut session = PgListener::connect(url).await?;
        // A connection that it makes by itself has no lease.
        session.eager_reconnect(false);
        session.execute(SETUP).await?;
        // Who has the lease of another database is not who ousts this platform.
        require_same(store, &mut session).await?;
        sqlx::query::<Postgres>(NAME).bind(holder.to_name()).execute(&mut session).await?;
        let is_ours: bool = sqlx::query_scalar(TAKE).fetch_one(&mut session).await?;
        if is_ours {
            let process = sqlx::query_scalar(SESSION).fetch_one(&mut session).await?;
            store.set_lease_session(Some(process));
            return Ok(session);
        }
        let other: Option<String> = sqlx::query_scalar(HOLDER).fetch_optional(&mut session).await?;
        Err(Error::Held(named(&other.unwrap_or_default())))
    };
    let taken = timeout(ANSWER, take).await.unwrap_or_else(|_| Err(Error::away()));
    taken.map_err(Error::at_connect)
}

/// Who it is that has this name or left this text.
fn named(text: &str) -> String {
    match (Holder::from_name(text), text.trim()) {
        (Some(holder), _) => holder.to_string(),
        (None, "") => UNNAMED.to_owned(),
        (None, text) => text.to_owned(),
    }
}

/// The locked file beside a database of SQLite's.
fn lock(database: &Path, holder: &Holder) -> Result<File, Error> {
    let failed = Error::of_disk;
    let mut options = OpenOptions::new();
    let options = options.create(true).truncate(false).read(true).write(true).mode(0o600);
    let path = beside(database);
    let mut file = match options.open(&path) {
        // It is there since the first start, and a lock writes nothing.
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(&path),
        opened => opened,
    }
    .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) if !is_at(&file, &path) => {
            // It was removed in between: whoever comes next locks another file.
            Err(Error::Held(named("")))
        }
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

/// Whether the disk of a database of SQLite's is read-only. A kernel that has seen an error of the disk
/// says so to whoever opens a file to write, and nowhere else.
///
/// # Errors
///
/// [`Error::ReadOnly`].
pub(crate) fn require_writable(database: &Path) -> Result<(), Error> {
    // Not the database: its locks would end with any descriptor of it.
    match File::options().write(true).open(beside(database)) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => {
            Err(Error::ReadOnly(sqlx::Error::Io(error)))
        }
        _ => Ok(()),
    }
}

/// Whether a file that is open is the one at a path.
fn is_at(file: &File, path: &Path) -> bool {
    let id = |metadata: &fs::Metadata| (metadata.dev(), metadata.ino());
    matches!((file.metadata(), fs::metadata(path)), (Ok(a), Ok(b)) if id(&a) == id(&b))
}

/// The file whose lock is the lease: beside the database itself, whatever links lead there.
fn beside(database: &Path) -> PathBuf {
    let mut path = database.to_owned();
    for _ in 0..LINKS {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path.with_added_extension("lease")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_the_process_and_its_start_whatever_the_host_is_called() {
        let since = Timestamp::from_second(1_795_781_719).unwrap();
        let holder = Holder { pid: 4_194_304, host: "é".repeat(64), since };
        let name = holder.to_name();
        assert_eq!(name.len(), NAME_BYTES);
        let read = named(&name);
        assert!(read.starts_with("pid 4194304 on ????????"), "{read}");
        assert!(read.ends_with("? since 2026-11-27T12:15:19Z"), "{read}");
        let host = "ip-10-0-12-34.eu-west-1.aws.internal".to_owned();
        let holder = Holder { host, ..holder };
        assert_eq!(named(&holder.to_name()), holder.to_string());
        assert_eq!(named(" \n"), "a process that is just starting or ending");
        assert_eq!(named("psql"), "psql");
    }
}
