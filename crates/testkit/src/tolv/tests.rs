use std::os::unix::process::ExitStatusExt as _;

use super::*;

const LONG: Duration = Duration::from_secs(30);

fn shell(script: &str) -> Tolv {
    Tolv::start(Command::new("sh").args(["-c", script]))
}

#[test]
fn takes_in_both_streams_and_the_status() {
    let mut program = shell("echo one; printf 'tw\\377o\\nthree' >&2; exit 3");
    assert_eq!(program.wait(LONG).code(), Some(3));
    let texts = |stream| {
        let lines = program.lines().into_iter().filter(move |line| line.stream == stream);
        lines.map(|line| line.text).collect::<Vec<_>>()
    };
    assert_eq!(texts(Stream::Out), ["one"]);
    assert_eq!(texts(Stream::Err), ["tw\u{fffd}o", "three"]);
}

#[test]
fn waits_for_a_line_that_comes_or_came() {
    let program = shell("echo ready; exec sleep 60");
    for _ in 0..2 {
        let line = program.wait_for_line(|text| text.starts_with("read"), LONG);
        assert_eq!(line, Line { stream: Stream::Out, text: "ready".to_owned() });
    }
}

fn panic_text(run: impl FnOnce()) -> String {
    let failure = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_err();
    *failure.downcast::<String>().unwrap()
}

#[test]
fn a_line_that_does_not_come_shows_what_did() {
    let over = shell("echo one; echo two >&2");
    let text = panic_text(|| drop(over.wait_for_line(|text| text == "three", LONG)));
    assert!(text.contains("Out: one") && text.contains("Err: two"), "{text}");
    let silent = shell("exec sleep 60");
    let text = panic_text(|| drop(silent.wait_for_line(|_| true, Duration::from_millis(5))));
    assert!(text.contains("no such line within 5ms"), "{text}");
}

#[test]
fn gets_signals() {
    let mut program =
        shell("trap 'echo bye; exit 7' INT; echo ready; while :; do sleep 0.01; done");
    program.wait_for_line(|text| text == "ready", LONG);
    program.signal(Signal::INT);
    assert_eq!(program.wait(LONG).code(), Some(7));
    program.wait_for_line(|text| text == "bye", LONG);
    program.signal(Signal::INT);
}

#[test]
fn a_program_that_goes_on_is_a_failure() {
    let mut program = shell("echo one; exec sleep 60");
    program.wait_for_line(|text| text == "one", LONG);
    let text = panic_text(|| assert!(program.wait(Duration::from_millis(5)).success()));
    assert!(text.contains("still runs after 5ms") && text.contains("Out: one"), "{text}");
    program.signal(Signal::KILL);
    assert_eq!(program.wait(LONG).signal(), Some(Signal::KILL.as_raw()));
}

#[test]
fn dropping_ends_and_reaps_it() {
    let program = shell("exec sleep 60");
    let pid = program.pid();
    drop(program);
    assert!(rustix::process::test_kill_process(pid).is_err());
}
