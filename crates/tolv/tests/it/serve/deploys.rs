//! The way of a codebase through several deploys: push, config, promote, roll back, destroy.

use tolv_testkit::Tolv;

use super::*;
use crate::LATER;

/// Everything a user does in the first hour, on one database.
fn first_hour(extra: &[(&str, &str)]) {
    let shop = Shop::new("web: python3 server.py\n", extra);
    let said = shop.pushed(&["tolv", "main"]);
    assert!(said.contains("remote: -----> Release v1"), "{said}");
    assert!(said.contains("is up at http://shop.localhost:"), "{said}");
    assert!(shop.text("shop.localhost", "/env").contains("TOLV_RELEASE=v1"));

    shop.tolv(&["config", "set", "GREETING=hello world", "COLOR=blue"]);
    let env = shop.text("shop.localhost", "/env");
    assert!(env.contains("GREETING=hello world") && env.contains("COLOR=blue"), "{env}");
    assert!(env.contains("TOLV_RELEASE=v2"), "several at once are one release: {env}");

    // Staging takes another commit, and production gets its slug without a build.
    shop.tolv(&["deploys", "create", "staging", "--from", "shop/production", "--values"]);
    shop.change("version.txt", "two");
    let staging = format!("{}/git/shop/staging.git", shop.serve.url());
    shop.pushed(&[&staging, "main"]);
    let env = shop.text("shop-staging.localhost", "/env");
    assert!(env.contains("TOLV_DEPLOY=staging") && env.contains("COLOR=blue"), "{env}");
    let said = shop.tolv(&["promote", "shop/staging"]);
    assert!(!said.contains("-----> Building"), "{said}");
    let slug = |host: &str| {
        let env = shop.text(host, "/env");
        env.lines().find(|line| line.starts_with("TOLV_SLUG=")).unwrap().to_owned()
    };
    assert_eq!(slug("shop.localhost"), slug("shop-staging.localhost"));
    assert!(shop.text("shop.localhost", "/env").contains("TOLV_RELEASE=v3"));

    shop.tolv(&["rollback", "v1"]);
    let env = shop.text("shop.localhost", "/env");
    assert!(env.contains("TOLV_RELEASE=v4") && !env.contains("GREETING"), "{env}");
    assert_ne!(slug("shop.localhost"), slug("shop-staging.localhost"));

    let verified = shop.tolv(&["releases", "verify"]);
    assert!(verified.contains('4'), "{verified}");
    let releases = shop.tolv(&["releases"]);
    for text in ["v4", "Rollback to v1", "Promote shop/staging v1", "Set COLOR, GREETING", "Deploy"]
    {
        assert!(releases.contains(text), "{text} in {releases}");
    }
    let audit = shop.tolv(&["audit"]);
    assert!(audit.contains("owner") && !audit.contains("hello world"), "{audit}");

    shop.tolv(&["destroy", "shop/staging", "--confirm", "shop/staging"]);
    assert_eq!(shop.get("shop-staging.localhost", "/").unwrap().status, 421);
    shop.text("shop.localhost", "/");
    shop.tolv(&["destroy", "shop", "--confirm", "shop"]);
    assert_eq!(shop.get("shop.localhost", "/").unwrap().status, 421);
    assert!(!shop.tolv(&["apps"]).contains("shop"));
}

#[test]
fn the_first_hour_on_sqlite() {
    first_hour(&[]);
}

#[test]
fn the_first_hour_on_postgresql() {
    let postgres = tolv_testkit::Postgres::start();
    first_hour(&[("DATABASE_URL", postgres.url())]);
}

#[test]
fn scale_restart_stop_and_start() {
    let shop = Shop::new("web: python3 server.py\nworker: sleep 1000\n", &[]);
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["scale", "web=2", "worker=0"]);
    let ps = shop.tolv(&["ps"]);
    assert!(ps.contains("web.1") && ps.contains("web.2") && !ps.contains("worker.1"), "{ps}");
    let mut answers = std::collections::BTreeSet::new();
    poll(SOON, "both answer", || {
        answers.insert(shop.text("shop.localhost", "/"));
        (answers.len() == 2).then_some(())
    });

    shop.tolv(&["restart", "web.1"]);
    let after: std::collections::BTreeSet<_> =
        (0..20).map(|_| shop.text("shop.localhost", "/")).collect();
    assert_eq!(after.intersection(&answers).count(), 1, "{answers:?} {after:?}");

    let refused = shop.ran(&["scale", "clock=1"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.err.contains("`clock` is not a process type"), "{}", refused.err);

    shop.tolv(&["stop"]);
    assert_eq!(shop.get("shop.localhost", "/").unwrap().status, 503);
    // Config can be set meanwhile, and starts nothing.
    shop.tolv(&["config", "set", "A=1"]);
    assert_eq!(shop.get("shop.localhost", "/").unwrap().status, 503);
    shop.tolv(&["start"]);
    assert!(shop.text("shop.localhost", "/env").contains("A=1"));
}

