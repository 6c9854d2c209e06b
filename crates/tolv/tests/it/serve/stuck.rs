//! A status is told of a platform and a disk that do not answer at all.

use std::time::Instant;

use rustix::process::{Signal, kill_process};

use super::status::{AT_ONCE, at_home, parsed};
use super::*;

/// A file system on a device of its own, which can be frozen; thawed and gone when dropped.
struct Freezable {
    home: tolv_testkit::Home,
}

impl Freezable {
    /// Nothing where this user may not mount.
    fn new() -> Option<Self> {
        let home = tolv_testkit::Home::new();
        let (image, folder) = (home.path().join("image"), home.path().join("disk"));
        std::fs::create_dir(&folder).unwrap();
        let file = std::fs::File::create(&image).unwrap();
        file.set_len(256 << 20).unwrap();
        let made = Command::new("/usr/sbin/mkfs.ext4").arg("-q").arg(&image).output().ok()?;
        let mounted = Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&folder).output();
        (made.status.success() && mounted.ok()?.status.success()).then_some(Self { home })
    }

    fn path(&self) -> std::path::PathBuf {
        self.home.path().join("disk")
    }

    fn freeze(&self, how: &str) -> bool {
        let done = Command::new("/usr/sbin/fsfreeze").arg(how).arg(self.path()).output();
        done.is_ok_and(|done| done.status.success())
    }
}

impl Drop for Freezable {
    fn drop(&mut self) {
        self.freeze("-u");
        run(Command::new("umount").arg("--lazy").arg(self.path()));
    }
}

#[test]
fn a_disk_that_is_frozen_is_told() {
    let Some(disk) = Freezable::new() else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let home = disk.path().join("state");
    let shop = Shop::site("one", &[("TOLV_HOME", home.to_str().unwrap()), ("TOLV_MIN_FREE", "8")]);
    let platform = shop.serve.running().pid();
    let told = || {
        let mut command = shop.serve.command(Path::new("/"), &["status", "--platform", "--json"]);
        command.env_remove("TOLV_SERVER").env_remove("TOLV_TOKEN").env("TOLV_HOME", &home);
        let asked = Instant::now();
        parsed(&run(&mut command), asked.elapsed())
    };
    assert_eq!(told().state("disk"), "ok");
    if !disk.freeze("-f") {
        println!("skipped: this user may not freeze a file system");
        return;
    }
    let hung = || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", platform.as_raw_nonzero())).unwrap();
        let states = tasks
            .flatten()
            .filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
        states.filter(|stat| stat.contains(") D ")).count()
    };
    let first = told();
    let waiting = hung();
    for _ in 0..3 {
        let again = told();
        assert!(again.took < AT_ONCE, "{:?}", again.took);
        assert_eq!(again.state("disk"), "fail", "{:#}", again.json);
    }
    // The reserve may be looked after by one thread besides.
    let waiting_then = hung();
    assert!(disk.freeze("-u"));
    assert_eq!(first.state("disk"), "fail", "{:#}", first.json);
    assert!(waiting_then <= waiting + 1, "{waiting} threads hung, then {waiting_then}");
    poll(SOON, "the disk is ok", || (told().state("disk") == "ok").then_some(()));
    drop(shop);
    drop(disk);
}

#[test]
fn a_platform_that_is_stopped_by_a_signal_is_told_in_time() {
    let shop = Shop::site("one", &[]);
    let platform = shop.serve.running().pid();
    kill_process(platform, Signal::STOP).unwrap();
    let asked = Instant::now();
    let ran = at_home(&shop.serve, &[]);
    let took = asked.elapsed();
    kill_process(platform, Signal::CONT).unwrap();
    assert_eq!(ran.status.code(), Some(2), "{}", ran.err);
    assert!(ran.err.contains("has not answered within 2 seconds"), "{}", ran.err);
    assert!(took < AT_ONCE, "{took:?}");
    // An address is asked without `--platform`, too.
    let url = shop.serve.url();
    let ran = shop.ran(&["status", "--server", &url]);
    assert!(ran.out.contains(" lease        held by pid "), "{}{}", ran.out, ran.err);
}

#[test]
fn after_a_start_it_is_never_said_that_nothing_runs() {
    let mut shop = Shop::new("web: python3 server.py\nworker: sleep 1000\n", &[]);
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["scale", "worker=4"]);
    for signal in [Signal::KILL, Signal::TERM] {
        shop.serve.end(signal);
        shop.serve.begin();
        let processes = shop.json(&["ps"])["items"].as_array().unwrap().clone();
        assert_eq!(processes.len(), 5, "{processes:?}");
    }
}
