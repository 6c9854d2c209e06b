//! The disk fills while something is built.

use std::path::Path;

use tolv_testkit::Home;

use super::*;

/// A file system of its own, of a few MiB; gone when dropped.
struct Small(Home);

impl Small {
    /// Nothing where this user may not mount.
    fn new(mib: u32) -> Option<Self> {
        let home = Home::new();
        let size = format!("size={mib}m");
        let mounted =
            run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(home.path()));
        mounted.status.success().then_some(Self(home))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(self.path()));
    }
}

#[test]
fn a_build_that_fills_the_disk_fails_alone() {
    let Some(disk) = Small::new(64) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let home = disk.path().join("state");
    let shop = Shop::site("one", &[("TOLV_HOME", home.to_str().unwrap()), ("TOLV_MIN_FREE", "0")]);
    shop.pushed(&["tolv", "main"]);
    // Once as a git object, once exported, once in the slug: too much, but only for the build.
    let mut random = vec![0_u8; 24 << 20];
    let mut state = 1_u32;
    for byte in &mut random {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = state.to_be_bytes()[0];
    }
    std::fs::write(shop.dir.join("large.bin"), random).unwrap();
    git::commit(&shop.dir);
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success(), "{}", ran.err);
    assert!(ran.err.contains("No space left on device"), "{}", ran.err);
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    // Nothing half-made is in the way of the next.
    std::fs::remove_file(shop.dir.join("large.bin")).unwrap();
    shop.change("index.html", "two");
    shop.pushed(&["tolv", "main"]);
    assert_eq!(shop.text("shop.localhost", "/"), "two");
    assert!(shop.tolv(&["releases", "verify"]).contains('2'));
    drop(shop);
    drop(disk);
}
