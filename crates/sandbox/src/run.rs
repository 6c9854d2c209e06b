//! One program, run to its end in a sandbox, its output given to a callback.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::error::{Error, ExecError};
use crate::init::{EXEC_BODY, Exec, Report};
use crate::network::{Network, NetworkNamespace};
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
    run_in(spawner, job, None, on_output, cancel)
}

/// As [`run`], in the network of another sandbox, where one is given.
///
/// # Errors
///
/// Those of [`run`].
pub fn run_in(
    spawner: &Spawner,
    job: &Job,
    network: Option<NetworkNamespace>,
    on_output: &mut dyn FnMut(Stream, &[u8]),
    cancel: &Cancel,
) -> Result<ExitStatus, Error> {
    let io = |what| move |error: rustix::io::Errno| Error::Io { what, source: error.into() };
    let payload = job
        .exec
        .to_bytes()
        .ok_or_else(|| Error::BadLaunch("a zero byte in a word or variable".to_owned()))?;
    let (control, theirs) =
        wire::pair().map_err(|source| Error::Io { what: "make a socket pair", source })?;
    let null = rustix::fs::open(
        "/dev/null",
        rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC,
        rustix::fs::Mode::empty(),
    )
    .map_err(io("open /dev/null"))?;
    let (out, out_end) = pipe_with(PipeFlags::CLOEXEC).map_err(io("make a pipe"))?;
    let (err, err_end) = pipe_with(PipeFlags::CLOEXEC).map_err(io("make a pipe"))?;
    let started = Instant::now();
    let mut spec = job.spec.clone();
    if network.is_some() {
        spec.network = Network::Joined;
    }
    let launched = spawner.launch(Launch {
        body: EXEC_BODY,
        payload,
        fds: vec![theirs, null, out_end, err_end],
        spec,
        network,
    })?;
    let mut watch = Watch {
        pipes: [(Stream::Out, Some(out)), (Stream::Err, Some(err))],
        control,
        buffer: vec![0; 64 * 1024],
        ended: None,
        oom_kills: 0,
        hung_up: false,
    };
    let stopped = watch.until(cancel, job.time_limit.map(|limit| started + limit), on_output);
    let Watch { control, pipes, ended, oom_kills, .. } = watch;
    // Its end tells the init to end everything; the pipes are not waited for.
    drop((control, pipes));
    wait_or_kill(&launched);
    match stopped {
        Stopped::Cancelled => return Err(Error::Cancelled),
        Stopped::TimeUp => return Err(Error::TimeLimit(job.time_limit.unwrap_or_default())),
        Stopped::Ended => {}
    }
    match ended {
        Some(Report::Exited(code)) => Ok(ExitStatus { code: Some(code), signal: None, oom_kills }),
        Some(Report::Signaled(signal)) => {
            Ok(ExitStatus { code: None, signal: Some(signal), oom_kills })
        }
        Some(Report::ExecFailed { errno, what }) => Err(ExecError { errno, what }.into()),
        Some(Report::OomKills(_)) | None => Err(Error::Lost),
    }
}

enum Stopped {
    Ended,
    Cancelled,
    TimeUp,
}

struct Watch {
    pipes: [(Stream, Option<OwnedFd>); 2],
    control: OwnedFd,
    buffer: Vec<u8>,
    ended: Option<Report>,
    oom_kills: u64,
    hung_up: bool,
}

impl Watch {
    /// Takes in output and reports until the sandbox is empty and the pipes are at their end.
    fn until(
        &mut self,
        cancel: &Cancel,
        deadline: Option<Instant>,
        on_output: &mut dyn FnMut(Stream, &[u8]),
    ) -> Stopped {
        while !self.hung_up || self.pipes.iter().any(|(_, pipe)| pipe.is_some()) {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Stopped::TimeUp;
            }
            let timeout = left.and_then(|left| Timespec::try_from(left).ok());
            let ready = {
                let mut fds = vec![PollFd::new(&*cancel.0, PollFlags::IN)];
                let mut places = [None; 3];
                if !self.hung_up {
                    places[0] = Some(fds.len());
                    fds.push(PollFd::new(&self.control, PollFlags::IN));
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
                self.read(index, on_output);
            }
            if ready[0] {
                self.hear();
            }
        }
        Stopped::Ended
    }

    fn read(&mut self, index: usize, on_output: &mut dyn FnMut(Stream, &[u8])) {
        let (stream, pipe) = &mut self.pipes[index];
        let Some(fd) = pipe else { return };
        match rustix::io::read(fd, &mut self.buffer) {
            Err(rustix::io::Errno::INTR) => {}
            Ok(0) | Err(_) => *pipe = None,
            Ok(read) => on_output(*stream, &self.buffer[..read]),
        }
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
