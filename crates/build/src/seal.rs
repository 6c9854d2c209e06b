//! Makes what a build left into something fixed: modes set, owners set, shared inodes parted,
//! every file hashed. Slugs and layers are both sealed.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use sha2::{Digest as _, Sha256};
use tolv_model::slug::{Digest, Entry};

use crate::Error;
use crate::caps::{Caps, bytes};
use crate::files::{self, Found};
use crate::source::shown;

/// The modes of a sealed tree.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Modes {
    pub(crate) folder: u32,
    pub(crate) file: u32,
    pub(crate) executable: u32,
}

/// A slug's.
pub(crate) const SLUG: Modes = Modes { folder: 0o755, file: 0o644, executable: 0o755 };
/// A layer's. A process may write above it, as above the slug, so that it has the same modes.
pub(crate) const LAYER: Modes = SLUG;
/// A stack's and a toolchain's: read-only for the owner too, for nothing is written above them.
pub(crate) const READ_ONLY: Modes = Modes { folder: 0o555, file: 0o444, executable: 0o555 };

/// Gives a sealed tree's own folder its mode again.
pub(crate) fn fix(root: &Path, modes: Modes) -> Result<(), Error> {
    files::set_mode(root, modes.folder)
}

/// Seals all below `root`, and `root` itself; what `wanted` refuses is removed, a folder with all
/// that is in it. Returns what is left, sorted. The limits are the default ones.
pub(crate) fn seal(
    root: &Path,
    modes: Modes,
    wanted: &dyn Fn(&[u8]) -> bool,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<(Vec<u8>, Entry)>, Error> {
    seal_within(root, "the folder", modes, wanted, &Caps::default(), cancelled)
}

/// As [`seal`], of a tree that a build made, which is named `what` in an error. Its limits are
/// checked before a byte is read.
pub(crate) fn seal_within(
    root: &Path,
    what: &str,
    modes: Modes,
    wanted: &dyn Fn(&[u8]) -> bool,
    caps: &Caps,
    cancelled: &dyn Fn() -> bool,
) -> Result<Vec<(Vec<u8>, Entry)>, Error> {
    let owner = rustix::process::geteuid().is_root();
    let own = |path: &Path| {
        if owner {
            std::os::unix::fs::lchown(path, Some(0), Some(0)).map_err(Error::io("chown", path))?;
        }
        Ok(())
    };
    own(root)?;
    files::set_mode(root, 0o700)?;
    let found = files::walk(root, caps.files, cancelled, &mut |found| {
        if !wanted(&found.path) {
            return Ok(false);
        }
        own(&found.full)?;
        files::set_mode(&found.full, 0o700)?;
        Ok(true)
    })?;
    // Names, not blocks on the disk: each name of a file becomes a file, and holes are filled.
    let size = |found: &Found| match found.meta.is_file() && wanted(&found.path) {
        true => found.meta.len(),
        false => 0,
    };
    let total = found.iter().map(size).fold(0, u64::saturating_add);
    if total > caps.slug {
        return Err(Error::Limit {
            what: format!("{what} with {}", bytes(total)),
            limit: format!("{} (TOLV_BUILD_MIB)", bytes(caps.slug)),
        });
    }
    let mut entries = Vec::with_capacity(found.len());
    let mut folders = vec![root];
    for found in &found {
        if cancelled() {
            return Err(Error::Cancelled);
        }
        if !wanted(&found.path) {
            files::remove_until(&found.full, cancelled)?;
            continue;
        }
        let entry = if found.meta.is_dir() {
            folders.push(&found.full);
            Entry::Directory
        } else if found.meta.is_symlink() {
            own(&found.full)?;
            let target = fs::read_link(&found.full).map_err(Error::io("read", &found.full))?;
            Entry::Symlink { target: target.as_os_str().as_bytes().to_vec() }
        } else if found.meta.is_file() {
            let executable = files::is_executable(&found.meta);
            let mode = if executable { modes.executable } else { modes.file };
            let (digest, size) = seal_file(found, mode, cancelled)?;
            own(&found.full)?;
            // A change of owner may take mode bits away.
            files::set_mode(&found.full, mode)?;
            Entry::File { digest, size, executable }
        } else {
            return Err(Error::Source(format!(
                "the build left `{}`, which is no file, folder or link",
                shown(&found.path)
            )));
        };
        entries.push((found.path.clone(), entry));
    }
    for folder in folders {
        files::set_mode(folder, modes.folder)?;
    }
    entries.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(entries)
}

/// Hashes a file. One that shares its inode with another name, which may be writable elsewhere,
/// is replaced by a copy.
fn seal_file(
    found: &Found,
    mode: u32,
    cancelled: &dyn Fn() -> bool,
) -> Result<(Digest, u64), Error> {
    let path = &found.full;
    if found.meta.mode() & 0o400 == 0 {
        files::set_mode(path, 0o600)?;
    }
    let file = files::open(path).map_err(Error::io("read", path))?;
    if found.meta.nlink() == 1 {
        return files::pour_until(file, std::io::sink(), cancelled)
            .map_err(Error::io("read", path));
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tolv-copy");
    let next = path.with_file_name(name);
    let copy = File::create_new(&next).map_err(Error::io("create", &next))?;
    let poured = files::pour_until(file, &copy, cancelled).map_err(Error::io("copy", path))?;
    if let Ok(time) = found.meta.modified() {
        copy.set_modified(time).map_err(Error::io("write", &next))?;
    }
    files::set_mode(&next, mode)?;
    fs::rename(&next, path).map_err(Error::io("replace", path))?;
    Ok(poured)
}

/// The digest of a tree's contents: paths in order, with what stands there.
pub(crate) fn content<'a>(entries: impl IntoIterator<Item = (&'a Vec<u8>, &'a Entry)>) -> Digest {
    let mut hash = Sha256::new();
    let mut put = |bytes: &[u8]| {
        hash.update((bytes.len() as u64).to_be_bytes());
        hash.update(bytes);
    };
    for (path, entry) in entries {
        entry.put(path, &mut put);
    }
    Digest(hash.finalize().into())
}

/// Files of a tree and their bytes.
pub(crate) fn count(entries: &[(Vec<u8>, Entry)]) -> (u64, u64) {
    entries.iter().fold((0, 0), |(files, bytes), (_, entry)| match entry {
        Entry::File { size, .. } => (files + 1, bytes + size),
        Entry::Directory | Entry::Symlink { .. } => (files, bytes),
    })
}

#[cfg(test)]
mod tests;
