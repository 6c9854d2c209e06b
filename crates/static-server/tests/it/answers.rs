//! What is answered to which request.

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

fn site() -> Site {
    let home = Home::new();
    for (path, content) in [
        ("public/index.html", "<h1>hello</h1>"),
        ("public/app.css", "h1 { color: blue }"),
        ("public/empty.txt", ""),
        ("public/a b/é.txt", "spaces"),
        ("public/docs/index.html", "docs"),
        ("public/bare/file.txt", "no index"),
        ("public/.env", "SECRET=1"),
        ("public/.git/config", "secret"),
        ("public/.well-known/security.txt", "Contact: us"),
        ("secret.txt", "secret"),
        ("public-too/secret.txt", "secret"),
    ] {
        home.write(path, content);
    }
    Site::serve(home)
}

#[track_caller]
fn check(site: &Site, target: &str, status: u16, text: &str) -> Response {
    let response = site.get(target);
    assert_eq!((response.status, &response.text()[..]), (status, text), "{target}");
    response
}

#[test]
fn files_and_folders() {
    let site = site();
    let page = check(&site, "/", 200, "<h1>hello</h1>");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("content-length"), Some("14"));
    assert_eq!(page.header("accept-ranges"), Some("bytes"));
    assert_eq!(page.header("cache-control"), Some("no-cache"));
    assert!(page.header("etag").is_some() && page.header("last-modified").is_some());
    let style = check(&site, "/app.css?v=1", 200, "h1 { color: blue }");
    assert_eq!(style.header("content-type"), Some("text/css; charset=utf-8"));
    let empty = check(&site, "/empty.txt", 200, "");
    assert_eq!(empty.header("content-length"), Some("0"));
    check(&site, "/a%20b/%C3%A9.txt", 200, "spaces");
    check(&site, "/docs/", 200, "docs");
    check(&site, "/.well-known/security.txt", 200, "Contact: us");
}

#[test]
fn a_folder_without_its_slash_is_a_redirect() {
    let site = site();
    let redirect = site.get("/docs?a=b%20c");
    assert_eq!(redirect.status, 301);
    assert_eq!(redirect.header("location"), Some("/docs/?a=b%20c"));
    // Nothing to find there, so nothing is told.
    check(&site, "/bare", 404, "404 Not Found\n");
    check(&site, "/bare/", 404, "404 Not Found\n");
    check(&site, "/app.css/", 404, "404 Not Found\n");
}

#[test]
fn nothing_hidden_or_outside_is_served() {
    let site = site();
    let root = site.home.path().join("public");
    symlink("../secret.txt", root.join("out.txt")).unwrap();
    symlink(site.home.path(), root.join("up")).unwrap();
    symlink("../public-too", root.join("too")).unwrap();
    symlink(".env", root.join("env.txt")).unwrap();
    symlink("loop.txt", root.join("loop.txt")).unwrap();
    symlink("gone", root.join("dangling.txt")).unwrap();
    let long = format!("/{}", "a".repeat(5000));
    for target in [
        "/../secret.txt",
        "/%2e%2e/secret.txt",
        "/docs/../../secret.txt",
        "/..%2fsecret.txt",
        "/%2fetc/passwd",
        "//etc/passwd",
        "/.env",
        "/%2eenv",
        "/.git/config",
        "/.git/",
        "/out.txt",
        "/up/secret.txt",
        "/up/public/app.css/",
        "/too/secret.txt",
        "/env.txt",
        "/loop.txt",
        "/dangling.txt",
        "/app.css/x",
        "/nothing",
        &long,
    ] {
        check(&site, target, 404, "404 Not Found\n");
    }
    for target in ["/%", "/%zz", "/a%00"] {
        check(&site, target, 400, "400 Bad Request\n");
    }
}

#[test]
fn a_symlink_inside_is_followed() {
    let site = site();
    let root = site.home.path().join("public");
    symlink("app.css", root.join("style.txt")).unwrap();
    symlink(root.join("docs"), root.join("manual")).unwrap();
    let style = check(&site, "/style.txt", 200, "h1 { color: blue }");
    assert_eq!(style.header("content-type"), Some("text/plain; charset=utf-8"));
    check(&site, "/manual/", 200, "docs");
    assert_eq!(site.get("/manual").header("location"), Some("/manual/"));
}

#[test]
fn a_named_pipe_is_not_waited_for() {
    let site = site();
    let pipe = site.home.path().join("public/pipe");
    let mode = rustix::fs::Mode::RUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
    check(&site, "/pipe", 404, "404 Not Found\n");
}

