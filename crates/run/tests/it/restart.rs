//! Processes that are replaced though nothing changed, and those that are brought back.

use std::collections::BTreeMap;

use tolv_model::operation::Selection;
use tolv_run::ProcessState;
use tolv_testkit::poll;

use crate::bed::{Bed, SOON, best, each_level};

/// Process → its number among all that ever ran.
fn ids(bed: &Bed) -> BTreeMap<String, u64> {
    bed.endpoints().into_iter().map(|process| (process.process.to_string(), process.id)).collect()
}

#[test]
fn a_restart_replaces_what_was_chosen_and_nothing_else() {
    each_level(|level| {
        let bed = Bed::new(level);
        let types = [("web", "perl web.pl", 2), ("worker", "sleep 1000", 1)];
        let none = bed.runtime().block_on(bed.engine().restart(&Selection::All)).unwrap();
        assert!(none.started.is_empty(), "nothing was brought up yet");
        bed.converge(bed.target(1, &types)).unwrap();
        for (selection, wanted) in [
            (Selection::One("web.2".parse().unwrap()), &["web.2"][..]),
            (Selection::Type("worker".parse().unwrap()), &["worker.1"]),
            (Selection::All, &["web.1", "web.2", "worker.1"]),
        ] {
            let before = ids(&bed);
            bed.runtime().block_on(bed.engine().restart(&selection)).unwrap();
            let after = poll(SOON, "the old ones to be gone", || {
                Some(ids(&bed)).filter(|_| bed.endpoints().len() == 3)
            });
            let changed: Vec<_> =
                after.iter().filter(|(name, id)| before[*name] != **id).map(|(n, _)| n).collect();
            assert_eq!(changed, wanted, "{selection:?}");
        }
        // It is still what is wanted: a rollout to the same changes nothing.
        let before = ids(&bed);
        bed.converge(bed.target(1, &types)).unwrap();
        assert_eq!(ids(&bed), before);
    });
}

#[test]
fn what_cannot_start_keeps_nothing_else_down() {
    let bed = Bed::with(best(), |settings| {
        settings.timing.back_off = SOON;
        settings.timing.back_off_max = SOON;
    });
    let target = bed.target(1, &[("web", "perl web.pl", 1), ("worker", "exit 3", 1)]);
    assert!(bed.converge(target.clone()).is_err(), "a release of it fails");
    assert!(bed.endpoints().is_empty());
    bed.runtime().block_on(bed.engine().restore(target)).unwrap();
    let web = bed.endpoint("web.1");
    assert_eq!((web.state, web.routed), (ProcessState::Up, true));
    // It is tried again, as one that crashed.
    bed.wait_for("worker.1", ProcessState::Crashed, 1);
}
