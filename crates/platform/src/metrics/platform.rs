//! Gauges of the platform as a whole: what `tolv status --platform` shows.

use tolv_sandbox::RulesState;

use super::text::Text;
use crate::status::{Facts, Health, LeaseState, Machine, ThreadLimit, checks};

/// The facts as families.
pub(super) fn about_status(text: &mut Text, facts: &Facts) {
    let mut family = text.family(
        "tolv_check_state",
        "gauge",
        "What `tolv status --platform` says of each thing: 0 ok, 1 warn, 2 fail.",
    );
    for check in checks(facts) {
        let state = match check.health {
            Health::Ok => 0,
            Health::Warn => 1,
            Health::Fail => 2,
        };
        family.count(&[("check", check.name)], state);
    }
    let holds = matches!(facts.lease, LeaseState::Held(_));
    text.family("tolv_lease_held", "gauge", "Whether this platform holds the database's lease.")
        .count(&[], holds.into());
    about_database(text, facts);
    about_disk(text, facts);
    if let Ok(machine) = &facts.machine {
        about_machine(text, machine);
    }
    let info = [
        ("level", facts.level.as_str()),
        ("cgroups", facts.cgroups.kind.as_str()),
        ("network", if facts.no_network.is_none() { "own" } else { "machine" }),
    ];
    text.family("tolv_sandbox_info", "gauge", "How processes are isolated.").count(&info, 1);
    text.family("tolv_shims", "gauge", "Processes that have a shim, which all that run have.")
        .count(&[], facts.processes.shims);
    text.family("tolv_git_commands", "gauge", "git commands at work for pushes and fetches.")
        .count(&[], facts.git.now);
    text.family("tolv_max_git_commands", "gauge", "The most of them at once.")
        .count(&[], facts.git.most);
    text.family("tolv_waiting_pushes", "gauge", "Pushes that wait for their operation.")
        .count(&[], facts.pushes.now);
    let mut family = text.family("tolv_drains", "gauge", "Drains by whether they can send.");
    let sending = facts.drains.saturating_sub(facts.failing_drains);
    family.count(&[("state", "sending")], sending);
    family.count(&[("state", "failing")], facts.failing_drains);
    text.family("tolv_active_builds", "gauge", "Builds at work.").count(&[], facts.builds.now);
    text.family("tolv_max_builds", "gauge", "The most of them at once.")
        .count(&[], facts.builds.most);
    let help = "Panics of tasks, which are started again.";
    text.family("tolv_task_panics_total", "counter", help).count(&[], facts.panics);
    let help = "Lines that wait for the platform's standard output.";
    text.family("tolv_output_lines_waiting", "gauge", help).count(&[], facts.lines.now);
}

fn about_database(text: &mut Text, facts: &Facts) {
    text.family("tolv_database_up", "gauge", "Whether the database answers.")
        .put(&[], u8::from(facts.database.is_ok()));
    text.family("tolv_database_writable", "gauge", "Whether the database takes writes.")
        .put(&[], u8::from(facts.is_database_writable()));
    let mut family =
        text.family("tolv_database_connections", "gauge", "Connections to the database.");
    let used = facts.connections.open.saturating_sub(facts.connections.idle);
    family.count(&[("state", "used")], used);
    family.count(&[("state", "idle")], facts.connections.idle);
    let at_work = u64::try_from(facts.at_work.len()).unwrap_or(u64::MAX);
    text.family("tolv_operations_at_work", "gauge", "Operations that are being carried out.")
        .count(&[], at_work);
    let Ok(status) = &facts.database else { return };
    let help = "How long a connection and an answer of the database took.";
    text.family("tolv_database_response_seconds", "gauge", help)
        .put(&[], status.response.as_secs_f64());
    let mut family = text.family("tolv_operations", "gauge", "Operations that are not over.");
    family.count(&[("state", "queued")], status.queued);
    family.count(&[("state", "running")], status.running);
    let help = "Age of the oldest operation that is not over; 0 where there is none.";
    text.family("tolv_oldest_operation_age_seconds", "gauge", help)
        .put(&[], facts.oldest_age().unwrap_or_default().as_secs_f64());
}

fn about_disk(text: &mut Text, facts: &Facts) {
    text.family("tolv_disk_min_free_bytes", "gauge", "What is kept free (TOLV_MIN_FREE).")
        .count(&[], facts.min_free);
    let Ok(disk) = &facts.disk else { return };
    text.family("tolv_disk_size_bytes", "gauge", "The disk of the state folder.")
        .count(&[], disk.size);
    text.family("tolv_disk_free_bytes", "gauge", "What is free of it.").count(&[], disk.free);
    if disk.files > 0 {
        text.family("tolv_disk_free_files", "gauge", "Files that it has room for.")
            .count(&[], disk.free_files);
    }
}

fn about_machine(text: &mut Text, machine: &Machine) {
    let own = machine.descriptors;
    text.family("tolv_open_descriptors", "gauge", "Descriptors of the platform's own process.")
        .count(&[], own.open);
    text.family("tolv_max_descriptors", "gauge", "The most of them (the soft limit).")
        .count(&[], own.soft);
    if let Some(threads) = machine.threads {
        text.family("tolv_threads", "gauge", "Threads of the platform's own process.")
            .count(&[], threads);
    }
    if let Some(resident) = machine.resident {
        text.family("tolv_resident_memory_bytes", "gauge", "Memory of the platform's own process.")
            .count(&[], resident);
    }
    if let Some(ThreadLimit { now: threads, most, .. }) =
        machine.thread_limits.iter().find(|limit| limit.is_machine()).cloned()
    {
        text.family("tolv_machine_threads", "gauge", "Threads and processes of the whole machine.")
            .count(&[], threads);
        text.family("tolv_max_machine_threads", "gauge", "The most of them.").count(&[], most);
    }
    let spawner = machine.spawner;
    let is_up = machine.is_spawner_up();
    text.family("tolv_spawner_up", "gauge", "Whether processes can be started.")
        .count(&[], is_up.into());
    text.family("tolv_spawner_replacements_total", "counter", "Spawners that had ended.")
        .count(&[], spawner.replacements);
    let mut family = text.family("tolv_launches_total", "counter", "Sandboxes that were launched.");
    family.count(&[("result", "succeeded")], spawner.launches);
    family.count(&[("result", "failed")], spawner.failed_launches);
    if let Some(sandboxes) = machine.sandboxes {
        text.family("tolv_sandboxes", "gauge", "Sandboxes of the spawner that have not ended.")
            .count(&[], sandboxes);
    }
    if let Some(Ok(rules)) = machine.rules {
        let help = "Whether the packet rules of the apps' networks are in force.";
        text.family("tolv_network_rules_loaded", "gauge", help)
            .count(&[], (rules == RulesState::Loaded).into());
    }
}
