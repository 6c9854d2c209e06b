//! Commands are answered all through an upgrade: by the old program or by the new one.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use rustix::process::{Signal, kill_process};

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

#[test]
fn pushes_and_runs_that_come_while_a_new_program_takes_over_are_done() {
    let mut shop = Shop::new("web: python3 server.py\n", &[]);
    shop.pushed(&["tolv", "main"]);
    for round in 0..2 {
        let before = handed_over(&shop.serve);
        let Shop { serve, dir } = &mut shop;
        let all_the_while = |serve: &Serve| {
            thread::scope(|scope| {
                scope.spawn(|| {
                    while handed_over(serve) == before {
                        // One that has begun may be stopped, as any other.
                        let ran = serve.ran(dir, &["run", "true"]);
                        let is_stopped = ran.err.contains("stopped: the platform is upgraded");
                        let is_done = ran.status.success() || is_stopped;
                        assert!(is_done, "{}: {}{}", ran.status, ran.out, ran.err);
                    }
                });
                scope.spawn(|| {
                    while handed_over(serve) == before {
                        done(serve, dir, &["run", "--detach", "true"]);
                    }
                });
                let mut number = 0;
                while handed_over(serve) == before {
                    std::fs::write(dir.join("round"), format!("{round}.{number}")).unwrap();
                    git::commit(dir);
                    let pushed = push_from(serve, dir, &["tolv", "main"]);
                    assert!(pushed.status.success(), "{}{}", pushed.out, pushed.err);
                    number += 1;
                }
            });
        };
        assert!(serve.upgrade_with(all_the_while, |_| {}).success());
    }
    let runs = shop.json(&["run", "list", "-n", "200"]);
    let runs = runs["items"].as_array().unwrap();
    assert!(runs.iter().all(|run| run["state"] != "failed"), "{runs:?}");
}

/// Passes connections on to the API. Of a push it lets the beginning through, and the rest once it may.
fn slow_proxy(api: SocketAddr, held: Arc<AtomicBool>, may: Arc<AtomicBool>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let pass = move |mut client: TcpStream| {
        let mut server = TcpStream::connect(api).unwrap();
        let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
        thread::spawn(move || {
            std::io::copy(&mut from, &mut to).ok();
            to.shutdown(Shutdown::Write).ok();
        });
        let (mut text, mut piece, mut sent) = (Vec::new(), [0; 4096], 0);
        loop {
            match client.read(&mut piece) {
                Ok(read) if read > 0 => text.extend_from_slice(&piece[..read]),
                _ => break,
            }
            let asked = text.windows(5).position(|word| word == b"POST ");
            let body = asked.and_then(|at| {
                let end = text[at..].windows(4).position(|word| word == b"\r\n\r\n")?;
                Some(at + end + 4)
            });
            let until = match (asked, body) {
                (Some(_), Some(body)) if !may.load(Ordering::Relaxed) => body + 50,
                _ => text.len(),
            };
            if until < text.len() {
                server.write_all(&text[sent..until]).unwrap();
                sent = until;
                held.store(true, Ordering::Relaxed);
                let may = || may.load(Ordering::Relaxed).then_some(());
                poll(Duration::from_secs(60), "the rest may pass", may);
            }
            server.write_all(&text[sent..]).unwrap();
            sent = text.len();
        }
        server.shutdown(Shutdown::Write).ok();
    };
    thread::spawn(move || {
        for client in listener.incoming() {
            let (client, pass) = (client.unwrap(), pass.clone());
            thread::spawn(move || pass(client));
        }
    });
    address
}

/// Longer than an upgrade waits for it: the old program takes it, and the new one deploys it.
#[test]
fn a_push_that_arrives_slower_than_an_upgrade_waits_is_done_by_the_new_program() {
    let mut shop = Shop::new("web: python3 server.py\n", &[]);
    shop.pushed(&["tolv", "main"]);
    let api = shop.serve.url()["http://".len()..].parse::<SocketAddr>().unwrap();
    let (held, may) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let proxy = slow_proxy(api, Arc::clone(&held), Arc::clone(&may));
    shop.change("round", "slow");
    let url = format!("http://x:{}@{proxy}/git/shop/production.git", shop.serve.token());
    let push = push_command(&shop.serve, &shop.dir, &[&url, "main"]);
    let mut push = tolv_testkit::Tolv::start(&mut { push });
    poll(SOON, "its request to be on its way", || held.load(Ordering::Relaxed).then_some(()));
    let before = handed_over(&shop.serve);
    let cut_off = |serve: &Serve| {
        poll(SOON, "the new program", || {
            // It does not wait for the push for as long as it may.
            kill_process(serve.running().pid(), Signal::USR2).ok();
            (handed_over(serve) > before).then_some(())
        });
    };
    let status = shop.serve.upgrade_with(cut_off, |_| {
        may.store(true, Ordering::Relaxed);
        assert!(push.wait(SOON).success(), "{:?}", push.lines());
    });
    assert!(status.success(), "{status}");
    let releases = shop.json(&["releases"]);
    assert_eq!(releases["items"][0]["outcome"], "succeeded");
    assert_eq!(releases["items"][0]["number"], 2, "{releases}");
}
