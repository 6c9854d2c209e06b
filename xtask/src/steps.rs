//! Named, timed steps; the first failure is the last step.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Why a step failed, for a person.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self(error.to_string())
    }
}

/// The steps that ran, with their times.
pub(crate) struct Steps {
    done: Vec<(String, Duration, bool)>,
    start: Instant,
}

impl Steps {
    pub(crate) fn start() -> Self {
        Self { done: Vec::new(), start: Instant::now() }
    }

    /// Runs one step: its name before, its time after.
    pub(crate) fn run(
        &mut self,
        name: &str,
        step: impl FnOnce() -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        say(&format!("== {name}"));
        let start = Instant::now();
        let result = step();
        let took = start.elapsed();
        let word = if result.is_ok() { "ok" } else { "FAILED" };
        say(&format!("== {name}: {word}, {:.1} s", took.as_secs_f64()));
        self.done.push((name.to_owned(), took, result.is_ok()));
        result
    }

    /// Says how it went and gives the exit code.
    pub(crate) fn finish(self, result: Result<(), Failure>) -> ExitCode {
        if self.done.len() > 1 {
            say("");
            for (name, took, ok) in &self.done {
                let word = if *ok { "ok" } else { "FAILED" };
                say(&format!("{:>8.1} s  {name}: {word}", took.as_secs_f64()));
            }
            say(&format!("{:>8.1} s  in all", self.start.elapsed().as_secs_f64()));
        }
        match result {
            Ok(()) => ExitCode::SUCCESS,
            Err(Failure(text)) => {
                say(&format!("\nfailed: {text}"));
                ExitCode::FAILURE
            }
        }
    }
}

/// Prints a line. A closed pipe is not an error of ours: the exit code still tells.
pub(crate) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if writeln!(out, "{line}").and_then(|()| out.flush()).is_err() {}
}
