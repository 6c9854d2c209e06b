//! Limits and group killing by cgroup: one tree (v2), a tree per controller (v1), v1 limits with
//! a v2 tree for killing (hybrid), or nothing.
//!
//! Everything lives below a directory `tolv` beside or below the spawner's own cgroup; every
//! launch gets a group there, named after the spawner's pid and a number, removed once the
//! sandbox is empty. Nothing above `tolv` is changed but `cgroup.subtree_control`.
//!
//! The app alone is in the groups that limit memory and processes: its body, which is to say how it
//! ended, must not fail for want of the memory that the app has taken. CPU time is of both.
//!
//! ```text
//! v2: tolv/<pid>-<n>  cpu              v1 cpu:    tolv/<pid>-<n>  body, app
//!       body                           v1 memory: tolv/<pid>-<n>  app
//!       app           memory, pids     v1 pids:   tolv/<pid>-<n>  app
//! ```
//!
//! # Sources
//!
//! The kernel's `cgroup-v1/*.rst`, `cgroup-v2.rst`. On v1 only `memory.oom_control` tells of
//! kills (`oom_kill`); `memory.failcnt` counts every reclaim.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, RawFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::level::{Level, Reason};
use crate::spec::Limits;
use crate::sys::errno;

mod budget;
mod facts;
mod find;
mod memory;
mod processes;

pub use budget::Budget;
pub use facts::{CgroupFacts, Cgroups};
pub use memory::{Memory, MemoryUse};
pub use processes::ProcessCount;

use find::{Found, find};

/// The controllers used, with their names in both versions.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// The directory that holds everything of every spawner.
const BASE: &str = "tolv";
/// Where runtimes look for their limits.
const SHOWN: &str = "sys/fs/cgroup";
const PERIOD: u64 = 100_000;
/// In the base, for as long as this spawner lives: nobody removes a base that has it.
const PIN: &str = "pin";
/// A base may go away as often as this before a group is in it: others end and take it along.
const TRIES: usize = 100;

