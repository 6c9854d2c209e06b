//! The disk fills while something is built.

use std::path::Path;

use rustix::process::Signal;
use tolv_testkit::Home;

use super::*;

/// A file system of its own, of a few MiB; gone when dropped.
pub(super) struct Small(Home);

impl Small {
    /// Nothing where this user may not mount.
    pub(super) fn new(mib: u32) -> Option<Self> {
        let home = Home::new();
        let size = format!("size={mib}m");
        let mounted =
            run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(home.path()));
        mounted.status.success().then_some(Self(home))
    }

    pub(super) fn path(&self) -> &Path {
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
    assert!(ran.err.contains("the disk of the platform is full"), "{}", ran.err);
    assert!(!ran.err.contains(disk.path().to_str().unwrap()), "{}", ran.err);
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

/// What frees room is not refused for want of it; what takes room is.
#[test]
fn on_a_full_disk_a_deploy_is_stopped_scaled_rolled_back_and_destroyed() {
    let Some(disk) = Small::new(96) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let home = disk.path().join("state");
    let min = [("TOLV_HOME", home.to_str().unwrap()), ("TOLV_MIN_FREE", "32")];
    let shop = Shop::site("one", &min);
    shop.pushed(&["tolv", "main"]);
    shop.change("index.html", "two");
    shop.pushed(&["tolv", "main"]);
    let stat = rustix::fs::statvfs(disk.path()).unwrap();
    let free = usize::try_from(stat.f_bavail * stat.f_frsize).unwrap();
    std::fs::write(disk.path().join("filler"), vec![1; free - (16 << 20)]).unwrap();
    shop.change("index.html", "three");
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success() && ran.err.contains("are kept free"), "{}", ran.err);
    shop.tolv(&["rollback", "v1"]);
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    shop.tolv(&["scale", "web=2"]);
    shop.tolv(&["limits", "web", "--memory", "256M"]);
    shop.tolv(&["stop"]);
    shop.tolv(&["start"]);
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    // Outputs wait for room: that is said, and is no failure.
    let said = shop.tolv(&["logs", "-n", "200"]);
    assert!(said.contains("is not kept"), "{said}");
    shop.tolv(&["destroy", "shop", "--confirm", "shop"]);
    drop(shop);
    drop(disk);
}

/// Bytes that are free.
fn free(disk: &Small) -> u64 {
    let stat = rustix::fs::statvfs(disk.path()).unwrap();
    stat.f_bavail * stat.f_frsize
}

/// Pushes that send packs without an end, and then nothing more, do not fill the disk together.
#[test]
fn pushes_leave_the_disk_the_space_that_is_kept_free() {
    use super::slow::{Slow, blob_of_zeros, new_ref, stored};
    const MIB: u64 = 1 << 20;
    let Some(disk) = Small::new(200) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let home = disk.path().join("state");
    let shop =
        Shop::site("one", &[("TOLV_HOME", home.to_str().unwrap()), ("TOLV_MIN_FREE", "100")]);
    shop.pushed(&["tolv", "main"]);
    let before = free(&disk);
    assert!(before > 150 * MIB, "{before}");
    let commit = git::git(&shop.dir, &["rev-parse", "HEAD"]);
    let path = "/git/shop/production.git/git-receive-pack";
    let pieces = stored(&vec![0; 1 << 20]);
    let push = |n: u32| {
        let name = format!("refs/heads/large{n}");
        let mut push = Slow::begin(&shop.serve, shop.serve.token(), path, "");
        let begin = format!("{}PACK\0\0\0\x02\0\0\0\x01", new_ref(&commit, &name));
        push.send(begin.as_bytes()).unwrap();
        push.send(&blob_of_zeros(500 * MIB, 60_000)).unwrap();
        for _ in 0..190 {
            // A platform that wants no more of it may end the connection.
            if push.send(&pieces).is_err() {
                break;
            }
            let free = free(&disk);
            assert!(free > 94 * MIB, "{} MiB free", free / MIB);
        }
        // What was stored is removed while the client is still there.
        poll(SOON, "what the pushes stored is removed", || {
            (free(&disk) > before - 8 * MIB).then_some(())
        });
        let answer = push.answer_with("unpack the disk of the platform is full (", SOON);
        assert!(!answer.contains("abnormal exit"), "{answer}");
    };
    std::thread::scope(|scope| {
        let pushes = [0, 1, 2].map(|n| {
            scope.spawn({
                let push = &push;
                move || push(n)
            })
        });
        for push in pushes {
            push.join().unwrap();
        }
    });
    // git shows the same.
    let mut random = vec![0; 130 << 20];
    let mut source = std::fs::File::open("/dev/urandom").unwrap();
    std::io::Read::read_exact(&mut source, &mut random).unwrap();
    std::fs::write(shop.dir.join("large.bin"), random).unwrap();
    git::commit(&shop.dir);
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success(), "{}", ran.err);
    assert!(ran.err.contains("the disk of the platform is full ("), "{}", ran.err);
    assert!(!ran.err.contains("abnormal exit"), "{}", ran.err);
    poll(SOON, "what git pushed is removed", || (free(&disk) > before - 8 * MIB).then_some(()));
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    drop(shop);
    drop(disk);
}

