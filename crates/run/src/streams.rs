//! The streams of a one-off that its caller has, and not the log.
//!
//! ```text
//!  caller ── Input ──▶ pipe ──▶ app ──▶ pipe ── Output ──▶ caller
//!  caller ◀── Input, Output ── terminal of the sandbox ── app
//! ```
//!
//! Nothing is kept here: a caller that does not read makes the app wait.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Weak};

use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tolv_logs::Stream;
use tolv_sandbox::{Handover, WindowSize};

use crate::control::Control;
use crate::protocol::{Io, Order};

/// What comes with a launch, and what is left of it here.
pub(crate) struct Wiring {
    /// For the shim.
    pub(crate) theirs: Vec<OwnedFd>,
    ours: Ours,
}

enum Ours {
    Nothing,
    Pipes { input: OwnedFd, out: OwnedFd, err: OwnedFd },
    Terminal(Handover),
}

/// Ends that nobody listens to yet.
#[derive(Debug)]
pub(crate) enum Ends {
    Pipes { input: OwnedFd, out: OwnedFd, err: OwnedFd },
    Terminal(OwnedFd),
}

impl Wiring {
    pub(crate) fn new(kind: Io) -> io::Result<Self> {
        let pipe = || pipe_with(PipeFlags::CLOEXEC);
        Ok(match kind {
            Io::Log => Self { theirs: Vec::new(), ours: Ours::Nothing },
            Io::Pipes => {
                let ((stdin, input), (out, stdout), (err, stderr)) = (pipe()?, pipe()?, pipe()?);
                let ours = Ours::Pipes { input, out, err };
                Self { theirs: vec![stdin, stdout, stderr], ours }
            }
            Io::Terminal { .. } => {
                let (ours, theirs) = Handover::new()?;
                Self { theirs: vec![theirs], ours: Ours::Terminal(ours) }
            }
        })
    }

    /// Once the shim was launched. Blocks until it has opened its terminal; without one it says
    /// why on its own socket.
    pub(crate) fn take(self) -> io::Result<Option<Ends>> {
        Ok(match self.ours {
            Ours::Nothing => None,
            Ours::Pipes { input, out, err } => Some(Ends::Pipes { input, out, err }),
            Ours::Terminal(handover) => handover.take()?.map(Ends::Terminal),
        })
    }
}

/// The streams of a process that runs.
#[derive(Debug)]
pub struct Streams {
    /// What it reads.
    pub input: Input,
    /// What it writes: two of pipes, one of a terminal.
    pub outputs: Vec<(Stream, Output)>,
}

impl Streams {
    /// Must be called inside a tokio runtime.
    pub(crate) fn new(ends: Ends) -> io::Result<Self> {
        Ok(match ends {
            Ends::Pipes { input, out, err } => Self {
                input: Input { fd: open(input, Interest::WRITABLE)?, is_terminal: false },
                outputs: vec![
                    (Stream::Out, Output(open(out, Interest::READABLE)?)),
                    (Stream::Err, Output(open(err, Interest::READABLE)?)),
                ],
            },
            Ends::Terminal(master) => {
                let fd = open(master, Interest::READABLE | Interest::WRITABLE)?;
                Self {
                    input: Input { fd: Arc::clone(&fd), is_terminal: true },
                    outputs: vec![(Stream::Out, Output(fd))],
                }
            }
        })
    }
}

fn open(fd: OwnedFd, interest: Interest) -> io::Result<Arc<AsyncFd<OwnedFd>>> {
    // The app's ends are other descriptions, which stay blocking.
    rustix::io::ioctl_fionbio(&fd, true)?;
    #[expect(unsafe_code, reason = "tokio asks for the descriptor to stay the same")]
    // SAFETY: an `OwnedFd` that is moved in stays open, and the same, until it is dropped with
    // the `AsyncFd`.
    let fd = unsafe { AsyncFd::register_with_interest(fd, interest)? };
    Ok(Arc::new(fd))
}

/// What a process reads. Dropped, a pipe is at its end; a terminal goes on.
#[derive(Debug)]
pub struct Input {
    fd: Arc<AsyncFd<OwnedFd>>,
    is_terminal: bool,
}

impl Input {
    /// Writes some of the bytes, once there is room. May be dropped at any time: then nothing was
    /// written.
    ///
    /// # Errors
    ///
    /// [`io::ErrorKind::BrokenPipe`]: nobody reads any more.
    pub async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.fd.async_io(Interest::WRITABLE, |fd| Ok(rustix::io::write(fd, bytes)?));
        match written.await {
            // A terminal that nobody has open.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            written => written,
        }
    }

    /// Whether an end is said by a letter, Ctrl-D, and not by a drop.
    pub fn is_terminal(&self) -> bool {
        self.is_terminal
    }
}

/// What a process writes.
#[derive(Debug)]
pub struct Output(Arc<AsyncFd<OwnedFd>>);

impl Output {
    /// Reads what is there, once something is; 0 at the end. May be dropped at any time: then
    /// nothing was read.
    ///
    /// # Errors
    ///
    /// The system's.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let read =
            self.0.async_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut *buffer)?));
        match read.await {
            // How a terminal says that nobody has it open any more.
            Err(error) if Errno::from_io_error(&error) == Some(Errno::IO) => Ok(0),
            read => read,
        }
    }
}

/// What else can be done to a process that runs; of no effect once it has ended.
#[derive(Clone, Debug)]
pub struct Handle {
    control: Weak<Control>,
    terminal: Weak<AsyncFd<OwnedFd>>,
}

impl Handle {
    pub(crate) fn new(control: &Arc<Control>, streams: Option<&Streams>) -> Self {
        let terminal = streams.map(|streams| &streams.input).filter(|input| input.is_terminal);
        Self {
            control: Arc::downgrade(control),
            terminal: terminal.map_or_else(Weak::new, |input| Arc::downgrade(&input.fd)),
        }
    }

    /// Sends a signal to the process and those of its group.
    pub fn signal(&self, signal: i32) {
        if let Some(control) = self.control.upgrade() {
            // Where there is no room for it, as many wait as anybody could mean.
            control.order(Order::Signal { signal });
        }
    }

    /// Changes the size of its terminal.
    pub fn resize(&self, rows: u16, columns: u16) {
        if let Some(terminal) = self.terminal.upgrade() {
            // Hung up meanwhile: nobody looks at it.
            WindowSize { rows, columns }.set(terminal.get_ref()).ok();
        }
    }
}
