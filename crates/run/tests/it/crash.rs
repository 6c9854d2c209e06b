//! What happens to a process that was up.

use std::fs;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tolv_run::{Endpoint, ProcessState};
use tolv_testkit::poll;

use crate::bed::{Bed, IDLE, SOON, best, each_level};

fn kill(pid: i32) {
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}

fn pid(process: &Endpoint) -> i32 {
    process.pid.unwrap()
}

/// The parent of an app's leader.
fn shim(process: &Endpoint) -> i32 {
    let status = fs::read_to_string(format!("/proc/{}/status", pid(process))).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    parent.trim().parse().unwrap()
}

#[test]
fn a_crash_is_followed_by_a_restart_at_once_and_then_by_later_ones() {
    each_level(|level| {
        let mut bed = Bed::new(level);
        let types = [("web", "perl web.pl", 1), ("worker", IDLE, 1)];
        bed.converge(bed.target(1, &types)).unwrap();
        let (first, worker) = (bed.endpoint("web.1"), bed.endpoint("worker.1"));
        kill(pid(&first));
        let second = bed.wait_for("web.1", ProcessState::Up, 1);
        assert_eq!(second.id, first.id);
        assert_ne!((second.pid, second.address), (first.pid, first.address));
        assert_eq!(bed.answers(), [format!("web.1 v1 {}", second.address.port())]);
        kill(pid(&second));
        let crashed = bed.wait_for("web.1", ProcessState::Crashed, 1);
        assert_eq!(crashed.pid, None);
        assert!(bed.answers().is_empty());
        bed.wait_for("web.1", ProcessState::Up, 2);
        // The other type has not noticed.
        assert_eq!(bed.endpoint("worker.1"), worker);
        bed.stop();
        let mut said = bed.said("web.1");
        let delay =
            said[8].strip_prefix("State changed from up to crashed; restart in 0.").unwrap();
        assert!(["2 s", "3 s"].contains(&delay), "{said:?}");
        said.truncate(8);
        assert_eq!(
            said,
            [
                "Starting process with command `perl web.pl`",
                "State changed from starting to up",
                "Process exited with status 137",
                "State changed from up to crashed; restart at once",
                "State changed from crashed to starting",
                "Starting process with command `perl web.pl`",
                "State changed from starting to up",
                "Process exited with status 137",
            ]
        );
    });
}

#[test]
fn one_that_ends_by_itself_is_restarted_too() {
    let bed = Bed::with(best(), |settings| settings.timing.back_off = Duration::from_millis(20));
    let command = "echo start >> $SHARED/starts; while [ ! -e $SHARED/go ]; do sleep 0.01; done";
    bed.converge(bed.target(1, &[("worker", command, 1)])).unwrap();
    fs::write(bed.shared().join("go"), "").unwrap();
    bed.wait_for_line("worker.1", "Process exited with status 0");
    poll(SOON, "three starts", || {
        let starts = fs::read_to_string(bed.shared().join("starts")).unwrap();
        (starts.lines().count() >= 3).then_some(())
    });
    assert!(bed.endpoint("worker.1").restarts >= 2);
}

#[test]
fn one_that_was_up_long_enough_has_a_clean_slate() {
    let mut bed = Bed::with(best(), |settings| settings.timing.settled = Duration::ZERO);
    bed.converge(bed.target(1, &[("worker", IDLE, 1)])).unwrap();
    for restarts in 1..4 {
        kill(pid(&bed.endpoint("worker.1")));
        bed.wait_for("worker.1", ProcessState::Up, restarts);
    }
    bed.stop();
    let said = bed.said("worker.1");
    let at_once = "State changed from up to crashed; restart at once";
    assert_eq!(said.iter().filter(|line| *line == at_once).count(), 3, "{said:?}");
}

#[test]
fn a_restart_that_never_gets_ready_backs_off_and_goes_on() {
    let mut bed =
        Bed::with(best(), |settings| settings.timing.back_off = Duration::from_millis(50));
    let command = "[ -e $SHARED/broken ] && exit 5; exec sleep $MARK";
    bed.converge(bed.target(1, &[("worker", command, 1)])).unwrap();
    fs::write(bed.shared().join("broken"), "").unwrap();
    kill(pid(&bed.endpoint("worker.1")));
    poll(SOON, "some restarts", || (bed.endpoint("worker.1").restarts >= 3).then_some(()));
    fs::remove_file(bed.shared().join("broken")).unwrap();
    poll(SOON, "it to be up", || {
        (bed.endpoint("worker.1").state == ProcessState::Up).then_some(())
    });
    bed.stop();
    let said = bed.said("worker.1");
    let backing =
        |line: &String| line.starts_with("State changed from starting to crashed; restart in 0.");
    assert!(said.iter().any(backing), "{said:?}");
}

#[test]
fn a_stop_wins_over_a_restart_that_is_due() {
    let mut bed = Bed::with(best(), |settings| {
        settings.timing.back_off = Duration::from_secs(1000);
        settings.timing.back_off_max = Duration::from_secs(1000);
    });
    bed.converge(bed.target(1, &[("worker", IDLE, 1)])).unwrap();
    kill(pid(&bed.endpoint("worker.1")));
    kill(pid(&bed.wait_for("worker.1", ProcessState::Up, 1)));
    bed.wait_for("worker.1", ProcessState::Crashed, 1);
    bed.stop();
    let said = bed.said("worker.1");
    assert_eq!(said.last().unwrap(), "State changed from crashed to down");
}

#[test]
fn what_a_crashed_leader_left_is_gone_before_the_restart() {
    each_level(|level| {
        let bed = Bed::new(level);
        let command = "setsid sh -c 'trap \"\" TERM; sleep 1000' & (setsid sleep 1000 &); \
                       wait";
        bed.converge(bed.target(1, &[("worker", command, 1)])).unwrap();
        let before = poll(SOON, "its children", || Some(bed.left()).filter(|left| left.len() >= 4));
        kill(pid(&bed.endpoint("worker.1")));
        bed.wait_for("worker.1", ProcessState::Up, 1);
        let after = bed.left();
        assert!(after.iter().all(|process| !before.contains(process)), "{before:?} {after:?}");
    });
}

#[test]
fn a_shim_that_is_killed_takes_its_app_along_and_is_replaced() {
    each_level(|level| {
        let bed = Bed::new(level);
        let command = "setsid sh -c 'trap \"\" TERM; sleep 1000' & sleep 1000; true";
        bed.converge(bed.target(1, &[("worker", command, 1)])).unwrap();
        let before = poll(SOON, "its children", || Some(bed.left()).filter(|left| left.len() >= 4));
        kill(shim(&bed.endpoint("worker.1")));
        bed.wait_for("worker.1", ProcessState::Up, 1);
        bed.wait_for_line("worker.1", "Process exited with status 137");
        poll(SOON, "the old ones to be gone", || {
            bed.left().iter().all(|process| !before.contains(process)).then_some(())
        });
    });
}
