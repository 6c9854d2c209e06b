//! What a codebase has that Tolv does not build, does not use, or that cannot work: named before
//! anything is tried.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Output;

use tolv_testkit::{Home, git};

use crate::{output, shop, stderr, tolv};

fn build(home: &Home) -> Output {
    output(tolv().arg("build").arg(shop(home)))
}

#[track_caller]
fn refused(files: &[(&str, &str)], wanted: &[&str]) {
    let home = Home::new();
    for (path, text) in files {
        home.write(&format!("shop/{path}"), text);
    }
    let ended = build(&home);
    let said = stderr(&ended);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    for text in wanted {
        assert!(said.contains(text), "{text} in {said}");
    }
    assert!(!said.contains("-----> "), "nothing was begun: {said}");
}

#[test]
fn what_is_recognised_and_not_built_is_refused_at_detection() {
    for file in [
        "pom.xml",
        "build.gradle",
        "composer.json",
        "build.sbt",
        "mix.exs",
        "Shop.csproj",
        "deno.json",
    ] {
        let named = format!("`{file}` is of ");
        let way = format!("name `{file}` in `.slugignore`");
        let wanted = [named.as_str(), "which Tolv does not build", &way];
        refused(&[(file, "x")], &wanted);
        refused(&[(file, "x"), ("Procfile", "web: ./run\n"), ("Dockerfile", "FROM x")], &wanted);
    }
    refused(&[("Dockerfile", "FROM x")], &["has a `Dockerfile`", "builds no images", "`Procfile`"]);
    // Beside what is built, where the Procfile runs it.
    let php = [
        ("index.html", ""),
        ("composer.json", "{}"),
        ("bin/serve", "#!/usr/bin/env php\n"),
        ("Procfile", "web: bin/serve now\n"),
    ];
    refused(&php, &["`composer.json` is of PHP", "the process type `web` of the Procfile runs it"]);
    refused(&[("procfile", "web: ./run\n")], &["rename `procfile` to `Procfile`"]);
}

#[test]
fn manifests_that_are_links_and_code_without_a_manifest_are_named() {
    refused(
        &[("setup.py", "x"), ("Procfile", "web: python server.py\n")],
        &["`setup.py` alone", "list what the app needs in `requirements.txt`"],
    );
    refused(&[("web.go", "package main")], &["`web.go` alone", "go mod init"]);
    let home = Home::new();
    home.write("shop/sub/requirements.txt", "six==1.17.0\n");
    home.write("shop/Procfile", "web: python -m http.server $PORT\n");
    let link = |name: &str| {
        std::os::unix::fs::symlink(format!("sub/{name}"), shop(&home).join(name)).unwrap();
    };
    link("requirements.txt");
    let said = stderr(&build(&home));
    assert!(said.contains("`requirements.txt` is a symbolic link"), "{said}");
    // Beside what is built it is a warning, and beside a Procfile where it is no manifest.
    fs::remove_file(shop(&home).join("requirements.txt")).unwrap();
    home.write("shop/Procfile", "web: ./run\n");
    link("app.json");
    let ended = build(&home);
    let said = stderr(&ended);
    assert!(ended.status.success() && said.contains("`app.json` is not read"), "{said}");
    link("requirements.txt");
    home.write("shop/index.html", "");
    let ended = build(&home);
    let said = stderr(&ended);
    assert!(ended.status.success(), "{said}");
    for name in ["requirements.txt", "app.json"] {
        assert!(said.contains(&format!("`{name}` is not read: it is a symbolic link")), "{said}");
    }
}

