use super::*;
use crate::Home;

#[test]
fn the_same_files_make_the_same_commit() {
    let ids = [Home::new(), Home::new()].map(|home| {
        home.write("Procfile", "web: sh -c true\n");
        let id = commit(home.path());
        assert_eq!(git(home.path(), &["status", "--porcelain"]), "");
        id
    });
    assert_eq!(ids[0].len(), 40);
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn a_failure_says_what_git_said() {
    let home = Home::new();
    let failure = std::panic::catch_unwind(|| git(home.path(), &["log"])).unwrap_err();
    let text = failure.downcast::<String>().unwrap();
    assert!(text.contains("not a git repository"), "{text}");
}
