//! Repositories that strangers push to. git reads and writes them in a sandbox only.
//!
//! ```text
//!  platform ── arguments ──▶ git in a sandbox: uid of the repository's own, bounded memory,
//!           ◀── output ────  processes and time; the repository, and nothing else, is there
//! ```
//!
//! Whatever a pack, a tree or a config file planted beside them makes of git, it can do to this
//! repository what whoever pushes may do anyway, and nothing more. git sees no configuration of
//! the operator's or the system's, no attributes, templates or filters, and its hooks are those
//! that the caller names.

mod locks;

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tolv_sandbox::{
    Cancel, Exec, ExitStatus, Job, Level, Limits, Mount, Network, Spawner, Spec, Stream,
};

use crate::Error;
use crate::caps::{bytes, time};
use crate::files;
use crate::source::reader::memory;

/// Most bytes of an answer that is taken in whole.
const MAX_ANSWER: usize = 16 << 20;
/// Most bytes of what git says about an error.
const MAX_SAID: usize = 16 << 10;
/// CPU weight of one git command: what an app's process has.
const CPU_WEIGHT: u32 = 100;
/// Processes of one git command.
const PROCESSES: u64 = 64;
/// Where git is looked for: what a sandbox shows of the machine.
const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// What one git command may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GitLimits {
    /// Bytes of memory.
    pub memory: u64,
    /// Wall clock of a command that no client waits for.
    pub time: Duration,
    /// Wall clock of the one that takes a push, besides a second for each MiB of that.
    pub work: Duration,
    /// Bytes of one push.
    pub push: u64,
    /// Bytes of one repository from which on it takes no push.
    pub repository: u64,
}

impl Default for GitLimits {
    fn default() -> Self {
        Self {
            memory: 1 << 30,
            time: Duration::from_secs(10 * 60),
            work: Duration::from_secs(60),
            push: 2 << 30,
            repository: 4 << 30,
        }
    }
}

/// Where git commands run.
#[derive(Clone, Debug)]
pub struct GitSandbox {
    /// Forks them.
    pub spawner: Spawner,
    /// How strongly they are shut in.
    pub level: Level,
    /// What they may take.
    pub limits: GitLimits,
}

/// A bare repository, and how git is run on it. Clones are the same.
#[derive(Clone, Debug)]
pub struct Repository {
    dir: PathBuf,
    git: GitSandbox,
}

/// What a git command may do with the repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GitAccess {
    /// Read.
    Read,
    /// Change everything but its configuration.
    Write,
    /// Make it: its folder is there, and empty.
    Create,
}

/// A git command.
#[derive(Clone, Debug)]
pub struct GitCommand {
    /// What it may do.
    pub access: GitAccess,
    /// The words after `git --git-dir …`, settings (`-c name=value`) first.
    pub args: Vec<OsString>,
    /// Variables besides those that every command gets.
    pub env: Vec<(&'static str, OsString)>,
    /// What it sees besides the repository.
    pub mounts: Vec<Mount>,
    /// The services of the machine that it reaches beside the internet; without them it has no network.
    pub services: Option<Vec<SocketAddr>>,
    /// Where it ends itself: at the end of the client's patience.
    pub time: Option<Duration>,
    /// Its standard input, where that is known before; for [`Repository::ask`].
    pub input: Vec<u8>,
}

impl GitCommand {
    /// A command with these words.
    pub fn new<I: AsRef<OsStr>>(access: GitAccess, args: impl IntoIterator<Item = I>) -> Self {
        let args = args.into_iter().map(|word| word.as_ref().to_owned()).collect();
        Self {
            access,
            args,
            env: Vec::new(),
            mounts: Vec::new(),
            services: None,
            time: None,
            input: Vec::new(),
        }
    }
}

/// A git command's whole answer.
#[derive(Clone, Debug)]
pub struct GitAnswer {
    /// Its exit status.
    pub code: i32,
    /// Its standard output.
    pub out: Vec<u8>,
    /// What it said about an error, without `fatal: `.
    pub said: String,
}

impl Repository {
    /// The one at this absolute path, whether it is there or not.
    pub fn at(dir: impl Into<PathBuf>, git: GitSandbox) -> Self {
        Self { dir: dir.into(), git }
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Bytes that it takes on the disk, as far as they can be counted.
    pub fn disk_use(&self) -> u64 {
        files::disk_use(&self.dir)
    }

    /// Where its commands run.
    pub fn sandbox(&self) -> &GitSandbox {
        &self.git
    }

    /// The sandbox and words of a command. Every folder is seen under its own path.
    pub fn job(&self, command: &GitCommand) -> Job {
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy();
        // A folder that is renamed when it is ready has the same uid before and after.
        let name = name.strip_suffix(".new").map_or(name.to_string(), |app| format!("{app}.git"));
        let mut spec = Spec::new(self.git.level, &format!("git {name}"));
        spec.hostname = "git".to_owned();
        spec.home = PathBuf::from("/tmp");
        let limits = &self.git.limits;
        spec.limits = Limits {
            memory: Some(limits.memory),
            processes: Some(PROCESSES),
            // What unpacks a push has its share beside the apps, and no more.
            cpu_weight: Some(CPU_WEIGHT),
            tmp: 64 << 20,
            ..Limits::default()
        };
        let own = |path: &Path| Mount::read_only(path, path);
        spec.mounts = match command.access {
            GitAccess::Read => vec![own(&self.dir)],
            GitAccess::Write => {
                let config = self.dir.join("config");
                vec![Mount::read_write(&self.dir, &self.dir), own(&config)]
            }
            GitAccess::Create => vec![Mount::read_write(&self.dir, &self.dir)],
        };
        spec.mounts.extend(command.mounts.iter().cloned());
        let mut env = vec![
            format!("PATH={PATH}").into_bytes(),
            // The half of it is one file that has to be in memory whole.
            format!("GIT_ALLOC_LIMIT={}", limits.memory / 2).into_bytes(),
        ];
        env.extend(ENV.map(|pair| pair.as_bytes().to_vec()));
        env.extend(
            command
                .env
                .iter()
                .map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat()),
        );
        let mut argv = vec![b"git".to_vec()];
        for setting in SETTINGS {
            argv.extend([b"-c".to_vec(), setting.as_bytes().to_vec()]);
        }
        argv.extend([b"--git-dir".to_vec(), self.dir.as_os_str().as_bytes().to_vec()]);
        argv.extend(command.args.iter().map(|word| word.as_bytes().to_vec()));
        spec.network = match &command.services {
            Some(services) => Network::Own { services: services.clone() },
            None => Network::Nowhere,
        };
        spec.umask = 0o077;
        Job {
            spec,
            exec: Exec { argv, env, cwd: "/".into() },
            time_limit: command.time.or(Some(limits.time)),
        }
    }

