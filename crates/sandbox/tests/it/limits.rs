//! Upper bounds are upper bounds.

use tolv_sandbox::{Level, Machine, Spec};

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
    let machine = Machine::probe(&spawner).unwrap();
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
fn only_the_body_is_spared_where_memory_is_short() {
    let spawner = spawner();
    let own = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
    for level in levels(&spawner) {
        let spec = Spec::new(level, "limits");
        assert_eq!(output(&spawner, spec.clone(), "cat /proc/self/oom_score_adj"), own.trim());
        if level == Level::None {
            // Whoever may spare the body may there do anything.
            continue;
        }
        // Nor can the app spare itself.
        let script = "(echo -1000 > /proc/self/oom_score_adj) 2>/dev/null && echo spared";
        assert!(!output(&spawner, spec, &format!("{script}; true")).contains("spared"), "{level}");
    }
}

#[test]
fn processes_are_limited_where_a_controller_is() {
    let spawner = spawner();
    let machine = Machine::probe(&spawner).unwrap();
    if !machine.cgroups.controllers.iter().any(|name| name == "pids") {
        println!("no pids controller: {:?}", machine.cgroups);
        return;
    }
    for level in levels(&spawner) {
        let mut spec = Spec::new(level, "limits");
        spec.limits.processes = Some(5);
        let script = "for n in 1 2 3 4 5 6 7 8; do sleep 5 & done 2>&1; jobs | wc -l";
        let (status, said) = run(&spawner, spec, shell(script)).unwrap();
        assert!(!status.success() || said.contains("fork"), "{level}: {status:?} {said}");
    }
}
