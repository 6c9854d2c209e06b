//! `tolv up` to whoever looks at it: brings the codebase up, again at every change, and hands on
//! what there is to see.
//!
//! Nothing is printed here: what there is to see goes out as [`Event`]s, in order, by [`show`]. A
//! slow reader of them holds up nothing but the reading: processes write to the deploy's log, and
//! operations keep their output.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until};
use tolv_logs::{Line, Micros};
use tolv_model::operation::State;

use crate::watch::{Seen, Watch};
use crate::{Error, Platform, Progress, Said};

/// Lines that are handed on together; fewer than any channel here has room for.
const AT_ONCE: usize = 256;
/// No line for this long, and what was waiting for the lines is said.
const QUIET: Duration = Duration::from_millis(15);
/// It is said after this long, whatever comes.
const LATEST: Duration = Duration::from_millis(200);

/// What there is to see, in order.
#[derive(Clone, Debug)]
pub enum Event {
    /// What an operation says: a line of the build, the release phase, the rollout, or how far it
    /// has come.
    Progress(Output),
    /// A line of a process, the router or the platform.
    Line(Line),
}

/// How `up` is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stop {
    /// Go on.
    No,
    /// Stop everything in order.
    Gracefully,
    /// Kill everything.
    Now,
}

/// How an operation of `up` ended.
enum Ended {
    Succeeded,
    Failed(Option<Arc<Error>>),
    /// `stop` came first.
    Stopped,
}

/// Brings the platform's codebase up, with `watch` again at every change, until `stop` says
/// otherwise. What the operations say goes to `output`.
///
/// # Errors
///
/// Why the first release did not come up. A later one that does not says so in its output, and
/// the one before it goes on.
pub async fn up(
    platform: &Platform,
    watch: bool,
    output: &mpsc::Sender<Output>,
    stop: &mut watch::Receiver<Stop>,
) -> Result<(), Arc<Error>> {
    Up { platform, output }.run(watch, stop).await
}

/// Ends the platform; kills where `stop` says so.
pub async fn down(platform: &Platform, stop: &mut watch::Receiver<Stop>) {
    tokio::select! {
        () = platform.end() => {}
        () = stopped(stop, Stop::Now) => {
            platform.kill();
            platform.end().await;
        }
    }
}

struct Up<'a> {
    platform: &'a Platform,
    output: &'a mpsc::Sender<Output>,
}

/// What an operation says.
#[derive(Clone, Debug)]
pub struct Output {
    /// When.
    pub at: Micros,
    /// What.
    pub progress: Progress,
}

impl Up<'_> {
    async fn run(&self, watch: bool, stop: &mut watch::Receiver<Stop>) -> Result<(), Arc<Error>> {
        let Some(codebase) = self.platform.codebase() else { return Ok(()) };
        let mut watch = match watch {
            true => Some(Watch::start(codebase.dir(), self.platform.home()).map_err(own)?),
            false => None,
        };
        let level = self.platform.level();
        let missing = self.platform.missing();
        let lacks = (level != tolv_sandbox::Level::Strict)
            .then(|| format!("Sandbox level {level}: {}", missing.join("; ")));
        for notice in lacks.iter().chain(&codebase.ignored) {
            for line in notice.lines() {
                let line = format!(" !     {line}").into_bytes();
                self.tell(Progress::Output(line.into()), stop).await;
            }
        }
        match self.once(stop).await.map_err(own)? {
            Ended::Succeeded => {}
            Ended::Stopped => return Ok(()),
            Ended::Failed(error) => {
                return Err(error.unwrap_or_else(|| Arc::new(Error::Cancelled)));
            }
        }
        loop {
            let changed = async {
                match &mut watch {
                    Some(watch) => watch.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = stopped(stop, Stop::Gracefully) => return Ok(()),
                seen = changed => {
                    let dir = codebase.dir().display();
                    let seen = seen.map_err(own)?;
                    let text = match seen {
                        Seen::Change => None,
                        Seen::Gone => Some(format!(
                            "The folder of the codebase is gone: {dir}; the processes keep running, \
                             and it is built again once the folder is back"
                        )),
                        Seen::Back => Some(format!("The folder of the codebase is back: {dir}")),
                    };
                    if let Some(text) = text {
                        let line = format!(" !     {text}").into_bytes();
                        self.tell(Progress::Output(line.into()), stop).await;
                    }
                    if seen == Seen::Gone {
                        continue;
                    }
                }
            }
            if let Ended::Stopped = self.once(stop).await.map_err(own)? {
                return Ok(());
            }
        }
    }

    /// One pass build → release → run.
    async fn once(&self, stop: &mut watch::Receiver<Stop>) -> Result<Ended, Error> {
        let operation = self.platform.bring_up().await?;
        let mut follow = self.platform.follow(&operation.id).await?;
        loop {
            let progress = tokio::select! {
                progress = follow.next() => progress,
                () = stopped(stop, Stop::Gracefully) => return Ok(Ended::Stopped),
            };
            match progress {
                Some(Progress::Over(State::Succeeded)) => return Ok(Ended::Succeeded),
                Some(Progress::Over(_)) | None => return Ok(Ended::Failed(follow.failure())),
                Some(progress) => self.tell(progress, stop).await,
            }
        }
    }

    /// Hands it on, unless `stop` comes before a slow reader has taken it.
    async fn tell(&self, progress: Progress, stop: &mut watch::Receiver<Stop>) {
        tokio::select! {
            _ = self.output.send(Output { at: Micros::now(), progress }) => {}
            () = stopped(stop, Stop::Gracefully) => {}
        }
    }
}

