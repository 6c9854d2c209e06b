use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tolv_testkit::Home;
use tolv_testkit::git::{commit, git};

use super::*;
use crate::source::git::Git;

fn own() -> Git {
    Git { path: "/usr/local/bin:/usr/bin:/bin".into(), home: None }
}

/// Stores an object as it is, and gives its id.
fn object(repo: &Path, kind: &str, bytes: &[u8]) -> String {
    let mut git = Command::new("git");
    git.args(["hash-object", "-t", kind, "-w", "--literally", "--stdin"]).current_dir(repo);
    let mut child = git.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(bytes).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap().trim().to_owned()
}

/// A tree of entries as they are: mode, name, object.
fn tree(repo: &Path, entries: &[(&str, &[u8], &str)]) -> String {
    let raw = |id: &str| -> Vec<u8> {
        (0..20).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap()).collect()
    };
    let entry = |(mode, name, id): &(&str, &[u8], &str)| {
        [mode.as_bytes(), b" ", name, b"\0", &raw(id)].concat()
    };
    object(repo, "tree", &entries.iter().flat_map(entry).collect::<Vec<_>>())
}

struct Bed {
    home: Home,
    blob: String,
}

impl Bed {
    fn new() -> Self {
        let home = Home::new();
        home.write("repo/a", "text");
        commit(&home.path().join("repo"));
        let blob = git(&home.path().join("repo"), &["rev-parse", "HEAD:a"]);
        Self { home, blob }
    }

    fn repo(&self) -> PathBuf {
        self.home.path().join("repo")
    }

    fn export(&self, tree: &str, caps: &Caps) -> Result<Vec<String>, Error> {
        let to = self.home.path().join("to");
        fs::remove_dir_all(&to).ok();
        fs::create_dir(&to).unwrap();
        let (git, git_dir) = (own(), self.repo().join(".git"));
        let reader = Reader::Own(&git, &git_dir);
        let from = From { reader, tree: tree.as_bytes(), within: None, checkout: None };
        let paths = export(from, &to, caps, &Cancel::new().unwrap(), None)?;
        Ok(paths.into_keys().map(|path| shown(&path)).collect())
    }

    fn refused(&self, entries: &[(&str, &[u8], &str)]) -> String {
        let tree = tree(&self.repo(), entries);
        let error = self.export(&tree, &Caps::default()).unwrap_err().to_string();
        // What it is, and nothing beside the folder.
        let names: Vec<_> = fs::read_dir(self.home.path()).unwrap().flatten().collect();
        assert_eq!(names.len(), 2, "{names:?}");
        error
    }
}

#[test]
fn files_links_and_modes_are_what_the_commit_has() {
    let bed = Bed::new();
    let link = object(&bed.repo(), "blob", b"/etc/passwd");
    let empty = object(&bed.repo(), "blob", b"");
    let inner = tree(&bed.repo(), &[("100755", b"run", &bed.blob), ("100664", b"old", &bed.blob)]);
    let tree = tree(
        &bed.repo(),
        &[
            ("100644", b"caf\xe9", &bed.blob),
            ("100644", b"empty", &empty),
            ("40000", b"folder", &inner),
            ("120000", b"link", &link),
        ],
    );
    let paths = bed.export(&tree, &Caps::default()).unwrap();
    assert_eq!(paths, ["caf\u{fffd}", "empty", "folder/old", "folder/run", "link"]);
    let to = bed.home.path().join("to");
    assert_eq!(fs::read(to.join("folder/run")).unwrap(), b"text");
    assert_eq!(fs::metadata(to.join("empty")).unwrap().len(), 0);
    assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/etc/passwd"));
    let mode = |name: &str| fs::metadata(to.join(name)).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode("folder/run"), mode("folder/old")), (0o755, 0o644));
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    let bed = Bed::new();
    let inner = tree(&bed.repo(), &[("100644", b"x", &bed.blob)]);
    for name in [&b".."[..], b".", b".git", b".GIT", b"git~1", b".git ", b".g\xe2\x80\x8cit"] {
        for entry in [("100644", name, &*bed.blob), ("40000", name, &inner)] {
            let error = bed.refused(&[entry]);
            assert!(error.contains("the name `"), "{name:?}: {error}");
        }
    }
    // Names with a slash in them, as no tree has them.
    for name in [&b"../evil"[..], b"/etc/evil", b"a/../../evil", b"a//b"] {
        let error = bed.refused(&[("100644", name, &bed.blob)]);
        assert!(error.contains("the name `"), "{name:?}: {error}");
    }
}

