use super::super::tests::{Machine, help, words};
use super::{requirements, resolve};
use crate::Error;
use crate::plan::Plan;
use crate::resolution::Resolution;
use crate::toolchains::Layout;

mod django;

/// A machine with uv and a Python of a version that is nowhere else.
fn machine(files: &[(&str, &str)]) -> Machine {
    let mut all = vec![(".python-version", "# ours\n3.99\n")];
    all.extend(files);
    let machine = Machine::new(&all);
    machine.python("3.99.1");
    machine
}

/// Stands in for the sandbox: the lock has packages that the others need.
#[expect(clippy::unnecessary_wraps, reason = "it stands in for what may fail")]
fn with_more(wanted: &Resolution) -> Result<Vec<u8>, Error> {
    assert_eq!(wanted.result, resolve::REQUIREMENTS_LOCK);
    Ok(b"flask==3.1.3 \\\n    --hash=sha256:aa\njinja2==3.1.6\nwerkzeug==3.1.3\n".to_vec())
}

fn fails(_: &Resolution) -> Result<Vec<u8>, Error> {
    let last = vec!["error: No solution found when resolving dependencies".to_owned()];
    Err(Error::Step { command: "uv".into(), how: "exited with status 1".into(), last, help: None })
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
        .map(|words| words.replace(super::tools::CAPTURE, "CAPTURE"))
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
    LAYER/venv/bin/python -I -c TIDY LAYER/venv/lib/python3.99/site-packages
    /toolchains/uv-0.99.0 pip check --python LAYER/venv/bin/python
    ");
    assert!(plan.steps[0].warns.is_some() && plan.warnings.is_empty(), "{:?}", plan.warnings);
    assert_eq!(plan.env["VIRTUAL_ENV"], "/app/.venv");
    let layer = &plan.layers[0];
    assert!(layer.at_run && !layer.sees_app);
    assert_eq!(layer.links, [(".venv".to_owned(), "venv".to_owned())]);
    assert_eq!(layer.files, [("project/requirements.txt".to_owned(), b"flask==3.1.3\n".to_vec())]);
    assert_eq!(plan.path, ["/app/.venv/bin"]);
    assert_eq!(plan.build_env["UV_CACHE_DIR"], "/cache/uv");
    assert_eq!(plan.env["PYTHONUNBUFFERED"], "1");
    assert_eq!(plan.notes, ["Packages of requirements.txt, by uv 0.99.0"]);
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
fn loose_requirements_are_resolved_with_a_warning() {
    let mut machine =
        machine(&[("requirements.txt", "flask\nredis>=5\n# x\ncelery==5.*\nb~=1.0\n")]);
    machine.resolver = with_more;
    let plan = machine.plan().unwrap();
    insta::assert_snapshot!(plan.warnings.join("\n"), @r"
    requirements.txt is no lock; not pinned to one version with `==`: `flask` (requirements.txt line 1), `redis>=5` (requirements.txt line 2), `celery==5.*` (requirements.txt line 4) and 1 more
    Its packages were resolved for this machine and are kept for the next builds; `tolv lock` writes them into the codebase
    ");
    assert_eq!(plan.notes[1], "flask 3.1.3, jinja2 3.1.6, werkzeug 3.1.3");
    let resolved = plan.layers[0].files[0].1.clone();
    assert!(String::from_utf8(resolved).unwrap().ends_with("jinja2==3.1.6\nwerkzeug==3.1.3\n"));

    machine.require_lock = true;
    let (problem, help) = machine.refusal();
    assert!(problem.contains("`flask` (requirements.txt line 1)"), "{problem}");
    assert!(
        problem.contains("TOLV_REQUIRE_LOCK") && help.contains("tolv lock"),
        "{problem} {help}"
    );
}

#[test]
fn pins_that_miss_packages_are_completed() {
    let mut machine = machine(&[("requirements.txt", "Flask==3.1.3\n")]);
    machine.resolver = with_more;
    let plan = machine.plan().unwrap();
    let text = "requirements.txt does not name jinja2, werkzeug, which its packages need";
    assert!(plan.warnings[0].starts_with(text), "{:?}", plan.warnings);
    assert!(plan.layers[0].files[0].1.ends_with(b"werkzeug==3.1.3\n"));
    machine.require_lock = true;
    assert!(machine.refusal().0.contains("does not name jinja2, werkzeug"));
    // pip installed these although they do not fit together: they are a lock.
    machine.resolver = fails;
    let plan = machine.plan().unwrap();
    assert!(plan.warnings[0].contains("do not fit together"), "{:?}", plan.warnings);
    assert_eq!(plan.layers[0].files[0].1, b"Flask==3.1.3\n");
    machine.source("requirements.txt", "Flask\n");
    machine.require_lock = false;
    assert!(matches!(machine.plan(), Err(Error::Step { .. })));
}

#[test]
fn a_list_that_names_every_package_is_not_resolved() {
    let nobody = |_: &Resolution| Err(Error::Cancelled);
    for text in [
        "# This file is autogenerated by pip-compile with Python 3.11\nsix==1.17.0\n",
        "# This file was autogenerated by uv via the following command:\nsix==1.17.0\n",
        "six==1.17.0 --hash=sha256:aa\n",
    ] {
        let mut machine = machine(&[("requirements.txt", text)]);
        machine.resolver = nobody;
        assert!(machine.plan().is_ok(), "{text}");
        machine.require_lock = true;
        assert!(machine.plan().is_ok(), "{text}");
    }
}

#[test]
fn a_lock_in_the_codebase_is_taken_while_it_is_fresh() {
    let mut machine = machine(&[("requirements.txt", "flask\n")]);
    machine.resolver = with_more;
    let kept = machine.plan().unwrap();
    let locks = machine.lock(false).unwrap();
    assert_eq!(locks[0].path, "requirements.lock");
    assert_eq!(locks[0].packages, ["flask 3.1.3", "jinja2 3.1.6", "werkzeug 3.1.3"]);
    let text = String::from_utf8(locks[0].bytes.clone()).unwrap();
    assert!(text.starts_with("# tolv lock: requirements.txt for Python 3.99, "), "{text}");

    machine.source("requirements.lock", &text);
    machine.require_lock = true;
    machine.resolver = |_| Err(Error::Cancelled);
    let plan = machine.plan().unwrap();
    assert!(plan.warnings.is_empty(), "{:?}", plan.warnings);
    assert_eq!(plan.layers[0].key, kept.layers[0].key);
    assert!(machine.lock(false).unwrap().is_empty());

    // A comment does not make it stale; another range does, and another Python.
    machine.source("requirements.txt", "# web\nflask\n");
    assert!(machine.plan().is_ok());
    machine.source("requirements.txt", "flask>=3\n");
    assert!(machine.refusal().0.contains("`flask>=3`"));
    machine.require_lock = false;
    machine.resolver = |wanted| {
        assert!(wanted.files.iter().any(|(path, _)| path == "requirements.lock"));
        with_more(wanted)
    };
    assert_eq!(machine.plan().unwrap().warnings.len(), 1);

    // One that another tool made is not replaced.
    machine.source("requirements.lock", "# generated by rye\n-e file:.\n");
    machine.resolver = with_more;
    let error = machine.lock(false).unwrap_err().to_string();
    assert!(error.contains("made by another tool"), "{error}");
}

#[test]
fn what_resolving_sees() {
    fn sees(wanted: &Resolution) -> Result<Vec<u8>, Error> {
        let files: Vec<_> = wanted.files.iter().map(|(path, _)| path.as_str()).collect();
        let words = words(wanted.plan.steps.last().unwrap()).join(" ");
        let problem = format!("{} {} {files:?}: {words}", wanted.sees_source, wanted.result);
        Err(Error::Plan { builder: "python", problem, help: String::new() })
    }
    let asked = |files: &[(&str, &str)]| {
        let mut machine = machine(files);
        machine.resolver = sees;
        machine.refusal().0.replace("/toolchains/python-3.99.1/bin/python3.99", "PYTHON")
    };
    let files = [("requirements.txt", "flask\n-c limits.txt\n"), ("limits.txt", "click<9")];
    insta::assert_snapshot!(asked(&files), @r#"python: false requirements.lock [".tolv-wishes.txt", ".tolv-constraints.txt", "requirements.lock"]: /toolchains/uv-0.99.0 pip compile --quiet --no-header --generate-hashes --no-annotate --output-file requirements.lock --python PYTHON .tolv-wishes.txt --constraints .tolv-constraints.txt"#);
    let files = [("requirements.txt", "-e .[web]\n"), ("pyproject.toml", PROJECT)];
    assert!(asked(&files).starts_with("python: true requirements.lock [\".tolv-wishes.txt\", "));
    let text = asked(&[("pyproject.toml", PROJECT)]);
    insta::assert_snapshot!(text, @r#"python: false uv.lock ["pyproject.toml"]: /toolchains/uv-0.99.0 lock --python PYTHON"#);
    let dynamic = format!("{PROJECT}dynamic = [\"dependencies\"]\n");
    assert!(asked(&[("pyproject.toml", &dynamic)]).starts_with("python: true uv.lock []: "));
    let text = asked(&[("pyproject.toml", "[tool.poetry]\nname = \"x\"")]);
    assert!(text.starts_with("python: false poetry.lock [\"pyproject.toml\"]: "), "{text}");
    assert!(text.ends_with(" poetry lock --no-interaction"), "{text}");
    let text = asked(&[("Pipfile", "[packages]\nsix = \"*\"")]);
    assert!(text.starts_with("python: false Pipfile.lock [\"Pipfile\"]: "), "{text}");
    assert!(text.ends_with(" pipenv lock"), "{text}");
}

#[test]
fn the_input_of_a_lock_is_what_decides_it() {
    fn input(wanted: &Resolution) -> Result<Vec<u8>, Error> {
        let problem = wanted.input.to_string();
        Err(Error::Plan { builder: "python", problem, help: String::new() })
    }
    let of = |files: &[(&str, &str)]| {
        let mut machine = machine(files);
        machine.resolver = input;
        machine.refusal().0
    };
    let flask = of(&[("requirements.txt", "flask\n"), ("web.py", "1")]);
    assert_eq!(of(&[("requirements.txt", "# x\nflask # y\n"), ("web.py", "2")]), flask);
    assert_ne!(of(&[("requirements.txt", "flask>1\n"), ("web.py", "1")]), flask);
    let own = |setup: &str, version: &str| {
        let project = format!("[project]\nname = \"shop\"\n{version}\n");
        of(&[("requirements.txt", "-e .\n"), ("pyproject.toml", &project), ("x.py", setup)])
    };
    assert_eq!(own("1", "version = \"1\""), own("2", "version = \"1\""));
    // What has to be run may read any file.
    assert_ne!(own("1", "dynamic = [\"version\"]"), own("2", "dynamic = [\"version\"]"));
}

fn requirements(text: &str, others: &[&str]) -> Result<requirements::Requirements, Error> {
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
        assert!(requirements(exact, &[]).unwrap().loose.is_empty(), "{exact}");
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
        assert!(!requirements(loose, &[]).unwrap().loose.is_empty(), "{loose}");
    }
}

#[test]
fn requirements_include_files_folders_and_archives() {
    let text = "-r more/base.txt\n-e .[dev]\n./libs/y\n./wheels/z-1-py3-none-any.whl --hash=sha256:a\n-f links\n";
    let others = ["more/base.txt", "pyproject.toml", "libs/y/setup.py"];
    let others = [&others[..], &["wheels/z-1-py3-none-any.whl", "links/q.whl"]].concat();
    let requirements = requirements(text, &others).unwrap();
    assert!(requirements.wishes.ends_with("./.[dev]\n./libs/y\n"), "{}", requirements.wishes);
    let packages = requirements.packages;
    assert_eq!(packages.own, ["", "libs/y"]);
    assert_eq!(packages.copies, ["links/q.whl", "wheels/z-1-py3-none-any.whl"]);
    let text = String::from_utf8(packages.files[0].1.clone()).unwrap();
    insta::assert_snapshot!(text, @r"
    x==1
    ./wheels/z-1-py3-none-any.whl --hash=sha256:a
    --find-links ./links
    ");
    for wrong in ["-r none.txt", "-r requirements.txt", "../x", "./libs/none", "/etc/x.whl"] {
        assert!(matches!(self::requirements(wrong, &[]), Err(Error::Plan { .. })), "{wrong}");
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
    /toolchains/uv-0.99.0 pip check --python LAYER/venv/bin/python
    ");
    let layer = &plan.layers[0];
    assert_eq!(layer.copies, [("uv.lock".to_owned(), "project/uv.lock".to_owned())]);
    assert_eq!(layer.steps[0].env["UV_PROJECT_ENVIRONMENT"], *layer.path.join("venv").as_os_str());
    let manifest = String::from_utf8(layer.files[0].1.clone()).unwrap();
    assert!(manifest.contains("six") && !manifest.contains("ruff") && !manifest.contains("one"));
    let stale =
        "error: The lockfile at `uv.lock` needs to be updated, but `--locked` was provided.";
    assert_eq!(help(&layer.steps[0], stale), Some("run `tolv lock` and commit `uv.lock`"));

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
    /toolchains/uv-0.99.0 pip check --python LAYER/venv/bin/python
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
        assert!(help.contains("tolv lock"), "{help}");
    }
}

#[test]
fn where_a_lock_is_required_the_refusal_has_the_command_that_makes_one() {
    let refusal = |files: &[(&str, &str)]| {
        let mut machine = machine(files);
        machine.require_lock = true;
        let (problem, help) = machine.refusal();
        format!("{problem}\n{help}")
    };
    insta::assert_snapshot!(refusal(&[("pyproject.toml", PROJECT)]), @r"
    python: `pyproject.toml` has no lock: there is no `uv.lock`; a lock is required (TOLV_REQUIRE_LOCK)
    run `tolv lock` and commit what it writes
    ");
    insta::assert_snapshot!(refusal(&[("Pipfile", "")]), @r"
    python: `Pipfile` has no lock: there is no `Pipfile.lock`; a lock is required (TOLV_REQUIRE_LOCK)
    run `tolv lock` and commit what it writes
    ");
    assert!(refusal(&[("pyproject.toml", "[tool.poetry]")]).contains("no `poetry.lock`"));
    assert!(refusal(&[("pyproject.toml", BUILD)]).contains("tolv lock"));
    assert!(refusal(&[("uv.lock", "")]).contains("no `pyproject.toml`"));
    assert!(refusal(&[("uv.lock", "="), ("pyproject.toml", PROJECT)]).contains("line 1"));
}

const POETRY: &str =
    "[tool.poetry]\nname = \"shop\"\n[tool.poetry.dependencies]\npython = \"^3.11\"\n";

#[test]
fn poetry_and_pipenv_write_out_their_locks() {
    let lock = "[[package]]\nname = \"Django\"\nversion = \"5.2\"\ngroups = [\"main\"]\n\
                [[package]]\nname = \"pytest\"\nversion = \"8\"\ngroups = [\"dev\"]\n\
                [[package]]\nname = \"old\"\nversion = \"1\"\ncategory = \"dev\"\n";
    let procfile = "test: pytest .\n";
    let files = [("pyproject.toml", POETRY), ("poetry.lock", lock), ("Procfile", procfile)];
    let mut machine = machine(&files);
    machine.source("requirements.txt", "x");
    let plan = machine.plan().unwrap();
    insta::assert_snapshot!(steps(&plan).join("\n"), @r"
    /toolchains/uv-0.99.0 venv --quiet --no-project --python /toolchains/python-3.99.1/bin/python3.99 LAYER/venv
    /toolchains/uv-0.99.0 tool run --quiet --python /toolchains/python-3.99.1/bin/python3.99 --from poetry==2.5.1 --with poetry-plugin-export==1.10.1 poetry export --only main --no-interaction --output requirements.txt
    /toolchains/uv-0.99.0 pip sync --allow-empty-requirements --python LAYER/venv/bin/python requirements.txt
    LAYER/venv/bin/python -I -c TIDY LAYER/venv/lib/python3.99/site-packages
    /toolchains/uv-0.99.0 pip check --python LAYER/venv/bin/python
    ");
    insta::assert_snapshot!(plan.warnings.join("\n"), @r"
    poetry.lock decides which packages are installed; `requirements.txt` has no effect
    `Procfile`: `test` runs `pytest`, which `poetry.lock` has for an extra or a group that is not installed: move it out of the group in `pyproject.toml`
    ");
    assert_eq!(plan.layers[0].steps[1].env["VIRTUAL_ENV"], *plan.layers[0].path.join("venv"));

    let lock = r#"{"_meta": {"sources": [{"url": "https://pypi.org/simple"}]},
        "default": {"six": {"version": "==1.17.0"}, "own": {"path": "libs/own"}},
        "develop": {"pytest": {"version": "==8"}}}"#;
    let pipfile = "[requires]\npython_version = \"3.99\"\n";
    let files = [("Pipfile", pipfile), ("Pipfile.lock", lock), ("libs/own/setup.py", "")];
    let plan = self::machine(&files).plan().unwrap();
    insta::assert_snapshot!(steps(&plan).join("\n"), @r"
    /toolchains/uv-0.99.0 venv --quiet --no-project --python /toolchains/python-3.99.1/bin/python3.99 LAYER/venv
    /toolchains/uv-0.99.0 tool run --quiet --python /toolchains/python-3.99.1/bin/python3.99 --from pipenv==2026.10.3 pipenv verify
    LAYER/venv/bin/python -I -c CAPTURE requirements.txt /toolchains/uv-0.99.0 tool run --quiet --python /toolchains/python-3.99.1/bin/python3.99 --from pipenv==2026.10.3 pipenv requirements --hash
    /toolchains/uv-0.99.0 pip sync --allow-empty-requirements --python LAYER/venv/bin/python requirements.txt
    LAYER/venv/bin/python -I -c TIDY LAYER/venv/lib/python3.99/site-packages
    /toolchains/uv-0.99.0 build --wheel --no-build-logs --out-dir .tolv/wheels --python LAYER/venv/bin/python libs/own
    LAYER/venv/bin/python -I -c INSTALL /toolchains/uv-0.99.0 .tolv/wheels .python
    LAYER/venv/bin/python -I -c TIDY /app/.python
    /toolchains/uv-0.99.0 pip check --python LAYER/venv/bin/python
    ");
    let lock = &plan.layers[0].files[0];
    assert!(lock.0 == "project/Pipfile.lock" && !lock.1.windows(3).any(|part| part == b"own"));
}

#[test]
fn locks_that_leave_the_codebase_are_refused() {
    let poetry = |source: &str| {
        let lock = format!("[[package]]\nname = \"x\"\n{source}");
        machine(&[("pyproject.toml", POETRY), ("poetry.lock", &lock)]).refusal().0
    };
    let directory = "[package.source]\ntype = \"directory\"\n";
    assert!(poetry(&format!("{directory}url = \"../lib\"")).contains("outside the codebase"));
    let develop = poetry(&format!("develop = true\n{directory}url = \"lib\""));
    assert!(develop.contains("`lib` in place"), "{develop}");
    let lock = r#"{"default": {"x": {"path": "../x"}}}"#;
    let (problem, _) = machine(&[("Pipfile", ""), ("Pipfile.lock", lock)]).refusal();
    assert!(problem.contains("outside the codebase"), "{problem}");
    let (problem, help) = machine(&[("Pipfile", ""), ("Pipfile.lock", "{")]).refusal();
    assert!(problem.contains("is not JSON") && help.contains("tolv lock"), "{problem}");
}

#[test]
fn a_python_below_3_12_has_setuptools() {
    let plan = |version: &str, text: &str| {
        let machine = machine(&[("requirements.txt", text), (".python-version", version)]);
        machine.python(version);
        steps(&machine.plan().unwrap()).join("\n")
    };
    assert!(plan("3.11.98", "six==1.17.0").contains(" setuptools==80.9.0 "));
    assert!(plan("3.8.98", "six==1.17.0").contains(" setuptools==75.3.2 "));
    assert!(!plan("3.12.98", "six==1.17.0").contains("setuptools"));
    assert!(!plan("3.11.98", "setuptools==70.0.0").contains(" pip install"));
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
