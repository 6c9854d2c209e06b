//! What runs is a copy of the machine's interpreter, pinned by its content: neither `PATH` nor what
//! is installed beside it, nor its next upgrade, changes a build or a release.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use tolv_testkit::{Home, git};

use crate::{SOON, Up, output, shop, stderr, tolv};

/// Says which of the machine's modules it finds, and where it runs.
const SERVER: &str = r#"
import os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
import six, ours
try:
    import planted
    found = "planted"
except ImportError:
    found = "clean"
text = " ".join([found, ours.TEXT, sys.base_prefix, os.path.realpath(sys.executable)])

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

HTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// Lets an interpreter say that it is of a version that is nowhere else.
const OTHER_VERSION: &str = r#"
import sys
class _Version(tuple):
    major, minor, micro = (property(lambda self, at=at: self[at]) for at in range(3))
    releaselevel, serial = (property(lambda self, at=at: self[at]) for at in (3, 4))
sys.version_info = _Version((*sys.version_info[:2], 99, "final", 0))
"#;

fn run(program: &Path, words: &[&str]) -> String {
    let done = output(Command::new(program).args(words));
    assert!(done.status.success(), "{}", stderr(&done));
    crate::stdout(&done).trim().to_owned()
}

/// A user's folder with an interpreter of pyenv, which has a module in its own library (`ours`),
/// and packages where pip and the system put them (`planted`). Gives its version and its library.
fn interpreter(home: &Home) -> (String, PathBuf) {
    let ask =
        "import os,sys; print(os.path.realpath(sys.executable), os.path.dirname(os.__file__))";
    let said = run(Path::new("/usr/bin/python3"), &["-I", "-c", ask]);
    let (program, library) = said.split_once(' ').unwrap();
    let name = Path::new(library).file_name().unwrap().to_str().unwrap().to_owned();
    let prefix = home.path().join("user/.pyenv/versions/ours");
    let copy = prefix.join("lib").join(&name);
    for folder in [prefix.join("bin"), prefix.join("lib")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::copy(program, prefix.join("bin").join(&name)).unwrap();
    std::os::unix::fs::symlink(&name, prefix.join("bin/python3")).unwrap();
    run(Path::new("/bin/cp"), &["-a", library, copy.to_str().unwrap()]);
    fs::remove_file(copy.join("sitecustomize.py")).ok();
    fs::write(copy.join("ours.py"), "TEXT = 'one'\n").unwrap();
    // Every start imports it, and no interpreter has it built in.
    let first = copy.join("encodings/__init__.py");
    let text = fs::read_to_string(&first).unwrap();
    fs::write(&first, text + OTHER_VERSION).unwrap();
    let beside = ["site-packages".to_owned(), "dist-packages".to_owned()];
    let beside = beside.map(|folder| copy.join(folder));
    let debian = [prefix.join("lib/python3/dist-packages"), prefix.join("local/lib").join(&name)];
    for folder in beside.into_iter().chain(debian) {
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("planted.py"), "").unwrap();
    }
    run(&prefix.join("bin/python3"), &["-I", "-c", "import planted, ours"]);
    (format!("{}.99", name.trim_start_matches("python")), copy)
}

/// The program with this state folder, the user's folder and a `PATH`.
fn with(home: &Home, state: &str, path: &str) -> Command {
    let mut command = tolv();
    command.env_remove("TOLV_TOOLCHAINS").env("TOLV_HOME", home.path().join(state));
    command.env("HOME", home.path().join("user")).env("PATH", path).current_dir(shop(home));
    command
}

const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// The slug's id, and what the build said.
#[track_caller]
fn build(home: &Home, state: &str, path: &str) -> (String, String) {
    let done = output(with(home, state, path).args(["build", "--json"]));
    let said = stderr(&done);
    assert!(done.status.success(), "{said}");
    let built: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    (built["slug"].as_str().unwrap().to_owned(), said)
}

/// The folder of the only toolchain of a kind.
fn kept(home: &Home, state: &str, kind: &str) -> PathBuf {
    let list = fs::read_dir(home.path().join(state).join("toolchains")).unwrap();
    let mut folders = list.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().starts_with(kind);
    folders.find(name).unwrap()
}

fn server(home: &Home, state: &str) -> String {
    let up = Up::start_with(with(home, state, PATH).arg("up"), SOON);
    up.text("/")
}

/// A `PATH` that has programs of these names first, and the rest in another order.
fn other_path(home: &Home, names: &[&str]) -> String {
    for name in names {
        let path = home.write(&format!("programs/{name}"), "#!/bin/sh\necho 99.9.9\n");
        run(Path::new("/bin/chmod"), &["755", path.to_str().unwrap()]);
    }
    format!("{}:/bin:/usr/bin", home.path().join("programs").display())
}

/// What is in such a folder runs with the rights of whoever builds.
#[test]
fn a_folder_that_others_could_fill_is_not_used() {
    use std::os::unix::fs::{PermissionsExt as _, lchown};
    let home = Home::new();
    home.write("shop/index.html", "");
    let folder = home.path().join("shared");
    fs::create_dir(&folder).unwrap();
    let refused = |variable: &str, why: &str| {
        let mut command = with(&home, "state", PATH);
        command.args(["build"]).env(variable, &folder).env("TOLV_STACK", "host");
        let done = output(&mut command);
        let said = stderr(&done);
        assert_eq!(done.status.code(), Some(1), "{said}");
        assert!(said.contains(why) && said.contains(variable), "{said}");
    };
    for variable in ["TOLV_TOOLCHAINS", "TOLV_STACKS"] {
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
        refused(variable, "other users may write to it");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        if rustix::process::geteuid().is_root() {
            lchown(&folder, Some(65534), None).unwrap();
            refused(variable, "belongs to another user (uid 65534)");
            lchown(&folder, Some(0), None).unwrap();
        }
    }
}

