//! However it ends, nothing is left.

use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tolv_testkit::{http, poll};

use crate::{SOON, Up, clean, codebase, processes_with, shop};

/// A formation that forks in every way that loses track of a child elsewhere.
const FORKING: &str = "\
web: python3 server.py
worker: setsid sh -c 'sleep 1000 & sleep 1000' & (sleep 1000 &) ; sleep 1000
stubborn: trap '' TERM INT HUP; sleep 1000 & wait; sleep 1000
";

fn codebase_of(mark: &str) -> tolv_testkit::Home {
    let home = codebase(FORKING);
    home.write("shop/.env", format!("MARK={mark}\n"));
    home
}

#[test]
fn ctrl_c_stops_everything_and_ends_with_130() {
    let mark = format!("tolv-stop-{}", std::process::id());
    let home = codebase_of(&mark);
    let mut up = Up::start(&shop(&home), &["--formation", "stubborn=0"]);
    assert!(!processes_with(&mark).is_empty());
    up.tolv.signal(Signal::INT);
    let status = up.tolv.wait(SOON);
    assert_eq!(status.code(), Some(130));
    assert_eq!(processes_with(&mark), [] as [u32; 0]);
    let lines = up.tolv.lines();
    let said = |text: &str| lines.iter().any(|line| line.text.contains(text));
    assert!(said("app[web.1]: stopped"), "the server was not let finish: {lines:?}");
    assert!(said("tolv[web.1]: Stopping all processes with SIGTERM"), "{lines:?}");
}

#[test]
fn sigterm_ends_with_0() {
    let home = codebase("web: python3 server.py\n");
    let mut up = Up::start(&shop(&home), &[]);
    up.tolv.signal(Signal::TERM);
    assert_eq!(up.tolv.wait(SOON).code(), Some(0));
}

/// As a closed terminal does.
#[test]
fn sighup_stops_in_order_and_ends_with_129() {
    let home = codebase("web: python3 server.py\n");
    let mut up = Up::start(&shop(&home), &[]);
    up.tolv.signal(Signal::HUP);
    assert_eq!(up.tolv.wait(SOON).code(), Some(129));
    let lines = up.tolv.lines();
    assert!(lines.iter().any(|line| line.text.contains("app[web.1]: stopped")), "{lines:?}");
}

#[test]
fn under_nohup_a_closed_terminal_ends_nothing() {
    let home = codebase("web: python3 server.py\n");
    let mut command = Command::new("nohup");
    clean(command.arg(env!("CARGO_BIN_EXE_tolv")).arg("up").arg(shop(&home)));
    let mut up = Up::start_with(&mut command, SOON);
    for signal in [Signal::HUP, Signal::USR1] {
        up.tolv.signal(signal);
        up.text("/");
    }
    up.tolv.signal(Signal::TERM);
    assert_eq!(up.tolv.wait(SOON).code(), Some(0));
}

#[test]
fn a_second_ctrl_c_kills_what_does_not_listen() {
    let mark = format!("tolv-kill-{}", std::process::id());
    let home = codebase_of(&mark);
    let mut up = Up::start(&shop(&home), &[]);
    up.tolv.signal(Signal::INT);
    up.sees("tolv[stubborn.1]: Stopping all processes with SIGTERM");
    let start = Instant::now();
    up.tolv.signal(Signal::INT);
    assert_eq!(up.tolv.wait(SOON).code(), Some(130));
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(processes_with(&mark), [] as [u32; 0]);
}

#[test]
fn kill_9_of_tolv_leaves_no_process_at_any_level() {
    for level in ["strict", "user", "landlock", "none"] {
        let mark = format!("tolv-nine-{level}-{}", std::process::id());
        let home = codebase_of(&mark);
        let up = Up::start(&shop(&home), &["--sandbox", level]);
        assert!(processes_with(&mark).len() > 3, "{level}");
        kill_process(up.tolv.pid(), Signal::KILL).unwrap();
        let start = Instant::now();
        poll(SOON, "every process to be gone", || processes_with(&mark).is_empty().then_some(()));
        // The promise is one second; a loaded machine gets more.
        assert!(start.elapsed() < Duration::from_secs(10), "{level}: {:?}", start.elapsed());
    }
}

#[test]
fn kill_9_of_the_spawner_is_survived_by_nothing_of_the_app() {
    let mark = format!("tolv-spawner-{}", std::process::id());
    let home = codebase_of(&mark);
    let mut up = Up::start(&shop(&home), &[]);
    let children = std::fs::read_to_string(format!(
        "/proc/{0}/task/{0}/children",
        up.tolv.pid().as_raw_nonzero()
    ));
    let spawner = children.unwrap().split_whitespace().next().unwrap().parse().unwrap();
    kill_process(Pid::from_raw(spawner).unwrap(), Signal::KILL).unwrap();
    up.tolv.signal(Signal::INT);
    up.sees("tolv[stubborn.1]: Stopping all processes with SIGTERM");
    up.tolv.signal(Signal::INT);
    up.tolv.wait(SOON);
    poll(SOON, "every process to be gone", || processes_with(&mark).is_empty().then_some(()));
}

#[test]
fn no_request_in_flight_is_lost_by_ctrl_c() {
    let home = codebase("web: python3 server.py\n");
    let mut up = Up::start(&shop(&home), &["--formation", "web=2"]);
    let (address, host) = (up.address, up.host.clone());
    let asking: Vec<_> = (0..8)
        .map(|_| {
            let host = host.clone();
            std::thread::spawn(move || http::get(address, &host, "/slow?1.5"))
        })
        .collect();
    poll(SOON, "all requests to be in flight", || {
        let lines = up.tolv.lines();
        (lines.iter().filter(|line| line.text.contains("slow request")).count() == 8).then_some(())
    });
    up.tolv.signal(Signal::INT);
    for request in asking {
        let response = request.join().unwrap().unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
    }
    assert_eq!(up.tolv.wait(SOON).code(), Some(130));
}
