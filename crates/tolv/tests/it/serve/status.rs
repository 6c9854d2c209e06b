//! `tolv status --platform`: what the running platform holds and lacks is told, whatever of it is away,
//! full or hangs.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use serde_json::Value;
use tolv_testkit::Postgres;

use super::disk::Small;
use super::helpers::spawner;
use super::metrics::scraped;
use super::*;

/// A platform tells it within a second; the rest is for a machine with much to do.
pub(super) const AT_ONCE: Duration = Duration::from_secs(4);

/// One answer.
pub(super) struct Told {
    code: i32,
    pub(super) json: Value,
    pub(super) took: Duration,
}

impl Told {
    fn check(&self, name: &str) -> &Value {
        let checks = self.json["checks"].as_array().unwrap();
        let found = checks.iter().find(|check| check["name"] == name);
        found.unwrap_or_else(|| panic!("{name} in {:#}", self.json))
    }

    pub(super) fn state(&self, name: &str) -> &str {
        self.check(name)["state"].as_str().unwrap()
    }

    fn fact(&self, check: &str, name: &str) -> &Value {
        &self.check(check)["facts"][name]
    }

    #[track_caller]
    fn number(&self, check: &str, name: &str) -> u64 {
        self.fact(check, name).as_u64().unwrap_or_else(|| panic!("{name} in {:#}", self.json))
    }
}

/// As the platform's user asks on its machine: without a token.
pub(super) fn at_home(serve: &Serve, args: &[&str]) -> Ran {
    let mut command = serve.command(Path::new("/"), &[&["status", "--platform"], args].concat());
    command.env_remove("TOLV_SERVER").env_remove("TOLV_TOKEN").env("TOLV_HOME", serve.state());
    run(&mut command)
}

#[track_caller]
pub(super) fn parsed(ran: &Ran, took: Duration) -> Told {
    let json = serde_json::from_str(&ran.out);
    let json: Value = json.unwrap_or_else(|error| panic!("{error}: {}{}", ran.out, ran.err));
    let code = ran.status.code().unwrap();
    let wanted = match json["state"].as_str() {
        Some("ok") => 0,
        Some("warn") => 1,
        _ => 2,
    };
    assert_eq!(code, wanted, "{json:#}");
    Told { code, json, took }
}

#[track_caller]
fn told(shop: &Shop) -> Told {
    let asked = Instant::now();
    let ran = at_home(&shop.serve, &["--json"]);
    parsed(&ran, asked.elapsed())
}

/// As an administrator asks from elsewhere.
#[track_caller]
fn told_over_http(shop: &Shop) -> Told {
    let asked = Instant::now();
    let ran = shop.ran(&["status", "--platform", "--json"]);
    parsed(&ran, asked.elapsed())
}

/// Waits until a check has this state.
#[track_caller]
fn until(shop: &Shop, check: &str, state: &str) -> Told {
    poll(SOON, &format!("{check} is {state}"), || {
        let told = told(shop);
        (told.state(check) == state).then_some(told)
    })
}

/// What the machine that the tests run on does not decide.
const OURS: [&str; 10] = [
    "platform",
    "lease",
    "database",
    "disk",
    "descriptors",
    "spawner",
    "processes",
    "git",
    "operations",
    "queues",
];

