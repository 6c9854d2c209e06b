//! What runs is what was released: a change of a slug, of a layer, of the ledger is found, by
//! `releases verify` and before each start of a process.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use super::*;

/// A server in Python with a package in a layer.
fn packaged() -> Shop {
    let serve = Serve::start(env!("CARGO_BIN_EXE_tolv"), &[]);
    let dir = serve.folder("shop");
    std::fs::write(dir.join("requirements.txt"), "six==1.17.0\n").unwrap();
    std::fs::write(dir.join("Procfile"), "web: python server.py\n").unwrap();
    std::fs::write(dir.join("server.py"), format!("import six\n{SERVER}")).unwrap();
    git::commit(&dir);
    serve.tolv(&dir, &["create", "shop"]);
    Shop { serve, dir }
}

/// The first path below a folder of the state that ends so.
fn found(folder: &Path, end: &str) -> PathBuf {
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().flatten() {
            if entry.path().to_string_lossy().ends_with(end) {
                return entry.path();
            }
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
        }
    }
    panic!("nothing below {} ends with {end}", folder.display());
}

/// The folder of the only app.
fn app(shop: &Shop) -> PathBuf {
    let apps = shop.serve.state().join("apps");
    std::fs::read_dir(apps).unwrap().next().unwrap().unwrap().path()
}

/// Statements on the database behind the platform's back; what they gave.
pub(super) fn sql(shop: &Shop, statements: &str) -> String {
    let script = "import sqlite3, sys\n\
                  db = sqlite3.connect(sys.argv[1], timeout=20)\n\
                  for one in sys.argv[2].split(';'):\n\
                  \x20   for row in db.execute(one): print(*row)\n\
                  db.commit()";
    let ran = run(Command::new("python3")
        .args(["-c", script])
        .arg(shop.serve.state().join("db.sqlite"))
        .arg(statements));
    assert!(ran.status.success(), "{statements}: {}", ran.err);
    ran.out
}

#[track_caller]
pub(super) fn does_not_hold(shop: &Shop, why: &str) {
    let ran = shop.ran(&["releases", "verify"]);
    assert!(!ran.status.success() && ran.err.contains(why), "{why}: {}{}", ran.out, ran.err);
}

fn pid(shop: &Shop) -> Option<u32> {
    let ps = shop.json(&["ps"]);
    let pid = ps["items"].as_array()?.first()?["pid"].as_u64()?;
    u32::try_from(pid).ok()
}

#[test]
fn a_changed_slug_or_layer_is_found_and_not_started() {
    let mut shop = packaged();
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["releases", "verify"]);
    let app = app(&shop);
    let slug = found(&app.join("slugs"), "/server.py").parent().unwrap().to_owned();
    let layer = found(&app.join("slugs/layers"), "/six.py");
    type Change = (PathBuf, Option<(&'static str, &'static str)>);
    let changes: [Change; 4] = [
        (slug.join("server.py"), Some(("ready", "readx"))),
        (slug.join("added.py"), None),
        (layer.clone(), Some(("1.17.0", "1.17.9"))),
        (layer.with_file_name("added.py"), None),
    ];
    for (path, change) in &changes {
        let before = std::fs::read_to_string(path).ok();
        let damage = || match (change, &before) {
            (Some((from, to)), Some(before)) => {
                std::fs::write(path, before.replace(from, to)).unwrap();
            }
            _ => std::fs::write(path, "").unwrap(),
        };
        damage();
        let name = path.file_name().unwrap().to_str().unwrap();
        does_not_hold(&shop, name);
        let pid = pid(&shop);
        let ran = shop.ran(&["restart"]);
        assert!(!ran.status.success() && ran.err.contains(name), "{}", ran.err);
        assert_eq!(super::proof::pid(&shop), pid, "the old process still runs");
        match &before {
            Some(before) => std::fs::write(path, before).unwrap(),
            None => std::fs::remove_file(path).unwrap(),
        }
        shop.tolv(&["releases", "verify"]);
    }
    // A crash: what was changed does not run, and runs again once it is what it was.
    let server = slug.join("server.py");
    let before = std::fs::read_to_string(&server).unwrap();
    std::fs::write(&server, before.replace("ready", "EDIT!")).unwrap();
    let old = pid(&shop).unwrap();
    rustix::process::kill_process(
        Pid::from_raw(i32::try_from(old).unwrap()).unwrap(),
        Signal::KILL,
    )
    .unwrap();
    let told = |line: &str| line.contains("could not be started") && line.contains("server.py");
    shop.serve.running().wait_for_line(told, SOON);
    std::fs::write(&server, &before).unwrap();
    until_text(&shop, "shop.localhost", "web.1");
    assert!(!shop.tolv(&["logs", "-n", "10000"]).contains("EDIT!"));
    // A start of the platform; a deploy of the same commit makes it whole.
    std::fs::write(&layer, "").unwrap();
    shop.serve.end(Signal::INT);
    shop.serve.begin();
    let told = |line: &str| line.contains("Release v1 cannot run: dependency layer");
    shop.serve.running().wait_for_line(told, SOON);
    assert_eq!(pid(&shop), None);
    assert_eq!(shop.get("shop.localhost", "/").unwrap().status, 503);
    shop.tolv(&["releases", "repair"]);
    until_text(&shop, "shop.localhost", "web.1");
    shop.tolv(&["releases", "verify"]);
}

