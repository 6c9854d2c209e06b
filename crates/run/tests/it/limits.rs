//! What reaches a limit is told so, with the figure and what to do.

use tolv_run::{Exit, Reason, TypeLimits};
use tolv_testkit::poll;

use crate::bed::{Bed, SOON, each_level, machine};

fn has(controller: &str) -> bool {
    let found = machine().cgroups.controllers.iter().any(|name| name == controller);
    if !found {
        println!("no {controller} controller");
    }
    found
}

/// The worker of a leader that lives on: the leader's own end later is no want of memory.
#[test]
fn a_worker_that_is_killed_for_want_of_memory_is_told_of_while_its_leader_lives() {
    if !has("memory") {
        return;
    }
    each_level(|level| {
        let mut bed = Bed::with(level, |settings| settings.timing.uptime = SOON / 100);
        bed.file(
            "leader.py",
            "import os, sys, time\n\
             if os.fork() == 0:\n    held = b'x' * (200 << 20)\n    os._exit(0)\n\
             pid, status = os.wait()\nprint('worker', status, flush=True)\n\
             time.sleep(1000)\n",
        );
        let mut target = bed.target(1, &[("worker", "exec python3 leader.py", 1)]);
        target.limits.default.memory = Some(64 << 20);
        bed.converge(target).unwrap();
        bed.wait_for_line(
            "worker.1",
            "Error R15 (Memory quota vastly exceeded) -> the kernel stopped 1 process at the memory \
             limit of 64M; more: tolv limits worker --memory",
        );
        bed.stop();
        let said = bed.said("worker.1");
        assert_eq!(said.iter().filter(|line| line.contains("R15")).count(), 1, "{level}: {said:?}");
        assert!(bed.output("worker.1").contains(&"worker 9".to_owned()), "{level}");
    });
}

#[test]
fn a_fork_bomb_stays_below_its_limit_and_is_told_once() {
    if !has("pids") {
        return;
    }
    each_level(|level| {
        let mut bed = Bed::with(level, |settings| settings.timing.uptime = SOON / 100);
        bed.file(
            "bomb.py",
            "import os, time\nrefused = 0\nfor n in range(200):\n    try:\n        \
             if os.fork() == 0:\n            time.sleep(1000)\n    except OSError:\n        \
             refused += 1\nprint('refused', refused, flush=True)\ntime.sleep(1000)\n",
        );
        let mut target = bed.target(1, &[("worker", "exec python3 bomb.py", 1)]);
        target.limits.default.processes = Some(20);
        bed.converge(target).unwrap();
        bed.wait_for_line(
            "worker.1",
            "Error (Process limit reached) -> a fork was refused at the limit of 20 processes and \
             threads; more: tolv limits worker --processes",
        );
        bed.wait_for_line("worker.1", "refused 181");
        bed.stop();
        let said = bed.said("worker.1");
        let told = said.iter().filter(|line| line.contains("a fork was refused")).count();
        assert_eq!(told, 1, "{level}: {said:?}");
        bed.wait_until_none_is_left();
    });
}

/// What a process writes into memory is its memory: it is the one that ends.
#[test]
fn files_in_memory_count_as_memory() {
    if !has("memory") {
        return;
    }
    each_level(|level| {
        if !level.has_own_root() {
            return;
        }
        for folder in ["/tmp", "/dev/shm"] {
            let mut bed = Bed::with(level, |settings| settings.timing.uptime = SOON);
            // The writer is the process itself: after a child of a shell was killed, what it
            // wrote stays, and there may or may not be room for the shell to go on.
            let command = format!("exec head -c 200000000 /dev/zero > {folder}/big");
            let mut target = bed.target(1, &[("worker", &command, 1)]);
            target.limits.default.memory = Some(32 << 20);
            let error = bed.converge(target).unwrap_err();
            let tolv_run::Error::Rollout { culprit, .. } = error else { panic!("{error:?}") };
            assert!(matches!(culprit.reason, Reason::OutOfMemory(_)), "{level}: {culprit:?}");
            bed.stop();
        }
    });
}

#[test]
fn each_type_has_its_own_limits() {
    each_level(|level| {
        let bed = Bed::new(level);
        let mut target = bed.target(1, &[("web", "true", 0)]);
        let run = "run".parse().unwrap();
        let mut limits = TypeLimits::default();
        limits.default.open_files = Some(50);
        limits
            .types
            .insert(run, tolv_sandbox::Limits { open_files: Some(70), ..limits.default.clone() });
        target.limits = limits;
        let one_off = |name: &str, wanted: u32| tolv_run::OneOff {
            target: target.clone(),
            name: name.parse().unwrap(),
            command: format!("test $(ulimit -n) = {wanted}"),
            limit: None,
        };
        for (name, wanted) in [("run.1", 70), ("release.1", 50)] {
            let exit = bed.runtime().block_on(bed.engine().run_once(one_off(name, wanted)));
            assert_eq!(exit.unwrap(), Exit::Code(0), "{level}: {name}");
        }
    });
}

/// One that forks as fast as it is killed, and says nothing.
#[test]
fn a_fork_bomb_that_goes_on_is_told_of_and_ends_with_its_process() {
    if !has("pids") {
        return;
    }
    each_level(|level| {
        let mut bed = Bed::with(level, |settings| settings.timing.uptime = SOON / 100);
        bed.file(
            "bomb.py",
            "import os, time\nwhile True:\n    try:\n        os.fork()\n    except OSError:\n        \
             time.sleep(0.01)\n",
        );
        let mut target = bed.target(1, &[("worker", "exec python3 bomb.py", 1)]);
        target.limits.default.processes = Some(60);
        bed.converge(target).unwrap();
        poll(SOON, "as many as may be", || (bed.left().len() >= 50).then_some(()));
        bed.stop();
        bed.wait_until_none_is_left();
        // At the latest: where the kernel does not tell (v1) the shim asks when something wakes it.
        let said = bed.said("worker.1");
        let told = said.iter().filter(|line| line.contains("at the limit of 60 processes")).count();
        assert_eq!(told, 1, "{level}: {said:?}");
    });
}
