//! Another `tolv` goes on for the platform: nobody notices.

use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use super::*;

/// Answers at once, and to `/slow` once it was asked for `/go`.
const SERVER: &str = r#"
import http.server, os, threading
go = threading.Event()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/slow":
            print("slow", flush=True)
            go.wait()
        if self.path == "/go":
            go.set()
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *args):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
Server(("", int(os.environ["PORT"])), Handler).serve_forever()
"#;
/// Says a number at a time.
const COUNT: &str = "worker: i=0; while :; do i=$((i+1)); echo n$i; sleep 0.01; done\n";

pub(super) fn pids(shop: &Shop) -> Vec<u64> {
    let ps = shop.json(&["ps"]);
    let items = ps["items"].as_array().unwrap();
    items.iter().filter_map(|process| process["pid"].as_u64()).collect()
}

#[test]
fn an_upgrade_refuses_no_request_and_keeps_every_process() {
    let mut shop = Shop::new(&format!("web: python3 server.py\n{COUNT}"), &[]);
    shop.change("server.py", SERVER);
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["scale", "web=2"]);
    let before = pids(&shop);
    assert_eq!(before.len(), 3);
    let address = SocketAddr::from(([127, 0, 0, 1], shop.serve.http()));
    let (over, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    let follow = shop.serve.command(&shop.dir, &["logs", "-f", "-p", "worker", "--source", "app"]);
    let follow = tolv_testkit::Tolv::start(&mut { follow });
    follow.wait_for_line(|line| line.contains(": n"), SOON);
    thread::scope(|scope| {
        let _over = Over(&over);
        let slow = scope.spawn(move || http::get(address, "shop.localhost", "/slow"));
        poll(SOON, "it to be in flight", || {
            shop.tolv(&["logs", "-p", "web"]).contains(": slow").then_some(())
        });
        // Each on a connection of its own.
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let answer = http::get(address, "shop.localhost", "/").expect("nobody is refused");
                assert_eq!(answer.status, 200, "{}", answer.text());
                asked.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        for round in 0..3 {
            let Shop { serve, dir } = &mut shop;
            let status = serve.upgrade(|serve| {
                // The new one answers, for requests and for commands.
                let begun = asked.load(Ordering::Relaxed);
                poll(SOON, "requests", || {
                    (asked.load(Ordering::Relaxed) > begun + 20).then_some(())
                });
                assert!(serve.tolv(dir, &["ps"]).contains("web.2"));
                assert_eq!(slow.is_finished(), round > 0, "the old one waits for it");
                poll(SOON, "the end of the slow one", || {
                    http::get(address, "shop.localhost", "/go").unwrap();
                    slow.is_finished().then_some(())
                });
            });
            assert!(status.success(), "{status}");
            assert_eq!(pids(&shop), before, "and nothing was started");
        }
        assert_eq!(slow.join().unwrap().unwrap().status, 200);
    });
    assert!(asked.load(Ordering::Relaxed) > 60);
    // Every request has its line, and each line of the app is there once, for a follower too.
    let requests = shop.tolv(&["logs", "-n", "10000", "-p", "router"]);
    let to = |path: &str| requests.matches(&format!("path=\"{path}\"")).count();
    assert_eq!(to("/slow"), 1);
    assert_eq!(to("/"), usize::try_from(asked.into_inner()).unwrap());
    let numbers = |lines: &mut dyn Iterator<Item = &str>| -> Vec<u64> {
        lines.filter_map(|line| line.rsplit_once(": n")?.1.parse().ok()).collect()
    };
    let stored = shop.tolv(&["logs", "-p", "worker", "-n", "10000", "--source", "app"]);
    let stored = numbers(&mut stored.lines());
    assert_eq!(stored, (1..=stored.len() as u64).collect::<Vec<_>>());
    let last = *stored.last().unwrap();
    follow.wait_for_line(|line| line.ends_with(&format!(": n{last}")), SOON);
    let seen = follow.lines();
    let seen = numbers(&mut seen.iter().map(|line| line.text.as_str()));
    assert!(seen.windows(2).all(|pair| pair[1] == pair[0] + 1), "{seen:?}");
    // It ends in order, as the first one would have.
    drop(follow);
    assert!(shop.serve.end(Signal::TERM).success());
    let lives = |pid: &u64| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !status.is_empty() && !status.contains(") Z ")
    };
    assert_eq!(before.iter().find(|pid| lives(pid)), None, "nothing is left");
}

