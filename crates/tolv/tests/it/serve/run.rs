//! `tolv run`: one-offs as somebody at a terminal, a script and a broken connection meet them.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use rustix::process::Signal;
use serde_json::Value;
use tolv_testkit::Screen;

use super::*;
use crate::LATER;

/// A deploy that runs; its processes have `GREETING`.
fn shop() -> Shop {
    let shop = Shop::site("hello", &[]);
    shop.tolv(&["config", "set", "GREETING=from config"]);
    shop.pushed(&["tolv", "main"]);
    shop
}

impl Shop {
    fn run(&self, args: &[&str]) -> Ran {
        let mut all = vec!["run"];
        all.extend(args);
        self.ran(&all)
    }

    /// A run that has to end with this status; what it wrote.
    #[track_caller]
    fn runs(&self, args: &[&str], status: i32) -> String {
        let ran = self.run(args);
        assert_eq!(ran.status.code(), Some(status), "{args:?}: {}{}", ran.out, ran.err);
        ran.out
    }

    fn spawn(&self, args: &[&str], stdin: Stdio) -> Child {
        let mut all = vec!["run"];
        all.extend(args);
        let mut command = self.serve.command(&self.dir, &all);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    fn screen(&self, args: &[&str]) -> Screen {
        let mut all = vec!["run"];
        all.extend(args);
        Screen::start(&self.serve.command(&self.dir, &all))
    }

    /// The newest run.
    fn last_run(&self) -> Value {
        self.json(&["run", "list"])["items"][0].clone()
    }

    #[track_caller]
    fn until_run(&self, state: &str) -> Value {
        poll(SOON, &format!("the last run is {state}"), || {
            let run = self.last_run();
            (run["state"] == state).then_some(run)
        })
    }
}

#[test]
fn words_streams_variables_and_statuses_come_through() {
    let shop = shop();
    // Words are executed as they are.
    let out = shop.runs(&["--", "printf", "<%s>", "a  b", "", "*", "$HOME", "it's", "--json"], 0);
    assert_eq!(out, "<a  b><><*><$HOME><it's><--json>");
    let out = shop.runs(&["python3", "-c", "print(\"a  b\")"], 0);
    assert_eq!(out, "a  b\n");
    let ran = shop.run(&["sh", "-c", "echo out; echo err >&2; exit 3"]);
    assert_eq!((ran.status.code(), &*ran.out, &*ran.err), (Some(3), "out\n", "err\n"));
    shop.runs(&["sh", "-c", "kill -9 $$"], 137);
    let ran = shop.run(&["no-such-program"]);
    assert_eq!(ran.status.code(), Some(127));
    assert!(ran.err.contains("no-such-program: its command was not found"), "{}", ran.err);
    shop.runs(&["/etc/hostname"], 126);
    // The release's environment, and what is set for this run.
    let script = "echo $GREETING $MINE $TOLV_PROCESS $TOLV_RELEASE; pwd; test -n \"$PORT\"";
    let out = shop.runs(&["-e", "MINE=a=b c", "sh", "-c", script], 0);
    assert_eq!(out, "from config a=b c run.7 v1\n/app\n");
    let out = shop.runs(&["--env", "GREETING=mine", "sh", "-c", "echo $GREETING"], 0);
    assert_eq!(out, "mine\n");
    for name in ["PORT", "DYNO", "TOLV_RELEASE"] {
        let ran = shop.run(&["-e", &format!("{name}=1"), "true"]);
        assert_eq!(ran.status.code(), Some(125));
        assert!(ran.err.contains(name) && ran.err.contains("platform"), "{}", ran.err);
    }
    // Another release has another config.
    shop.tolv(&["config", "set", "GREETING=second"]);
    assert_eq!(shop.runs(&["sh", "-c", "echo $GREETING"], 0), "second\n");
    assert_eq!(shop.runs(&["--release", "v1", "sh", "-c", "echo $GREETING"], 0), "from config\n");
    let ran = shop.run(&["--release", "v9", "true"]);
    assert!(!ran.status.success() && ran.err.contains("v9"), "{}", ran.err);
    // What is on record, without values.
    let run = shop.last_run();
    assert_eq!(
        (&run["release"], &run["status"], &run["state"]),
        (&1.into(), &0.into(), &"ended".into())
    );
    assert_eq!(run["argv"][2], "echo $GREETING");
    let all = shop.json(&["run", "list"]);
    let mine =
        &all["items"].as_array().unwrap().iter().find(|run| run["env"][0] == "MINE").unwrap();
    assert_eq!(mine["argv"][0], "sh");
    let audit = shop.tolv(&["audit"]);
    assert!(audit.contains("run.begin") && audit.contains("printf") && audit.contains("with MINE"));
    assert!(!audit.contains("a=b c") && !all.to_string().contains("a=b c"), "{audit}");
}

#[test]
fn what_is_piped_in_arrives_to_its_end() {
    let shop = shop();
    let mut child = shop.spawn(&["sha256sum"], Stdio::piped());
    let mut to = child.stdin.take().unwrap();
    let mut local = Command::new("sha256sum");
    let mut local = local.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut check = local.stdin.take().unwrap();
    let mut piece = vec![0_u8; 1 << 20];
    for number in 0..64_usize {
        for (place, byte) in piece.iter_mut().enumerate() {
            *byte = u8::try_from((place * 7 + number) % 251).unwrap();
        }
        to.write_all(&piece).unwrap();
        check.write_all(&piece).unwrap();
    }
    drop((to, check));
    let (ours, theirs) = (child.wait_with_output().unwrap(), local.wait_with_output().unwrap());
    assert!(ours.status.success(), "{}", String::from_utf8_lossy(&ours.stderr));
    assert_eq!(ours.stdout, theirs.stdout);
    // A process that reads nothing does not keep what is piped in from ending.
    let mut child = shop.spawn(&["true"], Stdio::piped());
    let mut to = child.stdin.take().unwrap();
    thread::spawn(move || while to.write_all(&[0; 65536]).is_ok() {});
    assert!(child.wait().unwrap().success());
    // And as much comes out.
    let out = shop.runs(&["head", "-c", "9000000", "/dev/zero"], 0);
    assert_eq!(out.len(), 9_000_000);
    // Nobody reads it: it is told to end.
    let mut child = shop.spawn(&["yes"], Stdio::null());
    let mut first = [0; 2];
    let mut from = child.stdout.take().unwrap();
    from.read_exact(&mut first).unwrap();
    drop(from);
    assert_eq!((&first, child.wait().unwrap().code()), (b"y\n", Some(141)));
    shop.until_run("ended");
}

#[test]
fn a_terminal_is_at_both_ends() {
    let shop = shop();
    let mut screen = shop.screen(&["sh"]);
    let at = screen.wait_for("$ ", 0, SOON);
    assert!(screen.is_raw());
    // Its size, its kind, and what a program finds there.
    screen.type_in(
        "stty size; echo $TERM; test -t 0 && test -t 1 && test -t 2 && echo all=$((1+1))\r",
    );
    let at = screen.wait_for("30 90\r\nxterm-256color\r\nall=2\r\n", at, SOON);
    screen.resize(41, 121);
    poll(SOON, "the new size", || {
        screen.type_in("stty size\r");
        screen.text().get(at..)?.contains("41 121\r\n").then_some(())
    });
    // Ctrl-C ends what runs in the foreground, and neither the shell nor the client.
    screen.type_in("echo be'gin'; sleep 1000\r");
    let at = screen.wait_for("begin\r\n", at, SOON);
    screen.type_in("\x03");
    screen.type_in("echo $((40+2))th; exit 5\r");
    screen.wait_for("42th\r\n", at, SOON);
    assert_eq!(screen.wait(SOON).code(), Some(5));
    assert!(!screen.is_raw(), "the terminal is as it was");
    assert_eq!(shop.last_run()["connection"], "terminal");
    // A REPL.
    let mut screen = shop.screen(&["python3", "-i", "-c", "print('ready')"]);
    let at = screen.wait_for(">>> ", 0, SOON);
    screen.type_in("6 * 7\r");
    let at = screen.wait_for("42", at, SOON);
    screen.wait_for(">>> ", at, SOON);
    screen.type_in("\x04");
    assert_eq!(screen.wait(SOON).code(), Some(0));
    // Pipes where that is asked for.
    let mut screen = shop.screen(&["-T", "sh", "-c", "test -t 1 || echo pipes; read x; echo $x"]);
    screen.wait_for("pipes", 0, SOON);
    assert!(!screen.is_raw());
    screen.type_in("line\r");
    let at = screen.wait_for("line", 0, SOON);
    screen.wait_for("line", at, SOON);
    assert!(screen.wait(SOON).success());
}

#[test]
fn a_terminal_that_is_closed_leaves_the_run_and_another_takes_it_up() {
    let shop = shop();
    let mut screen = shop.screen(&["sh"]);
    let at = screen.wait_for("$ ", 0, SOON);
    screen.type_in("MARK=$((40+2)); echo set\r");
    screen.wait_for("set\r\n", at, SOON);
    screen.signal(Signal::HUP);
    assert_eq!(screen.wait(SOON).code(), Some(129));
    assert!(!screen.is_raw(), "the terminal is as it was");
    let run = shop.until_run("up");
    let (id, process) = (run["id"].as_str().unwrap(), run["process"].as_str().unwrap());
    // By its name; what is taken over ends for whoever had it.
    let mut second = shop.screen(&["attach", process]);
    second.type_in("echo again $MARK\r");
    second.wait_for("again 42\r\n", 0, SOON);
    let mut third = shop.screen(&["attach", id]);
    third.type_in("echo third $MARK\r");
    third.wait_for("third 42\r\n", 0, SOON);
    assert_eq!(second.wait(SOON).code(), Some(125));
    assert!(second.text().contains("somebody else is attached"), "{}", second.text());
    assert!(!second.is_raw());
    // A stop hangs it up, as interactive shells want it.
    shop.tolv(&["run", "stop", id]);
    assert_eq!(third.wait(SOON).code(), Some(129));
    let run = shop.last_run();
    assert!(run["note"].as_str().unwrap().starts_with("stopped by"), "{run}");
}

/// Passes connections on, until it is told to cut them.
struct Wire {
    port: u16,
    open: Arc<Mutex<Vec<TcpStream>>>,
    up: Arc<AtomicBool>,
    made: Arc<AtomicUsize>,
}

impl Wire {
    fn to(url: &str) -> Self {
        let target = url.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Self {
            port: listener.local_addr().unwrap().port(),
            open: Arc::default(),
            up: Arc::new(AtomicBool::new(true)),
            made: Arc::default(),
        };
        let (open, up, made) =
            (Arc::clone(&wire.open), Arc::clone(&wire.up), Arc::clone(&wire.made));
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                // Under the lock: what a cut does not find is not let through.
                let mut open = open.lock().unwrap();
                if !up.load(Ordering::SeqCst) {
                    continue;
                }
                let Ok(far) = TcpStream::connect(&target) else { continue };
                made.fetch_add(1, Ordering::SeqCst);
                open.extend([near.try_clone().unwrap(), far.try_clone().unwrap()]);
                for (mut from, mut to) in
                    [(near.try_clone().unwrap(), far.try_clone().unwrap()), (far, near)]
                {
                    thread::spawn(move || {
                        std::io::copy(&mut from, &mut to).ok();
                        to.shutdown(std::net::Shutdown::Both).ok();
                    });
                }
            }
        });
        wire
    }

    /// Cuts every connection, and lets none through until it is mended.
    fn cut(&self) {
        let mut open = self.open.lock().unwrap();
        self.up.store(false, Ordering::SeqCst);
        for stream in open.drain(..) {
            stream.shutdown(std::net::Shutdown::Both).ok();
        }
    }

    fn mend(&self) {
        self.up.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_connection_that_breaks_is_made_again_and_no_byte_is_lost() {
    let shop = shop();
    let wire = Wire::to(&shop.serve.url());
    let script = "i=0; while read line; do echo \"$i:$line\"; i=$((i+1)); done; echo end $i";
    let mut command = shop.serve.command(&shop.dir, &["run", "sh", "-c", script]);
    command.env("TOLV_SERVER", format!("http://127.0.0.1:{}", wire.port));
    command.env("TOLV_DEPLOY", "shop").stdin(Stdio::piped());
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let reader = thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).unwrap();
        text
    });
    shop.until_run("up");
    for round in 0..8 {
        for line in 0..200 {
            writeln!(to, "line {round}.{line} {}", "x".repeat(100)).unwrap();
        }
        let made = wire.made.load(Ordering::SeqCst);
        wire.cut();
        wire.mend();
        poll(SOON, "it connects again", || (wire.made.load(Ordering::SeqCst) > made).then_some(()));
    }
    drop(to);
    assert!(child.wait().unwrap().success());
    let text = reader.join().unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!((lines.len(), lines[1600]), (1601, "end 1600"));
    for (number, line) in lines[..1600].iter().enumerate() {
        let wanted = format!("{number}:line {}.{} x", number / 200, number % 200);
        assert!(line.starts_with(&wanted), "{wanted} is {line}");
    }
}

