//! `tolv status`: what this machine gives to isolate and limit processes, what not, and why.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use tolv_sandbox::{Machine, Spawner};

use crate::args::Status;
use crate::cli::platform;
use crate::output;
use crate::settings::{ITSELF, Settings};

/// Whether the command line, and not only the environment, names a platform.
fn names_server(words: impl Iterator<Item = OsString>) -> bool {
    let mut words = words.take_while(|word| word != "--");
    words.any(|word| {
        let word = word.to_string_lossy();
        word == "--server" || word.starts_with("--server=")
    })
}

/// Probes and prints, or asks a platform.
pub(crate) fn status(args: &Status, settings: &Settings) -> ExitCode {
    // Whoever names a platform asks about that, and not about this machine.
    if args.platform || names_server(std::env::args_os().skip(1)) {
        return platform::status(&args.at, settings);
    }
    let machine = Spawner::start(Path::new(ITSELF), &["spawner"])
        .and_then(|spawner| Machine::probe(&spawner, args.sandbox.network));
    let machine = match machine {
        Ok(machine) => machine,
        Err(error) => return output::fail(&error, None),
    };
    if args.at.json {
        let mut value = match serde_json::to_value(&machine) {
            Ok(value) => value,
            Err(error) => return output::fail(&error, None),
        };
        if let (Some(fields), Ok((level, _))) =
            (value.as_object_mut(), machine.choose(args.sandbox.choice))
        {
            fields.insert("auto".to_owned(), level.as_str().into());
        }
        return output::print(&format!("{value}\n"));
    }
    let mut text = String::new();
    for line in machine.describe() {
        text.push_str(&line);
        text.push('\n');
    }
    match machine.choose(args.sandbox.choice) {
        Ok((level, missing)) => {
            text.push_str(&format_args!("auto      uses {level}\n").to_string());
            for what in missing {
                text.push_str(&format_args!("               without: {what}\n").to_string());
            }
        }
        Err(error) => text.push_str(&format_args!("auto      {error}\n").to_string()),
    }
    output::print(&text)
}
