//! How the machine is shared out: what a process gets, the most that an app may ask for, the budget
//! of builds, and what is left to the platform, the router and git.
//!
//! ```text
//!  machine ┬─ reserve: platform, router, git
//!          └─ budget of all apps and builds together
//!               ├─ each process: its size
//!               └─ each build: the build size, with less CPU weight than an app
//! ```

use std::collections::BTreeSet;
use std::fs;

use tolv_build::Caps;
use tolv_model::formation::Formation;
use tolv_model::name::ProcessType;
use tolv_model::size::{Size, Sizes};
use tolv_run::TypeLimits;
use tolv_sandbox::{Budget, Limits};
use tolv_store::Deploy;

use super::error::Error;
use super::platform::Platform;
use super::target::Runtime;

const MIB: u64 = 1 << 20;

/// The least that a cut leaves to a process.
const MIN_MEMORY: u64 = 16 * MIB;

/// Processes and threads of an ordinary process, at most a 24th of all apps' together.
const DEFAULT_PROCESSES: u32 = 1024;
const USUAL_PROCESSES: u64 = 24;
/// Those of a run: a 120th, so that a deploy has room for 50 at once.
const RUN_PROCESSES: u64 = 120;
/// CPU weight of an ordinary process, and the largest that there is.
const CPU_WEIGHT: u32 = 100;
const MAX_CPU_WEIGHT: u32 = 10_000;
/// Of a process of which nothing else is said.
const DEFAULT: Size = Size {
    memory: Some(512 * MIB),
    cpu_weight: Some(CPU_WEIGHT),
    cpu_percent: None,
    processes: Some(DEFAULT_PROCESSES),
    files: Some(16_384),
    tmp: None,
    shm: Some(64 * MIB),
};
/// CPU weight of a build: apps go first.
const BUILD_WEIGHT: u32 = 20;
/// Processes and threads of a build.
const BUILD_PROCESSES: u32 = 4096;
/// Open files of each process of a build.
const BUILD_FILES: u32 = 65_536;
/// Memory of a build, at least and at most, where the operator says nothing.
const BUILD_MEMORY: (u64, u64) = (512 * MIB, 8192 * MIB);
/// Most builds at once where the operator says nothing.
const MAX_BUILDS: u64 = 8;
/// The reserve is a tenth of the machine, within these bounds.
const RESERVE: (u64, u64) = (128 * MIB, 1024 * MIB);
/// Processes and threads that are kept for the platform and the rest of the machine.
const RESERVED_PROCESSES: u64 = 2048;

/// What the operator says of sizes; what is open follows from the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizing {
    /// Of a process of which nothing is said.
    pub default: Size,
    /// The most that an app may ask for.
    pub most: Size,
    /// Of a build.
    pub build: Size,
    /// Builds at once.
    pub builds: Option<usize>,
    /// Bytes of memory that neither apps nor builds get.
    pub reserve: Option<u64>,
}

/// What this machine has.
#[derive(Clone, Copy, Debug)]
struct Machine {
    memory: u64,
    cores: u32,
    processes: u64,
}

/// The whole of it, with nothing open.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shares {
    default: Size,
    /// Processes and threads of a run of which nothing is said: there may be many at once.
    run_processes: Option<u32>,
    most: Size,
    build: Size,
    pub(super) builds: usize,
    pub(super) budget: Budget,
}

impl Machine {
    /// What the machine has. In a container that is what the container may have: `bounds`.
    fn read(bounds: &Budget) -> Self {
        let number = |path: &str| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"));
        let total = total.and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok());
        let total = total.map_or(u64::MAX, |kib: u64| kib.saturating_mul(1024));
        let memory = total.min(bounds.memory.unwrap_or(u64::MAX));
        let processes = ["/proc/sys/kernel/pid_max", "/proc/sys/kernel/threads-max"];
        let processes = processes.into_iter().filter_map(number).chain(bounds.processes);
        let processes = processes.min().unwrap_or(32_768);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self { memory, cores: u32::try_from(cores).unwrap_or(u32::MAX), processes }
    }
}

impl Sizing {
    /// Shares this machine out, of which its cgroups give so much.
    pub(super) fn of_this_machine(&self, bounds: &Budget) -> Shares {
        self.shares(Machine::read(bounds))
    }

