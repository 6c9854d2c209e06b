//! `healthchecks` of `app.json`.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::node::{Object, Place};
use crate::health::{ATTEMPTS, CheckAction, CheckKind, HealthCheck, TIMEOUT, WAIT};
use crate::name::ProcessType;
use crate::source::Report;

/// Longest time that a check may say, in seconds.
const MOST_SECONDS: u64 = 24 * 60 * 60;
/// Most attempts of one check.
const MOST_ATTEMPTS: u64 = 1000;
/// Longest path, header or text.
const LONGEST: usize = 8 * 1024;

const KNOWN: &[&str] = &[
    "type",
    "name",
    "path",
    "content",
    "httpHeaders",
    "scheme",
    "command",
    "listening",
    "uptime",
    "port",
    "attempts",
    "timeout",
    "wait",
    "initialDelay",
    "warn",
];

/// Reads the object: process type → array of checks.
pub(super) fn read(
    place: &Place<'_>,
    report: &mut Report<'_>,
) -> BTreeMap<ProcessType, Vec<HealthCheck>> {
    let mut checks = BTreeMap::new();
    let Some(types) = place.object(report) else { return checks };
    for (key, span, place) in types.members() {
        let process_type = super::process_type(key, span, &types.path, report);
        let Some(places) = place.array(report) else { continue };
        let of_type: Vec<_> = places.iter().filter_map(|place| check(place, report)).collect();
        if let Some(process_type) = process_type
            && !of_type.is_empty()
        {
            checks.insert(process_type, of_type);
        }
    }
    checks
}

fn check(place: &Place<'_>, report: &mut Report<'_>) -> Option<HealthCheck> {
    let object = place.object(report)?;
    object.warn_unknown(report, KNOWN, &[]);
    let kinds = [
        ("startup", CheckKind::Startup),
        ("readiness", CheckKind::Readiness),
        ("liveness", CheckKind::Liveness),
    ];
    let kind = object.get("type").and_then(|place| place.one_of(&kinds, report));
    let name = object.get("name").and_then(|place| place.string(report)).map(str::to_owned);
    let attempts = object
        .get("attempts")
        .and_then(|place| place.whole(1..=MOST_ATTEMPTS, report))
        .and_then(|attempts| u32::try_from(attempts).ok());
    let mut time = |key, least| seconds(&object, key, least..=MOST_SECONDS, report);
    let timeout = time("timeout", 1);
    let wait = time("wait", 0);
    let initial_delay = time("initialDelay", 0);
    let warn_only = object.get("warn").and_then(|place| place.bool(report));
    Some(HealthCheck {
        name,
        kind: kind.unwrap_or_default(),
        action: action(&object, report)?,
        attempts: attempts.unwrap_or(ATTEMPTS),
        timeout: timeout.unwrap_or(TIMEOUT),
        wait: wait.unwrap_or(WAIT),
        initial_delay: initial_delay.unwrap_or(Duration::ZERO),
        warn_only: warn_only.unwrap_or(false),
    })
}

fn seconds(
    object: &Object<'_>,
    key: &str,
    range: RangeInclusive<u64>,
    report: &mut Report<'_>,
) -> Option<Duration> {
    object.get(key)?.whole(range, report).map(Duration::from_secs)
}

