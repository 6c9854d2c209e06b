//! Who asks, and what they may do.

use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use tokio::time::sleep;
use tolv_api::Code;
use tolv_model::access::Act;
use tolv_model::name::{AppName, Deploy as DeployPath};
use tolv_platform::{Actor, token_hash};
use tolv_store::{StoredToken, Token};

use crate::Shared;
use crate::concurrency::Slot;
use crate::error::Failure;
use crate::outcome::AuditLines;

/// Between two looks whether the token of a stream is still valid.
const TOKEN_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// Whoever sent a request with a valid token.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    pub(crate) token: Token,
    /// What the request adds to the audit log.
    pub(crate) lines: AuditLines,
    slot: Slot,
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shared: &Shared) -> Result<Self, Failure> {
        let lines = parts.extensions.get::<AuditLines>().cloned().unwrap_or_default();
        let caller = Self::of(&parts.headers, shared).await?;
        Ok(Self { lines, ..caller.counted(&parts.extensions, shared)? })
    }
}

/// What is recorded on a full disk too: it frees disk space, memory or access.
const FREES_SPACE: [&str; 14] = [
    "app.destroy",
    "deploy.destroy",
    "deploy.limits",
    "deploy.restart",
    "deploy.rollback",
    "deploy.scale",
    "deploy.start",
    "deploy.stop",
    "drain.remove",
    "ledger.accept",
    "operation.cancel",
    "run.signal",
    "run.stop",
    "token.revoke",
];

impl Shared {
    /// The token that was found. One that was changed outside of the platform is none, and reported.
    pub(crate) async fn valid_token(&self, found: Option<StoredToken>) -> Option<Token> {
        match found? {
            StoredToken::Valid(token) => Some(token),
            StoredToken::Forged(forged) => {
                self.0.platform.report_forged_token(&forged).await;
                None
            }
        }
    }
}

impl Caller {
    /// Whose bearer token the headers have.
    pub(crate) async fn of(headers: &HeaderMap, shared: &Shared) -> Result<Self, Failure> {
        Self::with(bearer(headers), shared).await
    }

    /// Whose token the headers have, as git sends it too: as the password of Basic. Browsers send
    /// that by themselves, so nothing but git's protocol takes it.
    pub(crate) async fn of_git(headers: &HeaderMap, shared: &Shared) -> Result<Self, Failure> {
        Self::with(bearer(headers).or_else(|| password(headers)), shared).await
    }

    /// Counts the request among those of its token, which may have so many at once.
    pub(crate) fn counted(self, request: &Extensions, shared: &Shared) -> Result<Self, Failure> {
        let slot = request.get::<Slot>().cloned().unwrap_or_default();
        slot.count(&shared.0.requests, &self.token.id, &self.token.grant)?;
        Ok(Self { slot, ..self })
    }

    /// Counts the request among those that last, of which a token may have fewer at once.
    pub(crate) fn lasts(&self) -> Result<(), Failure> {
        self.slot.make_lasting()
    }

    /// Whose token this is, in a request that is not counted.
    pub(crate) fn of_token(token: Token) -> Self {
        Self { token, lines: AuditLines::default(), slot: Slot::default() }
    }

    async fn with(text: Option<String>, shared: &Shared) -> Result<Self, Failure> {
        let none = |detail: &str| Failure::new(Code::Unauthorized, detail);
        let text = text.ok_or_else(|| none("the request has no token"))?;
        let hash = token_hash(&text);
        if let Some(local) = &shared.0.local {
            return match local.hash == hash {
                true => Ok(Self::of_token(local.user.clone())),
                false => Err(none("the token is not valid")),
            };
        }
        let found = shared.0.platform.store().token_by_hash(&hash).await;
        let found = found.map_err(|error| shared.failure(error))?;
        let found = shared.valid_token(found).await;
        let token = found.ok_or_else(|| none("the token is not valid"))?;
        if token.expires.is_some_and(|expires| expires <= Timestamp::now()) {
            return Err(none("the token has expired"));
        }
        Ok(Self::of_token(token))
    }

