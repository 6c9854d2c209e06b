use proptest::prelude::*;

use super::*;

#[test]
fn new_ones_are_ready_before_old_ones_stop() {
    let mut rollout = Rollout::new([1, 2], [2, 3, 4]);
    assert_eq!(rollout.handle(Event::Begin), [Action::Start(3), Action::Start(4)]);
    assert_eq!(rollout.handle(Event::Ready(4)), []);
    assert_eq!(rollout.handle(Event::Ready(4)), []);
    assert_eq!(rollout.handle(Event::Ready(3)), [Action::Switch, Action::Drain]);
    assert_eq!(rollout.handle(Event::Failed(3)), []);
    assert_eq!(rollout.handle(Event::Drained), [Action::Stop(1), Action::Finish(Ok(()))]);
    assert_eq!(rollout.phase, Phase::Done);
}

#[test]
fn a_failure_undoes_the_new_and_names_the_first_culprit() {
    let mut rollout = Rollout::new([1], [2, 3]);
    rollout.handle(Event::Begin);
    rollout.handle(Event::Ready(2));
    assert_eq!(rollout.handle(Event::Failed(3)), [Action::Stop(2), Action::Stop(3)]);
    assert_eq!(rollout.handle(Event::Failed(2)), []);
    assert_eq!(rollout.handle(Event::Gone(3)), []);
    assert_eq!(rollout.handle(Event::Gone(2)), [Action::Finish(Err(Some(3)))]);
}

#[test]
fn nothing_to_do_is_done_at_once() {
    let mut rollout = Rollout::new([1], [1]);
    assert_eq!(rollout.handle(Event::Begin), [Action::Switch, Action::Finish(Ok(()))]);
    let mut rollout = Rollout::<u64>::new([], []);
    assert_eq!(rollout.handle(Event::Cancel), [Action::Finish(Err(None))]);
}

fn any_event() -> impl Strategy<Value = Event<u8>> {
    prop_oneof![
        4 => (0u8..6).prop_map(Event::Ready),
        1 => (0u8..6).prop_map(Event::Failed),
        2 => (0u8..6).prop_map(Event::Gone),
        1 => Just(Event::Drained),
        1 => Just(Event::Begin),
        1 => Just(Event::Cancel),
    ]
}

proptest! {
    #[test]
    fn the_old_stay_until_the_new_are_ready(
        old in prop::collection::btree_set(0u8..6, 0..5),
        new in prop::collection::btree_set(0u8..6, 0..5),
        events in prop::collection::vec(any_event(), 0..60),
    ) {
        let mut rollout = Rollout::new(old.clone(), new.clone());
        let (mut ready, mut finished) = (old.clone(), None);
        for event in [Event::Begin].into_iter().chain(events) {
            if let Event::Ready(id) = event { ready.insert(id); }
            for action in rollout.handle(event) {
                prop_assert!(finished.is_none(), "{action:?} after the end");
                match action {
                    Action::Start(id) => prop_assert!(new.contains(&id) && !old.contains(&id)),
                    Action::Switch => prop_assert!(new.is_subset(&ready)),
                    Action::Stop(id) if old.contains(&id) => {
                        prop_assert!(!new.contains(&id) && new.is_subset(&ready));
                    }
                    Action::Stop(_) | Action::Drain => {}
                    Action::Finish(result) => finished = Some(result),
                }
            }
            prop_assert_eq!(rollout.phase == Phase::Done, finished.is_some());
        }
    }
}