/// What the check does: exactly one thing.
fn action(object: &Object<'_>, report: &mut Report<'_>) -> Option<CheckAction> {
    let port = object
        .get("port")
        .and_then(|place| place.whole(1..=65535, report))
        .and_then(|port| u16::try_from(port).ok());
    let listening = match object.get("listening") {
        None => false,
        Some(place) => place.bool(report)?,
    };
    let first = |keys: &[&str]| keys.iter().find_map(|key| object.member(key));
    let asked = [
        ("path", first(&["path", "content", "httpHeaders"])),
        ("command", first(&["command"])),
        ("listening", first(&["listening"]).filter(|_| listening)),
        ("uptime", first(&["uptime"])),
    ];
    let mut asked = asked.into_iter().filter_map(|(what, member)| Some((what, member?)));
    let Some((what, (span, place))) = asked.next() else {
        report
            .error(object.span(), format!("`{}` does not say what to check", object.path))
            .hint("give it a `path`, a `command`, `\"listening\": true` or an `uptime`");
        return None;
    };
    if let Some((other, (second, _))) = asked.next() {
        report
            .error(second, format!("`{}` has both `{what}` and `{other}`", object.path))
            .hint("make two checks of it")
            .also(span, "the other one");
        return None;
    }
    if let (Some((span, _)), "command" | "uptime") = (object.member("port"), what) {
        let path = &object.path;
        report.warn(span, format!("`{path}.port` has no effect beside `{path}.{what}`"));
    }
    match what {
        "path" => http(object, port, report),
        "command" => command(&place, report).map(CheckAction::Command),
        "listening" => Some(CheckAction::Listening { port }),
        _ => seconds(object, "uptime", 1..=MOST_SECONDS, report).map(CheckAction::Uptime),
    }
}

fn http(object: &Object<'_>, port: Option<u16>, report: &mut Report<'_>) -> Option<CheckAction> {
    if let Some(place) = object.get("scheme") {
        place.one_of(&[("http", ())], report);
    }
    let path = match object.get("path") {
        None => Some("/"),
        Some(place) => place.string(report).filter(|path| {
            let fine = path.starts_with('/')
                && path.len() <= LONGEST
                && path.bytes().all(|byte| byte.is_ascii_graphic());
            if !fine {
                report
                    .error(place.span(), format!("`{}` is not a path of a URL", place.path))
                    .hint("start it with `/`, and write what is not ASCII as `%XX`");
            }
            fine
        }),
    };
    let content = object.get("content").map(|place| place.string(report));
    let headers = match object.get("httpHeaders") {
        None => Some(Vec::new()),
        Some(place) => headers(&place, report),
    };
    Some(CheckAction::Http {
        path: path?.to_owned(),
        port,
        headers: headers?,
        content: match content {
            None => None,
            Some(content) => Some(content?.to_owned()),
        },
    })
}

/// An array of `{"name": …, "value": …}`.
fn headers(place: &Place<'_>, report: &mut Report<'_>) -> Option<Vec<(String, String)>> {
    let places = place.array(report)?;
    let headers: Vec<_> = places.iter().map(|place| header(place, report)).collect();
    headers.into_iter().collect()
}

fn header(place: &Place<'_>, report: &mut Report<'_>) -> Option<(String, String)> {
    let object = place.object(report)?;
    object.warn_unknown(report, &["name", "value"], &[]);
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let name = object.required("name", report)?;
    let name_text = name.string(report)?;
    if name_text.is_empty() || name_text.len() > LONGEST || !name_text.bytes().all(token) {
        report.error(name.span(), format!("`{}` is not the name of a header", name.path));
        return None;
    }
    let value = object.required("value", report)?;
    let value_text = value.string(report)?;
    if value_text.len() > LONGEST || !value_text.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        report
            .error(value.span(), format!("`{}` is not the value of a header", value.path))
            .hint("it is one line of ASCII");
        return None;
    }
    Some((name_text.to_owned(), value_text.to_owned()))
}

/// An array of words, the program first.
fn command(place: &Place<'_>, report: &mut Report<'_>) -> Option<Vec<String>> {
    let words = place.array(report)?;
    let words: Vec<_> = words
        .iter()
        .map(|place| {
            let word = place.string(report)?;
            if word.contains('\0') {
                report.error(place.span(), format!("`{}` has a NUL byte", place.path));
                return None;
            }
            Some(word.to_owned())
        })
        .collect();
    let words = words.into_iter().collect::<Option<Vec<_>>>()?;
    if words.first().is_none_or(String::is_empty) {
        report
            .error(place.span(), format!("`{}` names no program", place.path))
            .hint("write it in words, as in `[\"bin/check\", \"--fast\"]`");
        return None;
    }
    Some(words)
}
