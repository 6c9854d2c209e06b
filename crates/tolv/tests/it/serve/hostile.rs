//! Repositories made to harm the platform that they are pushed to.

use std::io::Write as _;
use std::os::unix::fs::symlink;
use std::process::Stdio;
use std::time::{Duration, Instant};

use super::*;

/// Runs git on bytes at its standard input.
fn git_in(dir: &Path, args: &[&str], envs: &[(&str, &str)], input: &[u8]) -> String {
    let mut command = Command::new("git");
    command.args(args).current_dir(dir).envs(envs.iter().copied());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "git {args:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A commit of a tree on top of what there is.
fn commit_of(dir: &Path, tree: &str) -> String {
    git::git(dir, &["commit-tree", tree, "-p", "HEAD", "-m", "hostile"])
}

/// A file that is a git index of its own, whose names lead through links out of the codebase.
fn forge_index(shop: &Shop, with_dots: bool) {
    let home = shop.serve.state();
    symlink(&home, shop.dir.join("L")).unwrap();
    symlink("/etc", shop.dir.join("E")).unwrap();
    let blob = git::git(&shop.dir, &["hash-object", "-w", "index.html"]);
    let names = ["E/passwd", "L/secret-key", "index.html"];
    let lines: String = names.map(|name| format!("100644 {blob}\t{name}\n")).concat();
    let forged = shop.dir.join(".git-index-of-the-build.lock");
    let index = [("GIT_INDEX_FILE", forged.to_str().unwrap())];
    git_in(&shop.dir, &["update-index", "--index-info"], &index, lines.as_bytes());
    if with_dots {
        // A name of the same length that git itself would refuse to write.
        let mut bytes = std::fs::read(&forged).unwrap();
        let at = bytes.windows(8).position(|part| part == b"E/passwd").unwrap();
        bytes[at..at + 8].copy_from_slice(b"../pwned");
        std::fs::write(&forged, bytes).unwrap();
    }
    git::commit(&shop.dir);
}

#[test]
fn an_index_in_the_tree_is_a_file_like_any_other() {
    forged_index(false);
}

#[test]
fn nor_is_one_with_dots_in_its_names() {
    forged_index(true);
}

#[track_caller]
fn forged_index(with_dots: bool) {
    let shop = Shop::site("one", &[]);
    forge_index(&shop, with_dots);
    let ran = shop.push(&["tolv", "main"]);
    for target in ["/L/secret-key", "/E/passwd", "/pwned"] {
        let answer = shop.get("shop.localhost", target).unwrap();
        assert_ne!(answer.status, 200, "{target}: {}\n{}", answer.text(), ran.err);
    }
    // The links themselves lead out of the codebase, and that is what is said.
    assert!(!ran.status.success(), "{}", ran.err);
    assert!(ran.err.contains("leaves the codebase"), "{}", ran.err);
    // `tolv build` of the commit is no other.
    let ran = shop.ran(&["build", ".", "--commit", "HEAD"]);
    assert!(!ran.status.success() && ran.err.contains("leaves the codebase"), "{}", ran.err);
    // Without the links, the forged index is a file of 3 names that nobody reads.
    std::fs::remove_file(shop.dir.join("L")).unwrap();
    std::fs::remove_file(shop.dir.join("E")).unwrap();
    git::commit(&shop.dir);
    let said = shop.pushed(&["tolv", "main"]);
    assert!(said.contains("2 files"), "{said}");
    assert_eq!(shop.text("shop.localhost", "/"), "one");
}

#[test]
fn a_filter_of_the_operator_does_not_run_on_what_is_pushed() {
    let user = tolv_testkit::Home::new();
    let ran = user.path().join("ran");
    let filter = format!(
        "[filter \"x\"]\n\tsmudge = \"touch {0}; cat\"\n\tclean = \"touch {0}; cat\"\n",
        ran.display()
    );
    user.write(".gitconfig", filter);
    let shop = Shop::site("one", &[("HOME", user.path().to_str().unwrap())]);
    shop.change(".gitattributes", "* filter=x\n");
    shop.pushed(&["tolv", "main"]);
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    assert!(!ran.exists(), "the operator's filter ran on a stranger's file");
}

#[test]
fn many_names_of_one_blob_are_refused_before_they_are_written() {
    let shop = Shop::site("one", &[]);
    let large = shop.dir.join("large");
    std::fs::File::create(&large).unwrap().set_len(100 << 20).unwrap();
    let blob = git::git(&shop.dir, &["hash-object", "-w", "large"]);
    std::fs::remove_file(&large).unwrap();
    let lines: String = (0..60).map(|n| format!("100644 blob {blob}\tf{n}\n")).collect();
    let tree = git_in(&shop.dir, &["mktree"], &[], lines.as_bytes());
    let commit = commit_of(&shop.dir, &tree);
    let began = Instant::now();
    let ran = shop.push(&["tolv", &format!("{commit}:refs/heads/main")]);
    assert!(!ran.status.success(), "{}", ran.err);
    assert!(ran.err.contains("over the limit of 2 GiB"), "{}", ran.err);
    // Nothing of 6 GB was written: that alone takes longer.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_large_file_is_never_in_the_memory_of_git_whole() {
    let shop = Shop::site("one", &[("TOLV_GIT_MEMORY", "64"), ("TOLV_PUSH_MIB", "8")]);
    let zeros = |mibs: &[u64]| {
        for mib in mibs {
            let name = format!("zeros{mib}");
            let file = std::fs::File::create(shop.dir.join(&name)).unwrap();
            file.set_len(mib << 20).unwrap();
            git::git(&shop.dir, &["add", &name]);
            std::fs::remove_file(shop.dir.join(&name)).unwrap();
        }
        let tree = git::git(&shop.dir, &["write-tree"]);
        git::git(&shop.dir, &["reset", "--quiet"]);
        commit_of(&shop.dir, &tree)
    };
    let large = zeros(&[100]);
    shop.pushed(&["tolv", &format!("{large}:refs/heads/large")]);
    // As a delta of another it has to be put together in memory: git says why it does not.
    let two = zeros(&[60, 61]);
    let ran = shop.push(&["tolv", &format!("{two}:refs/heads/two")]);
    assert!(!ran.status.success(), "{}", ran.err);
    let says = ["over limit 33554432", "TOLV_GIT_MEMORY"];
    assert!(says.iter().any(|text| ran.err.contains(text)), "{}", ran.err);
    // More than a push may be, on the wire.
    let noise = shop.dir.join("noise");
    let mut random = vec![0; 9 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut random)
        .unwrap();
    std::fs::write(&noise, random).unwrap();
    git::commit(&shop.dir);
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success(), "{}", ran.err);
    assert!(ran.err.contains("exceeds maximum allowed size (8.00 MiB)"), "{}", ran.err);
}

