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

/// A tree of a million names in two objects.
fn million(dir: &Path) -> String {
    let blob = git::git(dir, &["hash-object", "-w", "index.html"]);
    let files: String = (0..1000).map(|n| format!("100644 blob {blob}\tf{n}\n")).collect();
    let inner = git_in(dir, &["mktree"], &[], files.as_bytes());
    let folders: String = (0..1000).map(|n| format!("040000 tree {inner}\td{n}\n")).collect();
    git_in(dir, &["mktree"], &[], folders.as_bytes())
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