#[test]
fn a_changed_ledger_is_found_and_nothing_of_it_starts() {
    let mut shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    shop.change("index.html", "two");
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["releases", "verify"]);
    // Each change, why it is found, and the way back.
    let error = sql(&shop, "SELECT outcome FROM outcomes WHERE number = 1");
    assert_eq!(error.trim(), "succeeded");
    for (change, why, back) in [
        (
            "UPDATE outcomes SET outcome = 'failed' WHERE number = 1",
            "the outcome of release v1 was changed",
            "UPDATE outcomes SET outcome = 'succeeded' WHERE number = 1",
        ),
        (
            "UPDATE outcomes SET error = '' WHERE number = 2",
            "the outcome of release v2 was changed",
            "UPDATE outcomes SET error = NULL WHERE number = 2",
        ),
        (
            "UPDATE deploys SET current_release = 1",
            "the current release was changed",
            "UPDATE deploys SET current_release = 2",
        ),
        (
            "DROP TRIGGER releases_are_fixed; UPDATE releases SET actor = 'eve' WHERE number = 1",
            "release v1 was changed",
            "UPDATE releases SET actor = 'owner' WHERE number = 1",
        ),
    ] {
        sql(&shop, change);
        does_not_hold(&shop, why);
        let ran = shop.ran(&["restart"]);
        // A change of another row is no reason to keep the current one down.
        let is_other = why.starts_with("release v1");
        assert_eq!(ran.status.success(), is_other, "{}", ran.err);
        assert!(is_other || ran.err.contains(why), "{}", ran.err);
        sql(&shop, back);
        shop.tolv(&["releases", "verify"]);
    }
    // The end of the chain cut off, and what runs with it.
    sql(
        &shop,
        "DELETE FROM outcomes WHERE number = 2; DELETE FROM releases WHERE number = 2; \
         UPDATE deploys SET current_release = 1",
    );
    let why = "the ledger does not end where this platform left it, at v2: it ends at v1";
    does_not_hold(&shop, why);
    shop.serve.end(Signal::INT);
    shop.serve.begin();
    shop.serve.running().wait_for_line(|line| line.contains(why), SOON);
    assert_eq!(pid(&shop), None, "nothing of it starts");
    // And nothing is appended to it.
    shop.change("index.html", "three");
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success() && ran.err.contains(why), "{}", ran.err);
    // As it is, on purpose.
    let refused = shop.ran(&["releases", "accept", "--confirm", "shop"]);
    assert!(!refused.status.success(), "{}", refused.out);
    shop.tolv(&["releases", "accept", "--confirm", "shop/production"]);
    until_text(&shop, "shop.localhost", "one");
    assert!(shop.tolv(&["audit"]).contains("ledger.accept"));
    shop.pushed(&["tolv", "main"]);
    until_text(&shop, "shop.localhost", "three");
    shop.tolv(&["releases", "verify"]);
}

