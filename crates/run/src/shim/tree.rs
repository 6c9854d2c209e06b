//! The processes below this one.

use std::fs;

use rustix::process::{Pid, Signal, getpid, kill_process};

/// Sends a signal to every descendant.
pub(super) fn signal_descendants(signal: Signal) {
    let mut found = children_of(getpid());
    let mut next = 0;
    while let Some(&pid) = found.get(next) {
        found.extend(children_of(pid));
        next += 1;
    }
    for pid in found {
        // Gone already is fine.
        kill_process(pid, signal).ok();
    }
}

fn children_of(pid: Pid) -> Vec<Pid> {
    let Ok(threads) = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())) else {
        return Vec::new();
    };
    let lists = threads.flatten().map(|thread| fs::read_to_string(thread.path().join("children")));
    let numbers = |list: String| -> Vec<Pid> {
        list.split_ascii_whitespace().filter_map(|n| Pid::from_raw(n.parse().ok()?)).collect()
    };
    lists.flatten().flat_map(numbers).collect()
}
