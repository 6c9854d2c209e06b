//! A PostgreSQL that is there and does not do what it should: it is read-only, refuses connections, has
//! a full disk, or is another one.

use rustix::process::Signal;
use tolv_testkit::{Postgres, poll};

use super::disk::Small;
use super::status::at_home;
use super::*;

/// The database of the platform, beside the one that a test gives its orders in.
const DATABASE: &str = "tolvx";

fn sql(postgres: &Postgres, statement: &str) -> String {
    tolv_testkit::postgres::sql(postgres, statement).unwrap()
}

fn server() -> Postgres {
    let postgres = Postgres::start();
    sql(&postgres, &format!("CREATE DATABASE {DATABASE}"));
    postgres
}

fn shop(postgres: &Postgres) -> Shop {
    let shop = Shop::site("one", &[("DATABASE_URL", &postgres.url_of(DATABASE))]);
    shop.pushed(&["tolv", "main"]);
    shop
}

/// Ends every session of the platform: what was set holds for new ones.
fn end_sessions(postgres: &Postgres) {
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity";
    sql(postgres, &format!("{end} WHERE datname = '{DATABASE}'"));
}

fn set_read_only(postgres: &Postgres, setting: &str) {
    sql(
        postgres,
        &format!("ALTER DATABASE {DATABASE} SET default_transaction_read_only = {setting}"),
    );
    end_sessions(postgres);
}

/// Waits until the database's line of the status says this, and fails.
#[track_caller]
fn until_told(shop: &Shop, text: &str) {
    poll(SOON, &format!("the status says {text:?}"), || {
        let ran = at_home(&shop.serve, &[]);
        let said = ran.out.lines().any(|line| line.contains("fail") && line.contains(text));
        (said && ran.status.code() == Some(2)).then_some(())
    });
}

#[track_caller]
fn until_writes(shop: &Shop) {
    poll(SOON, "a write", || shop.ran(&["config", "set", "A=1"]).status.success().then_some(()));
}

fn until_line(shop: &Shop, text: &str) {
    shop.serve.running().wait_for_line(|line| line.contains(text), SOON);
}

/// A second start on the state folder, which has to fail with one error.
#[track_caller]
fn fails_to_start(shop: &Shop, database: &str) -> String {
    let ran = run(Command::new(env!("CARGO_BIN_EXE_tolv"))
        .arg("serve")
        .env("TOLV_HOME", shop.serve.state())
        .env("DATABASE_URL", database)
        .env("TOLV_LISTEN", "127.0.0.1:0")
        .env("TOLV_HTTP", "127.0.0.1:0"));
    assert_eq!(ran.status.code(), Some(1), "{}{}", ran.out, ran.err);
    assert_eq!(ran.err.matches("error:").count(), 1, "{}", ran.err);
    ran.err
}

#[test]
fn a_read_only_database_stops_neither_apps_nor_upgrades_nor_starts() {
    let postgres = server();
    let mut shop = shop(&postgres);
    set_read_only(&postgres, "on");
    until_told(&shop, "PostgreSQL is read-only");
    let metrics = shop.ran(&["status", "--platform", "--json"]);
    assert!(metrics.out.contains("\"writable\": false"), "{}", metrics.out);
    // Whoever writes hears why.
    let refused = poll(SOON, "a refusal", || {
        let ran = shop.ran(&["config", "set", "A=1"]);
        ran.err.contains("the database is read-only").then_some(ran)
    });
    assert!(refused.err.contains("standby"), "{}", refused.err);
    shop.change("index.html", "two");
    let push = shop.push(&["tolv", "main"]);
    let told = push.err.lines().any(|line| line.contains("remote: the database is read-only"));
    assert!(!push.status.success() && told, "{}", push.err);
    // What is read is there: the API of the new program, too.
    shop.serve.upgrade(|_| ());
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    shop.tolv(&["releases"]);
    shop.serve.end(Signal::KILL);
    shop.serve.begin();
    until_line(&shop, "The database is read-only: what ran before runs");
    until_text(&shop, "shop.localhost", "one");
    shop.tolv(&["releases"]);
    until_told(&shop, "PostgreSQL is read-only");
    set_read_only(&postgres, "off");
    until_line(&shop, "The database takes writes again");
    until_writes(&shop);
    shop.pushed(&["tolv", "main"]);
    until_text(&shop, "shop.localhost", "two");
}