    /// What the operator says and this machine cannot give, with what is done instead.
    pub(super) fn beyond_this_machine(&self, bounds: &Budget) -> Vec<String> {
        self.beyond(Machine::read(bounds))
    }

    fn beyond(&self, machine: Machine) -> Vec<String> {
        let shares = self.shares(machine);
        let memory = shares.budget.memory.unwrap_or(machine.memory);
        let mut over = Vec::new();
        if self.reserve.is_some_and(|reserve| reserve > machine.memory - memory) {
            over.push(format!(
                "TOLV_RESERVE is more than half of the {} MiB here: apps and builds get the other half",
                machine.memory / MIB
            ));
        }
        let room = Size { memory: Some(memory), ..Size::default() };
        let sizes = [
            ("TOLV_SIZE", self.default, shares.most.or(&room)),
            ("TOLV_MAX_SIZE", self.most, room),
            ("TOLV_BUILD_SIZE", self.build, room),
        ];
        for (name, size, most) in sizes {
            over.extend(size.at_most(&most).1.into_iter().map(|over| format!("{name}: {over}")));
        }
        over
    }

    fn shares(&self, machine: Machine) -> Shares {
        let reserve = self.reserve.unwrap_or((machine.memory / 10).clamp(RESERVE.0, RESERVE.1));
        // Where the reserve is more than half of a small machine, apps get the other half.
        let memory = machine.memory.saturating_sub(reserve).max(machine.memory / 2);
        let processes =
            machine.processes.saturating_sub(RESERVED_PROCESSES).max(machine.processes / 2);
        let own = Size {
            memory: Some(memory),
            // It follows from the memory, see `fair_weight`.
            cpu_weight: None,
            cpu_percent: Some(machine.cores.saturating_mul(100)),
            processes: Some(u32::try_from(processes / 2).unwrap_or(u32::MAX)),
            files: Some(1 << 20),
            tmp: Some(memory),
            shm: Some(memory),
        };
        let room = Size { memory: Some(memory), ..Size::default() };
        let most = self.most.at_most(&room).0.or(&own);
        // One for each pair of cores, and no more than have memory for something to compile.
        let by_cores = u64::from(machine.cores / 2);
        let builds = by_cores.min(memory / (4 * BUILD_MEMORY.0)).clamp(1, MAX_BUILDS);
        let builds = self.builds.unwrap_or(usize::try_from(builds).unwrap_or(1)).max(1);
        let share = memory / 2 / builds as u64;
        let build = self.build.or(&Size {
            memory: Some(share.clamp(BUILD_MEMORY.0, BUILD_MEMORY.1).min(memory)),
            cpu_weight: Some(BUILD_WEIGHT),
            cpu_percent: None,
            processes: Some(BUILD_PROCESSES),
            files: Some(BUILD_FILES),
            tmp: None,
            shm: DEFAULT.shm,
        });
        // On a small machine less, so that a deploy has room for some.
        let usual = (processes / USUAL_PROCESSES).clamp(64, u64::from(DEFAULT_PROCESSES));
        let usual = Size { processes: u32::try_from(usual).ok(), ..DEFAULT };
        let default = self.default.or(&usual);
        let of_runs = (processes / RUN_PROCESSES).clamp(64, u64::from(DEFAULT_PROCESSES));
        let of_runs = u32::try_from(of_runs).unwrap_or(DEFAULT_PROCESSES);
        Shares {
            default,
            run_processes: default.processes.map(|usual| usual.min(of_runs)),
            most,
            build: with_scratch(build.at_most(&room).0),
            builds,
            budget: Budget { memory: Some(memory), processes: Some(processes) },
        }
    }
}

/// The CPU weight that goes with so much memory: as in Heroku's names, 100 for each 512 MiB.
fn fair_weight(memory: u64) -> u32 {
    let steps = u32::try_from(memory.div_ceil(512 * MIB)).unwrap_or(u32::MAX);
    steps.saturating_mul(CPU_WEIGHT).clamp(CPU_WEIGHT, MAX_CPU_WEIGHT)
}

/// `/tmp` is half of the memory where nothing is said: it is full before the memory is.
fn with_scratch(size: Size) -> Size {
    let tmp = size.tmp.or_else(|| size.memory.map(|memory| memory / 2));
    let shm = size.shm.map(|shm| size.memory.map_or(shm, |memory| shm.min(memory)));
    Size { tmp, shm, ..size }
}

