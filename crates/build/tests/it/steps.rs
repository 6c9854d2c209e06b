//! What a step of a build sees, and what becomes of its output.

use std::fs;

use tolv_build::{Error, Event, Request};
use tolv_model::slug::{Digest, Entry};
use tolv_testkit::Home;
use tolv_testkit::git::commit;

use crate::{build, levels, paths, refusal, request, scripted, spawner};

#[test]
fn a_build_at_every_level() {
    let app = scripted("mkdir dist && cp page.html dist/ && echo built && rm -rf page.html lib");
    app.write("page.html", "<p>");
    app.write("lib/source", "");
    for level in levels(&spawner()) {
        let home = Home::new();
        let state = home.path().join("state with blanks");
        let (built, said) = build(&Request { level, ..request(app.path(), &state) });
        assert!(said.lines().contains(&"built".to_owned()), "{level}: {said:?}");
        assert_eq!(
            paths(&built),
            ["Procfile", "dist", "dist/page.html", "package.json"],
            "{level}"
        );
        let page = built.manifest.entries.iter().find(|(path, _)| path == b"dist/page.html");
        let digest = Digest::of(b"<p>");
        assert_eq!(page.unwrap().1, Entry::File { digest, size: 3, executable: false });
        assert_eq!(fs::read(built.dir.join("dist/page.html")).unwrap(), b"<p>");
        assert_eq!(built.mounts[0].source, built.dir);
        // Its copy it may change, the codebase it may not.
        assert!(app.path().join("lib/source").exists() && !app.path().join("dist").exists());
        crate::assert_nothing_left(&state);
    }
}

#[test]
fn a_step_gets_nothing_of_the_builders_environment() {
    let (app, home) = (scripted("env"), Home::new());
    let mut request = request(app.path(), home.path());
    request.host.registry.insert("NO_PROXY".to_owned(), "example.org".into());
    let (_, said) = build(&request);
    let lines = said.lines();
    let has = |name: &str| lines.iter().any(|line| line.starts_with(&format!("{name}=")));
    assert!(has("PATH") && has("HOME") && has("SOURCE_DATE_EPOCH"), "{lines:?}");
    assert!(lines.contains(&"NO_PROXY=example.org".to_owned()), "{lines:?}");
    // Every test has these from cargo.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "LD_LIBRARY_PATH", "USER", "LOGNAME"] {
        assert!(!has(name), "{name}: {lines:?}");
    }
}

#[test]
fn with_a_root_of_its_own_a_step_sees_its_folders_alone() {
    let home = Home::new();
    let secret = home.write("secret", "");
    let script = format!("test -e {} && echo seen; pwd; id -u", secret.display());
    let app = scripted(&format!("{script}; true"));
    let spawner = spawner();
    for level in levels(&spawner).into_iter().filter(|level| level.has_own_root()) {
        let home = Home::new();
        let (_, said) = build(&Request { level, ..request(app.path(), home.path()) });
        let lines = said.lines();
        assert!(lines.contains(&"/app".to_owned()), "{level}: {lines:?}");
        assert!(!lines.contains(&"seen".to_owned()), "{level}: {lines:?}");
        assert!(!lines.contains(&"0".to_owned()), "{level} runs as root: {lines:?}");
    }
}

#[test]
fn git_never_enters_and_its_commit_is_told() {
    let (app, home) = (scripted("test ! -e .git"), Home::new());
    let head = commit(app.path());
    let (built, _) = build(&request(app.path(), home.path()));
    assert_eq!(built.commit, Some(head.clone()));
    app.write("new", "");
    let (built, _) = build(&request(app.path(), home.path()));
    assert_eq!(built.commit, Some(format!("{head}+dirty")));
    assert!(paths(&built).contains(&"new".to_owned()));
}

#[test]
fn a_step_that_fails_is_told_with_its_last_words() {
    let (app, home) =
        (scripted(r"printf 'odd \377 byte\n'; echo last words >&2; exit 3"), Home::new());
    let mut said = Vec::new();
    let request = request(app.path(), home.path());
    let built = tolv_build::build(&request, &mut |event| said.push(event));
    let Err(Error::Step { command, how, last, .. }) = built else { panic!("{built:?}") };
    assert!(command.ends_with("run build"), "{command}");
    assert_eq!(how, "exited with status 3");
    assert!(last.contains(&"last words".to_owned()), "{last:?}");
    assert!(said.contains(&Event::Line(b"odd \xff byte".to_vec())), "bytes are kept: {said:?}");
    crate::assert_nothing_left(home.path());
    let app = scripted("no-such-program-anywhere --fast");
    let error = refusal(&crate::request(app.path(), home.path()));
    assert!(error.to_string().contains("no-such-program-anywhere"), "{error}");
    assert!(error.help().unwrap().contains("devDependencies"), "{:?}", error.help());
}

#[test]
fn a_step_that_fails_is_told_with_its_reason() {
    let lines = "for i in $(seq 60); do echo gyp info it worked $i; done";
    let script = format!("{lines}; echo 'src/a.ts(3,1): error TS2304: no x'; {lines}; exit 2");
    let (app, home) = (scripted(&script), Home::new());
    let error = refusal(&request(app.path(), home.path()));
    let Error::Step { last, .. } = &error else { panic!("{error:?}") };
    assert_eq!(last, &["src/a.ts(3,1): error TS2304: no x"]);
}

#[test]
fn what_a_build_makes_is_checked_too() {
    let home = Home::new();
    let app = scripted("ln -s /etc/passwd users");
    let error = refusal(&request(app.path(), home.path())).to_string();
    assert!(error.contains("the link `users`, which leaves the slug"), "{error}");
    let app = scripted("mkfifo queue");
    let error = refusal(&request(app.path(), home.path())).to_string();
    assert!(error.contains("the build left `queue`"), "{error}");
}
