//! What the machine gives: disk, descriptors, threads, the spawner, isolation.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use tolv_sandbox::{Cgroups, NetworkChoice, RulesState};

use super::super::super::budget::MIN_FREE_FOR_RECORDS;
use super::super::{Facts, ThreadLimit, Used};
use super::text::{bytes, count, duration, not_known, why};
use super::{Check, Health, check};

/// With less free space than this many halves of what is kept free.
const DISK_WARNING_HALVES: u64 = 3;
/// Of descriptors and threads that are in use, in percent.
const WARN_AT: u64 = 80;
const FAIL_AT: u64 = 95;
/// For a spawner that was replaced to be news.
pub(super) const RECENTLY: Duration = Duration::from_secs(600);

pub(super) fn disk(facts: &Facts) -> Check {
    let (home, min_free) = (&facts.home, facts.min_free);
    let judged = match &facts.disk {
        Err(unknown) => (Health::Fail, format!("the disk of {home} {}", why(unknown))),
        Ok(disk) => {
            let [free, size, kept] = [disk.free, disk.size, min_free].map(bytes);
            let mut text = format!("{free} free of {size}, {kept} kept free, state in {home}");
            let health = if disk.is_read_only {
                text.push_str("; it is read-only");
                Health::Fail
            } else if disk.files > 0 && disk.free_files == 0 {
                text.push_str("; it has no room for another file; pushes and changes are refused");
                Health::Fail
            } else if let Some(why) = &disk.unwritable {
                write!(text, "; nothing can be written to it: {why}").ok();
                Health::Fail
            } else if disk.free < min_free.max(MIN_FREE_FOR_RECORDS) {
                text.push_str("; pushes and changes are refused");
                Health::Fail
            } else if disk.files > 0 && disk.free_files < disk.files / 50 {
                let left = count(disk.free_files, "more file");
                write!(text, "; it has room for {left}").ok();
                Health::Warn
            } else if disk.free < min_free.saturating_mul(DISK_WARNING_HALVES) / 2 {
                Health::Warn
            } else {
                Health::Ok
            };
            (health, text)
        }
    };
    let disk = facts.disk.as_ref().ok();
    let bounded = disk.filter(|disk| disk.files > 0);
    let values = json!({
        "folder": home,
        "size_bytes": disk.map(|disk| disk.size),
        "free_bytes": disk.map(|disk| disk.free),
        "min_free_bytes": min_free,
        "files": bounded.map(|disk| disk.files),
        "free_files": bounded.map(|disk| disk.free_files),
        "read_only": disk.map(|disk| disk.is_read_only),
        "writable": disk.map(|disk| !disk.is_read_only && disk.unwritable.is_none()),
    });
    check("disk", judged, values)
}

/// By how much of something is in use.
pub(super) fn filled(used: Used) -> Health {
    match used.now.saturating_mul(100) / used.most.max(1) {
        FAIL_AT.. => Health::Fail,
        WARN_AT.. => Health::Warn,
        _ => Health::Ok,
    }
}

pub(super) fn descriptors(facts: &Facts) -> Check {
    match &facts.machine {
        Err(unknown) => check("descriptors", not_known(unknown), Value::Null),
        Ok(machine) => {
            let found = machine.descriptors;
            let text = format!(
                "{} open, soft limit {}, hard limit {}",
                found.open, found.soft, found.hard
            );
            let values =
                json!({ "open": found.open, "soft_limit": found.soft, "hard_limit": found.hard });
            let used = Used { now: found.open, most: found.soft };
            check("descriptors", (filled(used), text), values)
        }
    }
}

pub(super) fn threads(facts: &Facts) -> Check {
    let limits = match &facts.machine {
        Err(unknown) => return check("threads", not_known(unknown), Value::Null),
        Ok(machine) => &machine.thread_limits,
    };
    let Some(tightest) = limits.first() else {
        let text = "the system does not say how many there may be".to_owned();
        return check("threads", (Health::Warn, text), Value::Null);
    };
    let ThreadLimit { whose, now, most } = tightest;
    let text = format!("{whose} has {now} of {most} threads and processes");
    let values = json!({ "limit": whose, "now": now, "most": most });
    check("threads", (filled(Used { now: *now, most: *most }), text), values)
}

