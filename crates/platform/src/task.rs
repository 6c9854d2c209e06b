//! Tasks that a panic does not end: a deploy without its task would answer no command, and hold up the
//! end of the platform.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

/// Before a task is started again.
const PAUSE: Duration = Duration::from_secs(1);

/// Does what `start` gives, again after every panic, of which `say` is told each time.
pub(super) async fn survive<F>(
    mut start: impl FnMut() -> F + Send + 'static,
    mut say: impl FnMut(String) + Send + 'static,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut task = JoinSet::new();
    loop {
        task.spawn(start());
        match task.join_next().await {
            Some(Err(error)) if error.is_panic() => {
                let panic = error.into_panic();
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                say(format!("Fault: a task has panicked: {}", text.unwrap_or("without a word")));
            }
            _ => return,
        }
        sleep(PAUSE).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_panics_is_started_again_until_it_ends() {
        let said = Arc::new(Mutex::new(Vec::new()));
        let (mut runs, told) = (0, Arc::clone(&said));
        let start = move || {
            runs += 1;
            let run = runs;
            async move { assert!(run == 3, "run {run}") }
        };
        survive(start, move |text| told.lock().unwrap().push(text)).await;
        let expected = ["run 1", "run 2"].map(|run| format!("Fault: a task has panicked: {run}"));
        assert_eq!(*said.lock().unwrap(), expected);
    }
}
