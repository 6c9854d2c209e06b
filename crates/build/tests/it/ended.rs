//! Builds that end before their end, and builds at once.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tolv_build::{Caps, Error, Event, Request, Room};
use tolv_testkit::{Home, poll};

use crate::{assert_nothing_left, build, refusal, request, scripted, write_script};

/// A word for a command line that no other test and no other run has.
fn unique(seconds: u32) -> String {
    format!("sleep {seconds}.{:09}", std::process::id())
}

/// Whether a process with this in its command line is left.
fn runs(words: &str) -> bool {
    let wanted = words.replace(' ', "\0");
    let list = fs::read_dir("/proc").unwrap().flatten();
    list.filter_map(|process| fs::read(process.path().join("cmdline")).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .any(|line| line.contains(&wanted) || line.contains(words))
}

#[test]
fn a_cancelled_build_leaves_nothing() {
    let sleep = unique(601);
    let (app, home) = (scripted(&format!("touch half; echo ready; {sleep}")), Home::new());
    let request = request(app.path(), home.path());
    let built = tolv_build::build(&request, &mut |event| {
        if event == Event::line("ready") {
            assert!(runs(&sleep));
            request.cancel.cancel();
        }
    });
    assert!(matches!(built, Err(Error::Cancelled)), "{built:?}");
    assert!(!runs(&sleep));
    assert_nothing_left(home.path());
    // For good: it begins no other build.
    assert!(matches!(refusal(&request), Error::Cancelled));
}

#[test]
fn a_build_over_its_time_is_stopped_and_says_where() {
    let sleep = unique(602);
    let (app, home) = (scripted(&sleep), Home::new());
    let caps = Caps { time: Duration::from_secs(2), ..Caps::default() };
    let start = Instant::now();
    let error = refusal(&Request { caps, ..request(app.path(), home.path()) });
    assert!(start.elapsed() < Duration::from_secs(30));
    assert!(matches!(error, Error::Limit { .. }));
    let text = error.to_string();
    assert!(text.starts_with("the time of the build, in `"), "{text}");
    assert!(text.ends_with(" run build`, is over the limit of 2 s"), "{text}");
    assert!(!runs(&sleep));
}

#[test]
fn a_build_over_its_disk_is_stopped_while_it_writes() {
    let home = Home::new();
    let sleep = unique(603);
    let app = scripted(&format!("head -c 9000000 /dev/zero > big; {sleep}"));
    let caps = Caps { slug: 4 << 20, ..Caps::default() };
    let error = refusal(&Request { caps, ..request(app.path(), home.path()) });
    assert_eq!(error.to_string(), "the slug is over the limit of 4 MiB");
    assert!(!runs(&sleep));
    // Written in the last moment, it is seen as well.
    write_script(&app, "head -c 9000000 /dev/zero > big");
    let error = refusal(&Request { caps, ..request(app.path(), home.path()) });
    assert_eq!(error.to_string(), "the slug is over the limit of 4 MiB");
}

#[test]
fn a_full_cache_ends_one_build_and_not_the_next() {
    let home = Home::new();
    let app = scripted("head -c 9000000 /dev/zero > $HOME/big");
    let caps = Caps { cache: 4 << 20, ..Caps::default() };
    let error = refusal(&Request { caps, ..request(app.path(), home.path()) });
    assert_eq!(error.to_string(), "the build cache is over the limit of 4 MiB");
    write_script(&app, "echo small > $HOME/small");
    let (_, said) = build(&Request { caps, ..request(app.path(), home.path()) });
    assert!(said.heading("Emptying the build cache, which is over its limit"));
    write_script(&app, "cat $HOME/small");
    let (_, said) = build(&Request { caps, ..request(app.path(), home.path()) });
    assert!(said.lines().contains(&"small".to_owned()), "a cache is kept: {said:?}");
}

#[test]
fn what_a_killed_build_left_is_removed_by_the_next() {
    // This program again, in a folder that has this one, is the process to be killed.
    let to_kill = Path::new("to-kill");
    if to_kill.exists() {
        build(&request(to_kill, Path::new("home")));
        return;
    }
    let place = Home::new();
    let sleep = unique(604);
    let app =
        scripted(&format!("mkdir locked; touch locked/half; chmod 0 locked; touch ready; {sleep}"));
    fs::rename(app.path(), place.path().join(to_kill)).unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "ended::what_a_killed_build_left_is_removed_by_the_next"])
        .current_dir(place.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let home = place.path().join("home");
    let ready = home.join("builds/1/app/ready");
    let look = || (ready.exists() && runs(&sleep)).then_some(());
    poll(Duration::from_secs(30), "the build's step", look);
    child.kill().unwrap();
    child.wait().unwrap();
    poll(Duration::from_secs(10), "the end of the step", || (!runs(&sleep)).then_some(()));
    assert!(ready.exists(), "nobody was left to remove it");
    fs::rename(place.path().join(to_kill), app.path()).unwrap();
    write_script(&app, "test ! -e ready");
    build(&request(app.path(), &home));
    assert_nothing_left(&home);
}

