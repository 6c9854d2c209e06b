//! The schema: whether it is this version's, bringing it up to date, and the key that the database was
//! written with.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::{AnyConnection, Executor as _, Row as _};
use tolv_model::slug::Digest;

use crate::columns::Columns;
use crate::db::{Store, Transaction};
use crate::error::{Error, is_missing_table};

/// What proves the key: sealed under this name.
const PROOF: &str = "key proof";

/// Reads it.
pub(crate) const READ_PROOF: &str = "SELECT value FROM meta WHERE name = 'key proof'";

/// Which database this is, once it is known. Another one behind the same address is not used: all deploys
/// would be gone, or be those of somebody else.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    own: OnceLock<Digest>,
    /// Whether another one answered last.
    is_exchanged: AtomicBool,
}

impl Identity {
    pub(crate) fn is_exchanged(&self) -> bool {
        self.is_exchanged.load(Ordering::Relaxed)
    }

    /// Judges what a database says that proves its key.
    pub(crate) fn judge(&self, found: Result<Option<String>, sqlx::Error>) -> Result<(), Error> {
        let Some(own) = self.own.get() else { return Ok(()) };
        let found = match found {
            Ok(found) => found.map(|text| Digest::of(text.as_bytes())),
            Err(error) if is_missing_table(&error) => None,
            Err(error) => return Err(error.into()),
        };
        let is_exchanged = found.as_ref() != Some(own);
        self.is_exchanged.store(is_exchanged, Ordering::Relaxed);
        match found {
            Some(_) if is_exchanged => Err(Error::Exchanged("it is that of another platform")),
            Some(_) => Ok(()),
            None => Err(Error::Exchanged("it is not this platform's: it has none of its tables")),
        }
    }

    /// Makes sure that a new connection leads to the same database.
    pub(crate) async fn require(&self, connection: &mut AnyConnection) -> Result<(), sqlx::Error> {
        if self.own.get().is_none() {
            return Ok(());
        }
        let found = sqlx::query(READ_PROOF).fetch_optional(connection).await;
        let found = found.and_then(|row| row.map(|row| row.try_get("value")).transpose());
        self.judge(found).map_err(|error| match error {
            Error::Unavailable(error) | Error::Database(error) => error,
            error => sqlx::Error::Configuration(Box::new(error)),
        })
    }
}

/// The ledger's rows cannot be changed, in each database's own words.
pub(crate) const FIXED_IN_SQLITE: &str = "CREATE TRIGGER IF NOT EXISTS releases_are_fixed \
    BEFORE UPDATE ON releases BEGIN SELECT RAISE(ABORT, 'a release is never changed'); END";
pub(crate) const FIXED_IN_POSTGRES: &str = "CREATE OR REPLACE FUNCTION release_is_fixed() RETURNS trigger \
    LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'a release is never changed'; END $$; \
    CREATE OR REPLACE TRIGGER releases_are_fixed BEFORE UPDATE ON releases \
    FOR EACH ROW EXECUTE FUNCTION release_is_fixed()";

/// Counts what makes them so.
pub(crate) const IS_FIXED_IN_SQLITE: &str = "SELECT COUNT(*) AS count FROM sqlite_master \
    WHERE type = 'trigger' AND tbl_name = 'releases' AND name = 'releases_are_fixed' \
    AND sql LIKE '%RAISE(ABORT%'";
pub(crate) const IS_FIXED_IN_POSTGRES: &str = "SELECT COUNT(*) AS count FROM pg_trigger \
    JOIN pg_proc ON pg_proc.oid = tgfoid \
    WHERE tgrelid = to_regclass('releases') AND tgname = 'releases_are_fixed' AND tgenabled = 'O' \
    AND proname = 'release_is_fixed' AND prosrc LIKE ' BEGIN RAISE EXCEPTION %'";

impl Store {
    /// Brings the schema up to date, proves the key, and records where the ledgers end in a folder
    /// of anchors that is new. Where all that is so already, nothing is written.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::OtherSchema`], [`Error::Migrate`], [`Error::WrongKey`],
    /// [`Error::Anchor`].
    pub async fn prepare(&self) -> Result<(), Error> {
        self.bring_up_to_date().await.map_err(|error| error.of_file(self.file()))
    }

    async fn bring_up_to_date(&self) -> Result<(), Error> {
        self.adjust_reserves();
        if !self.is_up_to_date().await? {
            self.migrate().await?;
        }
        let fixed = sqlx::query(self.0.is_fixed).fetch_one(self.pool()).await?;
        if Columns(&fixed).number("count")? == 0 {
            let mut write = self.write().await?;
            write.tx.execute(self.0.fixed).await?;
            write.commit().await?;
        }
        match self.check_key().await {
            Err(Error::OtherSchema) => self.prove_key().await?,
            checked => checked?,
        }
        self.load_spent().await?;
        self.adopt_rows().await?;
        self.adopt_ledgers().await?;
        if let Some(own) = self.identity().await? {
            self.0.known.own.set(own).ok();
        }
        Ok(())
    }