#[test]
fn a_healthy_platform_says_so_to_its_user_and_to_administrators() {
    let mut shop = Shop::new("web: python3 server.py\nworker: sleep 1000\n", &[]);
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["scale", "worker=1"]);
    let pid = u64::try_from(shop.serve.running().pid().as_raw_nonzero().get()).unwrap();
    let told = until(&shop, "database", "ok");
    for check in OURS {
        assert_eq!(told.state(check), "ok", "{:#}", told.check(check));
    }
    assert_ne!(told.json["state"], "fail", "{:#}", told.json);
    assert_eq!(told.number("platform", "pid"), pid);
    assert_eq!(told.fact("lease", "state"), "held");
    assert_eq!(told.number("lease", "holder_pid"), pid);
    assert_eq!(told.fact("database", "kind"), "SQLite");
    assert!(told.number("disk", "free_bytes") > told.number("disk", "min_free_bytes"));
    let open = told.number("descriptors", "open");
    assert!(open > 10 && open < told.number("descriptors", "soft_limit"), "{open}");
    let own = spawner(shop.serve.running().pid()).unwrap();
    assert_eq!(told.number("spawner", "pid"), u64::try_from(own.as_raw_nonzero().get()).unwrap());
    assert_eq!(told.number("spawner", "replacements"), 0);
    assert!(told.number("spawner", "launches") > 3);
    assert_eq!((told.number("processes", "up"), told.number("processes", "shims")), (2, 2));
    assert!(told.number("spawner", "sandboxes") >= 2);
    assert!(told.fact("operations", "oldest_id").is_null());
    // The same for an administrator, in the same words, and as gauges.
    let remote = told_over_http(&shop);
    assert_eq!(remote.number("platform", "pid"), pid);
    let samples = scraped(&shop);
    for check in told.json["checks"].as_array().unwrap() {
        let state = samples[&format!("tolv_check_state{{check={}}}", check["name"])];
        assert!(state < 2.0, "{check}");
    }
    for (name, value) in [
        ("tolv_lease_held", 1.0),
        ("tolv_database_up", 1.0),
        ("tolv_spawner_up", 1.0),
        ("tolv_spawner_replacements_total", 0.0),
        ("tolv_shims", 2.0),
        ("tolv_oldest_operation_age_seconds", 0.0),
        ("tolv_operations{state=\"running\"}", 0.0),
    ] {
        assert_eq!(samples[name], value, "{name}");
    }
    assert!(samples["tolv_open_descriptors"] > 10.0);
    assert!(samples["tolv_disk_free_bytes"] > samples["tolv_disk_min_free_bytes"]);
    // A line a check, behind one that says the worst.
    let text = at_home(&shop.serve, &[]).out;
    assert!(text.starts_with(told.json["state"].as_str().unwrap()), "{text}");
    assert!(text.contains("\nok    lease        held by pid "), "{text}");
    assert_eq!(text.lines().count(), 1 + told.json["checks"].as_array().unwrap().len());
    // The socket is the next platform's after an upgrade, and after a kill.
    shop.serve.upgrade(|_| ());
    let next = until(&shop, "platform", "ok");
    assert_ne!(next.number("platform", "pid"), pid);
    assert_eq!(next.number("lease", "holder_pid"), next.number("platform", "pid"));
    shop.serve.end(Signal::KILL);
    let gone = at_home(&shop.serve, &[]);
    assert_eq!(gone.status.code(), Some(2), "{}", gone.err);
    assert!(gone.err.contains("does not run"), "{}", gone.err);
    let gone = shop.ran(&["status", "--platform"]);
    assert_eq!(gone.status.code(), Some(2), "{}", gone.err);
    shop.serve.begin();
    until(&shop, "platform", "ok");
}

#[test]
fn only_administrators_and_the_platforms_user_are_told() {
    let shop = Shop::site("one", &[]);
    let refused = |token: &str| {
        let mut command = shop.serve.command(&shop.dir, &["status", "--platform"]);
        let ran = run(command.env("TOLV_TOKEN", token));
        assert_eq!((ran.status.code(), &*ran.out), (Some(3), ""), "{}", ran.err);
        ran.err
    };
    for args in [&["--role", "view"][..], &["--role", "admin", "--app", "shop"]] {
        let made = shop.json(&[&["tokens", "create", "--name", "x"], args].concat());
        let said = refused(made["secret"].as_str().unwrap());
        assert!(said.contains("role admin for all apps"), "{said}");
    }
    assert!(refused("tolv_nonsense").contains("token is not valid"));
    // What is in the state folder is for this, and for nothing else.
    let token = std::fs::read_to_string(shop.serve.state().join("api/token")).unwrap();
    assert!(refused("").contains("no token") || token.len() > 32);
    let mut command = shop.serve.command(&shop.dir, &["tokens"]);
    let ran = run(command.env("TOLV_TOKEN", token.trim()));
    assert!(ran.err.contains("token is not valid"), "{}{}", ran.out, ran.err);
    // A token that is revoked was remembered for nothing.
    let made = shop.json(&["tokens", "create", "--name", "x", "--role", "admin"]);
    let secret = made["secret"].as_str().unwrap();
    let mut command = shop.serve.command(&shop.dir, &["status", "--platform"]);
    assert!(run(command.env("TOLV_TOKEN", secret)).status.code() < Some(2));
    let id = made["id"].as_str().or(made["token"]["id"].as_str()).unwrap().to_owned();
    shop.tolv(&["tokens", "revoke", &id]);
    assert!(refused(secret).contains("token is not valid"));
}

