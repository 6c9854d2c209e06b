//! What runs, and what does not come up.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv6Addr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use tolv_model::release::ReleaseNumber;
use tolv_run::{Culprit, Error, Exit, ProcessState, Reason};
use tolv_sandbox::view;
use tolv_testkit::poll;

use crate::bed::{Bed, IDLE, SOON, answer, best, each_level, machine, names, text};

#[track_caller]
fn culprit(outcome: Result<tolv_run::Outcome, Error>) -> Culprit {
    match outcome {
        Err(Error::Rollout { culprit, .. }) => *culprit,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_formation_comes_up_answers_and_goes_down() {
    each_level(|level| {
        let mut bed = Bed::new(level);
        let hello = "echo $DYNO $TOLV_RELEASE $HOME $PWD; exec sleep $MARK";
        let target = bed.target(3, &[("web", "perl web.pl", 2), ("worker", hello, 1)]);
        let app = view(level, &target.mounts, Path::new("/app")).display().to_string();
        let outcome = bed.converge(target).unwrap();
        assert_eq!(names(&outcome.started), ["web.1", "web.2", "worker.1"]);
        assert!(outcome.kept.is_empty() && outcome.stopping.is_empty());

        let up = bed.endpoints();
        assert_eq!(up.len(), 3);
        for process in &up {
            assert_eq!(process.state, ProcessState::Up, "{process:?}");
            assert_eq!((process.release, process.restarts), (ReleaseNumber(3), 0));
            assert!(process.routed && process.pid.is_some(), "{process:?}");
        }
        let ports: BTreeSet<_> = up.iter().map(|process| process.address.port()).collect();
        assert_eq!(ports.len(), 3, "{ports:?}");
        for process in &up[..2] {
            let wanted = format!("{} v3 {}", process.process, process.address.port());
            assert_eq!(answer(process), wanted);
        }
        assert_eq!(bed.answers().len(), 2);
        bed.wait_for_line("worker.1", &format!("worker.1 v3 {app} {app}"));

        bed.stop();
        assert!(bed.left().is_empty(), "{:?}", bed.left());
        assert!(bed.endpoints().is_empty());
        assert_eq!(
            bed.said("web.2"),
            [
                "Starting process with command `perl web.pl`",
                "State changed from starting to up",
                "Stopping all processes with SIGTERM",
                "Process exited with status 143",
                "State changed from up to down",
            ]
        );
        assert_eq!(bed.output("web.2"), [format!("listening on {}", up[1].address.port())]);
    });
}

#[test]
fn one_that_never_listens_on_its_port_is_a_boot_time_out() {
    each_level(|level| {
        let mut bed = Bed::with(level, |settings| settings.timing.boot = Duration::from_secs(2));
        let target = bed.target(1, &[("web", "env LISTEN=0 perl web.pl", 1)]);
        let culprit = culprit(bed.converge(target));
        assert_eq!(culprit.process.to_string(), "web.1");
        assert_eq!(culprit.exit(), None);
        let Reason::BootTimeout(boot) = &culprit.reason else { panic!("{culprit:?}") };
        assert_eq!(boot.limit, Duration::from_secs(2));
        assert!((20_000..30_000).contains(&boot.port), "{boot:?}");
        assert_eq!(boot.listens.len(), 1, "{culprit:?}");
        let port = boot.listens[0].port();
        assert_eq!(text(&culprit.last_lines[0]), format!("listening on {port}"));
        let words = format!("2 seconds; it listens on 127.0.0.1:{port}, not on port {}", boot.port);
        assert!(bed.endpoints().is_empty() && bed.left().is_empty());
        bed.stop();
        assert_eq!(
            bed.said("web.1"),
            [
                "Starting process with command `env LISTEN=0 perl web.pl`".to_owned(),
                format!("Error R10 (Boot timeout) -> Process was not ready within {words}"),
                "Stopping all processes with SIGKILL".to_owned(),
                "Process exited with status 137".to_owned(),
                "State changed from starting to crashed".to_owned(),
                "State changed from crashed to down".to_owned(),
            ]
        );
    });
}

#[test]
fn one_that_ends_before_it_is_ready_says_why() {
    each_level(|level| {
        let bed = Bed::with(level, |settings| settings.timing.uptime = SOON);
        let command = "echo starting; for n in $(seq 30); do echo line $n; done; \
                       echo 'no database' >&2; sleep 0.05; exit 3";
        for kind in ["web", "worker"] {
            let culprit = culprit(bed.converge(bed.target(1, &[(kind, command, 1)])));
            assert_eq!(culprit.process.to_string(), format!("{kind}.1"));
            assert_eq!(culprit.reason, Reason::Exited(Exit::Code(3)));
            let last: Vec<_> = culprit.last_lines.iter().map(text).collect();
            assert_eq!(last.len(), 20, "{last:?}");
            assert!(last.contains(&"no database".to_owned()), "{last:?}");
            assert!(last.contains(&"line 30".to_owned()), "{last:?}");
            assert!(!last.contains(&"starting".to_owned()), "{last:?}");
            assert!(bed.endpoints().is_empty());
        }
    });
}

#[test]
fn a_command_that_is_not_there_or_no_program_is_said_to_be_that() {
    each_level(|level| {
        let bed = Bed::new(level);
        let plain = bed.file("plain.sh", "#!/bin/sh\nsleep 9\n");
        fs::set_permissions(plain, fs::Permissions::from_mode(0o644)).unwrap();
        for (command, status) in [
            ("no-such-program --port 1", 127),
            ("./no-such-file", 127),
            ("./plain.sh", 126),
            ("true && no-such-program", 127),
        ] {
            let culprit = culprit(bed.converge(bed.target(1, &[("web", command, 1)])));
            let wanted = Reason::CommandNotFound(Exit::Code(status));
            assert_eq!(culprit.reason, wanted, "{level}: {command}: {culprit:?}");
        }
    });
}

#[test]
fn a_slug_that_is_gone_is_said_to_be_that() {
    let bed = Bed::new(best());
    fs::remove_dir_all(bed.app()).unwrap();
    let culprit = culprit(bed.converge(bed.target(1, &[("worker", IDLE, 1)])));
    let Reason::NotStarted(why) = &culprit.reason else { panic!("{culprit:?}") };
    assert!(why.why.contains("there is no"), "{why}");
    assert!(bed.endpoints().is_empty());
}

#[test]
fn memory_beyond_the_limit_is_r15_where_a_controller_is() {
    if !machine().cgroups.controllers.iter().any(|name| name == "memory") {
        println!("no memory controller");
        return;
    }
    each_level(|level| {
        let mut bed = Bed::with(level, |settings| settings.timing.uptime = SOON);
        let command = "perl -e '$x = \"x\" x (200 << 20); sleep 1000'";
        let mut target = bed.target(1, &[("worker", command, 1)]);
        target.limits.default.memory = Some(32 << 20);
        let culprit = culprit(bed.converge(target));
        assert_eq!(culprit.reason, Reason::OutOfMemory(Exit::Signal(9)));
        bed.stop();
        let said = bed.said("worker.1");
        let wanted = "Error R15 (Memory quota vastly exceeded) -> the kernel stopped 1 process at \
            the memory limit of 32M; more: tolv limits worker --memory";
        assert!(said.contains(&wanted.to_owned()), "{level}: {said:?}");
    });
}

#[test]
fn memory_that_comes_near_the_limit_is_r14() {
    if !machine().cgroups.controllers.iter().any(|name| name == "memory") {
        println!("no memory controller");
        return;
    }
    each_level(|level| {
        let mut bed = Bed::new(level);
        bed.file(
            "grow.py",
            "import time\nheld = [b'x' * (1 << 20) for _ in range(46)]\n\
             while True:\n    held.append(b'y' * (1 << 19))\n    time.sleep(0.2)\n",
        );
        let mut target = bed.target(1, &[("worker", "exec python3 grow.py", 1)]);
        target.limits.default.memory = Some(64 << 20);
        bed.converge(target).unwrap();
        bed.wait_for_line("worker.1", "Error R14 (Memory quota exceeded)");
        bed.stop();
        let said = bed.said("worker.1");
        let before = said.iter().take_while(|line| !line.contains("R14")).last().unwrap();
        assert!(before.starts_with("Process running mem=6"), "{level}: {said:?}");
    });
}

#[test]
fn one_that_listens_on_the_other_loopback_address_is_found_there() {
    if TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_err() {
        println!("no IPv6");
        return;
    }
    let bed = Bed::new(best());
    bed.file(
        "six.pl",
        "use Socket qw(:all); socket(S, PF_INET6, SOCK_STREAM, 0) or die $!;
         bind(S, pack_sockaddr_in6($ENV{PORT}, inet_pton(AF_INET6, '::1'))) or die $!;
         listen(S, 9); while (accept(C, S)) { print C \"HTTP/1.0 200 OK\\r\\n\\r\\nsix\"; close C }",
    );
    bed.converge(bed.target(1, &[("web", "perl six.pl", 1)])).unwrap();
    let web = bed.endpoint("web.1");
    assert_eq!(web.address.ip(), Ipv6Addr::LOCALHOST);
    assert!((20_000..30_000).contains(&web.address.port()));
}

#[test]
fn a_stranger_on_its_port_gets_no_request() {
    each_level(|level| {
        let bed = Bed::new(level);
        // It listens when it is told to, and a stranger is there before it.
        let begin = bed.shared().join("begin");
        let command = "until [ -e $SHARED/begin ]; do sleep 0.05; done; exec perl web.pl";
        let target = bed.target(1, &[("web", command, 1)]);
        std::thread::scope(|scope| {
            let rollout = scope.spawn(|| bed.converge(target));
            let port = poll(SOON, "its port", || {
                let endpoints = bed.endpoints();
                endpoints.first().map(|web| web.address.port()).filter(|&port| port != 0)
            });
            let Ok(stranger) = TcpListener::bind((Ipv6Addr::LOCALHOST, port)) else {
                println!("no IPv6");
                std::fs::write(&begin, "").unwrap();
                rollout.join().unwrap().unwrap();
                return;
            };
            stranger.set_nonblocking(true).unwrap();
            poll(SOON, "it to run", || bed.endpoint("web.1").pid);
            // Several looks at the port.
            let until = std::time::Instant::now() + std::time::Duration::from_millis(300);
            poll(SOON, "some time", || (std::time::Instant::now() >= until).then_some(()));
            assert_eq!(bed.endpoint("web.1").state, ProcessState::Starting, "{level}");
            std::fs::write(&begin, "").unwrap();
            rollout.join().unwrap().unwrap();
            let web = bed.endpoint("web.1");
            assert_eq!(web.address.ip(), std::net::Ipv4Addr::LOCALHOST, "{level}");
            assert_eq!(bed.answers(), [format!("web.1 v1 {port}")], "{level}");
            let nobody = stranger.accept().map(|(_, peer)| peer);
            assert!(nobody.is_err(), "{level}: the stranger was asked by {nobody:?}");
        });
    });
}

#[test]
fn what_takes_the_place_of_a_process_is_not_connected_to() {
    each_level(|level| {
        let bed = Bed::new(level);
        bed.converge(bed.target(1, &[("web", "exec perl web.pl", 1)])).unwrap();
        let web = bed.endpoint("web.1");
        let connect = || bed.runtime().block_on(web.connector.connect(web.address)).map(drop);
        assert!(connect().is_ok(), "{level}");
        let raw = rustix::process::Pid::from_raw(web.pid.unwrap()).unwrap();
        rustix::process::kill_process(raw, rustix::process::Signal::KILL).unwrap();
        if web.connector.network().is_some() {
            // Nobody else can be there; it takes a moment to die.
            poll(SOON, "the process to be gone", || connect().is_err().then_some(()));
            return;
        }
        let _stranger = poll(SOON, "the port to be free", || {
            TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, web.address.port())).ok()
        });
        assert!(connect().is_err(), "{level}");
    });
}
