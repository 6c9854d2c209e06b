//! From what the store holds to what goes over the wire.

use jiff::Timestamp;
use tolv_api as api;
use tolv_model::formation::Formation;
use tolv_platform::Standing;
use tolv_store as store;

use crate::Shared;

pub(crate) fn app(app: store::App, deploys: &[store::Stored<store::Deploy>]) -> api::App {
    let name = |stored: &store::Stored<store::Deploy>| match stored {
        store::Stored::Valid(deploy) => deploy.name.name.to_string(),
        store::Stored::Forged(row) => {
            row.name.split('/').next_back().unwrap_or_default().to_owned()
        }
    };
    api::App {
        name: app.name.to_string(),
        roots: app.roots,
        root: app.root.map(String::from),
        created: app.created,
        deploys: deploys.iter().map(name).collect(),
        changed_outside: false,
    }
}

pub(crate) fn forged_app(row: store::ForgedRow) -> api::App {
    api::App {
        name: row.name,
        roots: Vec::new(),
        root: None,
        created: Timestamp::UNIX_EPOCH,
        deploys: Vec::new(),
        changed_outside: true,
    }
}

pub(crate) fn forged_deploy(row: store::ForgedRow) -> api::Deploy {
    api::Deploy {
        name: row.name,
        url: String::new(),
        git: String::new(),
        branch: None,
        release: None,
        commit: None,
        subject: None,
        ahead: 0,
        behind: 0,
        formation: std::collections::BTreeMap::new(),
        stopped: false,
        created: Timestamp::UNIX_EPOCH,
        wanted: Vec::new(),
        changed_outside: true,
    }
}

pub(crate) fn deploy(
    shared: &Shared,
    deploy: store::Deploy,
    standing: Option<Standing>,
) -> api::Deploy {
    let git = match shared.0.local {
        Some(_) => String::new(),
        None => format!("{}/git/{}.git", shared.0.url, deploy.name),
    };
    let standing = standing.as_ref();
    api::Deploy {
        url: shared.0.platform.url_of(&deploy),
        name: deploy.name.to_string(),
        git,
        branch: deploy.branch,
        release: deploy.current.map(|number| number.0),
        commit: deploy.commit,
        subject: standing.and_then(|standing| standing.subject.clone()),
        ahead: standing.map_or(0, |standing| standing.ahead),
        behind: standing.map_or(0, |standing| standing.behind),
        formation: quantities(&deploy.formation),
        stopped: deploy.stopped,
        created: deploy.created,
        wanted: Vec::new(),
        changed_outside: false,
    }
}

fn quantities(formation: &Formation) -> std::collections::BTreeMap<String, u16> {
    formation.0.iter().map(|(kind, quantity)| (kind.to_string(), *quantity)).collect()
}

pub(crate) fn release(release: store::Release) -> api::Release {
    let row = release.row;
    let types = row.process_types.into_iter();
    api::Release {
        number: row.number.0,
        reason: row.reason.to_string(),
        actor: row.actor,
        created: row.created,
        outcome: release.outcome,
        error: release.error,
        slug: row.slug.to_string(),
        commit: row.commit,
        stack: None,
        config_version: row.config_version,
        process_types: types.map(|(kind, command)| (kind.to_string(), command)).collect(),
        sizes: row
            .sizes
            .0
            .iter()
            .map(|(kind, size)| (kind.to_string(), size.to_string()))
            .collect(),
        hash: release.hash.to_string(),
        prev: row.prev.to_string(),
        config: None,
    }
}

pub(crate) fn operation(operation: store::Operation) -> api::Operation {
    api::Operation {
        id: operation.id.to_string(),
        deploy: operation.deploy_name.to_string(),
        kind: operation.request.kind().to_owned(),
        no_release_phase: operation.request.skips_release_phase(),
        actor: operation.actor,
        state: operation.state,
        created: operation.created,
        started: operation.started,
        ended: operation.ended,
        release: operation.release.map(|number| number.0),
        error: operation.error,
    }
}

pub(crate) fn limits(limits: tolv_platform::Limits) -> api::Limits {
    api::Limits {
        memory: limits.memory,
        cpu_weight: limits.cpu_weight,
        cpu_percent: limits.cpu_percent,
        processes: limits.processes,
        files: limits.open_files,
        tmp: limits.tmp,
        shm: limits.shm,
    }
}

pub(crate) fn token(token: store::Token) -> api::Token {
    api::Token {
        id: token.id.to_string(),
        name: token.name,
        role: token.grant.role.to_string(),
        apps: token.grant.apps.names(),
        created: token.created,
        expires: token.expires,
        changed_outside: false,
    }
}

pub(crate) fn stored_token(stored: store::StoredToken) -> api::Token {
    match stored {
        store::StoredToken::Valid(valid) => token(valid),
        store::StoredToken::Forged(forged) => api::Token {
            id: forged.id,
            name: forged.name,
            role: "none".to_owned(),
            apps: Some(Vec::new()),
            created: forged.created,
            expires: None,
            changed_outside: true,
        },
    }
}

pub(crate) fn audit_line(line: store::AuditLine) -> api::AuditLine {
    api::AuditLine {
        id: line.id.to_string(),
        at: line.at,
        actor: line.actor,
        action: line.action,
        app: line.app,
        deploy: line.deploy,
        detail: line.detail,
        outcome: line.outcome,
    }
}
