//! Apps whose codebase is one folder of a repository.

use serde_json::json;
use tolv_testkit::GitServer;

use super::*;

/// A repository of two sites and a library, with an app for each of the sites.
fn monorepo(extra: &[(&str, &str)]) -> Shop {
    let serve = Serve::start(env!("CARGO_BIN_EXE_tolv"), extra);
    let dir = serve.folder("mono");
    for (path, text) in [
        ("services/api/index.html", "api one"),
        ("services/api/static.json", r#"{"root": "."}"#),
        ("services/api/.slugignore", "draft.txt\n"),
        ("services/api/draft.txt", "draft"),
        ("services/web/index.html", "web one"),
        ("lib/shared.txt", "shared"),
        // What stands in the root is of neither.
        (".slugignore", "index.html\n"),
        ("Procfile", "web: false\n"),
        ("package.json", "{"),
    ] {
        write(&dir, path, text);
    }
    git::commit(&dir);
    for app in ["api", "web"] {
        serve.tolv(&dir, &["create", app, "--root", &format!("./services/{app}/")]);
    }
    Shop { serve, dir }
}

fn write(dir: &Path, path: &str, text: &str) {
    let path = dir.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn releases(shop: &Shop, app: &str) -> usize {
    let all = shop.json(&["releases", "-d", app]);
    all["items"].as_array().unwrap().len()
}

#[test]
fn a_push_builds_that_folder_alone_and_only_where_it_changed() {
    let mut shop = monorepo(&[]);
    let listed = shop.tolv(&["apps"]);
    assert!(listed.contains("ROOT") && listed.contains("services/api"), "{listed}");
    assert_eq!(shop.json(&["apps"])["items"][1]["root"], "services/web");
    let said = shop.pushed(&["api", "main"]);
    assert!(said.contains("The codebase is services/api of the commit"), "{said}");
    shop.pushed(&["web", "main"]);
    assert_eq!(shop.text("api.localhost", "/"), "api one");
    assert_eq!(shop.text("web.localhost", "/"), "web one");
    let files = shop.ran(&["run", "-d", "api", "--", "ls", "-A", "/app"]).out;
    let files: Vec<_> = files.split_whitespace().collect();
    assert!(files.contains(&"index.html") && !files.contains(&"draft.txt"), "{files:?}");
    for other in ["lib", "services", "Procfile", "package.json"] {
        assert!(!files.contains(&other), "{files:?}");
    }
    // What another folder has is no release, and the branch moves.
    write(&shop.dir, "services/web/index.html", "web two");
    let commit = git::commit(&shop.dir);
    let said = shop.pushed(&["api", "main"]);
    assert!(said.contains("-----> services/api is as in v1: nothing to deploy"), "{said}");
    assert_eq!(releases(&shop, "api"), 1);
    let there = git::git(&shop.dir, &["rev-parse", "api/main"]);
    assert_eq!(there, commit);
    assert!(shop.pushed(&["api", "main"]).contains("up-to-date"));
    shop.pushed(&["web", "main"]);
    assert_eq!(shop.text("web.localhost", "/"), "web two");
    assert_eq!(releases(&shop, "web"), 2);
    // Also after a restart of the platform, and by `tolv deploy`, which another folder does not hold up.
    shop.serve.end(rustix::process::Signal::TERM);
    shop.serve.begin();
    write(&shop.dir, "lib/shared.txt", "more");
    git::commit(&shop.dir);
    write(&shop.dir, "lib/shared.txt", "not committed");
    let ran = shop.ran(&["deploy", "-d", "api"]);
    assert!(ran.status.success(), "{}", ran.err);
    assert!(ran.err.contains("services/api is as in v1: nothing to deploy"), "{}", ran.err);
    assert!(ran.out.contains("api/production is at v1"), "{}", ran.out);
    write(&shop.dir, "services/api/index.html", "api two");
    let ran = shop.ran(&["deploy", "-d", "api"]);
    assert!(ran.err.contains("files differ from the commit: services/api"), "{}", ran.err);
    git::commit(&shop.dir);
    shop.pushed(&["api", "main"]);
    assert_eq!(shop.text("api.localhost", "/"), "api two");
    assert_eq!(releases(&shop, "api"), 2);
    // Back at the first release, the same files are another thing to do.
    shop.tolv(&["rollback", "v1", "-d", "api"]);
    assert_eq!(shop.text("api.localhost", "/"), "api one");
    write(&shop.dir, "lib/shared.txt", "even more");
    git::commit(&shop.dir);
    shop.pushed(&["api", "main"]);
    assert_eq!(shop.text("api.localhost", "/"), "api two");
}

#[test]
fn what_decides_about_a_build_beside_the_files_makes_a_push_of_them_a_release() {
    let shop = monorepo(&[]);
    shop.pushed(&["api", "main"]);
    let push = |text: &str| {
        write(&shop.dir, "lib/shared.txt", text);
        git::commit(&shop.dir);
        shop.pushed(&["api", "main"])
    };
    shop.tolv(&["config", "set", "--build", "MODE=new", "-d", "api"]);
    assert_eq!(releases(&shop, "api"), 2);
    let said = push("one");
    assert!(!said.contains("nothing to deploy") && said.contains("Release v3"), "{said}");
    assert!(push("two").contains("services/api is as in v3: nothing to deploy"));
    // What is stopped is started by a push.
    shop.tolv(&["stop", "-d", "api"]);
    let said = push("three");
    assert!(said.contains("Release v4"), "{said}");
    assert_eq!(shop.text("api.localhost", "/"), "api one");
    // A commit that is asked for by its name is always released.
    let path = "/v1/apps/api/deploys/production/operations";
    let commit = git::git(&shop.dir, &["rev-parse", "HEAD"]);
    let api = api::Api { serve: shop.serve };
    let answer = api.owner("POST", path, &json!({"kind": "deploy", "commit": commit}));
    assert_eq!(answer.status, 202, "{}", answer.text());
    poll(SOON, "v5", || {
        let all = api.owner("GET", "/v1/apps/api/deploys/production/releases", &json!(null));
        (api::body(&all)["items"][0]["number"] == 5).then_some(())
    });
}

#[test]
fn a_folder_that_the_commit_has_not_is_one_error_that_names_those_that_could_be_meant() {
    let shop = monorepo(&[]);
    shop.pushed(&["api", "main"]);
    write(&shop.dir, "node_modules/x/package.json", "{}");
    git::git(&shop.dir, &["mv", "services/api", "backend"]);
    git::commit(&shop.dir);
    let ran = shop.push(&["api", "main"]);
    assert!(!ran.status.success(), "{}", ran.err);
    let text = "has no folder `services/api`, the root folder of the app";
    assert_eq!(ran.err.matches(text).count(), 1, "{}", ran.err);
    let text = "folders with a Procfile or a manifest: backend;";
    assert!(ran.err.contains(text), "{}", ran.err);
    assert_eq!(shop.text("api.localhost", "/"), "api one");
    for (path, what) in [("services/file", "a file"), ("services/link", "a symbolic link")] {
        if what == "a file" {
            write(&shop.dir, path, "x");
        } else {
            std::os::unix::fs::symlink("../backend", shop.dir.join(path)).unwrap();
        }
        git::commit(&shop.dir);
        let app = path.split('/').next_back().unwrap();
        shop.tolv(&["create", app, "--root", path]);
        let ran = shop.push(&[app, "main"]);
        assert!(!ran.status.success(), "{}", ran.err);
        let text = format!("is {what} in the commit");
        assert!(ran.err.contains(&text), "{}", ran.err);
    }
    for (root, why) in [
        ("../api", "`.` or `..`"),
        ("/srv/api", "is absolute"),
        (".", "is the whole repository"),
        ("a/.git", "`.git`"),
    ] {
        let ran = shop.ran(&["create", "other", "--root", root]);
        assert_eq!(ran.status.code(), Some(2), "{}", ran.err);
        assert!(ran.err.contains(why), "{root}: {}", ran.err);
    }
    let api = api::Api { serve: shop.serve };
    for root in ["../api", ".", "a\nb"] {
        let answer = api.owner("POST", "/v1/apps", &json!({"name": "other", "root": root}));
        assert_eq!(answer.status, 400, "{root}: {}", answer.text());
    }
}

#[test]
fn a_submodule_below_it_is_fetched_and_one_beside_it_is_not() {
    let server = GitServer::start();
    let lib = server.repository("lib", &[("lib.txt", "of the submodule")]);
    let (services, certificate) = (server.address(), server.certificate());
    let shop = monorepo(&[
        ("TOLV_HOST_SERVICES", &services),
        ("GIT_SSL_CAINFO", certificate.to_str().unwrap()),
    ]);
    let one =
        |path: &str, url: &str| format!("[submodule \"{path}\"]\n\tpath = {path}\n\turl = {url}\n");
    let text = one("services/api/lib", &server.url("lib")) + &one("other", &server.url("gone"));
    write(&shop.dir, ".gitmodules", &text);
    git::git(&shop.dir, &["add", "--all"]);
    for path in ["services/api/lib", "other"] {
        let entry = format!("160000,{lib},{path}");
        git::git(&shop.dir, &["update-index", "--add", "--cacheinfo", &entry]);
    }
    git::git(&shop.dir, &["commit", "--quiet", "--message", "Submodules"]);
    shop.pushed(&["api", "main"]);
    assert_eq!(shop.text("api.localhost", "/lib/lib.txt"), "of the submodule");
    assert!(server.requests().iter().all(|path| !path.contains("gone")), "{:?}", server.requests());
}
