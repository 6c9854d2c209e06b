//! Locks that codebases lack, made once and kept.
//!
//! A builder that finds ranges instead of a lock describes in a [`Resolution`] what makes the lock;
//! the pipeline runs it in a sandbox and keeps the result under the digest of its input, so that
//! the same commit gives the same slug as long as the app's folder lives.
//!
//! `<home>/resolved/<input>` has the digest of the lock in its first line and the lock behind it.
//! At most [`MAX_KEPT`] locks with [`MAX_KEPT_BYTES`] together are kept; those that were not used
//! for the longest time make room, and all of them go with the app.

use std::fs::{self, File};
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tolv_model::slug::Digest;

use crate::caps::bytes;
use crate::keep::digests;
use crate::plan::Plan;
use crate::{Error, files};

/// Largest lock that is made.
pub(crate) const MAX_LOCK: u64 = 16 << 20;
/// Most locks of one app that are kept.
const MAX_KEPT: usize = 256;
/// Most bytes of all locks of one app that are kept.
const MAX_KEPT_BYTES: u64 = 64 << 20;

/// What makes a lock.
#[derive(Clone, Debug)]
pub(crate) struct Resolution {
    /// What is resolved, in words: `requirements.txt`.
    pub name: String,
    /// Digest of everything that decides the lock, but for the day.
    pub input: Digest,
    /// Whether the steps see a copy of the whole source in `/app`; else only `files` are there.
    pub sees_source: bool,
    /// Put into `/app` before the steps, in place of what stands there: (name, bytes). Where the
    /// steps see the source, a name has no `/`.
    pub files: Vec<(String, Vec<u8>)>,
    /// The steps, with the toolchains and the environment that they need.
    pub plan: Plan,
    /// The file that the steps make: a name in `/app`.
    pub result: String,
}

/// A lock that goes into the codebase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockFile {
    /// Its name in the codebase's root: `uv.lock`.
    pub path: String,
    /// Its content.
    pub bytes: Vec<u8>,
    /// What it has, one line each: `flask 3.1.3`.
    pub packages: Vec<String>,
}

/// The kept locks of one app.
#[derive(Clone, Debug)]
pub(crate) struct Resolutions {
    folder: PathBuf,
}

impl Resolutions {
    /// Those of `<home>`.
    pub(crate) fn at(home: &Path) -> Self {
        Self { folder: home.join("resolved") }
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, input: &Digest) -> PathBuf {
        self.folder.join(input.to_string())
    }

    /// The lock that was made of this input; one whose bytes have changed is none.
    pub(crate) fn find(&self, input: &Digest) -> Option<Vec<u8>> {
        let path = self.path(input);
        let kept = files::read(&path).ok()?;
        let end = kept.iter().position(|&byte| byte == b'\n')?;
        let digest: Digest = std::str::from_utf8(&kept[..end]).ok()?.parse().ok()?;
        let lock = &kept[end + 1..];
        if Digest::of(lock) != digest {
            return None;
        }
        // What cannot be noted as used goes a little earlier.
        let opened = File::options().append(true).open(&path);
        opened.and_then(|file| file.set_modified(SystemTime::now())).ok();
        Some(lock.to_vec())
    }

    /// Keeps a lock, and makes room for it.
    pub(crate) fn keep(&self, input: &Digest, lock: &[u8]) -> Result<(), Error> {
        files::make_folder(&self.folder)?;
        let mut text = format!("{}\n", Digest::of(lock)).into_bytes();
        text.extend_from_slice(lock);
        files::write_whole(&self.path(input), &text)?;
        self.trim(MAX_KEPT, MAX_KEPT_BYTES)
    }

    fn trim(&self, most: usize, most_bytes: u64) -> Result<(), Error> {
        let mut all = Vec::new();
        for input in digests(&self.folder, "")? {
            let path = self.path(&input);
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            all.push(((meta.mtime(), meta.mtime_nsec()), meta.len(), path));
        }
        all.sort();
        let mut bytes: u64 = all.iter().map(|(_, size, _)| size).sum();
        let mut count = all.len();
        for (_, size, path) in all {
            if count <= most && bytes <= most_bytes {
                break;
            }
            files::remove(&path)?;
            (count, bytes) = (count - 1, bytes - size);
        }
        Ok(())
    }
}

/// The lock that steps have left in a folder of their own: a regular file of a bearable size.
pub(crate) fn read_result(folder: &Path, wanted: &Resolution) -> Result<Vec<u8>, Error> {
    let path = folder.join(&wanted.result);
    let file = files::open(&path).map_err(Error::io("read the resolved", &path))?;
    let mut lock = Vec::new();
    let taken = file.take(MAX_LOCK + 1).read_to_end(&mut lock);
    taken.map_err(Error::io("read the resolved", &path))?;
    if lock.len() as u64 > MAX_LOCK {
        return Err(Error::Limit {
            what: format!("the lock of {}", wanted.name),
            limit: bytes(MAX_LOCK),
        });
    }
    Ok(lock)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_found_again_unless_it_changed() {
        let home = tempfile::tempdir().unwrap();
        let kept = Resolutions::at(home.path());
        let input = Digest::of(b"flask");
        assert_eq!(kept.find(&input), None);
        kept.keep(&input, b"flask==3.1.3\n").unwrap();
        assert_eq!(kept.find(&input).as_deref(), Some(&b"flask==3.1.3\n"[..]));
        let path = kept.path(&input);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("3.1.3", "3.1.4")).unwrap();
        assert_eq!(kept.find(&input), None);
    }

    #[test]
    fn what_was_not_used_for_the_longest_time_makes_room() {
        let home = tempfile::tempdir().unwrap();
        let kept = Resolutions::at(home.path());
        let inputs = [b"a", b"b", b"c"].map(|name| Digest::of(name));
        for (age, input) in (1..).zip(&inputs) {
            kept.keep(input, b"lock\n").unwrap();
            let file = File::options().append(true).open(kept.path(input)).unwrap();
            let time = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(age);
            file.set_modified(time).unwrap();
        }
        kept.find(&inputs[0]).unwrap();
        kept.trim(2, u64::MAX).unwrap();
        assert!(kept.path(&inputs[0]).exists() && kept.path(&inputs[2]).exists());
        assert!(!kept.path(&inputs[1]).exists());
        kept.trim(2, 80).unwrap();
        assert!(kept.path(&inputs[0]).exists() && !kept.path(&inputs[2]).exists());
    }

    #[test]
    fn a_result_is_a_regular_file_of_a_bearable_size() {
        let folder = tempfile::tempdir().unwrap();
        let mut wanted = Resolution {
            name: "requirements.txt".to_owned(),
            input: Digest::of(b""),
            sees_source: false,
            files: Vec::new(),
            plan: Plan::new("python", 1),
            result: "lock".to_owned(),
        };
        assert!(matches!(read_result(folder.path(), &wanted), Err(Error::Io { .. })));
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join("lock")).unwrap();
        assert!(matches!(read_result(folder.path(), &wanted), Err(Error::Io { .. })));
        "large".clone_into(&mut wanted.result);
        File::create(folder.path().join("large")).unwrap().set_len(1 << 40).unwrap();
        assert!(matches!(read_result(folder.path(), &wanted), Err(Error::Limit { .. })));
    }
}
