//! Node.js: packages by the manager whose lock the codebase has (npm, pnpm, yarn).
//!
//! Packages are layers, keyed by the lock, the part of `package.json` that decides about packages,
//! Node.js and the manager. Without a build script there is one, of the production packages, linked
//! to `/app/node_modules`. With one there is another of all packages, which the build sees and the
//! slug does not have.
//!
//! A codebase whose install scripts want more than the lock (its own `postinstall`, workspaces,
//! tools that write into `node_modules`) is installed in place instead: the packages are part of
//! its slug, and each build installs them.
//!
//! A codebase without a lock gets one that is made in a layer of its own, keyed by what it asks for,
//! so that the same commit gives the same packages as long as the app's layers are kept.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use nodejs_semver::{Range, Version};
use tolv_model::name::ProcessType;
use tolv_model::slug::Digest;

use super::files_below;
use crate::Error;
use crate::plan::{LayerPlan, Plan, Step, Toolchain};
use crate::toolchains::Toolchains;
use crate::toolchains::node::{Manager, Node, Want, exactly};
use crate::tree::Tree;

mod locks;
mod manifest;

use locks::{Kind, Lock};
use manifest::{CLEANUP, Manifest, PREBUILD};

const NAME: &str = "node";
const VERSION: u32 = 2;
const MODULES: &str = "node_modules";
/// What managers write down about when and where they installed, and caches of tools.
const NOTES: [&str; 6] = [
    "node_modules/.cache",
    "node_modules/.modules.yaml",
    "node_modules/.pnpm-workspace-state-v1.json",
    "node_modules/.pnpm-workspace-state.json",
    "node_modules/.vite-temp",
    "node_modules/.yarn-integrity",
];

/// Whether there is a `package.json` in the root.
pub(super) fn detect(tree: &Tree) -> bool {
    tree.is_file("package.json")
}

/// Whether `package.json` has a script that builds.
///
/// # Errors
///
/// As [`plan`].
pub(super) fn builds(tree: &Tree) -> Result<bool, Error> {
    Ok(Manifest::read(tree)?.build_script().is_some())
}

