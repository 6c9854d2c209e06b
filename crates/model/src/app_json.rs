//! `app.json`: what an app says about itself, beside its `Procfile`.
//!
//! | key | what it is |
//! |---|---|
//! | `name`, `description`, `repository` | text for people |
//! | `env` | config variables that the app reads: `"NAME": "value"`, or an object of `description`, `value`, `required` (true unless said), `generator` (`"secret"`) |
//! | `formation` | process type → `quantity` (0 to 1000), `size` (Heroku's names, or as in `768M`; of `release` and `run` too) |
//! | `scripts` | `postdeploy`: a command line, or an object with a `command` |
//! | `healthchecks` | process type → array of checks, see below |
//! | `buildpacks` | array of [buildpacks](crate::buildpack), or of objects with one as `url` |
//! | `cron` | array of `command`, `schedule`, `name`, `timezone`, `concurrency_policy` (`allow`, `forbid`, `replace`), `size` |
//!
//! A check has at most one of `path` (with `content`, `httpHeaders`, `scheme`), `command`,
//! `listening` and `uptime`, and any of `type`, `name`, `port`, `attempts`, `timeout`, `wait`,
//! `initialDelay`, `warn`. Times are whole seconds. A schedule has the five fields of cron, or is
//! `@hourly`, `@daily`, `@weekly`, `@monthly` or `@yearly`.
//!
//! A key that is not known, or has no effect, is a warning with its place. A wrong type is an
//! error with its place and its path, as in `formation.web.quantity`.
//!
//! Sources: the `app.json` schema of Heroku; Dokku's additions `cron` and `healthchecks`.

mod checks;
mod cron;
mod json;
mod node;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use std::ops::Range;

pub use self::cron::{Concurrency, CronJob, Schedule, ScheduleError, Zone, ZoneError};
use self::node::{Object, Place};
use crate::buildpack::{Buildpack, MAX_BUILDPACKS};
use crate::env::{EnvName, MAX_VALUE};
use crate::formation::{Formation, MAX_QUANTITY};
use crate::health::HealthCheck;
use crate::name::ProcessType;
use crate::procfile::MAX_TYPES;
use crate::size::{Size, SizeError, Sizes};
use crate::source::{Report, SourceError, Warning, quote};

/// The name of the file, in the root of an app.
pub const FILE: &str = "app.json";

/// Most variables of the environment that the file gives.
const MAX_VARIABLES: usize = 1024;

/// Keys of the file that are read.
const KNOWN: &[&str] = &[
    "name",
    "description",
    "repository",
    "env",
    "formation",
    "scripts",
    "healthchecks",
    "cron",
    "addons",
    "buildpacks",
    "environments",
    "stack",
];
/// Keys of Heroku's that describe the app on its web pages: nothing for a platform to do.
const FOR_PEOPLE: &[&str] = &["keywords", "website", "logo", "success_url", "$schema"];

/// An app's manifest. The default one, that of an app without the file, says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppJson {
    /// What the app calls itself.
    pub name: Option<String>,
    /// What it is.
    pub description: Option<String>,
    /// Where its code is.
    pub repository: Option<String>,
    /// The command to run after the first release of a deploy.
    pub postdeploy: Option<String>,
    /// Config variables that the app reads.
    pub env: BTreeMap<EnvName, Variable>,
    /// What each process type is to have at first; see [`AppJson::formation`].
    pub formation: BTreeMap<ProcessType, Scale>,
    /// Health checks in the order of the file; see [`AppJson::checks`].
    pub health_checks: BTreeMap<ProcessType, Vec<HealthCheck>>,
    /// Commands to run at set times.
    pub cron: Vec<CronJob>,
    /// What builds the app, in this order; where there is none, the files of the codebase decide.
    pub buildpacks: Vec<Buildpack>,
    /// Keys that are not known or have no effect, in the order of the file.
    pub warnings: Vec<Warning>,
}

/// A config variable that an app declares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variable {
    /// What it is for.
    pub description: Option<String>,
    /// Its value where a deploy sets none.
    pub value: Option<String>,
    /// Whether the app cannot do without it.
    pub required: bool,
    /// What makes a value where there is none.
    pub generator: Option<Generator>,
}

/// What makes the value of a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Generator {
    /// A random string, made once for each deploy.
    Secret,
}

/// What one process type is to have at first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scale {
    /// How many processes.
    pub quantity: Option<u16>,
    /// How much of the machine each may take.
    pub size: Option<Size>,
}

impl AppJson {
    /// Reads an `app.json`.
    ///
    /// # Errors
    ///
    /// The first place where the text is not JSON; if it is, every value that is not what it
    /// should be.
    pub fn parse(bytes: &[u8]) -> Result<Self, SourceError> {
        let mut report = Report::new(FILE, bytes);
        let mut app = Self::default();
        let root = report.utf8().and_then(|text| json::read(text, &mut report));
        if let Some(root) = root
            && let Some(object) = Place::root(&root).object(&mut report)
        {
            app.fill(&object, &mut report);
        }
        report.finish(app).map(|(app, warnings)| Self { warnings, ..app })
    }

