//! The health checks of app.json.

use std::fs;
use std::time::Duration;

use tolv_model::health::{CheckAction, CheckKind, HealthCheck};
use tolv_run::{Error, ProcessState, Reason, Target};
use tolv_testkit::poll;

use crate::bed::{Bed, SOON, best, each_level};

fn check(action: CheckAction) -> HealthCheck {
    HealthCheck {
        attempts: 2,
        wait: Duration::from_millis(50),
        initial_delay: Duration::ZERO,
        ..HealthCheck::new(action)
    }
}

fn http(path: &str, content: Option<&str>) -> CheckAction {
    let content = content.map(str::to_owned);
    CheckAction::Http { path: path.to_owned(), port: None, headers: Vec::new(), content }
}

fn command(argv: &[&str]) -> CheckAction {
    CheckAction::Command(argv.iter().map(|word| (*word).to_owned()).collect())
}

/// A release of one web process with these checks.
fn checked(bed: &Bed, serve: &str, checks: &[HealthCheck]) -> Target {
    let mut target = bed.target(1, &[("web", serve, 1)]);
    target.checks.insert("web".parse().unwrap(), checks.to_vec());
    target
}

#[track_caller]
fn failed(bed: &Bed, target: Target) -> String {
    match bed.converge(target) {
        Err(Error::Rollout { culprit, .. }) => match culprit.reason {
            Reason::CheckFailed(why) => why,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn checks_that_pass_make_it_ready() {
    each_level(|level| {
        let bed = Bed::new(level);
        // As many attempts as it takes the app to listen.
        let patient = |action| HealthCheck { attempts: 200, ..check(action) };
        let checks = [
            patient(CheckAction::Listening { port: None }),
            patient(http("/", Some("web.1 v1"))),
            check(command(&[
                "sh",
                "-c",
                "test $DYNO = web.1 && test -e web.pl && test -n \"$PORT\"",
            ])),
            check(CheckAction::Uptime(Duration::from_millis(50))),
        ];
        bed.converge(checked(&bed, "perl web.pl", &checks)).unwrap();
        assert_eq!(bed.answers().len(), 1);
    });
}

#[test]
fn a_check_that_fails_fails_the_rollout() {
    let bed = Bed::new(best());
    let listening = HealthCheck { attempts: 200, ..check(CheckAction::Listening { port: None }) };
    for (action, why) in [
        (http("/", Some("all well")), "GET /: the text is not in the body".to_owned()),
        (command(&["sh", "-c", "exit 3"]), "`sh -c exit 3` exited with status 3".to_owned()),
        (command(&["no-such-check"]), "exec no-such-check".to_owned()),
    ] {
        let target = checked(&bed, "perl web.pl", &[listening.clone(), check(action)]);
        let said = failed(&bed, target);
        assert!(said.contains(&why), "{said}");
    }
    let target =
        checked(&bed, "env STATUS=500 perl web.pl", &[listening, check(http("/up", None))]);
    assert_eq!(failed(&bed, target), "GET /up: status 500");
    let slow = HealthCheck {
        name: Some("patience".to_owned()),
        timeout: Duration::from_millis(100),
        attempts: 1,
        ..check(command(&["sleep", "1000"]))
    };
    let said = failed(&bed, checked(&bed, "perl web.pl", &[slow]));
    assert!(said.starts_with("patience: "), "{said}");
    assert!(bed.endpoints().is_empty());
    bed.wait_until_none_is_left();
}

#[test]
fn a_warning_is_said_and_has_no_consequence() {
    let mut bed = Bed::new(best());
    let warning = HealthCheck { warn_only: true, ..check(command(&["false"])) };
    bed.converge(checked(&bed, "perl web.pl", &[warning])).unwrap();
    bed.stop();
    let said = bed.said("web.1");
    let wanted = "Warning: health check failed: `false` exited with status 1";
    assert!(said.contains(&wanted.to_owned()), "{said:?}");
}

#[test]
fn a_process_that_does_not_work_any_more_is_restarted() {
    let mut bed = Bed::new(best());
    fs::write(bed.shared().join("healthy"), "").unwrap();
    let alive = HealthCheck {
        kind: CheckKind::Liveness,
        ..check(command(&["sh", "-c", "test -e $SHARED/healthy"]))
    };
    bed.converge(checked(&bed, "perl web.pl", &[alive])).unwrap();
    let first = bed.endpoint("web.1");
    fs::remove_file(bed.shared().join("healthy")).unwrap();
    bed.wait_for_line("web.1", "Process exited with status 137");
    fs::write(bed.shared().join("healthy"), "").unwrap();
    let second = poll(SOON, "it to be up again", || {
        let process = bed.endpoint("web.1");
        (process.state == ProcessState::Up && process.restarts > 0).then_some(process)
    });
    assert_ne!(second.pid, first.pid);
    bed.stop();
    let said = bed.said("web.1");
    let why = "Error (Health check failed) -> `sh -c test -e $SHARED/healthy` exited with status 1";
    assert_eq!(said[2..4], [why, "Stopping all processes with SIGKILL"]);
}

#[test]
fn a_stop_waits_for_the_check_that_is_running() {
    each_level(|level| {
        let mut bed = Bed::new(level);
        let slow = HealthCheck {
            timeout: SOON,
            ..check(command(&["sh", "-c", "touch $SHARED/checking; sleep $MARK; true"]))
        };
        let target = checked(&bed, "perl web.pl", &[slow]);
        let engine = bed.engine().clone();
        let rollout = bed.runtime().spawn(async move { engine.converge(target).await });
        poll(SOON, "the check", || bed.shared().join("checking").exists().then_some(()));
        bed.stop();
        assert!(bed.left().is_empty(), "{:?}", bed.left());
        assert!(matches!(bed.runtime().block_on(rollout).unwrap(), Err(Error::Stopped)));
    });
}
