//! From one release to the next.

use std::fs;
use std::sync::{Arc, Mutex};

use tokio::sync::Semaphore;
use tolv_model::release::ReleaseNumber;
use tolv_run::{Drain, Endpoint, Error, Exit, ProcessState, Reason};
use tolv_testkit::poll;

use crate::bed::{Bed, IDLE, SOON, answer, best, each_level, names, text};

/// Boots when the test says so.
const GATED: &str =
    "echo booting; while [ ! -e $SHARED/go ]; do sleep 0.01; done; exec perl web.pl";

fn release(processes: &[Endpoint]) -> Vec<u32> {
    processes.iter().map(|process| process.release.0).collect()
}

#[test]
fn the_old_answers_until_the_new_is_ready() {
    each_level(|level| {
        let bed = Bed::new(level);
        bed.converge(bed.target(1, &[("web", "perl web.pl", 1)])).unwrap();
        let old = bed.endpoint("web.1");
        let (engine, target) = (bed.engine().clone(), bed.target(2, &[("web", GATED, 1)]));
        let rollout = bed.runtime().spawn(async move { engine.converge(target).await });
        bed.wait_for_line("web.1", "booting");
        let both = bed.endpoints();
        assert_eq!(release(&both), [1, 2]);
        assert_eq!((both[1].state, both[1].routed), (ProcessState::Starting, false));
        assert_eq!(bed.answers(), [format!("web.1 v1 {}", old.address.port())]);
        assert!(!rollout.is_finished());

        fs::write(bed.shared().join("go"), "").unwrap();
        let outcome = bed.runtime().block_on(rollout).unwrap().unwrap();
        assert_eq!(
            (names(&outcome.started), names(&outcome.stopping)),
            (vec!["web.1".to_owned()], vec!["web.1".to_owned()])
        );
        poll(SOON, "the old one to be gone", || (bed.endpoints().len() == 1).then_some(()));
        let new = bed.endpoint("web.1");
        assert_eq!((new.release, new.routed), (ReleaseNumber(2), true));
        assert_ne!(new.id, old.id);
        assert_eq!(bed.answers(), [format!("web.1 v2 {}", new.address.port())]);
    });
}

#[test]
fn the_first_web_process_answers_while_others_are_on_probation() {
    let bed = Bed::with(best(), |settings| settings.timing.uptime = SOON * 10);
    let target = bed.target(1, &[("web", "perl web.pl", 1), ("worker", "sleep 1000", 1)]);
    let engine = bed.engine().clone();
    let rollout = bed.runtime().spawn(async move { engine.converge(target).await });
    let web = poll(SOON, "the web process to be up", || {
        bed.endpoints().into_iter().find(|p| p.state == ProcessState::Up)
    });
    assert!(web.routed && web.process.to_string() == "web.1");
    assert_eq!(bed.answers(), [format!("web.1 v1 {}", web.address.port())]);
    assert!(!rollout.is_finished(), "the worker has not run for long enough");
}

#[test]
fn the_old_is_stopped_when_its_requests_are_done() {
    let drained: Arc<Mutex<Vec<Endpoint>>> = Arc::default();
    let done = Arc::new(Semaphore::new(0));
    let drain: Drain = Arc::new({
        let (drained, done) = (Arc::clone(&drained), Arc::clone(&done));
        move |old| {
            drained.lock().unwrap().extend(old);
            let done = Arc::clone(&done);
            Box::pin(async move { done.acquire().await.unwrap().forget() })
        }
    });
    let bed = Bed::with(best(), |settings| settings.drain = Some(drain));
    let types = [("web", "perl web.pl", 2), ("worker", IDLE, 1)];
    bed.converge(bed.target(1, &types)).unwrap();
    assert!(drained.lock().unwrap().is_empty());
    let (engine, target) = (bed.engine().clone(), bed.target(2, &types));
    let rollout = bed.runtime().spawn(async move { engine.converge(target).await });
    poll(SOON, "the drain", || (drained.lock().unwrap().len() == 2).then_some(()));
    // Switched already, and the old ones still answer what they have.
    assert!(bed.answers().iter().all(|text| text.contains(" v2 ")), "{:?}", bed.answers());
    for old in drained.lock().unwrap().iter() {
        assert!(answer(old).contains(" v1 "));
    }
    let states: Vec<_> = bed.endpoints().iter().map(|process| process.state).collect();
    assert_eq!(states, [ProcessState::Up; 6]);
    assert!(!rollout.is_finished());
    done.add_permits(1);
    bed.runtime().block_on(rollout).unwrap().unwrap();
    poll(SOON, "the old ones to be gone", || (release(&bed.endpoints()) == [2; 3]).then_some(()));
}