#[test]
fn a_kill_right_after_an_upgrade_leaves_the_addresses_to_the_next_start() {
    let mut shop = Shop::new("web: python3 server.py\n", &[]);
    shop.change("server.py", SERVER);
    shop.pushed(&["tolv", "main"]);
    let address = SocketAddr::from(([127, 0, 0, 1], shop.serve.http()));
    let slow = thread::spawn(move || http::get(address, "shop.localhost", "/slow"));
    poll(SOON, "it to be in flight", || {
        shop.tolv(&["logs", "-p", "web"]).contains(": slow").then_some(())
    });
    let status = shop.serve.upgrade(|serve| {
        rustix::process::kill_process(serve.running().pid(), Signal::KILL).unwrap();
        poll(SOON, "the kill", || std::net::TcpStream::connect(address).err());
        // The old one still answers what it has begun.
        let mut next = serve.another();
        http::get(address, "shop.localhost", "/go").unwrap();
        next.signal(Signal::TERM);
        next.wait(SOON);
    });
    assert!(status.success());
    assert_eq!(slow.join().unwrap().unwrap().status, 200);
    shop.serve.ended();
}

/// Ends the clients, also of a test that fails.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn operations_under_way_are_finished_first_and_the_others_go_on_with_the_new_one() {
    let mut shop = Shop::new("web: python3 server.py\nrelease: sh release.sh\n", &[]);
    shop.change("release.sh", "echo begun; until [ -e /tmp/x ]; do sleep 1; echo > /tmp/x; done");
    for round in 0..3 {
        shop.change("round", &round.to_string());
        let begin = || {
            let push = push_command(&shop.serve, &shop.dir, &["tolv", "main"]);
            tolv_testkit::Tolv::start(&mut { push })
        };
        let begun = |count: usize| {
            poll(SOON, "its release phase", || {
                let lines = shop.ran(&["logs", "-p", "release", "--source", "app"]).out;
                (lines.matches(": begun").count() == count).then_some(())
            });
        };
        let mut pushes = vec![begin()];
        begun(2 * round + 1);
        // This one waits for its turn.
        pushes.push(begin());
        poll(SOON, "two operations", || {
            let operations = shop.json(&["operations"]);
            let count = |state: &str| operations.to_string().matches(state).count();
            (count(r#""queued""#) == 1 || count(r#""running""#) == 0).then_some(())
        });
        let Shop { serve, .. } = &mut shop;
        assert!(serve.upgrade(|_| {}).success());
        for mut push in pushes {
            assert!(push.wait(SOON).success(), "{:?}", push.lines());
        }
    }
    // Each began once.
    let lines = shop.tolv(&["logs", "-p", "release", "--source", "app", "-n", "1000"]);
    let operations = shop.json(&["operations"]);
    let operations = operations["items"].as_array().unwrap();
    assert!(operations.iter().all(|operation| operation["state"] == "succeeded"), "{operations:?}");
    assert_eq!(lines.matches(": begun").count(), operations.len(), "{lines}");
}

#[test]
fn another_signal_cuts_off_what_is_under_way() {
    let mut shop = Shop::new("web: python3 server.py\nrelease: sh release.sh\n", &[]);
    shop.change("release.sh", "echo begun; sleep 1000");
    let push = push_command(&shop.serve, &shop.dir, &["tolv", "main"]);
    let mut push = tolv_testkit::Tolv::start(&mut { push });
    poll(SOON, "its release phase", || {
        shop.ran(&["logs", "-p", "release"]).out.contains(": begun").then_some(())
    });
    shop.serve.signal(Signal::USR2);
    shop.serve.running().wait_for_line(|line| line.contains("Upgrade: waiting for op_"), SOON);
    // Commands are answered meanwhile.
    let operations = shop.json(&["operations"]);
    let id = operations["items"][0]["id"].as_str().unwrap().to_owned();
    let status = shop.serve.upgrade(|serve| {
        // The push waits for what the new one makes of it, which begins again.
        push.wait_for_line(|line| line.contains("The platform is upgraded"), SOON);
        poll(SOON, "its release phase again", || {
            let lines = serve.tolv(&shop.dir, &["logs", "-p", "release", "--source", "app"]);
            (lines.matches(": begun").count() == 2).then_some(())
        });
        serve.tolv(&shop.dir, &["operations", "cancel", &id]);
        assert!(!push.wait(SOON).success());
        assert!(push.lines().iter().any(|line| line.text.contains("(cancelled)")));
    });
    assert!(status.success());
}

#[test]
fn a_one_off_is_stopped_and_recorded() {
    let mut shop = Shop::site("hello", &[]);
    shop.pushed(&["tolv", "main"]);
    let run = shop.serve.command(&shop.dir, &["run", "sh", "-c", "echo on; exec sleep 1000"]);
    let mut run = tolv_testkit::Tolv::start(&mut { run });
    run.wait_for_line(|line| line == "on", SOON);
    assert!(shop.serve.upgrade(|_| {}).success());
    assert_eq!(run.wait(SOON).code(), Some(143));
    let runs = shop.json(&["run", "list"]);
    assert_eq!(runs["items"][0]["status"], 143, "{runs}");
}

/// A copy of the program that can be replaced, as a new version does.
pub(super) struct Installed(tolv_testkit::Home);

impl Installed {
    pub(super) fn new() -> Self {
        let installed = Self(tolv_testkit::Home::new());
        installed.put_right();
        installed
    }

    pub(super) fn path(&self) -> PathBuf {
        self.0.path().join("tolv")
    }

    pub(super) fn put_right(&self) {
        std::fs::copy(env!("CARGO_BIN_EXE_tolv"), self.0.path().join("next")).unwrap();
        self.replace();
    }

    pub(super) fn put(&self, script: &str) {
        let next = self.0.path().join("next");
        std::fs::write(&next, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(next, std::fs::Permissions::from_mode(0o755)).unwrap();
        self.replace();
    }

    fn replace(&self) {
        std::fs::rename(self.0.path().join("next"), self.path()).unwrap();
    }
}

#[test]
fn one_that_cannot_start_leaves_the_old_as_it_was() {
    let installed = Installed::new();
    let mut serve = Serve::start(installed.path().to_str().unwrap(), &[]);
    installed.put("echo broken >&2; exit 3");
    let pid = serve.running().pid();
    serve.signal(Signal::USR2);
    let line = serve.running().wait_for_line(|line| line.contains("Upgrade failed"), SOON);
    let wanted = "Upgrade failed, this platform goes on: it ended (exit status: 3)";
    assert!(line.text.ends_with(wanted), "{}", line.text);
    installed.put_right();
    let dir = serve.folder("user");
    assert_eq!(serve.running().pid(), pid);
    serve.tolv(&dir, &["create", "shop"]);
    assert!(serve.upgrade(|_| {}).success());
    assert_ne!(serve.running().pid(), pid);
    assert!(serve.tolv(&dir, &["apps"]).contains("shop"));
    // It is no command for users.
    let ran = serve.ran(&dir, &["serve", "--successor"]);
    assert_eq!(ran.status.code(), Some(1));
    assert!(ran.err.contains("nothing was handed on"), "{}", ran.err);
}

#[test]
fn one_that_fails_at_the_last_moment_ends_no_process_of_an_app() {
    let installed = Installed::new();
    let program = installed.path();
    let serve = Serve::start(program.to_str().unwrap(), &[]);
    let mut shop = Shop::on(serve, "web: python3 server.py\n");
    shop.change("server.py", SERVER);
    shop.pushed(&["tolv", "main"]);
    let before = pids(&shop);
    // Its settings are right, it says; then it ends. The old program was moved aside.
    std::fs::rename(&program, program.with_extension("good")).unwrap();
    installed.put("printf r >&0; head -c 1 > /dev/null; exit 4");
    let status = shop.serve.upgrade(|serve| {
        let failed = "Upgrade failed: the new platform does not go on: it ended (exit status: 4)";
        serve.running().wait_for_line(|line| line.contains(failed), SOON);
    });
    assert!(status.success());
    installed.put_right();
    poll(SOON, "it is known again", || (pids(&shop) == before).then_some(()));
    assert_eq!(shop.text("shop.localhost", "/"), "ok");
    // The one that goes on still knows where the next one is to be.
    let status = shop.serve.upgrade(|serve| {
        let starting = format!("Upgrade: starting {}", program.display());
        serve.running().wait_for_line(|line| line.ends_with(&starting), SOON);
    });
    assert!(status.success());
    poll(SOON, "it is known again", || (pids(&shop) == before).then_some(()));
}

/// Whoever ends the platform in an upgrade ends it, whatever the new program does.
#[test]
fn a_platform_that_is_told_to_end_in_an_upgrade_ends() {
    let installed = Installed::new();
    let got = installed.0.path().join("got");
    for script in [
        // It hangs before it is ready, and after it was handed everything.
        format!("touch {}; exec sleep 1000", got.display()),
        format!("printf r >&0; head -c1 <&0 >{}; exec sleep 1000", got.display()),
    ] {
        installed.put_right();
        let serve = Serve::start(installed.path().to_str().unwrap(), &[]);
        let mut shop = Shop::on(serve, "web: python3 server.py\n");
        shop.change("server.py", SERVER);
        shop.pushed(&["tolv", "main"]);
        let before = pids(&shop);
        installed.put(&script);
        shop.serve.signal(Signal::USR2);
        poll(SOON, "the new program", || std::fs::exists(&got).unwrap().then_some(()));
        let began = std::time::Instant::now();
        shop.serve.signal(Signal::TERM);
        shop.serve.ended();
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        let lives = |pid: &u64| std::fs::exists(format!("/proc/{pid}")).unwrap();
        poll(SOON, "the app to end", || (!before.iter().any(lives)).then_some(()));
        let address = SocketAddr::from(([127, 0, 0, 1], shop.serve.http()));
        poll(SOON, "nobody to listen", || std::net::TcpStream::connect(address).err());
        // What the new program has started ends when it hears nothing more.
        let left = || crate::processes_with(installed.path().to_str().unwrap());
        poll(SOON, "nothing of either to be left", || left().is_empty().then_some(()));
        std::fs::remove_file(&got).unwrap();
        // What is left is swept by a start.
        installed.put_right();
    }
}

/// What a newer version has made of the database is not this one's to go on with.
#[test]
fn one_that_could_not_use_the_database_is_not_handed_anything() {
    let mut serve = Serve::start(env!("CARGO_BIN_EXE_tolv"), &[]);
    let database = serve.state().join("db.sqlite");
    let script = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1], timeout=20)\n\
        db.execute(\"INSERT INTO _sqlx_migrations SELECT 9999, 'newer', installed_on, success, \"\n\
        \"checksum, execution_time FROM _sqlx_migrations LIMIT 1\")\n\
        db.commit()";
    let ran = run(Command::new("python3").args(["-c", script]).arg(database));
    assert!(ran.status.success(), "{}", ran.err);
    let pid = serve.running().pid();
    serve.signal(Signal::USR2);
    let said = serve.running().wait_for_line(|line| line.contains("Upgrade failed"), SOON);
    assert!(said.text.contains("this platform goes on"), "{}", said.text);
    serve.running().wait_for_line(|line| line.contains("schema of another version"), SOON);
    serve.tolv(&serve.folder("user"), &["create", "shop"]);
    assert_eq!(serve.running().pid(), pid);
}

/// Says when it has begun and when it was told to end, for which it takes a while.
const WORKER: &str = "worker: trap 'echo told; sleep 0.3; echo finished; exit 0' TERM; echo begun; \
                      while :; do sleep 0.1; done\n";

/// A platform whose shims speak another version of their protocol, and the right program to be put
/// in its place.
fn shop_of_other_version(installed: &Installed, by: i32) -> Shop {
    let next = installed.0.path().join("next");
    tolv_testkit::of_other_version(Path::new(env!("CARGO_BIN_EXE_tolv")), &next, by);
    installed.replace();
    let serve = Serve::start(installed.path().to_str().unwrap(), &[]);
    let shop = Shop::on(serve, &format!("web: python3 server.py\n{WORKER}"));
    shop.change("server.py", SERVER);
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["scale", "web=2", "worker=1"]);
    shop
}

