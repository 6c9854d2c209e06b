//! Tasks that a panic does not end: a deploy without its task would answer no command, and hold up the
//! end of the platform; a router without its own would answer nobody.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tolv_logs::Line;

use super::options::Said;
use super::platform::{Platform, lock};

/// Before a task is started again: the first time, and at most. Each pause is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// A task that has run for so long is started again after the first pause.
const SETTLED: Duration = Duration::from_secs(300);
/// How often a task is started again while the platform ends.
const ENDING_STARTS: u32 = 3;
/// Characters of a panic's text.
const MAX_TEXT: usize = 200;

/// The tasks of a platform that panicked. Clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Panics(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    total: u64,
    /// Those that have not ended, by name.
    tasks: BTreeMap<String, Task>,
}

#[derive(Debug)]
struct Task {
    count: u64,
    text: String,
    at: Instant,
    /// When it is started again; nothing while it runs.
    again: Option<Instant>,
}

/// A task that has panicked, as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Panicked {
    /// What it is: `the task of shop/production`.
    pub(crate) name: String,
    /// How often it has.
    pub(crate) count: u64,
    /// What it said the last time, and how long ago that was.
    pub(crate) text: String,
    pub(crate) ago: Duration,
    /// How long until it is started again; nothing where it runs.
    pub(crate) again: Option<Duration>,
}

impl Panics {
    /// How often tasks have panicked.
    pub(super) fn total(&self) -> u64 {
        lock(&self.0).total
    }

    /// The tasks that have, and have not ended since.
    pub(super) fn tasks(&self) -> Vec<Panicked> {
        let now = Instant::now();
        let shown = |(name, task): (&String, &Task)| Panicked {
            name: name.clone(),
            count: task.count,
            text: task.text.clone(),
            ago: now.saturating_duration_since(task.at),
            again: task.again.map(|again| again.saturating_duration_since(now)),
        };
        lock(&self.0).tasks.iter().map(shown).collect()
    }

    fn panicked(&self, name: &str, text: &str, pause: Duration) {
        let at = Instant::now();
        let mut state = lock(&self.0);
        state.total += 1;
        let count = state.tasks.get(name).map_or(0, |task| task.count) + 1;
        let task = Task { count, text: text.to_owned(), at, again: Some(at + pause) };
        state.tasks.insert(name.to_owned(), task);
    }

    fn started(&self, name: &str) {
        if let Some(task) = lock(&self.0).tasks.get_mut(name) {
            task.again = None;
        }
    }

    /// Does what `start` gives, again after every panic, of which `say` is told each time. A task that
    /// panics again and again is started ever later; while the platform ends, a few times more.
    pub(super) async fn survive<F>(
        self,
        name: String,
        ending: CancellationToken,
        mut start: impl FnMut() -> F + Send + 'static,
        mut say: impl FnMut(String) + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let mut task = JoinSet::new();
        let (mut pause, mut left) = (FIRST_PAUSE, ENDING_STARTS);
        loop {
            let began = Instant::now();
            task.spawn(start());
            self.started(&name);
            let text = match task.join_next().await {
                Some(Err(error)) if error.is_panic() => text_of(&*error.into_panic()),
                _ => break,
            };
            if began.elapsed() >= SETTLED {
                pause = FIRST_PAUSE;
            }
            self.panicked(&name, &text, pause);
            say(format!("Fault: {name} has panicked: {text}; it is started again in {pause:?}"));
            if ending.is_cancelled() {
                if left == 0 {
                    break;
                }
                left -= 1;
                sleep(FIRST_PAUSE).await;
            } else {
                ending.run_until_cancelled(sleep(pause)).await;
            }
            pause = (pause * 2).min(MAX_PAUSE);
        }
        lock(&self.0).tasks.remove(&name);
    }
}

impl Platform {
    /// A task of the platform as a whole, which a panic does not end.
    pub(super) fn keep_up<F>(&self, name: &str, task: impl Fn(Self) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (inner, platform) = (&self.0, self.clone());
        let (panics, ending) = (inner.panics.clone(), inner.ending.clone());
        let start = move || task(platform.clone());
        inner.tasks.spawn(panics.survive(name.to_owned(), ending, start, self.teller()));
    }

    /// Tells lines about the platform as a whole without waiting; what standard output does not take is
    /// lost.
    pub(super) fn teller(&self) -> impl Fn(String) + Send + use<> {
        let lines = self.0.lines.clone();
        move |text| {
            lines.try_send(Said { deploy: None, line: Line::tolv("platform", text) }).ok();
        }
    }
}

/// What a panic says, in a line.
fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let line = text.unwrap_or("without a word").replace(char::is_control, " ");
    line.chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests;
