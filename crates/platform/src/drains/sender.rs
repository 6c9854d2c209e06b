//! The thread of one drain: reads the log, writes to the receiver, waits, tries again.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tolv_logs::Line;
use tolv_logs::drain::{DrainUrl, Encoder, Kind, frame_id, missing, refused};
use tolv_logs::store::{Cursor, Item, Position, Reader};
use tolv_model::drain::{Backoff, Flow, Point, Verdict};
use tolv_model::id::DrainId;
use tolv_model::name::Deploy as DeployPath;
use tolv_model::service::HostServices;
use tolv_model::unit::Millis;
use tolv_run::Log;
use tolv_store::{Drain as Row, DrainProgress};

use super::bell::Bell;
use super::fault::Fault;
use super::http::{Answer, Http};
use super::reach::Reach;
use super::stream::Connection;
use super::trail::{Trace, Trail};

/// Between two looks at a connection that has nothing to do, and at the log: whoever tells of new
/// lines waits for the platform's own reader.
const IDLE: Duration = Duration::from_secs(1);
/// For more lines to come before a request is made.
const GATHER: Duration = Duration::from_millis(200);
/// Most lines and bytes of one request's body.
const LINES: usize = 4000;
const BODY: usize = 1 << 20;
/// Failures before they are said in the log: one alone may be a receiver's restart.
const TOLD: u32 = 2;
/// Between two lines of the log about lines that were dropped.
const DROPS: Duration = Duration::from_secs(10);
/// Bytes of the log that are sent and recorded at once.
const PIECE: usize = 64 * 1024;
/// Least time between two looks at what the receiver's machine has acknowledged.
const ACKNOWLEDGES: Duration = Duration::from_millis(10);
/// Writers that a recorded place knows.
const WRITERS: usize = 256;

/// What a drain has done, for others to look at.
#[derive(Clone, Debug)]
pub(super) struct Snapshot {
    pub(super) settled: Point<Position>,
    pub(super) head_at: Cursor,
    pub(super) sent: u64,
    pub(super) retried: u64,
    pub(super) dropped: u64,
    pub(super) fails: bool,
    /// Nothing was taken yet since the start, or since the last failure, and a try is under way.
    pub(super) connects: bool,
    pub(super) error: Option<(String, Timestamp)>,
}

/// A place in the log as it is recorded.
pub(super) fn place(position: &Position) -> String {
    // A position has nothing that JSON cannot say.
    serde_json::to_string(&position.newest(WRITERS)).unwrap_or_default()
}

impl Snapshot {
    /// Of a drain that has no thread.
    pub(super) fn of(progress: &DrainProgress) -> Self {
        // One that cannot be read is the oldest.
        let position: Position = serde_json::from_str(&progress.place).unwrap_or_default();
        Self {
            head_at: position.cursor,
            settled: Point { place: position, sent: progress.sent, dropped: progress.dropped },
            sent: progress.sent,
            retried: progress.retried,
            dropped: progress.dropped,
            fails: false,
            connects: false,
            error: progress.error.clone(),
        }
    }

    /// What is recorded of it.
    pub(super) fn progress(&self) -> DrainProgress {
        DrainProgress {
            place: place(&self.settled.place),
            sent: self.settled.sent,
            retried: self.retried,
            dropped: self.settled.dropped,
            error: self.error.clone(),
        }
    }
}

/// What it takes to send.
pub(super) struct Sender {
    id: DrainId,
    url: DrainUrl,
    reach: Reach,
    folder: PathBuf,
    log: Log,
    bell: Arc<Bell>,
    now: Arc<Mutex<Snapshot>>,
    trail: Arc<Mutex<Trail>>,
    encoder: Encoder,
    flow: Flow<Position>,
    backoff: Backoff,
    began: Instant,
    /// Whether the receiver took the last that was sent.
    has_worked: bool,
    /// Whether the log says that it fails.
    told: bool,
    /// Lines that were dropped and not said in the log yet, and when that was done last.
    untold: (u64, Option<Instant>),
    bytes: Vec<u8>,
}

fn millis(since: Instant) -> Millis {
    Millis(u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX))
}

/// How lines get to the receiver.
enum Way {
    Stream(Option<Connection>),
    Http(Http),
}

