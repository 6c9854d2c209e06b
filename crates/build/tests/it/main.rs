//! Whole builds: real repositories, real sandboxes, at every level that this machine gives.
//!
//! A build step of an app here is the `build` script of a `package.json` without packages, which
//! needs no network. Packages are asked of the package index, in `packages` alone.

#![expect(clippy::unwrap_used, reason = "helpers of tests, which clippy does not see as such")]

mod buildpacks;
mod ended;
mod hostile;
mod packages;
mod refused;
mod repeat;
mod ruby;
mod steps;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use tolv_build::{Built, Caps, Error, Event, Host, Proofs, Request, Source};
use tolv_model::service::HostServices;
use tolv_sandbox::{Cancel, Choice, Level, Machine, NetworkChoice, Spawner};
use tolv_testkit::Home;

const SPAWNER: &str = env!("CARGO_BIN_EXE_build-spawner");
const SEARCH: &str = "/usr/local/bin:/usr/bin:/bin";

fn spawner() -> Spawner {
    Spawner::start(Path::new(SPAWNER), &[]).unwrap()
}

/// The levels that can be had here, best first.
fn levels(spawner: &Spawner) -> Vec<Level> {
    let machine = Machine::probe(spawner, NetworkChoice::Auto).unwrap();
    machine.levels.iter().filter(|(_, no)| no.is_none()).map(|(level, _)| *level).collect()
}

/// A build of a folder as it is, at the best level.
fn request(dir: &Path, home: &Path) -> Request {
    let spawner = spawner();
    let (level, _) =
        Machine::probe(&spawner, NetworkChoice::Auto).unwrap().choose(Choice::Auto).unwrap();
    Request {
        source: Source::WorkingTree { dir: dir.to_owned() },
        home: home.to_owned(),
        toolchains: tolv_testkit::toolchains(),
        stacks: home.join("stacks"),
        spawner,
        level,
        host: Host {
            program: SPAWNER.into(),
            search_path: SEARCH.into(),
            user_home: None,
            registry: registry(),
            toolchains: None,
            stack: None,
            stacks: None,
        },
        caps: Caps::default(),
        cancel: Cancel::new().unwrap(),
        proofs: Proofs::default(),
        host_services: HostServices::default(),
        buildpacks: Vec::new(),
        config: tolv_build::BuildConfig::default(),
    }
}

/// Where this machine has its registries, as `tolv` itself would ask.
#[expect(
    clippy::disallowed_methods,
    reason = "a test has no settings, and its machine may have proxies"
)]
fn registry() -> BTreeMap<String, std::ffi::OsString> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| tolv_build::passes(name))
        .collect()
}

/// What a build said, as it is shown.
#[derive(Debug, Default)]
struct Said(Vec<Event>);

impl Said {
    fn heading(&self, text: &str) -> bool {
        self.0.iter().any(|event| matches!(event, Event::Heading(found) if found == text))
    }

    fn lines(&self) -> Vec<String> {
        let line = |event: &Event| match event {
            Event::Line(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Event::Heading(_) | Event::Warning(_) | Event::Progress { .. } => None,
        };
        self.0.iter().filter_map(line).collect()
    }
}

fn try_build(request: &Request) -> (Result<Built, Error>, Said) {
    let mut said = Said::default();
    let built = tolv_build::build(request, &mut |event| said.0.push(event));
    (built, said)
}

#[track_caller]
fn build(request: &Request) -> (Built, Said) {
    let (built, said) = try_build(request);
    match built {
        Ok(built) => (built, said),
        Err(error) => panic!("{error:?}\n{}", said.lines().join("\n")),
    }
}

/// Builds what cannot be built, and sees that nothing is left of it.
#[track_caller]
fn refusal(request: &Request) -> Error {
    let (built, said) = try_build(request);
    assert_nothing_left(&request.home);
    match built {
        Err(error) => error,
        Ok(built) => panic!("it was built: {built:?}\n{said:?}"),
    }
}

/// No build folder, no half-made slug, no half-made layer.
#[track_caller]
fn assert_nothing_left(home: &Path) {
    let names = |folder: &str| -> Vec<String> {
        let list = fs::read_dir(home.join(folder)).into_iter().flatten().flatten();
        list.map(|entry| entry.file_name().into_string().unwrap()).collect()
    };
    let folders: Vec<_> =
        names("builds").into_iter().filter(|name| !name.ends_with(".lock")).collect();
    assert!(folders.is_empty(), "builds has {folders:?}");
    for folder in ["slugs", "slugs/layers"] {
        let names = names(folder);
        for name in &names {
            // Beside a layer stands what is in it.
            let record = |layer: &str| names.contains(&format!("{layer}.json"));
            let whole = ["known", "layers"].contains(&name.as_str())
                || name.strip_suffix(".entries").is_some_and(record)
                || name.ends_with(".lock")
                || name.ends_with(".json")
                || names.contains(&format!("{name}.json"));
            assert!(whole, "{folder} has `{name}`");
        }
    }
}

/// A codebase whose build is one shell line.
fn scripted(script: &str) -> Home {
    let app = Home::new();
    write_script(&app, script);
    app
}

fn write_script(app: &Home, script: &str) {
    let script = script.replace('\\', "\\\\").replace('"', "\\\"");
    let manifest =
        format!(r#"{{"name": "shop", "version": "1.0.0", "scripts": {{"build": "{script}"}}}}"#);
    app.write("package.json", manifest);
    app.write("Procfile", "web: node server.js\n");
}

/// The paths of a slug.
fn paths(built: &Built) -> Vec<String> {
    let entries = built.manifest.entries.iter();
    entries.map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect()
}
