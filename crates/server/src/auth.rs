//! Who asks, and what they may do.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use tolv_api::Code;
use tolv_model::access::Act;
use tolv_model::name::{AppName, Deploy as DeployPath};
use tolv_platform::{Actor, token_hash};
use tolv_store::Token;

use crate::Shared;
use crate::error::Failure;

/// Whoever sent a request with a valid token.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) token: Token,
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Failure> {
        Self::of(&parts.headers, shared).await
    }
}

impl Caller {
    /// Whose token the headers have.
    pub(crate) async fn of(headers: &HeaderMap, shared: &Shared) -> Result<Self, Failure> {
        if let Some(token) = &shared.0.everybody {
            return Ok(Self { token: token.clone() });
        }
        let none = |detail: &str| Failure::new(Code::Unauthorized, detail);
        let text = secret(headers).ok_or_else(|| none("the request has no token"))?;
        let found = shared.0.platform.store().token_by_hash(&token_hash(&text)).await;
        let found = found.map_err(|error| shared.failure(error))?;
        let token = found.ok_or_else(|| none("the token is not valid"))?;
        if token.expires.is_some_and(|expires| expires <= Timestamp::now()) {
            return Err(none("the token has expired"));
        }
        Ok(Self { token })
    }

    /// Refuses what the token does not allow. That another app exists is not told.
    pub(crate) fn may(&self, act: Act, app: Option<&AppName>) -> Result<(), Failure> {
        let grant = &self.token.grant;
        if grant.allows(act, app) {
            return Ok(());
        }
        if let (Some(own), Some(asked)) = (&grant.app, app)
            && own != asked
        {
            return Err(Failure::not_found("app", asked.as_str()));
        }
        let whose = match &grant.app {
            Some(app) => format!("for {app}"),
            None => "for all apps".to_owned(),
        };
        let detail =
            format!("a token with the role {} {whose} may not {}", grant.role, act.as_str());
        Err(Failure::new(Code::Forbidden, detail))
    }

    pub(crate) fn actor(&self) -> Actor {
        Actor { name: self.token.name.clone() }
    }

    /// Records what the caller is about to do to a deploy.
    pub(crate) async fn audit(
        &self,
        shared: &Shared,
        action: &str,
        path: &DeployPath,
        detail: &str,
    ) -> Result<(), Failure> {
        let names = (Some(path.app.as_str()), Some(path.name.as_str()));
        self.note(shared, action, names, detail).await
    }

    /// Records what the caller is about to do.
    pub(crate) async fn note(
        &self,
        shared: &Shared,
        action: &str,
        (app, deploy): (Option<&str>, Option<&str>),
        detail: &str,
    ) -> Result<(), Failure> {
        let store = shared.0.platform.store();
        let noted =
            store.audit(&self.token.name, action, app, deploy, detail, Timestamp::now()).await;
        noted.map_err(|error| shared.failure(error))
    }
}

/// The token in `Authorization`: a bearer's, or the password of Basic, which git sends.
fn secret(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, rest) = value.split_once(' ')?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Some(rest.trim().to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
    Some(decoded.split_once(':')?.1.to_owned())
}
