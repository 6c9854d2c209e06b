//! Deploys, their releases and their processes.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use tolv_api::{Code, Deploy, Ledger, NewDeploy, Operation, Page, Process, Release, TypeLimits};
use tolv_model::access::Act;
use tolv_model::name::{AppName, Deploy as DeployPath, DeployName, ProcessType};
use tolv_model::release::ReleaseNumber;
use tolv_model::size::Size;
use tolv_platform::{Command, CopyFrom};
use tolv_store::Stored;

use crate::apps::Confirm;
use crate::auth::Caller;
use crate::error::Failure;
use crate::extract::{Body, Paging, Params, Path, parse, path};
use crate::{Shared, convert};

pub(crate) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Path(app): Path<String>,
) -> Result<Json<Page<Deploy>>, Failure> {
    let name: AppName = parse(&app)?;
    caller.may(Act::View, Some(&name))?;
    Ok(Json(Page { items: standing(&shared, &name, None).await?, next: None }))
}

/// The deploys of an app, or one of them, each against the first.
async fn standing(
    shared: &Shared,
    name: &AppName,
    only: Option<&DeployPath>,
) -> Result<Vec<Deploy>, Failure> {
    let platform = &shared.0.platform;
    let store = platform.store();
    let fail = |error: tolv_store::Error| shared.failure(error);
    let app = store.app(name).await.map_err(fail)?;
    let (mut deploys, mut forged) = (Vec::new(), Vec::new());
    for stored in store.deploys(&app.id).await.map_err(fail)? {
        match stored {
            Stored::Valid(deploy) => deploys.push(deploy),
            Stored::Forged(row) => forged.push(row),
        }
    }
    // Ids sort by age.
    let first = deploys.iter().min_by_key(|deploy| &deploy.id);
    let base = first.and_then(|deploy| deploy.commit.clone());
    if let Some(only) = only {
        deploys.retain(|deploy| deploy.name == *only);
        forged.retain(|row| row.name == only.to_string());
    }
    let standings = platform
        .standings(name, &deploys, base.as_deref())
        .await
        .map_err(|error| shared.failure(error))?;
    let both = deploys.into_iter().zip(standings);
    let valid = both.map(|(deploy, standing)| convert::deploy(shared, deploy, Some(standing)));
    let mut all: Vec<_> = valid.chain(forged.into_iter().map(convert::forged_deploy)).collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(all)
}

pub(crate) async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    Path(app): Path<String>,
    Body(new): Body<NewDeploy>,
) -> Result<(StatusCode, Json<Deploy>), Failure> {
    let app: AppName = parse(&app)?;
    caller.may(Act::Manage, Some(&app))?;
    let path = DeployPath { app, name: parse::<DeployName>(&new.name)? };
    let from = match &new.from {
        None => None,
        Some(from) => Some(CopyFrom { deploy: parse(from)?, values: new.values }),
    };
    let detail = match (&new.from, new.values) {
        (None, _) => String::new(),
        (Some(from), false) => format!("from {from}"),
        (Some(from), true) => format!("from {from} with config values"),
    };
    caller.audit(&shared, "deploy.create", &path, &detail).await?;
    let made = shared.0.platform.create_deploy(&path, from).await;
    let (deploy, wanted) = made.map_err(|error| shared.failure(error))?;
    let mut deploy = convert::deploy(&shared, deploy, None);
    deploy.wanted = wanted.iter().map(ToString::to_string).collect();
    Ok((StatusCode::CREATED, Json(deploy)))
}

pub(crate) async fn show(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
) -> Result<Json<Deploy>, Failure> {
    let path = path(&app, &deploy)?;
    caller.may(Act::View, Some(&path.app))?;
    let found = standing(&shared, &path.app, Some(&path)).await?.pop();
    found.map(Json).ok_or_else(|| Failure::not_found("deploy", &path.to_string()))
}

pub(crate) async fn destroy(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
    Params(Confirm { confirm }): Params<Confirm>,
) -> Result<(StatusCode, Json<Operation>), Failure> {
    let path = path(&app, &deploy)?;
    caller.may(Act::Manage, Some(&path.app))?;
    caller.audit(&shared, "deploy.destroy", &path, "").await?;
    let platform = &shared.0.platform;
    let queued = platform.submit(&caller.actor(), &path, Command::Destroy { confirm }).await;
    let queued = queued.map_err(|error| shared.failure(error))?;
    Ok((StatusCode::ACCEPTED, Json(convert::operation(queued))))
}

