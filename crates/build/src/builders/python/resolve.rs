//! What makes a lock where the codebase has ranges, with the tool that made its manifest.

use std::collections::BTreeMap;
use std::ffi::OsStr;

use tolv_model::slug::Digest;
use toml::{Table, Value};

use super::requirements::{self, Requirements};
use super::tools::{self, Tool};
use super::{NAME, Packages, locked};
use crate::Error;
use crate::plan::{Plan, Step};
use crate::resolution::{LockFile, Resolution};
use crate::snapshot;
use crate::toolchains::Toolchains;
use crate::toolchains::python::Interpreter;
use crate::toolchains::uv::Uv;
use crate::tree::Tree;

/// The lock that Tolv makes of a `requirements.txt`.
pub(super) const REQUIREMENTS_LOCK: &str = "requirements.lock";
/// Begins the line of such a lock that says what it was made of.
const MARK: &str = "# tolv lock: ";
/// What the resolver reads, in the folder where it works.
const WISHES: &str = ".tolv-wishes.txt";
const CONSTRAINTS: &str = ".tolv-constraints.txt";
/// What is taken where nothing asks for another version: the last setuptools with `pkg_resources`,
/// which packages that ask for any setuptools use.
const PREFERRED: &str = "setuptools==80.9.0\n";
const VENV: &str = ".tolv-venv";
/// Raised whenever the same input would give another lock.
const VERSION: u32 = 1;

/// What resolving needs of the machine.
pub(super) struct Resolver<'a> {
    pub(super) tree: &'a Tree,
    pub(super) uv: &'a Uv,
    pub(super) python: &'a Interpreter,
    /// Whether the versions of a lock that is there are forgotten.
    pub(super) upgrade: bool,
}