#[test]
fn a_client_that_is_killed_leaves_the_run_and_its_output_waits() {
    let shop = shop();
    let script =
        "echo first; read x; head -c 3000000 /dev/zero | tr '\\0' y; echo; echo last; exit 6";
    let mut child = shop.spawn(&["sh", "-c", script], Stdio::piped());
    let mut to = child.stdin.take().unwrap();
    let mut first = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"first\n");
    writeln!(to, "go").unwrap();
    let run = shop.until_run("up");
    // All that waits for somebody now is what was not read.
    child.kill().unwrap();
    child.wait().unwrap();
    let ran = shop.ran(&["run", "attach", run["id"].as_str().unwrap()]);
    assert_eq!(ran.status.code(), Some(6), "{}", ran.err);
    assert!(ran.out.ends_with("y\nlast\n"), "{}", ran.out.len());
    let after = shop.last_run();
    assert_eq!((&after["status"], &after["state"]), (&6.into(), &"ended".into()));
}

#[test]
fn detached_ones_write_to_the_log_and_are_kept_where_asked() {
    let shop = shop();
    let script = "echo working; echo to err >&2; printf unfinished; exit 4";
    let id = shop.tolv(&["run", "--detach", "--record", "sh", "-c", script]).trim().to_owned();
    assert!(id.starts_with("run_"), "{id}");
    let ran = shop.ran(&["run", "attach", &id]);
    assert_eq!(ran.status.code(), Some(4), "{}", ran.err);
    let run = shop.json(&["run", "show", &id]);
    assert_eq!((&run["connection"], &run["status"]), (&"detached".into(), &4.into()));
    assert_eq!((&run["process"], &run["actor"]), (&"run.1".into(), &"owner".into()), "{run}");
    let kept = shop.tolv(&["run", "output", &id]);
    for line in ["working\n", "to err\n", "unfinished\n"] {
        assert!(kept.contains(line), "{kept:?}");
    }
    let log = shop.tolv(&["logs", "-n", "100", "--process", "run"]);
    for line in
        ["app[run.1]: working", "app[run.1]: to err", "tolv[run.1]: Process exited with status 4"]
    {
        assert!(log.contains(line), "{log}");
    }
    // Kept without being detached too; and not where it was not asked for.
    shop.runs(&["--record", "sh", "-c", "printf '\\033[1mbold'; echo e >&2"], 0);
    let run = shop.last_run();
    assert_eq!(run["recorded"], 10, "{run}");
    let kept = shop.tolv(&["run", "output", run["id"].as_str().unwrap()]);
    assert!(kept.contains("\x1b[1mbold") && kept.contains("e\n"), "{kept:?}");
    shop.runs(&["true"], 0);
    let run = shop.last_run();
    let ran = shop.ran(&["run", "output", run["id"].as_str().unwrap()]);
    assert!(ran.status.code() == Some(125) && ran.err.contains("no output of"), "{}", ran.err);
    // JSON for programs.
    let out = shop.runs(&["--json", "sh", "-c", "echo hi"], 0);
    let lines: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&lines[0]["stream"], &lines[0]["data"]["text"]), (&"out".into(), &"hi\n".into()));
    assert_eq!(lines[1]["run"]["status"], 0);
}