/// Makes the rest of a file system full, to the last byte.
fn fill(disk: &Small) -> std::path::PathBuf {
    let filler = disk.path().join("filler");
    let mut out = std::fs::OpenOptions::new().create(true).append(true).open(&filler).unwrap();
    for size in [1 << 20, 4096] {
        let piece = vec![1; size];
        while std::io::Write::write_all(&mut out, &piece).is_ok() {}
    }
    filler
}

/// A full disk is no reason to start again: writes go on once there is space.
#[test]
fn after_a_full_disk_the_platform_writes_again_and_frees_space_meanwhile() {
    let Some(disk) = Small::new(150) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let home = disk.path().join("state");
    let min = [("TOLV_HOME", home.to_str().unwrap()), ("TOLV_MIN_FREE", "20")];
    let shop = Shop::site("one", &min);
    shop.pushed(&["tolv", "main"]);
    shop.change("index.html", "two");
    shop.pushed(&["tolv", "main"]);
    let filler = fill(&disk);
    for number in 0..6 {
        let ran = shop.ran(&["config", "set", &format!("C={number}")]);
        assert!(
            !ran.status.success() && ran.err.contains("the disk of the platform is full"),
            "{}",
            ran.err
        );
    }
    // With not a byte free: stopping, scaling, limits and a rollback have space of their own.
    shop.tolv(&["stop"]);
    shop.tolv(&["start"]);
    assert_eq!(shop.text("shop.localhost", "/"), "two");
    shop.tolv(&["scale", "web=2"]);
    shop.tolv(&["limits", "web", "--memory", "256M"]);
    shop.tolv(&["rollback", "v1"]);
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    std::fs::remove_file(filler).unwrap();
    for number in 0..6 {
        shop.tolv(&["config", "set", &format!("C={number}")]);
    }
    fill(&disk);
    shop.tolv(&["destroy", "shop", "--confirm", "shop"]);
    drop(shop);
    drop(disk);
}

/// The reserve is not used up by the first time that the disk is full.
#[test]
fn on_a_disk_that_is_filled_again_and_again_a_deploy_is_stopped_each_time() {
    let Some(disk) = Small::new(150) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let home = disk.path().join("state");
    let min = [("TOLV_HOME", home.to_str().unwrap()), ("TOLV_MIN_FREE", "20")];
    let shop = Shop::site("one", &min);
    shop.pushed(&["tolv", "main"]);
    for round in 0..3 {
        let filler = fill(&disk);
        shop.tolv(&["stop"]);
        shop.tolv(&["start"]);
        assert_eq!(shop.text("shop.localhost", "/"), "one", "round {round}");
        // A bit of it is freed.
        let filler = std::fs::OpenOptions::new().write(true).open(filler).unwrap();
        let size = filler.metadata().unwrap().len();
        filler.set_len(size - (3 << 20)).unwrap();
    }
    // Without a reserve nothing is promised.
    fill(&disk);
    std::fs::remove_file(home.join("reserve")).ok();
    fill(&disk);
    for _ in 0..3 {
        let ran = shop.ran(&["config", "set", "A=1"]);
        assert!(ran.err.contains("the disk of the platform is full"), "{}", ran.err);
        for command in ["stop", "start"] {
            let ran = shop.ran(&[command]);
            assert!(ran.status.success() || ran.err.contains("is used up too"), "{}", ran.err);
        }
    }
    // The reserve is there again with the space, though nobody writes.
    std::fs::remove_file(disk.path().join("filler")).unwrap();
    poll(SOON, "the reserve", || {
        let reserve = std::fs::metadata(home.join("reserve"));
        reserve.is_ok_and(|meta| meta.len() == 8 << 20).then_some(())
    });
    drop(shop);
    drop(disk);
}

/// A start writes nothing that what ran before needs.
#[test]
fn a_start_on_a_full_disk_brings_back_what_ran() {
    let Some(disk) = Small::new(150) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let home = disk.path().join("state");
    let min = [("TOLV_HOME", home.to_str().unwrap()), ("TOLV_MIN_FREE", "20")];
    let mut shop = Shop::site("one", &min);
    shop.pushed(&["tolv", "main"]);
    let filler = fill(&disk);
    for signal in [Signal::KILL, Signal::INT] {
        shop.serve.end(signal);
        // Not even what is reserved is there.
        std::fs::remove_file(home.join("reserve")).ok();
        fill(&disk);
        shop.serve.begin();
        until_text(&shop, "shop.localhost", "one");
    }
    std::fs::remove_file(filler).unwrap();
    poll(SOON, "what waits for space is done", || {
        shop.ran(&["config", "set", "C=1"]).status.success().then_some(())
    });
    shop.change("index.html", "two");
    shop.pushed(&["tolv", "main"]);
    assert_eq!(shop.text("shop.localhost", "/"), "two");
    assert!(home.join("reserve").exists());
    drop(shop);
    drop(disk);
}

