//! What the system says of the platform's own process, its spawner, its disk and the machine. Read
//! when somebody asks, on a thread that may block.

use std::fs;
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{StatVfsMountFlags, statvfs};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use tolv_model::shortage::Shortage;
use tolv_sandbox::{RulesState, Spawner, SpawnerFacts, rules_of};

use super::threads::{self, ThreadLimit};

/// In the state folder: the file that is written to see whether the disk takes anything.
const PROBE: &str = "probe";
/// For the spawner to answer, which takes it no time; within that of a status.
const SPAWNER_TIMEOUT: Duration = Duration::from_millis(500);

/// The disk of the state folder.
#[derive(Clone, Debug)]
pub(crate) struct Disk {
    pub(crate) size: u64,
    /// For programs that are not root's, too.
    pub(crate) free: u64,
    /// Files that there may be; 0 where the file system does not bound them.
    pub(crate) files: u64,
    pub(crate) free_files: u64,
    pub(crate) is_read_only: bool,
    /// Why a file there cannot be written; nothing where it can.
    pub(crate) unwritable: Option<String>,
}

impl Disk {
    pub(super) fn of(folder: &Path) -> io::Result<Self> {
        let stat = statvfs(folder)?;
        let refused = write(&folder.join(PROBE)).err();
        // Of a disk that failed the kernel says so to whoever writes, and nowhere else.
        let is_read_only = stat.f_flag.contains(StatVfsMountFlags::RDONLY)
            || refused.as_ref().and_then(Shortage::of_disk) == Some(Shortage::WritableDisk);
        Ok(Self {
            size: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            files: stat.f_files,
            free_files: stat.f_favail,
            is_read_only,
            unwritable: refused.map(|error| error.to_string()),
        })
    }
}

/// Writes to the disk itself, and waits for it: what is only read may be in memory, of a disk that hangs.
fn write(file: &Path) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let file = options.create(true).truncate(false).write(true).mode(0o600).open(file)?;
    file.write_all_at(&std::process::id().to_ne_bytes(), 0)?;
    file.sync_data()
}

/// The descriptors of the platform's own process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Descriptors {
    pub(crate) open: u64,
    /// Most at once.
    pub(crate) soft: u64,
    /// What `soft` may be raised to.
    pub(crate) hard: u64,
}

/// The platform's own process and its machine.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) descriptors: Descriptors,
    /// Bytes of memory of the platform's own process.
    pub(crate) resident: Option<u64>,
    pub(crate) threads: Option<u64>,
    /// What bounds how many threads and processes there may be: the tightest first.
    pub(crate) thread_limits: Vec<ThreadLimit>,
    pub(crate) spawner: SpawnerFacts,
    /// Whether the spawner was stopped by a signal, and answers nobody.
    pub(crate) is_spawner_stopped: bool,
    /// For how long the spawner has not answered, where it does not, or why it could not be asked.
    pub(crate) spawner_silence: Result<Option<Duration>, String>,
    /// Sandboxes that the spawner has launched and that have not ended.
    pub(crate) sandboxes: Option<u64>,
    /// The packet rules, where processes have networks of their own.
    pub(crate) rules: Option<Result<RulesState, String>>,
}

impl Machine {
    pub(super) fn read(spawner: &Spawner, has_own_networks: bool) -> Self {
        let spawner_silence = spawner.silence(SPAWNER_TIMEOUT).map_err(|error| error.to_string());
        let spawner = spawner.facts();
        let pid = spawner.pid;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let rules = || rules_of(pid).map_err(|error| error.to_string());
        Self {
            descriptors: descriptors(),
            resident: field(&status, "VmRSS:").map(|kib| kib.saturating_mul(1024)),
            threads: field(&status, "Threads:"),
            thread_limits: threads::limits(),
            spawner,
            is_spawner_stopped: is_stopped(pid),
            spawner_silence,
            sandboxes: children(pid),
            rules: has_own_networks.then(rules),
        }
    }

    /// Whether processes can be started.
    pub(crate) fn is_spawner_up(&self) -> bool {
        let answers = !matches!(self.spawner_silence, Ok(Some(_)));
        self.spawner.is_running && !self.is_spawner_stopped && answers
    }
}

pub(super) fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// A number of `/proc/<pid>/status`.
pub(super) fn field(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    number(value.split_ascii_whitespace().next()?)
}

fn descriptors() -> Descriptors {
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (limit.current.unwrap_or(u64::MAX), limit.maximum.unwrap_or(u64::MAX));
    let open = match open_descriptors() {
        Ok(open) => open,
        // Looking takes one, and there is none.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::MFILE) => soft,
        Err(_) => 0,
    };
    Descriptors { open, soft, hard }
}

fn open_descriptors() -> io::Result<u64> {
    const FOLDER: &str = "/proc/self/fd";
    // Since Linux 6.2 it is the size of the folder, which takes no descriptor to ask.
    match fs::metadata(FOLDER)?.len() {
        0 => {}
        count => return Ok(count),
    }
    let count = fs::read_dir(FOLDER)?.count();
    // The one that was looked with.
    Ok(u64::try_from(count).unwrap_or(u64::MAX).saturating_sub(1))
}

fn is_stopped(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name may have blanks and parentheses.
    let state = stat.rfind(')').and_then(|end| stat[end + 1..].trim_start().chars().next());
    matches!(state, Some('T' | 't'))
}

/// Of a process with one thread.
fn children(pid: u32) -> Option<u64> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    u64::try_from(children.split_ascii_whitespace().count()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_and_machine_can_be_read() {
        let before = descriptors();
        let files: Vec<_> = (0..3).map(|_| fs::File::open("/proc/self/stat").unwrap()).collect();
        let after = descriptors();
        // Other tests of this program open and close some at the same time.
        assert!(before.open >= 3 && after.open >= 3 + u64::try_from(files.len()).unwrap());
        assert!(after.soft <= after.hard && after.open < after.soft, "{after:?}");
        let limits = threads::limits();
        assert!(limits.iter().any(ThreadLimit::is_machine), "{limits:?}");
        assert!(limits.iter().all(|limit| limit.now > 0 && limit.most > 0), "{limits:?}");
        let status = fs::read_to_string("/proc/self/status").unwrap();
        assert!(field(&status, "Threads:").unwrap() >= 1);
        assert!(field(&status, "VmRSS:").unwrap() > 100);
        assert_eq!(field(&status, "Nothing:"), None);
        assert!(!is_stopped(std::process::id()));
        let folder = tempfile::tempdir().unwrap();
        let disk = Disk::of(folder.path()).unwrap();
        assert!(disk.free <= disk.size && disk.unwritable.is_none(), "{disk:?}");
    }
}
