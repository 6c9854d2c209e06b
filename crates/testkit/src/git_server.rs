//! A git server over HTTPS under test, as a public host of repositories is one.

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::git::{commit, git};
use crate::receiver::{CERTIFICATE, KEY, certify};
use crate::{Home, free_port, poll};

/// For it to listen.
const PATIENCE: Duration = Duration::from_secs(20);
const PYTHON: &str = "/usr/bin/python3";
const SCRIPT: &str = include_str!("git_server.py");

/// A server with a port, a certificate and repositories of its own, killed when it is dropped.
#[derive(Debug)]
pub struct GitServer {
    home: Home,
    port: u16,
    child: Child,
}

impl GitServer {
    /// Starts one without repositories.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[track_caller]
    pub fn start() -> Self {
        let home = Home::new();
        let script = home.write("git_server.py", SCRIPT);
        certify(&home);
        for folder in ["git", "work"] {
            fs::create_dir_all(home.path().join(folder)).expect("make a folder");
        }
        home.write("log", "");
        let port = free_port();
        let mut command = Command::new(PYTHON);
        command.arg(script).arg(port.to_string());
        command.args(["git", CERTIFICATE, KEY, "log"].map(|name| home.path().join(name)));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("start the git server");
        poll(PATIENCE, "the git server listens", || TcpStream::connect(("127.0.0.1", port)).ok());
        Self { home, port, child }
    }

    /// `127.0.0.1:<port>`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where a repository is.
    pub fn url(&self, name: &str) -> String {
        format!("https://{}/{name}.git", self.address())
    }

    /// The file of its certificate.
    pub fn certificate(&self) -> PathBuf {
        self.home.path().join(CERTIFICATE)
    }

    /// The folder of a repository's files, where it is made.
    ///
    /// # Panics
    ///
    /// When it cannot be made.
    pub fn work(&self, name: &str) -> PathBuf {
        let folder = self.home.path().join("work").join(name);
        fs::create_dir_all(&folder).expect("make a folder");
        folder
    }

    /// Makes a repository of these files; returns its commit.
    ///
    /// # Panics
    ///
    /// When that fails.
    #[track_caller]
    pub fn repository(&self, name: &str, files: &[(&str, &str)]) -> String {
        let folder = self.work(name);
        for (path, text) in files {
            fs::write(folder.join(path), text).expect("write a file");
        }
        let commit = commit(&folder);
        self.publish(name);
        commit
    }

    /// Serves what was committed in a repository's folder.
    ///
    /// # Panics
    ///
    /// When that fails.
    #[track_caller]
    pub fn publish(&self, name: &str) {
        let (from, to) = (self.work(name), self.home.path().join(format!("git/{name}.git")));
        let words = ["clone", "--quiet", "--bare"].map(str::to_owned).into_iter();
        let words = words.chain([from, to].map(|path| path.display().to_string()));
        let words: Vec<_> = words.collect();
        git(self.home.path(), &words.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Serves a repository no longer.
    ///
    /// # Panics
    ///
    /// When that fails.
    pub fn unpublish(&self, name: &str) {
        let folder = self.home.path().join(format!("git/{name}.git"));
        fs::remove_dir_all(folder).expect("remove a repository");
    }

    /// The requests that it got: method and path.
    ///
    /// # Panics
    ///
    /// When its log cannot be read.
    pub fn requests(&self) -> Vec<String> {
        let log = fs::read_to_string(self.home.path().join("log")).expect("read the log");
        log.lines().map(str::to_owned).collect()
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
