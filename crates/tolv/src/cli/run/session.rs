//! A run and this terminal, or these pipes, joined until one of them ends.
//!
//! ```text
//!  stdin ──▶ thread: input, piece by piece ──▶ platform
//!  signals ─▶ thread: resize, signal ────────▶ platform
//!  stdout, stderr ◀── main ◀── thread: output, from where it was
//! ```
//!
//! A connection that breaks is made again, and goes on where it was. The run does not need it.

use std::io::{self, IsTerminal as _, Read as _, Write};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Signal;
use serde_json::json;
use tolv_api::client::{Client, Error};
use tolv_api::runs::Frame;
use tolv_api::{Code, Problem, Run, RunSignal, RunSize};
use tolv_model::run::Connection;
use tolv_sandbox::SignalFd;

use super::terminal::{self, Raw};
use crate::cli::failure::Failure;

/// Bytes of one piece of input.
const PIECE: usize = 512 << 10;
/// A connection that cannot be made again for so long is given up.
const GIVE_UP: Duration = Duration::from_secs(15 * 60);
/// Between two tries: first, and most.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Being without a connection for so long is said.
const SAID: Duration = Duration::from_secs(2);
/// So many orders to end, and it is killed.
const INSISTED: u32 = 3;

/// What a run is joined with.
pub(super) struct Session {
    pub(super) client: Client,
    pub(super) run: Run,
    pub(super) attached: u32,
    /// Where to go on: output, input.
    pub(super) from: u64,
    pub(super) taken: u64,
    /// Each piece of output as a line of JSON.
    pub(super) json: bool,
}

/// How it was left.
pub(super) enum Left {
    /// The run is over.
    Over(Box<Run>),
    /// The run goes on; this ends with a status.
    Alone(u8),
    /// Nobody reads the output any more: the run is told to end.
    Unread,
}

enum Event {
    Output(Vec<(Frame, Vec<u8>)>),
    Missed(u64),
    Over(Box<Run>),
    Failed(Failure),
    Leave(u8),
}

impl Session {
    /// Until the run is over, or is left alone.
    pub(super) fn talk(self) -> Result<Left, Failure> {
        let cannot = |what: &str| {
            let what = what.to_owned();
            move |error: io::Error| Failure::new(format!("{what}: {error}"))
        };
        // Before any thread: they have them blocked as well.
        let signals = SignalFd::new(&[
            Signal::INT.as_raw(),
            Signal::TERM.as_raw(),
            Signal::QUIT.as_raw(),
            Signal::HUP.as_raw(),
            Signal::WINCH.as_raw(),
        ])
        .map_err(cannot("signals cannot be taken"))?;
        let is_terminal = self.run.connection == Connection::Terminal;
        let raw = match is_terminal && io::stdin().is_terminal() {
            true => Some(Raw::enter().map_err(cannot("the terminal cannot be used"))?),
            false => None,
        };
        let (events, happened) = sync_channel(4);
        let json = self.json;
        let line = Arc::new(Line {
            client: self.client,
            run: self.run,
            attached: self.attached,
            lost: AtomicBool::new(false),
            raw: raw.is_some(),
        });
        let spawn = |name: &str, work: Box<dyn FnOnce() + Send>| {
            let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
            spawned.map(drop).map_err(cannot("a thread cannot be made"))
        };
        let (of, to, from) = (Arc::clone(&line), events.clone(), self.from);
        spawn("output", Box::new(move || of.output(from, &to)))?;
        let (of, to) = (Arc::clone(&line), events.clone());
        let resizes = raw.is_some();
        spawn("signals", Box::new(move || of.signals(&signals, resizes, &to)))?;
        if line.run.connection != Connection::Detached {
            let (of, taken) = (Arc::clone(&line), self.taken);
            let hangs_up = raw.is_some();
            spawn("input", Box::new(move || of.input(taken, hangs_up, &events)))?;
        }
        write_all(&happened, json)
    }
}

/// Writes what comes, to the end.
fn write_all(happened: &Receiver<Event>, json: bool) -> Result<Left, Failure> {
    let gone = || Failure::new("the run was lost sight of");
    loop {
        match happened.recv().map_err(|_| gone())? {
            Event::Output(pieces) => {
                for (kind, bytes) in pieces {
                    let written = match (json, kind) {
                        (true, _) => write_json(kind, &bytes),
                        (false, Frame::Err) => write(&mut io::stderr().lock(), &bytes),
                        (false, _) => write(&mut io::stdout().lock(), &bytes),
                    };
                    match written {
                        Ok(()) => {}
                        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                            return Ok(Left::Unread);
                        }
                        Err(error) => {
                            return Err(Failure::new(format!(
                                "the output cannot be written: {error}"
                            )));
                        }
                    }
                }
            }
            Event::Missed(bytes) => {
                say(&format!("{bytes} bytes of the output are not kept"), false);
            }
            Event::Over(run) => return Ok(Left::Over(run)),
            Event::Leave(status) => return Ok(Left::Alone(status)),
            Event::Failed(failure) => return Err(failure),
        }
    }
}

fn write(to: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}

fn write_json(kind: Frame, bytes: &[u8]) -> io::Result<()> {
    let stream = if kind == Frame::Err { "err" } else { "out" };
    let line = json!({"stream": stream, "data": tolv_api::Value::of(bytes)});
    write(&mut io::stdout().lock(), format!("{line}\n").as_bytes())
}

/// A word of ours among the output.
fn say(text: &str, raw: bool) {
    let end = if raw { "\r\n" } else { "\n" };
    // Nobody reads it: nothing is lost.
    io::stderr().write_all(format!("tolv: {text}{end}").as_bytes()).ok();
}

