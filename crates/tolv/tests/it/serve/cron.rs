//! Schedules: what app.json says runs when it says so, once, with the current release.

use rustix::process::Signal;
use serde_json::Value;

use super::*;
use crate::processes_with;

/// For the next full minute to come.
const A_MINUTE: std::time::Duration = std::time::Duration::from_secs(70);

fn scheduled(jobs: &str) -> Shop {
    let shop = Shop::new("web: python3 server.py\n", &[]);
    shop.change("app.json", &format!("{{\"cron\": [{jobs}]}}"));
    shop
}

fn history(shop: &Shop, name: &str) -> Vec<Value> {
    shop.json(&["cron", "history", name])["items"].as_array().unwrap().clone()
}

/// The runs that turned out so.
fn with(shop: &Shop, name: &str, outcome: &str) -> Vec<Value> {
    history(shop, name).into_iter().filter(|run| run["outcome"] == outcome).collect()
}

#[test]
fn they_are_listed_and_run_by_hand() {
    let shop = scheduled(
        r#"{"name": "tidy", "command": "echo tidy $TOLV_PROCESS $TOLV_RELEASE $A", "schedule": "30 4 * * MON", "timezone": "Europe/Oslo"},
           {"command": "echo so much >&2; exit 7", "schedule": "@yearly"},
           {"name": "nobody", "command": "no-such-program", "schedule": "@yearly"},
           {"name": "killed", "command": "kill -9 $$; true", "schedule": "@yearly"}"#,
    );
    let said = shop.pushed(&["tolv", "main"]);
    assert!(
        said.contains("Schedules: tidy (30 4 * * MON, Europe/Oslo), echo-so-much-2-exit-7"),
        "{said}"
    );
    let list = shop.json(&["cron"]);
    let tidy = &list["items"][0];
    assert_eq!((&tidy["name"], &tidy["timezone"]), (&"tidy".into(), &"Europe/Oslo".into()));
    let next: jiff::Timestamp = tidy["next"].as_str().unwrap().parse().unwrap();
    let next = next.in_tz("Europe/Oslo").unwrap();
    assert_eq!(next.strftime("%a %H:%M").to_string(), "Mon 04:30");
    // Its output and its status are the command's.
    let ran = shop.ran(&["cron", "run", "tidy"]);
    assert_eq!(ran.status.code(), Some(0), "{}{}", ran.out, ran.err);
    assert!(ran.out.lines().any(|line| line == "tidy cron-tidy.1 v1"), "{}", ran.out);
    shop.serve.running().wait_for_line(|line| line.contains("tidy cron-tidy.1 v1"), SOON);
    for (name, status) in [("echo-so-much-2-exit-7", 7), ("nobody", 127), ("killed", 137)] {
        assert_eq!(shop.ran(&["cron", "run", name]).status.code(), Some(status), "{name}");
        let run = &history(&shop, name)[0];
        assert_eq!((&run["outcome"], &run["status"]), (&"failed".into(), &status.into()));
        assert_eq!((&run["actor"], &run["tick"]), (&"owner".into(), &Value::Null));
    }
    // It is kept what one wrote.
    let id = history(&shop, "tidy")[0]["id"].as_str().unwrap().to_owned();
    assert!(shop.tolv(&["cron", "output", "tidy", &id]).contains("tidy cron-tidy.1 v1"));
    assert!(shop.tolv(&["audit"]).contains("cron.run"));
    let unknown = shop.ran(&["cron", "run", "nightly"]);
    assert!(unknown.err.contains("no schedule `nightly`; it has `tidy`"), "{}", unknown.err);
    let unknown = shop.ran(&["cron", "history", "nightly"]);
    assert!(unknown.err.contains("no schedule `nightly`; it has `tidy`"), "{}", unknown.err);
    // The release that is current is what runs.
    shop.tolv(&["config", "set", "A=blue"]);
    assert!(shop.tolv(&["cron", "run", "tidy"]).contains("tidy cron-tidy.1 v2 blue"));
    shop.change("app.json", "{}");
    shop.pushed(&["tolv", "main"]);
    assert!(shop.tolv(&["cron"]).contains("No schedules"));
    assert!(!shop.ran(&["cron", "run", "tidy"]).status.success());
    assert_eq!(history(&shop, "tidy").len(), 2, "what was stays known");
    shop.tolv(&["rollback", "v2"]);
    assert!(shop.tolv(&["cron", "run", "tidy"]).contains("tidy cron-tidy.1 v4 blue"));
    shop.tolv(&["stop"]);
    assert_eq!(shop.json(&["cron"])["items"][0]["next"], Value::Null);
}

