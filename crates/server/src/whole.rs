//! What writes is done whole and once: it goes on when its client is gone, and a request that is
//! sent twice with one `Idempotency-Key` is done once.

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use jiff::Timestamp;
use tolv_api::Code;
use tolv_model::slug::Digest;
use tolv_platform::Error;
use tolv_store::Idempotent;

use crate::auth::Caller;
use crate::error::Failure;
use crate::extract::read_body;
use crate::{BODY, Shared};

/// Most characters of a key.
const KEY: usize = 255;

/// The layer around every handler of the API.
pub(crate) async fn finish(State(shared): State<Shared>, request: Request, next: Next) -> Response {
    if matches!(*request.method(), Method::GET | Method::HEAD) {
        return next.run(request).await;
    }
    // Before anything of it is recorded: nothing was done, and the next platform does it.
    if shared.0.platform.is_leaving() {
        return shared.failure(Error::Stopping).into_response();
    }
    let tasks = shared.0.tasks.clone();
    let done = tasks.spawn(async move {
        match once(shared, request, next).await {
            Ok(response) => response,
            Err(failure) => failure.into_response(),
        }
    });
    match done.await {
        Ok(response) => response,
        Err(_) => Failure::new(Code::Internal, "the request failed").into_response(),
    }
}

async fn once(shared: Shared, request: Request, next: Next) -> Result<Response, Failure> {
    let Some(key) = request.headers().get("idempotency-key") else {
        return Ok(next.run(request).await);
    };
    let key = key.to_str().ok().filter(|key| !key.is_empty() && key.len() <= KEY);
    let key = key.ok_or_else(|| Failure::invalid("Idempotency-Key is not 1 to 255 letters"))?;
    let caller = Caller::of(request.headers(), &shared).await?;
    // Before the key is taken: what is refused for now is not the answer for ever.
    let (key, caller) = (key.to_owned(), caller.counted(request.extensions(), &shared)?);
    let (parts, body) = request.into_parts();
    let request = Request::from_parts(parts.clone(), body);
    let body = read_body(request, &shared).await?;
    let text = [parts.method.as_str(), " ", &parts.uri.to_string(), "\n"].concat();
    let fingerprint = Digest::of(&[text.as_bytes(), &body].concat());
    let store = shared.0.platform.store();
    let token = &caller.token.id;
    let begun = store.idempotent_begin(token, &key, &fingerprint, Timestamp::now()).await;
    match begun.map_err(|error| shared.failure(error))? {
        Idempotent::Fresh => {}
        Idempotent::Done { status, body } => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
            let mut response = (status, body).into_response();
            let json = HeaderValue::from_static("application/json");
            response.headers_mut().insert(header::CONTENT_TYPE, json);
            return Ok(response);
        }
        Idempotent::Running => {
            return Err(Failure::new(Code::Refused, "the first request with this key goes on"));
        }
        Idempotent::Mismatch => {
            return Err(Failure::new(Code::KeyReused, "this key came with another request before"));
        }
    }
    let response = next.run(Request::from_parts(parts, Body::from(body))).await;
    if response.extensions().get::<Code>() == Some(&Code::Stopping) {
        // Nothing was done: whoever sends it again has it done by the next platform.
        store.idempotent_forget(token, &key).await.map_err(|error| shared.failure(error))?;
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, BODY).await.map_err(|error| {
        Failure::new(Code::Internal, format!("it is done, but its answer cannot be kept: {error}"))
    })?;
    let text = String::from_utf8_lossy(&body);
    let ended = store.idempotent_end(token, &key, parts.status.as_u16(), &text).await;
    ended.map_err(|error| shared.failure(error))?;
    Ok(Response::from_parts(parts, Body::from(body)))
}
