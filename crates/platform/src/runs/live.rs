//! A run as it is now: the output that waits for its reader, the input that waits for the process.
//!
//! Output is let go once it has arrived: reading from a place says so of everything before it.
//! Input is taken once, however often it is sent: each piece says where it begins.

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tolv_logs::{Line, Source, Stream};
use tolv_model::run::ring::Ring;
use tolv_model::run::{Connection, End, fresh};
use tolv_run::{Handle, Input, Stop};
use tolv_store::Run;

use super::Held;
use crate::error::Error;

/// Output that waits for its reader; then the process waits.
const WAITING: usize = 1 << 20;
/// Most bytes of one answer.
const ANSWER: usize = 256 << 10;
/// Most bytes of output that are kept.
pub(super) const RECORD: usize = 4 << 20;
/// For a process to take input; then the sender is told how much of it was taken.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a terminal takes as the end of the input: Ctrl-D.
const END_OF_INPUT: &[u8] = b"\x04";

/// Some of a run's output.
#[derive(Clone, Debug)]
pub struct RunOutput {
    /// Where it begins: behind the place asked for where bytes before it are not kept.
    pub from: u64,
    /// The bytes, each piece of one stream.
    pub pieces: Vec<(Stream, Vec<u8>)>,
    /// The run, once it is over and this is the last of its output.
    pub over: Option<Run>,
}

/// How much of its input a run has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// Bytes since its start.
    pub taken: u64,
    /// Nothing more will be taken.
    pub closed: bool,
}

/// Streams that were taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// To be given with each read and write.
    pub number: u32,
    /// Up to where output has arrived somewhere.
    pub from: u64,
    /// Bytes of input that were taken.
    pub taken: u64,
}

/// A run that somebody may still read from or write to.
pub(super) struct Live {
    pub(super) stop: Stop,
    handle: OnceLock<Handle>,
    state: Mutex<State>,
    intake: tokio::sync::Mutex<Intake>,
    /// Counts changes, to wait for them.
    changes: watch::Sender<u64>,
}

struct State {
    run: Run,
    ring: Ring<Stream>,
    record: Option<Record>,
    /// Counts those who attached; only the last one reads and writes.
    attached: u32,
    /// The process is gone: what is left in its pipes is all there will be.
    gone: bool,
    over: bool,
    /// The platform ended before it could start.
    never_began: bool,
    /// A reader got its end.
    is_read: bool,
    stopped_by: Option<String>,
    /// Until it is over.
    _slug: Option<Held>,
}

/// Output that is kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    pub(super) bytes: Vec<u8>,
    pub(super) missed: u64,
}

impl Record {
    fn add(&mut self, bytes: &[u8]) {
        let room = RECORD - self.bytes.len();
        let part = &bytes[..bytes.len().min(room)];
        self.bytes.extend_from_slice(part);
        self.missed += (bytes.len() - part.len()) as u64;
    }
}

struct Intake {
    taken: u64,
    sink: Sink,
    ended: bool,
}

enum Sink {
    /// It does not run yet.
    Waiting,
    Open(Input),
    Closed,
}

