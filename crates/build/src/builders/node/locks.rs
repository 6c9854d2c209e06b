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
    /// Whether the codebase has it.
    pub(super) is_there: bool,
}

impl Lock {
    /// Whether packages of it may have to be compiled: it names what compiles them. Of a lock that
    /// is yet to be made nobody knows.
    pub(super) fn compiles(&self, tree: &Tree) -> bool {
        let tools = ["node-gyp", "node-pre-gyp", "node-addon-api", "prebuild-install", "\nnan@"];
        match tree.text(self.file) {
            Ok(Some(text)) => tools.iter().any(|tool| text.contains(tool)),
            Ok(None) | Err(_) => !self.is_there,
        }
    }
}

/// The lock to make for a codebase that has none: that of the manager which it names, or whose
/// settings it has.
pub(super) fn to_make(tree: &Tree, manifest: &Manifest) -> Lock {
    let is_classic = || {
        let version = manifest.text("/packageManager").and_then(|text| text.strip_prefix("yarn@"));
        version.is_none_or(|version| version.starts_with("1.")) && !tree.is_file(".yarnrc.yml")
    };
    let engine =
        ["pnpm", "yarn"].into_iter().find(|name| manifest.has(&format!("/engines/{name}")));
    let kind = match manifest.manager().or(engine) {
        Some("pnpm") => Kind::Pnpm,
        Some("yarn") if is_classic() => Kind::Yarn,
        Some("yarn") => Kind::Berry,
        Some(_) => Kind::Npm,
        None if tree.is_file("pnpm-workspace.yaml") => Kind::Pnpm,
        None if tree.is_file(".yarnrc.yml") => Kind::Berry,
        None => Kind::Npm,
    };
    let file = match kind {
        Kind::Npm => "package-lock.json",
        Kind::Pnpm => "pnpm-lock.yaml",
        Kind::Yarn | Kind::Berry => "yarn.lock",
    };
    Lock { kind, file, is_there: false }
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
        .map(|(kind, file)| Lock { kind, file, is_there: true })
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
        [] => match bun(tree, manifest) {
            Some(sign) if manifest.needs_packages() => Err(wrong(
                format!("{sign} is of Bun, which is not supported"),
                format!("{}; `git rm` what is Bun's", how_to_lock("npm")),
            )),
            Some(_) | None => Ok(None),
        },
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

/// What says that the codebase is of Bun, if so.
fn bun(tree: &Tree, manifest: &Manifest) -> Option<String> {
    let file = ["bun.lock", "bun.lockb"].into_iter().find(|file| tree.is_file(file));
    let named = || (manifest.manager() == Some("bun")).then_some("packageManager");
    file.or_else(named).map(|sign| format!("`{sign}`"))
}

/// The command that makes a lock.
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

    /// The command that makes a lock.
    pub(super) fn how_to_lock(self) -> &'static str {
        how_to_lock(self.name())
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

    /// The versions that read this lock, the preferred one first. They are fixed: which one is taken
    /// may depend on the lock, and never on the day.
    pub(super) fn versions(self, tree: &Tree) -> Result<&'static [&'static str], Error> {
        let value = |file: &str, key: &str| -> Result<Option<u32>, Error> {
            let text = tree.text(file)?.unwrap_or_default();
            let value = text.lines().find_map(|line| line.trim().strip_prefix(key));
            let value = value.map(|value| value.trim().trim_matches(['\'', '"']).to_owned());
            Ok(value.and_then(|value| value.split('.').next()?.parse().ok()))
        };
        Ok(match self {
            Self::Npm => &[],
            Self::Pnpm => match value("pnpm-lock.yaml", "lockfileVersion:")? {
                Some(..=5) => &["7.33.7"],
                Some(6) => &["8.15.9"],
                Some(_) | None => &["10.34.9", "9.15.9"],
            },
            Self::Yarn => &["1.22.22"],
            // A newer one would write the lock anew, which an immutable installation refuses.
            Self::Berry => match value("yarn.lock", "version:")? {
                Some(..=4) => &["2.4.2"],
                Some(5..=6) => &["3.8.7"],
                Some(7..=8) => &["4.12.0"],
                Some(9) => &["4.14.0"],
                Some(_) | None => &["4.18.1"],
            },
        })
    }

    /// The version of the manager that the codebase itself holds, by the name of its file.
    pub(super) fn own_version(self, tree: &Tree) -> Result<Option<String>, Error> {
        if self != Self::Berry {
            return Ok(None);
        }
        let text = tree.text(".yarnrc.yml")?.unwrap_or_default();
        let path = text.lines().find_map(|line| line.strip_prefix("yarnPath:"));
        let name = path.map(|path| path.trim().trim_matches(['\'', '"']));
        let name = name.and_then(|path| path.rsplit('/').next()?.strip_prefix("yarn-"));
        let version = name.map(|name| name.trim_end_matches(".cjs").trim_end_matches(".js"));
        Ok(version.filter(|text| Version::parse(text).is_ok()).map(str::to_owned))
    }

    /// Settings that let packages run their install scripts, in the build's sandbox, where the
    /// codebase has no list of its own. Newer managers skip them and succeed, and what they would
    /// have made is missing when the app runs.
    pub(super) fn scripts(
        self,
        tree: &Tree,
        manifest: &Manifest,
        version: &Version,
    ) -> Result<BTreeMap<String, OsString>, Error> {
        let says = |file: &str, keys: &[&str]| -> Result<bool, Error> {
            let text = tree.text(file)?.unwrap_or_default();
            let mut lines = text.lines();
            Ok(lines.any(|line| keys.iter().any(|key| line.trim_start().starts_with(key))))
        };
        let lists = [
            "allowBuilds",
            "dangerouslyAllowAllBuilds",
            "ignoredBuiltDependencies",
            "neverBuiltDependencies",
            "onlyBuiltDependencies",
        ];
        let has_list = match self {
            Self::Npm => {
                version.major() < 11
                    || manifest.has("/allowScripts")
                    || says(".npmrc", &["allow-scripts", "ignore-scripts"])?
            }
            Self::Yarn => true,
            Self::Pnpm => {
                lists.iter().any(|list| manifest.has(&format!("/pnpm/{list}")))
                    || says("pnpm-workspace.yaml", &lists)?
                    || says(".npmrc", &["only-built", "never-built", "ignore-scripts"])?
            }
            Self::Berry => says(".yarnrc.yml", &["enableScripts"])?,
        };
        let names: &[&str] = match self {
            _ if has_list => &[],
            Self::Npm => &["npm_config_dangerously_allow_all_scripts"],
            Self::Yarn => &[],
            Self::Pnpm => &[
                "npm_config_dangerously_allow_all_builds",
                "pnpm_config_dangerously_allow_all_builds",
            ],
            Self::Berry => &["YARN_ENABLE_SCRIPTS"],
        };
        Ok(names.iter().map(|name| ((*name).to_owned(), "true".into())).collect())
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
                // A codebase that wants none still gets the packages of one.
                all.insert("npm_config_package_lock".to_owned(), "true".into());
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

    /// The command that makes a lock and runs no script.
    pub(super) fn resolve(self) -> &'static [&'static str] {
        match self {
            Self::Npm => &["install", "--package-lock-only", "--ignore-scripts"],
            Self::Pnpm => {
                &["install", "--lockfile-only", "--ignore-scripts", "--no-frozen-lockfile"]
            }
            // It has no way to write the lock alone.
            Self::Yarn => &[
                "install",
                "--ignore-scripts",
                "--ignore-engines",
                "--non-interactive",
                "--no-progress",
                "--production=false",
            ],
            Self::Berry => &["install", "--mode=update-lockfile"],
        }
    }

    /// The commands that remove what running does not need.
    pub(super) fn prune(self, version: &Version) -> Vec<Vec<&'static str>> {
        match self {
            Self::Npm => vec![vec!["prune", "--omit=dev", "--ignore-scripts"]],
            // `prune` knows no workspaces: it would remove the packages of each. This keeps what
            // the scripts of packages have made.
            Self::Pnpm => {
                vec![vec!["install", "--prod", "--frozen-lockfile", "--ignore-scripts"]]
            }
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
            Self::Berry => step.hint("The lockfile would have been", how_to_lock("yarn")),
        };
        native(step.hint(
            "EINTEGRITY",
            "the registry gives other bytes than the lock has: find out why before locking again",
        ))
    }
}

