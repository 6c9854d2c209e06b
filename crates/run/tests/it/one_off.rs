//! One process to its end.

use std::time::Duration;

use tolv_run::{Error, Exit, OneOff};
use tolv_testkit::poll;

use crate::bed::{Bed, IDLE, SOON, best, each_level};

#[test]
fn its_status_and_its_lines_come_back() {
    each_level(|level| {
        let mut bed = Bed::new(level);
        for (command, exit) in [
            ("echo migrating; echo done", Exit::Code(0)),
            ("exit 7", Exit::Code(7)),
            ("kill -9 $$; true", Exit::Signal(9)),
            ("no-such-program", Exit::Code(127)),
            ("./web.pl", Exit::Code(126)),
        ] {
            assert_eq!(bed.run(command).unwrap(), exit, "{level}: {command}");
            // The last of its lines may come after it.
            let state = if exit.is_success() { "complete" } else { "failed" };
            bed.wait_for_line("run.1", &format!("State changed from up to {state}"));
        }
        bed.stop();
        assert_eq!(bed.output("run.1")[..2], ["migrating", "done"]);
        let said = bed.said("run.1");
        assert_eq!(
            said[..8],
            [
                "Starting process with command `echo migrating; echo done`",
                "State changed from starting to up",
                "Process exited with status 0",
                "State changed from up to complete",
                "Starting process with command `exit 7`",
                "State changed from starting to up",
                "Process exited with status 7",
                "State changed from up to failed",
            ]
        );
    });
}

#[test]
fn it_runs_beside_the_formation_and_is_no_part_of_it() {
    let bed = Bed::new(best());
    bed.converge(bed.target(1, &[("worker", IDLE, 1)])).unwrap();
    let before = bed.endpoints();
    assert!(bed.run("test -n \"$PORT\" && test \"$DYNO\" = run.1").unwrap().is_success());
    assert_eq!(bed.endpoints(), before);
    // A rollout leaves it alone.
    let one_off = OneOff {
        target: bed.target(1, &[]),
        name: "run.2".parse().unwrap(),
        command: "echo begun; while [ ! -e $SHARED/go ]; do sleep 0.01; done".to_owned(),
        limit: None,
    };
    let engine = bed.engine().clone();
    let running = bed.runtime().spawn(async move { engine.run_once(one_off).await });
    bed.wait_for_line("run.2", "begun");
    bed.converge(bed.target(2, &[])).unwrap();
    std::fs::write(bed.shared().join("go"), "").unwrap();
    assert!(bed.runtime().block_on(running).unwrap().unwrap().is_success());
}

#[test]
fn what_it_left_running_ends_with_it() {
    each_level(|level| {
        let bed = Bed::new(level);
        let command = "setsid sh -c \"trap '' TERM; sleep $MARK\" & (setsid sleep $MARK &); exit 4";
        assert_eq!(bed.run(command).unwrap(), Exit::Code(4));
        assert!(bed.left().is_empty(), "{level}: {:?}", bed.left());
    });
}

#[test]
fn one_that_takes_too_long_is_stopped() {
    let mut bed = Bed::with(best(), |settings| {
        settings.timing.one_off = Duration::from_millis(600);
        settings.timing.grace = Duration::from_millis(300);
    });
    match bed.run("trap '' TERM; while true; do sleep $MARK; done") {
        Err(Error::TooLong { process, limit }) => {
            assert_eq!((process.to_string(), limit.as_millis()), ("run.1".to_owned(), 600));
        }
        other => panic!("{other:?}"),
    }
    assert!(bed.left().is_empty());
    bed.stop();
    let said = bed.said("run.1");
    assert_eq!(
        said[2..],
        [
            "Process did not end within 600ms",
            "Stopping all processes with SIGTERM",
            "Error R12 (Exit timeout) -> Process did not exit within 0.3 seconds of SIGTERM",
            "Stopping all processes with SIGKILL",
            "Process exited with status 137",
            "State changed from up to failed",
        ]
    );
}

#[test]
fn one_that_nobody_waits_for_is_stopped_once() {
    let mut bed = Bed::new(best());
    let one_off = OneOff {
        target: bed.target(1, &[]),
        name: "run.1".parse().unwrap(),
        command: "trap 'echo asked' TERM; echo begun; \
                  while [ ! -e $SHARED/go ]; do sleep 0.01; done"
            .to_owned(),
        limit: None,
    };
    let engine = bed.engine().clone();
    let running = bed.runtime().spawn(async move { engine.run_once(one_off).await });
    bed.wait_for_line("run.1", "begun");
    running.abort();
    bed.wait_for_line("run.1", "asked");
    // The engine's own stop asks for nothing more.
    let stop = bed.runtime().spawn({
        let engine = bed.engine().clone();
        async move { engine.stop().await }
    });
    poll(SOON, "the engine to refuse", || {
        matches!(bed.converge(bed.target(1, &[])), Err(Error::Stopped)).then_some(())
    });
    std::fs::write(bed.shared().join("go"), "").unwrap();
    bed.runtime().block_on(stop).unwrap();
    bed.read_to_end();
    assert!(bed.left().is_empty());
    let said = bed.said("run.1");
    let asked = said.iter().filter(|line| line.ends_with("with SIGTERM")).count();
    assert_eq!(asked, 1, "{said:?}");
    assert_eq!(bed.output("run.1"), ["begun", "asked"]);
}
