//! `package.json`: scripts, packages, and the programs it asks for.

use nodejs_semver::Range;
use serde_json::{Map, Value};

use super::super::inside;
use super::locks::Kind;
use super::{NAME, range};
use crate::Error;
use crate::tree::Tree;

/// Keys that decide about packages. The others may change without a new layer.
const PACKAGES: [&str; 20] = [
    "name",
    "version",
    "allowScripts",
    "bin",
    "bundleDependencies",
    "bundledDependencies",
    "cpu",
    "dependencies",
    "dependenciesMeta",
    "devDependencies",
    "engines",
    "installConfig",
    "optionalDependencies",
    "os",
    "overrides",
    "packageManager",
    "peerDependencies",
    "peerDependenciesMeta",
    "pnpm",
    "resolutions",
];
/// Scripts of the root that an installation runs, or that are run around it.
const AT_INSTALL: [&str; 10] = [
    PREBUILD,
    CLEANUP,
    "preinstall",
    "install",
    "postinstall",
    "prepublish",
    "preprepare",
    "prepare",
    "postprepare",
    "dependencies",
];
/// What `prepare` often is, and what a build has no use for: git hooks.
const HOOKS: [&str; 5] = ["husky", "lefthook", "simple-git-hooks", "is-ci", "pre-commit"];
/// Packages that write into `node_modules` or do not build with packages elsewhere, and whether
/// that is while building only.
const IN_PLACE: [(&str, bool); 2] = [("@prisma/client", false), ("next", true)];
/// The script that runs before the installation.
pub(super) const PREBUILD: &str = "heroku-prebuild";
/// The script that runs once the packages of the build are removed.
pub(super) const CLEANUP: &str = "heroku-cleanup";
/// Keys with packages.
const DEPENDENCIES: [&str; 4] =
    ["dependencies", "devDependencies", "optionalDependencies", "peerDependencies"];

/// The manifest of the root.
pub(super) struct Manifest(Value);

impl Manifest {
    pub(super) fn read(tree: &Tree) -> Result<Self, Error> {
        let text = tree.text("package.json")?.unwrap_or_default();
        let wrong = |problem: String| Error::Plan {
            builder: NAME,
            problem,
            help: "correct `package.json`; `npm pkg fix` helps".to_owned(),
        };
        let value: Value = serde_json::from_str(&text)
            .map_err(|bad| wrong(format!("`package.json` is not JSON: {bad}")))?;
        if !value.is_object() {
            return Err(wrong("`package.json` is not a JSON object".to_owned()));
        }
        Ok(Self(value))
    }

    /// The text at a JSON pointer.
    pub(super) fn text(&self, pointer: &str) -> Option<&str> {
        self.0.pointer(pointer)?.as_str().filter(|text| !text.trim().is_empty())
    }

    /// Whether anything stands at a JSON pointer.
    pub(super) fn has(&self, pointer: &str) -> bool {
        self.0.pointer(pointer).is_some()
    }

    pub(super) fn script(&self, name: &str) -> Option<&str> {
        self.0.get("scripts")?.get(name)?.as_str().filter(|text| !text.trim().is_empty())
    }

