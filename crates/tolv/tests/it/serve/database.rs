//! The database goes away and comes back.

use super::*;

#[test]
fn without_the_database_requests_wait_and_apps_go_on() {
    let mut postgres = tolv_testkit::Postgres::start();
    let mut shop = Shop::site("one", &[("DATABASE_URL", postgres.url())]);
    shop.pushed(&["tolv", "main"]);
    postgres.stop();
    let address: SocketAddr = shop.serve.url().strip_prefix("http://").unwrap().parse().unwrap();
    let head = format!("Bearer {}", shop.serve.token());
    let refused = poll(SOON, "the API says that the database is away", || {
        let headers = [("host", "x"), ("authorization", head.as_str())];
        let answer = http::send(address, "GET", "/v1/apps", &headers, SOON);
        answer.ok().filter(|answer| answer.status == 503)
    });
    assert!(refused.header("retry-after").is_some());
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    // A start needs no database either.
    shop.serve.end(rustix::process::Signal::KILL);
    shop.serve.begin();
    until_text(&shop, "shop.localhost", "one");
    postgres.again();
    poll(SOON, "the API answers again", || shop.ran(&["apps"]).status.success().then_some(()));
    shop.change("index.html", "two");
    shop.pushed(&["tolv", "main"]);
    assert_eq!(shop.text("shop.localhost", "/"), "two");
}

#[test]
fn a_wrong_key_is_one_clear_error_at_the_start() {
    let mut shop = Shop::site("one", &[]);
    shop.tolv(&["config", "set", "A=1"]);
    shop.serve.end(rustix::process::Signal::INT);
    let key = shop.serve.state().join("secret-key");
    let right = std::fs::read(&key).unwrap();
    let mut wrong = right.clone();
    wrong[0] = if right[0] == b'0' { b'1' } else { b'0' };
    std::fs::write(&key, wrong).unwrap();
    let ran = run(Command::new(env!("CARGO_BIN_EXE_tolv"))
        .arg("serve")
        .env("TOLV_HOME", shop.serve.state())
        .env("TOLV_LISTEN", "127.0.0.1:0")
        .env("TOLV_HTTP", "127.0.0.1:0"));
    assert_eq!(ran.status.code(), Some(1));
    assert_eq!(ran.err.matches("error:").count(), 1, "{}", ran.err);
    assert!(ran.err.contains("key"), "{}", ran.err);
    std::fs::write(&key, right).unwrap();
    shop.serve.begin();
    assert_eq!(shop.tolv(&["config", "get", "A"]).trim(), "1");
}

/// A second platform on a database that has one: another state folder, the same key.
fn second(shop: &Shop, home: &Path, database: &str) -> Command {
    std::fs::create_dir_all(home).unwrap();
    std::fs::copy(shop.serve.state().join("secret-key"), home.join("secret-key")).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tolv"));
    command
        .arg("serve")
        .env("TOLV_HOME", home)
        .env("DATABASE_URL", database)
        .env("TOLV_LISTEN", "127.0.0.1:0")
        .env("TOLV_HTTP", "127.0.0.1:0");
    command
}

fn one_database_has_one_platform(shop: &mut Shop, database: &str) {
    shop.pushed(&["tolv", "main"]);
    let home = shop.serve.folder("elsewhere");
    let ran = run(&mut second(shop, &home, database));
    assert_eq!(ran.status.code(), Some(1), "{}", ran.err);
    let pid = shop.serve.running().pid().as_raw_nonzero();
    assert!(ran.err.contains("another platform runs on this database: "), "{}", ran.err);
    assert!(ran.err.contains(&format!("pid {pid} on ")), "{}", ran.err);
    assert!(ran.err.contains(" since 20"), "{}", ran.err);
    // Nothing of it was begun: no release, no process, no line.
    assert!(!ran.out.contains("shop"), "{}", ran.out);
    // An upgrade takes the lease along; a kill frees it.
    shop.serve.upgrade(|_| ());
    shop.tolv(&["restart"]);
    assert_eq!(run(&mut second(shop, &home, database)).status.code(), Some(1));
    shop.serve.end(rustix::process::Signal::KILL);
    shop.serve.begin();
    shop.tolv(&["restart"]);
    assert_eq!(shop.text("shop.localhost", "/"), "one");
}

#[test]
fn one_database_of_postgres_has_one_platform() {
    let postgres = tolv_testkit::Postgres::start();
    let mut shop = Shop::site("one", &[("DATABASE_URL", postgres.url())]);
    one_database_has_one_platform(&mut shop, postgres.url());
}

#[test]
fn one_database_of_sqlite_has_one_platform() {
    let folder = tolv_testkit::Home::new();
    let database = format!("sqlite:{}", folder.path().join("shared.sqlite").display());
    let mut shop = Shop::site("one", &[("DATABASE_URL", &database)]);
    one_database_has_one_platform(&mut shop, &database);
}

/// While the database was away another platform came: the first one does not go on beside it.
#[test]
fn a_platform_that_lost_its_database_to_another_ends() {
    let mut postgres = tolv_testkit::Postgres::start();
    let mut shop = Shop::site("one", &[("DATABASE_URL", postgres.url())]);
    shop.pushed(&["tolv", "main"]);
    shop.serve.end(rustix::process::Signal::TERM);
    postgres.stop();
    // It starts what it ran, and waits for the database.
    shop.serve.begin();
    until_text(&shop, "shop.localhost", "one");
    let home = shop.serve.folder("elsewhere");
    let mut other = second(&shop, &home, postgres.url());
    rustix::process::kill_process(shop.serve.running().pid(), rustix::process::Signal::STOP)
        .unwrap();
    postgres.again();
    let mut other = tolv_testkit::Tolv::start(&mut other);
    other.wait_for_line(|line| line.contains("API at"), SOON);
    rustix::process::kill_process(shop.serve.running().pid(), rustix::process::Signal::CONT)
        .unwrap();
    assert_eq!(shop.serve.ended().code(), Some(1));
    other.signal(rustix::process::Signal::TERM);
    assert!(other.wait(SOON).success());
}

/// Each session of the database is ended while it is in the middle of something.
#[test]
fn sessions_that_are_killed_in_the_middle_leave_everything_working() {
    const KILL: &str = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
                        WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'";
    let postgres = tolv_testkit::Postgres::start();
    let shop = Shop::site("one", &[("DATABASE_URL", postgres.url())]);
    shop.pushed(&["tolv", "main"]);
    for kills in 1..8 {
        std::thread::scope(|scope| {
            // It may fail, and says so then; each time the last kill comes at another moment.
            scope.spawn(|| shop.ran(&["config", "set", &format!("N={kills}")]));
            for _ in 0..kills {
                tolv_testkit::postgres::sql(&postgres, KILL).unwrap();
            }
        });
    }
    poll(SOON, "a write", || shop.ran(&["config", "set", "LAST=1"]).status.success().then_some(()));
    // No connection was kept in the state in which its session ended.
    for n in 0..8 {
        shop.tolv(&["config", "set", &format!("AFTER={n}")]);
    }
    assert!(shop.tolv(&["releases", "verify"]).contains("hold"));
    // The lease is taken again: a second platform stays out.
    let home = shop.serve.folder("elsewhere");
    poll(SOON, "the lease", || {
        let locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2";
        (tolv_testkit::postgres::sql(&postgres, locks).unwrap().trim() == "1").then_some(())
    });
    let ran = run(&mut second(&shop, &home, postgres.url()));
    assert!(ran.err.contains("another platform runs on this database: "), "{}", ran.err);
}
