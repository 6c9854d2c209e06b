//! Who asks how the platform is. That has to be told also while its database is away, which knows the
//! tokens: then a token counts as what it was when the database answered last. Nothing can revoke one
//! meanwhile.
//!
//! On the machine itself the token in the state folder is enough, as it is for a `tolv up`.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use jiff::Timestamp;
use tokio::time::timeout;
use tolv_api::Code;
use tolv_model::access::{Grant, GrantedApps, Role};
use tolv_model::id::TokenId;
use tolv_model::slug::Digest;
use tolv_platform::token_hash;
use tolv_store::Token;

use crate::Shared;
use crate::auth::{Caller, bearer};
use crate::error::Failure;

/// For the database to know a token: one that was seen before, and another.
const KNOWN_TIMEOUT: Duration = Duration::from_millis(200);
const TOKEN_TIMEOUT: Duration = Duration::from_millis(800);
/// Tokens that are remembered; those of a few monitors are wanted.
const MAX_KNOWN: usize = 64;

/// Whoever sent a request about the platform itself with a valid token.
pub(crate) struct Observer(pub(crate) Caller);

/// Tokens that were valid when they were seen last, the oldest first.
#[derive(Default)]
pub(crate) struct KnownTokens(Mutex<VecDeque<(Digest, Token)>>);

impl KnownTokens {
    fn lock(&self) -> MutexGuard<'_, VecDeque<(Digest, Token)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, hash: &Digest) -> Option<Token> {
        self.lock().iter().find(|(known, _)| known == hash).map(|(_, token)| token.clone())
    }

    /// A token that is revoked is not what it was when it was seen last.
    pub(crate) fn forget(&self, id: &str) {
        self.lock().retain(|(_, token)| token.id.as_str() != id);
    }

    /// What the database says of a token now.
    fn set(&self, hash: Digest, token: Option<&Token>) {
        let mut known = self.lock();
        known.retain(|(other, _)| *other != hash);
        let Some(token) = token else { return };
        if known.len() >= MAX_KNOWN {
            known.pop_front();
        }
        known.push_back((hash, token.clone()));
    }
}

/// Whoever can read the state folder.
fn operator() -> Token {
    Token {
        id: TokenId::new(Timestamp::now(), 0),
        name: "operator".to_owned(),
        grant: Grant { role: Role::Admin, apps: GrantedApps::All },
        created: Timestamp::now(),
        expires: None,
    }
}

impl FromRequestParts<Shared> for Observer {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Failure> {
        let none = |detail: &str| Failure::new(Code::Unauthorized, detail);
        let inner = &shared.0;
        if inner.local.is_some() {
            return Caller::of(&parts.headers, shared).await.map(Self);
        }
        let text = bearer(&parts.headers).ok_or_else(|| none("the request has no token"))?;
        let hash = token_hash(&text);
        let token = match inner.home_token.get() {
            Some(own) if *own == hash => operator(),
            _ => find(shared, hash).await?.ok_or_else(|| none("the token is not valid"))?,
        };
        if token.expires.is_some_and(|expires| expires <= Timestamp::now()) {
            return Err(none("the token has expired"));
        }
        Ok(Self(Caller::of_token(token)))
    }
}

async fn find(shared: &Shared, hash: Digest) -> Result<Option<Token>, Failure> {
    let (inner, known) = (&shared.0, shared.0.known_tokens.get(&hash));
    if known.is_some() && inner.platform.is_database_silent() {
        return Ok(known);
    }
    let limit = if known.is_some() { KNOWN_TIMEOUT } else { TOKEN_TIMEOUT };
    match timeout(limit, inner.platform.store().token_by_hash(&hash)).await {
        Ok(Ok(found)) => {
            let found = shared.valid_token(found).await;
            inner.known_tokens.set(hash, found.as_ref());
            Ok(found)
        }
        Ok(Err(error)) if !error.is_unavailable() => Err(shared.failure(error)),
        Ok(Err(_)) | Err(_) if known.is_some() => Ok(known),
        Ok(Err(_)) | Err(_) => {
            let detail =
                "the database does not answer, and this token was not used for this before";
            let hint = "on the machine of the platform, as its user: tolv status --platform";
            Err(Failure::new(Code::Unavailable, detail).hint(hint))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_remembered_and_forgotten() {
        let known = KnownTokens::default();
        let hash = |number: usize| Digest::of(number.to_string().as_bytes());
        for number in 0..=MAX_KNOWN {
            known.set(hash(number), Some(&operator()));
            known.set(hash(number), Some(&operator()));
        }
        assert!(known.get(&hash(0)).is_none(), "there are more than may be");
        assert!(known.get(&hash(1)).is_some());
        known.set(hash(1), None);
        assert!(known.get(&hash(1)).is_none(), "it was revoked");
        assert_eq!(known.lock().len(), MAX_KNOWN - 1);
        let id = known.get(&hash(2)).unwrap().id;
        known.forget(id.as_str());
        assert!(known.lock().iter().all(|(_, token)| token.id != id));
    }
}