/// Waits until `tolv ps` shows others and only them, and until those before have ended in order.
fn wait_until_replaced(shop: &Shop, before: &[u64]) {
    poll(SOON, "others in their place", || {
        let ps = shop.json(&["ps"]);
        let items = ps["items"].as_array().unwrap();
        let up = items.iter().filter(|process| process["state"] == "up").count();
        let now = pids(shop);
        let is_new = now.iter().all(|pid| !before.contains(pid));
        (items.len() == before.len() && up == before.len() && is_new).then_some(())
    });
    assert!(shop.tolv(&["ps"]).contains("web.2"));
    poll(SOON, "the old worker's last words", || {
        let said = shop.tolv(&["logs", "-p", "worker", "-n", "1000"]);
        let count = |words: &str| said.matches(words).count();
        let ended = count(": told") == 1 && count(": finished") == 1;
        (ended && count("Process exited with status 0") == 1 && count(": begun") == 2).then_some(())
    });
    let said = shop.tolv(&["logs", "-n", "1000"]);
    assert!(!said.contains("SIGKILL") && !said.contains("L10"), "{said}");
    let lives = |pid: &u64| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !status.is_empty() && !status.contains(") Z ")
    };
    assert_eq!(before.iter().find(|pid| lives(pid)), None);
}

