//! Threads for work that blocks, kept ready: where the machine has none left, that work goes on.
//!
//! A runtime makes such threads when they are needed and ends them when they were idle for a while. Where
//! none can be made, the work would wait for a thread that never comes.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::spawn_blocking;
use tokio::time::sleep;

/// For a thread to be idle before it ends.
pub const KEEP_ALIVE: Duration = Duration::from_secs(300);
/// All of them are used at least this often.
const USE_INTERVAL: Duration = Duration::from_secs(120);
/// For the last of them to come.
const MEETING_TIMEOUT: Duration = Duration::from_secs(1);

/// Keeps so many threads of this runtime from ending, which has [`KEEP_ALIVE`]. Never returns.
pub async fn keep_threads(count: usize) {
    loop {
        let meeting = Arc::new(Meeting::default());
        let threads: Vec<_> = (0..count)
            .map(|_| {
                let meeting = Arc::clone(&meeting);
                spawn_blocking(move || meeting.wait_for(count))
            })
            .collect();
        for thread in threads {
            // The runtime ends.
            thread.await.ok();
        }
        sleep(USE_INTERVAL).await;
    }
}

/// Where threads wait for each other, so that each of them is there.
#[derive(Default)]
struct Meeting {
    here: Mutex<usize>,
    changed: Condvar,
}

impl Meeting {
    fn wait_for(&self, count: usize) {
        let mut here = self.here.lock().unwrap_or_else(PoisonError::into_inner);
        *here += 1;
        self.changed.notify_all();
        // Some may be busy, and others may not be there to be had.
        let waited = self.changed.wait_timeout_while(here, MEETING_TIMEOUT, |here| *here < count);
        drop(waited);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn as_many_threads_as_asked_for_are_there_at_once() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap();
        runtime.spawn(keep_threads(8));
        let began = Instant::now();
        let alive = || std::fs::read_dir("/proc/self/task").unwrap().count();
        while alive() < 8 {
            assert!(began.elapsed() < Duration::from_secs(10), "{} threads", alive());
            std::thread::yield_now();
        }
        runtime.shutdown_background();
    }
}