#[test]
fn a_ledger_that_was_accepted_as_it_is_starts_and_is_gone_on_with() {
    let mut shop = Shop::site("one", &[]);
    shop.tolv(&["config", "set", "A=1"]);
    shop.pushed(&["tolv", "main"]);
    for (round, change, why) in [
        ("two", "UPDATE releases SET actor = 'eve'", "was changed: its row does not match"),
        ("three", "UPDATE outcomes SET error = 'eve'", "the outcome of release v1 was changed"),
        ("four", "DELETE FROM releases WHERE number = 2", "release v2 is missing"),
        ("five", "UPDATE releases SET reason = 'x' WHERE number = 3", "of release v3 cannot be"),
    ] {
        sql(&shop, &format!("DROP TRIGGER IF EXISTS releases_are_fixed; {change}"));
        does_not_hold(&shop, why);
        shop.tolv(&["releases", "accept", "--confirm", "shop/production"]);
        shop.tolv(&["releases", "verify"]);
        // Of what was accepted, every way to make something of it.
        shop.tolv(&["restart"]);
        shop.tolv(&["config", "set", &format!("A={round}")]);
        shop.serve.end(Signal::KILL);
        shop.serve.begin();
        shop.change("index.html", round);
        shop.pushed(&["tolv", "main"]);
        until_text(&shop, "shop.localhost", round);
        shop.tolv(&["releases"]);
        shop.tolv(&["releases", "verify"]);
    }
    // All of it is gone, with what runs: nothing starts, and every command has an end.
    shop.serve.end(Signal::INT);
    sql(&shop, "DELETE FROM outcomes; DELETE FROM releases");
    shop.serve.begin();
    for command in
        [&["restart"][..], &["rollback"], &["config", "set", "A=six"], &["scale", "web=1"]]
    {
        let ran = shop.ran(command);
        assert!(
            !ran.status.success() && !ran.err.contains("finds the cause"),
            "{command:?}: {}",
            ran.err
        );
    }
    shop.tolv(&["releases", "accept", "--confirm", "shop/production"]);
    shop.change("index.html", "six");
    shop.pushed(&["tolv", "main"]);
    until_text(&shop, "shop.localhost", "six");
    shop.change("index.html", "five");
    shop.pushed(&["tolv", "main"]);
    // A damaged record of the end keeps one deploy down, and the others and the platform up.
    shop.serve.end(Signal::INT);
    let anchors = shop.serve.state().join("anchors");
    for file in ["complete", "shop.production"] {
        std::fs::write(anchors.join(file), "nothing").unwrap();
    }
    shop.serve.begin();
    does_not_hold(&shop, "this state folder's record of where the ledger ends is damaged");
    shop.change("index.html", "six");
    let refused = shop.push(&["tolv", "main"]);
    assert!(
        refused.err.contains("damaged") && refused.err.contains("tolv releases"),
        "{refused:?}"
    );
    shop.tolv(&["releases", "accept", "--confirm", "shop/production"]);
    until_text(&shop, "shop.localhost", "five");
    shop.pushed(&["tolv", "main"]);
    until_text(&shop, "shop.localhost", "six");
}

/// Gives the only deploy another id, cuts off release 2, changes release 1, and hashes what is left
/// as anybody can who has the source.
const FORGE: &str = r#"
import hashlib, json, sqlite3, struct, sys
db = sqlite3.connect(sys.argv[1], timeout=20)
db.row_factory = sqlite3.Row
old = db.execute("SELECT id FROM deploys").fetchone()["id"]
new = old[:-1] + ("0" if old[-1] != "0" else "1")
db.execute("DROP TRIGGER releases_are_fixed")
db.execute("DELETE FROM outcomes WHERE number = 2")
db.execute("DELETE FROM releases WHERE number = 2")
db.execute("UPDATE deploys SET id = ?, current_release = 1", (new,))
for table in ["configs", "cron_runs", "drains", "operations", "outcomes", "releases", "runs"]:
    db.execute("UPDATE %s SET deploy = ?" % table, (new,))
