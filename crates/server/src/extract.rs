//! What handlers take from a request, with problem documents for what cannot be taken.

use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tolv_api::{Code, Page};
use tolv_model::name::{AppName, Deploy as DeployPath, DeployName};
use tolv_store::Listed;

use crate::error::Failure;
use crate::listen::is_timeout;

/// Things on a page where nothing is said, and at most.
const LIMIT: (usize, usize) = (50, 200);
/// Bytes of a page, as JSON.
const PAGE_BYTES: usize = 1 << 20;

/// A JSON body, said to be one; an empty one is `{}`.
///
/// A form of another site can send what only looks like JSON, and cannot say that it is.
pub(crate) struct Body<T>(pub(crate) T);

/// A body of plain bytes, said to be one.
pub(crate) struct Octets(pub(crate) Bytes);

const JSON: &str = "application/json";
const OCTETS: &str = "application/octet-stream";

/// The whole body, which has this media type where there is one.
async fn bytes<S: Send + Sync>(request: Request, state: &S, kind: &str) -> Result<Bytes, Failure> {
    let said = request.headers().get(header::CONTENT_TYPE).cloned();
    let bytes = read_body(request, state).await?;
    let said = said.as_ref().and_then(|said| said.to_str().ok()).unwrap_or_default();
    let said = said.split(';').next().unwrap_or_default().trim();
    if !bytes.is_empty() && !said.eq_ignore_ascii_case(kind) {
        let detail = format!("the body is to have the content type {kind}");
        return Err(Failure::new(Code::UnsupportedMediaType, detail));
    }
    Ok(bytes)
}

/// Reads a whole body, of whatever media type.
pub(crate) async fn read_body<S: Send + Sync>(
    request: Request,
    state: &S,
) -> Result<Bytes, Failure> {
    Bytes::from_request(request, state).await.map_err(|error| match error {
        error if error.status() == StatusCode::PAYLOAD_TOO_LARGE => {
            Failure::new(Code::TooLarge, "the body has more than 1 MiB")
        }
        error if is_timeout(&error) => {
            Failure::new(Code::Timeout, "the body did not arrive in time")
        }
        BytesRejection::FailedToBufferBody(_) | _ => Failure::invalid("the body was cut off"),
    })
}

impl<S: Send + Sync> FromRequest<S> for Octets {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        bytes(request, state, OCTETS).await.map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        let bytes = bytes(request, state, JSON).await?;
        let text = if bytes.is_empty() { b"{}".as_slice() } else { &bytes };
        serde_json::from_slice(text)
            .map(Self)
            .map_err(|error| Failure::invalid(format!("the body is not what this takes: {error}")))
    }
}

/// The parts of a path, and a problem document where they are no text.
pub(crate) struct Path<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path = axum::extract::Path::<T>::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(parts)| Self(parts)).map_err(|error| {
            let detail =
                format!("the path `{}` is not text: {}", parts.uri.path(), error.body_text());
            Failure::invalid(detail)
        })
    }
}

/// A query that takes what its type has, and a problem document where it does not.
pub(crate) struct Params<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let query = Query::<T>::from_request_parts(parts, state).await;
        query.map(|Query(asked)| Self(asked)).map_err(|error| Failure::invalid(error.body_text()))
    }
}

/// The query of a list.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    limit: Option<usize>,
    cursor: Option<String>,
    app: Option<String>,
}

/// Which page of a list.
pub(crate) struct Paging {
    pub(crate) limit: usize,
    cursor: Option<String>,
    pub(crate) app: Option<AppName>,
}

impl<S: Send + Sync> FromRequestParts<S> for Paging {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Params(asked) = Params::<Asked>::from_request_parts(parts, state).await?;
        let limit = asked.limit.unwrap_or(LIMIT.0);
        if !(1..=LIMIT.1).contains(&limit) {
            return Err(Failure::invalid(format!("limit is not from 1 to {}", LIMIT.1)));
        }
        let app = asked.app.map(|app| parse(&app)).transpose()?;
        Ok(Self { limit, cursor: asked.cursor, app })
    }
}

impl Paging {
    /// The cursor as what the list is sorted by.
    pub(crate) fn cursor<T: FromStr<Err: ToString>>(&self) -> Result<Option<T>, Failure> {
        self.cursor.as_deref().map(parse).transpose()
    }

    /// A page. One that would be larger than [`PAGE_BYTES`] ends before that, behind one item at least.
    pub(crate) fn page<T, U: Serialize>(
        &self,
        listed: Listed<T>,
        cursor: impl Fn(&T) -> String,
        convert: impl Fn(T) -> U,
    ) -> Page<U> {
        let Listed { mut items, mut more } = listed;
        more |= items.len() > self.limit;
        items.truncate(self.limit);
        let (mut page, mut next, mut bytes) = (Vec::new(), None, 0);
        for item in items {
            let place = cursor(&item);
            let item = convert(item);
            bytes += serde_json::to_vec(&item).map_or(0, |json| json.len());
            if bytes > PAGE_BYTES && !page.is_empty() {
                more = true;
                break;
            }
            next = Some(place);
            page.push(item);
        }
        Page { items: page, next: next.filter(|_| more) }
    }
}

/// A name in a request.
pub(crate) fn parse<T: FromStr<Err: ToString>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(Failure::invalid)
}

/// The two names of a deploy's address.
pub(crate) fn path(app: &str, deploy: &str) -> Result<DeployPath, Failure> {
    Ok(DeployPath { app: parse::<AppName>(app)?, name: parse::<DeployName>(deploy)? })
}
