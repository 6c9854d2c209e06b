//! Operations: asked for, listed, followed, cancelled.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::sse::{Event, Sse};
use futures_util::Stream;
use tolv_api::{NewOperation, Operation, Page};
use tolv_model::access::Act;
use tolv_model::formation::{Formation, MAX_QUANTITY};
use tolv_model::id::OperationId;
use tolv_model::ledger::Reason;
use tolv_model::name::ProcessType;
use tolv_model::operation::Selection;
use tolv_model::release::ReleaseNumber;
use tolv_model::size::{Size, Sizes};
use tolv_platform::Command;

use crate::auth::Caller;
use crate::error::Failure;
use crate::events::progress;
use crate::extract::{Body, Paging, Path, parse, path};
use crate::{Shared, convert};

pub(crate) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
    paging: Paging,
) -> Result<Json<Page<Operation>>, Failure> {
    let path = path(&app, &deploy)?;
    caller.may(Act::View, Some(&path.app))?;
    let store = shared.0.platform.store();
    let fail = |error: tolv_store::Error| shared.failure(error);
    let deploy = store.deploy(&path).await.map_err(fail)?;
    let before = paging.cursor::<OperationId>()?;
    let mut found =
        store.operations(&deploy.id, before.as_ref(), paging.limit).await.map_err(fail)?;
    let pushes = shared.0.platform.pushes_under_way(&deploy.id);
    let is_later = |id: &OperationId| before.as_ref().is_some_and(|before| id >= before);
    // One that is older than what is on this page comes on a later one.
    let last = found.last().filter(|_| found.more).map(|last| last.id.clone());
    let is_earlier = |id: &OperationId| last.as_ref().is_some_and(|last| id < last);
    let here = |id: &OperationId| !is_later(id) && !is_earlier(id);
    found.extend(pushes.into_iter().filter(|push| here(&push.id)));
    found.sort_by(|a, b| b.id.cmp(&a.id));
    Ok(Json(paging.page(found, |operation| operation.id.to_string(), convert::operation)))
}

pub(crate) async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
    Body(new): Body<NewOperation>,
) -> Result<(StatusCode, HeaderMap, Json<Operation>), Failure> {
    let path = path(&app, &deploy)?;
    let act = match &new {
        NewOperation::Deploy { .. }
        | NewOperation::Promote { .. }
        | NewOperation::Rollback { .. }
        | NewOperation::Retry { .. } => Act::Deploy,
        NewOperation::Scale { .. }
        | NewOperation::Limits { .. }
        | NewOperation::Restart { .. }
        | NewOperation::Stop
        | NewOperation::Start => Act::Run,
    };
    caller.may(act, Some(&path.app))?;
    let (action, detail, command) = command(new)?;
    caller.audit(&shared, action, &path, &detail).await?;
    let queued = shared.0.platform.submit(&caller.actor(), &path, command).await;
    let queued = convert::operation(queued.map_err(|error| shared.failure(error))?);
    let mut headers = HeaderMap::new();
    if let Ok(place) = HeaderValue::try_from(format!("/v1/operations/{}", queued.id)) {
        headers.insert(header::LOCATION, place);
    }
    Ok((StatusCode::ACCEPTED, headers, Json(queued)))
}