    /// The quantities that the file gives; types without one are absent.
    pub fn formation(&self) -> Formation {
        let types = self.formation.iter().filter(|(kind, _)| !kind.is_release());
        Formation(types.filter_map(|(kind, scale)| Some((kind.clone(), scale.quantity?))).collect())
    }

    /// The sizes that the file gives, those of schedules among them.
    pub fn sizes(&self) -> Sizes {
        let types = self.formation.iter().map(|(kind, scale)| (kind.clone(), scale.size));
        let scheduled = self.cron.iter().map(|job| (ProcessType::scheduled(&job.name), job.size));
        let sizes = types.chain(scheduled);
        Sizes(sizes.filter_map(|(kind, size)| Some((kind, size?))).collect())
    }

    /// The health checks by process type; types without one are absent.
    pub fn checks(&self) -> BTreeMap<ProcessType, Vec<HealthCheck>> {
        self.health_checks.clone()
    }

    fn fill(&mut self, object: &Object<'_>, report: &mut Report<'_>) {
        object.warn_unknown(report, KNOWN, FOR_PEOPLE);
        let mut text =
            |key| object.get(key).and_then(|place| place.string(report)).map(str::to_owned);
        self.name = text("name");
        self.description = text("description");
        self.repository = text("repository");
        without_effect(object, report);
        if let Some(place) = few(object, "buildpacks", MAX_BUILDPACKS, report) {
            self.buildpacks = buildpacks(&place, report);
        }
        if let Some(place) = object.get("scripts") {
            self.postdeploy = scripts(&place, report);
        }
        if let Some(variables) =
            few(object, "env", MAX_VARIABLES, report).and_then(|place| place.object(report))
        {
            self.env = env(&variables, report);
        }
        if let Some(types) =
            few(object, "formation", MAX_TYPES, report).and_then(|place| place.object(report))
        {
            self.formation = formation(&types, report);
        }
        if let Some(place) = few(object, "healthchecks", MAX_TYPES, report) {
            self.health_checks = checks::read(&place, report);
        }
        if let Some(place) = few(object, "cron", MAX_TYPES, report) {
            self.cron = cron::read(&place, report);
        }
    }
}

/// What stands under a key, if it is not longer than it may be.
fn few<'n>(
    object: &Object<'n>,
    key: &str,
    most: usize,
    report: &mut Report<'_>,
) -> Option<Place<'n>> {
    let place = object.get(key)?;
    let count = place.len();
    if count > most {
        report.error(place.span(), format!("`{key}` has {count} entries, more than {most}"));
        return None;
    }
    Some(place)
}

/// Keys that other platforms act upon, whatever stands under them.
fn without_effect(object: &Object<'_>, report: &mut Report<'_>) {
    for (key, hint) in [
        ("addons", "give the URLs of backing services in the config of the deploy"),
        ("environments", "what differs between deploys is their config"),
        ("stack", "the stack is that of whoever builds: TOLV_STACK"),
    ] {
        if let Some((span, _)) = object.member(key) {
            report.warn(span, format!("key `{key}` has no effect")).hint(hint);
        }
    }
}

/// Each is a text, or an object with it as its `url`.
fn buildpacks(place: &Place<'_>, report: &mut Report<'_>) -> Vec<Buildpack> {
    let Some(places) = place.array(report) else { return Vec::new() };
    let mut all = Vec::new();
    for place in places {
        let place = match place.is_object() {
            true => place.object(report).and_then(|object| object.required("url", report)),
            false => Some(place),
        };
        let Some(place) = place else { continue };
        let Some(text) = place.string(report) else { continue };
        match text.parse() {
            Ok(buildpack) => all.push(buildpack),
            Err(error) => {
                report.error(place.span(), format!("`{}`: {error}", place.path));
            }
        }
    }
    all
}

fn scripts(place: &Place<'_>, report: &mut Report<'_>) -> Option<String> {
    let object = place.object(report)?;
    object.warn_unknown(report, &["postdeploy"], &[]);
    let postdeploy = object.get("postdeploy")?;
    if !postdeploy.is_object() {
        return command(&postdeploy, report);
    }
    let object = postdeploy.object(report)?;
    object.warn_unknown(report, &["command", "size"], &[]);
    command(&object.required("command", report)?, report)
}

/// A command line.
fn command(place: &Place<'_>, report: &mut Report<'_>) -> Option<String> {
    let command = place.string(report)?.trim();
    if command.is_empty() || command.contains('\0') {
        let what = if command.is_empty() { "is empty" } else { "has a NUL byte" };
        report.error(place.span(), format!("`{}` {what}", place.path)).hint("write a command line");
        return None;
    }
    Some(command.to_owned())
}