    /// The script that builds.
    pub(super) fn build_script(&self) -> Option<&'static str> {
        ["heroku-postbuild", "build"].into_iter().find(|name| self.script(name).is_some())
    }

    fn packages(&self, key: &str) -> Option<&Map<String, Value>> {
        self.0.get(key)?.as_object()
    }

    /// Whether packages stand under a key.
    pub(super) fn names_packages(&self, key: &str) -> bool {
        self.packages(key).is_some_and(|packages| !packages.is_empty())
    }

    /// Whether anything has to be installed.
    pub(super) fn needs_packages(&self) -> bool {
        DEPENDENCIES.iter().any(|key| self.names_packages(key))
            || self.0.get("workspaces").is_some()
    }

    /// The manager that `packageManager` names: `pnpm`.
    pub(super) fn manager(&self) -> Option<&str> {
        self.text("/packageManager")?.split('@').next()
    }

    /// The version of a manager that is asked for, with its text.
    pub(super) fn manager_version(&self, kind: Kind) -> Result<Option<(Range, String)>, Error> {
        let exact = self.text("/packageManager").and_then(|text| text.split_once('@'));
        let exact = exact.filter(|(name, _)| *name == kind.name());
        // `pnpm@9.1.0+sha512.…`
        let exact = exact.map(|(_, version)| version.split('+').next().unwrap_or_default());
        let engine = self.text(&format!("/engines/{}", kind.name()));
        let (text, from) = match (exact, engine) {
            (Some(text), _) => (text, "packageManager".to_owned()),
            (None, Some(text)) => (text, format!("engines.{}", kind.name())),
            (None, None) => return Ok(None),
        };
        let range = range(text).ok_or_else(|| Error::Plan {
            builder: NAME,
            problem: format!(
                "{from} in package.json is `{}`, which is no version of {}",
                text.escape_debug(),
                kind.name()
            ),
            help: "write a version, such as `pnpm@10.34.9`".to_owned(),
        })?;
        Ok(Some((range, text.to_owned())))
    }

    /// Why an installation has to see the source, if so.
    pub(super) fn wants_source(&self, builds: bool) -> Option<String> {
        let runs = |name: &&&str| {
            self.script(name).is_some_and(|script| !HOOKS.iter().any(|tool| script.contains(tool)))
        };
        if let Some(script) = AT_INSTALL.iter().find(runs) {
            return Some(format!("package.json has the script `{script}`"));
        }
        if self.0.get("workspaces").is_some() {
            return Some("package.json has workspaces".to_owned());
        }
        for key in DEPENDENCIES {
            for (name, wish) in self.packages(key).into_iter().flatten() {
                let wish = wish.as_str().unwrap_or_default();
                let schemes = ["file:", "link:", "portal:", "workspace:", "./", "../", "/", "~/"];
                if schemes.iter().any(|scheme| wish.starts_with(scheme)) {
                    return Some(format!("`{name}` is in the codebase (`{wish}`)"));
                }
            }
        }
        IN_PLACE.iter().find_map(|(name, building)| {
            let named = DEPENDENCIES
                .iter()
                .any(|key| self.packages(key).is_some_and(|packages| packages.contains_key(*name)));
            (named && (builds || !building)).then(|| format!("`{name}` needs it"))
        })
    }

    /// The manifest with those keys alone that decide about packages.
    pub(super) fn reduced(&self) -> Vec<u8> {
        self.with(&PACKAGES)
    }

    /// As [`Manifest::reduced`], with the packages of the codebase.
    pub(super) fn reduced_for_lock(&self) -> Vec<u8> {
        self.with(&[&PACKAGES[..], &["workspaces"]].concat())
    }

    /// The files of the codebase's own packages that decide about others: their manifests, and
    /// archives that a wish names.
    pub(super) fn files_of_packages(&self, tree: &Tree) -> Vec<String> {
        let paths = tree.entries().keys().filter_map(|path| std::str::from_utf8(path).ok());
        let manifests = paths.filter(|path| {
            path.ends_with("/package.json")
                && !path.split('/').any(|part| part == "node_modules")
                && tree.is_file(path)
        });
        let wishes = DEPENDENCIES.iter().filter_map(|key| self.packages(key)).flatten();
        let archives = wishes.filter_map(|(_, wish)| {
            let path = wish.as_str()?.strip_prefix("file:")?;
            inside("", path).filter(|path| tree.is_file(path))
        });
        manifests.map(str::to_owned).chain(archives).collect()
    }

    fn with(&self, keys: &[&str]) -> Vec<u8> {
        let kept: Map<String, Value> = keys
            .iter()
            .filter_map(|key| Some(((*key).to_owned(), self.0.get(*key)?.clone())))
            .collect();
        format!("{:#}\n", Value::Object(kept)).into_bytes()
    }

    /// The command of the process type `web`: what `npm start` would run, without an npm around it
    /// that keeps signals from the server.
    pub(super) fn web(&self, tree: &Tree) -> Option<String> {
        let Some(mut command) = self.script("start") else {
            return tree.is_file("server.js").then(|| "node server.js".to_owned());
        };
        let mut name = "start";
        for _ in 0..5 {
            let around = ["pre", "post"].map(|when| self.script(&format!("{when}{name}")));
            if around.iter().any(Option::is_some) {
                return Some(if name == "start" {
                    "npm start".to_owned()
                } else {
                    format!("npm run {name}")
                });
            }
            let words: Vec<&str> = command.split_whitespace().collect();
            let next = match words.as_slice() {
                ["npm" | "pnpm" | "yarn", "run", next] => *next,
                ["yarn" | "pnpm", next] => *next,
                _ => break,
            };
            let Some(script) = self.script(next) else { break };
            (name, command) = (next, script);
        }
        Some(command.to_owned())
    }
}
