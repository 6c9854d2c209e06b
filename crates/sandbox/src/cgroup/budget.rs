//! What everything below the base may take together: the rest of the machine is the platform's.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{reason, write};
use crate::level::Reason;

/// Upper bounds of all launches together, apps and builds; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

impl Budget {
    /// What groups and all above them allow, in either version's words.
    pub(super) fn of(memory: &[&Path], processes: &[&Path]) -> Self {
        Self {
            memory: least(memory, &["memory.max", "memory.limit_in_bytes"]),
            processes: least(processes, &["pids.max"]),
        }
    }
}

/// The least that a file of one of these names says, in one of the groups or above it. `max` is no
/// bound, and above the top of a tree there are no such files.
fn least(groups: &[&Path], names: &[&str]) -> Option<u64> {
    let dirs = groups.iter().flat_map(|group| group.ancestors());
    let files = dirs.flat_map(|dir| names.iter().map(move |name| dir.join(name)));
    files.filter_map(|file| fs::read_to_string(file).ok()?.trim().parse().ok()).min()
}

/// Sets it in the base of one controller.
pub(super) fn set(
    controller: &str,
    base: &Path,
    is_v2: bool,
    budget: &Budget,
) -> Result<(), Reason> {
    match (controller, budget.memory, budget.processes) {
        ("memory", Some(bytes), _) if is_v2 => {
            // The kernel kills below the base until it fits, where it was more.
            write(&base.join("memory.max"), &bytes.to_string())
        }
        ("memory", Some(bytes), _) => set_v1_memory(base, bytes),
        ("pids", _, Some(count)) => write(&base.join("pids.max"), &count.to_string()),
        _ => Ok(()),
    }
}

/// Swap counts too where it is accounted; that limit may never be the smaller of the two, so that
/// the order depends on which way it goes.
fn set_v1_memory(base: &Path, bytes: u64) -> Result<(), Reason> {
    let (memory, swap): (PathBuf, PathBuf) =
        (base.join("memory.limit_in_bytes"), base.join("memory.memsw.limit_in_bytes"));
    // Without hierarchy the groups below would not count; kernels from 5.11 on have no other.
    let hierarchy = base.join("memory.use_hierarchy");
    let text =
        fs::read_to_string(&hierarchy).map_err(|error| reason("read", &hierarchy, &error))?;
    if text.trim() != "1" {
        return Err(Reason::new(format!("{} is 0", hierarchy.display()), 0));
    }
    let text = bytes.to_string();
    write(&swap, &text).ok();
    write(&memory, &text)?;
    write(&swap, &text).ok();
    Ok(())
}

/// In v1 a group weighs as one thread beside those of no group, such as the platform's: all launches
/// together weigh as two for each core. Where the kernel makes one group of all threads of a session
/// (`sched(7)`, autogroup), that one too weighs as one thread: then both weigh the same, as in v2.
pub(super) fn weigh(base: &Path) -> Result<(), Reason> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let autogroup = fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled");
    // Only threads of the top group are in one; only that group has this file.
    let is_top = base.with_file_name("release_agent").exists();
    let is_one_group = is_top && autogroup.is_ok_and(|text| text.trim() == "1");
    write(&base.join("cpu.shares"), &shares(is_one_group, cores).to_string())
}

/// What all launches together weigh.
fn shares(is_platform_one_group: bool, cores: usize) -> usize {
    if is_platform_one_group { 1024 } else { 2 * 1024 * cores }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apps_together_weigh_as_the_platform_where_that_is_one_group() {
        assert_eq!((shares(true, 2), shares(true, 64)), (1024, 1024));
        assert_eq!((shares(false, 1), shares(false, 4)), (2048, 8192));
    }

    #[test]
    fn a_container_s_bounds_are_those_of_every_group_above() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("kubepods/pod/container");
        fs::create_dir_all(&own).unwrap();
        let put = |dir: &Path, name: &str, text: &str| fs::write(dir.join(name), text).unwrap();
        put(&own, "pids.max", "max\n");
        put(&own, "memory.max", "4294967296\n");
        put(own.parent().unwrap(), "pids.max", "2048\n");
        put(own.parent().unwrap(), "memory.max", "1073741824\n");
        let v2 = Budget::of(&[&own], &[&own]);
        assert_eq!(v2, Budget { memory: Some(1 << 30), processes: Some(2048) });
        put(&own, "memory.limit_in_bytes", "536870912\n");
        assert_eq!(Budget::of(&[&own], &[]), Budget { memory: Some(512 << 20), processes: None });
    }
}
