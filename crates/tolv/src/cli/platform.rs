//! `tolv status --platform`: what the running platform holds and lacks.
//!
//! The exit status is that of a check of a monitor (the Monitoring Plugins' guidelines): 0 ok, 1 warn,
//! 2 fail, 3 where it cannot be told.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use tolv_api::client::{Client, Error};
use tolv_api::{Code, Health, PlatformStatus, local};
use tolv_build::StateFolder;

use super::args::At;
use super::failure::{Failure, harmless};
use super::show;
use super::target::Target;
use crate::output;
use crate::settings::Settings;

const WARN: u8 = 1;
const FAIL: u8 = 2;
const NOT_KNOWN: u8 = 3;
/// For the whole answer, which a platform gives within a second.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The same on this machine.
const HOME_TIMEOUT: Duration = Duration::from_secs(2);

/// Asks and prints.
pub(crate) fn status(at: &At, settings: &Settings) -> ExitCode {
    let (client, at_home) = match client(at, settings) {
        Ok(found) => found,
        Err(failure) => return failure.report(),
    };
    let limit = if at_home.is_some() { HOME_TIMEOUT } else { TIMEOUT };
    let asked = Instant::now();
    let status: PlatformStatus = match client.get_within(limit, "/v1/platform") {
        Ok(status) => status,
        Err(error) => {
            let is_late = asked.elapsed() >= limit;
            return not_told(error, at_home, is_late.then_some(limit)).report();
        }
    };
    let text = match at.json {
        true => match show::json(&status) {
            Ok(text) => text,
            Err(failure) => return failure.status(NOT_KNOWN).report(),
        },
        false => lines(&status),
    };
    match output::write(text.as_bytes()) {
        Ok(()) => ExitCode::from(exit_status(status.state)),
        Err(error) => Failure::unwritten(error).report(),
    }
}

fn exit_status(state: Health) -> u8 {
    match state {
        Health::Ok => 0,
        Health::Warn => WARN,
        Health::Fail => FAIL,
    }
}

/// The platform that is named; else the one on this machine whose state folder is known, which needs
/// no database to be asked; else the one that other commands go to. With its state folder, where it is
/// on this machine.
fn client(at: &At, settings: &Settings) -> Result<(Client, Option<PathBuf>), Failure> {
    if at.server.is_none() {
        let mut homes = settings.homes_here();
        homes.push(settings.serve_home());
        let found = |home: StateFolder| {
            let folder = local::reachable(home.path()).filter(|_| home.is_usable())?;
            Some((folder, home.path().to_owned()))
        };
        if let Some((folder, home)) = homes.into_iter().find_map(found) {
            return Ok((Client::local(&folder), Some(home)));
        }
    }
    match Target::of(at, settings) {
        Ok(target) => Ok((target.client, None)),
        Err(failure) if at.server.is_some() => Err(failure.status(NOT_KNOWN)),
        // Its state folder says that there is to be one.
        Err(_) if settings.serve_home().path().is_dir() => {
            let text = format!(
                "the platform with its state in {} does not run",
                settings.serve_home().path().display()
            );
            Err(Failure::new(text).hint("start it: tolv serve").status(FAIL))
        }
        Err(failure) => {
            let text = format!("no platform runs on this machine, and {}", failure.text);
            Err(Failure { text, ..failure }.status(NOT_KNOWN))
        }
    }
}

/// Why there is no answer. A platform that nobody can reach has failed.
fn not_told(error: Error, at_home: Option<PathBuf>, late: Option<Duration>) -> Failure {
    let status = match &error {
        Error::Unreachable { .. } | Error::Broken { .. } => FAIL,
        Error::Problem(problem) if problem.code == Code::Unavailable => FAIL,
        Error::Problem(_) | Error::Odd { .. } => NOT_KNOWN,
    };
    let failure = match (error, at_home) {
        (Error::Unreachable { .. } | Error::Broken { .. }, home) if late.is_some() => {
            let which = home.map(|home| format!(" with its state in {}", home.display()));
            let limit = late.unwrap_or_default().as_secs();
            Failure::new(format!(
                "the platform{} has not answered within {limit} seconds: it hangs, or was stopped \
                 by a signal",
                which.unwrap_or_default()
            ))
        }
        (Error::Unreachable { source, .. }, Some(home)) => Failure::new(format!(
            "the platform with its state in {} does not answer: {source}",
            home.display()
        )),
        (Error::Broken { source, .. }, Some(home)) => Failure::new(format!(
            "the platform with its state in {} does not answer: {source}",
            home.display()
        )),
        (error, _) => error.into(),
    };
    failure.status(status)
}

/// What is not ok first and in one line, as monitors show it; then a line a check.
fn lines(status: &PlatformStatus) -> String {
    let named = |state: Health| {
        let found = status.checks.iter().filter(|check| check.state == state);
        found.map(|check| check.name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let mut text = status.state.as_str().to_owned();
    let mut separator = ": ";
    for state in [Health::Fail, Health::Warn] {
        let names = named(state);
        if !names.is_empty() {
            write!(text, "{separator}{} {names}", state.as_str()).ok();
            separator = "; ";
        }
    }
    text.push('\n');
    for check in &status.checks {
        let (state, name) = (check.state.as_str(), harmless(&check.name));
        let summary = harmless(&check.summary).replace('\n', " ");
        writeln!(text, "{state:<5} {name:<12} {summary}").ok();
    }
    text
}

#[cfg(test)]
mod tests {
    use tolv_api::PlatformCheck;

    use super::*;

    #[test]
    fn what_is_not_ok_comes_first() {
        let check = |name: &str, state| PlatformCheck {
            name: name.to_owned(),
            state,
            summary: "a\nb\x1b[31m".to_owned(),
            facts: serde_json::Map::new(),
        };
        let mut status = PlatformStatus {
            state: Health::Ok,
            version: "1".to_owned(),
            pid: 1,
            uptime_seconds: 1,
            checks: vec![check("lease", Health::Ok)],
        };
        assert_eq!(lines(&status), "ok\nok    lease        a b[31m\n");
        status.state = Health::Fail;
        status.checks.extend([
            check("disk", Health::Warn),
            check("database", Health::Fail),
            check("spawner", Health::Fail),
        ]);
        let text = lines(&status);
        assert_eq!(text.lines().next(), Some("fail: fail database, spawner; warn disk"));
        assert_eq!(text.lines().count(), 5);
    }
}