db.execute("UPDATE releases SET actor = 'eve'")
def digest(*fields):
    return hashlib.sha256(b"".join(struct.pack(">Q", len(f)) + f for f in fields)).hexdigest()
row = db.execute("SELECT * FROM releases").fetchone()
types = json.loads(row["process_types"])
assert json.loads(row["reason"]) == {"kind": "deploy"} and json.loads(row["sizes"]) == {}
names = [text.encode() for name in sorted(types) for text in (name, types[name])]
prev = digest(
    b"tolv release 1", new.encode(), struct.pack(">I", 1), bytes.fromhex(row["slug"]),
    (row["commit_id"] or "").encode(), struct.pack(">I", row["config_version"]),
    bytes.fromhex(row["config_digest"]), struct.pack(">Q", len(types)), *names,
    struct.pack(">Q", 0), b"deploy", b"eve", struct.pack(">q", row["created"]), bytes(32))
db.execute("UPDATE releases SET hash = ?", (prev,))
out = db.execute("SELECT * FROM outcomes").fetchone()
end = digest(b"tolv outcome 1", new.encode(), struct.pack(">I", 1), out["outcome"].encode(), b"",
             b"", struct.pack(">q", out["ended"]), bytes.fromhex(prev))
db.execute("UPDATE outcomes SET prev = ?, hash = ?", (prev, end))
db.commit()
"#;

#[test]
fn a_forged_ledger_does_not_start() {
    let mut shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    shop.change("index.html", "two");
    shop.pushed(&["tolv", "main"]);
    shop.serve.end(Signal::INT);
    let database = shop.serve.state().join("db.sqlite");
    let forged = run(Command::new("python3").args(["-c", FORGE]).arg(database));
    assert!(forged.status.success(), "{}", forged.err);
    shop.serve.begin();
    does_not_hold(&shop, "belongs to another deploy than the one that this platform recorded");
    does_not_hold(&shop, "release v1 was changed");
    nothing_of_it_is_shown(&shop);
    assert_eq!(shop.get("shop.localhost", "/").unwrap().status, 503, "nothing of it starts");
    // Also without what this state folder knows, as on a new machine: nothing can be forged.
    shop.serve.end(Signal::INT);
    std::fs::remove_dir_all(shop.serve.state().join("anchors")).unwrap();
    shop.serve.begin();
    does_not_hold(&shop, "release v1 was changed");
    nothing_of_it_is_shown(&shop);
    assert_eq!(shop.get("shop.localhost", "/").unwrap().status, 503, "nothing of it starts");
}

/// A deploy whose row was changed is refused.
#[track_caller]
fn nothing_of_it_is_shown(shop: &Shop) {
    let ran = shop.ran(&["ps"]);
    let said = "the row of deploy `shop/production` in the database was changed outside";
    assert!(!ran.status.success() && ran.err.contains(said), "{}{}", ran.out, ran.err);
}

#[test]
fn a_new_state_folder_takes_an_old_database_as_it_is_once() {
    let mut shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    let anchors = shop.serve.state().join("anchors");
    shop.serve.end(Signal::INT);
    std::fs::remove_dir_all(&anchors).unwrap();
    shop.serve.begin();
    let said = "Nothing in this state folder says where the ledger ends: it is taken as it is, \
                with 1 release";
    shop.serve.running().wait_for_line(|line| line.ends_with(said), SOON);
    until_text(&shop, "shop.localhost", "one");
    shop.tolv(&["releases", "verify"]);
    // From here on it is known that there was an anchor.
    shop.serve.end(Signal::INT);
    std::fs::remove_file(anchors.join("shop.production")).unwrap();
    shop.serve.begin();
    does_not_hold(&shop, "this state folder has no record of the ledger, which ends at v1");
    assert_eq!(pid(&shop), None, "nothing of it starts");
    shop.tolv(&["releases", "accept", "--confirm", "shop/production"]);
    until_text(&shop, "shop.localhost", "one");
    shop.tolv(&["releases", "verify"]);
}

