//! Limits and group killing by cgroup: one tree (v2), a tree per controller (v1), v1 limits with
//! a v2 tree for killing (hybrid), or nothing.
//!
//! Everything lives below a directory `tolv` beside or below the spawner's own cgroup; every
//! launch gets a leaf there, named after the spawner's pid and a number, removed once the
//! sandbox is empty. Nothing above `tolv` is changed but `cgroup.subtree_control`.
//!
//! # Sources
//!
//! The kernel's `cgroup-v1/*.rst`, `cgroup-v2.rst`. On v1 only `memory.oom_control` tells of
//! kills (`oom_kill`); `memory.failcnt` counts every reclaim.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

use crate::level::{Level, Reason};
use crate::spec::Limits;
use crate::sys::errno;

mod facts;
mod find;
mod memory;

pub use facts::{CgroupFacts, Cgroups};
pub use memory::{Memory, MemoryUse};

use find::{Found, find};

/// The controllers used, with their names in both versions.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
const PERIOD: u64 = 100_000;

/// The trees of this machine, as far as they can be written.
#[derive(Debug)]
pub(crate) struct Trees {
    /// Base in the v2 tree, and the controllers its leaves have.
    v2: Option<(PathBuf, Vec<&'static str>)>,
    /// Bases in v1 trees.
    v1: Vec<(&'static str, PathBuf)>,
    reasons: Vec<Reason>,
    next: u64,
}

/// The cgroup of one launch, in all its trees.
#[derive(Debug)]
pub(crate) struct Leaf {
    v2: Option<(PathBuf, File)>,
    v1: Vec<(PathBuf, File)>,
    memory: Option<Memory>,
}

impl Trees {
    /// Finds what can be written, by writing.
    pub(crate) fn detect() -> Self {
        let Found { v2, v1, reasons } = find();
        let mut trees = Self { v2: None, v1: Vec::new(), reasons, next: 0 };
        for (controller, dir) in v1 {
            let base = dir.join("tolv");
            match try_base(&base) {
                Ok(()) => trees.v1.push((controller, base)),
                Err(error) => trees.reasons.push(reason("mkdir", &base, &error)),
            }
        }
        for base in v2 {
            match try_base(&base) {
                Ok(()) => {
                    let missing: Vec<_> = CONTROLLERS
                        .into_iter()
                        .filter(|name| trees.v1.iter().all(|(have, _)| have != name))
                        .collect();
                    let enabled = enable(&base, &missing, &mut trees.reasons);
                    trees.v2 = Some((base, enabled));
                    break;
                }
                Err(error) => trees.reasons.push(reason("mkdir", &base, &error)),
            }
        }
        for base in trees.bases() {
            remove_stale(base);
        }
        trees
    }

    fn bases(&self) -> impl Iterator<Item = &PathBuf> {
        self.v1.iter().map(|(_, base)| base).chain(self.v2.iter().map(|(base, _)| base))
    }

    pub(crate) fn facts(&self) -> CgroupFacts {
        let controllers = self.controllers();
        let by_v2 = self.v2.as_ref().is_some_and(|(_, enabled)| !enabled.is_empty());
        let kind = match (&self.v2, self.v1.is_empty()) {
            (Some(_), true) if by_v2 => Cgroups::V2,
            (Some(_), false) => Cgroups::Hybrid,
            (None, false) => Cgroups::V1,
            (Some(_) | None, true) => Cgroups::None,
        };
        let kill = self.v2.as_ref().is_some_and(|(base, _)| base.join("cgroup.kill").exists());
        CgroupFacts {
            kind,
            controllers: controllers.iter().map(|&name| name.to_owned()).collect(),
            kill,
            reasons: self.reasons.clone(),
        }
    }

    fn controllers(&self) -> Vec<&'static str> {
        CONTROLLERS
            .into_iter()
            .filter(|name| {
                self.v1.iter().any(|(have, _)| have == name)
                    || self.v2.iter().any(|(_, enabled)| enabled.contains(name))
            })
            .collect()
    }

    /// Makes the cgroup of one launch and sets its limits.
    ///
    /// A limit whose controller is not there is left out; one that cannot be set is an error.
    pub(crate) fn make(&mut self, level: Level, limits: &Limits) -> Result<Leaf, Reason> {
        let name = format!("{}-{}", std::process::id(), self.next);
        self.next += 1;
        let mut leaf = Leaf { v2: None, v1: Vec::new(), memory: None };
        let made = self.fill(&mut leaf, &name, level, limits);
        match made {
            Ok(()) => Ok(leaf),
            Err(reason) => {
                leaf.remove();
                Err(reason)
            }
        }
    }

    fn fill(
        &self,
        leaf: &mut Leaf,
        name: &str,
        level: Level,
        limits: &Limits,
    ) -> Result<(), Reason> {
        let wanted = |controller: &str| match controller {
            "memory" => limits.memory.is_some(),
            "pids" => limits.processes.is_some(),
            _ => limits.cpu_percent.is_some(),
        };
        for (controller, base) in self.v1.iter().filter(|(name, _)| wanted(name)) {
            let dir = make_dir(base, name)?;
            let tasks = File::options()
                .write(true)
                .open(dir.join("tasks"))
                .map_err(|error| reason("open", &dir.join("tasks"), &error));
            match tasks {
                Ok(tasks) => leaf.v1.push((dir.clone(), tasks)),
                Err(why) => {
                    fs::remove_dir(&dir).ok();
                    return Err(why);
                }
            }
            set_v1(controller, &dir, limits)?;
            if let ("memory", Some(limit)) = (*controller, limits.memory) {
                leaf.memory = Memory::v1(&dir, limit);
            }
        }
        if let Some((base, enabled)) = &self.v2 {
            // Where the v2 tree has no controllers it serves to kill, which pid 1 does better.
            if !enabled.is_empty() || !level.has_own_root() {
                let dir = make_dir(base, name)?;
                let handle = File::open(&dir).map_err(|error| reason("open", &dir, &error));
                match handle {
                    Ok(handle) => leaf.v2 = Some((dir.clone(), handle)),
                    Err(why) => {
                        fs::remove_dir(&dir).ok();
                        return Err(why);
                    }
                }
                for controller in enabled.iter().filter(|name| wanted(name)) {
                    set_v2(controller, &dir, limits)?;
                }
                if let (true, Some(limit)) = (enabled.contains(&"memory"), limits.memory) {
                    leaf.memory = Memory::v2(&dir, limit);
                }
            }
        }
        Ok(())
    }

    /// Removes what this process made above its leaves, if nobody else uses it.
    pub(crate) fn remove(&self) {
        for base in self.bases() {
            fs::remove_dir(base).ok();
        }
    }

    /// Whether a limit on processes is enforced here.
    pub(crate) fn limits_processes(&self) -> bool {
        self.controllers().contains(&"pids")
    }
}

impl Leaf {
    /// For `CLONE_INTO_CGROUP`.
    pub(crate) fn v2_fd(&self) -> Option<BorrowedFd<'_>> {
        self.v2.as_ref().map(|(_, handle)| handle.as_fd())
    }

