//! What a cgroup tells of the memory of one launch, through files that are open from before the
//! sandbox hides them.
//!
//! The kernel says when memory comes near its limit (v1: an event at a threshold of the usage, in
//! `cgroup-v1/memory.rst`; v2: a change of `memory.events`), but page cache counts there, and gives
//! way: what does not is [`MemoryUse::held`].

use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use rustix::event::{EventfdFlags, PollFlags, eventfd};

/// Of the limit, in percent, where a launch is said to be at it.
const AT_LIMIT: u64 = 95;
/// Where it is near enough to be looked at again and again. Less than that: the kernel counts in
/// batches, and what crossed the line may be behind it again.
const NEAR: u64 = 90;

/// The memory of one launch.
#[derive(Debug)]
pub struct Memory {
    /// Tells of kills: `memory.oom_control`, `memory.events`.
    kills: File,
    /// How much is used, and what of that is page cache: nothing where it cannot be read.
    used: Option<(File, File)>,
    /// Becomes readable at the threshold; v2 has `kills` for that.
    threshold: Option<Threshold>,
    is_v2: bool,
    limit: u64,
}

/// What a launch uses of its memory, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUse {
    /// What cannot be taken back from it: anonymous memory, files in memory, the kernel's for it.
    pub held: u64,
    /// Page cache besides.
    pub cache: u64,
    /// What it may use.
    pub limit: u64,
}

impl MemoryUse {
    /// Whether the next that it asks for may be its end.
    pub fn is_at_limit(self) -> bool {
        self.held >= self.limit / 100 * AT_LIMIT
    }

    /// Whether it may be soon, without another word of the kernel.
    pub fn is_near(self) -> bool {
        self.held + self.cache >= self.limit / 100 * NEAR
    }
}

impl Memory {
    /// In a v1 tree.
    pub(super) fn v1(dir: &Path, limit: u64) -> Option<Self> {
        let kills = File::open(dir.join("memory.oom_control")).ok()?;
        let used = used(dir, "memory.usage_in_bytes").ok();
        let threshold = Threshold::open(dir, limit / 100 * AT_LIMIT).ok();
        Some(Self { kills, used, threshold, is_v2: false, limit })
    }

    /// In the v2 tree.
    pub(super) fn v2(dir: &Path, limit: u64) -> Option<Self> {
        let kills = File::open(dir.join("memory.events")).ok()?;
        let used = used(dir, "memory.current").ok();
        Some(Self { kills, used, threshold: None, is_v2: true, limit })
    }

    /// The descriptors to keep.
    pub(crate) fn raw_fds(&self) -> impl Iterator<Item = RawFd> {
        let used = self.used.iter().flat_map(|(used, stat)| [used.as_raw_fd(), stat.as_raw_fd()]);
        let threshold = self
            .threshold
            .iter()
            .flat_map(|it| [it.event.as_raw_fd(), it.usage.as_raw_fd(), it.control.as_raw_fd()]);
        used.chain(threshold).chain([self.kills.as_raw_fd()])
    }

    /// Asks for the hint of v1. The kernel takes some milliseconds for it, which each body spends
    /// beside its app, and the spawner not at all.
    pub fn watch(&self) {
        if let Some(threshold) = &self.threshold {
            // Without it nothing is told before the kill.
            threshold.ask().ok();
        }
    }

    /// Whether the hint tells of kills too.
    pub fn tells_kills(&self) -> bool {
        self.is_v2
    }

