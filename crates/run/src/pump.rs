//! From one process's spools to the reader of the lines.
//!
//! One task per process, for all its starts: what the platform says of the process stands among
//! its output where it belongs, and the end of a start comes after its last line. Where the
//! reader is slow this task waits, and the spool drops; nobody else notices.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tolv_logs::Line;
use tolv_logs::spool::{Item, Reader};

use crate::child::Control;
use crate::protocol::Order;

/// What a pump is told.
#[derive(Debug)]
enum Message {
    /// A start, with its spool and its shim.
    Open(PathBuf, Arc<Control>),
    /// The spool has more than was asked for.
    Bell,
    /// The spool is complete with this many lines.
    Ended(u64),
    Say(Line),
    /// Everything before this was delivered.
    Mark(oneshot::Sender<()>),
}

/// The handle to a pump; it ends with the handle.
#[derive(Debug)]
pub(crate) struct Pump {
    process: Arc<str>,
    queue: mpsc::UnboundedSender<Message>,
}

/// Lines that go out together; the channel has room for more.
const AT_ONCE: usize = 256;

/// Where all pumps of an engine write to.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    pub(crate) lines: mpsc::Sender<Line>,
    /// Lines taken so far: whether the reader reads.
    pub(crate) taken: Arc<AtomicU64>,
}

impl Outlet {
    /// Waits for room; false once nobody reads any more.
    pub(crate) async fn send(&self, line: Line) -> bool {
        self.send_all(vec![line]).await
    }

    /// As [`Outlet::send`], many at a time: waiting for room is what costs.
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

/// The line that counts what a slow reader missed.
pub(crate) fn dropped(process: &Arc<str>, lines: u64) -> Line {
    let noun = if lines == 1 { "line" } else { "lines" };
    let text = format!("Error L10 (output buffer overflow): {lines} {noun} dropped");
    Line::tolv(Arc::clone(process), text)
}

impl Pump {
    /// A handle and the task to spawn.
    pub(crate) fn new(process: Arc<str>, outlet: Outlet) -> (Self, impl Future<Output = ()>) {
        let (queue, messages) = mpsc::unbounded_channel();
        (Self { process: Arc::clone(&process), queue }, run(process, messages, outlet))
    }

    pub(crate) fn open(&self, folder: PathBuf, control: Arc<Control>) {
        self.queue.send(Message::Open(folder, control)).ok();
    }

    pub(crate) fn bell(&self) {
        self.queue.send(Message::Bell).ok();
    }

    pub(crate) fn ended(&self, lines: u64) {
        self.queue.send(Message::Ended(lines)).ok();
    }

    /// Waits until everything so far was delivered; the reader decides how long that takes.
    pub(crate) async fn caught_up(&self) {
        let (mark, passed) = oneshot::channel();
        self.queue.send(Message::Mark(mark)).ok();
        // A pump that has ended has delivered what it will.
        passed.await.ok();
    }

    /// A line of the platform about the process.
    pub(crate) fn say(&self, text: impl Into<Vec<u8>>) {
        self.queue.send(Message::Say(Line::tolv(Arc::clone(&self.process), text))).ok();
    }
}

/// One spool that is being read.
struct Tail {
    reader: Reader,
    control: Arc<Control>,
}

async fn run(process: Arc<str>, mut queue: mpsc::UnboundedReceiver<Message>, outlet: Outlet) {
    let mut tail: Option<Tail> = None;
    // Whether the spool may have more now.
    let mut behind = false;
    loop {
        let message = if behind {
            queue.try_recv().ok()
        } else {
            let Some(message) = queue.recv().await else { return };
            Some(message)
        };
        let went_on = match message {
            None => true,
            Some(Message::Bell) => {
                behind = tail.is_some();
                true
            }
            Some(Message::Say(line)) => outlet.send(line).await,
            Some(Message::Mark(mark)) => {
                mark.send(()).ok();
                true
            }
            Some(Message::Open(folder, control)) => {
                control.order(&Order::Arm { lines: 0 });
                tail = Some(Tail { reader: Reader::open(&folder, Arc::clone(&process)), control });
                true
            }
            Some(Message::Ended(lines)) => {
                behind = false;
                finish(tail.take(), lines, &process, &outlet).await
            }
        };
        if !went_on {
            return;
        }
        if behind && let Some(open) = tail.take() {
            match step(open.reader, &process, &outlet).await {
                Step::More(reader) => tail = Some(Tail { reader, ..open }),
                Step::Dry(reader) => {
                    behind = false;
                    open.control.order(&Order::Arm { lines: reader.position() });
                    tail = Some(Tail { reader, ..open });
                }
                Step::Broken(_) => behind = false,
                Step::Deaf => return,
            }
        }
    }
}

/// The rest of a spool that is complete; false once nobody reads any more.
async fn finish(tail: Option<Tail>, lines: u64, process: &Arc<str>, outlet: &Outlet) -> bool {
    let Some(Tail { mut reader, .. }) = tail else { return true };
    loop {
        match step(reader, process, outlet).await {
            Step::More(next) => reader = next,
            Step::Dry(next) | Step::Broken(Some(next)) => {
                reader = next;
                break;
            }
            Step::Broken(None) => return true,
            Step::Deaf => return false,
        }
    }
    match reader.finish(lines) {
        Some(item) => outlet.send(line(item, process)).await,
        None => true,
    }
}

enum Step {
    More(Reader),
    /// All that is there was read.
    Dry(Reader),
    /// The spool cannot be read.
    Broken(Option<Reader>),
    /// Nobody reads any more.
    Deaf,
}

/// Delivers what one read brings.
async fn step(mut reader: Reader, process: &Arc<str>, outlet: &Outlet) -> Step {
    let read = spawn_blocking(move || {
        let mut items = Vec::new();
        let more: io::Result<bool> = reader.read(&mut items);
        (reader, items, more)
    });
    let Ok((reader, items, more)) = read.await else { return Step::Broken(None) };
    if !outlet.send_all(items.into_iter().map(|item| line(item, process)).collect()).await {
        return Step::Deaf;
    }
    match more {
        Ok(true) => Step::More(reader),
        Ok(false) => Step::Dry(reader),
        Err(error) => {
            let text = format!("The output cannot be read: {error}");
            outlet.send(Line::tolv(Arc::clone(process), text)).await;
            Step::Broken(Some(reader))
        }
    }
}

fn line(item: Item, process: &Arc<str>) -> Line {
    match item {
        Item::Line(line) => line,
        Item::Missed(lines) => dropped(process, lines),
    }
}