#[test]
fn what_cannot_be_kept_is_refused_by_the_build() {
    let shop = scheduled(r#"{"command": "true", "schedule": "0 0 30 2 *"}"#);
    let refused = |wanted: &[&str]| {
        let ran = shop.push(&["tolv", "main"]);
        assert!(!ran.status.success(), "{}", ran.err);
        for text in wanted {
            assert!(ran.err.contains(text), "{text} in {}", ran.err);
        }
    };
    refused(&["app.json:1:", "cron[0].schedule", "no day of any year matches it"]);
    shop.change(
        "app.json",
        r#"{"cron": [{"command": "a", "schedule": "@daily", "timezone": "Oslo"}]}"#,
    );
    refused(&["cron[0].timezone", "`Oslo` is no time zone"]);
    let twice = r#"{"name": "a", "command": "a", "schedule": "@daily"}"#;
    shop.change("app.json", &format!("{{\"cron\": [{twice}, {twice}]}}"));
    refused(&["cron[1]", "`a` is there already"]);
}

#[test]
fn runs_at_once_are_allowed_forbidden_or_replace_each_other() {
    let command = "echo begun; while [ ! -e /tmp/never ]; do sleep 0.05; done # ";
    let mark = format!("mark-{}", std::process::id());
    let job = |policy: &str| {
        format!(
            r#"{{"name": "{policy}", "command": "{command}{mark}-{policy}", "schedule": "@yearly", "concurrency_policy": "{policy}"}}"#
        )
    };
    let shop = scheduled(&[job("allow"), job("forbid"), job("replace")].join(", "));
    shop.pushed(&["tolv", "main"]);
    let start = |name: &str| shop.ran(&["cron", "run", "--detach", name]);
    let running = |name: &str, count: usize| {
        poll(SOON, &format!("{count} of {name} run"), || {
            let schedules = shop.json(&["cron"]);
            let all = schedules["items"].as_array().unwrap();
            let one = all.iter().find(|one| one["name"] == name).unwrap();
            (one["going"] == count).then_some(())
        });
    };
    for name in ["allow", "forbid", "replace"] {
        assert!(start(name).status.success());
    }
    assert!(start("allow").status.success());
    running("allow", 2);
    shop.serve
        .running()
        .wait_for_line(|line| line.contains("cron-allow.2") && line.contains("begun"), SOON);
    let refused = start("forbid");
    assert!(!refused.status.success());
    assert!(refused.err.contains("a run of `forbid` goes on"), "{}", refused.err);
    // The old one is gone before the new one begins.
    let replace = format!("{mark}-replace");
    poll(SOON, "the first runs", || (!processes_with(&replace).is_empty()).then_some(()));
    let before = processes_with(&replace);
    assert!(start("replace").status.success());
    poll(SOON, "the second runs alone", || {
        let now = processes_with(&replace);
        (!now.is_empty() && now.iter().all(|pid| !before.contains(pid))).then_some(())
    });
    running("replace", 1);
    let runs = history(&shop, "replace");
    assert_eq!((&runs[0]["outcome"], &runs[1]["outcome"]), (&"running".into(), &"replaced".into()));
    // Destroyed, the deploy leaves none of them.
    shop.tolv(&["destroy", "shop", "--confirm", "shop"]);
    assert!(processes_with(&mark).is_empty());
}

/// Waits for a real minute.
#[test]
fn a_tick_of_the_minute_is_fired_once_whatever_happens() {
    let each = |name: &str, command: &str, policy: &str| {
        format!(
            r#"{{"name": "{name}", "command": "{command}", "schedule": "* * * * *", "concurrency_policy": "{policy}"}}"#
        )
    };
    let long = "echo begun; sleep 600";
    let jobs = [
        each("quick", "echo tick of $TOLV_RELEASE", "allow"),
        each("long", long, "allow"),
        each("held", long, "forbid"),
        each("swapped", long, "replace"),
    ];
    let mut shop = scheduled(&jobs.join(", "));
    shop.pushed(&["tolv", "main"]);
    for name in ["held", "swapped"] {
        shop.tolv(&["cron", "run", "--detach", name]);
    }
    let run = poll(A_MINUTE, "the tick is fired", || with(&shop, "quick", "succeeded").pop());
    let at = |field: &str| run[field].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(at("tick").as_second() % 60, 0);
    assert!(at("created").duration_since(at("tick")).as_secs() < 10, "{run}");
    assert_eq!((&run["actor"], &run["status"]), (&Value::Null, &0.into()));
    shop.serve.running().wait_for_line(|line| line.contains("tick of v1"), SOON);
    poll(SOON, "one is left out", || with(&shop, "held", "skipped").pop());
    poll(SOON, "one is replaced", || with(&shop, "swapped", "replaced").pop());
    let cut = poll(SOON, "the long one runs", || with(&shop, "long", "running").pop());
    // Killed in the middle and started again: what was recorded is not fired again.
    shop.serve.end(Signal::KILL);
    shop.serve.begin();
    let cut = poll(SOON, "it is said that it was cut off", || {
        let failed = with(&shop, "long", "failed");
        failed.into_iter().find(|run| run["id"] == cut["id"])
    });
    assert!(cut["error"].as_str().unwrap().contains("cut off"), "{cut}");
    for name in ["quick", "long", "held", "swapped"] {
        let runs = history(&shop, name);
        let mut ticks: Vec<_> = runs.iter().filter_map(|run| run["tick"].as_str()).collect();
        let count = ticks.len();
        ticks.sort_unstable();
        ticks.dedup();
        assert_eq!(ticks.len(), count, "{name}: {runs:?}");
    }
    shop.tolv(&["stop"]);
}

#[test]
fn after_a_downtime_the_last_tick_is_fired_unless_it_is_too_late() {
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let hours_ago = now.checked_sub(jiff::Span::new().hours(3)).unwrap().hour();
    let mut shop = scheduled(&format!(
        r#"{{"name": "often", "command": "echo late", "schedule": "* * * * *"}},
           {{"name": "daily", "command": "echo never", "schedule": "0 {hours_ago} * * *"}}"#
    ));
    shop.pushed(&["tolv", "main"]);
    shop.serve.end(Signal::INT);
    // As if it had been down since five hours ago.
    let script = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1])\n\
        db.execute('update operations set ended = ended - 5 * 3600 * 1000000')\n\
        db.execute('delete from cron_runs')\n\
        db.commit()\n";
    let database = shop.serve.state().join("db.sqlite");
    let python = run(Command::new("/usr/bin/python3").args(["-c", script]).arg(database));
    assert!(python.status.success(), "{}", python.err);
    shop.serve.begin();
    poll(SOON, "the last tick is fired", || with(&shop, "often", "succeeded").pop());
    let missed = poll(SOON, "the daily one is missed", || with(&shop, "daily", "missed").pop());
    assert_eq!(missed["status"], Value::Null);
    shop.tolv(&["stop"]);
    let runs = history(&shop, "often");
    assert!(runs.len() <= 2, "the last alone, and one more at a full minute: {runs:?}");
    assert_eq!(history(&shop, "daily").len(), 1);
    let lines = shop.serve.running().lines();
    assert!(lines.iter().any(|line| line.text.contains("are passed over")));
    assert!(!lines.iter().any(|line| line.text.ends_with("never")));
}

