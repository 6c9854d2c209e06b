//! Where each ledger ends, kept outside the database: a file a deploy, sealed with the secret key.
//!
//! Whoever can write to the database can hash a whole chain anew, or cut off its end. The anchor is
//! written around each append, so that a crash at any moment leaves the two in step:
//!
//! ```text
//!  anchor: end, next ──▶ commit of the append ──▶ anchor: next is the end
//! ```
//!
//! A ledger without an anchor, as on a new machine on an old database, is believed as it is, and
//! anchored from there; the platform says so.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tolv_model::id::DeployId;
use tolv_model::release::ReleaseNumber;
use tolv_model::slug::Digest;

use crate::db::Store;
use crate::error::Error;

/// Where a ledger ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Anchor {
    /// The hash of what was appended last.
    pub(crate) end: Digest,
    /// What is being appended: the commit is done or not.
    pub(crate) next: Option<Digest>,
    /// The last release.
    pub(crate) last: Option<ReleaseNumber>,
    /// Rows that do not hold and were accepted by an operator: release → digest of all that is
    /// stored of it.
    #[serde(default)]
    pub(crate) accepted: BTreeMap<ReleaseNumber, Digest>,
}

impl Anchor {
    /// Whether a chain that ends so is the one that was left.
    pub(crate) fn holds(&self, end: Digest) -> bool {
        self.end == end || self.next == Some(end)
    }
}

fn owner(deploy: &DeployId) -> String {
    format!("ledger {deploy}")
}

impl Store {
    /// Keeps anchors of the ledgers in a folder from here on.
    pub fn anchor_in(&self, folder: PathBuf) {
        // Once, at the start.
        self.0.anchors.set(folder).ok();
    }

    fn anchor_file(&self, deploy: &DeployId) -> Option<PathBuf> {
        self.0.anchors.get().map(|folder| folder.join(deploy.as_str()))
    }

    /// Where a ledger was left; nothing where nothing is kept of it.
    pub(crate) fn anchor(&self, deploy: &DeployId) -> Result<Option<Anchor>, Error> {
        let Some(file) = self.anchor_file(deploy) else { return Ok(None) };
        let sealed = match fs::read_to_string(&file) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Anchor { path: file, source }),
        };
        let bytes = self.unseal(&owner(deploy), &sealed);
        let anchor = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let changed = || io::Error::other("it was changed, or sealed with another key");
        anchor.map(Some).ok_or_else(|| Error::Anchor { path: file, source: changed() })
    }

    pub(crate) fn set_anchor(&self, deploy: &DeployId, anchor: &Anchor) -> Result<(), Error> {
        let Some(file) = self.anchor_file(deploy) else { return Ok(()) };
        let bytes = serde_json::to_vec(anchor).unwrap_or_default();
        let sealed = self.seal(&owner(deploy), &bytes)?;
        let write = || {
            if let Some(folder) = file.parent() {
                fs::create_dir_all(folder)?;
            }
            // Aside and renamed: a crash leaves the one before.
            let aside = file.with_extension("new");
            let mut out = File::create(&aside)?;
            out.write_all(sealed.as_bytes())?;
            out.sync_data()?;
            fs::rename(&aside, &file)
        };
        write().map_err(|source| Error::Anchor { path: file.clone(), source })
    }

    /// Forgets a deploy.
    pub(crate) fn remove_anchor(&self, deploy: &DeployId) {
        if let Some(file) = self.anchor_file(deploy) {
            // Left behind, it is of a deploy whose id never comes again.
            fs::remove_file(file).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_an_append_that_was_cut_off_both_ends_hold() {
        let (before, behind) = (Digest::of(b"before"), Digest::of(b"behind"));
        let mut anchor = Anchor {
            end: before,
            next: Some(behind),
            last: Some(ReleaseNumber(2)),
            accepted: BTreeMap::new(),
        };
        assert!(anchor.holds(before) && anchor.holds(behind));
        assert!(!anchor.holds(Digest::of(b"another")));
        (anchor.end, anchor.next) = (behind, None);
        assert!(!anchor.holds(before) && anchor.holds(behind));
    }
}
