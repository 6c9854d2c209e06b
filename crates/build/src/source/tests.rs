use std::fs;
use std::os::unix::fs::symlink;

use tolv_testkit::Home;
use tolv_testkit::git::{commit, git};

use super::*;

/// What is listed: paths, with `?` before those that git does not track.
fn names(listing: &Listing) -> Vec<String> {
    let name = |(path, tracked): (&Vec<u8>, &bool)| {
        format!("{}{}", if *tracked { "" } else { "?" }, shown(path))
    };
    listing.paths.iter().map(name).collect()
}

fn system_git() -> git::Git {
    git::Git { path: "/usr/local/bin:/usr/bin:/bin".into(), home: None }
}

fn listed(source: &Source, export: &Path) -> Result<Listing, Error> {
    source.list(&system_git(), export, &Caps::default(), &Cancel::new().unwrap(), None)
}

fn list(source: &Source) -> Result<Listing, Error> {
    let export = tempfile::tempdir().unwrap();
    let mut listing = listed(source, export.path());
    if let Ok(listing) = &mut listing
        && listing.root == export.path()
    {
        assert!(
            listing
                .paths
                .keys()
                .all(|path| { export.path().join(as_path(path)).symlink_metadata().is_ok() })
        );
    }
    listing
}

fn tree(dir: &Path) -> Listing {
    list(&Source::WorkingTree { dir: dir.to_owned() }).unwrap()
}

fn at(dir: &Path, commit: &str) -> Result<Listing, Error> {
    list(&Source::Commit { dir: dir.to_owned(), commit: commit.to_owned() })
}

fn refusal(dir: &Path) -> String {
    list(&Source::WorkingTree { dir: dir.to_owned() }).unwrap_err().to_string()
}

#[test]
fn a_working_tree_is_what_git_tracks_or_would() {
    let home = Home::new();
    home.write("Procfile", "web: ./run\n");
    home.write(".gitignore", "*.log\n");
    home.write("lib/tracked.log", "");
    git(home.path(), &["init", "--quiet"]);
    git(home.path(), &["add", "--force", "lib/tracked.log"]);
    let head = commit(home.path());
    home.write("lib/ignored.log", "");
    let clean = tree(home.path());
    assert_eq!(names(&clean), [".gitignore", "Procfile", "lib/tracked.log"]);
    assert_eq!(clean.commit, Some(head.clone()));
    home.write("new", "");
    let dirty = tree(home.path());
    assert_eq!(names(&dirty), [".gitignore", "Procfile", "lib/tracked.log", "?new"]);
    assert_eq!(dirty.commit, Some(format!("{head}+dirty")));
}

#[test]
fn dirty_is_what_would_build_something_else() {
    let home = Home::new();
    home.write("a", "1");
    home.write("b", "1");
    let head = commit(home.path());
    let mark = || tree(home.path()).commit.unwrap();
    home.write(".env", "SECRET=1");
    home.write("node_modules/x/index.js", "");
    home.write(".tolv/state", "");
    assert_eq!(mark(), head, "nothing of this enters a build");
    home.write("a", "2");
    assert_eq!(mark(), format!("{head}+dirty"));
    git(home.path(), &["checkout", "--quiet", "a"]);
    assert_eq!(mark(), head);
    fs::remove_file(home.path().join("b")).unwrap();
    assert_eq!(mark(), format!("{head}+dirty"));
    assert_eq!(names(&tree(home.path())), ["a"]);
}

#[test]
fn before_the_first_commit_there_is_none() {
    let home = Home::new();
    home.write("a", "");
    git(home.path(), &["init", "--quiet"]);
    let listing = tree(home.path());
    assert_eq!((names(&listing), listing.commit), (vec!["?a".to_owned()], None));
    let error = at(home.path(), "HEAD").unwrap_err().to_string();
    assert!(error.starts_with("`HEAD` names no commit of the repository"), "{error}");
}

#[test]
fn a_folder_without_git_honours_its_gitignore() {
    let home = Home::new();
    for path in ["Procfile", ".hidden", "x.log", "lib/y.log", "lib/z", ".tolv/state", ".git-notes"]
    {
        home.write(path, "");
    }
    home.write(".gitignore", "*.log\n");
    let listing = tree(home.path());
    assert_eq!(names(&listing), ["?.git-notes", "?.gitignore", "?.hidden", "?Procfile", "?lib/z"]);
    assert_eq!(listing.commit, None);
    let error = at(home.path(), "HEAD").unwrap_err().to_string();
    assert!(error.ends_with("is not in a git repository"), "{error}");
}

