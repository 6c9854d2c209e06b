//! What is kept of the outputs of a deploy's operations, runs and schedules: as many bytes as of its
//! log, the newest, and nothing while the disk has less room than has to stay.
//!
//! ```text
//!  outputs/<deploy>.json   [[key, bytes], …] oldest first ──▶ the blobs themselves
//! ```

use tolv_model::id::DeployId;
use tolv_model::shortage::Shortage;

use super::disk::{Room, is_read_only};
use super::error::Error;
use super::platform::{Platform, blocking};

/// With less free space on the disk than this nothing is recorded that does not free some.
pub(super) const MIN_FREE_FOR_RECORDS: u64 = 4 << 20;

/// What is kept of one deploy: keys and bytes, the oldest first.
type Index = Vec<(String, u64)>;

fn index_key(deploy: &DeployId) -> String {
    format!("outputs/{deploy}.json")
}

impl Platform {
    /// Keeps an output of a deploy; older ones make room.
    ///
    /// # Errors
    ///
    /// The disk is too full, or the store refuses: then it is not kept.
    pub(super) async fn keep_output(
        &self,
        deploy: &DeployId,
        key: &str,
        bytes: Vec<u8>,
    ) -> Result<(), Error> {
        let inner = &self.0;
        if inner.options.blobs.is_none() {
            self.check_free(inner.options.min_free)?;
        }
        // One at a time: the index is read and written.
        let _one = inner.keeping.lock().await;
        let text = inner.blobs.get(&index_key(deploy)).await?.unwrap_or_default();
        // One that cannot be read is begun again; what it named goes with the deploy's records.
        let mut index: Index = serde_json::from_slice(&text).unwrap_or_default();
        index.retain(|(known, _)| known != key);
        index.push((key.to_owned(), bytes.len() as u64));
        let mut total: u64 = index.iter().map(|(_, bytes)| bytes).sum();
        while total > inner.options.log_bytes && index.len() > 1 {
            let (oldest, bytes) = index.remove(0);
            inner.blobs.delete(&oldest).await?;
            total -= bytes;
        }
        // Sealed: an app may have said anything.
        let (store, owner) = (inner.store.clone(), key.to_owned());
        let sealed = blocking(move || store.seal_stream(&owner, &bytes)).await?;
        inner.blobs.put(key, sealed).await?;
        let text = serde_json::to_vec(&index).map_err(|error| Error::System {
            what: "write the index of outputs",
            source: error.into(),
        })?;
        Ok(inner.blobs.put(&index_key(deploy), text).await?)
    }

    /// Forgets what was kept of a deploy that goes.
    pub(super) async fn forget_outputs(&self, deploy: &DeployId) -> Result<(), Error> {
        let inner = &self.0;
        let _one = inner.keeping.lock().await;
        let text = inner.blobs.get(&index_key(deploy)).await?.unwrap_or_default();
        let index: Index = serde_json::from_slice(&text).unwrap_or_default();
        for (key, _) in index {
            inner.blobs.delete(&key).await?;
        }
        Ok(inner.blobs.delete(&index_key(deploy)).await?)
    }

    /// Refuses what makes the database grow while the disk has less free space than has to stay.
    ///
    /// # Errors
    ///
    /// [`Error::DiskFull`].
    pub fn require_disk_space(&self) -> Result<(), Error> {
        self.check_free(self.0.options.min_free.max(MIN_FREE_FOR_RECORDS))
    }

    /// Refuses what is only recorded in the audit log, as a read, while the disk is full.
    ///
    /// # Errors
    ///
    /// [`Error::DiskFull`].
    pub fn require_disk_space_for_audit(&self) -> Result<(), Error> {
        self.check_free(MIN_FREE_FOR_RECORDS)
    }

    /// Refuses where nothing can be recorded, for the disk of the database is read-only.
    ///
    /// # Errors
    ///
    /// [`Error::NotRecordable`].
    pub fn require_records(&self) -> Result<(), Error> {
        match self.0.store.is_on_read_only_disk() {
            true => Err(Error::NotRecordable),
            false => Ok(()),
        }
    }

    /// Refuses where the disk has less free space than `min` bytes, takes no more files, or nothing.
    fn check_free(&self, min: u64) -> Result<(), Error> {
        let room = Room::of(&self.0.home)?;
        if is_read_only(&self.0.home) {
            return Err(Error::DiskFault(Shortage::WritableDisk));
        }
        if room.free < min {
            let advice = "free some room on the disk of the state folder".to_owned();
            return Err(Error::DiskFull { free: room.free >> 20, min: min >> 20, advice });
        }
        room.require_file()
    }
}
