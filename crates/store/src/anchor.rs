//! Where each ledger ends, kept outside the database: a file for each deploy, by its name, sealed
//! with the secret key.
//!
//! Whoever can write to the database cannot make a row that holds, but can put back what was there
//! before, cut off the end of a chain, or show the ledger of one deploy as that of another. The
//! anchor says which deploy has the name, and where its ledger ends. It is written before the deploy
//! is made, and around each append; it is on the disk before the commit:
//!
//! ```text
//!  anchor: end, next ──▶ commit of the append ──▶ anchor: next is the end
//! ```
//!
//! A crash at any moment leaves the two in step. Where the anchor is older all the same (a disk that
//! lost what it had written, a state folder from a backup), the rows behind its end hold and continue
//! it: only this platform can have made them.
//!
//! A folder without anchors, as on a new machine with an old database, takes all ledgers as they are,
//! once, and is marked. From then on a deploy without an anchor was not made by this platform. The mark
//! names the database, so that another one in its place is not taken for it.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::OwnedMutexGuard;
use tolv_model::id::{DeployId, OperationId};
use tolv_model::name::Deploy as DeployPath;
use tolv_model::release::ReleaseNumber;
use tolv_model::slug::Digest;

use crate::db::Store;
use crate::error::Error;

/// The file that says that the folder has an anchor for every deploy. The file names of deploys
/// have a dot.
pub(crate) const MARK: &str = "complete";

/// Where a ledger ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Anchor {
    /// The deploy that has the name.
    pub(crate) deploy: DeployId,
    /// The hash of what was appended last.
    pub(crate) end: Digest,
    /// What is being appended: the commit is done or not.
    pub(crate) next: Option<Digest>,
    /// The last release.
    pub(crate) last: Option<ReleaseNumber>,
    /// Rows that do not hold and were accepted by an operator: release → digest of all that is
    /// stored of it.
    pub(crate) accepted: BTreeMap<ReleaseNumber, Digest>,
    /// The same of configs that are not those that were released: release → digest of it as it is
    /// stored.
    #[serde(default)]
    pub(crate) accepted_configs: BTreeMap<ReleaseNumber, Digest>,
    /// Whether an operator accepted that the ledger ends here: what continues it is refused, for it
    /// may be what was cut off.
    pub(crate) pinned: bool,
    /// Whether the ledger was taken as it was, and the log does not say so yet.
    pub(crate) adopted: bool,
    /// The version of the deploy's row.
    #[serde(default)]
    pub(crate) row: i64,
    /// The last operation that was done: none before it is done again.
    #[serde(default)]
    pub(crate) done: Option<OperationId>,
}

impl Anchor {
    /// The anchor of a ledger that is empty.
    pub(crate) fn new(deploy: &DeployId) -> Self {
        Self {
            deploy: deploy.clone(),
            end: tolv_model::ledger::GENESIS,
            next: None,
            last: None,
            accepted: BTreeMap::new(),
            accepted_configs: BTreeMap::new(),
            pinned: false,
            adopted: false,
            row: 0,
            done: None,
        }
    }

    /// Whether a chain that ends so is the one that was recorded.
    pub(crate) fn holds(&self, end: Digest) -> bool {
        self.end == end || self.next == Some(end)
    }
}

/// What the state folder says of the ledger of a deploy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Recorded {
    /// No ledger is recorded in it yet.
    Nothing,
    /// It records every ledger, and not this one.
    Missing,
    /// What it records cannot be read, for this reason.
    Damaged(String),
    /// Where it ends.
    At(Anchor),
}

/// What a sealed file holds.
enum Sealed {
    Nothing,
    /// Why it is not as it was sealed.
    Damaged(String),
    Text(Vec<u8>),
}

fn owner(deploy: &DeployPath) -> String {
    format!("ledger {deploy}")
}

fn file_name(deploy: &DeployPath) -> String {
    format!("{}.{}", deploy.app, deploy.name)
}

