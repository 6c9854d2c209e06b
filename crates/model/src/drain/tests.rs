use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn start() -> Flow<u64> {
    Flow::new(Point { place: 0, sent: 0, dropped: 0 }, 0)
}

#[test]
fn lines_settle_when_acknowledged_and_old() {
    let mut flow = start();
    flow.wrote(Millis(0), 100, 1, 10, 0);
    assert!(!flow.acknowledged(Millis(1_000), 0));
    flow.wrote(Millis(5_000), 100, 2, 10, 3);
    assert!(!flow.acknowledged(Millis(10_999), 0), "too young");
    assert!(!flow.acknowledged(Millis(11_000), 1), "not everything was acknowledged");
    assert!(flow.acknowledged(Millis(11_000), 0));
    assert_eq!(*flow.settled(), Point { place: 1, sent: 10, dropped: 0 });
    flow.broke();
    assert_eq!((flow.head().place, flow.head().sent, flow.retried()), (1, 10, 10));
}

#[test]
fn a_slow_receiver_settles_what_lies_behind_its_buffer() {
    let mut flow = start();
    flow.wrote(Millis(0), 100, 1, 1, 0);
    flow.wrote(Millis(0), BUFFERED + 50, 2, 1, 0);
    assert!(!flow.acknowledged(Millis(0), 51));
    assert!(!flow.acknowledged(Millis(60_000), 51));
    assert!(flow.acknowledged(Millis(60_000), 50));
    assert_eq!(flow.settled().place, 1);
}

#[test]
fn another_platform_goes_on_at_what_was_acknowledged() {
    let point = |sent| Point { place: sent, sent, dropped: 0 };
    // 30 of 40 lines were acknowledged, 45 tried: those between are sent again.
    let mut flow = Flow::new(point(10), 2).resume(point(30), 45);
    assert_eq!((flow.head().sent, flow.settled().sent, flow.retried()), (30, 10, 17));
    assert!(!flow.acknowledged(Millis(9_999), 0));
    assert!(flow.acknowledged(Millis(10_000), 0));
    assert_eq!(*flow.settled(), point(30));
    // The receiver is not there: all that it may not have read is sent again.
    let mut flow = Flow::new(point(10), 0).resume(point(30), 30);
    flow.broke();
    assert_eq!((flow.head().sent, flow.retried(), flow.tried()), (10, 20, 10));
    // What is older than the settled is no news.
    let flow = Flow::new(point(10), 0).resume(point(5), 12);
    assert_eq!((flow.head().sent, flow.acknowledged_point().sent, flow.retried()), (10, 10, 2));
}

#[test]
fn what_was_begun_counts_as_sent_when_it_is_sent_again() {
    let mut flow = start();
    flow.wrote(Millis(0), 100, 10, 10, 0);
    flow.tries(7);
    flow.broke();
    assert_eq!(flow.retried(), 17);
    flow.tries(10);
    flow.tried_in_vain(0);
    flow.broke();
    assert_eq!(flow.retried(), 17, "nobody was there");
}

#[test]
fn what_was_sent_never_goes_back() {
    let point = |sent| Point { place: sent, sent, dropped: 0 };
    let mut flow = start();
    flow.wrote(Millis(0), 100, 1, 10, 0);
    flow.broke();
    assert_eq!((flow.head().sent, flow.sent()), (0, 10));
    flow.wrote(Millis(0), 100, 1, 10, 0);
    flow.wrote(Millis(0), 100, 2, 5, 0);
    assert_eq!(flow.sent(), 15);
    // Another platform, and the one after that.
    let flow = Flow::new(point(0), 10).resume(point(10), 15);
    assert_eq!((flow.head().sent, flow.sent(), flow.retried()), (10, 15, 15));
    let flow = Flow::new(point(0), 15).resume(point(10), 10).counting_from(15);
    assert_eq!((flow.sent(), flow.retried()), (15, 15));
}