    /// Runs a command; its output goes to `on_out`, which may have had enough.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] for memory and time, [`Error::Cancelled`] (also where `on_out` had
    /// enough), the sandbox's. A command that ends with another status than 0 is none.
    pub fn stream(
        &self,
        command: &GitCommand,
        stdin: Option<OwnedFd>,
        on_out: &mut dyn FnMut(&[u8]) -> ControlFlow<()>,
        cancel: &Cancel,
    ) -> Result<(i32, String), Error> {
        let job = self.job(command);
        let mut said = Vec::new();
        let mut take = |stream, chunk: &[u8]| match stream {
            Stream::Out => on_out(chunk),
            Stream::Err => {
                let room = MAX_SAID.saturating_sub(said.len());
                said.extend_from_slice(&chunk[..chunk.len().min(room)]);
                ControlFlow::Continue(())
            }
        };
        let ended = tolv_sandbox::run_with(&self.git.spawner, &job, stdin, &mut take, cancel);
        let status = ended.map_err(|error| self.failed(error, job.time_limit))?;
        let code = self.code(status)?;
        let said = String::from_utf8_lossy(&said);
        Ok((code, said.trim().trim_start_matches("fatal: ").to_owned()))
    }

    /// Runs a command whose answer is small.
    ///
    /// # Errors
    ///
    /// As [`Repository::stream`], and [`Error::Limit`] where the answer is not small.
    pub fn ask(&self, command: &GitCommand) -> Result<GitAnswer, Error> {
        let cancel = Cancel::new().map_err(Error::io("make", "a cancel handle"))?;
        let mut out = Vec::new();
        let mut take = |chunk: &[u8]| {
            out.extend_from_slice(chunk);
            if out.len() > MAX_ANSWER { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        let input = match command.input.is_empty() {
            true => None,
            false => Some(memory(&command.input).map_err(Error::io("write", "git's input"))?),
        };
        let ended = self.stream(command, input, &mut take, &cancel);
        if out.len() > MAX_ANSWER {
            return Err(Error::Limit { what: "git's answer".into(), limit: "16 MiB".into() });
        }
        let (code, said) = ended?;
        Ok(GitAnswer { code, out, said })
    }

    /// The exit status of a git that ended by itself.
    ///
    /// # Errors
    ///
    /// [`Error::Limit`] where it, or a helper of it, was killed for want of memory.
    pub fn code(&self, status: ExitStatus) -> Result<i32, Error> {
        if status.oom_kills > 0 {
            return Err(Error::Limit {
                what: "git's memory".into(),
                limit: format!("{} (TOLV_GIT_MEMORY)", bytes(self.git.limits.memory)),
            });
        }
        Ok(status.code.unwrap_or_else(|| 128 + status.signal.unwrap_or(0)))
    }

    fn failed(&self, error: tolv_sandbox::Error, limit: Option<Duration>) -> Error {
        match error {
            tolv_sandbox::Error::Cancelled => Error::Cancelled,
            tolv_sandbox::Error::TimeLimit(_) => {
                Error::Limit { what: "git's time".into(), limit: time(limit.unwrap_or_default()) }
            }
            tolv_sandbox::Error::Exec(bad) if bad.what == "exec git" => Error::Toolchain {
                what: "git".into(),
                why: format!("it cannot be started in {PATH}: {bad}"),
                help: "install git, as in `apt-get install git`".into(),
            },
            other => Error::Sandbox(other),
        }
    }
}

/// Nothing of the machine's own settings, and nothing that reaches beyond the repository.
const ENV: [&str; 9] = [
    "LANG=C.UTF-8",
    "HOME=/nonexistent",
    "GIT_CONFIG_NOSYSTEM=1",
    "GIT_CONFIG_GLOBAL=/dev/null",
    "GIT_ATTR_NOSYSTEM=1",
    "GIT_TERMINAL_PROMPT=0",
    "GIT_OPTIONAL_LOCKS=0",
    "GIT_NO_REPLACE_OBJECTS=1",
    "GIT_NO_LAZY_FETCH=1",
];

/// Large files are streamed, and memory does not grow with the number of processors.
const SETTINGS: [&str; 13] = [
    "safe.directory=*",
    "gc.auto=0",
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "core.attributesFile=/dev/null",
    "core.bigFileThreshold=16m",
    "core.deltaBaseCacheLimit=64m",
    "core.packedGitWindowSize=32m",
    "core.packedGitLimit=256m",
    // What a push was told to be stored is on the disk, small pushes and refs too.
    "core.fsync=committed,derived-metadata",
    "core.fsyncMethod=batch",
    "pack.threads=1",
    "pack.windowMemory=64m",
];