#[test]
fn fifty_at_once() {
    let shop = shop();
    let children: Vec<_> = (0..50)
        .map(|number: usize| {
            let script = format!("read x; echo {number} $x; exit {number}");
            let mut child = shop.spawn(&["sh", "-c", &script], Stdio::piped());
            let to = child.stdin.take().unwrap();
            (number, child, to)
        })
        .collect();
    let all_up = || {
        let runs = shop.json(&["run", "list", "-n", "100"]);
        let up =
            runs["items"].as_array().unwrap().iter().filter(|run| run["state"] == "up").count();
        (up == 50).then_some(runs)
    };
    let runs = poll(LATER, "fifty of them are up", all_up);
    let mut names: Vec<_> =
        runs["items"].as_array().unwrap().iter().map(|run| run["process"].to_string()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 50, "each has a name of its own");
    for (number, mut child, mut to) in children {
        writeln!(to, "all").unwrap();
        drop(to);
        let mut text = String::new();
        child.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(
            (text, child.wait().unwrap().code()),
            (format!("{number} all\n"), i32::try_from(number).ok())
        );
    }
}

#[test]
fn who_may_not_run_is_refused_and_sees_no_words() {
    let shop = shop();
    let id = shop.tolv(&["run", "--detach", "echo", "s3cret"]).trim().to_owned();
    shop.until_run("ended");
    for (role, may) in [("view", false), ("config", false), ("run", true), ("deploy", true)] {
        let made = shop.json(&["tokens", "create", "--role", role, "--app", "shop"]);
        let token = made["secret"].as_str().unwrap();
        let with = |args: &[&str]| {
            let mut command = shop.serve.command(&shop.dir, args);
            run(command.env("TOLV_TOKEN", token))
        };
        let ran = with(&["run", "echo", "hi"]);
        assert_eq!(ran.status.code(), Some(if may { 0 } else { 125 }), "{role}: {}", ran.err);
        assert_eq!(
            ran.err.contains("may not start or stop processes"),
            !may,
            "{role}: {}",
            ran.err
        );
        for args in [&["run", "attach", &id][..], &["run", "stop", &id], &["run", "output", &id]] {
            let ran = with(args);
            assert_eq!(ran.err.contains("may not"), !may, "{role} {args:?}: {}", ran.err);
        }
        let listed = with(&["run", "list"]);
        assert!(listed.status.success() && listed.out.contains("echo"), "{}", listed.err);
        assert_eq!(listed.out.contains("s3cret"), may, "{role}: {}", listed.out);
    }
    shop.tolv(&["create", "blog", "--remote", "blog"]);
    let made = shop.json(&["tokens", "create", "--role", "run", "--app", "blog"]);
    let mut command = shop.serve.command(&shop.dir, &["run", "attach", &id]);
    let ran = run(command.env("TOLV_TOKEN", made["secret"].as_str().unwrap()));
    assert!(ran.err.contains("there is no run"), "{}", ran.err);
}

