//! `tolv lock`: the lock of a codebase is written into it.

use std::fs;
use std::io;
use std::process::ExitCode;

use tolv_build::{LockFile, Source};

use crate::args::Lock;
use crate::build::{Failure, request};
use crate::output::{self, BuildView};
use crate::settings::Settings;

/// Mode of a lock: git keeps no other bit than that of execution.
const MODE: u32 = 0o644;

/// Makes the locks and writes them. What is said on the way goes to stderr, the result to stdout.
pub(crate) fn lock(args: Lock, settings: &Settings) -> ExitCode {
    match run(&args, settings) {
        Ok(locks) => output::print(&if args.json { json(&locks) } else { text(&locks) }),
        Err(failure) => failure.print(),
    }
}

fn run(args: &Lock, settings: &Settings) -> Result<Vec<(LockFile, bool)>, Failure> {
    let source = Source::WorkingTree { dir: args.dir.clone() };
    let request = request(source, &args.dir, &args.sandbox, args.limits.caps(), settings)?;
    let mut view = BuildView::new();
    let locks = tolv_build::lock(&request, args.upgrade, &mut |event| {
        view.show(&event, &mut io::stderr()).ok();
    })
    .map_err(Failure::Build)?;
    let mut written = Vec::new();
    for lock in locks {
        let path = args.dir.join(&lock.path);
        let is_new = fs::read(&path).ok().as_deref() != Some(&lock.bytes[..]);
        if is_new {
            let wrote = tolv_durable::write(&path, &lock.bytes, MODE);
            wrote.map_err(tolv_build::Error::io("write", &path)).map_err(Failure::Build)?;
        }
        written.push((lock, is_new));
    }
    Ok(written)
}

fn text(locks: &[(LockFile, bool)]) -> String {
    let mut lines = Vec::new();
    for (lock, is_new) in locks {
        let packages = match lock.packages.len() {
            1 => "1 package".to_owned(),
            count => format!("{count} packages"),
        };
        let path = &lock.path;
        lines.push(match is_new {
            true => format!("Wrote {path} with {packages}: commit it\n"),
            false => format!("{path} is up to date with {packages}\n"),
        });
        lines.extend(lock.packages.iter().map(|package| format!("  {package}\n")));
    }
    lines.concat()
}

fn json(locks: &[(LockFile, bool)]) -> String {
    let lock = |(lock, written): &(LockFile, bool)| serde_json::json!({"path": lock.path, "written": written, "packages": lock.packages});
    let locks: Vec<_> = locks.iter().map(lock).collect();
    format!("{}\n", serde_json::json!({ "locks": locks }))
}
