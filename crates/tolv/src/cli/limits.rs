//! `tolv limits`: how much of the machine processes may take.

use tolv_api::{NewOperation, Page, TypeLimits};
use tolv_model::size::{Size, SizeError, show_bytes};

use super::args::Limits as Args;
use super::failure::Failure;
use super::processes::{changed, cpu};
use super::show::{json, table};
use super::target::Target;
use super::{Done, args};
use crate::settings::Settings;

pub(super) fn limits(args: &Args, settings: &Settings) -> Done {
    let target = Target::of_deploy(&args.which, settings)?;
    let size = asked(args)?;
    match &args.process_type {
        Some(kind) if args.reset || !size.is_open() => {
            let sizes = match size.is_open() {
                true => Default::default(),
                false => [(kind.to_string(), size.to_string())].into(),
            };
            let reset = if args.reset { vec![kind.to_string()] } else { Vec::new() };
            let said = match size.is_open() {
                true => format!("has the default limits for {kind}"),
                false => format!("has new limits for {kind}: {size}"),
            };
            changed(&target, &NewOperation::Limits { sizes, reset }, &said)
        }
        kind => show(&target, kind.as_ref().map(|kind| kind.as_str())),
    }
}

/// What the flags ask for together.
fn asked(args: &args::Limits) -> Result<Size, Failure> {
    let parts = [
        ("memory", &args.memory),
        ("cpu", &args.cpu),
        ("cpu-weight", &args.cpu_weight),
        ("processes", &args.processes),
        ("files", &args.files),
        ("tmp", &args.tmp),
        ("shm", &args.shm),
    ];
    let mut size = args.size.unwrap_or_default();
    for (part, value) in parts {
        if let Some(value) = value {
            let read: Result<Size, SizeError> = format!("{part}={value}").parse();
            size = read.map_err(|error| Failure::new(error.to_string()))?.or(&size);
        }
    }
    Ok(size)
}

fn show(target: &Target, only: Option<&str>) -> Done {
    let mut page: Page<TypeLimits> = target.client.get(&format!("{}/limits", target.path()?))?;
    page.items.retain(|of| only.is_none_or(|only| of.process_type == only));
    if let (Some(only), true) = (only, page.items.is_empty()) {
        return Err(Failure::new(format!("{} has no process type `{only}`", target.deploy()?))
            .hint("tolv limits shows those that there are"));
    }
    if target.json {
        return Ok(json(&page)?.into_bytes());
    }
    let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |n| n.to_string());
    let row = |of: &TypeLimits| {
        let limits = &of.limits;
        vec![
            of.process_type.clone(),
            limits.memory.map_or_else(|| "-".to_owned(), show_bytes),
            cpu(limits),
            number(limits.processes),
            number(limits.files),
            show_bytes(limits.tmp),
            show_bytes(limits.shm),
            if of.asked.is_empty() { "default".to_owned() } else { of.asked.clone() },
        ]
    };
    let rows: Vec<_> = page.items.iter().map(row).collect();
    let heads = ["TYPE", "MEMORY", "CPU", "PROCESSES", "FILES", "/TMP", "/DEV/SHM", "ASKED FOR"];
    Ok(table(&heads, &rows).into_bytes())
}
