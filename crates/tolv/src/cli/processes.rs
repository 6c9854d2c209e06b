//! Processes and operations.

use std::collections::BTreeMap;

use tolv_api::{Deploy, Limits, NewOperation, Operation, Page, Process};
use tolv_model::formation::{Formation, FormationError};
use tolv_model::name::NameError;
use tolv_model::size::{SizeError, Sizes, show_bytes, show_cores};

use super::args::{Operations, OperationsCommand, Restart, Scale, Which};
use super::failure::Failure;
use super::show::{json, moment, table};
use super::target::Target;
use super::{Done, follow};
use crate::settings::Settings;

/// Weight of the CPU, and its limit in cores where there is one: `100`, `200, at most 2`.
pub(super) fn cpu(limits: &Limits) -> String {
    let weight = limits.cpu_weight.map_or_else(|| "-".to_owned(), |weight| weight.to_string());
    match limits.cpu_percent {
        Some(percent) => format!("{weight}, at most {}", show_cores(percent)),
        None => weight,
    }
}

pub(super) fn ps(which: &Which, settings: &Settings) -> Done {
    let target = Target::of_deploy(which, settings)?;
    let page: Page<Process> = target.client.get(&format!("{}/processes", target.path()?))?;
    if target.json {
        return Ok(json(&page)?.into_bytes());
    }
    if page.items.is_empty() {
        let deploy = target.deploy()?;
        return Ok(match is_stopped(&target)? {
            true => format!("{deploy} is stopped. Start it: tolv start\n"),
            false => format!("Nothing of {deploy} runs.\n"),
        }
        .into_bytes());
    }
    let row = |process: &Process| {
        vec![
            process.name.clone(),
            process.state.clone(),
            format!("v{}", process.release),
            process.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            process.restarts.to_string(),
            process.limits.memory.map_or_else(|| "-".to_owned(), show_bytes),
            cpu(&process.limits),
        ]
    };
    let rows: Vec<_> = page.items.iter().map(row).collect();
    let heads = ["PROCESS", "STATE", "RELEASE", "PID", "RESTARTS", "MEMORY", "CPU"];
    Ok(table(&heads, &rows).into_bytes())
}

fn wrong(error: &dyn std::fmt::Display) -> Failure {
    Failure::new(error.to_string())
}

/// Whether nothing of the deploy is to run.
fn is_stopped(target: &Target) -> Result<bool, Failure> {
    Ok(target.client.get::<Deploy>(&target.path()?)?.stopped)
}

/// What is to be said behind a change that runs only once the deploy is started.
pub(super) fn stopped_note(target: &Target) -> Result<&'static str, Failure> {
    Ok(if is_stopped(target)? { "; it is stopped: tolv start" } else { "" })
}

/// Asks for a change that a stopped deploy has too, but does not run.
pub(super) fn changed(target: &Target, new: &NewOperation, text: &str) -> Done {
    let operation = follow::ask(target, new)?;
    if target.json {
        return Ok(json(&operation)?.into_bytes());
    }
    Ok(format!("{} {text}{}\n", operation.deploy, stopped_note(target)?).into_bytes())
}

pub(super) fn done(target: &Target, new: &NewOperation, text: &str) -> Done {
    let operation = follow::ask(target, new)?;
    if target.json {
        return Ok(json(&operation)?.into_bytes());
    }
    Ok(format!("{} {text}\n", operation.deploy).into_bytes())
}

pub(super) fn scale(args: &Scale, settings: &Settings) -> Done {
    let target = Target::of_deploy(&args.which, settings)?;
    let (mut quantities, mut sizes) = (Vec::new(), Sizes::default());
    for part in args.quantities.iter().flat_map(|part| part.split(',')) {
        let (quantity, size) =
            part.split_once(':').map_or((part, None), |(n, size)| (n, Some(size)));
        quantities.push(quantity);
        if let (Some(size), Some((kind, _))) = (size, quantity.split_once('=')) {
            let kind = kind.trim().parse().map_err(|error: NameError| wrong(&error))?;
            sizes.0.insert(kind, size.parse().map_err(|error: SizeError| wrong(&error))?);
        }
    }
    let formation: Formation =
        quantities.join(",").parse().map_err(|error: FormationError| wrong(&error))?;
    let quantities: BTreeMap<_, _> =
        formation.0.iter().map(|(kind, quantity)| (kind.to_string(), *quantity)).collect();
    let asked = sizes.0.iter().map(|(kind, size)| (kind.to_string(), size.to_string())).collect();
    let new = NewOperation::Scale { formation: quantities, sizes: asked };
    let said = match sizes.is_empty() {
        true => format!("is scaled to {formation}"),
        false => format!("is scaled to {formation} ({sizes})"),
    };
    changed(&target, &new, &said)
}

pub(super) fn restart(args: &Restart, settings: &Settings) -> Done {
    let target = Target::of_deploy(&args.which, settings)?;
    let new = NewOperation::Restart { processes: args.processes.clone() };
    done(&target, &new, "is restarted")
}

pub(super) fn stop(which: &Which, settings: &Settings) -> Done {
    done(&Target::of_deploy(which, settings)?, &NewOperation::Stop, "is stopped")
}

pub(super) fn start(which: &Which, settings: &Settings) -> Done {
    done(&Target::of_deploy(which, settings)?, &NewOperation::Start, "is started")
}

pub(super) fn operations(args: Operations, settings: &Settings) -> Done {
    let target = match &args.command {
        // An id says all.
        Some(_) => Target::of_id(&args.which, settings)?,
        None => Target::of_deploy(&args.which, settings)?,
    };
    match args.command {
        None => {
            let path = format!("{}/operations", target.path()?);
            let page = follow::list::<Operation>(&target, &path, 20)?;
            if target.json {
                return Ok(json(&page)?.into_bytes());
            }
            let row = |operation: &Operation| {
                vec![
                    operation.id.clone(),
                    operation.kind.clone(),
                    operation.state.to_string(),
                    operation.release.map_or_else(|| "-".to_owned(), |number| format!("v{number}")),
                    operation.actor.clone(),
                    moment(operation.created),
                ]
            };
            let rows: Vec<_> = page.items.iter().map(row).collect();
            let heads = ["OPERATION", "KIND", "STATE", "RELEASE", "BY", "CREATED"];
            Ok(table(&heads, &rows).into_bytes())
        }
        Some(OperationsCommand::Show { id }) => {
            let operation: Operation = target.client.get(&format!("/v1/operations/{id}"))?;
            let operation = follow::finish(&target, operation)?;
            match target.json {
                true => Ok(json(&operation)?.into_bytes()),
                false => Ok(format!("{}: {}\n", operation.kind, operation.state).into_bytes()),
            }
        }
        Some(OperationsCommand::Cancel { id }) => {
            let operation: Operation = target.client.delete(&format!("/v1/operations/{id}"))?;
            match target.json {
                true => Ok(json(&operation)?.into_bytes()),
                false => Ok(format!("{}: {}\n", operation.kind, operation.state).into_bytes()),
            }
        }
    }
}
