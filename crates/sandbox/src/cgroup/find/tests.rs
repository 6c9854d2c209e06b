use super::*;

fn dirs(found: &Found) -> Vec<String> {
    found.v1.iter().map(|(name, dir)| format!("{name} {}", dir.display())).collect()
}

#[test]
fn hybrid_trees_are_told_apart() {
    let mounts = "\
25 24 0:22 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
26 24 0:23 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
27 24 0:24 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
28 24 0:25 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    let own = "4:memory:/a/b\n1:cpu:/\n0::/\n";
    let found = parse(mounts, own, true);
    assert_eq!(dirs(&found), ["cpu /sys/fs/cgroup/cpu", "memory /sys/fs/cgroup/memory/a/b"]);
    assert_eq!(found.v2, [PathBuf::from("/sys/fs/cgroup/unified/tolv")]);
}

#[test]
fn one_tree_gives_candidates_best_first() {
    let mounts = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    let own = "0::/system.slice/tolv.service\n";
    let paths = |privileged| -> Vec<String> {
        let found = parse(mounts, own, privileged);
        found.v2.iter().map(|path| path.display().to_string()).collect()
    };
    assert_eq!(
        paths(true),
        [
            "/sys/fs/cgroup/tolv",
            "/sys/fs/cgroup/system.slice/tolv",
            "/sys/fs/cgroup/system.slice/tolv.service/tolv"
        ]
    );
    assert_eq!(
        paths(false),
        ["/sys/fs/cgroup/system.slice/tolv", "/sys/fs/cgroup/system.slice/tolv.service/tolv"]
    );
}

#[test]
fn part_of_a_tree_is_read_relative_to_its_root() {
    let mounts = "30 23 0:26 /docker/abc /sys/fs/cg\\040roup rw - cgroup cgroup rw,cpu,pids\n";
    let found = parse(mounts, "3:cpu,pids:/docker/abc/x\n", true);
    assert_eq!(dirs(&found), ["pids /sys/fs/cg roup/x", "cpu /sys/fs/cg roup/x"]);
    let found = parse(mounts, "3:cpu,pids:/docker/abcd\n", true);
    assert_eq!(dirs(&found), ["pids /sys/fs/cg roup", "cpu /sys/fs/cg roup"]);
    let found = parse(mounts, "3:cpu,pids:/../..\n", true);
    assert_eq!(dirs(&found), ["pids /sys/fs/cg roup", "cpu /sys/fs/cg roup"]);
}

#[test]
fn nothing_mounted_says_so() {
    let found = parse("garbage\n1 2 3 - \n - \n", "", true);
    assert_eq!(found.reasons.len(), 1);
}
