//! Poetry and Pipenv, run through uv: they make their locks, tell whether one is fresh, and write
//! out what it has. uv installs that, from the same indexes and with the same bytes as any other.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use serde_json::Value;
use toml::Table;

use super::super::{below, inside, read_toml};
use super::requirements::plain_name;
use super::{How, NAME, Packages};
use crate::Error;
use crate::plan::Step;
use crate::toolchains::Toolchains;
use crate::toolchains::python::Interpreter;
use crate::toolchains::uv::Uv;
use crate::tree::{Tree, size};

/// A package manager that has a lock of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tool {
    /// `pyproject.toml`, `poetry.lock`
    Poetry,
    /// `Pipfile`, `Pipfile.lock`
    Pipenv,
}

impl Tool {
    /// Its command.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Poetry => "poetry",
            Self::Pipenv => "pipenv",
        }
    }

    /// The releases that are run, for Pythons from 3.10 on, of 3.9, and below.
    fn requirements(self, python: &Interpreter) -> &'static [&'static str] {
        let place = match python.version.release() {
            [3, ..=8, ..] => 2,
            [3, 9, ..] => 1,
            _ => 0,
        };
        match self {
            Self::Poetry => [
                &["poetry==2.5.1", "poetry-plugin-export==1.10.1"],
                &["poetry==2.2.1", "poetry-plugin-export==1.9.0"],
                &["poetry==1.8.5", "poetry-plugin-export==1.8.0"],
            ][place],
            Self::Pipenv => {
                [&["pipenv==2026.10.3"], &["pipenv==2025.0.4"], &["pipenv==2024.0.1"]][place]
            }
        }
    }

    pub(super) fn manifest(self) -> &'static str {
        match self {
            Self::Poetry => "pyproject.toml",
            Self::Pipenv => "Pipfile",
        }
    }

    pub(super) fn lock(self) -> &'static str {
        match self {
            Self::Poetry => "poetry.lock",
            Self::Pipenv => "Pipfile.lock",
        }
    }

    /// What makes the lock.
    pub(super) fn lock_words(self) -> &'static [&'static str] {
        match self {
            Self::Poetry => &["lock", "--no-interaction"],
            Self::Pipenv => &["lock"],
        }
    }
}

/// Words for uv that run a tool with the interpreter of the codebase.
pub(super) fn words(tool: Tool, python: &Interpreter, rest: &[&str]) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["tool", "run", "--quiet", "--python"].map(Into::into).into();
    words.push(python.program.clone().into());
    for (place, requirement) in tool.requirements(python).iter().enumerate() {
        words.extend([if place == 0 { "--from" } else { "--with" }, requirement].map(Into::into));
    }
    words.push(tool.name().into());
    words.extend(rest.iter().map(OsString::from));
    words
}

/// Runs a command whose output becomes a file, without the line that names PyPI: the operator may
/// have a mirror of it.
pub(super) const CAPTURE: &str = "import subprocess, sys
done = subprocess.run(sys.argv[2:], stdout=subprocess.PIPE)
lines = done.stdout.splitlines(True)
pypi = (b'-i https://pypi.org/simple', b'-i https://pypi.org/simple/')
with open(sys.argv[1], 'wb') as out:
    out.writelines(line for line in lines if line.strip() not in pypi)
sys.exit(done.returncode)";

/// The steps that check whether a lock is fresh, and write what it has, without what development
/// needs, to a `requirements.txt` beside it.
pub(super) fn export(
    tool: Tool,
    toolchains: &Toolchains<'_>,
    (uv, python, interpreter): (&Uv, &Interpreter, &Path),
    project: &Path,
) -> Vec<Step> {
    let run = |words: &[&str]| {
        let mut all = vec![uv.program.clone().into_os_string()];
        all.extend(self::words(tool, python, words));
        all
    };
    let venv = interpreter.parent().and_then(Path::parent).unwrap_or(project);
    let step = |argv: Vec<OsString>| {
        let step = environment(Step::new("", project, argv), toolchains);
        hints(step.env("VIRTUAL_ENV", venv), tool)
    };
    match tool {
        Tool::Poetry => {
            let words = ["export", "--only", "main", "--no-interaction", "--output"];
            vec![step(run(&[&words[..], &["requirements.txt"]].concat()))]
        }
        Tool::Pipenv => {
            let mut argv: Vec<OsString> = vec![interpreter.into()];
            argv.extend(["-I", "-c", CAPTURE, "requirements.txt"].map(OsString::from));
            argv.extend(run(&["requirements", "--hash"]));
            vec![step(run(&["verify"])), step(argv)]
        }
    }
}