impl Live {
    pub(super) fn new(run: Run, stop: Stop, slug: Held, record: bool) -> Self {
        let sink = match run.connection {
            Connection::Detached => Sink::Closed,
            Connection::Pipes | Connection::Terminal => Sink::Waiting,
        };
        Self {
            stop,
            handle: OnceLock::new(),
            state: Mutex::new(State {
                run,
                ring: Ring::new(WAITING),
                record: record.then(Record::default),
                attached: 1,
                gone: false,
                over: false,
                never_began: false,
                is_read: false,
                stopped_by: None,
                _slug: Some(slug),
            }),
            intake: tokio::sync::Mutex::new(Intake { taken: 0, sink, ended: false }),
            changes: watch::Sender::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Waits until `look` gives something.
    async fn wait<T>(&self, mut look: impl FnMut(&mut State) -> Option<T>) -> T {
        let mut changes = self.changes.subscribe();
        loop {
            changes.borrow_and_update();
            let found = look(&mut self.state());
            if let Some(found) = found {
                return found;
            }
            // The sender lives as long as this.
            changes.changed().await.ok();
        }
    }

    /// Its record, as it is now.
    pub(super) fn run(&self) -> Run {
        self.state().run.clone()
    }

    pub(super) fn is_over(&self) -> bool {
        self.state().over
    }

    /// It runs now.
    pub(super) async fn started(&self, input: Option<Input>, handle: Handle) {
        // It starts once.
        self.handle.set(handle).ok();
        self.intake.lock().await.sink = input.map_or(Sink::Closed, Sink::Open);
        let mut state = self.state();
        state.run.state = tolv_model::run::State::Up;
        state.run.started = Some(jiff::Timestamp::now());
        drop(state);
        self.changed();
    }

    /// Waits until output may be appended; how much.
    pub(super) async fn room(&self) -> usize {
        self.wait(|state| match (state.ring.room(), state.gone) {
            (0, false) => None,
            (room, false) => Some(room),
            // What is left is no more than a pipe holds.
            (_, true) => Some(usize::MAX),
        })
        .await
    }

    /// Appends output.
    pub(super) fn push(&self, stream: Stream, bytes: &[u8]) {
        let mut state = self.state();
        state.ring.push(stream, bytes);
        if let Some(record) = &mut state.record {
            record.add(bytes);
        }
        drop(state);
        self.changed();
    }

    /// Takes in a line of the log that is its: nobody waits for a reader here.
    pub(super) fn hear(&self, line: &Line) {
        if line.source == Source::Tolv {
            return;
        }
        let mut text = line.text.clone();
        if !line.marks.more {
            text.push(b'\n');
        }
        let mut state = self.state();
        state.ring.force(line.stream, &text);
        if let Some(record) = &mut state.record {
            record.add(&text);
        }
        drop(state);
        self.changed();
    }

    /// The process is gone.
    pub(super) fn gone(&self) {
        self.state().gone = true;
        self.changed();
    }

    /// What is kept of its output, and who stopped it.
    pub(super) fn result(&self) -> (Option<Record>, Option<String>) {
        let mut state = self.state();
        (state.record.take(), state.stopped_by.clone())
    }

    /// It is over, and that is recorded.
    pub(super) fn over(&self, end: &End, recorded: Option<u64>, now: jiff::Timestamp) {
        let mut state = self.state();
        state.run.state = end.state;
        state.run.status = end.status;
        state.run.note.clone_from(&end.note);
        state.run.recorded = recorded;
        state.run.ended = Some(now);
        state.over = true;
        state.ring.forget();
        state._slug = None;
        drop(state);
        self.changed();
    }

    /// The platform ended before it could start: it is no run.
    pub(super) fn never_began(&self) {
        let mut state = self.state();
        (state.never_began, state.over) = (true, true);
        state._slug = None;
        drop(state);
        self.changed();
    }

    /// Waits until it runs or is over; whether it was a run at all.
    pub(super) async fn has_begun(&self) -> bool {
        self.wait(|state| {
            let runs = state.run.state == tolv_model::run::State::Up;
            (runs || state.over).then_some(!state.never_began)
        })
        .await
    }

    /// Waits until a reader got its end, where there may be one.
    pub(super) async fn is_read(&self) {
        self.wait(|state| {
            let has_reader = state.run.connection != Connection::Detached || state.attached > 1;
            (state.is_read || !has_reader).then_some(())
        })
        .await;
    }

    pub(super) fn stopped_by(&self, actor: &str) {
        self.state().stopped_by.get_or_insert_with(|| actor.to_owned());
    }

    /// Takes the streams over from whoever had them.
    pub(super) async fn attach(&self) -> Attachment {
        let (number, from) = {
            let mut state = self.state();
            state.attached = state.attached.wrapping_add(1);
            (state.attached, state.ring.acked())
        };
        self.changed();
        // Behind what the one before is sending still.
        let taken = self.intake.lock().await.taken;
        Attachment { number, from, taken }
    }

    fn check(state: &State, attached: Option<u32>) -> Result<(), Error> {
        match attached.is_none_or(|attached| attached == state.attached) {
            true => Ok(()),
            false => Err(Error::AttachedElsewhere(state.run.id.clone())),
        }
    }

    /// Output from a place on, once there is some, or the end; nothing of both after `wait`.
    pub(super) async fn output(
        &self,
        from: u64,
        attached: Option<u32>,
        wait: Duration,
    ) -> Result<RunOutput, Error> {
        let look = |state: &mut State| {
            if let Err(elsewhere) = Self::check(state, attached) {
                return Some(Err(elsewhere));
            }
            let acked = state.ring.acked();
            let read = state.ring.read(from, ANSWER);
            if state.ring.acked() > acked {
                // There is room: whoever waits for it looks again.
                self.changed();
            }
            let len: usize = read.pieces.iter().map(|(_, piece)| piece.len()).sum();
            let last = read.from + len as u64 == state.ring.end();
            let over = (state.over && last).then(|| state.run.clone());
            state.is_read |= over.is_some();
            let some = len > 0 || over.is_some();
            some.then_some(Ok(RunOutput { from: read.from, pieces: read.pieces, over }))
        };
        let nothing = || Ok(RunOutput { from, pieces: Vec::new(), over: None });
        let output = tokio::time::timeout(wait, self.wait(look)).await;
        if let Ok(Ok(RunOutput { over: Some(_), .. })) = &output {
            // Whoever waits for this looks again.
            self.changed();
        }
        output.unwrap_or_else(|_| nothing())
    }

    /// Gives the process input that begins at a place; `end` says that none comes behind it.
    pub(super) async fn input(
        &self,
        at: u64,
        bytes: &[u8],
        end: bool,
        attached: Option<u32>,
    ) -> Result<Taken, Error> {
        Self::check(&self.state(), attached)?;
        let until = Instant::now() + PATIENCE;
        let Ok(mut intake) = timeout_at(until, self.intake.lock()).await else {
            // Another piece is being taken all the time: this one is sent again.
            return Ok(Taken { taken: at, closed: false });
        };
        if let Sink::Waiting = intake.sink {
            drop(intake);
            let begun = self.wait(|state| {
                (state.gone || state.run.state == tolv_model::run::State::Up).then_some(())
            });
            if timeout_at(until, begun).await.is_err() {
                return Ok(Taken { taken: at, closed: false });
            }
            intake = self.intake.lock().await;
        }
        let known = fresh(intake.taken, at, bytes.len())
            .ok_or(Error::InputGap { taken: intake.taken, at })?;
        let mut rest = &bytes[known..];
        while !rest.is_empty() {
            Self::check(&self.state(), attached)?;
            let cut = self
                .wait(|state| (state.gone || Self::check(state, attached).is_err()).then_some(()));
            let written = tokio::select! {
                written = intake.write(rest, until) => written,
                () = cut => None,
            };
            let Some(count) = written else { break };
            intake.taken += count as u64;
            rest = &rest[count..];
        }
        if end && rest.is_empty() && !intake.ended {
            intake.ended = true;
            match &intake.sink {
                Sink::Open(input) if input.is_terminal() => {
                    // Full: then nobody reads, and nobody misses it.
                    timeout_at(until, input.write(END_OF_INPUT)).await.ok();
                }
                Sink::Open(_) | Sink::Waiting | Sink::Closed => intake.sink = Sink::Closed,
            }
        }
        let closed = matches!(intake.sink, Sink::Closed);
        Ok(Taken { taken: intake.taken, closed })
    }

    /// Closes its input: the process is gone.
    pub(super) async fn close(&self) {
        self.intake.lock().await.sink = Sink::Closed;
    }

    pub(super) fn handle(&self) -> Option<&Handle> {
        self.handle.get()
    }
}

impl Intake {
    /// How many bytes were taken; nothing where the time is over.
    async fn write(&mut self, bytes: &[u8], until: Instant) -> Option<usize> {
        let Sink::Open(input) = &self.sink else { return Some(bytes.len()) };
        match timeout_at(until, input.write(bytes)).await {
            Err(_) => None,
            Ok(Ok(written)) => Some(written),
            Ok(Err(_)) => {
                // Nobody reads it any more: as a pipe to nobody.
                self.sink = Sink::Closed;
                Some(bytes.len())
            }
        }
    }
}
