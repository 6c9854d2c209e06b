//! The command line itself.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use tolv_testkit::Home;

use crate::{clean, output, stderr, stdout, tolv};

#[test]
fn help_teaches_with_examples() {
    let text = stdout(&output(tolv().arg("--help")));
    for word in ["up", "build", "status", "completions", "tolv up --watch"] {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
    assert!(!text.contains("static-server") && !text.contains("spawner"), "{text}");
    let text = stdout(&output(tolv().args(["up", "--help"])));
    for word in
        ["--formation", "--listen", "--env-file", "--watch", "--sandbox", "--json", "Examples:"]
    {
        assert!(text.contains(word), "`{word}` is not in:\n{text}");
    }
}

#[test]
fn usage_errors_end_with_2_and_say_what_was_wrong() {
    for (args, text) in [
        (&["up", "--formation", "web=x"][..], "web=x"),
        (&["up", "--formation", "we!b=1"], "we!b"),
        (&["up", "--listen", "127.0.0.1:99999"], "99999"),
        (&["up", "--listen", "nowhere"], "nowhere"),
        (&["up", "--sandbox", "total"], "total"),
        (&["up", "a", "b"], "'b'"),
        (&["dance"], "dance"),
        (&[], "Usage"),
    ] {
        let ended = output(tolv().args(args));
        assert_eq!(ended.status.code(), Some(2), "{args:?}: {}", stderr(&ended));
        assert!(stderr(&ended).contains(text), "{args:?}: {}", stderr(&ended));
        assert_eq!(stdout(&ended), "", "{args:?}");
    }
}

#[test]
fn completions_are_printed_for_each_shell() {
    for (shell, mark) in
        [("bash", "_tolv()"), ("zsh", "#compdef tolv"), ("fish", "complete -c tolv")]
    {
        let text = stdout(&output(tolv().args(["completions", shell])));
        assert!(text.contains(mark), "{shell}");
    }
}

#[test]
fn status_names_every_level_and_the_cgroups() {
    let ended = output(tolv().arg("status"));
    assert!(ended.status.success(), "{}", stderr(&ended));
    let text = stdout(&ended);
    for word in ["strict", "user", "landlock", "none", "cgroups"] {
        assert!(text.contains(word), "{text}");
    }
    let ended = output(tolv().args(["status", "--json"]));
    let value: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    let machine = &value;
    for level in ["strict", "user", "landlock", "none"] {
        assert!(machine["levels"].get(level).is_some(), "{value}");
    }
    assert!(machine["cgroups"]["kind"].is_string(), "{value}");
    assert_eq!(machine["levels"]["none"], serde_json::Value::Null, "{value}");
}

/// The program where everybody can execute it, and a command that runs it as an ordinary user.
pub(crate) fn as_nobody(home: &Home) -> Command {
    let program = home.path().join("tolv");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_tolv"), &program).unwrap();
    }
    for path in [home.path(), &program] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    if !rustix::process::geteuid().is_root() {
        let mut command = Command::new(program);
        clean(&mut command);
        return command;
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(program);
    command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", home.path());
    clean(&mut command);
    command
}

#[test]
fn status_as_an_ordinary_user_says_why_strict_is_not_to_be_had() {
    let home = Home::new();
    let ended = output(as_nobody(&home).arg("status"));
    assert!(ended.status.success(), "{}", stderr(&ended));
    let text = stdout(&ended);
    let strict = text.lines().find(|line| line.trim_start().starts_with("strict")).unwrap();
    let auto = text.lines().find(|line| line.starts_with("auto")).unwrap();
    assert!(!auto.contains("strict") && !auto.contains("none"), "{text}");
    assert!(strict.contains("no") && strict.contains("Operation not permitted"), "{text}");
    let state = home.path().join("state");
    fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(65534), Some(65534)).ok();
    let mut command = as_nobody(&home);
    command.args(["up", "--sandbox", "strict"]).arg(home.path()).env("TOLV_HOME", state);
    let refused = output(&mut command);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        stderr(&refused).contains("sandbox level strict cannot be had here"),
        "{}",
        stderr(&refused)
    );
}