#[test]
fn pushes_clones_and_builds_work_at_every_level() {
    for level in ["strict", "user", "landlock", "none"] {
        let status = Command::new(env!("CARGO_BIN_EXE_tolv")).arg("status").output().unwrap();
        let status = String::from_utf8(status.stdout).unwrap();
        let has = |line: &str| line.starts_with(level) && line.contains(" yes ");
        if !status.lines().map(str::trim).any(has) {
            continue;
        }
        let shop = Shop::site("one", &[("TOLV_SANDBOX", level)]);
        shop.pushed(&["tolv", "main"]);
        shop.change("index.html", level);
        let said = shop.pushed(&["tolv", "main"]);
        assert!(said.contains("Release v2 is up"), "{level}: {said}");
        assert_eq!(shop.text("shop.localhost", "/"), level);
        let ran = shop.push(&["tolv", ":main"]);
        assert!(ran.err.contains("deployed"), "{level}: {}", ran.err);
        let fetched = git_fetch(&shop);
        assert!(fetched.status.success(), "{level}: {}", fetched.err);
    }
}

fn git_fetch(shop: &Shop) -> Ran {
    let mut fetch = Command::new("git");
    fetch.args(["fetch", "tolv"]).current_dir(&shop.dir);
    shop.serve.user(&mut fetch);
    run(fetch.env("TOLV_TOKEN", shop.serve.token()).env("TOLV_SERVER", shop.serve.url()))
}

