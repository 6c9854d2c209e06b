//! A state folder that came with a codebase, or with a link in it: nothing in it runs, nothing is
//! touched.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

use tolv_testkit::{Home, git};

use crate::{codebase, output, shop, stderr, tolv};

/// Programs in the places of toolchains: they leave `ran` beside the codebase.
fn plant(home: &Home, folder: &str) {
    let program = format!("#!/bin/sh\necho $0 >> {}/ran\n", home.path().display());
    for path in ["toolchains/python/x/bin/python3", "toolchains/uv-99.0.0/uv"] {
        let path = home.write(&format!("{folder}/.tolv/{path}"), &program);
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    home.write(&format!("{folder}/requirements.txt"), "flask\n");
}

fn commands(dir: &Path) -> [Command; 3] {
    ["build", "lock", "up"].map(|name| {
        let mut command = tolv();
        command.arg(name).arg(dir);
        command
    })
}

#[track_caller]
fn refused(command: &mut Command, parts: &[&str]) {
    let ran = output(command);
    let text = stderr(&ran);
    assert_eq!(ran.status.code(), Some(1), "{command:?}: {text}");
    for part in parts {
        assert!(text.contains(part), "{command:?}: `{part}` is not in: {text}");
    }
}

#[test]
fn programs_in_the_state_folder_of_a_clone_never_run() {
    let home = codebase("web: python3 server.py\n");
    plant(&home, "shop");
    git::git(&shop(&home), &["init", "-q"]);
    git::git(&shop(&home), &["add", "-A", "-f"]);
    git::git(&shop(&home), &["commit", "-qm", "all"]);
    git::git(home.path(), &["clone", "-q", "shop", "clone"]);
    let clone = home.path().join("clone");
    for mut command in commands(&clone) {
        refused(&mut command, &["git tracks `.tolv/", "git rm -r --cached"]);
        refused(command.env("TOLV_HOME", clone.join(".tolv")), &["git tracks `.tolv/"]);
    }
    // As an archive of it.
    fs::remove_dir_all(clone.join(".git")).unwrap();
    for mut command in commands(&clone) {
        refused(&mut command, &["was not made by you", "rm -r "]);
        refused(command.env("TOLV_HOME", clone.join(".tolv")), &["no state folder of tolv"]);
    }
    assert!(!home.path().join("ran").exists(), "a planted program ran");
    assert!(!clone.join(".tolv/.gitignore").exists(), "something was written");
}

#[test]
fn what_a_pull_puts_into_an_own_state_folder_never_runs() {
    let home = codebase("web: python3 server.py\n");
    git::commit(&shop(&home));
    git::git(home.path(), &["clone", "-q", "shop", "clone"]);
    let clone = home.path().join("clone");
    let built = output(tolv().arg("build").arg(&clone));
    assert!(built.status.success(), "{}", stderr(&built));
    plant(&home, "shop");
    git::git(&shop(&home), &["add", "-A", "-f"]);
    git::git(&shop(&home), &["commit", "-qm", "more"]);
    git::git(&clone, &["pull", "-q"]);
    for mut command in commands(&clone) {
        refused(&mut command, &["git tracks `.tolv/"]);
    }
    assert!(!home.path().join("ran").exists(), "a planted program ran");
}

/// As `tar` does with a stranger's archive: beside what is there, and in its place.
#[test]
fn an_archive_with_a_mark_over_an_own_state_folder_is_not_believed() {
    let home = codebase("web: python3 server.py\n");
    let built = output(tolv().arg("build").arg(shop(&home)));
    assert!(built.status.success(), "{}", stderr(&built));
    // Another folder of the same user, which has a mark that holds there.
    let other = home.path().join("other");
    fs::create_dir(&other).unwrap();
    fs::copy(shop(&home).join("Procfile"), other.join("Procfile")).unwrap();
    fs::copy(shop(&home).join("server.py"), other.join("server.py")).unwrap();
    let built = output(tolv().arg("build").arg(&other));
    assert!(built.status.success(), "{}", stderr(&built));
    plant(&home, "other");
    let archive = home.path().join("strangers.tar");
    let tar = |flag: &str, folder: &Path, what: &[&str]| {
        let mut tar = Command::new("tar");
        let ran = output(tar.arg(flag).arg(&archive).arg("-C").arg(folder).args(what));
        assert!(ran.status.success(), "{}", stderr(&ran));
    };
    tar("-cf", &other, &[".tolv/tolv-state", ".tolv/toolchains", "requirements.txt"]);
    tar("-xf", &shop(&home), &[]);
    for mut command in commands(&shop(&home)) {
        refused(&mut command, &["was not made by you", "rm -r "]);
    }
    assert!(!home.path().join("ran").exists(), "a planted program ran");
}

#[test]
fn a_link_in_the_place_of_the_state_folder_is_an_error_and_its_target_untouched() {
    let home = codebase("web: python3 server.py\n");
    let kept = home.write("photos/a/kept", "x");
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o664)).unwrap();
    let photos = home.path().join("photos");
    fs::set_permissions(&photos, fs::Permissions::from_mode(0o775)).unwrap();
    symlink("../photos", shop(&home).join(".tolv")).unwrap();
    for mut command in commands(&shop(&home)) {
        refused(&mut command, &["is a symbolic link"]);
        refused(command.env("TOLV_HOME", &photos), &["is not empty and is no state folder"]);
    }
    let mut serve = tolv();
    serve.arg("serve").env("TOLV_HOME", &photos).env("TOLV_LISTEN", "127.0.0.1:0");
    refused(&mut serve, &["is not empty and is no state folder"]);
    assert_eq!((mode(&kept), mode(&photos)), (0o664, 0o775));
    assert_eq!(fs::read_dir(&photos).unwrap().count(), 1, "something was written");
}