#[test]
fn an_upgrade_to_another_version_of_the_shims_replaces_each_process_and_refuses_no_request() {
    let installed = Installed::new();
    let mut shop = shop_of_other_version(&installed, -1);
    let before = pids(&shop);
    assert_eq!(before.len(), 3);
    installed.put_right();
    let address = SocketAddr::from(([127, 0, 0, 1], shop.serve.http()));
    let (over, asked) = (AtomicBool::new(false), AtomicU32::new(0));
    thread::scope(|scope| {
        let _over = Over(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let answer = http::get(address, "shop.localhost", "/").expect("nobody is refused");
                assert_eq!(answer.status, 200, "{}", answer.text());
                asked.fetch_add(1, Ordering::Relaxed);
                thread::sleep(Duration::from_millis(1));
            }
        });
        assert!(shop.serve.upgrade(|_| {}).success());
        wait_until_replaced(&shop, &before);
        let begun = asked.load(Ordering::Relaxed);
        poll(SOON, "requests", || (asked.load(Ordering::Relaxed) > begun + 20).then_some(()));
    });
    // The next upgrade is an ordinary one.
    let now = pids(&shop);
    assert!(shop.serve.upgrade(|_| {}).success());
    assert_eq!(pids(&shop), now);
}

#[test]
fn a_platform_that_was_killed_and_is_one_of_another_version_replaces_each_process() {
    let installed = Installed::new();
    let mut shop = shop_of_other_version(&installed, 1);
    let before = pids(&shop);
    shop.serve.end(Signal::KILL);
    installed.put_right();
    shop.serve.begin();
    // Those who ran before answer at once; every answer is right, until the new ones are there.
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let _over = Over(&over);
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                assert_eq!(shop.text("shop.localhost", "/"), "ok");
                thread::sleep(Duration::from_millis(1));
            }
        });
        wait_until_replaced(&shop, &before);
    });
}