impl Shares {
    /// What somebody gets who asked for a size: nothing is open but the CPU limit.
    pub(super) fn granted(&self, asked: &Size) -> Size {
        let size = with_scratch(asked.or(&self.default)).at_most(&self.most).0;
        size.at_most(&self.most_for(&size)).0
    }

    /// The most that a process of this size may have. Where the operator does not say which CPU
    /// weight, that is in proportion to the memory: nobody gets another app's time for the asking.
    fn most_for(&self, size: &Size) -> Size {
        let usual = self.default.cpu_weight.unwrap_or(CPU_WEIGHT);
        let weight = fair_weight(size.memory.unwrap_or(0)).max(usual);
        self.most.or(&Size { cpu_weight: Some(weight), ..Size::default() })
    }

    /// What was asked for beyond the most, in words.
    pub(super) fn beyond(&self, sizes: &Sizes) -> Vec<String> {
        let over = sizes.0.iter().flat_map(|(kind, size)| {
            let (_, over) = size.at_most(&self.most_for(&size.or(&self.default)));
            over.into_iter().map(move |over| format!("{kind}: {over}"))
        });
        over.collect()
    }

    /// Cuts the memory of types for which only app.json asks, so that the whole formation has at
    /// most `room` bytes: the largest are cut first, to one size. What does not fit all the same
    /// stays as it is, and is refused.
    fn fit(&self, declared: &Sizes, asked: &Sizes, formation: &Formation, room: u64) -> Sizes {
        let mut sizes = declared.clone().with(asked);
        let memory =
            |sizes: &Sizes, kind: &ProcessType| self.granted(&sizes.of(kind)).memory.unwrap_or(0);
        let mut left = room;
        let mut flexible = Vec::new();
        for (kind, &count) in formation.0.iter().filter(|(_, count)| **count > 0) {
            let (count, bytes) = (u64::from(count), memory(&sizes, kind));
            match (declared.of(kind).memory, asked.of(kind).memory) {
                (Some(_), None) => flexible.push((bytes, count, kind)),
                _ => left = left.saturating_sub(bytes.saturating_mul(count)),
            }
        }
        // The smallest first: what they leave of their share is the larger ones'.
        flexible.sort_unstable();
        let mut processes: u64 = flexible.iter().map(|(_, count, _)| count).sum();
        for (bytes, count, kind) in flexible {
            let share = (left / processes.max(1)) >> 20 << 20;
            let given = if share < MIN_MEMORY { bytes } else { bytes.min(share) };
            if given < bytes
                && let Some(size) = sizes.0.get_mut(kind)
            {
                size.memory = Some(given);
            }
            left = left.saturating_sub(given.saturating_mul(count));
            processes -= count;
        }
        sizes
    }

    /// Refuses what is beyond the most.
    pub(super) fn check(&self, sizes: &Sizes) -> Result<(), Error> {
        match self.beyond(sizes) {
            over if over.is_empty() => Ok(()),
            over => Err(Error::TooLarge(over.join("; "))),
        }
    }

    /// Limits of the processes of a release.
    pub(super) fn limits(&self, sizes: &Sizes) -> TypeLimits {
        let types = sizes.0.iter().map(|(kind, size)| (kind.clone(), self.limits_of(size)));
        TypeLimits { default: self.limits_of(&Size::default()), types: types.collect() }
    }

    /// Limits of one process.
    pub(super) fn limits_of(&self, asked: &Size) -> Limits {
        limits(&self.granted(asked))
    }

    /// Limits of a run.
    pub(super) fn limits_of_run(&self, asked: &Size) -> Limits {
        let usual = Size { processes: self.run_processes, ..Size::default() };
        self.limits_of(&asked.or(&usual))
    }

    /// Bytes of memory of a process of which nothing is said.
    pub(super) fn default_memory(&self) -> u64 {
        self.default.memory.unwrap_or(0)
    }

    /// What a build may take.
    pub(super) fn caps(&self, caps: Caps, min_free: u64) -> Caps {
        Caps { room: limits(&self.build).into(), min_free, ..caps }
    }
}

