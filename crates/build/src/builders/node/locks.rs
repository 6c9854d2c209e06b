//! Lock files, the managers that they belong to, and how those install.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use nodejs_semver::{Range, Version};

use super::NAME;
use super::manifest::Manifest;
use crate::Error;
use crate::plan::Step;
use crate::tree::Tree;

/// A package manager, as far as the lock and the command line differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Npm,
    Pnpm,
    /// Version 1.
    Yarn,
    /// Yarn since version 2.
    Berry,
}

/// A lock of the codebase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lock {
    pub(super) kind: Kind,
    pub(super) file: &'static str,
}

/// The lock to go by; nothing where there are no packages to lock.
pub(super) fn find(tree: &Tree, manifest: &Manifest) -> Result<Option<Lock>, Error> {
    let yarn = match tree.text("yarn.lock")? {
        Some(text) if text.lines().any(|line| line.starts_with("__metadata:")) => Kind::Berry,
        _ => Kind::Yarn,
    };
    let known = [
        (Kind::Npm, "npm-shrinkwrap.json"),
        (Kind::Npm, "package-lock.json"),
        (Kind::Pnpm, "pnpm-lock.yaml"),
        (yarn, "yarn.lock"),
    ];
    let mut locks: Vec<Lock> = known
        .into_iter()
        .filter(|(_, file)| tree.is_file(file))
        .map(|(kind, file)| Lock { kind, file })
        .collect();
    // npm takes the first where there are both.
    locks.dedup_by_key(|lock| lock.kind);
    let wrong = |problem: String, help: String| Error::Plan { builder: NAME, problem, help };
    if let Some(name) = manifest.manager() {
        let all = locks.clone();
        locks.retain(|lock| lock.kind.name() == name);
        if let (Some(other), []) = (all.first(), locks.as_slice()) {
            let file = other.file;
            return Err(wrong(
                format!("`packageManager` in package.json is {name}, and the lock is `{file}`"),
                format!("{}; `git rm {file}`", how_to_lock(name)),
            ));
        }
    }
    match locks.as_slice() {
        [lock] => Ok(Some(*lock)),
        [] if manifest.needs_packages() => {
            let bun = ["bun.lock", "bun.lockb"].into_iter().find(|file| tree.is_file(file));
            let problem = match bun {
                Some(file) => format!("`{file}` is of Bun, which is not supported"),
                None => "package.json names packages and there is no lock".to_owned(),
            };
            Err(wrong(problem, how_to_lock(manifest.manager().unwrap_or("npm")).to_owned()))
        }
        [] => Ok(None),
        [first, second, ..] => Err(wrong(
            format!("there are two locks, `{}` and `{}`", first.file, second.file),
            format!(
                "`git rm {}` or `git rm {}`, or name the manager in `packageManager` of \
                 package.json",
                second.file, first.file
            ),
        )),
    }
}

fn how_to_lock(manager: &str) -> &'static str {
    match manager {
        "pnpm" => "run `pnpm install --lockfile-only` and commit `pnpm-lock.yaml`",
        "yarn" => "run `yarn install` and commit `yarn.lock`",
        _ => "run `npm install --package-lock-only` and commit `package-lock.json`",
    }
}