#[test]
fn one_that_dies_while_operations_are_finished_holds_nothing_up() {
    let installed = Installed::new();
    let serve = Serve::start(installed.path().to_str().unwrap(), &[]);
    let mut shop = Shop::on(serve, "web: python3 server.py\nrelease: sh release.sh\n");
    shop.change("server.py", SERVER);
    shop.change("release.sh", "echo begun; sleep 1000");
    let push = push_command(&shop.serve, &shop.dir, &["tolv", "main"]);
    let mut push = tolv_testkit::Tolv::start(&mut { push });
    poll(SOON, "its release phase", || {
        shop.ran(&["logs", "-p", "release"]).out.contains(": begun").then_some(())
    });
    let run = shop.serve.command(&shop.dir, &["create", "other"]);
    tolv_testkit::Tolv::start(&mut { run }).wait(SOON);
    // Its settings are right, it says, and ends while it waits.
    installed.put("printf r >&0; sleep 1; exit 5");
    shop.serve.signal(Signal::USR2);
    let line = shop.serve.running().wait_for_line(|line| line.contains("Upgrade failed"), SOON);
    let wanted = "Upgrade failed, this platform goes on: it ended (exit status: 5)";
    assert!(line.text.ends_with(wanted), "{}", line.text);
    installed.put_right();
    // Operations of others, and those behind it, begin as before.
    shop.tolv(&["config", "set", "A=b", "-d", "other/production"]);
    let operations = shop.json(&["operations"]);
    let id = operations["items"][0]["id"].as_str().unwrap().to_owned();
    assert!(shop.ran(&["operations", "cancel", &id]).status.success());
    assert!(!push.wait(SOON).success());
    assert!(shop.serve.upgrade(|_| {}).success());
}