impl Resolver<'_> {
    /// Digest of parts, the Python among them: which of its releases it is decides no lock.
    fn stamp(&self, what: &str, parts: &[&[u8]]) -> Digest {
        let release = self.python.version.release();
        let mut text = format!("{what} {VERSION} {:?}", release.get(..2)).into_bytes();
        for part in parts {
            text.extend((part.len() as u64).to_be_bytes());
            text.extend_from_slice(part);
        }
        Digest::of(&text)
    }

    /// Digest of a stamp and of what else decides a lock: the machine's kind, where packages come
    /// from, and the lock before.
    fn input(&self, toolchains: &Toolchains<'_>, stamp: Digest, before: Option<&[u8]>) -> Digest {
        let mut text = format!("{stamp} {} {}", std::env::consts::ARCH, self.upgrade).into_bytes();
        let indexes = toolchains.env.iter().filter(|(name, _)| name.contains("INDEX"));
        for (name, value) in indexes {
            text.extend_from_slice(format!("\n{name}={value:?}").as_bytes());
        }
        let before = before.map(|lock| Digest::of(lock).to_string());
        text.extend(before.unwrap_or_default().into_bytes());
        Digest::of(&text)
    }

    fn plan(&self, toolchains: &Toolchains<'_>, steps: Vec<Step>) -> Plan {
        let mut plan = Plan::new(NAME, super::VERSION);
        plan.toolchains.extend(self.uv.mount.clone());
        plan.toolchains.push(self.python.mount.clone());
        if let Some(libraries) = &self.python.libraries {
            plan.add_libraries(libraries);
        }
        super::environment(&mut plan, toolchains);
        plan.steps = steps;
        plan
    }

    fn step(&self, toolchains: &Toolchains<'_>, name: &str, words: &[&OsStr]) -> Step {
        let argv = [&[self.uv.program.as_os_str()], words].concat();
        let step = Step::new(format!("Resolving {name}"), &toolchains.layout.app, argv);
        step.hint("No solution found", CONFLICT)
            .hint("version solving failed", CONFLICT)
            .hint("ResolutionImpossible", CONFLICT)
            .hint("Failed to build", super::NO_WHEEL)
            .hint("not found in the package registry", "correct the name of that package")
    }

    /// The lock of a requirements file: the one of the codebase where that is fresh, else one that
    /// is made now. Says whether it is the codebase's.
    pub(super) fn requirements(
        &self,
        toolchains: &mut Toolchains<'_>,
        read: &Requirements,
    ) -> Result<(String, bool), Error> {
        let Requirements { packages, wishes, constraints, .. } = read;
        let mark = self.mark(read)?;
        let before = self.tree.text(REQUIREMENTS_LOCK)?.filter(|lock| is_ours(lock));
        if !self.upgrade
            && let Some(lock) = &before
            && lock.lines().next() == Some(&mark)
        {
            return Ok((lock.clone(), true));
        }
        let mut words: Vec<&OsStr> = ["pip", "compile", "--quiet", "--no-header"].map(word).into();
        words.extend(
            ["--generate-hashes", "--no-annotate", "--output-file", REQUIREMENTS_LOCK].map(word),
        );
        words.extend([word("--python"), self.python.program.as_os_str()]);
        words.push(word(WISHES));
        let mut files = vec![(WISHES.to_owned(), wishes.clone().into_bytes())];
        if !constraints.is_empty() {
            words.extend([word("--constraints"), word(CONSTRAINTS)]);
            files.push((CONSTRAINTS.to_owned(), constraints.clone().into_bytes()));
        }
        // The versions of what stands where the lock is to be are preferred.
        let preferred = before.clone().filter(|_| !self.upgrade);
        let preferred = preferred.unwrap_or_else(|| PREFERRED.to_owned());
        files.push((REQUIREMENTS_LOCK.to_owned(), preferred.into_bytes()));
        let wanted = Resolution {
            name: packages.from.clone(),
            input: self.input(
                toolchains,
                Digest::of(mark.as_bytes()),
                before.as_deref().map(str::as_bytes),
            ),
            sees_source: !packages.own.is_empty() || !packages.copies.is_empty(),
            files,
            plan: self.plan(toolchains, vec![self.step(toolchains, &packages.from, &words)]),
            result: REQUIREMENTS_LOCK.to_owned(),
        };
        let lock = text_of(&wanted, toolchains.resolve(&wanted)?)?;
        let options = &read.options;
        let hint = format!("# Change {}, not this file, and run `tolv lock` again.", packages.from);
        Ok((format!("{mark}\n{hint}\n{options}{lock}"), false))
    }

    /// Whether the codebase has the lock of a requirements file, which made of what it says now.
    pub(super) fn has_lock(&self, read: &Requirements) -> Result<bool, Error> {
        let (lock, mark) = (self.tree.text(REQUIREMENTS_LOCK)?, self.mark(read)?);
        Ok(lock.is_some_and(|lock| lock.lines().next() == Some(&mark)))
    }

    /// The first line of the lock of a requirements file: what it was made of, and for what.
    fn mark(&self, read: &Requirements) -> Result<String, Error> {
        let Requirements { packages, wishes, constraints, .. } = read;
        let mut parts = vec![wishes.clone().into_bytes(), constraints.clone().into_bytes()];
        for path in &packages.copies {
            parts.push(format!("{path} {:?}", self.tree.digest(path)).into_bytes());
        }
        parts.extend(self.own_parts(&packages.own)?);
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let stamp = self.stamp("requirements", &parts);
        let release = self.python.version.release();
        let minor = release.iter().take(2).map(u64::to_string).collect::<Vec<_>>().join(".");
        Ok(format!("{MARK}{} for Python {minor}, {stamp}", packages.from))
    }

    /// What decides about the codebase's own packages: their manifests; where those have to be
    /// run, all files.
    fn own_parts(&self, own: &[String]) -> Result<Vec<Vec<u8>>, Error> {
        let mut parts = Vec::new();
        for folder in own {
            let manifest = super::below(folder, "pyproject.toml");
            let manifest = super::read_toml(self.tree, NAME, &manifest)?;
            match manifest.filter(asks_statically) {
                Some(manifest) => parts.push(locked::reduced(&manifest)),
                None => return Ok(vec![snapshot::digest(self.tree).to_string().into_bytes()]),
            }
        }
        Ok(parts)
    }

    /// The lock of a project: `uv.lock`.
    pub(super) fn project(
        &self,
        toolchains: &mut Toolchains<'_>,
        manifest: &Table,
    ) -> Result<String, Error> {
        let uv = manifest.get("tool").and_then(|tool| tool.get("uv"));
        let names_paths = ["workspace", "sources"];
        let names_paths = names_paths.iter().any(|key| uv.is_some_and(|uv| uv.get(key).is_some()));
        let is_static = asks_statically(manifest);
        let settings = self.tree.read("uv.toml")?;
        let reduced = locked::reduced(manifest);
        let mut files = vec![("pyproject.toml".to_owned(), reduced.clone())];
        files.extend(settings.clone().map(|bytes| ("uv.toml".to_owned(), bytes)));
        let before = self.tree.read("uv.lock")?;
        files.extend(before.clone().map(|bytes| ("uv.lock".to_owned(), bytes)));
        let sees_source = names_paths || !is_static;
        let mut parts = vec![reduced, settings.unwrap_or_default()];
        if !is_static {
            parts.push(snapshot::digest(self.tree).to_string().into_bytes());
        } else if names_paths {
            let paths =
                self.tree.entries().keys().filter_map(|path| std::str::from_utf8(path).ok());
            for path in paths.filter(|path| is_manifest(path)) {
                parts.push(format!("{path} {:?}", self.tree.digest(path)).into_bytes());
            }
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let stamp = self.stamp("project", &parts);
        let mut words = [word("lock"), word("--python"), self.python.program.as_os_str()].to_vec();
        words.extend(self.upgrade.then_some(word("--upgrade")));
        let wanted = Resolution {
            name: "pyproject.toml".to_owned(),
            input: self.input(toolchains, stamp, before.as_deref()),
            sees_source,
            files: if sees_source { Vec::new() } else { files },
            plan: self.plan(toolchains, vec![self.step(toolchains, "pyproject.toml", &words)]),
            result: "uv.lock".to_owned(),
        };
        let lock = toolchains.resolve(&wanted)?;
        text_of(&wanted, lock)
    }

    /// The lock that Poetry or Pipenv makes.
    pub(super) fn tool(
        &self,
        toolchains: &mut Toolchains<'_>,
        tool: Tool,
    ) -> Result<String, Error> {
        let manifest = self.tree.read(tool.manifest())?.unwrap_or_default();
        let before = self.tree.read(tool.lock())?.filter(|_| !self.upgrade);
        let mut files = vec![(tool.manifest().to_owned(), manifest.clone())];
        files.extend(before.clone().map(|bytes| (tool.lock().to_owned(), bytes)));
        let mut words = tool.lock_words().to_vec();
        words.extend((tool == Tool::Poetry && self.upgrade).then_some("--regenerate"));
        let words = tools::words(tool, self.python, &words);
        let words: Vec<&OsStr> = words.iter().map(AsRef::as_ref).collect();
        let step = self.step(toolchains, tool.manifest(), &words);
        // Pipenv makes a virtual environment of its own else.
        let venv = toolchains.layout.app.join(VENV);
        let make = [word("venv"), word("--quiet"), word("--no-project"), word("--python")];
        let make = [&make[..], &[self.python.program.as_os_str(), venv.as_os_str()]].concat();
        let make = self.step(toolchains, tool.manifest(), &make);
        let mut step = tools::environment(step, toolchains).env("VIRTUAL_ENV", &venv);
        step.heading.clear();
        let names_paths = String::from_utf8_lossy(&manifest).contains("path");
        let stamp = match names_paths {
            true => self.stamp(tool.name(), &[snapshot::digest(self.tree).to_string().as_bytes()]),
            false => self.stamp(tool.name(), &[&manifest]),
        };
        let wanted = Resolution {
            name: tool.manifest().to_owned(),
            input: self.input(toolchains, stamp, before.as_deref()),
            sees_source: names_paths,
            files: if names_paths { Vec::new() } else { files },
            plan: self.plan(toolchains, vec![make, step]),
            result: tool.lock().to_owned(),
        };
        let lock = toolchains.resolve(&wanted)?;
        text_of(&wanted, lock)
    }
}

