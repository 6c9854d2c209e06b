//! The platform comes and goes; what should run comes back without a build.

use rustix::process::Signal;

use super::*;

fn pids(shop: &Shop) -> Vec<u64> {
    let ps = shop.json(&["ps"]);
    let items = ps["items"].as_array().unwrap();
    items.iter().filter_map(|process| process["pid"].as_u64()).collect()
}

#[test]
fn everything_is_back_after_any_end() {
    let mut shop = Shop::new("web: python3 server.py\nworker: sleep 1000\n", &[]);
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["scale", "web=2"]);
    for signal in [Signal::TERM, Signal::INT] {
        let before = pids(&shop);
        assert_eq!(before.len(), 3);
        shop.serve.end(signal);
        assert_eq!(before.into_iter().find(lives), None, "nothing is left");
        shop.serve.begin();
        until_text(&shop, "shop.localhost", "web.2");
        poll(SOON, "the whole formation is back", || (pids(&shop).len() == 3).then_some(()));
        assert!(shop.tolv(&["releases"]).contains("v1"));
        assert!(!shop.tolv(&["releases"]).contains("v2"), "and no release was made");
    }
}

fn lives(pid: &u64) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[test]
fn a_kill_of_the_platform_ends_no_process_of_an_app() {
    let count = "worker: i=0; while :; do i=$((i+1)); echo n$i; sleep 0.01; done\n";
    let mut shop = Shop::new(&format!("web: python3 server.py\n{count}"), &[]);
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["scale", "web=2"]);
    shop.tolv(&["deploys", "create", "staging"]);
    shop.pushed(&[&format!("{}/git/shop/staging.git", shop.serve.url()), "main"]);
    let all = |shop: &Shop| {
        let mut all = pids(shop);
        let staging = shop.json(&["ps", "-d", "shop/staging"]);
        all.extend(staging["items"].as_array().unwrap().iter().filter_map(|p| p["pid"].as_u64()));
        all.sort_unstable();
        all
    };
    let before = all(&shop);
    assert_eq!(before.len(), 5);
    for _ in 0..3 {
        shop.serve.end(Signal::KILL);
        assert!(before.iter().all(lives), "they run without it");
        shop.serve.begin();
        for host in ["shop.localhost", "shop-staging.localhost"] {
            until_text(&shop, host, "web.1");
        }
        poll(SOON, "all are known again", || (all(&shop).len() == 5).then_some(()));
        assert_eq!(all(&shop), before, "and nothing was started");
    }
    // No line is missing, and none is there twice.
    let lines = shop.tolv(&["logs", "-p", "worker", "-n", "10000", "--source", "app"]);
    let numbers: Vec<&str> =
        lines.lines().filter_map(|line| line.rsplit_once(": n")).map(|l| l.1).collect();
    let wanted: Vec<String> = (1..=numbers.len()).map(|number| number.to_string()).collect();
    assert_eq!(numbers, wanted);
    // What they do from here on is done as ever.
    let from = pids(&shop);
    shop.tolv(&["restart", "web.1"]);
    let to = poll(SOON, "the old one is gone", || Some(pids(&shop)).filter(|to| to.len() == 3));
    assert_eq!(from.iter().filter(|pid| to.contains(pid)).count(), 2, "{from:?} {to:?}");
    shop.serve.end(Signal::TERM);
    assert_eq!(before.into_iter().chain(to).find(lives), None, "an end in order ends them");
}

#[test]
fn a_second_signal_kills_what_does_not_end() {
    let stubborn = "worker: trap '' TERM; while :; do sleep 0.05; done\n";
    let mut shop = Shop::new(&format!("web: python3 server.py\n{stubborn}"), &[]);
    shop.pushed(&["tolv", "main"]);
    let before = pids(&shop);
    let interrupt = |shop: &Shop| {
        let told = |line: &str| line.contains("[worker.1]: Stopping all processes with SIGTERM");
        rustix::process::kill_process(shop.serve.running().pid(), Signal::INT).unwrap();
        shop.serve.running().wait_for_line(told, SOON);
    };
    interrupt(&shop);
    assert!(before.iter().any(lives));
    let start = std::time::Instant::now();
    shop.serve.end(Signal::INT);
    assert_eq!(before.into_iter().find(lives), None, "none is left");
    // The grace period is 30 seconds.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    // And again, for the end of the test to be the second.
    shop.serve.begin();
    poll(SOON, "the worker is back", || (pids(&shop).len() == 2).then_some(()));
    interrupt(&shop);
}

#[test]
fn what_a_destroyed_deploy_left_running_ends_at_the_start() {
    let mut shop = Shop::new("web: python3 server.py\n", &[]);
    shop.pushed(&["tolv", "main"]);
    let before = pids(&shop);
    shop.serve.end(Signal::KILL);
    // As if the deploy were in no database any more.
    let folder = shop.serve.state().join("processes");
    let deploy = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    std::fs::rename(&deploy, folder.join("another")).unwrap();
    shop.serve.begin();
    poll(SOON, "it is gone", || (!lives(&before[0])).then_some(()));
    until_text(&shop, "shop.localhost", "web.1");
    assert!(!folder.join("another").exists());
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
