//! A running program under test, such as `tolv`: its output, its signals, its end.

use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{
    Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid,
};

/// How long a dropped program has to end by itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(10);
/// Between two looks at whether it has ended.
const PAUSE: Duration = Duration::from_millis(5);

/// Where a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// A line that the program wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it came from.
    pub stream: Stream,
    /// Without its line end; what is not UTF-8 is replaced.
    pub text: String,
}

/// A program that runs while this value lives.
///
/// Dropped, it gets SIGTERM, after ten seconds SIGKILL, and is reaped: a failing test leaves
/// nothing behind.
#[derive(Debug)]
pub struct Tolv {
    process: Process,
    output: Arc<Output>,
}

#[derive(Debug)]
enum Process {
    Started(Child),
    /// Started by the one before it, which has ended; and how this one ended, if it has.
    Heir(Pid, Option<ExitStatus>),
}

impl Process {
    fn pid(&self) -> Pid {
        match self {
            Self::Started(child) => Pid::from_child(child),
            Self::Heir(pid, _) => *pid,
        }
    }

    /// How it ended, if it has.
    fn try_wait(&mut self) -> Option<ExitStatus> {
        match self {
            Self::Started(child) => child.try_wait().ok().flatten(),
            Self::Heir(_, Some(status)) => Some(*status),
            Self::Heir(pid, ended) => {
                let waited = waitpid(Some(*pid), WaitOptions::NOHANG).ok().flatten();
                *ended = waited.map(|(_, status)| ExitStatus::from_raw(status.as_raw()));
                *ended
            }
        }
    }
}

#[derive(Debug, Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    /// Streams that have ended.
    ended: usize,
}

impl Output {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn collect(&self, stream: Stream, from: impl Read) {
        let mut from = BufReader::new(from);
        let mut bytes = Vec::new();
        while from.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(bytes.strip_suffix(b"\n").unwrap_or(&bytes));
            self.state().lines.push(Line { stream, text: text.into_owned() });
            self.changed.notify_all();
            bytes.clear();
        }
        self.state().ended += 1;
        self.changed.notify_all();
    }

    /// Waits until `look` gives a value, for `deadline` at most.
    fn wait<T>(&self, deadline: Duration, mut look: impl FnMut(&State) -> Option<T>) -> Option<T> {
        let start = Instant::now();
        let mut state = self.state();
        loop {
            if let Some(value) = look(&state) {
                return Some(value);
            }
            let left = deadline.checked_sub(start.elapsed()).filter(|left| !left.is_zero())?;
            let woken = self.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn shown(&self) -> String {
        let line = |Line { stream, text }: &Line| format!("  {stream:?}: {text}\n");
        self.state().lines.iter().map(line).collect()
    }
}

impl Tolv {
    /// Starts a command with no input, and takes in what it writes.
    ///
    /// # Panics
    ///
    /// When it cannot be started.
    #[track_caller]
    pub fn start(command: &mut Command) -> Self {
        let spawned =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("start {command:?}: {error}"));
        let output = Arc::new(Output::default());
        let streams: [(_, Option<Box<dyn Read + Send>>); 2] = [
            (Stream::Out, child.stdout.take().map(|pipe| Box::new(pipe) as _)),
            (Stream::Err, child.stderr.take().map(|pipe| Box::new(pipe) as _)),
        ];
        for (stream, pipe) in streams {
            let output = Arc::clone(&output);
            let pipe = pipe.expect("both streams are pipes");
            thread::spawn(move || output.collect(stream, pipe));
        }
        Self { process: Process::Started(child), output }
    }

    /// The id of the process.
    pub fn pid(&self) -> Pid {
        self.process.pid()
    }

    /// What it has written so far.
    pub fn lines(&self) -> Vec<Line> {
        self.output.state().lines.clone()
    }

    /// Waits for a line for which `wanted` holds, one that was there before too; returns the
    /// first.
    ///
    /// # Panics
    ///
    /// When there is none within `deadline`, or both streams end without one.
    #[track_caller]
    pub fn wait_for_line(&self, mut wanted: impl FnMut(&str) -> bool, deadline: Duration) -> Line {
        let mut seen = 0;
        let found = self.output.wait(deadline, |state| {
            let new = state.lines[seen..].iter().find(|line| wanted(&line.text)).cloned();
            seen = state.lines.len();
            new.map(Some).or_else(|| (state.ended == 2).then_some(None))
        });
        match found.flatten() {
            Some(line) => line,
            None => panic!("no such line within {deadline:?} in:\n{}", self.output.shown()),
        }
    }

    /// Sends a signal, as in `Signal::TERM` of rustix. One that has ended gets none.
    pub fn signal(&mut self, signal: Signal) {
        // Once it is reaped, its id may be somebody else's.
        if self.process.try_wait().is_none() {
            kill_process(self.pid(), signal).ok();
        }
    }

    /// Sends the signal on which it starts another one to go on for it.
    ///
    /// # Panics
    ///
    /// When the system does not let this process wait for the other one.
    pub fn upgrade(&mut self, signal: Signal) {
        // Before the old one can be gone: whose the other one is then is decided at that moment.
        set_child_subreaper(Some(getpid())).expect("become a subreaper");
        self.signal(signal);
    }

    /// After [`Tolv::upgrade`], this is the other one from here on; gives the old one, which writes
    /// here too.
    pub fn succeeded_by(&mut self, heir: Pid) -> Self {
        let process = std::mem::replace(&mut self.process, Process::Heir(heir, None));
        Self { process, output: Arc::clone(&self.output) }
    }

    /// Waits for the end, not for the output.
    ///
    /// # Panics
    ///
    /// When it has not ended within `deadline`; the text has everything that was written.
    #[track_caller]
    pub fn wait_alone(&mut self, deadline: Duration) -> ExitStatus {
        let Some(status) = self.ended(deadline) else {
            panic!("still runs after {deadline:?}:\n{}", self.output.shown());
        };
        status
    }

    /// Waits for the end, and then for what is left of its output.
    ///
    /// # Panics
    ///
    /// When it has not ended within `deadline`; the text has everything that was written.
    #[track_caller]
    pub fn wait(&mut self, deadline: Duration) -> ExitStatus {
        let start = Instant::now();
        let status = self.wait_alone(deadline);
        // Whoever inherited a stream may hold it open: then what is there must do.
        let left = deadline.saturating_sub(start.elapsed());
        self.output.wait(left, |state| (state.ended == 2).then_some(()));
        status
    }

    fn ended(&mut self, deadline: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        loop {
            let over = start.elapsed() >= deadline;
            if let Some(status) = self.process.try_wait() {
                return Some(status);
            }
            if over {
                return None;
            }
            thread::sleep(PAUSE);
        }
    }
}

impl Drop for Tolv {
    fn drop(&mut self) {
        self.signal(Signal::TERM);
        if self.ended(GRACE).is_none() {
            kill_process(self.pid(), Signal::KILL).ok();
            self.ended(GRACE);
        }
    }
}

#[cfg(test)]
mod tests;
