//! `tolv logs`: what a deploy's processes and the platform said, and what they say now.

use std::io::{self, IsTerminal as _};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tolv_api::{LogAccount, LogLine, LogMissed, LogPage, LogStats};
use tolv_logs::{Form, Line, Marks, Micros, Source, Stream, View};

use super::Done;
use super::args::{Logs, LogsCommand};
use super::failure::Failure;
use super::show::{json, table};
use super::target::Target;
use crate::output;
use crate::settings::Settings;

/// Lines that are asked for at a time.
const PAGE: usize = 5_000;
/// Lines where nothing is said.
const TAIL: usize = 100;
/// Between two tries of a connection that broke.
const AGAIN: Duration = Duration::from_millis(500);
/// Tries in a row.
const TRIES: u32 = 120;

pub(super) fn logs(args: &Logs, settings: &Settings) -> Done {
    let target = Target::of_deploy(&args.which, settings)?;
    let path = format!("{}/logs", target.path()?);
    if let Some(LogsCommand::Stats) = args.command {
        return stats(&target, &path);
    }
    let mut out = Out::new(&target, settings);
    let choice = choice(args);
    let cursor = match (args.number, args.since) {
        (None, Some(_)) => all(&target, &path, &choice, &mut out)?,
        (number, _) => last(&target, &path, &choice, number.map_or(TAIL, usize::from), &mut out)?,
    };
    if args.follow {
        follow(&target, &format!("{path}?follow=true&cursor={cursor}{choice}"), &mut out)?;
    }
    Ok(Vec::new())
}

/// The last lines that fit, page by page where they are long; the cursor behind them.
fn last(
    target: &Target,
    path: &str,
    choice: &str,
    count: usize,
    out: &mut Out,
) -> Result<String, Failure> {
    let mut left = count;
    let mut page: LogPage = target.client.get(&format!("{path}?tail={count}{choice}"))?;
    loop {
        if page.gap {
            out.missed(&LogMissed { process: None, lines: None })?;
        }
        left = left.saturating_sub(page.lines.len());
        out.lines(page.lines)?;
        // What is written meanwhile is not among them.
        if !page.more || left == 0 {
            return Ok(page.cursor);
        }
        let (limit, cursor) = (left.min(PAGE), page.cursor);
        let next = format!("{path}?limit={limit}&cursor={cursor}{choice}");
        page = target.client.get(&next)?;
    }
}

/// Everything that fits, page by page; the cursor behind it.
fn all(target: &Target, path: &str, choice: &str, out: &mut Out) -> Result<String, Failure> {
    let mut cursor = String::new();
    loop {
        let page: LogPage = target.client.get(&format!("{path}?limit={PAGE}{cursor}{choice}"))?;
        if page.gap {
            out.missed(&LogMissed { process: None, lines: None })?;
        }
        out.lines(page.lines)?;
        if !page.more {
            return Ok(page.cursor);
        }
        cursor = format!("&cursor={}", page.cursor);
    }
}

/// What comes, until somebody ends it. A connection that breaks is made again, where it left off.
fn follow(target: &Target, path: &str, out: &mut Out) -> Result<(), Failure> {
    let (mut last, mut tries) = (String::new(), 0);
    loop {
        let before = last.clone();
        let mut failed = None;
        let streamed = target.client.stream(path, &mut last, &mut |kind, data| {
            let written = match kind {
                "line" => match serde_json::from_str(&data) {
                    Ok(line) => out.lines(vec![line]),
                    Err(_) => Ok(()),
                },
                "missed" => match serde_json::from_str(&data) {
                    Ok(missed) => out.missed(&missed),
                    Err(_) => Ok(()),
                },
                _ => Ok(()),
            };
            failed = written.err();
            failed.is_none()
        });
        if let Some(failure) = failed {
            return Err(failure);
        }
        tries = if last == before { tries + 1 } else { 0 };
        match streamed {
            Ok(()) if tries < TRIES => {}
            Err(error) if error.may_come_back() && tries < TRIES => {}
            Ok(()) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        std::thread::sleep(AGAIN);
    }
}

/// The filter as a query.
fn choice(args: &Logs) -> String {
    let moment = |at: Option<Timestamp>| at.map(|at| at.to_string());
    let release = args.release.map(|release| release.to_string());
    let parts = [
        ("since", moment(args.since)),
        ("until", moment(args.until)),
        ("process", args.process.clone()),
        ("source", args.source.clone()),
        ("release", release),
        ("grep", args.grep.clone()),
    ];
    let mut query = String::new();
    for (name, value) in parts {
        if let Some(value) = value {
            query.push('&');
            query.push_str(name);
            query.push('=');
            query.extend(url::form_urlencoded::byte_serialize(value.as_bytes()));
        }
    }
    query
}

/// Standard output, in the form that is wanted.
struct Out {
    view: View,
}

impl Out {
    fn new(target: &Target, settings: &Settings) -> Self {
        let form = match target.json {
            true => Form::Json,
            false => Form::Text { color: settings.color(), terminal: io::stdout().is_terminal() },
        };
        Self { view: View::new(form) }
    }

    fn lines(&mut self, lines: Vec<LogLine>) -> Result<(), Failure> {
        let mut text = Vec::new();
        for line in lines {
            self.view.write(&from_wire(line)?, &mut text);
        }
        output::write(&text).map_err(Failure::unwritten)
    }

    fn missed(&mut self, missed: &LogMissed) -> Result<(), Failure> {
        let process = missed.process.as_deref().unwrap_or("platform");
        let mut shown = Vec::new();
        self.view.write(&Line::dropped(process, missed.lines), &mut shown);
        output::write(&shown).map_err(Failure::unwritten)
    }
}

fn from_wire(line: LogLine) -> Result<Line, Failure> {
    let odd = || Failure::new("the platform sent a line that is no line");
    Ok(Line {
        time: Micros(line.time.as_microsecond()),
        source: if line.source == Source::App.as_str() { Source::App } else { Source::Tolv },
        process: Arc::from(line.process),
        release: line.release,
        stream: if line.stream == Stream::Err.as_str() { Stream::Err } else { Stream::Out },
        marks: Marks { more: line.partial, continued: line.continued, long: false },
        text: line.text.to_bytes().ok_or_else(odd)?,
    })
}

fn stats(target: &Target, path: &str) -> Done {
    let stats: LogStats = target.client.get(&format!("{path}/stats"))?;
    if target.json {
        return Ok(json(&stats)?.into_bytes());
    }
    let row = |name: &str, account: &LogAccount| {
        let LogAccount { written, stored, dropped } = account;
        let numbers = [
            written.lines,
            written.bytes,
            stored.lines,
            stored.bytes,
            dropped.lines,
            dropped.bytes,
        ];
        std::iter::once(name.to_owned()).chain(numbers.map(|n| n.to_string())).collect()
    };
    let mut rows: Vec<Vec<String>> =
        stats.processes.iter().map(|(name, account)| row(name, account)).collect();
    rows.push(row("all", &stats.total));
    let heads = ["PROCESS", "WRITTEN", "BYTES", "STORED", "BYTES", "DROPPED", "BYTES"];
    let mut text = table(&heads, &rows);
    let line = format!("{} of {} bytes on the disk\n", stats.size, stats.limit);
    text.push_str(&line);
    Ok(text.into_bytes())
}
