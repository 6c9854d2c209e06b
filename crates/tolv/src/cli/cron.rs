//! Schedules: list, history, run now.

use std::io::Write as _;
use std::process::ExitCode;

use jiff::Timestamp;
use tolv_api::client::Event;
use tolv_api::{CronRun, Page, Schedule};

use super::args::{Cron, CronCommand};
use super::failure::{Failure, harmless};
use super::show::{json, moment, table};
use super::target::Target;
use super::{Done, follow};
use crate::output;
use crate::settings::Settings;

pub(super) fn cron(args: Cron, settings: &Settings) -> ExitCode {
    let done = match args.command {
        Some(CronCommand::Run { name, detach: false }) => match run(&args.which, &name, settings) {
            Ok(code) => return code,
            Err(failure) => Err(failure),
        },
        command => show(command, &args.which, settings),
    };
    match done {
        Ok(text) => output::print_bytes(&text),
        Err(failure) => failure.report(),
    }
}

fn show(command: Option<CronCommand>, which: &super::args::Which, settings: &Settings) -> Done {
    let target = Target::of_deploy(which, settings)?;
    let path = format!("{}/cron", target.path()?);
    match command {
        None => list(&target, &path),
        Some(CronCommand::History { name, number }) => history(&target, &path, &name, number),
        Some(CronCommand::Output { name, id }) => {
            let path = format!("{path}/{name}/runs/{id}");
            let run: CronRun = target.client.get(&path)?;
            let mut text = Vec::new();
            target.client.follow_at(&format!("{path}/events"), &mut |event| {
                if let Event::Output(line) = event {
                    text.extend(format!("{}\n", harmless(&line)).bytes());
                }
            })?;
            match target.json {
                true => Ok(json(&run)?.into_bytes()),
                false => Ok(text),
            }
        }
        Some(CronCommand::Run { name, .. }) => {
            let none = serde_json::json!({});
            let run: CronRun = target.client.send("POST", &format!("{path}/{name}/runs"), &none)?;
            match target.json {
                true => Ok(json(&run)?.into_bytes()),
                false => Ok(format!("{name} runs: {}\n", run.id).into_bytes()),
            }
        }
    }
}

/// To the second, and never as how long ago: it may lie ahead.
fn exact(at: Option<Timestamp>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn list(target: &Target, path: &str) -> Done {
    let page: Page<Schedule> = target.client.get(path)?;
    if target.json {
        return Ok(json(&page)?.into_bytes());
    }
    if page.items.is_empty() {
        let deploy = target.deploy()?;
        return Ok(format!("No schedules in {deploy}: app.json has no `cron`.\n").into_bytes());
    }
    let row = |one: &Schedule| {
        let last = one.last.as_ref();
        vec![
            one.name.clone(),
            one.schedule.clone(),
            one.timezone.clone(),
            exact(one.next),
            last.map_or_else(|| "-".to_owned(), |run| run.outcome.to_string()),
            last.map_or_else(|| "-".to_owned(), |run| moment(run.created)),
            one.command.clone(),
        ]
    };
    let rows: Vec<_> = page.items.iter().map(row).collect();
    let heads = ["SCHEDULE", "WHEN", "ZONE", "NEXT", "LAST", "AT", "COMMAND"];
    let mut text = table(&heads, &rows);
    for one in &page.items {
        if let Some(until) = one.fired_until {
            text.push_str(&one.name);
            text.push_str(": the clock was put back; what ran up to ");
            text.push_str(&exact(Some(until)));
            text.push_str(" is not run again.\n");
        }
    }
    Ok(text.into_bytes())
}

fn history(target: &Target, path: &str, name: &str, number: u16) -> Done {
    let path = format!("{path}/{name}/runs");
    let page = follow::list::<CronRun>(target, &path, number.into())?;
    if target.json {
        return Ok(json(&page)?.into_bytes());
    }
    if page.items.is_empty() {
        return Ok(format!("{name} has not run yet.\n").into_bytes());
    }
    let row = |run: &CronRun| {
        let took = run.ended.map(|ended| ended.duration_since(run.created).as_secs_f64());
        vec![
            run.id.clone(),
            exact(run.tick),
            run.outcome.to_string(),
            run.status.map_or_else(|| "-".to_owned(), |status| status.to_string()),
            took.map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.1} s")),
            format!("v{}", run.release),
            run.actor.clone().unwrap_or_else(|| "schedule".to_owned()),
            moment(run.created),
            run.error.clone().unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = page.items.iter().map(row).collect();
    let heads = ["RUN", "TICK", "OUTCOME", "STATUS", "TOOK", "RELEASE", "BY", "AT", "ERROR"];
    Ok(table(&heads, &rows).into_bytes())
}

/// Runs a schedule now; its output as it comes, its exit status as this program's own.
fn run(which: &super::args::Which, name: &str, settings: &Settings) -> Result<ExitCode, Failure> {
    let target = Target::of_deploy(which, settings)?;
    let path = format!("{}/cron/{name}/runs", target.path()?);
    let run: CronRun = target.client.send("POST", &path, &serde_json::json!({}))?;
    let path = format!("{path}/{}", run.id);
    let quiet = target.json;
    target.client.follow_at(&format!("{path}/events"), &mut |event| {
        if let (Event::Output(line), false) = (event, quiet) {
            // A reader that is gone does not end the run.
            writeln!(std::io::stdout(), "{}", harmless(&line)).ok();
        }
    })?;
    let run: CronRun = target.client.get(&path)?;
    if quiet {
        output::write(json(&run)?.as_bytes()).map_err(Failure::unwritten)?;
    }
    if let (Some(error), None | Some(0)) = (&run.error, run.status) {
        return Err(Failure::new(format!("{name} {}: {error}", run.outcome)));
    }
    let status = run.status.and_then(|status| u8::try_from(status).ok());
    Ok(ExitCode::from(status.unwrap_or(1)))
}
