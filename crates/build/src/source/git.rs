//! The system's git on a developer's own repository, asked in its plumbing commands. Paths go in
//! and come out as bytes. For what was pushed there is [`Repository`](crate::Repository).
//!
//! A repository's own configuration must not run programs while Tolv looks at it: hooks and the
//! file system monitor are switched off. git's refusal of folders that belong to somebody else
//! stays.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tolv_sandbox::Cancel;

use crate::Error;

/// For git to look through a working tree: it opens what lies there under the names that it knows, and a
/// pipe is never at its end.
const LONGEST: Duration = Duration::from_secs(120);

/// Runs a command; nothing where it had not ended by then, and was killed.
fn within(command: &mut Command, limit: Duration) -> io::Result<Option<Output>> {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let handle = pidfd_open(Pid::from_child(&child), PidfdFlags::empty())?;
    let (running, ended) = mpsc::channel::<()>();
    let watch = move || {
        let is_late = ended.recv_timeout(limit) == Err(RecvTimeoutError::Timeout);
        if is_late {
            // It may have ended in this moment.
            pidfd_send_signal(&handle, Signal::KILL).ok();
        }
        is_late
    };
    let watch = thread::Builder::new().name("git".to_owned()).spawn(watch)?;
    let output = child.wait_with_output();
    drop(running);
    let is_late = watch.join().unwrap_or(false);
    output.map(|output| (!is_late).then_some(output))
}

/// How git is started.
#[derive(Clone, Debug)]
pub(crate) struct Git {
    /// `PATH` for git and its helpers.
    pub(crate) path: OsString,
    /// The developer's home, for their ignore file and the folders that they call safe.
    pub(crate) home: Option<PathBuf>,
}

/// A repository that a folder is in.
#[derive(Clone, Debug)]
pub(crate) struct Repository {
    /// The current commit; nothing before the first.
    pub(crate) head: Option<String>,
    /// Its object store.
    pub(crate) git_dir: PathBuf,
    /// The folder's path in it, with a `/` behind; empty for its root.
    pub(crate) prefix: Vec<u8>,
}

/// What the index has at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Indexed {
    /// A file or a symbolic link.
    File,
    /// A submodule at this commit.
    Submodule(String),
}