/// A step of a tool, with what keeps it from colours, questions and folders of its own choice.
pub(super) fn environment(step: Step, toolchains: &Toolchains<'_>) -> Step {
    let cache = &toolchains.layout.cache;
    step.env("NO_COLOR", "1")
        .env("POETRY_CACHE_DIR", cache.join("poetry"))
        .env("POETRY_VIRTUALENVS_CREATE", "false")
        .env("PIPENV_CACHE_DIR", cache.join("pipenv"))
        .env("PIPENV_NOSPIN", "1")
        .env("PIPENV_YES", "1")
        .env("PIPENV_VERBOSITY", "-1")
        .env("PIP_CACHE_DIR", cache.join("pip"))
        .env("PIP_DISABLE_PIP_VERSION_CHECK", "1")
}

/// What to do where a tool refuses its lock.
pub(super) fn hints(step: Step, tool: Tool) -> Step {
    let help = format!("run `tolv lock` and commit `{}`", tool.lock());
    step.hint("changed significantly since", &help)
        .hint("is not up to date with", &help)
        .hint("is out of date", &help)
        .hint("out-of-date", &help)
        .hint("not compatible with the current version of Poetry", &help)
}

/// Reads `poetry.lock`; `text` is the codebase's own or a new one.
pub(super) fn poetry(tree: &Tree, manifest: &Table, text: &str) -> Result<Packages, Error> {
    size::check("poetry.lock", text.as_bytes())?;
    let lock: Table = text.parse().map_err(|bad: toml::de::Error| Error::Plan {
        builder: NAME,
        problem: format!("`poetry.lock` is not TOML: {}", bad.message().replace('\n', " ")),
        help: "run `tolv lock` and commit `poetry.lock`".to_owned(),
    })?;
    let mut packages = start(Tool::Poetry, tree, text);
    let list = lock.get("package").and_then(toml::Value::as_array).into_iter().flatten();
    for package in list.filter_map(toml::Value::as_table) {
        let get = |key: &str| package.get(key).and_then(toml::Value::as_str).unwrap_or_default();
        let name = plain_name(get("name"));
        let groups = package.get("groups").and_then(toml::Value::as_array);
        let is_main = match groups {
            Some(groups) => groups.iter().any(|group| group.as_str() == Some("main")),
            None => matches!(get("category"), "" | "main"),
        };
        if !is_main {
            packages.left_out.insert(name);
            continue;
        }
        packages.names.insert(name, get("version").to_owned());
        let Some(source) = package.get("source").and_then(toml::Value::as_table) else { continue };
        let get = |key: &str| source.get(key).and_then(toml::Value::as_str).unwrap_or_default();
        if matches!(get("type"), "directory" | "file") {
            let path = inside("", get("url")).ok_or_else(|| outside("poetry.lock", get("url")))?;
            if package.get("develop").and_then(toml::Value::as_bool) == Some(true) {
                return Err(Error::Plan {
                    builder: NAME,
                    problem: format!("`poetry.lock` installs `{path}` in place (`develop = true`)"),
                    help: format!(
                        "set `develop = false` for `{path}` in `pyproject.toml` and run `tolv lock`"
                    ),
                });
            }
            match tree.is_file(&path) {
                true => packages.copies.push(path),
                false => packages.copies.extend(super::files_below(tree, &path)),
            }
        }
    }
    if has_root_package(tree, manifest) {
        packages.own.push(String::new());
    }
    Ok(packages)
}