#[test]
fn a_deploy_with_a_broken_row_is_named_and_can_be_stopped_and_destroyed() {
    let mut shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    let path = format!("{}/git/shop/staging.git", shop.serve.url());
    shop.tolv(&["deploys", "create", "staging"]);
    shop.pushed(&[&path, "main"]);
    let staging = sql(&shop, "SELECT id FROM deploys WHERE name = 'staging'");
    let broken = format!(
        "DROP TRIGGER releases_are_fixed; \
         UPDATE releases SET reason = 'nothing' WHERE deploy = '{}'",
        staging.trim()
    );
    sql(&shop, &broken);
    shop.serve.end(Signal::KILL);
    shop.serve.begin();
    let told = |line: &str| line.contains("the row of release v1 cannot be read");
    shop.serve.running().wait_for_line(told, SOON);
    until_text(&shop, "shop.localhost", "one");
    // Its operations are done, one after the other.
    let began = Instant::now();
    shop.ran(&["restart", "-d", "shop/staging"]);
    let ran = shop.ran(&["stop", "-d", "shop/staging"]);
    assert!(ran.status.success(), "{}{}", ran.out, ran.err);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    let began = Instant::now();
    shop.serve.end(Signal::TERM);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    // A row of a deploy itself keeps no other down either.
    let whole = sql(&shop, "SELECT formation FROM deploys WHERE name = 'staging'");
    sql(&shop, "UPDATE deploys SET formation = 'nothing' WHERE name = 'staging'");
    shop.serve.begin();
    shop.serve.running().wait_for_line(|line| line.contains("Deploy shop/staging cannot"), SOON);
    until_text(&shop, "shop.localhost", "one");
    shop.serve.end(Signal::INT);
    let back = format!("UPDATE deploys SET formation = '{}' WHERE name = 'staging'", whole.trim());
    sql(&shop, &back);
    shop.serve.begin();
    shop.tolv(&["destroy", "shop/staging", "--confirm", "shop/staging"]);
    assert!(!shop.tolv(&["deploys"]).contains("staging"));
}

#[test]
fn the_state_folder_may_move() {
    let mut shop = packaged();
    shop.pushed(&["tolv", "main"]);
    let state = shop.serve.state();
    let dump = sql(
        &shop,
        "SELECT * FROM releases; SELECT * FROM slugs; SELECT * FROM deploys; SELECT * FROM apps",
    );
    assert!(!dump.contains(state.to_str().unwrap()), "{dump}");
    shop.serve.end(Signal::INT);
    shop.serve.move_state("moved");
    shop.serve.begin();
    until_text(&shop, "shop.localhost", "web.1");
    shop.tolv(&["releases", "verify"]);
}

#[test]
fn no_secret_is_kept_in_clear() {
    let word = "hunter2-in-an-output";
    let release = format!("web: python3 server.py\nrelease: echo {word}\n");
    let shop = Shop::new(&release, &[]);
    shop.pushed(&["tolv", "main"]);
    let ran = shop.tolv(&["run", "--record", "echo", word]);
    assert!(ran.contains(word));
    let address: SocketAddr = shop.serve.url().strip_prefix("http://").unwrap().parse().unwrap();
    let head = format!("Bearer {}", shop.serve.token());
    let make = || {
        let body = r#"{"name":"ci","role":"admin"}"#;
        let length = body.len().to_string();
        let headers = [
            ("host", "x"),
            ("authorization", head.as_str()),
            ("idempotency-key", "once"),
            ("content-type", "application/json"),
            ("content-length", length.as_str()),
        ];
        let answer =
            http::send_body(address, "POST", "/v1/tokens", &headers, body.as_bytes(), SOON);
        let answer = answer.unwrap();
        assert_eq!(answer.status, 201, "{}", answer.text());
        let made: serde_json::Value = serde_json::from_str(&answer.text()).unwrap();
        made["secret"].as_str().unwrap().to_owned()
    };
    let secret = make();
    assert_eq!(make(), secret, "asked again, it is the same answer");
    for text in [secret.as_str(), word] {
        let mut grep = Command::new("grep");
        grep.args(["-r", "-l", "-a", "-F", text]).arg(shop.serve.state().join("blobs"));
        for name in ["db.sqlite", "db.sqlite-wal"] {
            grep.arg(shop.serve.state().join(name));
        }
        let out = run(&mut grep).out;
        let allowed = |line: &&str| text == word && line.contains("db.sqlite");
        // The command line of a process type and of a run are no outputs.
        assert_eq!(out.lines().find(|line| !allowed(line)), None, "{text} is in {out}");
    }
    let id = shop.json(&["run", "list"])["items"][0]["id"].as_str().unwrap().to_owned();
    assert!(shop.tolv(&["run", "output", &id]).contains(word));
}

