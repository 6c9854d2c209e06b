//! The examples: small enough to read whole, and with every dependency pinned.

use std::path::Path;

use super::{files, has_extension, read, shown};
use crate::steps::Failure;

/// An example has fewer lines of source, in all its files together.
const LIMIT: usize = 80;

const SOURCE: &[&str] = &["py", "js", "rs", "go", "pl", "sh", "html", "css"];

pub(super) fn check(root: &Path) -> Result<Vec<String>, Failure> {
    let mut problems = Vec::new();
    let folder = root.join("examples");
    for entry in std::fs::read_dir(&folder)? {
        let example = entry?.path();
        if !example.is_dir() {
            continue;
        }
        let name = shown(root, &example);
        let mut lines = 0;
        for path in files(&example, &|path| SOURCE.iter().any(|end| has_extension(path, end)))? {
            lines += read(&path)?.lines().count();
        }
        if lines >= LIMIT {
            problems.push(format!("{name}: {lines} lines of source; fewer than {LIMIT} wanted"));
        }
        if !example.join("README.md").is_file() {
            problems.push(format!("{name}: no README.md"));
        }
        for (manifest, lock) in
            [("package.json", "package-lock.json"), ("Cargo.toml", "Cargo.lock")]
        {
            if example.join(manifest).is_file() && !example.join(lock).is_file() {
                problems.push(format!("{name}: {manifest} without {lock}"));
            }
        }
        let requirements = example.join("requirements.txt");
        if requirements.is_file() {
            problems
                .extend(unpinned(&read(&requirements)?).map(|line| {
                    format!("{name}/requirements.txt: `{line}` is not pinned with ==")
                }));
        }
    }
    Ok(problems)
}

/// Lines of a requirements file that leave the version open.
pub(super) fn unpinned(requirements: &str) -> impl Iterator<Item = &str> {
    requirements
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim())
        .filter(|line| !line.is_empty() && !line.contains("=="))
}
