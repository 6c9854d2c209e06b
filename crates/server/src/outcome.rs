//! The outcome of each line of the audit log: a refused act and a done one are not the same.
//!
//! An act is recorded before it is tried, so that nothing is done without a line; its outcome is
//! recorded afterwards. A line without one is of an act that the platform did not see the end of.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use tolv_api::Code;
use tolv_model::id::AuditId;

use crate::Shared;

/// The lines that one request added to the audit log.
#[derive(Clone, Debug, Default)]
pub(crate) struct AuditLines(Arc<Mutex<Vec<AuditId>>>);

impl AuditLines {
    pub(crate) fn push(&self, id: AuditId) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(id);
    }

    /// Records the outcome of the lines that have none yet.
    pub(crate) async fn record(&self, shared: &Shared, outcome: &str) {
        let ids = mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for id in ids {
            if let Err(error) = shared.0.platform.store().set_audit_outcome(&id, outcome).await {
                (shared.0.on_fault)(format!("cannot record the outcome of {id}: {error}"));
            }
        }
    }
}

/// The layer around every handler of the API that records outcomes.
pub(crate) async fn record(
    State(shared): State<Shared>,
    mut request: Request,
    next: Next,
) -> Response {
    let lines = AuditLines::default();
    request.extensions_mut().insert(lines.clone());
    let response = next.run(request).await;
    lines.record(&shared, &outcome(&response)).await;
    response
}

fn outcome(response: &Response) -> String {
    let status = response.status();
    let word = match status {
        StatusCode::ACCEPTED => return "accepted".to_owned(),
        status if status.is_success() => return "done".to_owned(),
        status if status.is_server_error() => "failed",
        _ => "refused",
    };
    let code = response.extensions().get::<Code>();
    let code = code.and_then(|code| serde_json::to_value(code).ok());
    match code.as_ref().and_then(serde_json::Value::as_str) {
        Some(code) => format!("{word}: {code}"),
        None => format!("{word}: {}", status.as_u16()),
    }
}
