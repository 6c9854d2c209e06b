//! A private writable layer above a mount.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tolv_sandbox::{Level, Machine, Mount, NetworkChoice, Spawner, Spec};

use crate::{output, run, shell, spawner};

/// The levels that give such layers here.
fn levels(spawner: &Spawner) -> Vec<Level> {
    let machine = Machine::probe(spawner, NetworkChoice::Machine).unwrap();
    println!("{}", machine.describe().join("\n"));
    machine.layers.iter().filter(|(_, no)| no.is_none()).map(|(level, _)| *level).collect()
}

/// A slug with folders in each other.
fn slug() -> tempfile::TempDir {
    let slug = tempfile::tempdir().unwrap();
    fs::create_dir_all(slug.path().join("package/deep")).unwrap();
    fs::write(slug.path().join("file"), "as built").unwrap();
    fs::write(slug.path().join("package/deep/code"), "as built").unwrap();
    slug
}

fn spec(level: Level, slug: &Path) -> Spec {
    let mut spec = Spec::new(level, "layer");
    spec.mounts = vec![Mount::private(slug, "/app"), Mount::private(slug, "/layers/a,b:c")];
    spec
}

/// What a proof of a slug compares of a file: inode, mode, owner, change time; and the bytes.
type State = (u64, u32, u32, i64, i64, Vec<u8>);

/// Of all below a folder.
fn state(folder: &Path) -> BTreeMap<std::path::PathBuf, State> {
    let mut all = BTreeMap::new();
    let mut left = vec![folder.to_path_buf()];
    while let Some(path) = left.pop() {
        let meta = path.symlink_metadata().unwrap();
        let mut bytes = Vec::new();
        if meta.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            bytes = fs::read(&path).unwrap();
        }
        let facts = (meta.ino(), meta.mode(), meta.uid(), meta.ctime(), meta.ctime_nsec(), bytes);
        all.insert(path, facts);
    }
    all
}

#[test]
fn what_is_written_is_seen_by_its_process_alone_and_the_mount_stays_as_it_is() {
    let spawner = spawner();
    let levels = levels(&spawner);
    if rustix::process::geteuid().is_root() {
        assert_eq!(levels, [Level::Strict, Level::User]);
    }
    for level in levels {
        let slug = slug();
        let before = state(slug.path());
        let script = "
            set -e
            for top in /app /layers/a,b:c; do
                cd $top
                touch new; mkdir -p .cache/a; echo mine > .cache/a/b
                echo mine > package/new; rm package/deep/code; echo mine > package/deep/code
                mkdir gone; rmdir gone; rm file; mkdir file; rmdir file
                ls -A; cat package/deep/code
            done
            ls -A /tmp; cat /proc/mounts | grep -c ' /app '";
        let said = output(&spawner, spec(level, slug.path()), script);
        let one = ".cache\nnew\npackage\nmine";
        assert!(said.starts_with(&format!("{one}\n{one}\n")), "{level}: {said}");
        assert_eq!(state(slug.path()), before, "{level}");
        // The next one begins anew.
        let said =
            output(&spawner, spec(level, slug.path()), "cd /app; ls -A; cat package/deep/code");
        assert_eq!(said, "file\npackage\nas built", "{level}");
    }
}

#[test]
fn files_that_were_there_can_be_changed_in_place() {
    let spawner = spawner();
    let root = rustix::process::geteuid().is_root();
    // A platform that is root has no maps at level user: there the app replaces files.
    for level in levels(&spawner).into_iter().filter(|level| !root || *level == Level::Strict) {
        let slug = slug();
        let before = state(slug.path());
        let script = "cd /app; echo more >> file; chmod 600 file; touch package/deep/code; \
                      mv package other; stat -c %U:%a file; cat file other/deep/code";
        let said = output(&spawner, spec(level, slug.path()), script);
        assert_eq!(said, "app:600\nas builtmore\nas built", "{level}");
        assert_eq!(state(slug.path()), before, "{level}");
    }
}

#[test]
fn it_is_bounded_together_with_tmp() {
    let spawner = spawner();
    for level in levels(&spawner) {
        let slug = slug();
        // More than its room: a copy of it would take all.
        fs::write(slug.path().join("package/big"), vec![1; 8 << 20]).unwrap();
        let mut spec = spec(level, slug.path());
        spec.limits.tmp = 4 << 20;
        let script = "cat /app/package/big > /app/package/copy; \
                      chmod -R g+w /app/package; touch /app/package/big; df -B1 --output=size /tmp";
        let (_, said) = run(&spawner, spec.clone(), shell(script)).unwrap();
        assert!(said.lines().any(|line| line.trim() == "4194304"), "{level}: {said}");
        assert!(said.contains("No space left"), "{level}: {said}");
        // The files too.
        let script = "cd /app; n=0; while true > f$n; do n=$((n + 1)); done 2>/dev/null; echo $n";
        let made: u32 = output(&spawner, spec, script).parse().unwrap();
        assert!(made <= 1024, "{level}: {made}");
    }
}

#[test]
fn a_mount_in_a_layer_is_seen() {
    let spawner = spawner();
    for level in levels(&spawner) {
        let (slug, other) = (slug(), tempfile::tempdir().unwrap());
        fs::write(other.path().join("here"), "").unwrap();
        let mut spec = spec(level, slug.path());
        spec.mounts.push(Mount::read_only(other.path(), "/app/package/other"));
        let script =
            "ls /app/package/other; touch /app/package/other/x 2>&1 || touch /app/package/x";
        let said = output(&spawner, spec, script);
        assert!(said.starts_with("here\n") && said.ends_with("system"), "{level}: {said}");
    }
}
