//! `git push` as git users know it.

use super::*;

#[test]
fn only_the_deploys_branch_is_built() {
    let shop = Shop::site("one", &[]);
    let said = shop.pushed(&["tolv", "main:feature"]);
    assert!(!said.contains("Release"), "{said}");
    assert_eq!(shop.get("shop.localhost", "/").unwrap().status, 503);
    shop.pushed(&["tolv", "main"]);
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    git::git(&shop.dir, &["tag", "v1.0"]);
    let said = shop.pushed(&["tolv", "v1.0"]);
    assert!(!said.contains("Release"), "{said}");
    let again = shop.pushed(&["tolv", "main"]);
    assert!(again.contains("Everything up-to-date"), "{again}");
    assert_eq!(shop.tolv(&["releases"]).matches("Deploy").count(), 1);
}

#[test]
fn another_codebase_is_refused_unless_it_is_meant() {
    let shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    let other = shop.serve.folder("other");
    std::fs::write(other.join("index.html"), "other").unwrap();
    std::fs::write(other.join("extra.txt"), "x").unwrap();
    git::commit(&other);
    let url = format!("{}/git/shop/production.git", shop.serve.url());
    // The helper is set for the first codebase only.
    let helper = git::git(&shop.dir, &["config", "--get-regexp", "credential.*helper"]);
    let (key, value) = helper.split_once(' ').unwrap();
    git::git(&other, &["config", key, value]);
    let ran = push_from(&shop.serve, &other, &["--force", &url, "main"]);
    assert!(!ran.status.success(), "{}", ran.err);
    assert!(ran.err.contains("another codebase"), "{}", ran.err);
    assert!(ran.err.contains("new-root"), "{}", ran.err);
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    let ran = push_from(&shop.serve, &other, &["--force", "-o", "new-root", &url, "main"]);
    assert!(ran.status.success(), "{}", ran.err);
    assert_eq!(shop.text("shop.localhost", "/"), "other");
}

#[test]
fn a_build_that_fails_fails_the_push_and_moves_nothing() {
    let shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    shop.change("Procfile", "web: one\nweb: two\n");
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success());
    assert!(ran.err.contains("Procfile"), "{}", ran.err);
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    assert!(!shop.tolv(&["releases"]).contains("v2"), "no release of what was not built");
    // The ref has not moved: the same push is tried again, not up to date.
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success(), "{}", ran.err);
}

#[test]
fn whoever_goes_away_does_not_stop_the_deploy() {
    let shop = Shop::new("web: python3 server.py\nrelease: python3 slow.py\n", &[]);
    let script = "import os, time\n\
        print('phase begins', flush=True)\n\
        while not os.path.exists('/tmp/never') and time.time() < float(os.environ['UNTIL']):\n    \
            time.sleep(0.02)\n";
    shop.change("slow.py", script);
    let until = std::time::SystemTime::now() + std::time::Duration::from_secs(6);
    let until = until.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    shop.tolv(&["config", "set", &format!("UNTIL={until}")]);
    let mut push = tolv_testkit::Tolv::start(&mut push_command(
        &shop.serve,
        &shop.dir,
        &["--progress", "tolv", "main"],
    ));
    push.wait_for_line(|line| line.contains("phase begins"), SOON);
    // It has said how to find it again.
    let lines = push.lines();
    let said = lines.iter().find_map(|line| line.text.split_once("-----> Operation ")).unwrap();
    let id = said.1.split(':').next().unwrap();
    let operations = shop.json(&["operations"]);
    let newest = &operations["items"][0];
    assert_eq!((&newest["id"], &newest["state"]), (&id.into(), &"running".into()), "{operations}");
    push.signal(rustix::process::Signal::KILL);
    push.wait(SOON);
    poll(SOON, "the release is there", || {
        shop.get("shop.localhost", "/").ok().filter(|answer| answer.status == 200)
    });
    let head = git::git(&shop.dir, &["rev-parse", "HEAD"]);
    poll(SOON, "the branch has moved", || {
        let up_to_date = shop.push(&["tolv", "main"]);
        (up_to_date.status.success() && up_to_date.err.contains("up-to-date")).then_some(())
    });
    assert!(shop.tolv(&["releases"]).contains(&head[..7]));
}

#[test]
fn wrong_tokens_are_refused_before_anything_is_read() {
    let shop = Shop::site("one", &[]);
    let url = format!(
        "http://x:tolv_wrong@127.0.0.1{}/git/shop/production.git",
        shop.serve.url().strip_prefix("http://127.0.0.1").unwrap()
    );
    let ran = push_from(&shop.serve, &shop.dir, &[&url, "main"]);
    assert!(!ran.status.success());
    assert!(ran.err.contains("Authentication failed"), "{}", ran.err);
    // A token that may only look.
    let made = shop.tolv(&["tokens", "create", "--role", "view", "--app", "shop", "--name", "eye"]);
    let token = made.split_whitespace().find(|word| word.starts_with("tolv_")).unwrap();
    let mut command = push_command(&shop.serve, &shop.dir, &["tolv", "main"]);
    let ran = run(command.env("TOLV_TOKEN", token));
    assert!(!ran.status.success());
    assert!(ran.err.contains("403"), "{}", ran.err);
    assert_eq!(shop.get("shop.localhost", "/").unwrap().status, 503);
}

#[test]
fn deploy_takes_the_current_commit_and_no_dirty_tree() {
    let shop = Shop::site("one", &[]);
    std::fs::write(shop.dir.join("index.html"), "changed").unwrap();
    let ran = shop.ran(&["deploy"]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.err.contains("index.html"), "{}", ran.err);
    let ran = shop.ran(&["deploy", "--allow-dirty"]);
    assert!(ran.status.success(), "{}{}", ran.out, ran.err);
    assert_eq!(shop.text("shop.localhost", "/"), "one", "the commit, not what is beside it");
}

