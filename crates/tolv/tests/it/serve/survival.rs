//! SIGKILL at random moments: what was acknowledged is there, nothing is half-made.
//!
//! Each round starts one operation, kills the platform after a random pause, starts it again, and
//! holds what is there against what was acknowledged.

use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use super::*;

/// Kills in all.
const ROUNDS: u32 = 200;
/// The longest pause before a kill, in milliseconds: an operation takes about half of it.
const LONGEST: u64 = 200;

/// xorshift64: a seed is enough to see a failing run again.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit
    }
}

/// What must be true, as far as it was acknowledged.
struct Known {
    /// The value of `ROUND`: acknowledged, or under way when the platform was killed.
    config: Vec<String>,
    /// Releases that were acknowledged.
    releases: u64,
    /// Operations that were killed in each kind, for the figures.
    kills: std::collections::BTreeMap<&'static str, (u32, u32)>,
}

#[test]
fn signals_that_mean_nothing_to_a_platform_change_nothing() {
    let mut shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    for signal in [Signal::HUP, Signal::USR1] {
        shop.serve.signal(signal);
        shop.serve.tolv(&shop.dir, &["restart"]);
        assert_eq!(shop.text("shop.localhost", "/"), "one");
    }
}

/// The locks of a git that was killed do not hold up the next push.
#[test]
fn a_push_goes_through_locks_that_a_kill_left() {
    let shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    let repository = shop.serve.state().join("git/shop.git");
    let namespace = repository.join("refs/namespaces/production");
    let locks = ["refs/heads/main.lock", "HEAD.lock"].map(|name| namespace.join(name));
    let locks = [
        &locks[..],
        &["packed-refs", "shallow", "gc.pid"]
            .map(|name| repository.join(name).with_added_extension("lock")),
    ]
    .concat();
    for lock in &locks {
        let lock = std::fs::File::create_new(lock).unwrap();
        lock.set_modified(std::time::SystemTime::now() - Duration::from_secs(3600)).unwrap();
    }
    shop.change("index.html", "two");
    let pushed = shop.pushed(&["tolv", "main"]);
    assert!(!pushed.contains("not moved"), "{pushed}");
    assert_eq!(shop.text("shop.localhost", "/"), "two");
    assert!(!locks.iter().any(|lock| lock.exists()), "{locks:?}");
}

/// What runs is released, whatever becomes of its branch.
#[test]
fn a_branch_that_cannot_be_moved_fails_no_release() {
    let shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    let heads = shop.serve.state().join("git/shop.git/refs/namespaces/production/refs/heads");
    // Where it is packed already, there is no file.
    std::fs::remove_file(heads.join("main")).ok();
    std::fs::create_dir_all(heads.join("main")).unwrap();
    std::fs::write(heads.join("main/held.lock"), "").unwrap();
    shop.change("index.html", "two");
    let pushed = push_from(&shop.serve, &shop.dir, &["tolv", "main"]);
    assert!(!pushed.status.success(), "the branch is as it was: {}", pushed.err);
    let said =
        ["The branch main is not moved: git update-ref: ", "(released, but the branch is not"];
    assert!(said.iter().all(|said| pushed.err.contains(said)), "{}", pushed.err);
    assert_eq!(items(&shop, &["releases"])[0]["outcome"], "succeeded");
}

#[test]
fn two_hundred_kills_lose_nothing() {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = since.as_secs() << 20 | u64::from(since.subsec_nanos()) | 1;
    println!("seed {seed}");
    let mut random = Random(seed);
    let mut shop = Shop::site("start", &[]);
    shop.tolv(&["config", "set", "ROUND=start"]);
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["deploys", "create", "staging"]);
    let staging = format!("{}/git/shop/staging.git", shop.serve.url());
    shop.pushed(&[&staging, "main"]);
    let mut known = Known { config: vec!["start".to_owned()], releases: 1, kills: [].into() };
    let began = Instant::now();
    for round in 1..=ROUNDS {
        let (kind, mut command) = operation(&shop, &staging, round, &mut random);
        let config = (kind == "config set").then(|| format!("r{round}"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let kill_at = Instant::now() + Duration::from_millis(random.below(LONGEST));
        let mut done = None;
        while Instant::now() < kill_at && done.is_none() {
            done = child.try_wait().unwrap();
            std::thread::yield_now();
        }
        shop.serve.end(Signal::KILL);
        child.kill().ok();
        let status = child.wait().unwrap();
        let acknowledged = done.unwrap_or(status).success();
        let kills = known.kills.entry(kind).or_default();
        kills.0 += 1;
        kills.1 += u32::from(acknowledged);
        if let Some(value) = config {
            if acknowledged {
                known.config.clear();
            }
            known.config.push(value);
        }
        shop.serve.begin();
        check(&shop, &mut known, &format!("round {round}, {kind}, seed {seed}"));
    }
    println!("{ROUNDS} kills in {:.0?}; kind: (kills, acknowledged)", began.elapsed());
    println!("{:?}", known.kills);
}

/// One operation as a command, of a kind that chance chooses.
fn operation(
    shop: &Shop,
    staging: &str,
    round: u32,
    random: &mut Random,
) -> (&'static str, Command) {
    match random.below(4) {
        0 => {
            shop.change("index.html", &format!("round {round}"));
            ("push", push_command(&shop.serve, &shop.dir, &["tolv", "main"]))
        }
        1 => {
            // So that there is something to promote.
            shop.change("index.html", &format!("staged {round}"));
            shop.push(&[staging, "main"]);
            ("promote", shop.serve.command(&shop.dir, &["promote", "shop/staging"]))
        }
        2 => {
            let set = format!("ROUND=r{round}");
            ("config set", shop.serve.command(&shop.dir, &["config", "set", &set]))
        }
        _ => ("rollback", shop.serve.command(&shop.dir, &["rollback"])),
    }
}

fn items(shop: &Shop, args: &[&str]) -> Vec<Value> {
    shop.json(args)["items"].as_array().unwrap().clone()
}

fn check(shop: &Shop, known: &mut Known, when: &str) {
    poll(SOON, &format!("nothing is left to do, {when}"), || {
        let over = items(shop, &["operations"])
            .iter()
            .all(|operation| !matches!(operation["state"].as_str(), Some("queued" | "running")));
        over.then_some(())
    });
    let verified = shop.ran(&["releases", "verify"]);
    assert!(verified.status.success(), "{when}: {}{}", verified.out, verified.err);
    let releases = items(shop, &["releases"]);
    for release in &releases {
        assert_ne!(release["outcome"], "pending", "{when}: half-made: {release}");
    }
    let newest = releases[0]["number"].as_u64().unwrap();
    assert!(newest >= known.releases, "{when}: {newest} after {}", known.releases);
    known.releases = newest;
    // What runs is what the ledger says.
    let current = releases.iter().find(|release| release["outcome"] == "succeeded").unwrap();
    poll(SOON, &format!("the site answers, {when}"), || {
        shop.get("shop.localhost", "/").ok().filter(|answer| answer.status == 200)
    });
    let ps = items(shop, &["ps"]);
    let running: Vec<_> = ps.iter().map(|process| &process["release"]).collect();
    assert_eq!(running, [&current["number"]], "{when}: {ps:?}");
    // A rollback takes the config along: then any earlier value may be the one.
    let value = shop.tolv(&["config", "get", "ROUND"]).trim().to_owned();
    let rolled = releases.iter().any(|release| release["reason"].to_string().contains("ollback"));
    assert!(
        rolled || known.config.contains(&value),
        "{when}: {value} is none of {:?}",
        known.config
    );
}
