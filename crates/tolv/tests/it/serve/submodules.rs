//! Submodules of what is pushed: fetched over https from another git server, or refused with the
//! reason.

use tolv_testkit::GitServer;

use super::*;

/// Commits, in an app's codebase, a submodule at `lib`.
fn add_submodule(dir: &Path, url: &str, commit: &str) {
    let text = format!("[submodule \"x\"]\n\tpath = lib\n\turl = {url}\n");
    std::fs::write(dir.join(".gitmodules"), text).unwrap();
    git::git(dir, &["add", "--all"]);
    git::git(dir, &["update-index", "--add", "--cacheinfo", &format!("160000,{commit},lib")]);
    git::git(dir, &["commit", "--quiet", "--allow-empty", "--message", "A submodule"]);
}

fn shop(server: &GitServer, extra: &[(&str, &str)]) -> Shop {
    let certificate = server.certificate();
    let mut settings = vec![("GIT_SSL_CAINFO", certificate.to_str().unwrap())];
    settings.extend(extra);
    Shop::site("one", &settings)
}

fn slug(shop: &Shop) -> String {
    let newest = shop.json(&["releases"])["items"][0]["slug"].clone();
    newest.as_str().unwrap().to_owned()
}

#[test]
fn they_are_fetched_at_the_commit_that_the_push_records() {
    let server = GitServer::start();
    let deep = server.repository("deep", &[("deep.txt", "deep")]);
    let nested = format!("[submodule \"d\"]\n\tpath = deep\n\turl = {}\n", server.url("deep"));
    let lib = server.work("lib");
    std::fs::write(lib.join("lib.txt"), "first").unwrap();
    std::fs::write(lib.join(".gitmodules"), nested).unwrap();
    git::commit(&lib);
    git::git(&lib, &["update-index", "--add", "--cacheinfo", &format!("160000,{deep},deep")]);
    git::git(&lib, &["commit", "--quiet", "--message", "Nested"]);
    let first = git::git(&lib, &["rev-parse", "HEAD"]);
    std::fs::write(lib.join("lib.txt"), "second").unwrap();
    git::git(&lib, &["commit", "--quiet", "--all", "--message", "Second"]);
    let second = git::git(&lib, &["rev-parse", "HEAD"]);
    server.publish("lib");
    let services = server.address();
    let shop = shop(&server, &[("TOLV_HOST_SERVICES", &services)]);
    add_submodule(&shop.dir, &server.url("lib"), &first);
    let said = shop.pushed(&["tolv", "main"]);
    let line = format!("lib at {} from {}", &first[..12], server.url("lib"));
    assert!(said.contains(&line), "{said}");
    assert_eq!(shop.text("shop.localhost", "/lib/lib.txt"), "first");
    assert_eq!(shop.text("shop.localhost", "/lib/deep/deep.txt"), "deep");
    // It is kept, and is a part of the slug.
    let (before, asked) = (slug(&shop), server.requests().len());
    std::fs::write(shop.dir.join("index.html"), "two").unwrap();
    add_submodule(&shop.dir, &server.url("lib"), &first);
    shop.pushed(&["tolv", "main"]);
    assert_eq!(server.requests().len(), asked, "{:?}", server.requests());
    std::fs::write(shop.dir.join("index.html"), "one").unwrap();
    add_submodule(&shop.dir, &server.url("lib"), &first);
    shop.pushed(&["tolv", "main"]);
    assert_eq!(slug(&shop), before, "the same files give the same slug");
    add_submodule(&shop.dir, &server.url("lib"), &second);
    shop.pushed(&["tolv", "main"]);
    assert_eq!(shop.text("shop.localhost", "/lib/lib.txt"), "second");
    assert_ne!(slug(&shop), before);
}

