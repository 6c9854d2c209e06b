//! The facts judged: one line each. What an app or a receiver of lines does wrong is shown and not
//! judged.
//! The thresholds are those of docs/operating.md.

mod database;
mod machine;
mod text;

use std::fmt::Write as _;

use serde_json::{Map, Value, json};
pub use tolv_model::status::Health;

use self::database::{database, lease, operations, proof};
use self::machine::{RECENTLY, cgroups, descriptors, disk, network, sandbox, spawner, threads};
use self::text::{bytes, count, duration};
use super::Facts;
use crate::task::Panicked;

/// Tasks that a line names.
const MAX_PANICKED: usize = 3;
/// Apps that a line names.
const MAX_NAMED: usize = 3;

/// One thing that a platform holds or lacks.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// What: `lease`, `database` and so on.
    pub name: &'static str,
    /// How good it is.
    pub health: Health,
    /// What there is to say, in a line.
    pub summary: String,
    /// The same as numbers and words for programs. What is not known is not there.
    pub facts: Map<String, Value>,
}

/// The worst of them.
pub fn worst(checks: &[Check]) -> Health {
    checks.iter().map(|check| check.health).max().unwrap_or(Health::Ok)
}

fn check(name: &'static str, (health, summary): (Health, String), facts: Value) -> Check {
    let mut facts = match facts {
        Value::Object(facts) => facts,
        _ => Map::new(),
    };
    facts.retain(|_, value| !value.is_null());
    Check { name, health, summary, facts }
}

/// One check a line.
pub(crate) fn checks(facts: &Facts) -> Vec<Check> {
    vec![
        platform(facts),
        lease(facts),
        database(facts),
        disk(facts),
        descriptors(facts),
        threads(facts),
        spawner(facts),
        processes(facts),
        git(facts),
        drains(facts),
        sandbox(facts),
        cgroups(facts),
        network(facts),
        operations(facts),
        proof(facts),
        queues(facts),
        tasks(facts),
    ]
}

fn platform(facts: &Facts) -> Check {
    let version = env!("CARGO_PKG_VERSION");
    let pid = std::process::id();
    let machine = facts.machine.as_ref().ok();
    let (resident, threads) =
        machine.map_or((None, None), |machine| (machine.resident, machine.threads));
    let mut text = format!("tolv {version}, pid {pid}, up {}", duration(facts.uptime));
    if let Some(resident) = resident {
        write!(text, ", {} of memory", bytes(resident)).ok();
    }
    if let Some(threads) = threads {
        write!(text, ", {}", count(threads, "thread")).ok();
    }
    let health = match facts.is_ending {
        true => {
            text.push_str("; is ending");
            Health::Warn
        }
        false => Health::Ok,
    };
    let values = json!({
        "version": version,
        "pid": pid,
        "uptime_seconds": facts.uptime.as_secs(),
        "resident_bytes": resident,
        "threads": threads,
        "ending": facts.is_ending,
    });
    check("platform", (health, text), values)
}

fn processes(facts: &Facts) -> Check {
    let found = facts.processes;
    let states = [
        ("up", found.up),
        ("starting", found.starting),
        ("crashed", found.crashed),
        ("stopping", found.stopping),
        ("down", found.down),
    ];
    let named: Vec<_> = states
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(state, count)| format!("{count} {state}"))
        .collect();
    let mut text = format!(
        "{} for {} of {}",
        count(found.shims, "shim"),
        count(found.total(), "process"),
        count(facts.deploys, "deploy")
    );
    if !named.is_empty() {
        write!(text, ": {}", named.join(", ")).ok();
    }
    if found.sockets_made_again > 0 {
        let sockets = count(found.sockets_made_again, "socket");
        write!(text, "; {sockets} below processes/ had been removed, and made again").ok();
    }
    let values = json!({
        "deploys": facts.deploys,
        "shims": found.shims,
        "sockets_made_again": found.sockets_made_again,
        "processes": found.total(),
        "starting": found.starting,
        "up": found.up,
        "crashed": found.crashed,
        "stopping": found.stopping,
        "down": found.down,
    });
    check("processes", (Health::Ok, text), values)
}

