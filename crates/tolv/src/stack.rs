//! `tolv stack`: the stacks of this machine, shown and made.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use tolv_build::{Change, Contents, STACKS, Stacks, StateFolder, Version};
use tolv_model::slug::{Digest, short};
use tolv_model::stack::StackName;

use crate::args::{Stack, StackCommand};
use crate::build::Failure;
use crate::output::{self, BuildView};
use crate::settings::Settings;

/// Runs one command; its result goes to standard output, what is told on the way to stderr.
pub(crate) fn stack(args: &Stack, settings: &Settings) -> ExitCode {
    match run(args, settings) {
        Ok(text) => output::print(&text),
        Err(failure) => failure.print(),
    }
}

fn run(args: &Stack, settings: &Settings) -> Result<String, Failure> {
    let state = state(settings);
    let folder = args.stacks.clone().unwrap_or_else(|| state.path().join(STACKS));
    match &args.command {
        StackCommand::List => list(&Stacks::at(&folder), args.json),
        StackCommand::Info { stack, package } => {
            let stacks = Stacks::at(&folder);
            match package {
                Some(program) => package_of(&stacks, program, args.json),
                None => info(&stacks, stack, args.json),
            }
        }
        StackCommand::Make { name } => {
            if args.stacks.is_none() {
                state.claim().map_err(Failure::Folder)?;
            }
            make(&folder, name, args.json)
        }
    }
}

/// The state folder of the codebase's platform where there is one here, else of the machine's.
fn state(settings: &Settings) -> StateFolder {
    let here = settings.home_of(Path::new("."));
    if here.is_usable() { here } else { settings.serve_home() }
}

/// Whether what was typed names this version: `host`, `host@3f9a1c0b42de`, or the digest alone.
fn is_meant(version: &Version, typed: &str) -> bool {
    let digest = version.id.digest().to_string();
    let begins = |text: &str| text.len() >= 6 && digest.starts_with(text);
    match typed.rsplit_once('@') {
        Some((name, start)) => version.id.name.as_str() == name && begins(start),
        None => version.id.name.as_str() == typed || begins(typed),
    }
}

fn contents(stacks: &Stacks, layer: &Digest) -> Contents {
    let none = Contents { packages: Vec::new(), files: 0, size: 0 };
    stacks.contents(layer).unwrap_or(none)
}

fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

fn list(stacks: &Stacks, as_json: bool) -> Result<String, Failure> {
    let versions = stacks.versions().map_err(Failure::Build)?;
    if as_json {
        let all: Vec<_> = versions.iter().map(|version| describe(stacks, version)).collect();
        return Ok(format!("{}\n", serde_json::json!({ "stacks": all })));
    }
    if versions.is_empty() {
        return Ok("No stack is here yet: the first build with TOLV_STACK makes one, or `tolv stack make`\n".into());
    }
    let mut text = String::new();
    let mut newest = BTreeSet::new();
    for version in versions.iter().rev() {
        let mark = if newest.insert(&version.id.name) { "  newest" } else { "" };
        let (run, build) = (contents(stacks, &version.id.run), contents(stacks, &version.id.build));
        writeln!(
            text,
            "{}  {} packages  {} MiB, {} MiB more for builds  {}{mark}",
            version.id,
            run.packages.len(),
            mib(run.size),
            mib(build.size),
            version.source,
        )
        .ok();
    }
    Ok(text)
}

fn describe(stacks: &Stacks, version: &Version) -> serde_json::Value {
    let layer = |layer: &Digest| {
        let held = contents(stacks, layer);
        serde_json::json!({
            "digest": layer, "files": held.files, "bytes": held.size, "packages": held.packages
        })
    };
    serde_json::json!({
        "name": version.id.name,
        "digest": version.id.digest(),
        "source": version.source,
        "made": version.made,
        "run": layer(&version.id.run),
        "build": layer(&version.id.build),
        "left_out": version.left_out,
    })
}

fn info(stacks: &Stacks, typed: &str, as_json: bool) -> Result<String, Failure> {
    let versions = stacks.versions().map_err(Failure::Build)?;
    let Some(version) = versions.iter().rfind(|version| is_meant(version, typed)) else {
        return Err(Failure::Build(tolv_build::Error::Stack {
            problem: format!("no stack `{typed}` is in `{}`", stacks.folder().display()),
            help: "list those that are: tolv stack list".to_owned(),
        }));
    };
    // A machine whose packages cannot be read has none to compare with.
    let changes = stacks.changes(&version.id).unwrap_or_default();
    if as_json {
        let mut described = describe(stacks, version);
        let change = |one: &Change| serde_json::json!({"package": one.package, "from": one.from, "to": one.to});
        described["changes"] = changes.iter().map(change).collect();
        return Ok(format!("{described}\n"));
    }
    let mut text = format!("{}  {}\n", version.id, version.source);
    let views =
        [("every process sees", version.id.run), ("builds see in addition", version.id.build)];
    for (view, layer) in views {
        let held = contents(stacks, &layer);
        let (files, size) = (held.files, mib(held.size));
        writeln!(text, "\nWhat {view}: {files} files, {size} MiB, layer {}", short(&layer)).ok();
        for package in held.packages {
            writeln!(text, "  {} {}", package.name, package.version).ok();
        }
    }
    if !version.left_out.is_empty() {
        let names = version.left_out.join(", ");
        writeln!(text, "\nOn its list and not installed on the machine: {names}").ok();
    }
    if !changes.is_empty() {
        writeln!(text, "\nThe machine has other versions now, which a new version would bring:")
            .ok();
        for Change { package, from, to } in changes {
            let named = |version: Option<String>| version.unwrap_or_else(|| "none".to_owned());
            writeln!(text, "  {package} {} → {}", named(from), named(to)).ok();
        }
    }
    Ok(text)
}

fn package_of(stacks: &Stacks, program: &str, as_json: bool) -> Result<String, Failure> {
    let packages = stacks.packages_of(program).map_err(Failure::Build)?;
    if as_json {
        return Ok(format!("{}\n", serde_json::json!({ "packages": packages })));
    }
    Ok(match packages.is_empty() {
        true => format!("No installed package of this machine has the program {program}\n"),
        false => format!("{}\n", packages.join("\n")),
    })
}

fn make(folder: &Path, name: &StackName, as_json: bool) -> Result<String, Failure> {
    let stacks = Stacks::open(folder).map_err(Failure::Build)?;
    let mut view = BuildView::new();
    let made = stacks
        .make(name, &|| false, &mut |event| {
            view.show(&event, &mut io::stderr()).ok();
        })
        .map_err(Failure::Build)?;
    Ok(match as_json {
        true => format!("{}\n", serde_json::json!({"name": name, "digest": made.id.digest()})),
        false => format!("{}\n", made.id),
    })
}