/// The connection.
struct Line {
    client: Client,
    run: Run,
    attached: u32,
    /// Whether it was said that it is lost.
    lost: AtomicBool,
    /// The terminal wants its lines begun by hand.
    raw: bool,
}

impl Line {
    /// Asks until there is an answer.
    fn ask<T>(&self, once: impl Fn() -> Result<T, Error>) -> Result<T, Failure> {
        let begun = Instant::now();
        let mut pause = AGAIN.0;
        loop {
            let error = match once() {
                Ok(answer) => {
                    if self.lost.swap(false, Ordering::Relaxed) {
                        say("connected again", self.raw);
                    }
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if !may_pass(&error) || begun.elapsed() > GIVE_UP {
                let goes_on = error.may_come_back() || matches!(error, Error::Odd { .. });
                let failure = Failure::from(error);
                return Err(match goes_on {
                    true => failure.hint(format!("it goes on: tolv run attach {}", self.run.id)),
                    false => failure,
                });
            }
            if begun.elapsed() > SAID && !self.lost.swap(true, Ordering::Relaxed) {
                say("the connection is lost; trying to get it back", self.raw);
            }
            thread::sleep(pause);
            pause = (pause * 2).min(AGAIN.1);
        }
    }

    fn output(&self, mut from: u64, events: &SyncSender<Event>) {
        loop {
            let asked = self.ask(|| self.client.run_output(&self.run.id, from, self.attached));
            let output = match asked {
                Ok(output) => output,
                Err(failure) => {
                    events.send(Event::Failed(failure)).ok();
                    return;
                }
            };
            if output.from > from {
                events.send(Event::Missed(output.from - from)).ok();
            }
            let len: usize = output.pieces.iter().map(|(_, bytes)| bytes.len()).sum();
            from = output.from + len as u64;
            if len > 0 && events.send(Event::Output(output.pieces)).is_err() {
                return;
            }
            if let Some(run) = output.over {
                events.send(Event::Over(Box::new(run))).ok();
                return;
            }
        }
    }

    /// `hangs_up`: the end of the input is that of the terminal, and not for the run.
    fn input(&self, mut at: u64, hangs_up: bool, events: &SyncSender<Event>) {
        let mut buffer = vec![0; PIECE];
        loop {
            let read = fill(&mut buffer);
            let end = read == 0;
            if end && hangs_up {
                return;
            }
            let mut rest = &buffer[..read];
            loop {
                let sent =
                    self.ask(|| self.client.run_input(&self.run.id, at, rest, end, self.attached));
                let taken = match sent {
                    Ok(taken) => taken,
                    Err(failure) => {
                        events.send(Event::Failed(failure)).ok();
                        return;
                    }
                };
                if taken.closed {
                    return;
                }
                let count = usize::try_from(taken.taken.saturating_sub(at)).unwrap_or(usize::MAX);
                rest = &rest[count.min(rest.len())..];
                at = taken.taken;
                if rest.is_empty() {
                    break;
                }
            }
            if end {
                return;
            }
        }
    }

    fn signals(&self, signals: &SignalFd, resizes: bool, events: &SyncSender<Event>) {
        let mut insisted = 0;
        let mut last = None;
        loop {
            if resizes {
                let size = terminal::size();
                if last.replace(size) != Some(size) {
                    self.resize(size);
                }
            }
            signals.wait(Duration::from_secs(3600));
            for signal in signals.drain() {
                let name = match Signal::from_named_raw(signal) {
                    Some(Signal::INT) => "INT",
                    Some(Signal::QUIT) => "QUIT",
                    Some(Signal::TERM) if !self.raw => "TERM",
                    // The window, or whoever ends this, is gone; the run is not concerned.
                    Some(Signal::HUP | Signal::TERM) => {
                        let status = u8::try_from(128 + signal).unwrap_or(u8::MAX);
                        events.send(Event::Leave(status)).ok();
                        return;
                    }
                    _ => continue,
                };
                insisted += 1;
                let path = format!("/v1/runs/{}", self.run.id);
                let told: Result<(), Error> = match insisted < INSISTED {
                    true => {
                        let body = RunSignal { signal: name.to_owned() };
                        self.client.send("POST", &format!("{path}/signal"), &body)
                    }
                    false => self.client.delete::<Run>(&format!("{path}?kill=true")).map(drop),
                };
                if told.is_err() {
                    let status = u8::try_from(128 + signal).unwrap_or(u8::MAX);
                    events.send(Event::Leave(status)).ok();
                    return;
                }
            }
        }
    }

    fn resize(&self, size: tolv_model::run::WindowSize) {
        let body = RunSize { rows: size.rows, columns: size.columns };
        let path = format!("/v1/runs/{}/resize", self.run.id);
        // The next change brings it.
        self.client.send::<()>("POST", &path, &body).ok();
    }
}

/// Whether another try may succeed.
fn may_pass(error: &Error) -> bool {
    match error {
        Error::Unreachable { .. } | Error::Broken { .. } => error.may_come_back(),
        Error::Problem(problem) => {
            let Problem { code, .. } = &**problem;
            matches!(code, Code::Unavailable | Code::Stopping)
        }
        // Of a proxy whose other side is away.
        Error::Odd { what, .. } => {
            ["502", "503", "504"].iter().any(|status| what.contains(&format!("status {status}")))
        }
    }
}

/// Reads what there is: at least something, 0 at the end.
fn fill(buffer: &mut [u8]) -> usize {
    let mut stdin = io::stdin().lock();
    let mut filled = 0;
    while filled < buffer.len() {
        match stdin.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        }
        let now = Timespec::default();
        let more = poll(&mut [PollFd::new(&stdin.as_fd(), PollFlags::IN)], Some(&now));
        if more != Ok(1) {
            break;
        }
    }
    filled
}
