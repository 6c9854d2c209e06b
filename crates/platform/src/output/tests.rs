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
    for _ in 0..LINES + 7 {
        output.say("x");
    }
    output.say("y".repeat(LINE + 1));
    let mut follow = outputs.follow(&id()).unwrap().behind(LINES);
    outputs.over(&id(), State::Succeeded);
    assert_eq!(follow.next().await, line(" !     8 more lines are not kept"));
}
