//! Git repositories whose commits have the same ids on every machine.

use std::path::Path;
use std::process::Command;

/// Author, committer and time of every commit.
const ENV: [(&str, &str); 10] = [
    ("PATH", "/usr/local/bin:/usr/bin:/bin"),
    ("HOME", "/nonexistent"),
    ("GIT_CONFIG_NOSYSTEM", "1"),
    ("GIT_CONFIG_GLOBAL", "/dev/null"),
    ("GIT_AUTHOR_NAME", "Ada"),
    ("GIT_AUTHOR_EMAIL", "ada@example.org"),
    ("GIT_AUTHOR_DATE", "2026-01-01T12:00:00Z"),
    ("GIT_COMMITTER_NAME", "Ada"),
    ("GIT_COMMITTER_EMAIL", "ada@example.org"),
    ("GIT_COMMITTER_DATE", "2026-01-01T12:00:00Z"),
];

/// Runs git in a folder, with nothing of the user's own settings; returns its output, trimmed.
///
/// # Panics
///
/// When git is missing or fails; the text has what git said.
#[track_caller]
pub fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "init.defaultBranch=main", "-c", "safe.directory=*"])
        .args(args)
        .current_dir(folder)
        .env_clear()
        .envs(ENV)
        .output()
        .unwrap_or_else(|error| panic!("run git in {}: {error}", folder.display()));
    assert!(
        output.status.success(),
        "git {args:?} in {}: {}\n{}",
        folder.display(),
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Commits everything in a folder, which becomes a repository where it is none; returns the
/// commit's id.
///
/// # Panics
///
/// As [`git`].
#[track_caller]
pub fn commit(folder: &Path) -> String {
    if !folder.join(".git").exists() {
        git(folder, &["init", "--quiet"]);
    }
    git(folder, &["add", "--all"]);
    git(folder, &["commit", "--quiet", "--allow-empty", "--message", "A commit"]);
    git(folder, &["rev-parse", "HEAD"])
}

#[cfg(test)]
mod tests;