impl Git {
    fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new("git");
        command.env_clear().env("PATH", &self.path).env("LANG", "C.UTF-8");
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_OPTIONAL_LOCKS", "0");
        if let Some(home) = &self.home {
            command.env("HOME", home);
        }
        command.stdin(Stdio::null()).arg("-C").arg(dir);
        for setting in ["core.fsmonitor=false", "core.hooksPath=/dev/null", "core.autocrlf=false"] {
            command.args(["-c", setting]);
        }
        command
    }

    /// For what reads a working tree, which runs the filters that its repository names: a folder
    /// of a codebase that only looks like a repository is none.
    fn in_tree(&self, dir: &Path) -> Command {
        let mut command = self.command(dir);
        command.args(["-c", "safe.bareRepository=explicit"]);
        command
    }

    fn output(&self, command: &mut Command) -> Result<Output, Error> {
        let ran = within(command, LONGEST);
        let output = ran.map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                return Error::Toolchain {
                    what: "git".into(),
                    why: "it is not in PATH".into(),
                    help: "install git, as in `apt-get install git`".into(),
                };
            }
            Error::io("run", "git")(source)
        })?;
        output.ok_or_else(|| {
            let words: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
            Error::Source(format!(
                "git was stopped after {} s (`git {}`): a pipe in the place of a `.gitignore`, or a disk \
                 that hangs, may hold it up",
                LONGEST.as_secs(),
                words.join(" ")
            ))
        })
    }

    fn good(&self, command: &mut Command) -> Result<Vec<u8>, Error> {
        let output = self.output(command)?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        Err(said(&output))
    }

    /// The repository around `dir`, whose working tree has it; nothing where git ignores it.
    pub(crate) fn find(&self, dir: &Path) -> Result<Option<Repository>, Error> {
        let Some(repository) = self.find_any(dir)? else { return Ok(None) };
        let inside = ["rev-parse", "--is-inside-work-tree"];
        if self.good(self.in_tree(dir).args(inside))?.trim_ascii() != b"true" {
            return Ok(None);
        }
        if repository.prefix.is_empty() {
            return Ok(Some(repository));
        }
        let ignored = self.output(self.in_tree(dir).args(["check-ignore", "-q", "."]))?;
        Ok((!ignored.status.success()).then_some(repository))
    }

    /// The repository around `dir`, bare ones too.
    pub(crate) fn find_any(&self, dir: &Path) -> Result<Option<Repository>, Error> {
        let asked = ["rev-parse", "--absolute-git-dir", "--show-prefix"];
        let output = match self.output(self.command(dir).args(asked)) {
            // Without git, a folder that is no repository can still be built.
            Err(Error::Toolchain { .. }) if !above(dir).any(|dir| dir.join(".git").exists()) => {
                return Ok(None);
            }
            other => other?,
        };
        if !output.status.success() {
            let text = String::from_utf8_lossy(&output.stderr);
            if text.contains("not a git repository") && !dir.join(".git").exists() {
                return Ok(None);
            }
            return Err(said(&output));
        }
        let mut lines = output.stdout.splitn(2, |&byte| byte == b'\n');
        let git_dir = PathBuf::from(OsStr::from_bytes(lines.next().unwrap_or_default()));
        let prefix = lines.next().unwrap_or_default();
        let prefix = prefix.strip_suffix(b"\n").unwrap_or(prefix).to_vec();
        let head = self.commit(dir, "HEAD")?;
        Ok(Some(Repository { head, git_dir, prefix }))
    }

    /// The 40 hex digits of a commit's name; nothing where there is none.
    pub(crate) fn commit(&self, dir: &Path, name: &str) -> Result<Option<String>, Error> {
        let mut command = self.command(dir);
        command.args(["rev-parse", "--verify", "--quiet", "--end-of-options"]);
        let output = self.output(command.arg(format!("{name}^{{commit}}")))?;
        let hex = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok((output.status.success() && !hex.is_empty()).then_some(hex))
    }

    /// Whether `dir` is itself the root of a checked-out repository.
    pub(crate) fn is_root(&self, dir: &Path) -> Result<bool, Error> {
        if !dir.join(".git").exists() {
            return Ok(false);
        }
        Ok(self.find_any(dir)?.is_some_and(|repository| repository.prefix.is_empty()))
    }

    /// Whether a tracked file below `dir` differs from the commit.
    pub(crate) fn is_changed(&self, dir: &Path) -> Result<bool, Error> {
        let status = ["status", "--porcelain", "-z", "--untracked-files=no", "--", "."];
        Ok(!self.good(self.in_tree(dir).args(status))?.is_empty())
    }

    /// What the index has below `dir`.
    pub(crate) fn index(&self, dir: &Path) -> Result<Vec<(Vec<u8>, Indexed)>, Error> {
        Ok(parse_index(&self.good(self.in_tree(dir).args(["ls-files", "--stage", "-z"]))?))
    }

    /// Files below `dir` that `git add` would add; a nested repository ends with `/`.
    pub(crate) fn untracked(&self, dir: &Path) -> Result<Vec<Vec<u8>>, Error> {
        let list = ["ls-files", "--others", "--exclude-standard", "-z"];
        let bytes = self.good(self.in_tree(dir).args(list))?;
        Ok(bytes.split(|&b| b == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect())
    }

    /// Whether git passes over an untracked file of a folder.
    pub(crate) fn is_ignored(&self, dir: &Path, path: &str) -> bool {
        let mut command = self.in_tree(dir);
        command.args(["check-ignore", "-q", "--", path]);
        self.output(&mut command).is_ok_and(|output| output.status.success())
    }

    /// Whether the object store has this commit.
    pub(crate) fn has(&self, git_dir: &Path, commit: &str) -> bool {
        let mut command = self.command(Path::new("/"));
        // A submodule's own setting names a folder that may be gone, which git would die of.
        command.env("GIT_DIR", git_dir).env("GIT_WORK_TREE", "/");
        command.args(["cat-file", "-e", &format!("{commit}^{{commit}}")]);
        self.output(&mut command).is_ok_and(|output| output.status.success())
    }

    /// Runs a command on an object store; its output goes to `on_out`, which may have had enough:
    /// then, as when it is cancelled, git is killed. Gives its exit status and what it said about
    /// an error.
    pub(crate) fn stream(
        &self,
        git_dir: &Path,
        args: &[&[u8]],
        stdin: Option<OwnedFd>,
        on_out: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
        cancel: &Cancel,
    ) -> Result<(i32, String), Error> {
        let mut command = self.command(Path::new("/"));
        command.env("GIT_DIR", git_dir).env("GIT_NO_REPLACE_OBJECTS", "1");
        // A submodule's own setting names a folder that may be gone, which git would die of.
        command.env("GIT_WORK_TREE", "/");
        command.args(args.iter().map(|word| OsStr::from_bytes(word)));
        let failed = |source| Error::io("run", "git")(source);
        let mut said = File::from(
            memfd_create(c"errors", MemfdFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?,
        );
        command.stdin(stdin.map_or_else(Stdio::null, Stdio::from)).stdout(Stdio::piped());
        command.stderr(said.try_clone().map_err(failed)?);
        let mut child = command.spawn().map_err(failed)?;
        let mut out = child.stdout.take();
        let mut chunk = vec![0; 64 * 1024];
        let mut ended = Ok(());
        while let Some(pipe) = &mut out {
            if cancel.is_cancelled() {
                ended = Err(Error::Cancelled);
                break;
            }
            let mut ready = [PollFd::new(&*pipe, PollFlags::IN)];
            if poll(&mut ready, Some(&LOOK)).is_ok_and(|ready| ready == 0) {
                continue;
            }
            match pipe.read(&mut chunk) {
                Ok(0) => break,
                Ok(read) => {
                    if on_out(&chunk[..read]).is_break() {
                        ended = Err(Error::Cancelled);
                        break;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    ended = Err(failed(error));
                    break;
                }
            }
        }
        drop(out);
        if ended.is_err() {
            // It may have ended by itself.
            child.kill().ok();
        }
        let status = child.wait().map_err(failed)?;
        ended?;
        let mut text = Vec::new();
        said.rewind().map_err(failed)?;
        said.take(16 << 10).read_to_end(&mut text).map_err(failed)?;
        let text = String::from_utf8_lossy(&text);
        let text = text.trim().trim_start_matches("fatal: ").to_owned();
        Ok((status.code().unwrap_or(128), text))
    }
}

/// How often a command that says nothing is looked at.
const LOOK: Timespec = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };

fn above(dir: &Path) -> impl Iterator<Item = &Path> {
    dir.ancestors()
}

fn said(output: &Output) -> Error {
    let text = String::from_utf8_lossy(&output.stderr);
    Error::Source(format!("git: {}", text.trim().trim_start_matches("fatal: ")))
}

/// Reads `<mode> <object> <stage>\t<path>\0`…
fn parse_index(bytes: &[u8]) -> Vec<(Vec<u8>, Indexed)> {
    let line = |line: &[u8]| {
        let tab = line.iter().position(|&byte| byte == b'\t')?;
        let (head, path) = (std::str::from_utf8(&line[..tab]).ok()?, line[tab + 1..].to_vec());
        let mut words = head.split(' ');
        let (mode, object) = (words.next()?, words.next()?);
        let kind = match mode {
            "160000" => Indexed::Submodule(object.to_owned()),
            _ => Indexed::File,
        };
        Some((path, kind))
    };
    bytes.split(|&byte| byte == 0).filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn git_that_waits_at_a_pipe_is_stopped() {
        let dir = tempfile::tempdir().unwrap();
        let own = Git { path: "/usr/local/bin:/usr/bin:/bin".into(), home: None };
        let git = |words: &[&str]| {
            let mut command = own.in_tree(dir.path());
            command.args(words);
            within(&mut command, Duration::from_millis(500)).unwrap()
        };
        let list = ["ls-files", "--others", "--exclude-standard", "-z"];
        assert!(own.good(own.command(dir.path()).args(["init", "--quiet"])).is_ok());
        std::fs::write(dir.path().join("a"), "").unwrap();
        assert_eq!(git(&list).unwrap().stdout, b"a\0");
        let (path, kind) = (dir.path().join(".gitignore"), rustix::fs::FileType::Fifo);
        rustix::fs::mknodat(rustix::fs::CWD, &path, kind, 0o600.into(), 0).unwrap();
        assert!(git(&list).is_none());
    }
}
