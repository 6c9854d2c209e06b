//! Of an engine that cannot start anything: what it says, and what it leaves behind.

use tolv_model::formation::Formation;
use tolv_sandbox::Level;

use super::*;
use crate::fixture::{release, settings, target};
use crate::local::Local;
use crate::target::OneOff;

struct Engine {
    local: Local,
    lines: mpsc::Receiver<tolv_logs::Line>,
    // Removed when dropped.
    _logs: tempfile::TempDir,
}

fn engine() -> Engine {
    let logs = tempfile::tempdir().unwrap();
    let (local, lines) = Local::new(settings(Level::None, logs.path())).unwrap();
    Engine { local, lines, _logs: logs }
}

impl Engine {
    fn is_empty(&self) -> bool {
        self.local.endpoints().borrow().processes.is_empty()
    }
}

/// Like the fixture's, but nothing has to be there.
fn bare(types: &[(&str, &str)]) -> Target {
    Target { mounts: Vec::new(), ..target(release(1, types)) }
}

#[tokio::test]
async fn nothing_to_run_is_an_empty_outcome() {
    let engine = engine();
    let outcome = engine.local.converge(bare(&[])).await.unwrap();
    assert_eq!(outcome, Outcome::default());
    engine.local.stop().await;
}

#[tokio::test]
async fn a_type_without_a_command_is_an_error_before_anything_starts() {
    let engine = engine();
    let mut target = bare(&[("web", "serve")]);
    Arc::make_mut(&mut target.release).formation = "clock=1,web=1".parse::<Formation>().unwrap();
    match engine.local.converge(target).await {
        Err(Error::UnknownType(kind)) => assert_eq!(kind.as_str(), "clock"),
        other => panic!("{other:?}"),
    }
    assert!(engine.is_empty());
}

#[tokio::test]
async fn an_environment_that_does_not_fit_is_one_too() {
    let engine = engine();
    let mut target = bare(&[("web", "serve")]);
    let config = &mut Arc::make_mut(&mut target.release).config;
    for number in 0..4 {
        let room = tolv_model::env::MAX_TOTAL - config.size();
        let value = "secret".repeat(tolv_model::env::MAX_VALUE.min(room - 20) / 6);
        config.set(format!("BIG_{number}").parse().unwrap(), value).unwrap();
    }
    match engine.local.converge(target.clone()).await {
        Err(error @ Error::Env { .. }) => {
            assert_eq!(error.to_string(), "the environment of `web.1` cannot be made");
            assert!(!format!("{error:?}").contains("secret"), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
    let one_off =
        OneOff { target, name: "run.1".parse().unwrap(), command: "true".to_owned(), limit: None };
    assert!(matches!(engine.local.run_once(one_off).await, Err(Error::Env { .. })));
    assert!(engine.is_empty());
    engine.local.stop().await;
}

#[tokio::test]
async fn what_cannot_be_started_is_the_culprit_and_is_gone() {
    let mut engine = engine();
    for _ in 0..2 {
        match engine.local.converge(bare(&[("web", "serve")])).await {
            Err(Error::Rollout { culprit, .. }) => {
                assert!(matches!(culprit.reason, Reason::NotStarted(_)), "{culprit:?}");
                assert!(culprit.last_lines.is_empty());
            }
            other => panic!("{other:?}"),
        }
        assert!(engine.is_empty());
    }
    engine.local.stop().await;
    let mut said = Vec::new();
    while let Some(line) = engine.lines.recv().await {
        said.push(String::from_utf8(line.text).unwrap());
    }
    assert_eq!(said[0], "Starting process with command `serve`");
    assert!(said[1].starts_with("Process could not be started: "), "{said:?}");
    assert_eq!(said[2], "State changed from starting to crashed");
    assert_eq!(said[3], "State changed from crashed to down");
    assert_eq!(said.len(), 8);
}

#[tokio::test]
async fn a_one_off_that_cannot_be_started_says_why() {
    let engine = engine();
    let name = "release.1".parse().unwrap();
    let one_off = OneOff { target: bare(&[]), name, command: "migrate".to_owned(), limit: None };
    match engine.local.run_once(one_off).await {
        Err(Error::NotStarted { process, reason }) => {
            assert_eq!(process.to_string(), "release.1");
            assert!(!reason.why.is_empty());
        }
        other => panic!("{other:?}"),
    }
    engine.local.stop().await;
}

#[tokio::test]
async fn after_a_stop_nothing_starts() {
    let engine = engine();
    engine.local.stop().await;
    let target = bare(&[("web", "serve")]);
    let again = engine.local.converge(target.clone()).await;
    assert!(matches!(again, Err(Error::Stopped)), "{again:?}");
    let one_off =
        OneOff { target, name: "run.1".parse().unwrap(), command: "true".to_owned(), limit: None };
    let again = engine.local.run_once(one_off).await;
    assert!(matches!(again, Err(Error::Stopped)), "{again:?}");
}
