//! An engine that is killed, and the next one on the same folder.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tolv_logs::store::{Filter, Most, tail};
use tolv_run::{OneOff, ProcessState, Settings, Target};
use tolv_sandbox::Level;
use tolv_testkit::{Home, of_other_version, poll};

use crate::bed::{
    Bed, OTHER_SPAWNER, SOON, SPAWNER, answer, best, each_level, left, mark, spawner, text,
};
use crate::versions;

/// Writes numbers, and ends with 3 once it is told to. It forks nothing: what runs stays the same.
const COUNTER: &str = r#"exec perl -e '
    $| = 1;
    my ($end, $i) = "$ENV{SHARED}/end";
    until (-e $end) { print ++$i, "\n"; select undef, undef, undef, 0.01 }
    unlink $end;
    exit 3;
'"#;

fn target(bed: &Bed, number: u32) -> Target {
    bed.target(number, &[("web", "perl web.pl", 2), ("worker", COUNTER, 1)])
}

/// Does not end when it is told to.
pub(crate) const STUBBORN: &str = "trap '' TERM; echo deaf; exec perl -e sleep";

pub(crate) fn with_doors(settings: &mut Settings) {
    settings.doors = Some(settings.logs.with_file_name("doors"));
}

/// A program with an engine, which can be killed.
pub(crate) struct Holder {
    program: Child,
    pub(crate) home: Home,
    pub(crate) level: Level,
    pub(crate) mark: String,
}

impl Holder {
    /// With the formation up, and a one-off.
    fn start(level: Level) -> Self {
        Self::of("hold", level)
    }

    fn of(what: &str, level: Level) -> Self {
        let home = Home::new();
        let mark = mark();
        let orders = format!("{what} {level} {mark} {SPAWNER} {}\n", home.path().display());
        Self { program: program(&current_exe(), &orders), home, level, mark }
    }

    /// One whose shims speak another version of their protocol, and which has `what` up.
    pub(crate) fn of_version(by: i32, what: &str, level: Level) -> Self {
        let home = Home::new();
        let mark = mark();
        let [other, spawner] = [(current_exe(), "holder"), (SPAWNER.into(), "spawner")].map(
            |(program, name): (PathBuf, _)| {
                let copy = home.path().join(name);
                of_other_version(&program, &copy, by);
                copy
            },
        );
        let (spawner, folder) = (spawner.display(), home.path().display());
        let orders = format!("{what} {level} {mark} {spawner} {folder}\n");
        Self { program: program(&other, &orders), home, level, mark }
    }

    /// Another engine, which finds what is there and is killed before it does anything.
    fn look(&mut self) {
        let Self { level, mark, home, .. } = self;
        let orders = format!("look {level} {mark} {SPAWNER} {}\n", home.path().display());
        self.program = program(&current_exe(), &orders);
        self.program.kill().unwrap();
        self.program.wait().unwrap();
    }

    /// Another engine, of this version, which is killed while it replaces what it found.
    pub(crate) fn replace(&mut self) {
        let Self { level, mark, home, .. } = self;
        let orders = format!("replace {level} {mark} {SPAWNER} {}\n", home.path().display());
        self.program = program(&current_exe(), &orders);
        self.program.kill().unwrap();
        self.program.wait().unwrap();
    }

    /// SIGKILL; only the formation is left.
    pub(crate) fn kill(&mut self) {
        self.program.kill().unwrap();
        self.program.wait().unwrap();
        poll(SOON, "the one-off to be gone", || {
            left(&self.mark).iter().all(|line| !line.contains("sleep 1000")).then_some(())
        });
    }

    /// The next engine.
    pub(crate) fn next(&self) -> Bed {
        Bed::again(self.level, self.home.path(), &self.mark, with_doors)
    }

    pub(crate) fn left(&self) -> Vec<String> {
        left(&self.mark)
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.home.path().join(name)
    }
}

impl Drop for Holder {
    /// A test that has failed leaves nothing either.
    fn drop(&mut self) {
        self.program.kill().ok();
        self.program.wait().ok();
        if !left(&self.mark).is_empty() {
            let mut bed = self.next();
            bed.engine().kill();
            bed.stop();
        }
    }
}

fn current_exe() -> PathBuf {
    std::env::current_exe().unwrap()
}

