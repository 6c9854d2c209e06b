//! Packages in layers, asked of the package index: everything that needs uv, or one npm or pnpm,
//! which each test fetches once.

use std::fs;
use std::path::Path;

use tolv_build::{Built, Error, Event, Request};
use tolv_sandbox::{Cancel, Exec, Job, Spec, Stream};
use tolv_testkit::Home;

use crate::{SEARCH, assert_nothing_left, build, levels, request, spawner};

/// What a process of the slug prints.
pub(crate) fn run(request: &Request, built: &Built, words: &[&str]) -> String {
    let mut spec = Spec::new(request.level, "shop");
    spec.mounts = built.mounts.clone();
    let program = spec.view(Path::new(words[0])).into_os_string().into_encoded_bytes();
    let rest = words[1..].iter().map(|word| word.as_bytes().to_vec());
    let exec = Exec {
        argv: std::iter::once(program).chain(rest).collect(),
        env: vec![format!("PATH={SEARCH}").into_bytes()],
        cwd: spec.view(Path::new("/app")),
    };
    let mut output = Vec::new();
    let mut take = |_: Stream, bytes: &[u8]| output.extend_from_slice(bytes);
    let job = Job { spec, exec, time_limit: None };
    tolv_sandbox::run(&request.spawner, &job, &mut take, &Cancel::new().unwrap()).unwrap();
    String::from_utf8_lossy(&output).trim().to_owned()
}

#[test]
fn python_packages_are_a_layer() {
    let (app, home, other) = (Home::new(), Home::new(), Home::new());
    app.write("requirements.txt", "click==8.1.7\n");
    app.write("app.py", "import click; print('click', click.__version__)\n");
    app.write("Procfile", "web: python app.py\n");
    let first = request(app.path(), home.path());
    let (one, said) = build(&first);
    assert!(said.heading("Installing Python packages"));
    assert_eq!(one.manifest.layers.len(), 1);
    assert_eq!(run(&first, &one, &["/app/.venv/bin/python", "app.py"]), "click 8.1.7");

    // Another home gives the same bytes.
    let elsewhere = request(app.path(), other.path());
    let (two, _) = build(&elsewhere);
    if first.level.has_own_root() {
        assert_eq!(two.manifest, one.manifest);
    }

    // Another commit with the same packages installs nothing.
    app.write("app.py", "import click; print('again', click.__version__)\n");
    let (changed, said) = build(&first);
    assert!(
        said.heading("Python packages: unchanged") && !said.heading("Installing Python packages")
    );
    assert_ne!(changed.slug, one.slug);
    assert_eq!(changed.manifest.layers, one.manifest.layers);
    assert_eq!(run(&first, &changed, &["/app/.venv/bin/python", "app.py"]), "again 8.1.7");

    for level in levels(&spawner()) {
        let request = Request { level, ..request(app.path(), home.path()) };
        let (built, _) = build(&request);
        assert_eq!(run(&request, &built, &["/app/.venv/bin/python", "app.py"]), "again 8.1.7");
    }

    // Cancelled while packages are installed: no layer, and the next build makes it.
    app.write("requirements.txt", "click==8.1.6\n");
    let cancelled = Request { cancel: Cancel::new().unwrap(), ..first.clone() };
    let built = tolv_build::build(&cancelled, &mut |event| {
        if event == Event::Heading("Installing Python packages".to_owned()) {
            cancelled.cancel.cancel();
        }
    });
    assert!(matches!(built, Err(Error::Cancelled)), "{built:?}");
    assert_nothing_left(home.path());
    let (built, _) = build(&first);
    assert_eq!(run(&first, &built, &["/app/.venv/bin/python", "app.py"]), "again 8.1.6");

    // What the list misses is resolved, with a warning.
    app.write("requirements.txt", "click==8.1.7\nflask-cors==5.0.0\n");
    let (built, said) = build(&first);
    assert!(said.heading("Resolving requirements.txt"));
    assert!(built.warnings[0].starts_with("requirements.txt does not name"), "{built:?}");
    assert_eq!(
        run(&first, &built, &["/app/.venv/bin/python", "-c", "import flask; print(1)"]),
        "1"
    );
}

/// The warnings of a build that are about packages.
fn warnings(built: &Built) -> String {
    built.warnings.join("\n")
}

