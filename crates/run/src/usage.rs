//! What the system knows of a process and of everything below its shim, from `/proc`.
//!
//! Read when somebody asks, and never in between. A process that left its group is still below
//! the shim, which takes in orphans; what has ended is in the CPU time of whoever waited for it.

use std::collections::HashMap;
use std::fs;

/// Ticks of a second: the kernel's own to programs on every machine this runs on.
const TICKS: f64 = 100.0;

/// One line of `/proc/<pid>/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    parent: i32,
    /// Own and of children that were waited for, in ticks.
    cpu: u64,
    /// Ticks since the machine began.
    started: u64,
}

/// All processes at one moment.
#[derive(Debug, Default)]
pub struct Processes {
    stats: HashMap<i32, Stat>,
    children: HashMap<i32, Vec<i32>>,
    /// Seconds since the machine began.
    uptime: f64,
}

/// A process with everything below its shim.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Of all of them, and of those that have ended.
    pub cpu_seconds: f64,
    /// Bytes; what processes share is counted for each.
    pub resident: u64,
    /// Bytes.
    pub swapped: u64,
    /// How many.
    pub processes: u64,
    /// Threads that run or wait for the disk.
    pub busy: u64,
    /// Of the leader.
    pub uptime_seconds: f64,
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name may have blanks and parentheses.
    let rest = text.get(text.rfind(')')? + 1..)?;
    let fields: Vec<_> = rest.split_ascii_whitespace().collect();
    let number = |place: usize| fields.get(place)?.parse::<u64>().ok();
    let cpu = (11..15).map(number).sum::<Option<u64>>()?;
    Some(Stat { parent: fields.get(1)?.parse().ok()?, cpu, started: number(19)? })
}

/// `VmRSS` and `VmSwap` of `/proc/<pid>/status`, in bytes.
fn parse_status(text: &str) -> (u64, u64) {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse::<u64>().ok()
    };
    let bytes = |name| field(name).unwrap_or(0) * 1024;
    (bytes("VmRSS:"), bytes("VmSwap:"))
}

impl Processes {
    /// Looks at all of them now.
    pub fn read() -> Self {
        let mut all = Self::default();
        let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
        let seconds = uptime.split_ascii_whitespace().next();
        all.uptime = seconds.and_then(|seconds| seconds.parse().ok()).unwrap_or(0.0);
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse::<i32>().ok()) else {
                continue;
            };
            // One that has ended meanwhile is none.
            let Ok(text) = fs::read_to_string(entry.path().join("stat")) else { continue };
            if let Some(stat) = parse_stat(&text) {
                all.children.entry(stat.parent).or_default().push(pid);
                all.stats.insert(pid, stat);
            }
        }
        all
    }

    /// Of the process with this leader; nothing where it is gone.
    pub fn usage(&self, leader: i32) -> Option<Usage> {
        let first = self.stats.get(&leader)?;
        let mut usage = Usage {
            uptime_seconds: (self.uptime - ticks(first.started)).max(0.0),
            ..Usage::default()
        };
        // The leader's parent is its shim, which waits for what others left behind.
        let mut left = match self.stats.get(&first.parent) {
            Some(shim) => {
                usage.cpu_seconds += ticks(shim.cpu);
                self.children.get(&first.parent).cloned().unwrap_or_default()
            }
            None => vec![leader],
        };
        while let Some(pid) = left.pop() {
            let Some(stat) = self.stats.get(&pid) else { continue };
            usage.cpu_seconds += ticks(stat.cpu);
            let (resident, swapped) = parse_status(
                &fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(),
            );
            usage.resident += resident;
            usage.swapped += swapped;
            usage.processes += 1;
            usage.busy += busy(pid);
            left.extend(self.children.get(&pid).into_iter().flatten());
        }
        Some(usage)
    }
}

fn ticks(ticks: u64) -> f64 {
    // Exact to 2^53, which is millions of years.
    #[expect(clippy::cast_precision_loss, reason = "no machine runs that long")]
    let ticks = ticks as f64;
    ticks / TICKS
}

/// Threads of a process that run or wait for the disk.
fn busy(pid: i32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let is_busy = |entry: &fs::DirEntry| {
        let text = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let state = text.rfind(')').and_then(|end| text.get(end + 2..end + 3));
        matches!(state, Some("R" | "D"))
    };
    threads.filter(is_busy).fold(0, |count, _| count + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_have_anything() {
        let text = "12 (a) (b c) S 7 12 12 0 -1 4194304 100 0 0 0 11 2 30 4 20 0 3 0 5000 1 2 3";
        assert_eq!(parse_stat(text), Some(Stat { parent: 7, cpu: 47, started: 5000 }));
        for bad in ["", "12 (a", "12 (a) S", "12 (a) S x 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16"] {
            assert_eq!(parse_stat(bad), None, "{bad}");
        }
        assert_eq!(parse_status("Name:\tx\nVmRSS:\t  12 kB\nVmSwap:\t 3 kB\n"), (12288, 3072));
        assert_eq!(parse_status(""), (0, 0));
    }

    #[test]
    fn this_process_has_memory_and_an_age() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let usage = Processes::read().usage(pid).unwrap();
        assert!(usage.resident > 1 << 20 && usage.processes >= 1, "{usage:?}");
        assert_eq!(Processes::read().usage(i32::MAX), None);
    }
}