#[test]
fn a_pipe_or_a_link_in_place_of_an_ignore_file_is_refused_and_not_read() {
    let fifo = |path: PathBuf| {
        let kind = rustix::fs::FileType::Fifo;
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, 0o600.into(), 0).unwrap();
    };
    let endless = |path: PathBuf| std::os::unix::fs::symlink("/dev/zero", path).unwrap();
    let large = |path: PathBuf| fs::File::create(path).unwrap().set_len(1 << 30).unwrap();
    let makers: [&dyn Fn(PathBuf); 3] = [&fifo, &endless, &large];
    for (make, name) in makers.into_iter().zip([".gitignore", "lib/deep/.gitignore", "lib/.ignore"])
    {
        let home = Home::new();
        home.write("lib/deep/a", "");
        make(home.path().join(name));
        let wanted = format!("`{name}` is not a regular file of at most 512 KiB");
        assert_eq!(refusal(home.path()), wanted);
    }
}

#[test]
fn untracked_clutter_stays_out_and_tracked_clutter_is_told_of() {
    let home = Home::new();
    for path in [
        "app.py",
        "node_modules/x/index.js",
        "web/node_modules/y.js",
        "__pycache__/app.pyc",
        "venv/pyvenv.cfg",
        "venv/bin/python",
        "pyvenv.cfg.txt",
        ".env",
        "config/.env",
    ] {
        home.write(path, "");
    }
    assert_eq!(names(&tree(home.path())), ["?app.py", "?config/.env", "?pyvenv.cfg.txt"]);
    commit(home.path());
    let listing = tree(home.path());
    assert_eq!(listing.paths.len(), 9);
    assert_eq!(listing.warnings, ["`.env` is committed: config belongs outside the codebase"]);
}

#[test]
fn slugignore_takes_away() {
    let home = Home::new();
    for path in ["docs/deep/a.md", "docs/b.md", "lib/c.md", "lib/keep.md", "d.py"] {
        home.write(path, "");
    }
    home.write(".slugignore", "# not needed to run\n/docs\n*.md\n!keep.md\n");
    commit(home.path());
    let kept = [".slugignore", "d.py", "lib/keep.md"];
    assert_eq!(names(&tree(home.path())), kept);
    assert_eq!(names(&at(home.path(), "HEAD").unwrap()), kept);
    home.write(".slugignore", "ok\n[z-a]\n");
    let error = refusal(home.path());
    assert!(error.starts_with("`.slugignore` line 2: not a pattern"), "{error}");
}

#[test]
fn slugignore_as_a_link_shows_nobody_elses_lines() {
    let home = Home::new();
    let secret = home.write("secret", "password[");
    let app = home.write("app/Procfile", "web: ./run\n");
    let app = app.parent().unwrap();
    symlink(secret, app.join(".slugignore")).unwrap();
    let error = refusal(app);
    assert!(error.starts_with("cannot read `.slugignore`"), "{error}");
    assert!(!error.contains("password"), "{error}");
}

#[test]
fn names_are_bytes() {
    let home = Home::new();
    let odd: [&[u8]; 4] = [b"caf\xe9.txt", b"new\nline", b"tab\t\"quote\"", b" blank "];
    for name in odd {
        fs::write(home.path().join(as_path(name)), "").unwrap();
    }
    let expect = |listing: &Listing| odd.iter().all(|name| listing.paths.contains_key(*name));
    assert!(expect(&tree(home.path())));
    commit(home.path());
    assert!(expect(&tree(home.path())));
    assert!(expect(&at(home.path(), "HEAD").unwrap()));
    assert_eq!(shown(b"caf\xe9\n'x'"), "caf\u{fffd}\\n'x'");
}

#[test]
fn links_are_listed_and_not_followed() {
    let home = Home::new();
    home.write("lib/a", "");
    symlink("/etc", home.path().join("outside")).unwrap();
    symlink("gone", home.path().join("dangling")).unwrap();
    symlink("lib", home.path().join("inside")).unwrap();
    let all = ["dangling", "inside", "lib/a", "outside"];
    assert_eq!(names(&tree(home.path())), all.map(|name| format!("?{name}")));
    commit(home.path());
    assert_eq!(names(&tree(home.path())), all);
    assert_eq!(names(&at(home.path(), "HEAD").unwrap()), all);
}

