//! `tolv up` as a platform: what can be asked of a deploy can be asked of what it runs, in the same
//! words.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use rustix::process::Signal;
use serde_json::Value;
use tolv_testkit::git::git;
use tolv_testkit::{Screen, poll};

use crate::{SOON, Up, codebase, output, shop, stderr, stdout, tolv};

/// A command in the codebase.
fn here(dir: &Path, args: &[&str]) -> Command {
    let mut command = tolv();
    // No platform that somebody logged in to.
    command.args(args).current_dir(dir).env("XDG_CONFIG_HOME", dir.join(".tolv/config"));
    command
}

fn ran(dir: &Path, args: &[&str]) -> Output {
    output(&mut here(dir, args))
}

/// What a command that has to succeed prints.
#[track_caller]
fn says(dir: &Path, args: &[&str]) -> String {
    let ran = ran(dir, args);
    assert!(ran.status.success(), "{args:?}: {}{}", stdout(&ran), stderr(&ran));
    stdout(&ran)
}

#[track_caller]
fn json(dir: &Path, args: &[&str]) -> Value {
    let mut all = args.to_vec();
    all.insert(1, "--json");
    serde_json::from_str(&says(dir, &all)).unwrap()
}

#[track_caller]
fn refused(dir: &Path, args: &[&str], parts: &[&str]) {
    let ran = ran(dir, args);
    let text = stderr(&ran);
    assert_eq!(ran.status.code(), Some(1), "{args:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{args:?}: `{part}` is not in: {text}");
    }
}

#[test]
fn a_one_off_has_the_slug_the_config_and_the_words_of_a_deploy() {
    let home = codebase("web: python3 server.py\n");
    home.write("shop/.env", "GREETING=hello you\n");
    let up = Up::start(&shop(&home), &[]);
    let dir = shop(&home);
    let out = says(&dir, &["run", "--", "sh", "-c", "echo $GREETING $TOLV_RELEASE; ls"]);
    assert!(out.starts_with("hello you v1\n") && out.contains("server.py"), "{out}");
    let ended = ran(&dir, &["run", "--", "sh", "-c", "exit 7"]);
    assert_eq!(ended.status.code(), Some(7), "{}", stderr(&ended));
    assert_eq!(ran(&dir, &["run", "no-such-program"]).status.code(), Some(127));
    // Pipes, whatever goes through them.
    let mut child = here(&dir, &["run", "--env", "X=1", "--", "sh", "-c", "wc -c; echo $X"]);
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&vec![0; 3 << 20]).unwrap();
    let piped = child.wait_with_output().unwrap();
    assert_eq!(stdout(&piped), format!("{}\n1\n", 3 << 20));
    // In front of a terminal.
    let mut screen = Screen::start(&here(&dir, &["run", "python3", "-q"]));
    screen.wait_for(">>> ", 0, SOON);
    screen.type_in("import os; print(os.get_terminal_size().columns + 1)\r");
    screen.wait_for("91", 0, SOON);
    screen.type_in("exit(4)\r");
    assert_eq!(screen.wait(SOON).code(), Some(4));
    // Detached, and heard of in the log that `up` shows.
    let id = json(&dir, &["run", "--detach", "--", "sh", "-c", "echo from afar"])["id"].clone();
    up.sees("app[run.6]: from afar");
    poll(SOON, "the end of it", || {
        let run = json(&dir, &["run", "show", id.as_str().unwrap()]);
        (run["state"] == "ended" && run["status"] == 0).then_some(())
    });
}

