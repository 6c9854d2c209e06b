//! The source, looked into: each file hashed, each link followed, what cannot be built refused.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tolv_model::slug::{Digest, Entry};
use tolv_model::tree_path::TreePath;

use crate::beneath::Beneath;
use crate::caps::{Caps, bytes};
use crate::links::{Leads, follow};
use crate::source::{Listing, as_path, shown};
use crate::tree::Tree;
use crate::{Error, files};

/// Reads every file of a listing.
pub(crate) fn take(
    listing: &Listing,
    caps: &Caps,
    cancelled: &dyn Fn() -> bool,
) -> Result<Tree, Error> {
    if listing.paths.len() as u64 > caps.files {
        return Err(Error::Limit {
            what: format!("the codebase's {} files", listing.paths.len()),
            limit: format!("{} files", caps.files),
        });
    }
    let (mut entries, mut total) = (BTreeMap::new(), 0_u64);
    let mut lfs_pointers = Vec::new();
    for path in listing.paths.keys() {
        if cancelled() {
            return Err(Error::Cancelled);
        }
        let full = listing.root.join(as_path(path));
        let meta = full.symlink_metadata().map_err(Error::io("read", &full))?;
        let kind = meta.file_type();
        let entry = if kind.is_symlink() {
            let target = fs::read_link(&full).map_err(Error::io("read", &full))?;
            Entry::Symlink { target: target.as_os_str().as_bytes().to_vec() }
        } else if kind.is_file() {
            check_size(path, meta.len(), caps)?;
            let file = files::open(&full).map_err(Error::io("read", &full))?;
            let mut head = Head::default();
            let (digest, size) =
                files::pour_until(file, &mut head, cancelled).map_err(Error::io("read", &full))?;
            if head.is_lfs_pointer(size) {
                lfs_pointers.push(path.clone());
            }
            check_size(path, size, caps)?;
            total += size;
            Entry::File { digest, size, executable: files::is_executable(&meta) }
        } else {
            let what = if kind.is_fifo() {
                "a named pipe"
            } else if kind.is_socket() {
                "a socket"
            } else if kind.is_dir() {
                "a folder where git has a file"
            } else {
                "a device"
            };
            return Err(Error::Source(format!(
                "`{}` is {what}: a codebase has files, folders and links only; \
                 remove it or name it in `.slugignore`",
                shown(path)
            )));
        };
        entries.insert(path.clone(), entry);
        if total > caps.slug {
            return Err(Error::Limit { what: "the codebase".into(), limit: bytes(caps.slug) });
        }
    }
    check_links(&entries)?;
    Ok(Tree::new(listing.root.clone(), entries).with_lfs_pointers(lfs_pointers))
}

/// How a pointer of Git LFS begins, and how large one is at most.
const LFS_POINTER: &[u8] = b"version https://git-lfs.github.com/spec/v1\n";
const MAX_LFS_POINTER: u64 = 1024;

/// Keeps the first bytes of what is written to it.
#[derive(Default)]
struct Head(Vec<u8>);

impl Head {
    fn is_lfs_pointer(&self, size: u64) -> bool {
        size <= MAX_LFS_POINTER && self.0 == LFS_POINTER
    }
}

impl Write for Head {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = LFS_POINTER.len() - self.0.len();
        self.0.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn check_size(path: &[u8], size: u64, caps: &Caps) -> Result<(), Error> {
    if size <= caps.file {
        return Ok(());
    }
    Err(Error::Limit {
        what: format!("the file `{}` with {}", shown(path), bytes(size)),
        limit: bytes(caps.file),
    })
}

fn check_links(entries: &BTreeMap<Vec<u8>, Entry>) -> Result<(), Error> {
    let link_at = |path: &[u8]| match entries.get(path) {
        Some(Entry::Symlink { target }) => Some(target.as_slice()),
        _ => None,
    };
    for (path, entry) in entries {
        let Entry::Symlink { target } = entry else { continue };
        if follow(path, target, &link_at) == Leads::Outside {
            return Err(Error::Source(format!(
                "the link `{}` leaves the codebase: it points to `{}`; \
                 replace it by the file, or name it in `.slugignore`",
                shown(path),
                shown(target)
            )));
        }
    }
    Ok(())
}

/// What decides a build's input: paths, modes, contents.
pub(crate) fn digest(tree: &Tree) -> Digest {
    crate::seal::content(tree.entries())
}

/// When each content of each path was first built, in seconds: compilers that go by file times
/// must see an unchanged file as old and a changed one as new, whatever the source's times say.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Stamps(BTreeMap<String, (Digest, u64)>);

impl Stamps {
    /// Reads what the last build left; anything unreadable means: all files are new.
    pub(crate) fn load(path: &Path) -> Self {
        fs::read(path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Keeps the times of unchanged files and gives `now` to the others.
    pub(crate) fn update(self, tree: &Tree, now: SystemTime) -> Self {
        let now = now.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
        let stamp = |(path, entry): (&Vec<u8>, &Entry)| {
            let Entry::File { digest, .. } = entry else { return None };
            let path = path.escape_ascii().to_string();
            let time = self.0.get(&path).filter(|known| known.0 == *digest).map_or(now, |k| k.1);
            Some((path, (*digest, time)))
        };
        Self(tree.entries().iter().filter_map(stamp).collect())
    }

    /// Writes them for the next build.
    pub(crate) fn save(&self, path: &Path) -> Result<(), Error> {
        let bytes = serde_json::to_vec(self).map_err(std::io::Error::other);
        files::write_whole(path, &bytes.map_err(Error::io("write", path))?)
    }

    fn of(&self, path: &[u8]) -> Option<SystemTime> {
        let seconds = self.0.get(&path.escape_ascii().to_string())?.1;
        UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
    }
}

/// Copies the source into `to`, with the stamps' times.
///
/// # Errors
///
/// [`Error::Source`] when a file is not what it was when the snapshot was taken.
pub(crate) fn place(tree: &Tree, to: &Path, stamps: &Stamps) -> Result<(), Error> {
    files::make_folder(to)?;
    let mut folder = Beneath::open(to).map_err(Error::io("open", to))?;
    for (path, entry) in tree.entries() {
        let full = to.join(as_path(path));
        let named = TreePath::new(path.as_slice())
            .map_err(|bad| Error::Source(format!("the name `{}` {bad}", shown(path))))?;
        match entry {
            Entry::Directory => folder.make(&named).map_err(Error::io("create", &full))?,
            Entry::Symlink { target } => {
                folder.link(&named, target).map_err(Error::io("create", &full))?;
            }
            Entry::File { digest, executable, .. } => {
                let from = tree.root().join(as_path(path));
                let source = files::open(&from).map_err(Error::io("read", &from))?;
                let mode = if *executable { 0o755 } else { 0o644 };
                let copy = folder.create(&named, mode).map_err(Error::io("create", &full))?;
                let (copied, _) = files::pour(source, &copy).map_err(Error::io("copy", &from))?;
                if copied != *digest {
                    return Err(Error::Source(format!(
                        "`{}` changed while it was read; build again",
                        shown(path)
                    )));
                }
                if let Some(time) = stamps.of(path) {
                    copy.set_modified(time).map_err(Error::io("write", &full))?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
