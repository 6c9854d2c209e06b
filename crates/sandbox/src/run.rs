//! One program, run to its end in a sandbox, its output given to a callback.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Error, ExecError};
use crate::init::{EXEC_BODY, Exec, Report};
use crate::spawner::{Launch, Launched, Spawner};
use crate::spec::Spec;
use crate::wire;

/// A program and the sandbox it runs in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The sandbox.
    pub spec: Spec,
    /// The program.
    pub exec: Exec,
    /// Wall-clock cap.
    pub time_limit: Option<Duration>,
}

/// Where output came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// How the program ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitStatus {
    /// Its exit code, if it exited.
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// How many processes the kernel killed for want of memory.
    pub oom_kills: u64,
}

impl ExitStatus {
    /// Whether it exited with 0.
    pub fn success(self) -> bool {
        self.code == Some(0)
    }
}

/// Ends a [`run`] from another thread. Clones share their state.
#[derive(Clone, Debug)]
pub struct Cancel(Arc<OwnedFd>);

impl Cancel {
    /// A cancel that nobody has pulled.
    ///
    /// # Errors
    ///
    /// The system's, as for too many open files.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Whether somebody has.
    pub fn is_cancelled(&self) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::new(&*self.0, PollFlags::IN)], Some(&now)).is_ok_and(|n| n > 0)
    }

    /// Cancels, for good.
    pub fn cancel(&self) {
        // A full counter has been pulled already.
        rustix::io::write(&*self.0, &1_u64.to_ne_bytes()).ok();
    }
}

/// How long a cancelled program's sandbox may take to empty itself before it is killed.
const UNTIL_KILLED: Duration = Duration::from_secs(2);

/// A program that runs in its sandbox. Dropped, everything in it is killed.
#[derive(Debug)]
pub struct Running {
    control: OwnedFd,
    launched: Launched,
    ended: Option<Report>,
    oom_kills: u64,
    hung_up: bool,
}

/// Starts a program; its standard streams are the caller's.
///
/// # Errors
///
/// Those of [`Spawner::launch`]. That the program itself cannot be executed is an error of
/// [`Running::try_wait`].
pub fn start(spawner: &Spawner, job: &Job, stdio: [OwnedFd; 3]) -> Result<Running, Error> {
    let payload = job
        .exec
        .to_bytes()
        .ok_or_else(|| Error::BadLaunch("a zero byte in a word or variable".to_owned()))?;
    let (control, theirs) =
        wire::pair().map_err(|source| Error::Io { what: "make a socket pair", source })?;
    let [stdin, stdout, stderr] = stdio;
    let launched = spawner.launch(Launch {
        body: EXEC_BODY,
        payload,
        fds: vec![theirs, stdin, stdout, stderr],
        spec: job.spec.clone(),
    })?;
    Ok(Running { control, launched, ended: None, oom_kills: 0, hung_up: false })
}

impl Running {
    /// Its pid on the machine.
    pub fn pid(&self) -> i32 {
        self.launched.pid
    }

    /// Takes in what the sandbox has reported, without waiting; its end once it is empty.
    ///
    /// # Errors
    ///
    /// [`Error::Exec`] if the program did not start, [`Error::Lost`].
    pub fn try_wait(&mut self) -> Option<Result<ExitStatus, Error>> {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        while !self.hung_up
            && poll(&mut [PollFd::new(&self.control, PollFlags::IN)], Some(&now))
                .is_ok_and(|ready| ready > 0)
        {
            self.hear();
        }
        self.hung_up.then(|| self.status())
    }

    /// Kills everything in the sandbox, and waits until it is gone.
    pub fn stop(self) {
        let Self { control, launched, .. } = self;
        // Its end tells the init to end everything.
        drop(control);
        wait_or_kill(&launched);
    }

    fn hear(&mut self) {
        let packet = wire::receive(self.control.as_fd()).ok().flatten();
        let report = packet.and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok());
        match report {
            Some(Report::OomKills(count)) => self.oom_kills = count,
            Some(report) => self.ended = Some(report),
            None => self.hung_up = true,
        }
    }

    fn status(&mut self) -> Result<ExitStatus, Error> {
        let oom_kills = self.oom_kills;
        match self.ended.take() {
            Some(Report::Exited(code)) => {
                Ok(ExitStatus { code: Some(code), signal: None, oom_kills })
            }
            Some(Report::Signaled(signal)) => {
                Ok(ExitStatus { code: None, signal: Some(signal), oom_kills })
            }
            Some(Report::ExecFailed { errno, what }) => Err(ExecError { errno, what }.into()),
            Some(Report::OomKills(_)) | None => Err(Error::Lost),
        }
    }
}

/// Readable when [`Running::try_wait`] has something to take in.
impl AsFd for Running {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }
}

impl AsRawFd for Running {
    fn as_raw_fd(&self) -> i32 {
        self.control.as_raw_fd()
    }
}

