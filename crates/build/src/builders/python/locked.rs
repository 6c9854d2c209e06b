//! `uv.lock` with its `pyproject.toml`: what the layer has to see of them, and which of the locked
//! packages are the codebase's own.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Table, Value};

use super::super::{below, inside, read_toml};
use super::{How, NAME, Packages};
use crate::Error;
use crate::tree::{Tree, size};

/// Keys of `[project]` that decide about packages. The others, such as a description, may change
/// without a new layer.
const PROJECT: [&str; 6] =
    ["name", "version", "requires-python", "dependencies", "optional-dependencies", "dynamic"];

/// A key of a lock's `source`, and what it says.
type Key = (&'static str, fn(String) -> Source);

/// What a package of the lock is to the codebase.
enum Source {
    /// A folder with a package; `""` is the root.
    Folder(String),
    /// A folder that is not installed: a list of dependencies.
    Virtual(String),
    /// A wheel or source archive.
    Archive(String),
}

struct Locked<'a> {
    name: &'a str,
    source: Option<Source>,
    table: &'a Table,
}

/// Reads the lock of the root, or one that was made for this build.
pub(super) fn read(tree: &Tree, manifest: &Table, made: Option<&str>) -> Result<Packages, Error> {
    size::check("uv.lock", made.unwrap_or_default().as_bytes())?;
    let lock = match made {
        None => read_toml(tree, NAME, "uv.lock")?.unwrap_or_default(),
        Some(text) => text.parse().map_err(|bad: toml::de::Error| Error::Plan {
            builder: NAME,
            problem: format!("the resolved `uv.lock` is not TOML: {}", bad.message()),
            help: "run `tolv lock`, and look at what it writes".to_owned(),
        })?,
    };
    let none = Vec::new();
    let list = lock.get("package").and_then(Value::as_array).unwrap_or(&none);
    let mut all = Vec::new();
    for table in list.iter().filter_map(Value::as_table) {
        let name = table.get("name").and_then(Value::as_str).unwrap_or_default();
        all.push(Locked { name, source: source(table)?, table });
    }
    let is_virtual = !manifest.contains_key("project");
    let wanted = reached(&all, manifest, is_virtual);
    let mut packages = Packages { from: "uv.lock".to_owned(), ..Packages::default() };
    match made {
        None => packages.copies.push("uv.lock".to_owned()),
        Some(text) => packages.files.push(("uv.lock".to_owned(), text.as_bytes().to_vec())),
    }
    if tree.is_file("uv.toml") {
        packages.copies.push("uv.toml".to_owned());
    }
    packages.files.push(("pyproject.toml".to_owned(), reduced(manifest)));
    let mut is_static = is_virtual || is_told(manifest);
    let mut own = Vec::new();
    for package in &all {
        match &package.source {
            None => {}
            Some(Source::Archive(path)) if tree.is_file(path) => packages.copies.push(path.clone()),
            Some(Source::Archive(path)) => return Err(missing(path)),
            Some(source @ (Source::Folder(folder) | Source::Virtual(folder))) => {
                if !folder.is_empty() && !tree.is_dir(folder) {
                    return Err(missing(folder));
                }
                if !folder.is_empty() {
                    let path = below(folder, "pyproject.toml");
                    let manifest = read_toml(tree, NAME, &path)?;
                    is_static &= manifest.as_ref().is_some_and(is_told);
                    packages.files.extend(manifest.map(|manifest| (path, reduced(&manifest))));
                }
                if matches!(source, Source::Folder(_)) {
                    own.push(package.name.to_owned());
                    if wanted.contains(package.name) {
                        packages.own.push(folder.clone());
                    }
                }
            }
        }
    }
    let is_wanted = |package: &&Locked<'_>| wanted.contains(package.name);
    packages.names = all
        .iter()
        .filter(is_wanted)
        .filter(|package| !matches!(package.source, Some(Source::Folder(_) | Source::Virtual(_))))
        .map(|package| {
            let version = package.table.get("version").and_then(Value::as_str);
            (package.name.to_owned(), version.unwrap_or_default().to_owned())
        })
        .collect();
    let names = all.iter().map(|package| package.name);
    packages.left_out = names.filter(|name| !wanted.contains(name)).map(str::to_owned).collect();
    packages.how = How::Lock { own, is_static, is_virtual, is_own: made.is_none() };
    Ok(packages)
}

