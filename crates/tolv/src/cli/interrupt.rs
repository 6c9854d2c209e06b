//! Ctrl-C while a command waits for a platform: what was asked for goes on there, and the command
//! says so before it ends.

use std::io::{IsTerminal as _, Write as _};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tolv_api::Operation;

use super::failure::Failure;

/// What a shell gives a command that Ctrl-C ended.
const STATUS: u8 = 130;
/// For a last question after Ctrl-C.
const MOMENT: Duration = Duration::from_secs(5);

/// Does something that takes long, in a thread of its own; nothing where Ctrl-C came first. It is
/// then left as it is: the program is about to end.
///
/// Where the signal cannot be waited for, it ends the program at once, as it does by itself.
pub(super) fn unless_interrupted<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Option<T>, Failure> {
    let failed = |error: std::io::Error| Failure::new(format!("a thread cannot start: {error}"));
    let (tell, told) = mpsc::channel();
    if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
        // Waited for from here on, before anything has begun.
        let int = {
            let _in_it = runtime.enter();
            signal(SignalKind::interrupt())
        };
        if let Ok(mut int) = int {
            let tell = tell.clone();
            let wait = move || {
                runtime.block_on(int.recv());
                tell.send(None).ok();
            };
            thread::Builder::new().name("signals".to_owned()).spawn(wait).map_err(failed)?;
        }
    }
    let wait = move || tell.send(Some(work())).ok();
    thread::Builder::new().name("work".to_owned()).spawn(wait).map_err(failed)?;
    let first = told.recv();
    if matches!(first, Ok(None)) {
        line_end();
    }
    Ok(first.unwrap_or(None))
}

/// Ends the line of the `^C` that a terminal shows.
pub(super) fn line_end() {
    if std::io::stderr().is_terminal() {
        writeln!(std::io::stderr()).ok();
    }
}

/// Does something in a thread of its own, for a moment at most: the user wants to be gone.
pub(super) fn at_once<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (tell, told) = mpsc::channel();
    let started = thread::Builder::new().spawn(move || tell.send(work()).ok());
    started.ok().and_then(|_| told.recv_timeout(MOMENT).ok())
}

/// Ctrl-C, and this goes on.
pub(super) fn goes_on(operation: &Operation) -> Failure {
    let Operation { id, kind, deploy, .. } = operation;
    Failure::new(format!("interrupted, but the {kind} of {deploy} goes on"))
        .hint(format!("follow it: tolv operations show {id}; end it: tolv operations cancel {id}"))
        .status(STATUS)
}

/// Ctrl-C, and nothing goes on that is known of.
pub(super) fn nothing_begun(what: &str, hint: String) -> Failure {
    Failure::new(format!("interrupted before {what} began")).hint(hint).status(STATUS)
}