#[test]
fn a_run_ends_with_its_deploy_and_with_the_platform() {
    let mut shop = shop();
    let mut child = shop.spawn(&["sleep", "86411"], Stdio::piped());
    let run = shop.until_run("up");
    // A release leaves it alone.
    shop.tolv(&["config", "set", "GREETING=other"]);
    assert_eq!(shop.last_run()["state"], "up");
    shop.tolv(&["destroy", "shop/production", "--confirm", "shop/production"]);
    let status = child.wait().unwrap().code();
    assert!(matches!(status, Some(143 | 125)), "{status:?}");
    let ran = shop.ran(&["run", "show", run["id"].as_str().unwrap()]);
    assert!(ran.err.contains("there is no run"), "{}", ran.err);
    assert!(!runs_somewhere("sleep\x0086411"));
    // The platform is killed: the process goes with it, and that is known afterwards.
    shop.tolv(&["deploys", "create", "production", "-d", "shop"]);
    shop.pushed(&["tolv", "main"]);
    let mut child = shop.spawn(&["sh", "-c", "echo begun; exec sleep 86412"], Stdio::piped());
    let mut first = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let id = shop.until_run("up")["id"].as_str().unwrap().to_owned();
    shop.serve.end(Signal::KILL);
    shop.serve.begin();
    assert_eq!(child.wait().unwrap().code(), Some(125));
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(text.contains("was lost: the platform ended"), "{text}");
    let run = shop.json(&["run", "show", &id]);
    assert_eq!((&run["state"], &run["status"]), (&"lost".into(), &Value::Null));
    poll(SOON, "the process is gone", || (!runs_somewhere("sleep\x0086412")).then_some(()));
    // An orderly end is one too.
    let child = shop.spawn(&["--detach", "sleep", "86413"], Stdio::null());
    let out = child.wait_with_output().unwrap();
    let id = String::from_utf8(out.stdout).unwrap().trim().to_owned();
    shop.until_run("up");
    shop.serve.end(Signal::TERM);
    shop.serve.begin();
    let run = shop.json(&["run", "show", &id]);
    assert_eq!((&run["state"], &run["status"]), (&"ended".into(), &143.into()), "{run}");
}

