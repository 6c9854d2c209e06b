//! What ends, and what is said of it: `stop`, `scale`, `restart`, `destroy`.

use std::time::Instant;

use super::*;

/// A worker of which there must be one: it takes two seconds to end.
const SINGLETON: &str = "trap 'sleep 2; echo last; exit 0' TERM\necho begin\n\
                         while :; do sleep 0.05; done\n";

fn with_singleton() -> Shop {
    let shop = Shop::new("web: python3 server.py\nworker: exec sh worker.sh\n", &[]);
    shop.change("worker.sh", SINGLETON);
    shop.pushed(&["tolv", "main"]);
    until_said(&shop, &["begin"]);
    shop
}

/// What the singleton has said: `begin` and `last`, in turns.
fn said(shop: &Shop) -> Vec<String> {
    let lines = shop.tolv(&["logs", "--process", "worker.1"]);
    let words = lines.lines().filter_map(|line| line.split_whitespace().next_back());
    words.filter(|word| ["begin", "last"].contains(word)).map(str::to_owned).collect()
}

fn until_said(shop: &Shop, words: &[&str]) {
    poll(SOON, &format!("the worker to say {words:?}"), || (said(shop) == words).then_some(()));
}

/// A command that has to succeed, what it said meanwhile.
#[track_caller]
fn done(shop: &Shop, args: &[&str]) -> String {
    let ran = shop.ran(args);
    assert!(ran.status.success(), "{args:?}: {}{}", ran.out, ran.err);
    ran.err
}

#[test]
fn a_stop_ends_with_the_last_process_and_old_and_new_never_run_together() {
    let shop = with_singleton();
    let err = done(&shop, &["stop"]);
    assert!(err.contains("-----> Stopping web.1, worker.1\n"), "{err}");
    assert!(err.contains("-----> Waiting for the end of "), "{err}");
    assert!(err.contains("-----> Waiting for the end of worker.1\n"), "{err}");
    assert_eq!(shop.tolv(&["ps"]), "shop/production is stopped. Start it: tolv start\n");
    until_said(&shop, &["begin", "last"]);
    done(&shop, &["start"]);
    until_said(&shop, &["begin", "last", "begin"]);

    // By its quantity.
    let err = done(&shop, &["scale", "worker=0"]);
    assert!(err.contains("-----> Waiting for the end of worker.1\n"), "{err}");
    assert!(!shop.tolv(&["ps"]).contains("worker"));
    done(&shop, &["scale", "worker=1"]);
    until_said(&shop, &["begin", "last", "begin", "last", "begin"]);

    // And with a size, which is a release.
    let err = done(&shop, &["scale", "worker=0:256M"]);
    assert!(err.contains("-----> Waiting for the end of worker.1\n"), "{err}");
    assert!(!shop.tolv(&["ps"]).contains("worker"));
    until_said(&shop, &["begin", "last", "begin", "last", "begin", "last"]);
    done(&shop, &["scale", "worker=1"]);
    until_said(&shop, &["begin", "last", "begin", "last", "begin", "last", "begin"]);

    // Nobody waits for the stop: the start does.
    let stop = std::thread::scope(|scope| {
        let stop = scope.spawn(|| shop.ran(&["stop"]));
        let id = poll(SOON, "the stop to wait", || {
            let ps = shop.tolv(&["ps"]);
            let operations = shop.json(&["operations"]);
            let latest = &operations["items"][0];
            let id = latest["id"].as_str().filter(|_| latest["kind"] == "stop")?.to_owned();
            (ps.contains("worker.1") && ps.contains("stopping")).then_some(id)
        });
        shop.tolv(&["operations", "cancel", &id]);
        stop.join().unwrap()
    });
    assert!(stop.err.contains("was cancelled"), "{}", stop.err);
    let err = done(&shop, &["start"]);
    assert!(err.contains("-----> Waiting for the end of worker.1\n"), "{err}");
    let turns = ["begin", "last"].repeat(4);
    until_said(&shop, &[&turns[..], &["begin"]].concat());

    // And to the end of the deploy.
    let ps = shop.json(&["ps"]);
    let processes = ps["items"].as_array().unwrap();
    let pids: Vec<_> = processes.iter().map(|process| process["pid"].as_u64().unwrap()).collect();
    assert_eq!(pids.len(), 2, "{ps}");
    done(&shop, &["destroy", "shop/production", "--confirm", "shop/production"]);
    for pid in pids {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} runs on");
    }
}

#[test]
fn a_restart_says_what_it_does() {
    let shop = Shop::new("web: python3 server.py\nworker: sleep 1000\n", &[]);
    shop.pushed(&["tolv", "main"]);
    let err = done(&shop, &["restart"]);
    assert!(err.contains("-----> Restarting web.1, worker.1\n"), "{err}");
    let err = done(&shop, &["restart", "worker"]);
    assert!(err.contains("-----> Restarting worker.1\n"), "{err}");
}

#[test]
fn a_scale_that_fails_says_what_happened_and_what_was_stopped_again() {
    let daemon = "setsid sleep 300 & sleep 3; echo leader ends";
    let slow = "[ $DYNO = web.2 ] && sleep 300; exec python3 server.py";
    let procfile = format!("web: {slow}\ndaemon: {daemon}\nother: sleep 1000\n");
    let shop = Shop::new(&procfile, &[]);
    let none = r#"{"formation": {"daemon": {"quantity": 0}, "other": {"quantity": 0}}}"#;
    shop.change("app.json", none);
    shop.pushed(&["tolv", "main"]);
    let began = Instant::now();
    let ran = shop.ran(&["scale", "daemon=1", "other=2", "web=2"]);
    println!("{:?}: {}", began.elapsed(), ran.err);
    assert!(!ran.status.success());
    let what = "process `daemon.1` of release v1 was up, and exited with status 0 before the rollout \
                had finished";
    assert!(
        ran.err.contains(&format!("the scale of shop/production failed: {what}")),
        "{}",
        ran.err
    );
    let undone = "Stopped again, because daemon.1 failed: other.1, other.2, web.2";
    assert!(ran.err.contains(&format!(" !     {undone}\n")), "{}", ran.err);
    assert!(ran.err.contains(" !     Release v1 goes on with web=1\n"), "{}", ran.err);
    let logs = shop.tolv(&["logs", "-n", "200"]);
    assert!(logs.contains("State changed from starting to up"), "{logs}");
    assert!(logs.contains(undone), "{logs}");
    assert!(!ran.err.contains("before it was ready"), "{}", ran.err);
}