#[test]
fn what_cannot_be_fetched_is_refused_with_the_reason_and_no_secret_is_shown() {
    let server = GitServer::start();
    let lib = server.repository("lib", &[("lib.txt", "x")]);
    let none = "1".repeat(40);
    let services = server.address();
    let shop = shop(&server, &[("TOLV_HOST_SERVICES", &services)]);
    let host = server.address();
    let asked = || server.requests().len();
    let cases = [
        ("../lib.git".to_owned(), &lib, "is relative to a repository"),
        ("git@git.example.org:a/b.git".to_owned(), &lib, "`git.example.org:a/b.git` is not https"),
        ("ssh://git@git.example.org/a".to_owned(), &lib, "is not https"),
        ("git://git.example.org/a".to_owned(), &lib, "is not https"),
        (format!("http://{host}/lib.git"), &lib, "is not https"),
        ("file:///etc".to_owned(), &lib, "is not https"),
        ("ext::sh".to_owned(), &lib, "is not https"),
        (format!("https://ada:s3cret@{host}/lib.git"), &lib, "has a password in it"),
        (format!("https://{host}/lib.git?token=s3cret"), &lib, "has a query in it"),
    ];
    for (url, commit, why) in &cases {
        add_submodule(&shop.dir, url, commit);
        let ran = shop.push(&["--force", "tolv", "main"]);
        assert!(!ran.status.success(), "{url}: {}", ran.err);
        let text = "the submodule `lib` cannot be fetched: its URL `";
        assert!(ran.err.contains(text) && ran.err.contains(why), "{url}: {}", ran.err);
        assert!(!ran.err.contains("s3cret"), "{}", ran.err);
    }
    assert_eq!(asked(), 0, "{:?}", server.requests());
    add_submodule(&shop.dir, &server.url("lib"), &none);
    let ran = shop.push(&["tolv", "main"]);
    assert!(ran.err.contains("that repository has no such commit"), "{}", ran.err);
    add_submodule(&shop.dir, &server.url("none"), &lib);
    let ran = shop.push(&["tolv", "main"]);
    assert!(ran.err.contains("cannot fetch the submodule `lib`"), "{}", ran.err);
    // One that nobody gave a URL.
    std::fs::remove_file(shop.dir.join(".gitmodules")).unwrap();
    git::git(&shop.dir, &["add", ".gitmodules"]);
    git::git(&shop.dir, &["update-index", "--add", "--cacheinfo", &format!("160000,{lib},lib")]);
    git::git(&shop.dir, &["commit", "--quiet", "--message", "No URL"]);
    let ran = shop.push(&["tolv", "main"]);
    assert!(ran.err.contains("for which `.gitmodules` has no URL"), "{}", ran.err);
}

#[test]
fn a_service_of_the_machine_is_out_of_reach_unless_the_operator_lists_it() {
    let server = GitServer::start();
    let lib = server.repository("lib", &[("lib.txt", "x")]);
    let shop = shop(&server, &[]);
    if !network::is_strict_with_networks(&shop) {
        println!("skipped: no networks of their own");
        return;
    }
    add_submodule(&shop.dir, &server.url("lib"), &lib);
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success());
    assert!(ran.err.contains("cannot fetch the submodule `lib`"), "{}", ran.err);
    assert_eq!(server.requests(), [""; 0]);
}

#[test]
fn a_large_one_is_stopped_at_the_limit_of_the_codebase() {
    let server = GitServer::start();
    let lib = server.work("lib");
    let mut noise = vec![0; 3 << 20];
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom").unwrap(), &mut noise)
        .unwrap();
    std::fs::write(lib.join("noise"), noise).unwrap();
    let commit = git::commit(&lib);
    server.publish("lib");
    let services = server.address();
    let extra = [("TOLV_HOST_SERVICES", services.as_str()), ("TOLV_BUILD_MIB", "2")];
    let shop = shop(&server, &extra);
    add_submodule(&shop.dir, &server.url("lib"), &commit);
    let ran = shop.push(&["tolv", "main"]);
    assert!(!ran.status.success());
    let limit = "the size of the commit's submodules together is over the limit of 2 MiB";
    assert!(ran.err.contains(limit), "{}", ran.err);
    // Nothing of it is left.
    let apps = shop.serve.state().join("apps");
    let app = std::fs::read_dir(apps).unwrap().flatten().next().unwrap().path();
    let left = std::fs::read_dir(app.join("submodules")).unwrap().count();
    assert_eq!(left, 0);
}
