//! Releases: list, look at, prove, compare, roll back.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use tolv_api::{Deploy, Ledger, NewOperation, Release};
use tolv_model::release::ReleaseNumber;

use super::args::{Releases, ReleasesCommand, Rollback};
use super::failure::Failure;
use super::show::{json, moment, short, table};
use super::target::Target;
use super::{Done, follow};
use crate::settings::Settings;

pub(super) fn releases(args: Releases, settings: &Settings) -> Done {
    let target = Target::of_deploy(&args.which, settings)?;
    let path = target.path()?;
    let get = |number: ReleaseNumber| {
        target.client.get::<Release>(&format!("{path}/releases/{}", number.0))
    };
    match args.command {
        None => {
            let page =
                follow::list::<Release>(&target, &format!("{path}/releases"), args.number.into())?;
            if target.json {
                return Ok(json(&page)?.into_bytes());
            }
            if page.items.is_empty() {
                return Ok(b"No releases yet. Make one: git push tolv main\n".to_vec());
            }
            let row = |release: &Release| {
                vec![
                    format!("v{}", release.number),
                    release.outcome.as_str().to_owned(),
                    release.reason.clone(),
                    short(release.commit.as_deref()),
                    release.actor.clone(),
                    moment(release.created),
                ]
            };
            let rows: Vec<_> = page.items.iter().map(row).collect();
            let heads = ["RELEASE", "OUTCOME", "REASON", "COMMIT", "BY", "CREATED"];
            Ok(table(&heads, &rows).into_bytes())
        }
        Some(ReleasesCommand::Info { release }) => {
            let release = get(release)?;
            if target.json {
                return Ok(json(&release)?.into_bytes());
            }
            Ok(info(&release).into_bytes())
        }
        Some(ReleasesCommand::Retry { release, no_release_phase }) => {
            let release = release.map(|number| number.0);
            let new = NewOperation::Retry { release, no_release_phase };
            let operation = follow::ask(&target, &new)?;
            if target.json {
                return Ok(json(&operation)?.into_bytes());
            }
            let number = operation.release.unwrap_or_default();
            Ok(format!("{} is at v{number}\n", operation.deploy).into_bytes())
        }
        Some(ReleasesCommand::Verify) => verify(&target, &path),
        Some(ReleasesCommand::Repair) => repair(&target, &path),
        Some(ReleasesCommand::Accept { confirm }) => accept(&target, &path, &confirm),
        Some(ReleasesCommand::Diff { from, to }) => {
            let (from, to) = (get(from)?, get(to)?);
            if target.json {
                let lines = differences(&from, &to);
                return Ok(json(&serde_json::json!({"differences": lines}))?.into_bytes());
            }
            let lines = differences(&from, &to);
            Ok(match lines.is_empty() {
                true => format!("v{} and v{} run the same\n", from.number, to.number),
                false => lines.join("\n") + "\n",
            }
            .into_bytes())
        }
    }
}

fn verify(target: &Target, path: &str) -> Done {
    let ledger: Ledger = target.client.get(&format!("{path}/releases/verify"))?;
    proof(target, &ledger)
}

fn repair(target: &Target, path: &str) -> Done {
    let deploy: Deploy = target.client.get(path)?;
    let commit = deploy.commit.clone().ok_or_else(|| {
        Failure::new(format!("{} has no release of a commit", deploy.name))
            .hint("deploy one: git push tolv main")
    })?;
    let new = NewOperation::Deploy { commit, new_root: false, no_release_phase: false };
    let operation = follow::ask(target, &new)?;
    if target.json {
        return Ok(json(&operation)?.into_bytes());
    }
    let number = operation.release.unwrap_or_default();
    Ok(format!("{} is at v{number}\n", operation.deploy).into_bytes())
}

fn accept(target: &Target, path: &str, confirm: &str) -> Done {
    let confirm = confirm.replace('/', "%2F");
    let ledger: Ledger =
        target.client.send("POST", &format!("{path}/releases/accept?confirm={confirm}"), &())?;
    proof(target, &ledger)
}

