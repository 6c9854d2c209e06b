//! Each threshold at its edge, without a platform.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tolv_sandbox::{CgroupFacts, Cgroups, Level, NetworkChoice, RulesState, SpawnerFacts};
use tolv_store::{Connections, DatabaseStatus, Holder, OldestOperation};

use super::super::machine::{Descriptors, Disk, Machine};
use super::super::{Facts, LeaseState, ProcessCounts, ThreadLimit, Unknown, Used};
use super::machine::RECENTLY;
use super::*;

fn threads(now: u64, most: u64) -> ThreadLimit {
    ThreadLimit { whose: "the machine".to_owned(), now, most }
}

fn healthy() -> Facts {
    let spawner = SpawnerFacts {
        pid: 77,
        is_running: true,
        uptime: Some(Duration::from_secs(60)),
        replacements: 0,
        launches: 1,
        failed_launches: 0,
    };
    let machine = Machine {
        descriptors: Descriptors { open: 50, soft: 1000, hard: 4096 },
        resident: Some(50 << 20),
        threads: Some(9),
        thread_limits: vec![threads(300, 32_768)],
        spawner,
        is_spawner_stopped: false,
        spawner_silence: Ok(None),
        sandboxes: Some(2),
        rules: Some(Ok(RulesState::Loaded)),
    };
    let names = ["memory", "pids", "cpu"].map(str::to_owned);
    Facts {
        uptime: Duration::from_secs(7300),
        is_ending: false,
        lease: LeaseState::Held(holder()),
        database_kind: "PostgreSQL",
        connections: Connections { open: 2, idle: 1, most: 5 },
        outage: None,
        is_database_disk_at_fault: false,
        database: Ok(DatabaseStatus {
            is_read_only: false,
            response: Duration::from_micros(1300),
            queued: 0,
            running: 0,
            oldest: None,
            forged: Vec::new(),
        }),
        home: "/var/lib/tolv".to_owned(),
        disk: Ok(Disk {
            size: 100 << 30,
            free: 50 << 30,
            files: 1000,
            free_files: 500,
            is_read_only: false,
            unwritable: None,
        }),
        min_free: 512 << 20,
        machine: Ok(machine),
        level: Level::Strict,
        is_level_chosen: false,
        missing: Vec::new(),
        cgroups: CgroupFacts {
            kind: Cgroups::V2,
            controllers: names.to_vec(),
            kill: true,
            bounds: tolv_sandbox::Budget::default(),
            reasons: Vec::new(),
        },
        network_choice: NetworkChoice::Auto,
        no_network: None,
        deploys: 1,
        processes: ProcessCounts { up: 2, shims: 2, ..ProcessCounts::default() },
        drains: 1,
        failing_drains: 0,
        git: Used { now: 1, most: 16 },
        pushes: Used { now: 0, most: 64 },
        lost_repositories: Vec::new(),
        builds: Used { now: 0, most: 2 },
        lines: Used { now: 0, most: 1024 },
        not_started: Vec::new(),
        at_work: Vec::new(),
        panics: 0,
        panicked: Vec::new(),
    }
}

fn holder() -> Holder {
    let since = Timestamp::from_second(1_795_781_719).unwrap();
    Holder { pid: 4711, host: "moon".to_owned(), since }
}

/// The health and the summary of one check after a change.
fn after(name: &str, change: impl FnOnce(&mut Facts)) -> (Health, String) {
    let mut facts = healthy();
    change(&mut facts);
    let found = checks(&facts).into_iter().find(|check| check.name == name).unwrap();
    (found.health, found.summary)
}

fn health(name: &str, change: impl FnOnce(&mut Facts)) -> Health {
    after(name, change).0
}

#[test]
fn a_platform_that_lacks_nothing_is_ok() {
    let all = checks(&healthy());
    assert_eq!(worst(&all), Health::Ok, "{all:#?}");
    let text = |name: &str| after(name, |_| ()).1;
    assert_eq!(text("lease"), "held by pid 4711 on moon since 2026-11-27T12:15:19Z");
    assert_eq!(text("database"), "PostgreSQL answered in 1.3 ms, 1 of 5 connections in use");
    assert_eq!(text("disk"), "50.0G free of 100.0G, 512M kept free, state in /var/lib/tolv");
    assert_eq!(text("spawner"), "pid 77, up 60 s, 1 launch, 2 sandboxes");
    assert_eq!(text("processes"), "2 shims for 2 processes of 1 deploy: 2 up");
    assert_eq!(text("operations"), "0 queued, 0 running");
    assert_eq!(text("tasks"), "none has panicked");
}