/// Asking leaves no trace: no line of the audit log, not a byte in the database.
#[test]
fn asking_changes_nothing() {
    let shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    told(&shop);
    told_over_http(&shop);
    let files = || {
        ["db.sqlite", "db.sqlite-wal"].map(|name| {
            let file = shop.serve.state().join(name);
            std::fs::read(file).unwrap_or_default()
        })
    };
    let audit = shop.tolv(&["audit"]);
    let before = files();
    for _ in 0..3 {
        told(&shop);
        told_over_http(&shop);
        scraped(&shop);
    }
    assert!(files() == before, "the database was written to");
    assert_eq!(shop.tolv(&["audit"]), audit);
}

#[test]
fn a_database_that_is_away_or_hangs_is_told_at_once() {
    let mut postgres = Postgres::start();
    let shop = Shop::site("one", &[("DATABASE_URL", postgres.url())]);
    shop.pushed(&["tolv", "main"]);
    assert_eq!(until(&shop, "database", "ok").fact("database", "kind"), "PostgreSQL");
    let other = shop.json(&["tokens", "create", "--name", "x", "--role", "admin"]);
    let other = other["secret"].as_str().unwrap();
    told_over_http(&shop);
    // It has the connection, and no answer comes.
    std::thread::scope(|scope| {
        let locked = "BEGIN; LOCK TABLE operations IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(600)";
        let holder = scope.spawn(|| tolv_testkit::postgres::sql(&postgres, locked).unwrap_err());
        let hung = until(&shop, "database", "fail");
        println!("a database that hangs is told after {:?}", hung.took);
        assert!(hung.took < AT_ONCE, "{:?}", hung.took);
        assert_eq!(hung.state("lease"), "ok", "{:#}", hung.json);
        let text = hung.check("database")["summary"].as_str().unwrap();
        assert!(text.contains("has not answered within 700 ms"), "{text}");
        assert!(told_over_http(&shop).took < AT_ONCE);
        // Whoever asks again and again takes no connection away each time.
        for _ in 0..3 {
            told(&shop);
        }
        let used = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'";
        let used = tolv_testkit::postgres::sql(&postgres, used).unwrap();
        assert_eq!(used.trim(), "1");
        let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE mode = \
                   'AccessExclusiveLock' AND granted AND pid <> pg_backend_pid()";
        tolv_testkit::postgres::sql(&postgres, end).unwrap();
        holder.join().unwrap();
    });
    until(&shop, "database", "ok");
    // It is gone.
    postgres.stop();
    let away = until(&shop, "lease", "fail");
    assert_eq!((away.code, away.state("database")), (2, "fail"), "{:#}", away.json);
    assert_eq!(away.state("operations"), "warn");
    assert_eq!(away.state("spawner"), "ok");
    for took in [told(&shop).took, told_over_http(&shop).took] {
        println!("a database that is away is told after {took:?}");
        assert!(took < AT_ONCE, "{took:?}");
    }
    let samples = scraped(&shop);
    assert_eq!((samples["tolv_database_up"], samples["tolv_lease_held"]), (0.0, 0.0));
    assert_eq!(samples["tolv_check_state{check=\"database\"}"], 2.0);
    // A token of which nothing is known without the database.
    let mut command = shop.serve.command(&shop.dir, &["status", "--platform"]);
    let asked = Instant::now();
    let ran = run(command.env("TOLV_TOKEN", other));
    assert_eq!(ran.status.code(), Some(2), "{}", ran.err);
    assert!(ran.err.contains("the database does not answer"), "{}", ran.err);
    assert!(asked.elapsed() < AT_ONCE, "{:?}", asked.elapsed());
    postgres.again();
    let back = until(&shop, "lease", "ok");
    assert_eq!(back.state("operations"), "ok", "{:#}", back.json);
    until(&shop, "database", "ok");
    // Each is a line of the platform's, once.
    let lines = shop.serve.running().lines();
    for wanted in ["The lease on the database is lost", "The database is back, and its lease"] {
        let count = lines.iter().filter(|line| line.text.contains(wanted)).count();
        assert_eq!(count, 1, "{wanted}");
    }
}