#[test]
fn ranges_are_resolved_once() {
    let (app, home) = (Home::new(), Home::new());
    let first = &request(app.path(), home.path());
    app.write("app.py", "import click; print('again', click.__version__)\n");
    app.write("Procfile", "web: python app.py\n");
    app.write("requirements.txt", "click>=8,<8.1.8  # a range\n");
    let (one, said) = build(first);
    assert!(said.heading("Resolving requirements.txt"));
    assert!(said.lines().contains(&"click 8.1.7".to_owned()), "{:?}", said.lines());
    assert!(warnings(&one).contains("`tolv lock` writes them"), "{one:?}");
    assert_eq!(run(first, &one, &["/app/.venv/bin/python", "app.py"]), "again 8.1.7");

    // Another commit with the same ranges asks nobody: not even without a network.
    app.write("app.py", "import click; print('third', click.__version__)\n");
    let mut away = first.clone();
    away.host.registry.insert("UV_OFFLINE".to_owned(), "1".into());
    let (two, said) = build(&away);
    assert!(!said.heading("Resolving requirements.txt") && two.slug != one.slug);
    assert_eq!(two.manifest.layers, one.manifest.layers);

    // The lock in the codebase is the one that was built, and there is nothing to warn of.
    let mut required = first.clone();
    required.caps.require_lock = true;
    let error = crate::refusal(&required);
    assert!(error.help().unwrap().contains("tolv lock"), "{error:?}");
    let locks = tolv_build::lock(first, false, &mut |_| {}).unwrap();
    assert_eq!(locks[0].packages, ["click 8.1.7"]);
    assert_nothing_left(&first.home);
    app.write(&locks[0].path, &locks[0].bytes);
    let (locked, _) = build(&required);
    assert_eq!(locked.manifest.layers, one.manifest.layers);
    assert!(locked.warnings.is_empty(), "{locked:?}");

    // A lock that is stale keeps what still fits.
    app.write("requirements.txt", "click>=8\n");
    let (stale, _) = build(first);
    assert_eq!(stale.manifest.layers, one.manifest.layers);
    assert!(warnings(&stale).contains("no lock"), "{stale:?}");

    // What does not fit together is told with the packages.
    app.write("requirements.txt", "click>=8,<8.1\nflask>=3.1\n");
    let error = crate::refusal(first);
    assert!(error.to_string().contains("click"), "{error}");
    assert!(error.help().unwrap().contains("loosen"), "{error:?}");
    own_packages_are_resolved_with_the_source(first);
}

/// What a stranger's `setup.py` does while its wishes are read is done in the sandbox, and what it
/// leaves in place of the lock is not followed.
fn own_packages_are_resolved_with_the_source(first: &Request) {
    let app = Home::new();
    let mut request = first.clone();
    request.source = tolv_build::Source::WorkingTree { dir: app.path().to_owned() };
    app.write("Procfile", "web: python -m shop\n");
    app.write("requirements.txt", "-e .\n");
    app.write("wishes.txt", "click<8.1.8");
    app.write("src/shop.py", "import click; print(click.__version__)\n");
    let setup = "from setuptools import setup\nsetup(name='shop', version='1', py_modules=['shop'], \
                 package_dir={'': 'src'}, install_requires=open('wishes.txt').read().split())\n";
    app.write("setup.py", setup);
    let (built, said) = build(&request);
    assert!(said.heading("Installing the codebase's own packages"));
    assert!(said.lines().iter().any(|line| line == "click 8.1.7"), "{:?}", said.lines());
    assert!(warnings(&built).contains("does not name click"), "{built:?}");

    let link = "import os\nos.path.lexists('/app/requirements.lock') or \
                os.symlink('/etc/passwd', '/app/requirements.lock')\n";
    app.write("setup.py", format!("{link}{setup}"));
    let (built, said) = crate::try_build(&request);
    assert!(built.is_err(), "{:?}", said.lines());
    assert!(!said.lines().iter().any(|line| line.contains("root:")), "{:?}", said.lines());
    assert_nothing_left(&request.home);
}

#[test]
fn poetry_writes_out_its_lock() {
    let (app, home) = (Home::new(), Home::new());
    let request = request(app.path(), home.path());
    app.write("Procfile", "web: python -m six\n");
    // This source has packages of the simple index alone, which a mirror of it has as well.
    let manifest = "[tool.poetry]\nname = \"shop\"\nversion = \"1\"\ndescription = \"\"\n\
        authors = []\n[tool.poetry.dependencies]\npython = \">=3.9\"\nsix = \"1.16.0\"\n\
        [tool.poetry.group.dev.dependencies]\niniconfig = \"2.0.0\"\n\
        [[tool.poetry.source]]\nname = \"index\"\nurl = \"https://pypi.org/simple\"\n\
        priority = \"primary\"\n";
    app.write("pyproject.toml", manifest);
    let (made, said) = build(&request);
    assert!(said.heading("Resolving pyproject.toml"));
    assert!(warnings(&made).contains("no `poetry.lock`"), "{made:?}");
    let six = ["/app/.venv/bin/python", "-c", "import six; print(six.__version__)"];
    assert_eq!(run(&request, &made, &six), "1.16.0");
    let dev = [
        "/app/.venv/bin/python",
        "-c",
        "import importlib.util as u; print(u.find_spec('iniconfig'))",
    ];
    assert_eq!(run(&request, &made, &dev), "None");

    let locks = tolv_build::lock(&request, false, &mut |_| {}).unwrap();
    app.write("poetry.lock", &locks[0].bytes);
    let (built, said) = build(&request);
    assert!(!said.heading("Resolving pyproject.toml") && built.warnings.is_empty(), "{built:?}");
    assert_eq!(run(&request, &built, &six), "1.16.0");
    app.write("pyproject.toml", manifest.replace("1.16.0", "1.17.0"));
    let error = crate::refusal(&request);
    assert!(error.help().unwrap().contains("tolv lock"), "{error:?}");
}