    /// The `tasks` of v1 trees: the child writes itself in.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &File> {
        self.v1.iter().map(|(_, tasks)| tasks)
    }

    /// Moves a process into the v2 tree, where it could not be born there.
    pub(crate) fn join_v2(&self, pid: i32) -> Result<(), Reason> {
        match &self.v2 {
            Some((dir, _)) => write(&dir.join("cgroup.procs"), &pid.to_string()),
            None => Ok(()),
        }
    }

    /// All that a body keeps of it.
    pub(crate) fn into_memory(self) -> Option<Memory> {
        self.memory
    }

    /// Without what only the body looks at.
    pub(crate) fn without_memory(self) -> Self {
        Self { memory: None, ..self }
    }

    /// Kills whatever is in it.
    pub(crate) fn kill(&self) {
        if let Some((dir, _)) = &self.v2
            && fs::write(dir.join("cgroup.kill"), "1").is_ok()
        {
            return;
        }
        for (dir, _) in self.v1.iter().chain(&self.v2) {
            let procs = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
            for pid in procs.lines().filter_map(|line| line.parse().ok()) {
                if let Some(pid) = rustix::process::Pid::from_raw(pid) {
                    rustix::process::kill_process(pid, rustix::process::Signal::KILL).ok();
                }
            }
        }
    }

    /// Removes it; says whether it is gone. False while something in it still lives.
    pub(crate) fn remove(&self) -> bool {
        let mut gone = true;
        for (dir, _) in self.v1.iter().chain(&self.v2) {
            match fs::remove_dir(dir) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => gone = false,
            }
        }
        gone
    }
}

