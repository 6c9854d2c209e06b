//! Starts, ends, and what is left after them.

use std::io::Read as _;
use std::time::{Duration, Instant};

use rustix::pipe::{PipeFlags, pipe_with};
use tolv_sandbox::{Cancel, Error, Exec, Job, Level, Spec};
use tolv_testkit::poll;

use crate::{levels, run, shell, spawner};

#[test]
fn codes_and_signals_come_back_as_they_are() {
    let spawner = spawner();
    for level in levels(&spawner) {
        let spec = || Spec::new(level, "life");
        let (status, _) = run(&spawner, spec(), shell("exit 7")).unwrap();
        assert_eq!((status.code, status.signal), (Some(7), None), "{level}");
        let (status, _) = run(&spawner, spec(), shell("kill -9 $$")).unwrap();
        assert_eq!((status.code, status.signal), (None, Some(9)), "{level}");
    }
}

#[test]
fn a_program_that_is_not_there_says_so() {
    let spawner = spawner();
    for level in levels(&spawner) {
        let exec = Exec { argv: vec![b"no-such-program".to_vec()], ..shell("") };
        match run(&spawner, Spec::new(level, "life"), exec) {
            Err(Error::Exec(bad)) => {
                assert_eq!((bad.errno, bad.what.as_str()), (libc::ENOENT, "exec no-such-program"));
            }
            other => panic!("{level}: {other:?}"),
        }
        let exec = Exec { cwd: "/no/such/folder".into(), ..shell("true") };
        match run(&spawner, Spec::new(level, "life"), exec) {
            Err(Error::Exec(bad)) => assert_eq!(bad.what, "chdir /no/such/folder"),
            other => panic!("{level}: {other:?}"),
        }
    }
}

#[test]
fn nothing_outlives_the_program_whatever_it_forked() {
    let spawner = spawner();
    for level in levels(&spawner) {
        let start = Instant::now();
        let script = "setsid sh -c 'sleep 1000 & sleep 1000' & (sleep 1000 &) ; echo done";
        let (status, said) = run(&spawner, Spec::new(level, "life"), shell(script)).unwrap();
        assert!(status.success(), "{level}");
        assert_eq!(said, "done\n", "{level}");
        // The sleepers held its stdout: an end of output means that they are gone.
        assert!(start.elapsed() < Duration::from_secs(30), "{level}: {:?}", start.elapsed());
    }
}

#[test]
fn a_cancel_ends_everything() {
    let spawner = spawner();
    for level in levels(&spawner) {
        let cancel = Cancel::new().unwrap();
        let job = Job {
            spec: Spec::new(level, "life"),
            exec: shell("trap '' TERM INT HUP; echo up; sleep 1000 & sleep 1000"),
            time_limit: None,
        };
        let pull = cancel.clone();
        let ended = tolv_sandbox::run(&spawner, &job, &mut |_, _| pull.cancel(), &cancel);
        assert!(matches!(ended, Err(Error::Cancelled)), "{level}: {ended:?}");
    }
}

#[test]
fn time_is_limited() {
    let spawner = spawner();
    for level in levels(&spawner) {
        let limit = Duration::from_millis(300);
        let spec = Spec::new(level, "life");
        let job = Job { spec, exec: shell("sleep 1000"), time_limit: Some(limit) };
        let ended = tolv_sandbox::run(&spawner, &job, &mut |_, _| {}, &Cancel::new().unwrap());
        assert!(matches!(ended, Err(Error::TimeLimit(_))), "{level}: {ended:?}");
    }
}

#[test]
fn much_output_comes_whole_and_many_run_at_once() {
    let spawner = spawner();
    let level = levels(&spawner)[0];
    std::thread::scope(|scope| {
        for n in 0..8 {
            let spawner = &spawner;
            scope.spawn(move || {
                let script = format!("head -c 3000000 /dev/zero | tr '\\0' x; exit {n}");
                let (status, said) =
                    run(spawner, Spec::new(level, &format!("app{n}")), shell(&script)).unwrap();
                assert_eq!((status.code, said.len()), (Some(n), 3_000_000));
            });
        }
    });
}

#[test]
fn a_refused_launch_keeps_no_descriptor() {
    let spawner = spawner();
    for level in levels(&spawner) {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC).unwrap();
        let launch = tolv_sandbox::Launch {
            body: "no-such-body",
            payload: Vec::new(),
            fds: vec![write],
            spec: Spec::new(level, "life"),
        };
        assert!(matches!(spawner.launch(launch), Err(Error::BadLaunch(_))));
        let mut rest = String::new();
        std::fs::File::from(read).read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "");
    }
}

#[test]
fn a_dropped_spawner_is_gone() {
    let spawner = spawner();
    let (status, pids) =
        run(&spawner, Spec::new(Level::None, "life"), shell("cut -d' ' -f4 /proc/$PPID/stat"))
            .unwrap();
    assert!(status.success());
    let pid = pids.trim().to_owned();
    let alive = || std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok();
    assert!(alive());
    drop(spawner);
    poll(Duration::from_secs(5), "the spawner to be gone", || (!alive()).then_some(()));
}

#[test]
fn bad_launches_are_refused_before_anything_starts() {
    let spawner = spawner();
    for (source, target) in [("/no/such/source", "/app"), ("/usr", "app"), ("/usr", "/a/../b")] {
        let mut spec = Spec::new(Level::None, "life");
        spec.mounts.push(tolv_sandbox::Mount::read_only(source, target));
        let refused = run(&spawner, spec, shell("true"));
        assert!(matches!(refused, Err(Error::BadLaunch(_))), "{source} {target}: {refused:?}");
    }
}
