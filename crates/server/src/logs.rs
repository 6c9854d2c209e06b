//! A deploy's log: pages, a stream that can be resumed, and accounts.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse as _, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use jiff::Timestamp;
use regex::bytes::RegexBuilder;
use serde::Deserialize;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;
use tolv_api::{Code, LogAccount, LogCount, LogLine, LogMissed, LogPage, LogStats, Value};
use tolv_logs::store::{self, Count, Filter, Found, Item, Most, Place, Reader};
use tolv_logs::{Line, Micros, Source};
use tolv_model::access::Act;
use tolv_model::name::AppName;
use tolv_model::release::ReleaseNumber;
use tolv_model::shortage::Shortage;
use tolv_platform::Logged;

use crate::Shared;
use crate::auth::Caller;
use crate::error::Failure;
use crate::events::kept_alive;
use crate::extract::{Params, Path, parse, path};

/// Lines of a page where nothing is said, and at most.
const LIMIT: (usize, usize) = (100, 10_000);
/// Bytes of a page's text at most: it stays in memory until its client has taken it.
const PAGE_BYTES: usize = 1 << 20;
/// Bytes of a page that are written at a time, or one line more.
const CHUNK_BYTES: usize = 32 * 1024;
/// Bytes of the log that whoever follows it reads at a time: what they take is in memory meanwhile.
const FOLLOW_BYTES: usize = 64 * 1024;
/// Bytes that a compiled pattern may have.
const PATTERN: usize = 1 << 20;

/// What may be asked of a log.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    tail: Option<usize>,
    limit: Option<usize>,
    cursor: Option<String>,
    #[serde(default)]
    follow: bool,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    process: Option<String>,
    source: Option<String>,
    release: Option<String>,
    grep: Option<String>,
}

impl Asked {
    fn filter(&self) -> Result<Filter, Failure> {
        let source = match self.source.as_deref() {
            None => None,
            Some("app") => Some(Source::App),
            Some("tolv") => Some(Source::Tolv),
            Some(other) => {
                let text = format!("source `{other}` is not app or tolv");
                let hint = "lines of the router are those of the process `router`";
                return Err(Failure::invalid(text).hint(hint));
            }
        };
        let grep = self.grep.as_deref().map(|pattern| {
            let built = RegexBuilder::new(pattern).size_limit(PATTERN).build();
            built.map_err(|error| Failure::invalid(format!("grep is no pattern: {error}")))
        });
        let release = self.release.as_deref().map(parse::<ReleaseNumber>).transpose()?;
        if let (Some(since), Some(until)) = (self.since, self.until)
            && until < since
        {
            return Err(Failure::invalid(format!("until {until} is before since {since}")));
        }
        Ok(Filter {
            since: self.since.map(micros),
            until: self.until.map(micros),
            process: self.process.clone(),
            source,
            release: release.map(|number| number.0),
            grep: grep.transpose()?,
            ..Filter::default()
        })
    }
}

fn micros(at: Timestamp) -> Micros {
    Micros(at.as_microsecond())
}

pub(crate) async fn show(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
    Params(asked): Params<Asked>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let logged = seen(&shared, &caller, &app, &deploy).await?;
    let filter = asked.filter()?;
    let resumed = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let place = resumed.or(asked.cursor.as_deref()).map(parse::<Place>).transpose()?;
    let folder = logged.log.folder().to_owned();
    if asked.follow {
        caller.lasts()?;
        let app = parse(&app)?;
        return Ok(follow(&shared, caller, app, logged, place, filter).await?.into_response());
    }
    let limit = |limit: Option<usize>| match limit.unwrap_or(LIMIT.0) {
        limit if (1..=LIMIT.1).contains(&limit) => Ok(limit),
        _ => Err(Failure::invalid(format!("the limit is not from 1 to {}", LIMIT.1))),
    };
    let found = match (asked.tail, place) {
        (Some(_), Some(_)) => return Err(Failure::invalid("tail and cursor exclude each other")),
        (Some(count), None) => {
            let lines = if count == 0 { 0 } else { limit(Some(count))? };
            let most = Most { lines, bytes: PAGE_BYTES };
            read(&shared, move || store::tail(&folder, &filter, most)).await?
        }
        (None, place) => {
            let most = Most { lines: limit(asked.limit)?, bytes: PAGE_BYTES };
            read(&shared, move || store::page(&folder, place, &filter, most)).await?
        }
    };
    Ok(streamed(found))
}