#[test]
fn one_path_is_one_thing() {
    let bed = Bed::new();
    let out = object(&bed.repo(), "blob", b"/etc");
    let inner = tree(&bed.repo(), &[("100644", b"evil", &bed.blob)]);
    for entries in [
        [("120000", &b"a"[..], &*out), ("40000", b"a", &*inner)],
        [("40000", b"a", &inner), ("120000", b"a", &out)],
        [("100644", b"a", &bed.blob), ("100644", b"a", &bed.blob)],
        [("120000", b"a", &out), ("100644", b"a/evil", &bed.blob)],
    ] {
        let error = bed.refused(&entries);
        assert!(error.starts_with("the commit has two things at `a"), "{error}");
    }
}

#[test]
fn objects_that_are_no_files_are_refused() {
    let bed = Bed::new();
    let zero = object(&bed.repo(), "blob", b"a\0b");
    let none = object(&bed.repo(), "blob", b"");
    let long = object(&bed.repo(), "blob", &[b'x'; 5000]);
    let missing = "1".repeat(40);
    let inner = tree(&bed.repo(), &[("100644", b"x", &bed.blob)]);
    for (entry, says) in [
        (("120000", &b"l"[..], &*zero), "zero byte"),
        (("120000", b"l", &none), "is empty"),
        (("120000", b"l", &long), "over the limit of 3.9 KiB"),
        (("100644", b"f", &missing), "missing or broken"),
        (("100644", b"f", &inner), "missing or broken"),
        (("160000", b"m", &missing), "is not checked out"),
    ] {
        let error = bed.refused(&[entry]);
        assert!(error.contains(says), "{error}");
    }
}

#[test]
fn limits_hold_before_anything_is_written() {
    let bed = Bed::new();
    let blob = object(&bed.repo(), "blob", &[0; 1 << 20]);
    let names: Vec<_> = (0..100).map(|at| format!("f{at:03}").into_bytes()).collect();
    let entries: Vec<_> = names.iter().map(|name| ("100644", &**name, &*blob)).collect();
    let tree = tree(&bed.repo(), &entries);
    let caps = Caps::default();
    for (caps, says) in [
        (Caps { files: 99, ..caps }, "99 files"),
        (Caps { slug: 99 << 20, ..caps }, "99 MiB"),
        (Caps { file: 1 << 19, ..caps }, "512 KiB"),
    ] {
        let error = bed.export(&tree, &caps).unwrap_err().to_string();
        assert!(error.contains("over the limit of") && error.contains(says), "{error}");
        assert_eq!(fs::read_dir(bed.home.path().join("to")).unwrap().count(), 0);
    }
    assert_eq!(
        bed.export(&tree, &Caps { files: 100, slug: 100 << 20, ..caps }).unwrap().len(),
        100
    );
}

#[test]
fn a_million_names_take_no_longer_than_the_limit() {
    let bed = Bed::new();
    let names: Vec<_> = (0..1000).map(|at| format!("{at:04}").into_bytes()).collect();
    let files: Vec<_> = names.iter().map(|name| ("100644", &**name, &*bed.blob)).collect();
    let inner = tree(&bed.repo(), &files);
    let folders: Vec<_> = names.iter().map(|name| ("40000", &**name, &*inner)).collect();
    let outer = tree(&bed.repo(), &folders);
    let worse: Vec<_> = names.iter().map(|name| ("40000", &**name, &*outer)).collect();
    let worse = tree(&bed.repo(), &worse);
    let began = Instant::now();
    let error = bed.export(&worse, &Caps { files: 20_000, ..Caps::default() }).unwrap_err();
    assert!(error.to_string().contains("20000 files (TOLV_BUILD_FILES)"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn what_is_ignored_does_not_count() {
    let bed = Bed::new();
    let large = object(&bed.repo(), "blob", &[0; 1 << 20]);
    let ignore = object(&bed.repo(), "blob", b"/data\n");
    let inner = tree(&bed.repo(), &[("100644", b"x", &large)]);
    let tree = tree(
        &bed.repo(),
        &[
            ("100644", b".slugignore", &ignore),
            ("100644", b"a", &bed.blob),
            ("40000", b"data", &inner),
        ],
    );
    let caps = Caps { slug: 1000, ..Caps::default() };
    assert_eq!(bed.export(&tree, &caps).unwrap(), [".slugignore", "a"]);
    assert!(!bed.home.path().join("to/data").exists());
}

#[test]
fn a_cancelled_export_ends() {
    let bed = Bed::new();
    let to = bed.home.path().join("to");
    fs::create_dir(&to).unwrap();
    let (git, git_dir) = (own(), bed.repo().join(".git"));
    let cancel = Cancel::new().unwrap();
    cancel.cancel();
    let from =
        From { reader: Reader::Own(&git, &git_dir), tree: b"HEAD:", within: None, checkout: None };
    let ended = export(from, &to, &Caps::default(), &cancel, None);
    assert!(matches!(ended, Err(Error::Cancelled)));
}
