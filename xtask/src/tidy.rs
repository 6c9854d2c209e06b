//! The project's own rules, those that no compiler or linter knows.
//!
//! Each check returns what it found, one line each, with the file; all of them run before any
//! failure is reported.

mod docs;
mod edges;
mod examples;
mod sources;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use crate::steps::{Failure, say};

/// Runs every check.
pub(crate) fn check(root: &Path) -> Result<(), Failure> {
    let mut problems = edges::check(root)?;
    problems.extend(sources::check(root)?);
    problems.extend(docs::check(root)?);
    problems.extend(examples::check(root)?);
    for problem in &problems {
        say(&format!("  {problem}"));
    }
    match problems.len() {
        0 => Ok(()),
        n => Err(Failure(format!("tidy found {n} problem(s), listed above"))),
    }
}

/// Every file below `folder` for which `wanted` holds, sorted. Build output, hidden folders and
/// installed packages are not looked into.
fn files(folder: &Path, wanted: &dyn Fn(&Path) -> bool) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        let entries = std::fs::read_dir(&next)
            .map_err(|error| Failure(format!("{}: {error}", next.display())))?;
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let kind = entry.file_type()?;
            if kind.is_dir() {
                let skipped = name == "target" || name == "node_modules" || name == "__pycache__";
                if !skipped && !name.as_encoded_bytes().starts_with(b".") {
                    folders.push(entry.path());
                }
            } else if kind.is_file() && wanted(&entry.path()) {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| Failure(format!("{}: {error}", path.display())))
}

/// The path as people write it, from the repository's root.
fn shown(root: &Path, path: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}

fn has_extension(path: &Path, wanted: &str) -> bool {
    path.extension().is_some_and(|extension| extension == wanted)
}
