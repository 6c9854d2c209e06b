//! `/metrics` as Prometheus meets it, and the lines of Heroku's runtime metrics.

use std::collections::BTreeMap;

use super::*;

/// Each sample with its labels as they are written.
pub(super) fn scraped(shop: &Shop) -> BTreeMap<String, f64> {
    let address: SocketAddr = shop.serve.url().strip_prefix("http://").unwrap().parse().unwrap();
    let bearer = format!("Bearer {}", shop.serve.token());
    let head = format!(
        "GET /metrics HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\nconnection: close\r\n\r\n"
    );
    let answer = {
        use std::io::{Read as _, Write as _};
        let mut stream = std::net::TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream.write_all(head.as_bytes()).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).unwrap();
        http::parse(&answer, false).unwrap()
    };
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    let mut samples = BTreeMap::new();
    let mut typed = String::new();
    for line in answer.text().lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            rest.split_once(' ').unwrap().0.clone_into(&mut typed);
        }
        if line.starts_with('#') {
            continue;
        }
        assert!(line.starts_with(&typed), "{line} stands under {typed}");
        let (name, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}"));
        assert_eq!(samples.insert(name.to_owned(), value), None, "{name} is there twice");
    }
    samples
}

#[test]
fn requests_processes_builds_and_logs_are_measured() {
    let shop = Shop::new("web: python3 server.py\nbusy: python3 busy.py\n", &[]);
    // A child below a shell, which leaves its group, uses memory and time.
    let busy = "import subprocess, sys, time\n\
        code = 'x = bytearray(64 << 20)\\nwhile True: sum(range(100000))'\n\
        child = subprocess.Popen([sys.executable, '-c', code], start_new_session=True)\n\
        child.wait()\n";
    shop.change("busy.py", busy);
    shop.pushed(&["tolv", "main"]);
    for _ in 0..3 {
        shop.text("shop.localhost", "/");
    }
    assert_eq!(shop.get("nobody.localhost", "/").unwrap().status, 421);
    let of = "app=\"shop\",deploy=\"production\"";
    // Lines are counted when the answer has ended, which its reader may see first.
    let samples = poll(SOON, "the requests are counted", || {
        let samples = scraped(&shop);
        (samples[&format!("tolv_router_requests_total{{{of},status=\"2xx\"}}")] == 3.0)
            .then_some(samples)
    });
    let get = |name: &str, labels: &str| {
        let wanted = format!("{name}{{{of}{labels}}}");
        *samples.get(&wanted).unwrap_or_else(|| panic!("{wanted} in {samples:#?}"))
    };
    assert_eq!(get("tolv_router_request_duration_seconds_count", ""), 3.0);
    assert_eq!(get("tolv_router_request_duration_seconds_bucket", ",le=\"+Inf\""), 3.0);
    assert_eq!(get("tolv_router_in_flight", ""), 0.0);
    let others = "tolv_router_requests_total{app=\"\",deploy=\"\",status=\"4xx\"}";
    assert_eq!(samples[others], 1.0);
    let web = ",process=\"web.1\",release=\"v1\"";
    assert_eq!(get("tolv_process_state", &format!("{web},state=\"up\"")), 1.0);
    assert_eq!(get("tolv_process_restarts_total", web), 0.0);
    assert!(get("tolv_process_resident_memory_bytes", web) > f64::from(1 << 20));
    assert!(get("tolv_log_lines_total", ",process=\"web.1\"") >= 1.0);
    assert_eq!(samples["tolv_builds_total{result=\"succeeded\"}"], 1.0);
    assert_eq!(samples["tolv_build_duration_seconds_count"], 1.0);
    assert_eq!((samples["tolv_database_up"], samples["tolv_deploys"]), (1.0, 1.0));
    assert_eq!(samples["tolv_operations{state=\"queued\"}"], 0.0);
    // What a process has below it counts, wherever it went.
    let busy = format!("{{{of},process=\"busy.1\",release=\"v1\"}}");
    poll(SOON, "the child's memory and time", || {
        let samples = scraped(&shop);
        let memory = samples.get(&format!("tolv_process_resident_memory_bytes{busy}"))?;
        let cpu = samples.get(&format!("tolv_process_cpu_seconds_total{busy}"))?;
        (*memory > f64::from(64 << 20) && *cpu > 0.5).then_some(())
    });
    shop.tolv(&["destroy", "shop", "--confirm", "shop"]);
    assert!(!scraped(&shop).keys().any(|name| name.contains("app=\"shop\"")));
}

#[test]
fn a_deploy_that_asks_gets_runtime_metrics_in_its_log() {
    let shop = Shop::new("web: python3 server.py\n", &[]);
    shop.pushed(&["tolv", "main"]);
    assert!(!shop.tolv(&["logs"]).contains("sample#"));
    shop.tolv(&["config", "set", "LOG_RUNTIME_METRICS=1"]);
    poll(SOON, "the lines are in the log", || {
        let log = shop.tolv(&["logs", "--process", "web.1"]);
        let has = |text: &str| {
            log.lines().any(|line| {
                line.contains("tolv[web.1]: source=web.1 dyno=dep_") && line.contains(text)
            })
        };
        (has("sample#load_avg_1m=0.") && has("sample#memory_total=")).then_some(())
    });
    shop.tolv(&["config", "unset", "LOG_RUNTIME_METRICS"]);
}
