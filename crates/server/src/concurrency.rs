//! How many requests of one token are under way at once, so that nobody has all connections.
//!
//! | what | bound |
//! |---|---|
//! | requests that last: logs and events that are followed, outputs that are waited for, pushes, fetches | one [`LASTING_PART`]th of the connections, [`MIN_LASTING`] at least |
//! | all requests, until their answers were taken | twice as many |
//!
//! Tokens are told apart by their ids: names are no secret and need not be different.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes, HttpBody};
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use hyper::body::{Frame, SizeHint};
use tolv_api::Code;
use tolv_model::id::TokenId;

use crate::error::Failure;

/// One in so many connections may be a lasting request of one token.
const LASTING_PART: usize = 16;
/// Lasting requests that a token may have, however few connections there are.
const MIN_LASTING: usize = 16;
/// Requests of any kind that a token may have for each lasting one.
const ALL_PER_LASTING: usize = 2;

/// The requests that are under way.
#[derive(Debug)]
pub(crate) struct Requests {
    max_lasting: usize,
    open: Mutex<HashMap<TokenId, Open>>,
}

/// Those of one token.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    all: usize,
    lasting: usize,
}

impl Requests {
    pub(crate) fn new(connections: usize) -> Self {
        let max_lasting = (connections / LASTING_PART).max(MIN_LASTING);
        Self { max_lasting, open: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TokenId, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request that is counted, until this is dropped.
#[derive(Debug)]
struct Counted {
    requests: Arc<Requests>,
    token: TokenId,
    is_lasting: bool,
}

impl Counted {
    fn new(requests: &Arc<Requests>, token: &TokenId) -> Result<Self, Failure> {
        let most = requests.max_lasting * ALL_PER_LASTING;
        let mut open = requests.lock();
        let of_token = open.entry(token.clone()).or_default();
        if of_token.all >= most {
            return Err(too_many(&format!("{most} requests of this token are under way")));
        }
        of_token.all += 1;
        Ok(Self { requests: Arc::clone(requests), token: token.clone(), is_lasting: false })
    }

    fn make_lasting(&mut self) -> Result<(), Failure> {
        let most = self.requests.max_lasting;
        if self.is_lasting {
            return Ok(());
        }
        if let Some(open) = self.requests.lock().get_mut(&self.token) {
            if open.lasting >= most {
                return Err(too_many(&format!(
                    "{most} requests of this token that last are under way: it follows logs or \
                     operations, waits for output of runs, pushes or fetches"
                )));
            }
            open.lasting += 1;
        }
        self.is_lasting = true;
        Ok(())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.requests.lock();
        if let Some(open) = all.get_mut(&self.token) {
            open.all -= 1;
            open.lasting -= usize::from(self.is_lasting);
            if open.all == 0 {
                all.remove(&self.token);
            }
        }
    }
}

fn too_many(detail: &str) -> Failure {
    Failure::new(Code::TooManyRequests, detail)
        .hint("end some of them, or use a token of its own for each program")
}

/// Where a request is counted as soon as its token is known, until its answer was taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct Slot(Arc<Mutex<Option<Counted>>>);

impl Slot {
    fn lock(&self) -> MutexGuard<'_, Option<Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts the request, once. Refused where the token has as many as it may.
    pub(crate) fn count(&self, requests: &Arc<Requests>, token: &TokenId) -> Result<(), Failure> {
        let mut slot = self.lock();
        if slot.is_none() {
            *slot = Some(Counted::new(requests, token)?);
        }
        Ok(())
    }

    /// Counts the request as one that lasts. Refused where the token has as many as it may.
    pub(crate) fn make_lasting(&self) -> Result<(), Failure> {
        self.lock().as_mut().map_or(Ok(()), Counted::make_lasting)
    }
}

/// The layer around every address that gives each request its slot.
pub(crate) async fn hold(mut request: Request, next: Next) -> Response {
    let slot = Slot::default();
    request.extensions_mut().insert(slot.clone());
    let response = next.run(request).await;
    response.map(|body| Body::new(Held { body, _slot: slot }))
}

/// An answer's body; its request is under way until it was taken.
struct Held {
    body: Body,
    _slot: Slot,
}

impl HttpBody for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[test]
    fn a_token_has_its_part_and_what_ends_is_not_counted() {
        let (one, other) = (TokenId::new(Timestamp::now(), 1), TokenId::new(Timestamp::now(), 2));
        let requests = Arc::new(Requests::new(1024));
        let slots: Vec<_> = (0..128).map(|_| Slot::default()).collect();
        for (n, slot) in slots.iter().enumerate() {
            slot.count(&requests, &one).unwrap();
            slot.count(&requests, &one).unwrap();
            assert_eq!(slot.make_lasting().is_ok(), n < 64, "{n}");
        }
        let next = Slot::default();
        assert_eq!(next.count(&requests, &one).unwrap_err().0.status, 429);
        next.count(&requests, &other).unwrap();
        next.make_lasting().unwrap();
        drop(slots);
        Slot::default().count(&requests, &one).unwrap();
        drop(next);
        assert!(requests.lock().is_empty());
        assert_eq!(Requests::new(8).max_lasting, 16);
    }
}
