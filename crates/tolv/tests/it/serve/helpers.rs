//! A helper process of the platform is killed, or its descriptors run out: what runs goes on, and all
//! of it works again.

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::TcpStream;

use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, prlimit, setrlimit};

use super::*;

/// The process below this one that starts sandboxes.
pub(super) fn spawner(platform: Pid) -> Option<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", platform.as_raw_nonzero())).unwrap();
    let children = tasks.flatten().filter_map(|task| {
        // A thread that has ended meanwhile has none.
        std::fs::read_to_string(task.path().join("children")).ok()
    });
    let children: Vec<i32> = children
        .flat_map(|all| all.split_whitespace().map(|pid| pid.parse().unwrap()).collect::<Vec<_>>())
        .collect();
    let mut spawners = children.into_iter().filter(|pid| {
        let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        words.split(|byte| *byte == 0).any(|word| word == b"spawner")
    });
    spawners.next().and_then(Pid::from_raw)
}

#[test]
fn the_spawner_is_killed_and_there_is_another_one() {
    let mut shop = Shop::new("web: python3 server.py\nworker: sleep 1000\n", &[]);
    shop.pushed(&["tolv", "main"]);
    for round in 0..2 {
        let before = shop.text("shop.localhost", "/");
        let platform = shop.serve.running().pid();
        let old = spawner(platform).unwrap();
        kill_process(old, Signal::KILL).unwrap();
        assert_eq!(shop.text("shop.localhost", "/"), before, "the app was taken along");
        poll(SOON, "another spawner", || spawner(platform).filter(|new| *new != old));
        if round == 0 {
            assert!(shop.ran(&["run", "--", "echo", "a one-off"]).out.contains("a one-off"));
            shop.tolv(&["restart"]);
            assert_ne!(shop.text("shop.localhost", "/"), before, "it is not another process");
            shop.change("Procfile", "web: python3 server.py\n");
            shop.pushed(&["tolv", "main"]);
            shop.tolv(&["scale", "web=2"]);
            shop.tolv(&["scale", "web=1"]);
        } else {
            // With nothing asked of the new one, and with the old one's processes.
            shop.tolv(&["stop"]);
        }
    }
    let status = shop.serve.end(Signal::TERM);
    assert!(status.success(), "{status}");
}

#[test]
fn the_spawner_of_up_is_killed_and_there_is_another_one() {
    let home = crate::codebase("web: python3 server.py\n");
    let dir = crate::shop(&home);
    let mut up = crate::Up::start(&dir, &[]);
    let before = up.text("/");
    let old = spawner(up.tolv.pid()).unwrap();
    kill_process(old, Signal::KILL).unwrap();
    assert_eq!(up.text("/"), before, "the app was taken along");
    poll(SOON, "another spawner", || spawner(up.tolv.pid()).filter(|new| *new != old));
    up.sees("there is a new one");
    for args in [&["restart", "web"][..], &["run", "--", "true"]] {
        let ran = crate::output(crate::tolv().current_dir(&dir).args(args));
        assert!(ran.status.success(), "{args:?}: {}", crate::stderr(&ran));
    }
    assert_ne!(up.text("/"), before, "it is not another process");
    up.tolv.signal(Signal::TERM);
    assert_eq!(up.tolv.wait(SOON).code(), Some(0));
}

#[test]
fn a_spawner_that_is_killed_again_and_again_is_replaced_in_the_end() {
    let mut shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    let platform = shop.serve.running().pid();
    let mut seen = std::collections::BTreeSet::new();
    let began = std::time::Instant::now();
    while seen.len() < 4 {
        let pid = poll(SOON, "another spawner", || {
            spawner(platform).filter(|pid| !seen.contains(&pid.as_raw_nonzero()))
        });
        seen.insert(pid.as_raw_nonzero());
        kill_process(pid, Signal::KILL).unwrap();
        assert_eq!(shop.text("shop.localhost", "/"), "one");
    }
    // The first one was there for a while; each of the others is a second behind the one before.
    assert!(began.elapsed() >= std::time::Duration::from_secs(2), "{:?}", began.elapsed());
    poll(SOON, "another spawner", || {
        spawner(platform).filter(|pid| !seen.contains(&pid.as_raw_nonzero()))
    });
    shop.change("index.html", "two");
    shop.pushed(&["tolv", "main"]);
    assert_eq!(shop.text("shop.localhost", "/"), "two");
    // With none, right before the end.
    let last = spawner(platform).unwrap();
    kill_process(last, Signal::KILL).unwrap();
    let status = shop.serve.end(Signal::TERM);
    assert!(status.success(), "{status}");
}

/// A process's descriptors, and what each is of.
fn descriptors(pid: Pid) -> BTreeSet<(u64, PathBuf)> {
    let all = std::fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap();
    let number = |entry: &std::fs::DirEntry| entry.file_name().to_str().unwrap().parse().unwrap();
    // One that is gone by now was there for a moment alone.
    let open =
        |entry: std::fs::DirEntry| Some((number(&entry), std::fs::read_link(entry.path()).ok()?));
    all.flatten().filter_map(open).collect()
}

