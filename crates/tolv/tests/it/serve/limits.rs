//! Sizes of processes, and what one app can take from another: nothing.

use std::fmt::Write as _;

use serde_json::Value;

use super::*;
use crate::LATER;

/// Says what it was given.
const TELL: &str = "import os\nprint(os.environ.get('WEB_CONCURRENCY'))\n";

impl Shop {
    /// The limits of a process that runs.
    fn limits_of(&self, process: &str) -> Value {
        let page = self.json(&["ps"]);
        // During a rollout the old one is there too.
        let its = page["items"].as_array().unwrap().iter().filter(|one| one["name"] == process);
        let found = its.max_by_key(|one| one["release"].as_u64());
        found.unwrap_or_else(|| panic!("no {process}: {page}"))["limits"].clone()
    }

    fn release(&self, number: u32) -> Value {
        self.json(&["releases", "info", &format!("v{number}")])
    }

    #[track_caller]
    fn refused(&self, args: &[&str], wanted: &str) {
        let ran = self.ran(args);
        assert!(!ran.status.success(), "{args:?}: {}", ran.out);
        assert!(ran.err.contains(wanted), "{args:?}: {}", ran.err);
    }
}

fn mib(limits: &Value) -> u64 {
    limits["memory"].as_u64().unwrap() >> 20
}

#[test]
fn sizes_are_part_of_the_release() {
    let shop = Shop::new("web: python3 server.py\nworker: sleep 1000\n", &[]);
    std::fs::write(shop.dir.join("tell.py"), TELL).unwrap();
    shop.change(
        "app.json",
        r#"{"formation": {"web": {"quantity": 1, "size": "standard-2x"}, "worker": {"quantity": 1}}}"#,
    );
    shop.pushed(&["tolv", "main"]);
    let web = shop.limits_of("web.1");
    assert_eq!((mib(&web), web["cpu_weight"].as_u64()), (1024, Some(200)), "{web}");
    let worker = shop.limits_of("worker.1");
    assert_eq!((mib(&worker), worker["processes"].as_u64()), (512, Some(1024)), "{worker}");
    assert_eq!(worker["shm"].as_u64(), Some(64 << 20));

    let said = shop.tolv(&["limits", "web", "--memory", "768M", "--processes", "64"]);
    assert!(said.contains("has new limits for web: memory=768M,processes=64"), "{said}");
    let web = shop.limits_of("web.1");
    assert_eq!(
        (mib(&web), web["processes"].as_u64(), web["cpu_weight"].as_u64()),
        (768, Some(64), Some(200))
    );
    assert_eq!(shop.release(2)["reason"], "Limits: web memory=768M,processes=64");
    // What is so already is no release; what is scaled with a size is one.
    shop.tolv(&["limits", "web", "--memory", "768M"]);
    shop.tolv(&["scale", "web=1:1G", "worker=2"]);
    assert_eq!(mib(&shop.limits_of("web.1")), 1024);
    assert_eq!(mib(&shop.limits_of("worker.2")), 512);
    assert_eq!(shop.release(3)["sizes"]["web"], "memory=1G,cpu-weight=200,processes=64");
    shop.tolv(&["rollback", "v2"]);
    assert_eq!(mib(&shop.limits_of("web.1")), 768);
    // And the next deploy stays there.
    shop.change("new.txt", "x");
    shop.pushed(&["tolv", "main"]);
    assert_eq!(mib(&shop.limits_of("web.1")), 768);
    shop.tolv(&["limits", "web", "--reset"]);
    assert_eq!(mib(&shop.limits_of("web.1")), 1024);
    let shown = shop.tolv(&["limits"]);
    assert!(
        shown.contains("worker") && shown.contains("512M") && shown.contains("default"),
        "{shown}"
    );

    // One-offs have a size of their own, and WEB_CONCURRENCY follows it.
    for (args, wanted) in [(&["run"][..], "1"), (&["run", "--size", "1G"], "2")] {
        let args = [args, &["--", "python3", "tell.py"]].concat();
        assert_eq!(shop.tolv(&args).trim(), wanted, "{args:?}");
    }
    shop.tolv(&["limits", "run", "--memory", "1G"]);
    assert_eq!(shop.tolv(&["run", "--", "python3", "tell.py"]).trim(), "2");
    assert!(shop.tolv(&["releases", "verify"]).contains("hold"));

    shop.refused(&["limits", "web", "--memory", "15T"], "TOLV_MAX_SIZE");
    shop.refused(&["limits", "web", "--memory", "1M"], "from 16M to 16T");
    shop.refused(&["limits", "wbe", "--memory", "1G"], "no process type `wbe`");
    shop.refused(&["scale", "web=1:huge"], "`huge` is not a size");
    shop.refused(&["run", "--size", "15T", "--", "true"], "TOLV_MAX_SIZE");
}