/// Layers of packages and the build script, or an installation in place.
///
/// # Errors
///
/// [`Error::Plan`] for a manifest that cannot be read and for packages without a lock,
/// [`Error::Toolchain`] where Node.js or the package manager cannot be had.
pub(super) fn plan(tree: &Tree, toolchains: &mut Toolchains<'_>) -> Result<Plan, Error> {
    let mut plan = Plan::new(NAME, VERSION);
    let manifest = Manifest::read(tree)?;
    let lock = match locks::find(tree, &manifest)? {
        None if manifest.needs_packages() => {
            let lock = locks::to_make(tree, &manifest);
            if toolchains.require_lock {
                return Err(Error::Plan {
                    builder: NAME,
                    problem: format!(
                        "`package.json` has no lock: there is no `{}`; a lock is required \
                         (TOLV_REQUIRE_LOCK)",
                        lock.file
                    ),
                    help: lock.kind.how_to_lock().to_owned(),
                });
            }
            Some(lock)
        }
        found => found,
    };
    let wants = wants(tree, &manifest)?;
    let node = toolchains.node(&wants)?;
    let by: Vec<_> = wants.iter().map(|want| format!("{} ({})", want.text, want.from)).collect();
    plan.notes.push(match by.as_slice() {
        [] => format!(
            "Node.js {}, the newest long-term version here: `engines.node` in package.json can \
             name another",
            node.version
        ),
        by => format!("Node.js {}, as wanted: {}", node.version, by.join(" and ")),
    });
    plan.toolchains.push(node.mount.clone());
    if let Some(libraries) = &node.libraries {
        plan.add_libraries(libraries);
    }
    let build = manifest.build_script();
    let kind = lock.as_ref().map_or(Kind::Npm, |lock| lock.kind);
    let runs_scripts =
        build.is_some() || [PREBUILD, CLEANUP].iter().any(|name| manifest.script(name).is_some());
    if lock.is_some() || runs_scripts {
        let manager = match lock {
            Some(_) => manager(&mut plan, toolchains, tree, &manifest, kind, &node)?,
            None => toolchains.npm_for_scripts(&node)?,
        };
        plan.toolchains.extend(manager.mount.clone());
        plan.build_path.extend(manager.bin.clone());
        let from = lock.as_ref().filter(|lock| lock.is_there);
        let from = from.map_or("package.json", |lock| lock.file);
        plan.notes.push(format!("Packages of {from}, by {} {}", manager.name, manager.version));
        plan.build_env.extend(kind.environment(&toolchains.layout.cache));
        plan.build_env.extend(kind.scripts(tree, &manifest, &manager.version)?);
        if let Some(headers) = &node.headers {
            // Else node-gyp fetches them from a place that builds may not reach.
            plan.build_env.insert("npm_config_nodedir".to_owned(), headers.into());
        }
        if let Some(lock) = lock.as_ref().filter(|lock| lock.compiles(tree)) {
            node_gyp(&mut plan, toolchains, lock.kind, &node)?;
        }
        let mut work = Work {
            tree,
            manifest: &manifest,
            lock: lock.as_ref(),
            made: None,
            build,
            node: &node,
            manager: &manager,
        };
        if let Some(lock) = lock.as_ref().filter(|lock| !lock.is_there) {
            let layer = work.resolve(lock, toolchains);
            work.made = Some((layer.key, layer.path.clone()));
            plan.layers.push(layer);
            plan.warnings.push(format!(
                "package.json names packages and there is no lock: they were resolved once for \
                 this app, and stay as they are until package.json changes; so that it is the \
                 same everywhere, {}",
                lock.kind.how_to_lock()
            ));
        }
        match lock.as_ref().and_then(|lock| work.in_place(lock)) {
            Some(why) => work.install_in_place(&mut plan, &toolchains.layout.app, &why),
            None if lock.is_none() => {
                let app = &toolchains.layout.app;
                work.run_script(&mut plan, app, PREBUILD);
                work.run_build(&mut plan, app);
                work.run_script(&mut plan, app, CLEANUP);
            }
            None => work.install_in_layers(&mut plan, toolchains),
        }
        plan.path.extend(manager.bin.iter().map(|bin| bin.display().to_string()));
    } else {
        plan.notes.push("package.json names no packages".to_owned());
    }
    plan.build_path.push(node.bin());
    plan.path.insert(0, "/app/node_modules/.bin".to_owned());
    plan.path.push(node.bin().display().to_string());
    for (name, value) in [
        ("NODE_ENV", "production"),
        // `npm start` in a Procfile: its home is read-only.
        ("npm_config_cache", "/tmp/npm"),
        ("npm_config_update_notifier", "false"),
    ] {
        plan.env.insert(name.to_owned(), value.to_owned());
    }
    if let Some(web) = manifest.web(tree) {
        plan.process_types.insert(ProcessType::web(), web);
    }
    Ok(plan)
}

/// Which versions of Node.js the codebase accepts.
fn wants(tree: &Tree, manifest: &Manifest) -> Result<Vec<Want>, Error> {
    let mut wants = Vec::new();
    let mut add = |text: &str, from: &str| {
        let want = Want::parse(text, from).ok_or_else(|| Error::Plan {
            builder: NAME,
            problem: format!("{from} is `{}`, which is no version of Node.js", text.escape_debug()),
            help: "write a version or a range, such as `22` or `>=20`".to_owned(),
        })?;
        wants.push(want);
        Ok(())
    };
    if let Some(text) = manifest.text("/engines/node") {
        add(text, "engines.node in package.json")?;
    }
    for path in [".nvmrc", ".node-version"] {
        let text = tree.text(path)?.unwrap_or_default();
        let mut lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
        if let Some(line) = lines.find(|line| !line.is_empty()) {
            add(line, path)?;
            break;
        }
    }
    Ok(wants)
}

