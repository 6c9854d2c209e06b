//! What the running platform holds and lacks.

use axum::Json;
use axum::extract::State;
use tolv_api::{PlatformCheck, PlatformStatus};
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
        state: tolv_platform::worst(&found.checks),
        version: found.version.to_owned(),
        pid: found.pid,
        uptime_seconds: found.uptime.as_secs(),
        checks: found.checks.into_iter().map(check).collect(),
    }))
}

fn check(found: Check) -> PlatformCheck {
    PlatformCheck {
        name: found.name.to_owned(),
        state: found.health,
        summary: found.summary,
        facts: found.facts,
    }
}
