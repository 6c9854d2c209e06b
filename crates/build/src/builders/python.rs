//! Python: packages by uv, from `uv.lock` or a pinned `requirements.txt`.
//!
//! Third-party packages are a virtual environment in a layer, keyed by the lock, the interpreter
//! and uv, and linked to `/app/.venv`. The codebase's own packages (a `[build-system]`, workspace
//! members, folders that the lock names) change with every commit: they are built as wheels and
//! installed into `/app/.python`, which is on `PYTHONPATH`, so that the layer stays the same.
//!
//! # Invariants
//!
//! * Nothing is resolved: what the lock does not name is not installed, and a package that misses
//!   another is an error.
//! * Equal input gives equal bytes: compiled files are checked by hash and not by time, and what
//!   uv writes down about a file's time is removed.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use tolv_model::slug::Digest;

use super::{below, read_toml};
use crate::Error;
use crate::plan::{LayerPlan, Plan, Step};
use crate::toolchains::Toolchains;
use crate::toolchains::python::{Interpreter, Want};
use crate::toolchains::uv::Uv;
use crate::tree::Tree;

mod locked;
mod requirements;

const NAME: &str = "python";
const VERSION: u32 = 1;
/// Where the codebase's own packages are installed in the app.
const OWN: &str = ".python";
/// Where their wheels are meanwhile; `.tolv` never enters a slug.
const WHEELS: &str = ".tolv/wheels";

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
    },
}

impl Default for How {
    fn default() -> Self {
        Self::Requirements { hashed: false }
    }
}

/// A layer of packages, and the codebase's own packages.
///
/// # Errors
///
/// [`Error::Plan`] where nothing locks the packages or the lock is not exact,
/// [`Error::Toolchain`] where uv or the interpreter cannot be had.
pub(super) fn plan(tree: &Tree, toolchains: &mut Toolchains<'_>) -> Result<Plan, Error> {
    let mut plan = Plan::new(NAME, VERSION);
    let manifest = read_toml(tree, NAME, "pyproject.toml")?;
    let packages = packages(tree, manifest.as_ref())?;
    let wants = wants(tree, manifest.as_ref())?;
    let uv = toolchains.uv()?;
    let python = toolchains.python(&wants, &uv)?;
    let by: Vec<_> = wants.iter().map(|want| format!("{} ({})", want.text, want.from)).collect();
    plan.notes.push(match by.as_slice() {
        [] => format!(
            "Python {}, the newest here: `.python-version` can name another",
            python.version
        ),
        by => format!("Python {}, as wanted: {}", python.version, by.join(" and ")),
    });
    plan.notes.push(format!("Packages of {}, by uv {}", packages.from, uv.version));
    let procfile = tree.text("Procfile")?.unwrap_or_default();
    plan.warnings.extend(procfile.lines().filter_map(|line| cannot_run(line, &packages.left_out)));
    plan.toolchains.extend(uv.mount.clone());
    plan.toolchains.extend(python.mount.clone());
    environment(&mut plan, toolchains);
    let layer = layer(tree, toolchains, &packages, &uv, &python);
    plan.build_path.push(layer.path.join("venv/bin"));
    if let How::Lock { is_static: false, .. } = packages.how {
        let words = [uv.program.as_os_str(), "lock".as_ref(), "--check".as_ref()];
        let words = words.into_iter().chain(["--python".as_ref(), python.program.as_os_str()]);
        plan.steps.push(lock_hints(Step::new("", &toolchains.layout.app, words)));
    }
    if !packages.own.is_empty() {
        own_packages(&mut plan, tree, &toolchains.layout.app, &packages, &layer, &uv);
    }
    plan.path.push("/app/.venv/bin".to_owned());
    plan.layers.push(layer);
    Ok(plan)
}

