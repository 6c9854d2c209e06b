//! What the running platform holds and lacks.

use axum::Json;
use axum::extract::State;
use tolv_api::{Health, PlatformCheck, PlatformStatus};
use tolv_model::access::Act;
use tolv_platform::Check;

use crate::Shared;
use crate::error::Failure;
use crate::observer::Observer;

/// For whoever may do everything to the platform.
pub(crate) async fn status(
    State(shared): State<Shared>,
    Observer(caller): Observer,
) -> Result<Json<PlatformStatus>, Failure> {
    if !caller.is_operator(&shared) {
        caller.may(Act::Own, None).map_err(|failure| {
            failure.hint("a token with the role admin for all apps may see how the platform is")
        })?;
    }
    let found = shared.0.platform.status().await;
    Ok(Json(PlatformStatus {
        state: health(tolv_platform::worst(&found.checks)),
        version: found.version.to_owned(),
        pid: found.pid,
        uptime_seconds: found.uptime.as_secs(),
        checks: found.checks.into_iter().map(check).collect(),
    }))
}

fn health(health: tolv_platform::Health) -> Health {
    match health {
        tolv_platform::Health::Ok => Health::Ok,
        tolv_platform::Health::Warn => Health::Warn,
        tolv_platform::Health::Fail => Health::Fail,
    }
}

fn check(found: Check) -> PlatformCheck {
    PlatformCheck {
        name: found.name.to_owned(),
        state: health(found.health),
        summary: found.summary,
        facts: found.facts,
    }
}
