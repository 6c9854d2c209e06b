//! The database, its lease, and the operations that it knows.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::json;

use super::super::{Facts, LeaseState};
use super::text::{duration, milliseconds, why};
use super::{Check, Health, check};

/// An answer that takes longer.
const SLOW_DATABASE: Duration = Duration::from_millis(250);
/// Of what does not hold, so much is named.
const MAX_NAMED: usize = 5;
/// Longer than a build and a release phase together may take.
const OLD_OPERATION: Duration = Duration::from_secs(90 * 60);

pub(super) fn lease(facts: &Facts) -> Check {
    let (judged, state, holder) = match &facts.lease {
        LeaseState::Held(holder) => {
            ((Health::Ok, format!("held by {holder}")), "held", Some(holder))
        }
        LeaseState::Broken(holder) => {
            let mut text =
                "the connection that held it broke: it is being taken again, and nothing \
                            is written meanwhile"
                    .to_owned();
            if let Some(outage) = &facts.outage {
                write!(text, "; {outage}").ok();
            }
            ((Health::Fail, text), "broken", Some(holder))
        }
        LeaseState::NotTaken => {
            let why = "the database has not answered since the start";
            let text = format!("not taken: {}", facts.outage.as_deref().unwrap_or(why));
            ((Health::Fail, text), "not-taken", None)
        }
        LeaseState::GivenUp => {
            ((Health::Warn, "given up: this platform is ending".to_owned()), "given-up", None)
        }
        LeaseState::Lost(other) => {
            let text = format!("lost: another platform has the database: {other}");
            ((Health::Fail, text), "lost", None)
        }
    };
    let values = json!({
        "state": state,
        "holder_pid": holder.map(|holder| holder.pid),
        "holder_host": holder.map(|holder| &holder.host),
        "since": holder.map(|holder| holder.since.to_string()),
    });
    check("lease", judged, values)
}

pub(super) fn database(facts: &Facts) -> Check {
    let (kind, connections) = (facts.database_kind, facts.connections);
    let used = connections.open.saturating_sub(connections.idle);
    let response = facts.database.as_ref().ok().map(|status| status.response);
    let judged = match &facts.database {
        Ok(status) if status.is_read_only => {
            (Health::Fail, format!("{kind} is read-only: it answers, and nothing can be recorded"))
        }
        Ok(_) if facts.is_database_disk_at_fault => (
            Health::Fail,
            format!("{kind} answers, and the last write failed: its disk is full, or gives errors"),
        ),
        Ok(status) => {
            let health = match status.response >= SLOW_DATABASE {
                true => Health::Warn,
                false => Health::Ok,
            };
            let took = milliseconds(status.response);
            (
                health,
                format!(
                    "{kind} answered in {took}, {used} of {} connections in use",
                    connections.most
                ),
            )
        }
        Err(unknown) => {
            let mut text = format!("{kind} {}", why(unknown));
            if let Some(outage) = facts.outage.as_ref().filter(|outage| !text.contains(*outage)) {
                write!(text, "; {outage}").ok();
            }
            (Health::Fail, text)
        }
    };
    let is_writable = facts.is_database_writable();
    let values = json!({
        "kind": kind,
        "reachable": response.is_some(),
        "writable": is_writable,
        "response_seconds": response.map(|response| response.as_secs_f64()),
        "connections_open": connections.open,
        "connections_idle": connections.idle,
        "connections_most": connections.most,
    });
    check("database", judged, values)
}

pub(super) fn operations(facts: &Facts) -> Check {
    let at_work = u64::try_from(facts.at_work.len()).unwrap_or(u64::MAX);
    let Ok(status) = &facts.database else {
        let mut text = "what is queued is not known without the database".to_owned();
        if let Some((deploy, id)) = facts.at_work.first() {
            write!(text, "; {at_work} at work, the oldest is {id} of {deploy}").ok();
        }
        let oldest = facts.at_work.first();
        let values = json!({
            "at_work": at_work,
            "oldest_id": oldest.map(|(_, id)| id),
            "oldest_deploy": oldest.map(|(deploy, _)| deploy.to_string()),
        });
        return check("operations", (Health::Warn, text), values);
    };
    let (queued, running) = (status.queued, status.running);
    let mut text = format!("{queued} queued, {running} running");
    let mut health = Health::Ok;
    let age = facts.oldest_age();
    if let (Some(oldest), Some(age)) = (&status.oldest, age) {
        write!(
            text,
            "; the oldest is {} of {} ({}, {}, {} old)",
            oldest.id,
            oldest.deploy,
            oldest.kind,
            oldest.state,
            duration(age)
        )
        .ok();
        if age >= OLD_OPERATION {
            health = Health::Warn;
        }
    }
    let oldest = status.oldest.as_ref();
    let values = json!({
        "queued": queued,
        "running": running,
        "at_work": at_work,
        "oldest_id": oldest.map(|oldest| &oldest.id),
        "oldest_deploy": oldest.map(|oldest| &oldest.deploy),
        "oldest_kind": oldest.map(|oldest| &oldest.kind),
        "oldest_state": oldest.map(|oldest| &oldest.state),
        "oldest_age_seconds": age.map(|age| age.as_secs()),
    });
    check("operations", (health, text), values)
}

/// Rows that are not the platform's, and deploys that were not started.
pub(super) fn proof(facts: &Facts) -> Check {
    let forged = facts.database.as_ref().ok().map(|status| status.forged.as_slice());
    let mut found: Vec<String> = forged.into_iter().flatten().cloned().collect();
    let rows = forged.map(<[String]>::len);
    for (deploy, why) in &facts.not_started {
        // Of a row that was changed it is said already.
        if !found.iter().any(|text| why.contains(text)) {
            found.push(format!("nothing of {deploy} is started: {why}"));
        }
    }
    let judged = match (found.len(), rows) {
        (0, Some(_)) => {
            (Health::Ok, "every row is the platform's, and every deploy holds".to_owned())
        }
        (0, None) => (Health::Ok, "not known without the database".to_owned()),
        (count, _) => {
            let mut text = found.iter().take(MAX_NAMED).cloned().collect::<Vec<_>>().join("; ");
            if count > MAX_NAMED {
                write!(text, "; and {} more", count - MAX_NAMED).ok();
            }
            (Health::Warn, text)
        }
    };
    let values = json!({ "changed_rows": rows, "not_started": facts.not_started.len() });
    check("proof", judged, values)
}