/// The program below, once it says that it is ready.
fn program(program: &Path, orders: &str) -> Child {
    let mut program = Command::new(program)
        .args(["--exact", "orphan::holder", "--nocapture"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    program.stdin.take().unwrap().write_all(orders.as_bytes()).unwrap();
    let mut said = BufReader::new(program.stdout.take().unwrap()).lines();
    assert!(said.any(|line| line.is_ok_and(|line| line.ends_with("ready"))));
    program
}

/// An engine to be killed; without orders it has nothing to do.
#[test]
fn holder() {
    let mut orders = String::new();
    io::stdin().read_line(&mut orders).unwrap();
    let words: Vec<&str> = orders.trim_end().splitn(5, ' ').collect();
    let [what, level, mark, spawner, home] = words[..] else { return };
    OTHER_SPAWNER.get_or_init(|| spawner.into());
    let bed = Bed::again(level.parse().unwrap(), Path::new(home), mark, with_doors);
    if what == "look" {
        println!("ready");
        loop {
            std::thread::park();
        }
    }
    if what == "replace" {
        bed.file("web.pl", "print qq(begun\\n); sleep 1000");
        bed.runtime().block_on(bed.engine().restore(versions::target(&bed))).unwrap();
        bed.wait_for_line("web.1", "Starting process with command `perl web.pl`");
        poll(SOON, "all of them twice", || {
            let all = bed.endpoints();
            (all.len() == 6 && all.iter().all(|one| one.pid.is_some())).then_some(())
        });
        println!("ready");
        loop {
            std::thread::park();
        }
    }
    if what == "stop" {
        let mut bed = bed;
        bed.converge(bed.target(1, &[("worker", STUBBORN, 1)])).unwrap();
        bed.wait_for_line("worker.1", "deaf");
        let engine = bed.engine().clone();
        bed.runtime().spawn(async move { engine.stop().await });
        bed.wait_for_line("worker.1", "Stopping all processes with SIGTERM");
        println!("ready");
        bed.read_to_end();
        return;
    }
    if what == "formation" || what == "deaf" {
        let deaf = bed.target(1, &[("worker", STUBBORN, 1)]);
        bed.converge(if what == "deaf" { deaf } else { versions::target(&bed) }).unwrap();
        println!("ready");
        loop {
            std::thread::park();
        }
    }
    bed.converge(target(&bed, 1)).unwrap();
    let (target, name) = (bed.target(1, &[]), "run.1".parse().unwrap());
    let command = "echo on; exec sleep 1000".to_owned();
    let engine = bed.engine().clone();
    std::thread::scope(|scope| {
        let one_off = OneOff { target, name, command, limit: None };
        scope.spawn(|| bed.runtime().block_on(engine.run_once(one_off)).unwrap());
        bed.wait_for_line("run.1", "on");
        println!("ready");
    });
}

/// The parent of a process of [`Holder::left`].
fn parent(process: &str) -> Pid {
    let (pid, _) = process.split_once(':').unwrap();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap();
    Pid::from_raw(parent.trim().parse().unwrap()).unwrap()
}

fn pids(bed: &Bed) -> BTreeMap<String, Option<i32>> {
    bed.endpoints().into_iter().map(|one| (one.process.to_string(), one.pid)).collect()
}

/// All that the worker wrote, as it is in the log.
fn numbers(home: &Holder) -> Vec<u64> {
    let all = Most { lines: 100_000, bytes: usize::MAX };
    let found = tail(&home.path("logs"), &Filter::default(), all).unwrap();
    let its = found.lines.iter().filter(|line| &*line.process == "worker.1");
    its.filter_map(|line| text(line).parse().ok()).collect()
}

#[test]
fn processes_go_on_where_the_engine_is_killed_and_the_next_has_them() {
    each_level(|level| {
        let mut holder = Holder::start(level);
        holder.kill();
        let before = numbers(&holder).len();
        poll(SOON, "it to write on", || (numbers(&holder).len() > before + 20).then_some(()));
        let mut bed = holder.next();
        let running = holder.left();
        bed.runtime().block_on(bed.engine().restore(target(&bed, 1))).unwrap();
        assert_eq!(holder.left(), running, "{level}: nothing was started");
        let web = bed.endpoint("web.2");
        assert_eq!((web.state, web.routed), (ProcessState::Up, true));
        assert!(answer(&web).starts_with("web.2 v1 "));
        let found = pids(&bed);
        let comm = |pid| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap();
        assert!(comm(found["web.1"].unwrap()).starts_with("perl"), "{level}: {found:?}");
        // Its output comes, and its end is seen.
        let seen = bed.output("worker.1").len();
        poll(SOON, "new lines", || (bed.output("worker.1").len() > seen + 5).then_some(()));
        assert!(bed.said("worker.1").iter().all(|line| !line.contains("dropped")), "{level}");
        let written = bed.runtime().block_on(bed.engine().written());
        let lines = usize::try_from(written["worker.1"].written.lines).unwrap();
        assert!(lines > before, "{level}: {written:?}");
        fs::write(holder.path("shared/end"), "").unwrap();
        bed.wait_for_line("worker.1", "Process exited with status 3");
        bed.wait_for("worker.1", ProcessState::Up, 1);
        bed.stop();
        assert!(bed.left().is_empty(), "{level}");
        assert_eq!(fs::read_dir(holder.path("doors")).unwrap().count(), 0, "{level}");
        // Each number once, but those of the second start.
        let all = numbers(&holder);
        let first: Vec<u64> = (1..=*all.iter().max().unwrap()).collect();
        assert_eq!(all[..first.len()], first, "{level}");
    });
}

#[test]
fn an_end_that_nobody_saw_is_heard_later() {
    each_level(|level| {
        let mut holder = Holder::start(level);
        holder.kill();
        fs::write(holder.path("shared/end"), "").unwrap();
        poll(SOON, "its end", || (!holder.path("shared/end").exists()).then_some(()));
        holder.look();
        let mut bed = holder.next();
        bed.runtime().block_on(bed.engine().restore(target(&bed, 1))).unwrap();
        bed.wait_for_line("worker.1", "Process exited with status 3");
        bed.wait_for("worker.1", ProcessState::Up, 1);
        bed.stop();
        assert!(bed.left().is_empty(), "{level}");
    });
}

/// The state folder is gone with everything that could have gone on with them.
#[test]
fn nothing_goes_on_without_the_folder_of_its_log() {
    each_level(|level| {
        let mut holder = Holder::start(level);
        holder.kill();
        assert!(!holder.left().is_empty(), "{level}");
        // The worker writes meanwhile.
        poll(SOON, "the folder to be gone", || fs::remove_dir_all(holder.path("logs")).ok());
        poll(SOON, "every process to be gone", || holder.left().is_empty().then_some(()));
    });
}

#[test]
fn what_is_not_wanted_any_more_is_stopped() {
    let mut holder = Holder::start(best());
    holder.kill();
    let mut bed = holder.next();
    let before = holder.left();
    bed.runtime().block_on(bed.engine().restore(target(&bed, 2))).unwrap();
    poll(SOON, "the old ones to be gone", || {
        holder.left().iter().all(|one| !before.contains(one)).then_some(())
    });
    assert!(answer(&bed.endpoint("web.1")).starts_with("web.1 v2 "));
    bed.stop();
    assert!(bed.left().is_empty());
}

/// Its shim is stopped when the next engine looks, and goes on later.
#[test]
fn one_that_answers_late_is_stopped_then() {
    let mut holder = Holder::start(best());
    holder.kill();
    let before = holder.left();
    let shims: Vec<_> = before.iter().map(|process| parent(process)).collect();
    for shim in &shims {
        kill_process(*shim, Signal::STOP).unwrap();
    }
    let mut bed = Bed::again(holder.level, holder.home.path(), &holder.mark, |settings| {
        with_doors(settings);
        settings.doors_until = Some(std::time::Instant::now());
    });
    bed.runtime().block_on(bed.engine().restore(target(&bed, 1))).unwrap();
    assert!(before.iter().all(|one| holder.left().contains(one)), "nobody has told them yet");
    for shim in &shims {
        kill_process(*shim, Signal::CONT).unwrap();
    }
    poll(SOON, "the late ones to be gone", || {
        holder.left().iter().all(|one| !before.contains(one)).then_some(())
    });
    assert!(answer(&bed.endpoint("web.1")).starts_with("web.1 v1 "));
    bed.stop();
    assert!(bed.left().is_empty());
}

#[test]
fn one_that_was_told_to_end_is_not_gone_on_with() {
    let mut holder = Holder::of("stop", best());
    holder.kill();
    let before = holder.left();
    assert_eq!(before.len(), 1);
    let mut bed = Bed::again(holder.level, holder.home.path(), &holder.mark, |settings| {
        with_doors(settings);
        settings.timing.grace = std::time::Duration::from_millis(300);
    });
    let target = bed.target(1, &[("worker", STUBBORN, 1)]);
    bed.runtime().block_on(bed.engine().restore(target)).unwrap();
    poll(SOON, "a new one instead", || {
        let left = holder.left();
        (left.len() == 1 && left != before).then_some(())
    });
    bed.stop();
    assert!(bed.left().is_empty());
    let said = bed.said("worker.1");
    let unwanted = "Process went on without the platform, and is not wanted any more";
    assert!(said.iter().any(|line| line == unwanted), "{said:?}");
    let told = said.iter().filter(|line| *line == "Stopping all processes with SIGTERM").count();
    assert_eq!(told, 1, "the new one alone, the other was");
}

#[test]
fn what_an_engine_leaves_the_next_one_has() {
    each_level(|level| {
        let home = Home::new();
        let mark = mark();
        let mut first = Bed::again(level, home.path(), &mark, with_doors);
        first.converge(target(&first, 1)).unwrap();
        let types = [("web", "perl web.pl", 2), ("worker", COUNTER, 1), ("slow", STUBBORN, 1)];
        first.converge(first.target(1, &types)).unwrap();
        first.wait_for_line("slow.1", "deaf");
        // One is on its way out, and stays so.
        first.converge(target(&first, 1)).unwrap();
        let (running, before) = (first.left(), pids(&first));
        let engine = first.engine().clone();
        let one_off = first.runtime().spawn({
            let (target, name) = (first.target(1, &[]), "run.1".parse().unwrap());
            let one_off =
                OneOff { target, name, command: "echo on; sleep 1000".to_owned(), limit: None };
            async move { engine.run_once(one_off).await }
        });
        first.wait_for_line("run.1", "on");
        first.runtime().block_on(first.engine().leave());
        first.read_to_end();
        // What cannot be gone on with is stopped.
        assert!(!first.runtime().block_on(one_off).unwrap().unwrap().is_success(), "{level}");
        assert_eq!(first.left(), running, "{level}");
        assert!(first.endpoints().is_empty());
        match first.converge(first.target(2, &[])) {
            Err(tolv_run::Error::Stopped) => {}
            other => panic!("{level}: {other:?}"),
        }
        let mut second = Bed::again(level, home.path(), &mark, |settings| {
            with_doors(settings);
            settings.timing.grace = std::time::Duration::from_millis(300);
        });
        drop(first);
        second.runtime().block_on(second.engine().restore(target(&second, 1))).unwrap();
        let mut wanted = before;
        wanted.remove("slow.1");
        assert_eq!(pids(&second), wanted, "{level}");
        assert!(answer(&second.endpoint("web.2")).starts_with("web.2 v1 "));
        poll(SOON, "the one on its way out to be gone", || {
            (second.left().len() + 1 == running.len()).then_some(())
        });
        second.stop();
        assert!(second.left().is_empty(), "{level}");
    });
}

#[test]
fn an_engine_that_ends_before_it_wants_anything_ends_them_too() {
    for kill in [false, true] {
        let mut holder = Holder::start(best());
        holder.kill();
        let mut bed = holder.next();
        if kill {
            bed.engine().kill();
        }
        bed.stop();
        bed.wait_until_none_is_left();
        assert_eq!(fs::read_dir(holder.path("doors")).unwrap().count(), 0);
    }
}

/// Connects to each socket, orders the shim behind it to kill its app, and says what it hears.
const INTRUDER: &str = r#"use Socket;
for my $door (@ARGV) {
    socket(my $shim, PF_UNIX, SOCK_SEQPACKET, 0) or die;
    connect($shim, pack_sockaddr_un($door)) or do { print "refused\n"; next };
    send($shim, '"kill"', 0);
    my $word = '';
    recv($shim, $word, 65536, 0);
    print $word eq '' ? "nothing\n" : "heard $word\n";
}"#;

#[test]
fn an_app_that_runs_as_the_platforms_user_has_no_say_at_a_door() {
    let level = Level::Landlock;
    let mut holder = Holder::start(level);
    holder.kill();
    let before = holder.left();
    let doors = fs::read_dir(holder.path("doors")).unwrap();
    let doors: Vec<_> =
        doors.map(|door| door.unwrap().path().into_os_string().into_encoded_bytes()).collect();
    assert_eq!(doors.len(), 3);
    let argv = ["perl", "-e", INTRUDER].map(|word| word.as_bytes().to_vec());
    let exec = tolv_sandbox::Exec {
        argv: argv.into_iter().chain(doors).collect(),
        env: vec![b"PATH=/usr/bin:/bin".to_vec()],
        cwd: "/".into(),
    };
    let spec = tolv_sandbox::Spec::new(level, "intruder");
    let job = tolv_sandbox::Job { spec, exec, time_limit: Some(SOON) };
    let mut said = Vec::new();
    let mut hear = |_: tolv_sandbox::Stream, bytes: &[u8]| said.extend_from_slice(bytes);
    let cancel = tolv_sandbox::Cancel::new().unwrap();
    let status = tolv_sandbox::run(&spawner(), &job, &mut hear, &cancel).unwrap();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(status.success(), "{said}");
    assert_eq!(said, "nothing\nnothing\nnothing\n");
    // The next engine is let in, and what runs is what ran.
    let mut bed = holder.next();
    bed.runtime().block_on(bed.engine().restore(target(&bed, 1))).unwrap();
    assert_eq!(holder.left(), before);
    bed.stop();
}