/// What to do where no versions fit together.
const CONFLICT: &str = "loosen one of the ranges that the lines above name, or ask for another \
                        Python in `.python-version`";

fn word(text: &str) -> &OsStr {
    text.as_ref()
}

/// Whether a path is a manifest of a package.
fn is_manifest(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    matches!(name, "pyproject.toml" | "setup.py" | "setup.cfg")
        || [".whl", ".tar.gz", ".zip"].iter().any(|end| name.ends_with(end))
}

/// Whether a manifest says what it asks for without being run.
fn asks_statically(manifest: &Table) -> bool {
    let Some(project) = manifest.get("project") else { return false };
    let dynamic = project.get("dynamic").and_then(Value::as_array).into_iter().flatten();
    let mut dynamic = dynamic.filter_map(Value::as_str);
    !dynamic.any(|key| ["version", "dependencies", "optional-dependencies"].contains(&key))
}

fn text_of(wanted: &Resolution, lock: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(lock).map_err(|_| Error::Plan {
        builder: NAME,
        problem: format!("resolving {} gave a `{}` that is not UTF-8", wanted.name, wanted.result),
        help: "look for what writes it in the codebase's build scripts".to_owned(),
    })
}

/// Whether Tolv made a `requirements.lock`.
pub(super) fn is_ours(lock: &str) -> bool {
    lock.starts_with(MARK)
}

/// A lock as it goes into the codebase.
pub(super) fn lock_file(path: &str, text: String, packages: &Packages) -> LockFile {
    LockFile { path: path.to_owned(), bytes: text.into_bytes(), packages: shown(&packages.names) }
}

/// Packages with their versions, for people.
pub(super) fn shown(names: &BTreeMap<String, String>) -> Vec<String> {
    names.iter().map(|(name, version)| format!("{name} {version}").trim_end().to_owned()).collect()
}

/// Packages that a lock has and a requirements file does not name.
pub(super) fn missing<'a>(read: &Requirements, lock: &'a Packages) -> Vec<&'a str> {
    let named = requirements::names(&read.wishes);
    lock.names.keys().filter(|name| !named.contains_key(*name)).map(String::as_str).collect()
}