#[test]
fn a_drain_that_does_not_end_is_cut_off() {
    let drain: Drain = Arc::new(|_| Box::pin(std::future::pending()));
    let bed = Bed::with(best(), |settings| {
        settings.drain = Some(drain);
        settings.timing.drain = std::time::Duration::from_millis(100);
    });
    for number in 1..3 {
        bed.converge(bed.target(number, &[("web", "perl web.pl", 1)])).unwrap();
    }
    poll(SOON, "the old one to be gone", || (release(&bed.endpoints()) == [2]).then_some(()));
}

#[test]
fn an_old_one_may_finish_in_its_own_time() {
    let mut bed = Bed::new(best());
    let slow = "trap 'while [ ! -e $SHARED/go ]; do sleep 0.01; done; exit' TERM; echo up; \
                while true; do sleep 0.01; done";
    bed.converge(bed.target(1, &[("worker", slow, 1)])).unwrap();
    bed.wait_for_line("worker.1", "up");
    bed.converge(bed.target(2, &[("worker", IDLE, 1)])).unwrap();
    let both = bed.endpoints();
    assert_eq!(release(&both), [1, 2]);
    // A third release does not tell it again.
    bed.converge(bed.target(3, &[("worker", IDLE, 1)])).unwrap();
    fs::write(bed.shared().join("go"), "").unwrap();
    poll(SOON, "the old ones to be gone", || (release(&bed.endpoints()) == [3]).then_some(()));
    bed.stop();
    let said = bed.said("worker.1");
    let asked = said.iter().filter(|line| line.ends_with("with SIGTERM")).count();
    assert_eq!(asked, 3, "each once: {said:?}");
}

