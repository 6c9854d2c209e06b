use super::super::tests::{Machine, help, words};
use super::requirements;
use crate::Error;
use crate::plan::Plan;

/// A machine with uv and a Python of a version that is nowhere else.
fn machine(files: &[(&str, &str)]) -> Machine {
    let mut all = vec![(".python-version", "# ours\n3.99\n")];
    all.extend(files);
    let machine = Machine::new(&all);
    machine.program("bin/uv", "uv 0.99.0 (0123456 2026-01-01)");
    let prefix = machine.path("toolchains/python/cpython-3.99.1");
    let program = prefix.join("bin/python3.99");
    let answer = format!("3.99.1\nfinal\ncpython\n{}\n{}", prefix.display(), program.display());
    machine.program("toolchains/python/cpython-3.99.1/bin/python3", &answer);
    machine
}

const PROJECT: &str = "[project]\nname = \"shop\"\nversion = \"1\"\nrequires-python = \">=3.11\"\n";
const BUILD: &str = "[build-system]\nrequires = [\"hatchling\"]\n";

fn lock(packages: &str) -> String {
    format!("version = 1\nrequires-python = \">=3.11\"\n{packages}")
}

fn package(name: &str, source: &str, rest: &str) -> String {
    format!("[[package]]\nname = \"{name}\"\nversion = \"1\"\nsource = {source}\n{rest}\n")
}

fn steps(plan: &Plan) -> Vec<String> {
    let all = plan.layers[0].steps.iter().chain(&plan.steps);
    let layer = plan.layers[0].path.display().to_string();
    all.map(|step| words(step).join(" ").replace(&layer, "LAYER"))
        // Programs of several lines are not repeated here.
        .map(|words| words.replace(super::TIDY, "TIDY").replace(super::INSTALL, "INSTALL"))
        .collect()
}

#[test]
fn signs_of_python() {
    let is = |path: &str, text: &str| super::detect(&Machine::new(&[(path, text)]).tree());
    assert!(is("requirements.txt", "") && is("uv.lock", "") && is("Pipfile", ""));
    assert!(is("pyproject.toml", PROJECT) && is("pyproject.toml", "[tool.poetry]"));
    assert!(is("pyproject.toml", "= broken"));
    assert!(!is("pyproject.toml", "[tool.ruff]\nline-length = 100"));
    assert!(!is("setup.cfg", ""));
}

