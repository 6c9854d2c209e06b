use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;

fn open(root: &Path) -> Result<Home, HomeError> {
    Home::open(&StateFolder::named(root.to_owned(), Vec::new()))
}

#[test]
fn the_second_comer_is_told_who_holds_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join(".tolv");
    let mut first = open(&root).unwrap();
    first.sign("pid 4711, http://shop.localhost:8080").unwrap();
    let second = open(&root).unwrap_err().to_string();
    assert_eq!(second, "another `tolv` has the state folder: pid 4711, http://shop.localhost:8080");
    drop(first);
    open(&root).unwrap();
    assert_eq!(fs::read_to_string(root.join(".gitignore")).unwrap(), "*\n");
}

#[test]
fn a_file_in_its_place_is_one_clear_error() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("file");
    fs::write(&root, "").unwrap();
    let error = open(&root).unwrap_err().to_string();
    assert!(error.starts_with("the state folder `"), "{error}");
}

#[test]
fn a_folder_that_others_may_enter_is_closed_and_what_is_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("state");
    let path = |name: &str| root.join(name);
    drop(open(&root).unwrap());
    for name in ["running", "apps/a/slugs/b", "logs/c"] {
        fs::create_dir_all(path(name)).unwrap();
    }
    for (name, mode) in [("db.sqlite", 0o644), ("running/x", 0o666), ("apps/a/slugs/b/run", 0o755)]
    {
        fs::write(path(name), "").unwrap();
        fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    std::os::unix::fs::symlink("/etc/passwd", path("link")).unwrap();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    let _home = open(&root).unwrap();
    let mode = |name: &str| fs::symlink_metadata(path(name)).unwrap().mode() & 0o777;
    for (name, wanted) in [
        ("", 0o700),
        ("db.sqlite", 0o600),
        ("running", 0o700),
        ("running/x", 0o600),
        ("logs/c", 0o700),
        ("lock", 0o600),
        // What processes see has modes of its own.
        ("apps/a/slugs/b/run", 0o755),
    ] {
        assert_eq!(mode(name), wanted, "{name}");
    }
    assert_eq!(fs::metadata("/etc/passwd").unwrap().mode() & 0o777, 0o644, "no link is followed");
}
