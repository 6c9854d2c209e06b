//! Python: packages by uv, from `uv.lock` or `requirements.txt`, and by Poetry or Pipenv from
//! their own locks. Where there are ranges and no lock, one is made and kept
//! ([`Resolution`](crate::resolution::Resolution)).
//!
//! Third-party packages are a virtual environment in a layer, keyed by the lock, the interpreter
//! and uv, and linked to `/app/.venv`. The codebase's own packages (a `[build-system]`, workspace
//! members, folders that the lock names) change with every commit: they are built as wheels and
//! installed into `/app/.python`, which is on `PYTHONPATH`, so that the layer stays the same.
//!
//! # Invariants
//!
//! * What the lock does not name is not installed; a package that misses another is told.
//! * Equal input gives equal bytes: compiled files are checked by hash and not by time, and what
//!   uv writes down about a file's time is removed.

use std::collections::{BTreeMap, BTreeSet};

use super::{below, files_below, read_toml};
use crate::plan::Plan;
use crate::resolution::LockFile;
use crate::toolchains::Toolchains;
use crate::tree::Tree;
use crate::{Error, Event};
use requirements::Requirements;
use resolve::Resolver;
use tools::Tool;

mod django;
mod install;
mod locked;
mod requirements;
mod resolve;
mod tools;
mod versions;

const NAME: &str = "python";
const VERSION: u32 = 2;
/// Where the codebase's own packages are installed in the app.
const OWN: &str = ".python";
/// Where their wheels are meanwhile; `.tolv` never enters a slug.
const WHEELS: &str = ".tolv/wheels";
/// What to do about a package that has to be compiled and cannot be.
const NO_WHEEL: &str = "the package has no wheel for this Python and machine: ask for another \
                        Python in `.python-version`, another version of the package, or install \
                        what its build needs on this machine";
/// Characters of a line that lists packages.
const WIDTH: usize = 90;
/// Lines of such a list that are shown.
const MAX_SHOWN_LINES: usize = 20;

/// Installs the wheels in a folder. A program and not a step, for their names are known only once
/// they are built.
const INSTALL: &str = "import os, subprocess, sys
uv, wheels, target = sys.argv[1:]
names = {name.split('-')[0] for name in os.listdir(wheels) if name.endswith('.whl')}
words = ['pip', 'install', '--quiet', '--no-deps', '--no-index', '--reinstall']
words += ['--find-links', wheels, '--target', target, '--python', sys.executable]
sys.exit(subprocess.call([uv, *words, *sorted(names)]))";

/// Removes uv's notes about the times of local files.
const TIDY: &str = "import pathlib, sys
for note in pathlib.Path(sys.argv[1]).glob('*.dist-info/uv_cache.json'):
    note.unlink()
    record = note.with_name('RECORD')
    lines = record.read_bytes().splitlines(True)
    own = f'{note.parent.name}/{note.name},'.encode()
    record.write_bytes(b''.join(line for line in lines if not line.startswith(own)))";

/// Whether there is a Python manifest in the root. A `pyproject.toml` that holds settings of tools
/// alone is none.
pub(super) fn detect(tree: &Tree) -> bool {
    ["uv.lock", "requirements.txt", "Pipfile"].iter().any(|path| tree.is_file(path))
        || match read_toml(tree, NAME, "pyproject.toml") {
            Ok(None) => false,
            Ok(Some(manifest)) => {
                ["project", "build-system"].iter().any(|key| manifest.contains_key(*key))
                    || manifest.get("tool").and_then(|tool| tool.get("poetry")).is_some()
            }
            // Its mistake is told by the plan.
            Err(_) => true,
        }
}

/// What the layer is made of, and what the codebase brings itself.
#[derive(Debug, Default)]
struct Packages {
    /// The lock's name.
    from: String,
    /// Files of the codebase: the same path below the layer's `project`.
    copies: Vec<String>,
    /// Files made here, below the layer's `project`.
    files: Vec<(String, Vec<u8>)>,
    /// The codebase's own packages: their folders, `""` for the root.
    own: Vec<String>,
    /// What is installed, with its version as far as that is known.
    names: BTreeMap<String, String>,
    /// Names of packages that the lock has and running does not install.
    left_out: BTreeSet<String>,
    how: How,
}

