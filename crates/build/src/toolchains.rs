//! What a builder may know of the machine: where its programs are, and where a build's folders
//! appear to the build's own processes.
//!
//! A toolchain is found on the host or fetched into a folder of its own; it is never taken from
//! the codebase.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};
use tolv_model::slug::Digest;

use crate::resolution::Resolution;
use crate::{Error, Event};

mod fetch;
pub(crate) mod go;
mod http;
pub(crate) mod node;
pub(crate) mod npm;
mod probe;
pub(crate) mod python;
pub(crate) mod ruby;
pub(crate) mod uv;

pub(crate) use probe::in_stack;

/// Where a process of the build sees things: `/app`, `/layers`, `/cache` with a mount namespace,
/// the host's own paths without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// The source, writable.
    pub app: PathBuf,
    /// The folder of the layers.
    pub layers: PathBuf,
    /// The app's cache, writable, kept from build to build.
    pub cache: PathBuf,
}

impl Layout {
    /// As seen with a mount namespace.
    pub(crate) fn sandboxed() -> Self {
        Self { app: "/app".into(), layers: "/layers".into(), cache: "/cache".into() }
    }
}

/// The machine, for builders.
pub(crate) struct Toolchains<'a> {
    /// Fetched ones, each under a name with its version.
    pub folder: PathBuf,
    /// The folders of the operator's `PATH`, in order.
    pub search: Vec<PathBuf>,
    /// The operator's home folder, where rustup and uv keep what they have.
    pub user_home: Option<PathBuf>,
    /// Variables for registries, proxies and CA certificates that builds and fetches get.
    pub env: &'a BTreeMap<String, OsString>,
    /// The running `tolv`, for the builders whose process is the platform's own file server.
    pub tolv: PathBuf,
    /// Where the build's processes see their folders.
    pub layout: Layout,
    /// Digest of the config that the steps get.
    pub config: Option<Digest>,
    /// Told what goes on.
    pub events: &'a mut dyn FnMut(Event),
    /// Asked between long things; true means: give up with [`Error::Cancelled`].
    pub cancelled: &'a dyn Fn() -> bool,
    /// Makes the lock that a codebase lacks, or finds the one that was made of the same input.
    pub resolver: &'a mut Resolver<'a>,
    /// Whether a codebase without a lock is refused.
    pub require_lock: bool,
    /// Whether the codebase's folder has a file of this name that git ignores, so that no build
    /// sees it.
    pub ignored: &'a dyn Fn(&str) -> bool,
}

/// What [`Toolchains::resolve`] asks.
pub(crate) type Resolver<'a> =
    dyn FnMut(&Resolution, &mut dyn FnMut(Event)) -> Result<Vec<u8>, Error> + 'a;

impl Toolchains<'_> {
    /// The first executable of this name in the operator's `PATH`.
    pub(crate) fn find(&self, program: &str) -> Option<PathBuf> {
        self.search.iter().map(|folder| folder.join(program)).find(|path| {
            path.metadata()
                .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
        })
    }

    /// A layer's key and the path at which it will be seen.
    ///
    /// `parts` is everything that decides its contents: the builder and its version, the
    /// toolchain, the lock file's digest. The layout is added, since paths get baked in.
    pub(crate) fn layer(&self, parts: &[&[u8]]) -> (Digest, PathBuf) {
        let mut hash = Sha256::new();
        let layers = self.layout.layers.as_os_str().as_encoded_bytes();
        for part in [b"tolv layer 1".as_slice(), layers].iter().chain(parts) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        if let Some(config) = &self.config {
            hash.update(config.0);
        }
        let key = Digest(hash.finalize().into());
        (key, self.layout.layers.join(key.to_string()))
    }

    /// What a program of the machine prints, outside the sandbox: for `--version` and the like,
    /// never with anything of the codebase as its folder or arguments.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] when it cannot be started, [`Error::Step`] when it fails.
    pub(crate) fn output<A: AsRef<OsStr>>(
        &self,
        program: &Path,
        args: &[A],
    ) -> Result<String, Error> {
        let mut command = Command::new(program);
        command.args(args).current_dir("/").stdin(Stdio::null()).env_clear();
        command.env("LANG", "C.UTF-8").env("PATH", self.path());
        if let Some(home) = &self.user_home {
            command.env("HOME", home);
        }
        let output = command.output().map_err(Error::io("run", program))?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
        }
        let last = String::from_utf8_lossy(&output.stderr).lines().map(str::to_owned).collect();
        let mut words = vec![program.display().to_string()];
        words.extend(args.iter().map(|word| word.as_ref().to_string_lossy().into_owned()));
        Err(Error::Step {
            command: words.join(" "),
            how: format!("failed ({})", output.status),
            last,
            help: None,
        })
    }

    fn path(&self) -> OsString {
        std::env::join_paths(&self.search).unwrap_or_else(|_| "/usr/bin:/bin".into())
    }

    /// The lock that this describes, made in a sandbox unless it was made before.
    ///
    /// # Errors
    ///
    /// Those of the steps, and [`Error::Limit`].
    pub(crate) fn resolve(&mut self, wanted: &Resolution) -> Result<Vec<u8>, Error> {
        (self.resolver)(wanted, self.events)
    }

    /// Tells the listener.
    pub(crate) fn say(&mut self, event: Event) {
        (self.events)(event);
    }
}