#[test]
fn without_descriptors_the_platform_is_to_blame_and_not_the_app() {
    let own = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: Some(256), ..own }).unwrap();
    let shop = Shop::new("web: python3 server.py\n", &[]);
    shop.pushed(&["tolv", "main"]);
    let platform = shop.serve.running().pid();
    let whole = Rlimit { current: own.maximum, maximum: own.maximum };
    // A client that has a connection, and no request yet.
    let before = descriptors(platform);
    let mut client = TcpStream::connect(("127.0.0.1", shop.serve.http())).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    poll(SOON, "the connection", || {
        descriptors(platform).difference(&before).next().is_some().then_some(())
    });
    // Without those that are there for a moment, such as of the disk that is looked at.
    let used = (0..100).fold(descriptors(platform), |used, _| &used & &descriptors(platform));
    let used: BTreeSet<_> = used.into_iter().map(|(number, _)| number).collect();
    let free = (0..).find(|number| !used.contains(number));
    let none = Rlimit { current: free, maximum: own.maximum };
    let at_start = prlimit(Some(platform), Resource::Nofile, none).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: shop.localhost\r\n\r\n").unwrap();
    let mut head = [0; 12];
    std::io::Read::read_exact(&mut client, &mut head).unwrap();
    prlimit(Some(platform), Resource::Nofile, whole).unwrap();
    assert_eq!(String::from_utf8_lossy(&head), "HTTP/1.1 503");
    assert_eq!(at_start.current, whole.current, "it was not raised");
    // The process was not taken out of service for it.
    shop.text("shop.localhost", "/");
    let told = poll(SOON, "the access line", || {
        let logs = shop.tolv(&["logs"]);
        logs.lines().find(|line| line.contains("status=503")).map(str::to_owned)
    });
    assert!(told.contains("H99") && told.contains("no descriptor is left"), "{told}");
    assert!(!shop.tolv(&["logs"]).contains("H21"));
}

#[test]
fn what_a_killed_platform_has_left_is_swept_by_the_next_one() {
    let mut shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    shop.serve.end(Signal::KILL);
    let state = shop.serve.state();
    // No number of a process is as large.
    let push = state.join("git/pushes/4294967295-3");
    std::fs::create_dir(&push).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(push.join("socket")).unwrap();
    let files = [".proofs", "anchors/.one", "running/.one", "git/hooks/.proc-receive"];
    let files = files.map(|name| state.join(format!("{name}.4294967295.0")));
    for file in &files {
        std::fs::write(file, "half").unwrap();
    }
    shop.serve.begin();
    assert!(!push.exists());
    for file in files {
        assert!(!file.exists(), "{}", file.display());
    }
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    shop.change("index.html", "two");
    shop.pushed(&["tolv", "main"]);
}

#[test]
fn of_a_killed_platform_whose_state_folder_is_gone_nothing_stays_on_the_machine() {
    let mark = format!("tolv-gone-{}", std::process::id());
    let mut shop = Shop::new("web: python3 server.py\n", &[("TOLV_NETWORK", "machine")]);
    shop.tolv(&["config", "set", &format!("MARK={mark}")]);
    shop.pushed(&["tolv", "main"]);
    shop.text("shop.localhost", "/");
    let port = crate::processes_with(&mark).into_iter().find_map(|pid| {
        let environ = std::fs::read_to_string(format!("/proc/{pid}/environ")).ok()?;
        environ.split('\0').find_map(|entry| Some(entry.strip_prefix("PORT=")?.to_owned()))
    });
    let user = rustix::process::geteuid();
    let run = if user.is_root() { "/run".to_owned() } else { format!("/run/user/{user}") };
    let lock = Path::new(&run).join("tolv-ports").join(port.unwrap());
    assert!(lock.exists() || !user.is_root(), "{}", lock.display());
    shop.serve.end(Signal::KILL);
    assert!(
        !crate::processes_with(&mark).is_empty(),
        "it goes on until the next platform is there"
    );
    let state = shop.serve.state();
    poll(SOON, "the folder to be gone", || std::fs::remove_dir_all(&state).ok());
    poll(SOON, "its processes to be gone", || {
        crate::processes_with(&mark).is_empty().then_some(())
    });
    // Another platform, with a state folder of its own.
    let _other = Shop::site("one", &[]);
    assert!(!lock.exists(), "{}", lock.display());
}

/// Who pushes waits for a whole answer, for ever.
#[test]
fn a_push_whose_git_is_killed_ends_and_says_where_to_look() {
    let shop = Shop::new("web: python3 server.py\nrelease: sh release.sh\n", &[]);
    shop.change("release.sh", "echo begun; sleep 1000");
    let push = push_command(&shop.serve, &shop.dir, &["tolv", "main"]);
    let mut push = tolv_testkit::Tolv::start(&mut { push });
    poll(SOON, "its release phase", || {
        shop.ran(&["logs", "-p", "release"]).out.contains(": begun").then_some(())
    });
    // All that git started, the platform's end of it: its folder is in each one's words.
    let folder = shop.serve.state().join("git/shop.git");
    for pid in crate::processes_with(&format!("--git-dir\0{}", folder.display())) {
        let pid = Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        kill_process(pid, Signal::KILL).ok();
    }
    assert!(!push.wait(SOON).success());
    let said: Vec<_> = push.lines().into_iter().map(|line| line.text).collect();
    assert!(said.iter().any(|line| line.contains("see `tolv operations`")), "{said:?}");
    let operations = shop.json(&["operations"]);
    assert_eq!(operations["items"][0]["state"], "running", "{operations}");
    shop.tolv(&["operations", "cancel", operations["items"][0]["id"].as_str().unwrap()]);
}

