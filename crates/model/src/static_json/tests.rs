use super::*;

fn matches(pattern: &str, path: &str) -> bool {
    Pattern(pattern.to_owned()).matches(path)
}

#[test]
fn stars_are_parts_and_double_stars_are_any_text() {
    for (pattern, path) in [
        ("/**", "/"),
        ("/**", "/a/b"),
        ("/*.html", "/baz.html"),
        ("/route/**", "/route/foo/bar/baz"),
        ("/a/*/c", "/a/b/c"),
        ("/**/end", "/a/b/end"),
        ("/a.b", "/a.b"),
        ("/*", "/"),
    ] {
        assert!(matches(pattern, path), "{pattern} {path}");
    }
    for (pattern, path) in [
        ("/*.html", "/bar/baz.html"),
        ("/route/**", "/route"),
        ("/a.b", "/aXb"),
        ("/*", "/a/b"),
        ("/", "/a"),
        ("", "/"),
        ("/(.+)+$", "/aaaa"),
    ] {
        assert!(!matches(pattern, path), "{pattern} {path}");
    }
}

#[test]
fn a_pattern_of_many_stars_takes_no_time() {
    let pattern = format!("/{}x", "**a".repeat(300));
    assert!(!matches(&pattern, &format!("/{}", "a".repeat(8000))));
}

#[test]
fn the_first_route_in_the_order_of_the_file_is_taken() {
    let json = StaticJson::parse(
        r#"{"routes": {"/z/*": "/z.html", "/a/**": "a.html",
            "/**": {"path": "index.html", "except": ["/api/", "/x/*.js"]}}}"#,
    )
    .unwrap();
    assert_eq!(json.route("/z/1"), Some("z.html"));
    assert_eq!(json.route("/a/b/c"), Some("a.html"));
    assert_eq!(json.route("/else"), Some("index.html"));
    assert_eq!((json.route("/api/users"), json.route("/x/y.js")), (None, None));
    assert_eq!(json.route("/api"), Some("index.html"));
}

#[test]
fn headers_add_up_in_the_order_of_the_file() {
    let json = StaticJson::parse(
        r#"{"headers": {"/**": {"X-A": "1", "Cache-Control": "no-store"},
            "/assets/**": {"Cache-Control": "public, max-age=512000"}}}"#,
    )
    .unwrap();
    let all: Vec<_> = json.headers("/assets/a.js").collect();
    assert_eq!(
        all,
        [("X-A", "1"), ("Cache-Control", "no-store"), ("Cache-Control", "public, max-age=512000")]
    );
    assert_eq!(json.headers("/").count(), 2);
}

#[test]
fn a_mistake_is_told_with_its_place() {
    let problem = |text: &str| StaticJson::parse(text).unwrap_err();
    for (text, part) in [
        ("[]", "line 1 column"),
        (r#"{"clean_urls": "yes"}"#, "expected a boolean"),
        (r#"{"routes": {"/**": 3}}"#, "a route is the path of a file"),
        (r#"{"routes": {"/**": "../x"}}"#, "no path of a file"),
        (r#"{"error_page": ".env"}"#, "`error_page` leads to `.env`"),
        (r#"{"headers": {"/": {"Content-Length": "3"}}}"#, "the server itself sets"),
        (r#"{"headers": {"/": {"A B": "3"}}}"#, "no name of a header"),
        (r#"{"headers": {"/": {"A": "x\r\nB: y"}}}"#, "not plain ASCII"),
        (r#"{"redirects": {"/a": {"url": "/b", "status": 200}}}"#, "status 200"),
        (r#"{"redirects": {"/a": {"url": "/b\r\nx"}}}"#, "no `url`"),
    ] {
        assert!(problem(text).contains(part), "{text}: {}", problem(text));
    }
    let many: Vec<_> = (0..300).map(|at| format!(r#""/{at}": "x""#)).collect();
    assert!(problem(&format!(r#"{{"routes": {{{}}}}}"#, many.join(","))).contains("300 entries"));
}

#[test]
fn other_keys_are_named() {
    let keys = StaticJson::unknown_keys(r#"{"root": "x", "proxies": {}, "encoding": "UTF-8"}"#);
    assert_eq!(keys.unwrap(), ["proxies", "encoding"]);
}
