//! Buildpacks of git repositories: fetched over https from another server, run in order, refused with
//! the reason.

use tolv_testkit::GitServer;

use super::*;

const DETECT: &str = "#!/bin/sh\necho Greeter\n";
const COMPILE: &str = r#"#!/bin/sh
set -e
echo "-----> Greeting"
echo runs >> "$2/runs"
printf 'VERSION %s' "$(wc -l < "$2/runs")" > "$1/greeting.txt"
id -u > "$1/uid.txt"
test ! -e "$3/DATABASE_URL"
"#;
const RELEASE: &str =
    "#!/bin/sh\nprintf 'default_process_types:\\n  web: python3 -m http.server $PORT\\n'\n";

/// Publishes a buildpack whose compile script has `version` in it; returns its commit.
fn publish(server: &GitServer, name: &str, version: &str) -> String {
    let work = server.work(name);
    std::fs::create_dir_all(work.join("bin")).unwrap();
    for (path, text) in [("detect", DETECT), ("compile", COMPILE), ("release", RELEASE)] {
        let text = text.replace("VERSION", version);
        std::fs::write(work.join("bin").join(path), text).unwrap();
    }
    let commit = git::commit(&work);
    server.publish(name);
    commit
}

/// A codebase that says nothing of how it is built, on a platform that reaches the server.
fn shop(server: &GitServer, extra: &[(&str, &str)]) -> Shop {
    let certificate = server.certificate();
    let services = server.address();
    let mut settings = vec![
        ("GIT_SSL_CAINFO", certificate.to_str().unwrap()),
        ("TOLV_HOST_SERVICES", services.as_str()),
    ];
    settings.extend(extra);
    let shop = Shop::site("one", &settings);
    std::fs::remove_file(shop.dir.join("index.html")).unwrap();
    shop.change("page.html", "one");
    shop
}

fn slug(shop: &Shop) -> String {
    shop.json(&["releases"])["items"][0]["slug"].as_str().unwrap().to_owned()
}

