//! The end of the engine itself.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use tolv_sandbox::Level;
use tolv_testkit::{Home, poll};

use crate::bed::{Bed, SOON, each_level, left};

/// Gets away as far as it can, and does not end on SIGTERM.
const FORKER: &str = "trap '' TERM INT HUP; sleep $MARK & \
    env -i setsid sh -c \"trap '' TERM; (sleep $MARK &) ; sleep $MARK\" & \
    echo up; wait; sleep $MARK";

#[test]
fn a_dropped_engine_leaves_no_process() {
    each_level(|level| {
        let mut bed =
            Bed::with(level, |settings| settings.timing.grace = Duration::from_secs(1000));
        bed.converge(bed.target(1, &[("worker", FORKER, 1)])).unwrap();
        bed.wait_for_line("worker.1", "up");
        let clone = bed.engine().clone();
        drop(bed.take_engine());
        assert!(!bed.left().is_empty(), "a clone is the same engine");
        drop(clone);
        bed.wait_until_none_is_left();
        bed.read_to_end();
    });
}

#[test]
fn a_dropped_runtime_leaves_no_process_either() {
    each_level(|level| {
        let bed = Bed::new(level);
        bed.converge(bed.target(1, &[("worker", FORKER, 1)])).unwrap();
        bed.wait_for_line("worker.1", "up");
        let mark = bed.mark.clone();
        drop(bed);
        poll(Duration::from_secs(5), "every process to be gone", || {
            left(&mark).is_empty().then_some(())
        });
    });
}

#[test]
fn a_program_that_is_killed_leaves_no_process() {
    each_level(|level| {
        let home = Home::new();
        // Digits, so that `sleep` takes them.
        let mark = format!("87{:09}{}", std::process::id(), level as u8);
        let mut program = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "death::holder", "--nocapture"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let orders = format!("{level} {mark} {}\n", home.path().display());
        let mut stdin = program.stdin.take().unwrap();
        stdin.write_all(orders.as_bytes()).unwrap();
        let said = BufReader::new(program.stdout.take().unwrap());
        let up = said.lines().map_while(Result::ok).any(|line| line.ends_with("the app is up"));
        assert!(up);
        poll(SOON, "all to have forked", || (left(&mark).len() >= 5).then_some(()));
        program.kill().unwrap();
        // Half a second is what the shim gives; the rest is for a machine that is busy.
        poll(Duration::from_secs(3), "every process to be gone", || {
            left(&mark).is_empty().then_some(())
        });
        program.wait().unwrap();
    });
}

/// The program that the test above kills; without orders it has nothing to do.
#[test]
fn holder() {
    let mut orders = String::new();
    io::stdin().read_line(&mut orders).unwrap();
    let mut words = orders.trim_end().splitn(3, ' ');
    let (Some(level), Some(mark), Some(home)) = (words.next(), words.next(), words.next()) else {
        return;
    };
    let level: Level = level.parse().unwrap();
    let (bed, mut lines) = Bed::at(level, home.into(), mark.to_owned(), |_| {});
    bed.converge(bed.target(1, &[("worker", FORKER, 1)])).unwrap();
    while let Some(line) = lines.blocking_recv() {
        if line.text == b"up" {
            println!("the app is up");
        }
    }
}