/// The package manager in the version that the manifest or else the lock wants.
fn manager(
    plan: &mut Plan,
    toolchains: &mut Toolchains<'_>,
    tree: &Tree,
    manifest: &Manifest,
    kind: Kind,
    node: &Node,
) -> Result<Manager, Error> {
    let asked = manifest.manager_version(kind)?;
    if kind == Kind::Npm {
        return toolchains.npm(node, asked.as_ref().map(|(range, _)| range));
    }
    let pins = kind.versions(tree)?;
    let by_lock = || match pins.first() {
        Some(pin) => exactly(pin),
        None => Range::any(),
    };
    let pinned = |range: &Range| {
        let fits = |pin: &&&str| Version::parse(pin).is_ok_and(|pin| range.satisfies(&pin));
        pins.iter().find(fits).map(|pin| exactly(pin))
    };
    let range = match asked {
        // pnpm 12 is a program per machine and no script.
        Some((range, text)) if kind == Kind::Pnpm && !range.allows_any(&locks::pnpm_scripts()) => {
            let by_lock = by_lock();
            plan.warnings.push(format!("pnpm {text} is not supported, pnpm {by_lock} is taken"));
            by_lock
        }
        Some((range, _)) => match pinned(&range) {
            Some(pin) => pin,
            None if kind == Kind::Pnpm => range.intersect(&locks::pnpm_scripts()).unwrap_or(range),
            None => range,
        },
        None => match kind.own_version(tree)? {
            Some(version) => exactly(&version),
            None => by_lock(),
        },
    };
    toolchains.manager(kind.name(), kind.package(&range), &range, node)
}

/// node-gyp, which compiles packages: npm and pnpm bring one along, yarn does not.
fn node_gyp(
    plan: &mut Plan,
    toolchains: &mut Toolchains<'_>,
    kind: Kind,
    node: &Node,
) -> Result<(), Error> {
    if !matches!(kind, Kind::Yarn | Kind::Berry) {
        return Ok(());
    }
    let npm = toolchains.npm(node, None)?;
    let script = npm.argv.get(1).map(Path::new);
    let Some(packages) = script.and_then(Path::parent).and_then(Path::parent) else {
        return Ok(());
    };
    let packages = packages.join(MODULES);
    let program = packages.join("node-gyp/bin/node-gyp.js");
    plan.build_env.insert("npm_config_node_gyp".to_owned(), program.into());
    // Of npm 7 and later, and before.
    for folder in ["@npmcli/run-script/lib/node-gyp-bin", "npm-lifecycle/node-gyp-bin"] {
        plan.build_path.push(packages.join(folder));
    }
    plan.toolchains.extend(npm.mount.map(|mount| Toolchain { at_run: false, ..mount }));
    Ok(())
}

/// All that decides how packages are installed.
struct Work<'a> {
    tree: &'a Tree,
    manifest: &'a Manifest,
    lock: Option<&'a Lock>,
    /// Where a lock was made that the codebase lacks: key and path of its layer.
    made: Option<(Digest, PathBuf)>,
    /// The script that builds.
    build: Option<&'a str>,
    node: &'a Node,
    manager: &'a Manager,
}

