use std::os::unix::fs::{PermissionsExt as _, symlink};

use tolv_testkit::Home;

use super::*;

fn sealed(root: &Path, modes: Modes) -> Vec<(Vec<u8>, Entry)> {
    seal(root, modes, &|_| true, &|| false).unwrap()
}

fn mode(path: &Path) -> u32 {
    path.symlink_metadata().unwrap().permissions().mode() & 0o7777
}

/// One tree, made with any modes.
fn tree(modes: [u32; 3]) -> Home {
    let home = Home::new();
    let [folder, file, program] = modes;
    let path = home.write("lib/readme", "text");
    files::set_mode(&path, file).unwrap();
    let path = home.write("lib/run", "#!/bin/sh\n");
    files::set_mode(&path, program).unwrap();
    symlink("lib/run", home.path().join("go")).unwrap();
    files::set_mode(&home.path().join("lib"), folder).unwrap();
    home
}

#[test]
fn modes_and_owners_are_set() {
    for (modes, want) in [(SLUG, [0o755, 0o644, 0o755]), (READ_ONLY, [0o555, 0o444, 0o555])] {
        let home = tree([0o2777, 0o4666, 0o700]);
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::lchown(home.path().join("lib/run"), Some(1234), Some(1234)).unwrap();
            std::os::unix::fs::lchown(home.path().join("go"), Some(1234), Some(1234)).unwrap();
        }
        sealed(home.path(), modes);
        let paths = ["lib", "lib/readme", "lib/run"].map(|path| home.path().join(path));
        assert_eq!(paths.each_ref().map(|path| mode(path)), want);
        assert_eq!(mode(home.path()), want[0]);
        let me = rustix::process::geteuid().as_raw();
        for path in paths.iter().chain([&home.path().join("go")]) {
            assert_eq!(path.symlink_metadata().unwrap().uid(), me, "{}", path.display());
        }
    }
}

#[test]
fn the_list_knows_content_and_not_where_it_came_from() {
    let (one, other) = (tree([0o755, 0o644, 0o755]), tree([0o700, 0o200, 0o711]));
    let (one, other) = (sealed(one.path(), SLUG), sealed(other.path(), READ_ONLY));
    assert_eq!(one, other);
    let paths: Vec<_> = one.iter().map(|(path, _)| String::from_utf8_lossy(path)).collect();
    assert_eq!(paths, ["go", "lib", "lib/readme", "lib/run"]);
    assert_eq!(one[0].1, Entry::Symlink { target: b"lib/run".to_vec() });
    let digest = Digest::of(b"text");
    assert_eq!(one[2].1, Entry::File { digest, size: 4, executable: false });
    assert_eq!(count(&one), (2, 14));
}

#[test]
fn every_difference_changes_the_content() {
    let file = |bytes: &[u8], executable| Entry::File {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        executable,
    };
    let link = |target: &[u8]| Entry::Symlink { target: target.to_vec() };
    let trees = [
        vec![],
        vec![("a", file(b"1", false))],
        vec![("a", file(b"2", false))],
        vec![("a", file(b"1", true))],
        vec![("b", file(b"1", false))],
        vec![("a", link(b"b"))],
        vec![("a", link(b"c"))],
        vec![("a", Entry::Directory)],
        vec![("a", Entry::Directory), ("a/b", Entry::Directory)],
    ];
    let digests = trees.map(|tree| {
        let tree: Vec<_> =
            tree.into_iter().map(|(path, entry)| (path.as_bytes().to_vec(), entry)).collect();
        content(tree.iter().map(|(path, entry)| (path, entry)))
    });
    let different: std::collections::BTreeSet<_> = digests.iter().collect();
    assert_eq!(different.len(), digests.len());
}

#[test]
fn a_shared_inode_is_parted() {
    let home = Home::new();
    let outside = home.write("cache/package.js", "good");
    home.write("tree/other", "");
    let inside = home.path().join("tree/package.js");
    fs::hard_link(&outside, &inside).unwrap();
    let entries = sealed(&home.path().join("tree"), READ_ONLY);
    fs::write(&outside, "evil").unwrap();
    assert_eq!(fs::read(&inside).unwrap(), b"good");
    assert_eq!(mode(&inside), 0o444);
    assert!(entries.iter().any(|(path, entry)| path == b"package.js"
        && matches!(entry, Entry::File { digest, .. } if *digest == Digest::of(b"good"))));
}

#[test]
fn the_unwanted_is_removed_with_all_below() {
    let home = Home::new();
    for path in ["keep/a", "target/debug/x", "target/y"] {
        home.write(path, "");
    }
    files::set_mode(&home.path().join("target/debug"), 0o000).unwrap();
    let entries = seal(home.path(), SLUG, &|path| path != b"target", &|| false).unwrap();
    assert_eq!(
        entries.iter().map(|(path, _)| path.as_slice()).collect::<Vec<_>>(),
        [b"keep".as_slice(), b"keep/a"]
    );
    assert!(!home.path().join("target").exists());
}

#[test]
fn what_is_no_file_is_refused_by_name() {
    let home = Home::new();
    let _socket = std::os::unix::net::UnixListener::bind(home.path().join("web.sock")).unwrap();
    let error = seal(home.path(), SLUG, &|_| true, &|| false).unwrap_err();
    assert_eq!(error.to_string(), "the build left `web.sock`, which is no file, folder or link");
}

#[test]
fn sealing_can_be_cancelled() {
    let home = tree([0o755, 0o644, 0o755]);
    assert!(matches!(seal(home.path(), SLUG, &|_| true, &|| true), Err(Error::Cancelled)));
}
