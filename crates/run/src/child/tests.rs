use super::*;

#[test]
fn a_failed_exec_is_the_commands_fault_or_the_machines() {
    let found = |code| Reason::CommandNotFound(Exit::Code(code));
    assert_eq!(exec_failure(libc::ENOENT, "exec web"), found(127));
    assert_eq!(exec_failure(libc::EACCES, "exec web"), found(126));
    assert_eq!(exec_failure(libc::ENOEXEC, "exec web"), found(126));
    match exec_failure(libc::ENOENT, "chdir /app") {
        Reason::NotStarted(why) => {
            assert!(why.why.starts_with("chdir /app: No such file"), "{why}")
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(exec_failure(libc::ENOMEM, "exec web"), Reason::NotStarted(_)));
}