/// The deploy of an address, for whoever may look at it.
async fn seen(
    shared: &Shared,
    caller: &Caller,
    app: &str,
    deploy: &str,
) -> Result<tolv_store::Deploy, Failure> {
    let path = path(app, deploy)?;
    caller.may(Act::View, Some(&path.app))?;
    shared.0.platform.store().deploy(&path).await.map_err(|error| shared.failure(error))
}

pub(crate) async fn releases(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
    paging: Paging,
) -> Result<Json<Page<Release>>, Failure> {
    let deploy = seen(&shared, &caller, &app, &deploy).await?;
    let before = paging.cursor::<ReleaseNumber>()?;
    let store = shared.0.platform.store();
    let found = store.releases(&deploy.id, before, paging.limit).await;
    let found = found.map_err(|error| shared.failure(error))?;
    Ok(Json(paging.page(found, |release| release.row.number.0.to_string(), convert::release)))
}

pub(crate) async fn release(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy, number)): Path<(String, String, String)>,
) -> Result<Json<Release>, Failure> {
    let deploy = seen(&shared, &caller, &app, &deploy).await?;
    let number: ReleaseNumber = parse(&number)?;
    let store = shared.0.platform.store();
    let fail = |error: tolv_store::Error| shared.failure(error);
    let found = store.release(&deploy.id, number).await.map_err(fail)?;
    let version = found.row.config_version;
    let prints = store.fingerprints(&deploy.id, version).await.map_err(fail)?;
    let stack = shared.0.platform.stack_of(&deploy.app, found.row.slug).await;
    let mut found = convert::release(found);
    found.stack = stack.map(|stack| format!("{}@{}", stack.name, stack.digest()));
    let prints = prints.into_iter().map(|(name, print)| (name.to_string(), print));
    found.config = Some(prints.collect());
    Ok(Json(found))
}

pub(crate) async fn verify(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
) -> Result<Json<Ledger>, Failure> {
    let path = path(&app, &deploy)?;
    caller.may(Act::View, Some(&path.app))?;
    let proof = shared.0.platform.verify(&path).await;
    Ok(Json(ledger(proof.map_err(|error| shared.failure(error))?)))
}

/// Takes a ledger that does not hold as it is.
pub(crate) async fn accept(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
    Params(Confirm { confirm }): Params<Confirm>,
) -> Result<Json<Ledger>, Failure> {
    let path = path(&app, &deploy)?;
    // To whoever may not look at the app, it is not there.
    caller.may(Act::View, Some(&path.app))?;
    caller.may(Act::Own, None)?;
    if confirm != path.to_string() {
        let text = format!("to accept the ledger of `{path}`, confirm with exactly this name");
        return Err(Failure::new(Code::Refused, text));
    }
    let platform = &shared.0.platform;
    let before = platform.verify(&path).await.map_err(|error| shared.failure(error))?;
    caller.audit(&shared, "ledger.accept", &path, &before.broken.join("; ")).await?;
    let proof = platform.accept(&path).await;
    Ok(Json(ledger(proof.map_err(|error| shared.failure(error))?)))
}

fn ledger(proof: tolv_platform::Proof) -> Ledger {
    Ledger {
        holds: proof.broken.is_empty(),
        rows: proof.rows,
        broken: (!proof.broken.is_empty()).then(|| proof.broken.join("; ")),
        accepted: proof.accepted,
    }
}

pub(crate) async fn processes(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
) -> Result<Json<Page<Process>>, Failure> {
    let deploy = seen(&shared, &caller, &app, &deploy).await?;
    let found = shared.0.platform.processes(&deploy.name).await;
    let found = found.map_err(|error| shared.failure(error))?;
    let process = |process: tolv_platform::Process| Process {
        name: process.name.to_string(),
        state: process.state.to_owned(),
        release: process.release.0,
        pid: process.pid,
        restarts: process.restarts,
        limits: convert::limits(process.limits),
    };
    Ok(Json(Page { items: found.into_iter().map(process).collect(), next: None }))
}

pub(crate) async fn limits(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
) -> Result<Json<Page<TypeLimits>>, Failure> {
    let deploy = seen(&shared, &caller, &app, &deploy).await?;
    let found = shared.0.platform.limits(&deploy).await.map_err(|error| shared.failure(error))?;
    let of_type = |(kind, asked, limits): (ProcessType, Size, tolv_platform::Limits)| TypeLimits {
        process_type: kind.to_string(),
        asked: asked.to_string(),
        limits: convert::limits(limits),
    };
    Ok(Json(Page { items: found.into_iter().map(of_type).collect(), next: None }))
}