/// The versions of pnpm that are a script which Node.js runs.
pub(super) fn pnpm_scripts() -> Range {
    Range::parse("<12.0.0-0").unwrap_or_else(|_| Range::any())
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Npm => "npm",
            Self::Pnpm => "pnpm",
            Self::Yarn | Self::Berry => "yarn",
        }
    }

    /// The npm package that has these versions of it.
    pub(super) fn package(self, range: &Range) -> &'static str {
        let classic = Range::parse("<2.0.0").is_ok_and(|classic| range.allows_any(&classic));
        match self {
            Self::Npm => "npm",
            Self::Pnpm => "pnpm",
            Self::Yarn | Self::Berry if classic => "yarn",
            Self::Yarn | Self::Berry => "@yarnpkg/cli-dist",
        }
    }

    /// The versions that read this lock, as it says itself.
    pub(super) fn versions(self, tree: &Tree) -> Result<Range, Error> {
        let value = |file: &str, key: &str| -> Result<Option<u32>, Error> {
            let text = tree.text(file)?.unwrap_or_default();
            let value = text.lines().find_map(|line| line.trim().strip_prefix(key));
            let value = value.map(|value| value.trim().trim_matches(['\'', '"']).to_owned());
            Ok(value.and_then(|value| value.split('.').next()?.parse().ok()))
        };
        let text = match self {
            Self::Npm => "*",
            Self::Pnpm => match value("pnpm-lock.yaml", "lockfileVersion:")? {
                Some(..=5) => "7.x",
                Some(6) => "8.x",
                Some(_) | None => "9.x || 10.x",
            },
            Self::Yarn => "1.x",
            Self::Berry => match value("yarn.lock", "version:")? {
                Some(..=4) => "2.x",
                Some(5..=6) => "3.x",
                Some(_) | None => "4.x",
            },
        };
        Ok(Range::parse(text).unwrap_or_else(|_| Range::any()))
    }

    /// Settings of all its commands.
    pub(super) fn environment(self, cache: &Path) -> BTreeMap<String, OsString> {
        let mut all: BTreeMap<String, OsString> = BTreeMap::new();
        // Build scripts call npm whatever the manager is.
        let npm = [("audit", "false"), ("fund", "false"), ("update_notifier", "false")];
        all.extend(npm.map(|(name, value)| (format!("npm_config_{name}"), value.into())));
        all.insert("npm_config_cache".to_owned(), cache.join("npm").into());
        match self {
            Self::Npm => {
                all.insert("npm_config_progress".to_owned(), "false".into());
            }
            Self::Pnpm => {
                for (name, value) in [
                    ("store_dir", cache.join("pnpm").into_os_string()),
                    // The store is another mount than the layers, and a slug shares no file with it.
                    ("package_import_method", "clone-or-copy".into()),
                    // The manager is the one that the plan names.
                    ("manage_package_manager_versions", "false".into()),
                    ("pm_on_fail", "ignore".into()),
                    ("verify_deps_before_run", "false".into()),
                    ("update_notifier", "false".into()),
                ] {
                    // The second name is that of pnpm since version 11.
                    all.insert(format!("npm_config_{name}"), value.clone());
                    all.insert(format!("pnpm_config_{name}"), value);
                }
            }
            Self::Yarn => {
                all.insert("YARN_CACHE_FOLDER".to_owned(), cache.join("yarn").into());
            }
            Self::Berry => {
                for (name, value) in [
                    ("YARN_GLOBAL_FOLDER", cache.join("yarn-global").into_os_string()),
                    ("YARN_ENABLE_GLOBAL_CACHE", "true".into()),
                    ("YARN_ENABLE_TELEMETRY", "0".into()),
                    ("YARN_ENABLE_PROGRESS_BARS", "0".into()),
                    ("YARN_IGNORE_PATH", "1".into()),
                    // Packages are where Node.js itself looks.
                    ("YARN_NODE_LINKER", "node-modules".into()),
                ] {
                    all.insert(name.to_owned(), value);
                }
            }
        }
        all
    }

    /// The commands of an installation, all packages or those for running.
    pub(super) fn install(self, all: bool, version: &Version) -> Vec<Vec<&'static str>> {
        match (self, all) {
            (Self::Npm, true) => vec![vec!["ci", "--include=dev"]],
            (Self::Npm, false) => vec![vec!["ci", "--omit=dev"]],
            (Self::Pnpm, true) => vec![vec!["install", "--frozen-lockfile", "--prod=false"]],
            (Self::Pnpm, false) => vec![vec!["install", "--frozen-lockfile", "--prod"]],
            (Self::Yarn, all) => {
                let which = if all { "--production=false" } else { "--production" };
                vec![vec![
                    "install",
                    "--frozen-lockfile",
                    "--non-interactive",
                    "--no-progress",
                    which,
                ]]
            }
            (Self::Berry, true) => vec![vec!["install", "--immutable"]],
            (Self::Berry, false) => match self.prune(version).pop() {
                Some(focus) => vec![vec!["install", "--immutable", "--mode=skip-build"], focus],
                None => vec![vec!["install", "--immutable"]],
            },
        }
    }

    /// The commands that remove what running does not need.
    pub(super) fn prune(self, version: &Version) -> Vec<Vec<&'static str>> {
        match self {
            Self::Npm => vec![vec!["prune", "--omit=dev", "--ignore-scripts"]],
            Self::Pnpm => vec![vec!["prune", "--prod", "--ignore-scripts"]],
            Self::Yarn => vec![vec![
                "install",
                "--frozen-lockfile",
                "--non-interactive",
                "--no-progress",
                "--production",
                "--ignore-scripts",
            ]],
            // Before, it takes a plugin.
            Self::Berry if version.major() < 4 => Vec::new(),
            Self::Berry => vec![vec!["workspaces", "focus", "--production", "--all"]],
        }
    }

    /// Files beside the lock that the installation reads.
    pub(super) fn files(self) -> &'static [&'static str] {
        match self {
            Self::Npm => &[".npmrc"],
            Self::Pnpm => &[".npmrc", ".pnpmfile.cjs", ".pnpmfile.mjs", "pnpm-workspace.yaml"],
            Self::Yarn => &[".npmrc", ".yarnrc"],
            Self::Berry => &[".yarnrc.yml"],
        }
    }

    /// Folders that the installation reads.
    pub(super) fn folders(self) -> &'static [&'static str] {
        match self {
            Self::Npm | Self::Yarn => &[],
            Self::Pnpm => &["patches"],
            Self::Berry => &[".yarn/patches", ".yarn/plugins"],
        }
    }

    /// What to do about failures of an installation.
    pub(super) fn hints(self, step: Step) -> Step {
        let step = match self {
            // The reason is followed by more lines of usage than an error repeats.
            Self::Npm => step.hint("npm help ci", "`package.json` and the lock differ: run `npm install --package-lock-only` and commit both"),
            Self::Pnpm => step.hint("ERR_PNPM_OUTDATED_LOCKFILE", how_to_lock("pnpm")).hint(
                "ERR_PNPM_LOCKFILE_CONFIG_MISMATCH",
                how_to_lock("pnpm"),
            ),
            Self::Yarn => step.hint("lockfile needs to be updated", how_to_lock("yarn")),
            Self::Berry => step.hint("YN0028", how_to_lock("yarn")),
        };
        step.hint("EINTEGRITY", "the registry gives other bytes than the lock has: find out why before locking again")
            .hint("node-gyp", "a package has to be compiled: `apt-get install build-essential python3`, or take a version with a binary for this Node.js")
    }
}