/// A token that may change config cannot fill the disk with versions of it.
#[test]
fn versions_of_config_do_not_pile_up() {
    let shop = Shop::site("one", &[("TOLV_KEEP_RELEASES", "2")]);
    shop.tolv(&["deploys", "create", "staging"]);
    let address: SocketAddr = shop.serve.url().strip_prefix("http://").unwrap().parse().unwrap();
    let head = format!("Bearer {}", shop.serve.token());
    let mut state = 1_u32;
    for _ in 0..40 {
        let mut value = || {
            let letter = |_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                char::from(b'a' + state.to_be_bytes()[0] % 26)
            };
            serde_json::json!({ "text": (0..60_000).map(letter).collect::<String>() })
        };
        let set = serde_json::json!({ "set": { "A": value(), "B": value(), "C": value() } });
        let target = "/v1/apps/shop/deploys/staging/config";
        let body = set.to_string();
        let length = body.len().to_string();
        let headers = [
            ("host", "x"),
            ("authorization", head.as_str()),
            ("content-type", "application/json"),
            ("content-length", length.as_str()),
        ];
        let answer = http::send_body(address, "PATCH", target, &headers, body.as_bytes(), SOON);
        let answer = answer.unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let bytes: u64 = std::fs::read_dir(shop.serve.state())
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("db.sqlite"))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(bytes < 10 << 20, "{bytes}");
}

/// Bytes of an app's repository.
fn repository(shop: &Shop) -> u64 {
    let ran =
        run(Command::new("du").args(["-s", "-B1"]).arg(shop.serve.state().join("git/shop.git")));
    ran.out.split_whitespace().next().unwrap().parse().unwrap()
}

/// Bytes that no compression makes fewer.
fn noise(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    std::iter::repeat_with(&mut next).flatten().take(bytes).collect()
}

#[test]
fn what_refused_pushes_brought_is_gone_and_a_repository_is_bounded() {
    let shop = Shop::site("one", &[("TOLV_REPOSITORY_MIB", "12")]);
    shop.pushed(&["tolv", "main"]);
    let before = repository(&shop);
    // A build that fails, a ref that is refused, and a push that holds a deploy that runs.
    std::fs::write(shop.dir.join("Procfile"), "web: !!!\n: x\n").unwrap();
    for round in 0..3 {
        std::fs::write(shop.dir.join("big"), noise(3 << 20, round + 7)).unwrap();
        git::commit(&shop.dir);
        let ran = shop.push(&["tolv", "main"]);
        assert!(!ran.status.success(), "{}", ran.err);
        poll(SOON, "what was refused to go", || {
            (repository(&shop) < before + (1 << 20)).then_some(())
        });
    }
    // What is there for good is bounded.
    git::git(&shop.dir, &["checkout", "-q", "--orphan", "other"]);
    for (bytes, seed, branch) in [(11_600 << 10, 99, "large"), (900 << 10, 98, "medium")] {
        std::fs::write(shop.dir.join(branch), noise(bytes, seed)).unwrap();
        std::fs::write(shop.dir.join("big"), "").unwrap();
        git::commit(&shop.dir);
        shop.pushed(&["tolv", &format!("HEAD:refs/heads/{branch}")]);
    }
    std::fs::write(shop.dir.join("small"), "x").unwrap();
    git::commit(&shop.dir);
    let ran = shop.push(&["tolv", "HEAD:refs/heads/more"]);
    let says = "the app's repository takes the 12 MiB that it may (TOLV_REPOSITORY_MIB)";
    assert!(!ran.status.success() && ran.err.contains(says), "{}", ran.err);
    // What the hint says helps: a branch is removed, and there is room again.
    shop.pushed(&["tolv", ":refs/heads/large", ":refs/heads/medium"]);
    poll(SOON, "what was removed to go", || (repository(&shop) < 5 << 20).then_some(()));
    shop.change("index.html", "two");
    std::fs::write(shop.dir.join("Procfile"), "").unwrap();
    // Pushes that come together are bounded together.
    let branch = |n: u64| {
        git::git(&shop.dir, &["checkout", "-q", "--orphan", &format!("b{n}")]);
        for file in ["large", "medium"] {
            std::fs::remove_file(shop.dir.join(file)).ok();
        }
        std::fs::write(shop.dir.join("big"), noise(5 << 20, n + 200)).unwrap();
        git::commit(&shop.dir);
        push_command(&shop.serve, &shop.dir, &["tolv", &format!("b{n}")])
    };
    let commands: Vec<_> = (0..4).map(branch).collect();
    let pushes: Vec<_> = commands.into_iter().map(|mut push| push.spawn().unwrap()).collect();
    for mut push in pushes {
        push.wait().unwrap();
    }
    assert!(repository(&shop) < 16 << 20, "{}", repository(&shop));
}