/// What is wrong with a line of a Procfile whose program will not be there.
fn cannot_run(line: &str, left_out: &BTreeSet<String>) -> Option<String> {
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
    left_out.contains(program).then(|| {
        format!(
            "`Procfile`: `{kind}` runs `{program}`, which `uv.lock` has for an extra or a group \
             that is not installed: `uv add {program}`"
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

fn packages(tree: &Tree, manifest: Option<&toml::Table>) -> Result<Packages, Error> {
    let wrong = |problem: &str, help: &str| {
        Err(Error::Plan { builder: NAME, problem: problem.to_owned(), help: help.to_owned() })
    };
    let is_project = manifest.is_some_and(|manifest| manifest.contains_key("project"));
    if tree.is_file("uv.lock") {
        let Some(manifest) = manifest else {
            return wrong(
                "there is `uv.lock` and no `pyproject.toml`",
                "commit the `pyproject.toml` that `uv.lock` was made of",
            );
        };
        return locked::read(tree, manifest);
    }
    if tree.is_file("requirements.txt") {
        return requirements::read(tree, "requirements.txt");
    }
    if is_project {
        return wrong(
            "`pyproject.toml` has no lock: there is no `uv.lock`",
            "run `uv lock` and commit `uv.lock`",
        );
    }
    if tree.is_file("Pipfile") {
        return wrong(
            "a `Pipfile` alone is not built",
            "run `pipenv requirements > requirements.txt` and commit `requirements.txt`",
        );
    }
    if manifest.is_some_and(|manifest| manifest.contains_key("tool")) {
        return wrong(
            "`pyproject.toml` is Poetry's own form and there is no `requirements.txt`",
            "run `poetry export -o requirements.txt` and commit `requirements.txt`, or move to \
             a `[project]` table and `uv lock`",
        );
    }
    wrong(
        "`pyproject.toml` has no `[project]` table and there is no `requirements.txt`",
        "add a `[project]` table with the dependencies, run `uv lock` and commit both",
    )
}

/// Which interpreters the codebase accepts.
fn wants(tree: &Tree, manifest: Option<&toml::Table>) -> Result<Vec<Want>, Error> {
    let mut wants = Vec::new();
    let mut add = |text: &str, from: &str, read: fn(&str, &str) -> Option<Want>| {
        let want = read(text, from).ok_or_else(|| Error::Plan {
            builder: NAME,
            problem: format!("{from} is `{}`, which is no version of CPython", text.escape_debug()),
            help: "write a version such as `3.13`".to_owned(),
        })?;
        wants.push(want);
        Ok(())
    };
    for path in [".python-version", "runtime.txt"] {
        let text = tree.text(path)?.unwrap_or_default();
        let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        if let Some(line) = lines.into_iter().find(|line| !line.is_empty()) {
            add(line, path, Want::version)?;
            break;
        }
    }
    let project = manifest.and_then(|manifest| manifest.get("project"));
    let required = project.and_then(|project| project.get("requires-python"));
    if let Some(text) = required.and_then(toml::Value::as_str) {
        add(text, "requires-python in pyproject.toml", Want::specifiers)?;
    }
    Ok(wants)
}

fn layer(
    tree: &Tree,
    toolchains: &Toolchains<'_>,
    packages: &Packages,
    uv: &Uv,
    python: &Interpreter,
) -> LayerPlan {
    let Packages { copies, files, how, .. } = packages;
    let program = python.program.as_os_str();
    let mut parts: Vec<Vec<u8>> = vec![
        format!("{NAME} {VERSION} {how:?}").into_bytes(),
        format!("uv {}", uv.version).into_bytes(),
        format!("python {}", python.version).into_bytes(),
        program.as_encoded_bytes().to_vec(),
    ];
    for path in copies {
        let digest = tree.digest(path).map(|digest| digest.to_string()).unwrap_or_default();
        parts.extend([path.clone().into_bytes(), digest.into_bytes()]);
    }
    for (path, bytes) in files {
        parts.extend([path.clone().into_bytes(), Digest::of(bytes).to_string().into_bytes()]);
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    let (key, path) = toolchains.layer(&parts);
    let (project, venv) = (path.join("project"), path.join("venv"));
    let interpreter = venv.join("bin/python");
    let uv = |heading: &str, words: &[&std::ffi::OsStr]| {
        let all = [&[uv.program.as_os_str()], words].concat();
        Step::new(heading, &project, all)
    };
    let word = |text: &'static str| -> &std::ffi::OsStr { text.as_ref() };
    let mut steps = Vec::new();
    match how {
        How::Requirements { hashed } => {
            let make = [word("venv"), word("--quiet"), word("--no-project")];
            let make = [&make[..], &[word("--python"), program, venv.as_os_str()]].concat();
            steps.push(uv("Installing Python packages", &make));
            let mut sync = vec![word("pip"), word("sync"), word("--allow-empty-requirements")];
            sync.extend(hashed.then_some(word("--require-hashes")));
            let end = [word("--python"), interpreter.as_os_str(), word("requirements.txt")];
            sync.extend(end);
            steps.push(install_hints(uv("", &sync)));
            let check = [word("pip"), word("check"), word("--python"), interpreter.as_os_str()];
            let help = "`requirements.txt` has to name every package, with those that others \
                        need: run `uv pip compile requirements.in -o requirements.txt` (where \
                        `requirements.in` names what the codebase imports) and commit both";
            steps.push(uv("", &check).hint("not installed", help).hint("incompatib", help));
        }
        How::Lock { own, is_static, is_virtual } => {
            let mode = if *is_static { "--locked" } else { "--frozen" };
            let mut sync: Vec<OsString> =
                ["sync", mode, "--no-dev", "--no-editable"].map(OsString::from).to_vec();
            sync.extend(is_virtual.then(|| "--all-packages".into()));
            sync.extend(["--python".into(), program.to_owned()]);
            for name in own {
                sync.extend(["--no-install-package".into(), name.into()]);
            }
            let sync: Vec<&std::ffi::OsStr> = sync.iter().map(OsString::as_os_str).collect();
            let step = uv("Installing Python packages", &sync);
            let step = step.env("UV_PROJECT_ENVIRONMENT", &venv);
            steps.push(install_hints(lock_hints(step)));
        }
    }
    steps.push(tidy(&project, &interpreter, &venv.join("lib").join(folder_of(python))));
    let below_project = |path: &String| (path.clone(), below("project", path));
    LayerPlan {
        name: "Python packages".to_owned(),
        key,
        path,
        copies: copies.iter().map(below_project).collect(),
        files: files.iter().map(|(path, bytes)| (below("project", path), bytes.clone())).collect(),
        at_run: true,
        sees_app: false,
        steps,
        remove: vec!["project".to_owned(), "venv/.lock".to_owned()],
        links: vec![(".venv".to_owned(), "venv".to_owned())],
    }
}

/// `python3.13/site-packages`
fn folder_of(python: &Interpreter) -> PathBuf {
    let release = python.version.release();
    let part = |place: usize| release.get(place).copied().unwrap_or_default();
    format!("python{}.{}/site-packages", part(0), part(1)).into()
}

fn tidy(cwd: &Path, interpreter: &Path, folder: &Path) -> Step {
    let words = ["-I".as_ref(), "-c".as_ref(), TIDY.as_ref(), folder.as_os_str()];
    Step::new("", cwd, [interpreter.as_os_str()].into_iter().chain(words))
}

/// Builds the codebase's own packages and installs them beside the layer.
fn own_packages(
    plan: &mut Plan,
    tree: &Tree,
    app: &Path,
    packages: &Packages,
    layer: &LayerPlan,
    uv: &Uv,
) {
    let interpreter = layer.path.join("venv/bin/python");
    for (place, folder) in packages.own.iter().enumerate() {
        let heading = if place == 0 { "Installing the codebase's own packages" } else { "" };
        let source = if folder.is_empty() { "." } else { folder };
        let words: [&std::ffi::OsStr; 9] = [
            uv.program.as_os_str(),
            "build".as_ref(),
            "--wheel".as_ref(),
            "--no-build-logs".as_ref(),
            "--out-dir".as_ref(),
            WHEELS.as_ref(),
            "--python".as_ref(),
            interpreter.as_os_str(),
            source.as_ref(),
        ];
        plan.steps.push(Step::new(heading, app, words));
        plan.prune.extend(left_behind(tree, folder));
    }
    let words: [&std::ffi::OsStr; 7] = [
        interpreter.as_os_str(),
        "-I".as_ref(),
        "-c".as_ref(),
        INSTALL.as_ref(),
        uv.program.as_os_str(),
        WHEELS.as_ref(),
        OWN.as_ref(),
    ];
    plan.steps.push(Step::new("", app, words));
    plan.steps.push(tidy(app, &interpreter, &app.join(OWN)));
    plan.prune.push(below(OWN, ".lock"));
    plan.env.insert("PYTHONPATH".to_owned(), format!("/app/{OWN}"));
    plan.path.push(format!("/app/{OWN}/bin"));
}

/// The folders that setuptools makes beside a package, where they are not the codebase's own.
fn left_behind(tree: &Tree, folder: &str) -> Vec<String> {
    let manifest = read_toml(tree, NAME, &below(folder, "pyproject.toml")).ok().flatten();
    let name = manifest
        .as_ref()
        .and_then(|manifest| manifest.get("project")?.get("name")?.as_str())
        .unwrap_or_default();
    let plain = name.replace(['-', '.'], "_");
    let mut paths = vec![below(folder, "build")];
    for name in [&plain, &plain.to_ascii_lowercase(), name] {
        paths.push(below(folder, &format!("{name}.egg-info")));
        paths.push(below(folder, &format!("src/{name}.egg-info")));
    }
    paths.retain(|path| !tree.is_dir(path));
    paths.sort();
    paths.dedup();
    paths
}

fn lock_hints(step: Step) -> Step {
    let help = "run `uv lock` and commit `uv.lock`";
    step.hint("needs to be updated", help)
        .hint("Failed to parse `uv.lock`", help)
        .hint("Unable to find lockfile", help)
}

fn install_hints(step: Step) -> Step {
    let help = "the package has no wheel for this Python and machine: ask for another Python in \
                `.python-version`, another version of the package, or install what its build \
                needs on this machine";
    step.hint("Failed to build", help)
        .hint("have wheels with a matching", help)
        .hint(
            "must have a hash",
            "run `uv pip compile --generate-hashes requirements.in -o requirements.txt`",
        )
        .hint(
            "Hash mismatch",
            "the index gives other bytes than the lock has: find out why before locking again",
        )
}

#[cfg(test)]
mod tests;
