//! What bounds how many threads and processes the platform may make: the machine, the cgroups that it
//! is in, and the limit of its user.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit, getuid};

use super::machine::{field, number};

/// One bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ThreadLimit {
    /// `the machine`, `the cgroup /system.slice/tolv.service`.
    pub(crate) whose: String,
    pub(crate) now: u64,
    pub(crate) most: u64,
}

/// How the machine itself is called among them.
const MACHINE: &str = "the machine";

impl ThreadLimit {
    /// Whether it is the machine's, and no smaller one.
    pub(crate) fn is_machine(&self) -> bool {
        self.whose == MACHINE
    }
}

/// Every bound that there is, the tightest first.
pub(super) fn limits() -> Vec<ThreadLimit> {
    let cgroups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let mut limits = of_cgroups(&cgroups, &mounts);
    limits.extend(of_machine());
    limits.extend(of_user());
    limits.sort_by_key(|limit| limit.most.saturating_sub(limit.now));
    limits
}

fn of_machine() -> Option<ThreadLimit> {
    let load = fs::read_to_string("/proc/loadavg").ok()?;
    // `0.12 0.34 0.56 2/845 4711`
    let now = number(load.split_ascii_whitespace().nth(3)?.split_once('/')?.1)?;
    let limits = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
    let limits = limits.iter().filter_map(|path| number(&fs::read_to_string(path).ok()?));
    Some(ThreadLimit { whose: MACHINE.to_owned(), now, most: limits.min()? })
}

/// `RLIMIT_NPROC`, which does not bound root.
fn of_user() -> Option<ThreadLimit> {
    let (user, most) = (getuid(), getrlimit(Resource::Nproc).current);
    let most = most?;
    if user.is_root() {
        return None;
    }
    let id = user.as_raw().to_string();
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let statuses = processes.filter_map(|entry| {
        entry.file_name().to_str()?.parse::<u32>().ok()?;
        fs::read_to_string(entry.path().join("status")).ok()
    });
    let own = statuses.filter(|status| {
        let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
        ids.and_then(|ids| ids.split_ascii_whitespace().next()) == Some(id.as_str())
    });
    let now = own.filter_map(|status| field(&status, "Threads:")).sum();
    Some(ThreadLimit { whose: format!("the user {id}"), now, most })
}

/// Those of the cgroups that this process is in, and of all above them, of either version.
fn of_cgroups(cgroups: &str, mounts: &str) -> Vec<ThreadLimit> {
    let mut limits = Vec::new();
    for line in cgroups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(id), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let is_v2 = id == "0" && controllers.is_empty();
        if !is_v2 && !controllers.split(',').any(|name| name == "pids") {
            continue;
        }
        let Some((root, mount)) = mount_of(mounts, is_v2) else { continue };
        let below = Path::new(path).strip_prefix(&root).unwrap_or(Path::new(""));
        for group in below.ancestors() {
            let folder = mount.join(group);
            let read = |name| number(&fs::read_to_string(folder.join(name)).ok()?);
            // `max` is no number: no bound.
            if let (Some(now), Some(most)) = (read("pids.current"), read("pids.max")) {
                let whose = format!("the cgroup /{}", group.display());
                limits.push(ThreadLimit { whose, now, most });
            }
        }
    }
    limits
}

/// Which part of the tree is mounted, and where.
fn mount_of(mounts: &str, is_v2: bool) -> Option<(PathBuf, PathBuf)> {
    mounts.lines().find_map(|line| {
        // `36 35 0:31 /root /sys/fs/cgroup/pids rw,nosuid shared:15 - cgroup cgroup rw,pids`
        let (place, kind) = line.split_once(" - ")?;
        let mut place = place.split_ascii_whitespace().skip(3);
        let (root, mount) = (place.next()?, place.next()?);
        let mut kind = kind.split_ascii_whitespace();
        let is_it = match kind.next()? {
            "cgroup2" => is_v2,
            "cgroup" => !is_v2 && kind.nth(1)?.split(',').any(|option| option == "pids"),
            _ => false,
        };
        is_it.then(|| (root.into(), mount.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_of_either_version_is_found() {
        let mounts = "30 1 0:5 / /proc rw - proc proc rw\n\
            36 35 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
            37 35 0:32 /docker/7 /sys/fs/cgroup/pids rw shared:15 - cgroup cgroup rw,pids\n\
            38 35 0:33 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let found = |is_v2| mount_of(mounts, is_v2).unwrap();
        assert_eq!(found(false), ("/docker/7".into(), "/sys/fs/cgroup/pids".into()));
        assert_eq!(found(true), ("/".into(), "/sys/fs/cgroup/unified".into()));
        assert_eq!(mount_of("", true), None);
    }

    #[test]
    fn a_group_and_all_above_it_bound() {
        let tree = tempfile::tempdir().unwrap();
        let group = tree.path().join("a/b");
        fs::create_dir_all(&group).unwrap();
        for (folder, now, most) in [(tree.path().join("a"), "7\n", "10\n"), (group, "5\n", "max\n")]
        {
            fs::write(folder.join("pids.current"), now).unwrap();
            fs::write(folder.join("pids.max"), most).unwrap();
        }
        let mount = tree.path().display();
        for (cgroups, kind) in
            [("0::/a/b\n", "cgroup2 c rw"), ("9:pids:/a/b\n0::/\n", "cgroup c rw,pids")]
        {
            let mounts = format!("37 35 0:32 / {mount} rw - {kind}\n");
            let bound = ThreadLimit { whose: "the cgroup /a".to_owned(), now: 7, most: 10 };
            assert_eq!(of_cgroups(cgroups, &mounts), [bound]);
        }
    }
}
