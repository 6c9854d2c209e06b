//! What processes write to their own folder: common programs do, and none of it lasts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::{Up, codebase, output, shop, stderr, stdout, tolv};

/// Does what the programs do that are known to write beside their code, then ends.
const WRITER: &str = r#"
import os, shelve, shutil, socket, sqlite3, sys

assert os.getcwd() == os.environ["HOME"] == "/app"
# Celery's beat keeps its schedule and its pid beside the code.
assert not os.path.exists("celerybeat.pid"), "another process's file is here"
with shelve.open("celerybeat-schedule") as schedule:
    schedule["entries"] = {}
open("celerybeat.pid", "x").write("1")
# Gunicorn listens on a control socket.
control, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
control.bind("gunicorn.ctl")
control.listen()
client.connect("gunicorn.ctl")
# Flask's instance folder, with a database in it.
os.makedirs("instance")
database = sqlite3.connect("instance/app.sqlite")
database.execute("create table visits (at text)")
database.commit()
# What libraries keep for themselves.
os.makedirs(os.path.expanduser("~/.cache/huggingface/hub"))
open(os.path.expanduser("~/.netrc"), "w").write("x")
# Prisma writes its client into its package.
shutil.rmtree("packages/.prisma/client")
os.makedirs("packages/.prisma/client")
open("packages/.prisma/client/index.js", "w").write("generated")
# Next.js, Rails and others replace files of the build.
os.replace("packages/.prisma/client/index.js", "built.json")
print(sys.argv[1], "wrote all", flush=True)
sys.exit(int(sys.argv[2]))
"#;

/// The levels at which `/app` has a layer.
const LEVELS: [&str; 2] = ["strict", "user"];

/// Every file of the slugs, with its bytes.
fn slugs(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(path) = left.pop() {
        if path.is_dir() && !path.is_symlink() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            all.insert(path.clone(), std::fs::read(&path).unwrap_or_default());
        }
    }
    all
}

#[test]
fn programs_write_beside_their_code_and_the_slug_stays_as_it_was_built() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    for level in LEVELS {
        let home = codebase(
            "web: python3 server.py\n\
             worker: python3 writer.py worker 0 && sleep 1.5 && exit 3\n\
             release: touch tmp-restart && ls -A && python3 writer.py release 0\n",
        );
        home.write("shop/writer.py", WRITER);
        home.write("shop/built.json", "as built");
        home.write("shop/packages/.prisma/client/index.js", "as built");
        home.write("shop/.gitignore", ".tolv/\n");
        let up = Up::start(&shop(&home), &["--sandbox", level]);
        up.sees("app[release.1]: release wrote all");
        // The slug is proven before each start: it is what it was.
        for _ in 0..2 {
            up.sees("app[worker.1]: worker wrote all");
        }
        let folder = shop(&home).join(".tolv/slugs");
        let before = slugs(&folder);
        assert!(before.values().any(|bytes| bytes == b"as built"), "{:?}", before.keys());
        for _ in 0..2 {
            let mut run = tolv();
            run.current_dir(shop(&home)).env("XDG_CONFIG_HOME", home.path());
            let ran = output(run.args(["run", "--", "python3", "writer.py", "run", "7"]));
            assert_eq!(ran.status.code(), Some(7), "{level}: {}{}", stdout(&ran), stderr(&ran));
            assert!(stdout(&ran).contains("run wrote all"), "{level}: {}", stdout(&ran));
        }
        assert_eq!(slugs(&folder), before, "{level}");
        let lines = up.tolv.lines();
        let listed = |name: &str| {
            let wanted = format!("app[release.1]: {name}");
            lines.iter().any(|line| line.text.ends_with(&wanted))
        };
        assert!(listed("tmp-restart") && !listed("celerybeat.pid"), "{level}");
        assert!(!lines.iter().any(|line| line.text.contains("another process's")), "{level}");
    }
}

#[test]
fn at_level_landlock_the_folder_is_read_only_and_the_failure_says_where_to_write() {
    let home = codebase("web: python3 server.py\nrelease: touch restart.txt\n");
    let mut up = tolv();
    up.arg("up").arg(shop(&home)).args(["--listen", "127.0.0.1:0", "--sandbox", "landlock"]);
    let ended = output(&mut up);
    assert_eq!(ended.status.code(), Some(1), "{}", stderr(&ended));
    let said = format!("{}{}", stdout(&ended), stderr(&ended));
    assert!(said.contains("restart.txt': Permission denied"), "{said}");
    assert!(said.contains("/app is read-only at level landlock: write to /tmp"), "{said}");
}