#[test]
fn a_folder_that_became_a_link_hides_what_was_in_it() {
    let home = Home::new();
    let app = home.path().join("app");
    home.write("app/lib/secret", "committed");
    home.write("app/lib/deep/secret", "committed");
    home.write("app/web", "");
    home.write("elsewhere/secret", "not the codebase's");
    home.write("elsewhere/deep/secret", "not the codebase's");
    commit(&app);
    fs::remove_dir_all(app.join("lib")).unwrap();
    symlink("../elsewhere", app.join("lib")).unwrap();
    assert_eq!(names(&tree(&app)), ["?lib", "web"]);
}

#[test]
fn a_nested_repository_is_told_of_and_left_out() {
    let home = Home::new();
    home.write("a", "");
    commit(home.path());
    home.write("vendor/other/b", "");
    commit(&home.path().join("vendor/other"));
    let listing = tree(home.path());
    assert_eq!(names(&listing), ["a"]);
    let warning =
        "`vendor/other/` is a git repository of its own and no submodule: it is not built";
    assert_eq!(listing.warnings, [warning]);
}

/// A repository `app` with a submodule at `vendor/lib`, which has one of its own at `deep`.
fn with_submodules(home: &Home) -> std::path::PathBuf {
    let add = |to: &Path, from: &Path, at: &str| {
        let from = from.to_str().unwrap();
        git(to, &["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", from, at]);
        commit(to);
    };
    let [app, lib, deep] = ["app", "lib", "deep"].map(|name| {
        home.write(&format!("{name}/{name}.txt"), name);
        let path = home.path().join(name);
        commit(&path);
        path
    });
    add(&lib, &deep, "deep");
    add(&app, &lib, "vendor/lib");
    let update = ["submodule", "--quiet", "update", "--init", "--recursive"];
    git(&app, &[&["-c", "protocol.file.allow=always"][..], &update].concat());
    app
}

#[test]
fn submodules_are_part_of_the_codebase() {
    let home = Home::new();
    let app = with_submodules(&home);
    let all = [
        ".gitmodules",
        "app.txt",
        "vendor/lib/.gitmodules",
        "vendor/lib/deep/deep.txt",
        "vendor/lib/lib.txt",
    ];
    let clean = tree(&app);
    assert_eq!(names(&clean), all);
    assert!(!clean.commit.unwrap().ends_with("+dirty"));
    assert_eq!(names(&at(&app, "HEAD").unwrap()), all);
    home.write("app/vendor/lib/deep/new", "");
    let dirty = tree(&app);
    assert!(names(&dirty).contains(&"?vendor/lib/deep/new".to_owned()));
    assert!(dirty.commit.unwrap().ends_with("+dirty"));
}

#[test]
fn a_submodule_that_is_not_there_is_named_with_the_command() {
    let home = Home::new();
    let app = with_submodules(&home);
    let says = "the submodule `vendor/lib` is not checked out; \
                run `git submodule update --init --recursive`";
    git(&app, &["submodule", "--quiet", "deinit", "--force", "vendor/lib"]);
    assert_eq!(refusal(&app), says);
    // Its objects are still in the repository: a commit needs no checkout.
    assert_eq!(at(&app, "HEAD").unwrap().paths.len(), 5);
    fs::remove_dir_all(app.join(".git/modules")).unwrap();
    assert_eq!(at(&app, "HEAD").unwrap_err().to_string(), says);
}

#[test]
fn submodules_of_a_folder_are_found_without_a_checkout() {
    let home = Home::new();
    home.write("lib/lib.txt", "lib");
    home.write("app/services/api/api.txt", "api");
    let [app, lib] = ["app", "lib"].map(|name| home.path().join(name));
    commit(&lib);
    commit(&app);
    let add = ["-c", "protocol.file.allow=always", "submodule", "--quiet", "add"];
    git(&app, &[&add[..], &[lib.to_str().unwrap(), "services/api/lib"]].concat());
    commit(&app);
    git(&app, &["submodule", "--quiet", "deinit", "--force", "services/api/lib"]);
    let listing = at(&app.join("services/api"), "HEAD").unwrap();
    assert_eq!(names(&listing), ["api.txt", "lib/lib.txt"]);
}