#[test]
fn a_task_that_panicked_is_told_for_a_while_and_fails_until_it_is_started_again() {
    let seconds = Duration::from_secs;
    let panicked = |ago, again| {
        after("tasks", |facts| {
            let name = "the task of shop/production".to_owned();
            let task = Panicked { name, count: 2, text: "no luck".to_owned(), ago, again };
            (facts.panics, facts.panicked) = (3, vec![task]);
        })
    };
    let told = |now| {
        format!("the task of shop/production panicked 2 times, 9 s ago with `no luck`; {now}")
    };
    assert_eq!(panicked(seconds(9), None), (Health::Warn, told("it runs")));
    let again = told("it is started again in 5 s");
    assert_eq!(panicked(seconds(9), Some(seconds(5))), (Health::Fail, again));
    assert_eq!(panicked(RECENTLY, None).0, Health::Ok);
    let (health, text) = after("tasks", |facts| {
        let task = |n: u64| Panicked {
            name: format!("task {n}"),
            count: 1,
            text: "x".to_owned(),
            ago: seconds(n),
            again: (n == 8).then_some(seconds(1)),
        };
        (facts.panics, facts.panicked) = (9, (1..=9).map(task).collect());
    });
    assert_eq!(health, Health::Fail);
    assert!(text.starts_with("task 8 panicked 1 time, 8 s ago"), "{text}");
    assert!(text.ends_with("; and 6 more tasks"), "{text}");
    let ended = after("tasks", |facts| facts.panics = 1);
    assert_eq!(ended, (Health::Ok, "1 panic of tasks that have ended".to_owned()));
}

#[test]
fn what_does_not_hold_is_named_once() {
    let row = "the row of deploy `shop/staging` in the database was changed outside of the platform: \
               host does not match its code";
    let (health, text) = after("proof", |facts| {
        facts.database.as_mut().unwrap().forged = vec![row.to_owned()];
        let other = "the ledger of shop/production is broken".to_owned();
        facts.not_started = vec![
            ("shop/production".parse().unwrap(), other),
            ("shop/staging".parse().unwrap(), row.to_owned()),
        ];
    });
    assert_eq!(health, Health::Warn);
    let said = "nothing of shop/production is started: the ledger of shop/production is broken";
    assert_eq!(text, format!("{row}; {said}"));
    let (health, text) = after("proof", |facts| {
        let rows = (0..9).map(|number| format!("row {number}")).collect();
        facts.database.as_mut().unwrap().forged = rows;
    });
    assert_eq!(health, Health::Warn);
    assert_eq!(text, "row 0; row 1; row 2; row 3; row 4; and 4 more");
    let away = |facts: &mut Facts| facts.database = Err(Unknown::Failed("away".to_owned()));
    assert_eq!(after("proof", away), (Health::Ok, "not known without the database".to_owned()));
}

#[test]
fn bytes_have_few_digits() {
    let shown = [0, 812 << 20, 10_239 << 20, 10 << 30, (11 << 30) + (640 << 20)].map(bytes);
    assert_eq!(shown, ["0M", "812M", "10239M", "10.0G", "11.6G"]);
}

#[test]
fn the_lease_is_held_broken_or_lost() {
    let lease = |lease| health("lease", |facts| facts.lease = lease);
    assert_eq!(lease(LeaseState::Broken(holder())), Health::Fail);
    assert_eq!(lease(LeaseState::NotTaken), Health::Fail);
    assert_eq!(lease(LeaseState::Lost("pid 1".to_owned())), Health::Fail);
    assert_eq!(lease(LeaseState::GivenUp), Health::Warn);
}

#[test]
fn a_database_is_fast_slow_or_silent() {
    let took = |millis| {
        health("database", |facts| {
            facts.database.as_mut().unwrap().response = Duration::from_millis(millis);
        })
    };
    assert_eq!((took(249), took(250)), (Health::Ok, Health::Warn));
    let silent = |facts: &mut Facts| {
        facts.database = Err(Unknown::Silent(Duration::from_secs(9)));
        facts.at_work = vec![("shop/production".parse().unwrap(), "op_1".to_owned())];
    };
    let (health, text) = after("database", silent);
    assert_eq!((health, &*text), (Health::Fail, "PostgreSQL has not answered for 9 s"));
    let (health, text) = after("operations", silent);
    assert_eq!(health, Health::Warn);
    assert!(text.ends_with("1 at work, the oldest is op_1 of shop/production"), "{text}");
}

#[test]
fn a_disk_has_room_little_or_none() {
    const MIB: u64 = 1 << 20;
    let disk = |change: fn(&mut Disk)| health("disk", |facts| change(facts.disk.as_mut().unwrap()));
    assert_eq!(disk(|disk| disk.free = 768 * MIB), Health::Ok);
    assert_eq!(disk(|disk| disk.free = 767 * MIB), Health::Warn);
    assert_eq!(disk(|disk| disk.free = 512 * MIB), Health::Warn);
    assert_eq!(disk(|disk| disk.free = 511 * MIB), Health::Fail);
    assert_eq!(disk(|disk| disk.free_files = 20), Health::Ok);
    assert_eq!(disk(|disk| disk.free_files = 19), Health::Warn);
    assert_eq!(disk(|disk| disk.free_files = 0), Health::Fail);
    assert_eq!(disk(|disk| (disk.files, disk.free_files) = (0, 0)), Health::Ok, "not bounded");
    assert_eq!(disk(|disk| disk.is_read_only = true), Health::Fail);
    let full = health("disk", |facts| {
        (facts.min_free, facts.disk.as_mut().unwrap().free) = (0, 3 * MIB);
    });
    assert_eq!(full, Health::Fail, "without anything to be kept free");
}

