//! Which programs `cargo build` makes of a codebase, read from its manifests.

use std::collections::BTreeMap;

use toml::{Table, Value};

use super::super::{below, inside, read_toml};
use super::NAME;
use crate::Error;
use crate::tree::Tree;

/// The programs of the packages that are built.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Programs {
    /// In order.
    pub(super) names: Vec<String>,
    /// Not built, with the features that they need.
    pub(super) left_out: BTreeMap<String, String>,
    /// What `cargo run` would run.
    default: Option<String>,
}

impl Programs {
    /// Those of the root package, or of a workspace's members that are built by default.
    pub(super) fn read(tree: &Tree, root: &Table) -> Result<Self, Error> {
        let mut programs = Self::default();
        let workspace = root.get("workspace").and_then(Value::as_table);
        let chosen = workspace.and_then(|table| strings(table, "default-members"));
        let folders = match (&chosen, workspace) {
            (Some(patterns), _) => expand(tree, patterns, &[]),
            (None, _) if root.contains_key("package") => vec![String::new()],
            (None, Some(table)) => {
                let patterns = strings(table, "members").unwrap_or_default();
                expand(tree, &patterns, &strings(table, "exclude").unwrap_or_default())
            }
            (None, None) => Vec::new(),
        };
        for folder in folders {
            let manifest = match folder.as_str() {
                "" => Some(root.clone()),
                folder => read_toml(tree, NAME, &below(folder, "Cargo.toml"))?,
            };
            if let Some(manifest) = manifest {
                programs.package(tree, &folder, &manifest);
            }
        }
        programs.names.sort();
        programs.names.dedup();
        Ok(programs)
    }

    /// The program of the process type `web`: the one of that name, the one that `cargo run`
    /// takes, or the only one.
    pub(super) fn web(&self) -> Option<&str> {
        let named = self.names.iter().find(|name| *name == "web");
        let default = self.default.as_ref().filter(|name| self.names.contains(name));
        let only = self.names.first().filter(|_| self.names.len() == 1);
        named.or(default).or(only).map(String::as_str)
    }

    fn package(&mut self, tree: &Tree, folder: &str, manifest: &Table) {
        let Some(package) = manifest.get("package").and_then(Value::as_table) else { return };
        let own = package.get("name").and_then(Value::as_str).unwrap_or_default();
        if let Some(name) = package.get("default-run").and_then(Value::as_str) {
            self.default = Some(name.to_owned());
        }
        let mut found: Vec<String> = Vec::new();
        if package.get("autobins").and_then(Value::as_bool) != Some(false) {
            if tree.is_file(&below(folder, "src/main.rs")) {
                found.push(own.to_owned());
            }
            let bins = below(folder, "src/bin");
            for name in tree.names(&bins) {
                match name.strip_suffix(".rs") {
                    Some(plain) => found.push(plain.to_owned()),
                    None if tree.is_file(&format!("{bins}/{name}/main.rs")) => found.push(name),
                    None => {}
                }
            }
        }
        let features = manifest.get("features").and_then(Value::as_table);
        let on = switched_on(features);
        for bin in manifest.get("bin").and_then(Value::as_array).into_iter().flatten() {
            let Some(bin) = bin.as_table() else { continue };
            let Some(name) = bin.get("name").and_then(Value::as_str) else { continue };
            // A declared program replaces the one that is found at its path.
            if let Some(path) = bin.get("path").and_then(Value::as_str) {
                let main = path.trim_start_matches("./") == "src/main.rs" && name != own;
                let stem = path.trim_start_matches("./").strip_prefix("src/bin/");
                let stem =
                    stem.map(|rest| rest.trim_end_matches("/main.rs").trim_end_matches(".rs"));
                found.retain(|known| !(main && known == own) && Some(known.as_str()) != stem);
            }
            found.retain(|known| known != name);
            let needed = strings(bin, "required-features").unwrap_or_default();
            let missing: Vec<_> = needed.into_iter().filter(|need| !on.contains(need)).collect();
            if missing.is_empty() {
                found.push(name.to_owned());
            } else {
                self.left_out.insert(name.to_owned(), missing.join(", "));
            }
        }
        self.names.extend(found);
    }
}

/// The features that are on by default, with those that they switch on.
fn switched_on(features: Option<&Table>) -> Vec<String> {
    let mut on: Vec<String> = Vec::new();
    let mut open = vec!["default".to_owned()];
    while let Some(name) = open.pop() {
        if !on.contains(&name) {
            open.extend(features.and_then(|table| strings(table, &name)).unwrap_or_default());
            on.push(name);
        }
    }
    on
}

fn strings(table: &Table, key: &str) -> Option<Vec<String>> {
    let list = table.get(key)?.as_array()?;
    Some(list.iter().filter_map(|entry| entry.as_str().map(str::to_owned)).collect())
}

/// The folders with a manifest that match patterns such as `crates/*`.
fn expand(tree: &Tree, patterns: &[String], exclude: &[String]) -> Vec<String> {
    let mut folders: Vec<String> = Vec::new();
    for pattern in patterns.iter().filter_map(|pattern| inside("", pattern)) {
        let mut open = vec![String::new()];
        for part in pattern.split('/').filter(|part| !part.is_empty()) {
            let names = |folder: &String| match part.contains(['*', '?']) {
                true => tree.names(folder).into_iter().filter(|name| is_like(part, name)).collect(),
                false => vec![part.to_owned()],
            };
            open = open
                .iter()
                .flat_map(|folder| names(folder).into_iter().map(|name| below(folder, &name)))
                .collect();
        }
        folders.extend(open);
    }
    let excluded = |folder: &str| {
        exclude.iter().filter_map(|path| inside("", path)).any(|path| {
            folder.strip_prefix(&path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    folders.retain(|folder| tree.is_file(&below(folder, "Cargo.toml")) && !excluded(folder));
    folders.sort();
    folders.dedup();
    folders
}

/// Whether a name matches a pattern with `*` and `?`.
fn is_like(pattern: &str, name: &str) -> bool {
    let mut chars = pattern.chars();
    match chars.next() {
        None => name.is_empty(),
        Some('*') => {
            let rest = chars.as_str();
            name.char_indices().any(|(at, _)| is_like(rest, &name[at..])) || is_like(rest, "")
        }
        Some(first) => {
            let mut letters = name.chars();
            letters.next().is_some_and(|letter| first == '?' || letter == first)
                && is_like(chars.as_str(), letters.as_str())
        }
    }
}
