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

/// Sessions that have the lease, or ask for it.
const SESSIONS: &str =
    "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'tolv %' ORDER BY backend_start";

/// The session that has the lease; nothing where none has.
const HAS_LEASE: &str = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted \
                         AND classid = 1953459318 AND objid = 1 AND objsubid = 2";

fn lease(postgres: &tolv_testkit::Postgres) -> Option<rustix::process::Pid> {
    let pid = tolv_testkit::postgres::sql(postgres, HAS_LEASE).unwrap();
    pid.trim().parse().ok().and_then(rustix::process::Pid::from_raw)
}

/// Long enough for whatever makes connections anew by itself to have done so, or given up.
#[test]
fn after_a_long_time_without_the_database_its_lease_is_taken_again() {
    let mut postgres = tolv_testkit::Postgres::start();
    let shop = Shop::site("one", &[("DATABASE_URL", postgres.url())]);
    shop.pushed(&["tolv", "main"]);
    assert!(lease(&postgres).is_some());
    postgres.stop();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(20);
    poll(SOON, "a long time", || (std::time::Instant::now() > until).then_some(()));
    postgres.again();
    poll(SOON, "the lease", || lease(&postgres));
    shop.tolv(&["config", "set", "A=1"]);
    let ran = run(&mut second(&shop, &shop.serve.folder("elsewhere"), postgres.url()));
    assert!(ran.err.contains("another platform runs on this database: "), "{}", ran.err);
}

/// A session that does not answer still has the lease, and is not another platform.
#[test]
fn a_platform_is_not_put_out_by_a_session_of_its_own() {
    use rustix::process::{Signal, kill_process};
    let postgres = tolv_testkit::Postgres::start();
    let shop = Shop::site("one", &[("DATABASE_URL", postgres.url())]);
    shop.pushed(&["tolv", "main"]);
    let stuck = lease(&postgres).unwrap();
    kill_process(stuck, Signal::STOP).unwrap();
    // It has noticed when it asks anew.
    poll(SOON * 2, "another session", || {
        let sessions = tolv_testkit::postgres::sql(&postgres, SESSIONS).unwrap();
        (sessions.lines().count() > 1).then_some(())
    });
    // What writes waits until it has the lease for certain.
    let refused = shop.ran(&["config", "set", "A=1"]);
    assert!(refused.err.contains("the database cannot be reached"), "{}", refused.err);
    kill_process(stuck, Signal::CONT).unwrap();
    poll(SOON, "the lease of a session that answers", || {
        lease(&postgres).filter(|has| *has != stuck)
    });
    shop.tolv(&["config", "set", "A=2"]);
}

/// The lock is the database's, whatever name it is called by, and whoever tidies beside it.
#[test]
fn one_database_of_sqlite_has_one_platform_by_any_name() {
    let folder = tolv_testkit::Home::new();
    let address = |name: &str| format!("sqlite:{}", folder.path().join(name).display());
    std::os::unix::fs::symlink("shared.sqlite", folder.path().join("link.sqlite")).unwrap();
    let shop = Shop::site("one", &[("DATABASE_URL", &address("link.sqlite"))]);
    shop.pushed(&["tolv", "main"]);
    let home = shop.serve.folder("elsewhere");
    let ran = run(&mut second(&shop, &home, &address("shared.sqlite")));
    assert!(ran.err.contains("another platform runs on this database: "), "{}", ran.err);
    let lock = folder.path().join("shared.sqlite.lease");
    std::fs::remove_file(&lock).unwrap();
    poll(SOON, "the lock again", || lock.exists().then_some(()));
    let ran = run(&mut second(&shop, &home, &address("shared.sqlite")));
    assert!(ran.err.contains("another platform runs on this database: "), "{}", ran.err);
    shop.tolv(&["restart"]);
}

/// How long it takes from the start of the platform to an answer of the app.
fn first_answer(shop: &mut Shop) -> std::time::Duration {
    let began = std::time::Instant::now();
    shop.serve.begin();
    until_text(shop, "shop.localhost", "one");
    began.elapsed()
}

/// A server that takes connections and says nothing holds up neither apps nor the API for long.
#[test]
fn apps_do_not_wait_for_a_database_that_does_not_answer() {
    use rustix::process::{Pid, Signal, kill_process};
    let mut postgres = tolv_testkit::Postgres::start();
    let mut shop = Shop::site("one", &[("DATABASE_URL", postgres.url())]);
    shop.pushed(&["tolv", "main"]);
    shop.serve.end(Signal::TERM);
    postgres.stop();
    let gone = first_answer(&mut shop);
    println!("a database that is gone: {gone:?}");
    assert!(gone < std::time::Duration::from_millis(2500), "{gone:?}");
    shop.serve.end(Signal::TERM);
    postgres.again();
    let server = std::fs::read_to_string(postgres.data().join("postmaster.pid")).unwrap();
    let server = Pid::from_raw(server.lines().next().unwrap().parse().unwrap()).unwrap();
    kill_process(server, Signal::STOP).unwrap();
    let silent = first_answer(&mut shop);
    kill_process(server, Signal::CONT).unwrap();
    assert!(silent < std::time::Duration::from_millis(2500), "{silent:?}");
    println!("a database that does not answer: {silent:?}");
    poll(SOON, "the lease", || lease(&postgres));
    poll(SOON, "a write", || shop.ran(&["config", "set", "A=1"]).status.success().then_some(()));
}

