//! A running `tolv serve` under test, and the command line that talks to it.

use std::ffi::OsStr;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use crate::{Home, Line, Tolv, free_port};

/// For the platform to say that it is there, and to be gone.
const PATIENCE: Duration = Duration::from_secs(60);
/// Lines of the platform that a failed test shows.
const LAST_LINES: usize = 40;

/// What a command wrote, and how it ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// Standard output; what is not UTF-8 is replaced.
    pub out: String,
    /// Standard error, in the same way.
    pub err: String,
}

/// A platform on a state folder and ports of its own, and a user's settings for its command line.
///
/// Dropped, it stops everything, also what an earlier platform on the folder left running: then
/// it is started once more, only to be stopped.
#[derive(Debug)]
pub struct Serve {
    program: PathBuf,
    home: Home,
    extra: Vec<(String, String)>,
    api: u16,
    http: u16,
    token: String,
    /// The name of the state folder.
    state: String,
    running: Option<Tolv>,
}

impl Serve {
    /// Starts a platform on a fresh state folder, with `extra` in its environment.
    ///
    /// # Panics
    ///
    /// When it does not come up; the text has what it wrote.
    #[track_caller]
    pub fn start(program: &str, extra: &[(&str, &str)]) -> Self {
        let home = Home::new();
        fs::create_dir_all(home.path().join("user")).expect("make the user's folder");
        let extra = extra.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let mut serve = Self {
            program: program.into(),
            home,
            extra: extra.collect(),
            api: free_port(),
            http: free_port(),
            token: String::new(),
            state: "state".to_owned(),
            running: None,
        };
        serve.begin();
        let running = serve.running.as_ref().expect("it was just started");
        let line = running.wait_for_line(|line| line.contains("tolv_"), PATIENCE).text;
        let token = line.split_whitespace().find(|word| word.starts_with("tolv_"));
        serve.token = token.expect("a word that is a token").to_owned();
        serve
    }

    /// Gives the platform another environment from its next start on.
    pub fn set(&mut self, extra: &[(&str, &str)]) {
        let extra = extra.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        self.extra = extra.collect();
    }

    /// Starts the platform again on its state folder; the ports and the token stay.
    ///
    /// # Panics
    ///
    /// When it runs already or does not come up.
    #[track_caller]
    pub fn begin(&mut self) {
        assert!(self.running.is_none(), "it runs already");
        self.running = Some(self.another());
    }

    /// Starts another platform on the same state folder and ports.
    ///
    /// # Panics
    ///
    /// When it does not come up.
    #[track_caller]
    pub fn another(&self) -> Tolv {
        let mut command = Command::new(&self.program);
        command
            .arg("serve")
            .env("TOLV_HOME", self.state())
            .env("TOLV_TOOLCHAINS", crate::toolchains())
            .env("TOLV_LISTEN", format!("127.0.0.1:{}", self.api))
            .env("TOLV_HTTP", format!("127.0.0.1:{}", self.http))
            .envs(self.extra.iter().map(|(name, value)| (name, value)));
        let running = Tolv::start(&mut command);
        running.wait_for_line(|line| line.contains("API at http://"), PATIENCE);
        running
    }

    /// Ends the platform by a signal and waits until it is gone.
    ///
    /// # Panics
    ///
    /// When it does not end.
    #[track_caller]
    pub fn end(&mut self, signal: Signal) -> ExitStatus {
        let mut running = self.running.take().expect("it runs");
        running.signal(signal);
        running.wait(PATIENCE)
    }

    /// Sends the platform a signal that does not end it.
    ///
    /// # Panics
    ///
    /// When it was ended.
    pub fn signal(&mut self, signal: Signal) {
        self.running.as_mut().expect("it runs").signal(signal);
    }

    /// Lets a new `tolv` go on for the platform, and waits until the old one has ended; between
    /// them both are there.
    ///
    /// # Panics
    ///
    /// When there is none, or the old one does not end.
    #[track_caller]
    pub fn upgrade(&mut self, between: impl FnOnce(&Self)) -> ExitStatus {
        self.upgrade_with(|_| {}, between)
    }

