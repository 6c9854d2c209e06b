use tolv_model::unit::Millis;
use tolv_sandbox::Level;

use super::*;
use crate::fixture::settings;

fn engine(logs: &std::path::Path) -> (Local, mpsc::Receiver<Line>) {
    Local::new(settings(Level::None, logs)).unwrap()
}

fn text(line: &Line) -> &str {
    std::str::from_utf8(&line.text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_said_as_people_say_it() {
    let logs = tempfile::tempdir().unwrap();
    let (engine, _lines) = engine(logs.path());
    let shared = &engine.0.shared;
    for (at, text) in [
        (0, "at once"),
        (80, "in 0.0 s"),
        (1900, "in 1.9 s"),
        (9999, "in 9.9 s"),
        (10_000, "in 10 s"),
        (299_999, "in 299 s"),
    ] {
        assert_eq!(shared.until(Millis(at)), text);
        assert_eq!(shared.instant(Millis(at)) - shared.began, Duration::from_millis(at));
    }
}

#[tokio::test]
async fn time_outs_and_folders_that_cannot_be_are_refused() {
    let logs = tempfile::tempdir().unwrap();
    let mut wrong = settings(Level::None, logs.path());
    wrong.timing.back_off = Duration::ZERO;
    assert!(matches!(Local::new(wrong), Err(Error::Timing(_))));
    let file = logs.path().join("file");
    std::fs::write(&file, "").unwrap();
    let wrong = settings(Level::None, &file.join("logs"));
    match Local::new(wrong) {
        Err(Error::Log { path, .. }) => assert_eq!(path, file.join("logs")),
        other => panic!("{:?}", other.err()),
    }
}

#[tokio::test]
async fn what_is_said_comes_out_and_a_stop_ends_it() {
    let logs = tempfile::tempdir().unwrap();
    let (engine, mut lines) = engine(logs.path());
    engine.say(&[Line::tolv("router", "one")]);
    engine.say(&[Line::tolv("router", "two")]);
    engine.stop().await;
    engine.say(&[Line::tolv("router", "after the end")]);
    let mut texts = Vec::new();
    while let Some(line) = lines.recv().await {
        texts.push(text(&line).to_owned());
    }
    assert_eq!(texts, ["one", "two"]);
    engine.stop().await;
}

#[tokio::test]
async fn a_reader_that_is_gone_is_no_trouble() {
    let logs = tempfile::tempdir().unwrap();
    let (engine, lines) = engine(logs.path());
    drop(lines);
    for _ in 0..10 {
        engine.say(&[Line::tolv("router", "unheard")]);
    }
    engine.stop().await;
}

#[tokio::test]
async fn saying_never_waits_and_nothing_is_lost() {
    const SAYINGS: u64 = 10_000;
    let logs = tempfile::tempdir().unwrap();
    let (engine, mut lines) = engine(logs.path());
    for _ in 0..SAYINGS {
        engine.say(&[Line::tolv("router", "line")]);
    }
    // The last takes the count of those before it along.
    let mut told = 0;
    while told < SAYINGS {
        let line = lines.recv().await.unwrap();
        let count = text(&line).strip_prefix("Error L10 (output buffer overflow): ");
        told += match count {
            Some(count) => count.split(' ').next().unwrap().parse().unwrap(),
            None => 1,
        };
    }
    assert_eq!(told, SAYINGS);
}

#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_reader_that_does_not_read() {
    let logs = tempfile::tempdir().unwrap();
    let (engine, _lines) = engine(logs.path());
    for _ in 0..2 * LINES {
        engine.say(&[Line::tolv("router", "unread")]);
        tokio::task::yield_now().await;
    }
    let begin = Instant::now();
    engine.stop().await;
    assert!(begin.elapsed() <= 2 * LAST_LINES, "{:?}", begin.elapsed());
}
