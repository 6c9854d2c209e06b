use jiff::Timestamp;

use tolv_model::id::OperationId;

use super::*;

fn id() -> OperationId {
    OperationId::new(Timestamp::UNIX_EPOCH, 1)
}

fn line(text: &str) -> Option<Progress> {
    Some(Progress::Output(text.as_bytes().into()))
}

#[tokio::test]
async fn whoever_comes_late_reads_from_the_beginning_to_the_end() {
    let outputs = Outputs::default();
    let output = outputs.begin(&id());
    output.say("one\ntwo");
    let mut early = outputs.follow(&id()).unwrap();
    assert_eq!(early.next().await, line("one"));
    output.say("three\n");
    outputs.over(&id(), State::Succeeded);
    assert!(outputs.follow(&id()).is_none());
    for text in ["two", "three"] {
        assert_eq!(early.next().await, line(text));
    }
    assert_eq!(early.next().await, Some(Progress::Over(State::Succeeded)));
    assert_eq!(early.next().await, None);
}

#[tokio::test]
async fn a_reader_waits_for_what_is_not_there_yet() {
    let outputs = Outputs::default();
    let output = outputs.begin(&id());
    let mut follow = outputs.follow(&id()).unwrap();
    let (read, ()) = tokio::join!(follow.next(), async { output.say("late") });
    assert_eq!(read, line("late"));
}

#[tokio::test]
async fn what_was_stored_reads_back_and_can_be_read_from_the_middle() {
    let output = Output::default();
    output.say("one\n\ntwo");
    let mut follow = Follow::stored(&output.text(), State::Failed).behind(1);
    assert_eq!(follow.next().await, line(""));
    assert_eq!(follow.next().await, line("two"));
    assert_eq!(follow.next().await, Some(Progress::Over(State::Failed)));
}

#[tokio::test]
async fn an_endless_output_is_cut_and_counted() {
    let outputs = Outputs::default();
    let output = outputs.begin(&id());
    output.say("-----> Release phase");
    let line_of = |number: u32| format!("{number:09}{}", "x".repeat(LINE));
    for number in 0..2000 {
        output.pass_on(line_of(number));
        if number == 1000 {
            output.say("-----> In the middle");
        }
    }
    output.say(" !     Release v1 failed");
    let text = String::from_utf8(output.text()).unwrap();
    assert!(text.len() < HEAD + TAIL + OWN, "{} bytes", text.len());
    let lines: Vec<_> = text.lines().map(|line| line.get(..40).unwrap_or(line)).collect();
    assert_eq!(lines[0], "-----> Release phase");
    assert!(lines[1].starts_with("000000000x"), "the beginning: {:?}", lines[1]);
    assert!(lines.contains(&"-----> In the middle"), "what the platform says stays");
    assert!(lines[lines.len() - 2].starts_with("000001999x"), "the end");
    assert_eq!(lines[lines.len() - 1], " !     Release v1 failed");
    // Every line is there or counted.
    let notes = lines.iter().filter_map(|line| line.strip_prefix(" !     … "));
    let omitted: usize = notes
        .map(|note| note.split(' ').next().unwrap())
        .fold(0, |sum, n| sum + n.parse::<usize>().unwrap());
    let there = lines.iter().filter(|line| line.starts_with("00000")).count();
    assert_eq!(there + omitted, 2000);
    // Whoever goes on in the middle reads on.
    let mut follow = outputs.follow(&id()).unwrap().behind(2002);
    outputs.over(&id(), State::Failed);
    assert_eq!(follow.next().await, line(" !     Release v1 failed"));
    assert_eq!(follow.place(), 2003);
    assert_eq!(follow.next().await, Some(Progress::Over(State::Failed)));
}

#[tokio::test]
async fn empty_lines_are_bounded_too() {
    let output = Output::default();
    for _ in 0..200_000 {
        output.pass_on("\n");
    }
    assert!(output.kept().lines.len() <= (HEAD + TAIL) / OVERHEAD + 1);
}
