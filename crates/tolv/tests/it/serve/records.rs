//! The sockets by which the next platform finds what runs are removed from the state folder.

use std::fs;

use rustix::process::Signal;

use super::upgrade::pids;
use super::*;

/// How many processes of this machine were started with these arguments.
fn count(arguments: &str) -> usize {
    let wanted: Vec<u8> =
        arguments.split(' ').flat_map(|word| [word.as_bytes(), &[0]].concat()).collect();
    let processes = fs::read_dir("/proc").unwrap().flatten();
    processes
        .filter(|entry| fs::read(entry.path().join("cmdline")).is_ok_and(|it| it == wanted))
        .count()
}

#[test]
fn removed_sockets_of_processes_are_made_again() {
    let mut shop = Shop::new("web: python3 server.py\nworker: sleep 30600001\n", &[]);
    shop.pushed(&["tolv", "main"]);
    let folder = shop.serve.state().join("processes");
    let before = pids(&shop);
    assert_eq!(before.len(), 2);
    // The next one has them at once.
    fs::remove_dir_all(&folder).unwrap();
    shop.serve.upgrade(|_| {});
    until_text(&shop, "shop.localhost", "web.1");
    poll(SOON, "all are known", || (pids(&shop).len() == 2).then_some(()));
    assert_eq!(pids(&shop), before, "nothing was started");
    assert_eq!(count("sleep 30600001"), 1);
    // Without a next one it takes a moment, and is told.
    fs::remove_dir_all(&folder).unwrap();
    let told = poll(SOON, "both are made again", || {
        // Its exit status tells the worst of this machine too.
        let told = shop.ran(&["status", "--platform", "--json"]).out;
        let told: serde_json::Value = serde_json::from_str(&told).unwrap();
        let checks = told["checks"].as_array().unwrap();
        let check = checks.iter().find(|check| check["name"] == "processes").unwrap().clone();
        (check.to_string().contains("\"sockets_made_again\":2")).then_some(check)
    });
    assert!(told.to_string().contains("2 sockets below processes/ had been removed"), "{told}");
    let log = shop.tolv(&["logs", "-n", "1000"]);
    assert!(log.contains("socket below processes/ was gone, and is made again"), "{log}");
    shop.serve.end(Signal::KILL);
    shop.serve.begin();
    poll(SOON, "all are known", || (pids(&shop).len() == 2).then_some(()));
    assert_eq!(pids(&shop), before, "nothing was started");
}

#[test]
fn a_process_without_a_socket_is_stopped_before_another_is_started() {
    let mut shop = Shop::new("web: python3 server.py\nworker: sleep 30600002\n", &[]);
    shop.pushed(&["tolv", "main"]);
    let folder = shop.serve.state().join("processes");
    let before = pids(&shop);
    assert_eq!(before.len(), 2);
    for is_removed in [true, false] {
        shop.serve.end(Signal::KILL);
        match is_removed {
            true => fs::remove_dir_all(&folder).unwrap(),
            false => fs::rename(&folder, folder.with_extension("aside")).unwrap(),
        }
        assert_eq!(count("sleep 30600002"), 1, "it runs without the platform");
        shop.serve.begin();
        poll(SOON, "others run", || {
            assert!(count("sleep 30600002") <= 1, "never two of one name");
            let now = pids(&shop);
            (now.len() == 2 && before.iter().all(|old| !now.contains(old))).then_some(())
        });
        until_text(&shop, "shop.localhost", "web.1");
        assert_eq!(count("sleep 30600002"), 1);
        let log = shop.tolv(&["logs", "-n", "1000"]);
        assert!(log.contains("2 processes of the previous tolv have lost their sockets"), "{log}");
        assert!(log.lines().any(|line| line.ends_with(": stopped")), "in order: {log}");
    }
}
