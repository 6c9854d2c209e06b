//! Whether a platform could start, before it has anything to start with.

use tolv_sandbox::{Machine, Spawner};
use tolv_store::blobs::Blobs as BlobStore;
use tolv_store::{DatabaseUrl, SecretKey, Store};

use super::delay::is_delay;
use super::error::Error;
use super::options::Options;
use super::origin::require_own_database;
use super::platform::Platform;

impl Platform {
    /// Tries what can be tried beside the platform that runs on the same state: the key, the schema of
    /// the database, the address of the blob store, the sandbox. Changes nothing. A database that is
    /// away, or a disk that takes nothing, is no reason not to start.
    ///
    /// # Errors
    ///
    /// As of [`Platform::start`].
    pub async fn try_out(options: &Options) -> Result<(), Error> {
        let key = match &options.secret_key {
            Some(key) => key.clone(),
            None => SecretKey::load(&options.home.path().join("secret-key"))?,
        };
        let database = match &options.database {
            Some(database) => database.clone(),
            None => DatabaseUrl::file(&options.home.path().join("db.sqlite")),
        };
        let store = Store::connect(&database, &key)?;
        store.anchor_in(options.home.path().join("anchors"));
        let could_prepare = async {
            require_own_database(options.home.path(), &store).await?;
            Ok::<_, Error>(store.could_prepare().await?)
        };
        match could_prepare.await {
            // It has to change the schema, and cannot.
            Err(error @ Error::Store(tolv_store::Error::ReadOnlyDatabase)) => return Err(error),
            // A start goes on without both, with what ran before.
            Err(error) if !is_delay(&error) => return Err(error),
            _ => {}
        }
        if let Some(blobs) = &options.blobs {
            BlobStore::open(&blobs.url, &blobs.options)?;
        }
        let spawner = Spawner::start(&options.image, &["spawner"])?;
        spawner.hide(options.home.path())?;
        Machine::probe(&spawner, options.network)?.choose(options.sandbox)?;
        Ok(())
    }
}
