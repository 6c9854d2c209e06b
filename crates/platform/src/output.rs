//! The output of operations: kept while they run, replayed to whoever follows.
//!
//! What a build or a release phase writes has no end by itself: its beginning and its end are kept,
//! bounded in bytes, and what was between is counted. The platform's own lines, the cause of a
//! failure among them, are never left out.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tolv_model::operation::State;

use super::error::Error;

/// Bytes of the beginning of what an operation's programs write that are kept.
const HEAD: usize = 1 << 20;
/// Bytes of its end.
const TAIL: usize = 3 << 20;
/// Bytes of the platform's own lines; more than it ever says.
const OWN: usize = 4 << 20;
/// What a line takes besides its bytes: an output of empty lines is bounded too.
const OVERHEAD: usize = 64;
/// Longest line that is kept whole, in bytes.
const LINE: usize = 10_000;

/// What happens in an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// One line, without its end.
    Output(Arc<[u8]>),
    /// How far what takes long has come; said as often as it changes, and not kept.
    Bar(Bar),
    /// The end: nothing comes behind it.
    Over(State),
}

/// How far something has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// So many of the total, in units of its own.
    pub done: u64,
    /// 0 where it is not known.
    pub total: u64,
    /// What it is.
    pub what: String,
}

/// The output of all operations that are not over, or of whatever else has such ids.
pub(super) struct Outputs<Id>(Mutex<HashMap<Id, Arc<Output>>>);

impl<Id> Default for Outputs<Id> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Id: Clone + Eq + Hash> Outputs<Id> {
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Id, Arc<Output>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The output of an operation, made where there is none.
    pub(super) fn begin(&self, id: &Id) -> Arc<Output> {
        Arc::clone(self.lock().entry(id.clone()).or_default())
    }

    pub(super) fn follow(&self, id: &Id) -> Option<Follow> {
        self.lock().get(id).map(Output::follow_arc)
    }

    /// Ends an operation's output and lets it go; those who follow still read it.
    pub(super) fn over(&self, id: &Id, state: State) {
        if let Some(output) = self.lock().remove(id) {
            output.end(state);
        }
    }
}

/// The output of one operation.
#[derive(Default)]
pub(super) struct Output {
    kept: Mutex<Kept>,
    /// Counts changes, to wait for them.
    changes: watch::Sender<u64>,
}

#[derive(Default)]
struct Kept {
    /// By their number, from 0; those that were left out are missing.
    lines: BTreeMap<u64, Arc<[u8]>>,
    /// How many there were.
    count: u64,
    /// Bytes of the platform's own lines, and of the beginning of the others.
    own: usize,
    head: usize,
    /// Numbers of the lines of the end, and their bytes.
    tail: VecDeque<u64>,
    tail_bytes: usize,
    /// The last, and how many there were.
    bar: (u64, Option<Bar>),
    /// Why it failed.
    failure: Option<Arc<Error>>,
    over: Option<State>,
}

impl Kept {
    fn put(&mut self, line: &[u8], is_own: bool) {
        let line: Arc<[u8]> = line.get(..LINE).unwrap_or(line).into();
        let (number, bytes) = (self.count, line.len() + OVERHEAD);
        self.count += 1;
        self.lines.insert(number, line);
        if is_own && self.own + bytes <= OWN {
            self.own += bytes;
        } else if self.tail.is_empty() && self.head + bytes <= HEAD {
            self.head += bytes;
        } else {
            self.tail.push_back(number);
            self.tail_bytes += bytes;
            while self.tail_bytes > TAIL
                && let Some(oldest) = self.tail.pop_front()
            {
                let line = self.lines.remove(&oldest);
                self.tail_bytes -= line.map_or(0, |line| line.len() + OVERHEAD);
            }
        }
    }

    /// The line to read at a place, and the place behind it: it may stand for lines left out.
    fn read(&self, place: u64) -> Option<(Arc<[u8]>, u64)> {
        let (&number, line) = self.lines.range(place..).next()?;
        Some(match number - place {
            0 => (Arc::clone(line), place + 1),
            missed => (omitted(missed), number),
        })
    }
}

