//! What the environment and the machine say, read once, before anything starts.
//!
//! | variable | meaning |
//! |---|---|
//! | `TOLV_HOME` | state folder; `.tolv` in the codebase without it |
//! | `TOLV_TOOLCHAINS` | folder of toolchains; `toolchains` in the state folder without it |
//! | `TOLV_STACK` | the stack that builds and processes are on; the machine's own programs without it |
//! | `TOLV_STACKS` | folder of stacks; `slugs/stacks` in the state folder without it |
//! | `TOLV_LISTEN`, `TOLV_SANDBOX` and others | as their options (read by the argument parser) |
//! | `DATABASE_URL`, `OBJECT_STORE_URL`, `TOLV_SECRET_KEY` | backing services and key of `serve` |
//! | `AWS_*` | options of an object store |
//! | `TOLV_TOKEN` | the token of the platform that commands go to |
//! | `SSL_CERT_FILE`, `SSL_CERT_DIR` | where root certificates are (read by what makes encrypted connections) |
//! | `XDG_CONFIG_HOME`, `HOME` | where credentials are stored |
//! | `XDG_STATE_HOME`, `HOME` | where the key is by which the user's state folders are known |
//! | `NO_COLOR`, `CLICOLOR_FORCE` | no colours, or colours even into a pipe |
//! | `PATH` | where git is looked for |
//! | those that [`tolv_build::passes`] names | passed on to builds: where packages come from, and through which proxy |

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::IsTerminal as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use tolv_build::StateFolder;
use tolv_model::stack::StackName;

use crate::upgrade::path_of_successor;

/// This program, whatever is at its path meanwhile.
pub(crate) const ITSELF: &str = "/proc/self/exe";

/// The environment, as far as Tolv looks at it.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// State folder, where the environment names one.
    pub(crate) home: Option<PathBuf>,
    /// Folder of toolchains, where the environment names one.
    pub(crate) toolchains: Option<PathBuf>,
    /// The stack of builds and processes, where the environment names one.
    pub(crate) stack: Option<StackName>,
    /// Folder of stacks, where the environment names one.
    pub(crate) stacks: Option<PathBuf>,
    /// Where git is looked for.
    pub(crate) search_path: OsString,
    /// The user's own folder, for the package managers' config files.
    pub(crate) user_home: Option<PathBuf>,
    /// What [`tolv_build::passes`] names.
    pub(crate) registry: BTreeMap<String, OsString>,
    /// This program.
    pub(crate) program: PathBuf,
    /// The port that a process of ours is to bind (factor VII).
    pub(crate) port: Option<u16>,
    /// The folder of the user's settings.
    pub(crate) config_home: Option<PathBuf>,
    /// Where the key of the user's state folders may be.
    folder_keys: Vec<PathBuf>,
    /// The token of the platform that commands go to.
    pub(crate) token: Option<String>,
    /// Backing services of `serve`, and its key.
    pub(crate) services: Services,
    no_color: bool,
    force_color: bool,
    term: Option<OsString>,
}

/// What `serve` is attached to.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) database: Option<String>,
    pub(crate) objects: Option<String>,
    /// `AWS_*`, in lower case, as object stores name their options.
    pub(crate) object_options: Vec<(String, String)>,
    pub(crate) secret_key: Option<String>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Services")
    }
}

