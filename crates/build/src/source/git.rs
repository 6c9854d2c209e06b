//! The system's git, asked in its plumbing commands. Paths go in and come out as bytes.
//!
//! A repository's own configuration must not run programs while Tolv looks at it: hooks and the
//! file system monitor are switched off. Filters (such as LFS) stay, since the files are not
//! whole without them. git's refusal of folders that belong to somebody else stays as well.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::Error;

/// How git is started.
#[derive(Clone, Debug)]
pub(crate) struct Git {
    /// `PATH` for git and its helpers.
    pub(crate) path: OsString,
    /// The operator's home, for their ignore file and their LFS settings.
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

    fn output(&self, command: &mut Command) -> Result<Output, Error> {
        command.output().map_err(|source| {
            if source.kind() == std::io::ErrorKind::NotFound {
                return Error::Toolchain {
                    what: "git".into(),
                    why: "it is not in PATH".into(),
                    help: "install git, as in `apt-get install git`".into(),
                };
            }
            Error::io("run", "git")(source)
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
        if self.good(self.command(dir).args(inside))?.trim_ascii() != b"true" {
            return Ok(None);
        }
        if repository.prefix.is_empty() {
            return Ok(Some(repository));
        }
        let ignored = self.output(self.command(dir).args(["check-ignore", "-q", "."]))?;
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
        Ok(!self.good(self.command(dir).args(status))?.is_empty())
    }

    /// What the index has below `dir`.
    pub(crate) fn index(&self, dir: &Path) -> Result<Vec<(Vec<u8>, Indexed)>, Error> {
        Ok(parse_index(&self.good(self.command(dir).args(["ls-files", "--stage", "-z"]))?))
    }

    /// Files below `dir` that `git add` would add; a nested repository ends with `/`.
    pub(crate) fn untracked(&self, dir: &Path) -> Result<Vec<Vec<u8>>, Error> {
        let list = ["ls-files", "--others", "--exclude-standard", "-z"];
        let bytes = self.good(self.command(dir).args(list))?;
        Ok(bytes.split(|&b| b == 0).filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect())
    }

    /// A file's bytes at a commit, in the repository around `dir`; nothing where there is none.
    pub(crate) fn file(
        &self,
        dir: &Path,
        commit: &str,
        path: &str,
    ) -> Result<Option<Vec<u8>>, Error> {
        let Some(commit) = self.commit(dir, commit)? else { return Ok(None) };
        let name = format!("{commit}:{path}");
        let output = self.output(self.command(dir).args(["cat-file", "blob", &name]))?;
        Ok(output.status.success().then_some(output.stdout))
    }

    /// Whether the object store has this commit.
    pub(crate) fn has(&self, git_dir: &Path, commit: &str) -> bool {
        let mut command = self.command(Path::new("/"));
        // A submodule's own setting names a folder that may be gone, which git would die of.
        command.env("GIT_DIR", git_dir).env("GIT_WORK_TREE", "/");
        command.args(["cat-file", "-e", &format!("{commit}^{{commit}}")]);
        self.output(&mut command).is_ok_and(|output| output.status.success())
    }

    /// Writes a tree's files into `folder`, made where missing, and lists them.
    pub(crate) fn export(
        &self,
        git_dir: &Path,
        tree: &[u8],
        folder: &Path,
    ) -> Result<Vec<(Vec<u8>, Indexed)>, Error> {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        let index = folder.join(".git-index-of-the-build");
        let command = |args: &[&str]| {
            let mut command = self.command(folder);
            command.env("GIT_DIR", git_dir).env("GIT_WORK_TREE", folder);
            command.env("GIT_INDEX_FILE", &index).args(args);
            command
        };
        self.good(command(&["read-tree", "--reset", "-u"]).arg(OsStr::from_bytes(tree)))?;
        let list = self.good(&mut command(&["ls-files", "--stage", "-z"]))?;
        // An empty tree makes no index.
        std::fs::remove_file(&index)
            .or_else(missing_is_fine)
            .map_err(Error::io("remove", index))?;
        Ok(parse_index(&list))
    }
}

pub(crate) fn missing_is_fine(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

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