/// The trees of this machine, as far as they can be written.
#[derive(Debug)]
pub(crate) struct Trees {
    /// Base in the v2 tree, and the controllers its groups have.
    v2: Option<(PathBuf, Vec<&'static str>)>,
    /// Bases in v1 trees.
    v1: Vec<(&'static str, PathBuf)>,
    /// Where this process itself is, in each tree.
    own: Vec<PathBuf>,
    reasons: Vec<Reason>,
    next: u64,
}

/// The group of one launch, in all its trees.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// What was made, in this order.
    dirs: Vec<PathBuf>,
    /// In the v2 tree: where the body is born.
    birthplace: Option<(PathBuf, File)>,
    /// The `tasks` of v1 trees that the body enters.
    tasks: Vec<File>,
    /// The app's own groups, and where below the root programs look for the limits in them.
    shown: Vec<(PathBuf, PathBuf)>,
    /// For the body to keep.
    inside: Inside,
}

/// What a body has of its group, open from before the sandbox hides it.
#[derive(Debug, Default)]
pub(crate) struct Inside {
    pub(crate) memory: Option<Memory>,
    pub(crate) processes: Option<ProcessCount>,
    /// The `tasks` of v1 trees that the app and its relay enter.
    tasks: Vec<File>,
    /// That of the v1 tree that counts processes: the app's alone.
    counted: Option<File>,
    /// `cgroup.procs` of the body's group in the v2 tree, where the relay goes: that of the app counts.
    body: Option<File>,
    /// In the v2 tree: the app's directory, and its `cgroup.procs`.
    app: Option<(File, File)>,
}

impl Trees {
    /// Finds what can be written, by writing.
    pub(crate) fn detect() -> Self {
        let Found { v2, v1, own, reasons } = find();
        let mut trees = Self { v2: None, v1: Vec::new(), own, reasons, next: 0 };
        for (controller, dir) in v1 {
            let base = dir.join(BASE);
            match try_base(&base) {
                Ok(()) => {
                    if controller == "cpu" {
                        trees.reasons.extend(budget::weigh(&base).err());
                    }
                    trees.v1.push((controller, base));
                }
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
        trees.remove_stale();
        trees
    }

    /// Removes empty groups of spawners that were killed; whether there are some that are not empty.
    pub(crate) fn remove_stale(&self) -> bool {
        self.bases().filter(|base| remove_stale(base)).count() > 0
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
            bounds: self.bounds(),
            reasons: self.reasons.clone(),
        }
    }

    /// What may be taken below the bases, or where there are none in this process's own groups.
    fn bounds(&self) -> Budget {
        let v2 = |name| self.v2.iter().filter(move |(_, enabled)| enabled.contains(&name));
        let above = |name: &'static str| -> Vec<&Path> {
            let v1 = self.v1.iter().filter(|(have, _)| *have == name).map(|(_, base)| base);
            let bases = v1.chain(v2(name).map(|(base, _)| base));
            let above: Vec<_> = bases.filter_map(|base| base.parent()).collect();
            match above.is_empty() {
                true => self.own.iter().map(PathBuf::as_path).collect(),
                false => above,
            }
        };
        Budget::of(&above("memory"), &above("pids"))
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

    /// Makes the group of one launch and sets its limits.
    ///
    /// A limit whose controller is not there is left out; one that cannot be set is an error.
    pub(crate) fn make(&mut self, level: Level, limits: &Limits) -> Result<Group, Reason> {
        let name = own_name(&self.next.to_string());
        self.next += 1;
        let mut group = Group::default();
        match self.fill(&mut group, &name, level, limits) {
            Ok(()) => Ok(group),
            Err(reason) => {
                group.remove();
                Err(reason)
            }
        }
    }

    fn fill(
        &self,
        group: &mut Group,
        name: &str,
        level: Level,
        limits: &Limits,
    ) -> Result<(), Reason> {
        let wanted = |controller: &str| match controller {
            "memory" => limits.memory.is_some(),
            "pids" => limits.processes.is_some(),
            _ => limits.cpu_percent.is_some() || limits.cpu_weight.is_some(),
        };
        for (controller, base) in self.v1.iter().filter(|(name, _)| wanted(name)) {
            let dir = group.make_dir(base, name)?;
            group.show(&dir, Path::new(SHOWN).join(controller));
            let tasks = open(&dir.join("tasks"), File::options().write(true))?;
            set_v1(controller, &dir, limits)?;
            if let ("memory", Some(limit)) = (*controller, limits.memory) {
                group.inside.memory = Memory::v1(&dir, limit);
            }
            if let ("pids", Some(limit)) = (*controller, limits.processes) {
                group.inside.processes = ProcessCount::open(&dir, limit, false);
            }
            match *controller {
                "cpu" => group.tasks.push(tasks),
                "pids" => group.inside.counted = Some(tasks),
                _ => group.inside.tasks.push(tasks),
            }
        }
        match &self.v2 {
            // Where the v2 tree has no controllers it serves to kill, which pid 1 does better.
            Some((base, enabled)) if !enabled.is_empty() || !level.has_own_root() => {
                let wanted: Vec<_> = enabled.iter().copied().filter(|name| wanted(name)).collect();
                group.fill_v2(base, name, &wanted, limits)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Bounds everything below the bases together. What cannot be bounded is said.
    pub(crate) fn bound(&mut self, budget: &Budget) -> Vec<Reason> {
        let v1 = self.v1.iter().map(|(name, base)| budget::set(name, base, false, budget));
        let v2 = self.v2.iter().flat_map(|(base, enabled)| {
            enabled.iter().map(|name| budget::set(name, base, true, budget))
        });
        v1.chain(v2).filter_map(Result::err).collect()
    }

    /// Removes what this process made above its groups, if nobody else uses it.
    pub(crate) fn remove(&self) {
        for base in self.bases() {
            fs::remove_dir(base.join(own_name(PIN))).ok();
            fs::remove_dir(base).ok();
        }
    }

    /// Whether a limit on processes is enforced here.
    pub(crate) fn limits_processes(&self) -> bool {
        self.controllers().contains(&"pids")
    }
}

impl Group {
    /// Adds a directory. The base of one that is lost by then is made again.
    fn make_dir(&mut self, above: &Path, name: &str) -> Result<PathBuf, Reason> {
        let dir = above.join(name);
        let made = make_below(above, &dir, |dir| fs::create_dir(dir));
        made.map_err(|error| reason("mkdir", &dir, &error))?;
        self.dirs.push(dir.clone());
        Ok(dir)
    }

    /// Lets the app read the files of a group of its own, whatever the umask is.
    fn show(&mut self, dir: &Path, target: PathBuf) {
        // From the base on: nothing above it is this program's.
        let own = dir.ancestors().position(|folder| folder.ends_with(BASE));
        let mut folders = dir.ancestors().take(own.map_or(0, |place| place + 1));
        let is_shown = own.is_some()
            && folders.all(|it| fs::set_permissions(it, fs::Permissions::from_mode(0o755)).is_ok());
        // Where it may not, it looks in vain, as on a machine that has none.
        if is_shown {
            self.shown.push((dir.to_owned(), target));
        }
    }

    fn fill_v2(
        &mut self,
        base: &Path,
        name: &str,
        wanted: &[&'static str],
        limits: &Limits,
    ) -> Result<(), Reason> {
        let dir = self.make_dir(base, name)?;
        let apart: Vec<_> = wanted.iter().copied().filter(|name| *name != "cpu").collect();
        if wanted.contains(&"cpu") {
            set_v2("cpu", &dir, limits)?;
        }
        if apart.is_empty() {
            let handle = open(&dir, File::options().read(true))?;
            self.birthplace = Some((dir, handle));
            return Ok(());
        }
        let names: Vec<_> = apart.iter().map(|name| format!("+{name}")).collect();
        write(&dir.join("cgroup.subtree_control"), &names.join(" "))?;
        let body = self.make_dir(&dir, "body")?;
        let handle = open(&body, File::options().read(true))?;
        self.inside.body = Some(open(&body.join("cgroup.procs"), File::options().write(true))?);
        self.birthplace = Some((body, handle));
        let app = self.make_dir(&dir, "app")?;
        self.show(&app, PathBuf::from(SHOWN));
        for controller in apart {
            set_v2(controller, &app, limits)?;
            if let ("memory", Some(limit)) = (controller, limits.memory) {
                self.inside.memory = Memory::v2(&app, limit);
            }
            if let ("pids", Some(limit)) = (controller, limits.processes) {
                self.inside.processes = ProcessCount::open(&app, limit, true);
            }
        }
        let procs = open(&app.join("cgroup.procs"), File::options().write(true))?;
        self.inside.app = Some((open(&app, File::options().read(true))?, procs));
        Ok(())
    }

    /// The app's own groups, and where below the root they are shown.
    pub(crate) fn shown(&self) -> &[(PathBuf, PathBuf)] {
        &self.shown
    }

    /// For `CLONE_INTO_CGROUP` of the body.
    pub(crate) fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.birthplace.as_ref().map(|(_, handle)| handle.as_fd())
    }

    /// Moves the body into the v2 tree, where it could not be born there.
    pub(crate) fn take_in(&self, pid: i32) -> Result<(), Reason> {
        match &self.birthplace {
            Some((dir, _)) => write(&dir.join("cgroup.procs"), &pid.to_string()),
            None => Ok(()),
        }
    }

    /// The calling body enters its v1 trees, and keeps what is for the inside.
    pub(crate) fn enter(self) -> Result<Inside, Reason> {
        join(&self.tasks)?;
        Ok(self.inside)
    }

    /// What is removed at the end, and what the app's groups are entered by.
    pub(crate) fn apart(self) -> (Self, Inside) {
        (Self { dirs: self.dirs, ..Self::default() }, self.inside)
    }

    /// Kills whatever is in it.
    pub(crate) fn kill(&self) {
        for dir in &self.dirs {
            // From Linux 5.14 on, in the v2 tree.
            let kill = File::options().write(true).open(dir.join("cgroup.kill"));
            if kill.is_ok_and(|mut file| file.write_all(b"1").is_ok()) {
                continue;
            }
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
        for dir in self.dirs.iter().rev() {
            match fs::remove_dir(dir) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(_) => gone = false,
            }
        }
        gone
    }
}

impl Inside {
    /// The descriptors to keep.
    pub(crate) fn raw_fds(&self) -> impl Iterator<Item = RawFd> {
        let memory = self.memory.iter().flat_map(Memory::raw_fds);
        let memory = memory.chain(self.processes.iter().map(ProcessCount::raw_fd));
        let app = self.app.iter().flat_map(|(dir, procs)| [dir, procs]);
        let others = self.tasks.iter().chain(&self.counted).chain(&self.body);
        memory.chain(others.chain(app).map(|file| file.as_raw_fd()))
    }

    /// For `CLONE_INTO_CGROUP` of the app.
    pub(crate) fn birthplace(&self) -> Option<BorrowedFd<'_>> {
        self.app.as_ref().map(|(dir, _)| dir.as_fd())
    }

    /// The calling app enters where it was not born.
    pub(crate) fn enter(&self, is_born_inside: bool) -> Result<(), Reason> {
        join(self.tasks.iter().chain(&self.counted))?;
        match &self.app {
            Some((_, procs)) if !is_born_inside => join([procs]),
            Some(_) | None => Ok(()),
        }
    }

    /// The calling relay enters beside the app, as which it does not count.
    pub(crate) fn enter_beside(&self) -> Result<(), Reason> {
        join(self.tasks.iter().chain(&self.body))
    }
}

/// Writing 0 moves the calling thread, and the caller has one. To `tasks` it does so without the
/// kernel's big lock; and whoever opened the file had the right to, so that none is needed here.
fn join<'a>(files: impl IntoIterator<Item = &'a File>) -> Result<(), Reason> {
    for mut file in files {
        file.write_all(b"0").map_err(|error| Reason::io("join the cgroup", &error))?;
    }
    Ok(())
}

fn own_name(rest: &str) -> String {
    format!("{}-{rest}", std::process::id())
}

fn open(path: &Path, how: &OpenOptions) -> Result<File, Reason> {
    how.open(path).map_err(|error| reason("open", path, &error))
}

/// Makes something in a base, and the base where it is not there, which may be lost meanwhile.
fn make_below(base: &Path, dir: &Path, make: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let mut tries = 0..TRIES;
    loop {
        match make(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries.next().is_some() => {
                is_there(fs::create_dir(base))?;
            }
            made => return made,
        }
    }
}

fn is_there(made: io::Result<()>) -> io::Result<()> {
    made.or_else(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Ok(()),
        _ => Err(error),
    })
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
            if let Some(weight) = limits.cpu_weight {
                // 1024 is what 100 is in the v2 tree.
                let shares = (u64::from(weight) * 1024 / 100).max(2);
                write(&dir.join("cpu.shares"), &shares.to_string())?;
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
            if let Some(weight) = limits.cpu_weight {
                write(&dir.join("cpu.weight"), &weight.clamp(1, 10_000).to_string())?;
            }
        }
    }
    Ok(())
}

fn set_pids(dir: &Path, limits: &Limits) -> Result<(), Reason> {
    match limits.processes {
        Some(count) => write(&dir.join("pids.max"), &count.to_string()),
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

/// Makes the base and proves that a group can be made in it: one that stays, so that the base does.
fn try_base(base: &Path) -> io::Result<()> {
    make_below(base, &base.join(own_name(PIN)), |pin| is_there(fs::create_dir(pin)))
}

/// Lets the groups of a v2 base have controllers; returns those they have.
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

/// Removes the empty ones of a base.
fn remove_stale(base: &Path) -> bool {
    let mut are_left = false;
    let Ok(entries) = fs::read_dir(base) else {
        return are_left;
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|name| name.split_once('-')?.0.parse::<u32>().ok());
        let alive = owner.is_none_or(|pid| Path::new("/proc").join(pid.to_string()).exists());
        if !alive {
            let dir = entry.path();
            // A group that still holds processes stays: rmdir refuses. With its body, for that may
            // be about to start the app in the other one.
            are_left |= ["body", "app", ""].iter().any(|name| is_held(&dir.join(name)));
        }
    }
    are_left
}

/// Removes a group; whether it has to stay.
fn is_held(dir: &Path) -> bool {
    fs::remove_dir(dir).is_err_and(|error| error.kind() != io::ErrorKind::NotFound)
}

fn reason(verb: &str, path: &Path, error: &io::Error) -> Reason {
    Reason::new(format!("{verb} {}", path.display()), errno(error))
}