/// What installs them.
#[derive(Debug)]
enum How {
    /// `uv pip sync requirements.txt`
    Requirements { hashed: bool },
    /// `uv sync`
    Lock {
        /// Names of the codebase's own packages.
        own: Vec<String>,
        /// Whether the manifests alone tell that the lock is fresh.
        is_static: bool,
        /// Whether the root is no package and its members are what is wanted.
        is_virtual: bool,
        /// Whether it is in the codebase, or was made for this build.
        is_own: bool,
    },
    /// A tool writes a `requirements.txt` of its lock.
    Tool(Tool),
}

impl Default for How {
    fn default() -> Self {
        Self::Requirements { hashed: false }
    }
}

/// The manifest or lock that says what is installed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    UvLock,
    ToolLock(Tool),
    Requirements,
    /// `[project]` of a `pyproject.toml`
    Project,
    /// A tool's manifest without its lock.
    ToolManifest(Tool),
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::UvLock => "uv.lock",
            Self::ToolLock(tool) => tool.lock(),
            Self::Requirements => "requirements.txt",
            Self::Project => "pyproject.toml",
            Self::ToolManifest(tool) => tool.manifest(),
        }
    }
}

/// A layer of packages, and the codebase's own packages.
///
/// # Errors
///
/// [`Error::Plan`] where a lock is required and there is none, [`Error::Toolchain`] where uv or
/// the interpreter cannot be had, those of the steps that make a lock.
pub(super) fn plan(tree: &Tree, toolchains: &mut Toolchains<'_>) -> Result<Plan, Error> {
    let mut plan = Plan::new(NAME, VERSION);
    let manifest = read_toml(tree, NAME, "pyproject.toml")?;
    let kind = kind(tree, manifest.as_ref())?;
    if toolchains.require_lock {
        refuse_unlocked(tree, kind)?;
    }
    let pipfile = match kind {
        Kind::ToolLock(Tool::Pipenv) | Kind::ToolManifest(Tool::Pipenv) => {
            read_toml(tree, NAME, "Pipfile")?
        }
        _ => None,
    };
    let wants = versions::wants(tree, manifest.as_ref(), pipfile.as_ref())?;
    let uv = toolchains.uv()?;
    let python = toolchains.python(&wants)?;
    let by: Vec<_> = wants.iter().map(|want| format!("{} ({})", want.text, want.from)).collect();
    let note = match by.as_slice() {
        [] => format!(
            "Python {}, the newest here: `.python-version` can name another",
            python.version
        ),
        by => format!("Python {}, as wanted: {}", python.version, by.join(" and ")),
    };
    toolchains.say(Event::line(note));
    let resolver = Resolver { tree, uv: &uv, python: &python, upgrade: false };
    let found = packages(toolchains, &resolver, kind, manifest.as_ref())?;
    let Found { packages, warnings, .. } = found;
    plan.notes.push(match &packages.how {
        How::Tool(tool) => {
            format!("Packages of {}, by {} and uv {}", packages.from, tool.name(), uv.version)
        }
        _ => format!("Packages of {}, by uv {}", packages.from, uv.version),
    });
    if found.made.is_some() {
        plan.notes.extend(listed(&resolve::shown(&packages.names)));
    }
    plan.warnings.extend(warnings);
    plan.warnings.extend(passed_over(tree, kind));
    if !tree.is_file(".python-version") && (toolchains.ignored)(".python-version") {
        plan.warnings.push(
            "git ignores `.python-version`, so it has no effect: take it out of `.gitignore`, or \
             run `git add -f .python-version`"
                .to_owned(),
        );
    }
    let procfile = tree.text("Procfile")?.unwrap_or_default();
    let lines = procfile.lines();
    plan.warnings.extend(lines.filter_map(|line| cannot_run(line, &packages)));
    plan.toolchains.extend(uv.mount.clone());
    plan.toolchains.push(python.mount.clone());
    if let Some(libraries) = &python.libraries {
        plan.add_libraries(libraries);
    }
    environment(&mut plan, toolchains);
    let layer = install::layer(tree, toolchains, &packages, &uv, &python);
    plan.build_path.push(layer.path.join("venv/bin"));
    install::steps(&mut plan, tree, toolchains, &packages, &layer, &uv, &python)?;
    plan.path.push("/app/.venv/bin".to_owned());
    plan.env.insert("VIRTUAL_ENV".to_owned(), "/app/.venv".to_owned());
    plan.layers.push(layer);
    Ok(plan)
}

