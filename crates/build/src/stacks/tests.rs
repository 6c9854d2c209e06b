use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Command;
use std::sync::Mutex;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::*;
use crate::files::Found;

fn host() -> StackName {
    StackName::host()
}

fn quietly(stacks: &Stacks) -> Result<Stack, Error> {
    stacks.make(&host(), &|| false, &mut |_| {})
}

fn walk(root: &Path) -> Vec<Found> {
    files::walk(root, files::MAX_COUNTED, &|| false, &mut |_| Ok(true)).unwrap()
}

/// Runs words in a root that has the stack's `usr` and `etc` and nothing else.
fn inside(layer: &Path, words: &[&str]) -> (bool, String) {
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    let output = command
        .args(["--", "/usr/sbin/chroot"])
        .arg(layer)
        .args(words)
        .env_clear()
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn the_machines_packages_make_a_stack_whose_programs_find_all_they_need() {
    let home = tempfile::tempdir().unwrap();
    let stacks = Stacks::open(home.path()).unwrap();
    let made = quietly(&stacks).unwrap();
    let [run] = made.run.as_slice() else { panic!("{:?}", made.run) };
    assert_eq!(made.build[0], *run);
    let contents = stacks.contents(&made.id.run).unwrap();
    assert!(contents.size < 200 << 20, "{}", bytes(contents.size));
    for name in ["sh", "bash", "ls", "find", "grep", "sed", "awk", "tar", "gzip", "which"] {
        assert!(run.join("usr/bin").join(name).exists(), "{name}");
    }
    for name in ["gcc", "git", "curl", "make", "python3", "perl", "mount"] {
        assert!(!run.join("usr/bin").join(name).exists(), "{name}");
    }
    for name in ["gcc", "cc", "make", "git"] {
        assert!(made.build[1].join("usr/bin").join(name).symlink_metadata().is_ok(), "{name}");
    }
    assert!(run.join("etc/ssl/certs/ca-certificates.crt").metadata().unwrap().len() > 100_000);
    let mut programs = 0;
    let loader = ["usr/lib64/ld-linux-x86-64.so.2", "usr/lib/ld-linux-aarch64.so.1"];
    let loader = loader.iter().find(|path| run.join(path).exists()).unwrap();
    for layer in &made.build {
        for found in walk(layer) {
            let path = found.full.strip_prefix(layer).unwrap().display().to_string();
            assert!(!path.starts_with("usr/local") && !path.starts_with("etc/passwd"), "{path}");
            assert_eq!(
                found.meta.mode() & 0o7222 & if found.meta.is_symlink() { 0 } else { !0 },
                0
            );
            assert_eq!(found.meta.mtime(), 946_684_800, "{path}");
            if found.meta.is_symlink() {
                let target = fs::read_link(&found.full).unwrap();
                assert!(target.is_relative(), "{path}: {}", target.display());
            } else {
                assert!(found.meta.is_dir() || found.meta.is_file(), "{path}");
            }
            let is_program = path.starts_with("usr/bin/") || path.starts_with("usr/sbin/");
            if layer == run && is_program && elf::dynamic(&found.full).ok().flatten().is_some() {
                let (ok, said) =
                    inside(run, &[&format!("/{loader}"), "--list", &format!("/{path}")]);
                assert!(ok && !said.contains("not found"), "{path}: {said}");
                programs += 1;
            }
        }
    }
    assert!(programs > 100, "{programs}");
    // The loader's cache is one that it reads: the first look is the only one.
    let cache = run.join("etc/ld.so.cache");
    let listed = Command::new("/sbin/ldconfig").args(["-p", "-C"]).arg(cache).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("libz.so.1 (libc6"), "{listed}");
    // Made again of the same packages it is the same, and takes no room.
    let names = fs::read_dir(home.path()).unwrap().count();
    assert_eq!(quietly(&stacks).unwrap().id, made.id);
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), names);
    assert_eq!(stacks.changes(&made.id).unwrap(), []);
    stacks.get(&made.id).unwrap();
}

/// A machine of a few packages, each with these files.
struct Fake {
    home: tempfile::TempDir,
    status: String,
}