fn missing(path: &str) -> Error {
    Error::Plan {
        builder: NAME,
        problem: format!("`uv.lock` names `{path}`, which is not in the codebase"),
        help: format!("commit `{path}`, or remove the dependency and run `tolv lock`"),
    }
}

fn source(table: &Table) -> Result<Option<Source>, Error> {
    let Some(source) = table.get("source").and_then(Value::as_table) else { return Ok(None) };
    let kinds: [Key; 4] = [
        ("editable", Source::Folder),
        ("directory", Source::Folder),
        ("virtual", Source::Virtual),
        ("path", Source::Archive),
    ];
    for (key, make) in kinds {
        let Some(path) = source.get(key).and_then(Value::as_str) else { continue };
        let inner = inside("", path).ok_or_else(|| Error::Plan {
            builder: NAME,
            problem: format!("`uv.lock` names `{path}`, which is outside the codebase"),
            help: "take it into the codebase, or publish it and depend on a version, then run \
                   `tolv lock`"
                .to_owned(),
        })?;
        return Ok(Some(make(inner)));
    }
    Ok(None)
}

/// Names of the packages that running needs: from the root (or, without one, from all members)
/// along dependencies and the default groups.
fn reached<'a>(all: &[Locked<'a>], manifest: &Table, is_virtual: bool) -> BTreeSet<&'a str> {
    let is_root = |package: &&Locked<'_>| match &package.source {
        Some(Source::Folder(folder) | Source::Virtual(folder)) => is_virtual || folder.is_empty(),
        Some(Source::Archive(_)) | None => false,
    };
    let roots: BTreeSet<&str> = all.iter().filter(is_root).map(|package| package.name).collect();
    let groups = manifest.get("tool").and_then(|tool| tool.get("uv"));
    let groups = groups.and_then(|uv| uv.get("default-groups"));
    let in_group = |group: &str| {
        group != "dev"
            && match groups {
                Some(Value::Array(names)) => names.iter().any(|name| name.as_str() == Some(group)),
                Some(Value::String(all)) => all == "all",
                _ => false,
            }
    };
    let mut by_name: BTreeMap<&str, Vec<&Table>> = BTreeMap::new();
    for package in all {
        by_name.entry(package.name).or_default().push(package.table);
    }
    let mut open: Vec<&'a str> = roots.iter().copied().collect();
    let mut seen = BTreeSet::new();
    while let Some(name) = open.pop() {
        if !seen.insert(name) {
            continue;
        }
        for table in by_name.get(name).into_iter().flatten() {
            open.extend(names(table.get("dependencies")));
            let inner = |key: &str| table.get(key).and_then(Value::as_table).into_iter().flatten();
            // An extra that some other package asks for cannot be told from one that none does.
            if !roots.contains(name) {
                open.extend(inner("optional-dependencies").flat_map(|(_, list)| names(Some(list))));
            } else {
                let groups = inner("dev-dependencies").filter(|(group, _)| in_group(group));
                open.extend(groups.flat_map(|(_, list)| names(Some(list))));
            }
        }
    }
    seen
}

fn names(list: Option<&Value>) -> impl Iterator<Item = &str> {
    let list = list.and_then(Value::as_array).into_iter().flatten();
    list.filter_map(|entry| entry.get("name")?.as_str())
}

/// Whether a manifest says without being run all that the lock repeats of it.
fn is_told(manifest: &Table) -> bool {
    let Some(project) = manifest.get("project") else { return false };
    let dynamic = project.get("dynamic").and_then(Value::as_array).into_iter().flatten();
    let mut dynamic = dynamic.filter_map(Value::as_str);
    !dynamic.any(|key| PROJECT.contains(&key))
}

/// A manifest with those keys alone that decide about packages.
pub(super) fn reduced(manifest: &Table) -> Vec<u8> {
    let mut table = Table::new();
    for key in ["dependency-groups", "build-system"] {
        if let Some(value) = manifest.get(key) {
            table.insert(key.to_owned(), value.clone());
        }
    }
    if let Some(project) = manifest.get("project").and_then(Value::as_table) {
        let kept =
            PROJECT.iter().filter_map(|key| Some(((*key).to_owned(), project.get(*key)?.clone())));
        table.insert("project".to_owned(), Value::Table(kept.collect()));
    }
    if let Some(uv) = manifest.get("tool").and_then(|tool| tool.get("uv")) {
        let tool = [("uv".to_owned(), uv.clone())].into_iter().collect();
        table.insert("tool".to_owned(), Value::Table(tool));
    }
    table.to_string().into_bytes()
}