/// A supervisor that starts another platform finds nobody in its way.
#[test]
fn a_new_program_ends_with_the_old_one_that_is_killed_before_it_took_over() {
    let installed = Installed::new();
    let serve = Serve::start(installed.path().to_str().unwrap(), &[]);
    let mut shop = Shop::on(serve, "web: python3 server.py\n");
    shop.change("server.py", SERVER);
    shop.pushed(&["tolv", "main"]);
    let before = pids(&shop);
    for _ in 0..3 {
        let seen = shop.serve.running().lines().len();
        shop.serve.signal(Signal::USR2);
        poll(SOON, "the new program", || {
            let lines = shop.serve.running().lines();
            lines[seen..].iter().any(|line| line.text.contains("Upgrade: starting")).then_some(())
        });
        let old = shop.serve.running().pid();
        rustix::process::kill_process(old, Signal::KILL).unwrap();
        shop.serve.ended();
        shop.serve.begin();
        let is_successor = |pid: &u32| {
            let words = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
            words.is_ok_and(|words| words.ends_with("serve\0--successor\0"))
        };
        let of_this = crate::processes_with(installed.path().to_str().unwrap());
        assert_eq!(of_this.iter().find(|pid| is_successor(pid)), None);
        assert_eq!(shop.text("shop.localhost", "/"), "ok");
    }
    poll(SOON, "it is known again", || (pids(&shop) == before).then_some(()));
}

/// Of what waits for the new program nothing is kept, nor is the old one.
#[test]
fn the_old_program_ends_where_the_new_one_is_killed_with_a_push_to_finish() {
    let mut shop = Shop::new("web: python3 server.py\nrelease: sh release.sh\n", &[]);
    shop.change("release.sh", "echo begun; sleep 1000");
    let push = push_command(&shop.serve, &shop.dir, &["tolv", "main"]);
    let mut push = tolv_testkit::Tolv::start(&mut { push });
    poll(SOON, "its release phase", || {
        shop.ran(&["logs", "-p", "release"]).out.contains(": begun").then_some(())
    });
    shop.serve.signal(Signal::USR2);
    shop.serve.running().wait_for_line(|line| line.contains("Upgrade: waiting for op_"), SOON);
    let status = shop.serve.upgrade(|serve| {
        push.wait_for_line(|line| line.contains("The platform is upgraded"), SOON);
        rustix::process::kill_process(serve.running().pid(), Signal::KILL).unwrap();
        assert!(!push.wait(SOON).success());
        let lines = push.lines();
        assert!(lines.iter().any(|line| line.text.contains("(not done yet)")), "{lines:?}");
    });
    assert!(status.success());
    shop.serve.ended();
    shop.serve.begin();
    let operations = shop.json(&["operations"]);
    let id = operations["items"][0]["id"].as_str().unwrap();
    shop.tolv(&["operations", "cancel", id]);
}

#[test]
fn where_memory_is_short_the_new_program_is_killed_first_until_it_took_over() {
    let installed = Installed::new();
    let mut serve = Serve::start(installed.path().to_str().unwrap(), &[]);
    let score = |pid: &str| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    let own = score(&serve.running().pid().as_raw_pid().to_string());
    installed.put("echo score $(cat /proc/self/oom_score_adj) >&2; exit 3");
    serve.signal(Signal::USR2);
    serve.running().wait_for_line(|line| line == "score 1000", SOON);
    serve.running().wait_for_line(|line| line.contains("this platform goes on"), SOON);
    installed.put_right();
    assert!(serve.upgrade(|_| {}).success());
    let new = serve.running().pid().as_raw_pid().to_string();
    assert_eq!(score(&new), own);
    let children = std::fs::read_to_string(format!("/proc/{new}/task/{new}/children")).unwrap();
    for child in children.split_whitespace() {
        assert_eq!(score(child), own);
    }
}