/// What an archive puts over an own state folder is no program of this user's.
#[test]
fn a_toolchain_that_came_in_an_archive_does_not_run_outside_of_the_sandbox() {
    let home = Home::new();
    home.write("shop/requirements.txt", "six\n");
    home.write("shop/Procfile", "web: python x.py\n");
    // No machine has it, so that uv is to fetch it.
    home.write("shop/.python-version", "3.9.0\n");
    let ran = home.path().join("ran");
    let uv = format!(
        "#!/bin/sh\n[ \"$1\" = --version ] && echo uv 0.13.9 && exit\ntouch '{}'\nexit 1\n",
        ran.display()
    );
    let uv = home.write("user/.local/bin/uv", &uv);
    fs::set_permissions(&uv, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    output(with(&home, "other", "/bin:/usr/bin").arg("build"));
    assert!(fs::remove_file(&ran).is_ok(), "it is the user's own program there, which may run");
    fs::remove_file(&uv).unwrap();
    output(with(&home, "state", "/bin:/usr/bin").args(["build", "--commit", "none"]));
    let (from, to) = (home.path().join("other/toolchains"), home.path().join("state"));
    fs::create_dir_all(&to).unwrap();
    run(Path::new("/bin/cp"), &["-a", from.to_str().unwrap(), to.to_str().unwrap()]);
    let said = stderr(&output(with(&home, "state", "/bin:/usr/bin").arg("build")));
    assert!(!ran.exists(), "{said}");
}

#[test]
fn a_page_is_built_by_the_same_node_whatever_path_holds() {
    let home = Home::new();
    let script = "node -p process.execPath > built && npm -v >> built";
    let manifest =
        format!(r#"{{"name": "s", "version": "1.0.0", "scripts": {{"build": "{script}"}}}}"#);
    home.write("shop/package.json", manifest);
    home.write("shop/Procfile", "web: npm start\n");
    git::commit(&shop(&home));
    let (slug, said) = build(&home, "one", PATH);
    let (elsewhere, said_there) = build(&home, "two", &other_path(&home, &["node", "npm"]));
    assert_eq!(elsewhere, slug, "{said}{said_there}");
    let node = kept(&home, "one", "node-");
    assert_eq!(node.file_name(), kept(&home, "two", "node-").file_name());
}

#[test]
fn the_machine_changes_and_no_slug_does() {
    let home = Home::new();
    let (version, library) = interpreter(&home);
    home.write("shop/.python-version", format!("{version}\n"));
    home.write("shop/requirements.txt", "six>=1.16\n");
    home.write("shop/server.py", SERVER);
    home.write("shop/Procfile", "web: python server.py\n");
    let hook = "#!/bin/sh\npython -c 'import planted' 2>/dev/null && echo leaked\ntrue\n";
    home.write("shop/bin/post_compile", hook);
    git::commit(&shop(&home));
    // Whatever PATH holds, in whatever order, the same commit is the same slug.
    let (slug, said) = build(&home, "one", PATH);
    assert!(said.contains(&format!("Copying python {version} of this machine")), "{said}");
    let other = other_path(&home, &["python3", "python", "uv"]);
    let (elsewhere, said_there) = build(&home, "two", &other);
    assert_eq!(elsewhere, slug, "{said_there}");

    // What is installed beside the interpreter is not importable, built or run.
    assert!(!said.contains("leaked") && !said_there.contains("leaked"), "{said}{said_there}");
    let target = format!("/toolchains/python-{version}");
    let expected =
        format!("clean one {target} {target}/bin/python{}", version.trim_end_matches(".99"));
    let text = server(&home, "one");
    // Without a root of its own a process sees the copy where it is.
    let runs_there = text == expected
        || text.starts_with(&format!("clean one {}", home.path().join("one/toolchains").display()));
    assert!(runs_there, "{text}");
    let config = fs::read_dir(home.path().join("one/slugs/layers")).unwrap();
    for layer in config.map(|entry| entry.unwrap().path().join("venv/pyvenv.cfg")) {
        let text = fs::read_to_string(layer).unwrap_or_default();
        assert!(!text.contains(".pyenv") && !text.contains("/usr"), "{text}");
    }

    // A copy that somebody changed is found, and made again.
    let copy = kept(&home, "one", "python").join("lib").join(library.file_name().unwrap());
    fs::remove_file(copy.join("ours.py")).unwrap();
    fs::write(copy.join("ours.py"), "TEXT = 'eno'\n").unwrap();
    let (again, said) = build(&home, "one", PATH);
    assert!(said.contains("differs at") && said.contains("made again"), "{said}");
    assert_eq!(again, slug);
    assert!(server(&home, "one").starts_with("clean one"));

    // An upgrade of the machine's interpreter changes no release and no build of the same commit.
    fs::write(library.join("ours.py"), "TEXT = 'two'\n").unwrap();
    let (again, said) = build(&home, "one", PATH);
    assert!(again == slug && !said.contains("Copying"), "{said}");
    assert!(server(&home, "one").starts_with("clean one"));
    // Nor does its removal.
    fs::remove_dir_all(home.path().join("user/.pyenv")).unwrap();
    home.write("shop/more.txt", "x");
    let (next, said) = build(&home, "one", PATH);
    assert!(next != slug && said.contains("Python packages: unchanged"), "{said}");
    assert!(server(&home, "one").starts_with("clean one"));
}