/// A commit with these lines after its tree and parent.
fn raw_commit(dir: &Path, tree: &str, lines: &str) -> String {
    let head = git::git(dir, &["rev-parse", "HEAD"]);
    let text = format!("tree {tree}\nparent {head}\n{lines}\n\nold\n");
    git_in(
        dir,
        &["hash-object", "-t", "commit", "-w", "--literally", "--stdin"],
        &[],
        text.as_bytes(),
    )
}

#[test]
fn old_faults_are_warnings_and_dangerous_ones_are_named() {
    let shop = Shop::site("one", &[]);
    let tree = git::git(&shop.dir, &["rev-parse", "HEAD^{tree}"]);
    let good = "author A <a@b> 1 +0000\ncommitter A <a@b> 1 +0000";
    for (name, lines) in [
        ("missingSpaceBeforeEmail", "author A<a@b> 1 +0000\ncommitter A <a@b> 1 +0000"),
        ("badTimezone", "author A <a@b> 1 +051800\ncommitter A <a@b> 1 +0000"),
        ("missingNameBeforeEmail", "author <a@b> 1 +0000\ncommitter A <a@b> 1 +0000"),
    ] {
        let commit = raw_commit(&shop.dir, &tree, lines);
        let said = shop.pushed(&["tolv", &format!("{commit}:refs/heads/{name}")]);
        assert!(said.contains("warning") && said.contains(name), "{said}");
    }
    // A tree as raw bytes: modes with a zero in front, and names that no index would have.
    let blob = git::git(&shop.dir, &["rev-parse", "HEAD:index.html"]);
    let raw: Vec<u8> =
        (0..20).map(|at| u8::from_str_radix(&blob[2 * at..2 * at + 2], 16).unwrap()).collect();
    let object = |mode: &str, name: &str| {
        let tree = [mode.as_bytes(), b" ", name.as_bytes(), b"\0", &raw].concat();
        let tree = git_in(
            &shop.dir,
            &["hash-object", "-t", "tree", "-w", "--literally", "--stdin"],
            &[],
            &tree,
        );
        raw_commit(&shop.dir, &tree, good)
    };
    let padded = object("0100644", "index.html");
    let said = shop.pushed(&["tolv", &format!("{padded}:refs/heads/main")]);
    assert!(said.contains("zeroPaddedFilemode") && said.contains("warning"), "{said}");
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    for (name, says) in [("..", "hasDotdot"), (".GIT", "hasDotgit"), ("a/b", "fullPathname")] {
        let commit = object("100644", name);
        let ran = shop.push(&["--force", "tolv", &format!("{commit}:refs/heads/x")]);
        assert!(!ran.status.success() && ran.err.contains(says), "{name}: {}", ran.err);
    }
}