fn make_dir(base: &Path, name: &str) -> Result<PathBuf, Reason> {
    let dir = base.join(name);
    let made = fs::create_dir(&dir).or_else(|error| match error.kind() {
        // Another spawner has just ended and taken the base with it.
        io::ErrorKind::NotFound => fs::create_dir_all(&dir),
        _ => Err(error),
    });
    made.map_err(|error| reason("mkdir", &dir, &error))?;
    Ok(dir)
}

fn set_v1(controller: &str, dir: &Path, limits: &Limits) -> Result<(), Reason> {
    match controller {
        "memory" => {
            if let Some(bytes) = limits.memory {
                write(&dir.join("memory.limit_in_bytes"), &bytes.to_string())?;
                // Swap accounting may be off; then swap is not limited.
                write(&dir.join("memory.memsw.limit_in_bytes"), &bytes.to_string()).ok();
            }
        }
        "pids" => set_pids(dir, limits)?,
        _ => {
            if let Some(quota) = quota(limits) {
                write(&dir.join("cpu.cfs_period_us"), &PERIOD.to_string())?;
                write(&dir.join("cpu.cfs_quota_us"), &quota.to_string())?;
            }
        }
    }
    Ok(())
}

fn set_v2(controller: &str, dir: &Path, limits: &Limits) -> Result<(), Reason> {
    match controller {
        "memory" => {
            if let Some(bytes) = limits.memory {
                write(&dir.join("memory.max"), &bytes.to_string())?;
                // Without swap accounting the file is not there.
                write(&dir.join("memory.swap.max"), "0").ok();
            }
        }
        "pids" => set_pids(dir, limits)?,
        _ => {
            if let Some(quota) = quota(limits) {
                write(&dir.join("cpu.max"), &format!("{quota} {PERIOD}"))?;
            }
        }
    }
    Ok(())
}

fn set_pids(dir: &Path, limits: &Limits) -> Result<(), Reason> {
    match limits.processes {
        // The body itself is not the app's.
        Some(count) => write(&dir.join("pids.max"), &count.saturating_add(1).to_string()),
        None => Ok(()),
    }
}

fn quota(limits: &Limits) -> Option<u64> {
    // The kernel refuses less than 1 ms a period.
    limits.cpu_percent.map(|percent| (u64::from(percent) * PERIOD / 100).max(1000))
}

fn write(path: &Path, text: &str) -> Result<(), Reason> {
    File::options()
        .write(true)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| reason("write", path, &error))
}

/// Makes the base and proves that a leaf can be made in it.
fn try_base(base: &Path) -> io::Result<()> {
    fs::create_dir(base).or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Ok(()),
        _ => Err(error),
    })?;
    let probe = base.join(format!("{}-probe", std::process::id()));
    fs::create_dir(&probe)?;
    fs::remove_dir(&probe)
}

/// Lets the leaves of a v2 base have controllers; returns those they have.
fn enable(base: &Path, names: &[&'static str], reasons: &mut Vec<Reason>) -> Vec<&'static str> {
    let mut enabled = Vec::new();
    for &name in names {
        let offered = |dir: &Path| {
            fs::read_to_string(dir.join("cgroup.controllers"))
                .unwrap_or_default()
                .split_ascii_whitespace()
                .any(|have| have == name)
        };
        let above = base.parent().unwrap_or(base);
        if !offered(base)
            && offered(above)
            && let Err(why) = write(&above.join("cgroup.subtree_control"), &format!("+{name}"))
        {
            reasons.push(why);
            continue;
        }
        if !offered(base) {
            reasons.push(Reason::new(format!("no {name} controller in {}", above.display()), 0));
            continue;
        }
        match write(&base.join("cgroup.subtree_control"), &format!("+{name}")) {
            Ok(()) => enabled.push(name),
            Err(why) => reasons.push(why),
        }
    }
    enabled
}

/// Removes empty leaves of spawners that were killed.
fn remove_stale(base: &Path) {
    let Ok(entries) = fs::read_dir(base) else {
        return;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.split_once('-')).map(|(pid, _)| pid);
        let alive = owner.is_none_or(|pid| Path::new("/proc").join(pid).exists());
        if !alive {
            // A leaf that still holds processes stays: rmdir refuses.
            fs::remove_dir(entry.path()).ok();
        }
    }
}

fn reason(verb: &str, path: &Path, error: &io::Error) -> Reason {
    Reason::new(format!("{verb} {}", path.display()), errno(error))
}
