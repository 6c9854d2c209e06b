use super::*;

fn boot(listens: &[&str]) -> Boot {
    let listens = listens.iter().map(|address| address.parse().unwrap()).collect();
    Boot { limit: Duration::from_secs(60), port: 20_000, listens }
}

#[test]
fn a_slow_boot_says_where_it_listens_instead() {
    assert_eq!(boot(&[]).to_string(), "60 seconds");
    assert_eq!(
        boot(&["127.0.0.1:3000", "[::]:3001"]).to_string(),
        "60 seconds; it listens on 127.0.0.1:3000, [::]:3001, not on port 20000"
    );
    // It does listen, and does not answer.
    assert_eq!(boot(&["0.0.0.0:20000"]).to_string(), "60 seconds; it listens on 0.0.0.0:20000");
}

#[test]
fn a_status_is_what_a_shell_shows() {
    assert_eq!(Exit::Code(7).status(), 7);
    assert_eq!(Exit::Signal(15).to_string(), "status 143");
    assert!(Exit::Code(0).is_success());
    assert!(!Exit::Code(1).is_success() && !Exit::Signal(9).is_success());
}

#[test]
fn a_failed_rollout_says_who_and_why() {
    for (reason, text, exit) in [
        (Reason::Exited(Exit::Code(3)), "exited with status 3 before it was ready", true),
        (
            Reason::ExitedAfterUp(Exit::Code(0)),
            "was up, and exited with status 0 before the rollout had finished",
            true,
        ),
        (
            Reason::CommandNotFound(Exit::Code(127)),
            "did not start: its command was not found (status 127)",
            true,
        ),
        (
            Reason::CommandNotFound(Exit::Code(126)),
            "did not start: its command cannot be executed (status 126)",
            true,
        ),
        (Reason::BootTimeout(boot(&[])), "was not ready within 60 seconds (R10)", false),
        (
            Reason::CheckFailed("GET /: status 500".to_owned()),
            "failed its health check: GET /: status 500",
            false,
        ),
        (
            Reason::OutOfMemory(Exit::Signal(9)),
            "used more memory than its limit (R15, status 137)",
            true,
        ),
        (Reason::NotStarted("fork: no".to_owned().into()), "could not be started: fork: no", false),
        (Reason::Stopped, "was stopped before it was ready", false),
    ] {
        let process = "web.1".parse().unwrap();
        let culprit = Culprit { process, reason, last_lines: Vec::new() };
        assert_eq!(culprit.exit().is_some(), exit, "{text}");
        let (release, culprit) = (ReleaseNumber(2), Box::new(culprit));
        let error = Error::Rollout { release, culprit, undone: Vec::new() };
        let sentence = error.to_string();
        assert!(sentence.starts_with("process `web.1` of release v2 "), "{sentence}");
        assert!(sentence.contains(text), "{sentence}");
    }
}

#[test]
fn the_time_outs_are_the_contracts() {
    let timing = Timing::default();
    let seconds = [timing.boot, timing.grace, timing.back_off, timing.back_off_max, timing.one_off];
    assert_eq!(seconds.map(|time| time.as_secs()), [60, 30, 1, 300, 3600]);
}