fn start(tool: Tool, tree: &Tree, text: &str) -> Packages {
    let mut packages =
        Packages { from: tool.lock().to_owned(), how: How::Tool(tool), ..Packages::default() };
    packages.copies.push(tool.manifest().to_owned());
    match tree.text(tool.lock()) {
        Ok(Some(own)) if own == text => packages.copies.push(tool.lock().to_owned()),
        _ => packages.files.push((tool.lock().to_owned(), text.as_bytes().to_vec())),
    }
    packages
}

fn outside(lock: &str, path: &str) -> Error {
    Error::Plan {
        builder: NAME,
        problem: format!("`{lock}` names `{}`, which is outside the codebase", path.escape_debug()),
        help: "take it into the codebase, or publish it and depend on a version, then run \
               `tolv lock`"
            .to_owned(),
    }
}

/// Whether the root is a package that Poetry would install: it says so, and its files are there.
fn has_root_package(tree: &Tree, manifest: &Table) -> bool {
    let poetry = manifest.get("tool").and_then(|tool| tool.get("poetry"));
    let get = |key: &str| poetry.and_then(|poetry| poetry.get(key));
    if get("package-mode").and_then(toml::Value::as_bool) == Some(false)
        || !manifest.contains_key("build-system")
    {
        return false;
    }
    let project = manifest.get("project").and_then(|project| project.get("name"));
    let name = project.or_else(|| get("name")).and_then(toml::Value::as_str).unwrap_or_default();
    let module = plain_name(name).replace('-', "_");
    let there = |path: String| tree.is_dir(&path) || tree.is_file(&format!("{path}.py"));
    get("packages").is_some() || there(module.clone()) || there(format!("src/{module}"))
}

/// Reads `Pipfile.lock`; `text` is the codebase's own or a new one.
pub(super) fn pipenv(tree: &Tree, text: &str) -> Result<Packages, Error> {
    let bad = |problem: String| Error::Plan {
        builder: NAME,
        problem,
        help: "run `tolv lock` and commit `Pipfile.lock`".to_owned(),
    };
    size::check("Pipfile.lock", text.as_bytes())?;
    let mut lock: Value = serde_json::from_str(text)
        .map_err(|error| bad(format!("`Pipfile.lock` is not JSON: {error}")))?;
    read_toml(tree, NAME, "Pipfile")?.ok_or_else(|| {
        bad("there is `Pipfile.lock` and no `Pipfile` that it was made of".to_owned())
    })?;
    let names = |lock: &Value, section: &str| -> BTreeMap<String, String> {
        let entries = lock.get(section).and_then(Value::as_object).into_iter().flatten();
        let version = |entry: &Value| {
            let version = entry.get("version").and_then(Value::as_str).unwrap_or_default();
            version.trim_start_matches('=').to_owned()
        };
        entries.map(|(name, entry)| (plain_name(name), version(entry))).collect()
    };
    let all = names(&lock, "default");
    let dev = names(&lock, "develop");
    let mut own = Vec::new();
    let mut rest = text.to_owned();
    if let Some(entries) = lock.get_mut("default").and_then(Value::as_object_mut) {
        let paths: Vec<(String, String)> = entries
            .iter()
            .filter_map(|(name, entry)| {
                let path = entry.get("path").or_else(|| entry.get("file"))?.as_str()?;
                (!path.contains("://")).then(|| (name.clone(), path.to_owned()))
            })
            .collect();
        for (name, path) in &paths {
            let folder = inside("", path).ok_or_else(|| outside("Pipfile.lock", path))?;
            if tree.is_file(&below(&folder, "pyproject.toml"))
                || tree.is_file(&below(&folder, "setup.py"))
            {
                // It is built beside the layer, as the codebase's own packages are.
                own.push(folder);
                entries.remove(name);
            }
        }
        if !own.is_empty() {
            rest = serde_json::to_string_pretty(&lock).map_err(|error| bad(error.to_string()))?;
        }
    }
    let mut packages = start(Tool::Pipenv, tree, &rest);
    packages.left_out = dev.into_keys().filter(|name| !all.contains_key(name)).collect();
    packages.names = all;
    packages.own = own;
    Ok(packages)
}