impl Fake {
    /// What the list demands, each package with one file.
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut fake = Self { home, status: String::new() };
        for folder in ["info", "updates", "alternatives"] {
            fs::create_dir_all(fake.root().join("var/lib/dpkg").join(folder)).unwrap();
        }
        for entry in lists::list(&host()).unwrap().required {
            let name = entry.split('|').next().unwrap();
            fake.file(&format!("usr/bin/{name}"), name);
            fake.package(name, "1", "", &[&format!("/usr/bin/{name}")]);
        }
        fake
    }

    fn root(&self) -> &Path {
        self.home.path()
    }

    fn file(&self, path: &str, text: &str) -> PathBuf {
        let path = self.root().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn package(&mut self, name: &str, version: &str, depends: &str, files: &[&str]) {
        let stanza = format!(
            "Package: {name}\nStatus: install ok installed\nVersion: {version}\n\
             Architecture: all\nDepends: {depends}\n\n"
        );
        self.status.push_str(&stanza);
        fs::write(self.root().join(dpkg::STATUS), &self.status).unwrap();
        let list = self.root().join(format!("var/lib/dpkg/info/{name}.list"));
        fs::write(list, files.join("\n") + "\n").unwrap();
    }

    fn stacks(&self) -> Stacks {
        Stacks::open(&self.root().join("stacks")).unwrap().of_machine(self.root())
    }
}

#[test]
fn nothing_odd_or_secret_enters() {
    let mut fake = Fake::new();
    for (path, mode) in [("usr/bin/su", 0o4755), ("usr/bin/secret", 0o750), ("usr/bin/any", 0o777)]
    {
        fs::set_permissions(fake.file(path, "x"), fs::Permissions::from_mode(mode)).unwrap();
    }
    mknodat(CWD, fake.root().join("usr/bin/pipe"), FileType::Fifo, Mode::RUSR | Mode::ROTH, 0)
        .unwrap();
    fake.file("usr/local/bin/own", "x");
    fake.file("etc/shadow", "secret");
    fake.file("home/user/file", "x");
    fake.file("usr/share/doc/x/README", "x");
    let links = [
        ("usr/bin/abs", "/usr/bin/bash"),
        ("usr/bin/shadow", "/etc/shadow"),
        ("usr/bin/up", "../../../../../etc/shadow"),
        ("usr/bin/local", "/usr/local/bin/own"),
        ("usr/bin/home", "../../home/user/file"),
        ("usr/bin/self", "self"),
        ("usr/bin/loop", "loop2"),
        ("usr/bin/loop2", "loop"),
    ];
    for (path, target) in links {
        symlink(target, fake.root().join(path)).unwrap();
    }
    let mut listed = vec![
        "/.",
        "/usr",
        "/usr/bin/su",
        "/usr/bin/secret",
        "/usr/bin/any",
        "/usr/bin/pipe",
        "/usr/local/bin/own",
        "/etc/shadow",
        "/home/user/file",
        "/usr/share/doc/x/README",
        "/usr/bin/gone",
        "/usr/bin/../../home/user/file",
        "/../x",
        "/bin/dash/below-a-file",
    ];
    let own: Vec<String> = links.iter().map(|(path, _)| format!("/{path}")).collect();
    listed.extend(own.iter().map(String::as_str));
    fake.package("procps", "1", "", &listed);
    let made = quietly(&fake.stacks()).unwrap();
    let run = &made.run[0];
    let found: BTreeMap<String, Found> = walk(run)
        .into_iter()
        .map(|found| (String::from_utf8_lossy(&found.path).into_owned(), found))
        .collect();
    assert_eq!(found["usr/bin/su"].meta.mode() & 0o7777, 0o555);
    assert_eq!(fs::read_link(run.join("usr/bin/abs")).unwrap().as_os_str().as_bytes(), b"bash");
    let absent = ["secret", "any", "pipe", "shadow", "up", "local", "home", "self", "loop", "gone"];
    for name in absent {
        assert!(!found.contains_key(&format!("usr/bin/{name}")), "{name}");
    }
    for path in found.keys() {
        assert!(path.starts_with("usr") || path.starts_with("etc"), "{path}");
        assert!(!path.starts_with("usr/local") && !path.starts_with("usr/share/doc"), "{path}");
        assert_ne!(path, "etc/shadow");
    }
}