fn own(error: impl Into<Error>) -> Arc<Error> {
    Arc::new(error.into())
}

/// Resolves once `stop` is at least `level`; never when nobody can say so any more.
async fn stopped(stop: &mut watch::Receiver<Stop>, level: Stop) {
    if stop.wait_for(|now| *now >= level).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Hands on lines and what operations say, in the order of their times. Lines come the longer way,
/// through the log: what an operation says waits until none has come for a moment. Ends with the
/// platform.
pub async fn show(
    mut lines: mpsc::Receiver<Said>,
    mut output: mpsc::Receiver<Output>,
    events: mpsc::Sender<Event>,
) {
    let mut waiting = VecDeque::new();
    let mut batch = Vec::new();
    // When the first that waits came, and when anything did.
    let (mut since, mut last) = (Instant::now(), Instant::now());
    loop {
        let is_over = tokio::select! {
            biased;
            count = lines.recv_many(&mut batch, AT_ONCE) => count == 0,
            Some(said) = output.recv() => {
                last = Instant::now();
                if waiting.is_empty() {
                    since = last;
                }
                waiting.push_back(said);
                continue;
            }
            () = sleep_until((last + QUIET).min(since + LATEST)), if !waiting.is_empty() => {
                pass(waiting.drain(..).map(Event::Progress).collect(), &events).await;
                continue;
            }
        };
        while let Ok(said) = output.try_recv() {
            waiting.push_back(said);
        }
        if is_over {
            return pass(waiting.into_iter().map(Event::Progress).collect(), &events).await;
        }
        last = Instant::now();
        let is_late = last >= since + LATEST;
        let merged = merge(&mut waiting, batch.drain(..).map(|said| said.line), is_late);
        pass(merged, &events).await;
    }
}

/// Lines, each behind what was said before it, and all of that first where it `is_late`; the rest
/// goes on waiting.
fn merge(
    waiting: &mut VecDeque<Output>,
    lines: impl Iterator<Item = Line>,
    is_late: bool,
) -> Vec<Event> {
    let mut events = Vec::new();
    for line in lines {
        while let Some(said) = waiting.pop_front_if(|said| is_late || said.at <= line.time) {
            events.push(Event::Progress(said));
        }
        events.push(Event::Line(line));
    }
    events
}

/// Waits for room once for many of them.
async fn pass(mut batch: Vec<Event>, events: &mpsc::Sender<Event>) {
    while !batch.is_empty() {
        let many = batch.len().min(AT_ONCE);
        // Otherwise nobody reads any more.
        let Ok(room) = events.reserve_many(many).await else { return };
        for (place, event) in room.zip(batch.drain(..many)) {
            place.send(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stop_is_waited_for_by_its_level() {
        let (say, mut hear) = watch::channel(Stop::No);
        say.send(Stop::Now).unwrap();
        // More than what was waited for is enough.
        stopped(&mut hear, Stop::Gracefully).await;
        stopped(&mut hear, Stop::Now).await;
        let (say, mut hear) = watch::channel(Stop::No);
        drop(say);
        let never = tokio::time::timeout(Duration::from_millis(20), stopped(&mut hear, Stop::Now));
        assert!(never.await.is_err(), "nobody can say so any more");
    }

    fn said(time: i64, text: &str) -> Output {
        let at = Micros(time);
        Output { at, progress: Progress::Output(text.as_bytes().into()) }
    }

    fn line(time: i64) -> Line {
        Line { time: Micros(time), ..Line::tolv("x", format!("line {time}")) }
    }

    fn text(events: Vec<Event>) -> Vec<String> {
        let text = |event| match event {
            Event::Line(line) => String::from_utf8_lossy(&line.text).into_owned(),
            Event::Progress(Output { progress: Progress::Output(text), .. }) => {
                String::from_utf8_lossy(&text).into_owned()
            }
            Event::Progress(other) => format!("{other:?}"),
        };
        events.into_iter().map(text).collect()
    }

    #[test]
    fn lines_and_what_is_said_come_by_their_times() {
        let mut waiting: VecDeque<_> = [said(1, "a"), said(3, "b"), said(5, "c")].into();
        let merged = merge(&mut waiting, [line(2), line(3), line(4)].into_iter(), false);
        assert_eq!(text(merged), ["a", "line 2", "b", "line 3", "line 4"]);
        assert_eq!(waiting.len(), 1);
        // It does not wait for ever for lines that are behind.
        let merged = merge(&mut waiting, [line(4)].into_iter(), true);
        assert_eq!(text(merged), ["c", "line 4"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_last_comes_out_when_no_line_comes_any_more() {
        let (lines, received) = mpsc::channel(9);
        let (output, outputs) = mpsc::channel(9);
        let (events, mut seen) = mpsc::channel(9);
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(show(received, outputs, events));
        output.send(said(5, "up")).await.ok().unwrap();
        lines.send(Said { deploy: None, line: line(4) }).await.unwrap();
        let first = seen.recv().await.unwrap();
        let second = seen.recv().await.unwrap();
        assert_eq!(text(vec![first, second]), ["line 4", "up"]);
        output.send(said(6, "end")).await.ok().unwrap();
        drop(lines);
        tasks.join_all().await;
        assert_eq!(text(vec![seen.recv().await.unwrap()]), ["end"]);
    }
}