#[test]
fn one_is_fetched_run_and_pinned() {
    let server = GitServer::start();
    let first = publish(&server, "pack", "1");
    let shop = shop(&server, &[]);
    let url = server.url("pack");
    let listed = shop.tolv(&["buildpacks", "add", &url]);
    assert_eq!(listed, format!("1. {url}\n"));
    let said = shop.pushed(&["tolv", "main"]);
    assert!(said.contains(&format!("Buildpack {url} at {}", &first[..12])), "{said}");
    assert!(said.contains("-----> Greeter app detected"), "{said}");
    assert!(said.contains("-----> Greeting"), "{said}");
    assert_eq!(shop.text("shop.localhost", "/greeting.txt"), "1 1");
    assert_ne!(shop.text("shop.localhost", "/uid.txt").trim(), "0", "a build is nobody");
    let before = slug(&shop);
    // The same commit and the same buildpack give the same slug, though another run would not.
    push_again(&shop);
    assert_eq!(slug(&shop), before);
    assert_eq!(shop.text("shop.localhost", "/greeting.txt"), "1 1");
    // The branch moves: the buildpack is another one.
    let second = publish_again(&server, "pack", "2");
    let said = push_again(&shop);
    assert!(said.contains(&format!("at {}", &second[..12])), "{said}");
    assert_eq!(shop.text("shop.localhost", "/greeting.txt"), "2 2");
    assert_ne!(slug(&shop), before);
    // A commit that is written out stays what it is, and is the same as before.
    shop.tolv(&["buildpacks", "clear"]);
    let pinned = format!("{url}#{first}");
    shop.change("app.json", &format!(r#"{{"buildpacks": [{{"url": "{pinned}"}}]}}"#));
    shop.pushed(&["tolv", "main"]);
    assert_eq!(shop.text("shop.localhost", "/greeting.txt"), "1 3");
}

/// Pushes a commit with the same files.
fn push_again(shop: &Shop) -> String {
    git::git(&shop.dir, &["commit", "--quiet", "--allow-empty", "--message", "Again"]);
    shop.pushed(&["tolv", "main"])
}

/// Publishes the next version of a buildpack.
fn publish_again(server: &GitServer, name: &str, version: &str) -> String {
    server.unpublish(name);
    publish(server, name, version)
}

#[test]
fn a_server_that_is_gone_holds_up_no_deploy() {
    let server = GitServer::start();
    let commit = publish(&server, "pack", "1");
    let shop = shop(&server, &[]);
    let url = server.url("pack");
    shop.change(".buildpacks", &format!("{url}#main\n"));
    shop.pushed(&["tolv", "main"]);
    server.unpublish("pack");
    shop.change("page.html", "two");
    let said = shop.pushed(&["tolv", "main"]);
    assert!(said.contains(&format!("taken is {}, as before", &commit[..12])), "{said}");
    assert_eq!(shop.text("shop.localhost", "/page.html"), "two");
}

#[test]
fn what_cannot_be_fetched_is_refused_with_the_reason() {
    let server = GitServer::start();
    publish(&server, "pack", "1");
    let lib = server.repository("lib", &[("lib.txt", "x")]);
    let work = server.work("nested");
    std::fs::create_dir_all(work.join("bin")).unwrap();
    std::fs::write(work.join("bin/compile"), "x").unwrap();
    git::commit(&work);
    git::git(&work, &["update-index", "--add", "--cacheinfo", &format!("160000,{lib},lib")]);
    git::git(&work, &["commit", "--quiet", "--message", "A submodule"]);
    server.publish("nested");
    let shop = shop(&server, &[]);
    let host = server.address();
    let asked = server.requests().len();
    for (text, why) in [
        ("ssh://git@git.example.org/a", "is not fetched"),
        ("file:///etc", "is not fetched"),
        ("--upload-pack=x", "begins with `-`"),
        (&format!("https://ada:s3cret@{host}/pack.git"), "has a name or a password"),
        (&format!("https://{host}/pack.git?token=s3cret"), "has a query"),
        (&format!("https://{host}/pack.git#--upload-pack=x"), "has a `#`"),
    ] {
        let ran = shop.ran(&["buildpacks", "add", "--", text]);
        assert!(!ran.status.success() && ran.err.contains(why), "{text}: {}", ran.err);
        shop.change("app.json", &format!(r#"{{"buildpacks": ["{text}"]}}"#));
        let ran = shop.push(&["--force", "tolv", "main"]);
        assert!(!ran.status.success() && ran.err.contains(why), "{text}: {}", ran.err);
        assert!(!ran.err.contains("s3cret"), "{}", ran.err);
    }
    assert_eq!(server.requests().len(), asked, "{:?}", server.requests());
    for (text, why) in [
        (format!("{}#none", server.url("pack")), "has no branch, tag or commit `none`"),
        (format!("{}#{}", server.url("pack"), "1".repeat(40)), "has no branch, tag or commit"),
        (server.url("gone"), "cannot fetch the buildpack"),
        (server.url("lib"), "is not a buildpack: it has no `bin/detect`"),
        (server.url("nested"), "`lib` is a submodule, and no submodule is fetched here"),
    ] {
        shop.change("app.json", &format!(r#"{{"buildpacks": ["{text}"]}}"#));
        let ran = shop.push(&["--force", "tolv", "main"]);
        assert!(!ran.status.success() && ran.err.contains(why), "{text}: {}", ran.err);
    }
}

#[test]
fn a_service_of_the_machine_is_out_of_reach_unless_the_operator_lists_it() {
    let server = GitServer::start();
    publish(&server, "pack", "1");
    let certificate = server.certificate();
    let shop = Shop::site("one", &[("GIT_SSL_CAINFO", certificate.to_str().unwrap())]);
    if !network::is_strict_with_networks(&shop) {
        println!("skipped: no networks of their own");
        return;
    }
    shop.change(".buildpacks", &server.url("pack"));
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success());
    assert!(ran.err.contains("cannot fetch the buildpack"), "{}", ran.err);
    assert_eq!(server.requests(), [""; 0]);
}

#[test]
fn a_large_one_is_stopped_at_the_limit_of_the_codebase() {
    let server = GitServer::start();
    let work = server.work("pack");
    let mut noise = vec![0; 3 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut noise)
        .unwrap();
    std::fs::write(work.join("noise"), noise).unwrap();
    publish(&server, "pack", "1");
    let shop = shop(&server, &[("TOLV_BUILD_MIB", "2")]);
    shop.change(".buildpacks", &server.url("pack"));
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success());
    let limit = "the size of the buildpacks together is over the limit of 2 MiB";
    assert!(ran.err.contains(limit), "{}", ran.err);
}

#[test]
fn the_operators_list_has_an_order_and_wins() {
    let server = GitServer::start();
    let shop = shop(&server, &[]);
    shop.tolv(&["buildpacks", "add", "./b"]);
    shop.tolv(&["buildpacks", "add", "--index", "1", "./a"]);
    let listed = shop.tolv(&["buildpacks", "add", "heroku/nodejs"]);
    assert_eq!(listed, "1. ./a\n2. ./b\n3. heroku/nodejs\n");
    let again = shop.ran(&["buildpacks", "add", "./a"]);
    assert!(again.err.contains("has the buildpack `./a` already"), "{}", again.err);
    assert_eq!(shop.tolv(&["buildpacks", "remove", "--index", "3"]), "1. ./a\n2. ./b\n");
    assert_eq!(shop.tolv(&["buildpacks", "remove", "./b"]), "1. ./a\n");
    let gone = shop.ran(&["buildpacks", "remove", "./b"]);
    assert!(!gone.status.success() && gone.err.contains("has no such buildpack"), "{}", gone.err);
    std::fs::create_dir_all(shop.dir.join("a/bin")).unwrap();
    std::fs::write(shop.dir.join("a/bin/detect"), DETECT).unwrap();
    std::fs::write(shop.dir.join("a/bin/compile"), "#!/bin/sh\necho a > $1/made.txt\n").unwrap();
    std::fs::write(shop.dir.join("a/bin/release"), RELEASE).unwrap();
    shop.change(".buildpacks", "./other\n");
    shop.pushed(&["tolv", "main"]);
    assert_eq!(shop.text("shop.localhost", "/made.txt"), "a\n");
    assert_eq!(shop.json(&["buildpacks"])["buildpacks"], serde_json::json!(["./a"]));
    assert!(shop.tolv(&["buildpacks", "clear"]).contains("No buildpacks are set"));
}
