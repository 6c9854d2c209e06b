//! An upgrade while an app's process is not there: requests that reach none wait for the new platform.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::upgrade::{Installed, pids};
use super::*;

/// Says whose request it was, and what its body was.
const ECHO: &str = r#"
import http.server, os
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"] or 0)).decode()
        text = (self.path + " " + body + " " + str(self.headers["x-forwarded-for"])).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    do_GET = do_POST
    def log_message(self, *args):
        pass
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
"#;

/// A handover that lasts until a file is there: the new program fails then, and this one is started in
/// its place.
struct Gate {
    installed: Installed,
    folder: tolv_testkit::Home,
}

impl Gate {
    fn new() -> Self {
        Self { installed: Installed::new(), folder: tolv_testkit::Home::new() }
    }

    fn file(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// The next upgrade waits here.
    fn close(&self) {
        let (begun, open) = (self.file("begun"), self.file("open"));
        let wait = format!("until [ -e {open} ]; do sleep 0.02; done");
        self.installed.put(&format!("printf r >&0; head -c 1 >{begun}; {wait}; exit 4"));
    }

    /// Waits until the old platform knows nothing of the processes any more.
    fn until_begun(&self) {
        let begun = || std::fs::read(self.file("begun")).is_ok_and(|said| said == b"g");
        poll(SOON, "the handover", || begun().then_some(()));
    }

    fn open(&self) {
        std::fs::write(self.file("open"), "").unwrap();
    }
}

fn kill(pids: &[u64]) {
    for pid in pids {
        let pid = i32::try_from(*pid).ok().and_then(Pid::from_raw).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        let stat = format!("/proc/{}/stat", pid.as_raw_pid());
        poll(SOON, "its end", || {
            std::fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")).then_some(())
        });
    }
}

/// A request that is with the kernel when this returns.
fn ask(http: u16, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", http)).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    stream
}

fn head(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: shop.localhost\r\n{more}\r\n")
}

/// Reads until an answer ends with this text.
#[track_caller]
fn answered(stream: &mut TcpStream, end: &str) {
    let (mut seen, mut byte) = (Vec::new(), [0]);
    while !String::from_utf8_lossy(&seen).ends_with(end) {
        match stream.read(&mut byte) {
            Ok(1) => seen.push(byte[0]),
            other => panic!("{other:?} after {}", String::from_utf8_lossy(&seen)),
        }
    }
    let text = String::from_utf8_lossy(&seen);
    assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
}

/// Nothing comes for a moment.
#[track_caller]
fn unanswered(stream: &mut TcpStream) {
    let mut seen = [0; 1000];
    stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
    if let Ok(count) = stream.read(&mut seen) {
        panic!("not expected: {}", String::from_utf8_lossy(&seen[..count]));
    }
    stream.set_read_timeout(Some(SOON)).unwrap();
}

/// A line of the router for each of these paths, and for each only one.
#[track_caller]
fn one_line_each(shop: &Shop, paths: &[&str]) {
    for path in paths {
        let lines = poll(SOON, path, || {
            let lines = shop.tolv(&["logs", "-n", "1000", "-p", "router"]);
            let wanted = format!("path=\"{path}\"");
            let lines: Vec<_> =
                lines.lines().filter(|line| line.contains(&wanted)).map(str::to_owned).collect();
            (!lines.is_empty()).then_some(lines)
        });
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].contains("at=info") && lines[0].contains("fwd=\"127.0.0.1\""),
            "{lines:?}"
        );
    }
}

