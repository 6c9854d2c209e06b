//! Config: names for whoever may look, values for whoever may have them.

use std::collections::{BTreeMap, BTreeSet};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use tolv_api::{Code, Config, ConfigChange, ConfigChanged, Value, Variable};
use tolv_model::access::Act;
use tolv_model::config::{Change, NewValue};
use tolv_model::env::EnvName;

use crate::auth::Caller;
use crate::error::Failure;
use crate::extract::{Body, Params, Path, parse, path};
use crate::{Shared, convert};

/// Whether values are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Asked {
    #[serde(default)]
    values: bool,
}

pub(crate) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
    Params(Asked { values }): Params<Asked>,
) -> Result<(HeaderMap, Json<Config>), Failure> {
    let path = path(&app, &deploy)?;
    caller.may(if values { Act::Config } else { Act::View }, Some(&path.app))?;
    let store = shared.0.platform.store();
    let fail = |error: tolv_store::Error| shared.failure(error);
    let deploy = store.deploy(&path).await.map_err(fail)?;
    let version = deploy.config_version;
    let config = store.config(&deploy.id, version).await.map_err(fail)?;
    let prints = store.fingerprints(&deploy.id, version).await.map_err(fail)?;
    if values {
        let read = config.names().filter(|name| !config.secret.contains(name));
        let names: Vec<_> = read.map(EnvName::as_str).collect();
        caller.audit_read(&shared, "config.read", &path, &names.join(", ")).await?;
    }
    let variables = config.vars.iter().map(|(name, value)| {
        let secret = config.secret.contains(name);
        let variable = Variable {
            secret,
            build: config.build.contains(name),
            fingerprint: prints.get(name).cloned().unwrap_or_default(),
            value: (values && !secret).then(|| Value::of(value.as_bytes())),
        };
        (name.to_string(), variable)
    });
    Ok((tag(version), Json(Config { version, variables: variables.collect() })))
}

pub(crate) async fn show(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy, name)): Path<(String, String, String)>,
) -> Result<Json<Variable>, Failure> {
    let path = path(&app, &deploy)?;
    caller.may(Act::Config, Some(&path.app))?;
    let name: EnvName = parse(&name)?;
    let store = shared.0.platform.store();
    let fail = |error: tolv_store::Error| shared.failure(error);
    let deploy = store.deploy(&path).await.map_err(fail)?;
    let config = store.config(&deploy.id, deploy.config_version).await.map_err(fail)?;
    let value = config.vars.get(name.as_str());
    let value = value.ok_or_else(|| Failure::not_found("config variable", name.as_str()))?;
    if config.secret.contains(&name) {
        let detail = format!("`{name}` is a secret: only processes get its value");
        return Err(Failure::new(Code::Refused, detail));
    }
    caller.audit_read(&shared, "config.read", &path, name.as_str()).await?;
    let prints = store.fingerprints(&deploy.id, deploy.config_version).await.map_err(fail)?;
    Ok(Json(Variable {
        secret: false,
        build: config.build.contains(&name),
        fingerprint: prints.get(&name).cloned().unwrap_or_default(),
        value: Some(Value::of(value.as_bytes())),
    }))
}

pub(crate) async fn change(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
    headers: HeaderMap,
    Body(new): Body<ConfigChange>,
) -> Result<(StatusCode, HeaderMap, Json<ConfigChanged>), Failure> {
    let path = path(&app, &deploy)?;
    caller.may(Act::Config, Some(&path.app))?;
    let if_version = match headers.get(header::IF_MATCH) {
        None => None,
        Some(value) => Some(
            version_of(value)
                .ok_or_else(|| Failure::invalid("If-Match is not the ETag of a config"))?,
        ),
    };
    let no_release_phase = new.no_release_phase;
    let change = read(new)?;
    let names = |names: Vec<String>, word: &str| match names.is_empty() {
        true => String::new(),
        false => format!("{word} {} ", names.join(", ")),
    };
    let set = change.set.keys().map(ToString::to_string).collect();
    let unset = change.unset.iter().map(ToString::to_string).collect();
    let detail = names(set, "set") + &names(unset, "unset");
    caller.audit(&shared, "config.change", &path, detail.trim_end()).await?;
    let platform = &shared.0.platform;
    let actor = caller.actor();
    let changed =
        platform.change_config(&actor, &path, if_version, &change, no_release_phase).await;
    let (version, operation) = changed.map_err(|error| shared.failure(error))?;
    let status = if operation.is_some() { StatusCode::ACCEPTED } else { StatusCode::OK };
    let operation = operation.map(convert::operation);
    Ok((status, tag(version), Json(ConfigChanged { version, operation })))
}

fn read(new: ConfigChange) -> Result<Change, Failure> {
    let mut set = BTreeMap::new();
    for (name, value) in &new.set {
        let parsed: EnvName = parse(name)?;
        let value = value
            .to_bytes()
            .ok_or_else(|| Failure::invalid(format!("the value of `{name}` is no base 64")))?;
        set.insert(parsed, NewValue { value, secret: new.secret, build: new.build });
    }
    let unset = new.unset.iter().map(|name| parse(name)).collect::<Result<BTreeSet<_>, _>>()?;
    if set.is_empty() && unset.is_empty() {
        return Err(Failure::invalid("nothing is to be set or unset"));
    }
    Ok(Change { set, unset })
}

/// `"<version>"`.
fn tag(version: u32) -> HeaderMap {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::try_from(format!("\"{version}\"")) {
        headers.insert(header::ETAG, value);
    }
    headers
}

fn version_of(value: &HeaderValue) -> Option<u32> {
    value.to_str().ok()?.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}