/// The program, started under a umask.
fn under_umask(home: &tolv_testkit::Home, umask: &str) -> PathBuf {
    let tolv = env!("CARGO_BIN_EXE_tolv");
    let script = format!("#!/bin/sh\numask {umask}\nexec {tolv} \"$@\"\n");
    home.write(&format!("tolv-{umask}"), script);
    let path = home.path().join(format!("tolv-{umask}"));
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// What of a state folder others may touch.
fn open_to_others(state: &Path) -> Vec<String> {
    let mut open = vec![state.to_owned()];
    let mut found = Vec::new();
    while let Some(path) = open.pop() {
        let meta = path.symlink_metadata().unwrap();
        let mode = meta.permissions().mode() & 0o777;
        // Behind these are trees that processes see: their modes are their own.
        let shown = ["slugs", "toolchains", "cache", "builds", "hooks", "program"];
        let is_shown = path.file_name().is_some_and(|name| shown.iter().any(|s| name == *s));
        let is_hooks = path.file_name().is_some_and(|name| name == "hooks");
        if !meta.is_symlink() && !is_hooks && mode & 0o077 != 0 {
            found.push(format!("{} {mode:o}", path.display()));
        }
        if meta.is_dir() && !is_shown {
            open.extend(std::fs::read_dir(&path).unwrap().flatten().map(|entry| entry.path()));
        }
    }
    found
}

fn builds_and_runs_under_any_umask(level: &str) {
    let home = tolv_testkit::Home::new();
    for umask in ["077", "0"] {
        let program = under_umask(&home, umask);
        let mut serve = Serve::start(program.to_str().unwrap(), &[("TOLV_SANDBOX", level)]);
        let dir = serve.folder("shop");
        std::fs::write(dir.join("requirements.txt"), "six==1.17.0\n").unwrap();
        let perl = "perl: perl -Mstrict -e 'print \"perl runs\\n\"; sleep 1000'";
        std::fs::write(dir.join("Procfile"), format!("web: python server.py\n{perl}\n")).unwrap();
        std::fs::write(dir.join("server.py"), format!("import six\n{SERVER}")).unwrap();
        git::commit(&dir);
        serve.tolv(&dir, &["create", "shop"]);
        let ran = push_from(&serve, &dir, &["tolv", "main"]);
        assert!(ran.status.success(), "{level} {umask}: {}", ran.err);
        serve.tolv(&dir, &["scale", "perl=1"]);
        serve.running().wait_for_line(|line| line.contains("perl runs"), SOON);
        let none: Vec<String> = Vec::new();
        assert_eq!(open_to_others(&serve.state()), none, "{level} {umask}");
        // What was open is closed at the next start.
        serve.end(Signal::INT);
        let db = serve.state().join("db.sqlite");
        for (path, mode) in [(&db, 0o644), (&serve.state(), 0o755)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        serve.begin();
        assert_eq!(open_to_others(&serve.state()), none, "{level} {umask}");
        let shop = Shop { serve, dir };
        until_text(&shop, "shop.localhost", "web.1");
    }
}

#[test]
fn strict_builds_and_runs_under_any_umask() {
    if rustix::process::geteuid().is_root() {
        builds_and_runs_under_any_umask("strict");
    }
}

#[test]
fn user_builds_and_runs_under_any_umask() {
    builds_and_runs_under_any_umask("user");
}

#[test]
fn landlock_builds_and_runs_under_any_umask() {
    builds_and_runs_under_any_umask("landlock");
}
