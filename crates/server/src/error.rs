//! Errors as problem documents.

use axum::extract::OriginalUri;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use tolv_api::problem::MEDIA_TYPE;
use tolv_api::{Code, Problem};
use tolv_model::shortage::Shortage;
use tolv_platform::{Error, Kind};

use crate::Shared;

/// An error on its way to the client.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) Box<Problem>);

impl Failure {
    pub(crate) fn new(code: Code, detail: impl Into<String>) -> Self {
        Self(Box::new(Problem::new(code, detail)))
    }

    pub(crate) fn invalid(error: impl ToString) -> Self {
        Self::new(Code::Invalid, error.to_string())
    }

    pub(crate) fn hint(self, hint: &str) -> Self {
        Self(Box::new(self.0.with_hint(Some(hint.to_owned()))))
    }

    pub(crate) fn not_found(what: &str, name: &str) -> Self {
        Self::new(Code::NotFound, format!("there is no {what} `{name}`"))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let problem = *self.0;
        let code = problem.code;
        let status =
            StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        match code {
            Code::Unavailable | Code::Stopping | Code::TooManyRequests => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            Code::Unauthorized => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response.extensions_mut().insert(code);
        response
    }
}

impl Shared {
    /// What a client is told of an error; a fault of ours is told to the operator instead.
    pub(crate) fn failure(&self, error: impl Into<Error>) -> Failure {
        let error = match error.into() {
            Error::Store(error) => {
                let store = self.0.platform.store();
                store.note_failure(&error);
                Error::Store(store.explain(error))
            }
            error => error,
        };
        let code = match error.kind() {
            // Nothing was done: whoever asks again asks the next platform.
            _ if matches!(error, Error::Stopping) => Code::Stopping,
            Kind::Invalid => Code::Invalid,
            Kind::NotFound => Code::NotFound,
            Kind::Exists => Code::Exists,
            Kind::Conflict => Code::Conflict,
            Kind::Refused => Code::Refused,
            Kind::Unavailable | Kind::Exhausted => Code::Unavailable,
            Kind::Full => Code::Full,
            Kind::Timeout => Code::Timeout,
            Kind::Internal => Code::Internal,
        };
        if code == Code::Internal {
            (self.0.on_fault)(error.chain());
            return Failure::new(code, "the operator finds the cause in the platform's output");
        }
        let mut detail = error.chain();
        if code == Code::Full && !detail.starts_with("the disk of the ") {
            let fault = error.disk_fault().unwrap_or(Shortage::DiskSpace);
            detail = format!("{fault}: {detail}");
        }
        Failure(Box::new(Problem::new(code, detail).with_hint(error.hint())))
    }
}

pub(crate) async fn not_found(OriginalUri(uri): OriginalUri) -> Failure {
    Failure::new(Code::NotFound, format!("there is nothing at `{}`", uri.path()))
}

pub(crate) async fn not_allowed(OriginalUri(uri): OriginalUri) -> Failure {
    Failure::new(Code::MethodNotAllowed, format!("`{}` has no such method", uri.path()))
}
