//! Proof that a tree on the disk is what its digest says: every path, kind, mode, link and byte,
//! and nothing else.
//!
//! The bytes of a tree are read once. What its files looked like to the kernel then (device,
//! inode, change time, size, mode) is remembered as one digest; while a walk gives the same digest
//! the tree is the same, because nobody can set a change time. A tree whose files changed in the
//! moment before it was read is read again the next time: a second change in the same tick of the
//! kernel's clock would not show.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tolv_model::slug::{Digest, Entry, Manifest, SlugId};
use tolv_sandbox::Level;

use crate::Error;
use crate::files::{self, Found};
use crate::seal::Modes;
use crate::slugs::Slugs;
use crate::source::{as_path, shown};

/// A change this short before a proof may hide another one: the kernel's clock ticks every 1 to
/// 10 ms.
const TICKS: Duration = Duration::from_millis(20);
/// Proofs that are remembered at most.
const MAX_PROOFS: usize = 8192;

/// The trees that were proven, and what their files looked like then. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Proofs(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// Whether files may be added to a tree: by processes that nothing keeps from it.
    may_grow: bool,
    known: BTreeMap<String, Digest>,
    /// Manifests that were read, their entries left out.
    manifests: BTreeMap<SlugId, Manifest>,
    /// Whether something was proven since [`Proofs::to_bytes`].
    changed: bool,
}

/// How a [`Proofs`] is written.
#[derive(Serialize, Deserialize)]
struct Saved {
    known: BTreeMap<String, Digest>,
}

impl Proofs {
    /// Reads what [`Proofs::to_bytes`] gave; nothing is known where it cannot be read. The bytes
    /// are believed: they must come from where nobody else can write.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        let saved: Option<Saved> = serde_json::from_slice(bytes).ok();
        let known = saved.map(|saved| saved.known).unwrap_or_default();
        Self(Arc::new(Mutex::new(State { known, ..State::default() })))
    }

    /// What is known, where something was added since the last call.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut state = self.state();
        if !std::mem::take(&mut state.changed) {
            return None;
        }
        // Names and digests: JSON can say them.
        serde_json::to_vec(&Saved { known: state.known.clone() }).ok()
    }

    /// At level `none` a process writes where it likes, beside the files of its slug too: what it
    /// adds there is no fault of the slug.
    #[must_use]
    pub fn of_level(self, level: Level) -> Self {
        self.state().may_grow = level == Level::None;
        self
    }

    fn may_grow(&self) -> bool {
        self.state().may_grow
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A slug's manifest without its entries, which takes little memory: read once, for it proves
    /// itself.
    pub(crate) fn manifest(&self, slugs: &Slugs, id: SlugId) -> Option<Manifest> {
        if let Some(manifest) = self.state().manifests.get(&id) {
            return Some(manifest.clone());
        }
        let manifest = Manifest { entries: Vec::new(), ..slugs.recorded(id)? };
        let mut state = self.state();
        if state.manifests.len() >= MAX_PROOFS {
            state.manifests.clear();
        }
        state.manifests.insert(id, manifest.clone());
        Some(manifest)
    }

    fn has(&self, tree: &str, stamp: Digest) -> bool {
        self.state().known.get(tree) == Some(&stamp)
    }

    fn add(&self, tree: String, stamp: Digest) {
        let mut state = self.state();
        if state.known.len() >= MAX_PROOFS {
            state.known.clear();
        }
        state.known.insert(tree, stamp);
        state.changed = true;
    }
}

/// Proves the tree at `root`, which is known by `digest`. `entries` are only asked for where the
/// tree has changed since it was proven last.
///
/// # Errors
///
/// The inner error is the first path that differs, in words.
pub(crate) fn prove(
    root: &Path,
    modes: Modes,
    digest: Digest,
    entries: impl FnOnce() -> Result<Vec<(Vec<u8>, Entry)>, String>,
    proofs: &Proofs,
) -> Result<Result<(), String>, Error> {
    let began = SystemTime::now();
    let Some(before) = Walk::take(root)? else { return Ok(Err("is not here".to_owned())) };
    let tree = format!("{digest} {} {}", before.root.0, before.root.1);
    if proofs.has(&tree, before.stamp) {
        return Ok(Ok(()));
    }
    let entries = match entries() {
        Ok(entries) => entries,
        Err(why) => return Ok(Err(why)),
    };
    if let Some(why) = difference(&before, modes, &entries, proofs.may_grow())? {
        return Ok(Err(why));
    }
    match Walk::take(root)? {
        Some(after) if after.stamp == before.stamp => {}
        _ => return Ok(Err("changes while it is looked at".to_owned())),
    }
    if began.duration_since(before.newest).is_ok_and(|age| age > TICKS) {
        proofs.add(tree, before.stamp);
    }
    Ok(Ok(()))
}

/// How a proof of one tree is written.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedProof {
    tree: String,
    stamp: Digest,
}