impl Sender {
    /// Nothing where the row's address cannot be read, which was checked when it was made.
    pub(super) fn new(
        row: Row,
        path: &DeployPath,
        log: Log,
        services: &HostServices,
    ) -> Option<Self> {
        let url: DrainUrl = row.url.parse().ok()?;
        let now = Snapshot::of(&row.progress);
        let trail = Trail::new(log.folder(), &row.id);
        Some(Self {
            id: row.id,
            encoder: Encoder::new(url.kind, path),
            url,
            reach: Reach { by_operator: row.by_operator, services: services.clone() },
            folder: log.folder().to_owned(),
            log,
            bell: Arc::default(),
            flow: Flow::new(now.settled.clone(), now.retried),
            now: Arc::new(Mutex::new(now)),
            trail: Arc::new(Mutex::new(trail)),
            backoff: Backoff::default(),
            began: Instant::now(),
            has_worked: false,
            told: false,
            untold: (0, None),
            bytes: Vec::new(),
        })
    }

    pub(super) fn handles(&self) -> (Arc<Bell>, Arc<Mutex<Snapshot>>, Arc<Mutex<Trail>>) {
        (Arc::clone(&self.bell), Arc::clone(&self.now), Arc::clone(&self.trail))
    }

    /// Starts the thread; false where the system has none left.
    pub(super) fn start(self) -> bool {
        thread::Builder::new().name("drain".to_owned()).spawn(move || self.run()).is_ok()
    }

    fn run(mut self) {
        let mut way = match self.url.kind {
            Kind::Syslog(_) => Way::Stream(None),
            Kind::Logplex(_) | Kind::Otlp => Way::Http(Http::new(self.reach.clone())),
        };
        self.take_up(matches!(way, Way::Http(_)));
        let mut reader = self.reader();
        let mut items = Vec::new();
        while !self.bell.is_stopped() {
            items.clear();
            let more = match reader.read(&mut items) {
                Ok(more) => more,
                Err(error) => {
                    self.fail(&Fault::Log(error), None);
                    continue;
                }
            };
            let went = match &mut way {
                _ if items.is_empty() && more => continue,
                Way::Stream(connection) if items.is_empty() => self.idle(connection),
                Way::Http(_) if items.is_empty() => {
                    self.tell_drops();
                    if self.bell.wait(IDLE) {
                        self.bell.pause(GATHER);
                    }
                    continue;
                }
                Way::Stream(connection) => self.write(connection, &items, &reader),
                Way::Http(http) => self.post(http, &items, &reader),
            };
            if let Err(fault) = went {
                if matches!(fault, Fault::Stopped) {
                    break;
                }
                if let Way::Stream(connection) = &mut way {
                    *connection = None;
                    self.flow.broke();
                }
                reader = self.reader();
                self.publish();
                self.fail(&fault, None);
            }
        }
        if let Way::Stream(Some(connection)) = way {
            let bell = Arc::clone(&self.bell);
            let has_read = connection.finish(&bell, |rest| {
                self.flow.acknowledged(self.millis(), rest);
            });
            if has_read {
                self.flow.confirm();
            }
        }
        self.publish();
        self.bell.end();
    }

    /// Goes on where the platform before ended, and counts what it sent behind that.
    fn take_up(&mut self, is_told: bool) {
        let found = self.trail().take_up();
        if let Some(found) = found {
            let Trace { place, sent, dropped, tried, retried, reached } = found.trace;
            // What was acknowledged before the machine started anew may not have been read: only
            // what a receiver said itself is sure.
            let acknowledged = if is_told || !found.is_of_another_boot {
                Point { place, sent, dropped }
            } else {
                self.flow.settled().clone()
            };
            let retried = self.flow.retried().max(retried);
            self.flow = Flow::new(self.flow.settled().clone(), retried)
                .resume(acknowledged, tried)
                .counting_from(reached);
            if is_told {
                self.flow.confirm();
            }
        }
        self.publish();
    }

    /// From what was sent last on.
    fn reader(&self) -> Reader {
        let position = self.flow.head().place.clone();
        let end = Reader::at_end(&self.folder);
        let reader = match end {
            // The log was removed behind our back: another one has begun.
            Ok(end) if end.cursor() < position.cursor => Reader::open(&self.folder),
            _ => Reader::resume(&self.folder, position),
        };
        reader.in_pieces(PIECE)
    }

    fn trail(&self) -> MutexGuard<'_, Trail> {
        self.trail.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes down how far it has come, also for a platform that is killed.
    fn record(&self) {
        let Point { place, sent, dropped } = self.flow.acknowledged_point();
        self.trail().record(Trace {
            place: place.newest(WRITERS),
            sent: *sent,
            dropped: *dropped,
            tried: self.flow.tried(),
            retried: self.flow.retried(),
            reached: self.flow.sent(),
        });
    }

