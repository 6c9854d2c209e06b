//! Upper bounds are upper bounds.

use tolv_sandbox::{Budget, Level, Machine, NetworkChoice, Spec};

use crate::{levels, output, run, shell, spawner};

#[test]
fn descriptors_are_limited_and_core_dumps_are_off() {
    let spawner = spawner();
    for level in levels(&spawner) {
        let mut spec = Spec::new(level, "limits");
        spec.limits.open_files = Some(77);
        assert_eq!(output(&spawner, spec, "ulimit -n; ulimit -c"), "77\n0", "{level}");
    }
}

#[test]
fn tmp_is_limited() {
    let spawner = spawner();
    for level in levels(&spawner).into_iter().filter(|level| level.has_own_root()) {
        let mut spec = Spec::new(level, "limits");
        spec.limits.tmp = 1024 * 1024;
        let (status, said) =
            run(&spawner, spec, shell("head -c 2000000 /dev/zero > /tmp/big")).unwrap();
        assert!(!status.success(), "{level}: {said}");
    }
}

#[test]
fn files_of_tmp_and_shm_are_limited_in_number() {
    let spawner = spawner();
    for level in levels(&spawner).into_iter().filter(|level| level.has_own_root()) {
        let mut spec = Spec::new(level, "limits");
        (spec.limits.tmp, spec.limits.shm) = (1 << 20, 1 << 19);
        for (folder, most) in [("/tmp", 256), ("/dev/shm", 128)] {
            let script = format!(
                "cd {folder}; n=0; while true > f$n; do n=$((n + 1)); done 2>/dev/null; echo $n"
            );
            let made: u32 = output(&spawner, spec.clone(), &script).parse().unwrap();
            assert!(made < most, "{level}: {made} files in {folder}");
        }
    }
}

/// What a group's file says, from inside a launch that has one; `name` in v1, `unified` in v2.
const READ: &str = "read() { p=$(sed -n \"s/^[0-9]*:\\([^:]*,\\)\\{0,1\\}$1\\(,[^:]*\\)\\{0,1\\}://p\" \
    /proc/self/cgroup); if [ -n \"$p\" ]; then cat /sys/fs/cgroup/$1$p/$4$2; \
    else p=$(sed -n 's/^0:://p' /proc/self/cgroup); cat /sys/fs/cgroup$p/../$4$3; fi; }; ";

#[test]
fn cpu_weight_and_the_budget_of_all_are_set_where_controllers_are() {
    let spawner = spawner();
    let facts = Machine::probe(&spawner, NetworkChoice::Auto).unwrap().cgroups;
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    let total: u64 = total.trim().trim_end_matches(" kB").parse().unwrap();
    // All tests share the base: one that everything fits below.
    let memory = total * 1024 / 4096 * 4096 - (64 << 20);
    let budget = Budget { memory: Some(memory), processes: Some(30_000) };
    assert_eq!(spawner.bound(budget).unwrap(), [], "{facts:?}");
    let mut spec = Spec::new(Level::None, "limits");
    spec.limits.cpu_weight = Some(25);
    spec.limits.memory = Some(64 << 20);
    spec.limits.processes = Some(64);
    let read = |spec: &Spec, what: &str| output(&spawner, spec.clone(), &format!("{READ}{what}"));
    let cores = std::thread::available_parallelism().unwrap();
    // As one thread or as all that the platform has in v1, as the platform in v2.
    let together = ["1024", &(2048 * cores.get()).to_string(), "100"];
    for (controller, what, wanted) in [
        ("cpu", "read cpu cpu.shares cpu.weight", &["256", "25"][..]),
        ("cpu", "read cpu cpu.shares cpu.weight ../", &together),
        ("memory", "read memory memory.limit_in_bytes memory.max ../", &[&memory.to_string()]),
        ("pids", "read pids pids.max pids.max ../", &["30000"]),
    ] {
        if facts.controllers.iter().any(|name| name == controller) {
            let found = read(&spec, what);
            assert!(wanted.contains(&found.as_str()), "{controller}: {found}, not {wanted:?}");
        }
    }
}

#[test]
fn memory_is_limited_where_a_controller_is() {
    let spawner = spawner();
    let machine = Machine::probe(&spawner, NetworkChoice::Auto).unwrap();
    if !machine.cgroups.controllers.iter().any(|name| name == "memory") {
        println!("no memory controller: {:?}", machine.cgroups);
        return;
    }
    for level in levels(&spawner) {
        let mut spec = Spec::new(level, "limits");
        spec.limits.memory = Some(32 << 20);
        let script = "exec perl -e '$x = \"x\" x (200 << 20); print length $x'";
        let (status, said) = run(&spawner, spec.clone(), shell(script)).unwrap();
        assert_eq!((status.code, status.signal), (None, Some(9)), "{level}: {said}");
        assert!(status.oom_kills > 0, "{level}: {status:?}");
        assert_eq!(output(&spawner, spec, "echo fits"), "fits", "{level}");
    }
}

#[test]
fn a_spawner_that_ends_takes_no_limit_from_another() {
    let found = || Machine::probe(&spawner(), NetworkChoice::Auto).unwrap().cgroups;
    let first = found();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| (0..10).for_each(|_| assert_eq!(found(), first)));
        }
    });
}

#[test]
fn processes_are_limited_where_a_controller_is() {
    let spawner = spawner();
    let machine = Machine::probe(&spawner, NetworkChoice::Auto).unwrap();
    if !machine.cgroups.controllers.iter().any(|name| name == "pids") {
        println!("no pids controller: {:?}", machine.cgroups);
        return;
    }
    for level in levels(&spawner) {
        let mut spec = Spec::new(level, "limits");
        spec.limits.processes = Some(5);
        let start =
            |count: u32| shell(&format!("for n in $(seq {count}); do sleep 60 & done 2>&1"));
        // The shell is one of them, its body is not.
        let (status, said) = run(&spawner, spec.clone(), start(4)).unwrap();
        assert!(status.success() && said.is_empty(), "{level}: {status:?} {said}");
        let (status, said) = run(&spawner, spec, start(5)).unwrap();
        assert!(!status.success() || said.contains("fork"), "{level}: {status:?} {said}");
    }
}

#[test]
fn a_process_reads_its_own_limit_and_cannot_change_it() {
    let spawner = spawner();
    let facts = Machine::probe(&spawner, NetworkChoice::Auto).unwrap().cgroups;
    if !facts.controllers.iter().any(|name| name == "memory") {
        return;
    }
    for level in levels(&spawner).into_iter().filter(|level| level.has_own_root()) {
        let mut spec = Spec::new(level, "limits");
        spec.limits.memory = Some(300 << 20);
        let said = output(
            &spawner,
            spec,
            "cd /sys/fs/cgroup; cat memory.max memory/memory.limit_in_bytes 2>/dev/null; \
             echo 1 > memory/memory.limit_in_bytes || echo 1 > memory.max || echo refused",
        );
        assert!(said.starts_with(&(300_u64 << 20).to_string()), "{level}: {said}");
        assert!(said.lines().any(|line| line == "refused"), "{level}: {said}");
    }
}
