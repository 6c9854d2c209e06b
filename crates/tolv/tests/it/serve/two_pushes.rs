//! Two people push at once: no commit of either is lost unseen.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;

use tolv_testkit::Tolv;

use super::interrupt::PHASE;
use super::*;

/// A second clone of the codebase, which pushes to the same app.
fn clone(shop: &Shop) -> PathBuf {
    let dir = shop.serve.folder("other");
    git::git(&dir, &["clone", "-q", &shop.dir.to_string_lossy(), "."]);
    let url = git::git(&shop.dir, &["remote", "get-url", "tolv"]);
    git::git(&dir, &["remote", "add", "tolv", &url]);
    let helpers = git::git(&shop.dir, &["config", "--local", "--get-regexp", "^credential"]);
    for line in helpers.lines() {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        git::git(&dir, &["config", "--local", "--add", name, value]);
    }
    dir
}

fn change(dir: &Path, name: &str) -> String {
    std::fs::write(dir.join(name), name).unwrap();
    git::commit(dir)
}

/// What a branch of the deploy is on the platform.
fn branch(shop: &Shop, name: &str) -> String {
    let dir = shop.serve.state().join("git/shop.git");
    git::git(&dir, &["rev-parse", &format!("refs/namespaces/production/refs/heads/{name}")])
}

/// A script of git that runs after the refs of the platform were read, and before anything is sent.
fn pre_push(dir: &Path, line: &str) {
    let hook = dir.join(".git/hooks/pre-push");
    std::fs::write(&hook, format!("#!/bin/sh\n{line}\n")).unwrap();
    std::fs::set_permissions(&hook, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_push_does_not_undo_one_that_it_has_not_seen() {
    let shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main", "main:kept"]);
    let other = clone(&shop);
    let ours = change(&shop.dir, "ours.txt");
    change(&other, "theirs.txt");
    for name in ["main", "kept"] {
        let here = shop.dir.display();
        pre_push(&other, &format!("unset GIT_DIR; git -C '{here}' push tolv main:{name} >&2"));
        let ran = push_from(&shop.serve, &other, &["tolv", &format!("main:{name}")]);
        assert!(!ran.status.success(), "{}", ran.err);
        assert!(ran.err.contains("(fetch first)"), "{}", ran.err);
        assert!(ran.err.contains("moved by somebody else"), "{}", ran.err);
        assert_eq!(branch(&shop, name), ours, "{name}");
    }
    // Who has what the other pushed goes on.
    std::fs::remove_file(other.join(".git/hooks/pre-push")).unwrap();
    git::git(
        &other,
        &["pull", "-q", "--no-edit", "--no-rebase", &shop.dir.to_string_lossy(), "main"],
    );
    let ran = push_from(&shop.serve, &other, &["tolv", "main"]);
    assert!(ran.status.success(), "{}", ran.err);
    assert_eq!(branch(&shop, "main"), git::git(&other, &["rev-parse", "HEAD"]));
}

#[test]
fn a_push_that_waits_for_another_is_held_against_what_that_one_made() {
    let gate = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = gate.local_addr().unwrap().to_string();
    let settings = [("TOLV_HOST_SERVICES", &*address)];
    let shop = Shop::new("web: python3 server.py\nrelease: python3 phase.py\n", &settings);
    shop.change("phase.py", PHASE);
    shop.pushed(&["tolv", "main"]);
    let other = clone(&shop);
    shop.tolv(&["config", "set", "--no-release-phase", &format!("GATE={address}")]);
    // The branch moves when the first has succeeded: the second is of what was before.
    let ours = change(&shop.dir, "ours.txt");
    let first = Tolv::start(&mut push_command(&shop.serve, &shop.dir, &["tolv", "main"]));
    let (held, _) = gate.accept().unwrap();
    change(&other, "theirs.txt");
    let second = Tolv::start(&mut push_command(&shop.serve, &other, &["tolv", "main"]));
    second.wait_for_line(|line| line.contains("-----> Operation"), SOON);
    drop(held);
    first.wait_for_line(|line| line.contains("main -> main"), SOON);
    second.wait_for_line(|line| line.contains("moved by somebody else"), SOON);
    assert_eq!(branch(&shop, "main"), ours);
    // One's own next commit, pushed while the one before it is deployed, is no other's.
    change(&shop.dir, "more.txt");
    let first = Tolv::start(&mut push_command(&shop.serve, &shop.dir, &["tolv", "main"]));
    let (held, _) = gate.accept().unwrap();
    let newest = change(&shop.dir, "newest.txt");
    let second = Tolv::start(&mut push_command(&shop.serve, &shop.dir, &["tolv", "main"]));
    second.wait_for_line(|line| line.contains("-----> Operation"), SOON);
    drop(held);
    drop(gate.accept().unwrap());
    first.wait_for_line(|line| line.contains("main -> main"), SOON);
    second.wait_for_line(|line| line.contains("main -> main"), SOON);
    assert_eq!(branch(&shop, "main"), newest);
}
