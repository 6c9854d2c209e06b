//! The project's chores, in Rust: `cargo xtask help` lists them.
//!
//! Nothing here is part of the product. A chore prints each step's name before it runs and its
//! time after, and ends at the first step that fails.

mod bench;
mod dist;
mod needs;
mod steps;
mod tidy;

use std::path::Path;
use std::process::{Command, ExitCode};

use steps::{Failure, Steps, say};

/// What every cargo call builds: one set, so that nothing is compiled twice.
const EVERYTHING: [&str; 2] = ["--workspace", "--all-targets"];

/// What `cargo run` says of xtask in the environment and build scripts look at: with it, and then
/// without, half of the dependencies would be compiled again.
const OF_XTASK: [&str; 6] = [
    "CARGO_MANIFEST_DIR",
    "CARGO_PKG_NAME",
    "CARGO_PKG_VERSION_MAJOR",
    "CARGO_PKG_VERSION_MINOR",
    "CARGO_PKG_VERSION_PATCH",
    "CARGO_PKG_VERSION_PRE",
];

/// The chores: name, what it does.
const CHORES: &[(&str, &str)] = &[
    ("test", "everything a change must pass: tools, format, tidy, clippy, docs, tests"),
    ("needs", "install the Debian packages that the tests use and this machine lacks"),
    ("tidy", "the project's own rules: dependency table, file length, docs' commands"),
    ("deny", "licences, advisories and sources of the dependencies (needs cargo-deny)"),
    (
        "bench",
        "measure against peers, in ratios: cargo xtask bench [processes|logs|rebuild|serve]…",
    ),
    ("dist", "one static, stripped binary to copy to a server, and its size"),
    ("help", "this list"),
];

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let chore = args.next().unwrap_or_else(|| "help".to_owned());
    let rest: Vec<String> = args.collect();
    let mut steps = Steps::start();
    let result = match (chore.as_str(), rest.as_slice()) {
        ("test", []) => test(&mut steps),
        ("needs", []) => steps.run("tools", needs::provide),
        ("tidy", []) => steps.run("tidy", || tidy::check(root())),
        ("deny", []) => steps.run("deny", || run(cargo().args(["deny", "check"]))),
        ("dist", []) => dist::dist(&mut steps),
        ("bench", names) => bench::run(&mut steps, names),
        ("help" | "--help" | "-h", _) => {
            say(&help());
            return ExitCode::SUCCESS;
        }
        _ => {
            say(&format!("no such chore: {chore} {}\n\n{}", rest.join(" "), help()));
            return ExitCode::from(2);
        }
    };
    steps.finish(result)
}

/// Cheapest first, so that what is quick to say is said soon.
fn test(steps: &mut Steps) -> Result<(), Failure> {
    steps.run("tools", needs::provide)?;
    steps.run("format", || run(cargo().args(["fmt", "--all", "--check"])))?;
    steps.run("tidy", || tidy::check(root()))?;
    steps.run("clippy", || {
        run(cargo().arg("clippy").args(EVERYTHING).args(["--quiet", "--", "-D", "warnings"]))
    })?;
    steps.run("docs", || {
        run(cargo()
            .args(["doc", "--no-deps", "--workspace", "--quiet"])
            .env("RUSTDOCFLAGS", "-D warnings"))
    })?;
    let nextest = needs::succeeds("cargo", &["nextest", "--version"]);
    steps.run(if nextest { "tests (cargo nextest)" } else { "tests (cargo test)" }, || {
        let runner: &[&str] = if nextest { &["nextest", "run"] } else { &["test"] };
        run(cargo().args(runner).args(EVERYTHING))
    })
}

/// The repository's root.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

fn cargo() -> Command {
    let mut command = Command::new("cargo");
    command.current_dir(root());
    for name in OF_XTASK {
        command.env_remove(name);
    }
    command
}

/// Runs a command to its end, its output going where ours goes.
fn run(command: &mut Command) -> Result<(), Failure> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words = words.join(" ");
    say(&format!("  $ {words}"));
    let status =
        command.status().map_err(|error| Failure(format!("`{words}` did not start: {error}")))?;
    if status.success() { Ok(()) } else { Err(Failure(format!("`{words}` failed ({status})"))) }
}

fn help() -> String {
    let mut text = "Chores, as in `cargo xtask test`:\n".to_owned();
    for (name, what) in CHORES {
        text.push_str("  ");
        text.push_str(name);
        text.push_str(&" ".repeat(8_usize.saturating_sub(name.len())));
        text.push_str(what);
        text.push('\n');
    }
    text
}