#[test]
fn the_operator_says_what_an_app_gets_and_what_it_may_ask_for() {
    let sizes = [("TOLV_SIZE", "memory=100M,processes=50"), ("TOLV_MAX_SIZE", "memory=200M")];
    let shop = Shop::new("web: python3 server.py\nworker: sleep 1000\n", &sizes);
    shop.change(
        "app.json",
        r#"{"formation": {"web": {"size": "performance-l"}, "worker": {"quantity": 1}}}"#,
    );
    // Heroku's name runs here too, with what there is, which is said.
    let said = shop.pushed(&["tolv", "main"]);
    assert!(said.contains("web: memory 14G: at most 200M here"), "{said}");
    assert_eq!(mib(&shop.limits_of("web.1")), 200);
    let worker = shop.limits_of("worker.1");
    assert_eq!((mib(&worker), worker["processes"].as_u64()), (100, Some(50)));
    shop.refused(&["limits", "web", "--memory", "201M"], "at most 200M here");
}

#[test]
fn nobody_gets_more_cpu_weight_than_goes_with_the_memory() {
    let shop = Shop::new("web: python3 server.py\n", &[]);
    shop.change(
        "app.json",
        r#"{"formation": {"web": {"quantity": 1, "size": "cpu-weight=10000"}}}"#,
    );
    let said = shop.pushed(&["tolv", "main"]);
    assert!(said.contains("web: cpu-weight 10000: at most 100 here"), "{said}");
    assert_eq!(shop.limits_of("web.1")["cpu_weight"], 100);
    let most = "cpu-weight 10000: at most 100 here";
    shop.refused(&["run", "--size", "cpu-weight=10000", "--", "true"], most);
    shop.refused(&["scale", "web=1:cpu-weight=10000"], most);
}

/// MiB of memory that this machine has.
fn memory_of_this_machine() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    total.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1024
}

#[test]
fn the_processes_of_a_deploy_do_not_take_the_whole_machine_together() {
    let shop = Shop::new("web: python3 server.py\n", &[]);
    shop.pushed(&["tolv", "main"]);
    // A container may have less; the first answer says how much.
    let ran = shop.ran(&["run", "--size", "memory=16T,processes=4194304", "--", "true"]);
    let most = |part: &str| {
        let (_, rest) = ran.err.split_once(part).unwrap_or_else(|| panic!("{}", ran.err));
        let (_, rest) = rest.split_once("at most ").unwrap();
        rest.split_once(" here").unwrap().0.to_owned()
    };
    let half = memory_of_this_machine() / 3;
    shop.refused(&["scale", &format!("web=4:{half}M")], "of memory together: at most");
    let all = format!("processes={}", most("processes 4194304"));
    shop.refused(&["run", "--size", &all, "--", "true"], "processes and threads together: at most");
    shop.refused(&["scale", &format!("web=2:{all}")], "processes and threads together: at most");
    assert!(!shop.text("shop.localhost", "/count").is_empty());
    assert_eq!(shop.tolv(&["run", "--", "echo", "fine"]).trim(), "fine");
}

/// A program that starts `tolv` in a cgroup with so many processes, and the cgroup.
fn contained(name: &str, processes: u32) -> Option<(PathBuf, PathBuf, tolv_testkit::Home)> {
    let top = ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].into_iter().map(Path::new);
    let top = top.into_iter().find(|top| top.join("cgroup.procs").exists())?;
    let group = top.join(format!("tolv-test-{name}-{}", std::process::id()));
    std::fs::create_dir(&group).ok()?;
    std::fs::write(group.join("pids.max"), processes.to_string()).ok()?;
    let home = tolv_testkit::Home::new();
    let program = home.path().join("tolv");
    let procs = group.join("cgroup.procs");
    let text = format!(
        "#!/bin/sh\necho $$ > {}\nexec {} \"$@\"\n",
        procs.display(),
        env!("CARGO_BIN_EXE_tolv")
    );
    std::fs::write(&program, text).unwrap();
    let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, executable).unwrap();
    Some((program, group, home))
}