#[test]
fn a_new_one_that_fails_leaves_the_old_as_it_was() {
    each_level(|level| {
        let bed = Bed::new(level);
        bed.converge(bed.target(1, &[("web", "perl web.pl", 1), ("worker", IDLE, 1)])).unwrap();
        let before = bed.endpoints();
        let broken = "[ $DYNO = web.1 ] && exec perl web.pl; echo 'no such table' >&2; exit 9";
        let target = bed.target(2, &[("web", broken, 2), ("worker", IDLE, 1)]);
        match bed.converge(target) {
            Err(Error::Rollout { release, culprit, undone }) => {
                assert_eq!(release, ReleaseNumber(2));
                let undone: Vec<_> = undone.iter().map(ToString::to_string).collect();
                assert_eq!(undone, ["web.1", "worker.1"]);
                assert_eq!(culprit.process.to_string(), "web.2");
                assert_eq!(culprit.reason, Reason::Exited(Exit::Code(9)));
                assert_eq!(culprit.exit(), Some(Exit::Code(9)));
                let last: Vec<_> = culprit.last_lines.iter().map(text).collect();
                assert_eq!(last, ["no such table"]);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(bed.endpoints(), before);
        assert_eq!(bed.answers(), [format!("web.1 v1 {}", before[0].address.port())]);
        // And the next release starts from there.
        bed.converge(bed.target(3, &[("web", "perl web.pl", 1)])).unwrap();
        poll(SOON, "the old ones to be gone", || (release(&bed.endpoints()) == [3]).then_some(()));
    });
}

#[test]
fn a_new_one_that_was_ready_and_fails_before_the_switch_counts_as_failed() {
    let bed = Bed::new(best());
    bed.converge(bed.target(1, &[("web", "perl web.pl", 1)])).unwrap();
    let before = bed.endpoints();
    // Ready after its uptime, and then it ends while the other still boots.
    let worker = "sleep 0.4; exit 6";
    match bed.converge(bed.target(2, &[("web", GATED, 1), ("worker", worker, 1)])) {
        Err(Error::Rollout { culprit, .. }) => {
            assert_eq!(culprit.reason, Reason::ExitedAfterUp(Exit::Code(6)));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(bed.endpoints(), before);
}

#[test]
fn what_is_the_same_is_kept_and_the_formation_follows() {
    let bed = Bed::new(best());
    let target = |quantity| bed.target(1, &[("web", "perl web.pl", quantity), ("worker", IDLE, 1)]);
    bed.converge(target(1)).unwrap();
    let first = bed.endpoints();
    let again = bed.converge(target(1)).unwrap();
    assert_eq!(names(&again.kept), ["web.1", "worker.1"]);
    assert!(again.started.is_empty() && again.stopping.is_empty());
    assert_eq!(bed.endpoints(), first);

    let more = bed.converge(target(3)).unwrap();
    assert_eq!(names(&more.started), ["web.2", "web.3"]);
    assert_eq!(bed.answers().len(), 3);
    assert_eq!(bed.endpoints()[0], first[0]);

    let none = bed.converge(target(0)).unwrap();
    assert_eq!((names(&none.kept), none.stopping.len()), (vec!["worker.1".to_owned()], 3));
    assert!(bed.answers().is_empty());
    poll(SOON, "the web processes to be gone", || (bed.endpoints().len() == 1).then_some(()));
    assert_eq!(bed.endpoints()[0], first[1]);

    bed.converge(target(1)).unwrap();
    assert_eq!(bed.answers().len(), 1);
    bed.converge(bed.target(1, &[])).unwrap();
    poll(SOON, "all to be gone", || bed.endpoints().is_empty().then_some(()));
    bed.wait_until_none_is_left();
}

#[test]
fn a_rollout_that_nobody_waits_for_is_undone() {
    let bed = Bed::new(best());
    bed.converge(bed.target(1, &[("web", "perl web.pl", 1)])).unwrap();
    let before = bed.endpoints();
    let (engine, target) = (bed.engine().clone(), bed.target(2, &[("web", GATED, 1)]));
    let rollout = bed.runtime().spawn(async move { engine.converge(target).await });
    bed.wait_for_line("web.1", "booting");
    rollout.abort();
    poll(SOON, "the new one to be gone", || (bed.endpoints() == before).then_some(()));
    assert_eq!(bed.answers().len(), 1);
}

#[test]
fn a_second_rollout_waits_for_the_first() {
    let bed = Bed::new(best());
    let (engine, target) = (bed.engine().clone(), bed.target(1, &[("web", GATED, 1)]));
    let first = bed.runtime().spawn(async move { engine.converge(target).await });
    bed.wait_for_line("web.1", "booting");
    let (engine, target) = (bed.engine().clone(), bed.target(2, &[("web", "perl web.pl", 1)]));
    let second = bed.runtime().spawn(async move { engine.converge(target).await });
    assert_eq!(release(&bed.endpoints()), [1]);
    fs::write(bed.shared().join("go"), "").unwrap();
    bed.runtime().block_on(first).unwrap().unwrap();
    let outcome = bed.runtime().block_on(second).unwrap().unwrap();
    assert_eq!(names(&outcome.stopping), ["web.1"]);
    poll(SOON, "the first one to be gone", || (release(&bed.endpoints()) == [2]).then_some(()));
}
