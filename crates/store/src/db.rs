//! The connection: opening, the schema, transactions, and reading rows.

use std::fs::File;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Once, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use sqlx::any::AnyPoolOptions;
use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, Executor as _};
use tokio::sync::{Mutex, MutexGuard, watch};
use tolv_model::ledger::LedgerKey;

use crate::columns::Columns;
use crate::error::{Error, is_damaged};
use crate::lease::require_writable;
use crate::reserve;
use crate::rows::Done;
use crate::schema::{
    FIXED_IN_POSTGRES, FIXED_IN_SQLITE, IS_FIXED_IN_POSTGRES, IS_FIXED_IN_SQLITE, Identity,
};
use crate::secret::{RowKey, SecretKey, random};
use crate::spent::Spent;
use crate::url::{DatabaseUrl, Place};

/// Connections at once.
const POOL: u32 = 5;
/// For a connection to be had; then the database counts as away.
const PATIENCE: Duration = Duration::from_secs(3);

/// For a disk to count as full after a write failed, whatever is written meanwhile.
const DISK_FAULT_TIME: Duration = Duration::from_secs(10);

/// Statements of SQLite's own, for each connection.
const SQLITE: &str = "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; \
                      PRAGMA foreign_keys = ON; PRAGMA busy_timeout = 3000;";

/// What `BEGIN IMMEDIATE` is in SQLite: one writer, also among several platforms. Each statement
/// sees what was committed before it, so nothing is to be tried again. The number is ours alone. The
/// DELETE fails in a session that is read-only, before anything is waited for.
const BEGIN_IN_POSTGRES: &str = "BEGIN; SET LOCAL lock_timeout = '3s'; DELETE FROM meta WHERE false; \
    SELECT pg_advisory_xact_lock(8389187293518033779)";

/// The locks that a session has on the lease.
const SESSION_HOLDS: &str = "SELECT COUNT(*) AS locks FROM pg_locks WHERE locktype = 'advisory' \
    AND granted AND classid = 1953459318 AND objid = 1 AND objsubid = 2 AND pid = $1";
const LEASE_LOST: &str = "the database cannot be reached: its lease is lost, and nothing is written \
    until it is held again";

/// In SQLite each transaction reads one state of the database.
const READ_IN_SQLITE: &str = "BEGIN";
const READ_IN_POSTGRES: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

static DRIVERS: Once = Once::new();

/// The state of one platform. Clones share it.
#[derive(Clone)]
pub struct Store(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pool: AnyPool,
    pub(crate) key: SecretKey,
    /// What the rows of ledgers are hashed with.
    pub(crate) ledger_key: LedgerKey,
    /// What other rows that decide something are authenticated with.
    pub(crate) row_key: RowKey,
    /// One writer at a time: what is read in a transaction is still so when it is written.
    writing: Mutex<()>,
    /// Whether anything may be written: not while the lease is not had.
    may_write: watch::Sender<bool>,
    begin: &'static str,
    /// Begins a transaction that reads one state of the database.
    begin_read: &'static str,
    /// Makes the ledger's rows fixed.
    pub(crate) fixed: &'static str,
    /// Counts what does.
    pub(crate) is_fixed: &'static str,
    /// Why the database was away when its lease was asked for last.
    outage: watch::Sender<Option<String>>,
    /// Which database it is, once it was prepared: no other one is used.
    pub(crate) known: Arc<Identity>,
    /// Which platform has the database now, where it is another one.
    ousted: OnceLock<String>,
    /// PostgreSQL's process of the session that has the lease; 0 where there is none.
    lease_session: AtomicI32,
    /// When a write failed last for the disk of a database server; nothing once others are done.
    disk_fault: DiskFault,
    /// The folder of the ledgers' anchors.
    pub(crate) anchors: OnceLock<PathBuf>,
    /// Codes of rows that hold no more, although they are this platform's.
    pub(crate) spent: Spent,
    /// The last operations that were done.
    pub(crate) done: Done,
    /// Held while an anchor is written.
    pub(crate) anchoring: Arc<Mutex<()>>,
    /// The file of SQLite's database.
    file: Option<PathBuf>,
    /// Where PostgreSQL's is.
    postgres: Option<String>,
    /// The files that reserve disk space.
    reserves: OnceLock<Vec<PathBuf>>,
    /// How many releases of each deploy keep their config version; all of them where it is not set.
    pub(crate) keep_releases: OnceLock<u32>,
    /// Where the database is reached through its descriptor.
    _folder: Option<File>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Store")
    }
}