impl Work<'_> {
    /// Why the packages have to be installed in the app itself, if so.
    fn in_place(&self, lock: &Lock) -> Option<String> {
        if let Some(why) = self.manifest.wants_source(self.build.is_some()) {
            return Some(why);
        }
        if self.tree.is_file("binding.gyp") {
            return Some("`binding.gyp` is compiled by the installation".to_owned());
        }
        let workspace = self.tree.text("pnpm-workspace.yaml").ok().flatten().unwrap_or_default();
        if lock.kind == Kind::Pnpm && workspace.lines().any(|line| line.starts_with("packages:")) {
            return Some("pnpm-workspace.yaml names packages of the codebase".to_owned());
        }
        (lock.kind == Kind::Berry && self.build.is_some())
            .then(|| "yarn runs scripts where it installed only".to_owned())
    }

    fn step(&self, heading: &str, cwd: &Path, words: &[&str]) -> Step {
        let words = words.iter().map(OsString::from);
        let step = Step::new(heading, cwd, self.manager.argv.iter().cloned().chain(words));
        // Without a terminal, managers ask nothing when they believe to be in a CI.
        step.env("CI", "true")
    }

    fn run_build(&self, plan: &mut Plan, app: &Path) {
        let Some(script) = self.build else { return };
        let words = [OsString::from("run"), script.into()];
        let step = Step::new("Building", app, self.manager.argv.iter().cloned().chain(words));
        let step = step.env("NODE_ENV", "production").hint(
            "not found",
            "a program that the build script names is not installed: add its package to \
             `devDependencies`",
        );
        plan.steps.push(step.hint("heap out of memory", "give the build more memory").hint(
            "error:0308010C",
            "these tools are older than OpenSSL 3: name `16` in `engines.node` of package.json, or \
             begin the script with `NODE_OPTIONS=--openssl-legacy-provider`",
        ));
    }

    /// Runs a script around the installation, where there is one.
    fn run_script(&self, plan: &mut Plan, app: &Path, name: &'static str) {
        if self.manifest.script(name).is_some() {
            let words = [OsString::from("run"), name.into()];
            let words = self.manager.argv.iter().cloned().chain(words);
            let step = Step::new(format!("Running {name}"), app, words);
            plan.steps.push(step.env("NODE_ENV", "production"));
        }
    }

    fn install(&self, kind: Kind, heading: &str, cwd: &Path, all: bool) -> Vec<Step> {
        let steps = kind.install(all, &self.manager.version);
        let headed = steps.into_iter().enumerate();
        headed
            .map(|(place, words)| {
                let heading = if place == 0 { heading } else { "" };
                kind.hints(self.step(heading, cwd, &words))
            })
            .collect()
    }

    /// Puts the lock that was made into the folder of an installation.
    fn copy_lock(&self, folder: &Path) -> Option<Step> {
        let (file, (_, made)) = (self.lock?.file, self.made.as_ref()?);
        let words = ["cp".into(), made.join(file).into_os_string(), file.into()];
        Some(Step::new("", folder, words))
    }

    fn install_in_place(&self, plan: &mut Plan, app: &Path, why: &str) {
        let Some(lock) = self.lock else { return };
        plan.steps.extend(self.copy_lock(app));
        plan.notes.push(format!("Packages are installed in place: {why}"));
        self.run_script(plan, app, PREBUILD);
        plan.steps.extend(self.install(lock.kind, "Installing Node.js packages", app, true));
        self.run_build(plan, app);
        for (place, words) in lock.kind.prune(&self.manager.version).iter().enumerate() {
            let heading = if place == 0 { "Removing packages of the build" } else { "" };
            plan.steps.push(self.step(heading, app, words));
        }
        self.run_script(plan, app, CLEANUP);
        plan.prune.extend(NOTES.map(str::to_owned));
    }

    fn install_in_layers(&self, plan: &mut Plan, toolchains: &Toolchains<'_>) {
        let app = &toolchains.layout.app;
        let has = |keys: &[&str]| keys.iter().any(|key| self.manifest.names_packages(key));
        let run = has(&["dependencies", "optionalDependencies", "peerDependencies"]);
        let all = run || has(&["devDependencies"]);
        let run = self.lock.filter(|_| run).map(|lock| self.layer(toolchains, lock, false));
        let all = self.lock.filter(|_| all && self.build.is_some());
        let all = all.map(|lock| self.layer(toolchains, lock, true));
        let word = |text: &str| OsString::from(text);
        if let Some(all) = &all {
            // A folder of links and no link to a folder: tools write into `node_modules`.
            let packages = all.path.join(MODULES).into_os_string();
            for words in [
                ["rm", "-rf", MODULES].map(word).to_vec(),
                ["mkdir", MODULES].map(word).to_vec(),
                [
                    vec![word("find"), packages],
                    ["-mindepth", "1", "-maxdepth", "1", "-exec", "ln", "-s", "-t", MODULES]
                        .map(word)
                        .to_vec(),
                    ["{}", "+"].map(word).to_vec(),
                ]
                .concat(),
            ] {
                plan.steps.push(Step::new("", app, words));
            }
        }
        self.run_build(plan, app);
        if all.is_some() {
            plan.steps.push(Step::new("", app, ["rm", "-rf", MODULES]));
            if let Some(run) = &run {
                let target = format!("../layers/{}/{MODULES}", run.key);
                plan.steps.push(Step::new("", app, ["ln", "-s", &target, MODULES]));
            }
        }
        plan.layers.extend(all.into_iter().chain(run));
    }

    /// Files beside the lock that an installation reads.
    fn settings(&self, kind: Kind) -> Vec<String> {
        let files = kind.files().iter().filter(|file| self.tree.is_file(file));
        let mut all: Vec<String> = files.map(|file| (*file).to_owned()).collect();
        all.extend(kind.folders().iter().flat_map(|folder| files_below(self.tree, folder)));
        all
    }

    /// A layer that has the lock which the codebase lacks. It is made once: another commit that
    /// asks for the same packages finds it.
    fn resolve(&self, lock: &Lock, toolchains: &Toolchains<'_>) -> LayerPlan {
        let kind = lock.kind;
        let mut copies = self.settings(kind);
        copies.extend(self.manifest.files_of_packages(self.tree));
        let manifest = self.manifest.reduced_for_lock();
        let Manager { name, version, .. } = self.manager;
        let mut parts: Vec<Vec<u8>> = vec![
            format!("{NAME} {VERSION} lock").into_bytes(),
            self.node.name.clone().into_bytes(),
            format!("{name} {version}").into_bytes(),
            Digest::of(&manifest).to_string().into_bytes(),
        ];
        for path in &copies {
            let digest = self.tree.digest(path).map(|digest| digest.to_string());
            parts.extend([path.clone().into_bytes(), digest.unwrap_or_default().into_bytes()]);
        }
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let (key, path) = toolchains.layer(&parts);
        let mut remove: Vec<String> =
            copies.iter().filter_map(|path| path.split('/').next()).map(str::to_owned).collect();
        remove.extend(["package.json", MODULES, ".yarn", ".pnp.cjs"].map(str::to_owned));
        let heading = "Resolving Node.js packages, which have no lock";
        let step = kind.hints(self.step(heading, &path, kind.resolve()));
        // Of yarn: what a CI runs may change no lock.
        let step = step.env("YARN_ENABLE_IMMUTABLE_INSTALLS", "false");
        LayerPlan {
            name: "Versions of Node.js packages".to_owned(),
            key,
            copies: copies.into_iter().map(|path| (path.clone(), path)).collect(),
            files: vec![("package.json".to_owned(), manifest)],
            at_run: false,
            sees_app: false,
            steps: vec![step],
            remove,
            links: Vec::new(),
            path,
        }
    }

    fn layer(&self, toolchains: &Toolchains<'_>, lock: &Lock, all: bool) -> LayerPlan {
        let kind = lock.kind;
        let mut copies = self.settings(kind);
        if lock.is_there {
            copies.insert(0, lock.file.to_owned());
        }
        let manifest = self.manifest.reduced();
        let Manager { name, version, .. } = self.manager;
        let mut parts: Vec<Vec<u8>> = vec![
            format!("{NAME} {VERSION} {}", if all { "all" } else { "production" }).into_bytes(),
            self.node.name.clone().into_bytes(),
            self.node.program.as_os_str().as_encoded_bytes().to_vec(),
            format!("{name} {version}").into_bytes(),
            Digest::of(&manifest).to_string().into_bytes(),
        ];
        for path in &copies {
            let digest = self.tree.digest(path).map(|digest| digest.to_string());
            parts.extend([path.clone().into_bytes(), digest.unwrap_or_default().into_bytes()]);
        }
        parts.extend(self.made.as_ref().map(|(key, _)| key.to_string().into_bytes()));
        let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let (key, path) = toolchains.layer(&parts);
        let (name, heading) = match all {
            true => ("Node.js packages for the build", "Installing Node.js packages for the build"),
            false => ("Node.js packages", "Installing Node.js packages"),
        };
        let mut remove: Vec<String> =
            copies.iter().filter_map(|path| path.split('/').next()).map(str::to_owned).collect();
        remove.extend(
            [lock.file, "package.json", ".yarn", ".pnp.cjs", ".pnp.loader.mjs"].map(str::to_owned),
        );
        remove.extend(NOTES.map(str::to_owned));
        remove.sort();
        remove.dedup();
        let link = (MODULES.to_owned(), MODULES.to_owned());
        LayerPlan {
            name: name.to_owned(),
            key,
            copies: copies.into_iter().map(|path| (path.clone(), path)).collect(),
            files: vec![("package.json".to_owned(), manifest)],
            at_run: !all,
            sees_app: false,
            steps: self
                .copy_lock(&path)
                .into_iter()
                .chain(self.install(kind, heading, &path, all))
                .collect(),
            remove,
            links: if all { Vec::new() } else { vec![link] },
            path,
        }
    }
}

/// A version as a range of one, or a range.
fn range(text: &str) -> Option<Range> {
    Range::parse(text.trim().trim_start_matches('v')).ok()
}

#[cfg(test)]
mod tests;