/// The lock of a codebase, made with the tool that reads it.
///
/// # Errors
///
/// As [`plan`].
pub(super) fn lock(
    tree: &Tree,
    toolchains: &mut Toolchains<'_>,
    upgrade: bool,
) -> Result<Vec<LockFile>, Error> {
    let manifest = read_toml(tree, NAME, "pyproject.toml")?;
    // The manifest behind a lock that is there: that may have changed since.
    let kind = match kind(tree, manifest.as_ref())? {
        Kind::UvLock => Kind::Project,
        Kind::ToolLock(tool) => Kind::ToolManifest(tool),
        kind => kind,
    };
    let pipfile = read_toml(tree, NAME, "Pipfile")?;
    let pipfile = pipfile.as_ref().filter(|_| kind == Kind::ToolManifest(Tool::Pipenv));
    let wants = versions::wants(tree, manifest.as_ref(), pipfile)?;
    let uv = toolchains.uv()?;
    let python = toolchains.python(&wants)?;
    toolchains.say(Event::line(format!("For Python {}, by uv {}", python.version, uv.version)));
    toolchains.require_lock = false;
    let resolver = Resolver { tree, uv: &uv, python: &python, upgrade };
    let found = packages(toolchains, &resolver, kind, manifest.as_ref())?;
    let path = match kind {
        Kind::Requirements => resolve::REQUIREMENTS_LOCK,
        Kind::ToolManifest(tool) => tool.lock(),
        _ => "uv.lock",
    };
    if kind == Kind::Requirements
        && let Some(other) = tree.text(path)?
        && !resolve::is_ours(&other)
    {
        return Err(Error::Plan {
            builder: NAME,
            problem: format!("`{path}` is there and was made by another tool"),
            help: format!("remove `{path}`, and run `tolv lock` again"),
        });
    }
    let lock = found.made.map(|text| resolve::lock_file(path, text, &found.packages));
    if lock.is_none() {
        toolchains.say(Event::line(format!("{} is a lock already", found.packages.from)));
    }
    Ok(lock.into_iter().collect())
}

/// Which file says what is installed: locks before what they are made of.
fn kind(tree: &Tree, manifest: Option<&toml::Table>) -> Result<Kind, Error> {
    let wrong = |problem: &str, help: &str| {
        Err(Error::Plan { builder: NAME, problem: problem.to_owned(), help: help.to_owned() })
    };
    let has = |key: &str| manifest.is_some_and(|manifest| manifest.contains_key(key));
    let tool = manifest.and_then(|manifest| manifest.get("tool"));
    let is_poetry = tool.is_some_and(|tool| tool.get("poetry").is_some());
    if tree.is_file("uv.lock") {
        if manifest.is_none() {
            return wrong(
                "there is `uv.lock` and no `pyproject.toml`",
                "commit the `pyproject.toml` that `uv.lock` was made of",
            );
        }
        return Ok(Kind::UvLock);
    }
    if tree.is_file("poetry.lock") && (is_poetry || has("project")) {
        return Ok(Kind::ToolLock(Tool::Poetry));
    }
    if tree.is_file("Pipfile.lock") && tree.is_file("Pipfile") {
        return Ok(Kind::ToolLock(Tool::Pipenv));
    }
    if tree.is_file("requirements.txt") {
        return Ok(Kind::Requirements);
    }
    if is_poetry {
        return Ok(Kind::ToolManifest(Tool::Poetry));
    }
    if has("project") {
        return Ok(Kind::Project);
    }
    if tree.is_file("Pipfile") {
        return Ok(Kind::ToolManifest(Tool::Pipenv));
    }
    wrong(
        "`pyproject.toml` has no `[project]` table and there is no `requirements.txt`",
        "add a `[project]` table with the dependencies, run `tolv lock` and commit both",
    )
}

/// Other lists of packages, which have no say.
fn passed_over(tree: &Tree, kind: Kind) -> Option<String> {
    let others = ["uv.lock", "poetry.lock", "Pipfile.lock", "requirements.txt", "Pipfile"];
    let is_of = |name: &str| match kind {
        Kind::ToolLock(tool) | Kind::ToolManifest(tool) => {
            name == tool.lock() || name == tool.manifest()
        }
        kind => name == kind.name(),
    };
    let others: Vec<String> = others
        .iter()
        .filter(|name| tree.is_file(name) && !is_of(name))
        .map(|name| format!("`{name}`"))
        .collect();
    let verb = if others.len() == 1 { "has" } else { "have" };
    (!others.is_empty()).then(|| {
        format!(
            "{} decides which packages are installed; {} {verb} no effect",
            kind.name(),
            others.join(", ")
        )
    })
}

