use std::os::unix::fs::symlink;
use std::sync::mpsc;

use tolv_testkit::Home;

use super::*;

#[test]
fn only_regular_files_are_opened() {
    let home = Home::new();
    let plain = home.write("plain", "text");
    symlink("plain", home.path().join("link")).unwrap();
    let pipe = home.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let (digest, size) = pour(open(&plain).unwrap(), io::sink()).unwrap();
    assert_eq!((digest, size), (Digest::of(b"text"), 4));
    for bad in ["link", "pipe", "gone", "."] {
        assert!(open(&home.path().join(bad)).is_err(), "{bad}");
    }
}

#[test]
fn a_walk_tells_all_and_enters_what_it_may() {
    let home = Home::new();
    for path in ["a/x", "a.b", "closed/secret", "z/deep/er"] {
        home.write(path, "");
    }
    symlink("/etc", home.path().join("link")).unwrap();
    let mut found =
        walk(home.path(), 100, &|| false, &mut |found| Ok(found.path != b"closed")).unwrap();
    found.sort_by(|a, b| a.path.cmp(&b.path));
    let paths: Vec<_> = found.iter().map(|one| String::from_utf8_lossy(&one.path)).collect();
    assert_eq!(paths, ["a", "a.b", "a/x", "closed", "link", "z", "z/deep", "z/deep/er"]);
    let link = found.iter().find(|one| one.path == b"link").unwrap();
    assert!(link.meta.is_symlink());
}

#[test]
fn removes_whatever_the_modes_are() {
    let home = Home::new();
    home.write("tree/locked/file", "");
    home.write("outside", "kept");
    let tree = home.path().join("tree");
    symlink("../outside", tree.join("link")).unwrap();
    set_mode(&tree.join("locked"), 0o000).unwrap();
    set_mode(&tree, 0o500).unwrap();
    remove(&tree).unwrap();
    assert!(!tree.exists() && home.path().join("outside").exists());
    remove(&tree).unwrap();
    let file = home.write("file", "");
    remove(&file).unwrap();
    assert!(!file.exists());
}

/// Folders in each other, deeper than a path can name.
fn nest(root: &Path, depth: usize) {
    make_folder(root).unwrap();
    let mut here = openat(CWD, root, FOLDER, Mode::empty()).unwrap();
    for _ in 0..depth {
        rustix::fs::mkdirat(&here, "deep", Mode::from_raw_mode(0o500)).unwrap();
        here = openat(&here, "deep", FOLDER, Mode::empty()).unwrap();
        fchmod(&here, Mode::from_raw_mode(0o700)).unwrap();
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    openat(&here, "file", flags, Mode::from_raw_mode(0o600)).unwrap();
}

#[test]
fn a_tree_without_an_end_is_counted_walked_and_removed() {
    let home = Home::new();
    let tree = home.path().join("tree");
    nest(&tree, 5000);
    home.write("outside/kept", "");
    symlink("../outside", tree.join("link")).unwrap();
    assert_eq!(disk_use(&tree), u64::MAX);
    let error = walk(&tree, 10_000, &|| false, &mut |_| Ok(true)).unwrap_err();
    assert!(error.to_string().contains("256 folders"), "{error}");
    assert!(matches!(remove_until(&tree, &|| true), Err(Error::Cancelled)));
    remove(&tree).unwrap();
    assert!(!tree.exists() && home.path().join("outside/kept").exists());
}

#[test]
fn a_walk_ends_at_its_limit_and_when_it_is_told() {
    let home = Home::new();
    (0..20).for_each(|name| drop(home.write(&format!("{name}"), "")));
    let error = walk(home.path(), 19, &|| false, &mut |_| Ok(true)).unwrap_err();
    assert!(error.to_string().contains("19 files (TOLV_BUILD_FILES)"), "{error}");
    assert_eq!(walk(home.path(), 20, &|| false, &mut |_| Ok(true)).unwrap().len(), 20);
    assert!(matches!(walk(home.path(), 20, &|| true, &mut |_| Ok(true)), Err(Error::Cancelled)));
}

#[test]
fn a_lock_has_one_holder() {
    let home = Home::new();
    let path = home.path().join("lock");
    let held = Lock::try_take(&path).unwrap().unwrap();
    assert!(Lock::try_take(&path).unwrap().is_none());
    assert!(matches!(Lock::take(&path, &|| true, &mut || {}), Err(Error::Cancelled)));
    let (waits, waiting) = mpsc::channel();
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            Lock::take(&path, &|| false, &mut || waits.send(()).unwrap()).unwrap();
        });
        waiting.recv().unwrap();
        drop(held);
        waiter.join().unwrap();
    });
    assert!(waiting.try_recv().is_err(), "a wait is told once");
}

#[test]
fn a_file_is_written_whole() {
    let home = Home::new();
    let path = home.write("notes", "a long old text");
    write_whole(&path, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    let folder = home.path().join("folder");
    make_folder(&folder.join("full")).unwrap();
    assert!(write_whole(&folder, b"x").is_err());
    let names: Vec<_> = fs::read_dir(home.path()).unwrap().flatten().collect();
    assert_eq!(names.len(), 2, "no half-written file is left: {names:?}");
}

#[test]
fn many_may_write_one_file() {
    let home = Home::new();
    let path = home.path().join("notes");
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let path = &path;
            scope.spawn(move || {
                (0..20).for_each(|_| write_whole(path, &[writer; 100]).unwrap());
            });
        }
    });
    let bytes = fs::read(&path).unwrap();
    assert!(bytes.len() == 100 && bytes.iter().all(|byte| *byte == bytes[0]));
}

#[test]
fn disk_use_counts_what_is_written() {
    let home = Home::new();
    let empty = disk_use(home.path());
    home.write("a/b", vec![1; 100_000]);
    symlink("/usr", home.path().join("link")).unwrap();
    let used = disk_use(home.path()) - empty;
    assert!((100_000..200_000).contains(&used), "{used}");
    assert_eq!(disk_use(&home.path().join("gone")), 0);
}