    /// What it may use, in bytes.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Processes killed for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        number(&read(&self.kills, &mut [0; 512]), "oom_kill").unwrap_or(0)
    }

    /// What to poll, for what: it is a hint that [`Memory::usage`] is worth a look.
    pub fn hint(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        match &self.threshold {
            Some(threshold) => Some((threshold.event.as_fd(), PollFlags::IN)),
            None if self.is_v2 => Some((self.kills.as_fd(), PollFlags::PRI)),
            None => None,
        }
    }

    /// Takes the hint: the next one is of something new.
    pub fn clear(&self) {
        match &self.threshold {
            // Nothing is there to be read: it was cleared before.
            Some(threshold) => drop(rustix::io::read(&threshold.event, &mut [0_u8; 8])),
            None => drop(read(&self.kills, &mut [0; 512])),
        }
    }

    /// What is used now; nothing where the kernel does not say so.
    pub fn usage(&self) -> Option<MemoryUse> {
        let (used, stat) = self.used.as_ref()?;
        let used: u64 = read(used, &mut [0; 32]).trim().parse().ok()?;
        let text = read(stat, &mut [0; 8192]);
        let (file, shared) = match self.is_v2 {
            true => ("file", "shmem"),
            false => ("total_cache", "total_shmem"),
        };
        // Files in memory, as those of a private /tmp, are counted as cache and do not give way.
        let cache = number(&text, file)?.saturating_sub(number(&text, shared).unwrap_or(0));
        Some(MemoryUse { held: used.saturating_sub(cache), cache, limit: self.limit })
    }
}

fn used(dir: &Path, name: &str) -> io::Result<(File, File)> {
    Ok((File::open(dir.join(name))?, File::open(dir.join("memory.stat"))?))
}

/// An eventfd that the kernel adds to whenever the usage crosses so many bytes, once it was asked.
#[derive(Debug)]
struct Threshold {
    event: OwnedFd,
    usage: File,
    control: File,
    bytes: u64,
}

impl Threshold {
    fn open(dir: &Path, bytes: u64) -> io::Result<Self> {
        let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        let usage = File::open(dir.join("memory.usage_in_bytes"))?;
        let control = File::options().write(true).open(dir.join("cgroup.event_control"))?;
        Ok(Self { event, usage, control, bytes })
    }

    fn ask(&self) -> io::Result<()> {
        let (event, usage) = (self.event.as_raw_fd(), self.usage.as_raw_fd());
        (&self.control).write_all(format!("{event} {usage} {}", self.bytes).as_bytes())
    }
}

fn read(file: &File, buffer: &mut [u8]) -> String {
    let read = file.read_at(buffer, 0).unwrap_or(0);
    String::from_utf8_lossy(buffer.get(..read).unwrap_or_default()).into_owned()
}

/// The number behind a name.
fn number(text: &str, name: &str) -> Option<u64> {
    let mut found = text.lines().filter_map(|line| line.split_once(' '));
    found.find(|(key, _)| *key == name).and_then(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn numbers_are_found_by_their_whole_name() {
        let text = "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n";
        assert_eq!(number(text, "oom_kill"), Some(3));
        assert_eq!(number(text, "oom"), None);
        assert_eq!(number("anon x\n", "anon"), None);
    }

    #[test]
    fn page_cache_is_near_the_limit_and_not_at_it() {
        let of = |held, cache| MemoryUse { held, cache, limit: 1000 };
        assert!(!of(500, 100).is_near());
        assert!(of(500, 450).is_near() && !of(500, 450).is_at_limit());
        assert!(of(950, 0).is_near() && of(950, 0).is_at_limit());
    }

    #[test]
    fn files_of_either_version_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        put("memory.events", "low 0\nhigh 0\nmax 7\noom 1\noom_kill 1\n");
        put("memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n");
        put("memory.usage_in_bytes", "96\n");
        put("memory.current", "87\n");
        put("memory.stat", "cache 5\ntotal_cache 6\nanon 80\nfile 7\nshmem 3\n");
        let (v1, v2) =
            (Memory::v1(dir.path(), 1000).unwrap(), Memory::v2(dir.path(), 1000).unwrap());
        assert_eq!((v1.oom_kills(), v2.oom_kills()), (2, 1));
        assert_eq!(v1.usage(), Some(MemoryUse { held: 90, cache: 6, limit: 1000 }));
        assert_eq!(v2.usage(), Some(MemoryUse { held: 83, cache: 4, limit: 1000 }));
        // Where the kernel takes no threshold there is nothing to poll.
        assert!(v1.hint().is_none());
        assert!(v2.hint().is_some());
    }
}