/// The server crashes while a transaction is under way: the client hears what it is, and what comes
/// after that works.
#[test]
fn a_database_that_crashes_in_a_transaction_is_said_to_be_away() {
    use rustix::process::{Pid, Signal, kill_process};
    const WAITS: &str = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' LIMIT 1";
    let postgres = tolv_testkit::Postgres::start();
    let shop = Shop::site("one", &[("DATABASE_URL", postgres.url())]);
    shop.pushed(&["tolv", "main"]);
    let sql = |text: &str| tolv_testkit::postgres::sql(&postgres, text);
    std::thread::scope(|scope| {
        let blocked = "BEGIN; LOCK TABLE configs IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(60)";
        scope.spawn(move || sql(blocked).unwrap_err());
        poll(SOON, "the lock", || {
            let locks = "SELECT 1 FROM pg_locks WHERE mode = 'AccessExclusiveLock' AND granted";
            sql(locks).unwrap().contains('1').then_some(())
        });
        let set = scope.spawn(|| shop.ran(&["config", "set", "A=1"]));
        let backend = poll(SOON, "a transaction", || sql(WAITS).unwrap().trim().parse().ok());
        // The server ends every session, and recovers.
        kill_process(Pid::from_raw(backend).unwrap(), Signal::KILL).unwrap();
        let set = set.join().unwrap();
        assert!(!set.status.success(), "{}", set.err);
        assert!(set.err.contains("the database cannot be reached"), "{}", set.err);
    });
    poll(SOON, "a write", || shop.ran(&["config", "set", "A=2"]).status.success().then_some(()));
    assert_eq!(shop.tolv(&["config", "get", "A"]).trim(), "2");
    poll(SOON, "the lease", || lease(&postgres));
    let ran = run(&mut second(&shop, &shop.serve.folder("elsewhere"), postgres.url()));
    assert!(ran.err.contains("another platform runs on this database: "), "{}", ran.err);
}

/// A start that has to fail with one error.
#[track_caller]
fn fails_to_start(shop: &Shop) -> String {
    let ran = run(Command::new(env!("CARGO_BIN_EXE_tolv"))
        .arg("serve")
        .env("TOLV_HOME", shop.serve.state())
        .env("TOLV_LISTEN", "127.0.0.1:0")
        .env("TOLV_HTTP", "127.0.0.1:0"));
    assert_eq!(ran.status.code(), Some(1), "{}{}", ran.out, ran.err);
    assert_eq!(ran.err.matches("error:").count(), 1, "{}", ran.err);
    ran.err
}