/// Sessions that were made while it was read-only stay so.
#[test]
fn a_database_that_takes_writes_again_is_written_to_at_once() {
    let postgres = server();
    let shop = shop(&postgres);
    set_read_only(&postgres, "on");
    until_told(&shop, "PostgreSQL is read-only");
    sql(&postgres, &format!("ALTER DATABASE {DATABASE} RESET default_transaction_read_only"));
    shop.tolv(&["config", "set", "A=1"]);
    assert_ne!(at_home(&shop.serve, &[]).status.code(), Some(2));
}

/// A server that says why it serves nobody is as good as one that is away.
#[test]
fn a_server_that_refuses_connections_keeps_no_app_down() {
    type Change = fn(&Postgres, bool);
    let accepts: Change = |postgres, is_on| {
        sql(postgres, &format!("ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS {}", !is_on));
    };
    let renamed: Change = |postgres, is_on| {
        let (from, to) = if is_on { (DATABASE, "other") } else { ("other", DATABASE) };
        sql(
            postgres,
            &format!("ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS false").replace(DATABASE, from),
        );
        poll(SOON, "the last session", || {
            end_sessions(postgres);
            tolv_testkit::postgres::sql(postgres, &format!("ALTER DATABASE {from} RENAME TO {to}"))
                .ok()
        });
        sql(postgres, &format!("ALTER DATABASE {to} ALLOW_CONNECTIONS true"));
    };
    let crowded: Change = |postgres, is_on| {
        let most = if is_on { 0 } else { -1 };
        sql(postgres, &format!("ALTER DATABASE {DATABASE} CONNECTION LIMIT {most}"));
    };
    let refused: Change = |postgres, is_on| {
        let file = postgres.data().join("pg_hba.conf");
        let kept = file.with_extension("kept");
        if is_on {
            std::fs::copy(&file, &kept).unwrap();
            let rules = format!("host {DATABASE} all all reject\nhost all all all trust\n");
            std::fs::write(&file, rules).unwrap();
        } else {
            std::fs::copy(&kept, &file).unwrap();
        }
        sql(postgres, "SELECT pg_reload_conf()");
    };
    let postgres = server();
    // A limit of connections does not hold for who may do everything.
    sql(&postgres, "CREATE ROLE app LOGIN");
    sql(&postgres, &format!("ALTER DATABASE {DATABASE} OWNER TO app"));
    let url = postgres.url_of(DATABASE).replace("postgres@", "app@");
    let mut shop = Shop::site("one", &[("DATABASE_URL", &url)]);
    shop.pushed(&["tolv", "main"]);
    for (change, why) in [
        (accepts, "it accepts no connections"),
        (renamed, "the server has no database of this name"),
        (crowded, "it has too many connections"),
        (refused, "it refuses the user"),
    ] {
        change(&postgres, true);
        end_sessions(&postgres);
        until_told(&shop, why);
        shop.serve.end(Signal::KILL);
        shop.serve.begin();
        until_line(&shop, why);
        until_text(&shop, "shop.localhost", "one");
        until_told(&shop, why);
        let address: SocketAddr =
            shop.serve.url().strip_prefix("http://").unwrap().parse().unwrap();
        let head = format!("Bearer {}", shop.serve.token());
        poll(SOON, "a client is told", || {
            let headers = [("host", "x"), ("authorization", head.as_str())];
            let answer = http::send(address, "GET", "/v1/apps", &headers, SOON).ok()?;
            (answer.status == 503 && answer.text().contains(why)).then_some(())
        });
        change(&postgres, false);
        until_writes(&shop);
        // The first start of a platform does not wait.
        change(&postgres, true);
        end_sessions(&postgres);
        let folder = tolv_testkit::Home::new();
        let ran = run(Command::new(env!("CARGO_BIN_EXE_tolv"))
            .arg("serve")
            .env("TOLV_HOME", folder.path())
            .env("DATABASE_URL", &url)
            .env("TOLV_LISTEN", "127.0.0.1:0")
            .env("TOLV_HTTP", "127.0.0.1:0"));
        assert_eq!(ran.status.code(), Some(1), "{}{}", ran.out, ran.err);
        assert_eq!(ran.err.matches("error:").count(), 1, "{}", ran.err);
        assert!(ran.err.contains(why), "{}", ran.err);
        change(&postgres, false);
        until_writes(&shop);
    }
}

