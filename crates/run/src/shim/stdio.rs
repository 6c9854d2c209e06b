//! What the app's stdin, stdout and stderr are.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::pipe::{PipeFlags, pipe_with};
use tolv_sandbox::{ExecError, Handover, Terminal, WindowSize};

use crate::protocol::Io;

/// The descriptors of the app, and those that the shim reads.
pub(super) struct Stdio {
    app: App,
    /// stdout and stderr, where their lines go to the log.
    pub(super) ours: [Option<OwnedFd>; 2],
}

enum App {
    Three([OwnedFd; 3]),
    Terminal(OwnedFd),
}

/// Why there are none.
pub(super) enum Bad {
    Io(io::Error),
    /// The app is not to be executed.
    Exec(ExecError),
}

impl From<io::Error> for Bad {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Stdio {
    /// As it was ordered; `given` is what came with the launch for it.
    pub(super) fn new(kind: Io, given: impl Iterator<Item = OwnedFd>) -> Result<Self, Bad> {
        let given: Vec<OwnedFd> = given.collect();
        match kind {
            Io::Log => Ok(Self::log()?),
            Io::Pipes => {
                let three = given.try_into().map_err(|_| invalid())?;
                Ok(Self { app: App::Three(three), ours: [None, None] })
            }
            Io::Terminal { rows, columns } => {
                let [socket]: [OwnedFd; 1] = given.try_into().map_err(|_| invalid())?;
                let size = WindowSize { rows, columns };
                let Terminal { master, app } = Terminal::open(size).map_err(Bad::Exec)?;
                // Only theirs from here on: it hangs up when they let go.
                Handover::give(&socket, &master)?;
                Ok(Self { app: App::Terminal(app), ours: [None, None] })
            }
        }
    }

    fn log() -> io::Result<Self> {
        let null = File::open("/dev/null")?;
        let (out, out_end) = pipe_with(PipeFlags::CLOEXEC)?;
        let (err, err_end) = pipe_with(PipeFlags::CLOEXEC)?;
        for end in [&out, &err] {
            // Only ours: the app's end stays blocking.
            rustix::io::ioctl_fionbio(end, true)?;
        }
        let app = App::Three([null.into(), out_end, err_end]);
        Ok(Self { app, ours: [Some(out), Some(err)] })
    }

    pub(super) fn app(&self) -> [BorrowedFd<'_>; 3] {
        match &self.app {
            App::Three(three) => three.each_ref().map(|fd| fd.as_fd()),
            App::Terminal(one) => [one.as_fd(); 3],
        }
    }
}

fn invalid() -> io::Error {
    io::ErrorKind::InvalidInput.into()
}
