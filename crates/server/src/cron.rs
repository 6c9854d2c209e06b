//! Schedules, their history, and runs that somebody asks for.

use std::convert::Infallible;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use futures_util::Stream;
use tolv_api::{CronRun, Page, Schedule};
use tolv_model::access::Act;
use tolv_model::id::CronRunId;
use tolv_model::name::ScheduleName;
use tolv_platform::Scheduled;

use crate::Shared;
use crate::auth::Caller;
use crate::error::Failure;
use crate::events::progress;
use crate::extract::{Paging, Path, parse, path};

fn run(run: tolv_store::CronRun) -> CronRun {
    CronRun {
        id: run.id.to_string(),
        name: run.name.to_string(),
        tick: run.tick,
        actor: run.actor,
        release: run.release.0,
        command: run.command,
        outcome: run.outcome,
        created: run.created,
        ended: run.ended,
        status: run.status,
        error: run.error,
    }
}

fn schedule(scheduled: Scheduled) -> Schedule {
    let Scheduled { job, next, fired_until, last, going } = scheduled;
    Schedule {
        name: job.name.to_string(),
        schedule: job.schedule.to_string(),
        timezone: job.zone.as_str().to_owned(),
        concurrency_policy: job.concurrency.as_str().to_owned(),
        command: job.command,
        next,
        fired_until,
        going,
        last: last.map(run),
    }
}

pub(crate) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy)): Path<(String, String)>,
) -> Result<Json<Page<Schedule>>, Failure> {
    let path = path(&app, &deploy)?;
    caller.may(Act::View, Some(&path.app))?;
    let found = shared.0.platform.schedules(&path).await;
    let found = found.map_err(|error| shared.failure(error))?;
    Ok(Json(Page { items: found.into_iter().map(schedule).collect(), next: None }))
}

pub(crate) async fn history(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy, name)): Path<(String, String, String)>,
    paging: Paging,
) -> Result<Json<Page<CronRun>>, Failure> {
    let path = path(&app, &deploy)?;
    caller.may(Act::View, Some(&path.app))?;
    let name: ScheduleName = parse(&name)?;
    let before = paging.cursor::<CronRunId>()?;
    let platform = &shared.0.platform;
    let found = platform.schedule_runs(&path, &name, before.as_ref(), paging.limit).await;
    let found = found.map_err(|error| shared.failure(error))?;
    Ok(Json(paging.page(found, |run| run.id.to_string(), run)))
}

pub(crate) async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    Path((app, deploy, name)): Path<(String, String, String)>,
) -> Result<(StatusCode, Json<CronRun>), Failure> {
    let path = path(&app, &deploy)?;
    caller.may(Act::Run, Some(&path.app))?;
    let name: ScheduleName = parse(&name)?;
    caller.audit(&shared, "cron.run", &path, name.as_str()).await?;
    let made = shared.0.platform.run_schedule(&caller.actor(), &path, &name).await;
    Ok((StatusCode::ACCEPTED, Json(run(made.map_err(|error| shared.failure(error))?))))
}

/// A run of a schedule, for whoever may look at it.
async fn found(
    shared: &Shared,
    caller: &Caller,
    (app, deploy, name, id): (String, String, String, String),
) -> Result<tolv_store::CronRun, Failure> {
    let path = path(&app, &deploy)?;
    caller.may(Act::View, Some(&path.app))?;
    let name: ScheduleName = parse(&name)?;
    let id: CronRunId = parse(&id)?;
    let store = shared.0.platform.store();
    let fail = |error: tolv_store::Error| shared.failure(error);
    let deploy = store.deploy(&path).await.map_err(fail)?;
    let found = store.cron_run(&id).await.map_err(fail)?;
    match found.deploy == deploy.id && found.name == name {
        true => Ok(found),
        false => Err(Failure::not_found("run", id.as_str())),
    }
}

pub(crate) async fn show(
    State(shared): State<Shared>,
    caller: Caller,
    Path(names): Path<(String, String, String, String)>,
) -> Result<Json<CronRun>, Failure> {
    found(&shared, &caller, names).await.map(|found| Json(run(found)))
}

pub(crate) async fn events(
    State(shared): State<Shared>,
    caller: Caller,
    Path(names): Path<(String, String, String, String)>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Failure> {
    let app = parse(&names.0)?;
    let found = found(&shared, &caller, names).await?;
    caller.lasts()?;
    let follow = shared.0.platform.follow_run(&found.id).await;
    let follow = follow.map_err(|error| shared.failure(error))?;
    Ok(progress(&shared, caller, app, follow, &headers))
}