fn command(new: NewOperation) -> Result<(&'static str, String, Command), Failure> {
    Ok(match new {
        NewOperation::Deploy { commit, new_root, no_release_phase } => {
            let detail = commit.clone();
            let command =
                Command::Deploy { commit, branch: None, old: None, new_root, no_release_phase };
            ("deploy.deploy", detail, command)
        }
        NewOperation::Promote { from, no_release_phase } => {
            let command = Command::Promote { from: parse(&from)?, no_release_phase };
            ("deploy.promote", from, command)
        }
        NewOperation::Rollback { to, no_release_phase } => {
            let to = number(to)?;
            let detail = to.map(|to| to.to_string()).unwrap_or_default();
            ("deploy.rollback", detail, Command::Rollback { to, no_release_phase })
        }
        NewOperation::Retry { release, no_release_phase } => {
            let release = number(release)?;
            let detail = release.map(|release| release.to_string()).unwrap_or_default();
            ("deploy.retry", detail, Command::Retry { release, no_release_phase })
        }
        NewOperation::Scale { formation, sizes: asked } => {
            let (formation, sizes) = (quantities(formation)?, sizes(asked)?);
            let mut detail = formation.to_string();
            if !sizes.is_empty() {
                detail = format!("{detail} ({sizes})");
            }
            ("deploy.scale", detail, Command::Scale { formation, sizes })
        }
        NewOperation::Limits { sizes: asked, reset } => {
            if asked.is_empty() && reset.is_empty() {
                return Err(Failure::invalid("limits name at least one process type"));
            }
            let sizes = sizes(asked)?;
            let reset: Vec<ProcessType> =
                reset.iter().map(|kind| parse(kind)).collect::<Result<_, _>>()?;
            let detail = Reason::Limits { set: sizes.clone(), reset: reset.clone() }.to_string();
            ("deploy.limits", detail, Command::Limits { sizes, reset })
        }
        NewOperation::Restart { processes } => {
            let selection = match processes.as_deref() {
                None => Selection::All,
                Some(one) if one.contains('.') => Selection::One(parse(one)?),
                Some(kind) => Selection::Type(parse(kind)?),
            };
            let detail = processes.unwrap_or_default();
            ("deploy.restart", detail, Command::Restart { processes: selection })
        }
        NewOperation::Stop => ("deploy.stop", String::new(), Command::Stop),
        NewOperation::Start => ("deploy.start", String::new(), Command::Start),
    })
}

fn number(number: Option<u32>) -> Result<Option<ReleaseNumber>, Failure> {
    match number {
        Some(0) => Err(Failure::invalid("releases are numbered from 1")),
        number => Ok(number.map(ReleaseNumber)),
    }
}

fn quantities(asked: BTreeMap<String, u16>) -> Result<Formation, Failure> {
    if asked.is_empty() {
        return Err(Failure::invalid("a formation names at least one process type"));
    }
    let mut formation = Formation::default();
    for (kind, quantity) in asked {
        if quantity > MAX_QUANTITY {
            return Err(Failure::invalid(format!("`{kind}` is to have more than {MAX_QUANTITY}")));
        }
        formation.0.insert(parse(&kind)?, quantity);
    }
    Ok(formation)
}

fn sizes(asked: BTreeMap<String, String>) -> Result<Sizes, Failure> {
    let mut sizes = Sizes::default();
    for (kind, size) in asked {
        sizes.0.insert(parse(&kind)?, parse::<Size>(&size)?);
    }
    Ok(sizes)
}

/// An operation, for whoever may do this to its app.
async fn found(
    shared: &Shared,
    caller: &Caller,
    id: &str,
    act: Act,
) -> Result<tolv_store::Operation, Failure> {
    let id: OperationId = parse(id)?;
    let platform = &shared.0.platform;
    let operation = match platform.push_under_way(&id) {
        Some(push) => push,
        None => {
            let operation = platform.store().operation(&id).await;
            operation.map_err(|error| shared.failure(error))?
        }
    };
    caller.may_with(act, &operation.deploy_name.app, ("operation", id.as_str()))?;
    Ok(operation)
}

pub(crate) async fn show(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Operation>, Failure> {
    found(&shared, &caller, &id, Act::View).await.map(|found| Json(convert::operation(found)))
}

pub(crate) async fn cancel(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<Operation>, Failure> {
    let operation = found(&shared, &caller, &id, Act::Run).await?;
    caller.audit(&shared, "operation.cancel", &operation.deploy_name, &id).await?;
    let cancelled = shared.0.platform.cancel(&operation.id).await;
    cancelled.map(|done| Json(convert::operation(done))).map_err(|error| shared.failure(error))
}

/// The output of an operation as server-sent events: `output` with a line, each with its number
/// as id, and at the end `state`.
pub(crate) async fn events(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let operation = found(&shared, &caller, &id, Act::View).await?;
    caller.lasts()?;
    let follow = shared.0.platform.follow(&operation.id).await;
    let follow = follow.map_err(|error| shared.failure(error))?;
    Ok(progress(&shared, caller, operation.deploy_name.app, follow, &headers))
}