#[test]
fn a_release_that_does_not_come_up_leaves_the_one_before() {
    let shop = Shop::new("web: python3 server.py\n", &[]);
    shop.pushed(&["tolv", "main"]);
    let before = git::git(&shop.dir, &["rev-parse", "HEAD"]);
    shop.change("server.py", "raise SystemExit('no database')");
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success());
    assert!(ran.err.contains("no database"), "{}", ran.err);
    assert!(ran.err.contains("Release v1 goes on"), "{}", ran.err);
    assert!(shop.text("shop.localhost", "/env").contains("TOLV_RELEASE=v1"));
    let mut ask = Command::new("git");
    ask.args(["ls-remote", "tolv", "refs/heads/main"]).current_dir(&shop.dir);
    shop.serve.user(&mut ask);
    let remote = run(ask.env("TOLV_TOKEN", shop.serve.token()));
    assert!(remote.out.starts_with(&before), "{}{}", remote.out, remote.err);
    let releases = shop.tolv(&["releases"]);
    assert!(releases.contains("v2") && releases.contains("failed"), "{releases}");
    // It keeps its number, and the ledger its chain.
    shop.change("server.py", SERVER);
    shop.pushed(&["tolv", "main"]);
    assert!(shop.text("shop.localhost", "/env").contains("TOLV_RELEASE=v3"));
    assert!(shop.tolv(&["releases", "verify"]).contains('3'));
}

#[test]
fn a_changed_row_is_named_and_does_not_run() {
    let mut shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["config", "set", "A=1"]);
    shop.tolv(&["config", "set", "A=2"]);
    shop.serve.end(rustix::process::Signal::INT);
    // Somebody with the file and SQL at hand.
    let database = shop.serve.state().join("db.sqlite");
    let script = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1])\n\
        for (name,) in db.execute(\"select name from sqlite_master where type = 'trigger'\").fetchall():\n    \
            db.execute(f'drop trigger {name}')\n\
        db.execute(\"update releases set actor = 'nobody' where number = 2\")\n\
        db.commit()\n";
    let python = run(Command::new("/usr/bin/python3").args(["-c", script]).arg(database));
    assert!(python.status.success(), "{}", python.err);
    shop.serve.begin();
    let verify = shop.ran(&["releases", "verify"]);
    assert_eq!(verify.status.code(), Some(1), "{}{}", verify.out, verify.err);
    assert!(format!("{}{}", verify.out, verify.err).contains("v2"), "{}", verify.err);
    // The third does not depend on the second to run; a rollback to the second does.
    until_text(&shop, "shop.localhost", "one");
    let back = shop.ran(&["rollback", "v2"]);
    assert_eq!(back.status.code(), Some(1), "{}{}", back.out, back.err);
}

#[test]
fn a_changed_slug_does_not_run() {
    let shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    shop.change("index.html", "two");
    shop.pushed(&["tolv", "main"]);
    let slugs = app_folder(&shop).join("slugs");
    let changed = std::fs::read_dir(&slugs).unwrap().flatten().find_map(|entry| {
        let file = entry.path().join("index.html");
        (std::fs::read_to_string(&file).ok()? == "one").then_some(file)
    });
    let file = changed.unwrap();
    let mut permissions = std::fs::metadata(&file).unwrap().permissions();
    std::os::unix::fs::PermissionsExt::set_mode(&mut permissions, 0o644);
    std::fs::set_permissions(&file, permissions).unwrap();
    std::fs::write(&file, "0ne").unwrap();
    let back = shop.ran(&["rollback", "v1"]);
    assert_eq!(back.status.code(), Some(1), "{}{}", back.out, back.err);
    let said = format!("{}{}", back.out, back.err);
    assert!(said.contains("index.html"), "{said}");
    assert_eq!(shop.text("shop.localhost", "/"), "two");
}

/// Where the only app has its slugs.
fn app_folder(shop: &Shop) -> PathBuf {
    let mut apps = std::fs::read_dir(shop.serve.state().join("apps")).unwrap().flatten();
    let app = apps.next().unwrap().path();
    assert!(apps.next().is_none());
    app
}

/// A platform whose slugs are gone, started again.
fn without_slugs(shop: &mut Shop) {
    shop.serve.end(rustix::process::Signal::INT);
    std::fs::remove_dir_all(app_folder(shop).join("slugs")).unwrap();
    shop.serve.begin();
}

