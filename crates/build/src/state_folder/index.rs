//! Whether git tracks anything below a folder: read from the index itself, which takes a fraction of
//! the time of a `git` and runs nothing that a repository asks for.
//!
//! The format is in `gitformat-index(5)`.

use std::io::{self, Read as _};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use crate::files;

/// Most bytes of an index: some four million files.
const MAX_INDEX: u64 = 512 << 20;
/// Most bytes of the file `.git` of a worktree or a submodule.
const MAX_LINK: u64 = 8 << 10;
/// Bytes of an entry before the name of its object: times, device, inode, mode, owner, size.
const STAT_BYTES: usize = 40;
/// Bytes of an object's name: SHA-1, SHA-256.
const HASH_BYTES: [usize; 2] = [20, 32];

/// The first file at or below `folder`, which has no links in its path, that a repository around it
/// tracks.
///
/// # Errors
///
/// An index is there and cannot be read.
pub(super) fn tracked(folder: &Path) -> io::Result<Option<String>> {
    for root in folder.ancestors().skip(1) {
        let Some(git) = git_folder(root)? else { continue };
        let below = folder.strip_prefix(root).map_err(io::Error::other)?.as_os_str().as_bytes();
        for index in indexes(&git) {
            let bytes = read(&index, MAX_INDEX)?;
            let found =
                HASH_BYTES.iter().find_map(|&hash| Index { bytes: &bytes, hash }.find(below));
            let found = found.ok_or_else(|| {
                io::Error::other(format!(
                    "`{}` is not a git index of a known kind",
                    index.display()
                ))
            })?;
            if let Some(name) = found {
                return Ok(Some(String::from_utf8_lossy(&name).into_owned()));
            }
        }
    }
    Ok(None)
}

/// The folder of the repository with its working tree there.
fn git_folder(root: &Path) -> io::Result<Option<PathBuf>> {
    let git = root.join(".git");
    let Ok(meta) = git.metadata() else { return Ok(None) };
    if meta.is_dir() {
        return Ok(Some(git));
    }
    if !meta.is_file() {
        return Ok(None);
    }
    let text = read(&git.canonicalize()?, MAX_LINK)?;
    let Some(path) = text.strip_prefix(b"gitdir: ") else { return Ok(None) };
    let path = path.trim_ascii_end().to_vec();
    Ok(Some(root.join(PathBuf::from(std::ffi::OsString::from_vec(path)))))
}

/// Its index, and those that it shares entries of.
fn indexes(git: &Path) -> Vec<PathBuf> {
    let list = std::fs::read_dir(git).into_iter().flatten().flatten();
    let is_index = |name: &[u8]| name == b"index" || name.starts_with(b"sharedindex.");
    list.filter(|entry| is_index(entry.file_name().as_bytes())).map(|entry| entry.path()).collect()
}

fn read(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let file = files::open(path)?;
    let size = file.metadata()?.len();
    if size > most {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
    file.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// An index with objects' names of some length.
struct Index<'a> {
    bytes: &'a [u8],
    hash: usize,
}

impl Index<'_> {
    /// The first name at or below `folder`; nothing at all where this is no such index.
    fn find(&self, folder: &[u8]) -> Option<Option<Vec<u8>>> {
        let number = |at: usize| {
            let bytes = self.bytes.get(at..at + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().ok()?))
        };
        let version = number(4).filter(|version| (2..=4).contains(version))?;
        if !self.bytes.starts_with(b"DIRC") {
            return None;
        }
        let (mut at, mut name, mut found) = (12, Vec::new(), None);
        for _ in 0..number(8)? {
            let start = at;
            at += STAT_BYTES + self.hash;
            let flags = u16::from_be_bytes(self.bytes.get(at..at + 2)?.try_into().ok()?);
            at += if version > 2 && flags & 0x4000 != 0 { 4 } else { 2 };
            if version == 4 {
                let dropped = self.varint(&mut at)?;
                name.truncate(name.len().checked_sub(dropped)?);
            } else {
                name.clear();
            }
            let rest = self.bytes.get(at..)?;
            let end = memchr::memchr(0, rest)?;
            name.extend_from_slice(&rest[..end]);
            at += end + 1;
            if version != 4 {
                // Entries are filled up with NULs to a multiple of eight bytes.
                at = start + (at - start).next_multiple_of(8);
            }
            let length = usize::from(flags & 0xfff);
            if length != name.len().min(0xfff) {
                return None;
            }
            if found.is_none() && is_in(&name, folder) {
                found = Some(name.clone());
            }
        }
        (at <= self.bytes.len()).then_some(found)
    }

    /// A number of a variable length, as in packs' offsets.
    fn varint(&self, at: &mut usize) -> Option<usize> {
        let mut next = || {
            let byte = self.bytes.get(*at).copied();
            *at += 1;
            byte
        };
        let mut byte = next()?;
        let mut value = usize::from(byte & 0x7f);
        while byte & 0x80 != 0 {
            byte = next()?;
            value = value.checked_add(1)?.checked_mul(128)? + usize::from(byte & 0x7f);
        }
        Some(value)
    }
}

/// Whether a name is the folder or below it. On a file system that takes capital and small letters for
/// the same, so do they here.
fn is_in(name: &[u8], folder: &[u8]) -> bool {
    let Some((start, rest)) = name.split_at_checked(folder.len()) else { return false };
    start.eq_ignore_ascii_case(folder) && (rest.is_empty() || rest.starts_with(b"/"))
}