#[test]
fn it_is_asked_and_changed_as_any_deploy_is() {
    let home = codebase("web: python3 server.py\nworker: echo working; sleep 1000\n");
    home.write(
        "shop/app.json",
        r#"{"cron": [{"name": "nightly", "schedule": "0 3 * * *", "command": "echo swept"}]}"#,
    );
    let up = Up::start(&shop(&home), &[]);
    let dir = shop(&home);
    assert_eq!(json(&dir, &["releases"])["items"][0]["number"], 1);
    // From within the codebase too.
    fs::create_dir(dir.join("sub")).unwrap();
    let names = |dir: &Path| -> Vec<String> {
        let all = json(dir, &["ps"]);
        let all = all["items"].as_array().unwrap().iter();
        all.map(|process| process["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&dir.join("sub")), ["web.1", "worker.1"]);
    says(&dir, &["scale", "web=2"]);
    assert_eq!(names(&dir), ["web.1", "web.2", "worker.1"]);
    says(&dir, &["restart", "web"]);
    assert_eq!(up.get("/").unwrap().status, 200);
    assert!(says(&dir, &["cron"]).contains("nightly"));
    assert!(says(&dir, &["cron", "run", "nightly"]).contains("swept"));
    assert!(says(&dir, &["logs", "-n", "1000"]).contains("app[worker.1]: working"));
    assert!(says(&dir, &["logs", "stats"]).contains("worker"));
    says(&dir, &["stop"]);
    assert_eq!(up.get("/").unwrap().status, 503);
    says(&dir, &["start", "-d", "local"]);
    assert_eq!(up.get("/").unwrap().status, 200);
    says(&dir, &["releases", "verify", "-d", "shop/local"]);
}

#[test]
fn what_makes_no_sense_here_says_what_does() {
    let home = codebase("web: python3 server.py\n");
    let up = Up::start(&shop(&home), &[]);
    let dir = shop(&home);
    refused(&dir, &["config", "set", "A=1"], &["its config is a file", ".env"]);
    refused(&dir, &["deploys", "create", "staging"], &["one of it", "tolv serve"]);
    refused(&dir, &["rollback"], &["no release before v1"]);
    let destroy = ["destroy", "shop/local", "--confirm", "shop/local"];
    refused(&dir, &destroy, &["it goes when that ends", "stop `tolv up`"]);
    assert!(says(&dir, &["whoami"]).contains("shop"));
    assert!(says(&dir, &["apps"]).contains("shop"));
    refused(&dir, &["promote", "local"], &["is not promoted", "push the commit"]);
    drop(up);
    refused(&dir, &["ps", "-d", "local"], &["no `tolv up` runs here", "tolv up"]);
    refused(&dir, &["ps"], &["log in first"]);
}

#[test]
fn each_start_is_a_release_of_one_ledger_and_forgets_what_was_set_by_hand() {
    let home = codebase("web: python3 server.py\n");
    let dir = shop(&home);
    home.write(
        "shop/app.json",
        r#"{"env": {"KEY": {"generator": "secret"}, "COLOUR": "blue", "MUST": {}}}"#,
    );
    let refused = output(tolv().arg("up").arg(&dir).args(["--listen", "127.0.0.1:0"]));
    assert_eq!(refused.status.code(), Some(1));
    let text = stderr(&refused);
    assert!(text.contains("`MUST`") && text.contains(".env`: MUST=…"), "{text}");
    home.write("shop/.env", "MUST=1\nOLD=1\n");
    let mut first = Up::start(&dir, &[]);
    let before = first.text("/env");
    assert!(before.contains("COLOUR=blue") && before.contains("OLD=1"), "{before}");
    says(&dir, &["scale", "web=2"]);
    first.tolv.signal(Signal::KILL);
    drop(first);
    home.write("shop/.env", "MUST=2\n");
    let second = Up::start(&dir, &[]);
    second.sees("Release v2 is up");
    let after = second.text("/env");
    let key = |text: &str| text.lines().find(|line| line.starts_with("KEY=")).map(str::to_owned);
    assert!(key(&before).is_some_and(|line| line.len() == "KEY=".len() + 64), "{before}");
    assert_eq!(key(&before), key(&after), "a generated secret is made once");
    assert!(after.contains("COLOUR=blue") && after.contains("MUST=2"), "{after}");
    assert!(!after.contains("OLD="), "{after}");
    assert_eq!(json(&dir, &["ps"])["items"].as_array().unwrap().len(), 1);
    let releases = json(&dir, &["releases"]);
    let outcomes: Vec<_> = releases["items"].as_array().unwrap().iter().collect();
    assert_eq!(outcomes.len(), 2, "{releases}");
    says(&dir, &["releases", "verify"]);
    // A release of an earlier start is one to go back to.
    says(&dir, &["rollback", "v1"]);
    assert!(second.text("/env").contains("OLD=1"));
}

#[test]
fn several_deploys_are_told_apart() {
    let home = codebase("web: python3 server.py\n");
    let dir = shop(&home);
    tolv_testkit::git::commit(&dir);
    let url = "http://127.0.0.1:9/git/shop/staging.git";
    git(&dir, &["remote", "add", "staging", url]);
    let up = Up::start(&dir, &[]);
    let url = says(&dir, &["open", "-d", "local"]);
    assert!(url.starts_with("http://shop.localhost:"), "{url}");
    let deploys = json(&dir, &["deploys", "-d", "local"]);
    assert!(deploys["items"][0]["commit"].as_str().is_some_and(|c| c.len() >= 40), "{deploys}");
    let deploy = ["deploy", "--allow-dirty", "-d", "local"];
    refused(&dir, &deploy, &["its code is the folder's", "--watch"]);
    refused(&dir, &["ps"], &["`shop/staging`, `shop/local`", "-d local"]);
    assert!(says(&dir, &["ps", "-d", "local"]).contains("web.1"));
    refused(&dir, &["ps", "-d", "shop/staging"], &["127.0.0.1:9"]);
    // The one called `tolv` is meant, whether or not something runs here.
    git(&dir, &["remote", "rename", "staging", "tolv"]);
    refused(&dir, &["ps"], &["127.0.0.1:9"]);
    drop(up);
}

#[test]
fn nobody_else_reaches_it() {
    let home = codebase("web: python3 server.py\n");
    let up = Up::start(&shop(&home), &[]);
    let mode = |path: &str| fs::metadata(shop(&home).join(path)).unwrap().permissions().mode();
    assert_eq!(mode(".tolv/api") & 0o777, 0o700);
    assert_eq!(mode(".tolv/secret-key") & 0o777, 0o600);
    // Not over the network: there is no API among its hosts.
    let answer = up.text("/v1/whoami");
    assert!(answer.starts_with("web.1"), "{answer}");
}

#[test]
fn the_state_of_a_service_is_not_begun_anew() {
    let home = codebase("web: python3 server.py\n");
    let state = home.path().join("state");
    let with = |command: &mut Command| {
        output(command.env("TOLV_HOME", &state).env("TOLV_LISTEN", "127.0.0.1:0"))
    };
    let up = Up::start_with(tolv().arg("up").arg(shop(&home)).env("TOLV_HOME", &state), SOON);
    drop(up);
    let ended = with(tolv().args(["serve", "--http", "127.0.0.1:0"]));
    assert_eq!(ended.status.code(), Some(1));
    assert!(stderr(&ended).contains("is that of a `tolv up`"), "{}", stderr(&ended));
}
