//! What a builder may know of the machine: where its programs are, and where a build's folders
//! appear to the build's own processes.
//!
//! A toolchain is fetched, or copied from the machine, into a folder of its own that its content
//! names ([`Store`]). It is never taken from the codebase, and never used where the machine has it.
//! Of the machine only fixed places count, so that a build does not depend on `PATH`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use sha2::{Digest as _, Sha256};
use tolv_model::slug::Digest;

use crate::proof::Proofs;
use crate::resolution::Resolution;
use crate::{Error, Event};

mod copy;
mod fetch;
pub(crate) mod go;
mod http;
pub(crate) mod node;
pub(crate) mod npm;
pub(crate) mod python;
pub(crate) mod ruby;
pub(crate) mod rust;
mod store;
pub(crate) mod uv;

pub(crate) use store::Store;
pub use store::renew_toolchains;

/// Where the machine's programs may be installed, for [`Toolchains::system`].
pub(crate) const SYSTEM: [&str; 2] = ["/usr/local", "/usr"];
/// `PATH` of programs that are asked about themselves.
const PROGRAM_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

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
    /// Where the machine's own programs are installed: folders with a `bin`.
    pub system: Vec<PathBuf>,
    /// What was proven of toolchains.
    pub proofs: &'a Proofs,
    /// The operator's home folder, where rustup, uv and others keep what they have.
    pub user_home: Option<PathBuf>,
    /// Variables for registries, proxies and CA certificates that builds and fetches get.
    pub env: &'a BTreeMap<String, OsString>,
    /// The running `tolv`, for the builders whose process is the platform's own file server.
    pub tolv: PathBuf,
    /// Where the build's processes see their folders.
    pub layout: Layout,
    /// Digest of the config that the steps get.
    pub config: Option<Digest>,
    /// Digest of the stack that they run on, where that is not the machine's own.
    pub stack: Option<Digest>,
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
    /// The folder of toolchains.
    fn store(&self) -> Store {
        Store::at(&self.folder)
    }

    /// The programs of this name that the machine has, each once.
    fn installed(&self, program: &str) -> Vec<PathBuf> {
        let paths = self.system.iter().map(|folder| folder.join("bin").join(program));
        let mut found: Vec<PathBuf> = Vec::new();
        for path in paths.filter_map(|path| path.canonicalize().ok()) {
            if path.is_file() && !found.contains(&path) {
                found.push(path);
            }
        }
        found
    }

    /// `<folder>/*/<program>` of these folders below the operator's home, each file once.
    fn in_home(&self, folders: &[&str], program: &str) -> Vec<PathBuf> {
        let Some(home) = &self.user_home else { return Vec::new() };
        let mut found: Vec<PathBuf> = Vec::new();
        for folder in folders {
            let entries = std::fs::read_dir(home.join(folder)).into_iter().flatten().flatten();
            let paths = entries.filter_map(|entry| entry.path().join(program).canonicalize().ok());
            let mut paths: Vec<PathBuf> = paths.filter(|path| path.is_file()).collect();
            paths.sort();
            found.extend(paths);
        }
        let mut seen = std::collections::BTreeSet::new();
        found.retain(|path| seen.insert(path.clone()));
        found
    }

    /// Where a process sees a toolchain: below `/toolchains` with a mount namespace, so that no
    /// slug knows where the state folder is; else where it is.
    fn place(&self, name: &str, source: &Path) -> PathBuf {
        match self.layout == Layout::sandboxed() {
            true => Path::new("/toolchains").join(name),
            false => source.to_owned(),
        }
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
        if let Some(stack) = &self.stack {
            hash.update(b"stack");
            hash.update(stack.0);
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
        self.output_with(program, args, Path::new(""))
    }

    /// As [`Toolchains::output`], of a copy that has libraries in this folder.
    fn output_with<A: AsRef<OsStr>>(
        &self,
        program: &Path,
        args: &[A],
        libraries: &Path,
    ) -> Result<String, Error> {
        let mut command = Command::new(program);
        command.args(args).current_dir("/").stdin(Stdio::null()).env_clear();
        command.env("LANG", "C.UTF-8").env("PATH", PROGRAM_PATH).env("PYTHONHASHSEED", "0");
        if libraries.is_dir() {
            command.env("LD_LIBRARY_PATH", libraries);
        }
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
