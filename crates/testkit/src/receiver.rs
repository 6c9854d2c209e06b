//! A receiver of a drain's lines under test: over HTTP or TCP, in clear or encrypted.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::serve::run;
use crate::{Home, free_port, poll};

/// For it to listen.
const PATIENCE: Duration = Duration::from_secs(20);
const PYTHON: &str = "/usr/bin/python3";
const SCRIPT: &str = include_str!("receiver.py");

/// Files in the home of a server.
pub(crate) const CERTIFICATE: &str = "certificate.pem";
pub(crate) const KEY: &str = "key.pem";

/// A certificate for `localhost` and `127.0.0.1` that nobody but its file vouches for.
#[track_caller]
pub(crate) fn certify(home: &Home) {
    let text = "[req]\ndistinguished_name = dn\nx509_extensions = v3\nprompt = no\n\
        [dn]\nCN = localhost\n\
        [v3]\nsubjectAltName = DNS:localhost, IP:127.0.0.1\nbasicConstraints = CA:FALSE\n";
    let config = home.write("openssl.conf", text);
    let mut command = Command::new("openssl");
    command.args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"]);
    command.args(["-pkeyopt", "ec_paramgen_curve:prime256v1"]).arg("-config").arg(config);
    command.arg("-keyout").arg(home.path().join(KEY));
    command.arg("-out").arg(home.path().join(CERTIFICATE));
    let ran = run(&mut command);
    assert!(ran.status.success(), "openssl: {}", ran.err);
}

/// A request that a receiver got.
#[derive(Clone, Debug)]
pub struct Request {
    /// What it was answered with.
    pub status: u16,
    /// Path and query.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let place = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..place]).into_owned();
        let mut lines = head.lines();
        let (status, target) = lines.next()?.split_once(' ')?;
        let header = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Some(Self {
            status: status.parse().ok()?,
            target: target.to_owned(),
            headers: lines.filter_map(header).collect(),
            body: bytes[place + 4..].to_vec(),
        })
    }
}

/// A receiver with a port and files of its own, killed when it is dropped.
#[derive(Debug)]
pub struct Receiver {
    home: Home,
    kind: &'static str,
    tls: bool,
    port: u16,
    child: Option<Child>,
}

impl Receiver {
    /// Over HTTP; it answers 200.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[track_caller]
    pub fn http(tls: bool) -> Self {
        Self::start("http", tls)
    }

    /// Over TCP.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[track_caller]
    pub fn tcp(tls: bool) -> Self {
        Self::start("tcp", tls)
    }

    #[track_caller]
    fn start(kind: &'static str, tls: bool) -> Self {
        let home = Home::new();
        home.write("receiver.py", SCRIPT);
        fs::create_dir_all(home.path().join("got")).expect("make a folder");
        let mut receiver = Self { home, kind, tls, port: free_port(), child: None };
        if tls {
            certify(&receiver.home);
        }
        receiver.answer("200");
        receiver.begin();
        receiver
    }

    /// The file of its certificate.
    pub fn certificate(&self) -> PathBuf {
        self.home.path().join(CERTIFICATE)
    }

    fn key(&self) -> PathBuf {
        self.home.path().join(KEY)
    }

    fn got(&self) -> PathBuf {
        self.home.path().join("got")
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What requests are answered with from now on: a status, or `hang`; `hold` keeps
    /// connections over TCP open that the other side has closed.
    ///
    /// # Panics
    ///
    /// When its files are not to be written.
    #[track_caller]
    pub fn answer(&self, answer: &str) {
        let aside = self.got().join(".answer");
        fs::write(&aside, answer).expect("write the answer");
        fs::rename(aside, self.got().join("answer")).expect("put the answer in its place");
    }

    /// Starts it again, on the same port and with the same files.
    ///
    /// # Panics
    ///
    /// When it runs already or does not come up.
    #[track_caller]
    pub fn begin(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut command = Command::new(PYTHON);
        command.arg(self.home.path().join("receiver.py")).arg(self.kind);
        command.arg(self.port.to_string()).arg(self.got());
        if self.tls {
            command.arg(self.certificate()).arg(self.key());
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        self.child = Some(command.spawn().expect("start the receiver"));
        poll(PATIENCE, "the receiver listens", || {
            TcpStream::connect(("127.0.0.1", self.port)).ok()
        });
    }

    /// Kills it.
    ///
    /// # Panics
    ///
    /// When it does not run.
    #[track_caller]
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("kill the receiver");
        child.wait().expect("wait for the receiver");
    }

    /// The requests that it got and answered, the oldest first.
    pub fn requests(&self) -> Vec<Request> {
        let read = |path: &PathBuf| Request::read(&fs::read(path).ok()?);
        self.files("request-").iter().filter_map(read).collect()
    }

    fn files(&self, prefix: &str) -> Vec<PathBuf> {
        let list = fs::read_dir(self.got()).into_iter().flatten().flatten();
        let is_one = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix))
        };
        let mut paths: Vec<_> = list.map(|entry| entry.path()).filter(is_one).collect();
        paths.sort();
        paths
    }

    /// The bytes that it got over TCP, of each connection.
    pub fn connections(&self) -> Vec<Vec<u8>> {
        self.files("bytes-").iter().filter_map(|path| fs::read(path).ok()).collect()
    }

    /// The bytes that it got over TCP.
    pub fn bytes(&self) -> Vec<u8> {
        self.connections().concat()
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}
