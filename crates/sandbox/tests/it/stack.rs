//! A stack of folders in place of the machine's own `/usr`.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use tolv_sandbox::{Error, Level, Spec};

use crate::{levels, output, run, shell, spawner};

/// Copies programs of this machine with the libraries that they load, as a stack has them.
fn programs(stack: &Path, names: &[&str]) {
    let mut files = BTreeSet::new();
    for name in names {
        let program = ["/usr/bin", "/bin"].map(|folder| Path::new(folder).join(name));
        let program = program.into_iter().find(|path| path.exists()).unwrap();
        let said = Command::new("ldd").arg(&program).output().unwrap();
        let said = String::from_utf8(said.stdout).unwrap();
        files.extend(
            said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from),
        );
        let real = program.canonicalize().unwrap();
        let to = stack.join("usr/bin").join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(real, to).unwrap();
    }
    for file in files {
        let inside = file.strip_prefix("/").unwrap();
        let inside = inside.strip_prefix("usr").unwrap_or(inside);
        let to = stack.join("usr").join(inside);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(file.canonicalize().unwrap(), to).unwrap();
    }
}

fn write(stack: &Path, file: &str, text: &str) {
    let path = stack.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A small one; world-readable, as one of the state folder is.
fn stack() -> tempfile::TempDir {
    let stack = tempfile::tempdir().unwrap();
    let folder = stack.path();
    programs(folder, &["sh", "ls", "cat", "id"]);
    write(folder, "etc/os-release", "NAME=Small\n");
    write(folder, "etc/passwd", "intruder:x:0:0::/:/bin/sh\n");
    write(folder, "etc/ssl/certs/one.pem", "lower\n");
    write(folder, "var/lib/thing/data", "lower\n");
    write(folder, "var/tmp/never", "");
    symlink("/usr/share/zone", folder.join("etc/localtime")).unwrap();
    readable(folder);
    stack
}

fn readable(folder: &Path) {
    let done = Command::new("chmod").arg("-R").arg("a+rX").arg(folder).status().unwrap();
    assert!(done.success());
}

fn own_roots() -> (tolv_sandbox::Spawner, Vec<Level>) {
    let spawner = spawner();
    let levels = levels(&spawner).into_iter().filter(|level| level.has_own_root()).collect();
    (spawner, levels)
}

#[test]
fn nothing_of_the_machine_is_seen_beside_it() {
    let (spawner, levels) = own_roots();
    let stack = stack();
    for level in levels {
        let spec = || {
            let mut spec = Spec::new(level, "stack");
            spec.stack = vec![stack.path().to_path_buf()];
            spec
        };
        let script = "echo /* /usr/* /usr/bin/* /etc/* /var/* /var/lib/*";
        let seen = output(&spawner, spec(), script);
        let mut seen: BTreeSet<_> = seen.split(' ').collect();
        // What the machine's own libraries and links need.
        seen.retain(|path| !path.starts_with("/lib") && !path.starts_with("/usr/lib"));
        let wanted = "/app /bin /dev /etc /proc /run /sys /tmp /usr /var /usr/bin \
            /usr/bin/cat /usr/bin/id /usr/bin/ls /usr/bin/sh \
            /etc/group /etc/hostname /etc/hosts /etc/localtime /etc/mtab /etc/os-release \
            /etc/passwd /etc/resolv.conf /etc/ssl \
            /var/lib /var/run /var/tmp /var/lib/thing";
        assert_eq!(seen, wanted.split_whitespace().collect(), "{level}");
        let said =
            output(&spawner, spec(), "id -un; cat /etc/os-release /etc/ssl/certs/*; ls /var/tmp");
        assert_eq!(said, "app\nNAME=Small\nlower", "{level}");
        let (status, said) =
            run(&spawner, spec(), shell("gcc --version || ls /usr/share")).unwrap();
        assert!(!status.success() && said.contains("not found"), "{level}: {said}");
        let said =
            output(&spawner, spec(), "cat /sys/devices/system/cpu/online; cat /etc/resolv.conf");
        assert!(said.contains("nameserver") && said.starts_with('0'), "{level}: {said}");
        let script = "for f in /usr/x /etc/x /etc/ssl/x /var/lib/thing/x; do \
                      (echo > $f) 2>&1 || true; done";
        let said = output(&spawner, spec(), script);
        assert_eq!(said.lines().count(), 4, "{level}: {said}");
    }
}

#[test]
fn layers_lie_on_each_other() {
    let (spawner, levels) = own_roots();
    let (lower, upper) = (stack(), tempfile::tempdir().unwrap());
    programs(upper.path(), &["sort"]);
    write(upper.path(), "usr/include/stdio.h", "");
    write(upper.path(), "etc/os-release", "NAME=Upper\n");
    write(upper.path(), "etc/ssl/certs/two.pem", "upper\n");
    write(upper.path(), "etc/only", "upper\n");
    write(upper.path(), "var/lib/other/data", "upper\n");
    symlink("Upper", upper.path().join("etc/localtime")).unwrap();
    readable(upper.path());
    for level in levels {
        let mut spec = Spec::new(level, "stack");
        spec.stack = vec![lower.path().to_path_buf(), upper.path().to_path_buf()];
        let script = "echo c b a | sort; ls /usr/include; cat /etc/os-release /etc/ssl/certs/* \
                      /etc/only /var/lib/*/*; ls -l /etc/localtime | cat; (echo > /usr/x) 2>&1 || true";
        let said = output(&spawner, spec, script);
        let lines: Vec<_> = said.lines().collect();
        let wanted =
            ["c b a", "stdio.h", "NAME=Upper", "lower", "upper", "upper", "upper", "lower"];
        assert_eq!(lines[..8], wanted, "{level}: {said}");
        assert!(lines[8].ends_with("/etc/localtime -> Upper"), "{level}: {said}");
        assert!(lines[9].contains("Read-only"), "{level}: {said}");
    }
}

#[test]
fn a_folder_without_programs_is_refused() {
    let (spawner, levels) = own_roots();
    let empty = tempfile::tempdir().unwrap();
    for level in levels {
        let mut spec = Spec::new(level, "stack");
        spec.stack = vec![empty.path().to_path_buf()];
        let refused = run(&spawner, spec.clone(), shell("true")).unwrap_err();
        assert!(refused.to_string().contains("find usr in the stack"), "{level}: {refused}");
        spec.stack = vec![empty.path().join("none")];
        assert!(matches!(run(&spawner, spec, shell("true")), Err(Error::BadLaunch(_))));
    }
}