#[test]
fn a_container_s_bound_on_processes_is_the_machine_s() {
    let Some((program, group, _home)) = contained("pids", 3000) else { return };
    let serve = Serve::start(program.to_str().unwrap(), &[]);
    let dir = serve.folder("shop");
    serve.tolv(&dir, &["create", "shop"]);
    let ran = serve.ran(&dir, &["limits", "web", "--processes", "2900", "-d", "shop/production"]);
    drop(serve);
    poll(SOON, "the cgroup is empty", || std::fs::remove_dir(&group).ok());
    assert!(!ran.status.success(), "{}", ran.out);
    assert!(ran.err.contains("processes 2900: at most 750 here"), "{}", ran.err);
}

/// Whether the machine can limit what the attacks take.
fn can_limit(shop: &Shop) -> bool {
    let status: Value = serde_json::from_str(&shop.tolv(&["status", "--json"])).unwrap();
    let found = status.to_string();
    ["memory", "pids", "cpu"].iter().all(|name| found.contains(&format!("\"{name}\"")))
}

const ATTACKS: [(&str, &str); 6] = [
    (
        "bomb",
        "import os, time\nwhile True:\n    try:\n        if os.fork() == 0:\n            time.sleep(1000)\n    except OSError:\n        time.sleep(0.2)\n",
    ),
    (
        "hog",
        "import time\ntime.sleep(2)\nheld = []\nwhile True:\n    held.append(b'x' * (16 << 20))\n",
    ),
    ("spin", "import os\nfor n in range(6):\n    os.fork()\nwhile True:\n    pass\n"),
    ("flood", "while True:\n    print('x' * 2000)\n"),
    (
        "fill",
        "import time\nfor path in ('/tmp', '/dev/shm'):\n    n = 0\n    try:\n        while True:\n            open(f'{path}/{n}', 'w').close()\n            n += 1\n    except OSError as why:\n        print('inodes of', path, why.errno, flush=True)\n    try:\n        with open(f'{path}/0', 'wb') as file:\n            while True:\n                file.write(b'x' * 65536)\n                file.flush()\n    except OSError as why:\n        print('bytes of', path, why.errno, flush=True)\ntime.sleep(1000)\n",
    ),
    (
        "hoard",
        "import os, socket, time\nheld = []\ntry:\n    while True:\n        held.append(open('/dev/null'))\nexcept OSError as why:\n    print('descriptors', why.errno, len(held) < 20000, flush=True)\ntime.sleep(1000)\n",
    ),
];

/// Deploys an app whose processes are these programs.
fn attack(shop: &Shop, app: &str, programs: &[&(&str, &str)]) {
    let dir = shop.serve.folder(app);
    let mut procfile = String::new();
    for (name, program) in programs {
        writeln!(procfile, "{name}: exec python3 {name}.py").unwrap();
        std::fs::write(dir.join(format!("{name}.py")), program).unwrap();
    }
    if let Some(app_json) = one_of_each(&procfile) {
        std::fs::write(dir.join("app.json"), app_json).unwrap();
    }
    std::fs::write(dir.join("Procfile"), procfile).unwrap();
    git::commit(&dir);
    shop.serve.tolv(&dir, &["create", app]);
    let pushed = push_from(&shop.serve, &dir, &["tolv", "main"]);
    assert!(pushed.status.success(), "{}", pushed.err);
}

/// Each attack at once: the neighbour answers, and so does the platform. Not how fast: that is
/// bench/neighbour.py.
#[test]
fn an_app_that_takes_all_it_can_leaves_its_neighbour_running() {
    let log = ("TOLV_LOG_MIB", "4");
    let shop = Shop::new("web: python3 server.py\n", &[log]);
    if !can_limit(&shop) {
        println!("skipped: no controllers");
        return;
    }
    shop.pushed(&["tolv", "main"]);
    // The flood in an app of its own: it washes away what the others are told.
    let (flood, others): (Vec<_>, Vec<_>) = ATTACKS.iter().partition(|(name, _)| *name == "flood");
    attack(&shop, "flood", &flood);
    attack(&shop, "rogue", &others);
    let rogue = Shop { dir: shop.serve.folder("rogue"), serve: shop.serve };
    rogue.tolv(&["limits", "bomb", "--processes", "100"]);
    let logs = |process: &str, text: &str| {
        poll(LATER, &format!("{text:?} of {process}"), || {
            let found = rogue.tolv(&["logs", "--process", process, "--grep", text, "-n", "1"]);
            (!found.is_empty()).then_some(())
        });
    };
    logs("bomb", "a fork was refused at the limit of 100 processes");
    logs("hog", "R15 .* at the memory limit of 512M");
    for folder in ["/tmp", "/dev/shm"] {
        logs("fill", &format!("inodes of {folder} 28"));
        logs("fill", &format!("bytes of {folder} 28"));
    }
    logs("hoard", "descriptors 24 True");
    // All of it goes on.
    let shop = Shop { dir: rogue.serve.folder("shop"), serve: rogue.serve };
    for _ in 0..5 {
        let text = shop.text("shop.localhost", "/");
        assert!(!text.is_empty());
        assert!(shop.tolv(&["ps"]).contains("web.1"));
    }
    // The log is bounded, whatever was written.
    let logs = shop.serve.state().join("logs");
    let size = |folder: std::fs::DirEntry| {
        let files = std::fs::read_dir(folder.path()).unwrap().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|meta| meta.len()).sum::<u64>()
    };
    for folder in std::fs::read_dir(logs).unwrap().flatten() {
        let bytes = size(folder);
        assert!(bytes <= 5 << 20, "{bytes} bytes of log");
    }
    // And it can be stopped at once.
    for app in ["rogue", "flood"] {
        shop.tolv(&["destroy", app, "--confirm", app]);
    }
}