#[test]
fn node_packages_without_a_lock_are_resolved_once() {
    let (app, home) = (Home::new(), Home::new());
    let manifest = |more: &str| {
        format!(
            r#"{{"name": "shop", "version": "1.0.0", {more} "dependencies": {{"ms": "^2.0.0"}}}}"#
        )
    };
    app.write("package.json", manifest(""));
    app.write("server.js", "console.log(require('ms')('1s'))\n");
    let first = request(app.path(), home.path());
    let (one, said) = build(&first);
    assert!(said.heading("Resolving Node.js packages, which have no lock"), "{said:?}");
    assert!(one.warnings.iter().any(|text| text.contains("no lock")), "{:?}", one.warnings);
    assert_eq!(one.manifest.layers.len(), 1, "the lock is not in the slug");
    assert_eq!(one.manifest.process_types.len(), 1);
    let layer = &one.mounts[1].source;
    let found = fs::read_to_string(layer.join("node_modules/ms/package.json")).unwrap();
    assert!(found.contains("\"2."), "{found}");
    assert!(!layer.join("package-lock.json").exists());

    // Another commit that asks for the same has the same.
    app.write("server.js", "console.log(require('ms')('2s'))\n");
    app.write("package.json", manifest(r#""scripts": {"test": "true"},"#));
    let (two, said) = build(&first);
    assert!(!said.heading("Resolving Node.js packages, which have no lock"), "{said:?}");
    assert_eq!(two.manifest.layers, one.manifest.layers);
    assert_ne!(two.slug, one.slug);

    // npm is the one that belongs to this Node.js, whichever is the newest or beside it.
    let newest = |event: &Event| event.text().windows(5).any(|part| part == b"npm 1");
    assert!(said.0.iter().any(newest), "{said:?}");
}

#[test]
fn packages_of_a_pnpm_workspace_are_there_and_those_of_the_build_are_not() {
    let (app, home) = (Home::new(), Home::new());
    app.write("package.json", r#"{"name": "root", "private": true, "scripts": {"build": "node build.js"}, "devDependencies": {"ms": "2.0.0"}}"#);
    app.write("build.js", "require('ms'); require('fs').writeFileSync('built', '')\n");
    app.write("pnpm-workspace.yaml", "packages:\n  - apps/*\n  - libs/*\n");
    app.write(
        "apps/api/package.json",
        r#"{"name": "api", "version": "1.0.0", "dependencies": {"@acme/lib": "workspace:*"}}"#,
    );
    app.write(
        "libs/lib/package.json",
        r#"{"name": "@acme/lib", "version": "1.0.0", "dependencies": {"is-number": "7.0.0"}}"#,
    );
    app.write("libs/lib/index.js", "require('is-number')\n");
    app.write("Procfile", "web: node apps/api\n");
    let (built, said) = build(&request(app.path(), home.path()));
    let lines = said.lines();
    assert!(built.dir.join("built").exists(), "{lines:?}");
    let there = |path: &str| built.dir.join(path).exists();
    assert!(there("apps/api/node_modules/@acme/lib/index.js"), "{lines:?}");
    assert!(there("libs/lib/node_modules/is-number/package.json"), "{lines:?}");
    assert!(!there("node_modules/ms"), "{lines:?}");
}

#[test]
fn a_go_that_is_new_enough_is_fetched() {
    let (app, home) = (Home::new(), Home::new());
    app.write("go.mod", "module example.org/shop\n\ngo 1.22\n");
    // `for` over an integer came with Go 1.22.
    let main = "package main\n\nfunc main() {\n\tfor i := range 3 {\n\t\tprint(i)\n\t}\n}\n";
    app.write("main.go", main);
    let mut request = request(app.path(), home.path());
    request.toolchains = home.path().join("toolchains");
    let (built, said) = build(&request);
    assert_eq!(built.manifest.toolchains, []);
    let lines = said.lines();
    assert!(lines.iter().any(|line| line.starts_with("go1.2")), "{lines:?}");
    assert!(built.dir.join("bin/shop").is_file());
}
