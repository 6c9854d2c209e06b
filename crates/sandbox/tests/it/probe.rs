//! What the machine is said to give.

use tolv_sandbox::{Choice, Error, Level, Machine, NetworkChoice, Reason};

use crate::spawner;

#[test]
fn the_best_level_is_chosen_and_never_none_by_itself() {
    let mut machine = Machine::probe(&spawner(), NetworkChoice::Auto).unwrap();
    let (level, _) = machine.choose(Choice::Auto).unwrap();
    assert_ne!(level, Level::None);
    for better in Level::ALL.into_iter().filter(|better| *better < level) {
        assert!(machine.levels[&better].is_some(), "{better} can be had");
    }
    let no = Reason::new("mount proc", 1);
    machine.levels.insert(Level::Strict, Some(no.clone()));
    let strict = machine.choose(Choice::Exactly(Level::Strict)).unwrap_err();
    assert_eq!(
        strict.to_string(),
        "sandbox level strict cannot be had here: mount proc: Operation not permitted (os error 1)"
    );
    for level in [Level::User, Level::Landlock] {
        machine.levels.insert(level, Some(no.clone()));
    }
    assert!(matches!(machine.choose(Choice::Auto), Err(Error::NoLevel(_))));
    assert_eq!(machine.choose(Choice::Exactly(Level::None)).unwrap().0, Level::None);
}

#[test]
fn root_gets_strict_and_everybody_gets_a_process_group() {
    let machine = Machine::probe(&spawner(), NetworkChoice::Auto).unwrap();
    assert_eq!(machine.levels[&Level::None], None);
    if rustix::process::geteuid().is_root() {
        assert_eq!(machine.levels[&Level::Strict], None, "{:?}", machine.levels);
    }
    let lines = machine.describe();
    for (level, line) in Level::ALL.iter().zip(&lines) {
        assert!(line.starts_with(level.as_str()), "{lines:?}");
    }
}
