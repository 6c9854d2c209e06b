//! Processes and operations.

use std::collections::BTreeMap;

use tolv_api::{NewOperation, Operation, Page, Process};
use tolv_model::formation::Formation;

use super::args::{Operations, OperationsCommand, Restart, Scale, Which};
use super::failure::Failure;
use super::show::{json, moment, table};
use super::target::Target;
use super::{Done, follow};
use crate::settings::Settings;

pub(super) fn ps(which: &Which, settings: &Settings) -> Done {
    let target = Target::of_deploy(which, settings)?;
    let page: Page<Process> = target.client.get(&format!("{}/processes", target.path()?))?;
    if target.json {
        return Ok(json(&page)?.into_bytes());
    }
    if page.items.is_empty() {
        return Ok(format!("Nothing of {} runs.\n", target.deploy()?).into_bytes());
    }
    let row = |process: &Process| {
        vec![
            process.name.clone(),
            process.state.clone(),
            format!("v{}", process.release),
            process.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
            process.restarts.to_string(),
        ]
    };
    let rows: Vec<_> = page.items.iter().map(row).collect();
    Ok(table(&["PROCESS", "STATE", "RELEASE", "PID", "RESTARTS"], &rows).into_bytes())
}

fn done(target: &Target, new: &NewOperation, text: &str) -> Done {
    let operation = follow::ask(target, new)?;
    if target.json {
        return Ok(json(&operation)?.into_bytes());
    }
    Ok(format!("{} {text}\n", operation.deploy).into_bytes())
}

pub(super) fn scale(args: &Scale, settings: &Settings) -> Done {
    let target = Target::of_deploy(&args.which, settings)?;
    let asked = args.quantities.join(",");
    let formation: Formation = asked
        .parse()
        .map_err(|error: tolv_model::formation::FormationError| Failure::new(error.to_string()))?;
    let quantities: BTreeMap<_, _> =
        formation.0.iter().map(|(kind, quantity)| (kind.to_string(), *quantity)).collect();
    let new = NewOperation::Scale { formation: quantities };
    done(&target, &new, &format!("is scaled to {formation}"))
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