/// Runs blocking work on a thread of its own.
async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other).flatten().map_err(|source| Error::Anchor { path, source })
}

/// Puts a file in the place of an earlier one; when it returns, a power failure leaves the new one.
/// A folder in its place is moved aside with what is in it.
fn put(path: &Path, text: &str) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    fs::create_dir_all(folder)?;
    if fs::symlink_metadata(path).is_ok_and(|stat| stat.is_dir()) && fs::remove_dir(path).is_err() {
        let number: u64 = crate::random().map(u64::from_le_bytes).map_err(io::Error::other)?;
        fs::rename(path, path.with_added_extension(format!("displaced-{number:016x}")))?;
    }
    tolv_durable::write(path, text.as_bytes(), 0o600)
}

impl Store {
    /// Keeps anchors of the ledgers in a folder from here on. [`Store::prepare`] comes after it.
    pub fn anchor_in(&self, folder: PathBuf) {
        // Once, at the start.
        self.0.anchors.set(folder).ok();
    }

    /// What is in a sealed file.
    fn read_sealed(&self, path: &Path, owner: &str) -> io::Result<Sealed> {
        let sealed = match tolv_durable::read(path) {
            Ok(sealed) => String::from_utf8_lossy(&sealed).into_owned(),
            Err(error) => {
                return match error.kind() {
                    io::ErrorKind::NotFound => Ok(Sealed::Nothing),
                    io::ErrorKind::InvalidData => Ok(Sealed::Damaged(error.to_string())),
                    _ => Err(error),
                };
            }
        };
        let changed = || Sealed::Damaged("it was changed, or sealed with another key".to_owned());
        Ok(self.unseal(owner, &sealed).map_or_else(changed, Sealed::Text))
    }

    /// What the state folder says of a ledger.
    pub(crate) async fn recorded(&self, deploy: &DeployPath) -> Result<Recorded, Error> {
        let Some(folder) = self.0.anchors.get() else { return Ok(Recorded::Nothing) };
        let (path, mark) = (folder.join(file_name(deploy)), folder.join(MARK));
        let (store, owner) = (self.clone(), owner(deploy));
        blocking(path.clone(), move || {
            Ok(match store.read_sealed(&path, &owner)? {
                Sealed::Text(bytes) => match serde_json::from_slice(&bytes) {
                    Ok(anchor) => Recorded::At(anchor),
                    Err(error) => Recorded::Damaged(error.to_string()),
                },
                Sealed::Damaged(why) => Recorded::Damaged(why),
                // A mark that is damaged was made here all the same.
                Sealed::Nothing => match store.read_sealed(&mark, MARK)? {
                    Sealed::Nothing => Recorded::Nothing,
                    Sealed::Damaged(_) | Sealed::Text(_) => Recorded::Missing,
                },
            })
        })
        .await
    }

    /// Whether the folder of anchors has no such mark.
    pub(crate) async fn is_unmarked(&self, mark: &'static str) -> Result<bool, Error> {
        let Some(folder) = self.0.anchors.get() else { return Ok(false) };
        let (store, path) = (self.clone(), folder.join(mark));
        let file = path.clone();
        let is_unmarked = move || Ok(matches!(store.read_sealed(&file, mark)?, Sealed::Nothing));
        blocking(path, is_unmarked).await
    }

    /// Whether a platform was on the state folder before, and recorded its ledgers.
    pub fn has_anchors(&self) -> bool {
        self.0.anchors.get().is_some_and(|folder| folder.join(MARK).exists())
    }

