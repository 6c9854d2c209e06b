//! Waiting for something to become true, without a sleep in the test.

use std::panic::Location;
use std::thread;
use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(25);

/// Calls `look` until it gives a value, and gives that value back.
///
/// `look` is always called once more after the deadline, so a test on a loaded machine does not
/// fail for having been asleep. Pauses grow from 1 to 25 ms.
///
/// # Panics
///
/// When `deadline` has passed and `look` still gives nothing; the text names `what` and the
/// place of the call.
#[track_caller]
pub fn poll<T>(deadline: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let over = start.elapsed() >= deadline;
        if let Some(value) = look() {
            return value;
        }
        assert!(!over, "waited {deadline:?} for {what} in vain, at {}", Location::caller());
        thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests;