#[test]
fn pinned_requirements_become_a_layer() {
    let mut machine = machine(&[("requirements.txt", "flask==3.1.3\n"), ("web.py", "")]);
    let plan = machine.plan().unwrap();
    insta::assert_snapshot!(steps(&plan).join("\n"), @r"
    /toolchains/uv-0.99.0 venv --quiet --no-project --python /toolchains/python-3.99.1/bin/python3.99 LAYER/venv
    /toolchains/uv-0.99.0 pip sync --allow-empty-requirements --python LAYER/venv/bin/python requirements.txt
    /toolchains/uv-0.99.0 pip check --python LAYER/venv/bin/python
    LAYER/venv/bin/python -I -c TIDY LAYER/venv/lib/python3.99/site-packages
    ");
    let layer = &plan.layers[0];
    assert!(layer.at_run && !layer.sees_app);
    assert_eq!(layer.links, [(".venv".to_owned(), "venv".to_owned())]);
    assert_eq!(layer.files, [("project/requirements.txt".to_owned(), b"flask==3.1.3\n".to_vec())]);
    assert_eq!(plan.path, ["/app/.venv/bin"]);
    assert_eq!(plan.build_env["UV_CACHE_DIR"], "/cache/uv");
    assert_eq!(plan.env["PYTHONUNBUFFERED"], "1");
    assert!(plan.notes[0].contains("3.99.1") && plan.notes[0].contains(".python-version"));
    let at_run: Vec<_> =
        plan.toolchains.iter().map(|tool| (tool.version.as_str(), tool.at_run)).collect();
    assert_eq!(at_run, [("uv 0.99.0", false), ("python 3.99.1", true)]);

    // The layer stays when the source or a comment changes, and not when a package does.
    machine.source("web.py", "changed");
    machine.source("requirements.txt", "# comment\nflask==3.1.3  # why\n");
    assert_eq!(machine.plan().unwrap().layers[0].key, layer.key);
    machine.source("requirements.txt", "flask==3.1.4\n");
    assert_ne!(machine.plan().unwrap().layers[0].key, layer.key);
}

#[test]
fn requirements_with_hashes_are_held_to_them() {
    let text = "six==1.17.0 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n";
    let plan = machine(&[("requirements.txt", text)]).plan().unwrap();
    assert!(words(&plan.layers[0].steps[1]).contains(&"--require-hashes".to_owned()));
    let bytes = &plan.layers[0].files[0].1;
    assert_eq!(bytes, b"six==1.17.0 --hash=sha256:aa --hash=sha256:bb\n");
}

#[test]
fn loose_requirements_are_refused() {
    let text = "flask\nredis>=5\n# x\nceler==5.*\na==1\nb~=1.0\n";
    let (problem, help) = machine(&[("requirements.txt", text)]).refusal();
    insta::assert_snapshot!(problem, @"python: not pinned to one version with `==`: `flask` (requirements.txt line 1), `redis>=5` (requirements.txt line 2), `celer==5.*` (requirements.txt line 4) and 1 more");
    assert!(help.contains("git mv requirements.txt requirements.in"), "{help}");
    let files = [("requirements.txt", "flask"), ("requirements.in", "flask")];
    let (_, help) = machine(&files).refusal();
    insta::assert_snapshot!(help, @"run `uv pip compile requirements.in -o requirements.txt` and commit it");
}

fn requirements(text: &str, others: &[&str]) -> Result<super::Packages, Error> {
    let mut files = vec![("requirements.txt", text)];
    files.extend(others.iter().map(|path| (*path, "x==1\n")));
    requirements::read(&Machine::new(&files).tree(), "requirements.txt")
}

#[test]
fn what_counts_as_one_version() {
    for exact in [
        "a==1.0",
        "a[b,c]==1.0 ; python_version < \"3.13\"",
        "a == 1.0",
        "a (==1.0)",
        "a>=1,==1.5",
        "a===1.0",
        "a==1.0 --no-binary a",
        "a @ https://example.org/a-1.0-py3-none-any.whl",
        "a @ git+https://example.org/a@0123456789012345678901234567890123456789",
        "-e git+https://example.org/a@0123456789012345678901234567890123456789#egg=a",
        "-i https://example.org/simple",
        "--extra-index-url=https://example.org/simple",
        "-c limits.txt",
    ] {
        assert!(requirements(exact, &[]).is_ok(), "{exact}");
    }
    for loose in [
        "a",
        "a>=1",
        "a==1.*",
        "a[b]",
        "a ; python_version == \"3.13\"",
        "a==",
        "a @ git+https://example.org/a@main",
        "git+https://user@example.org/a",
    ] {
        assert!(requirements(loose, &[]).is_err(), "{loose}");
    }
}

#[test]
fn requirements_include_files_folders_and_archives() {
    let text = "-r more/base.txt\n-e .[dev]\n./libs/y\n./wheels/z-1-py3-none-any.whl --hash=sha256:a\n-f links\n";
    let others = ["more/base.txt", "pyproject.toml", "libs/y/setup.py"];
    let others = [&others[..], &["wheels/z-1-py3-none-any.whl", "links/q.whl"]].concat();
    let packages = requirements(text, &others).unwrap();
    assert_eq!(packages.own, ["", "libs/y"]);
    assert_eq!(packages.copies, ["links/q.whl", "wheels/z-1-py3-none-any.whl"]);
    let text = String::from_utf8(packages.files[0].1.clone()).unwrap();
    insta::assert_snapshot!(text, @r"
    x==1
    ./wheels/z-1-py3-none-any.whl --hash=sha256:a
    --find-links ./links
    ");
    for wrong in ["-r none.txt", "-r requirements.txt", "../x", "./libs/none", "/etc/x.whl"] {
        assert!(matches!(requirements(wrong, &[]), Err(Error::Plan { .. })), "{wrong}");
    }
}

#[test]
fn a_lock_becomes_a_layer_of_its_packages() {
    let own = package("shop", r#"{ virtual = "." }"#, r#"dependencies = [{ name = "six" }]"#);
    let lock = lock(&(own + &package("six", r#"{ registry = "https://pypi.org/simple" }"#, "")));
    let project =
        format!("{PROJECT}description = \"one\"\ndependencies = [\"six\"]\n[tool.ruff]\nx = 1");
    let mut machine = machine(&[("pyproject.toml", &project), ("uv.lock", &lock)]);
    let plan = machine.plan().unwrap();
    insta::assert_snapshot!(steps(&plan).join("\n"), @r"
    /toolchains/uv-0.99.0 sync --locked --no-dev --no-editable --python /toolchains/python-3.99.1/bin/python3.99
    LAYER/venv/bin/python -I -c TIDY LAYER/venv/lib/python3.99/site-packages
    ");
    let layer = &plan.layers[0];
    assert_eq!(layer.copies, [("uv.lock".to_owned(), "project/uv.lock".to_owned())]);
    assert_eq!(layer.steps[0].env["UV_PROJECT_ENVIRONMENT"], *layer.path.join("venv").as_os_str());
    let manifest = String::from_utf8(layer.files[0].1.clone()).unwrap();
    assert!(manifest.contains("six") && !manifest.contains("ruff") && !manifest.contains("one"));
    let stale =
        "error: The lockfile at `uv.lock` needs to be updated, but `--locked` was provided.";
    assert_eq!(help(&layer.steps[0], stale), Some("run `uv lock` and commit `uv.lock`"));

    machine.source("pyproject.toml", &project.replace("one", "two"));
    assert_eq!(machine.plan().unwrap().layers[0].key, layer.key);
    machine.source("pyproject.toml", &project.replace("[\"six\"]", "[]"));
    assert_ne!(machine.plan().unwrap().layers[0].key, layer.key);
}

#[test]
fn own_packages_are_beside_the_layer() {
    let needs = r#"dependencies = [{ name = "a" }, { name = "z" }]"#;
    let lock = lock(
        &[
            package("shop", r#"{ editable = "." }"#, needs),
            package("a", r#"{ editable = "packages/a" }"#, r#"dependencies = [{ name = "y" }]"#),
            package("b", r#"{ editable = "packages/b" }"#, ""),
            package("y", r#"{ directory = "libs/y" }"#, ""),
            package("z", r#"{ path = "wheels/z.whl" }"#, ""),
        ]
        .concat(),
    );
    let project = format!("{PROJECT}{BUILD}");
    let member = PROJECT.replace("shop", "a");
    let machine = machine(&[
        ("pyproject.toml", &project),
        ("uv.lock", &lock),
        ("src/shop/__init__.py", ""),
        ("packages/a/pyproject.toml", &member),
        ("packages/b/pyproject.toml", &member),
        ("libs/y/setup.py", ""),
        ("wheels/z.whl", ""),
    ]);
    let plan = machine.plan().unwrap();
    // `b` is not needed; `setup.py` has to run to tell what `y` needs.
    insta::assert_snapshot!(steps(&plan).join("\n"), @r"
    /toolchains/uv-0.99.0 sync --frozen --no-dev --no-editable --python /toolchains/python-3.99.1/bin/python3.99 --no-install-package shop --no-install-package a --no-install-package b --no-install-package y
    LAYER/venv/bin/python -I -c TIDY LAYER/venv/lib/python3.99/site-packages
    /toolchains/uv-0.99.0 lock --check --python /toolchains/python-3.99.1/bin/python3.99
    /toolchains/uv-0.99.0 build --wheel --no-build-logs --out-dir .tolv/wheels --python LAYER/venv/bin/python .
    /toolchains/uv-0.99.0 build --wheel --no-build-logs --out-dir .tolv/wheels --python LAYER/venv/bin/python packages/a
    /toolchains/uv-0.99.0 build --wheel --no-build-logs --out-dir .tolv/wheels --python LAYER/venv/bin/python libs/y
    LAYER/venv/bin/python -I -c INSTALL /toolchains/uv-0.99.0 .tolv/wheels .python
    LAYER/venv/bin/python -I -c TIDY /app/.python
    ");
    let files: Vec<_> = plan.layers[0].files.iter().map(|(path, _)| path.as_str()).collect();
    assert_eq!(
        files,
        [
            "project/pyproject.toml",
            "project/packages/a/pyproject.toml",
            "project/packages/b/pyproject.toml"
        ]
    );
    assert!(plan.layers[0].copies.iter().any(|(from, _)| from == "wheels/z.whl"));
    assert_eq!(plan.env["PYTHONPATH"], "/app/.python");
    assert_eq!(plan.path, ["/app/.python/bin", "/app/.venv/bin"]);
    assert!(plan.prune.contains(&"libs/y/build".to_owned()));
    assert!(plan.prune.contains(&"src/shop.egg-info".to_owned()));
}

#[test]
fn a_manifest_that_has_to_be_run_is_checked_with_the_source() {
    let lock = lock(&package("shop", r#"{ editable = "." }"#, ""));
    for key in ["version", "dependencies", "optional-dependencies"] {
        let project = format!("[project]\nname = \"shop\"\ndynamic = [\"{key}\"]\n{BUILD}");
        let plan = machine(&[("pyproject.toml", &project), ("uv.lock", &lock)]).plan().unwrap();
        assert!(steps(&plan)[0].contains(" --frozen "), "{key}");
        assert!(steps(&plan)[2].contains(" lock --check "), "{key}");
    }
    let project = format!("{PROJECT}dynamic = [\"readme\"]\n{BUILD}");
    let plan = machine(&[("pyproject.toml", &project), ("uv.lock", &lock)]).plan().unwrap();
    assert!(steps(&plan)[0].contains(" --locked "));
}

#[test]
fn a_lock_that_leaves_the_codebase_is_refused() {
    for (source, word) in [
        (r#"{ editable = "../lib" }"#, "outside"),
        (r#"{ directory = "libs/none" }"#, "not in the codebase"),
        (r#"{ path = "none.whl" }"#, "not in the codebase"),
    ] {
        let lock = lock(&package("x", source, ""));
        let (problem, help) = machine(&[("pyproject.toml", PROJECT), ("uv.lock", &lock)]).refusal();
        assert!(problem.contains(word), "{problem}");
        assert!(help.contains("uv lock"), "{help}");
    }
}

#[test]
fn a_codebase_without_a_lock_is_refused_with_the_command_that_makes_one() {
    let refusal = |files: &[(&str, &str)]| {
        let (problem, help) = machine(files).refusal();
        format!("{problem}\n{help}")
    };
    insta::assert_snapshot!(refusal(&[("pyproject.toml", PROJECT)]), @r"
    python: `pyproject.toml` has no lock: there is no `uv.lock`
    run `uv lock` and commit `uv.lock`
    ");
    insta::assert_snapshot!(refusal(&[("Pipfile", "")]), @r"
    python: a `Pipfile` alone is not built
    run `pipenv requirements > requirements.txt` and commit `requirements.txt`
    ");
    assert!(refusal(&[("pyproject.toml", "[tool.poetry]")]).contains("poetry export"));
    assert!(refusal(&[("pyproject.toml", BUILD)]).contains("uv lock"));
    assert!(refusal(&[("uv.lock", "")]).contains("no `pyproject.toml`"));
    assert!(refusal(&[("uv.lock", "="), ("pyproject.toml", PROJECT)]).contains("line 1"));
}

#[test]
fn a_version_that_is_none_is_refused() {
    let mut machine = machine(&[("requirements.txt", "")]);
    machine.source(".python-version", "pypy3.10\n");
    let (problem, _) = machine.refusal();
    insta::assert_snapshot!(problem, @"python: .python-version is `pypy3.10`, which is no version of CPython");
}

#[test]
fn a_procfile_that_names_what_is_not_there_is_warned_of() {
    let extra = "dependencies = [{ name = \"six\" }]\n[package.optional-dependencies]\n\
                 server = [{ name = \"gunicorn\" }]\n[package.dev-dependencies]\n\
                 dev = [{ name = \"pytest\" }]";
    let index = r#"{ registry = "https://pypi.org/simple" }"#;
    let lock = lock(
        &[
            package("shop", r#"{ virtual = "." }"#, extra),
            package("gunicorn", index, ""),
            package("pytest", index, ""),
            package("six", index, ""),
        ]
        .concat(),
    );
    let procfile = "web: A=1 exec gunicorn app:app\ntest: python -m pytest .\n\
                    uv: uv run gunicorn app:app\nfine: python -m six .\nalso: ./gunicorn\n";
    let files = [("pyproject.toml", PROJECT), ("uv.lock", lock.as_str()), ("Procfile", procfile)];
    insta::assert_snapshot!(machine(&files).plan().unwrap().warnings.join("\n"), @r"
    `Procfile`: `web` runs `gunicorn`, which `uv.lock` has for an extra or a group that is not installed: `uv add gunicorn`
    `Procfile`: `test` runs `pytest`, which `uv.lock` has for an extra or a group that is not installed: `uv add pytest`
    `Procfile`: `uv` uses `uv run`, and uv is there while building only: name the program itself, as in `web: gunicorn app:app`
    ");
}
