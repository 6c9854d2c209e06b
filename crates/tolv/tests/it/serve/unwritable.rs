//! The disk of the state folder takes no new file, or became read-only.

use std::fs::File;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use tolv_testkit::Home;

use super::*;

/// A file system in a file, with so many inodes; gone when dropped.
struct Loop {
    image: Home,
    home: Home,
}

impl Loop {
    /// Nothing where this user may not mount.
    fn new(inodes: u32) -> Option<Self> {
        let (image, home) = (Home::new(), Home::new());
        let file = image.path().join("image");
        File::create(&file).unwrap().set_len(400 << 20).unwrap();
        let made =
            run(Command::new("mkfs.ext4").args(["-qF", "-N", &inodes.to_string()]).arg(&file));
        let disk = Self { image, home };
        (made.status.success() && disk.mount(&["-o", "loop"])).then_some(disk)
    }

    fn mount(&self, options: &[&str]) -> bool {
        let mut command = Command::new("mount");
        command.args(options).arg(self.image.path().join("image")).arg(self.path());
        run(&mut command).status.success()
    }

    fn remount(&self, options: &str) {
        poll(SOON, "nobody to write", || {
            let ran = run(Command::new("mount").args(["-o", options]).arg(self.path()));
            // With `abort` the kernel does it, and says that it does not like it.
            (ran.status.success() || options.contains("abort")).then_some(())
        });
    }

    fn path(&self) -> &Path {
        self.home.path()
    }

    /// What the kernel makes of a disk that fails.
    fn abort(&self) {
        self.remount("remount,abort");
        File::create(self.path().join("x")).unwrap_err();
    }

    /// Uses up what there is of inodes.
    fn use_up(&self) {
        let folder = self.path().join("fill");
        std::fs::create_dir_all(&folder).unwrap();
        let mut number = 0;
        while File::create(folder.join(number.to_string())).is_ok() {
            number += 1;
        }
    }

    fn free_up(&self) {
        std::fs::remove_dir_all(self.path().join("fill")).unwrap();
    }

    /// A shop with its state there, and a site that runs.
    fn shop(&self) -> Shop {
        let home = self.path().join("state");
        let shop =
            Shop::site("one", &[("TOLV_HOME", home.to_str().unwrap()), ("TOLV_MIN_FREE", "20")]);
        shop.pushed(&["tolv", "main"]);
        assert_eq!(shop.text("shop.localhost", "/"), "one");
        shop
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run(Command::new("umount").arg("--lazy").arg(self.path()));
    }
}

/// Of the process of the app, once there is one: it is the same one for as long as this is.
fn pid(shop: &Shop) -> u64 {
    poll(SOON, "a process", || shop.json(&["ps"])["items"][0]["pid"].as_u64())
}

/// What the platform's user is told, as text.
fn status(shop: &Shop, home: &Path) -> Ran {
    let mut command = shop.serve.command(Path::new("/"), &["status", "--platform"]);
    command.env_remove("TOLV_SERVER").env_remove("TOLV_TOKEN").env("TOLV_HOME", home);
    run(&mut command)
}

#[test]
fn without_a_free_inode_an_upgrade_goes_on_and_a_start_brings_back_what_ran() {
    let Some(disk) = Loop::new(1500) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let home = disk.path().join("state");
    let mut shop = disk.shop();
    let before = pid(&shop);
    disk.use_up();
    shop.serve.upgrade(|_| {});
    // What the old program had is free again.
    disk.use_up();
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    assert_eq!(pid(&shop), before);
    let ran = shop.ran(&["config", "set", "A=1"]);
    let says = "the disk of the platform is full: it has no room for another file";
    assert!(!ran.status.success() && ran.err.contains(says), "{}", ran.err);
    // A process of which nothing is left needs no file either.
    shop.tolv(&["stop"]);
    shop.tolv(&["start"]);
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    let before = pid(&shop);
    for signal in [Signal::KILL, Signal::INT] {
        shop.serve.end(signal);
        disk.use_up();
        shop.serve.begin();
        until_text(&shop, "shop.localhost", "one");
        let told = status(&shop, &home);
        assert!(told.out.contains("no room for another file"), "{}{}", told.out, told.err);
        if signal == Signal::KILL {
            assert_eq!(pid(&shop), before);
        }
    }
    disk.free_up();
    poll(SOON, "what waits for inodes is done", || {
        shop.ran(&["config", "set", "A=1"]).status.success().then_some(())
    });
    shop.change("index.html", "two");
    shop.pushed(&["tolv", "main"]);
    assert_eq!(shop.text("shop.localhost", "/"), "two");
    drop(shop);
    drop(disk);
}

