//! The platform comes and goes; the apps stay.

use rustix::process::Signal;

use super::*;

fn pids(shop: &Shop) -> Vec<u64> {
    let ps = shop.json(&["ps"]);
    let items = ps["items"].as_array().unwrap();
    items.iter().filter_map(|process| process["pid"].as_u64()).collect()
}

#[test]
fn a_killed_platform_finds_its_processes_again() {
    let mut shop = Shop::new("web: python3 server.py\nworker: sleep 1000\n", &[]);
    shop.pushed(&["tolv", "main"]);
    let before = pids(&shop);
    assert_eq!(before.len(), 2);
    for signal in [Signal::KILL, Signal::TERM] {
        shop.serve.end(signal);
        for pid in &before {
            assert!(Path::new(&format!("/proc/{pid}")).exists(), "{pid} runs on");
        }
        shop.serve.begin();
        until_text(&shop, "shop.localhost", "web.1");
        assert_eq!(pids(&shop), before, "the same processes");
    }
    // And they are the platform's again: a new release replaces them.
    shop.tolv(&["config", "set", "A=1"]);
    let after = pids(&shop);
    assert_eq!(after.len(), 2);
    assert!(after.iter().all(|pid| !before.contains(pid)));
    for pid in &before {
        poll(SOON, "the old one is gone", || {
            (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
        });
    }
    shop.serve.end(Signal::INT);
    for pid in &after {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "Ctrl-C stops everything");
    }
    // As after a reboot: nothing runs, and everything comes back without a build.
    shop.serve.begin();
    until_text(&shop, "shop.localhost", "web.1");
}

#[test]
fn what_ended_unwatched_is_started_again() {
    let mut shop = Shop::new("web: python3 server.py\nworker: sleep 1000\n", &[]);
    shop.pushed(&["tolv", "main"]);
    let before = pids(&shop);
    shop.serve.end(Signal::KILL);
    for pid in &before {
        let pid = rustix::process::Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, Signal::KILL).unwrap();
    }
    shop.serve.begin();
    until_text(&shop, "shop.localhost", "web.1");
    poll(SOON, "both run", || {
        let after = pids(&shop);
        (after.len() == 2 && after.iter().all(|pid| !before.contains(pid))).then_some(())
    });
}

#[test]
fn one_app_that_cannot_start_keeps_no_other_down() {
    let mut shop =
        Shop::new("web: python3 server.py\nworker: test ! -e \"$FLAG\" && sleep 1000\n", &[]);
    let flag = shop.serve.folder("flags").join("broken");
    shop.tolv(&["config", "set", "FLAG=/nonexistent"]);
    shop.pushed(&["tolv", "main"]);
    shop.serve.end(Signal::INT);
    std::fs::write(&flag, "").unwrap();
    shop.serve.begin();
    until_text(&shop, "shop.localhost", "web.1");
}
