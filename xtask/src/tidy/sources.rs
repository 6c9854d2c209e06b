//! What every source file keeps to.

use std::path::Path;

use super::{files, has_extension, read, shown};
use crate::steps::Failure;

/// A file longer than this wants a wall.
pub(super) const LONGEST: usize = 600;

/// Longer files, each with the reason.
const MAY_BE_LONGER: &[(&str, &str)] = &[];

/// What does not get in: text, and why. Written in halves, so that this file may.
const NOT_HERE: &[(&str, &str)] = &[
    (concat!("todo", "!("), "unfinished code"),
    (concat!("unimplemented", "!("), "unfinished code"),
    (concat!("#[", "ignore"), "a test that does not run proves nothing"),
    (concat!("FIX", "ME"), "mend it, or open an issue"),
];

pub(super) fn check(root: &Path) -> Result<Vec<String>, Failure> {
    let mut problems = Vec::new();
    let mut exempted: Vec<&str> = Vec::new();
    for folder in ["crates", "xtask"] {
        for path in files(&root.join(folder), &|path| has_extension(path, "rs"))? {
            let name = shown(root, &path);
            let text = read(&path)?;
            problems.extend(judge(&name, &text));
            let lines = text.lines().count();
            let exempt = MAY_BE_LONGER.iter().find(|(path, _)| *path == name);
            if let Some((path, _)) = exempt.filter(|_| lines > LONGEST) {
                exempted.push(path);
            } else if lines > LONGEST {
                problems.push(format!("{name}: {lines} lines; past {LONGEST} it wants a wall"));
            }
        }
    }
    for (path, _) in MAY_BE_LONGER.iter().filter(|(path, _)| !exempted.contains(path)) {
        problems.push(format!("{path}: may be longer by a rule it no longer needs"));
    }
    Ok(problems)
}

/// Judges one file's text.
pub(super) fn judge(name: &str, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let face = name.ends_with("src/lib.rs") || name.ends_with("src/main.rs");
    if face && !text.starts_with("//!") {
        problems.push(format!("{name}: a crate begins with `//!` docs that say what it is"));
    }
    for (number, line) in text.lines().enumerate() {
        for (unwanted, why) in NOT_HERE {
            if line.contains(unwanted) {
                problems.push(format!("{name}:{}: `{unwanted}`: {why}", number + 1));
            }
        }
    }
    problems
}
