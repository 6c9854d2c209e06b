//! The layer of packages, and the steps that need what is in it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use pep440_rs::Version;
use tolv_model::slug::Digest;

use super::super::{below, hooks, read_toml};
use super::{How, INSTALL, NAME, NO_WHEEL, OWN, Packages, TIDY, VERSION, WHEELS, django, tools};
use crate::Error;
use crate::plan::{LayerPlan, Plan, Step};
use crate::toolchains::Toolchains;
use crate::toolchains::python::Interpreter;
use crate::toolchains::uv::Uv;
use crate::tree::Tree;

/// The setuptools that `python -m venv` would bring, for packages that use it and do not say so:
/// the last ones with `pkg_resources` for each Python; nothing from Python 3.12 on.
fn setuptools(python: &Version) -> Option<&'static str> {
    match python.release() {
        [3, 9..=11, ..] => Some("setuptools==80.9.0"),
        [3, 8, ..] => Some("setuptools==75.3.2"),
        [3, ..=7, ..] => Some("setuptools==68.0.0"),
        _ => None,
    }
}

/// The layer of packages.
pub(super) fn layer(
    tree: &Tree,
    toolchains: &Toolchains<'_>,
    packages: &Packages,
    uv: &Uv,
    python: &Interpreter,
) -> LayerPlan {
    let Packages { copies, files, how, names, .. } = packages;
    let seed = setuptools(&python.version).filter(|_| !names.contains_key("setuptools"));
    let program = python.program.as_os_str();
    let mut parts: Vec<Vec<u8>> = vec![
        format!("{NAME} {VERSION} {how:?} {seed:?}").into_bytes(),
        format!("uv {}", uv.version).into_bytes(),
        python.name.clone().into_bytes(),
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
    let uv_here = uv;
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
        }
        How::Lock { own, is_static, is_virtual, .. } => {
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
        How::Tool(tool) => {
            let make = [word("venv"), word("--quiet"), word("--no-project")];
            let make = [&make[..], &[word("--python"), program, venv.as_os_str()]].concat();
            steps.push(uv("Installing Python packages", &make));
            let programs = (uv_here, python, interpreter.as_path());
            steps.extend(tools::export(*tool, toolchains, programs, &project));
            let sync = ["pip", "sync", "--allow-empty-requirements", "--python"].map(word);
            let end = [interpreter.as_os_str(), word("requirements.txt")];
            steps.push(install_hints(uv("", &[&sync[..], &end].concat())));
        }
    }
    if let Some(seed) = seed {
        let words = [word("pip"), word("install"), word("--quiet"), word("--no-deps"), word(seed)];
        let words = [&words[..], &[word("--python"), interpreter.as_os_str()]].concat();
        steps.push(uv("", &words));
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

/// The steps that run in the codebase once the layer is there.
pub(super) fn steps(
    plan: &mut Plan,
    tree: &Tree,
    toolchains: &Toolchains<'_>,
    packages: &Packages,
    layer: &LayerPlan,
    uv: &Uv,
    python: &Interpreter,
) -> Result<(), Error> {
    let app = &toolchains.layout.app;
    let venv = layer.path.join("venv");
    let in_app = |step: Step| {
        // What is compiled while the codebase runs has the time of its source in it.
        let step = step.env("PYTHONDONTWRITEBYTECODE", "1").env("VIRTUAL_ENV", &venv);
        match packages.own.is_empty() {
            true => step,
            false => step.env("PYTHONPATH", app.join(OWN)),
        }
    };
    plan.steps.extend(hooks::steps(tree, app, hooks::PRE_COMPILE)?.into_iter().map(in_app));
    if let How::Lock { is_static: false, is_own: true, .. } = packages.how {
        let words = [uv.program.as_os_str(), "lock".as_ref(), "--check".as_ref()];
        let words = words.into_iter().chain(["--python".as_ref(), python.program.as_os_str()]);
        plan.steps.push(lock_hints(Step::new("", app, words)));
    }
    if !packages.own.is_empty() {
        own_packages(plan, tree, app, packages, layer, uv);
    }
    let interpreter = venv.join("bin/python");
    let words = ["pip", "check", "--python"].map(std::ffi::OsStr::new);
    let words = [uv.program.as_os_str()].into_iter().chain(words);
    let check = Step::new("", app, words.chain([interpreter.as_os_str()]));
    plan.steps.push(check.warns("Some packages miss others, or do not fit together"));
    if packages.names.contains_key("django") {
        let step = django::collect_static(plan, tree, app, &interpreter, toolchains.env)?;
        plan.steps.extend(step.map(in_app));
    }
    plan.steps.extend(hooks::steps(tree, app, hooks::POST_COMPILE)?.into_iter().map(in_app));
    Ok(())
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
    let help = "run `tolv lock` and commit `uv.lock`";
    step.hint("needs to be updated", help)
        .hint("Failed to parse `uv.lock`", help)
        .hint("Unable to find lockfile", help)
}

fn install_hints(step: Step) -> Step {
    step.hint("Failed to build", NO_WHEEL)
        .hint("have wheels with a matching", NO_WHEEL)
        .hint(
            "must have a hash",
            "give every package a `--hash`, or none: without hashes, `tolv lock` makes a lock that \
             has them",
        )
        .hint(
            "Hash mismatch",
            "the index gives other bytes than the lock has: find out why before locking again",
        )
}
