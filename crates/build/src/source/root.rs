//! The folder of a pushed commit that is an app's codebase.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::ops::ControlFlow;

use tolv_model::root_folder::RootFolder;
use tolv_sandbox::Cancel;

use super::shown;
use crate::repository::{GitAccess, GitCommand, Repository};
use crate::{Error, builders};

/// Most folders that an error names.
const MAX_NAMED: usize = 10;
/// Most bytes of names that are looked through for them.
const MAX_LOOKED_THROUGH: usize = 32 << 20;
/// Digits of a commit that an error shows.
const SHORT: usize = 12;

/// The id of the tree that a commit has at `root`.
///
/// # Errors
///
/// [`Error::Undetected`] where the commit has no such folder, with the folders that could be meant;
/// git's.
pub fn tree_at(
    repository: &Repository,
    commit: &str,
    root: &RootFolder,
    cancel: &Cancel,
) -> Result<String, Error> {
    let words = ["ls-tree", "-z", "--full-tree", commit, "--", root.as_str()];
    let mut command = GitCommand::new(GitAccess::Read, words);
    command.env.push(("GIT_LITERAL_PATHSPECS", "1".into()));
    let answer = repository.ask(&command)?;
    if answer.code != 0 {
        return Err(Error::Source(format!("git: {}", shown(answer.said.as_bytes()))));
    }
    let line = String::from_utf8_lossy(&answer.out);
    let mut words = line.split(['\t', ' ']);
    let what = match (words.next(), words.next(), words.next()) {
        (Some("040000"), Some("tree"), Some(id)) => return Ok(id.to_owned()),
        (Some("160000"), ..) => Some("a submodule"),
        (Some("120000"), ..) => Some("a symbolic link"),
        (Some(_), Some("blob"), _) => Some("a file"),
        _ => None,
    };
    let short = commit.get(..SHORT).unwrap_or(commit);
    let problem = match what {
        Some(what) => format!(
            "`{root}`, the root folder of the app, is {what} in the commit {short}, and no folder"
        ),
        None => format!("the commit {short} has no folder `{root}`, the root folder of the app"),
    };
    let folders = folders(repository, commit, cancel)?;
    let mut named = folders.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join(", ");
    if folders.len() > MAX_NAMED {
        write!(named, " and {} more", folders.len() - MAX_NAMED).ok();
    }
    let help = match folders.is_empty() {
        true => "no folder of the commit has a Procfile or a manifest".to_owned(),
        false => format!(
            "folders with a Procfile or a manifest: {named}; an app for another one: \
             tolv create NAME --root FOLDER"
        ),
    };
    Err(Error::Undetected { problem, help })
}

/// The folders of a commit that have a Procfile or a manifest, those near the root first.
fn folders(repository: &Repository, commit: &str, cancel: &Cancel) -> Result<Vec<String>, Error> {
    let words = ["ls-tree", "-r", "-z", "--name-only", "--full-tree", commit];
    let mut found = BTreeSet::new();
    let (mut rest, mut looked_through) = (Vec::new(), 0);
    let mut take = |chunk: &[u8]| {
        rest.extend_from_slice(chunk);
        let whole = rest.iter().rposition(|&byte| byte == 0).map_or(0, |end| end + 1);
        for path in rest.drain(..whole).as_slice().split(|&byte| byte == 0) {
            let end = path.iter().rposition(|&byte| byte == b'/').unwrap_or(0);
            let (folder, name) = (&path[..end], path.get(end + 1..).unwrap_or_default());
            if end > 0 && builders::is_sign(name) && !is_of_others(folder) {
                let depth = folder.iter().filter(|&&byte| byte == b'/').count();
                found.insert((depth, shown(folder)));
            }
        }
        looked_through += chunk.len();
        match looked_through > MAX_LOOKED_THROUGH {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    };
    let command = GitCommand::new(GitAccess::Read, words);
    match repository.stream(&command, None, &mut take, cancel) {
        // Of a commit with more names the first ones will do.
        Err(Error::Cancelled) if looked_through > MAX_LOOKED_THROUGH => {}
        ended => drop(ended?),
    }
    Ok(found.into_iter().map(|(_, folder)| folder).collect())
}

/// Whether a folder is of packages that were copied into the repository, or hidden.
fn is_of_others(folder: &[u8]) -> bool {
    folder
        .split(|&byte| byte == b'/')
        .any(|name| matches!(name, b"node_modules" | b"vendor") || name.starts_with(b"."))
}
