//! The stop sequence, and that nothing is left after it.

use std::time::{Duration, Instant};

use tolv_run::{Error, OneOff, ProcessState};
use tolv_testkit::poll;

use crate::bed::{Bed, IDLE, SOON, best, each_level};

/// Does not care about SIGTERM.
const STUBBORN: &str = "trap '' TERM; echo up; while true; do sleep $MARK; done";
/// Everything a process can do to get away, none of which ends on SIGTERM.
const FORKER: &str = "trap '' TERM INT HUP; \
    sleep $MARK & setsid sleep $MARK & (setsid sh -c 'sleep $MARK & sleep $MARK' &); \
    env -i setsid sh -c \"trap '' TERM; (sleep $MARK &) ; sleep $MARK\" & \
    echo up; wait; sleep $MARK";

#[test]
fn one_that_finishes_its_work_on_sigterm_is_let() {
    each_level(|level| {
        let mut bed = Bed::new(level);
        let command = "trap 'echo finishing; sleep 0.1; echo done; exit 0' TERM; \
                       echo up; while true; do sleep 0.01; done";
        bed.converge(bed.target(1, &[("worker", command, 1)])).unwrap();
        bed.wait_for_line("worker.1", "up");
        bed.stop();
        assert_eq!(bed.output("worker.1"), ["up", "finishing", "done"]);
        assert_eq!(
            bed.said("worker.1")[2..],
            [
                "Stopping all processes with SIGTERM",
                "Process exited with status 0",
                "State changed from up to down",
            ]
        );
        assert!(bed.left().is_empty());
    });
}

#[test]
fn one_that_does_not_end_in_its_grace_is_killed() {
    each_level(|level| {
        let grace = Duration::from_millis(400);
        let mut bed = Bed::with(level, |settings| settings.timing.grace = grace);
        bed.converge(bed.target(1, &[("worker", STUBBORN, 1)])).unwrap();
        bed.wait_for_line("worker.1", "up");
        let begin = Instant::now();
        bed.stop();
        assert!(begin.elapsed() >= grace, "{:?}", begin.elapsed());
        assert!(bed.left().is_empty(), "{:?}", bed.left());
        assert_eq!(
            bed.said("worker.1")[2..],
            [
                "Stopping all processes with SIGTERM",
                "Error R12 (Exit timeout) -> Process did not exit within 0.4 seconds of SIGTERM",
                "Stopping all processes with SIGKILL",
                "Process exited with status 137",
                "State changed from up to down",
            ]
        );
    });
}

/// As `npm run job` and a script without `exec` are: the wrapper ends at SIGTERM, its child works on.
#[test]
fn behind_a_wrapper_the_job_has_the_whole_grace_period() {
    each_level(|level| {
        let mut bed = Bed::with(level, |settings| settings.timing.grace = Duration::from_secs(60));
        let job = "trap 'echo finishing; sleep 2; echo done; exit 0' TERM; \
                   echo up; while true; do sleep 0.01; done";
        let wrapper = format!("sh -c '{}; :'", format!("sh -c \"{job}\"").replace('\'', "'\\''"));
        bed.converge(bed.target(1, &[("worker", &wrapper, 1)])).unwrap();
        bed.wait_for_line("worker.1", "up");
        bed.stop();
        // The shell says that its `sleep` was terminated, too.
        let output = bed.output("worker.1");
        assert_eq!(output.first().map(String::as_str), Some("up"), "{output:?}");
        assert_eq!(output.last().map(String::as_str), Some("done"), "{output:?}");
        assert!(bed.left().is_empty());
    });
}

#[test]
fn whatever_was_forked_is_gone_when_the_stop_returns() {
    each_level(|level| {
        let mut bed =
            Bed::with(level, |settings| settings.timing.grace = Duration::from_millis(200));
        bed.converge(bed.target(1, &[("worker", FORKER, 2)])).unwrap();
        bed.wait_for_line("worker.1", "up");
        bed.wait_for_line("worker.2", "up");
        poll(SOON, "all to have forked", || (bed.left().len() >= 16).then_some(()));
        bed.stop();
        assert!(bed.left().is_empty(), "{:?}", bed.left());
    });
}

#[test]
fn a_kill_waits_for_nobody() {
    each_level(|level| {
        let mut bed =
            Bed::with(level, |settings| settings.timing.grace = Duration::from_secs(1000));
        bed.converge(bed.target(1, &[("worker", FORKER, 1), ("web", "perl web.pl", 1)])).unwrap();
        bed.wait_for_line("worker.1", "up");
        let begin = Instant::now();
        bed.engine().kill();
        bed.stop();
        assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
        assert!(bed.left().is_empty(), "{:?}", bed.left());
        assert_eq!(
            bed.said("worker.1")[2..],
            [
                "Stopping all processes with SIGKILL",
                "Process exited with status 137",
                "State changed from up to down",
            ]
        );
    });
}

#[test]
fn a_kill_ends_a_stop_that_is_under_way() {
    let mut bed = Bed::with(best(), |settings| settings.timing.grace = Duration::from_secs(1000));
    bed.converge(bed.target(1, &[("worker", STUBBORN, 1)])).unwrap();
    bed.wait_for_line("worker.1", "up");
    let engine = bed.engine().clone();
    let stop = bed.runtime().spawn(async move { engine.stop().await });
    bed.wait_for("worker.1", ProcessState::Stopping, 0);
    bed.engine().kill();
    bed.runtime().block_on(stop).unwrap();
    bed.stop();
    assert!(bed.left().is_empty(), "{:?}", bed.left());
    assert_eq!(
        bed.said("worker.1")[2..4],
        ["Stopping all processes with SIGTERM", "Stopping all processes with SIGKILL"]
    );
}

#[test]
fn a_stop_ends_a_rollout_and_a_one_off_that_are_under_way() {
    let mut bed = Bed::new(best());
    let target = bed.target(1, &[("web", "echo booting; exec sleep $MARK", 2)]);
    let (rolling, running) = (bed.engine().clone(), bed.engine().clone());
    let rollout = bed.runtime().spawn(async move { rolling.converge(target).await });
    let one_off = OneOff {
        target: bed.target(1, &[]),
        name: "run.1".parse().unwrap(),
        command: "echo running; exec sleep $MARK".to_owned(),
        limit: None,
    };
    let one_off = bed.runtime().spawn(async move { running.run_once(one_off).await });
    for (process, line) in [("web.1", "booting"), ("web.2", "booting"), ("run.1", "running")] {
        bed.wait_for_line(process, line);
    }
    bed.stop();
    assert!(bed.left().is_empty(), "{:?}", bed.left());
    let rollout = bed.runtime().block_on(rollout).unwrap();
    assert!(matches!(rollout, Err(Error::Stopped)), "{rollout:?}");
    let exit = bed.runtime().block_on(one_off).unwrap().unwrap();
    assert_eq!(exit.status(), 143);
    let late = bed.converge(bed.target(2, &[("worker", IDLE, 1)]));
    assert!(matches!(late, Err(Error::Stopped)), "{late:?}");
    assert!(matches!(bed.run("true"), Err(Error::Stopped)));
}
