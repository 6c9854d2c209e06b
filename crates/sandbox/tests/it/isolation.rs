//! What a process sees and may do.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use tolv_sandbox::{Access, Level, Mount, Spec, uid_of};

use crate::{levels, output, run, shell, spawner};

#[test]
fn a_read_only_mount_cannot_be_written_and_a_writable_one_can() {
    let spawner = spawner();
    for level in levels(&spawner) {
        // Without a root of its own, a process may write all of /tmp.
        let dir = tempfile::tempdir_in("/var/tmp").unwrap();
        let (app, cache) = (dir.path().join("app with blank"), dir.path().join("cache"));
        fs::create_dir_all(&app).unwrap();
        fs::create_dir_all(cache.join("deep")).unwrap();
        fs::write(app.join("file"), "here").unwrap();
        let mut spec = Spec::new(level, "isolation");
        spec.mounts = vec![Mount::read_only(&app, "/app"), Mount::read_write(&cache, "/cache")];
        let (seen_app, seen_cache) = (spec.view("/app".as_ref()), spec.view("/cache".as_ref()));
        let script = format!(
            "cat '{app}/file'; touch '{cache}/deep/new' && echo ' written'; \
             if touch '{app}/new' 2>/dev/null; then echo open; else echo shut; fi",
            app = seen_app.display(),
            cache = seen_cache.display()
        );
        let said = output(&spawner, spec, &script);
        let wanted = if level == Level::None { "here written\nopen" } else { "here written\nshut" };
        assert_eq!(said, wanted, "{level}");
        assert!(cache.join("deep/new").exists(), "{level}");
    }
}

#[test]
fn other_files_of_the_machine_are_out_of_reach() {
    let spawner = spawner();
    let home = tempfile::tempdir_in("/var/tmp").unwrap();
    let secret = home.path().join("secret");
    fs::write(&secret, "x").unwrap();
    for level in levels(&spawner).into_iter().filter(|level| *level != Level::None) {
        let script = format!("cat {} 2>&1 || true", secret.display());
        let said = output(&spawner, Spec::new(level, "isolation"), &script);
        assert!(said.contains("No such file") || said.contains("denied"), "{level}: {said}");
    }
}

#[test]
fn with_a_root_of_its_own_it_is_alone() {
    let spawner = spawner();
    for level in levels(&spawner).into_iter().filter(|level| level.has_own_root()) {
        let spec = || Spec::new(level, "alone");
        let said = output(&spawner, spec(), "echo /proc/[0-9]*; hostname; ls /tmp; id -un");
        let lines: Vec<_> = said.lines().collect();
        assert!(lines[0].starts_with("/proc/1 /proc/2"), "{level}: {said}");
        assert_eq!(lines[1..], ["app", "app"], "{level}: {said}");
        let tmp = output(&spawner, spec(), "echo x > /tmp/mine && cat /tmp/mine; ls /var/tmp");
        assert_eq!(tmp, "x\nmine", "{level}");
        assert_eq!(output(&spawner, spec(), "ls /tmp"), "", "{level}: /tmp is shared");
        let root =
            output(&spawner, spec(), "touch /new /etc/new /usr/new 2>&1 | grep -c Read-only");
        assert_eq!(root, "3", "{level}");
        let devices = "echo x > /dev/null && head -c 4 /dev/urandom | wc -c; ls /dev/pts";
        assert_eq!(output(&spawner, spec(), devices), "4\nptmx", "{level}");
        assert_eq!(output(&spawner, spec(), "echo direct > /dev/stdout"), "direct", "{level}");
    }
}

/// Tries to change another process, here a child, and to share objects of the kernel.
const REACH: &str = r#"
import ctypes, errno, os, resource
child = os.fork()
if child == 0:
    os.read(0, 1)
    os._exit(0)
libc = ctypes.CDLL(None, use_errno=True)
def said(name, call):
    try:
        ctypes.set_errno(0)
        if call() == -1:
            raise OSError(ctypes.get_errno(), '')
        print(name, 'done')
    except OSError as error:
        print(name, errno.errorcode[error.errno])
