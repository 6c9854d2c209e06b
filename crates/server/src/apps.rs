//! Apps.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use tolv_api::{App, Buildpacks, NewApp, Page};
use tolv_model::access::{Act, GrantedApps};
use tolv_model::buildpack::{Buildpack, MAX_BUILDPACKS};
use tolv_model::name::{AppName, DeployName};
use tolv_store::{Listed, Stored};

use crate::auth::Caller;
use crate::error::Failure;
use crate::extract::{Body, Paging, Params, Path, parse};
use crate::{Shared, convert};

pub(crate) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    paging: Paging,
) -> Result<Json<Page<App>>, Failure> {
    let store = shared.0.platform.store();
    let fail = |error: tolv_store::Error| shared.failure(error);
    let after = paging.cursor::<AppName>()?;
    let apps = match &caller.token.grant.apps {
        // Who may see some apps sees those.
        GrantedApps::Only(names) => {
            let behind =
                names.iter().filter(|name| after.as_ref().is_none_or(|after| *name > after));
            let mut apps = Vec::new();
            for name in behind {
                match store.stored_app(name).await {
                    Ok(app) => apps.push(app),
                    Err(tolv_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(fail(error)),
                }
                if apps.len() > paging.limit {
                    break;
                }
            }
            Listed { more: false, items: apps }
        }
        GrantedApps::All => store.apps(after.as_ref(), paging.limit).await.map_err(fail)?,
    };
    let mut with = Listed { more: apps.more, items: Vec::new() };
    for stored in apps {
        with.push(match stored {
            Stored::Valid(app) => {
                let deploys = store.deploys(&app.id).await.map_err(fail)?;
                convert::app(app, &deploys)
            }
            Stored::Forged(row) => convert::forged_app(row),
        });
    }
    let page = paging.page(with, |app| app.name.clone(), |app| app);
    Ok(Json(page))
}

pub(crate) async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    Body(new): Body<NewApp>,
) -> Result<(StatusCode, Json<App>), Failure> {
    caller.may(Act::Own, None)?;
    let name: AppName = parse(&new.name)?;
    let first = match &new.deploy {
        Some(first) => parse::<DeployName>(first)?,
        None => DeployName::production(),
    };
    let names = (Some(name.as_str()), Some(first.as_str()));
    caller.note(&shared, "app.create", names, "").await?;
    let made = shared.0.platform.create_app(&name, &first).await;
    let (app, deploy) = made.map_err(|error| shared.failure(error))?;
    Ok((StatusCode::CREATED, Json(convert::app(app, &[Stored::Valid(deploy)]))))
}

pub(crate) async fn show(
    State(shared): State<Shared>,
    caller: Caller,
    Path(app): Path<String>,
) -> Result<Json<App>, Failure> {
    let name: AppName = parse(&app)?;
    caller.may(Act::View, Some(&name))?;
    let store = shared.0.platform.store();
    let fail = |error: tolv_store::Error| shared.failure(error);
    let app = store.app(&name).await.map_err(fail)?;
    let deploys = store.deploys(&app.id).await.map_err(fail)?;
    Ok(Json(convert::app(app, &deploys)))
}

pub(crate) async fn buildpacks(
    State(shared): State<Shared>,
    caller: Caller,
    Path(app): Path<String>,
) -> Result<Json<Buildpacks>, Failure> {
    let name: AppName = parse(&app)?;
    caller.may(Act::View, Some(&name))?;
    let app = shared.0.platform.store().app(&name).await;
    let app = app.map_err(|error| shared.failure(error))?;
    let buildpacks = app.buildpacks.iter().map(ToString::to_string).collect();
    Ok(Json(Buildpacks { buildpacks }))
}

pub(crate) async fn set_buildpacks(
    State(shared): State<Shared>,
    caller: Caller,
    Path(app): Path<String>,
    Body(new): Body<Buildpacks>,
) -> Result<Json<Buildpacks>, Failure> {
    let name: AppName = parse(&app)?;
    caller.may(Act::View, Some(&name))?;
    caller.may(Act::Deploy, Some(&name))?;
    if new.buildpacks.len() > MAX_BUILDPACKS {
        let text = format!("an app has at most {MAX_BUILDPACKS} buildpacks");
        return Err(Failure::invalid(text));
    }
    let list =
        new.buildpacks.iter().map(|text| parse(text)).collect::<Result<Vec<Buildpack>, _>>()?;
    let detail: Vec<_> = list.iter().map(Buildpack::as_str).collect();
    let names = (Some(name.as_str()), None);
    caller.note(&shared, "app.buildpacks", names, &detail.join(", ")).await?;
    let done = shared.0.platform.set_buildpacks(&name, &list).await;
    done.map_err(|error| shared.failure(error))?;
    Ok(Json(new))
}

/// What a destruction is confirmed with.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Confirm {
    #[serde(default)]
    pub(crate) confirm: String,
}

pub(crate) async fn destroy(
    State(shared): State<Shared>,
    caller: Caller,
    Path(app): Path<String>,
    Params(confirm): Params<Confirm>,
) -> Result<StatusCode, Failure> {
    let name: AppName = parse(&app)?;
    caller.may(Act::View, Some(&name))?;
    caller.may(Act::Own, None)?;
    caller.note(&shared, "app.destroy", (Some(name.as_str()), None), "").await?;
    let platform = &shared.0.platform;
    let done = platform.destroy_app(&caller.actor(), &name, &confirm.confirm).await;
    done.map_err(|error| shared.failure(error))?;
    Ok(StatusCode::NO_CONTENT)
}