#[test]
fn a_clock_that_was_put_back_stops_no_schedule_in_silence() {
    // The daily one ran in the time that comes again.
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC);
    let soon = now.checked_add(jiff::Span::new().hours(2)).unwrap();
    let schedule = format!("{} {} * * *", soon.minute(), soon.hour());
    let mut shop = scheduled(&format!(
        r#"{{"name": "often", "command": "echo often again", "schedule": "* * * * *"}},
           {{"name": "daily", "command": "echo never again", "schedule": "{schedule}"}}"#
    ));
    shop.pushed(&["tolv", "main"]);
    for name in ["often", "daily"] {
        shop.tolv(&["cron", "run", name]);
    }
    shop.serve.end(Signal::INT);
    // As if the clock had been put back by two hours and a half after they ran by themselves.
    let tick = soon.with().second(0).subsec_nanosecond(0).build().unwrap().timestamp();
    let script = "import sqlite3, sys\n\
        db = sqlite3.connect(sys.argv[1])\n\
        tick = int(sys.argv[2]) * 1000000\n\
        db.execute(\"delete from cron_runs where tick is not null\")\n\
        db.execute(\"update cron_runs set tick = ? where name = 'daily'\", [tick])\n\
        run = db.execute(\"select id, deploy, release from cron_runs where name = 'often'\").fetchone()\n\
        for minute in range(-115, 25):\n    \
            db.execute(\"insert into cron_runs (id, deploy, name, tick, release, command, outcome, \"\n        \
                \"created, ended) values (?, ?, 'often', ?, ?, 'true', 'succeeded', 1, 1)\", \n        \
                [run[0][:-4] + '%04d' % (1000 + minute), run[1], tick + minute * 60000000, run[2]])\n\
        db.commit()\n";
    let database = shop.serve.state().join("db.sqlite");
    let mut python = Command::new("/usr/bin/python3");
    let python = python.args(["-c", script]).arg(database).arg(tick.as_second().to_string());
    let python = run(python);
    assert!(python.status.success(), "{}", python.err);
    shop.serve.begin();
    for (name, wanted) in [("often", "goes by the clock as it is"), ("daily", "not run again")] {
        shop.serve.running().wait_for_line(
            |line| {
                line.contains(&format!("{name}: the clock was put back")) && line.contains(wanted)
            },
            SOON,
        );
    }
    let list = shop.json(&["cron"]);
    let one = |name: &str| {
        let all = list["items"].as_array().unwrap();
        all.iter().find(|one| one["name"] == name).unwrap().clone()
    };
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let wait = time(&one("often")["next"]).duration_since(jiff::Timestamp::now());
    assert!(wait.as_secs() <= 60, "{list}");
    assert_eq!(time(&one("daily")["next"]), tick + jiff::SignedDuration::from_hours(24), "{list}");
    assert_eq!(time(&one("daily")["fired_until"]), tick);
    assert!(shop.tolv(&["cron"]).contains("daily: the clock was put back; what ran up to"));
    // It happens as it is said.
    poll(A_MINUTE, "its tick is fired", || {
        with(&shop, "often", "succeeded").into_iter().find(|run| !run["tick"].is_null())
    });
    shop.tolv(&["stop"]);
}
