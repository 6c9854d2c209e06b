//! What can be measured of the platform, as Prometheus reads it: collected when it asks.

mod platform;
pub(super) mod samples;
mod text;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tolv_run::{Endpoint, Processes};

pub use self::text::METRICS_TYPE;
use self::text::Text;
use super::controller::Controller;
use super::platform::Platform;
use crate::histogram::Histogram;
use crate::traffic::Requests;

/// Upper edges of how long builds take, in milliseconds.
const BUILDS: [u64; 10] =
    [1000, 2500, 5000, 10_000, 30_000, 60_000, 120_000, 300_000, 600_000, 900_000];

/// What is counted while the platform runs.
pub(super) struct Counters {
    began: Instant,
    builds: Histogram<10>,
    failed_builds: AtomicU64,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            builds: Histogram::new(BUILDS),
            failed_builds: AtomicU64::new(0),
        }
    }
}

impl Counters {
    /// A build is over.
    pub(super) fn built(&self, took: Duration, is_good: bool) {
        self.builds.add(took);
        if !is_good {
            self.failed_builds.fetch_add(1, Relaxed);
        }
    }
}

/// One deploy at the moment.
struct Seen {
    app: String,
    deploy: String,
    controller: Arc<Controller>,
    requests: Option<Arc<Requests>>,
    endpoints: Vec<Endpoint>,
}

impl Seen {
    fn labels(&self) -> [(&'static str, &str); 2] {
        [("app", &self.app), ("deploy", &self.deploy)]
    }

    fn labels_of<'a>(&'a self, name: &'static str, value: &'a str) -> [(&'static str, &'a str); 3] {
        let [app, deploy] = self.labels();
        [app, deploy, (name, value)]
    }
}

impl Platform {
    /// Everything that is measured, in the text format of [`METRICS_TYPE`].
    pub async fn metrics(&self) -> String {
        let mut text = Text::default();
        let controllers: Vec<_> = self.controllers().values().cloned().collect();
        let mut all: Vec<_> = controllers.into_iter().map(|one| self.seen(one)).collect();
        all.sort_by(|a, b| (&a.app, &a.deploy).cmp(&(&b.app, &b.deploy)));
        self.about_platform(&mut text, all.len()).await;
        self.about_requests(&mut text, &all);
        let processes = tokio::task::spawn_blocking(Processes::read).await.unwrap_or_default();
        about_logs(&mut text, &all).await;
        // The rest reads a few files a process.
        let text = tokio::task::spawn_blocking(move || {
            about_processes(&mut text, &all, &processes);
            text.done()
        });
        text.await.unwrap_or_default()
    }

    fn seen(&self, controller: Arc<Controller>) -> Seen {
        let place = &controller.place;
        Seen {
            app: place.path.app.to_string(),
            deploy: place.path.name.to_string(),
            requests: self.0.hosts.traffic().of(&place.host),
            endpoints: controller.endpoints().processes,
            controller,
        }
    }

    async fn about_platform(&self, text: &mut Text, deploys: usize) {
        let (inner, facts) = (&self.0, self.facts().await);
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        text.family("tolv_build_info", "gauge", "The version of the platform.").put(&version, 1);
        text.family("tolv_uptime_seconds", "gauge", "Time since the platform began.")
            .put(&[], inner.counters.began.elapsed().as_secs_f64());
        text.family("tolv_deploys", "gauge", "Deploys that are looked after.")
            .count(&[], deploys as u64);
        platform::about_status(text, &facts);
        let builds = inner.counters.builds.counted();
        let failed = inner.counters.failed_builds.load(Relaxed);
        let mut family = text.family("tolv_builds_total", "counter", "Builds that are over.");
        family.count(&[("result", "succeeded")], builds.count.saturating_sub(failed));
        family.count(&[("result", "failed")], failed);
        text.family("tolv_build_duration_seconds", "histogram", "How long builds took.")
            .histogram(&[], &builds);
    }

    fn about_connections(&self, text: &mut Text) {
        let counts = self.0.router.connections();
        text.family("tolv_router_connections", "gauge", "Connections of clients.")
            .count(&[], counts.open as u64);
        text.family("tolv_router_connections_max", "gauge", "How many of them there may be.")
            .count(&[], counts.max as u64);
        let help = "Connections that were refused, by whose bound was reached.";
        let mut family = text.family("tolv_router_connections_refused_total", "counter", help);
        family.count(&[("bound", "peer")], counts.refused_of_peer);
        family.count(&[("bound", "total")], counts.refused_in_total);
        let help = "Connections without a request that were closed to make room.";
        text.family("tolv_router_connections_evicted_total", "counter", help)
            .count(&[], counts.evicted);
    }

