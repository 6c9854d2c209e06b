//! From a deploy's log to the reader of the engine's lines.
//!
//! One task an engine: it reads what is stored from the engine's beginning on, and hands it out.
//! Where the reader is slow this task waits, and the oldest segments make room; nobody else
//! notices. What was missed is counted in the stream, for this reader alone.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep_until};
use tolv_logs::Line;
use tolv_logs::store::{Count, Item, Reader};

use crate::control::Control;
use crate::journal::Journal;
use crate::protocol::{Order, Written};
use crate::tally::Tally;

/// What the task is told.
#[derive(Debug)]
enum Message {
    /// A start, with its shim.
    Open(u64, Weak<Control>),
    /// The shim has written more than was asked for.
    Bell(u64),
    /// All of this writer is stored.
    Ended(u64, Arc<str>, Count),
    /// Everything before this was delivered.
    Mark(oneshot::Sender<()>),
}

impl Message {
    /// Somebody waits for what was written until now.
    fn is_awaited(&self) -> bool {
        matches!(self, Self::Ended(..) | Self::Mark(_))
    }
}

/// Where processes report to; the task ends with the last of them.
#[derive(Clone, Debug)]
pub(crate) struct Teller {
    queue: mpsc::UnboundedSender<Message>,
    journal: Arc<Journal>,
    tally: Arc<Tally>,
}

/// What is said about one process, and what it writes.
#[derive(Debug)]
pub(crate) struct Pump {
    process: Arc<str>,
    /// Where what it writes is counted.
    account: Arc<str>,
    release: u32,
    teller: Teller,
}

/// Lines that go out together; the channel has room for more.
const AT_ONCE: usize = 256;

/// Between the beginnings of two reads where more lines are written all the time: a process that floods
/// its log costs few large reads, and no wake-up for every other line. What is written after silence is
/// read at once.
const READ_INTERVAL: Duration = Duration::from_millis(10);

/// Where the lines go.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    pub(crate) lines: mpsc::Sender<Line>,
    /// Lines taken so far: whether the reader reads.
    pub(crate) taken: Arc<AtomicU64>,
}

impl Outlet {
    /// Waits for room, many lines at a time, for waiting is what costs; false once nobody reads
    /// any more.
    async fn send_all(&self, lines: Vec<Line>) -> bool {
        let mut lines = lines.into_iter();
        while lines.len() > 0 {
            let count = lines.len().min(AT_ONCE);
            let Ok(room) = self.lines.reserve_many(count).await else { return false };
            for (place, line) in room.zip(&mut lines) {
                place.send(line);
            }
            self.taken.fetch_add(count as u64, Ordering::Relaxed);
        }
        true
    }
}

impl Teller {
    /// A handle and the task to spawn, which reads from `reader` on.
    pub(crate) fn new(
        journal: Arc<Journal>,
        tally: Arc<Tally>,
        reader: Reader,
        outlet: Outlet,
    ) -> (Self, impl Future<Output = ()>) {
        let (queue, messages) = mpsc::unbounded_channel();
        let stored = journal.stored();
        let task = run(messages, stored, reader, outlet);
        (Self { queue, journal, tally }, task)
    }

    /// For one process of a release.
    pub(crate) fn pump(&self, process: Arc<str>, account: Arc<str>, release: u32) -> Pump {
        Pump { process, account, release, teller: self.clone() }
    }

    fn tell(&self, message: Message) {
        // A task that has ended has delivered what it will.
        self.queue.send(message).ok();
    }
}

impl Pump {
    /// A shim: what it writes is looked for, beyond what it has `written` already.
    pub(crate) fn open(&self, writer: u64, control: &Arc<Control>, written: Written) {
        self.teller.tally.begin(writer, &self.account, Arc::downgrade(control), written);
        self.teller.tell(Message::Open(writer, Arc::downgrade(control)));
    }

    /// A shim that does not ring: it has `written` this much until now.
    pub(crate) fn open_silent(&self, writer: u64, written: Written) {
        self.teller.tally.begin(writer, &self.account, Weak::new(), written);
    }

    /// There may be lines of one that does not ring.
    pub(crate) fn look(&self) {
        self.teller.journal.ring();
    }

    /// The shim has written this much.
    pub(crate) fn bell(&self, writer: u64, written: Written) {
        self.teller.tally.set(writer, written);
        self.teller.tell(Message::Bell(writer));
        self.teller.journal.ring();
    }

