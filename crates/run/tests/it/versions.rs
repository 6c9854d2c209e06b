//! Shims of another version of the protocol, and an engine that finds them.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use tolv_run::{Endpoint, ProcessState, Settings, Target};
use tolv_sandbox::Level;
use tolv_testkit::{Home, poll};

use crate::bed::{Bed, SOON, answer, best, each_level, mark};
use crate::orphan::{Holder, STUBBORN, with_doors};

/// Has work to finish when it is told to end.
const WORKER: &str = "trap 'sleep 0.5; echo finished; exit 0' TERM; echo works; \
                      while :; do sleep 0.1; done";

pub(crate) fn target(bed: &Bed) -> Target {
    bed.target(1, &[("web", "perl web.pl", 2), ("worker", WORKER, 1)])
}

/// Somebody who asks for as long as this lives, and whom the engine waits for before it stops a
/// process.
struct Visitor {
    asked: Arc<AtomicU32>,
    over: AtomicBool,
}

impl Visitor {
    fn new() -> Self {
        Self { asked: Arc::default(), over: AtomicBool::new(false) }
    }

    fn drained_by(&self, settings: &mut Settings) {
        let asked = Arc::clone(&self.asked);
        settings.drain = Some(Arc::new(move |_| {
            let asked = Arc::clone(&asked);
            Box::pin(async move {
                let enough = asked.load(Ordering::Relaxed) + 2;
                while asked.load(Ordering::Relaxed) < enough {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            })
        }));
    }

    /// Asks everybody whom requests may go to, again and again: somebody is always there.
    fn ask(&self, bed: &Bed) {
        while !self.over.load(Ordering::Relaxed) {
            let endpoints = bed.engine().endpoints().borrow().clone();
            let web: Vec<&Endpoint> = endpoints.web().collect();
            assert!(!web.is_empty(), "{:?}", endpoints.processes);
            for process in web {
                let wanted = format!("{} v1 ", process.process);
                assert!(answer(process).starts_with(&wanted));
            }
            self.asked.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Ends the visitor, also of a test that fails.
struct Over<'a>(&'a Visitor);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.over.store(true, Ordering::Relaxed);
    }
}

/// Of each name the oldest.
fn pids(bed: &Bed) -> BTreeMap<String, Option<i32>> {
    bed.endpoints().into_iter().rev().map(|one| (one.process.to_string(), one.pid)).collect()
}

fn is_there(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !status.is_empty() && !status.contains(") Z ")
}

/// Waits until what is up is what runs, and nobody of `before`.
fn wait_until_replaced(bed: &Bed, before: &BTreeMap<String, Option<i32>>) {
    poll(SOON, "others in their place", || {
        let now = bed.endpoints();
        let is_new = |one: &Endpoint| {
            one.state == ProcessState::Up && before.get(&one.process.to_string()) != Some(&one.pid)
        };
        (now.len() == before.len() && now.iter().all(is_new)).then_some(())
    });
}

#[test]
fn those_of_another_version_answer_until_others_are_up_in_their_place() {
    each_level(|level| {
        thread::scope(|scope| {
            for by in [-1, 1] {
                scope.spawn(move || is_replaced(level, by, |_| {}));
            }
        });
    });
}

#[test]
fn those_with_other_limits_answer_until_others_are_up_in_their_place() {
    is_replaced(best(), 0, |target| target.limits.default.cpu_weight = Some(50));
}

fn is_replaced(level: Level, by: i32, change: impl FnOnce(&mut Target)) {
    let mut holder = Holder::of_version(by, "formation", level);
    holder.kill();
    let visitor = Visitor::new();
    let mut bed = Bed::again(level, holder.home.path(), &holder.mark, |settings| {
        with_doors(settings);
        visitor.drained_by(settings);
    });
    let mut target = target(&bed);
    change(&mut target);
    bed.runtime().block_on(bed.engine().restore(target)).unwrap();
    let before = pids(&bed);
    assert_eq!(before.len(), 3);
    let answers = || bed.engine().endpoints().borrow().web().count() == 2;
    poll(SOON, "the old ones to answer", || answers().then_some(()));
    thread::scope(|scope| {
        let _over = Over(&visitor);
        scope.spawn(|| visitor.ask(&bed));
        wait_until_replaced(&bed, &before);
    });
    assert!(visitor.asked.load(Ordering::Relaxed) > 2);
    // As in any rollout: SIGTERM and the time to finish; their ends are heard.
    poll(SOON, "the last words of the old worker", || {
        bed.output("worker.1").iter().any(|line| line == "finished").then_some(())
    });
    bed.wait_for_line("worker.1", "Process exited with status 0");
    bed.wait_for_line("web.2", "Process exited with status 143");
    let said = bed.said("web.1");
    let continues = "Process keeps running as another tolv started it, until its replacement is up";
    assert_eq!(said[0], continues, "{said:?}");
    assert!(!said.iter().any(|line| line.contains("SIGKILL") || line.contains("L10")), "{said:?}");
    poll(SOON, "the old ones to be gone", || {
        before.values().flatten().all(|pid| !is_there(*pid)).then_some(())
    });
    bed.stop();
    assert!(bed.left().is_empty(), "{level}");
    assert_eq!(fs::read_dir(holder.path("doors")).unwrap().count(), 0, "{level}");
}

#[test]
fn they_run_on_while_nothing_else_comes_up_and_the_next_engine_has_them_too() {
    let mut holder = Holder::of_version(1, "formation", best());
    holder.kill();
    let mut bed = holder.next();
    let good = fs::read_to_string(bed.app().join("web.pl")).unwrap();
    bed.file("web.pl", "die 'broken'");
    bed.runtime().block_on(bed.engine().restore(target(&bed))).unwrap();
    let before = pids(&bed);
    let failed = || {
        let said = bed.said("platform");
        said.iter().filter(|line| line.starts_with("Error (Replacement failed) -> ")).count()
    };
    poll(SOON, "it to be tried again", || (failed() >= 2).then_some(()));
    assert!(before.values().flatten().all(|pid| is_there(*pid)), "{before:?}");
    assert!(bed.answers().iter().all(|answer| answer.contains(" v1 ")));
    // One that ends by itself has nobody who would be replaced: another starts.
    let worker = before["worker.1"].unwrap();
    let worker = rustix::process::Pid::from_raw(worker).unwrap();
    rustix::process::kill_process(worker, rustix::process::Signal::KILL).unwrap();
    bed.wait_for_line("worker.1", "Process exited with status 137");
    poll(SOON, "another worker", || {
        let up = bed
            .endpoints()
            .into_iter()
            .find(|one| one.process.to_string() == "worker.1" && one.state == ProcessState::Up);
        up.filter(|one| one.pid != before["worker.1"])
    });
    bed.runtime().block_on(bed.engine().leave());
    bed.read_to_end();
    for web in ["web.1", "web.2"] {
        assert!(is_there(before[web].unwrap()), "{web}");
    }
    drop(bed);
    let mut bed = holder.next();
    bed.file("web.pl", &good);
    bed.runtime().block_on(bed.engine().restore(target(&bed))).unwrap();
    poll(SOON, "others in their place", || {
        let now = pids(&bed);
        let up = bed.endpoints().iter().all(|one| one.state == ProcessState::Up);
        (up && now.len() == 3 && now["web.1"] != before["web.1"] && now["web.2"] != before["web.2"])
            .then_some(())
    });
    bed.stop();
    assert!(bed.left().is_empty());
}

#[test]
fn a_kill_while_they_are_replaced_leaves_those_that_answer() {
    let mut holder = Holder::of_version(1, "formation", best());
    holder.kill();
    holder.replace();
    let visitor = Visitor::new();
    let mut bed = Bed::again(holder.level, holder.home.path(), &holder.mark, |settings| {
        with_doors(settings);
        visitor.drained_by(settings);
    });
    bed.runtime().block_on(bed.engine().restore(target(&bed))).unwrap();
    let before = pids(&bed);
    let answers = || bed.engine().endpoints().borrow().web().count() == 2;
    poll(SOON, "the old ones to answer", || answers().then_some(()));
    thread::scope(|scope| {
        let _over = Over(&visitor);
        scope.spawn(|| visitor.ask(&bed));
        wait_until_replaced(&bed, &before);
    });
    poll(SOON, "all others to be gone", || {
        (fs::read_dir(holder.path("doors")).unwrap().count() == 3).then_some(())
    });
    bed.stop();
    assert!(bed.left().is_empty());
}

#[test]
fn a_deploy_does_not_wait_for_the_replacement_of_what_it_replaces_itself() {
    let mut holder = Holder::of_version(-1, "formation", best());
    holder.kill();
    let mut bed = holder.next();
    // Never ready: without the deploy this takes as long as a boot may.
    let good = fs::read_to_string(bed.app().join("web.pl")).unwrap();
    bed.file("web.pl", "sleep 1000");
    bed.runtime().block_on(bed.engine().restore(target(&bed))).unwrap();
    bed.wait_for_line("web.1", "Starting process with command `perl web.pl`");
    bed.file("web.pl", &good);
    let begun = std::time::Instant::now();
    bed.converge(bed.target(2, &[("web", "perl web.pl", 1)])).unwrap();
    assert!(begun.elapsed() < SOON / 2, "{:?}", begun.elapsed());
    poll(SOON, "the old ones to be gone", || (bed.endpoints().len() == 1).then_some(()));
    assert!(answer(&bed.endpoint("web.1")).starts_with("web.1 v2 "));
    bed.stop();
    assert!(bed.left().is_empty());
}

#[test]
fn one_that_does_not_end_when_it_is_told_to_is_killed_after_the_grace_period() {
    let mut holder = Holder::of_version(1, "deaf", best());
    holder.kill();
    let mut bed = Bed::again(holder.level, holder.home.path(), &holder.mark, |settings| {
        with_doors(settings);
        settings.timing.grace = Duration::from_millis(300);
    });
    bed.runtime()
        .block_on(bed.engine().restore(bed.target(1, &[("worker", STUBBORN, 1)])))
        .unwrap();
    let before = pids(&bed);
    wait_until_replaced(&bed, &before);
    bed.wait_for_line("worker.1", "Process exited with status 137");
    let said = bed.said("worker.1");
    let place = |text: &str| said.iter().position(|line| line.starts_with(text)).unwrap();
    let steps =
        ["Stopping all processes with SIGTERM", "Error R12", "Process exited with status 137"];
    assert!(steps.map(place).is_sorted(), "{said:?}");
    bed.stop();
    assert!(bed.left().is_empty());
}

/// A shim that knows the frozen words alone, from their description: of version 99, with a log of its
/// own kind. It runs `web.pl`, and ends as it was told to.
const FROZEN: &str = r##"
use strict; use Socket; use POSIX ':sys_wait_h'; use Time::HiRes 'time';
my ($door, $hello, $end) = @ARGV;
socket(my $listener, PF_UNIX, SOCK_SEQPACKET, 0) or die "socket: $!";
bind($listener, pack_sockaddr_un($door)) or die "bind: $!";
listen($listener, 1) or die "listen: $!";
my $app = fork // die;
if (!$app) { exec 'perl', 'web.pl' or die "exec: $!" }
$SIG{TERM} = sub { kill 9, $app; exit 1 };
$| = 1;
my ($control, $kill_at, $status);
while (!defined $status) {
    if (!$control) {
        my $bits = ''; vec($bits, fileno $listener, 1) = 1;
        if (select($bits, undef, undef, 0.01) > 0) {
            accept($control, $listener) or die "accept: $!";
            send($control, '{"v":99,"is":{"weather":"mild"}}', 0) if $hello eq '';
            send($control, $hello, 0) if $hello ne '';
            send($control, '{"v":99,"is":{"weather":"mild"}}', 0);
        }
    } else {
        my $bits = ''; vec($bits, fileno $control, 1) = 1;
        if (select($bits, undef, undef, 0.01) > 0) {
            my $read = recv($control, my $order, 4096, 0);
            if (!defined $read || $order eq '') { undef $control }
            elsif ($order =~ /^\{"stop":\{"signal":(\d+),"grace_ms":(\d+)\}\}$/) {
                print "stopped with $1\n";
                kill $1, $app;
                $kill_at = time + $2 / 1000;
            }
        }
    }
    kill 9, $app if $kill_at && time > $kill_at;
    $status = $? if waitpid($app, WNOHANG) == $app;
}
if ($control) {
    my $signal = $status & 127;
    send($control, $end =~ s/SIGNAL/$signal/r, 0);
    my $heard = '';
    do { recv($control, $heard, 4096, 0) } until ($heard // '') eq '' || $heard eq '"heard"';
    print "heard\n" if $heard;
}
"##;

/// Starts one at level none, in the folder of an engine, as web.1 of release 1.
fn frozen_shim(home: &Home, mark: &str, port: u16, hello: &str) -> tolv_testkit::Tolv {
    let doors = home.path().join("doors");
    fs::create_dir_all(&doors).unwrap();
    let written = |lines: u64| {
        format!(
            r#""written":{{"written":{{"lines":{lines},"bytes":0}},"lost":{{"lines":0,"bytes":0}}}}"#
        )
    };
    let hello = hello.replace("WRITTEN", &written(3)).replace("PORT", &port.to_string());
    let end = format!(r#"{{"exited":{{"code":null,"signal":SIGNAL,{},"mood":[]}}}}"#, written(10));
    let mut command = Command::new("perl");
    command
        .args(["-e", FROZEN])
        .arg(doors.join("0000000000000007"))
        .args([hello, end])
        .current_dir(home.path().join("app"))
        .envs([("TOLV_PROCESS", "web.1"), ("TOLV_RELEASE", "v1"), ("MARK", mark)])
        .env("PORT", port.to_string())
        .stdin(Stdio::null());
    tolv_testkit::Tolv::start(&mut command)
}

const HELLO: &str = r#"{"hello":{"version":99,"process":"web.1","release":1,"writer":7,"mood":"good",
    "identity":{"plan":"0000000000000000000000000000000000000000000000000000000000000000",
    "port":PORT},WRITTEN,"stopping":false}}"#;

#[test]
fn the_frozen_words_are_enough_and_lines_that_cannot_be_read_are_counted_as_lost() {
    let (home, mark) = (Home::new(), mark());
    let again = || Bed::again(Level::None, home.path(), &mark, with_doors);
    // Makes the folders.
    again().stop();
    let port = tolv_testkit::free_port();
    let mut shim = frozen_shim(&home, &mark, port, HELLO);
    shim.wait_for_line(|line| line.starts_with("listening"), SOON);
    let mut bed = again();
    bed.file("go.sh", "until test -e $SHARED/go; do sleep 0.01; done; exec perl web.pl");
    let target = bed.target(1, &[("web", "sh go.sh", 1)]);
    bed.runtime().block_on(bed.engine().restore(target)).unwrap();
    let first = || bed.endpoints().into_iter().find(|one| one.address.port() == port);
    let up = || first().filter(|one| one.state == ProcessState::Up);
    let old = poll(SOON, "it to answer", up);
    assert_eq!(answer(&old), format!("web.1 v1 {port}"));
    bed.wait_for_line("web.1", "Starting process with command `sh go.sh`");
    assert!(old.routed && first().is_some());
    fs::write(bed.shared().join("go"), "").unwrap();
    shim.wait_for_line(|line| line == "stopped with 15", SOON);
    shim.wait_for_line(|line| line == "heard", SOON);
    assert!(shim.wait(SOON).success());
    bed.wait_for_line("web.1", "Process exited with status 143");
    bed.wait_for_line("web.1", "Error L10 (output buffer overflow): 7 lines dropped");
    assert_ne!(bed.endpoint("web.1").address.port(), port);
    bed.stop();
    assert!(bed.left().is_empty());
}

#[test]
fn one_that_says_what_nobody_understands_is_stopped_in_order() {
    let (home, mark) = (Home::new(), mark());
    let again = || Bed::again(Level::None, home.path(), &mark, with_doors);
    again().stop();
    let mut shim = frozen_shim(&home, &mark, tolv_testkit::free_port(), "");
    shim.wait_for_line(|line| line.starts_with("listening"), SOON);
    let mut bed = again();
    bed.runtime().block_on(bed.engine().restore(bed.target(1, &[]))).unwrap();
    shim.wait_for_line(|line| line == "stopped with 15", SOON);
    shim.wait_for_line(|line| line == "heard", SOON);
    assert!(shim.wait(SOON).success());
    bed.stop();
    assert!(bed.left().is_empty());
}