#[test]
fn dependencies_diversions_and_alternatives_are_followed() {
    let mut fake = Fake::new();
    fake.file("usr/bin/tool.real", "diverted");
    fake.file("usr/bin/tool", "another");
    fake.file("usr/lib/needed", "x");
    fake.file("usr/bin/editor-a", "a");
    fake.package("needed", "1", "", &["/lib/needed"]);
    symlink("usr/lib", fake.root().join("lib")).unwrap();
    fake.package(
        "zstd",
        "1",
        "unknown | needed (>= 1), debconf",
        &["/usr/bin/tool", "/usr/bin/editor-a"],
    );
    fake.package("debconf", "1", "", &["/usr/bin/debconf"]);
    fake.file("usr/bin/debconf", "x");
    let dpkg = fake.root().join("var/lib/dpkg");
    fs::write(dpkg.join("diversions"), "/usr/bin/tool\n/usr/bin/tool.real\nother\n").unwrap();
    let group = "auto\n/usr/bin/editor\n\n/usr/bin/editor-b\n90\n/usr/bin/editor-a\n10\n\n";
    fs::write(dpkg.join("alternatives/editor"), group).unwrap();
    let made = quietly(&fake.stacks()).unwrap();
    let run = &made.run[0];
    let text = |path: &str| fs::read_to_string(run.join(path)).unwrap();
    assert_eq!([text("usr/bin/tool"), text("usr/lib/needed")], ["diverted", "x"]);
    assert_eq!(fs::read_link(run.join("usr/bin/editor")).unwrap(), Path::new("editor-a"));
    assert!(!run.join("usr/bin/debconf").exists());
    let stacks = fake.stacks();
    assert_eq!(stacks.packages_of("debconf").unwrap(), ["debconf"]);
    assert!(stacks.packages_of("none").unwrap().is_empty());
    assert!(stacks.packages_of("../bin/debconf").unwrap().is_empty());
}

#[test]
fn another_version_or_content_is_another_stack_and_the_old_one_stays() {
    let mut fake = Fake::new();
    let stacks = fake.stacks();
    let first = quietly(&stacks).unwrap();
    fake.file("usr/bin/bash", "patched");
    let second = quietly(&stacks).unwrap();
    assert_ne!(first.id, second.id);
    fake.status = fake.status.replacen("Version: 1", "Version: 2", 1);
    fake.package("zstd", "1", "", &[]);
    let changes = stacks.changes(&second.id).unwrap();
    let upgraded =
        Change { package: "base-files".into(), from: Some("1".into()), to: Some("2".into()) };
    assert_eq!(changes, [upgraded]);
    let third = quietly(&stacks).unwrap();
    assert_ne!(second.id, third.id);
    assert_eq!(stacks.find(&host()).unwrap(), third);
    assert_eq!(fs::read_to_string(first.run[0].join("usr/bin/bash")).unwrap(), "bash");
    assert_eq!(stacks.get(&first.id).unwrap(), first);
    // What neither a slug nor a name needs goes, unless it is young.
    assert_eq!(stacks.collect(&BTreeSet::new(), Duration::from_secs(600)).unwrap(), 0);
    let keep = BTreeSet::from([first.id.clone()]);
    assert_eq!(stacks.collect(&keep, Duration::ZERO).unwrap(), 1);
    assert!(stacks.get(&first.id).is_ok() && stacks.get(&third.id).is_ok());
    assert!(stacks.get(&second.id).is_err());
    assert_eq!(stacks.versions().unwrap().len(), 2);
}