#[test]
fn a_missing_key_of_a_database_is_not_replaced() {
    let mut shop = Shop::site("one", &[]);
    shop.serve.end(rustix::process::Signal::INT);
    let key = shop.serve.state().join("secret-key");
    let right = std::fs::read(&key).unwrap();
    std::fs::remove_file(&key).unwrap();
    for _ in 0..2 {
        let said = fails_to_start(&shop);
        assert!(said.contains("secret-key` is missing"), "{said}");
        assert!(said.contains("put it back") && said.contains("TOLV_SECRET_KEY"), "{said}");
        assert!(!key.exists(), "a new one was written");
    }
    std::fs::write(&key, &right).unwrap();
    rustix::fs::chmod(&key, rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    shop.serve.begin();
    shop.tolv(&["apps"]);
}

#[test]
fn a_damaged_database_is_told_at_once_and_not_waited_for() {
    let mut shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    shop.serve.end(rustix::process::Signal::INT);
    let file = shop.serve.state().join("db.sqlite");
    // What SQLite has beside it too, where it left any.
    let all = ["", "-wal", "-shm"].map(|end| file.with_file_name(format!("db.sqlite{end}")));
    let right = all.each_ref().map(|path| std::fs::read(path).ok());
    for path in &all {
        std::fs::remove_file(path).ok();
    }
    let noise: Vec<u8> =
        (0..20_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    std::fs::write(&file, &noise).unwrap();
    let said = fails_to_start(&shop);
    assert!(said.contains("file is not a database"), "{said}");
    assert!(said.contains(&file.display().to_string()), "{said}");
    assert_eq!(std::fs::read(&file).unwrap(), noise, "it was changed");
    for (path, bytes) in all.iter().zip(right) {
        if let Some(bytes) = bytes {
            std::fs::write(path, bytes).unwrap();
        }
    }
    shop.serve.begin();
    until_text(&shop, "shop.localhost", "one");
}

/// A platform that was stopped while its database was restarted, and another one came.
#[test]
fn a_platform_that_wakes_up_without_its_lease_says_who_has_it_and_ends() {
    use rustix::process::{Signal, kill_process};
    let mut postgres = tolv_testkit::Postgres::start();
    let mut shop = Shop::site("one", &[("DATABASE_URL", postgres.url())]);
    shop.pushed(&["tolv", "main"]);
    let ours = shop.serve.running().pid();
    kill_process(ours, Signal::STOP).unwrap();
    postgres.stop();
    postgres.again();
    let home = shop.serve.folder("elsewhere");
    let mut other = tolv_testkit::Tolv::start(&mut second(&shop, &home, postgres.url()));
    other.wait_for_line(|line| line.contains("API at"), SOON);
    let rows = || {
        let sql = "SELECT (SELECT COUNT(*) FROM operations), (SELECT COUNT(*) FROM audit), \
                   (SELECT string_agg(xmin::text, ',' ORDER BY id) FROM deploys)";
        tolv_testkit::postgres::sql(&postgres, sql).unwrap()
    };
    let before = rows();
    let began = std::time::Instant::now();
    kill_process(ours, Signal::CONT).unwrap();
    let by = format!("pid {} on ", other.pid().as_raw_nonzero());
    shop.serve.running().wait_for_line(
        |line| line.contains("Another platform runs on this database now") && line.contains(&by),
        SOON,
    );
    let lines = shop.serve.ended_with_lines();
    let text: Vec<_> = lines.1.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(lines.0.code(), Some(1), "{text:?}");
    assert!(!text.iter().any(|line| line.contains("pool timed out")), "{text:?}");
    assert!(began.elapsed() < SOON, "{:?}", began.elapsed());
    assert_eq!(rows(), before, "it wrote to the database of the other one");
    // What the other one runs goes on.
    other.signal(Signal::TERM);
    assert!(other.wait(SOON).success());
}

/// Another database behind the address of a running platform: it is not used, and said to be another.
#[track_caller]
fn is_not_used(exchange: impl Fn(&tolv_testkit::Postgres), why: &str) {
    const BACK: &str = "DROP DATABASE shop WITH (FORCE); ALTER DATABASE kept RENAME TO shop";
    let postgres = tolv_testkit::Postgres::start();
    let sql = |text: &str| {
        // Each statement for itself: databases are not made in a transaction.
        for one in text.split("; ") {
            tolv_testkit::postgres::sql(&postgres, one).unwrap();
        }
    };
    sql("CREATE DATABASE shop");
    let mut shop = Shop::site("one", &[("DATABASE_URL", &postgres.url_of("shop"))]);
    shop.pushed(&["tolv", "main"]);
    let away = "ALTER DATABASE shop RENAME TO kept";
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'shop'";
    poll(SOON, "nobody in the database for a moment", || {
        tolv_testkit::postgres::sql(&postgres, end).unwrap();
        tolv_testkit::postgres::sql(&postgres, away).ok()
    });
    exchange(&postgres);
    shop.serve.running().wait_for_line(
        |line| line.contains("another database answers") && line.contains(why),
        SOON,
    );
    let address: SocketAddr = shop.serve.url().strip_prefix("http://").unwrap().parse().unwrap();
    let head = format!("Bearer {}", shop.serve.token());
    let headers = [("host", "x"), ("authorization", head.as_str())];
    for path in ["/v1/apps", "/v1/apps/shop/deploys/production"] {
        let answer = http::send(address, "GET", path, &headers, SOON).unwrap();
        assert_eq!(answer.status, 503, "{path}: {}", answer.text());
        assert!(answer.text().contains("another database answers"), "{}", answer.text());
    }
    let set = shop.ran(&["config", "set", "A=1"]);
    assert!(set.err.contains("another database answers"), "{}", set.err);
    let status = run(Command::new(env!("CARGO_BIN_EXE_tolv"))
        .args(["status", "--platform"])
        .env("TOLV_HOME", shop.serve.state()));
    assert!(
        !status.status.success() && status.out.contains("another database answers"),
        "{status:?}"
    );
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    sql(BACK);
    poll(SOON * 2, "a write", || {
        shop.ran(&["config", "set", "A=2"]).status.success().then_some(())
    });
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    assert!(shop.serve.end(rustix::process::Signal::TERM).success());
}

#[test]
fn an_empty_database_in_the_place_of_a_running_platforms_is_not_used() {
    let exchange = |postgres: &tolv_testkit::Postgres| {
        tolv_testkit::postgres::sql(postgres, "CREATE DATABASE shop").unwrap();
    };
    is_not_used(exchange, "none of its tables");
}

#[test]
fn the_database_of_another_platform_in_the_place_of_a_running_ones_is_not_used() {
    let exchange = |postgres: &tolv_testkit::Postgres| {
        let sql = |text: &str| tolv_testkit::postgres::sql(postgres, text).unwrap();
        sql("CREATE DATABASE other");
        let other = tolv_testkit::Serve::start(
            env!("CARGO_BIN_EXE_tolv"),
            &[("DATABASE_URL", &postgres.url_of("other"))],
        );
        drop(other);
        sql("ALTER DATABASE other RENAME TO shop");
    };
    is_not_used(exchange, "another platform");
}
