//! Heroku's runtime metrics: a line a process every 20 seconds, in the log of a deploy that asks
//! for it with the config variable `LOG_RUNTIME_METRICS`. Nobody wakes up where none does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tolv_logs::Line;
use tolv_model::env::Env;
use tolv_run::{Processes, Usage};

use crate::controller::Controller;

/// Between two lines of a process.
const EVERY: Duration = Duration::from_secs(20);
/// The variable that asks for it.
const VARIABLE: &str = "LOG_RUNTIME_METRICS";
/// The three averages' windows.
const WINDOWS: [Duration; 3] =
    [Duration::from_secs(60), Duration::from_secs(300), Duration::from_secs(900)];

/// Whether a deploy's config asks for it: set, and neither empty, `0` nor `false`.
pub(crate) fn asks(config: &Env) -> bool {
    config
        .get(VARIABLE)
        .is_some_and(|value| !matches!(value.as_bytes(), b"" | b"0" | b"false" | b"off"))
}

/// Averages of how many threads run, each damped by its window.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Load([f64; 3]);

impl Load {
    fn then(self, busy: u64) -> Self {
        let busy = f64::from(u32::try_from(busy).unwrap_or(u32::MAX));
        let mut next = self.0;
        for (average, window) in next.iter_mut().zip(WINDOWS) {
            let old = (-EVERY.as_secs_f64() / window.as_secs_f64()).exp();
            *average = *average * old + busy * (1.0 - old);
        }
        Self(next)
    }
}

fn lines(process: &str, dyno: &str, load: Load, usage: &Usage) -> [String; 2] {
    let megabytes = |bytes: u64| {
        #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
        let bytes = bytes as f64;
        bytes / f64::from(1 << 20)
    };
    let [one, five, fifteen] = load.0;
    let head = format!("source={process} dyno={dyno}");
    [
        format!(
            "{head} sample#load_avg_1m={one:.2} sample#load_avg_5m={five:.2} \
             sample#load_avg_15m={fifteen:.2}"
        ),
        format!(
            "{head} sample#memory_total={:.2}MB sample#memory_rss={:.2}MB \
             sample#memory_swap={:.2}MB",
            megabytes(usage.resident + usage.swapped),
            megabytes(usage.resident),
            megabytes(usage.swapped)
        ),
    ]
}

/// Writes the lines of a deploy while it asks for them.
pub(crate) async fn follow(controller: Arc<Controller>, mut asked: watch::Receiver<bool>) {
    let ended = controller.ended.clone();
    let follow = async {
        while asked.wait_for(|asked| *asked).await.is_ok() {
            tokio::select! {
                () = write(&controller) => {}
                over = asked.wait_for(|asked| !asked) => if over.is_err() { return },
            }
        }
    };
    ended.run_until_cancelled(follow).await;
}

async fn write(controller: &Controller) {
    let mut loads = HashMap::<u64, Load>::new();
    let mut every = interval(EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        every.tick().await;
        let endpoints = controller.endpoints().processes;
        let read = tokio::task::spawn_blocking(move || {
            let processes = Processes::read();
            let usage = |pid: Option<i32>| pid.and_then(|pid| processes.usage(pid));
            endpoints.into_iter().map(|one| (usage(one.pid), one)).collect::<Vec<_>>()
        });
        let mut next = HashMap::new();
        let mut said = Vec::new();
        for (usage, endpoint) in read.await.unwrap_or_default() {
            let Some(usage) = usage else { continue };
            let load = loads.get(&endpoint.id).copied().unwrap_or_default().then(usage.busy);
            next.insert(endpoint.id, load);
            let process = endpoint.process.to_string();
            let dyno = format!("{}.{}", controller.place.id, endpoint.id);
            for text in lines(&process, &dyno, load, &usage) {
                let line = Line::tolv(process.as_str(), text);
                said.push(line.of_release(endpoint.release.0));
            }
        }
        loads = next;
        controller.engine.say(&said);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_herokus() {
        let usage = Usage { resident: 22 << 20, swapped: 1 << 19, ..Usage::default() };
        let load = Load([2.461, 1.0, 0.5]);
        assert_eq!(
            lines("web.1", "dep.7", load, &usage),
            [
                "source=web.1 dyno=dep.7 sample#load_avg_1m=2.46 sample#load_avg_5m=1.00 \
                 sample#load_avg_15m=0.50",
                "source=web.1 dyno=dep.7 sample#memory_total=22.50MB sample#memory_rss=22.00MB \
                 sample#memory_swap=0.50MB"
            ]
        );
    }

    #[test]
    fn a_load_comes_near_to_what_goes_on() {
        let hour = (0..180).fold(Load::default(), |load, _| load.then(3));
        assert!(hour.0.iter().all(|average| (average - 3.0).abs() < 0.06), "{hour:?}");
        let first = Load::default().then(1);
        assert!(first.0[0] > first.0[1] && first.0[1] > first.0[2], "{first:?}");
    }

    #[test]
    fn it_is_asked_for_by_a_value() {
        let config = |value: &str| {
            let mut config = Env::default();
            config.set(VARIABLE.parse().unwrap(), value).unwrap();
            config
        };
        assert!(!asks(&Env::default()));
        assert!(asks(&config("1")) && asks(&config("true")));
        assert!(!asks(&config("")) && !asks(&config("0")) && !asks(&config("false")));
    }
}