/// Packages in lines, as they are shown.
fn listed(packages: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for (place, package) in packages.iter().enumerate() {
        let comma = if place + 1 < packages.len() { "," } else { "" };
        let fits = |line: &String| line.len() + package.len() < WIDTH;
        match lines.pop_if(|line| fits(line)) {
            Some(line) => lines.push(format!("{line} {package}{comma}")),
            None if lines.len() == MAX_SHOWN_LINES => {
                lines.push(format!("and {} more", packages.len() - place));
                break;
            }
            None => lines.push(format!("{package}{comma}")),
        }
    }
    lines
}

/// What is wrong with a line of a Procfile whose program will not be there.
fn cannot_run(line: &str, packages: &Packages) -> Option<String> {
    let (kind, command) = line.split_once(':').filter(|(kind, _)| !kind.starts_with('#'))?;
    let mut words = command.split_whitespace().filter(|word| *word != "exec");
    let program = words.find(|word| !word.contains('='))?;
    let program = match (program, words.next()?) {
        ("uv", "run") => {
            return Some(format!(
                "`Procfile`: `{kind}` uses `uv run`, and uv is there while building only: name \
                 the program itself, as in `web: gunicorn app:app`"
            ));
        }
        ("python" | "python3", "-m") => words.next()?,
        _ => program,
    };
    let add = match &packages.how {
        How::Tool(tool) => format!("move it out of the group in `{}`", tool.manifest()),
        _ => format!("`uv add {program}`"),
    };
    packages.left_out.contains(program).then(|| {
        format!(
            "`Procfile`: `{kind}` runs `{program}`, which `{}` has for an extra or a group that \
             is not installed: {add}",
            packages.from
        )
    })
}

fn environment(plan: &mut Plan, toolchains: &Toolchains<'_>) {
    for (name, value) in [
        ("UV_CACHE_DIR", toolchains.layout.cache.join("uv").into_os_string()),
        // The cache is another mount than the layers: no link leads from one to the other.
        ("UV_LINK_MODE", "copy".into()),
        ("UV_NO_PROGRESS", "1".into()),
        ("UV_PYTHON_DOWNLOADS", "never".into()),
        ("UV_COMPILE_BYTECODE", "1".into()),
        // A compiled file with a time in it differs from build to build, and so does the order of
        // a set in one that was compiled with a random seed.
        ("PYC_INVALIDATION_MODE", "UNCHECKED_HASH".into()),
        ("PYTHONHASHSEED", "0".into()),
        ("PYTHONUNBUFFERED", "1".into()),
    ] {
        plan.build_env.insert(name.to_owned(), value);
    }
    for (name, value) in [("PYTHONUNBUFFERED", "1"), ("PYTHONDONTWRITEBYTECODE", "1")] {
        plan.env.insert(name.to_owned(), value.to_owned());
    }
}

/// What is installed, and where that comes from.
struct Found {
    packages: Packages,
    /// The lock, where it is not the codebase's own.
    made: Option<String>,
    warnings: Vec<String>,
}

/// Reads the lock; where there is none, one is made.
fn packages(
    toolchains: &mut Toolchains<'_>,
    resolver: &Resolver<'_>,
    kind: Kind,
    manifest: Option<&toml::Table>,
) -> Result<Found, Error> {
    let tree = resolver.tree;
    let none = toml::Table::new();
    let manifest = manifest.unwrap_or(&none);
    let own = |packages| Found { packages, made: None, warnings: Vec::new() };
    let text = |path: &str| tree.text(path).map(Option::unwrap_or_default);
    match kind {
        Kind::UvLock => return Ok(own(locked::read(tree, manifest, None)?)),
        Kind::ToolLock(Tool::Poetry) => {
            return Ok(own(tools::poetry(tree, manifest, &text("poetry.lock")?)?));
        }
        Kind::ToolLock(Tool::Pipenv) => {
            return Ok(own(tools::pipenv(tree, &text("Pipfile.lock")?)?));
        }
        Kind::Requirements => {
            let read = requirements::read(tree, kind.name())?;
            return requirements_found(toolchains, resolver, read);
        }
        Kind::Project | Kind::ToolManifest(_) => {}
    }
    let why = unlocked(kind);
    let (made, packages) = match kind {
        Kind::ToolManifest(tool) => {
            let made = resolver.tool(toolchains, tool)?;
            let packages = match tool {
                Tool::Poetry => tools::poetry(tree, manifest, &made)?,
                Tool::Pipenv => tools::pipenv(tree, &made)?,
            };
            (made, packages)
        }
        _ => {
            let made = resolver.project(toolchains, manifest)?;
            let packages = locked::read(tree, manifest, Some(&made))?;
            (made, packages)
        }
    };
    Ok(Found { packages, made: Some(made), warnings: vec![not_locked(&why)] })
}

