use std::collections::BTreeMap;

use tolv_model::slug::{Digest, Entry};

use super::Tree;

fn tree() -> (tempfile::TempDir, Tree) {
    let dir = tempfile::tempdir().unwrap();
    let mut entries = BTreeMap::new();
    for path in ["a.txt", "a/b/c.txt", "a/d.txt", "bad.txt"] {
        let full = dir.path().join(path);
        std::fs::create_dir_all(full.parent().unwrap()).unwrap();
        let bytes: &[u8] = if path == "bad.txt" { b"ok\n\xff" } else { b"\xef\xbb\xbfhi" };
        std::fs::write(&full, bytes).unwrap();
        let file =
            Entry::File { digest: Digest::of(bytes), size: bytes.len() as u64, executable: false };
        entries.insert(path.as_bytes().to_vec(), file);
    }
    std::fs::write(dir.path().join("ignored"), "x").unwrap();
    let tree = Tree::new(dir.path().to_owned(), entries);
    (dir, tree)
}

#[test]
fn shows_listed_files_only() {
    let (_dir, tree) = tree();
    assert!(tree.is_file("a.txt") && !tree.is_file("a") && !tree.is_file("ignored"));
    assert!(tree.is_dir("a") && tree.is_dir("a/b") && !tree.is_dir("a.txt") && !tree.is_dir("x"));
    assert_eq!(tree.names(""), ["a", "a.txt", "bad.txt"]);
    assert_eq!(tree.names("a"), ["b", "d.txt"]);
    assert_eq!(tree.read("ignored").unwrap(), None);
    assert_eq!(tree.text("a.txt").unwrap().unwrap(), "hi");
    assert_eq!(tree.text("bad.txt").unwrap_err().to_string(), "`bad.txt` is not UTF-8 in line 2");
}