    fn about_requests(&self, text: &mut Text, all: &[Seen]) {
        let routed = || all.iter().filter_map(|seen| Some((seen, seen.requests.as_ref()?)));
        let others = self.0.hosts.traffic().others();
        let mut family =
            text.family("tolv_router_requests_total", "counter", "Requests by class of status.");
        for (seen, requests) in routed() {
            for (class, count) in requests.by_class() {
                family.count(&seen.labels_of("status", &class), count);
            }
        }
        for (class, count) in others.by_class() {
            family.count(&[("app", ""), ("deploy", ""), ("status", &class)], count);
        }
        let mut family =
            text.family("tolv_router_errors_total", "counter", "Requests that failed, by code.");
        for (seen, requests) in routed() {
            for (code, count) in requests.errors() {
                family.count(&seen.labels_of("code", &code.to_string()), count);
            }
        }
        for (code, count) in others.errors() {
            family.count(&[("app", ""), ("deploy", ""), ("code", &code.to_string())], count);
        }
        self.about_connections(text);
        let help = "Time from a request's head to the end of its answer.";
        let mut family = text.family("tolv_router_request_duration_seconds", "histogram", help);
        for (seen, requests) in routed() {
            family.histogram(&seen.labels(), &requests.latency.counted());
        }
        let mut family =
            text.family("tolv_router_response_bytes_total", "counter", "Bytes of bodies sent.");
        for (seen, requests) in routed() {
            family.count(&seen.labels(), requests.bytes.load(Relaxed));
        }
        let mut family =
            text.family("tolv_router_in_flight", "gauge", "Requests that are being answered.");
        for seen in all {
            let in_flight: usize =
                seen.endpoints.iter().map(|one| self.0.hosts.in_flight(one)).sum();
            family.count(&seen.labels(), in_flight as u64);
        }
    }
}

fn about_processes(text: &mut Text, all: &[Seen], processes: &Processes) {
    let mut found = Vec::new();
    for seen in all {
        for endpoint in &seen.endpoints {
            let usage = endpoint.pid.and_then(|pid| processes.usage(pid));
            let name = endpoint.process.to_string();
            found.push((seen, endpoint, name, endpoint.release.to_string(), usage));
        }
    }
    let mut family = text.family(
        "tolv_process_state",
        "gauge",
        "1 for the state that the process is in: starting, up, crashed, complete, stopping or down.",
    );
    for (seen, endpoint, name, release, _) in &found {
        let [app, deploy, process] = seen.labels_of("process", name);
        let state = endpoint.state.to_string();
        family.put(&[app, deploy, process, ("release", release), ("state", &state)], 1);
    }
    let mut family =
        text.family("tolv_process_restarts_total", "counter", "Starts after the first.");
    for (seen, endpoint, name, release, _) in &found {
        let [app, deploy, process] = seen.labels_of("process", name);
        family.count(&[app, deploy, process, ("release", release)], endpoint.restarts.into());
    }
    type Read = fn(&tolv_run::Usage) -> f64;
    #[expect(clippy::cast_precision_loss, reason = "exact to 2^53 bytes")]
    let families: [(&'static str, &str, &str, Read); 5] = [
        (
            "tolv_process_cpu_seconds_total",
            "counter",
            "CPU time of the process and everything below it.",
            |usage| usage.cpu_seconds,
        ),
        (
            "tolv_process_resident_memory_bytes",
            "gauge",
            "Memory of the process and everything below it.",
            |usage| usage.resident as f64,
        ),
        ("tolv_process_swap_bytes", "gauge", "The same, swapped out.", |usage| {
            usage.swapped as f64
        }),
        ("tolv_process_tree_size", "gauge", "How many processes of the system it is.", |usage| {
            usage.processes as f64
        }),
        ("tolv_process_uptime_seconds", "gauge", "Time since it was started last.", |usage| {
            usage.uptime_seconds
        }),
    ];
    for (metric, kind, help, read) in families {
        let mut family = text.family(metric, kind, help);
        for (seen, _, name, release, usage) in &found {
            let [app, deploy, process] = seen.labels_of("process", name);
            if let Some(usage) = usage {
                family.put(&[app, deploy, process, ("release", release)], read(usage));
            }
        }
    }
}

async fn about_logs(text: &mut Text, all: &[Seen]) {
    // All at once: a shim that is stopped does not answer, and is waited for a while.
    let mut asked = JoinSet::new();
    for (place, seen) in all.iter().enumerate() {
        let engine = seen.controller.engine.clone();
        asked.spawn(async move { (place, engine.written().await) });
    }
    let mut written = vec![BTreeMap::new(); all.len()];
    while let Some(answer) = asked.join_next().await {
        if let Ok((place, counts)) = answer {
            written[place] = counts;
        }
    }
    type Read = fn(&tolv_run::Written) -> u64;
    let families: [(&'static str, &str, Read); 3] = [
        ("tolv_log_lines_total", "Lines that were written.", |count| count.written.lines),
        ("tolv_log_bytes_total", "Bytes that were written.", |count| count.written.bytes),
        (
            "tolv_log_lost_lines_total",
            "Lines of them that neither the disk nor the memory took.",
            |count| count.lost.lines,
        ),
    ];
    for (metric, help, read) in families {
        let mut family = text.family(metric, "counter", help);
        for (seen, written) in all.iter().zip(&written) {
            for (process, count) in written {
                family.count(&seen.labels_of("process", process), read(count));
            }
        }
    }
}
