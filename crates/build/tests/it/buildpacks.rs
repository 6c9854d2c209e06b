//! Buildpacks that are folders of the codebase; those of git repositories are in `tolv`'s tests.

use std::fs;

use tolv_build::{Error, Event, Request};
use tolv_testkit::Home;

use crate::{build, levels, paths, refusal, request, spawner};

/// A buildpack in the folder `packs/<name>` of a codebase.
fn pack(app: &Home, name: &str, detect: &str, compile: &str) {
    app.write(&format!("packs/{name}/bin/detect"), format!("#!/bin/sh\n{detect}\n"));
    app.write(&format!("packs/{name}/bin/compile"), format!("#!/usr/bin/env bash\n{compile}\n"));
}

fn text(built: &tolv_build::Built, path: &str) -> String {
    fs::read_to_string(built.dir.join(path)).unwrap()
}

#[test]
fn they_run_one_after_the_other_at_every_level() {
    let app = Home::new();
    app.write(".buildpacks", "# ours\n./packs/one\npacks/two\n");
    let one = r#"
echo "-----> Making"
echo "       it"
echo " !     Old"
set -e
test -d "$3" && test -d "$2" && test "$HOME" = "$1" && test "$STACK" = host
echo run >> "$2/runs"
wc -l < "$2/runs" > "$1/runs"
mkdir -p "$1/.profile.d"
echo 'export LATE=1' > "$1/.profile.d/one.sh"
echo "export GREETING='two words'" > "$(dirname "$0")/../export"
"#;
    pack(&app, "one", "echo One", one);
    pack(&app, "two", "test -f $1/runs && echo Two", r#"printf %s "$GREETING" > "$1/greeting""#);
    app.write(
        "packs/two/bin/release",
        "#!/bin/sh\ncat <<END\n---\nconfig_vars:\n  MODE: fast\ndefault_process_types:\n  \
         web: bin/web --all\nEND\n",
    );
    app.write("Procfile", "worker: bin/work\n");
    for level in levels(&spawner()) {
        let home = Home::new();
        let request = Request { level, ..request(app.path(), home.path()) };
        let (built, said) = build(&request);
        assert!(said.heading("One app detected") && said.heading("Two app detected"), "{said:?}");
        assert!(said.heading("Making") && said.lines().contains(&"it".to_owned()), "{said:?}");
        assert!(said.0.contains(&Event::Warning("Old".to_owned())), "{said:?}");
        assert_eq!(text(&built, "greeting"), "two words", "{level}");
        assert_eq!(text(&built, "runs").trim(), "1");
        assert!(paths(&built).contains(&".profile.d/one.sh".to_owned()));
        let types: Vec<_> = built.manifest.process_types.iter().collect();
        let types: Vec<_> = types.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(types, [("web", "bin/web --all"), ("worker", "bin/work")]);
        assert_eq!(built.manifest.env["MODE"], "fast");
        let used: Vec<_> =
            built.manifest.buildpacks.iter().map(|pack| pack.name.as_str()).collect();
        assert_eq!(used, ["./packs/one", "packs/two"]);
        // The same input gives the same slug, and runs nothing.
        let (again, said) = build(&request);
        assert_eq!(again.slug, built.slug);
        assert!(said.heading("Nothing has changed since the last build"));
        // The cache is kept.
        app.write("page", level.to_string());
        let (next, _) = build(&request);
        assert_ne!(next.slug, built.slug);
        assert_eq!(text(&next, "runs").trim(), "2");
        fs::remove_file(app.path().join("page")).unwrap();
        crate::assert_nothing_left(home.path());
    }
}

#[test]
fn one_before_a_builder_makes_the_codebase_that_it_sees() {
    let (app, home) = (Home::new(), Home::new());
    app.write("app.json", r#"{"buildpacks": ["./packs/sub", "heroku/nodejs", "./packs/last"]}"#);
    let sub = r#"
shopt -s dotglob
cp -R "$1/services/web" /tmp/web && rm -rf "$1"/* && cp -R /tmp/web/. "$1/"
echo "export TOLD=yes" > "$(dirname "$0")/../export"
"#;
    pack(&app, "sub", "echo Sub", sub);
    pack(&app, "last", "test -f $1/told", r#"cat "$1/told" > "$1/last""#);
    let manifest =
        r#"{"name": "web", "version": "1.0.0", "scripts": {"build": "echo $TOLD > told"}}"#;
    app.write("services/web/package.json", manifest);
    app.write("services/web/Procfile", "web: node server.js\n");
    let (built, _) = build(&request(app.path(), home.path()));
    assert_eq!(paths(&built), ["Procfile", "last", "package.json", "told"]);
    assert_eq!(text(&built, "last"), "yes\n");
    let types: Vec<_> = built.manifest.process_types.keys().map(|kind| kind.as_str()).collect();
    assert_eq!(types, ["web"]);
    let (again, _) = build(&request(app.path(), home.path()));
    assert_eq!(again.slug, built.slug);
}

#[test]
fn one_that_fails_is_told_with_its_reason() {
    let (app, home) = (Home::new(), Home::new());
    app.write(".buildpacks", "./packs/one\n");
    app.write("Procfile", "web: x\n");
    let request = request(app.path(), home.path());
    pack(&app, "one", "echo 'no pom.xml here' >&2; exit 1", "true");
    let error = refusal(&request).to_string();
    let wanted = "the buildpack ./packs/one does not fit this codebase: its bin/detect exited with \
                  status 1: no pom.xml here";
    assert_eq!(error, wanted);
    let compile = "echo 'error: an early one'; seq 20; echo ' !     You need X'; echo; exit 3";
    pack(&app, "one", "true", compile);
    let error = refusal(&request).to_string();
    assert_eq!(error, "`bin/compile of ./packs/one` exited with status 3: You need X");
    pack(&app, "one", "true", "true");
    for (release, why) in [
        ("echo 'a: [x'", "prints what is not YAML"),
        ("yes | head -c 100000", "over the limit of 64 KiB"),
        ("exit 1", "`bin/release of ./packs/one` exited with status 1"),
    ] {
        app.write("packs/one/bin/release", format!("#!/bin/sh\n{release}\n"));
        let error = refusal(&request).to_string();
        assert!(error.contains(why), "{error}");
    }
    fs::remove_file(app.path().join("packs/one/bin/compile")).unwrap();
    let error = refusal(&request).to_string();
    assert_eq!(error, "`./packs/one` is not a buildpack: it has no `bin/compile`");
    app.write(".buildpacks", "mars/create-react-app\n");
    let error = refusal(&request).to_string();
    assert!(
        error.contains("there is no folder `mars/create-react-app` in the codebase"),
        "{error}"
    );
    app.write(".buildpacks", "\n../packs\n");
    let error = refusal(&request).to_string();
    assert!(error.contains("`.buildpacks` line 2: the buildpack `../packs` leaves"), "{error}");
}

#[test]
fn what_one_leaves_is_a_strangers() {
    let (app, home) = (Home::new(), Home::new());
    app.write(".buildpacks", "./packs/one\n");
    let request = request(app.path(), home.path());
    pack(&app, "one", "true", r#"ln -s /etc/passwd "$1/Procfile""#);
    let error = refusal(&request).to_string();
    assert!(error.contains("nothing says how to run this codebase"), "{error}");
    app.write("Procfile", "web: x\n");
    pack(&app, "one", "true", r#"ln -s /etc "$1/etc""#);
    let error = refusal(&request).to_string();
    assert!(error.contains("the link `etc`, which leaves the slug"), "{error}");
    pack(&app, "one", "true", r#"mkfifo "$1/queue""#);
    let error = refusal(&request).to_string();
    assert!(error.contains("the build left `queue`"), "{error}");
    // Its own copy may not grow without end either.
    pack(&app, "one", "true", r#"head -c 90M /dev/zero > "$(dirname "$0")/noise"; sleep 60"#);
    let mut small = request.clone();
    small.caps.slug = 64 << 20;
    let error = refusal(&small);
    assert!(matches!(&error, Error::Limit { what, .. } if what == "the buildpack"), "{error}");
    // The folder of a buildpack may be a link.
    fs::remove_dir_all(app.path().join("packs")).unwrap();
    std::os::unix::fs::symlink("/etc", app.path().join("packs")).ok();
    let error = refusal(&request).to_string();
    assert!(error.contains("the link `packs` leaves the codebase"), "{error}");
}
