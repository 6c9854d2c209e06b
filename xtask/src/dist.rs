//! `cargo xtask dist`: one binary to copy to a server, and its size.
//!
//! Statically linked with the C library of the machine it is built on: nothing of the server's is
//! needed to start it. The names of hosts are then resolved by that library's own files and DNS.

use std::fs;
use std::process::Command;

use crate::steps::{Failure, Steps, say};
use crate::{cargo, root, run};

const TARGET: &str = "x86_64-unknown-linux-gnu";

pub(crate) fn dist(steps: &mut Steps) -> Result<(), Failure> {
    steps.run("build", || {
        run(cargo()
            // Named, so that build scripts and macros are not linked like it.
            .args(["build", "--profile", "dist", "--package", "tolv", "--target", TARGET])
            .env("RUSTFLAGS", "-C target-feature=+crt-static"))
    })?;
    let path = root().join("target").join(TARGET).join("dist/tolv");
    steps.run("check", || {
        let listed = Command::new("ldd").arg(&path).output();
        let listed = listed.map_err(|error| Failure(format!("ldd: {error}")))?;
        let text = [listed.stdout, listed.stderr].concat();
        if !String::from_utf8_lossy(&text).contains("statically linked") {
            return Err(Failure(format!("{} is not statically linked", path.display())));
        }
        run(Command::new(&path).arg("status"))
    })?;
    let meta = fs::metadata(&path);
    let size = meta.map_err(|error| Failure(format!("{}: {error}", path.display())))?.len();
    say(&format!("{}: {}.{} MiB", path.display(), size >> 20, (size >> 10) % 1024 * 10 / 1024));
    Ok(())
}
