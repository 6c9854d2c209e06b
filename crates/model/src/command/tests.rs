use std::process::Command;

use proptest::prelude::*;

use super::*;

/// What `sh -c text` prints with `PORT=5000`.
fn sh(text: &str) -> String {
    let output = Command::new("sh")
        .args(["-c", text])
        .env("PORT", "5000")
        .env("EMPTY", "")
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_simple_command_replaces_the_shell() {
    for simple in [
        "node server.js --port=$PORT",
        "bin/web",
        "  gunicorn -b 0.0.0.0:$PORT app:app  ",
        "node -e 'console.log(\"x\") && 1; (2)'",
        "echo \"a;b\" # a comment; with | signs",
        "printf '%s\\n' a\\ b %d $$ ${PORT} ~",
    ] {
        assert!(script(simple).trim_start().starts_with("exec "), "{simple}");
    }
    assert_eq!(script("FOO=\"a b\" BAR=$X node x"), "FOO=\"a b\" BAR=$X exec node x");
}

#[test]
fn whatever_may_be_more_keeps_its_shell() {
    for compound in [
        "a && b",
        "a; b",
        "a | b",
        "a &",
        "(a)",
        "a\nb",
        "{ a; }",
        "cd x",
        "export A=1",
        "A=1",
        "if true; then a; fi",
        "$CMD arg",
        "\"$CMD\" arg",
        "echo $(date)",
        "echo `date`",
        "echo \"$(date)\"",
        "! a",
        ". ./env",
        "a > file",
        "2>&1 a",
        "exec a",
        "echo 'open",
        "echo \"open",
        "a\\",
        "",
        "# only a comment",
        "time sleep 1",
        "[[ a ]]",
        "a(){ b;}",
    ] {
        assert_eq!(script(compound), compound);
    }
}

#[test]
fn a_real_shell_does_the_same_with_and_without() {
    for (command, want) in [
        (r#"FOO="a b" sh -c 'echo "$FOO" "$@"' x --port=$PORT"#, "a b --port=5000\n"),
        ("true && echo yes || echo no", "yes\n"),
        ("printf '%s|%%|%s' a\\ b 'c#d'", "a b|%|c#d"),
        (r#"printf %s "x # y" \# '\n'"#, "x # y#\\n"),
        (r#"printf %s\\n "a\"b\$PORT""#, "a\"b$PORT\n"),
        ("echo one; echo two", "one\ntwo\n"),
        ("FOO=1 BAR=$PORT env -u PWD sh -c 'echo $FOO$BAR'", "15000\n"),
        ("sh -c 'test $PPID = $0 || echo other' $$", "other\n"),
        ("echo é 'ü'", "é ü\n"),
    ] {
        assert_eq!(sh(&script(command)), want, "{command}");
    }
    // The same process before and after: the shell is gone.
    assert_eq!(sh(&script("sh -c 'test $$ = $0 && echo same' $$")), "same\n");
}

proptest! {
    #[test]
    fn only_exec_is_added(command in "[ a-zA-Z0-9=$'\"\\\\;&|()<>`#~*{}!\n\u{e9}-]{0,40}") {
        let script = script(&command);
        prop_assert!(script == command || script.replacen("exec ", "", 1) == command);
    }

    #[test]
    fn plain_words_arrive_in_order(words in prop::collection::vec("[a-z0-9=%,:./é-]{1,8}", 1..6)) {
        let command = format!("printf %s\\\\n x{}", words.iter().map(|w| format!(" '{w}'")).collect::<String>());
        prop_assert!(script(&command).starts_with("exec "));
    }
}
