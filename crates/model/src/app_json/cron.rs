//! `cron` of `app.json`: commands to run at set times.

use std::fmt;
use std::str::FromStr;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::{Timestamp, Zoned, tz::TimeZone};

use super::node::Place;
use crate::source::{Report, quote};

/// A command and when it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CronJob {
    /// A command line.
    pub command: String,
    /// When.
    pub schedule: Schedule,
    /// What happens at a tick while the one before still runs.
    pub concurrency: Concurrency,
}

/// What happens at a tick while the run of an earlier one goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Concurrency {
    /// Both run.
    #[default]
    Allow,
    /// The new one is left out.
    Forbid,
    /// The old one is stopped.
    Replace,
}

/// A time pattern in the five fields of cron: minute, hour, day of month, month, day of week.
#[derive(Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    cron: Cron,
}

/// A schedule that cannot be kept.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not five fields.
    #[error("it has {0} fields, not five")]
    Fields(usize),
    /// A field that is not one of cron's; the text says which part.
    #[error("{0}")]
    Field(String),
    /// Such as the 30th of February.
    #[error("no day of any year matches it")]
    Never,
}

impl Schedule {
    /// The first time after `after` that matches, in its time zone; none if there is none to come.
    pub fn next(&self, after: &Zoned) -> Option<Zoned> {
        self.cron.find_next_occurrence(after, false).ok()
    }
}

impl FromStr for Schedule {
    type Err = ScheduleError;
    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        let fields = text.split_ascii_whitespace().count();
        if fields != 5 && !text.starts_with('@') {
            return Err(ScheduleError::Fields(fields));
        }
        // The library drops what it does not know of a name (`5MON` is 51), so look first.
        if let Some(word) = stray_word(text) {
            return Err(ScheduleError::Field(format!("`{}` is not known", quote(word))));
        }
        let parser =
            CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let cron = parser.parse(text).map_err(|error| {
            let error = error.to_string();
            let error = error.strip_prefix("Component error: ").unwrap_or(&error);
            let mut letters = error.trim_end_matches('.').chars();
            let first = letters.next().into_iter().flat_map(char::to_lowercase);
            ScheduleError::Field(quote(&first.chain(letters).collect::<String>()))
        })?;
        let schedule = Self { text: text.to_owned(), cron };
        // Any fixed moment does: a pattern that has no match in the centuries after it has none.
        let start = Zoned::new(Timestamp::UNIX_EPOCH, TimeZone::UTC);
        if schedule.next(&start).is_none() {
            return Err(ScheduleError::Never);
        }
        Ok(schedule)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.text)
    }
}

const NICKNAMES: [&str; 6] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@hourly"];
const DAYS: [&str; 7] = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"];
const MONTHS: [&str; 12] =
    ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"];

/// The first word that is not a name where it stands.
fn stray_word(text: &str) -> Option<&str> {
    if text.starts_with('@') {
        return NICKNAMES.iter().all(|name| !name.eq_ignore_ascii_case(text)).then_some(text);
    }
    let is_one_of =
        |names: &[&str], word: &str| names.iter().any(|name| name.eq_ignore_ascii_case(word));
    text.split_ascii_whitespace().enumerate().find_map(|(field, part)| {
        let separated = |c: char| matches!(c, ',' | '-' | '/' | '#' | '+' | '*' | '?');
        part.split(separated).find(|word| {
            let plain = word.bytes().all(|byte| byte.is_ascii_digit());
            let fine = match field {
                2 => word.bytes().all(|byte| byte.is_ascii_digit() || b"LWlw".contains(&byte)),
                3 => is_one_of(&MONTHS, word),
                4 => {
                    let day = word.strip_suffix(['L', 'l']).unwrap_or(word);
                    is_one_of(&DAYS, day) || day.bytes().all(|byte| byte.is_ascii_digit())
                }
                _ => false,
            };
            !plain && !fine
        })
    })
}

/// Reads the array.
pub(super) fn read(place: &Place<'_>, report: &mut Report<'_>) -> Vec<CronJob> {
    let Some(jobs) = place.array(report) else { return Vec::new() };
    jobs.iter().filter_map(|job| read_one(job, report)).collect()
}

fn read_one(place: &Place<'_>, report: &mut Report<'_>) -> Option<CronJob> {
    let object = place.object(report)?;
    object.warn_unknown(report, &["command", "schedule", "concurrency_policy"], &[]);
    let command =
        object.required("command", report).and_then(|place| super::command(&place, report));
    let schedule = object.required("schedule", report).and_then(|place| schedule(&place, report));
    let policies = [
        ("allow", Concurrency::Allow),
        ("forbid", Concurrency::Forbid),
        ("replace", Concurrency::Replace),
    ];
    let concurrency =
        object.get("concurrency_policy").and_then(|place| place.one_of(&policies, report));
    Some(CronJob {
        command: command?,
        schedule: schedule?,
        concurrency: concurrency.unwrap_or_default(),
    })
}

fn schedule(place: &Place<'_>, report: &mut Report<'_>) -> Option<Schedule> {
    let text = place.string(report)?;
    match text.parse() {
        Ok(schedule) => Some(schedule),
        Err(error) => {
            report
                .error(
                    place.span(),
                    format!("`{}` is no schedule that can be kept: {error}", place.path),
                )
                .hint(
                    "write minute, hour, day of month, month and day of week, as in \
                     `\"30 4 * * MON\"`, or `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly`",
                );
            None
        }
    }
}