#[test]
fn a_cancelled_export_ends_at_once() {
    let shop = Shop::site("one", &[("TOLV_BUILD_FILES", "10000000")]);
    let inner = million(&shop.dir);
    let folders: String = (0..1000).map(|n| format!("040000 tree {inner}\te{n}\n")).collect();
    let tree = git_in(&shop.dir, &["mktree"], &[], folders.as_bytes());
    let commit = commit_of(&shop.dir, &tree);
    let refs = format!("{commit}:refs/heads/main");
    let mut push = tolv_testkit::Tolv::start(&mut push_command(
        &shop.serve,
        &shop.dir,
        &["--progress", "tolv", &refs],
    ));
    push.wait_for_line(|line| line.contains("-----> Operation"), SOON);
    let running = poll(SOON, "the build runs", || {
        let operations = shop.json(&["operations"]);
        let newest = &operations["items"][0];
        (newest["state"] == "running").then(|| newest["id"].as_str().unwrap().to_owned())
    });
    let began = Instant::now();
    let said = shop.tolv(&["operations", "cancel", &running]);
    assert!(said.contains("cancelled"), "{said}");
    assert!(!push.wait(SOON).success());
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[test]
fn a_shallow_clone_pushes_and_a_push_is_fetched_shallow() {
    let shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    let from = format!("file://{}", shop.dir.display());
    let shallow = shop.serve.folder("clones").join("shallow");
    shop.change("index.html", "two");
    shop.pushed(&["tolv", "main"]);
    git::git(&shop.dir, &["clone", "--quiet", "--depth=1", &from, shallow.to_str().unwrap()]);
    std::fs::write(shallow.join("index.html"), "three").unwrap();
    git::commit(&shallow);
    let url = format!("{}/git/shop/production.git", shop.serve.url());
    let helper = git::git(&shop.dir, &["config", "--get-regexp", "credential.*helper"]);
    let (key, value) = helper.split_once(' ').unwrap();
    git::git(&shallow, &["config", key, value]);
    let ran = push_from(&shop.serve, &shallow, &[&url, "main"]);
    assert!(ran.status.success(), "{}", ran.err);
    assert_eq!(shop.text("shop.localhost", "/"), "three");
    let mut clone = Command::new("git");
    clone.args(["clone", "--quiet", "--depth=1", "-c", &format!("{key}={value}"), &url, "copy"]);
    shop.serve.user(clone.current_dir(shop.serve.folder("clones")));
    let cloned = run(clone.env("TOLV_TOKEN", shop.serve.token()));
    assert!(cloned.status.success(), "{}", cloned.err);
    let copy = shop.serve.folder("clones").join("copy/index.html");
    assert_eq!(std::fs::read_to_string(copy).unwrap(), "three");
}

#[test]
fn a_shallow_clone_of_a_history_that_is_not_there_is_told_what_to_do() {
    let shop = Shop::site("one", &[]);
    shop.change("index.html", "two");
    let from = format!("file://{}", shop.dir.display());
    let shallow = shop.serve.folder("clones").join("shallow");
    git::git(&shop.dir, &["clone", "--quiet", "--depth=1", &from, shallow.to_str().unwrap()]);
    let url = format!("{}/git/shop/production.git", shop.serve.url());
    let helper = git::git(&shop.dir, &["config", "--get-regexp", "credential.*helper"]);
    let (key, value) = helper.split_once(' ').unwrap();
    git::git(&shallow, &["config", key, value]);
    let ran = push_from(&shop.serve, &shallow, &[&url, "main"]);
    assert!(!ran.status.success(), "{}", ran.err);
    assert!(ran.err.contains("this clone is shallow: run `git fetch --unshallow`"), "{}", ran.err);
    git::git(&shallow, &["fetch", "--quiet", "--unshallow"]);
    let ran = push_from(&shop.serve, &shallow, &[&url, "main"]);
    assert!(ran.status.success(), "{}", ran.err);
}

/// A tree of a million names in two objects.
fn million(dir: &Path) -> String {
    let blob = git::git(dir, &["hash-object", "-w", "index.html"]);
    let files: String = (0..1000).map(|n| format!("100644 blob {blob}\tf{n}\n")).collect();
    let inner = git_in(dir, &["mktree"], &[], files.as_bytes());
    let folders: String = (0..1000).map(|n| format!("040000 tree {inner}\td{n}\n")).collect();
    git_in(dir, &["mktree"], &[], folders.as_bytes())
}

#[test]
fn a_tree_of_folders_alone_has_an_end_too() {
    let shop = Shop::site("one", &[]);
    // 32 names a level, twelve levels down to a tree of nothing.
    let mut tree = git_in(&shop.dir, &["mktree"], &[], b"");
    for _ in 0..12 {
        let names: String = (0..32).map(|n| format!("040000 tree {tree}\t{n:02}\n")).collect();
        tree = git_in(&shop.dir, &["mktree"], &[], names.as_bytes());
    }
    let commit = commit_of(&shop.dir, &tree);
    let ran = shop.push(&["tolv", &format!("{commit}:refs/heads/main")]);
    assert!(!ran.status.success(), "{}", ran.err);
    assert!(ran.err.contains("TOLV_BUILD_FILES"), "{}", ran.err);
}

#[test]
fn a_tree_of_a_million_names_is_refused_at_the_limit() {
    let shop = Shop::site("one", &[]);
    let tree = million(&shop.dir);
    let commit = commit_of(&shop.dir, &tree);
    let ran = shop.push(&["tolv", &format!("{commit}:refs/heads/main")]);
    assert!(!ran.status.success(), "{}", ran.err);
    assert!(ran.err.contains("over the limit of") && ran.err.contains("files"), "{}", ran.err);
    assert!(ran.err.contains("TOLV_BUILD_FILES"), "{}", ran.err);
}