/// As [`prove`], for builds: where nothing is known of the tree, a proof that an earlier process has
/// written into a file will do. It is no proof for who asks [`prove`]: a file is not sealed.
pub(crate) fn prove_kept(
    root: &Path,
    modes: Modes,
    digest: Digest,
    entries: impl FnOnce() -> Result<Vec<(Vec<u8>, Entry)>, String>,
    proofs: &Proofs,
    file: &Path,
) -> Result<Result<(), String>, Error> {
    let Ok(meta) = root.symlink_metadata() else { return Ok(Err("is not here".to_owned())) };
    let tree = format!("{digest} {} {}", meta.dev(), meta.ino());
    if proofs.state().known.contains_key(&tree) {
        return prove(root, modes, digest, entries, proofs);
    }
    let saved = files::read(file).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let saved = saved.filter(|saved: &SavedProof| saved.tree == tree).map(|saved| saved.stamp);
    let own = Proofs::default();
    own.state().may_grow = proofs.may_grow();
    if let Some(stamp) = saved {
        own.state().known.insert(tree.clone(), stamp);
    }
    let proven = prove(root, modes, digest, entries, &own)?;
    let stamp = own.state().known.get(&tree).copied();
    if let (Ok(()), Some(stamp)) = (&proven, stamp)
        && saved != Some(stamp)
        && let Ok(text) = serde_json::to_vec(&SavedProof { tree, stamp })
    {
        // Without it the bytes are read again.
        files::write_whole(file, &text).ok();
    }
    Ok(proven)
}

/// A tree as the kernel shows it.
struct Walk {
    /// Device and inode.
    root: (u64, u64),
    mode: u32,
    /// By path.
    found: BTreeMap<Vec<u8>, Found>,
    stamp: Digest,
    /// The newest change of anything in it.
    newest: SystemTime,
}

impl Walk {
    fn take(root: &Path) -> Result<Option<Self>, Error> {
        let meta = match root.symlink_metadata() {
            Ok(meta) if meta.is_dir() => meta,
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io("look at", root)(error)),
        };
        let mut walk = Self {
            root: (meta.dev(), meta.ino()),
            mode: meta.mode() & 0o7777,
            found: BTreeMap::new(),
            stamp: Digest([0; 32]),
            newest: SystemTime::UNIX_EPOCH,
        };
        for found in files::walk(root, files::MAX_COUNTED, &|| false, &mut |_| Ok(true))? {
            walk.found.insert(found.path.clone(), found);
        }
        let mut hash = Sha256::new();
        let mut put = |path: &[u8], meta: &fs::Metadata| {
            hash.update((path.len() as u64).to_be_bytes());
            hash.update(path);
            for number in [meta.dev(), meta.ino(), meta.size(), u64::from(meta.mode())] {
                hash.update(number.to_be_bytes());
            }
            hash.update(meta.ctime().to_be_bytes());
            hash.update(meta.ctime_nsec().to_be_bytes());
            walk.newest = walk.newest.max(changed_at(meta));
        };
        put(b"", &meta);
        for (path, found) in &walk.found {
            put(path, &found.meta);
        }
        walk.stamp = Digest(hash.finalize().into());
        Ok(Some(walk))
    }
}

/// When the system noted the last change of a file, of its contents or of its mode.
fn changed_at(meta: &fs::Metadata) -> SystemTime {
    let seconds = u64::try_from(meta.ctime()).unwrap_or(0);
    let nanos = u32::try_from(meta.ctime_nsec()).unwrap_or(0);
    SystemTime::UNIX_EPOCH + Duration::new(seconds, nanos)
}

/// The first path at which a tree is not what the entries say.
fn difference(
    walk: &Walk,
    modes: Modes,
    entries: &[(Vec<u8>, Entry)],
    may_grow: bool,
) -> Result<Option<String>, Error> {
    if walk.mode != modes.folder {
        return Ok(Some(format!("has the mode {:o}", walk.mode)));
    }
    let wanted: BTreeMap<&[u8], &Entry> =
        entries.iter().map(|(path, entry)| (path.as_slice(), entry)).collect();
    let added = walk.found.keys().find(|path| !wanted.contains_key(path.as_slice()));
    if let Some(path) = added.filter(|_| !may_grow) {
        return Ok(Some(format!("has `{}`, which is not part of it", shown(path))));
    }
    for (path, entry) in wanted {
        let same = match walk.found.get(path) {
            Some(found) => is_same(found, modes, entry)?,
            None => false,
        };
        if !same {
            return Ok(Some(format!("differs at `{}`", shown(path))));
        }
    }
    Ok(None)
}

fn is_same(found: &Found, modes: Modes, entry: &Entry) -> Result<bool, Error> {
    let (meta, full) = (&found.meta, &found.full);
    let has_mode = |mode: u32| meta.mode() & 0o7777 == mode;
    Ok(match entry {
        Entry::Directory => meta.is_dir() && has_mode(modes.folder),
        Entry::Symlink { target } => {
            meta.is_symlink()
                && fs::read_link(full).map_err(Error::io("read", full))?.as_os_str().as_bytes()
                    == as_path(target).as_os_str().as_bytes()
        }
        Entry::File { digest, size, executable } => {
            let mode = if *executable { modes.executable } else { modes.file };
            if !meta.is_file() || meta.len() != *size || !has_mode(mode) {
                return Ok(false);
            }
            let file = files::open(full).map_err(Error::io("read", full))?;
            files::pour(file, std::io::sink()).map_err(Error::io("read", full))?.0 == *digest
        }
    })
}

#[cfg(test)]
mod tests;