#[test]
fn a_spawner_that_was_replaced_or_is_stopped_is_told() {
    let shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    let platform = shop.serve.running().pid();
    let first = spawner(platform).unwrap();
    until(&shop, "spawner", "ok");
    kill_process(first, Signal::KILL).unwrap();
    let told = until(&shop, "spawner", "warn");
    assert_eq!(told.number("spawner", "replacements"), 1);
    let second = spawner(platform).unwrap();
    let pid = |pid: Pid| u64::try_from(pid.as_raw_nonzero().get()).unwrap();
    assert_eq!(told.number("spawner", "pid"), pid(second));
    assert_eq!(told.number("processes", "shims"), 1, "{:#}", told.json);
    assert_eq!(scraped(&shop)["tolv_spawner_replacements_total"], 1.0);
    // It is there, and starts nothing.
    kill_process(second, Signal::STOP).unwrap();
    let stopped = until(&shop, "spawner", "fail");
    assert!(stopped.took < AT_ONCE, "{:?}", stopped.took);
    assert_eq!((stopped.code, scraped(&shop)["tolv_spawner_up"]), (2, 0.0));
    // Somebody takes the rules of apps' networks away meanwhile.
    if stopped.fact("network", "rules") == "loaded" {
        let nft = |args: &[&str]| run(Command::new("/usr/sbin/nft").args(args));
        let tables = nft(&["list", "tables", "inet"]).out;
        let own = format!("_{}_", pid(second));
        let table = tables.split_whitespace().find(|word| word.contains(&own)).unwrap();
        assert!(nft(&["delete", "table", "inet", table]).status.success());
        let told = until(&shop, "network", "fail");
        assert_eq!(told.fact("network", "rules"), "missing");
        assert_eq!(scraped(&shop)["tolv_network_rules_loaded"], 0.0);
    }
    kill_process(second, Signal::CONT).unwrap();
    until(&shop, "spawner", "warn");
    until(&shop, "network", "ok");
}

/// A group of processes of this machine that stand still, in the kernel; no signal has stopped them.
struct Frozen {
    folder: std::path::PathBuf,
    /// Of a hierarchy of the first version, or of the second.
    is_first: bool,
}

impl Frozen {
    /// Nothing where this user may not.
    fn new() -> Option<Self> {
        let name = format!("tolv-test-{}", std::process::id());
        [("/sys/fs/cgroup/freezer", true), ("/sys/fs/cgroup", false)].into_iter().find_map(
            |(root, is_first)| {
                let folder = Path::new(root).join(&name);
                let has_one = Path::new(root).join("cgroup.procs").exists();
                let made = has_one && std::fs::create_dir(&folder).is_ok();
                made.then_some(Self { folder, is_first })
            },
        )
    }

    fn freeze(&self, pid: Pid) {
        let pid = pid.as_raw_nonzero().to_string();
        std::fs::write(self.folder.join("cgroup.procs"), pid).unwrap();
        self.switch(true).unwrap();
    }