#[test]
fn pauses_double_and_end_with_success() {
    let mut backoff = Backoff::default();
    let longest = |backoff: &mut Backoff| backoff.failed(u64::MAX - 1, None);
    let pauses: Vec<_> = (0..12).map(|_| longest(&mut backoff)).collect();
    assert!(pauses[0] >= Duration::from_millis(250) && pauses[0] <= Duration::from_millis(500));
    assert!(pauses[11] >= Duration::from_secs(30) && pauses[11] <= Duration::from_secs(60));
    assert_eq!(backoff.failed(0, Some(Duration::from_secs(90))), Duration::from_secs(90));
    assert_eq!(backoff.failed(0, Some(Duration::from_secs(9_000))), Duration::from_secs(300));
    backoff.worked();
    assert!(longest(&mut backoff) <= Duration::from_millis(500));
}

#[test]
fn statuses_are_judged() {
    assert_eq!(Verdict::of(204, false), Verdict::Taken);
    for status in [301, 401, 404, 408, 429, 500, 503] {
        assert_eq!(Verdict::of(status, true), Verdict::Later, "{status}");
    }
    assert_eq!(Verdict::of(400, true), Verdict::Never);
    assert_eq!(Verdict::of(400, false), Verdict::Later);
    assert_eq!(Verdict::of(413, false), Verdict::Smaller);
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Write(u8),
    Acknowledge(u8),
    Wait(u16),
    Break,
    /// Another platform goes on, and what is on the connection arrives.
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..50u8).prop_map(Step::Write),
        4 => any::<u8>().prop_map(Step::Acknowledge),
        4 => any::<u16>().prop_map(Step::Wait),
        1 => Just(Step::Break),
        1 => Just(Step::Restart),
    ]
}

proptest! {
    /// Against a receiver that reads within the time: whatever breaks, it has read every line
    /// before the settled point, and the counts are those of the places.
    #[test]
    fn each_line_is_read_at_least_once(steps in vec(step(), 0..200)) {
        let mut flow = start();
        let mut now = 0;
        // What is on the connection: when its machine had it, if so, and up to which line.
        let mut line: Vec<(Option<u64>, u64, u64)> = Vec::new();
        let (mut read, mut writes) = (0, 0);
        for step in steps {
            match step {
                Step::Write(lines) => {
                    let from = flow.head().place;
                    let to = from + u64::from(lines);
                    flow.wrote(Millis(now), u64::from(lines), to, u64::from(lines), 0);
                    line.push((None, from, to));
                    writes += u64::from(lines);
                }
                Step::Acknowledge(part) => {
                    let count = line.len() * usize::from(part) / 255;
                    for entry in &mut line[..count] {
                        entry.0.get_or_insert(now);
                    }
                }
                Step::Wait(millis) => now += u64::from(millis),
                Step::Break => {
                    flow.broke();
                    line.clear();
                }
                Step::Restart => {
                    let (settled, acknowledged) =
                        (flow.settled().clone(), flow.acknowledged_point().clone());
                    prop_assert!(settled.place <= acknowledged.place);
                    // What it has acknowledged it reads; of the rest, nobody knows.
                    for (_, from, to) in line.drain(..).filter(|entry| entry.0.is_some()) {
                        prop_assert!(from <= read, "a gap");
                        read = read.max(to);
                    }
                    let tried = flow.tried();
                    flow = Flow::new(settled, flow.retried()).resume(acknowledged, tried);
                    prop_assert!(flow.head().place <= read);
                    now = 0;
                }
            }
            // It reads late, but within the time.
            for (at, from, to) in &line {
                if at.is_some_and(|at| now - at >= 9_999) {
                    prop_assert!(*from <= read, "a gap");
                    read = read.max(*to);
                }
            }
            let unacknowledged = line.iter().filter(|entry| entry.0.is_none());
            let bytes = unacknowledged.map(|(_, from, to)| to - from).sum();
            flow.acknowledged(Millis(now), bytes);
            prop_assert!(flow.settled().place <= read);
            prop_assert!(flow.settled().sent <= flow.head().sent);
            prop_assert_eq!(flow.head().place, flow.head().sent);
            prop_assert_eq!(flow.head().sent + flow.retried(), writes);
        }
    }
}
