//! Commands are answered all through an upgrade: by the old program or by the new one.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use super::*;

/// Lines that say that a new program takes requests.
fn handed_over(serve: &Serve) -> usize {
    let lines = serve.running().lines();
    lines.iter().filter(|line| line.text.contains("Handed over to process ")).count()
}

/// What the API says of the processes, on a connection of its own: how many there are.
fn processes_of(serve: &Serve) -> usize {
    let address = serve.url()["http://".len()..].parse::<SocketAddr>().unwrap();
    let token = format!("Bearer {}", serve.token());
    let headers = [("Host", "localhost"), ("Authorization", token.as_str())];
    let target = "/v1/apps/shop/deploys/production/processes";
    let answer = http::send(address, "GET", target, &headers, SOON).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    items(&answer.text())
}

fn items(text: &str) -> usize {
    let page: serde_json::Value = serde_json::from_str(text).unwrap();
    page["items"].as_array().unwrap().len()
}

/// A command that has to succeed.
#[track_caller]
fn done(serve: &Serve, dir: &Path, args: &[&str]) -> String {
    let ran = serve.ran(dir, args);
    assert!(ran.status.success(), "{args:?}: {}\n{}{}", ran.status, ran.out, ran.err);
    ran.out
}

#[test]
fn commands_are_answered_all_through_an_upgrade_and_see_every_process() {
    let mut shop = Shop::new("web: python3 server.py\nworker: sleep 1000\n", &[]);
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["scale", "worker=3"]);
    let follow = shop.serve.command(&shop.dir, &["logs", "-f"]);
    let follow = tolv_testkit::Tolv::start(&mut { follow });
    let (asked, ran) = (AtomicU32::new(0), AtomicU32::new(0));
    for _ in 0..5 {
        let Shop { serve, dir } = &mut shop;
        let before = handed_over(serve);
        let all_the_while = |serve: &Serve| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    while handed_over(serve) == before {
                        assert_eq!(processes_of(serve), 4);
                        asked.fetch_add(1, Ordering::Relaxed);
                    }
                });
                scope.spawn(|| {
                    while handed_over(serve) == before {
                        assert!(done(serve, dir, &["logs", "-n", "1"]).contains("tolv["));
                    }
                });
                while handed_over(serve) == before {
                    let ps = done(serve, dir, &["ps", "--json"]);
                    assert_eq!(items(&ps), 4, "{ps}");
                    ran.fetch_add(1, Ordering::Relaxed);
                }
            });
        };
        let right_after = |serve: &Serve| {
            for _ in 0..20 {
                assert_eq!(processes_of(serve), 4);
            }
        };
        let status = serve.upgrade_with(all_the_while, right_after);
        assert!(status.success(), "{status}");
    }
    assert!(asked.into_inner() > 10 && ran.into_inner() > 5, "too few to say anything");
    // Who follows the log was never sent away.
    shop.text("shop.localhost", "/?last");
    follow.wait_for_line(|line| line.contains("/?last"), SOON);
}

/// Answers at once; a health check, once it was told to wait, only after `/go`.
const CHECKED: &str = r#"
import http.server, os, threading
go = threading.Event()
go.set()
waiting = 0
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global waiting
        if self.path == "/check" and not go.is_set():
            waiting += 1
            go.wait()
        if self.path == "/wait":
            go.clear()
        if self.path == "/go":
            go.set()
        body = str(waiting).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// A request that came to the new program before that would wait there.
#[test]
fn the_old_program_answers_requests_until_the_new_one_has_found_the_app_ready() {
    let mut shop = Shop::new("web: python3 server.py\n", &[]);
    shop.change("server.py", CHECKED);
    let check = r#"{"healthchecks": {"web": [{"type": "readiness", "path": "/check"}]}}"#;
    shop.change("app.json", check);
    shop.pushed(&["tolv", "main"]);
    let address = SocketAddr::from(([127, 0, 0, 1], shop.serve.http()));
    shop.text("shop.localhost", "/wait");
    let before = handed_over(&shop.serve);
    let status = shop.serve.upgrade_with(
        |serve| {
            let ask = |target| http::get(address, "shop.localhost", target).unwrap();
            poll(SOON, "the check of the new one", || (ask("/").text() != "0").then_some(()));
            assert_eq!(handed_over(serve), before);
            assert_eq!(ask("/go").status, 200);
        },
        |_| {},
    );
    assert!(status.success(), "{status}");
    shop.text("shop.localhost", "/");
}

/// The answers of a request that came just before the old program let go.
#[test]
fn changes_that_come_while_a_new_program_takes_over_are_done_by_it() {
    let mut shop = Shop::new("web: python3 server.py\n", &[]);
    shop.pushed(&["tolv", "main"]);
    for round in 0..2 {
        let Shop { serve, dir } = &mut shop;
        let before = handed_over(serve);
        let mut number = 0;
        let all_the_while = |serve: &Serve| {
            while handed_over(serve) == before {
                done(serve, dir, &["config", "set", &format!("A={round}.{number}")]);
                number += 1;
            }
        };
        assert!(serve.upgrade_with(all_the_while, |_| {}).success());
        let last = format!("{round}.{}", number - 1);
        let config = shop.json(&["config", "get", "A"]);
        assert!(config.to_string().contains(&last), "{config}: {last}");
    }
    let operations = shop.json(&["operations"]);
    let operations = operations["items"].as_array().unwrap();
    assert!(operations.iter().all(|operation| operation["state"] == "succeeded"), "{operations:?}");
    poll(Duration::from_secs(30), "it to run", || shop.get("shop.localhost", "/").ok());
}