fn proof(target: &Target, ledger: &Ledger) -> Done {
    let deploy = target.deploy()?;
    if let Some(broken) = &ledger.broken {
        return Err(Failure::new(format!("the ledger of {deploy} does not hold: {broken}")).hint(
            format!(
                "{} releases before it hold; a changed slug or layer is built again by `tolv \
                 releases repair`, a changed ledger comes back from a backup of the database, or \
                 is taken as it is: `tolv releases accept --confirm {deploy}`",
                ledger.rows
            ),
        ));
    }
    if target.json {
        return Ok(json(&ledger)?.into_bytes());
    }
    let releases = if ledger.rows == 1 { "release" } else { "releases" };
    let mut text = format!("The ledger of {deploy} holds: {} {releases}\n", ledger.rows);
    for accepted in &ledger.accepted {
        writeln!(text, "Accepted as it is: {accepted}").ok();
    }
    Ok(text.into_bytes())
}

fn info(release: &Release) -> String {
    let mut rows = vec![
        ("Release", format!("v{}", release.number)),
        ("Reason", release.reason.clone()),
        ("By", release.actor.clone()),
        ("Created", release.created.to_string()),
        ("Outcome", release.outcome.as_str().to_owned()),
        ("Commit", release.commit.clone().unwrap_or_else(|| "-".to_owned())),
        ("Slug", release.slug.clone()),
        ("Hash", release.hash.clone()),
    ];
    if let Some(stack) = &release.stack {
        rows.insert(7, ("Stack", stack.clone()));
    }
    if let Some(error) = &release.error {
        rows.insert(5, ("Error", error.clone()));
    }
    for (kind, command) in &release.process_types {
        rows.push(("Process type", format!("{kind}: {command}")));
    }
    let names: Vec<_> = release.config.iter().flatten().map(|(name, _)| name.as_str()).collect();
    rows.push(("Config", names.join(", ")));
    rows.iter()
        .map(|(head, text)| format!("{head:<13} {}\n", super::failure::harmless(text)))
        .collect()
}

/// What runs differently, a line each: `+` is there now, `-` is not any more, `~` is another.
fn differences(from: &Release, to: &Release) -> Vec<String> {
    let mut lines = Vec::new();
    let mut one = |what: &str, a: &str, b: &str| {
        if a != b {
            lines.push(format!("~ {what}: {a} → {b}"));
        }
    };
    let none = "none".to_owned();
    one("commit", from.commit.as_ref().unwrap_or(&none), to.commit.as_ref().unwrap_or(&none));
    one("slug", &from.slug, &to.slug);
    one("stack", from.stack.as_ref().unwrap_or(&none), to.stack.as_ref().unwrap_or(&none));
    let empty = BTreeMap::new();
    let (old, new) = (from.config.as_ref().unwrap_or(&empty), to.config.as_ref().unwrap_or(&empty));
    lines.extend(changes("config", old, new));
    lines.extend(changes("process type", &from.process_types, &to.process_types));
    lines
}

fn changes(
    what: &str,
    old: &BTreeMap<String, String>,
    new: &BTreeMap<String, String>,
) -> Vec<String> {
    let gone = old.keys().filter(|name| !new.contains_key(*name));
    let mut lines: Vec<_> = gone.map(|name| format!("- {what} {name}")).collect();
    for (name, value) in new {
        match old.get(name) {
            None => lines.push(format!("+ {what} {name}")),
            Some(before) if before != value => lines.push(format!("~ {what} {name}")),
            Some(_) => {}
        }
    }
    lines
}

pub(super) fn rollback(args: &Rollback, settings: &Settings) -> Done {
    let target = Target::of_deploy(&args.which, settings)?;
    let to = args.release.map(|number| number.0);
    let no_release_phase = args.no_release_phase;
    let operation = follow::ask(&target, &NewOperation::Rollback { to, no_release_phase })?;
    if target.json {
        return Ok(json(&operation)?.into_bytes());
    }
    let number = operation.release.unwrap_or_default();
    Ok(format!("{} is rolled back: v{number}\n", operation.deploy).into_bytes())
}
