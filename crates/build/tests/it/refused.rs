//! What cannot be built: one clear error each, and nothing left.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use tolv_build::{Caps, Error, Request, Source};
use tolv_testkit::Home;
use tolv_testkit::git::commit;

use crate::{refusal, request};

fn refused(dir: &Path) -> Error {
    let home = Home::new();
    refusal(&request(dir, home.path()))
}

#[test]
fn a_link_that_leaves_the_tree() {
    let app = Home::new();
    app.write("Procfile", "web: ./run\n");
    symlink("../../etc/passwd", app.path().join("users")).unwrap();
    for tracked in [false, true] {
        let error = refused(app.path());
        assert!(matches!(error, Error::Source(_)));
        let text = error.to_string();
        assert!(text.contains("the link `users` leaves the codebase"), "{text}");
        assert!(text.contains("`../../etc/passwd`"), "{text}");
        if !tracked {
            commit(app.path());
        }
    }
    let home = Home::new();
    let source = Source::Commit { dir: app.path().to_owned(), commit: "HEAD".to_owned() };
    let error = refusal(&Request { source, ..request(app.path(), home.path()) });
    assert!(error.to_string().contains("`users`"), "{error}");
    app.write(".slugignore", "/users\n");
    crate::build(&request(app.path(), home.path()));
}

#[test]
fn a_file_over_the_limit() {
    let (app, home) = (Home::new(), Home::new());
    app.write("Procfile", "web: ./run\n");
    app.write("data/dump.sql", vec![b'x'; 5 << 20]);
    let caps = Caps { file: 4 << 20, ..Caps::default() };
    let error = refusal(&Request { caps, ..request(app.path(), home.path()) });
    assert!(matches!(error, Error::Limit { .. }));
    assert_eq!(error.to_string(), "the file `data/dump.sql` with 5 MiB is over the limit of 4 MiB");
}

#[test]
fn a_folder_that_is_none() {
    let app = Home::new();
    let file = app.write("Procfile", "web: ./run\n");
    let error = refused(&file);
    assert!(matches!(error, Error::Source(_)));
    assert_eq!(error.to_string(), format!("`{}` is not a folder", file.display()));
    let gone = app.path().join("gone");
    let error = refused(&gone);
    assert!(matches!(error, Error::Source(_)));
    assert_eq!(error.to_string(), format!("there is no folder `{}`", gone.display()));
}

#[test]
fn a_file_that_cannot_be_read() {
    use std::os::unix::fs::PermissionsExt as _;
    let app = Home::new();
    app.write("Procfile", "web: ./run\n");
    let path = app.write("lib/secret", "");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    if fs::read(&path).is_ok() {
        println!("root reads everything");
        return;
    }
    let error = refused(app.path());
    assert_eq!(error.to_string(), format!("cannot read `{}`", path.display()));
}

#[test]
fn a_named_pipe() {
    let app = Home::new();
    app.write("Procfile", "web: ./run\n");
    let (cwd, mode) = (rustix::fs::CWD, rustix::fs::Mode::RUSR);
    let pipe = app.path().join("queue");
    rustix::fs::mknodat(cwd, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    let error = refused(app.path()).to_string();
    assert!(error.starts_with("`queue` is a named pipe"), "{error}");
}

#[test]
fn nothing_that_a_builder_knows() {
    let app = Home::new();
    let error = refused(app.path());
    assert!(error.to_string().contains("the codebase has no files"), "{error}");
    app.write("main.c", "int main() {}");
    let error = refused(app.path());
    assert!(matches!(error, Error::Undetected { .. }));
    assert!(error.to_string().contains("no builder fits"), "{error}");
    for sign in ["Procfile", "package.json", "requirements.txt", "Cargo.toml", "go.mod"] {
        assert!(error.to_string().contains(sign), "{sign}: {error}");
    }
    assert!(error.help().unwrap().contains("Procfile"));
    // Detected, and yet nothing says what to run.
    app.write("package.json", "{}");
    let error = refused(app.path());
    assert!(error.to_string().contains("nothing says how to run this codebase"), "{error}");
    assert!(error.help().unwrap().contains("web: "));
}

#[test]
fn a_mistake_in_a_declarative_file() {
    let app = Home::new();
    app.write("Procfile", "web: ./run\n\nworker ./work\n");
    let error = refused(app.path());
    let Error::Manifest(error) = error else { panic!("{error:?}") };
    assert!(error.to_string().starts_with("Procfile:3:1: "), "{error}");
    app.write("Procfile", "web: ./run\n");
    app.write("app.json", "{\n  \"env\": 5\n}\n");
    let error = refused(app.path());
    let Error::Manifest(error) = error else { panic!("{error:?}") };
    assert!(error.to_string().starts_with("app.json:2:"), "{error}");
}

#[test]
fn packages_without_a_lock() {
    let app = Home::new();
    app.write("Procfile", "web: ./run\n");
    // They are resolved, unless a lock is required.
    let home = Home::new();
    let caps = Caps { require_lock: true, ..Caps::default() };
    let strict = Request { caps, ..request(app.path(), home.path()) };
    app.write("package.json", r#"{"name": "x", "dependencies": {"express": "^5"}}"#);
    let error = refusal(&strict);
    assert!(matches!(error, Error::Plan { builder: "node", .. }));
    assert!(error.help().unwrap().contains("npm install"), "{:?}", error.help());
    fs::remove_file(app.path().join("package.json")).unwrap();
    app.write("pyproject.toml", "[project]\nname = \"x\"\nversion = \"1\"\n");
    let error = refusal(&strict);
    assert!(matches!(error, Error::Plan { builder: "python", .. }));
    assert!(error.help().unwrap().contains("tolv lock"), "{:?}", error.help());
    fs::remove_file(app.path().join("pyproject.toml")).unwrap();
    app.write("requirements.txt", "click>=8\n");
    let error = refusal(&strict);
    assert!(error.to_string().contains("requirements.txt"), "{error}");
    assert!(error.help().unwrap().contains("tolv lock"), "{:?}", error.help());
}
