//! Machines that give less than they seem to: root without powers, one id alone, calls that are
//! refused. The level that is chosen builds and runs there, and `tolv status` says why no better one.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::process::Command;

use rustix::process::Signal;
use tolv_testkit::{Home, Tolv};

use crate::{SOON, clean, codebase, output, shop, stderr, stdout};

const NOBODY: u32 = 65534;

/// Refuses what containers refuse: namespaces, mounts, and what an old list of calls does not know.
/// It is told to be `python3 -c FILTER COMMAND…`.
const FILTER: &str = r#"
import ctypes, os, platform, struct, sys

def op(code, jt, jf, k):
    return struct.pack("HBBI", code, jt, jf, k)

x86 = platform.machine() == "x86_64"
load, equal, bits, answer = 0x20, 0x15, 0x45, 0x06
refuse, absent, allow = 0x50000 | 1, 0x50000 | 38, 0x7FFF0000
names = [272, 165, 166, 155, 308] if x86 else [97, 40, 39, 41, 268]
calls = [(call, refuse) for call in names + [428, 429, 430, 432, 436, 442]] + [(435, absent)]
program = [op(load, 0, 0, 0)]
for call, how in calls:
    program += [op(equal, 0, 1, call), op(answer, 0, 0, how)]
# clone with a new namespace.
program += [op(equal, 0, 3, 56 if x86 else 220), op(load, 0, 0, 16)]
program += [op(bits, 0, 1, 0x7E020000), op(answer, 0, 0, refuse), op(answer, 0, 0, allow)]
code = b"".join(program)
code = ctypes.create_string_buffer(code, len(code))

class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

libc = ctypes.CDLL(None)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, ctypes.byref(Program(len(program), ctypes.addressof(code))), 0, 0) == 0
os.execvp(sys.argv[1], sys.argv[1:])
"#;

/// What an app tries that may be the machine's root, though without powers.
const ATTACK: &str = "cat /etc/shadow > /dev/null 2>&1 && echo read; \
    { echo x > /proc/sys/kernel/domainname; } 2> /dev/null && echo wrote; \
    { test -c /dev/kmsg && echo > /dev/kmsg; } 2> /dev/null && echo logged; \
    python3 -c 'import tempfile; tempfile.mkdtemp()' && echo done";

/// Which machine, as whom, and what of it may be used at best.
struct Machine<'a> {
    user: u32,
    prefix: &'a [&'a str],
    level: &'static str,
}

impl Machine<'_> {
    fn command(&self, home: &Home) -> Command {
        let mut words = Vec::new();
        if self.user != 0 {
            words.extend(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        words.extend(self.prefix);
        let program = home.path().join("tolv");
        let mut command = match words.split_first() {
            None => Command::new(&program),
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(&program);
                command
            }
        };
        clean(&mut command);
        let path = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin";
        command.env("PATH", path).env("HOME", home.path()).current_dir(shop(home));
        command.env("XDG_CONFIG_HOME", home.path().join("config"));
        command.env("XDG_STATE_HOME", home.path().join("own"));
        command
    }

    /// Builds and runs there.
    #[track_caller]
    fn check(&self) {
        if !rustix::process::geteuid().is_root() {
            // The powers that are taken away here are root's.
            return;
        }
        let home = codebase("web: python3 server.py\nworker: sleep 1000\n");
        fs::copy(env!("CARGO_BIN_EXE_tolv"), home.path().join("tolv")).unwrap();
        for path in [home.path(), &home.path().join("tolv")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::create_dir(home.path().join("own")).unwrap();
        for path in ["own", "shop", "shop/Procfile", "shop/server.py"] {
            chown(home.path().join(path), Some(self.user), Some(self.user)).unwrap();
        }
        let status = output(self.command(&home).arg("status"));
        let text = stdout(&status);
        assert!(status.status.success(), "{text}{}", stderr(&status));
        assert!(text.contains(&format!("auto      uses {}\n", self.level)), "{text}");
        let levels = ["strict", "user", "landlock"];
        let refused = |line: &&str| {
            line.get(10..15) == Some("no   ") && levels.iter().any(|level| line.starts_with(level))
        };
        for line in text.lines().filter(refused) {
            assert!(line.contains("(os error "), "{line}");
        }
        let built = output(self.command(&home).arg("build"));
        assert!(built.status.success(), "{}{}", stdout(&built), stderr(&built));
        let mut up = Tolv::start(self.command(&home).args(["up", "--listen", "127.0.0.1:0"]));
        let line = up.wait_for_line(|line| line.contains("is up at"), SOON).text;
        let port: u16 = line.rsplit(':').next().unwrap().parse().unwrap();
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let answer = tolv_testkit::http::get(address, "shop.localhost", "/").unwrap();
        assert!(answer.text().starts_with("web.1 "), "{}", answer.text());
        let ran = output(self.command(&home).args(["run", "--", "sh", "-c", ATTACK]));
        assert_eq!((stdout(&ran).as_str(), stderr(&ran).as_str()), ("done\n", ""));
        up.signal(Signal::INT);
        up.wait(SOON);
    }
}

#[test]
fn root_of_a_user_namespace_with_one_id() {
    Machine { user: 0, prefix: &["unshare", "-Ur"], level: "landlock" }.check();
}

#[test]
fn an_ordinary_user_called_root() {
    Machine { user: NOBODY, prefix: &["unshare", "-Ur"], level: "user" }.check();
}

#[test]
fn root_without_capabilities() {
    let prefix = &["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", "--no-new-privs"];
    Machine { user: 0, prefix, level: "landlock" }.check();
}

#[test]
fn an_ordinary_user_without_user_namespaces() {
    let none = "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$@\"";
    let prefix = &["unshare", "-Ur", "sh", "-c", none, "sh"];
    Machine { user: NOBODY, prefix, level: "landlock" }.check();
}

#[test]
fn a_proc_that_shows_less_than_all() {
    let masked = "mount -t tmpfs none /proc/irq; exec \"$@\"";
    let prefix = &["unshare", "-Urm", "sh", "-c", masked, "sh"];
    Machine { user: NOBODY, prefix, level: "landlock" }.check();
}

#[test]
fn a_container_that_refuses_calls() {
    Machine { user: 0, prefix: &["python3", "-c", FILTER], level: "landlock" }.check();
}
