//! Answers that last: streams of events hold nothing back, requests in flight are waited for and told.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::*;

/// Says that it begins to answer; streams, is slow, or answers at once. It ends at SIGTERM.
const SERVER: &str = r#"
import http.server, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        print("begin", self.path, flush=True)
        if self.path == "/events":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
            while True:
                self.wfile.write(b"data: x\n\n")
                time.sleep(0.1)
        while self.path == "/slow" and not os.path.exists("/tmp/go"):
            time.sleep(0.05)
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// What an operation may take that waits for no stream; one that does takes 30 seconds.
const UNHINDERED: Duration = Duration::from_secs(20);

/// The connection ends with the answer: a kept one would be open for a minute more.
fn ask(shop: &Shop, path: &str) -> TcpStream {
    let mut client = TcpStream::connect(("127.0.0.1", shop.serve.http())).unwrap();
    client.set_read_timeout(Some(SOON)).unwrap();
    client
        .write_all(
            format!("GET {path} HTTP/1.1\r\nHost: shop.localhost\r\nConnection: close\r\n\r\n")
                .as_bytes(),
        )
        .unwrap();
    client
}

/// A stream that has begun.
fn stream(shop: &Shop) -> TcpStream {
    let mut client = ask(shop, "/events");
    let mut got = Vec::new();
    while !got.ends_with(b"data: x\n\n") {
        let mut byte = [0];
        client.read_exact(&mut byte).unwrap();
        got.push(byte[0]);
    }
    client
}

/// Reads to the end.
fn rest(mut client: TcpStream) -> String {
    let mut got = Vec::new();
    // A stream may end in the middle of a chunk, or by a reset.
    client.read_to_end(&mut got).ok();
    String::from_utf8_lossy(&got).into_owned()
}

#[test]
fn a_stream_of_events_holds_back_no_change_and_no_stop() {
    let mut shop = Shop::new("web: python3 server.py\n", &[]);
    shop.change("server.py", SERVER);
    shop.pushed(&["tolv", "main"]);
    for words in [&["config", "set", "A=b"][..], &["restart"], &["scale", "web=2"]] {
        let (client, began) = (stream(&shop), Instant::now());
        shop.tolv(words);
        assert!(began.elapsed() < UNHINDERED, "{words:?}: {:?}", began.elapsed());
        // What is not replaced goes on.
        if words[0] != "scale" {
            rest(client);
        }
    }
    let (client, began) = (stream(&shop), Instant::now());
    assert!(shop.serve.end(Signal::TERM).success());
    rest(client);
    assert!(began.elapsed() < UNHINDERED, "{:?}", began.elapsed());
}

#[test]
fn a_change_that_waits_for_a_request_says_so_and_fails_none() {
    let shop = Shop::new("web: python3 server.py\n", &[]);
    shop.change("server.py", SERVER);
    shop.pushed(&["tolv", "main"]);
    let slow = thread::spawn({
        let client = ask(&shop, "/slow");
        move || rest(client)
    });
    poll(SOON, "the request", || shop.tolv(&["logs"]).contains("begin /slow").then_some(()));
    let set = shop.serve.command(&shop.dir, &["config", "set", "A=b"]);
    let mut set = tolv_testkit::Tolv::start(&mut { set });
    set.wait_for_line(|line| line.contains("Waiting for requests in flight: web.1"), SOON);
    let states: Vec<_> = shop.json(&["ps"])["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|process| process["state"].as_str().unwrap().to_owned())
        .collect();
    assert!(
        states.contains(&"draining".to_owned()) && states.contains(&"up".to_owned()),
        "{states:?}"
    );
    assert!(shop.tolv(&["logs"]).contains("Waiting for requests in flight: web.1"));
    // Its file is in the room of the old process.
    let pid = shop.json(&["ps"])["items"].as_array().unwrap().iter().find_map(|process| {
        (process["state"] == "draining").then(|| process["pid"].as_u64().unwrap())
    });
    std::fs::write(format!("/proc/{}/root/tmp/go", pid.unwrap()), "").unwrap();
    assert!(slow.join().unwrap().ends_with("ok"));
    assert!(set.wait(SOON).success());
}
