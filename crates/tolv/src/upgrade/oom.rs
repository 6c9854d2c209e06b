//! Which process the kernel kills where memory is short: the new program until it takes requests, so
//! that an upgrade without enough memory changes nothing.

use std::fs;
use std::path::PathBuf;

/// Before everything else.
const FIRST: &str = "1000";

/// Where the score of a process is.
fn score_of(process: &str) -> PathBuf {
    PathBuf::from(format!("/proc/{process}/oom_score_adj"))
}

/// The new program is the first to be killed.
pub(super) fn kill_first(id: u32) {
    // Without it the kernel chooses as always.
    fs::write(score_of(&id.to_string()), FIRST).ok();
}

/// The new program, and what it has started by now, count as this one does. Apps have a score of their
/// own.
pub(super) fn as_this_one(id: u32) {
    let Ok(own) = fs::read_to_string(score_of("self")) else { return };
    let threads = fs::read_dir(format!("/proc/{id}/task")).into_iter().flatten().flatten();
    let children =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: String = children.collect::<Vec<_>>().join(" ");
    for process in children.split_whitespace().chain([id.to_string().as_str()]) {
        let score = score_of(process);
        if fs::read_to_string(&score).is_ok_and(|score| score.trim() == FIRST) {
            // It ended meanwhile.
            fs::write(&score, own.trim()).ok();
        }
    }
}
