//! A terminal of the sandbox: opened inside it, its other end handed out.
//!
//! The app's end is a device of the sandbox's own `/dev/pts`, as far as the level has one, so that
//! its name means the same to the app as to everybody; the other end can only be made there too,
//! and comes out over a [`Handover`].

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::error::ExecError;
use crate::wire;

/// Rows and columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSize {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

impl WindowSize {
    /// Changes the size of a terminal; who reads it gets SIGWINCH.
    ///
    /// # Errors
    ///
    /// The terminal is gone.
    pub fn set(self, terminal: impl std::os::fd::AsFd) -> io::Result<()> {
        let Self { rows: ws_row, columns: ws_col } = self;
        Ok(tcsetwinsize(terminal, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 })?)
    }
}

/// Both ends of a new terminal.
#[derive(Debug)]
pub struct Terminal {
    /// Whoever has it types and reads the screen.
    pub master: OwnedFd,
    /// The app's stdin, stdout and stderr.
    pub app: OwnedFd,
}

impl Terminal {
    /// A new terminal of the `/dev/pts` that this process sees.
    ///
    /// # Errors
    ///
    /// The step that failed.
    pub fn open(size: WindowSize) -> Result<Self, ExecError> {
        let bad = |what: &str| {
            let what = what.to_owned();
            move |error: rustix::io::Errno| ExecError { errno: error.raw_os_error(), what }
        };
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).map_err(bad("open /dev/ptmx"))?;
        unlockpt(&master).map_err(bad("unlock the terminal"))?;
        let app = ioctl_tiocgptpeer(&master, flags).map_err(bad("open the terminal"))?;
        size.set(&master).map_err(|error| ExecError {
            errno: crate::sys::errno(&error),
            what: "set the terminal's size".to_owned(),
        })?;
        Ok(Self { master, app })
    }
}

/// The end that a descriptor comes out of.
#[derive(Debug)]
pub struct Handover(OwnedFd);

impl Handover {
    /// This end, and the one to put among the descriptors of a launch.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) = wire::pair()?;
        Ok((Self(ours), theirs))
    }

    /// Waits for the descriptor; nothing where the other end was closed without one.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn take(self) -> io::Result<Option<OwnedFd>> {
        Ok(wire::receive(self.0.as_fd())?.and_then(|(_, fds)| fds.into_iter().next()))
    }

    /// Hands a descriptor to whoever has the other end of a launch's socket.
    ///
    /// # Errors
    ///
    /// Nobody has it any more.
    pub fn give(socket: &OwnedFd, fd: &OwnedFd) -> io::Result<()> {
        wire::send_bytes(socket.as_fd(), b"fd", &[fd.as_fd()])
    }
}