/// A cgroup that bounds the processes of those in it; gone when dropped, if nobody is in it.
struct Bound(std::path::PathBuf);

impl Bound {
    /// Nothing where this user cannot make one that bounds forks of the spawner: those of version 2
    /// count at the group that a fork goes to.
    fn new() -> Option<Self> {
        let name = format!("tolv-test-{}-{}", std::process::id(), tolv_testkit::free_port());
        let folder = Path::new("/sys/fs/cgroup/pids").join(name);
        std::fs::create_dir(&folder).ok()?;
        Some(Self(folder))
    }

    fn take(&self, pid: Pid) {
        std::fs::write(self.0.join("cgroup.procs"), pid.as_raw_nonzero().to_string()).unwrap();
    }

    fn limit(&self, most: &str) {
        std::fs::write(self.0.join("pids.max"), most).unwrap();
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        let members = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines() {
            std::fs::write("/sys/fs/cgroup/pids/cgroup.procs", pid).ok();
        }
        std::fs::remove_dir(&self.0).ok();
    }
}

#[test]
fn without_processes_each_command_names_that_cause_and_all_works_again() {
    let Some(bound) = Bound::new() else {
        println!("skipped: this user cannot bound processes by a cgroup of version 1");
        return;
    };
    let shop = Shop::new("web: python3 server.py\nworker: sleep 1000\n", &[]);
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["scale", "worker=1"]);
    let before = shop.text("shop.localhost", "/");
    let platform = shop.serve.running().pid();
    bound.take(platform);
    bound.take(spawner(platform).unwrap());
    bound.limit("1");
    let worker = shop.json(&["ps"])["items"].as_array().unwrap().clone();
    let worker = worker.iter().find(|process| process["name"] == "worker.1").unwrap();
    let worker = i32::try_from(worker["pid"].as_i64().unwrap()).unwrap();
    kill_process(Pid::from_raw(worker).unwrap(), Signal::KILL).unwrap();
    let told = |ran: &Ran| {
        let said = format!("{}{}", ran.out, ran.err);
        assert!(!ran.status.success(), "{said}");
        assert!(said.contains("the platform has no free process"), "{said}");
        for raw in ["clone", "temporarily unavailable", "the operator finds"] {
            assert!(!said.contains(raw), "{raw}: {said}");
        }
        said
    };
    for args in [
        &["run", "--", "true"][..],
        &["restart", "web"],
        &["scale", "web=2"],
        &["config", "set", "A=1"],
    ] {
        let said = told(&shop.ran(args));
        println!("tolv {}: {said}", args.join(" "));
    }
    shop.change("server.py", &std::fs::read_to_string(shop.dir.join("server.py")).unwrap());
    std::fs::write(shop.dir.join("more"), "more").unwrap();
    git::commit(&shop.dir);
    assert!(told(&shop.push(&["tolv", "main"])).contains("503"));
    // What runs answers, and a status says what is missing.
    assert_eq!(shop.text("shop.localhost", "/"), before);
    let status = shop.ran(&["status", "--platform"]);
    assert!(status.out.contains("fail  threads      the cgroup /tolv-test-"), "{}", status.out);
    poll(SOON, "the worker's cause", || {
        let logs = shop.tolv(&["logs", "-n", "200", "-p", "worker"]);
        logs.contains("no free process; it is tried again every second").then_some(())
    });
    bound.limit("max");
    poll(SOON, "the worker to run again", || {
        let processes = shop.json(&["ps"])["items"].as_array().unwrap().clone();
        let is_up =
            |process: &serde_json::Value| process["name"] == "worker.1" && process["state"] == "up";
        processes.iter().any(is_up).then_some(())
    });
    assert!(shop.ran(&["run", "--", "echo", "a one-off"]).out.contains("a one-off"));
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["restart"]);
    drop(shop);
}

#[test]
fn a_start_waits_for_a_spawner_that_is_not_replaced_at_once() {
    let shop = Shop::site("one", &[]);
    shop.pushed(&["tolv", "main"]);
    let platform = shop.serve.running().pid();
    for args in [&["start"][..], &["config", "set", "A=1"]] {
        if args == ["start"] {
            shop.tolv(&["stop"]);
        }
        // The one that comes after the first lives too briefly for the next to follow at once.
        let first = spawner(platform).unwrap();
        kill_process(first, Signal::KILL).unwrap();
        let second =
            poll(SOON, "another spawner", || spawner(platform).filter(|new| *new != first));
        kill_process(second, Signal::KILL).unwrap();
        shop.tolv(args);
        assert_eq!(shop.text("shop.localhost", "/"), "one");
    }
}
