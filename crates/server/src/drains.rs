//! Drains of a deploy's log.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use tolv_api::{Drain, NewDrain, Page};
use tolv_model::access::Act;
use tolv_model::id::DrainId;
use tolv_platform::{Drain as Found, DrainUrl};

use crate::Shared;
use crate::auth::Caller;
use crate::error::Failure;
use crate::extract::{Body, Path, parse, path};

fn drain(found: Found) -> Drain {
    let (error, error_at) = found.error.unzip();
    Drain {
        id: found.id.to_string(),
        url: found.url.to_string(),
        created: found.created,
        state: found.state.to_owned(),
        sent: found.sent,
        under_way: found.under_way,
        retried: found.retried,
        dropped: found.dropped,
        behind: found.behind,
        error,
        error_at,
    }
}

pub(crate) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
) -> Result<Json<Page<Drain>>, Failure> {
    let path = path(&app, &deploy)?;
    caller.may(Act::View, Some(&path.app))?;
    let found = shared.0.platform.drains(&path).await;
    let found = found.map_err(|error| shared.failure(error))?;
    Ok(Json(Page { items: found.into_iter().map(drain).collect(), next: None }))
}

pub(crate) async fn add(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
    Body(new): Body<NewDrain>,
) -> Result<(StatusCode, Json<Drain>), Failure> {
    let path = path(&app, &deploy)?;
    caller.may(Act::Manage, Some(&path.app))?;
    let url: DrainUrl = parse(&new.url)?;
    caller.audit(&shared, "drain.add", &path, &url.to_string()).await?;
    let added = shared.0.platform.add_drain(&path, url, caller.is_operator(&shared)).await;
    let added = added.map_err(|error| shared.failure(error))?;
    Ok((StatusCode::CREATED, Json(drain(added))))
}

pub(crate) async fn remove(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy, id)): Path<(String, String, String)>,
) -> Result<StatusCode, Failure> {
    let path = path(&app, &deploy)?;
    caller.may(Act::Manage, Some(&path.app))?;
    let id: DrainId = parse(&id)?;
    caller.audit(&shared, "drain.remove", &path, id.as_str()).await?;
    let removed = shared.0.platform.remove_drain(&path, &id).await;
    removed.map_err(|error| shared.failure(error))?;
    Ok(StatusCode::NO_CONTENT)
}