/// An open transaction. If it is dropped before its end, its connection is closed: the database may
/// have rolled back by itself (SQLite does on a full disk), so the state of the connection is
/// unknown.
pub(crate) struct Transaction {
    connection: PoolConnection<Any>,
    has_ended: bool,
}

impl Transaction {
    pub(crate) fn on(connection: PoolConnection<Any>) -> Self {
        Self { connection, has_ended: false }
    }

    /// Gives its connection back, which is in no transaction any more.
    pub(crate) fn leave(mut self) {
        self.has_ended = true;
    }

    /// Ends one that only reads.
    pub(crate) async fn finish(self) -> Result<(), Error> {
        self.end("ROLLBACK").await
    }

    async fn end(mut self, statement: &'static str) -> Result<(), Error> {
        self.connection.execute(statement).await?;
        self.has_ended = true;
        Ok(())
    }
}

impl Deref for Transaction {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.connection
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        if !self.has_ended {
            self.connection.close_on_drop();
        }
    }
}

/// When a write failed last for the disk of a database server.
#[derive(Debug, Default)]
struct DiskFault(std::sync::Mutex<Option<Instant>>);

impl DiskFault {
    fn last(&self) -> std::sync::MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) {
        *self.last() = Some(Instant::now());
    }

    /// A full disk has room for some rows yet: what is written just after is no proof.
    fn written(&self) {
        self.last().take_if(|failed| failed.elapsed() >= DISK_FAULT_TIME);
    }

    fn is_there(&self) -> bool {
        self.last().is_some()
    }
}

/// A transaction that writes.
pub(crate) struct Write<'a> {
    pub(crate) tx: Transaction,
    disk_fault: &'a DiskFault,
    _one: MutexGuard<'a, ()>,
}

impl Write<'_> {
    pub(crate) async fn commit(self) -> Result<(), Error> {
        self.tx.end("COMMIT").await?;
        self.disk_fault.written();
        Ok(())
    }

    /// Ends a transaction that has changed nothing.
    pub(crate) async fn rollback(self) -> Result<(), Error> {
        self.tx.end("ROLLBACK").await
    }
}

