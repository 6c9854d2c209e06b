//! What reaches the disk, in which order: a power cut at any moment leaves the state whole.
//!
//! A recorder (strace) writes down every rename and every sync of the platform and of its git. A
//! rename is safe when the content was on the disk before it, and when its name is before the
//! client is answered.

use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::*;

const CALLS: &str = "trace=rename,renameat,renameat2,fsync,fdatasync,syncfs";

/// What a platform, and whatever it starts, does to names and to the disk.
struct Recorder {
    strace: Child,
    file: PathBuf,
}

impl Recorder {
    /// Nothing where this user may not trace.
    fn attach(serve: &Serve) -> Option<Self> {
        let file = serve.folder("record").join("calls");
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-y", "-s", "4096", "-e", CALLS, "-o"]).arg(&file);
        let platform = serve.running().pid();
        for pid in [vec![platform.as_raw_nonzero().get()], below(platform)].concat() {
            command.args(["-p", &pid.to_string()]);
        }
        let strace = command.stderr(Stdio::null()).spawn().ok()?;
        let mut recorder = Self { strace, file };
        let attached = poll(SOON, "the recorder sees the platform or gives up", || {
            if recorder.strace.try_wait().unwrap().is_some() {
                return Some(false);
            }
            let status = format!("/proc/{}/status", platform.as_raw_nonzero());
            let status = std::fs::read_to_string(status).unwrap();
            let tracer = status.lines().find_map(|line| line.strip_prefix("TracerPid:")).unwrap();
            (tracer.trim() != "0").then_some(true)
        });
        attached.then_some(recorder)
    }

    /// Every call so far, by its words: `rename("a", "b")`, `fsync(7</a>)`.
    fn end(mut self) -> Vec<String> {
        let pid = Pid::from_child(&self.strace);
        kill_process(pid, Signal::INT).unwrap();
        self.strace.wait().unwrap();
        let text = std::fs::read_to_string(&self.file).unwrap();
        text.lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(_, call)| call.trim().to_owned())
            .collect()
    }
}

/// Every process below this one.
fn below(pid: Pid) -> Vec<i32> {
    let mut all = vec![pid.as_raw_nonzero().get()];
    let mut next = 0;
    while let Some(parent) = all.get(next).copied() {
        next += 1;
        let tasks = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten();
        for task in tasks.flatten() {
            let children = std::fs::read_to_string(task.path().join("children"));
            let children = children.unwrap_or_default();
            all.extend(children.split_whitespace().map(|pid| pid.parse::<i32>().unwrap()));
        }
    }
    all.split_off(1)
}

/// The two paths of a rename.
fn renamed(call: &str) -> Option<(PathBuf, PathBuf)> {
    let paths = call.strip_prefix("rename(\"")?.split_once(')')?.0;
    let (from, to) = paths.trim_end_matches('"').split_once("\", \"")?;
    Some((from.into(), to.into()))
}

/// The path of what is written to the disk, and whether all of its file system is.
fn synced(call: &str) -> Option<(&Path, bool)> {
    let is_all = call.starts_with("syncfs(");
    if !is_all && !call.starts_with("fsync(") && !call.starts_with("fdatasync(") {
        return None;
    }
    let path = call.split_once('<')?.1.split_once('>')?.0;
    Some((Path::new(path), is_all))
}

#[test]
fn what_is_renamed_into_place_is_on_the_disk_before_and_its_name_after() {
    let shop = Shop::site("one", &[]);
    let Some(recorder) = Recorder::attach(&shop.serve) else {
        println!("skipped: this user may not trace");
        return;
    };
    shop.serve.tolv(&shop.dir, &["config", "set", "COLOUR=red"]);
    shop.pushed(&["tolv", "main"]);
    shop.serve.tolv(&shop.dir, &["config", "set", "COLOUR=green"]);
    let other = shop.serve.folder("other");
    shop.serve.tolv(&other, &["create", "other"]);
    let calls = recorder.end();
    let state = shop.serve.state();
    let mut seen = 0;
    for (at, call) in calls.iter().enumerate() {
        let Some((from, to)) = renamed(call).filter(|(_, to)| to.starts_with(&state)) else {
            continue;
        };
        // A link to the running program: each platform makes its own.
        if to.starts_with(state.join("program")) {
            continue;
        }
        seen += 1;
        let (before, after) = (&calls[..at], &calls[at..]);
        let moved_later = after.iter().filter_map(|call| synced(call)).any(|(path, is_all)| {
            // Inside of what is still being made: it is written out as a whole.
            is_all && to.starts_with(path)
        });
        let content = before.iter().filter_map(|call| synced(call)).any(|(path, _)| path == from);
        let folder = to.parent().unwrap();
        let name = after.iter().filter_map(|call| synced(call)).any(|(path, _)| path == folder);
        let is_link = to.is_symlink();
        assert!(content || is_link || moved_later, "{call}: its content may be lost");
        assert!(name || moved_later, "{call}: its name may be lost");
    }
    assert!(seen >= 5, "the slug, its record, anchors, what runs: {seen} in {calls:#?}");
    // git: the objects that came, and the ref that leads to them.
    for part in ["/objects/", "/refs/"] {
        let is_synced = calls.iter().filter_map(|call| synced(call));
        let any = is_synced.into_iter().any(|(path, _)| path.to_string_lossy().contains(part));
        assert!(any, "nothing of {part} was written to the disk: {calls:#?}");
    }
}