#[test]
fn descriptors_and_threads_run_out() {
    let open = |open| {
        health("descriptors", |facts| facts.machine.as_mut().unwrap().descriptors.open = open)
    };
    assert_eq!(
        [799, 800, 949, 950].map(open),
        [Health::Ok, Health::Warn, Health::Warn, Health::Fail]
    );
    let of_threads = |now| {
        health("threads", |facts| {
            facts.machine.as_mut().unwrap().thread_limits = vec![threads(now, 1000)];
        })
    };
    assert_eq!([799, 800, 950].map(of_threads), [Health::Ok, Health::Warn, Health::Fail]);
    let unlimited = health("descriptors", |facts| {
        facts.machine.as_mut().unwrap().descriptors.soft = u64::MAX;
    });
    assert_eq!(unlimited, Health::Ok);
}

#[test]
fn a_spawner_is_replaced_gone_or_stopped() {
    let spawner = |change: fn(&mut Machine)| {
        after("spawner", |facts| change(facts.machine.as_mut().unwrap()))
    };
    let (health, text) = spawner(|machine| {
        (machine.spawner.replacements, machine.spawner.failed_launches) = (2, 1);
    });
    assert_eq!(health, Health::Warn);
    assert_eq!(text, "pid 77, up 60 s, 1 launch (1 failed), 2 sandboxes, replaced 2 times");
    let (health, _) = spawner(|machine| {
        machine.spawner.replacements = 1;
        machine.spawner.uptime = Some(RECENTLY);
    });
    assert_eq!(health, Health::Ok);
    let gone = spawner(|machine| {
        (machine.spawner.is_running, machine.spawner.uptime) = (false, None);
    });
    assert_eq!(gone.0, Health::Fail);
    assert_eq!(spawner(|machine| machine.is_spawner_stopped = true).0, Health::Fail);
    let silent = spawner(|machine| machine.spawner_silence = Ok(Some(Duration::from_secs(3))));
    let told = "pid 77 has not answered for 3 s: nothing can be started";
    assert_eq!(silent, (Health::Fail, told.to_owned()));
    let unknown = spawner(|machine| machine.spawner_silence = Err("no descriptor".to_owned()));
    assert_eq!(unknown.0, Health::Warn);
}

#[test]
fn what_is_missing_is_a_warning_unless_it_was_asked_for() {
    let missing = |is_level_chosen| {
        health("sandbox", |facts| {
            facts.missing = vec!["all apps share one uid".to_owned()];
            facts.is_level_chosen = is_level_chosen;
        })
    };
    assert_eq!((missing(false), missing(true)), (Health::Warn, Health::Ok));
    assert_eq!(health("cgroups", |facts| facts.cgroups.controllers.clear()), Health::Warn);
    let rules =
        |rules| health("network", |facts| facts.machine.as_mut().unwrap().rules = Some(rules));
    assert_eq!(rules(Ok(RulesState::Missing)), Health::Fail);
    assert_eq!(rules(Ok(RulesState::Dormant)), Health::Fail);
    assert_eq!(rules(Err("not permitted".to_owned())), Health::Warn);
    let shared = health("network", |facts| facts.no_network = Some("no nft".to_owned()));
    assert_eq!(shared, Health::Ok);
}

#[test]
fn an_operation_that_does_not_end_is_a_warning() {
    let aged = |minutes| {
        let created = Timestamp::now() - SignedDuration::from_mins(minutes);
        after("operations", |facts| {
            let status = facts.database.as_mut().unwrap();
            status.running = 1;
            status.oldest = Some(OldestOperation {
                id: "op_1".to_owned(),
                deploy: "shop/production".to_owned(),
                kind: "deploy".to_owned(),
                state: "running".to_owned(),
                created,
            });
        })
    };
    let (health, text) = aged(89);
    assert_eq!(health, Health::Ok);
    let oldest = "0 queued, 1 running; the oldest is op_1 of shop/production (deploy, running, ";
    assert_eq!(text, format!("{oldest}89 min old)"));
    assert_eq!(aged(90).0, Health::Warn);
    // The clock was put back.
    assert_eq!(aged(-500), (Health::Ok, format!("{oldest}0 s old)")));
}

#[test]
fn nothing_is_known_of_what_hangs_and_nothing_panics() {
    let mut facts = healthy();
    facts.database = Err(Unknown::Failed("refused".to_owned()));
    facts.disk = Err(Unknown::Silent(Duration::from_millis(700)));
    facts.machine = Err(Unknown::Silent(Duration::from_millis(700)));
    let all = checks(&facts);
    let bad: Vec<_> = all.iter().filter(|check| check.health != Health::Ok).collect();
    let names: Vec<_> = bad.iter().map(|check| check.name).collect();
    let wanted = ["database", "disk", "descriptors", "threads", "spawner", "network", "operations"];
    assert_eq!(names, wanted);
    assert_eq!(worst(&all), Health::Fail);
}
