//! `tolv stack`: made of this machine's packages, listed, shown.

use serde_json::Value;
use tolv_testkit::Home;

use crate::{codebase, output, shop, stderr, stdout, tolv};

#[test]
fn a_stack_is_made_listed_and_shown() {
    let home = Home::new();
    let folder = home.path().join("stacks");
    let run = |args: &[&str]| {
        let ended = output(tolv().arg("stack").args(args).arg("--stacks").arg(&folder));
        (ended.status.code(), stdout(&ended), stderr(&ended))
    };
    assert!(run(&["list"]).1.contains("tolv stack make"));
    assert!(!folder.exists(), "a look makes nothing");
    let (code, said, told) = run(&["make"]);
    assert_eq!(code, Some(0), "{told}");
    assert!(said.starts_with("host@") && told.contains("packages,"), "{said}{told}");
    let id = said.trim();
    assert!(run(&["list"]).1.starts_with(id));
    let (_, shown, _) = run(&["info", id]);
    assert!(shown.contains("\n  libc6 ") && shown.contains("builds see in addition"), "{shown}");
    let json: Value = serde_json::from_str(&run(&["info", "host", "--json"]).1).unwrap();
    assert!(json["run"]["packages"].as_array().unwrap().len() > 20, "{json}");
    assert!(run(&["info", "--package", "bash"]).1.contains("bash"));
    let (code, _, told) = run(&["info", "host@000000000000"]);
    assert_eq!(code, Some(1));
    assert!(
        told.contains("no stack `host@000000000000`") && told.contains("tolv stack list"),
        "{told}"
    );
    let (code, _, told) = run(&["make", "debian:99"]);
    assert_eq!(code, Some(1));
    assert!(told.contains("no stack `debian:99`"), "{told}");
    let ended = output(tolv().args(["stack", "make", "Not A Name"]));
    assert_eq!(ended.status.code(), Some(2), "{}", stderr(&ended));
}

#[test]
fn a_stack_that_cannot_be_used_is_told() {
    let home = codebase("web: python3 server.py\n");
    let stacks = home.path().join("stacks");
    let build = |stack: &str, level: &str| {
        let mut command = tolv();
        command.arg("build").arg(shop(&home)).args(["--json", "--sandbox", level]);
        output(command.env("TOLV_STACK", stack).env("TOLV_STACKS", &stacks))
    };
    // It cannot hide the machine: the build goes on with it.
    let ended = build("host", "none");
    let told = stderr(&ended);
    assert!(ended.status.success(), "{told}");
    assert!(
        told.contains("stack host (TOLV_STACK) needs") && told.contains("level none"),
        "{told}"
    );
    let built: Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert!(built["stack"].is_null() && !stacks.exists(), "{built}");

    let ended = build("debian:99", "auto");
    let told = stderr(&ended);
    assert!(!ended.status.success() && told.contains("no stack `debian:99`"), "{told}");
    let ended = build("Not A Name", "auto");
    let told = stderr(&ended);
    assert!(!ended.status.success() && told.contains("TOLV_STACK: "), "{told}");
}