#[test]
fn on_a_disk_that_became_read_only_an_upgrade_and_a_start_keep_what_runs() {
    let Some(disk) = Loop::new(8000) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let home = disk.path().join("state");
    let mut shop = disk.shop();
    let before = pid(&shop);
    disk.abort();
    let told = status(&shop, &home);
    assert_eq!(told.status.code(), Some(2), "{}{}", told.out, told.err);
    assert!(told.out.contains("it is read-only"), "{}{}", told.out, told.err);
    for command in [&["config", "set", "A=1"][..], &["stop"], &["scale", "web=2"]] {
        let ran = shop.ran(command);
        let says = "the disk of the platform is read-only";
        assert!(!ran.status.success() && ran.err.contains(says), "{command:?}: {}", ran.err);
    }
    // What takes away says why it does not.
    let destroy = ["destroy", "shop/production", "--confirm", "shop/production"];
    for command in [&["stop"][..], &["scale", "web=0"], &["restart"], &destroy] {
        let ran = shop.ran(command);
        let says = "this cannot be recorded, and what is not recorded is not done";
        assert!(ran.err.contains(says), "{command:?}: {}", ran.err);
        assert!(ran.err.contains("ends with the platform alone"), "{command:?}: {}", ran.err);
    }
    assert_eq!(pid(&shop), before);
    shop.change("index.html", "two");
    let ran = shop.push(&["tolv", "main"]);
    let says = "the disk of the platform is read-only";
    assert!(!ran.status.success() && ran.err.contains(says), "{}", ran.err);
    shop.serve.upgrade(|_| {});
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    for _ in 0..2 {
        shop.serve.end(Signal::KILL);
        shop.serve.begin();
        until_text(&shop, "shop.localhost", "one");
        shop.serve
            .running()
            .wait_for_line(|line| line.contains("The disk of the platform is read-only"), SOON);
        let told = status(&shop, &home);
        assert_eq!(told.status.code(), Some(2), "{}{}", told.out, told.err);
        assert!(told.out.contains("it is read-only"), "{}{}", told.out, told.err);
        assert_eq!(pid(&shop), before);
        let ran = shop.ran(&["config", "set", "A=1"]);
        let says = "the disk of the platform is read-only";
        assert!(!ran.status.success() && ran.err.contains(says), "{}", ran.err);
    }
    // A process that ends is started again.
    kill_process(Pid::from_raw(i32::try_from(before).unwrap()).unwrap(), Signal::KILL).unwrap();
    poll(SOON, "another process", || (pid(&shop) != before).then_some(()));
    until_text(&shop, "shop.localhost", "one");
    drop(shop);
    drop(disk);
}

/// Writes more than what is kept in memory.
const LOUD: &str = "web: python3 server.py\n\
    worker: line=$(head -c 4000 /dev/zero | tr '\\0' x); while :; do echo $line; sleep 0.005; done\n";

#[test]
fn who_follows_a_log_on_a_read_only_disk_is_told_why_there_is_nothing_and_what_is_dropped() {
    let Some(disk) = Loop::new(8000) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let home = disk.path().join("state");
    let shop = Shop::new(LOUD, &[("TOLV_HOME", home.to_str().unwrap()), ("TOLV_MIN_FREE", "20")]);
    shop.pushed(&["tolv", "main"]);
    let follow = |args: &[&str]| {
        let mut command = shop.serve.command(&shop.dir, &[&["logs", "-f"], args].concat());
        tolv_testkit::Tolv::start(&mut command)
    };
    let (all, router) = (follow(&[]), follow(&["-p", "router"]));
    all.wait_for_line(|line| line.contains("xxx"), SOON);
    poll(SOON, "a line of the router", || {
        shop.get("shop.localhost", "/").unwrap();
        router.lines().iter().any(|line| line.text.contains("router")).then_some(())
    });
    disk.abort();
    let fault = "The disk of the platform is read-only: what runs goes on";
    let dropped = |line: &str| {
        line.contains("tolv[worker.1]: Error L10 (output buffer overflow): ")
            && line.contains("dropped, for the disk of the platform is read-only")
    };
    for output in [&all, shop.serve.running()] {
        output.wait_for_line(|line| line.contains(fault), SOON);
        output.wait_for_line(dropped, SOON);
    }
    router.wait_for_line(|line| line.contains(fault), SOON);
    assert!(!router.lines().iter().any(|line| line.text.contains("worker")), "not asked for");
    drop((all, router));
    drop(shop);
    drop(disk);
}

