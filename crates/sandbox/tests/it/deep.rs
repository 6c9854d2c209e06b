//! What a sandboxed program nests without end stops nobody who gives it away afterwards.

use tolv_sandbox::{Error, Level, Mount, Spec};

use crate::{levels, output, run, shell, spawner};

#[test]
fn a_mount_that_is_too_deep_is_an_error_and_no_crash() {
    let spawner = spawner();
    if !rustix::process::geteuid().is_root() || !levels(&spawner).contains(&Level::Strict) {
        return;
    }
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("data");
    std::fs::create_dir(&folder).unwrap();
    let mut spec = Spec::new(Level::Strict, "deep");
    spec.mounts = vec![Mount::read_write(&folder, "/data")];
    let nest = "cd /data; mkdir -p $(printf 'd/%.0s' $(seq 1000))";
    output(&spawner, spec.clone(), nest);
    let error = run(&spawner, spec.clone(), shell("true")).unwrap_err();
    let Error::Io { source, .. } = &error else { panic!("{error:?}") };
    assert!(source.to_string().contains("more than 256 folders deep"), "{error}");
    // It is still its app's own, and can be tidied from inside.
    spec.mounts = vec![Mount::read_only(&folder, "/data")];
    output(&spawner, spec, "ls /data");
    assert!(std::process::Command::new("rm").arg("-rf").arg(&folder).status().unwrap().success());
}
