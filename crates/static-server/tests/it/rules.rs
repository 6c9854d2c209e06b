//! What `static.json` says about a site.

use super::*;

fn site(json: &str) -> Site {
    let home = Home::new();
    for (path, content) in [
        ("public/index.html", "<h1>app</h1>"),
        ("public/about.html", "about"),
        ("public/docs/index.html", "docs"),
        ("public/assets/app.js", "js"),
        ("public/errors/error.html", "sorry"),
        ("public/.env", "SECRET=1"),
    ] {
        home.write(path, content);
    }
    Site::serve_by(home, StaticJson::parse(json).unwrap())
}

#[track_caller]
fn check(site: &Site, target: &str, status: u16, text: &str) -> Response {
    let response = site.get(target);
    assert_eq!((response.status, &response.text()[..]), (status, text), "{target}");
    response
}

#[test]
fn a_single_page_app_answers_its_own_paths() {
    let site = site(r#"{"routes": {"/assets/**": "gone.html", "/**": "index.html"}}"#);
    for target in ["/", "/users/7?tab=x", "/users/7/", "/deep/er/still", "/about"] {
        let page = check(&site, target, 200, "<h1>app</h1>");
        assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"), "{target}");
        assert!(page.header("etag").is_some(), "{target}");
    }
    // A file wins over a route, and a route whose file is missing is none.
    check(&site, "/assets/app.js", 200, "js");
    check(&site, "/assets/old.js", 404, "404 Not Found\n");
    check(&site, "/docs/", 200, "docs");
    // What is hidden is not the app's either.
    check(&site, "/.env", 404, "404 Not Found\n");
    assert_eq!(site.get("/../../etc/passwd").status, 404);
}

#[test]
fn html_may_be_left_out() {
    let site = site(r#"{"clean_urls": true}"#);
    check(&site, "/about", 200, "about");
    check(&site, "/about.html", 200, "about");
    check(&site, "/about/", 404, "404 Not Found\n");
    check(&site, "/docs/", 200, "docs");
    assert_eq!(site.get("/docs").header("location"), Some("/docs/"));
}

#[test]
fn errors_have_their_page() {
    let site = site(r#"{"error_page": "errors/error.html"}"#);
    check(&site, "/nowhere", 404, "sorry");
    check(&site, "/.env", 404, "sorry");
}

#[test]
fn headers_are_added_where_they_fit() {
    let site = site(
        r#"{"headers": {"/**": {"X-Frame-Options": "DENY"}, "/assets/*": {"Cache-Control": "max-age=60"}}}"#,
    );
    let page = check(&site, "/assets/app.js", 200, "js");
    assert_eq!(page.header("cache-control"), Some("max-age=60"));
    assert_eq!(page.header("x-frame-options"), Some("DENY"));
    assert_eq!(site.get("/").header("cache-control"), Some("no-cache"));
    let missing = site.get("/assets/gone.js");
    assert_eq!(missing.header("cache-control"), Some("no-cache"), "an error is not kept");
    assert_eq!(missing.header("x-frame-options"), Some("DENY"));
}

#[test]
fn plain_http_is_redirected() {
    let site = site(r#"{"https_only": true}"#);
    let ask = |scheme: &str| {
        let headers = [("Host", "shop.example:8080"), ("X-Forwarded-Proto", scheme)];
        site.send("GET", "/a?b=c", &headers)
    };
    let redirect = ask("http");
    assert_eq!(redirect.status, 301);
    assert_eq!(redirect.header("location"), Some("https://shop.example/a?b=c"));
    assert_eq!(ask("https").status, 404);
    check(&site, "/", 200, "<h1>app</h1>");
}

#[test]
fn other_addresses_are_told() {
    let site = site(r#"{"redirects": {"/old/gone/": {"url": "/", "status": 302}}}"#);
    let redirect = site.get("/old/gone/");
    assert_eq!((redirect.status, redirect.header("location")), (302, Some("/")));
    check(&site, "/old/gone", 404, "404 Not Found\n");
}
