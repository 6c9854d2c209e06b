//! Packages in layers, asked of the package index: everything that needs uv, which is fetched
//! once, in one test.

use std::fs;
use std::path::Path;

use tolv_build::{Built, Error, Event, Request};
use tolv_sandbox::{Cancel, Exec, Job, Spec, Stream};
use tolv_testkit::Home;

use crate::{SEARCH, assert_nothing_left, build, levels, request, spawner};

/// The path of the uv that a build fetched, or nothing where the machine has one.
fn fetched(home: &Path) -> Option<std::path::PathBuf> {
    let folder = fs::read_dir(home.join("toolchains")).ok()?;
    let mut paths = folder.flatten().map(|entry| entry.path());
    paths.find(|path| path.join("uv").is_file())
}

/// What a process of the slug prints.
fn run(request: &Request, built: &Built, words: &[&str]) -> String {
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
    let mut elsewhere = request(app.path(), other.path());
    if let Some(uv) = fetched(home.path()) {
        elsewhere.host.search_path = format!("{SEARCH}:{}", uv.display()).into();
    }
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

    // What the list misses is told with the command that completes it.
    app.write("requirements.txt", "flask==3.1.0\n");
    let error = crate::refusal(&first);
    assert!(matches!(error, Error::Step { .. }), "{error:?}");
    assert!(error.help().unwrap().contains("uv pip compile"), "{:?}", error.help());
}
