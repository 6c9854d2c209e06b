//! Debian's rsyslog as a receiver under test: it writes each message that it gets into a file.

use std::fs;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::{Home, free_port, poll};

const PROGRAM: &str = "/usr/sbin/rsyslogd";
/// For it to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// An rsyslog with a port and files of its own, killed when it is dropped.
#[derive(Debug)]
pub struct Rsyslog {
    home: Home,
    port: u16,
    child: Option<Child>,
}

impl Rsyslog {
    /// Starts one on a free port.
    ///
    /// # Panics
    ///
    /// When it does not come up: `cargo xtask needs` installs it.
    #[track_caller]
    pub fn start() -> Self {
        let mut rsyslog = Self { home: Home::new(), port: free_port(), child: None };
        rsyslog.begin();
        rsyslog
    }

    /// Where it listens.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Starts it again, on the same port and the same file.
    ///
    /// # Panics
    ///
    /// When it runs already or does not come up.
    #[track_caller]
    pub fn begin(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let folder = self.home.path();
        let text = format!(
            "global(workDirectory=\"{folder}\" maxMessageSize=\"64k\" \
             parser.escapeControlCharactersOnReceive=\"off\")\n\
             main_queue(queue.type=\"Direct\")\n\
             module(load=\"imtcp\")\n\
             template(name=\"raw\" type=\"string\" string=\"%rawmsg%\\n\")\n\
             input(type=\"imtcp\" address=\"127.0.0.1\" port=\"{port}\")\n\
             action(type=\"omfile\" file=\"{folder}/messages\" template=\"raw\")\n",
            folder = folder.display(),
            port = self.port,
        );
        let config = self.home.write("rsyslog.conf", &text);
        let child = Command::new(PROGRAM)
            .arg("-n")
            .arg("-f")
            .arg(config)
            .arg("-i")
            .arg(folder.join("pid"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap_or_else(|error| panic!("start {PROGRAM}: {error}")));
        poll(PATIENCE, "rsyslog listens", || TcpStream::connect(("127.0.0.1", self.port)).ok());
    }

    /// Stops its time: its machine still takes what is sent, and it reads nothing.
    ///
    /// # Panics
    ///
    /// When it does not run.
    #[track_caller]
    pub fn freeze(&self) {
        let child = self.child.as_ref().expect("it runs");
        kill_process(Pid::from_child(child), Signal::STOP).expect("freeze rsyslog");
    }

    /// Kills it, whatever it has not written yet.
    ///
    /// # Panics
    ///
    /// When it does not run.
    #[track_caller]
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("kill rsyslog");
        child.wait().expect("wait for rsyslog");
    }

    /// What it has written, a message a line.
    pub fn messages(&self) -> Vec<String> {
        let bytes = fs::read(self.home.path().join("messages")).unwrap_or_default();
        let lines = bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }
}

impl Drop for Rsyslog {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}