#[test]
fn what_has_changed_on_the_disk_is_refused_and_made_again() {
    let fake = Fake::new();
    let stacks = fake.stacks();
    let made = quietly(&stacks).unwrap();
    let program = made.run[0].join("usr/bin/bash");
    files::set_mode(&program, 0o755).unwrap();
    fs::write(&program, "evil").unwrap();
    files::set_mode(&program, 0o555).unwrap();
    let error = stacks.get(&made.id).unwrap_err().to_string();
    assert!(error.contains("differs at `usr/bin/bash`"), "{error}");
    let mut told = String::new();
    let again = stacks.ensure(&host(), &|| false, &mut |event| {
        told += &String::from_utf8_lossy(&event.text());
    });
    assert_eq!(again.unwrap(), made);
    assert!(told.contains("it is made again"), "{told}");
    stacks.get(&made.id).unwrap();
    // A record that was changed does not prove itself.
    let record = fake.root().join(format!("stacks/{}.packages.json", made.id.run));
    let text = fs::read_to_string(&record).unwrap().replace("\"bash\"", "\"bush\"");
    fs::write(&record, text).unwrap();
    let fresh = fake.stacks();
    assert!(fresh.get(&made.id).is_err());
    assert_eq!(fresh.ensure(&host(), &|| false, &mut |_| {}).unwrap(), made);
    fresh.get(&made.id).unwrap();
}

#[test]
fn of_two_makers_one_makes_and_the_other_gets_the_same() {
    let fake = Fake::new();
    let (one, two) = (fake.stacks(), fake.stacks());
    let made = std::thread::scope(|scope| {
        [&one, &two]
            .map(|stacks| scope.spawn(|| quietly(stacks).unwrap()))
            .map(|t| t.join().unwrap())
    });
    assert_eq!(made[0], made[1]);
    assert_eq!(one.versions().unwrap().len(), 1);
}

#[test]
fn what_a_killed_maker_left_is_no_stack_and_goes() {
    let fake = Fake::new();
    let made = quietly(&fake.stacks()).unwrap();
    let folder = fake.root().join("stacks");
    fs::create_dir_all(folder.join("run.new/usr/bin")).unwrap();
    // Killed between the layer and its record.
    fs::remove_file(folder.join(format!("{}.packages.json", made.id.run))).unwrap();
    let held = Lock::try_take(&folder.join("lock")).unwrap().unwrap();
    let stacks = fake.stacks();
    assert!(folder.join("run.new").exists(), "another is making it");
    assert_eq!(stacks.find(&host()), None);
    drop(held);
    let stacks = fake.stacks();
    assert!(!folder.join("run.new").exists());
    assert!(!made.run[0].exists());
    assert_eq!(stacks.ensure(&host(), &|| false, &mut |_| {}).unwrap(), made);
}

#[test]
fn packages_that_change_meanwhile_make_no_mixture() {
    let fake = Fake::new();
    let stacks = fake.stacks();
    let begun = fake.root().join("var/lib/dpkg/updates/0001");
    fs::write(&begun, "").unwrap();
    let error = quietly(&stacks).unwrap_err();
    assert!(error.to_string().contains("are being changed"), "{error}");
    fs::remove_file(&begun).unwrap();
    // A package is upgraded while its files are copied, once.
    let upgraded = Mutex::new(false);
    let upgrade = || {
        let mut upgraded = upgraded.lock().unwrap();
        if !*upgraded {
            let status = fake.status.replacen("Version: 1", "Version: 2", 1);
            tolv_durable::write(&fake.root().join(dpkg::STATUS), status.as_bytes(), 0o644).unwrap();
            *upgraded = true;
        }
        false
    };
    let made = stacks.make(&host(), &upgrade, &mut |_| {}).unwrap();
    let packages = stacks.contents(&made.id.run).unwrap().packages;
    assert!(packages.iter().any(|package| package.version == "2"));
    assert_eq!(stacks.versions().unwrap().len(), 1);
}

#[test]
fn a_cancel_or_an_unknown_name_leaves_nothing() {
    let fake = Fake::new();
    let stacks = fake.stacks();
    assert!(matches!(stacks.make(&host(), &|| true, &mut |_| {}), Err(Error::Cancelled)));
    let none = stacks.make(&"debian:99".parse().unwrap(), &|| false, &mut |_| {}).unwrap_err();
    assert!(none.to_string().contains("no stack `debian:99`"), "{none}");
    let none = stacks.of_machine(Path::new("/nonexistent"));
    let error = quietly(&none).unwrap_err();
    assert!(error.to_string().contains("not dpkg") && error.help().is_some(), "{error}");
    let names: Vec<_> = fs::read_dir(fake.root().join("stacks")).unwrap().flatten().collect();
    assert_eq!(names.len(), 1, "{names:?}");
}