few = (10, 10)
said('limits', lambda: resource.prlimit(child, resource.RLIMIT_NOFILE, few))
said('nice', lambda: os.setpriority(os.PRIO_PROCESS, child, 19))
said('nice of all', lambda: os.setpriority(os.PRIO_USER, 0, 19))
said('cores', lambda: os.sched_setaffinity(child, {0}))
said('policy', lambda: os.sched_setscheduler(child, os.SCHED_BATCH, os.sched_param(0)))
ioprio_set = {'x86_64': 251, 'aarch64': 30}[os.uname().machine]
said('disk', lambda: libc.syscall(ioprio_set, 1, child, 3 << 13))
said('memory', lambda: libc.shmget(1234, 4096, 0o1777))
said('messages', lambda: libc.msgget(1234, 0o1777))
said('semaphores', lambda: libc.semget(1234, 1, 0o1777))
said('read limits', lambda: resource.prlimit(child, resource.RLIMIT_NOFILE))
said('own limits', lambda: resource.prlimit(0, resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)))
said('own nice', lambda: os.setpriority(os.PRIO_PROCESS, 0, 5))
os.kill(child, 9)
"#;

#[test]
fn beside_processes_of_its_user_it_changes_none_of_them() {
    let spawner = spawner();
    for level in levels(&spawner).into_iter().filter(|level| *level == Level::Landlock) {
        let script = format!("exec python3 -c '{}'", REACH.replace('\'', "\""));
        let said = output(&spawner, Spec::new(level, "reach"), &script);
        let wanted = "limits EPERM,nice EPERM,nice of all EPERM,cores EPERM,policy EPERM,disk EPERM,\
                      memory ENOSYS,messages ENOSYS,semaphores ENOSYS,\
                      read limits done,own limits done,own nice done";
        assert_eq!(said.replace('\n', ","), wanted, "{level}");
    }
}

#[test]
fn no_privilege_is_left() {
    let spawner = spawner();
    for level in levels(&spawner).into_iter().filter(|level| *level != Level::None) {
        let spec = || Spec::new(level, "privileges");
        let status = output(
            &spawner,
            spec(),
            "grep -E '^(CapInh|CapPrm|CapEff|CapAmb|NoNewPrivs|Seccomp):' /proc/self/status",
        );
        let values: Vec<_> =
            status.lines().filter_map(|line| line.split_whitespace().nth(1)).collect();
        let none = "0000000000000000";
        assert_eq!(values, [none, none, none, none, "1", "2"], "{level}: {status}");
        let foreign = format!("kill -0 {}", std::process::id());
        for (what, script) in [
            ("mount", "mount -t tmpfs none /tmp"),
            ("unshare", "unshare -r true"),
            ("umount", "umount /proc"),
            // Where processes are not hidden, one user's may signal each other.
            ("a signal to the machine", if level.has_own_root() { &*foreign } else { "false" }),
        ] {
            let (status, said) = run(&spawner, spec(), shell(script)).unwrap();
            assert!(!status.success(), "{level}: {what} worked: {said}");
        }
    }
}

#[test]
fn strict_gives_each_app_its_own_uid_and_its_files() {
    let spawner = spawner();
    if !levels(&spawner).contains(&Level::Strict) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("below")).unwrap();
    fs::write(dir.path().join("below/file"), "").unwrap();
    let mut spec = Spec::new(Level::Strict, "one");
    spec.mounts.push(Mount {
        source: dir.path().to_path_buf(),
        target: "/data".into(),
        access: Access::ReadWrite,
    });
    let uid = uid_of("one");
    assert_eq!(output(&spawner, spec, "id -u; id -g; id -G"), format!("{uid}\n{uid}\n{uid}"));
    assert_eq!(fs::metadata(dir.path().join("below/file")).unwrap().uid(), uid);
    let other = output(&spawner, Spec::new(Level::Strict, "two"), "id -u");
    assert_eq!(other, uid_of("two").to_string());
}
