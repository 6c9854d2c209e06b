//! A PostgreSQL server of a test's own.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{fs, io};

use rustix::process::{Pid, Signal, kill_process};

use crate::{Home, free_port, poll};

/// For the server to take connections.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with one empty database, on a port of its own, gone when dropped. It trusts whoever
/// asks and does not wait for the disk.
#[derive(Debug)]
pub struct Postgres {
    home: Home,
    port: u16,
    url: String,
    server: Option<Child>,
}

impl Postgres {
    /// Makes a cluster in a temp folder and starts its server.
    ///
    /// # Panics
    ///
    /// When PostgreSQL is not installed or does not start.
    #[track_caller]
    pub fn start() -> Self {
        let home = Home::new();
        let port = free_port();
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
        let mut postgres = Self { home, port, url, server: None };
        let data = postgres.data();
        fs::create_dir(&data).expect("make the data folder");
        if let Some((uid, gid)) = user() {
            // It refuses to run as root, and then it must reach its folder.
            for folder in [postgres.home.path(), &data] {
                chown(folder, Some(uid), Some(gid)).expect("give the folder to its user");
            }
        }
        let made = unprivileged(&program("initdb"))
            .args(["--no-sync", "--auth=trust", "--username=postgres", "--encoding=UTF8"])
            // A language's order of letters, as servers have, and not that of bytes.
            .args(["--locale=C.UTF-8", "--locale-provider=icu", "--icu-locale=en-US", "-D"])
            .arg(&data)
            .current_dir("/")
            .output()
            .expect("run initdb");
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        postgres.again();
        postgres
    }

    /// Where its files are.
    pub fn data(&self) -> PathBuf {
        self.home.path().join("data")
    }

    /// Its address, for `DATABASE_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address of another database of this server.
    pub fn url_of(&self, database: &str) -> String {
        format!("postgres://postgres@{}/{database}", self.address())
    }

    /// Gives a folder to the user that the server runs as.
    ///
    /// # Panics
    ///
    /// When it cannot be given.
    #[track_caller]
    pub fn own(&self, folder: &Path) {
        if let Some((uid, gid)) = user() {
            chown(folder, Some(uid), Some(gid)).expect("give the folder to its user");
        }
    }

    /// Where it listens: `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Stops the server, at once and cutting every connection.
    pub fn stop(&mut self) {
        if let Some(mut server) = self.server.take() {
            // Fast shutdown.
            kill_process(Pid::from_child(&server), Signal::INT).ok();
            server.wait().ok();
        }
    }

    /// Starts the server again, on the same port.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[track_caller]
    pub fn again(&mut self) {
        let server = unprivileged(&program("postgres"))
            .arg("-D")
            .arg(self.data())
            .args(["-p", &self.port.to_string(), "-c", "listen_addresses=127.0.0.1"])
            .args(["-c", "fsync=off", "-c", "unix_socket_directories="])
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start postgres");
        self.server = Some(server);
        poll(PATIENCE, "PostgreSQL takes connections", || {
            Command::new(program("pg_isready"))
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status()
                .is_ok_and(|status| status.success())
                .then_some(())
        });
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A program of the newest version that Debian has installed.
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").expect("PostgreSQL is installed");
    let mut versions: Vec<_> = versions.flatten().map(|version| version.path()).collect();
    versions.sort();
    versions.pop().expect("a version of PostgreSQL").join("bin").join(name)
}

/// The user that Debian's package makes; nothing where this is not root.
fn user() -> Option<(u32, u32)> {
    if !rustix::process::geteuid().is_root() {
        return None;
    }
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let line = users.lines().find(|line| line.starts_with("postgres:"))?;
    let mut fields = line.split(':').skip(2).map(str::parse);
    Some((fields.next()?.ok()?, fields.next()?.ok()?))
}

/// A command that is not root, and that ends with the test.
fn unprivileged(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if let Some((uid, gid)) = user() {
        command.args([format!("--reuid={uid}"), format!("--regid={gid}")]).arg("--clear-groups");
    }
    command.args(["--pdeathsig=KILL", "--"]).arg(program);
    command
}

/// Runs SQL in the database.
///
/// # Errors
///
/// psql cannot be started, or says why not.
pub fn sql(postgres: &Postgres, statement: &str) -> io::Result<String> {
    let ran = Command::new(program("psql"))
        .args(["-v", "ON_ERROR_STOP=1", "-qtA", "-c", statement])
        .arg(postgres.url())
        .output()?;
    match ran.status.success() {
        true => Ok(String::from_utf8_lossy(&ran.stdout).into_owned()),
        false => Err(io::Error::other(String::from_utf8_lossy(&ran.stderr).into_owned())),
    }
}
