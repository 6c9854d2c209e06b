//! What is measured, for Prometheus.

use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use tolv_model::access::Act;
use tolv_platform::METRICS_TYPE;

use crate::Shared;
use crate::error::Failure;
use crate::observer::Observer;

/// Of every app: the token must be for all of them.
pub(crate) async fn serve(
    State(shared): State<Shared>,
    Observer(caller): Observer,
) -> Result<Response, Failure> {
    caller.may(Act::View, None)?;
    let mut response = shared.0.platform.metrics().await.into_response();
    let kind = HeaderValue::from_static(METRICS_TYPE);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