    /// What is found in place of the database that the state folder was used with last; nothing where
    /// it is that one, or the folder does not say which it was. Changes nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`], [`Error::Damaged`], [`Error::Anchor`].
    pub async fn found_instead(&self) -> Result<Option<&'static str>, Error> {
        let Some(found) = self.identity().await? else {
            return Ok(Some("no platform has written to this one"));
        };
        let is_another = self.marked().await?.is_some_and(|marked| marked != found);
        Ok(is_another.then_some("this one is that of another state folder"))
    }

    /// The database that the folder of anchors names.
    async fn marked(&self) -> Result<Option<Digest>, Error> {
        let Some(folder) = self.0.anchors.get() else { return Ok(None) };
        let (store, mark) = (self.clone(), folder.join(MARK));
        let path = mark.clone();
        blocking(path, move || {
            Ok(match store.read_sealed(&mark, MARK)? {
                Sealed::Text(text) => str::from_utf8(&text).ok().and_then(|text| text.parse().ok()),
                Sealed::Nothing | Sealed::Damaged(_) => None,
            })
        })
        .await
    }

    /// Names the database in the folder of anchors, where that names another one.
    pub(crate) async fn mark_database(&self) -> Result<(), Error> {
        let Some(found) = self.identity().await? else { return Ok(()) };
        if self.0.anchors.get().is_none() || self.marked().await? == Some(found) {
            return Ok(());
        }
        self.anchor_writer().await.mark(MARK, &found.to_string()).await.map(drop)
    }

    /// Waits until nobody else writes an anchor. Who also writes to the database begins that first.
    pub(crate) async fn anchor_writer(&self) -> AnchorWriter {
        let guard = self.0.anchoring.clone().lock_owned().await;
        AnchorWriter { store: self.clone(), guard }
    }
}

/// Writes anchors; there is one at a time. The thread that writes owns it: where the caller is
/// dropped, the next writer waits for that thread.
pub(crate) struct AnchorWriter {
    store: Store,
    guard: OwnedMutexGuard<()>,
}

impl AnchorWriter {
    async fn write(self, name: &str, owner: &str, bytes: &[u8]) -> Result<Self, Error> {
        let Some(folder) = self.store.0.anchors.get() else { return Ok(self) };
        let (path, sealed) = (folder.join(name), self.store.seal(owner, bytes)?);
        blocking(path.clone(), move || put(&path, &sealed).map(|()| self)).await
    }

    /// Records where a ledger ends.
    pub(crate) async fn put(self, deploy: &DeployPath, anchor: &Anchor) -> Result<Self, Error> {
        let bytes = crate::columns::to_json(anchor)?;
        self.write(&file_name(deploy), &owner(deploy), bytes.as_bytes()).await
    }

    /// Marks the folder: with [`MARK`] as one that has an anchor for every deploy of a database, which the
    /// text of the mark names.
    pub(crate) async fn mark(self, mark: &'static str, text: &str) -> Result<Self, Error> {
        let writer = self.write(mark, mark, text.as_bytes()).await?;
        let Some(anchors) = writer.store.0.anchors.get().cloned() else { return Ok(writer) };
        blocking(anchors.clone(), move || tolv_durable::sync_folder_of(&anchors)).await?;
        Ok(writer)
    }

    /// Forgets a deploy that was destroyed.
    pub(crate) async fn remove(self, deploy: &DeployPath) {
        let Some(folder) = self.store.0.anchors.get() else { return };
        let path = folder.join(file_name(deploy));
        let remove = move || {
            let removed = fs::remove_file(&path);
            drop(self.guard);
            removed
        };
        // If it stays, the next deploy of this name replaces it.
        tokio::task::spawn_blocking(remove).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn both_ends_of_an_append_that_was_interrupted_hold() {
        let (before, behind) = (Digest::of(b"before"), Digest::of(b"behind"));
        let deploy = DeployId::new(Timestamp::UNIX_EPOCH, 7);
        let mut anchor = Anchor { end: before, next: Some(behind), ..Anchor::new(&deploy) };
        assert!(anchor.holds(before) && anchor.holds(behind));
        assert!(!anchor.holds(Digest::of(b"another")));
        (anchor.end, anchor.next) = (behind, None);
        assert!(!anchor.holds(before) && anchor.holds(behind));
    }
}
