use proptest::prelude::*;

use super::*;

const FIRST: Duration = Duration::from_secs(30);

#[test]
fn three_time_outs_in_a_row_and_one_answer() {
    let start = Instant::now();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut health = Health::default();
    assert!(!health.timed_out(at(0), FIRST) && !health.timed_out(at(0), FIRST));
    assert!(!health.answered());
    assert!(!health.timed_out(at(1), FIRST) && !health.timed_out(at(1), FIRST));
    assert!(!health.is_passed_over(at(1)));
    assert!(health.timed_out(at(1), FIRST), "said once");
    assert!(!health.timed_out(at(2), FIRST));
    assert!(health.is_passed_over(at(30)) && !health.is_passed_over(at(31)));
    // One request is its trial.
    health.chosen(at(40));
    assert!(health.is_passed_over(at(41)));
    assert!(!health.timed_out(at(70), FIRST));
    assert!(health.is_passed_over(at(129)) && !health.is_passed_over(at(130)), "twice as long");
    // The client of a trial may go away without an answer: there is another.
    health.chosen(at(130));
    assert!(health.is_passed_over(at(189)) && !health.is_passed_over(at(190)));
    assert!(health.hangs() && health.answered());
    assert!(!health.is_passed_over(at(190)) && !health.answered());
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Wait(u64),
    Choose,
    TimeOut,
    Answer,
}

proptest! {
    /// It is never passed over for longer than the longest pause, never after an answer, and only
    /// after as many time-outs in a row as it takes.
    #[test]
    fn nobody_is_passed_over_for_ever(steps in prop::collection::vec(prop_oneof![
        (0_u64..400).prop_map(Step::Wait), Just(Step::Choose), Just(Step::TimeOut),
        Just(Step::TimeOut), Just(Step::Answer),
    ], 0..100)) {
        let (mut health, mut now, mut row) = (Health::default(), Instant::now(), 0);
        for step in steps {
            match step {
                Step::Wait(seconds) => now += Duration::from_secs(seconds),
                Step::Choose => health.chosen(now),
                Step::TimeOut => {
                    row += 1;
                    prop_assert_eq!(health.timed_out(now, FIRST), row == MANY);
                }
                Step::Answer => {
                    row = 0;
                    health.answered();
                }
            }
            prop_assert!(row >= MANY || !health.is_passed_over(now));
            prop_assert!(!health.is_passed_over(now + FIRST * LONGEST));
        }
    }
}