#[test]
fn builds_at_once_in_one_home() {
    let home = Home::new();
    let plain = Home::new();
    plain.write("Procfile", "web: ./run\n");
    let (one, two) = (scripted("echo one > made"), scripted("echo two > made"));
    let request = request(plain.path(), home.path());
    let built = std::thread::scope(|scope| {
        let builds = [&plain, &one, &two, &plain, &one].map(|app| {
            let source = tolv_build::Source::WorkingTree { dir: app.path().to_owned() };
            let request = Request { source, ..request.clone() };
            scope.spawn(move || build(&request).0)
        });
        builds.map(|build| build.join().unwrap())
    });
    let [plain, one, two, plain_too, one_too] = built;
    assert_eq!((plain.slug, one.slug), (plain_too.slug, one_too.slug));
    assert_ne!(one.slug, two.slug);
    for (built, made) in [(one, "one\n"), (two, "two\n")] {
        assert_eq!(fs::read_to_string(built.dir.join("made")).unwrap(), made);
    }
    assert_nothing_left(home.path());
}

#[test]
fn a_build_has_its_own_memory_and_processes_and_says_which_limit_it_met() {
    let spawner = crate::spawner();
    let machine =
        tolv_sandbox::Machine::probe(&spawner, tolv_sandbox::NetworkChoice::Auto).unwrap();
    if !machine.cgroups.controllers.iter().any(|name| name == "memory") {
        println!("no memory controller");
        return;
    }
    let home = Home::new();
    // It holds all that comes: a program that the step's own program started.
    let app = scripted("head -c 900000000 /dev/zero | tail");
    let room = Room { memory: Some(300 << 20), ..Room::default() };
    let caps = Caps { room, ..Caps::default() };
    let error = refusal(&Request { caps, ..request(app.path(), home.path()) });
    let text = error.to_string();
    let wanted = "ran out of memory: a build may have 300 MiB (TOLV_BUILD_SIZE)";
    assert!(text.contains(wanted), "{text}");
    // The next one finds a machine that has not suffered.
    write_script(&app, "echo fits");
    build(&Request { caps, ..request(app.path(), home.path()) });
}

#[test]
fn empty_files_count_too_and_the_disk_keeps_its_free_room() {
    let home = Home::new();
    let sleep = unique(605);
    let app = scripted(&format!("for n in $(seq 1500); do true > file$n; done; {sleep}"));
    let caps = Caps { slug: 4 << 20, ..Caps::default() };
    let error = refusal(&Request { caps, ..request(app.path(), home.path()) });
    assert_eq!(error.to_string(), "the slug is over the limit of 4 MiB");
    assert!(!runs(&sleep));
    write_script(&app, &sleep);
    let caps = Caps { min_free: 1 << 60, ..Caps::default() };
    let error = refusal(&Request { caps, ..request(app.path(), home.path()) }).to_string();
    assert!(error.contains("the disk's free room (TOLV_MIN_FREE)"), "{error}");
    assert!(!runs(&sleep));
}
