//! A process that hangs and is asked whether it lives.

use std::io::Write as _;
use std::net::TcpStream;

use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// As many connections wait for it as the kernel's least.
const NARROW: &str = r#"
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")
    def log_message(self, *args):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 1
Server(("", int(os.environ["PORT"])), Handler).serve_forever()
"#;

const CHECKS: &str = r#"{"healthchecks": {"web": [
    {"type": "liveness", "path": "/", "timeout": 1, "attempts": 2, "wait": 1}
]}}"#;

fn web_pids(shop: &Shop) -> Vec<i32> {
    let ps = shop.json(&["ps"]);
    let up = ps["items"].as_array().unwrap().iter().filter(|process| process["state"] == "up");
    up.filter_map(|process| i32::try_from(process["pid"].as_i64()?).ok()).collect()
}

#[test]
fn a_process_that_hangs_is_restarted_however_many_connections_wait_for_it() {
    let shop = Shop::new("web: python3 server.py\n", &[]);
    std::fs::write(shop.dir.join("app.json"), CHECKS).unwrap();
    shop.change("server.py", NARROW);
    shop.pushed(&["tolv", "main"]);
    shop.tolv(&["scale", "web=2"]);
    let before = web_pids(&shop);
    assert_eq!(before.len(), 2);
    let address = SocketAddr::from(([127, 0, 0, 1], shop.serve.http()));
    kill_process(Pid::from_raw(before[0]).unwrap(), Signal::STOP).unwrap();
    // Each waits at one of the two, more at the one that does not answer.
    let waiting: Vec<TcpStream> = (0..16)
        .map(|_| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nhost: shop.localhost\r\n\r\n").unwrap();
            stream
        })
        .collect();
    let begun = std::time::Instant::now();
    poll(SOON, "another in its place", || {
        let now = web_pids(&shop);
        (now.len() == 2 && !now.contains(&before[0])).then_some(())
    });
    // A pause, two attempts of a second, a pause of a second between them; the rest is the machine's.
    assert!(begun.elapsed() < SOON / 4, "{:?}", begun.elapsed());
    drop(waiting);
    assert!(web_pids(&shop).contains(&before[1]), "the other one is as it was");
    let said = shop.tolv(&["logs", "-p", "web", "-n", "1000"]);
    assert!(said.contains("Error (Health check failed) -> GET /: no answer within 1s"), "{said}");
    for _ in 0..8 {
        assert_eq!(shop.text("shop.localhost", "/"), "ok");
    }
}