#[test]
fn a_commit_is_exported_as_it_was() {
    let home = Home::new();
    home.write("web", "one");
    home.write("crlf.txt", "a\r\n");
    let first = commit(home.path());
    home.write("web", "two");
    home.write("later", "");
    commit(home.path());
    home.write("web", "three");
    let export = tempfile::tempdir().unwrap();
    let source = Source::Commit { dir: home.path().to_owned(), commit: "HEAD~1".to_owned() };
    let listing = listed(&source, export.path()).unwrap();
    assert_eq!(names(&listing), ["crlf.txt", "web"]);
    assert_eq!(listing.commit, Some(first));
    assert_eq!(fs::read(export.path().join("web")).unwrap(), b"one");
    assert_eq!(fs::read(export.path().join("crlf.txt")).unwrap(), b"a\r\n");
    let left = fs::read_dir(export.path()).unwrap().count();
    assert_eq!(left, 2, "the export has nothing of git's own");
    assert_eq!(fs::read(home.path().join("web")).unwrap(), b"three");
}

#[test]
fn a_commit_is_a_name_and_never_an_option() {
    let home = Home::new();
    home.write("web", "");
    commit(home.path());
    for bad in ["--help", "-x", "nowhere", "HEAD:web", "", "HEAD\n"] {
        let error = at(home.path(), bad).unwrap_err().to_string();
        assert!(error.contains("names no commit"), "{bad}: {error}");
    }
}

#[test]
fn a_subtree_and_a_bare_repository_can_be_built() {
    let home = Home::new();
    home.write("repo/web/app/Procfile", "");
    home.write("repo/other", "");
    let repo = home.path().join("repo");
    commit(&repo);
    let web = repo.join("web");
    assert_eq!(names(&tree(&web)), ["app/Procfile"]);
    assert_eq!(names(&at(&web, "HEAD").unwrap()), ["app/Procfile"]);
    git(home.path(), &["clone", "--quiet", "--bare", "repo", "bare"]);
    let bare = at(&home.path().join("bare"), "main").unwrap();
    assert_eq!(names(&bare), ["other", "web/app/Procfile"]);
}

#[test]
fn an_ignored_folder_of_a_repository_is_built_as_a_folder() {
    let home = Home::new();
    home.write(".gitignore", "/scratch\n");
    home.write("a", "");
    commit(home.path());
    home.write("scratch/Procfile", "");
    let listing = tree(&home.path().join("scratch"));
    assert_eq!((names(&listing), listing.commit), (vec!["?Procfile".to_owned()], None));
}

#[test]
fn a_repository_runs_no_program_of_its_own() {
    let home = Home::new();
    home.write("a", "");
    commit(home.path());
    let ran = home.path().join("ran");
    let script = format!("#!/bin/sh\ntouch '{}'\n", ran.display());
    for hook in ["post-checkout", "post-index-change", "monitor"] {
        let path = home.write(&format!(".git/hooks/{hook}"), &script);
        crate::files::set_mode(&path, 0o755).unwrap();
    }
    git(home.path(), &["config", "core.fsmonitor", ".git/hooks/monitor"]);
    home.write("a", "changed");
    tree(home.path());
    at(home.path(), "HEAD").unwrap();
    assert!(!ran.exists());
}

#[test]
fn a_folder_that_looks_like_a_repository_runs_no_filter_of_its_own() {
    let home = Home::new();
    let ran = home.path().join("ran");
    home.write("app/evil/a", "one");
    let evil = home.path().join("app/evil");
    git(&evil, &["init", "--quiet", "--bare", "."]);
    git(&evil, &["config", "core.bare", "false"]);
    git(&evil, &["config", "core.worktree", "."]);
    git(&evil, &["add", "a"]);
    home.write("app/evil/a", "changed");
    home.write("app/evil/.gitattributes", "* filter=x\n");
    git(&evil, &["config", "filter.x.clean", &format!("touch {}; cat", ran.display())]);
    let error = refusal(&evil);
    assert!(error.contains("bare repository"), "{error}");
    assert!(!ran.exists());
}

#[test]
fn no_folder_no_build() {
    let home = Home::new();
    let file = home.write("file", "");
    assert_eq!(refusal(&file), format!("`{}` is not a folder", file.display()));
    let gone = home.path().join("gone");
    assert_eq!(refusal(&gone), format!("there is no folder `{}`", gone.display()));
}

#[test]
fn a_broken_repository_is_told_of() {
    let home = Home::new();
    home.write("a", "");
    home.write(".git", "gitdir: /nowhere\n");
    let error = refusal(home.path());
    assert!(error.starts_with("git: "), "{error}");
}