/// Runs a program to its end; everything it started is gone when this returns.
///
/// # Errors
///
/// [`Error::Exec`] if it did not start, [`Error::Cancelled`], [`Error::TimeLimit`], and those of
/// [`Spawner::launch`].
pub fn run(
    spawner: &Spawner,
    job: &Job,
    on_output: &mut dyn FnMut(Stream, &[u8]),
    cancel: &Cancel,
) -> Result<ExitStatus, Error> {
    let mut on_output = |stream, bytes: &[u8]| {
        on_output(stream, bytes);
        ControlFlow::Continue(())
    };
    run_with(spawner, job, None, &mut on_output, cancel)
}

/// As [`run`], with a standard input, and with a callback that may have had enough: then the
/// program is killed, and the result is [`Error::Cancelled`].
///
/// # Errors
///
/// As [`run`].
pub fn run_with(
    spawner: &Spawner,
    job: &Job,
    stdin: Option<OwnedFd>,
    on_output: &mut dyn FnMut(Stream, &[u8]) -> ControlFlow<()>,
    cancel: &Cancel,
) -> Result<ExitStatus, Error> {
    let io = |what| move |error: rustix::io::Errno| Error::Io { what, source: error.into() };
    let stdin = match stdin {
        Some(stdin) => stdin,
        None => rustix::fs::open(
            "/dev/null",
            rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )
        .map_err(io("open /dev/null"))?,
    };
    let (out, out_end) = pipe_with(PipeFlags::CLOEXEC).map_err(io("make a pipe"))?;
    let (err, err_end) = pipe_with(PipeFlags::CLOEXEC).map_err(io("make a pipe"))?;
    let started = Instant::now();
    let running = start(spawner, job, [stdin, out_end, err_end])?;
    let mut watch = Watch {
        pipes: [(Stream::Out, Some(out)), (Stream::Err, Some(err))],
        running,
        buffer: vec![0; 64 * 1024],
    };
    let stopped = watch.until(cancel, job.time_limit.map(|limit| started + limit), on_output);
    let Watch { mut running, pipes, .. } = watch;
    let status = running.status();
    // The pipes are not waited for.
    drop(pipes);
    running.stop();
    match stopped {
        Stopped::Cancelled => Err(Error::Cancelled),
        Stopped::TimeUp => Err(Error::TimeLimit(job.time_limit.unwrap_or_default())),
        Stopped::Ended => status,
    }
}

enum Stopped {
    Ended,
    Cancelled,
    TimeUp,
}

struct Watch {
    pipes: [(Stream, Option<OwnedFd>); 2],
    running: Running,
    buffer: Vec<u8>,
}

impl Watch {
    /// Takes in output and reports until the sandbox is empty and the pipes are at their end.
    fn until(
        &mut self,
        cancel: &Cancel,
        deadline: Option<Instant>,
        on_output: &mut dyn FnMut(Stream, &[u8]) -> ControlFlow<()>,
    ) -> Stopped {
        while !self.running.hung_up || self.pipes.iter().any(|(_, pipe)| pipe.is_some()) {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Stopped::TimeUp;
            }
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let ready = {
                let mut fds = vec![PollFd::new(&*cancel.0, PollFlags::IN)];
                let mut places = [None; 3];
                if !self.running.hung_up {
                    places[0] = Some(fds.len());
                    fds.push(PollFd::new(&self.running, PollFlags::IN));
                }
                for (place, (_, pipe)) in places[1..].iter_mut().zip(&self.pipes) {
                    if let Some(pipe) = pipe {
                        *place = Some(fds.len());
                        fds.push(PollFd::new(pipe, PollFlags::IN));
                    }
                }
                if poll(&mut fds, timeout.as_ref()).is_err() {
                    continue;
                }
                if !fds[0].revents().is_empty() {
                    return Stopped::Cancelled;
                }
                places.map(|place| place.is_some_and(|at| !fds[at].revents().is_empty()))
            };
            for (index, _) in ready[1..].iter().enumerate().filter(|(_, ready)| **ready) {
                if self.read(index, on_output).is_break() {
                    return Stopped::Cancelled;
                }
            }
            if ready[0] {
                self.running.hear();
            }
        }
        Stopped::Ended
    }

    fn read(
        &mut self,
        index: usize,
        on_output: &mut dyn FnMut(Stream, &[u8]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (stream, pipe) = &mut self.pipes[index];
        let Some(fd) = pipe else { return ControlFlow::Continue(()) };
        match rustix::io::read(fd, &mut self.buffer) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => *pipe = None,
            Ok(read) => return on_output(*stream, &self.buffer[..read]),
        }
        ControlFlow::Continue(())
    }
}

fn wait_or_kill(launched: &Launched) {
    let patience = Timespec::try_from(UNTIL_KILLED).ok();
    let gone = |timeout: Option<&Timespec>| {
        poll(&mut [PollFd::new(&launched.pidfd, PollFlags::IN)], timeout).is_ok_and(|n| n > 0)
    };
    if !gone(patience.as_ref()) {
        launched.kill();
        // The kernel does not refuse this signal.
        while !gone(None) {}
    }
}
