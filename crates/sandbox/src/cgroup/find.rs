//! Where the cgroup trees are mounted and where in them this process is.

use std::fs;
use std::path::{Path, PathBuf};

use super::CONTROLLERS;
use crate::level::Reason;

/// What `/proc` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// Candidates for the base in the v2 tree, best first.
    pub(super) v2: Vec<PathBuf>,
    /// Own directory per v1 controller.
    pub(super) v1: Vec<(&'static str, PathBuf)>,
    /// Own directory in each tree.
    pub(super) own: Vec<PathBuf>,
    pub(super) reasons: Vec<Reason>,
}

pub(super) fn find() -> Found {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let privileged = rustix::process::geteuid().is_root();
    parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"), privileged)
}

/// A mount of a cgroup tree.
struct Tree<'a> {
    /// The part of the tree that is shown, as in `/docker/abc`.
    root: &'a str,
    point: PathBuf,
}

impl Tree<'_> {
    /// The directory of a cgroup path, if this mount shows it; else the top of the mount.
    fn dir(&self, own: &str) -> PathBuf {
        let below = match self.root {
            "/" => Some(own),
            root => own.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with('/')),
        };
        match below.map(|rest| rest.trim_matches('/')) {
            Some(rest) if !rest.is_empty() && !rest.split('/').any(|part| part == "..") => {
                self.point.join(rest)
            }
            Some(_) | None => self.point.clone(),
        }
    }
}

fn parse(mountinfo: &str, cgroup: &str, privileged: bool) -> Found {
    let mut found = Found::default();
    let mut v2 = None;
    for line in mountinfo.lines() {
        // 30 23 0:26 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
        let Some((front, back)) = line.split_once(" - ") else {
            continue;
        };
        let front: Vec<&str> = front.split(' ').collect();
        let back: Vec<&str> = back.split(' ').collect();
        let (Some(root), Some(point), Some(kind)) = (front.get(3), front.get(4), back.first())
        else {
            continue;
        };
        let tree = Tree { root, point: unescape(point) };
        match *kind {
            "cgroup2" if v2.is_none() => v2 = Some(tree),
            "cgroup" => {
                let options = back.last().copied().unwrap_or_default();
                for name in CONTROLLERS {
                    let is_here = options.split(',').any(|option| option == name);
                    if is_here && found.v1.iter().all(|(have, _)| *have != name) {
                        let own = own_path(cgroup, |of| of.split(',').any(|have| have == name));
                        found.v1.push((name, tree.dir(own)));
                    }
                }
            }
            _ => {}
        }
    }
    found.own = found.v1.iter().map(|(_, dir)| dir.clone()).collect();
    if let Some(tree) = v2 {
        let own = tree.dir(own_path(cgroup, str::is_empty));
        found.own.push(own.clone());
        if own == tree.point {
            found.v2.push(own.join("tolv"));
        } else {
            // A cgroup with processes cannot hand its controllers down, so that the base goes
            // beside it; the top is root's.
            if privileged {
                found.v2.push(tree.point.join("tolv"));
            }
            let beside = own.parent().unwrap_or(&own);
            if !privileged || beside != tree.point {
                found.v2.push(beside.join("tolv"));
            }
            found.v2.push(own.join("tolv"));
        }
    }
    if found.v2.is_empty() && found.v1.is_empty() {
        found.reasons.push(Reason::new("no cgroup tree is mounted", 0));
    }
    found
}

fn own_path(cgroup: &str, is_it: impl Fn(&str) -> bool) -> &str {
    cgroup
        .lines()
        .filter_map(|line| line.split_once(':')?.1.split_once(':'))
        .find(|(controllers, _)| is_it(controllers))
        .map_or("/", |(_, path)| path)
}

/// Mount points have blanks as `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match (code, part.get(3..)) {
            (Some(code), Some(rest)) => {
                plain.push(char::from(code));
                plain.push_str(rest);
            }
            _ => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    Path::new(&plain).to_path_buf()
}

#[cfg(test)]
mod tests;
