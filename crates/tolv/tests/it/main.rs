//! The real binary, real processes, real sockets: Tolv as its user meets it.

#![expect(clippy::unwrap_used, reason = "what cannot be had fails the test")]

mod bad_input;
mod build;
mod cli;
mod detect;
mod examples;
mod formation;
mod isolation;
mod local;
mod own_files;
mod python;
mod release;
mod restricted;
mod serve;
mod stack;
mod state;
mod stop;
mod stream;
mod toolchains;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use tolv_testkit::{Home, Tolv, http};

/// For what happens in moments on an idle machine.
const SOON: Duration = Duration::from_secs(60);
/// For what compiles or fetches packages.
const LATER: Duration = Duration::from_secs(300);

/// An HTTP server in Python's standard library: says its PORT, or does what the path asks for.
const SERVER: &str = r#"
import os, signal, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path.startswith("/slow"):
            os.write(1, b"slow request\n")
            time.sleep(float(self.path.partition("?")[2] or 1))
        text = {"/env": "\n".join(f"{k}={v}" for k, v in sorted(os.environ.items()))}
        body = text.get(self.path, f"{os.environ['TOLV_PROCESS']} {os.environ['PORT']}").encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args):
        pass

class Server(ThreadingHTTPServer):
    daemon_threads = False
    request_queue_size = 128

server = Server(("0.0.0.0", int(os.environ["PORT"])), Handler)
signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("ready", flush=True)
server.serve_forever()
server.server_close()
print("stopped", flush=True)
"#;

/// The program with nothing of the test's own environment but what finds programs and packages.
fn tolv() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tolv"));
    clean(&mut command);
    command.env("TOLV_TOOLCHAINS", tolv_testkit::toolchains());
    command
}

#[expect(clippy::disallowed_methods, reason = "to take out of it what would change a test")]
fn clean(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("TOLV_") || name == "PORT" || name == "NO_COLOR" {
            command.env_remove(name);
        }
    }
}

/// Runs a command to its end.
fn output(command: &mut Command) -> Output {
    command.output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A codebase with this Procfile and [`SERVER`] as `server.py`.
fn codebase(procfile: &str) -> Home {
    let home = Home::new();
    home.write("shop/Procfile", procfile);
    home.write("shop/server.py", SERVER);
    home
}

fn shop(home: &Home) -> PathBuf {
    home.path().join("shop")
}

/// A running `tolv up` that is ready.
struct Up {
    tolv: Tolv,
    address: SocketAddr,
    host: String,
}

impl Up {
    /// Starts it on a free port and waits until it says where it is up.
    fn start(dir: &Path, args: &[&str]) -> Self {
        Self::start_with(tolv().arg("up").arg(dir).args(args), SOON)
    }

    fn start_with(command: &mut Command, deadline: Duration) -> Self {
        let tolv = Tolv::start(command.args(["--listen", "127.0.0.1:0"]));
        let line = tolv.wait_for_line(|line| line.contains("is up at http://"), deadline);
        let url = line.text.split("http://").nth(1).unwrap().trim_end_matches(['"', '}']);
        let (host, port) = url.rsplit_once(':').unwrap();
        let port = port.chars().take_while(char::is_ascii_digit).collect::<String>();
        let address = SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap()));
        Self { tolv, address, host: host.to_owned() }
    }

    fn get(&self, target: &str) -> io::Result<http::Response> {
        http::get(self.address, &self.host, target)
    }

    fn text(&self, target: &str) -> String {
        let response = self.get(target).unwrap();
        assert_eq!(response.status, 200, "{}", response.text());
        response.text()
    }

    /// Waits for a line that has this text.
    fn sees(&self, text: &str) -> String {
        self.tolv.wait_for_line(|line| line.contains(text), SOON).text
    }
}

/// Pids whose command line or environment has this text; the test's own process is not meant.
fn processes_with(text: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let has = |file: &str| {
            let bytes = std::fs::read(entry.path().join(file)).unwrap_or_default();
            bytes.windows(text.len()).any(|window| window == text.as_bytes())
        };
        if pid != std::process::id() && (has("cmdline") || has("environ")) {
            found.push(pid);
        }
    }
    found
}
