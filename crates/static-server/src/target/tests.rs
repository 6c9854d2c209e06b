use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(url: &str, path: &str, folder: bool) {
    assert_eq!(Target::parse(url), Ok(Target { path: path.into(), folder }), "{url}");
}

#[test]
fn plain_paths() {
    check("/", "", true);
    check("/a", "a", false);
    check("/a/", "a", true);
    check("/a/b.html", "a/b.html", false);
    check("/a%20b/%C3%A9", "a b/é", false);
    check("/a+b&c=d;e", "a+b&c=d;e", false);
    check("/a..b/c..", "a..b/c..", false);
}

#[test]
fn what_is_not_found() {
    for url in [
        "//",
        "//a",
        "/a//b",
        "/a//",
        "/..",
        "/../a",
        "/a/..",
        "/a/../b",
        "/.",
        "/./a",
        "/a/./",
        "/%2e%2e/a",
        "/%2E./a",
        "/a%2Fb",
        "/%2fetc/passwd",
        "/..%2f",
        "/.git/config",
        "/a/.env",
        "/%2eenv",
        "/.well-known/.secret",
        "/a/.well-known/b",
        "/.well-knownx",
        "/..a",
    ] {
        assert_eq!(Target::parse(url), Err(Refused::Nowhere), "{url}");
    }
}

#[test]
fn what_is_no_path() {
    for url in ["", "*", "a", "/%", "/%1", "/%zz", "/%+1", "/a%00b"] {
        assert_eq!(Target::parse(url), Err(Refused::Malformed), "{url}");
    }
}

#[test]
fn well_known_files_are_public() {
    check("/.well-known/security.txt", ".well-known/security.txt", false);
    check("/.well-known/", ".well-known", true);
}

#[test]
fn a_folder_leads_nowhere_else() {
    let location = |url: &str| Target::parse(url).map(|target| target.as_folder());
    assert_eq!(location("/a%20b/c"), Ok("/a%20b/c/".to_owned()));
    assert_eq!(location("/\\evil.com"), Ok("/%5Cevil.com/".to_owned()));
    assert_eq!(location("/"), Ok("/".to_owned()));
}

proptest! {
    #[test]
    fn a_target_is_below_the_root(url in "/([a-z.%/\\\\]|%2e|%2f|%5c|\\.\\./|é){0,24}") {
        if let Ok(target) = Target::parse(&url) {
            prop_assert!(!is_hidden(&target.path));
            prop_assert!(target.path.components().all(|part| matches!(part, Component::Normal(_))));
            let again = Target::parse(&target.as_folder()).unwrap();
            prop_assert_eq!(again, Target { folder: true, ..target });
        }
    }
}
