use std::net::SocketAddr;
use std::time::Duration;

use tolv_logs::Line;
use tolv_model::release::ReleaseNumber;
use tolv_run::{Boot, Reason};

use super::*;

fn rollout(reason: Reason) -> Error {
    let culprit = Culprit {
        process: "web.1".parse().unwrap(),
        reason,
        last_lines: vec![Line::tolv("web.1", "no database")],
    };
    let (release, culprit) = (ReleaseNumber(1), Box::new(culprit));
    Error::Run(tolv_run::Error::Rollout { release, culprit, undone: Vec::new() })
}

fn release_phase(exit: Exit) -> Error {
    Error::ReleasePhase { exit, command: "migrate".to_owned() }
}

fn boot() -> Reason {
    Reason::BootTimeout(Boot { limit: Duration::from_secs(60), port: 20_000, listens: Vec::new() })
}

#[test]
fn the_status_is_that_of_the_process_that_failed_first() {
    for (error, status) in [
        (rollout(Reason::Exited(Exit::Code(3))), 3),
        (rollout(Reason::Exited(Exit::Code(255))), 255),
        (rollout(Reason::Exited(Exit::Signal(15))), 143),
        (rollout(Reason::OutOfMemory(Exit::Signal(9))), 137),
        (release_phase(Exit::Code(7)), 7),
        (release_phase(Exit::Signal(9)), 137),
    ] {
        assert_eq!(error.exit_status(), status, "{error}");
    }
}

#[test]
fn without_such_a_process_it_is_1() {
    for error in [
        // It ended well, which is a failure all the same.
        rollout(Reason::Exited(Exit::Code(0))),
        rollout(Reason::CommandNotFound(Exit::Code(127))),
        rollout(Reason::CommandNotFound(Exit::Code(126))),
        rollout(Reason::NotStarted("fork".to_owned().into())),
        rollout(Reason::CheckFailed("GET /".to_owned())),
        rollout(Reason::Stopped),
        rollout(boot()),
        release_phase(Exit::Code(127)),
        release_phase(Exit::Code(126)),
        Error::Run(tolv_run::Error::NoPort),
        Error::Listen(ListenError::NoneFree),
        Error::Build(tolv_build::Error::Cancelled),
        // No status of a process has these numbers.
        rollout(Reason::Exited(Exit::Code(256))),
        rollout(Reason::Exited(Exit::Code(-1))),
    ] {
        assert_eq!(error.exit_status(), 1, "{error}");
    }
}

#[test]
fn a_hint_says_what_to_do() {
    let address = SocketAddr::from(([127, 0, 0, 1], 8080));
    let in_use = || io::Error::from(io::ErrorKind::AddrInUse);
    let plan = tolv_build::Error::Plan {
        builder: "python",
        problem: "no lock".to_owned(),
        help: "run `uv lock`".to_owned(),
    };
    for (error, part) in [
        (Error::Home(HomeError::Held { holder: "pid 1".to_owned() }), "TOLV_HOME"),
        (Error::Listen(ListenError::Asked { address, source: in_use() }), "127.0.0.1:0"),
        (rollout(boot()), "PORT"),
        (rollout(Reason::CommandNotFound(Exit::Code(127))), "the line of `web` in the Procfile"),
        (Error::Build(plan), "run `uv lock`"),
    ] {
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains(part), "{error}: {hint}");
    }
    // The process said why itself.
    assert_eq!(rollout(Reason::Exited(Exit::Code(1))).hint(), None);
    assert_eq!(Error::Listen(ListenError::NoneFree).hint(), None);
}

#[test]
fn a_failed_rollout_has_a_culprit_with_its_last_lines() {
    let error = rollout(Reason::Exited(Exit::Code(3)));
    let culprit = error.culprit().unwrap();
    assert_eq!(culprit.process.to_string(), "web.1");
    assert_eq!(culprit.last_lines.len(), 1);
    assert!(release_phase(Exit::Code(1)).culprit().is_none());
}