impl Store {
    /// A store that connects when it is first used. [`Store::prepare`] comes before anything else.
    ///
    /// # Errors
    ///
    /// An address that no database can have.
    pub fn connect(url: &DatabaseUrl, key: &SecretKey) -> Result<Self, Error> {
        DRIVERS.call_once(sqlx::any::install_default_drivers);
        let mut folder = None;
        let (file, postgres) = match &url.0 {
            Place::Sqlite(path) => (Some(path.clone()), None),
            Place::Postgres(url) => (None, Some(url.clone())),
        };
        let (address, setup, (fixed, is_fixed), begin, begin_read) = match &url.0 {
            Place::Sqlite(path) => {
                let path = match (path.to_str(), path.parent(), path.file_name()) {
                    (None, Some(parent), Some(name)) => {
                        // An address is text; this is text for any folder.
                        let parent = folder.insert(File::open(parent).map_err(Error::Folder)?);
                        let parent = format!("/proc/self/fd/{}", parent.as_raw_fd());
                        Path::new(&parent).join(name)
                    }
                    _ => path.clone(),
                };
                let path = path.to_string_lossy().replace('%', "%25").replace('?', "%3F");
                let address = format!("sqlite://{path}?mode=rwc");
                let fixed = (FIXED_IN_SQLITE, IS_FIXED_IN_SQLITE);
                (address, SQLITE, fixed, "BEGIN IMMEDIATE", READ_IN_SQLITE)
            }
            Place::Postgres(url) => {
                let fixed = (FIXED_IN_POSTGRES, IS_FIXED_IN_POSTGRES);
                (url.clone(), "", fixed, BEGIN_IN_POSTGRES, READ_IN_POSTGRES)
            }
        };
        // The pool would try a damaged file again and again, until it counts as away. So such a
        // connection is let through: what is asked on it says what is wrong, and it is used once.
        let damaged = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&damaged);
        let known = Arc::<Identity>::default();
        let (of_kept, of_new) = (Arc::clone(&known), Arc::clone(&known));
        let pool = AnyPoolOptions::new()
            .max_connections(POOL)
            .acquire_timeout(PATIENCE)
            .before_acquire(move |_, _| {
                let is_sound = !damaged.load(Ordering::Relaxed) && !of_kept.is_exchanged();
                Box::pin(async move { Ok(is_sound) })
            })
            .after_connect(move |connection, _| {
                let (seen, known) = (Arc::clone(&seen), Arc::clone(&of_new));
                Box::pin(async move {
                    if setup.is_empty() {
                        return known.require(connection).await;
                    }
                    match connection.execute(setup).await {
                        Err(error) if is_damaged(&error) => {
                            seen.store(true, Ordering::Relaxed);
                            return Ok(());
                        }
                        Err(error) => return Err(error),
                        Ok(_) => {}
                    }
                    known.require(connection).await
                })
            })
            .connect_lazy(&address)?;
        Ok(Self(Arc::new(Inner {
            pool,
            ledger_key: key.ledger_key(),
            row_key: key.row_key(),
            key: key.clone(),
            writing: Mutex::default(),
            may_write: watch::Sender::new(true),
            begin,
            begin_read,
            fixed,
            is_fixed,
            outage: watch::Sender::new(None),
            known,
            ousted: OnceLock::new(),
            lease_session: AtomicI32::new(0),
            disk_fault: DiskFault::default(),
            anchors: OnceLock::new(),
            spent: Spent::default(),
            done: Done::default(),
            anchoring: Arc::default(),
            file,
            postgres,
            reserves: OnceLock::new(),
            keep_releases: OnceLock::new(),
            _folder: folder,
        })))
    }

    /// Lets what writes go on, or wait.
    pub(crate) fn let_write(&self, may: bool) {
        self.0.may_write.send_replace(may);
    }

    /// Whether anything may be written: not while the lease is not held for certain.
    pub fn may_write(&self) -> bool {
        *self.0.may_write.borrow()
    }

    /// Keeps why the database was away when its lease was asked for; nothing where it was had.
    pub(crate) fn set_outage(&self, error: Option<&Error>) {
        let why = match error {
            // It says nothing more than that there was no answer.
            Some(Error::Unanswered) | None => None,
            Some(error) => error.is_unavailable().then(|| error.to_string()),
        };
        self.0.outage.send_if_modified(|before| std::mem::replace(before, why.clone()) != why);
    }

    /// Why the database was away when its lease was asked for last, where that is known.
    pub fn outage(&self) -> Option<String> {
        self.0.outage.borrow().clone()
    }

    /// The same, for whoever waits for it to change.
    pub fn outage_changes(&self) -> watch::Receiver<Option<String>> {
        self.0.outage.subscribe()
    }

    /// Which session of PostgreSQL has the lease: without it nothing is written.
    pub(crate) fn set_lease_session(&self, process: Option<i32>) {
        self.0.lease_session.store(process.unwrap_or(0), Ordering::SeqCst);
    }

    /// Puts what is known of the reason in the place of an error that says only that no connection was
    /// had in time.
    #[must_use]
    pub fn explain(&self, error: Error) -> Error {
        match (error, self.outage()) {
            (Error::Unanswered, Some(why)) => Error::Away(why),
            (error, _) => error,
        }
    }

    /// Notes that something was not written, where that is the fault of a database server's disk: a status
    /// says so until something is written, and for some seconds at least.
    pub fn note_failure(&self, error: &Error) {
        if matches!(error, Error::DatabaseFull(_) | Error::DatabaseDisk(_)) {
            self.0.disk_fault.failed();
        }
    }

    /// Whether writes fail for the disk of a database server.
    pub fn is_disk_at_fault(&self) -> bool {
        self.0.disk_fault.is_there()
    }

    /// The same, for whoever waits for it to change.
    pub fn may_write_changes(&self) -> tokio::sync::watch::Receiver<bool> {
        self.0.may_write.subscribe()
    }

    /// The file of SQLite's database.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.0.file.as_deref()
    }

    /// The address of a database of PostgreSQL's.
    pub(crate) fn postgres(&self) -> Option<&str> {
        self.0.postgres.as_deref()
    }

    /// Reserves disk space in a folder, and beside SQLite's database, for what has to be written on
    /// a full disk. A part of the reserve is given up there, and made again when there is space.
    pub fn reserve_space_in(&self, folder: &Path) {
        let mut files = vec![folder.join("reserve")];
        if let Some(file) = &self.0.file
            && file.parent() != Some(folder)
        {
            files.push(file.with_added_extension("reserve"));
        }
        self.0.reserves.set(files).ok();
        self.adjust_reserves();
    }

    /// Makes the reserve again where there is space, and gives a part of it up where there is none. May
    /// wait for the disk.
    pub fn adjust_reserves(&self) {
        for file in self.0.reserves.get().into_iter().flatten() {
            reserve::adjust(file);
        }
    }

    /// Sets how many of a deploy's last releases keep their config versions.
    pub fn keep_releases(&self, count: u32) {
        self.0.keep_releases.set(count).ok();
    }

    /// Makes sure that PostgreSQL takes writes: it does not on a standby, or where it was made
    /// read-only.
    ///
    /// # Errors
    ///
    /// [`Error::ReadOnlyDatabase`], [`Error::Unavailable`].
    pub async fn require_writable_database(&self) -> Result<(), Error> {
        match self.0.file.is_none() && self.connection_for_status().await?.1 {
            true => Err(Error::ReadOnlyDatabase),
            false => Ok(()),
        }
    }

    /// A connection that has answered, and whether it is read-only. One that was made while the database
    /// was makes room for another.
    pub(crate) async fn connection_for_status(&self) -> Result<(PoolConnection<Any>, bool), Error> {
        let ask = match self.0.file {
            Some(_) => "SELECT 'off' AS is_read_only",
            None => "SELECT current_setting('transaction_read_only') AS is_read_only",
        };
        let mut tries = 0;
        loop {
            let was_idle = self.pool().num_idle() > 0;
            let mut connection = self.pool().acquire().await?;
            let row = sqlx::query(ask).fetch_one(&mut *connection).await?;
            let is_read_only = Columns(&row).text("is_read_only")? == "on";
            if is_read_only && was_idle && tries < POOL {
                tries += 1;
                connection.close_on_drop();
                continue;
            }
            return Ok((connection, is_read_only));
        }
    }

    /// Seals bytes that belong to `owner` with the secret key.
    ///
    /// # Errors
    ///
    /// [`Error::Random`].
    pub fn seal(&self, owner: &str, bytes: &[u8]) -> Result<String, Error> {
        self.0.key.seal(owner, bytes)
    }

    /// Opens what was sealed for `owner`; nothing where it was changed, or with another key.
    pub fn unseal(&self, owner: &str, sealed: &str) -> Option<Vec<u8>> {
        self.0.key.open(owner, sealed)
    }

    /// Seals bytes of any length that belong to `owner`.
    ///
    /// # Errors
    ///
    /// [`Error::Random`].
    pub fn seal_stream(&self, owner: &str, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        self.0.key.seal_stream(owner, bytes)
    }

    /// Opens what [`Store::seal_stream`] sealed for `owner`.
    ///
    /// # Errors
    ///
    /// [`Error::Corrupt`] where it was changed, or sealed with another key.
    pub fn unseal_stream(&self, owner: &str, sealed: &[u8]) -> Result<Vec<u8>, Error> {
        let changed = || "it was changed, or sealed with another key".to_owned();
        let opened = self.0.key.open_stream(owner, sealed);
        opened.ok_or_else(|| Error::Corrupt { what: "an output", why: changed() })
    }

    pub(crate) fn pool(&self) -> &AnyPool {
        &self.0.pool
    }

    /// Begins a transaction that writes, once no other does.
    pub(crate) async fn write(&self) -> Result<Write<'_>, Error> {
        if self.0.ousted.get().is_some() {
            return Err(self.why_no_write());
        }
        let mut may_write = self.0.may_write.subscribe();
        let begin = async {
            // Its other end is ours: it is there.
            may_write.wait_for(|may| *may).await.ok();
            let one = self.0.writing.lock().await;
            self.adjust_reserves();
            if let Some(file) = &self.0.file {
                require_writable(file)?;
            }
            let mut opened_read_only = 0;
            loop {
                let was_idle = self.0.pool.num_idle() > 0;
                let connection = self.0.pool.acquire().await?;
                let mut tx = Transaction { connection, has_ended: false };
                match tx.execute(self.0.begin).await.map_err(Error::from) {
                    Ok(_) => {
                        self.require_lease(&mut tx).await?;
                        return Ok(Write { tx, disk_fault: &self.0.disk_fault, _one: one });
                    }
                    // Made while the disk was read-only: it ends here, and another takes its place.
                    Err(Error::ReadOnly(_)) if opened_read_only < POOL => opened_read_only += 1,
                    Err(Error::ReadOnlyDatabase) if was_idle && opened_read_only < POOL => {
                        opened_read_only += 1;
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        // One wait for both: who waits for the lock may do so behind those who wait for a
        // database that is away.
        let late = |_| match self.may_write() {
            true => Err(Error::Unanswered),
            false => Err(self.why_no_write()),
        };
        tokio::time::timeout(PATIENCE, begin).await.unwrap_or_else(late)
    }

    /// Nothing is written from here on: another platform has the database.
    pub(crate) fn oust(&self, by: &str) {
        self.0.ousted.set(by.to_owned()).ok();
    }

    /// Why nothing may be written now.
    fn why_no_write(&self) -> Error {
        match (self.0.ousted.get(), self.outage()) {
            (Some(by), _) => {
                Error::Away(format!("another platform runs on this database now: {by}"))
            }
            (None, Some(why)) => Error::Away(why),
            (None, None) => Error::Away(LEASE_LOST.to_owned()),
        }
    }

    /// Makes sure that the session that took the lease has it still. A platform that was stopped for a
    /// while finds out only later that another one has it now.
    async fn require_lease(&self, tx: &mut Transaction) -> Result<(), Error> {
        let session = self.0.lease_session.load(Ordering::SeqCst);
        if session == 0 {
            return Ok(());
        }
        let holds = sqlx::query(SESSION_HOLDS).bind(session).fetch_one(&mut **tx).await?;
        match Columns(&holds).number("locks")? {
            0 => Err(self.why_no_write()),
            _ => Ok(()),
        }
    }

    /// Begins a transaction that reads: whatever it reads is of one moment, and nobody waits for it.
    pub(crate) async fn read(&self) -> Result<Transaction, Error> {
        let connection = self.0.pool.acquire().await?;
        let mut tx = Transaction { connection, has_ended: false };
        tx.execute(self.0.begin_read).await?;
        Ok(tx)
    }

    /// A number for a new id.
    pub(crate) fn random(&self) -> Result<u64, Error> {
        random().map(u64::from_le_bytes)
    }
}