    /// All that the shim has written, nothing where it died without saying so.
    pub(crate) fn ended(&self, writer: u64, written: Option<Written>) {
        self.teller.tally.end(writer, &self.account, written);
        let all = written.map(|written| written.written).unwrap_or_default();
        self.teller.tell(Message::Ended(writer, Arc::clone(&self.process), all));
        self.teller.journal.ring();
    }

    /// Waits until everything so far was delivered; the reader decides how long that takes.
    pub(crate) async fn caught_up(&self) {
        let (mark, passed) = oneshot::channel();
        self.teller.tell(Message::Mark(mark));
        // A task that has ended has delivered what it will.
        passed.await.ok();
    }

    /// The type of the process: `web` of `web.1`.
    pub(crate) fn process_type(&self) -> &str {
        self.process.split('.').next().unwrap_or_default()
    }

    /// A line of the platform about the process.
    pub(crate) fn say(&self, text: impl Into<Vec<u8>>) {
        let line = Line::tolv(Arc::clone(&self.process), text).of_release(self.release);
        self.teller.journal.append([&line].into_iter());
    }
}

async fn run(
    mut queue: mpsc::UnboundedReceiver<Message>,
    mut stored: watch::Receiver<u64>,
    reader: Reader,
    outlet: Outlet,
) {
    let mut reader = Some(reader);
    let mut shims: HashMap<u64, Weak<Control>> = HashMap::new();
    let mut messages = Vec::new();
    let mut open = true;
    let mut next_read = Instant::now();
    while open {
        tokio::select! {
            biased;
            message = queue.recv() => match message {
                Some(message) => messages.push(message),
                None => open = false,
            },
            // The journal lives as long as a handle does.
            Ok(()) = stored.changed() => {}
        }
        // Whoever waits for the lines of a process waits for no other reason.
        while open && !messages.iter().any(Message::is_awaited) {
            tokio::select! {
                biased;
                message = queue.recv() => match message {
                    Some(message) => messages.push(message),
                    None => open = false,
                },
                () = sleep_until(next_read) => break,
            }
        }
        next_read = Instant::now() + READ_INTERVAL;
        while let Ok(message) = queue.try_recv() {
            messages.push(message);
        }
        stored.borrow_and_update();
        let Some(mut dry) = read_all(reader.take(), &outlet).await else { return };
        let mut missed = Vec::new();
        for message in messages.drain(..) {
            match message {
                Message::Open(writer, control) => {
                    arm(&control, dry.taken(writer).lines);
                    shims.insert(writer, control);
                }
                Message::Bell(writer) => {
                    if let Some(control) = shims.get(&writer) {
                        arm(control, dry.taken(writer).lines);
                    }
                }
                Message::Ended(writer, process, all) => {
                    shims.remove(&writer);
                    missed.extend(dry.finish(writer, &process, all));
                }
                Message::Mark(mark) => {
                    mark.send(()).ok();
                }
            }
        }
        if !outlet.send_all(missed.into_iter().filter_map(line).collect()).await {
            return;
        }
        reader = Some(dry);
    }
}

/// Asks a shim to ring once it has written more than this; one that is gone needs no more asking.
fn arm(control: &Weak<Control>, lines: u64) {
    if let Some(control) = control.upgrade() {
        control.order(Order::Arm { lines });
    }
}

/// Delivers all that is stored; nothing once nobody reads any more.
async fn read_all(reader: Option<Reader>, outlet: &Outlet) -> Option<Reader> {
    let mut reader = reader?;
    loop {
        let read = spawn_blocking(move || {
            let mut items = Vec::new();
            let more: io::Result<bool> = reader.read(&mut items);
            (reader, items, more)
        });
        let (next, items, more) = read.await.ok()?;
        if !outlet.send_all(items.into_iter().filter_map(line).collect()).await {
            return None;
        }
        reader = next;
        match more {
            Ok(true) => {}
            Ok(false) => return Some(reader),
            Err(error) => {
                let text = format!("The log cannot be read: {error}");
                let told = outlet.send_all(vec![Line::tolv("platform", text)]).await;
                return told.then_some(reader);
            }
        }
    }
}

fn line(item: Item) -> Option<Line> {
    match item {
        Item::Line(line) => Some(line),
        Item::Missed { process, lines, .. } => Some(Line::dropped(process, Some(lines))),
        // A reader that was there from the beginning knows what it missed.
        Item::Gap => None,
    }
}
