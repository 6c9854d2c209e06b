//! The benches: a release build, the peers, then one Python program for each.

use std::path::Path;
use std::process::Command;

use crate::needs;
use crate::steps::{Failure, Steps};

/// Peer from PyPI; the other comes from Debian.
const HONCHO: &str = "honcho==2.0.0";

const ALL: [&str; 7] = ["processes", "logs", "drains", "rebuild", "serve", "neighbour", "drill"];

/// Runs the named benches, or all.
pub(crate) fn run(steps: &mut Steps, names: &[String]) -> Result<(), Failure> {
    if let Some(name) = names.iter().find(|name| !ALL.contains(&name.as_str())) {
        return Err(Failure(format!("no bench `{name}`; there are {}", ALL.join(", "))));
    }
    let folder = crate::root().join("target/bench");
    steps.run("tools", needs::provide)?;
    steps.run("peers", || peers(&folder))?;
    steps.run("release build", || {
        crate::run(crate::cargo().args(["build", "--release", "--package", "tolv"]))
    })?;
    for name in ALL.iter().filter(|name| names.is_empty() || names.iter().any(|n| n == *name)) {
        steps.run(name, || {
            crate::run(
                Command::new("python3")
                    .arg(crate::root().join("bench").join(format!("{name}.py")))
                    .arg("--tolv")
                    .arg(crate::root().join("target/release/tolv"))
                    .arg("--peers")
                    .arg(folder.join("venv/bin")),
            )
        })?;
    }
    Ok(())
}

/// Ruby's foreman, s6-log, svlogd from Debian, honcho into an environment of its own; and what ends
/// the apps of the hook that `serve` is measured against.
fn peers(folder: &Path) -> Result<(), Failure> {
    if !needs::succeeds("foreman", &["version"]) {
        needs::install(&["ruby-foreman"])?;
    }
    if !needs::succeeds("sh", &["-c", "command -v s6-log svlogd"]) {
        needs::install(&["s6", "runit"])?;
    }
    if !needs::succeeds("fuser", &["-V"]) {
        needs::install(&["psmisc"])?;
    }
    let venv = folder.join("venv");
    if !venv.join("bin/honcho").exists() {
        std::fs::create_dir_all(folder)?;
        crate::run(Command::new("python3").args(["-m", "venv"]).arg(&venv))?;
        crate::run(Command::new(venv.join("bin/pip")).args(["install", "--quiet", HONCHO]))?;
    }
    Ok(())
}
