use std::os::unix::fs::symlink;
use std::time::Instant;

use tolv_testkit::Home;
use tolv_testkit::git::git;

use super::*;

fn keys(home: &Home) -> Vec<PathBuf> {
    vec![home.path().join("user/tolv/key")]
}

fn here(home: &Home) -> StateFolder {
    StateFolder::in_codebase(&home.path().join("shop"), keys(home))
}

#[test]
fn a_folder_that_this_user_made_is_used_again_also_after_a_move_and_a_copy_is_not() {
    let home = Home::new();
    home.write("shop/Procfile", "");
    let state = here(&home).claim().unwrap();
    assert_eq!(state, home.path().canonicalize().unwrap().join("shop/.tolv"));
    home.write("shop/.tolv/db.sqlite", "");
    assert_eq!(here(&home).claim().unwrap(), state);
    fs::rename(home.path().join("shop"), home.path().join("moved")).unwrap();
    let moved = StateFolder::in_codebase(&home.path().join("moved"), keys(&home));
    assert!(moved.is_usable());
    moved.claim().unwrap();
    for (name, text) in [(MARK, fs::read(moved.path().join(MARK)).unwrap()), ("db", vec![])] {
        home.write(&format!("shop/.tolv/{name}"), text);
    }
    let error = here(&home).claim().unwrap_err();
    assert!(matches!(error, StateFolderError::Foreign { has_key: true, .. }), "{error}");
    assert!(!here(&home).is_usable());
    // Whoever names it says that it is theirs.
    StateFolder::named(here(&home).path, keys(&home)).claim().unwrap();
    here(&home).claim().unwrap();
}

#[test]
fn another_users_key_or_none_makes_no_folder_good() {
    let home = Home::new();
    home.write("shop/.tolv/uv-99.0.0/uv", "");
    let other = StateFolder { keys: Vec::new(), ..here(&home) };
    let error = other.claim().unwrap_err();
    assert!(matches!(error, StateFolderError::Foreign { has_key: false, .. }), "{error}");
    assert!(error.help().unwrap().contains("XDG_STATE_HOME"));
    let error = here(&home).claim().unwrap_err();
    assert!(error.help().unwrap().contains("rm -r"), "{error}");
    // A key that others can read is none.
    files::remove(&home.path().join("shop/.tolv")).unwrap();
    here(&home).claim().unwrap();
    home.write("shop/.tolv/x", "");
    assert!(here(&home).is_usable());
    files::set_mode(&keys(&home)[0], 0o644).unwrap();
    assert!(!here(&home).is_usable());
}

#[test]
fn a_link_is_refused_and_its_target_is_as_it_was() {
    let home = Home::new();
    let kept = home.write("other/kept", "");
    files::set_mode(&kept, 0o644).unwrap();
    home.write("shop/Procfile", "");
    symlink(home.path().join("other"), home.path().join("shop/.tolv")).unwrap();
    let error = here(&home).claim().unwrap_err();
    assert!(matches!(error, StateFolderError::Link { .. }), "{error}");
    // Named, it is followed, but nothing is done to a folder that has something else in it.
    let named = StateFolder::named(home.path().join("shop/.tolv"), keys(&home));
    let error = named.claim().unwrap_err();
    assert!(matches!(error, StateFolderError::NotEmpty { .. }), "{error}");
    assert_eq!(kept.metadata().unwrap().mode() & 0o777, 0o644);
    assert_eq!(fs::read_dir(home.path().join("other")).unwrap().count(), 1);
}

#[test]
fn what_git_tracks_in_it_is_seen_in_every_kind_of_index() {
    for (format, version) in [("sha1", "2"), ("sha1", "4"), ("sha256", "2"), ("sha256", "4")] {
        let home = Home::new();
        for number in 0..40 {
            home.write(&format!("repo/shop/.to{number}/a-file-of-the-app"), "");
        }
        let root = home.path().join("repo");
        git(&root, &["init", "-q", "--object-format", format]);
        git(&root, &["config", "index.version", version]);
        let folder = StateFolder::in_codebase(&root.join("shop"), keys(&home));
        folder.claim().unwrap();
        git(&root, &["add", "-A"]);
        folder.claim().unwrap();
        home.write("repo/shop/.tolv/toolchains/x", "");
        git(&root, &["add", "-f", "shop/.tolv/toolchains/x"]);
        for split in [false, true] {
            if split {
                git(&root, &["update-index", "--split-index"]);
            }
            let error = folder.claim().unwrap_err().to_string();
            let named = StateFolder::named(folder.path.clone(), keys(&home));
            assert!(error.contains("`shop/.tolv/toolchains/x`"), "{format} {version}: {error}");
            assert_eq!(named.claim().unwrap_err().to_string(), error);
            assert!(!folder.is_usable());
        }
        git(&root, &["rm", "-q", "--cached", "shop/.tolv/toolchains/x"]);
        git(&root, &["update-index", "--no-split-index"]);
        for old in fs::read_dir(root.join(".git")).unwrap().flatten() {
            if old.file_name().to_string_lossy().starts_with("sharedindex") {
                fs::remove_file(old.path()).unwrap();
            }
        }
        folder.claim().unwrap();
        // In a worktree of it, `.git` is a file.
        git(&root, &["commit", "-qm", "all"]);
        git(&root, &["worktree", "add", "-q", "../tree"]);
        let folder = StateFolder::in_codebase(&home.path().join("tree/shop"), keys(&home));
        folder.claim().unwrap();
        home.write("tree/shop/.tolv/x", "");
        git(&home.path().join("tree"), &["add", "-f", "shop/.tolv/x"]);
        assert!(matches!(folder.claim().unwrap_err(), StateFolderError::Tracked { .. }));
    }
}

#[test]
fn an_index_that_is_cut_off_or_a_pipe_is_an_error_and_no_trap() {
    let home = Home::new();
    let root = home.path().join("shop");
    home.write("shop/Procfile", "");
    git(&root, &["init", "-q"]);
    git(&root, &["add", "-A"]);
    let index = fs::read(root.join(".git/index")).unwrap();
    here(&home).claim().unwrap();
    for cut in [0, 3, 11, 20, 60, 75] {
        home.write("shop/.git/index", &index[..cut]);
        assert!(here(&home).claim().is_err(), "{cut}");
    }
    fs::remove_file(root.join(".git/index")).unwrap();
    let mode = Mode::from_raw_mode(0o644);
    let fifo = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, root.join(".git/index"), fifo, mode, 0).unwrap();
    assert!(here(&home).claim().is_err());
}

#[test]
fn twenty_threads_that_begin_at_once_all_get_it() {
    let home = Home::new();
    home.write("shop/Procfile", "");
    std::thread::scope(|scope| {
        let begun: Vec<_> = (0..20).map(|_| scope.spawn(|| here(&home).claim())).collect();
        for thread in begun {
            thread.join().unwrap().unwrap();
        }
    });
}

#[test]
fn a_look_takes_less_than_a_millisecond() {
    let home = Home::new();
    home.write("shop/Procfile", "");
    here(&home).claim().unwrap();
    home.write("shop/.tolv/db.sqlite", "");
    let took = (0..20).map(|_| {
        let began = Instant::now();
        here(&home).claim().unwrap();
        began.elapsed()
    });
    let quickest = took.min().unwrap();
    assert!(quickest.as_micros() < 1000, "{quickest:?}");
}