/// What a package misses that has to be compiled.
fn native(step: Step) -> Step {
    let reasons = [
        (
            "find Python",
            "a package has to be compiled, which takes Python: `apt-get install python3`",
        ),
        (
            "not found: make",
            "a package has to be compiled, which takes make: `apt-get install build-essential`",
        ),
        ("make: g++: No such file", COMPILER),
        ("make: c++: No such file", COMPILER),
        ("make: cc: No such file", COMPILER),
        ("make: gcc: No such file", COMPILER),
        ("g++: not found", COMPILER),
        ("gcc: not found", COMPILER),
        ("getaddrinfo ENOTFOUND", NETWORK),
        ("getaddrinfo EAI_AGAIN", NETWORK),
        ("connect ECONNREFUSED", NETWORK),
        ("connect ETIMEDOUT", NETWORK),
        ("connect ENETUNREACH", NETWORK),
        (
            "ERESOLVE",
            "two packages want different versions of a third: correct package.json, or write `legacy-peer-deps=true` into `.npmrc`",
        ),
    ];
    reasons.into_iter().fold(step, |step, (output, help)| step.hint(output, help))
}

const COMPILER: &str =
    "a package has to be compiled, which takes a C++ compiler: `apt-get install build-essential`";
const NETWORK: &str = "the network does not reach this address from a build: take a version of the \
                       package with a binary in the registry, or name a proxy (`HTTPS_PROXY`)";