pub(super) fn spawner(facts: &Facts) -> Check {
    let machine = match &facts.machine {
        Err(unknown) => return check("spawner", not_known(unknown), Value::Null),
        Ok(machine) => machine,
    };
    let found = machine.spawner;
    let (pid, replacements) = (found.pid, found.replacements);
    let launched = count(found.launches, "launch");
    let judged = match found.uptime {
        _ if machine.is_spawner_stopped => {
            (Health::Fail, format!("pid {pid} was stopped by a signal: nothing can be started"))
        }
        _ if matches!(machine.spawner_silence, Ok(Some(_))) => {
            let silence = machine.spawner_silence.as_ref().ok().copied().flatten();
            let silence = duration(silence.unwrap_or_default());
            let text = format!("pid {pid} has not answered for {silence}: nothing can be started");
            (Health::Fail, text)
        }
        None => (Health::Fail, "is being replaced: nothing can be started".to_owned()),
        Some(_) if !found.is_running => {
            (Health::Fail, format!("pid {pid} has ended: nothing can be started"))
        }
        Some(uptime) => {
            let mut text = format!("pid {pid}, up {}, {launched}", duration(uptime));
            if found.failed_launches > 0 {
                write!(text, " ({} failed)", found.failed_launches).ok();
            }
            if let Some(sandboxes) = machine.sandboxes {
                write!(text, ", {}", count(sandboxes, "sandbox")).ok();
            }
            if replacements > 0 {
                write!(text, ", replaced {}", count(replacements, "time")).ok();
            }
            if let Err(error) = &machine.spawner_silence {
                write!(text, "; whether it answers is not known: {error}").ok();
            }
            let is_news = replacements > 0 && uptime < RECENTLY;
            let warns = is_news || machine.spawner_silence.is_err();
            (if warns { Health::Warn } else { Health::Ok }, text)
        }
    };
    let values = json!({
        "pid": pid,
        "running": found.is_running && !machine.is_spawner_stopped,
        "answers": machine.is_spawner_up(),
        "uptime_seconds": found.uptime.map(|uptime| uptime.as_secs()),
        "replacements": replacements,
        "launches": found.launches,
        "failed_launches": found.failed_launches,
        "sandboxes": machine.sandboxes,
    });
    check("spawner", judged, values)
}

pub(super) fn sandbox(facts: &Facts) -> Check {
    let (level, missing) = (facts.level, &facts.missing);
    let text = match missing.as_slice() {
        [] => format!("level {level}"),
        missing => format!("level {level}, without: {}", missing.join("; ")),
    };
    // Who names a level wants what it gives and no more.
    let health = match missing.is_empty() || facts.is_level_chosen {
        true => Health::Ok,
        false => Health::Warn,
    };
    check("sandbox", (health, text), json!({ "level": level.as_str(), "missing": missing }))
}

pub(super) fn cgroups(facts: &Facts) -> Check {
    let found = &facts.cgroups;
    let lacking: Vec<_> = ["memory", "pids", "cpu"]
        .into_iter()
        .filter(|name| found.controllers.iter().all(|have| have != name))
        .collect();
    let mut text = match found.controllers.as_slice() {
        [] => format!("{}, no limits", found.kind.as_str()),
        names => format!("{}, limits on {}", found.kind.as_str(), names.join(", ")),
    };
    if !lacking.is_empty() && found.kind != Cgroups::None {
        write!(text, ", none on {}", lacking.join(", ")).ok();
    }
    let health = if lacking.is_empty() { Health::Ok } else { Health::Warn };
    let values = json!({
        "version": found.kind.as_str(),
        "controllers": found.controllers,
        "kill": found.kill,
    });
    check("cgroups", (health, text), values)
}

pub(super) fn network(facts: &Facts) -> Check {
    if let Some(reason) = &facts.no_network {
        let text = match facts.network_choice {
            NetworkChoice::Machine => {
                "processes share the machine's, as TOLV_NETWORK says".to_owned()
            }
            NetworkChoice::Auto | NetworkChoice::Own => {
                format!("processes share the machine's: {reason}")
            }
        };
        return check("network", (Health::Ok, text), json!({ "own": false }));
    }
    let own = "each process has its own";
    let rules = facts.machine.as_ref().map(|machine| machine.rules.as_ref());
    let is_shut = facts.machine.as_ref().is_ok_and(super::super::Machine::is_spawner_up);
    // The spawner shuts the apps' networks; without it nobody does.
    let meanwhile = match is_shut {
        true => "apps are cut off from every network until they are, and none starts",
        false => "and no spawner is there to load them: apps reach the machine",
    };
    let (judged, state) = match rules {
        Err(unknown) => (not_known(unknown), None),
        Ok(Some(Ok(RulesState::Loaded))) => {
            ((Health::Ok, format!("{own}; the packet rules are loaded")), Some("loaded"))
        }
        Ok(Some(Ok(RulesState::Dormant))) => {
            let text = format!("{own}; the packet rules are not in force: {meanwhile}");
            ((Health::Fail, text), Some("dormant"))
        }
        Ok(Some(Ok(RulesState::Missing))) => {
            let text = format!("{own}; the packet rules are not loaded: {meanwhile}");
            ((Health::Fail, text), Some("missing"))
        }
        Ok(Some(Err(error))) => {
            let text = format!("{own}; whether the packet rules are loaded is not known: {error}");
            ((Health::Warn, text), None)
        }
        Ok(None) => ((Health::Ok, own.to_owned()), None),
    };
    check("network", judged, json!({ "own": true, "rules": state }))
}