    fn switch(&self, is_frozen: bool) -> std::io::Result<()> {
        let (file, text) = match (self.is_first, is_frozen) {
            (true, true) => ("freezer.state", "FROZEN"),
            (true, false) => ("freezer.state", "THAWED"),
            (false, true) => ("cgroup.freeze", "1"),
            (false, false) => ("cgroup.freeze", "0"),
        };
        std::fs::write(self.folder.join(file), text)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        // Nothing to undo is fine; the processes in it go back to where they came from.
        self.switch(false).ok();
        let all = std::fs::read_to_string(self.folder.join("cgroup.procs")).unwrap_or_default();
        for pid in all.lines() {
            std::fs::write(self.folder.with_file_name("cgroup.procs"), pid).ok();
        }
        std::fs::remove_dir(&self.folder).ok();
    }
}

#[test]
fn a_spawner_that_does_not_answer_is_told() {
    let shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    let Some(frozen) = Frozen::new() else {
        println!("skipped: this user may not make cgroups");
        return;
    };
    let spawner = spawner(shop.serve.running().pid()).unwrap();
    until(&shop, "spawner", "ok");
    frozen.freeze(spawner);
    // Asked again and again, it is one question that is open.
    for _ in 0..3 {
        let told = until(&shop, "spawner", "fail");
        assert!(told.took < AT_ONCE, "{:?}", told.took);
        let text = told.check("spawner")["summary"].as_str().unwrap();
        assert!(text.contains("has not answered for "), "{text}");
        assert_eq!((told.code, told.fact("spawner", "answers")), (2, &Value::Bool(false)));
    }
    assert_eq!(scraped(&shop)["tolv_spawner_up"], 0.0);
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    frozen.switch(false).unwrap();
    until(&shop, "spawner", "ok");
    assert!(shop.ran(&["run", "true"]).status.success());
}

#[test]
fn a_disk_that_is_fuller_than_it_may_be_is_told() {
    let Some(disk) = Small::new(150) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let home = disk.path().join("state");
    let shop = Shop::site("one", &[("TOLV_HOME", home.to_str().unwrap()), ("TOLV_MIN_FREE", "32")]);
    let told = || {
        let mut command = shop.serve.command(Path::new("/"), &["status", "--platform", "--json"]);
        command.env_remove("TOLV_SERVER").env_remove("TOLV_TOKEN").env("TOLV_HOME", &home);
        parsed(&run(&mut command), Duration::ZERO)
    };
    assert_eq!(told().state("disk"), "ok");
    let fill = |left: u64| {
        let stat = rustix::fs::statvfs(disk.path()).unwrap();
        let free = stat.f_bavail * stat.f_frsize - (left << 20);
        std::fs::write(disk.path().join("filler"), vec![1; usize::try_from(free).unwrap()])
            .unwrap();
    };
    for (left, state, code) in [(40, "warn", None), (16, "fail", Some(2))] {
        fill(left);
        let told = told();
        assert_eq!(told.state("disk"), state, "{:#}", told.json);
        assert!(code.is_none_or(|code| told.code == code));
        std::fs::remove_file(disk.path().join("filler")).unwrap();
    }
    assert_eq!(told().state("disk"), "ok");
    drop(shop);
    drop(disk);
}

#[test]
fn descriptors_that_run_out_are_told() {
    let shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    let platform = shop.serve.running().pid();
    let now = until(&shop, "descriptors", "ok");
    let (open, hard) = (now.number("descriptors", "open"), now.number("descriptors", "hard_limit"));
    let limit = |soft| {
        let limit = Rlimit { current: Some(soft), maximum: Some(hard) };
        prlimit(Some(platform), Resource::Nofile, limit).unwrap();
    };
    limit(open + open / 8);
    until(&shop, "descriptors", "warn");
    limit(open + 2);
    let told = until(&shop, "descriptors", "fail");
    assert!(told.took < AT_ONCE, "{:?}", told.took);
    limit(hard);
    until(&shop, "descriptors", "ok");
    // A monitor that has a connection is told also where there is none left.
    let address: SocketAddr = shop.serve.url().strip_prefix("http://").unwrap().parse().unwrap();
    let mut monitor = std::net::TcpStream::connect(address).unwrap();
    monitor.set_read_timeout(Some(SOON)).unwrap();
    asked_on(&mut monitor, shop.serve.token());
    let folder = format!("/proc/{}/fd", platform.as_raw_nonzero());
    let used: std::collections::BTreeSet<u64> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_str().unwrap().parse().unwrap())
        .collect();
    limit((0..).find(|number| !used.contains(number)).unwrap());
    let told = asked_on(&mut monitor, shop.serve.token());
    limit(hard);
    let checks = told["checks"].as_array().unwrap();
    let found = checks.iter().find(|check| check["name"] == "descriptors").unwrap();
    assert_eq!(found["state"], "fail", "{found:#}");
}

