//! The disk of the state folder: what it has left, and what is told while it takes nothing.
//!
//! Lines go to the log and from there to whoever reads them. While the disk takes none they stay in the
//! memory of who wrote them, and what is too much is dropped; who listens meanwhile is told that on a
//! way of its own.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::fs::statvfs;
use tokio::time::sleep;
use tolv_logs::Line;
use tolv_model::id::DeployId;
use tolv_model::shortage::Shortage;

use super::controller::Controller;
use super::error::Error;
use super::options::Said;
use super::platform::{Platform, blocking};
use crate::home::LOCK;

/// Between two looks, where something is wrong and where nothing is: an idle platform is to be idle.
const INTERVAL: Duration = Duration::from_secs(2);
const QUIET_INTERVAL: Duration = Duration::from_secs(10);
/// Between two counts of what was dropped.
const COUNT_INTERVAL: Duration = Duration::from_secs(5);
/// With less free space than this no line is written.
const NOTHING_BYTES: u64 = 64 << 10;

/// What a disk has left.
pub(super) struct Room {
    /// Bytes.
    pub(super) free: u64,
    /// Files that there may be; 0 where the file system does not bound them.
    files: u64,
    free_files: u64,
}

impl Room {
    pub(super) fn of(folder: &Path) -> Result<Self, Error> {
        let stat = statvfs(folder).map_err(|errno| Error::System {
            what: "ask how full the disk is",
            source: errno.into(),
        })?;
        Ok(Self {
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            files: stat.f_files,
            free_files: stat.f_favail,
        })
    }

    /// Whether there is room for bytes and no file.
    fn is_out_of_files(&self) -> bool {
        self.files > 0 && self.free_files == 0
    }

    /// Refuses where there is no room for another file.
    pub(super) fn require_file(&self) -> Result<(), Error> {
        match self.is_out_of_files() {
            true => Err(Error::NoFiles { files: self.files, free: self.free >> 20 }),
            false => Ok(()),
        }
    }
}

/// Whether the disk of a state folder is read-only. A kernel that has seen an error of the disk says so
/// to whoever opens a file to write, and nowhere else. Writes nothing, and does not wait for the disk.
pub(super) fn is_read_only(home: &Path) -> bool {
    let opened = OpenOptions::new().write(true).open(home.join(LOCK));
    opened.is_err_and(|error| error.kind() == io::ErrorKind::ReadOnlyFilesystem)
}

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    ReadOnly,
    Full,
    NoFiles,
}

impl Fault {
    fn of(home: &Path) -> Option<Self> {
        if is_read_only(home) {
            return Some(Self::ReadOnly);
        }
        let room = Room::of(home).ok()?;
        if room.free < NOTHING_BYTES {
            return Some(Self::Full);
        }
        room.is_out_of_files().then_some(Self::NoFiles)
    }

    fn shortage(self) -> Shortage {
        match self {
            Self::ReadOnly => Shortage::WritableDisk,
            Self::Full | Self::NoFiles => Shortage::DiskSpace,
        }
    }

    /// What it means, in a line.
    fn text(self) -> String {
        let shortage = self.shortage();
        let what = match self {
            Self::ReadOnly | Self::Full => {
                "what runs goes on; what its processes write is kept in memory, and dropped where it \
                 is too much"
            }
            Self::NoFiles => "it has no room for another file; what runs goes on",
        };
        let fault = shortage.to_string().replacen("the disk", "The disk", 1);
        format!("{fault}: {what}. To do: {}", shortage.advice())
    }
}

/// What was dropped of each deploy's processes and is told already.
type Dropped = HashMap<(DeployId, Arc<str>), u64>;

impl Platform {
    /// Makes what is reserved again once there is space, and tells when the disk takes nothing, what
    /// that costs, and when it takes something again.
    pub(super) async fn watch_disk(self) {
        let (mut now, mut dropped, mut counted) = (None, Dropped::new(), Instant::now());
        // What runs may have dropped lines under an earlier platform.
        self.count_dropped(&mut dropped, None).await;
        loop {
            let pause = sleep(if now.is_some() { INTERVAL } else { QUIET_INTERVAL });
            if self.0.ending.run_until_cancelled(pause).await.is_none() {
                return;
            }
            let (store, home) = (self.0.store.clone(), self.0.home.clone());
            // A disk that hangs is not asked again meanwhile.
            let look = move || {
                store.adjust_reserves();
                Ok::<_, Error>(Fault::of(&home))
            };
            let Ok(found) = blocking(look).await else { continue };
            if found != now {
                self.tell_fault(now, found).await;
                if found.is_none() {
                    // The log says what is missing in it.
                    self.count_dropped(&mut dropped, None).await;
                }
                (now, counted) = (found, Instant::now());
            } else if let Some(fault) = now.filter(|_| counted.elapsed() >= COUNT_INTERVAL) {
                counted = Instant::now();
                self.count_dropped(&mut dropped, Some(fault)).await;
            }
        }
    }

    async fn tell_fault(&self, before: Option<Fault>, now: Option<Fault>) {
        let text = match (now, before) {
            (Some(fault), _) => fault.text(),
            (None, Some(fault)) => format!("No longer: {}", fault.shortage()),
            (None, None) => return,
        };
        self.say(text.clone()).await;
        let controllers: Vec<_> = self.controllers().values().cloned().collect();
        for controller in controllers {
            let line = Line::tolv("platform", text.as_str());
            match now {
                Some(Fault::ReadOnly | Fault::Full) => controller.tell_unstored(line),
                // With it goes what was kept meanwhile.
                Some(Fault::NoFiles) | None => controller.engine.say(&[line]),
            }
        }
    }

    /// Counts what was dropped, and tells what is new of it where a fault is given.
    async fn count_dropped(&self, known: &mut Dropped, fault: Option<Fault>) {
        let controllers: Vec<_> = self.controllers().values().cloned().collect();
        for controller in controllers {
            for (process, written) in controller.engine.written().await {
                let all = written.lost.lines;
                let key = (controller.place.id.clone(), Arc::clone(&process));
                let before = known.insert(key, all).unwrap_or_default();
                let new = all.saturating_sub(before);
                if let Some(fault) = fault.filter(|_| new > 0) {
                    let lines = if new == 1 { "1 line" } else { &format!("{new} lines") };
                    let why = fault.shortage();
                    let text =
                        format!("Error L10 (output buffer overflow): {lines} dropped, for {why}");
                    let line = Line::tolv(process, text);
                    controller.tell_unstored(line.clone());
                    let deploy = Some(controller.place.path.clone());
                    self.0.lines.send(Said { deploy, line }).await.ok();
                }
            }
        }
    }
}

impl Controller {
    /// Tells a line to whoever follows the log now: it is in no log.
    fn tell_unstored(&self, line: Line) {
        // Nobody may be there.
        self.unstored.send(line).ok();
    }
}
