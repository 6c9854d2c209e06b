//! Real processes, one of which is stopped by a signal.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tolv_router::{Backend, Dialer, Settings, State};

use crate::edge::{Edge, timed};
use crate::wire::soon;

/// Answers every request, and says where it listens.
const SERVER: &str = r#"
import http.server
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *args):
        pass
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
print(server.server_address[1], flush=True)
server.serve_forever()
"#;

struct Process {
    child: Child,
    backend: Backend,
}

impl Process {
    fn start(name: &str) -> Self {
        let mut command = Command::new("python3");
        let mut child = command.args(["-c", SERVER]).stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port.trim().parse().unwrap()));
        let process = name.parse().unwrap();
        Self { child, backend: Backend { process, address, dialer: Dialer::direct() } }
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The status of a request on a connection of its own, and who answered.
async fn ask(edge: &mut Edge) -> (u16, String, Option<&'static str>) {
    let mut client = edge.client().await;
    client.send_head("POST / HTTP/1.1\nHost: shop.test\nContent-Length: 0").await;
    assert!(matches!(client.take().await.status, 200 | 503));
    let line = edge.line().await;
    (line.status, line.process.unwrap().to_string(), line.detail)
}

#[tokio::test]
async fn a_stopped_process_is_passed_over_until_it_answers_again() {
    let all = ["web.1", "web.2", "web.3"].map(Process::start);
    let backends = all.each_ref().map(|process| &process.backend);
    // Long enough for two of three, short enough to wait for three times.
    let settings = timed(|time_outs| time_outs.first_byte = Duration::from_millis(500));
    let settings = Settings { hang: Duration::from_millis(1500), ..settings };
    let mut edge = Edge::with(settings, State::Up, &backends).await;
    for _ in 0..6 {
        assert_eq!(ask(&mut edge).await.0, 200);
    }
    let stopped = &all[1];
    stopped.signal(Signal::STOP);
    let mut timed_out = 0;
    while !edge.router.hangs(&stopped.backend) {
        let (status, process, detail) = ask(&mut edge).await;
        if status == 503 {
            timed_out += 1;
            assert_eq!((process.as_str(), detail.is_some()), ("web.2", timed_out == 3));
        }
    }
    assert_eq!(timed_out, 3);
    // The others answer everything.
    for _ in 0..12 {
        let (status, process, _) = ask(&mut edge).await;
        assert!(status == 200 && process != "web.2", "{status} {process}");
    }
    stopped.signal(Signal::CONT);
    let again = async {
        loop {
            let (status, process, detail) = ask(&mut edge).await;
            if process == "web.2" && status == 200 {
                break detail;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let again = soon("its answer", again).await;
    assert_eq!(again, Some("the process answers again, and gets requests as before"));
    assert!(!edge.router.hangs(&stopped.backend));
    let mut answered = 0;
    for _ in 0..6 {
        answered += u32::from(ask(&mut edge).await.1 == "web.2");
    }
    assert!(answered >= 1, "it gets no requests");
}
