use std::fmt::Write as _;

use proptest::prelude::*;

use super::*;

fn unit() -> Unit {
    let seconds = Duration::from_secs;
    let policy = Policy::new(seconds(1), seconds(300), seconds(300), seconds(60), seconds(30));
    Unit::new(policy.unwrap())
}

/// Plays `events` as `(milliseconds, event)` and returns the actions, one line each.
fn play(unit: &mut Unit, events: &[(u64, Event)]) -> String {
    let mut out = String::new();
    for &(at, event) in events {
        for action in unit.handle(event, Millis(at), Jitter(0)) {
            writeln!(out, "{at} {event:?} -> {action:?}").unwrap();
        }
    }
    out
}

#[test]
fn the_first_restart_is_at_once_and_then_delays_double() {
    let mut unit = unit();
    let (mut now, mut delays) = (0, Vec::new());
    play(&mut unit, &[(0, Event::Start), (0, Event::Spawned)]);
    for _ in 0..12 {
        let [Action::WakeAt(until)] = unit.handle(Event::Exited, Millis(now), Jitter(0))[..] else {
            panic!("no wake-up")
        };
        delays.push((until.0 - now) / 1000);
        now = until.0;
        assert_eq!(unit.phase(), Phase::Crashed);
        play(&mut unit, &[(now, Event::Woken), (now, Event::Spawned), (now, Event::Ready)]);
        assert_eq!(unit.phase(), Phase::Up);
    }
    assert_eq!(delays, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    // Five minutes of health forget it all.
    let healthy = now + 300_000;
    assert_eq!(
        play(&mut unit, &[(healthy, Event::Exited)]),
        format!("{healthy} Exited -> WakeAt(Millis({healthy}))\n")
    );
}

#[test]
fn a_deaf_process_is_killed_after_the_grace_period() {
    let mut unit = unit();
    play(&mut unit, &[(0, Event::Start), (1, Event::Spawned), (2, Event::Ready)]);
    let log = play(
        &mut unit,
        &[(10, Event::Stop), (4_000, Event::Woken), (30_010, Event::Woken), (30_011, Event::Woken)],
    );
    assert_eq!(
        log,
        "10 Stop -> Terminate\n10 Stop -> WakeAt(Millis(30010))\n30010 Woken -> Kill(Grace)\n"
    );
    play(&mut unit, &[(30_020, Event::Exited)]);
    assert!(unit.is_stopped());
}

#[test]
fn what_does_not_boot_in_time_is_killed_and_tried_again() {
    let mut unit = unit();
    let log = play(
        &mut unit,
        &[
            (0, Event::Start),
            (5, Event::Spawned),
            (60_005, Event::Woken),
            (60_006, Event::Ready),
            (60_010, Event::Exited),
            (60_010, Event::Woken),
        ],
    );
    assert_eq!(
        log,
        "0 Start -> Spawn\n5 Spawned -> WakeAt(Millis(60005))\n60005 Woken -> Kill(Boot)\n\
         60010 Exited -> WakeAt(Millis(60010))\n60010 Woken -> Spawn\n"
    );
}

#[test]
fn what_fails_its_health_check_is_killed_and_started_again() {
    let mut unit = unit();
    let log = play(
        &mut unit,
        &[
            (0, Event::Start),
            (5, Event::Spawned),
            (10, Event::Ready),
            (20, Event::Unhealthy),
            (21, Event::Unhealthy),
            (30, Event::Exited),
            (30, Event::Woken),
            (31, Event::Spawned),
            (40, Event::Unhealthy),
        ],
    );
    assert_eq!(
        log,
        "0 Start -> Spawn\n5 Spawned -> WakeAt(Millis(60005))\n20 Unhealthy -> Kill(Check)\n\
         30 Exited -> WakeAt(Millis(30))\n30 Woken -> Spawn\n31 Spawned -> WakeAt(Millis(60031))\n\
         40 Unhealthy -> Kill(Check)\n"
    );
}

#[test]
fn what_is_complete_is_not_restarted_and_a_stop_ends_it() {
    for first in [(2, Event::Ready), (2, Event::Woken)] {
        let mut unit = unit();
        play(&mut unit, &[(0, Event::Start), (1, Event::Spawned), first]);
        assert_eq!(play(&mut unit, &[(3, Event::Completed), (90_000, Event::Woken)]), "");
        assert_eq!(unit.phase(), Phase::Complete);
        assert_eq!(play(&mut unit, &[(90_001, Event::Stop)]), "");
        assert!(unit.is_stopped());
    }
}

#[test]
fn a_policy_that_spins_is_refused() {
    let zero = Duration::ZERO;
    assert_eq!(Policy::new(zero, zero, zero, zero, zero), Err(PolicyError::NoDelay));
    let jittered = unit().policy.delay(40, Jitter(1000));
    assert_eq!(jittered, Duration::from_secs(240));
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        Just(Event::Start),
        Just(Event::Stop),
        Just(Event::Kill),
        Just(Event::Spawned),
        Just(Event::SpawnFailed),
        Just(Event::Ready),
        Just(Event::Unhealthy),
        Just(Event::Exited),
        Just(Event::Completed),
        Just(Event::Woken),
    ]
}

proptest! {
    /// Whatever the outside does, no second child is asked for while one may be alive, and a
    /// unit that was told to stop stops once its child ends.
    #[test]
    fn never_two_children(events in prop::collection::vec((0u64..90_000, any_event(), 0u16..2000), 0..200)) {
        let (mut unit, mut now, mut pending, mut alive) = (unit(), 0, false, false);
        for (step, event, jitter) in events {
            now += step;
            // The shell only reports what can have happened.
            let possible = match event {
                Event::Spawned | Event::SpawnFailed => pending,
                Event::Exited | Event::Completed | Event::Ready | Event::Unhealthy => alive,
                Event::Start | Event::Stop | Event::Kill | Event::Woken => true,
            };
            if !possible { continue; }
            match event {
                Event::Spawned => (pending, alive) = (false, true),
                Event::SpawnFailed => pending = false,
                Event::Exited | Event::Completed => alive = false,
                _ => {}
            }
            for action in unit.handle(event, Millis(now), Jitter(jitter)) {
                if action == Action::Spawn {
                    prop_assert!(!pending && !alive, "a second child at {now}");
                    pending = true;
                }
            }
            prop_assert!(!unit.is_stopped() || (!pending && !alive));
        }
        unit.handle(Event::Stop, Millis(now), Jitter(0));
        if pending { unit.handle(Event::Spawned, Millis(now), Jitter(0)); }
        if pending || alive { unit.handle(Event::Exited, Millis(now), Jitter(0)); }
        prop_assert!(unit.is_stopped());
    }
}