fn env(variables: &Object<'_>, report: &mut Report<'_>) -> BTreeMap<EnvName, Variable> {
    let mut env = BTreeMap::new();
    for (key, span, place) in variables.members() {
        let Ok(name) = key.parse::<EnvName>() else {
            report
                .error(span, format!("`{}` is not a variable name", quote(key)))
                .hint("use letters, digits and `_`, no digit first");
            continue;
        };
        let variable = variable(&place, report);
        if name.is_reserved() {
            report
                .warn(
                    span,
                    format!(
                        "variable `{name}` is set by the platform: what this says has no effect"
                    ),
                )
                .hint("remove it");
        } else if let Some(variable) = variable {
            env.insert(name, variable);
        }
    }
    env
}

fn variable(place: &Place<'_>, report: &mut Report<'_>) -> Option<Variable> {
    if !place.is_object() {
        let hint =
            "write a string, or an object of `description`, `value`, `required`, `generator`";
        let value = Some(value(place, hint, report)?);
        return Some(Variable { description: None, value, required: true, generator: None });
    }
    let object = place.object(report)?;
    object.warn_unknown(report, &["description", "value", "required", "generator"], &[]);
    let description = object.get("description").and_then(|place| place.string(report));
    let given = object.get("value");
    let value =
        given.as_ref().and_then(|place| value(place, "put the value in double quotes", report));
    let required = object.get("required").is_none_or(|place| place.bool(report) != Some(false));
    let generator = object.get("generator").and_then(|place| {
        let kinds = [("secret", Generator::Secret)];
        place.one_of(&kinds, report)
    });
    if let (Some(_), Some((span, _))) = (given, object.member("generator")) {
        let path = &object.path;
        report
            .warn(span, format!("`{path}.generator` has no effect beside `{path}.value`"))
            .hint("remove one of the two");
    }
    Some(Variable { description: description.map(str::to_owned), value, required, generator })
}

fn value(place: &Place<'_>, hint: &str, report: &mut Report<'_>) -> Option<String> {
    let value = place.string_or(hint, report)?;
    if let Some(wrong) = value_wrong(value) {
        report.error(place.span(), format!("`{}` {wrong}", place.path));
        return None;
    }
    Some(value.to_owned())
}

/// Why no process environment can carry a value.
fn value_wrong(value: &str) -> Option<String> {
    if value.contains('\0') {
        Some("has a NUL byte, which no process environment can carry".to_owned())
    } else if value.len() > MAX_VALUE {
        Some(format!("has {} bytes, more than {MAX_VALUE}", value.len()))
    } else {
        None
    }
}

fn formation(types: &Object<'_>, report: &mut Report<'_>) -> BTreeMap<ProcessType, Scale> {
    let mut formation = BTreeMap::new();
    for (key, span, place) in types.members() {
        let Some(object) = place.object(report) else { continue };
        let process_type = match key.parse::<ProcessType>() {
            Ok(release) if release.is_release() && object.get("size").is_some() => Some(release),
            _ => process_type(key, span, &types.path, report),
        };
        object.warn_unknown(report, &["quantity", "size"], &[]);
        let quantity = object.get("quantity").and_then(|place| {
            let number = place.whole(0..=u64::from(MAX_QUANTITY), report)?;
            u16::try_from(number).ok()
        });
        let size = object.get("size").and_then(|place| size(&place, report));
        if let Some(process_type) = process_type {
            formation.insert(process_type, Scale { quantity, size });
        }
    }
    formation
}

/// A size. A name that is none of Heroku's says nothing, as on other platforms; a figure that
/// cannot be read is an error.
fn size(place: &Place<'_>, report: &mut Report<'_>) -> Option<Size> {
    let text = place.string(report)?;
    match text.parse() {
        Ok(size) => Some(size),
        Err(SizeError::Syntax(_)) if text.trim().starts_with(char::is_alphabetic) => {
            let message = format!("`{}` is `\"{}\"`, which has no effect", place.path, quote(text));
            report.warn(place.span(), message).hint(
                "write one of Heroku's names, as `\"standard-2x\"`, or a figure, as `\"768M\"`",
            );
            None
        }
        Err(error) => {
            report.error(place.span(), format!("`{}`: {error}", place.path));
            None
        }
    }
}

/// The process type that a key names. The release phase is none that stays up: a warning.
fn process_type(
    key: &str,
    span: Range<usize>,
    path: &str,
    report: &mut Report<'_>,
) -> Option<ProcessType> {
    match key.parse::<ProcessType>() {
        Ok(release) if release.is_release() => {
            report
                .warn(span, format!("`{path}.release` has no effect"))
                .hint("`release` is the release phase: it runs once, before the others start");
            None
        }
        Ok(process_type) => Some(process_type),
        Err(_) => {
            report
                .error(span, format!("`{}` in `{path}` is not a process type", quote(key)))
                .hint("a type is made of at most 63 of A-Z, a-z, 0-9, `_` and `-`");
            None
        }
    }
}

#[cfg(test)]
mod tests;