impl Platform {
    /// The sizes of a slug's processes: app.json's, cut so that the formation fits into what a
    /// deploy may take, and the operator's over them.
    pub(super) fn fit(&self, runtime: &Runtime, asked: &Sizes, formation: &Formation) -> Sizes {
        let (types, declared) = (&runtime.process_types, &runtime.formation);
        let formation = super::target::formation(types, self.first(), declared, formation, false);
        self.0.shares.fit(&runtime.sizes, asked, &formation, self.0.quota.memory())
    }

    /// The limits of each process type of a deploy, with what was asked for.
    ///
    /// # Errors
    ///
    /// The store's.
    pub async fn limits(&self, deploy: &Deploy) -> Result<Vec<(ProcessType, Size, Limits)>, Error> {
        let run: ProcessType = "run".parse().map_err(Error::Name)?;
        let (mut types, sizes) = match deploy.current {
            Some(current) => {
                let row = self.0.store.release(&deploy.id, current).await?.row;
                (row.process_types.into_keys().collect(), row.sizes)
            }
            None => (BTreeSet::new(), deploy.sizes.clone()),
        };
        types.insert(run.clone());
        types.extend(sizes.0.keys().cloned());
        let of = |kind: ProcessType| {
            let asked = sizes.of(&kind);
            let limits = match kind == run {
                true => self.0.shares.limits_of_run(&asked),
                false => self.0.shares.limits_of(&asked),
            };
            (kind, asked, limits)
        };
        Ok(types.into_iter().map(of).collect())
    }
}

