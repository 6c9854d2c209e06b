use std::os::unix::fs::PermissionsExt as _;

use tolv_testkit::{Home, poll};

use super::*;
use crate::seal::{SLUG, content, seal};

struct Bed {
    home: Home,
    entries: Vec<(Vec<u8>, Entry)>,
    digest: Digest,
    proofs: Proofs,
}

impl Bed {
    fn new() -> Self {
        let home = Home::new();
        home.write("tree/bin/run", "#!/bin/sh\n");
        home.write("tree/data", "data");
        std::os::unix::fs::symlink("bin/run", home.path().join("tree/link")).unwrap();
        let entries = seal(&home.path().join("tree"), SLUG, &|_| true, &|| false).unwrap();
        let digest = content(entries.iter().map(|(path, entry)| (path, entry)));
        Self { home, entries, digest, proofs: Proofs::default() }
    }

    fn prove(&self) -> Result<(), String> {
        let root = self.home.path().join("tree");
        let entries = || Ok(self.entries.clone());
        prove(&root, SLUG, self.digest, entries, &self.proofs).unwrap()
    }

    /// Whether the bytes need not be read.
    fn is_known(&self) -> bool {
        let root = self.home.path().join("tree");
        let entries = || Err("is read".to_owned());
        prove(&root, SLUG, self.digest, entries, &self.proofs).unwrap().is_ok()
    }

    fn known(&self) {
        poll(Duration::from_secs(10), "the tree is known", || {
            self.prove().unwrap();
            self.is_known().then_some(())
        });
    }
}

#[test]
fn what_was_proven_is_known_until_something_changes() {
    let bed = Bed::new();
    bed.known();
    let tree = |path: &str| bed.home.path().join("tree").join(path);
    // The same length and the same times: the kernel's note of the change tells.
    let times = tree("data").metadata().unwrap().modified().unwrap();
    fs::write(tree("data"), "dat4").unwrap();
    fs::File::options().write(true).open(tree("data")).unwrap().set_modified(times).unwrap();
    assert!(!bed.is_known());
    assert_eq!(bed.prove().unwrap_err(), "differs at `data`");
    fs::write(tree("data"), "data").unwrap();
    bed.known();
    let read = Proofs::from_bytes(&bed.proofs.to_bytes().unwrap());
    assert_eq!(read.state().known, bed.proofs.state().known);
    assert!(bed.proofs.to_bytes().is_none(), "nothing was added since");
}

#[test]
fn everything_that_is_not_part_of_it_is_found() {
    let bed = Bed::new();
    let tree = |path: &str| bed.home.path().join("tree").join(path);
    type Change<'a> = (&'a str, Box<dyn Fn() + 'a>, Box<dyn Fn() + 'a>);
    let mode = |path: &'static str, mode: u32| {
        let path = tree(path);
        move || fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap()
    };
    let changes: [Change<'_>; 6] = [
        (
            "has `bin/more`, which is not part of it",
            Box::new(|| fs::write(tree("bin/more"), "").unwrap()),
            Box::new(|| fs::remove_file(tree("bin/more")).unwrap()),
        ),
        (
            "has `empty`, which is not part of it",
            Box::new(|| fs::create_dir(tree("empty")).unwrap()),
            Box::new(|| fs::remove_dir(tree("empty")).unwrap()),
        ),
        (
            "differs at `link`",
            Box::new(|| {
                fs::remove_file(tree("link")).unwrap();
                std::os::unix::fs::symlink("/etc/passwd", tree("link")).unwrap();
            }),
            Box::new(|| {
                fs::remove_file(tree("link")).unwrap();
                std::os::unix::fs::symlink("bin/run", tree("link")).unwrap();
            }),
        ),
        ("differs at `data`", Box::new(mode("data", 0o4644)), Box::new(mode("data", 0o644))),
        ("differs at `data`", Box::new(mode("data", 0o666)), Box::new(mode("data", 0o644))),
        ("has the mode 777", Box::new(mode("", 0o777)), Box::new(mode("", 0o755))),
    ];
    for (why, change, back) in changes {
        bed.known();
        change();
        assert_eq!(bed.prove().unwrap_err(), why);
        back();
        bed.prove().unwrap();
    }
}
