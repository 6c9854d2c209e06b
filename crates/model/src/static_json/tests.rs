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
fn exceptions_are_bounded_as_patterns_are() {
    let problem = |except: &[String]| {
        let except = serde_json::to_string(except).unwrap();
        let text = format!(r#"{{"routes": {{"/**": {{"path": "x", "except": {except}}}}}}}"#);
        StaticJson::parse(&text).unwrap_err()
    };
    assert!(problem(&["x".repeat(2000)]).contains("longer than 1024 bytes"));
    assert!(problem(&["*a".repeat(40)]).contains("more than 16 stars"));
    assert!(problem(&vec!["/x".to_owned(); 300]).contains("`except` has 300 entries"));
    assert!(problem(&vec!["/**a".repeat(8); 200]).contains("1601 stars, more than 1024"));
    assert!(problem(&vec!["x".repeat(1000); 100]).contains("more than 64 KiB"));
}

#[test]
#[expect(clippy::disallowed_methods, reason = "the test measures how long it takes")]
fn the_most_costly_rules_take_no_time() {
    let pattern = |at: usize| format!("/{}{at}", "**a".repeat(4));
    let rules = |value: &str| {
        let rules: Vec<_> = (0..120).map(|at| format!(r#""{}": {value}"#, pattern(at))).collect();
        rules.join(",")
    };
    let text = format!(
        r#"{{"routes": {{{}}}, "headers": {{{}}}}}"#,
        rules(r#""x""#),
        rules(r#"{"a": "b"}"#)
    );
    let json = StaticJson::parse(&text).unwrap();
    let path = format!("/{}", "a".repeat(8000));
    let began = std::time::Instant::now();
    assert_eq!((json.route(&path), json.headers(&path).count()), (None, 0));
    // Without optimization.
    assert!(began.elapsed().as_secs() < 3, "{:?}", began.elapsed());
}

#[test]
fn headers_of_the_connection_the_coding_and_proxies_are_the_servers() {
    for name in [
        "Content-Encoding",
        "Transfer-Encoding",
        "Via",
        "X-Forwarded-For",
        "x-forwarded-proto",
        "Forwarded",
        "Proxy-Connection",
        "Sec-WebSocket-Accept",
        "X-Accel-Redirect",
        "X-Request-Id",
        "Location",
        "ETag",
    ] {
        let text = format!(r#"{{"headers": {{"/**": {{"{name}": "x"}}}}}}"#);
        let problem = StaticJson::parse(&text).unwrap_err();
        assert!(problem.contains("the server itself sets"), "{name}: {problem}");
    }
}

#[test]
fn other_keys_are_named() {
    let keys = StaticJson::unknown_keys(r#"{"root": "x", "proxies": {}, "encoding": "UTF-8"}"#);
    assert_eq!(keys.unwrap(), ["proxies", "encoding"]);
}