#[test]
fn a_slug_that_is_gone_comes_back_from_the_object_store() {
    let store = tolv_testkit::Home::new();
    let url = format!("file://{}", store.path().display());
    let mut shop = Shop::site("one", &[("OBJECT_STORE_URL", &url)]);
    shop.pushed(&["tolv", "main"]);
    without_slugs(&mut shop);
    until_text(&shop, "shop.localhost", "one");
    // A copy that was changed is no slug.
    let apps = std::fs::read_dir(store.path().join("slugs")).unwrap();
    for copy in apps.flatten().flat_map(|app| std::fs::read_dir(app.path()).unwrap().flatten()) {
        std::fs::write(copy.path(), "something else").unwrap();
    }
    without_slugs(&mut shop);
    shop.serve.running().wait_for_line(|line| line.contains("Release v1 cannot run"), SOON);
}

#[test]
fn what_a_build_leaves_is_for_builds_of_its_app_alone() {
    let shop = Shop::site("one", &[]);
    let package = |name: &str| {
        let build = r#"ls \"$HOME\"; touch \"$HOME/left-by-$npm_package_name\""#;
        format!(r#"{{"name": "{name}", "version": "1.0.0", "scripts": {{"build": "{build}"}}}}"#)
    };
    std::fs::write(shop.dir.join("package.json"), package("shop")).unwrap();
    shop.change("Procfile", "worker: sleep 1000\n");
    shop.pushed(&["tolv", "main"]);
    let dir = shop.serve.folder("other");
    std::fs::write(dir.join("package.json"), package("other")).unwrap();
    std::fs::write(dir.join("Procfile"), "worker: sleep 1000\n").unwrap();
    git::commit(&dir);
    shop.serve.tolv(&dir, &["create", "other"]);
    let other = tolv_testkit::serve::run(&mut push_command(&shop.serve, &dir, &["tolv", "main"]));
    assert!(other.status.success(), "{}", other.err);
    assert!(!other.err.contains("left-by-shop"), "{}", other.err);
    shop.change("file", "new");
    let again = shop.pushed(&["tolv", "main"]);
    assert!(again.contains("left-by-shop"), "its own cache is kept: {again}");
    assert!(!again.contains("left-by-other"), "{again}");
    // With the app its folder goes.
    shop.serve.tolv(&dir, &["destroy", "other", "--confirm", "other"]);
    app_folder(&shop);
}

#[test]
fn a_slug_comes_back_from_s3() {
    let s3 = tolv_testkit::S3::start();
    let (url, options) = (s3.url(), s3.options());
    let mut extra: Vec<_> = options.iter().map(|(name, value)| (*name, value.as_str())).collect();
    extra.push(("OBJECT_STORE_URL", &url));
    let mut shop = Shop::site("one", &extra);
    shop.pushed(&["tolv", "main"]);
    without_slugs(&mut shop);
    until_text(&shop, "shop.localhost", "one");
    // The output of an operation is kept there too.
    let operations = shop.json(&["operations"]);
    let id = operations["items"][0]["id"].as_str().unwrap();
    let shown = shop.ran(&["operations", "show", id]);
    assert!(shown.err.contains("Release v1 is up"), "{}{}", shown.out, shown.err);
}

/// Agrees to every change of protocol, and says goodbye when it is told to end.
const CHAT: &str = r#"
import os, signal, socket, threading
listener = socket.create_server(("", int(os.environ["PORT"])))
tunnels = []
def bye(*_):
    for tunnel in tunnels:
        tunnel.sendall(b"bye")
    os._exit(0)
signal.signal(signal.SIGTERM, bye)
def answer(connection):
    head = b""
    while b"\r\n\r\n" not in head:
        part = connection.recv(4096)
        if not part:
            return
        head += part
    if b"Upgrade: chat" in head:
        connection.sendall(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
        tunnels.append(connection)
    else:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
        connection.close()
def accept():
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()
threading.Thread(target=accept, daemon=True).start()
while True:
    signal.pause()
"#;

#[test]
fn an_open_tunnel_does_not_hold_a_deploy_and_is_closed_by_its_process() {
    use std::io::{Read as _, Write as _};

    let shop = Shop::new("web: python3 server.py\n", &[]);
    shop.change("server.py", CHAT);
    shop.pushed(&["tolv", "main"]);
    let mut socket = std::net::TcpStream::connect(("127.0.0.1", shop.serve.http())).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let head =
        "GET / HTTP/1.1\r\nHost: shop.localhost\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";
    socket.write_all(head.as_bytes()).unwrap();
    let mut got = Vec::new();
    while !got.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        socket.read_exact(&mut byte).unwrap();
        got.push(byte[0]);
    }
    assert!(got.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&got));
    let began = std::time::Instant::now();
    shop.change("server.py", &format!("{CHAT}# again\n"));
    shop.pushed(&["tolv", "main"]);
    // Half a minute is what requests get.
    assert!(began.elapsed() < std::time::Duration::from_secs(25), "{:?}", began.elapsed());
    let mut last = String::new();
    socket.read_to_string(&mut last).unwrap();
    assert_eq!(last, "bye");
}

