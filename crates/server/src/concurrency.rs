//! How many requests of one token, and of one app, are under way at once, so that nobody has all
//! connections.
//!
//! | what | bound |
//! |---|---|
//! | requests that last: logs and events that are followed, outputs that are waited for, pushes, fetches | one [`LASTING_PART`]th of the connections, [`MIN_LASTING`] at least |
//! | all requests, until their answers were taken | twice as many |
//! | those of all tokens of one app | one [`APP_PART`]th of the connections, at least as many as of one token |
//! | those of all tokens that may not administrate the platform | [`COMMON`] of the connections |
//!
//! What is left is for those who administrate it, however many tokens others have. Tokens are told
//! apart by their ids: names are no secret and need not be different. A request of a token for
//! several apps counts for each of them.

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
use tolv_model::access::{Act, Grant, GrantedApps};
use tolv_model::id::TokenId;
use tolv_model::name::AppName;

use crate::error::Failure;

/// One in so many connections may be a lasting request of one token.
const LASTING_PART: usize = 16;
/// Lasting requests that a token may have, however few connections there are.
const MIN_LASTING: usize = 16;
/// Requests of any kind that a token may have for each lasting one.
const ALL_PER_LASTING: usize = 2;

/// One in so many connections may be a request for one app, whichever of its tokens it has.
const APP_PART: usize = 4;
/// Of the connections, those that may be requests of anybody but the platform's administrators.
const COMMON: (usize, usize) = (3, 4);

/// The requests that are under way.
#[derive(Debug)]
pub(crate) struct Requests {
    max_lasting: usize,
    max_of_app: usize,
    max_common: usize,
    open: Mutex<All>,
}