/// Its disk is not that of the platform.
#[test]
fn a_full_disk_of_the_database_is_told_as_that() {
    let Some(disk) = Small::new(32) else {
        println!("skipped: this user may not mount a file system");
        return;
    };
    let postgres = Postgres::start();
    let folder = disk.path().join("space");
    std::fs::create_dir(&folder).unwrap();
    for folder in [disk.path(), &folder] {
        postgres.own(folder);
    }
    sql(&postgres, &format!("CREATE TABLESPACE small LOCATION '{}'", folder.display()));
    sql(&postgres, &format!("CREATE DATABASE {DATABASE} TABLESPACE small"));
    let shop = shop(&postgres);
    let fill = disk.path().join("fill");
    run(Command::new("dd").args(["if=/dev/zero", "bs=4k"]).arg(format!("of={}", fill.display())));
    // Incompressible, so that each needs room.
    let value = |n: u32| {
        let noise = (0..4000_u32).map(|at| (at + n * 4000).wrapping_mul(2_654_435_761));
        noise.map(|number| format!("{number:08x}")).collect::<String>()
    };
    let mut tries = 0;
    let refused = poll(SOON, "a refusal", || {
        tries += 1;
        let ran = shop.ran(&["config", "set", &format!("A={}", value(tries))]);
        (!ran.status.success()).then_some(ran)
    });
    assert!(refused.err.contains("the disk of the database is full"), "{}", refused.err);
    assert!(!refused.err.contains("state folder"), "{}", refused.err);
    until_told(&shop, "its disk is full");
    std::fs::remove_file(&fill).unwrap();
    poll(SOON, "it is over", || {
        until_writes(&shop);
        (at_home(&shop.serve, &[]).status.code() != Some(2)).then_some(())
    });
}

/// The server was replaced by one without anything in it, or with that of another platform.
#[test]
fn another_database_is_refused_before_anything_is_written_or_stopped() {
    let postgres = server();
    let mut shop = shop(&postgres);
    let id = |shop: &Shop| std::fs::read(shop.serve.state().join("anchors/complete")).unwrap();
    let right = id(&shop);
    sql(&postgres, "CREATE DATABASE empty");
    let empty = postgres.url_of("empty");
    shop.serve.end(Signal::KILL);
    let said = fails_to_start(&shop, &empty);
    assert!(said.contains("this state folder belongs to another database"), "{said}");
    assert!(said.contains("has 1 deploy, and no platform has written to this one"), "{said}");
    assert!(said.contains("TOLV_HOME") && said.contains("DATABASE_URL"), "{said}");
    // The same key, another platform.
    sql(&postgres, "CREATE DATABASE other");
    let mut other = Command::new(env!("CARGO_BIN_EXE_tolv"));
    let folder = tolv_testkit::Home::new();
    std::fs::copy(shop.serve.state().join("secret-key"), folder.path().join("secret-key")).unwrap();
    other
        .arg("serve")
        .env("TOLV_HOME", folder.path())
        .env("DATABASE_URL", postgres.url_of("other"))
        .env("TOLV_LISTEN", "127.0.0.1:0")
        .env("TOLV_HTTP", "127.0.0.1:0");
    let mut other = tolv_testkit::Tolv::start(&mut other);
    other.wait_for_line(|line| line.contains("API at"), SOON);
    other.signal(Signal::TERM);
    assert!(other.wait(SOON).success());
    let said = fails_to_start(&shop, &postgres.url_of("other"));
    assert!(said.contains("this one is that of another state folder"), "{said}");
    // A file that is gone is not made anew.
    let gone = shop.serve.folder("gone").join("db.sqlite");
    let said = fails_to_start(&shop, &format!("sqlite:{}", gone.display()));
    assert!(said.contains("no platform has written to this one"), "{said}");
    assert!(!gone.exists());
    assert_eq!(id(&shop), right);
    shop.serve.begin();
    until_text(&shop, "shop.localhost", "one");
    until_writes(&shop);
    // An upgrade finds it, too.
    let replace = |names: [(&str, &str); 2]| {
        for (from, to) in names {
            poll(SOON, "a rename", || {
                end_sessions(&postgres);
                let rename = format!("ALTER DATABASE {from} RENAME TO {to}");
                tolv_testkit::postgres::sql(&postgres, &rename).ok()
            });
        }
    };
    replace([(DATABASE, "kept"), ("empty", DATABASE)]);
    shop.serve.signal(Signal::USR2);
    until_line(&shop, "Upgrade failed, this platform goes on");
    until_line(&shop, "this state folder belongs to another database");
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    replace([(DATABASE, "empty"), ("kept", DATABASE)]);
    until_writes(&shop);
    let tables = "SELECT count(*) FROM pg_database WHERE datname = 'empty'";
    assert_eq!(sql(&postgres, tables).trim(), "1");
    assert!(shop.tolv(&["releases", "verify"]).contains("hold"));
}
