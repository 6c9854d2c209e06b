//! The database goes away and comes back.

use super::*;

#[test]
fn without_the_database_requests_wait_and_apps_go_on() {
    let mut postgres = tolv_testkit::Postgres::start();
    let mut shop = Shop::site("one", &[("DATABASE_URL", postgres.url())]);
    shop.pushed(&["tolv", "main"]);
    postgres.stop();
    let address: SocketAddr = shop.serve.url().strip_prefix("http://").unwrap().parse().unwrap();
    let head = format!("Bearer {}", shop.serve.token());
    let refused = poll(SOON, "the API says that the database is away", || {
        let headers = [("host", "x"), ("authorization", head.as_str())];
        let answer = http::send(address, "GET", "/v1/apps", &headers, SOON);
        answer.ok().filter(|answer| answer.status == 503)
    });
    assert!(refused.header("retry-after").is_some());
    assert_eq!(shop.text("shop.localhost", "/"), "one");
    // A start needs no database either.
    shop.serve.end(rustix::process::Signal::KILL);
    shop.serve.begin();
    until_text(&shop, "shop.localhost", "one");
    postgres.again();
    poll(SOON, "the API answers again", || shop.ran(&["apps"]).status.success().then_some(()));
    shop.change("index.html", "two");
    shop.pushed(&["tolv", "main"]);
    assert_eq!(shop.text("shop.localhost", "/"), "two");
}

#[test]
fn a_wrong_key_is_one_clear_error_at_the_start() {
    let mut shop = Shop::site("one", &[]);
    shop.tolv(&["config", "set", "A=1"]);
    shop.serve.end(rustix::process::Signal::INT);
    let key = shop.serve.state().join("secret-key");
    let right = std::fs::read(&key).unwrap();
    let mut wrong = right.clone();
    wrong[0] = if right[0] == b'0' { b'1' } else { b'0' };
    std::fs::write(&key, wrong).unwrap();
    let ran = run(Command::new(env!("CARGO_BIN_EXE_tolv"))
        .arg("serve")
        .env("TOLV_HOME", shop.serve.state())
        .env("TOLV_LISTEN", "127.0.0.1:0")
        .env("TOLV_HTTP", "127.0.0.1:0"));
    assert_eq!(ran.status.code(), Some(1));
    assert_eq!(ran.err.matches("error:").count(), 1, "{}", ran.err);
    assert!(ran.err.contains("key"), "{}", ran.err);
    std::fs::write(&key, right).unwrap();
    shop.serve.begin();
    assert_eq!(shop.tolv(&["config", "get", "A"]).trim(), "1");
}
