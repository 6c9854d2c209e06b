//! `tolv build`: a codebase becomes a slug, the same one every time.

use std::path::Path;

use rustix::process::Signal;
use tolv_testkit::{Home, Tolv, git};

use crate::{SOON, codebase, output, shop, stderr, stdout, tolv};

fn built(dir: &Path) -> serde_json::Value {
    let ended = output(tolv().arg("build").arg(dir).arg("--json"));
    assert!(ended.status.success(), "{}", stderr(&ended));
    serde_json::from_slice(&ended.stdout).unwrap()
}

#[test]
fn two_clones_give_one_slug() {
    let home = codebase("web: python3 server.py\n");
    let commit = git::commit(&shop(&home));
    let (one, two) = (home.path().join("one"), home.path().join("deep/er/two"));
    for clone in [&one, &two] {
        let from = shop(&home);
        git::git(
            home.path(),
            &["clone", "--quiet", from.to_str().unwrap(), clone.to_str().unwrap()],
        );
    }
    let (first, second) = (built(&one), built(&two));
    assert_eq!(first["slug"], second["slug"]);
    assert_eq!(first["commit"], commit);
    assert!(first["slug"].as_str().unwrap().starts_with("sha256:"));
    home.write("one/new.txt", "x");
    let dirty = built(&one);
    assert_ne!(dirty["slug"], first["slug"]);
    assert_eq!(dirty["commit"], format!("{commit}+dirty"));
    let ended = output(tolv().arg("build").arg(&one).args(["--commit", "HEAD", "--json"]));
    let value: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(value["slug"], first["slug"], "a commit is built, not the working tree");
}

#[test]
fn text_names_the_slug_and_what_is_in_it() {
    let home = codebase("web: python3 server.py\nworker: sleep 1\n");
    let ended = output(tolv().arg("build").arg(shop(&home)));
    let text = stdout(&ended);
    assert!(text.starts_with("sha256:"), "{text}");
    for part in ["files", "web", "python3 server.py", "worker"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(stderr(&ended).contains("-----> "), "{}", stderr(&ended));
}

#[test]
fn an_interrupted_build_leaves_nothing_half_made() {
    let home = Home::new();
    home.write("shop/Procfile", "web: true\n");
    home.write("shop/package.json", r#"{"name": "shop", "version": "1.0.0", "scripts": {"build": "echo building && sleep 86399.25"}}"#);
    let mut tolv = Tolv::start(tolv().arg("build").arg(shop(&home)));
    tolv.wait_for_line(|line| line.trim() == "building", SOON);
    tolv.signal(Signal::INT);
    assert_eq!(tolv.wait(SOON).code(), Some(130));
    let builds = std::fs::read_dir(shop(&home).join(".tolv/builds")).unwrap();
    let left: Vec<_> = builds.flatten().filter(|e| e.path().is_dir()).collect();
    assert!(left.is_empty(), "{left:?}");
    let asleep = || crate::processes_with("86399.25").is_empty().then_some(());
    tolv_testkit::poll(SOON, "the build's processes to be gone", asleep);
}

#[test]
fn go_is_compiled_and_two_clones_give_one_slug() {
    let home = Home::new();
    home.write("shop/go.mod", "module example.org/shop\n\ngo 1.19\n");
    home.write(
        "shop/main.go",
        r#"package main

import (
	"fmt"
	"net/http"
	"os"
)

func main() {
	http.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "Hello from Go") })
	fmt.Println(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
"#,
    );
    git::commit(&shop(&home));
    let clone = home.path().join("elsewhere/shop");
    let from = shop(&home);
    git::git(home.path(), &["clone", "--quiet", from.to_str().unwrap(), clone.to_str().unwrap()]);
    let (first, second) = (built(&shop(&home)), built(&clone));
    assert_eq!(first["slug"], second["slug"]);
    assert_eq!(first["process_types"]["web"], "bin/shop", "the builder's own process type");
    let up = crate::Up::start(&clone, &[]);
    assert_eq!(up.text("/"), "Hello from Go");
}

#[test]
fn a_single_page_app_is_built_and_answers_its_own_paths() {
    let home = Home::new();
    let build =
        "mkdir -p dist/assets && echo the app > dist/index.html && echo js > dist/assets/a.js";
    home.write(
        "shop/package.json",
        format!(r#"{{"name": "shop", "scripts": {{"build": "{build}", "start": "vite"}}}}"#),
    );
    home.write(
        "shop/static.json",
        r#"{"root": "dist", "clean_urls": true, "routes": {"/assets/*": "none.html", "/**": "index.html"},
            "headers": {"/**": {"X-Frame-Options": "DENY"}}}"#,
    );
    let up = crate::Up::start(&shop(&home), &[]);
    for path in ["/", "/users/7", "/users/7/edit?tab=1"] {
        let page = up.get(path).unwrap();
        assert_eq!((page.status, page.text().trim()), (200, "the app"), "{path}");
        assert_eq!(page.header("x-frame-options"), Some("DENY"));
    }
    assert_eq!(up.text("/assets/a.js").trim(), "js");
    assert_eq!(up.get("/assets/old.js").unwrap().status, 404);
}

#[test]
fn a_mistake_in_static_json_is_told_by_the_build() {
    let home = Home::new();
    home.write("shop/index.html", "x");
    home.write("shop/static.json", r#"{"root": ".", "routes": {"/**": "../../etc/passwd"}}"#);
    let ended = output(tolv().arg("build").arg(shop(&home)));
    assert!(!ended.status.success());
    let text = stderr(&ended);
    assert!(text.contains("`static.json`: a route leads to `../../etc/passwd`"), "{text}");
}