#[test]
fn the_page_for_what_is_not_there() {
    let site = site();
    site.home.write("public/404.html", "<h1>lost</h1>");
    let page = check(&site, "/nothing", 404, "<h1>lost</h1>");
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(page.header("etag"), None);
    check(&site, "/.env", 404, "<h1>lost</h1>");
    check(&site, "/404.html", 200, "<h1>lost</h1>");
    let head = site.send("HEAD", "/nothing", &[("Host", "a")]);
    assert_eq!((head.status, head.header("content-length")), (404, Some("13")));
}

#[test]
fn methods() {
    let site = site();
    let head = site.send("HEAD", "/app.css", &[("Host", "a")]);
    let get = site.send("GET", "/app.css", &[("Host", "a")]);
    let but_date = |response: Response| {
        response.headers.into_iter().filter(|(name, _)| name != "date").collect::<Vec<_>>()
    };
    assert_eq!(head.status, 200);
    assert_eq!(but_date(head), but_date(get));
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"] {
        let response = site.send(method, "/app.css", &[("Host", "a")]);
        assert_eq!(response.status, 405, "{method}");
        assert_eq!(response.header("allow"), Some("GET, HEAD"), "{method}");
    }
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let site = site();
    let first = site.get("/app.css");
    let etag = first.header("etag").unwrap();
    let modified = first.header("last-modified").unwrap();
    for header in [("If-None-Match", etag), ("If-Modified-Since", modified)] {
        let again = site.send("GET", "/app.css", &[("Host", "a"), header]);
        assert_eq!((again.status, again.text()), (304, String::new()), "{header:?}");
        assert_eq!(again.header("etag"), Some(etag));
        assert_eq!(again.header("content-length"), None);
    }
    fs::remove_file(site.home.path().join("public/app.css")).unwrap();
    site.home.write("public/app.css", "h1 { color: pink }");
    let changed = site.send("GET", "/app.css", &[("Host", "a"), ("If-None-Match", etag)]);
    assert_eq!((changed.status, &changed.text()[..]), (200, "h1 { color: pink }"));
    let wanted = site.send("GET", "/app.css", &[("Host", "a"), ("If-Match", etag)]);
    assert_eq!(wanted.status, 412);
}

#[test]
fn ranges() {
    let site = site();
    let content = big(1_000_000);
    site.home.write("public/big.bin", &content);
    let range = |range: &str| site.send("GET", "/big.bin", &[("Host", "a"), ("Range", range)]);
    for (asked, start, end) in [
        ("bytes=0-3", 0, 4),
        ("bytes=10-500009", 10, 500_010),
        ("bytes=999990-", 999_990, 1_000_000),
        ("bytes=-300000", 700_000, 1_000_000),
    ] {
        let part = range(asked);
        assert_eq!(part.status, 206, "{asked}");
        assert_eq!(part.body, content[start..end], "{asked}");
        let shown = format!("bytes {start}-{}/1000000", end - 1);
        assert_eq!(part.header("content-range"), Some(&shown[..]));
        assert_eq!(part.header("content-length"), Some(&(end - start).to_string()[..]));
    }
    let outside = range("bytes=1000000-");
    assert_eq!(outside.status, 416);
    assert_eq!(outside.header("content-range"), Some("bytes */1000000"));
    for whole in ["bytes=0-1,3-4", "lines=1-2"] {
        let response = range(whole);
        assert_eq!((response.status, response.body.len()), (200, 1_000_000), "{whole}");
    }
}

#[test]
fn requests_share_a_connection() {
    let site = site();
    let request = "GET /docs/ HTTP/1.1\r\nHost: a\r\n";
    let last = format!("{request}Connection: close\r\n\r\n");
    let mut stream = site.connect(&format!("{request}\r\n{last}"));
    let answers = read_to_end(&mut stream);
    let answers = String::from_utf8(answers).unwrap();
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
}

#[test]
fn a_client_that_has_sent_all_it_will_gets_its_answer() {
    let site = site();
    let content = big(4_000_000);
    site.home.write("public/big.bin", &content);
    let mut stream = site.connect("GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n");
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let response = http::parse(&read_to_end(&mut stream), false).unwrap();
    assert!(response.body == content);
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    for (file, wanted) in
        [(None, std::io::ErrorKind::NotFound), (Some("x"), std::io::ErrorKind::NotADirectory)]
    {
        let home = Home::new();
        if let Some(content) = file {
            home.write("public", content);
        }
        let site = Site::serve(home);
        let error = site.ended.recv_timeout(LONG).unwrap().unwrap_err();
        assert_eq!(error.kind(), wanted);
        assert!(error.to_string().starts_with("cannot serve the folder `"), "{error}");
    }
}