    fn now(&self) -> MutexGuard<'_, Snapshot> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self) -> Millis {
        millis(self.began)
    }

    fn publish(&self) {
        self.record();
        let mut now = self.now();
        now.settled = self.flow.settled().clone();
        let head = self.flow.head();
        (now.head_at, now.dropped) = (head.place.cursor, head.dropped);
        now.sent = self.flow.sent();
        now.retried = self.flow.retried();
    }

    /// Nothing is to be sent: looks after the connection, and waits.
    fn idle(&mut self, connection: &mut Option<Connection>) -> Result<(), Fault> {
        self.tell_drops();
        if connection.is_none() && !self.is_settled() {
            // What the platform before sent: whether the receiver that has it is still there.
            *connection = Some(self.connect()?);
        }
        if let Some(open) = connection {
            let acknowledged = self.flow.acknowledged_point().place.cursor;
            let settled = self.flow.acknowledged(self.millis(), open.unacknowledged());
            let heard = open.listen();
            if settled {
                self.backoff.worked();
            }
            if settled || self.flow.acknowledged_point().place.cursor != acknowledged {
                self.publish();
            }
            if let Err(fault) = heard {
                *connection = None;
                self.unless_settled(fault)?;
            }
        }
        // The younger a write, the sooner it is acknowledged.
        let age = self.flow.waits_for(self.millis());
        self.bell.wait(age.map_or(IDLE, |age| age.clamp(ACKNOWLEDGES, IDLE)));
        Ok(())
    }

    /// Connects, and says so meanwhile.
    fn connect(&self) -> Result<Connection, Fault> {
        self.now().connects = true;
        let connection = Connection::open(&self.url, &self.reach)?;
        self.now().connects = false;
        Ok(connection)
    }

    fn is_settled(&self) -> bool {
        self.flow.head().place == self.flow.settled().place
    }

    /// The receiver closed the connection: with nothing under way it is no fault.
    fn unless_settled(&self, fault: Fault) -> Result<(), Fault> {
        if self.is_settled() { Ok(()) } else { Err(fault) }
    }

    fn write(
        &mut self,
        connection: &mut Option<Connection>,
        items: &[Item],
        reader: &Reader,
    ) -> Result<(), Fault> {
        if let Some(open) = connection
            && let Err(fault) = open.listen()
        {
            *connection = None;
            self.unless_settled(fault)?;
        }
        let open = match connection {
            Some(open) => open,
            none => none.insert(self.connect()?),
        };
        self.bytes.clear();
        let (mut sent, mut dropped) = (0, 0);
        for item in items {
            match item {
                Item::Line(line) => {
                    self.encoder.line(line, &mut self.bytes);
                    sent += 1;
                }
                Item::Missed { process, lines, .. } => {
                    self.encoder.line(&missing(process, *lines), &mut self.bytes);
                    dropped += lines;
                }
                Item::Gap => {}
            }
        }
        let now = millis(self.began);
        self.flow.acknowledged(now, open.unacknowledged());
        self.flow.tries(sent);
        self.record();
        open.write(&self.bytes, &self.bell)?;
        let now = self.millis();
        let place = reader.position().clone();
        self.flow.wrote(now, self.bytes.len() as u64, place, sent, dropped);
        if self.flow.acknowledged(now, open.unacknowledged()) {
            self.backoff.worked();
        }
        self.works(dropped);
        Ok(())
    }

    fn post(&mut self, http: &mut Http, items: &[Item], reader: &Reader) -> Result<(), Fault> {
        let lines: Vec<_> = items
            .iter()
            .filter_map(|item| match item {
                Item::Line(line) => Some((std::borrow::Cow::Borrowed(line), 0)),
                Item::Missed { process, lines, .. } => {
                    Some((std::borrow::Cow::Owned(missing(process, *lines)), *lines))
                }
                Item::Gap => None,
            })
            .collect();
        let place = self.flow.head().place.cursor.to_string();
        let (mut at, mut most) = (0, LINES);
        let (mut sent, mut dropped) = (0, 0);
        while at < lines.len() {
            if self.bell.is_stopped() && self.bell.left().is_zero() {
                return Err(Fault::Stopped);
            }
            let count = self.body(lines[at..].iter().map(|(line, _)| line.as_ref()), most);
            let batch = &lines[at..at + count];
            let frame = frame_id(self.id.as_str(), &place, at, count);
            let own = batch.iter().filter(|(_, missed)| *missed == 0).count() as u64;
            let tried = self.flow.tried();
            self.flow.tries(sent + own);
            self.record();
            match self.request(http, &frame, count) {
                Ok(Answer { status, retry_after, body }) => {
                    let is_otlp = self.url.kind == Kind::Otlp;
                    let fault = Fault::Status { status, retry_after };
                    match Verdict::of(status, is_otlp) {
                        Verdict::Taken => {
                            let refused = refused(&body).filter(|_| is_otlp);
                            let lost = refused.as_ref().map_or(0, |(count, _)| own.min(*count));
                            if let Some((count, why)) = refused {
                                self.note(&Fault::Refused(count, why));
                            }
                            (sent, dropped) = (sent + own - lost, dropped + lost);
                            self.backoff.worked();
                            self.works(lost);
                        }
                        Verdict::Smaller if count > 1 => {
                            most = count / 2;
                            continue;
                        }
                        Verdict::Smaller | Verdict::Never => {
                            self.note(&fault);
                            dropped += own;
                            self.works(own);
                        }
                        Verdict::Later => {
                            self.again(own, &fault, retry_after)?;
                            continue;
                        }
                    }
                }
                Err(fault @ Fault::Connect(..)) => {
                    self.flow.tried_in_vain(tried);
                    self.again(0, &fault, None)?;
                    continue;
                }
                Err(fault) => {
                    self.again(own, &fault, None)?;
                    continue;
                }
            }
            dropped += batch.iter().map(|(_, missed)| missed).sum::<u64>();
            at += count;
        }
        let missed = lines.iter().map(|(_, missed)| missed).sum();
        let place = reader.position().clone();
        self.flow.wrote(self.millis(), 0, place, sent, dropped);
        self.flow.tried_in_vain(self.flow.head().sent);
        self.flow.confirm();
        self.works(missed);
        Ok(())
    }

    /// Puts lines into a body, as many as one may have; how many.
    fn body<'a>(&mut self, lines: impl Iterator<Item = &'a Line>, most: usize) -> usize {
        self.bytes.clear();
        self.encoder.begin(&mut self.bytes);
        let mut count = 0;
        for line in lines.take(most) {
            self.encoder.line(line, &mut self.bytes);
            count += 1;
            if self.bytes.len() >= BODY {
                break;
            }
        }
        self.encoder.end(&mut self.bytes);
        count
    }

    fn request(&self, http: &mut Http, frame: &str, count: usize) -> Result<Answer, Fault> {
        let count = count.to_string();
        let mut headers = vec![("content-type", self.encoder.media_type())];
        if self.url.kind != Kind::Otlp {
            headers.extend([
                ("logplex-msg-count", count.as_str()),
                ("logplex-frame-id", frame),
                ("logplex-drain-token", self.id.as_str()),
            ]);
        }
        if !self.has_worked {
            self.now().connects = true;
        }
        http.post(&self.url, &headers, &self.bytes)
    }

    /// The same lines are to be sent again, after a while.
    fn again(&mut self, lines: u64, fault: &Fault, asked: Option<Duration>) -> Result<(), Fault> {
        if !self.fail(fault, asked) {
            return Err(Fault::Stopped);
        }
        self.flow.sends_again(lines);
        self.publish();
        Ok(())
    }

    /// Keeps the last error.
    fn note(&self, fault: &Fault) -> String {
        let text = self.url.conceal(&fault.to_string());
        self.now().error = Some((text.clone(), Timestamp::now()));
        text
    }

    /// Waits after a failure; false where the drain is to end.
    fn fail(&mut self, fault: &Fault, asked: Option<Duration>) -> bool {
        if matches!(fault, Fault::Stopped) {
            return false;
        }
        let text = self.note(fault);
        self.has_worked = false;
        self.now().fails = true;
        let random = RandomState::new().build_hasher().finish();
        let pause = self.backoff.failed(random, asked);
        if self.backoff.failures() >= TOLD && !self.told {
            self.told = true;
            self.say(format!("Drain {} fails and is tried again: {text}", self.id));
        }
        self.bell.pause(pause)
    }

    /// The receiver took something; `dropped` lines are not to be had any more.
    fn works(&mut self, dropped: u64) {
        self.publish();
        self.has_worked = true;
        {
            let mut now = self.now();
            (now.fails, now.connects) = (false, false);
        }
        if std::mem::take(&mut self.told) {
            self.say(format!("Drain {} works again", self.id));
        }
        self.untold.0 += dropped;
        self.tell_drops();
    }

    fn tell_drops(&mut self) {
        let (lines, last) = self.untold;
        if lines > 0 && last.is_none_or(|last| last.elapsed() >= DROPS) {
            self.untold = (0, Some(Instant::now()));
            let noun = if lines == 1 { "line" } else { "lines" };
            self.say(format!(
                "Error L10 (drain buffer overflow): drain {} dropped {lines} {noun}",
                self.id
            ));
        }
    }

    fn say(&self, text: String) {
        self.log.say(&[Line::tolv("drain", text)]);
    }
}
