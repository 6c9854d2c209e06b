//! The same source gives the same slug, wherever and whenever it is built.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use tolv_build::Source;
use tolv_model::name::ProcessType;
use tolv_model::slug::SlugId;
use tolv_testkit::Home;
use tolv_testkit::git::{commit, git};

use crate::{assert_nothing_left, build, paths, request};

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A codebase of any language, with what a file system can make difficult.
fn app() -> Home {
    let app = Home::new();
    app.write("Procfile", "web: bin/serve --port $PORT\nworker: bin/work\n");
    app.write("bin/serve", "#!/bin/sh\nexec sleep 1\n");
    set_mode(&app.path().join("bin/serve"), 0o755);
    app.write("lib/empty", "");
    fs::write(app.path().join(OsStr::from_bytes(b"lib/caf\xe9 au lait")), "bytes").unwrap();
    symlink("../bin/serve", app.path().join("lib/link")).unwrap();
    app
}

fn slug(dir: &Path) -> SlugId {
    let home = Home::new();
    build(&request(dir, home.path())).0.slug
}

#[test]
fn two_clones_two_homes_one_slug() {
    let repository = app();
    let head = commit(repository.path());
    let folders = [Home::new(), Home::new()];
    let url = repository.path().to_str().unwrap();
    let builds = folders.each_ref().map(|folder| {
        let name = format!("clone {}", folder.path().file_name().unwrap().display());
        git(folder.path(), &["clone", "--quiet", url, &name]);
        build(&request(&folder.path().join(name), &folder.path().join("state of it"))).0
    });
    let [one, two] = &builds;
    assert_eq!(one.slug, two.slug);
    assert_eq!(one.manifest, two.manifest);
    assert_eq!(one.commit, Some(head.clone()));
    assert_ne!(one.dir, two.dir);
    assert_eq!(
        paths(one),
        ["Procfile", "bin", "bin/serve", "lib", "lib/caf\u{fffd} au lait", "lib/empty", "lib/link",]
    );
    assert_eq!(one.manifest.process_types[&ProcessType::web()], "bin/serve --port $PORT");
    assert_eq!(
        fs::metadata(one.dir.join("bin/serve")).unwrap().permissions().mode() & 0o777,
        0o755
    );
    // The commit itself, and the files without their repository.
    let home = Home::new();
    let source = Source::Commit { dir: repository.path().to_owned(), commit: "main".to_owned() };
    let exported = build(&crate::Request { source, ..request(repository.path(), home.path()) }).0;
    assert_eq!((exported.slug, exported.commit), (one.slug, Some(head)));
    fs::remove_dir_all(repository.path().join(".git")).unwrap();
    assert_eq!(slug(repository.path()), one.slug);
}

#[test]
fn times_modes_and_owners_are_not_in_it() {
    let app = app();
    let before = slug(app.path());
    let day = SystemTime::now() - Duration::from_secs(86_400);
    File::options()
        .append(true)
        .open(app.path().join("Procfile"))
        .unwrap()
        .set_modified(day)
        .unwrap();
    assert_eq!(slug(app.path()), before);
    for (file, program, folder) in [(0o600, 0o700, 0o700), (0o664, 0o775, 0o2775)] {
        set_mode(&app.path().join("Procfile"), file);
        set_mode(&app.path().join("bin/serve"), program);
        set_mode(&app.path().join("bin"), folder);
        assert_eq!(slug(app.path()), before);
    }
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(app.path().join("bin/serve"), Some(1234), Some(1234)).unwrap();
        assert_eq!(slug(app.path()), before);
    }
}

#[test]
fn contents_names_and_commands_are_in_it() {
    let app = app();
    let mut known = vec![slug(app.path())];
    let mut changed = |what: &str| {
        let id = slug(app.path());
        assert!(!known.contains(&id), "{what}");
        known.push(id);
    };
    app.write("lib/empty", "x");
    changed("a file's bytes");
    set_mode(&app.path().join("lib/empty"), 0o755);
    changed("what may be executed");
    fs::rename(app.path().join("lib/empty"), app.path().join("lib/full")).unwrap();
    changed("a name");
    fs::remove_file(app.path().join("lib/link")).unwrap();
    symlink("../bin", app.path().join("lib/link")).unwrap();
    changed("a link's target");
    app.write("Procfile", "web: bin/serve\n");
    changed("a command");
}

#[test]
fn building_the_same_again_is_a_look_up() {
    let (app, home) = (app(), Home::new());
    let again = "Nothing has changed since the last build";
    let request = request(app.path(), home.path());
    let (first, said) = build(&request);
    assert!(!said.heading(again) && said.heading("Packing the slug"));
    assert!(said.heading(&format!("Slug {}", first.slug)));
    let (second, said) = build(&request);
    assert!(said.heading(again) && !said.heading("Packing the slug"));
    assert_eq!((second.slug, &second.mounts), (first.slug, &first.mounts));
    assert_eq!(second.manifest, first.manifest);
    // A slug that somebody damaged is made again.
    fs::remove_file(first.dir.join("bin/serve")).unwrap();
    let (third, said) = build(&request);
    assert!(!said.heading(again));
    assert_eq!(third.slug, first.slug);
    assert!(third.dir.join("bin/serve").exists());
    assert_nothing_left(home.path());
}

#[test]
fn the_codebase_itself_is_left_alone() {
    let (app, home) = (app(), Home::new());
    app.write(".gitignore", "/.tolv\n");
    commit(app.path());
    // As `tolv up` does: the state folder is in the codebase.
    let state = app.path().join(".tolv");
    let (one, _) = build(&request(app.path(), &state));
    assert!(!paths(&one).contains(&".tolv".to_owned()));
    assert_eq!(git(app.path(), &["status", "--porcelain"]), "");
    let (two, said) = build(&request(app.path(), &state));
    assert_eq!(two.slug, one.slug);
    assert!(said.heading("Nothing has changed since the last build"));
    assert_eq!(build(&request(app.path(), home.path())).0.slug, one.slug);
}

#[test]
fn a_folder_whose_name_is_no_text_can_be_built() {
    let place = Home::new();
    let odd = place.path().join(OsStr::from_bytes(b"my \xff\n'app'"));
    let app = app();
    fs::rename(app.path(), &odd).unwrap();
    let one = slug(&odd);
    let (two, _) = build(&request(&odd, &odd.join(".tolv")));
    assert_eq!(two.slug, one);
    assert!(two.dir.join("Procfile").exists());
    fs::rename(&odd, app.path()).unwrap();
}

#[test]
fn a_static_site_needs_no_procfile() {
    let (app, home) = (Home::new(), Home::new());
    app.write("index.html", "<h1>Hello</h1>");
    let (built, said) = build(&request(app.path(), home.path()));
    assert!(said.heading("Building with the static builder"));
    assert!(built.manifest.process_types[&ProcessType::web()].ends_with(" static-server ."));
    assert_eq!(slug(app.path()), built.slug);
}