/// A [`LogPage`] as an answer, written as the client takes it: in JSON it may be several times as
/// large as the lines are.
fn streamed(found: Found) -> Response {
    let Found { lines, place, more, gap } = found;
    let page = LogPage { lines: Vec::new(), cursor: place.to_string(), more, gap };
    let rest = match serde_json::to_string(&page) {
        Ok(rest) => rest,
        Err(error) => return Failure::new(Code::Internal, error.to_string()).into_response(),
    };
    // Before the lines, and behind them.
    let (head, end) = rest.split_at(rest.find(']').unwrap_or(0));
    let (head, end) = (head.to_owned(), end.to_owned());
    let written = (Some(head), lines.into_iter(), Some(end));
    let chunks = unfold(written, |(mut head, mut lines, mut end)| async move {
        end.as_ref()?;
        let mut chunk = Vec::with_capacity(CHUNK_BYTES);
        let mut is_first = false;
        if let Some(head) = head.take() {
            (chunk, is_first) = (head.into_bytes(), true);
        }
        while chunk.len() < CHUNK_BYTES {
            let Some(line) = lines.next() else {
                chunk.extend(end.take().unwrap_or_default().into_bytes());
                break;
            };
            if !std::mem::take(&mut is_first) {
                chunk.push(b',');
            }
            if let Err(error) = serde_json::to_writer(&mut chunk, &wire(line)) {
                return Some((Err(io::Error::from(error)), (None, lines, None)));
            }
        }
        Some((Ok(chunk), (None, lines, end)))
    });
    let json = HeaderValue::from_static("application/json");
    ([(header::CONTENT_TYPE, json)], Body::from_stream(chunks)).into_response()
}

/// The log of an address, for whoever may look at it.
async fn seen(
    shared: &Shared,
    caller: &Caller,
    app: &str,
    deploy: &str,
) -> Result<Logged, Failure> {
    let path = path(app, deploy)?;
    caller.may(Act::View, Some(&path.app))?;
    shared.0.platform.log(&path).await.map_err(|error| shared.failure(error))
}

/// Reads on a thread of its own: a log may be large and the disk slow.
async fn read<T: Send + 'static>(
    shared: &Shared,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten();
    done.map_err(|error| {
        if let Some(shortage) = Shortage::of(&error) {
            let failure = Failure::new(Code::Unavailable, shortage.to_string());
            return failure.hint(shortage.advice());
        }
        (shared.0.on_fault)(format!("a log cannot be read: {error}"));
        Failure::new(Code::Internal, "the operator finds the cause in the platform's output")
    })
}

/// In whose name the platform speaks of all processes.
const PLATFORM: &str = "platform";

/// Whoever follows a log, between two events.
struct Follower {
    filter: Filter,
    reader: Option<Reader>,
    /// Where the batch that is being sent began, and how many of its lines were.
    place: Place,
    /// Lines that were sent before the connection broke.
    skip: u64,
    events: VecDeque<Item>,
    stored: watch::Receiver<u64>,
    unstored: broadcast::Receiver<Line>,
    ending: CancellationToken,
}

async fn follow(
    shared: &Shared,
    caller: Caller,
    app: AppName,
    logged: Logged,
    place: Option<Place>,
    filter: Filter,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>> + use<>>, Failure> {
    let folder = logged.log.folder().to_owned();
    let reader = read(shared, move || match place {
        Some(place) => Ok(Reader::at(&folder, place.cursor)),
        None => Reader::at_end(&folder),
    })
    .await?
    .in_pieces(FOLLOW_BYTES);
    let follower = Follower {
        filter,
        place: Place { cursor: reader.cursor(), lines: 0 },
        skip: place.map_or(0, |place| place.lines),
        reader: Some(reader),
        events: VecDeque::new(),
        stored: logged.log.stored(),
        unstored: logged.unstored,
        ending: shared.0.ending.clone(),
    };
    let events = unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok(event), follower))
    });
    Ok(kept_alive(shared, caller, app, events))
}

