//! How large manifests and locks may be. They are a stranger's, and are parsed by the platform itself: a
//! tree of values takes a hundred times the bytes of a text such as `[0,0,0,…]`.

use std::sync::atomic::{AtomicUsize, Ordering};

use tolv_model::source::MAX_FILE;

use crate::Error;
use crate::caps::bytes;

/// Largest lock. Those of the largest projects have some MiB.
const MAX_LOCK_BYTES: u64 = 32 << 20;
/// Most values of a lock that is parsed into a tree: some fifty thousand files of packages.
const MAX_VALUES: usize = 500_000;
/// Most bytes and values of all texts together, each time that one is read.
const MAX_ALL_BYTES: usize = 256 << 20;
const MAX_ALL_VALUES: usize = 2_000_000;
/// Locks of which only lines are looked at, or nothing.
const LINES_ONLY: [&str; 5] =
    ["yarn.lock", "pnpm-lock.yaml", "package-lock.json", "npm-shrinkwrap.json", "Cargo.lock"];

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Most bytes of a file, by its name: a lock lists every file of every package, and a manifest is
/// written by hand.
pub(crate) fn limit(path: &str) -> u64 {
    let name = name(path);
    let is_lock = [".lock", ".txt", ".in"].iter().any(|end| name.ends_with(end));
    match is_lock || LINES_ONLY.contains(&name) {
        true => MAX_LOCK_BYTES,
        false => MAX_FILE as u64,
    }
}

/// Refuses a text that would make too many values; how many it makes at most. What stands in strings and
/// comments counts too: this is a bound, and no parser.
pub(crate) fn check(path: &str, text: &[u8]) -> Result<usize, Error> {
    let is_parsed = !LINES_ONLY.contains(&name(path));
    let count = || text.iter().filter(|byte| b"=,[{\n".contains(byte)).count();
    let values = if is_parsed { count() } else { 0 };
    let limit = match (text.len() as u64 > MAX_LOCK_BYTES, values > MAX_VALUES) {
        (true, _) => bytes(MAX_LOCK_BYTES),
        (false, true) => format!("{MAX_VALUES} values"),
        (false, false) => return Ok(values),
    };
    Err(Error::Limit { what: format!("the file `{}`", path.escape_debug()), limit })
}

/// What all texts of a codebase have together: a workspace may have thousands of manifests.
#[derive(Debug, Default)]
pub(super) struct Total {
    bytes: AtomicUsize,
    values: AtomicUsize,
}

impl Total {
    /// Counts a text that was read.
    pub(super) fn add(&self, bytes: usize, values: usize) -> Result<(), Error> {
        let bytes = self.bytes.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let values = self.values.fetch_add(values, Ordering::Relaxed).saturating_add(values);
        match bytes > MAX_ALL_BYTES || values > MAX_ALL_VALUES {
            true => Err(Error::Limit {
                what: "all manifests and locks of the codebase together".to_owned(),
                limit: format!("{} MiB and {MAX_ALL_VALUES} values", MAX_ALL_BYTES >> 20),
            }),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_of_many_manifests_has_no_more_than_one_large_lock() {
        let total = Total::default();
        for _ in 0..512 {
            total.add(MAX_FILE, 1000).unwrap();
        }
        assert!(total.add(1, 0).unwrap_err().to_string().contains("256 MiB"));
        assert!(Total::default().add(0, MAX_ALL_VALUES + 1).is_err());
    }

    #[test]
    fn only_what_lists_packages_may_be_large() {
        for (path, limit) in [
            ("a/uv.lock", MAX_LOCK_BYTES),
            ("requirements/base.txt", MAX_LOCK_BYTES),
            ("pnpm-lock.yaml", MAX_LOCK_BYTES),
            ("a.lock/pyproject.toml", MAX_FILE as u64),
            (".yarnrc.yml", MAX_FILE as u64),
        ] {
            assert_eq!(super::limit(path), limit, "{path}");
        }
    }
}