    /// Refuses what the token does not allow. That another app exists is not told.
    pub(crate) fn may(&self, act: Act, app: Option<&AppName>) -> Result<(), Failure> {
        let grant = &self.token.grant;
        if grant.allows(act, app) {
            return Ok(());
        }
        if let Some(asked) = app
            && !grant.apps.contains(asked)
        {
            return Err(Failure::not_found("app", asked.as_str()));
        }
        let (role, apps) = (grant.role, &grant.apps);
        let detail = format!("a token with the role {role} for {apps} may not {}", act.as_str());
        Err(Failure::new(Code::Forbidden, detail))
    }

    /// As [`Caller::may`], for something that is known by its id alone: to whoever may not look at
    /// its app it is one that does not exist.
    pub(crate) fn may_with(
        &self,
        act: Act,
        app: &AppName,
        (what, id): (&str, &str),
    ) -> Result<(), Failure> {
        match self.token.grant.apps.contains(app) {
            true => self.may(act, Some(app)),
            false => Err(Failure::not_found(what, id)),
        }
    }

    /// Whether the caller may do everything to the platform, or is the user whose `tolv up` it is.
    pub(crate) fn is_operator(&self, shared: &Shared) -> bool {
        shared.0.local.is_some() || self.token.grant.allows(Act::Own, None)
    }

    /// Resolves once the token was revoked, has expired or no longer allows this: then what it
    /// follows ends.
    pub(crate) async fn loses(self, shared: Shared, act: Act, app: AppName) {
        if shared.0.local.is_some() {
            return std::future::pending().await;
        }
        let mut token = self.token;
        loop {
            let left = token.expires.map_or(TOKEN_CHECK_INTERVAL, |at| {
                Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
            });
            if left.is_zero() {
                return;
            }
            sleep(left.min(TOKEN_CHECK_INTERVAL)).await;
            match shared.0.platform.store().token(&token.id).await {
                Ok(Some(found)) if found.grant.allows(act, Some(&app)) => token = found,
                // What the token was is all that is known while the database is away.
                Err(error) if error.is_unavailable() => {}
                Ok(_) | Err(_) => return,
            }
        }
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

    /// Records what the caller is about to read of a deploy.
    pub(crate) async fn audit_read(
        &self,
        shared: &Shared,
        action: &str,
        path: &DeployPath,
        detail: &str,
    ) -> Result<(), Failure> {
        let platform = &shared.0.platform;
        platform.require_disk_space_for_audit().map_err(|error| shared.failure(error))?;
        let (actor, now) = (&self.token.name, Timestamp::now());
        let (app, deploy) = (path.app.as_str(), path.name.as_str());
        let noted = platform.store().audit_read(actor, action, app, deploy, detail, now).await;
        noted.map_err(|error| shared.failure(error))
    }

    /// Records what the caller is about to do.
    pub(crate) async fn note(
        &self,
        shared: &Shared,
        action: &str,
        (app, deploy): (Option<&str>, Option<&str>),
        detail: &str,
    ) -> Result<(), Failure> {
        let platform = &shared.0.platform;
        let checked = match action {
            action if FREES_SPACE.contains(&action) => platform.require_records(),
            // The push itself is refused with less than has to stay, in git's own words.
            "deploy.push" => platform.require_disk_space_for_audit(),
            _ => platform.require_disk_space(),
        };
        checked.map_err(|error| shared.failure(error))?;
        let store = platform.store();
        let noted =
            store.audit(&self.token.name, action, app, deploy, detail, Timestamp::now()).await;
        self.lines.push(noted.map_err(|error| shared.failure(error))?);
        Ok(())
    }
}

/// The credentials in `Authorization`, where they are of this scheme.
fn credentials<'a>(headers: &'a HeaderMap, scheme: &str) -> Option<&'a str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (found, rest) = value.split_once(' ')?;
    found.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

pub(crate) fn bearer(headers: &HeaderMap) -> Option<String> {
    credentials(headers, "bearer").map(str::to_owned)
}

fn password(headers: &HeaderMap) -> Option<String> {
    let decoded = STANDARD.decode(credentials(headers, "basic")?).ok()?;
    Some(String::from_utf8(decoded).ok()?.split_once(':')?.1.to_owned())
}
