//! Drains: where the lines of a deploy go besides.

use std::io::Read as _;

use clap::{Args, Subcommand};
use tolv_api::{Drain, NewDrain, Page};

use super::Done;
use super::args::Which;
use super::failure::Failure;
use super::show::{json, moment, table};
use super::target::Target;
use crate::settings::Settings;

/// Most bytes of an address on standard input; the platform takes fewer.
const LONGEST: u64 = 64 * 1024;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  tolv drains\n  tolv drains add syslog+tls://logs.example.org:6514\n  \
    tolv drains add 'syslog://logs.example.org:514?form=heroku'\n  \
    tolv drains add https://user:password@logs.example.org/in\n  \
    tolv drains add 'otlp+https://otel.example.org/v1/logs?header.x-key=…'\n  \
    tolv drains add - < url.txt\n  tolv drains remove drn_…"
)]
pub(crate) struct Drains {
    #[command(subcommand)]
    pub(crate) command: Option<DrainsCommand>,

    #[command(flatten)]
    pub(crate) which: Which,
}

#[derive(Debug, Subcommand)]
pub(crate) enum DrainsCommand {
    /// Send the lines of the deploy to a receiver too, from now on
    Add {
        /// Where to; `-` takes it from standard input. It is not shown in full again
        url: String,
    },
    /// End a drain
    Remove {
        /// Its id
        id: String,
    },
}

pub(super) fn drains(args: Drains, settings: &Settings) -> Done {
    let target = Target::of_deploy(&args.which, settings)?;
    let path = format!("{}/drains", target.path()?);
    match args.command {
        None => {
            let page: Page<Drain> = target.client.get(&path)?;
            if target.json {
                return Ok(json(&page)?.into_bytes());
            }
            if page.items.is_empty() {
                return Ok(b"No drains. Add one: tolv drains add URL\n".to_vec());
            }
            let rows: Vec<_> = page.items.iter().map(row).collect();
            let heads =
                ["DRAIN", "STATE", "SENT", "RETRIED", "DROPPED", "BEHIND", "TO", "LAST ERROR"];
            Ok(table(&heads, &rows).into_bytes())
        }
        Some(DrainsCommand::Add { url }) => {
            let url = if url == "-" { read()? } else { url };
            let made: Drain = target.client.send("POST", &path, &NewDrain { url })?;
            if target.json {
                return Ok(json(&made)?.into_bytes());
            }
            Ok(format!("{} sends to {}\n", made.id, made.url).into_bytes())
        }
        Some(DrainsCommand::Remove { id }) => {
            // A path of the API is made of it.
            let id: tolv_model::id::DrainId = id
                .parse()
                .map_err(|error: tolv_model::id::IdError| Failure::new(error.to_string()))?;
            target.client.delete::<()>(&format!("{path}/{id}"))?;
            if target.json {
                return Ok(b"null\n".to_vec());
            }
            Ok(format!("{id} is removed.\n").into_bytes())
        }
    }
}

fn read() -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::io::stdin().lock().take(LONGEST).read_to_string(&mut text);
    read.map_err(|error| Failure::new(format!("standard input: {error}")))?;
    Ok(text.trim().to_owned())
}

fn row(drain: &Drain) -> Vec<String> {
    let error = match (&drain.error, drain.error_at) {
        (Some(error), Some(at)) => format!("{} ({})", error, moment(at)),
        _ => "-".to_owned(),
    };
    vec![
        drain.id.clone(),
        drain.state.clone(),
        drain.sent.to_string(),
        drain.retried.to_string(),
        drain.dropped.to_string(),
        bytes(drain.behind),
        drain.url.clone(),
        error,
    ]
}

fn bytes(count: u64) -> String {
    match count {
        0..1024 => format!("{count} B"),
        1024..1_048_576 => format!("{} KiB", count / 1024),
        _ => format!("{} MiB", count >> 20),
    }
}