fn git(facts: &Facts) -> Check {
    let (git, pushes) = (facts.git, facts.pushes);
    let mut text = format!(
        "{} of {} git commands at work, {} of {} pushes wait for their operation",
        git.now, git.most, pushes.now, pushes.most
    );
    let lost = &facts.lost_repositories;
    if !lost.is_empty() {
        let apps = lost.iter().take(MAX_NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        let more = if lost.len() > MAX_NAMED { " and others" } else { "" };
        write!(text, "; the repositories of {apps}{more} were gone, and are empty until a push")
            .ok();
    }
    let is_full = git.now >= git.most || pushes.now >= pushes.most;
    let is_bad = is_full || !lost.is_empty();
    let values = json!({
        "commands": git.now,
        "commands_most": git.most,
        "waiting_pushes": pushes.now,
        "waiting_pushes_most": pushes.most,
        "lost_repositories": lost.len(),
    });
    check("git", (if is_bad { Health::Warn } else { Health::Ok }, text), values)
}

fn drains(facts: &Facts) -> Check {
    let mut text = count(facts.drains, "drain");
    if facts.failing_drains > 0 {
        write!(text, ", {} of them cannot send", facts.failing_drains).ok();
    }
    let values = json!({ "drains": facts.drains, "failing": facts.failing_drains });
    check("drains", (Health::Ok, text), values)
}

fn queues(facts: &Facts) -> Check {
    let (builds, lines) = (facts.builds, facts.lines);
    let mut text = format!(
        "{} of {} builds at work, {} of {} lines wait for standard output",
        builds.now, builds.most, lines.now, lines.most
    );
    let health = match lines.now >= lines.most {
        true => {
            text.push_str("; nobody reads it, the logs have the rest");
            Health::Warn
        }
        false => Health::Ok,
    };
    let values = json!({
        "builds": builds.now,
        "builds_most": builds.most,
        "output_lines": lines.now,
        "output_lines_most": lines.most,
    });
    check("queues", (health, text), values)
}

/// Those that panicked: one that waits for its next start does not do what it is for.
fn tasks(facts: &Facts) -> Check {
    let told = |task: &Panicked| {
        let now = match task.again {
            Some(again) => format!("it is started again in {}", duration(again)),
            None => "it runs".to_owned(),
        };
        let (name, ago, times) = (&task.name, duration(task.ago), count(task.count, "time"));
        format!("{name} panicked {times}, {ago} ago with `{}`; {now}", task.text)
    };
    let mut tasks: Vec<_> = facts.panicked.iter().collect();
    tasks.sort_by_key(|task| (task.again.is_none(), task.ago));
    let shown: Vec<_> = tasks.iter().take(MAX_PANICKED).map(|task| told(task)).collect();
    let more = tasks.len() - shown.len();
    let text = match (shown.as_slice(), more) {
        ([], _) => format!("{} of tasks that have ended", count(facts.panics, "panic")),
        (shown, 0) => shown.join("; "),
        (shown, more) => format!("{}; and {}", shown.join("; "), count(more as u64, "more task")),
    };
    let text = if facts.panics == 0 { "none has panicked".to_owned() } else { text };
    let health = match tasks.first() {
        Some(task) if task.again.is_some() => Health::Fail,
        _ if tasks.iter().any(|task| task.ago < RECENTLY) => Health::Warn,
        _ => Health::Ok,
    };
    let waiting = tasks.iter().filter(|task| task.again.is_some()).count();
    let values = json!({ "panics": facts.panics, "panicked": tasks.len(), "waiting": waiting });
    check("tasks", (health, text), values)
}

#[cfg(test)]
mod tests;