/// A request on a connection that stays.
fn asked_on(stream: &mut std::net::TcpStream, token: &str) -> Value {
    use std::io::{Read as _, Write as _};
    let head =
        format!("GET /v1/platform HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {token}\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = Vec::new();
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
        if answer.ends_with(b"\r\n\r\n") {
            break;
        }
    }
    let head = String::from_utf8(answer).unwrap().to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let mut body = vec![0; length.unwrap_or_else(|| panic!("{head}")).parse().unwrap()];
    stream.read_exact(&mut body).unwrap();
    serde_json::from_slice(&body).unwrap()
}

#[test]
fn the_oldest_operation_is_told_while_it_is_under_way() {
    let shop = Shop::new("web: python3 server.py\nrelease: ./wait.sh\n", &[]);
    std::fs::write(shop.dir.join("wait.sh"), "#!/bin/sh\nexec sleep 1000\n").unwrap();
    let wait = shop.dir.join("wait.sh");
    std::fs::set_permissions(wait, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    git::commit(&shop.dir);
    std::thread::scope(|scope| {
        let push = scope.spawn(|| shop.push(&["tolv", "main"]));
        let told = poll(SOON, "an operation", || {
            let told = told(&shop);
            (told.fact("operations", "oldest_state") == "running"
                && told.number("spawner", "sandboxes") > 0
                && told.number("git", "waiting_pushes") == 1)
                .then_some(told)
        });
        let id = told.fact("operations", "oldest_id").as_str().unwrap();
        assert_eq!(told.fact("operations", "oldest_deploy"), "shop/production");
        assert_eq!(told.fact("operations", "oldest_kind"), "deploy");
        assert_eq!(
            (told.number("operations", "running"), told.number("operations", "at_work")),
            (1, 1)
        );
        assert_eq!(told.state("operations"), "ok");
        let samples = scraped(&shop);
        assert_eq!(samples["tolv_operations{state=\"running\"}"], 1.0);
        assert!(samples["tolv_oldest_operation_age_seconds"] > 0.0);
        shop.tolv(&["operations", "cancel", id]);
        push.join().unwrap();
    });
    assert!(told(&shop).fact("operations", "oldest_id").is_null());
}

/// A platform that is stopped takes the connection, and says nothing.
#[test]
fn a_platform_that_does_not_answer_has_failed() {
    let shop = Shop::site("one", &[]);
    let platform = shop.serve.running().pid();
    kill_process(platform, Signal::STOP).unwrap();
    let (home, remote) = std::thread::scope(|scope| {
        let home = scope.spawn(|| at_home(&shop.serve, &[]));
        let remote = shop.ran(&["status", "--platform"]);
        (home.join().unwrap(), remote)
    });
    kill_process(platform, Signal::CONT).unwrap();
    for ran in [home, remote] {
        assert_eq!((ran.status.code(), &*ran.out), (Some(2), ""), "{}", ran.err);
        assert!(ran.err.contains("answer"), "{}", ran.err);
    }
    until(&shop, "platform", "ok");
}

#[test]
fn the_platform_of_up_is_told_in_its_folder() {
    let home = crate::codebase("web: python3 server.py\n");
    let dir = crate::shop(&home);
    let up = crate::Up::start(&dir, &[]);
    up.text("/");
    let ran =
        crate::output(crate::tolv().current_dir(&dir).args(["status", "--platform", "--json"]));
    let json: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert!(ran.status.code() < Some(2), "{json:#}{}", crate::stderr(&ran));
    let pid = u64::try_from(up.tolv.pid().as_raw_nonzero().get()).unwrap();
    assert_eq!(json["pid"], pid);
}