/// Whether a process with these words runs on this machine.
fn runs_somewhere(words: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines.any(|line| line.strip_suffix(b"\0") == Some(words.as_bytes()))
}

#[test]
fn signals_for_the_client_are_the_processs() {
    let shop = shop();
    let script = "trap 'echo got it; exit 7' INT; echo begun; while :; do sleep 0.05; done";
    let mut child = shop.spawn(&["sh", "-c", script], Stdio::piped());
    let mut from = child.stdout.take().unwrap();
    let mut first = [0; 6];
    from.read_exact(&mut first).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), Signal::INT).unwrap();
    let mut text = String::new();
    from.read_to_string(&mut text).unwrap();
    assert_eq!((&*text, child.wait().unwrap().code()), ("got it\n", Some(7)));
    // One that does not want to end is killed when it is told often enough.
    let script = "trap '' INT TERM; echo begun; while :; do sleep 0.05; done";
    let mut child = shop.spawn(&["sh", "-c", script], Stdio::piped());
    let mut from = child.stdout.take().unwrap();
    from.read_exact(&mut first).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    let status = poll(SOON, "it is killed", || {
        rustix::process::kill_process(pid, Signal::TERM).ok();
        child.try_wait().unwrap()
    });
    assert_eq!(status.code(), Some(137));
}

#[test]
fn the_last_output_of_a_run_arrives_when_the_platform_is_upgraded_or_ends() {
    let mut shop = shop();
    let script = "trap 'echo got-term; exit 9' TERM; echo begun; while :; do sleep 0.1; done";
    for (is_upgrade, why) in
        [(true, "stopped: the platform is upgraded"), (false, "stopped: the platform ended")]
    {
        let mut child = shop.spawn(&["--", "sh", "-c", script], Stdio::null());
        let mut first = [0; 6];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        match is_upgrade {
            true => assert!(shop.serve.upgrade(|_| {}).success()),
            false => {
                shop.serve.end(Signal::TERM);
            }
        }
        let ended = child.wait_with_output().unwrap();
        let (out, err) =
            (String::from_utf8(ended.stdout).unwrap(), String::from_utf8(ended.stderr).unwrap());
        assert_eq!((&*out, ended.status.code()), ("got-term\n", Some(9)), "{err}");
        assert!(err.contains(why), "{err}");
    }
}
