//! The output of operations: kept while they run, replayed to whoever follows.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tolv_model::operation::State;

use super::error::Error;

/// Lines of one operation that are kept; further ones are counted.
const LINES: usize = 20_000;
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
    lines: Vec<Arc<[u8]>>,
    missed: u64,
    /// The last, and how many there were.
    bar: (u64, Option<Bar>),
    /// Why it failed.
    failure: Option<Arc<Error>>,
    over: Option<State>,
}

impl Output {
    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends what `text` has, line by line.
    pub(super) fn say(&self, text: impl AsRef<[u8]>) {
        let text = text.as_ref();
        if text.is_empty() {
            return;
        }
        {
            let mut kept = self.kept();
            for line in text.strip_suffix(b"\n").unwrap_or(text).split(|&byte| byte == b'\n') {
                if kept.lines.len() < LINES {
                    kept.lines.push(line.get(..LINE).unwrap_or(line).into());
                } else {
                    kept.missed += 1;
                }
            }
        }
        self.changes.send_modify(|count| *count += 1);
    }

    /// What a build says.
    pub(super) fn build(&self, event: &tolv_build::Event) {
        let tolv_build::Event::Progress { done, total, what } = event else {
            return self.say(event.text());
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
        for line in &kept.lines {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        if kept.missed > 0 {
            text.extend(missed(kept.missed).iter());
            text.push(b'\n');
        }
        text
    }

    fn end(&self, state: State) {
        {
            let mut kept = self.kept();
            if kept.missed > 0 {
                let text = missed(kept.missed);
                kept.lines.push(text);
                kept.missed = 0;
            }
            kept.over = Some(state);
        }
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

fn missed(lines: u64) -> Arc<[u8]> {
    format!(" !     {lines} more lines are not kept").into_bytes().into()
}

/// Reads an operation's output from its beginning.
pub struct Follow {
    output: Arc<Output>,
    /// Nothing once the end was given.
    changes: Option<watch::Receiver<u64>>,
    /// The next line's number, from 0.
    next: usize,
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
    pub fn behind(mut self, lines: usize) -> Self {
        self.next = lines;
        self
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
                if let Some(line) = kept.lines.get(self.next) {
                    self.next += 1;
                    return Some(Progress::Output(Arc::clone(line)));
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