fn limits(size: &Size) -> Limits {
    Limits {
        memory: size.memory,
        processes: size.processes.map(u64::from),
        open_files: size.files.map(u64::from),
        cpu_percent: size.cpu_percent,
        cpu_weight: size.cpu_weight,
        tmp: size.tmp.unwrap_or(256 * MIB),
        shm: size.shm.unwrap_or(64 * MIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(gib: u64, cores: u32) -> Machine {
        Machine { memory: gib << 30, cores, processes: 32_768 }
    }

    #[test]
    fn a_process_of_which_nothing_is_said_has_the_contract_s_size() {
        let shares = Sizing::default().shares(machine(8, 4));
        let limits = shares.limits_of(&Size::default());
        assert_eq!(limits.memory, Some(512 * MIB));
        assert_eq!((limits.cpu_weight, limits.cpu_percent), (Some(100), None));
        assert_eq!((limits.processes, limits.open_files), (Some(1024), Some(16_384)));
        assert_eq!((limits.tmp, limits.shm), (256 * MIB, 64 * MIB));
    }

    #[test]
    fn the_reserve_is_nobody_s_and_builds_have_less_weight_than_apps() {
        for (gib, cores, builds) in [(1, 1, 1), (2, 2, 1), (24, 2, 1), (64, 32, 8)] {
            let shares = Sizing::default().shares(machine(gib, cores));
            let memory = shares.budget.memory.unwrap();
            assert!(memory <= (gib << 30) - RESERVE.0, "{gib} GiB: {memory}");
            assert!(shares.build.memory.unwrap() <= memory);
            assert!(shares.build.cpu_weight < shares.default.cpu_weight);
            assert_eq!(shares.builds, builds, "{gib} GiB, {cores} cores");
        }
        let reserve = Sizing { reserve: Some(3 << 30), ..Sizing::default() };
        assert_eq!(reserve.shares(machine(8, 1)).budget.memory, Some(5 << 30));
        assert_eq!(reserve.shares(machine(4, 1)).budget.memory, Some(2 << 30));
    }

    #[test]
    fn what_the_machine_cannot_give_is_cut_and_said() {
        let size = |text: &str| text.parse::<Size>().unwrap();
        let sizing = Sizing {
            default: size("memory=100G"),
            most: size("memory=1T,cpu=64"),
            build: size("memory=90G"),
            reserve: Some(7 << 30),
            ..Sizing::default()
        };
        let shares = sizing.shares(machine(8, 2));
        assert_eq!(shares.granted(&Size::default()).memory, Some(4 << 30));
        assert_eq!(shares.build.memory, Some(4 << 30));
        assert_eq!(
            sizing.beyond(machine(8, 2)),
            [
                "TOLV_RESERVE is more than half of the 8192 MiB here: apps and builds get the other half",
                "TOLV_SIZE: memory 100G: at most 4G here",
                "TOLV_MAX_SIZE: memory 1T: at most 4G here",
                "TOLV_BUILD_SIZE: memory 90G: at most 4G here",
            ]
        );
        assert!(Sizing::default().beyond(machine(1, 1)).is_empty());
        let fits = Sizing { reserve: Some(4 << 30), default: size("1G"), ..Sizing::default() };
        assert!(fits.beyond(machine(8, 2)).is_empty());
    }

    #[test]
    fn the_cpu_weight_is_at_most_in_proportion_to_the_memory() {
        let shares = Sizing::default().shares(machine(24, 2));
        let weight = |asked: &str| {
            let asked: Size = asked.parse().unwrap();
            let sizes = Sizes([("web".parse().unwrap(), asked)].into());
            (shares.granted(&asked).cpu_weight.unwrap(), shares.beyond(&sizes))
        };
        let (granted, over) = weight("cpu-weight=10000");
        assert_eq!((granted, over), (100, vec!["web: cpu-weight 10000: at most 100 here".into()]));
        assert_eq!(weight("memory=1G,cpu-weight=10000").0, 200);
        assert_eq!(weight("performance-l"), (2800, vec![]));
        // The operator may say otherwise.
        let most = "cpu-weight=500".parse().unwrap();
        let shares = Sizing { most, ..Sizing::default() }.shares(machine(24, 2));
        let granted = shares.granted(&"cpu-weight=10000".parse().unwrap());
        assert_eq!(granted.cpu_weight, Some(500));
    }

    #[test]
    fn what_app_json_asks_for_is_cut_until_the_formation_fits() {
        let shares = Sizing::default().shares(machine(8, 2));
        let sizes = |text: &[(&str, &str)]| {
            let sizes =
                text.iter().map(|(kind, size)| (kind.parse().unwrap(), size.parse().unwrap()));
            Sizes(sizes.collect())
        };
        let heroku = sizes(&[("web", "performance-l-ram"), ("worker", "memory=64M")]);
        let formation: Formation = "web=2,worker=1".parse().unwrap();
        let room = 6 << 30;
        let none = Sizes::default();
        let fitted = shares.fit(&heroku, &none, &formation, room);
        let of = |sizes: &Sizes, kind: &str| {
            shares.granted(&sizes.of(&kind.parse().unwrap())).memory.unwrap()
        };
        assert_eq!(of(&fitted, "worker"), 64 * MIB);
        assert_eq!(of(&fitted, "web"), (room - 64 * MIB) / 2);
        // What fits stays as it is, and what the operator asks for does too.
        let small = sizes(&[("web", "1G"), ("worker", "memory=64M")]);
        assert_eq!(shares.fit(&small, &none, &formation, room), small);
        let asked = sizes(&[("web", "4G")]);
        let fitted = shares.fit(&heroku, &asked, &formation, room);
        assert_eq!((of(&fitted, "web"), of(&fitted, "worker")), (4 << 30, 64 * MIB));
        assert_eq!(shares.fit(&heroku, &none, &formation, u64::MAX), heroku);
    }

    #[test]
    fn a_container_s_bounds_are_the_machine() {
        let bounds = Budget { memory: Some(2 << 30), processes: Some(4000) };
        let shares = Sizing::default().of_this_machine(&bounds);
        assert!(shares.budget.memory.unwrap() < 2 << 30);
        assert_eq!(shares.budget.processes, Some(2000));
        let limits = shares.limits_of(&"processes=4000".parse().unwrap());
        assert_eq!(limits.processes, Some(1000));
        assert_eq!(shares.limits_of(&Size::default()).processes, Some(83));
    }

    #[test]
    fn nobody_gets_more_than_the_most() {
        let most = "memory=1G,processes=100".parse().unwrap();
        let shares = Sizing { most, ..Sizing::default() }.shares(machine(8, 2));
        let asked: Size = "performance-l".parse().unwrap();
        let granted = shares.granted(&asked);
        assert_eq!((granted.memory, granted.processes), (Some(1 << 30), Some(100)));
        let sizes = Sizes([("web".parse().unwrap(), asked)].into());
        assert_eq!(shares.beyond(&sizes), ["web: memory 14G: at most 1G here"]);
        assert!(shares.check(&sizes).is_err());
        assert!(shares.check(&Sizes::default()).is_ok());
    }
}