impl Output {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what `text` has, line by line: the platform's own words.
    pub(super) fn say(&self, text: impl AsRef<[u8]>) {
        self.put(text.as_ref(), true);
    }

    /// Appends what a program wrote.
    pub(super) fn pass_on(&self, text: impl AsRef<[u8]>) {
        self.put(text.as_ref(), false);
    }

    fn put(&self, text: &[u8], is_own: bool) {
        if text.is_empty() {
            return;
        }
        {
            let mut kept = self.kept();
            for line in text.strip_suffix(b"\n").unwrap_or(text).split(|&byte| byte == b'\n') {
                kept.put(line, is_own);
            }
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// What a build says.
    pub(super) fn build(&self, event: &tolv_build::Event) {
        let tolv_build::Event::Progress { done, total, what } = event else {
            let is_own = !matches!(event, tolv_build::Event::Line(_));
            return self.put(&event.text(), is_own);
        };
        {
            let mut kept = self.kept();
            let bar = Bar { done: *done, total: *total, what: what.clone() };
            kept.bar = (kept.bar.0 + 1, Some(bar));
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// Keeps why it failed, for whoever follows.
    pub(super) fn fail(&self, error: Arc<Error>) {
        self.kept().failure = Some(error);
    }

    /// All of it, to be stored.
    pub(super) fn text(&self) -> Vec<u8> {
        let kept = self.kept();
        let mut text = Vec::new();
        let mut place = 0;
        while let Some((line, next)) = kept.read(place) {
            text.extend_from_slice(&line);
            text.push(b'\n');
            place = next;
        }
        text
    }

    fn end(&self, state: State) {
        self.kept().over = Some(state);
        self.changes.send_modify(|count| *count += 1);
    }

    fn follow_arc(self: &Arc<Self>) -> Follow {
        let changes = Some(self.changes.subscribe());
        Follow { changes, output: Arc::clone(self), next: 0, bars: 0 }
    }

    pub(super) fn follow(self: Arc<Self>) -> Follow {
        self.follow_arc()
    }
}

fn omitted(lines: u64) -> Arc<[u8]> {
    let lines = if lines == 1 { "1 line".to_owned() } else { format!("{lines} lines") };
    format!(" !     … {lines} omitted").into_bytes().into()
}

/// Reads an operation's output from its beginning.
pub struct Follow {
    output: Arc<Output>,
    /// Nothing once the end was given.
    changes: Option<watch::Receiver<u64>>,
    /// The next line's number, from 0.
    next: u64,
    /// How many of the bars were seen.
    bars: u64,
}

impl Follow {
    /// What was stored of an operation that is over.
    pub(super) fn stored(log: &[u8], state: State) -> Self {
        let output = Output::default();
        if !log.is_empty() {
            output.say(log);
        }
        output.end(state);
        Arc::new(output).follow()
    }

    /// Goes on behind the first `lines` lines.
    #[must_use]
    pub fn behind(mut self, lines: u64) -> Self {
        self.next = lines;
        self
    }

    /// How many lines were read, or left out: where to go on.
    pub fn place(&self) -> u64 {
        self.next
    }

    /// Why it failed, where that was while this platform lives.
    pub fn failure(&self) -> Option<Arc<Error>> {
        self.output.kept().failure.clone()
    }

    /// The next line, or the end; nothing behind that. Cancel safe.
    pub async fn next(&mut self) -> Option<Progress> {
        let changes = self.changes.as_mut()?;
        loop {
            changes.borrow_and_update();
            {
                let kept = self.output.kept();
                if let Some((line, next)) = kept.read(self.next) {
                    self.next = next;
                    return Some(Progress::Output(line));
                }
                if let (count, Some(bar)) = &kept.bar
                    && *count > self.bars
                {
                    self.bars = *count;
                    return Some(Progress::Bar(bar.clone()));
                }
                if let Some(state) = kept.over {
                    drop(kept);
                    self.changes = None;
                    return Some(Progress::Over(state));
                }
            }
            // The sender lives as long as the output, which this holds.
            changes.changed().await.ok();
        }
    }
}

#[cfg(test)]
mod tests;
