use proptest::prelude::*;

use super::*;

fn load() -> impl Strategy<Value = Load> {
    (0_usize..5, any::<bool>(), any::<bool>()).prop_map(|(in_flight, quarantined, tried)| Load {
        in_flight,
        quarantined,
        tried,
    })
}

proptest! {
    #[test]
    fn the_choice_is_the_least_loaded_of_the_best(
        loads in prop::collection::vec(load(), 0..8), turn: usize,
    ) {
        let Some(chosen) = choose(&loads, turn) else {
            prop_assert!(loads.iter().all(|load| load.tried));
            return Ok(());
        };
        let chosen = loads[chosen];
        prop_assert!(!chosen.tried);
        for other in loads.iter().filter(|load| !load.tried) {
            prop_assert!(!chosen.quarantined || other.quarantined);
            if chosen.quarantined == other.quarantined {
                prop_assert!(chosen.in_flight <= other.in_flight);
            }
        }
    }

    #[test]
    fn equal_candidates_take_turns(count in 1_usize..8, start in 0_usize..1000) {
        let loads = vec![Load { in_flight: 1, quarantined: false, tried: false }; count];
        let mut seen: Vec<_> = (0..count).filter_map(|n| choose(&loads, start + n)).collect();
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..count).collect::<Vec<_>>());
    }
}
