//! A build plan: what a builder wants run, as plain data.
//!
//! A builder looks at a [`Tree`](crate::tree::Tree) and returns a [`Plan`]; the executor carries it
//! out. Paths in a plan are those that a process of the build sees
//! ([`Layout`](crate::toolchains::Layout)), so a plan never depends on where the executor keeps its
//! copies. A command is a list of words and never a shell line.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tolv_model::env::EnvName;
use tolv_model::name::ProcessType;
use tolv_model::slug::Digest;

/// The variable with the folders in which programs look for libraries first.
pub(crate) const LIBRARIES: &str = "LD_LIBRARY_PATH";

/// One command of a build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Step {
    /// Shown as `-----> heading` before it runs; empty for a step that belongs to the last heading.
    pub heading: String,
    /// Program and arguments. A program without `/` is looked up in [`Plan::build_path`], then in
    /// the stack's own folders.
    pub argv: Vec<OsString>,
    /// Words before those, which prepare for them; not shown.
    pub via: Vec<OsString>,
    /// Whether the build's config is kept out of its environment: a buildpack has it in files.
    pub without_config: bool,
    /// Where it runs, as the process sees it.
    pub cwd: PathBuf,
    /// Variables of this step alone, above [`Plan::build_env`].
    pub env: BTreeMap<String, OsString>,
    /// What to do about a failure: (text that the step's output has, help). The first that fits is
    /// the error's help.
    pub hints: Vec<(&'static str, String)>,
    /// The title of the warning that a failure is, with what the step said; without one, a failure
    /// ends the build.
    pub warns: Option<&'static str>,
}

impl Step {
    /// A step without variables of its own.
    pub(crate) fn new<W: Into<OsString>>(
        heading: impl Into<String>,
        cwd: impl Into<PathBuf>,
        argv: impl IntoIterator<Item = W>,
    ) -> Self {
        Self {
            heading: heading.into(),
            argv: argv.into_iter().map(Into::into).collect(),
            via: Vec::new(),
            without_config: false,
            cwd: cwd.into(),
            env: BTreeMap::new(),
            hints: Vec::new(),
            warns: None,
        }
    }

    /// The same step, whose failure is a warning with this title. It says nothing else.
    #[must_use]
    pub(crate) fn warns(mut self, title: &'static str) -> Self {
        self.warns = Some(title);
        self
    }

    /// The same step with one more explanation of a failure.
    #[must_use]
    pub(crate) fn hint(mut self, output: &'static str, help: impl Into<String>) -> Self {
        self.hints.push((output, help.into()));
        self
    }

    /// The same step with one more variable.
    #[must_use]
    pub(crate) fn env(mut self, name: impl Into<String>, value: impl Into<OsString>) -> Self {
        self.env.insert(name.into(), value.into());
        self
    }
}

/// A folder of dependencies, kept by key and shared by all slugs that need the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LayerPlan {
    /// What it is, in words: `Python packages`.
    pub name: String,
    /// From [`Toolchains::layer`](crate::toolchains::Toolchains::layer): digest of everything that
    /// decides the contents.
    pub key: Digest,
    /// Where its processes see it; from the same call.
    pub path: PathBuf,
    /// Files of the source put into the layer before the steps: (path in the app, path in the layer).
    pub copies: Vec<(String, String)>,
    /// Files made by the builder, put into the layer before the steps: (path in the layer, bytes).
    pub files: Vec<(String, Vec<u8>)>,
    /// Whether the slug's processes need it, or its build alone: such a layer is not in the slug.
    pub at_run: bool,
    /// Whether the steps see the source at `/app`, writable. Otherwise that folder is empty, and
    /// the key covers all that the steps can see.
    pub sees_app: bool,
    /// What fills it. Not run when a layer of this key is there.
    pub steps: Vec<Step>,
    /// Paths inside the layer removed after the steps, whether or not they exist.
    pub remove: Vec<String>,
    /// Symbolic links that the slug gets: (path in the app, path in the layer). What stands at the
    /// app's path is replaced.
    pub links: Vec<(String, String)>,
}

/// A program folder of the machine that a build or its processes need, mounted read-only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// `python 3.13.5`: shown, and part of the build's key.
    pub version: String,
    /// The folder (or file) on the host.
    pub source: PathBuf,
    /// Where a process sees it: below `/toolchains` with a mount namespace.
    pub target: PathBuf,
    /// Whether running the slug needs it, or building it alone.
    pub at_run: bool,
}

/// All that turns a source into a slug.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    /// `python`, `node`, …
    pub builder: &'static str,
    /// Raised whenever the builder would make something else of the same source.
    pub version: u32,
    /// What was found, one line each, shown under the first heading: `Python 3.13 (.python-version)`.
    pub notes: Vec<String>,
    /// Things to look at; shown as warnings.
    pub warnings: Vec<String>,
    /// Programs needed.
    pub toolchains: Vec<Toolchain>,
    /// Dependencies, in order. A later layer's steps see the earlier ones, read-only.
    pub layers: Vec<LayerPlan>,
    /// What runs in `/app` once the layers are there and linked.
    pub steps: Vec<Step>,
    /// Environment of every step.
    pub build_env: BTreeMap<String, OsString>,
    /// Folders in front of `PATH` in every step.
    pub build_path: Vec<PathBuf>,
    /// Paths in the app that do not enter the slug (a folder with all below it), whether or not
    /// they exist: `target`.
    pub prune: Vec<String>,
    /// Exceptions to `prune`: `target/release/shop`.
    pub keep: Vec<String>,
    /// Process types where the codebase has no Procfile, or its Procfile has none of that name.
    pub process_types: BTreeMap<ProcessType, String>,
    /// Environment that the slug gives its processes, below config.
    pub env: BTreeMap<String, String>,
    /// Folders in front of its processes' `PATH`, as seen in the sandbox: `/app/.venv/bin`.
    pub path: Vec<String>,
    /// Config without which the app does not start, and for which any secret will do: each deploy gets
    /// one at random where nobody gives it another.
    pub secrets: Vec<EnvName>,
}

impl Plan {
    /// A plan that runs nothing: the source is the slug.
    pub(crate) fn new(builder: &'static str, version: u32) -> Self {
        Self {
            builder,
            version,
            notes: Vec::new(),
            warnings: Vec::new(),
            toolchains: Vec::new(),
            layers: Vec::new(),
            steps: Vec::new(),
            build_env: BTreeMap::new(),
            build_path: Vec::new(),
            prune: Vec::new(),
            keep: Vec::new(),
            process_types: BTreeMap::new(),
            env: BTreeMap::new(),
            path: Vec::new(),
            secrets: Vec::new(),
        }
    }

    /// Lets all programs find the libraries of a folder, as a process sees it.
    pub(crate) fn add_libraries(&mut self, folder: &Path) {
        let folder = folder.display().to_string();
        let both = |before: &str| match before {
            "" => folder.clone(),
            before => format!("{before}:{folder}"),
        };
        let build = self.build_env.get(LIBRARIES).map(|value| value.to_string_lossy().into_owned());
        self.build_env.insert(LIBRARIES.to_owned(), both(&build.unwrap_or_default()).into());
        let run = self.env.get(LIBRARIES).cloned().unwrap_or_default();
        self.env.insert(LIBRARIES.to_owned(), both(&run));
    }
}