/// Nothing of a stopped deploy is told as if it ran.
#[test]
fn a_stopped_deploy_is_told_as_stopped() {
    let shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["stop"]);
    let hint = "stopped: tolv start";
    for args in [&["config", "set", "A=1"][..], &["limits", "web", "--memory", "300M"]] {
        let ran = shop.ran(args);
        assert!(ran.status.success(), "{args:?}: {}", ran.err);
        let recorded = ran.err.contains("is recorded; shop/production is stopped: tolv start");
        assert!(recorded && !ran.err.contains("is up at"), "{args:?}: {}", ran.err);
        assert!(!ran.err.contains("Starting"), "{args:?}: {}", ran.err);
        assert!(ran.out.contains(hint), "{args:?}: {}", ran.out);
    }
    let ran = shop.ran(&["scale", "web=2"]);
    assert!(ran.out.contains(hint) && !ran.err.contains("Starting"), "{}{}", ran.out, ran.err);
    let refused = shop.ran(&["restart"]);
    assert_eq!(refused.status.code(), Some(1), "{}", refused.out);
    assert!(refused.err.contains("shop/production is stopped"), "{}", refused.err);
    assert!(refused.err.contains("tolv start"), "{}", refused.err);
    let ps = shop.tolv(&["ps"]);
    assert!(ps.contains("shop/production is stopped. Start it: tolv start"), "{ps}");
    // A push starts it, and says so.
    shop.change("index.html", "two");
    let said = shop.pushed(&["tolv", "main"]);
    assert!(said.contains("shop/production was stopped: this release starts it"), "{said}");
    assert!(said.contains("is up at"), "{said}");
    assert_eq!(shop.text("shop.localhost", "/"), "two");
}

#[test]
fn a_release_of_which_nothing_runs_does_not_go_on() {
    let shop = Shop::new("web: test -z \"$BOOM\" && exec python3 server.py\n", &[]);
    shop.pushed(&["tolv", "main"]);
    let ran = shop.ran(&["config", "set", "BOOM=1"]);
    assert!(ran.err.contains("Release v1 goes on"), "{}", ran.err);
    shop.tolv(&["stop"]);
    shop.tolv(&["config", "set", "BOOM=1"]);
    let ran = shop.ran(&["start"]);
    assert!(!ran.status.success(), "{}", ran.out);
    assert!(!ran.err.contains("goes on"), "{}", ran.err);
    assert!(ran.err.contains("stays current, but no process of it runs"), "{}", ran.err);
}

#[test]
fn an_app_that_builds_again_and_again_keeps_no_other_app_waiting() {
    let shop = Shop::site("ready", &[("TOLV_BUILDS", "1")]);
    let greedy = shop.serve.folder("greedy");
    let package = r#"{"name": "g", "version": "1.0.0", "scripts": {"build": "echo it builds; sleep 5", "start": "node x.js"}}"#;
    std::fs::write(greedy.join("package.json"), package).unwrap();
    std::fs::write(greedy.join("x.js"), "").unwrap();
    git::commit(&greedy);
    shop.serve.tolv(&greedy, &["create", "greedy"]);
    let mut pushes = Vec::new();
    let deploys = ["one", "two", "three"];
    for deploy in deploys {
        shop.serve.tolv(&greedy, &["deploys", "create", deploy]);
    }
    for deploy in deploys {
        let url = format!("{}/git/greedy/{deploy}.git", shop.serve.url());
        pushes.push(Tolv::start(&mut push_command(&shop.serve, &greedy, &[&url, "main"])));
        if let [first] = &pushes[..] {
            first.wait_for_line(|line| line.contains("it builds"), LATER);
        }
    }
    for waiting in &pushes[1..] {
        waiting.wait_for_line(
            |line| line.contains("Waiting to build: 1 build running (1 of this app)"),
            SOON,
        );
    }
    let said = shop.pushed(&["tolv", "main"]);
    assert!(said.contains("Waiting to build: 1 build running, this one is next"), "{said}");
    assert!(!said.contains("greedy"), "{said}");
    let over = pushes
        .iter()
        .map(|push| push.lines().iter().filter(|line| line.text.contains("it builds")).count());
    assert!(over.sum::<usize>() < 3, "they all began to build before");
}