    async fn migrate(&self) -> Result<(), Error> {
        // A migration that fails leaves a connection in an unknown state: it is closed then.
        let connection = self.pool().acquire().await?;
        let mut migrating = Transaction::on(connection);
        sqlx::migrate!().run_direct(&mut *migrating).await.map_err(|error| match error {
            sqlx::migrate::MigrateError::Execute(error)
            | sqlx::migrate::MigrateError::ExecuteMigration(error, _) => error.into(),
            error => Error::Migrate(error),
        })?;
        migrating.leave();
        Ok(())
    }

    /// Whether every change that this version makes to the schema was made. A look that changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::OtherSchema`] where another version made changes, [`Error::Unavailable`].
    async fn is_up_to_date(&self) -> Result<bool, Error> {
        // One that failed in the middle is the migrator's to tell.
        let applied = sqlx::query("SELECT version, checksum FROM _sqlx_migrations WHERE success")
            .fetch_all(self.pool())
            .await;
        let applied = match applied {
            Err(error) if is_missing_table(&error) => return Ok(false),
            applied => applied?,
        };
        let known = sqlx::migrate!();
        for row in &applied {
            let (version, checksum): (i64, Vec<u8>) =
                (row.try_get("version")?, row.try_get("checksum")?);
            let mut ours = known.iter().filter(|one| one.version == version);
            if ours.all(|one| *one.checksum != *checksum) {
                return Err(Error::OtherSchema);
            }
        }
        Ok(applied.len() == known.iter().count())
    }

    /// Makes sure that [`Store::prepare`] can succeed, and changes nothing: every change that was made to
    /// the schema is one of this version's, those that are missing can be made, and the key is the right
    /// one.
    ///
    /// # Errors
    ///
    /// As [`Store::check`]; [`Error::ReadOnlyDatabase`] where there is something to change.
    pub async fn could_prepare(&self) -> Result<(), Error> {
        if !self.is_up_to_date().await? {
            self.require_writable_database().await?;
        }
        self.check_key().await
    }

    /// Makes sure that the schema is this version's and the key is the right one, and changes
    /// nothing: a platform of another version may be running on this database.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::OtherSchema`], [`Error::WrongKey`].
    pub async fn check(&self) -> Result<(), Error> {
        let newest = sqlx::migrate!().iter().map(|one| one.version).max().unwrap_or_default();
        let applied = sqlx::query("SELECT MAX(version) AS version FROM _sqlx_migrations")
            .fetch_one(self.pool())
            .await;
        let applied: Option<i64> = match applied {
            Ok(row) => row.try_get("version")?,
            Err(error) if is_missing_table(&error) => return Err(Error::OtherSchema),
            Err(error) => return Err(error.into()),
        };
        if applied != Some(newest) {
            return Err(Error::OtherSchema);
        }
        self.check_key().await
    }

    /// Whether a platform has written to this database before, with the key that it was proven with.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`].
    pub async fn has_key(&self) -> Result<bool, Error> {
        let found = sqlx::query("SELECT value FROM meta WHERE name = $1")
            .bind(PROOF)
            .fetch_optional(self.pool())
            .await;
        match found {
            Ok(found) => Ok(found.is_some()),
            Err(error) if is_missing_table(&error) => Ok(false),
            Err(error) => Err(Error::from(error).of_file(self.file())),
        }
    }

    /// What tells this database from any other: a digest of what proves its key. Nothing where no
    /// platform has written to it. Changes nothing, and makes no file.
    pub(crate) async fn identity(&self) -> Result<Option<Digest>, Error> {
        // One that cannot be reached says so below.
        if self.file().is_some_and(|file| matches!(file.try_exists(), Ok(false))) {
            return Ok(None);
        }
        let found = sqlx::query("SELECT value FROM meta WHERE name = $1")
            .bind(PROOF)
            .fetch_optional(self.pool())
            .await;
        match found {
            Ok(Some(row)) => Ok(Some(Digest::of(Columns(&row).text("value")?.as_bytes()))),
            Ok(None) => Ok(None),
            Err(error) if is_missing_table(&error) => Ok(None),
            Err(error) => Err(Error::from(error).of_file(self.file())),
        }
    }

    async fn check_key(&self) -> Result<(), Error> {
        let found = sqlx::query("SELECT value FROM meta WHERE name = $1")
            .bind(PROOF)
            .fetch_optional(self.pool())
            .await?;
        let sealed: String = found.ok_or(Error::OtherSchema)?.try_get("value")?;
        self.0.key.open(PROOF, &sealed).map(drop).ok_or(Error::WrongKey)
    }

    async fn prove_key(&self) -> Result<(), Error> {
        let mut write = self.write().await?;
        let found = sqlx::query("SELECT value FROM meta WHERE name = $1")
            .bind(PROOF)
            .fetch_optional(&mut *write.tx)
            .await?;
        match found {
            Some(row) => {
                write.rollback().await?;
                let sealed: String = row.try_get("value")?;
                self.0.key.open(PROOF, &sealed).map(drop).ok_or(Error::WrongKey)
            }
            None => {
                let sealed = self.0.key.seal(PROOF, PROOF.as_bytes())?;
                sqlx::query("INSERT INTO meta (name, value) VALUES ($1, $2)")
                    .bind(PROOF)
                    .bind(sealed)
                    .execute(&mut *write.tx)
                    .await?;
                write.commit().await
            }
        }
    }
}
