//! The platform's own hand in a deploy's log: what it says of the processes, and the router's
//! lines.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::fs::{Mode, OFlags};
use tokio::sync::watch;
use tolv_logs::Line;
use tolv_logs::store::{Count, Limits, Tag, Writer, writer_id};

use crate::ports::random;

/// Longest text of one line, in bytes.
const LONGEST: usize = 64 * 1024;

/// The log of a deploy: to say something there, and to look for what is new.
#[derive(Clone, Debug)]
pub struct Log(pub(crate) Arc<Journal>);

impl Log {
    /// Appends lines of the platform. It never waits for a reader.
    pub fn say(&self, lines: &[Line]) {
        self.0.append(lines.iter());
    }

    /// Changes whenever there are new lines: a hint to look.
    pub fn stored(&self) -> watch::Receiver<u64> {
        self.0.stored()
    }

    /// Where it is, for `tolv_logs::store`.
    pub fn folder(&self) -> &Path {
        &self.0.folder
    }
}

/// Appends lines, and tells whoever waits for lines that there are some.
#[derive(Debug)]
pub(crate) struct Journal {
    folder: PathBuf,
    writer: Mutex<Writer>,
    stored: watch::Sender<u64>,
}

impl Journal {
    /// In the log in `folder`, which is made where it is missing.
    pub(crate) fn open(folder: &Path, limits: Limits) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let writer = Writer::new(open_folder(folder)?, writer_id(random()), limits);
        let (folder, stored) = (folder.to_owned(), watch::Sender::default());
        Ok(Self { folder, writer: Mutex::new(writer), stored })
    }

    /// Appends lines. The disk takes them at once or they stay in memory: nobody waits.
    pub(crate) fn append<'a>(&self, lines: impl Iterator<Item = &'a Line>) {
        let record = |line: &'a Line| {
            let tag = Tag { source: line.source, process: &line.process, release: line.release };
            (tag, line.time, &line.text[..line.text.len().min(LONGEST)])
        };
        self.writer.lock().unwrap_or_else(PoisonError::into_inner).append_all(lines.map(record));
        self.ring();
    }

    /// Tells that there are lines.
    pub(crate) fn ring(&self) {
        self.stored.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Changes whenever there are lines.
    pub(crate) fn stored(&self) -> watch::Receiver<u64> {
        self.stored.subscribe()
    }

    /// What was said, and what of it was lost.
    pub(crate) fn counts(&self) -> (Count, Count) {
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        (writer.taken(), writer.lost())
    }
}

/// A folder to append to the log in.
pub(crate) fn open_folder(folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(folder, flags, Mode::empty())?)
}
