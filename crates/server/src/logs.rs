//! A deploy's log: pages, a stream that can be resumed, and accounts.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::path::Path as FilePath;
use std::str::FromStr;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
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
use tolv_logs::store::{self, Count, Cursor, Filter, Found, Item, Reader};
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

/// A place among the lines that fit: some of them behind a cursor. `12-4039` or `12-4039.3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    cursor: Cursor,
    lines: u64,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.lines {
            0 => write!(f, "{}", self.cursor),
            lines => write!(f, "{}.{lines}", self.cursor),
        }
    }
}

impl FromStr for Place {
    type Err = store::NoCursor;

    fn from_str(text: &str) -> Result<Self, store::NoCursor> {
        let (cursor, lines) = match text.split_once('.') {
            None => (text, Some(0)),
            Some((cursor, lines)) => (cursor, lines.parse().ok()),
        };
        match lines {
            Some(lines) => Ok(Self { cursor: cursor.parse()?, lines }),
            None => text.parse::<Cursor>().map(|cursor| Self { cursor, lines: 0 }),
        }
    }
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
        let app = parse(&app)?;
        return Ok(follow(&shared, caller, app, logged, place, filter).await?.into_response());
    }
    let limit = |limit: Option<usize>| match limit.unwrap_or(LIMIT.0) {
        limit if (1..=LIMIT.1).contains(&limit) => Ok(limit),
        _ => Err(Failure::invalid(format!("the limit is not from 1 to {}", LIMIT.1))),
    };
    let found = match (asked.tail, place) {
        (Some(_), Some(_)) => return Err(Failure::invalid("tail and cursor exclude each other")),
        (Some(0), None) => read(&shared, move || store::tail(&folder, &filter, 0)).await?,
        (Some(count), None) => {
            let count = limit(Some(count))?;
            read(&shared, move || store::tail(&folder, &filter, count)).await?
        }
        (None, place) => {
            let limit = limit(asked.limit)?;
            let from = place.map(|place| place.cursor);
            let skip = place.map_or(0, |place| place.lines);
            let skip = usize::try_from(skip).unwrap_or(usize::MAX);
            read(&shared, move || page(&folder, from, &filter, skip, limit)).await?
        }
    };
    let Found { lines, cursor, more, gap } = found;
    let lines = lines.into_iter().map(|(line, _)| wire(line)).collect();
    Ok(Json(LogPage { lines, cursor: cursor.to_string(), more, gap }).into_response())
}

fn page(
    folder: &FilePath,
    from: Option<Cursor>,
    filter: &Filter,
    skip: usize,
    limit: usize,
) -> io::Result<Found> {
    let mut found = store::page(folder, from, filter, limit.saturating_add(skip))?;
    found.lines.drain(..skip.min(found.lines.len()));
    Ok(found)
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
    .await?;
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
            self.events.extend(items);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_back() {
        for text in ["12-4039", "0-0.3", "7-9.18446744073709551615"] {
            assert_eq!(text.parse::<Place>().unwrap().to_string(), text);
        }
        for text in ["", "1", "1-2.x", "1-2.-3", ".5", "1-2.3.4"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
