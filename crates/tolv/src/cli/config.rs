//! Config variables.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;

use tolv_api::{Config as ApiConfig, ConfigChange, ConfigChanged, Value, Variable};
use tolv_model::dotenv;
use tolv_model::env::{EnvName, MAX_VALUE};

use super::Done;
use super::args::{Config, ConfigCommand};
use super::failure::Failure;
use super::follow;
use super::processes::stopped_note;
use super::show::{json, table};
use super::target::Target;
use crate::settings::Settings;

pub(super) fn config(args: Config, settings: &Settings) -> Done {
    let target = Target::of_deploy(&args.which, settings)?;
    let path = format!("{}/config", target.path()?);
    match args.command {
        None => list(&target, &path, args.values),
        Some(ConfigCommand::Get { name }) => {
            let name = named(&name)?;
            let variable: Variable = target.client.get(&format!("{path}/{name}"))?;
            if target.json {
                return Ok(json(&variable)?.into_bytes());
            }
            let mut bytes = variable.value.and_then(|value| value.to_bytes()).unwrap_or_default();
            bytes.push(b'\n');
            Ok(bytes)
        }
        Some(ConfigCommand::Set { secret, build, no_release_phase, pairs }) => {
            let set = pairs.iter().map(pair).collect::<Result<BTreeMap<_, _>, _>>()?;
            change(
                &target,
                &path,
                &ConfigChange { set, unset: Vec::new(), secret, build, no_release_phase },
            )
        }
        Some(ConfigCommand::Unset { no_release_phase, names }) => {
            for name in &names {
                named(name)?;
            }
            let unset = names;
            let new = ConfigChange { unset, no_release_phase, ..ConfigChange::default() };
            change(&target, &path, &new)
        }
        Some(ConfigCommand::Import { file, secret, no_release_phase }) => {
            let shown = file.display().to_string();
            let text = std::fs::read(&file)
                .map_err(|error| Failure::new(format!("`{shown}` cannot be read: {error}")))?;
            let parsed = dotenv::parse(&text)
                .map_err(|error| Failure::new(error.named(shown.clone()).to_string()))?;
            let set = parsed.iter().map(|(name, value)| (name.to_string(), Value::of(value)));
            let set = set.collect();
            change(
                &target,
                &path,
                &ConfigChange { set, secret, no_release_phase, ..ConfigChange::default() },
            )
        }
        Some(ConfigCommand::Export) => export(&target, &path),
    }
}

fn named(name: &str) -> Result<EnvName, Failure> {
    name.parse().map_err(|error: tolv_model::env::EnvError| Failure::new(error.to_string()))
}

/// `NAME=VALUE`, or `NAME=-` for what is on standard input. Values are bytes.
fn pair(text: &OsString) -> Result<(String, Value), Failure> {
    let bytes = text.as_bytes();
    let place = bytes.iter().position(|&byte| byte == b'=').ok_or_else(|| {
        Failure::new("a variable is set as NAME=VALUE")
            .hint("NAME=- takes the value from standard input")
    })?;
    let name = named(&String::from_utf8_lossy(&bytes[..place]))?;
    if name.is_reserved() {
        let text = tolv_model::env::EnvError::Reserved(name.to_string()).to_string();
        return Err(Failure::new(text));
    }
    let value = match &bytes[place + 1..] {
        b"-" => {
            let mut value = Vec::new();
            // One byte more than may be: then the platform says so.
            let limit = u64::try_from(MAX_VALUE).unwrap_or(u64::MAX) + 1;
            let read = std::io::stdin().lock().take(limit).read_to_end(&mut value);
            read.map_err(|error| Failure::new(format!("standard input: {error}")))?;
            value
        }
        value => value.to_vec(),
    };
    Ok((name.to_string(), Value::of(&value)))
}

fn list(target: &Target, path: &str, values: bool) -> Done {
    let query = if values { "?values=true" } else { "" };
    let config: ApiConfig = target.client.get(&format!("{path}{query}"))?;
    if target.json {
        return Ok(json(&config)?.into_bytes());
    }
    if config.variables.is_empty() {
        return Ok(b"No config variables. Set one: tolv config set NAME=VALUE\n".to_vec());
    }
    let row = |(name, variable): (&String, &Variable)| {
        let value = match (&variable.value, variable.secret) {
            (_, true) => "(secret)".to_owned(),
            (Some(value), _) => {
                let bytes = value.to_bytes().unwrap_or_default();
                String::from_utf8_lossy(&bytes).into_owned()
            }
            (None, _) => String::new(),
        };
        let name = match variable.build {
            true => format!("{name} (builds too)"),
            false => name.clone(),
        };
        vec![name, value]
    };
    let rows: Vec<_> = config.variables.iter().map(row).collect();
    let heads: &[&str] = if values { &["NAME", "VALUE"] } else { &["NAME"] };
    Ok(table(heads, &rows).into_bytes())
}

fn change(target: &Target, path: &str, change: &ConfigChange) -> Done {
    let changed: ConfigChanged = target.client.send("PATCH", path, change)?;
    let names: Vec<_> = change.set.keys().chain(&change.unset).cloned().collect();
    let names = names.join(", ");
    let Some(operation) = changed.operation else {
        return match target.json {
            true => Ok(json(&changed)?.into_bytes()),
            false => Ok(format!("Changed {names}: the first release gets it.\n").into_bytes()),
        };
    };
    let operation = follow::finish(target, operation)?;
    if target.json {
        return Ok(json(&operation)?.into_bytes());
    }
    let number = operation.release.unwrap_or_default();
    let mut note = stopped_note(target)?.to_owned();
    if change.build {
        note.push_str("; builds get it from the next one on");
    }
    Ok(format!("Changed {names}: {} is at v{number}{note}\n", operation.deploy).into_bytes())
}

fn export(target: &Target, path: &str) -> Done {
    let config: ApiConfig = target.client.get(&format!("{path}?values=true"))?;
    let mut text = Vec::new();
    for (name, variable) in &config.variables {
        let name = named(name)?;
        match &variable.value {
            Some(value) => dotenv::write(&name, &value.to_bytes().unwrap_or_default(), &mut text),
            None => text.extend(format!("# {name} is a secret\n").bytes()),
        }
    }
    Ok(text)
}
