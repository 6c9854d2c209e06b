//! What an app can reach, at each level, through the real command.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};

use crate::cli::as_nobody;
use crate::{SOON, Up, codebase, shop};
use tolv_testkit::Tolv;

/// What an app tries that runs as the user of its platform. It says what it got, a line each.
const ATTACK: &str = r#"
import os, signal, socket, sys, time

home, platform, abstract = sys.argv[1], int(sys.argv[2]), sys.argv[3]

def attempt(what, act):
    try:
        print(what, "got", act(), flush=True)
    except OSError as error:
        print(what, "refused", type(error).__name__, flush=True)

def ask(token):
    api = socket.socket(socket.AF_UNIX)
    api.connect(home + "/api/socket")
    head = "GET /v1/whoami HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + token + "\r\n"
    api.sendall(head.encode())
    status = api.recv(100).split()[1].decode()
    if status != "200":
        raise PermissionError(status)
    return status

def knock():
    outside = socket.socket(socket.AF_UNIX)
    outside.connect("\0" + abstract)
    return "in"

attempt("folder", lambda: os.listdir(home))
for file in ["api/token", "secret-key", "db.sqlite"]:
    attempt(file, lambda: open(home + "/" + file, "rb").read())
attempt("made", lambda: open(home + "/made", "w").name)
attempt("socket", lambda: ask(""))
attempt("wrong", lambda: ask("authorization: Bearer tolv_x\r\n"))
attempt("environ", lambda: open(f"/proc/{platform}/environ", "rb").read())
attempt("memory", lambda: open(f"/proc/{platform}/mem", "rb").read(1))
attempt("root", lambda: os.listdir(f"/proc/{platform}/root"))
attempt("signal", lambda: os.kill(platform, signal.SIGCONT))
attempt("parent", lambda: os.kill(os.getppid(), signal.SIGCONT))
attempt("abstract", knock)
attempt("itself", lambda: os.kill(os.getpid(), signal.SIGCONT))
print("tried everything", flush=True)
time.sleep(1000)
"#;

#[test]
fn an_app_that_runs_as_its_platforms_user_reaches_nothing_of_it() {
    let name = format!("outside-{}", std::process::id());
    let outside = SocketAddr::from_abstract_name(&name).unwrap();
    let _outside = UnixListener::bind_addr(&outside).unwrap();
    for level in ["landlock", "user"] {
        // Its state folder is in `/tmp`, which level landlock shows.
        let home = codebase("web: python3 server.py\n");
        home.write("shop/attack.py", ATTACK);
        let up = Up::start(&shop(&home), &["--sandbox", level]);
        let state = shop(&home).join(".tolv");
        let mode = |file: &str| state.join(file).metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("api/token"), mode("api")), (0o600, 0o700));
        let pid = up.tolv.pid().as_raw_nonzero().to_string();
        let mut run = crate::tolv();
        run.current_dir(shop(&home)).env("XDG_CONFIG_HOME", home.path());
        run.args(["run", "--detach", "--", "python3", "attack.py"]).arg(&state).args([&pid, &name]);
        let begun = crate::output(&mut run);
        assert!(begun.status.success(), "{level}: {}", crate::stderr(&begun));
        up.sees("tried everything");
        let said: Vec<_> = up.tolv.lines().into_iter().map(|line| line.text).collect();
        let said = said.iter().filter_map(|line| line.split_once("app[run.1]: "));
        let got: Vec<_> =
            said.map(|(_, text)| text).filter(|text| text.contains(" got ")).collect();
        assert_eq!(got, ["itself got None"], "{level}");
    }
}

#[test]
fn the_root_is_read_only_and_tmp_is_private() {
    let home = codebase(
        "web: python3 server.py\n\
         worker: touch /usr/here 2>&1; touch /tmp/mine && ls /tmp; echo \"uid $(id -u) in $PWD\"; sleep 1000\n",
    );
    let up = Up::start(&shop(&home), &[]);
    if rustix::process::geteuid().is_root() {
        let line = up.sees("app[worker.1]: uid ");
        assert!(!line.contains("uid 0 ") && line.ends_with("in /app"), "{line}");
        up.sees("Read-only file system");
        let tmp: Vec<_> = up
            .tolv
            .lines()
            .into_iter()
            .filter(|line| line.text.contains("app[worker.1]: ") && line.text.ends_with(": mine"))
            .collect();
        assert_eq!(tmp.len(), 1);
    }
    assert!(!std::path::Path::new("/tmp/mine").exists());
}

#[test]
fn an_ordinary_user_gets_the_same_app() {
    let home = codebase("web: python3 server.py\n");
    let mut command = as_nobody(&home);
    let state = home.path().join("state");
    std::fs::create_dir(&state).unwrap();
    std::os::unix::fs::chown(&state, Some(65534), Some(65534)).ok();
    command.env("TOLV_HOME", &state).arg("up").arg(shop(&home)).args(["--listen", "127.0.0.1:0"]);
    let mut tolv = Tolv::start(&mut command);
    let line = tolv.wait_for_line(|line| line.contains("is up at"), SOON).text;
    let port: u16 = line.rsplit(':').next().unwrap().parse().unwrap();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let response = tolv_testkit::http::get(address, "shop.localhost", "/").unwrap();
    assert!(response.text().starts_with("web.1 "), "{}", response.text());
    tolv.signal(rustix::process::Signal::INT);
    assert_eq!(tolv.wait(SOON).code(), Some(130));
}

#[test]
fn every_level_runs_the_same_app() {
    for level in ["strict", "user", "landlock", "none"] {
        let home = codebase("web: python3 server.py\n");
        let up = Up::start(&shop(&home), &["--sandbox", level]);
        assert!(up.text("/").starts_with("web.1 "), "{level}");
    }
}
