//! Builds made to harm what looks at their result: the steps are shut in, the walk over what they
//! left is not.

use std::fs;

use tolv_build::{Caps, Error, Request, Source};
use tolv_testkit::Home;

use crate::{build, refusal, request, scripted, write_script};

/// Folders in each other, far deeper than anything of a codebase.
const NEST: &str = "mkdir -p $(printf 'd/%.0s' $(seq 600))";

#[track_caller]
fn says(script: &str, caps: Caps, text: &str) {
    let (app, home) = (scripted(script), Home::new());
    let error = refusal(&Request { caps, ..request(app.path(), home.path()) });
    assert!(error.to_string().contains(text), "{script}: {error}");
}

#[test]
fn names_count_and_not_blocks() {
    let caps = Caps { slug: 64 << 20, ..Caps::default() };
    let over = "over the limit of 64 MiB";
    // Each name of a file would become a file.
    says("head -c 4000000 /dev/zero > f; for i in $(seq 500); do ln f l$i; done", caps, over);
    // A hole of a TiB takes no room and a day to read.
    says("truncate -s 1T hole", caps, over);
}

#[test]
fn files_and_folders_have_their_limits() {
    let caps = Caps { files: 100, ..Caps::default() };
    says("for i in $(seq 200); do : > f$i; done", caps, "100 files (TOLV_BUILD_FILES)");
    says(NEST, Caps::default(), "over the limit of");
    says("mkfifo pipe", Caps::default(), "`pipe`, which is no file");
}

#[test]
fn a_cache_that_nobody_can_walk_ends_one_build_and_not_the_next() {
    let home = Home::new();
    let app = scripted(&format!("cd $HOME; {NEST}"));
    let error = refusal(&request(app.path(), home.path()));
    assert!(matches!(error, Error::Limit { .. }), "{error}");
    write_script(&app, "echo fine");
    let (_, said) = build(&request(app.path(), home.path()));
    assert!(said.lines().contains(&"fine".to_owned()), "{said:?}");
}

#[test]
fn modes_links_and_hard_links_of_a_build_are_harmless() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let home = Home::new();
    let app = scripted("echo x > f; ln f g; chmod 4777 f; mkdir -m 0 closed; ln -s f link");
    let (built, _) = build(&request(app.path(), home.path()));
    for name in ["f", "g"] {
        let meta = fs::symlink_metadata(built.dir.join(name)).unwrap();
        assert_eq!((meta.nlink(), meta.permissions().mode() & 0o7777), (1, 0o755), "{name}");
    }
    assert_eq!(
        fs::metadata(built.dir.join("closed")).unwrap().permissions().mode() & 0o7777,
        0o755
    );
}

#[test]
fn pointers_of_git_lfs_are_named() {
    let (app, home) = (Home::new(), Home::new());
    app.write("Procfile", "web: ./run\n");
    app.write(".gitattributes", "*.bin filter=lfs\n");
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n";
    app.write("a.bin", pointer);
    app.write("b.txt", format!("{pointer}{}", "x".repeat(2000)));
    tolv_testkit::git::commit(app.path());
    let source = Source::Commit { dir: app.path().to_owned(), commit: "HEAD".to_owned() };
    let commit = Request { source, ..request(app.path(), home.path()) };
    for request in [commit, request(app.path(), home.path())] {
        let (built, _) = build(&request);
        let [warning] = &built.warnings[..] else { panic!("{:?}", built.warnings) };
        assert!(warning.starts_with("`a.bin` is a Git LFS pointer, "), "{warning}");
    }
    app.write("a.bin", "the content");
    let (built, _) = build(&request(app.path(), home.path()));
    assert!(built.warnings.is_empty(), "{:?}", built.warnings);
}