    /// As [`Serve::upgrade`], with something to do before it is handed over.
    ///
    /// # Panics
    ///
    /// When there is none, or the old one does not end.
    #[track_caller]
    pub fn upgrade_with(
        &mut self,
        first: impl FnOnce(&Self),
        between: impl FnOnce(&Self),
    ) -> ExitStatus {
        let running = self.running.as_mut().expect("it runs");
        let mut before = running.lines().len();
        running.upgrade(Signal::USR2);
        first(self);
        let running = self.running.as_mut().expect("it runs");
        let handed = running.wait_for_line(
            |line| {
                let is_new = before == 0;
                before = before.saturating_sub(1);
                is_new && line.contains("Handed over to process ")
            },
            PATIENCE,
        );
        let (_, id) = handed.text.split_once("process ").expect("the line that was waited for");
        let id = id.split(';').next().and_then(|id| id.parse().ok()).and_then(Pid::from_raw);
        let mut old = running.succeeded_by(id.expect("a process id"));
        between(self);
        old.wait_alone(PATIENCE)
    }

    /// Waits until the platform has ended by itself.
    ///
    /// # Panics
    ///
    /// When it does not end.
    #[track_caller]
    pub fn ended(&mut self) -> ExitStatus {
        self.running.take().expect("it runs").wait_alone(PATIENCE)
    }

    /// As [`Serve::ended`], with all that the platform wrote.
    ///
    /// # Panics
    ///
    /// When it does not end.
    #[track_caller]
    pub fn ended_with_lines(&mut self) -> (ExitStatus, Vec<Line>) {
        let mut running = self.running.take().expect("it runs");
        let status = running.wait_alone(PATIENCE);
        (status, running.lines())
    }

    /// The running program.
    ///
    /// # Panics
    ///
    /// When it was ended.
    pub fn running(&self) -> &Tolv {
        self.running.as_ref().expect("it runs")
    }

    /// Its state folder.
    pub fn state(&self) -> PathBuf {
        self.home.path().join(&self.state)
    }

    /// Moves the state folder of a platform that was ended.
    ///
    /// # Panics
    ///
    /// When it runs, or the folder cannot be moved.
    pub fn move_state(&mut self, name: &str) {
        assert!(self.running.is_none(), "it runs");
        let from = self.state();
        name.clone_into(&mut self.state);
        fs::rename(from, self.state()).expect("move the state folder");
    }

    /// A folder for codebases and other files of the user.
    pub fn folder(&self, name: &str) -> PathBuf {
        let folder = self.home.path().join("user").join(name);
        fs::create_dir_all(&folder).expect("make a folder");
        folder
    }

    /// `http://127.0.0.1:<port>` of the API.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.api)
    }

    /// The router's port.
    pub fn http(&self) -> u16 {
        self.http
    }

    /// The owner's token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// A command of the command line in a folder, with the owner's token.
    pub fn command<S: AsRef<OsStr>>(&self, folder: &Path, args: &[S]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).current_dir(folder);
        self.user(&mut command);
        command.env("TOLV_SERVER", self.url()).env("TOLV_TOKEN", &self.token);
        command
    }

    /// Gives a command the user's settings, and nothing of the machine's.
    pub fn user(&self, command: &mut Command) {
        let folder = self.home.path().join("user");
        command
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &folder)
            .env("XDG_CONFIG_HOME", folder.join("config"))
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_AUTHOR_NAME", "Ada")
            .env("GIT_AUTHOR_EMAIL", "ada@example.org")
            .env("GIT_COMMITTER_NAME", "Ada")
            .env("GIT_COMMITTER_EMAIL", "ada@example.org")
            .stdin(Stdio::null());
    }

    /// Runs a command of the command line in a folder.
    ///
    /// # Panics
    ///
    /// When it cannot be started; not when it fails.
    #[track_caller]
    pub fn ran<S: AsRef<OsStr>>(&self, folder: &Path, args: &[S]) -> Ran {
        run(&mut self.command(folder, args))
    }

    /// As [`Serve::ran`], but it has to succeed; gives its standard output.
    ///
    /// # Panics
    ///
    /// When it fails; the text has what it wrote.
    #[track_caller]
    pub fn tolv<S: AsRef<OsStr> + std::fmt::Debug>(&self, folder: &Path, args: &[S]) -> String {
        let ran = self.ran(folder, args);
        assert!(ran.status.success(), "tolv {args:?}: {}\n{}{}", ran.status, ran.out, ran.err);
        ran.out
    }
}

/// Runs a command to its end.
///
/// # Panics
///
/// When it cannot be started.
#[track_caller]
pub fn run(command: &mut Command) -> Ran {
    let output = command.output().unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    Ran {
        status: output.status,
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

impl Drop for Serve {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(running) = &self.running
        {
            // A failed test's own text does not say what the platform went through.
            let lines = running.lines();
            let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
            let text: String =
                last.iter().map(|line| format!("  serve: {}\n", line.text)).collect();
            std::io::stderr().write_all(text.as_bytes()).ok();
        }
        if self.running.is_none() {
            self.begin();
        }
        self.end(Signal::INT);
    }
}