#[test]
fn requests_that_wait_for_a_process_at_an_upgrade_are_answered_by_the_new_platform() {
    let mut shop = Shop::new("web: sh boot.sh\n", &[]);
    shop.change("server.py", ECHO);
    // The second of it is the app's.
    shop.change("boot.sh", "[ -e /tmp/booted ] || sleep 1; exec python3 server.py");
    shop.pushed(&["tolv", "main"]);
    kill(&pids(&shop));
    poll(SOON, "it to be started again", || {
        let ps = shop.json(&["ps"]);
        (ps["items"][0]["state"] == "starting").then_some(())
    });
    let http = shop.serve.http();
    let began = Instant::now();
    let mut streams = [
        ask(http, &head("GET", "/one", "")),
        // What follows the head goes along, and what follows the body.
        ask(
            http,
            &(head("POST", "/two", "Content-Length: 4\r\n") + "body" + &head("GET", "/3", "")),
        ),
        ask(http, &head("POST", "/four", "Content-Length: 6\r\n")),
    ];
    let status = shop.serve.upgrade(|_| {
        streams[2].write_all(b"la").unwrap();
        streams[2].write_all(b"ter!").unwrap();
        answered(&mut streams[0], "/one  127.0.0.1");
        answered(&mut streams[1], "/two body 127.0.0.1");
        answered(&mut streams[1], "/3  127.0.0.1");
        answered(&mut streams[2], "/four later! 127.0.0.1");
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    });
    assert!(status.success());
    // They stay connected, to the new one.
    streams[0].write_all(head("GET", "/five", "").as_bytes()).unwrap();
    answered(&mut streams[0], "/five  127.0.0.1");
    one_line_each(&shop, &["/one", "/two", "/3", "/four", "/five"]);
    let page = shop.tolv(&["logs", "-n", "1000", "-p", "router"]);
    let line = page.lines().find(|line| line.contains("path=\"/one\"")).unwrap();
    let service = line.split_once("service=").and_then(|(_, rest)| rest.split_once("ms"));
    let service: u64 = service.and_then(|(text, _)| text.parse().ok()).unwrap();
    assert!(service > 300, "the wait at the old platform counts: {line}");
}

#[test]
fn a_process_that_crashes_in_a_handover_is_waited_for() {
    let gate = Gate::new();
    let serve = Serve::start(gate.installed.path().to_str().unwrap(), &[]);
    let mut shop = Shop::on(serve, "web: python3 server.py\n");
    shop.change("server.py", ECHO);
    shop.pushed(&["tolv", "main"]);
    let before = pids(&shop);
    let http = shop.serve.http();
    // It has a connection to the process that is there.
    let mut kept = ask(http, &head("GET", "/kept", ""));
    answered(&mut kept, "/kept  127.0.0.1");
    gate.close();
    let mut streams = Vec::new();
    let status = shop.serve.upgrade_with(
        |_| {
            gate.until_begun();
            kill(&before);
            for number in 0..20 {
                streams.push(ask(http, &head("GET", &format!("/{number}"), "")));
            }
            kept.write_all(head("GET", "/again", "").as_bytes()).unwrap();
            // None is refused meanwhile.
            unanswered(&mut streams[0]);
            gate.open();
        },
        |_| {},
    );
    assert!(status.success());
    gate.installed.put_right();
    for (number, stream) in streams.iter_mut().enumerate() {
        answered(stream, &format!("/{number}  127.0.0.1"));
    }
    answered(&mut kept, "/again  127.0.0.1");
    one_line_each(&shop, &["/0", "/7", "/19", "/again"]);
}

/// A program of another make says "up", and takes no connections.
#[test]
fn a_held_request_is_refused_at_once_where_nobody_takes_it() {
    let gate = Gate::new();
    let serve = Serve::start(gate.installed.path().to_str().unwrap(), &[]);
    let mut shop = Shop::on(serve, "web: python3 server.py\n");
    shop.change("server.py", ECHO);
    shop.pushed(&["tolv", "main"]);
    let before = pids(&shop);
    let (begun, open) = (gate.file("begun"), gate.file("open"));
    gate.installed.put(&format!(
        "printf r >&0; head -c 1 >{begun}; until [ -e {open} ]; do sleep 0.02; done; printf u >&0; \
         exec sleep 1000 </dev/null"
    ));
    let mut stream = None;
    let status = shop.serve.upgrade_with(
        |serve| {
            gate.until_begun();
            kill(&before);
            stream = Some(ask(serve.http(), &head("GET", "/", "")));
            gate.open();
        },
        |serve| kill_process(serve.running().pid(), Signal::KILL).unwrap(),
    );
    assert!(status.success());
    let mut text = String::new();
    stream.unwrap().read_to_string(&mut text).unwrap();
    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
    shop.serve.ended();
    gate.installed.put_right();
    shop.serve.begin();
}