#[derive(Debug, Default)]
struct All {
    of_tokens: HashMap<TokenId, Open>,
    of_apps: HashMap<AppName, usize>,
    common: usize,
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
        let max_of_app = (connections / APP_PART).max(max_lasting * ALL_PER_LASTING);
        let max_common = connections * COMMON.0 / COMMON.1;
        Self { max_lasting, max_of_app, max_common, open: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, All> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request that is counted, until this is dropped.
#[derive(Debug)]
struct Counted {
    requests: Arc<Requests>,
    token: TokenId,
    grant: Grant,
    is_lasting: bool,
}

/// The apps that a grant names.
fn apps(grant: &Grant) -> impl Iterator<Item = &AppName> {
    let named = match &grant.apps {
        GrantedApps::All => None,
        GrantedApps::Only(apps) => Some(apps),
    };
    named.into_iter().flatten()
}

/// Whether it counts against what everybody has in common.
fn is_common(grant: &Grant) -> bool {
    !grant.allows(Act::Own, None)
}

impl Counted {
    fn new(requests: &Arc<Requests>, token: &TokenId, grant: &Grant) -> Result<Self, Failure> {
        let most = requests.max_lasting * ALL_PER_LASTING;
        let mut open = requests.lock();
        if open.of_tokens.get(token).is_some_and(|of_token| of_token.all >= most) {
            return Err(too_many(&format!("{most} requests of this token are under way")));
        }
        let most = requests.max_of_app;
        let is_full = |app: &&AppName| open.of_apps.get(*app).is_some_and(|count| *count >= most);
        if let Some(app) = apps(grant).find(is_full) {
            let detail = format!("{most} requests of tokens for the app {app} are under way");
            return Err(Failure::new(Code::TooManyRequests, detail).hint("end some of them"));
        }
        let most = requests.max_common;
        if is_common(grant) {
            if open.common >= most {
                let detail = format!("{most} requests are under way, which is all but the reserve");
                return Err(Failure::new(Code::TooManyRequests, detail).hint("ask again later"));
            }
            open.common += 1;
        }
        open.of_tokens.entry(token.clone()).or_default().all += 1;
        for app in apps(grant) {
            *open.of_apps.entry(app.clone()).or_default() += 1;
        }
        let (requests, token, grant) = (Arc::clone(requests), token.clone(), grant.clone());
        Ok(Self { requests, token, grant, is_lasting: false })
    }

    fn make_lasting(&mut self) -> Result<(), Failure> {
        let most = self.requests.max_lasting;
        if self.is_lasting {
            return Ok(());
        }
        if let Some(open) = self.requests.lock().of_tokens.get_mut(&self.token) {
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
        if let Some(open) = all.of_tokens.get_mut(&self.token) {
            open.all -= 1;
            open.lasting -= usize::from(self.is_lasting);
            if open.all == 0 {
                all.of_tokens.remove(&self.token);
            }
        }
        for app in apps(&self.grant) {
            if let Some(count) = all.of_apps.get_mut(app) {
                *count -= 1;
                if *count == 0 {
                    all.of_apps.remove(app);
                }
            }
        }
        all.common -= usize::from(is_common(&self.grant));
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

    /// Counts the request, once. Refused where the token, its app or everybody has as many as they may.
    pub(crate) fn count(
        &self,
        requests: &Arc<Requests>,
        token: &TokenId,
        grant: &Grant,
    ) -> Result<(), Failure> {
        let mut slot = self.lock();
        if slot.is_none() {
            *slot = Some(Counted::new(requests, token, grant)?);
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
    use tolv_model::access::Role;

    use super::*;

    fn token(number: u64) -> TokenId {
        TokenId::new(Timestamp::now(), number)
    }

    fn of_app(app: &str) -> Grant {
        let app: AppName = app.parse().unwrap();
        Grant { role: Role::Admin, apps: app.into() }
    }

    fn everywhere(role: Role) -> Grant {
        Grant { role, apps: GrantedApps::All }
    }

    #[test]
    fn a_token_has_its_part_and_what_ends_is_not_counted() {
        let (one, other) = (token(1), token(2));
        let requests = Arc::new(Requests::new(1024));
        let grant = everywhere(Role::Admin);
        let slots: Vec<_> = (0..128).map(|_| Slot::default()).collect();
        for (n, slot) in slots.iter().enumerate() {
            slot.count(&requests, &one, &grant).unwrap();
            slot.count(&requests, &one, &grant).unwrap();
            assert_eq!(slot.make_lasting().is_ok(), n < 64, "{n}");
        }
        let next = Slot::default();
        assert_eq!(next.count(&requests, &one, &grant).unwrap_err().0.status, 429);
        next.count(&requests, &other, &grant).unwrap();
        next.make_lasting().unwrap();
        drop(slots);
        Slot::default().count(&requests, &one, &grant).unwrap();
        drop(next);
        assert!(requests.lock().of_tokens.is_empty());
        assert_eq!(Requests::new(8).max_lasting, 16);
    }

    /// As many of `count` requests as are let through, each with a token of its own.
    fn taken(requests: &Arc<Requests>, first: u64, count: u64, grant: &Grant) -> Vec<Slot> {
        let slots = (first..first + count).map(|number| {
            let slot = Slot::default();
            slot.count(requests, &token(number), grant).ok().map(|()| slot)
        });
        slots.flatten().collect()
    }

    #[test]
    fn many_tokens_of_an_app_have_the_part_of_one_app() {
        let requests = Arc::new(Requests::new(1024));
        let slots = taken(&requests, 0, 1000, &of_app("shop"));
        assert_eq!(slots.len(), 256);
        let both = ["shop", "blog"].map(|app| app.parse().unwrap());
        let both = Grant { role: Role::View, apps: GrantedApps::Only(both.into()) };
        assert!(taken(&requests, 1000, 1, &both).is_empty(), "it is a token of that app too");
        assert_eq!(taken(&requests, 2000, 1, &of_app("blog")).len(), 1);
        drop(slots);
        assert_eq!(taken(&requests, 3000, 1, &both).len(), 1);
        let open = requests.lock();
        assert!(open.of_apps.is_empty() && open.of_tokens.is_empty() && open.common == 0);
    }

    #[test]
    fn administrators_of_the_platform_have_a_reserve() {
        let requests = Arc::new(Requests::new(1024));
        let viewers = taken(&requests, 0, 2000, &everywhere(Role::View));
        assert_eq!(viewers.len(), 768);
        assert!(taken(&requests, 3000, 1, &of_app("shop")).is_empty());
        assert_eq!(taken(&requests, 4000, 100, &everywhere(Role::Admin)).len(), 100);
        drop(viewers);
        assert_eq!(taken(&requests, 5000, 1, &of_app("shop")).len(), 1);
    }
}