impl Settings {
    /// Reads the process environment.
    ///
    /// # Errors
    ///
    /// The system cannot say where this program's file is, or `TOLV_STACK` is no name of a stack.
    #[expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]
    pub(crate) fn read() -> std::io::Result<Self> {
        let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let text = |name: &str| set(name).and_then(|value| value.into_string().ok());
        let services = Services {
            database: text("DATABASE_URL"),
            objects: text("OBJECT_STORE_URL"),
            object_options: std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
                .filter(|(name, _)| name.starts_with("AWS_"))
                .filter_map(|(name, value)| Some((name.to_lowercase(), value.into_string().ok()?)))
                .collect(),
            secret_key: text("TOLV_SECRET_KEY"),
        };
        let config_home = set("XDG_CONFIG_HOME")
            .map(PathBuf::from)
            .or_else(|| set("HOME").map(|home| PathBuf::from(home).join(".config")));
        let registry = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
            .filter(|(name, _)| tolv_build::passes(name))
            .collect();
        Ok(Self {
            home: set("TOLV_HOME").map(PathBuf::from),
            toolchains: set("TOLV_TOOLCHAINS").map(PathBuf::from),
            stack: set("TOLV_STACK").map(stack_name).transpose()?,
            stacks: set("TOLV_STACKS").map(std::path::absolute).transpose()?,
            search_path: set("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into()),
            user_home: set("HOME").map(PathBuf::from),
            registry,
            program: match path_of_successor() {
                Some(path) => path,
                None => program_at(&std::env::current_exe()?),
            },
            port: set("PORT")
                .and_then(|port| port.to_str()?.parse().ok())
                .filter(|&port| port != 0),
            config_home,
            folder_keys: folder_keys(set("XDG_STATE_HOME"), set("HOME")),
            token: text("TOLV_TOKEN"),
            services,
            no_color: set("NO_COLOR").is_some(),
            force_color: set("CLICOLOR_FORCE").is_some_and(|value| value != "0"),
            term: set("TERM"),
        })
    }

    /// The state folder for the codebase in `dir`.
    pub(crate) fn home_of(&self, dir: &Path) -> StateFolder {
        match &self.home {
            Some(home) => StateFolder::named(home.clone(), self.folder_keys.clone()),
            None => StateFolder::in_codebase(dir, self.folder_keys.clone()),
        }
    }

    /// The state folders that commands in the current folder look into: the one that is named, or those of
    /// the codebases that it may be in.
    pub(crate) fn homes_here(&self) -> Vec<StateFolder> {
        let here = std::env::current_dir().unwrap_or_default();
        match self.home {
            Some(_) => vec![self.home_of(&here)],
            None => here.ancestors().map(|dir| self.home_of(dir)).collect(),
        }
    }

    /// The state folder of `serve`.
    pub(crate) fn serve_home(&self) -> StateFolder {
        let own = || match rustix::process::geteuid().is_root() {
            true => PathBuf::from("/var/lib/tolv"),
            false => {
                let home = self.user_home.clone().unwrap_or_else(|| PathBuf::from("."));
                home.join(".local/share/tolv")
            }
        };
        StateFolder::named(self.home.clone().unwrap_or_else(own), self.folder_keys.clone())
    }

    /// What the terminal understands.
    pub(crate) fn term(&self) -> Option<String> {
        self.term.as_ref()?.to_str().map(str::to_owned)
    }

    /// What a build may know of this machine.
    pub(crate) fn host(&self) -> tolv_build::Host {
        tolv_build::Host {
            program: self.program.clone(),
            search_path: self.search_path.clone(),
            user_home: self.user_home.clone(),
            registry: self.registry.clone(),
            toolchains: self.toolchains.clone(),
            stack: self.stack.clone(),
            stacks: self.stacks.clone(),
        }
    }

    /// Whether text on standard output may have colours (<https://no-color.org>).
    pub(crate) fn color(&self) -> bool {
        let terminal = std::io::stdout().is_terminal();
        let dumb = self.term.as_deref() == Some(OsStr::new("dumb"));
        !self.no_color && (self.force_color || (terminal && !dumb))
    }
}

/// What `TOLV_STACK` names.
fn stack_name(text: OsString) -> std::io::Result<StackName> {
    let named = text.to_string_lossy().parse();
    named.map_err(|error| std::io::Error::other(format!("TOLV_STACK: {error}")))
}

/// Where the key may be by which a user's state folders are known: outside of every codebase. That of
/// root does not depend on `HOME`, which may be another user's.
fn folder_keys(state_home: Option<OsString>, home: Option<OsString>) -> Vec<PathBuf> {
    let user = rustix::process::geteuid();
    let of_root = user.is_root().then(|| PathBuf::from("/var/lib/tolv.key"));
    let absolute =
        |folder: Option<OsString>| folder.map(PathBuf::from).filter(|folder| folder.is_absolute());
    let state = absolute(state_home).map(|folder| folder.join("tolv/key"));
    let own = absolute(home).map(|folder| folder.join(".local/state/tolv/key"));
    let runtime = PathBuf::from(format!("/run/user/{}/tolv/key", user.as_raw()));
    // Nobody else makes that folder.
    let runtime =
        runtime.parent().and_then(Path::parent).is_some_and(Path::is_dir).then_some(runtime);
    [state, of_root, own, runtime].into_iter().flatten().collect()
}

/// Where git's hook finds the platform; the hook has no other settings.
#[expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]
pub(crate) fn push_socket() -> Option<PathBuf> {
    std::env::var_os("TOLV_PUSH").map(PathBuf::from)
}

/// What git's hook says to the platform first.
#[expect(clippy::disallowed_methods, reason = "the one place where the environment is read")]
pub(crate) fn push_secret() -> Option<String> {
    std::env::var("TOLV_PUSH_SECRET").ok()
}
/// Where a program is to be found, whose file the kernel may call one that was replaced.
fn program_at(path: &Path) -> PathBuf {
    let text = path.as_os_str().as_bytes();
    match text.strip_suffix(b" (deleted)") {
        Some(before) if !path.exists() => PathBuf::from(OsStr::from_bytes(before)),
        _ => path.to_owned(),
    }
}
