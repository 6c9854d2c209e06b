//! `cron` of `app.json`: commands to run at set times.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, Zoned};
use serde::{Deserialize, Serialize};

use super::node::Place;
use crate::name::ScheduleName;
use crate::size::Size;
use crate::source::{Report, quote};

/// A command and when it runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CronJob {
    /// What it is called: that of the file, or one made of the command.
    pub name: ScheduleName,
    /// A command line.
    pub command: String,
    /// When.
    pub schedule: Schedule,
    /// Whose clock that is by.
    pub zone: Zone,
    /// What happens at a tick while the one before still runs.
    pub concurrency: Concurrency,
    /// How much of the machine each run may take.
    #[serde(default)]
    pub size: Option<Size>,
}

/// What happens at a tick while the run of an earlier one goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Concurrency {
    /// Both run.
    #[default]
    Allow,
    /// The new one is left out.
    Forbid,
    /// The old one is stopped.
    Replace,
}

impl Concurrency {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Forbid => "forbid",
            Self::Replace => "replace",
        }
    }
}

/// A time zone by its name: `Europe/Oslo`. The rules are those of the IANA database that this
/// program was built with, so that a schedule means the same on every machine.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

/// Not a time zone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time zone; `UTC` and `Europe/Oslo` are some")]
pub struct ZoneError(String);

static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

impl Zone {
    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.name
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }
}

impl FromStr for Zone {
    type Err = ZoneError;
    fn from_str(name: &str) -> Result<Self, ZoneError> {
        let no = || ZoneError(quote(name));
        let zone = ZONES.get(name).map_err(|_| no())?;
        let name = zone.iana_name().ok_or_else(no)?.to_owned();
        Ok(Self { name, zone })
    }
}

impl TryFrom<String> for Zone {
    type Error = ZoneError;
    fn try_from(name: String) -> Result<Self, ZoneError> {
        name.parse()
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.name)
    }
}

impl CronJob {
    /// The first tick after a moment; none if there is none to come.
    pub fn next(&self, after: Timestamp) -> Option<Timestamp> {
        let after = after.to_zoned(self.zone.zone.clone());
        self.schedule.next(&after).map(|tick| tick.timestamp())
    }
}

/// A time pattern in the five fields of cron: minute, hour, day of month, month, day of week.
///
/// On days when clocks change: a pattern with set minutes and hours whose time is skipped matches
/// the first moment after the gap, and one whose time comes twice matches the first of the two. A
/// pattern with `*` in minutes or hours goes by the time that passes: it has no match in an hour
/// that is skipped, and matches in both of an hour that comes twice.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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
    /// Whether it has `*` in minutes or hours.
    pub fn goes_by_time(&self) -> bool {
        let text = self.to_string();
        text.eq_ignore_ascii_case("@hourly")
            || text.split_ascii_whitespace().take(2).any(|field| field.contains('*'))
    }

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

impl TryFrom<String> for Schedule {
    type Error = ScheduleError;
    fn try_from(text: String) -> Result<Self, ScheduleError> {
        text.parse()
    }
}

impl From<Schedule> for String {
    fn from(schedule: Schedule) -> Self {
        schedule.text
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
    let jobs: Vec<_> = jobs.iter().map(|job| (job, read_one(job, report))).collect();
    // Names that were given first: those that are made keep out of their way.
    let mut taken = BTreeSet::new();
    for (place, job) in &jobs {
        if let Some(Read { name: Some(name), .. }) = job
            && !taken.insert(name.clone())
        {
            report.error(
                place.span(),
                format!("`{}`: the name `{name}` is there already", place.path),
            );
        }
    }
    jobs.into_iter().filter_map(|(_, job)| job).map(|job| job.named(&mut taken)).collect()
}

/// One of the array, whose name may be missing.
struct Read {
    name: Option<ScheduleName>,
    command: String,
    schedule: Schedule,
    zone: Zone,
    concurrency: Concurrency,
    size: Option<Size>,
}

impl Read {
    fn named(self, taken: &mut BTreeSet<ScheduleName>) -> CronJob {
        let name = self.name.unwrap_or_else(|| {
            let own = ScheduleName::from_command(&self.command);
            let others = (2..).map(|number| own.numbered(number));
            let mut names = std::iter::once(own.clone()).chain(others);
            let free = names.find(|name| !taken.contains(name)).unwrap_or_else(|| own.clone());
            taken.insert(free.clone());
            free
        });
        let Self { command, schedule, zone, concurrency, size, .. } = self;
        CronJob { name, command, schedule, zone, concurrency, size }
    }
}

fn read_one(place: &Place<'_>, report: &mut Report<'_>) -> Option<Read> {
    let object = place.object(report)?;
    let known = ["name", "command", "schedule", "timezone", "concurrency_policy", "size"];
    object.warn_unknown(report, &known, &[]);
    let name = object.get("name").map(|place| parsed::<ScheduleName>(&place, report));
    let zone = object.get("timezone").map(|place| parsed::<Zone>(&place, report));
    let command =
        object.required("command", report).and_then(|place| super::command(&place, report));
    let schedule = object.required("schedule", report).and_then(|place| schedule(&place, report));
    let policies = [
        ("allow", Concurrency::Allow),
        ("forbid", Concurrency::Forbid),
        ("replace", Concurrency::Replace),
    ];
    let size = object.get("size").and_then(|place| super::size(&place, report));
    let concurrency =
        object.get("concurrency_policy").and_then(|place| place.one_of(&policies, report));
    Some(Read {
        size,
        name: name.map_or(Some(None), |name| name.map(Some))?,
        command: command?,
        schedule: schedule?,
        zone: zone.unwrap_or_else(|| Some(Zone::default()))?,
        concurrency: concurrency.unwrap_or_default(),
    })
}

/// A text with a grammar of its own.
fn parsed<T: FromStr<Err: fmt::Display>>(place: &Place<'_>, report: &mut Report<'_>) -> Option<T> {
    let text = place.string(report)?;
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            report.error(place.span(), format!("`{}`: {error}", place.path));
            None
        }
    }
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
