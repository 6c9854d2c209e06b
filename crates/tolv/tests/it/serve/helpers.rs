//! A helper process of the platform is killed: what runs goes on, and all of it works again.

use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// The process below this one that starts sandboxes.
fn spawner(platform: Pid) -> Option<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", platform.as_raw_nonzero())).unwrap();
    let children = tasks.flatten().filter_map(|task| {
        // A thread that has ended meanwhile has none.
        std::fs::read_to_string(task.path().join("children")).ok()
    });
    let children: Vec<i32> = children
        .flat_map(|all| all.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect();
    let mut spawners = children.into_iter().filter(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == b"spawner")
    });
    spawners.next().and_then(Pid::from_raw)
}

#[test]
fn the_spawner_is_killed_and_there_is_another_one() {
    let mut shop = Shop::new("web: python3 server.py\nworker: sleep 1000\n", &[]);
    shop.pushed(&["tolv", "main"]);
    for round in 0..2 {
        let before = shop.text("shop.localhost", "/");
        let platform = shop.serve.running().pid();
        let old = spawner(platform).unwrap();
        kill_process(old, Signal::KILL).unwrap();
        assert_eq!(shop.text("shop.localhost", "/"), before, "the app was taken along");
        poll(SOON, "another spawner", || spawner(platform).filter(|new| *new != old));
        if round == 0 {
            assert!(shop.ran(&["run", "--", "echo", "a one-off"]).out.contains("a one-off"));
            shop.tolv(&["restart"]);
            assert_ne!(shop.text("shop.localhost", "/"), before, "it is not another process");
            shop.change("Procfile", "web: python3 server.py\n");
            shop.pushed(&["tolv", "main"]);
            shop.tolv(&["scale", "web=2"]);
            shop.tolv(&["scale", "web=1"]);
        } else {
            // With nothing asked of the new one, and with the old one's processes.
            shop.tolv(&["stop"]);
        }
    }
    let status = shop.serve.end(Signal::TERM);
    assert!(status.success(), "{status}");
}