#[test]
fn a_newer_push_takes_the_place_of_one_that_waits_and_cancel_undoes() {
    let shop = Shop::new("web: python3 server.py\nrelease: python3 wait.py\n", &[]);
    shop.change("wait.py", "import time\nprint('phase begins', flush=True)\ntime.sleep(600)\n");
    let start = || {
        let args = ["--progress", "--force", "tolv", "main"];
        tolv_testkit::Tolv::start(&mut push_command(&shop.serve, &shop.dir, &args))
    };
    let mut first = start();
    first.wait_for_line(|line| line.contains("phase begins"), SOON);
    let operations = || shop.json(&["operations"])["items"].as_array().unwrap().clone();
    shop.change("wait.py", "import time\ntime.sleep(600)\n");
    let mut second = start();
    poll(SOON, "the second waits", || {
        operations().iter().any(|operation| operation["state"] == "queued").then_some(())
    });
    shop.change("wait.py", "print('nothing to wait for')\n");
    let mut third = start();
    second.wait_for_line(|line| line.contains("superseded"), SOON);
    assert!(!second.wait(SOON).success());
    // The first goes on until somebody gives it up.
    let running = operations().into_iter().find(|operation| operation["state"] == "running");
    let running = running.unwrap()["id"].as_str().unwrap().to_owned();
    let said = shop.tolv(&["operations", "cancel", &running]);
    assert!(said.contains("cancelled"), "{said}");
    assert!(!first.wait(SOON).success());
    assert!(third.wait(SOON).success(), "{:?}", third.lines());
    // The one that was cancelled keeps its number.
    assert!(shop.text("shop.localhost", "/env").contains("TOLV_RELEASE=v2"));
    assert!(shop.tolv(&["releases", "verify"]).contains('2'));
}

#[test]
fn a_disk_that_is_full_takes_no_app() {
    let serve = Serve::start(env!("CARGO_BIN_EXE_tolv"), &[("TOLV_MIN_FREE", "1000000000")]);
    let dir = serve.folder("shop");
    git::commit(&dir);
    let ran = serve.ran(&dir, &["create", "shop"]);
    assert!(!ran.status.success());
    assert!(ran.err.contains("MiB free") && ran.err.contains("hint: free some"), "{}", ran.err);
}

#[test]
fn strange_pushes_are_refused_and_harm_nothing() {
    let shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    // A tree with an entry named `.git`.
    let blob = git::git(&shop.dir, &["hash-object", "-w", "index.html"]);
    let tree = format!("100644 blob {blob}\tindex.html\n100644 blob {blob}\t.git\n");
    let file = shop.serve.folder("trees").join("tree");
    std::fs::write(&file, tree).unwrap();
    let mut make = Command::new("git");
    make.arg("mktree").current_dir(&shop.dir).stdin(std::fs::File::open(&file).unwrap());
    let tree = run(&mut make).out.trim().to_owned();
    let commit = git::git(&shop.dir, &["commit-tree", &tree, "-p", "HEAD", "-m", "bad"]);
    let ran = shop.push(&["--force", "tolv", &format!("{commit}:refs/heads/main")]);
    assert!(!ran.status.success(), "{}", ran.err);
    assert!(ran.err.contains("hasDotgit") || ran.err.contains(".git"), "{}", ran.err);
    // Bytes that are no pack.
    let address: SocketAddr = shop.serve.url().strip_prefix("http://").unwrap().parse().unwrap();
    let garbage = |body: &[u8]| {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        let head = format!(
            "POST /git/shop/production.git/git-receive-pack HTTP/1.1\r\nhost: x\r\n\
             authorization: Bearer {}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n",
            shop.serve.token(),
            body.len()
        );
        stream.write_all(head.as_bytes()).unwrap();
        stream.write_all(body).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let line = format!("{} {commit} refs/heads/main\0 report-status", "0".repeat(40));
    let packet = format!("{:04x}{line}0000PACK corrupt", line.len() + 4);
    for body in [&b"zzzz"[..], b"", packet.as_bytes()] {
        assert!(!garbage(body).contains("ok refs/heads/main"));
    }
    // Refs that are neither branches nor tags; the deployed branch cannot be deleted.
    let ran = shop.push(&["tolv", "main:refs/notes/x"]);
    assert!(ran.err.contains("only branches and tags"), "{}", ran.err);
    let ran = shop.push(&["tolv", ":main"]);
    assert!(!ran.status.success() && ran.err.contains("deployed"), "{}", ran.err);
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    assert_eq!(shop.tolv(&["releases"]).matches("Deploy").count(), 1);
    // And what was pushed can be fetched again, by git's newest protocol.
    let mut clone = Command::new("git");
    clone.args([
        "clone",
        "--quiet",
        &format!("{}/git/shop/production.git", shop.serve.url()),
        "copy",
    ]);
    let helper = git::git(&shop.dir, &["config", "--get-regexp", "credential.*helper"]);
    let (key, value) = helper.split_once(' ').unwrap();
    clone.args(["-c", &format!("{key}={value}")]).current_dir(shop.serve.folder("clones"));
    shop.serve.user(&mut clone);
    let cloned = run(clone.env("TOLV_TOKEN", shop.serve.token()));
    assert!(cloned.status.success(), "{}", cloned.err);
    let copy = shop.serve.folder("clones").join("copy/index.html");
    assert_eq!(std::fs::read_to_string(copy).unwrap(), "one");
}
