//! Real sandboxes, at every level that this machine gives.
//!
//! What a level promises is asked of a shell inside it. A level that the machine refuses is
//! skipped by its own reason, which the test prints.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test says what it saw, or fails")]

mod deep;
mod gate;
mod isolation;
mod layer;
mod life;
mod limits;
mod network;
mod probe;
mod relay;
mod stack;

use std::path::{Path, PathBuf};

use tolv_sandbox::{
    Cancel, Error, Exec, ExitStatus, Job, Level, Machine, NetworkChoice, Spawner, Spec, Stream,
};

fn spawner() -> Spawner {
    Spawner::start(Path::new(env!("CARGO_BIN_EXE_sandbox-spawner")), &[]).unwrap()
}

/// The levels that can be had here.
fn levels(spawner: &Spawner) -> Vec<Level> {
    let machine = Machine::probe(spawner, NetworkChoice::Auto).unwrap();
    println!("{}", machine.describe().join("\n"));
    machine.levels.iter().filter(|(_, no)| no.is_none()).map(|(level, _)| *level).collect()
}

fn shell(script: &str) -> Exec {
    Exec {
        argv: vec![b"sh".to_vec(), b"-c".to_vec(), script.as_bytes().to_vec()],
        env: vec![b"PATH=/usr/local/bin:/usr/bin:/bin".to_vec()],
        cwd: PathBuf::from("/"),
    }
}

/// Runs to the end; gives the status and all output.
fn run(spawner: &Spawner, spec: Spec, exec: Exec) -> Result<(ExitStatus, String), Error> {
    let job = Job { spec, exec, time_limit: Some(std::time::Duration::from_secs(60)) };
    let mut output = Vec::new();
    let mut take = |_: Stream, bytes: &[u8]| output.extend_from_slice(bytes);
    let status = tolv_sandbox::run(spawner, &job, &mut take, &Cancel::new().unwrap())?;
    Ok((status, String::from_utf8_lossy(&output).into_owned()))
}

fn output(spawner: &Spawner, spec: Spec, script: &str) -> String {
    let level = spec.level;
    let (status, output) = run(spawner, spec, shell(script)).unwrap();
    assert!(status.success(), "{level}: {status:?}: {output}");
    output.trim_end().to_owned()
}