impl Follower {
    /// The next event; nothing once the platform ends or the log cannot be read.
    async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(item) = self.events.pop_front() {
                if let Some(event) = self.event(item) {
                    return Some(event);
                }
            }
            self.stored.borrow_and_update();
            let mut reader = self.reader.take()?;
            self.place = Place { cursor: reader.cursor(), lines: 0 };
            let read = tokio::task::spawn_blocking(move || {
                let mut items = Vec::new();
                let more = reader.read(&mut items);
                (reader, items, more)
            });
            let (reader, items, more) = read.await.ok()?;
            self.reader = Some(reader);
            self.events = items.into();
            if self.events.is_empty() && !more.ok()? {
                tokio::select! {
                    () = self.ending.cancelled() => return None,
                    // The log's hand is gone with its deploy.
                    changed = self.stored.changed() => changed.ok()?,
                    Ok(line) = self.unstored.recv() => {
                        let is_all = &*line.process == PLATFORM;
                        if !is_all && !self.filter.takes_missed(Source::App, &line.process) {
                            continue;
                        }
                        // It has no place in the log, and is nothing to go on behind.
                        let data = serde_json::to_string(&wire(line)).ok()?;
                        return Some(Event::default().event("line").data(data));
                    }
                }
            }
        }
    }

    fn event(&mut self, item: Item) -> Option<Event> {
        let (kind, data) = match item {
            Item::Line(line) => {
                if !self.filter.takes_line(&line) {
                    return None;
                }
                self.place.lines += 1;
                if self.skip > 0 {
                    self.skip -= 1;
                    return None;
                }
                ("line", serde_json::to_string(&wire(line)))
            }
            Item::Missed { source, process, .. } if !self.filter.takes_missed(source, &process) => {
                return None;
            }
            Item::Missed { process, lines, .. } => {
                let (process, lines) = (Some(process.to_string()), Some(lines));
                ("missed", serde_json::to_string(&LogMissed { process, lines }))
            }
            Item::Gap => {
                ("missed", serde_json::to_string(&LogMissed { process: None, lines: None }))
            }
        };
        let event = Event::default().event(kind).data(data.ok()?);
        Some(if kind == "line" { event.id(self.place.to_string()) } else { event })
    }
}

fn wire(line: Line) -> LogLine {
    LogLine {
        time: Timestamp::from_microsecond(line.time.0).unwrap_or(Timestamp::UNIX_EPOCH),
        source: line.source.to_string(),
        process: line.process.to_string(),
        release: line.release,
        stream: line.stream.as_str().to_owned(),
        partial: line.marks.more,
        continued: line.marks.continued,
        text: Value::of(&line.text),
    }
}

pub(crate) async fn stats(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
) -> Result<Json<LogStats>, Failure> {
    let Logged { log, written, limit, .. } = seen(&shared, &caller, &app, &deploy).await?;
    let folder = log.folder().to_owned();
    let size = read(&shared, move || store::size(&folder)).await?;
    let count = |Count { lines, bytes }| LogCount { lines, bytes };
    let (mut processes, mut total) = (std::collections::BTreeMap::new(), LogAccount::default());
    for (process, account) in written {
        let (written, dropped) = (count(account.written), count(account.lost));
        let stored = LogCount {
            lines: written.lines.saturating_sub(dropped.lines),
            bytes: written.bytes.saturating_sub(dropped.bytes),
        };
        let pairs = [
            (&mut total.written, written),
            (&mut total.stored, stored),
            (&mut total.dropped, dropped),
        ];
        for (sum, part) in pairs {
            sum.lines += part.lines;
            sum.bytes += part.bytes;
        }
        processes.insert(process.to_string(), LogAccount { written, stored, dropped });
    }
    Ok(Json(LogStats { processes, total, size, limit }))
}
