//! A read-only view of the source: the files that would enter the build, and no others.
//!
//! A builder sees the codebase through this alone, so that it cannot decide by a file that git
//! ignores and a clean clone lacks. Paths are relative, `/` between parts, as bytes.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tolv_model::slug::{Digest, Entry};
use tolv_model::source::is_utf16;

use crate::caps::bytes;
use crate::{Error, files};

pub(crate) mod size;

/// The source's files by path, with their contents' digests.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    entries: BTreeMap<Vec<u8>, Entry>,
    /// Files that Git LFS has put in place of others.
    lfs_pointers: Vec<Vec<u8>>,
    /// What was read as text so far. Clones share it.
    read: Arc<size::Total>,
}

impl Tree {
    /// A view of `root` that shows `entries` only.
    pub(crate) fn new(root: PathBuf, entries: BTreeMap<Vec<u8>, Entry>) -> Self {
        Self { root, entries, lfs_pointers: Vec::new(), read: Arc::default() }
    }

    /// The same, with these files being pointers of Git LFS.
    pub(crate) fn with_lfs_pointers(self, lfs_pointers: Vec<Vec<u8>>) -> Self {
        Self { lfs_pointers, ..self }
    }

    /// Files that Git LFS has put in place of others.
    pub(crate) fn lfs_pointers(&self) -> &[Vec<u8>] {
        &self.lfs_pointers
    }

    /// Everything, in the order of the paths' bytes.
    pub(crate) fn entries(&self) -> &BTreeMap<Vec<u8>, Entry> {
        &self.entries
    }

    /// Where the files are on the host now. For messages and for copying, not for looking around.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Whether a regular file stands there.
    pub(crate) fn is_file(&self, path: &str) -> bool {
        matches!(self.entries.get(path.as_bytes()), Some(Entry::File { .. }))
    }

    /// Whether a symbolic link stands there.
    pub(crate) fn is_link(&self, path: &str) -> bool {
        matches!(self.entries.get(path.as_bytes()), Some(Entry::Symlink { .. }))
    }

    /// Whether anything stands there or below.
    pub(crate) fn is_dir(&self, path: &str) -> bool {
        let below = [path.as_bytes(), b"/"].concat();
        matches!(self.entries.get(path.as_bytes()), Some(Entry::Directory))
            || self
                .entries
                .range(below.clone()..)
                .next()
                .is_some_and(|(p, _)| p.starts_with(&below))
    }

    /// Names directly inside a folder (`""` is the root), sorted; those that are UTF-8.
    pub(crate) fn names(&self, folder: &str) -> Vec<String> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let mut names: Vec<String> = self
            .entries
            .range(prefix.as_bytes().to_vec()..)
            .take_while(|(path, _)| path.starts_with(prefix.as_bytes()))
            .filter_map(|(path, _)| std::str::from_utf8(&path[prefix.len()..]).ok())
            .filter_map(|rest| rest.split('/').next())
            .map(str::to_owned)
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Digest of a file's bytes; nothing where there is no file.
    pub(crate) fn digest(&self, path: &str) -> Option<Digest> {
        match self.entries.get(path.as_bytes())? {
            Entry::File { digest, .. } => Some(*digest),
            Entry::Directory | Entry::Symlink { .. } => None,
        }
    }

    /// A file's bytes; nothing where there is no file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be read, [`Error::Limit`] when it has more than 64 MiB.
    pub(crate) fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Error> {
        self.read_at_most(path, files::MAX_READ)
    }

    fn read_at_most(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        if !self.is_file(path) {
            return Ok(None);
        }
        let full = self.root.join(path);
        match files::read_at_most(&full, limit) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::FileTooLarge => Err(Error::Limit {
                what: format!("the file `{}`", path.escape_debug()),
                limit: bytes(limit),
            }),
            Err(error) => Err(Error::io("read", &full)(error)),
        }
    }

    /// The first bytes of a file, 256 at most; nothing where there is no file or it cannot be read.
    pub(crate) fn head(&self, path: &str) -> Option<Vec<u8>> {
        let mut head = Vec::new();
        if self.is_file(path) {
            let file = files::open(&self.root.join(path)).ok()?;
            file.take(256).read_to_end(&mut head).ok()?;
        }
        Some(head)
    }

    /// The text of a manifest or a lock without a byte order mark; nothing where there is no file.
    ///
    /// # Errors
    ///
    /// As [`Tree::read`], [`Error::Limit`] where it is larger than files of its kind may be, and
    /// [`Error::Source`] where it is not UTF-8.
    pub(crate) fn text(&self, path: &str) -> Result<Option<String>, Error> {
        let limit = size::limit(path);
        let Some(bytes) = self.read_at_most(path, limit)? else { return Ok(None) };
        let values = size::check(path, &bytes)?;
        self.read.add(bytes.len(), values)?;
        if is_utf16(&bytes) {
            return Err(Error::Source(format!("`{path}` is UTF-16; save it as UTF-8")));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))),
            Err(bad) => {
                let bytes = &bad.as_bytes()[..bad.utf8_error().valid_up_to()];
                let line = 1 + bytes.iter().filter(|&&byte| byte == b'\n').count();
                Err(Error::Source(format!("`{path}` is not UTF-8 in line {line}")))
            }
        }
    }
}

#[cfg(test)]
mod tests;