/// What a one-off got before: 3,000 MiB and 4,000 processes.
#[test]
fn a_one_off_has_limits_too() {
    let shop = Shop::site("hello", &[]);
    if !can_limit(&shop) {
        println!("skipped: no controllers");
        return;
    }
    shop.pushed(&["tolv", "main"]);
    let hog = shop.ran(&["run", "--", "python3", "-c", "x = b'x' * (3000 << 20); print(len(x))"]);
    assert_eq!(hog.status.code(), Some(137), "{}{}", hog.out, hog.err);
    assert!(hog.err.contains("memory"), "{}", hog.err);
    let bomb = "import os, time\nn = 0\ntry:\n    while n < 4000:\n        if os.fork() == 0:\n            \
        time.sleep(1000)\n        n += 1\nexcept OSError:\n    pass\nprint(n)\n";
    let bomb = shop.ran(&["run", "--", "python3", "-c", bomb]);
    let forked: u32 =
        bomb.out.trim().parse().unwrap_or_else(|_| panic!("{}{}", bomb.out, bomb.err));
    // It follows from the machine: 64 to 1,024.
    assert!((50..1024).contains(&forked), "{forked} processes");
}

/// The cause of a failure is at the end of the output, whatever came before it.
#[test]
fn a_release_phase_that_says_much_does_not_hide_why_it_failed() {
    let release = "release: seq 1 120000; echo migration 7 failed: no such table; exit 3\n";
    let shop = Shop::new(&format!("web: python3 server.py\n{release}"), &[]);
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success());
    let shown = {
        let page = shop.json(&["operations"]);
        let id = page["items"][0]["id"].as_str().unwrap().to_owned();
        shop.ran(&["operations", "show", &id])
    };
    for text in [&ran.err, &format!("{}{}", shown.out, shown.err)] {
        for wanted in ["migration 7 failed: no such table", "Release v1 failed: the release phase"]
        {
            assert!(text.contains(wanted), "{wanted}: {} bytes", text.len());
        }
    }
    let kept = format!("{}{}", shown.out, shown.err);
    assert!(kept.contains("       1\n") && kept.contains(" lines omitted"), "{} bytes", kept.len());
    assert!(kept.len() < 5 << 20, "{} bytes", kept.len());
}

#[test]
fn a_formation_of_app_json_is_cut_so_that_it_fits_as_a_whole() {
    let shop = Shop::new("web: python3 server.py\nworker: sleep 1000\n", &[]);
    shop.change(
        "app.json",
        r#"{"formation": {"web": {"size": "memory=8T"}, "worker": {"quantity": 1, "size": "memory=64M"}}}"#,
    );
    let said = shop.pushed(&["tolv", "main"]);
    assert!(said.contains("web: memory 8T in app.json: it has "), "{said}");
    assert_eq!(mib(&shop.limits_of("worker.1")), 64);
    assert!(mib(&shop.limits_of("web.1")) < memory_of_this_machine());
    // The operator's word is refused before there is a release of it.
    let releases = shop.tolv(&["releases"]);
    shop.refused(&["scale", "web=1000:1G"], "together: at most");
    shop.refused(&["scale", "web=1000:1G"], "tolv limits");
    assert_eq!(shop.tolv(&["releases"]), releases);
    shop.tolv(&["config", "set", "A=1"]);
}