/// Reads what a requirements file asks for; where it does not name every package at one version,
/// the rest is resolved.
fn requirements_found(
    toolchains: &mut Toolchains<'_>,
    resolver: &Resolver<'_>,
    read: Requirements,
) -> Result<Found, Error> {
    if read.is_whole {
        return Ok(Found { packages: read.packages, made: None, warnings: Vec::new() });
    }
    let from = read.packages.from.clone();
    let loose = not_pinned(&read);
    if toolchains.require_lock && !read.loose.is_empty() && !resolver.has_lock(&read)? {
        return Err(required(loose));
    }
    let resolved = resolver.requirements(toolchains, &read);
    let (text, is_own) = match resolved {
        Ok(resolved) => resolved,
        // A list that pip installed and that its packages do not agree with is a lock all the same.
        Err(Error::Step { last, .. })
            if read.loose.is_empty()
                && last.iter().any(|line| line.contains("No solution found")) =>
        {
            let warnings = vec![format!(
                "the versions in {from} do not fit together, as the lines above say: they are \
                 installed as they are"
            )];
            return Ok(Found { packages: read.packages, made: None, warnings });
        }
        Err(error) => return Err(error),
    };
    let mut packages = requirements::read_lock(resolver.tree, resolve::REQUIREMENTS_LOCK, &text)?;
    packages.own.clone_from(&read.packages.own);
    packages.copies.extend(read.packages.copies.iter().cloned());
    packages.copies.sort();
    packages.copies.dedup();
    if is_own {
        return Ok(Found { packages, made: None, warnings: Vec::new() });
    }
    let why = if read.loose.is_empty() {
        let missing = resolve::missing(&read, &packages);
        if missing.is_empty() {
            // It is a lock: what was resolved is what it says.
            return Ok(Found { packages: read.packages, made: None, warnings: Vec::new() });
        }
        let shown = missing.iter().take(5).copied().collect::<Vec<_>>().join(", ");
        let more = match missing.len().saturating_sub(5) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        format!("{from} does not name {shown}{more}, which its packages need")
    } else {
        format!("{from} is no lock; {loose}")
    };
    if toolchains.require_lock {
        return Err(required(why));
    }
    from.clone_into(&mut packages.from);
    Ok(Found { packages, made: Some(text), warnings: vec![not_locked(&why)] })
}

/// Refuses, before anything is fetched, what plainly has no lock.
fn refuse_unlocked(tree: &Tree, kind: Kind) -> Result<(), Error> {
    match kind {
        Kind::Project | Kind::ToolManifest(_) => Err(required(unlocked(kind))),
        Kind::Requirements if !tree.is_file(resolve::REQUIREMENTS_LOCK) => {
            let read = requirements::read(tree, kind.name())?;
            match read.loose.is_empty() {
                true => Ok(()),
                false => Err(required(not_pinned(&read))),
            }
        }
        Kind::Requirements | Kind::UvLock | Kind::ToolLock(_) => Ok(()),
    }
}

/// Why a manifest is no lock.
fn unlocked(kind: Kind) -> String {
    let lock = match kind {
        Kind::ToolManifest(tool) => tool.lock(),
        _ => "uv.lock",
    };
    format!("`{}` has no lock: there is no `{lock}`", kind.name())
}

fn not_pinned(read: &Requirements) -> String {
    format!("not pinned to one version with `==`: {}", read.shown())
}

fn required(problem: String) -> Error {
    Error::Plan {
        builder: NAME,
        problem: format!("{problem}; a lock is required (TOLV_REQUIRE_LOCK)"),
        help: "run `tolv lock` and commit what it writes".to_owned(),
    }
}

fn not_locked(why: &str) -> String {
    format!(
        "{why}\nIts packages were resolved for this machine and are kept for the next builds; \
         `tolv lock` writes them into the codebase"
    )
}

#[cfg(test)]
mod tests;