#[test]
fn a_key_of_another_platform_may_have_any_type() {
    let home = Home::new();
    home.write("shop/index.html", "");
    home.write("shop/app.json", r#"{"addons": "sentry", "environments": [], "stack": 22}"#);
    let ended = build(&home);
    let said = stderr(&ended);
    assert!(ended.status.success(), "{said}");
    for key in ["addons", "environments", "stack"] {
        assert!(said.contains(&format!("key `{key}` has no effect")), "{said}");
    }
}

#[test]
fn what_is_not_used_is_named_in_a_warning() {
    let home = Home::new();
    for (path, text) in [
        ("index.html", ""),
        ("Gemfile", ""),
        ("Dockerfile", ""),
        ("Aptfile", "libvips42\n"),
        ("Procfile.txt", "web: x\n"),
    ] {
        home.write(&format!("shop/{path}"), text);
    }
    let app_json = "/* Dokku's */\n{\n  \"formation\": {\"worker\": {\"quantity\": 1}, \"run\": {}},\n  \
        \"healthchecks\": {\"clock\": [{\"type\": \"startup\", \"uptime\": 1}]}, // none\n}\n";
    home.write("shop/app.json", app_json);
    let ended = build(&home);
    let said = stderr(&ended);
    assert!(ended.status.success(), "{said}");
    for text in [
        "`Gemfile` is not built: the static builder took the codebase",
        "`Dockerfile` is not used",
        "`Aptfile` is not used: its packages are not installed",
        "`Procfile.txt` is not read",
        "`formation.worker` of app.json has no effect: there is no process type `worker`, only web",
        "`healthchecks.clock` of app.json has no effect",
    ] {
        assert_eq!(said.matches(text).count(), 1, "{text} in {said}");
    }
    assert!(!said.contains("`formation.run`"), "{said}");
    // A comment moves no place of an error.
    home.write("shop/app.json", "// one\n{ /* two\n */ \"env\": 5, }\n");
    let said = stderr(&build(&home));
    assert!(said.contains("app.json:3:12") || said.contains("3:12"), "{said}");
}

/// Text as editors of Windows save it.
fn utf16(text: &str) -> Vec<u8> {
    let units = text.encode_utf16().flat_map(u16::to_le_bytes);
    [0xff, 0xfe].into_iter().chain(units).collect()
}

#[test]
fn utf_16_is_named_as_that() {
    for (name, others) in [
        ("Procfile", &[][..]),
        ("app.json", &[("Procfile", "web: x\n")]),
        ("requirements.txt", &[("Procfile", "web: x\n")]),
        ("package.json", &[("Procfile", "web: x\n")]),
    ] {
        for mark in [0, 2] {
            let home = Home::new();
            for (path, text) in others {
                home.write(&format!("shop/{path}"), text);
            }
            home.write(&format!("shop/{name}"), &utf16("{\"a\": 1}\n")[mark..]);
            let ended = build(&home);
            let said = stderr(&ended);
            assert_eq!(ended.status.code(), Some(1), "{name}: {said}");
            assert!(said.contains("is UTF-16") && said.contains(name), "{name}: {said}");
        }
    }
}

#[test]
fn scripts_that_no_shell_runs_are_named() {
    let home = Home::new();
    let procfile = "web: ./start.sh\nworker: exec sh bin/work.sh\nfine: ./fine.sh\n";
    home.write("shop/Procfile", procfile);
    home.write("shop/start.sh", "#!/bin/sh\r\nexec true\r\n");
    home.write("shop/bin/work.sh", "true\r\n");
    let fine = home.write("shop/fine.sh", "#!/bin/sh\ntrue\n");
    fs::set_permissions(fine, fs::Permissions::from_mode(0o755)).unwrap();
    // Told of what was built before too.
    for _ in 0..2 {
        let ended = build(&home);
        let said = stderr(&ended);
        assert!(ended.status.success(), "{said}");
        for text in [
            "`web` runs `start.sh`, which is not executable: run `git update-index --add --chmod=+x",
            "`web` runs `start.sh`, whose lines end with CR LF",
            "`worker` runs `bin/work.sh`, whose lines end with CR LF",
        ] {
            assert_eq!(said.matches(text).count(), 1, "{text} in {said}");
        }
        assert!(!said.contains("fine.sh"), "{said}");
    }
}

#[test]
fn a_submodule_that_is_not_checked_out_is_told_with_the_command() {
    let home = Home::new();
    home.write("lib/lib.txt", "x");
    let lib = git::commit(&home.path().join("lib"));
    home.write("shop/index.html", "");
    home.write("shop/.gitmodules", "[submodule \"lib\"]\n\tpath = lib\n\turl = ../lib\n");
    git::commit(&shop(&home));
    let entry = format!("160000,{lib},lib");
    git::git(&shop(&home), &["update-index", "--add", "--cacheinfo", &entry]);
    git::git(&shop(&home), &["commit", "--quiet", "--message", "A submodule"]);
    fs::create_dir(shop(&home).join("lib")).unwrap();
    for args in [&[][..], &["--commit", "HEAD"]] {
        let ended = output(tolv().arg("build").arg(shop(&home)).args(args));
        let said = stderr(&ended);
        assert_eq!(ended.status.code(), Some(1), "{said}");
        let wanted = "the submodule `lib` is not checked out; run `git submodule update --init";
        assert!(said.contains(wanted), "{said}");
    }
}
