//! Shims that no door leads to any more, for somebody has removed it from the disk.
//!
//! The kernel still knows them: a shim listens on its door's socket, whose name has the shim's hand in
//! the log, and has the folder of its deploy's log open. Nobody can connect to a socket that is on
//! no disk, so such a shim gets SIGTERM, and stops its app in order.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::time::{Instant, sleep};
use tolv_logs::Line;
use tolv_sandbox::Launched;

use crate::orphan::name_of;
use crate::session::DEAF;
use crate::shared::Shared;
use crate::target::Settings;

/// Between two looks at whether one has ended.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);

/// A shim that lives, whichever platform has started it.
#[derive(Debug)]
pub struct Living {
    pub(crate) launched: Launched,
    /// Its hand in the log.
    writer: u64,
    /// The folders that it has open, by device and inode.
    folders: BTreeSet<(u64, u64)>,
}

/// Looks for all shims of this machine that the next platform is to go on with. One whose files this
/// process may not see is not found.
pub fn living() -> Arc<[Arc<Living>]> {
    let listening = listening();
    if listening.is_empty() {
        return Arc::default();
    }
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Living::of(pid, &listening).map(Arc::new)).collect()
}

impl Living {
    fn of(pid: i32, listening: &HashMap<u64, u64>) -> Option<Self> {
        writer_of(pid, listening)?;
        let pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        // Once more, now that the pid is no other's.
        let writer = writer_of(pid, listening)?;
        let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        let folders = files.filter_map(|file| fs::metadata(file.path()).ok());
        let folders = folders.filter(fs::Metadata::is_dir).map(|found| (found.dev(), found.ino()));
        Some(Self { launched: Launched { pid, pidfd }, writer, folders: folders.collect() })
    }

    fn has_ended(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&self.launched.pidfd, PollFlags::IN)], Some(&now)) != Ok(0)
    }
}

/// The hand in the log of a process that listens on a door.
fn writer_of(pid: i32, listening: &HashMap<u64, u64>) -> Option<u64> {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
    files.into_iter().find_map(|file| {
        let target = fs::read_link(file.path()).ok()?;
        let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
        listening.get(&inode.parse().ok()?).copied()
    })
}

/// The sockets of all doors that somebody listens on, by inode, with the shim's hand in the log.
fn listening() -> HashMap<u64, u64> {
    let sockets = fs::read("/proc/net/unix").unwrap_or_default();
    let sockets = String::from_utf8_lossy(&sockets);
    sockets.lines().filter_map(door).collect()
}

/// Of a line of the kernel's list: the inode and the shim's hand in the log.
fn door(line: &str) -> Option<(u64, u64)> {
    // Num RefCount Protocol Flags Type St Inode Path
    let mut fields = line.split_ascii_whitespace().skip(3);
    let (accepts, packets) = ("00010000", "0005");
    if fields.next() != Some(accepts) || fields.next() != Some(packets) {
        return None;
    }
    let inode = fields.nth(1)?.parse().ok()?;
    let name = Path::new(fields.next()?).file_name()?.to_str()?;
    let writer = u64::from_str_radix(name, 16).ok()?;
    (name_of(writer) == name).then_some((inode, writer))
}

/// Those that write to this engine's log, and that no door leads to.
pub(crate) fn of(settings: &Settings) -> Vec<Arc<Living>> {
    let doors: Vec<_> = settings.doors.iter().chain(&settings.doors_aside).collect();
    let Ok(logs) = fs::metadata(&settings.logs) else { return Vec::new() };
    let logs = (logs.dev(), logs.ino());
    let is_lost = |living: &&Arc<Living>| {
        let name = name_of(living.writer);
        living.folders.contains(&logs)
            && !doors.iter().any(|folder| folder.join(&name).symlink_metadata().is_ok())
    };
    settings.living.iter().filter(is_lost).cloned().collect()
}

/// Those that nobody has begun to stop.
pub(crate) fn take(shared: &Shared) -> Vec<Arc<Living>> {
    std::mem::take(&mut shared.lost.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Stops them all: SIGTERM, the grace period, SIGKILL. Returns once they have ended.
pub(crate) async fn end(shared: &Shared) {
    let mut lost = take(shared);
    // What the engine before has stopped removes its door first.
    lost.retain(|living| !living.has_ended());
    if lost.is_empty() {
        return;
    }
    let text = match lost.len() {
        1 => "1 process of the previous tolv has lost its socket below processes/: it is stopped \
              before another starts"
            .to_owned(),
        many => format!(
            "{many} processes of the previous tolv have lost their sockets below processes/: they \
             are stopped before others start"
        ),
    };
    shared.journal.append([&Line::tolv("platform", text)].into_iter());
    for living in &lost {
        // Gone already is what is wanted.
        pidfd_send_signal(&living.launched.pidfd, Signal::TERM).ok();
    }
    let grace = Instant::now() + shared.settings.timing.grace;
    let is_over = |until| shared.killed.is_cancelled() || Instant::now() >= until;
    while !lost.iter().all(|living| living.has_ended()) && !is_over(grace) {
        sleep(LOOK_INTERVAL).await;
    }
    lost.iter().for_each(|living| living.launched.kill());
    let until = Instant::now() + DEAF;
    while !lost.iter().all(|living| living.has_ended()) && Instant::now() < until {
        sleep(LOOK_INTERVAL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_door_is_told_from_other_sockets() {
        let line = |flags, kind, name| {
            door(&format!("000000004ab86a9e: 00000002 00000000 {flags} {kind} 01 68457 {name}"))
        };
        let name = "/proc/self/fd/42/66151bf113dc5588";
        let writer = 0x6615_1bf1_13dc_5588;
        assert_eq!(line("00010000", "0005", name), Some((68457, writer)));
        assert_eq!(line("00000000", "0005", name), None, "a connection");
        assert_eq!(line("00010000", "0001", name), None, "a stream");
        assert_eq!(line("00010000", "0005", "/run/udev/control"), None);
        assert_eq!(line("00010000", "0005", ""), None);
    }
}
