use super::*;
use crate::fixture::plan;

/// A board with these processes, by id from 1, and what each of them is told.
fn board(names: &[&str]) -> (Board, Vec<mpsc::UnboundedReceiver<Command>>) {
    let board = Board::new();
    let add = |name: &&str| board.add(board.next_id(), &plan(name, "x"), Kind::Formation).unwrap();
    let commands = names.iter().map(add).collect();
    (board, commands)
}

fn listed(board: &Board) -> Vec<(String, u64)> {
    let endpoints = board.subscribe().borrow().clone();
    endpoints.processes.iter().map(|p| (p.process.to_string(), p.id)).collect()
}

fn told(commands: &mut mpsc::UnboundedReceiver<Command>) -> Vec<Command> {
    std::iter::from_fn(|| commands.try_recv().ok()).collect()
}

#[test]
fn processes_are_listed_by_name_and_then_by_age() {
    let (board, _commands) = board(&["worker.1", "web.10", "web.2", "web.10"]);
    let wanted = [("web.2", 3), ("web.10", 2), ("web.10", 4), ("worker.1", 1)];
    assert_eq!(listed(&board), wanted.map(|(name, id)| (name.to_owned(), id)));
    let first = board.subscribe().borrow().processes[0].clone();
    assert_eq!((first.state, first.routed, first.pid), (ProcessState::Starting, false, None));
    board.remove(2);
    board.remove(2);
    assert_eq!(listed(&board).len(), 3);
}

#[test]
fn others_hear_of_a_change_and_of_nothing_else() {
    let (board, _commands) = board(&["web.1"]);
    let mut seen = board.subscribe();
    board.update(1, |process| process.state = ProcessState::Up);
    assert!(seen.has_changed().unwrap());
    assert_eq!(seen.borrow_and_update().processes[0].state, ProcessState::Up);
    board.update(1, |process| process.state = ProcessState::Up);
    board.update(9, |process| process.state = ProcessState::Down);
    board.remove(9);
    assert!(!seen.has_changed().unwrap());
}

#[test]
fn a_switch_moves_the_requests_and_says_who_had_them() {
    let (board, _commands) = board(&["web.1", "worker.1", "web.1", "worker.1"]);
    assert_eq!(board.switch(&BTreeSet::from([1, 2])), []);
    for id in 1..=4 {
        board.update(id, |process| process.state = ProcessState::Up);
    }
    let web = |board: &Board| -> Vec<u64> {
        board.subscribe().borrow().web().map(|process| process.id).collect()
    };
    assert_eq!(web(&board), [1]);
    // A worker has no requests to finish.
    let before = board.switch(&BTreeSet::from([3, 4]));
    assert_eq!(before.iter().map(|process| process.id).collect::<Vec<_>>(), [1]);
    assert!(before[0].routed);
    assert_eq!(web(&board), [3]);
    assert_eq!(board.switch(&BTreeSet::from([3, 4])), []);
    board.update(3, |process| process.state = ProcessState::Crashed);
    assert_eq!(web(&board), [0_u64; 0]);
}

#[test]
fn who_was_told_to_stop_is_no_part_of_the_formation_any_more() {
    let (board, mut commands) = board(&["web.1", "web.2"]);
    let _one_off = board.add(board.next_id(), &plan("run.1", "x"), Kind::OneOff).unwrap();
    let current = |board: &Board| -> Vec<u64> {
        board.current().into_iter().map(|current| current.id).collect()
    };
    assert_eq!(current(&board), [1, 2]);
    assert_eq!(listed(&board).len(), 2);
    board.tell(1, Command::Keep);
    assert_eq!(current(&board), [1, 2]);
    board.tell(1, Command::Stop);
    board.tell(7, Command::Stop);
    assert_eq!(current(&board), [2]);
    assert_eq!(told(&mut commands[0]), [Command::Keep, Command::Stop]);
    assert_eq!(told(&mut commands[1]), []);
}

#[test]
fn the_end_is_told_to_everyone_and_nobody_starts_after_it() {
    let (board, mut commands) = board(&["web.1", "worker.1"]);
    let mut one_off = board.add(board.next_id(), &plan("run.1", "x"), Kind::OneOff).unwrap();
    // Gone before it was taken off.
    drop(commands.remove(1));
    assert!(!board.is_ending());
    board.end(Command::Stop);
    assert!(board.is_ending());
    assert!(board.add(board.next_id(), &plan("web.2", "x"), Kind::Formation).is_none());
    board.end(Command::Kill);
    assert_eq!(told(&mut commands[0]), [Command::Stop, Command::Kill]);
    assert_eq!(told(&mut one_off), [Command::Stop, Command::Kill]);
    assert!(board.current().is_empty());
}
