//! A program in front of a terminal: what it shows, what is typed.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::poll;

/// Behind a deadline of ours, which says more than that of the poll.
const SLACK: Duration = Duration::from_secs(5);

/// A program whose stdin, stdout and stderr are a terminal of its own. Dropped, it is killed.
#[derive(Debug)]
pub struct Screen {
    child: Child,
    master: File,
    /// Kept open, to look at its modes.
    app: OwnedFd,
    seen: Arc<Mutex<Vec<u8>>>,
}

impl Screen {
    /// Starts a command in front of a terminal of 30 lines of 90 characters, as the leader of its
    /// session.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[track_caller]
    pub fn start(command: &Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("open a terminal");
        unlockpt(&master).expect("unlock the terminal");
        let app = ioctl_tiocgptpeer(&master, flags).expect("open its other end");
        let end = || Stdio::from(app.try_clone().expect("copy a descriptor"));
        // The system's own program makes the session.
        let mut session = Command::new("setsid");
        session.args(["--ctty", "--wait"]).arg(command.get_program()).args(command.get_args());
        session.env_clear().env("TERM", "xterm-256color");
        for (name, value) in command.get_envs() {
            if let Some(value) = value {
                session.env(name, value);
            }
        }
        if let Some(folder) = command.get_current_dir() {
            session.current_dir(folder);
        }
        session.stdin(end()).stdout(end()).stderr(end());
        let seen = Arc::new(Mutex::new(Vec::new()));
        let master = File::from(master);
        let screen = Self {
            child: session.spawn().expect("start setsid"),
            master: master.try_clone().expect("copy a descriptor"),
            app,
            seen: Arc::clone(&seen),
        };
        screen.resize(30, 90);
        thread::spawn(move || {
            let (mut from, mut buffer) = (master, [0; 4096]);
            while let Ok(read @ 1..) = from.read(&mut buffer) {
                seen.lock().unwrap_or_else(PoisonError::into_inner).extend(&buffer[..read]);
            }
        });
        screen
    }

    /// Everything that was shown so far; what is not UTF-8 is replaced.
    pub fn text(&self) -> String {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&seen).into_owned()
    }

    /// Types.
    ///
    /// # Panics
    ///
    /// When the terminal is gone.
    #[track_caller]
    pub fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("type");
    }

    /// Waits until this is shown, behind what was shown at `from`; where it ends.
    ///
    /// # Panics
    ///
    /// When it does not come; the text has what was shown.
    #[track_caller]
    pub fn wait_for(&self, text: &str, from: usize, deadline: Duration) -> usize {
        let start = Instant::now();
        poll(deadline + SLACK, &format!("{text:?} on the screen"), || {
            let shown = self.text();
            let found = shown.get(from..).and_then(|new| new.find(text));
            assert!(found.is_some() || start.elapsed() < deadline, "no {text:?} in {shown:?}");
            found.map(|at| from + at + text.len())
        })
    }

    /// Changes the size.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.app, size).expect("resize the terminal");
    }

    /// Whether keys go to the program as they are typed.
    pub fn is_raw(&self) -> bool {
        let modes = tcgetattr(&self.app).expect("ask for the modes").local_modes;
        !modes.intersects(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// The id of the program.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).ok();
    }

    /// Waits for the end.
    ///
    /// # Panics
    ///
    /// When it does not come.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let what = format!("the end of the program; it showed {:?}", self.text());
        poll(deadline, &what, || self.child.try_wait().ok().flatten())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
