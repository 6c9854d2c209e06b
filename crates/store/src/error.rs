//! Why the store did not do what was asked.

use std::io;
use std::path::{Path, PathBuf};

use tolv_model::env::EnvError;
use tolv_model::id::TokenId;
use tolv_model::shortage::Shortage;

/// Why the store did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The name is taken.
    #[error("{what} `{name}` exists already")]
    Exists {
        /// What was to be made.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// Nothing has this name.
    #[error("there is no {what} `{name}`")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// It was changed meanwhile.
    #[error("the config is at version {current}, not at {expected}")]
    Conflict {
        /// What the caller knew.
        expected: u32,
        /// What is.
        current: u32,
    },
    /// There are as many as there may be.
    #[error("there are {most} {what} already, and no more than that")]
    TooMany {
        /// What was to be made.
        what: &'static str,
        /// How many there may be.
        most: usize,
    },
    /// Without it nobody could administrate the platform.
    #[error("{0} is the last token that can administrate the platform and never expires")]
    LastAdmin(TokenId),
    /// Another platform runs on the database.
    #[error("another platform runs on this database: {0}")]
    Held(String),
    /// The database was not written by this version.
    #[error("the database has the schema of another version of tolv")]
    OtherSchema,
    /// It cannot be done while something else is there.
    #[error("app `{0}` still has deploys")]
    HasDeploys(String),
    /// A config variable is refused.
    #[error(transparent)]
    Env(#[from] EnvError),
    /// The secret key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The key is not the one that this database was written with.
    #[error("the secret key is not the one that this database was written with")]
    WrongKey,
    /// The database cannot be reached now.
    #[error("the database cannot be reached{}", outage(.0))]
    Unavailable(#[source] sqlx::Error),
    /// The same, where nothing is known but that no answer came.
    #[error("the database cannot be reached: it does not answer in time")]
    Unanswered,
    /// The same, with what was found out about the reason elsewhere.
    #[error("{0}")]
    Away(String),
    /// Another database answers at the address of this platform's.
    #[error("another database answers at the address of this platform's: {0}")]
    Exchanged(&'static str),
    /// PostgreSQL takes no writes: it is a standby, or was made read-only.
    #[error("the database is read-only")]
    ReadOnlyDatabase,
    /// The file of the database is damaged, or is no database.
    #[error("the database{} cannot be used", named(.file.as_deref()))]
    Damaged {
        /// Which file, where that is known.
        file: Option<PathBuf>,
        /// What SQLite says of it.
        source: sqlx::Error,
    },
    /// The disk of the database is full.
    #[error("the disk of the platform is full")]
    Full(#[source] sqlx::Error),
    /// The disk of the database takes nothing: it is read-only.
    #[error("the disk of the platform is read-only")]
    ReadOnly(#[source] sqlx::Error),
    /// The disk of the database cannot be read or written, for whatever reason.
    #[error("the disk of the platform gives errors")]
    Disk(#[source] sqlx::Error),
    /// The disk of the PostgreSQL server is full.
    #[error("the disk of the database is full")]
    DatabaseFull(#[source] sqlx::Error),
    /// The disk of the PostgreSQL server cannot be read or written.
    #[error("the disk of the database gives errors")]
    DatabaseDisk(#[source] sqlx::Error),
    /// The folder of the database.
    #[error("the folder of the database cannot be opened")]
    Folder(#[source] io::Error),
    /// What is in the database makes no sense.
    #[error("the database holds {what} that cannot be read: {why}")]
    Corrupt {
        /// What.
        what: &'static str,
        /// Why not.
        why: String,
    },
    /// A row was written or changed outside of the platform.
    #[error(
        "the row of {what} `{name}` in the database was changed outside of the platform: {why}"
    )]
    Forged {
        /// `app` or `deploy`.
        what: &'static str,
        /// Its name or path, as it is stored.
        name: String,
        /// Which columns were changed, as far as that can be told.
        why: String,
    },
    /// The database refuses.
    #[error("the database refuses")]
    Database(#[source] sqlx::Error),
    /// The ledger is not the one that this platform left.
    #[error("the ledger does not hold")]
    Ledger(#[from] tolv_model::ledger::Broken),
    /// The file that says where a ledger ends.
    #[error("cannot use `{path}`, which says where a ledger ends")]
    Anchor {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file that says which rows hold no more, after the row is gone from the database.
    #[error(
        "it is revoked, but `{path}` cannot be used: who can write to the database could put it back \
         after the next start"
    )]
    Spent {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The schema cannot be brought up to date.
    #[error("the database cannot be brought up to this version's schema")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The blob store.
    #[error("cannot {what} in the blob store")]
    Blob {
        /// What was being done to which key.
        what: String,
        /// Why it failed.
        source: object_store::Error,
    },
    /// The blob store's address.
    #[error("`{url}` is no blob store that can be used")]
    BlobUrl {
        /// As given, without credentials.
        url: String,
        /// Why not.
        source: object_store::Error,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes")]
    Random,
}

/// The secret key cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// Not 32 bytes in hex or base 64. The text is not shown.
    #[error("{from} is not a secret key: 32 bytes as 64 hex digits or in base 64")]
    Syntax {
        /// Where it was read.
        from: String,
    },
    /// Others can read it.
    #[error("the secret key `{path}` can be read by others (mode {mode:o}): chmod 600 it")]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is gone, and a database was written with it.
    #[error("the secret key `{path}` is missing, and the database was written with one")]
    Missing {
        /// Which file.
        path: PathBuf,
    },
    /// The file.
    #[error("the secret key `{path}` cannot be read or made")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

fn named(file: Option<&Path>) -> String {
    file.map(|file| format!(" `{}`", file.display())).unwrap_or_default()
}

/// Why a server of PostgreSQL's is there and serves nobody, where it says so.
fn outage(error: &sqlx::Error) -> &'static str {
    let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
    match code.as_deref() {
        Some("28P01") => ": it refuses the password",
        Some(code) if code.starts_with("28") => ": it refuses the user",
        Some("3D000") => ": the server has no database of this name",
        Some("42501") => ": it refuses the user a permission",
        Some("53300") => ": it has too many connections",
        Some("55000") => ": it accepts no connections",
        Some("57P03") => ": it is starting up or shutting down",
        _ => "",
    }
}

/// SQLite's codes of a file that is malformed (11), or is no database (26).
fn is_damage(code: u32) -> bool {
    matches!(code, 11 | 26)
}

/// Whether an error of SQLite's is that of a damaged file.
pub(crate) fn is_damaged(error: &sqlx::Error) -> bool {
    let sqlx::Error::Database(database) = error else { return false };
    let code = database.code().and_then(|code| code.parse::<u32>().ok());
    database.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some()
        && code.is_some_and(|code| is_damage(code & 0xff))
}

impl Error {
    /// The same, with the file that is damaged.
    #[must_use]
    pub(crate) fn of_file(self, path: Option<&Path>) -> Self {
        match self {
            Self::Damaged { file: None, source } => {
                Self::Damaged { file: path.map(Path::to_owned), source }
            }
            other => other,
        }
    }

    /// A database that has not answered in time.
    pub(crate) fn away() -> Self {
        Self::Unanswered
    }

    /// From a server of PostgreSQL's that was asked for a connection: whatever it refuses one for, it
    /// is as good as away.
    pub(crate) fn at_connect(self) -> Self {
        match self {
            Self::Database(error) => Self::Unavailable(error),
            other => other,
        }
    }

    /// Whether the database is away or takes no writes, and may do so when it is asked again.
    pub fn is_unavailable(&self) -> bool {
        matches!(
            self,
            Self::Unavailable(_)
                | Self::Unanswered
                | Self::Away(_)
                | Self::Exchanged(_)
                | Self::ReadOnlyDatabase
        )
    }

    /// What is wrong with the disk, where that is the cause: it may be done once that is over.
    pub fn disk_fault(&self) -> Option<Shortage> {
        match self {
            Self::Full(_) => Some(Shortage::DiskSpace),
            Self::ReadOnly(_) => Some(Shortage::WritableDisk),
            Self::Disk(_) => Some(Shortage::SoundDisk),
            Self::DatabaseFull(_) => Some(Shortage::DatabaseSpace),
            Self::DatabaseDisk(_) => Some(Shortage::SoundDatabaseDisk),
            Self::Folder(source) | Self::Anchor { source, .. } | Self::Spent { source, .. } => {
                Shortage::of_disk(source)
            }
            _ => None,
        }
    }

    /// From the disk of the database.
    pub(crate) fn of_disk(error: io::Error) -> Self {
        match Shortage::of_disk(&error) {
            Some(Shortage::WritableDisk) => Self::ReadOnly(sqlx::Error::Io(error)),
            Some(_) => Self::Full(sqlx::Error::Io(error)),
            None => Self::Folder(error),
        }
    }

    pub(crate) fn corrupt(what: &'static str) -> impl FnOnce(String) -> Self {
        move |why| Self::Corrupt { what, why }
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error as E;
        if is_damaged(&error) {
            return Self::Damaged { file: None, source: error };
        }
        if is_missing_table(&error) {
            return Self::Exchanged("it has not this platform's tables");
        }
        match &error {
            // Protocol: what answered is no PostgreSQL, such as a proxy in front of one that is down.
            E::Io(_) | E::Tls(_) | E::Protocol(_) | E::PoolClosed | E::WorkerCrashed => {
                Self::Unavailable(error)
            }
            E::PoolTimedOut => Self::Unanswered,
            E::Database(database) => {
                let code = database.code().unwrap_or_default();
                // SQLite: 5 is busy, 6 locked, 13 full.
                let sqlite = database.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some();
                match &*code {
                    "5" | "6" | "261" | "517" if sqlite => Self::Unavailable(error),
                    // 4874: no space for the index of its log.
                    "13" | "4874" if sqlite => Self::Full(error),
                    code if sqlite => match code.parse::<i32>().map(|code| code & 0xff) {
                        Ok(8) => Self::ReadOnly(error),
                        // An error of the system, or a file that cannot be opened.
                        Ok(10 | 14) => Self::Disk(error),
                        _ => Self::Database(error),
                    },
                    // PostgreSQL: an error of the system; 58030 of a read or a write.
                    "58030" => Self::DatabaseDisk(error),
                    "53100" => Self::DatabaseFull(error),
                    "25006" => Self::ReadOnlyDatabase,
                    // It accepts no connections; a lock not had in time; a permission that was
                    // taken away; of two transactions one has to go.
                    "55000" | "55P03" | "42501" | "40001" | "40P01" => Self::Unavailable(error),
                    // Connections, who may have one, which database, memory and numbers of them, the
                    // server's end and start.
                    code if ["08", "28", "3D", "53", "57"]
                        .iter()
                        .any(|class| code.starts_with(class)) =>
                    {
                        Self::Unavailable(error)
                    }
                    _ => Self::Database(error),
                }
            }
            _ => Self::Database(error),
        }
    }
}

/// Whether a statement failed because the schema has no such table.
pub(crate) fn is_missing_table(error: &sqlx::Error) -> bool {
    let Some(error) = error.as_database_error() else { return false };
    match error.try_downcast_ref::<sqlx::sqlite::SqliteError>() {
        // The code is that of any statement that makes no sense.
        Some(_) => error.message().starts_with("no such table"),
        None => error.code().is_some_and(|code| code == "42P01"),
    }
}

/// Whether a statement failed because a unique value is there already.
pub(crate) fn is_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}