#[test]
fn a_start_on_a_read_only_disk_brings_back_what_ran_and_writes_once_it_may() {
    let Some(disk) = Loop::new(8000) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let home = disk.path().join("state");
    let mut shop = disk.shop();
    shop.serve.end(Signal::INT);
    disk.remount("remount,ro");
    shop.serve.begin();
    until_text(&shop, "shop.localhost", "one");
    let told = status(&shop, &home);
    assert!(told.out.contains("it is read-only"), "{}{}", told.out, told.err);
    // Another one is kept away all the same.
    let mut second = shop.serve.command(Path::new("/"), &["serve"]);
    second
        .env("TOLV_HOME", &home)
        .env("TOLV_LISTEN", "127.0.0.1:0")
        .env("TOLV_HTTP", "127.0.0.1:0");
    let ran = run(&mut second);
    assert!(ran.err.contains("another `tolv` has the state folder"), "{}{}", ran.out, ran.err);
    disk.remount("remount,rw");
    poll(SOON, "what waits for the disk is done", || {
        shop.ran(&["config", "set", "A=1"]).status.success().then_some(())
    });
    for number in 0..8 {
        shop.tolv(&["config", "set", &format!("A={number}")]);
    }
    shop.change("index.html", "two");
    shop.pushed(&["tolv", "main"]);
    assert_eq!(shop.text("shop.localhost", "/"), "two");
    drop(shop);
    drop(disk);
}

/// The new program and the old one alike cannot have the state folder for a while.
#[test]
fn an_upgrade_that_neither_program_can_go_on_with_at_first_ends_nothing() {
    let mut shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    let lock = shop.serve.state().join("lock");
    let aside = lock.with_file_name("aside");
    std::fs::rename(&lock, &aside).unwrap();
    std::fs::create_dir(&lock).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], shop.serve.http()));
    let first = |serve: &tolv_testkit::Serve| {
        let again = "this one is started again every second";
        serve.running().wait_for_line(|line| line.contains(again), SOON);
        for _ in 0..50 {
            assert_eq!(http::get(address, "shop.localhost", "/").unwrap().status, 200);
        }
        std::fs::remove_dir(&lock).unwrap();
        std::fs::rename(&aside, &lock).unwrap();
    };
    assert!(shop.serve.upgrade_with(first, |_| {}).success());
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    shop.change("index.html", "two");
    shop.pushed(&["tolv", "main"]);
    assert_eq!(shop.text("shop.localhost", "/"), "two");
}

/// What is recorded elsewhere does not need the disk of the state folder.
#[test]
fn with_a_database_elsewhere_a_read_only_disk_keeps_no_deploy_from_being_stopped_and_started() {
    let Some(disk) = Loop::new(8000) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let home = disk.path().join("state");
    let postgres = tolv_testkit::Postgres::start();
    let extra = [
        ("TOLV_HOME", home.to_str().unwrap()),
        ("TOLV_MIN_FREE", "20"),
        ("DATABASE_URL", postgres.url()),
    ];
    let mut shop = Shop::site("one", &extra);
    shop.pushed(&["tolv", "main"]);
    disk.abort();
    for round in 0..2 {
        shop.tolv(&["stop"]);
        shop.tolv(&["start"]);
        assert_eq!(shop.text("shop.localhost", "/"), "one");
        shop.tolv(&["scale", &format!("web={}", 2 - round)]);
        shop.tolv(&["releases", "verify"]);
        match round {
            0 => drop(shop.serve.upgrade(|_| {})),
            _ => {
                shop.serve.end(Signal::KILL);
                shop.serve.begin();
            }
        }
        until_text(&shop, "shop.localhost", "one");
    }
    drop(shop);
    drop((disk, postgres));
}
