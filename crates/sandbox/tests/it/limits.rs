//! Upper bounds are upper bounds.

use tolv_sandbox::{Machine, NetworkChoice, Spec};

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
