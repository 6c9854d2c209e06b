use super::*;

fn ended(code: Option<i32>, signal: Option<i32>, oom_kills: u64) -> Option<Ended> {
    let out_of_memory = oom_kills > 0;
    let exited = Exited { code, signal, written: Written::default() };
    Some(Ended { exited, oom_kills, out_of_memory, memory_limit: 0 })
}

fn exited(code: Option<i32>, signal: Option<i32>) -> Option<Exited> {
    ended(code, signal, 0).map(|ended| ended.exited)
}

#[test]
fn an_end_is_what_the_shim_says_and_a_dead_shim_was_killed() {
    assert_eq!(exit_of(exited(Some(3), None)), Exit::Code(3));
    assert_eq!(exit_of(exited(None, Some(15))), Exit::Signal(15));
    assert_eq!(exit_of(exited(None, None)), Exit::Signal(9));
    assert_eq!(exit_of(None), Exit::Signal(9));
}

#[test]
fn the_reason_follows_from_the_end() {
    assert_eq!(reason(ended(Some(1), None, 0)), Reason::Exited(Exit::Code(1)));
    assert_eq!(reason(ended(Some(127), None, 0)), Reason::CommandNotFound(Exit::Code(127)));
    assert_eq!(reason(ended(Some(126), None, 0)), Reason::CommandNotFound(Exit::Code(126)));
    // 127 as a signal's status would be something else.
    assert_eq!(reason(ended(None, Some(11), 0)), Reason::Exited(Exit::Signal(11)));
    // A shell whose child was killed may well end by itself.
    assert_eq!(reason(ended(Some(137), None, 1)), Reason::OutOfMemory(Exit::Code(137)));
    assert_eq!(reason(None), Reason::Exited(Exit::Signal(9)));
}
