//! Rows that hold no more although this platform wrote them: tokens that were revoked or narrowed,
//! drains that were removed.
//!
//! The code of such a row stays right. Whoever has a copy of it and can write to the database could
//! put it back. So what it is known by is recorded outside the database, in the folder of anchors: a
//! sealed line each, which is only ever added, before the row is removed.

use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use crate::db::Store;
use crate::error::Error;
use crate::row_mac::ShortCode;

/// In the folder of anchors. The file names of deploys have a dot.
const FILE: &str = "spent";
/// What each line is sealed for.
const OWNER: &str = "spent row";
/// A line that is longer is none of ours.
const MAX_LINE: usize = 256;

/// What is known of them.
#[derive(Default)]
pub(crate) struct Spent {
    codes: RwLock<HashSet<ShortCode>>,
    /// Lines that could not be written yet: they go with the next.
    unwritten: Mutex<Vec<String>>,
    /// Lines that could not be read.
    unreadable: AtomicUsize,
}

impl Spent {
    pub(crate) fn has(&self, code: &ShortCode) -> bool {
        self.codes.read().unwrap_or_else(PoisonError::into_inner).contains(code)
    }

    fn add(&self, codes: impl IntoIterator<Item = ShortCode>) {
        self.codes.write().unwrap_or_else(PoisonError::into_inner).extend(codes);
    }

    /// Adds lines to the file, and those that it did not take before.
    fn write(&self, path: &Path, lines: Vec<String>) -> io::Result<()> {
        let mut unwritten = self.unwritten.lock().unwrap_or_else(PoisonError::into_inner);
        unwritten.extend(lines);
        append(path, &unwritten)?;
        unwritten.clear();
        Ok(())
    }
}

/// Appends lines, and waits until they are on the disk.
fn append(path: &Path, lines: &[String]) -> io::Result<()> {
    let is_new = match fs::symlink_metadata(path) {
        Ok(stat) if stat.is_file() => false,
        Ok(_) => return Err(io::Error::other("it is no file")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(error),
    };
    if is_new {
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
    }
    let mut file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    // The line before may have been cut off by a crash.
    let text: String = lines.iter().map(|line| format!("\n{line}\n")).collect();
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    match is_new {
        true => tolv_durable::sync_folder_of(path),
        false => Ok(()),
    }
}

impl Store {
    /// Reads which rows hold no more.
    pub(crate) async fn load_spent(&self) -> Result<(), Error> {
        let Some(folder) = self.0.anchors.get() else { return Ok(()) };
        let (path, store) = (folder.join(FILE), self.clone());
        blocking(path.clone(), move || store.read_spent(&path)).await
    }

    fn read_spent(&self, path: &Path) -> io::Result<()> {
        match fs::symlink_metadata(path) {
            Ok(stat) if stat.is_file() => {}
            Ok(_) => {
                self.0.spent.unreadable.store(1, Ordering::Relaxed);
                return Ok(());
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        }
        let (mut found, mut unreadable) = (Vec::new(), 0);
        for line in BufReader::new(File::open(path)?).split(b'\n') {
            let line = line?;
            if line.is_empty() {
                continue;
            }
            let code = Some(line).filter(|line| line.len() <= MAX_LINE);
            let code = code.and_then(|line| String::from_utf8(line).ok());
            let code = code.and_then(|line| self.unseal(OWNER, &line)?.try_into().ok());
            match code {
                Some(code) => found.push(code),
                None => unreadable += 1,
            }
        }
        self.0.spent.add(found);
        self.0.spent.unreadable.store(unreadable, Ordering::Relaxed);
        Ok(())
    }

    /// How many lines of the file of revoked tokens and removed drains could not be read at the start.
    pub fn unreadable_spent(&self) -> usize {
        self.0.spent.unreadable.load(Ordering::Relaxed)
    }

    /// Records that rows hold no more. Where that cannot be written, they do not for as long as this
    /// platform runs.
    pub(crate) async fn spend(&self, codes: &[ShortCode]) -> Result<(), Error> {
        if codes.is_empty() {
            return Ok(());
        }
        self.0.spent.add(codes.iter().copied());
        let Some(folder) = self.0.anchors.get() else { return Ok(()) };
        let lines: Result<Vec<_>, _> = codes.iter().map(|code| self.seal(OWNER, code)).collect();
        let (path, store, lines) = (folder.join(FILE), self.clone(), lines?);
        blocking(path.clone(), move || store.0.spent.write(&path, lines)).await
    }
}

/// Runs blocking work on a thread of its own.
async fn blocking<T: Send + 'static>(
    path: PathBuf,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(io::Error::other).flatten().map_err(|source| Error::Spent { path, source })
}
