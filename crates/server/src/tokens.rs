//! Tokens and the audit log.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use tolv_api::{AuditLine, NewToken, Page, Token, TokenMade, Whoami};
use tolv_model::access::{Act, Grant};
use tolv_model::id::{AuditId, TokenId};

use crate::auth::Caller;
use crate::error::Failure;
use crate::extract::{Body, Paging, parse};
use crate::{Shared, convert};

/// Longest name of a token.
const NAME: usize = 60;

pub(crate) async fn whoami(caller: Caller) -> Json<Whoami> {
    let token = caller.token;
    Json(Whoami {
        name: token.name,
        role: token.grant.role.to_string(),
        app: token.grant.app.map(|app| app.to_string()),
        expires: token.expires,
    })
}

pub(crate) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    paging: Paging,
) -> Result<Json<Page<Token>>, Failure> {
    caller.may(Act::Own, None)?;
    let after = paging.cursor::<TokenId>()?;
    let found = shared.0.platform.store().tokens(after.as_ref(), paging.limit + 1).await;
    let found = found.map_err(|error| shared.failure(error))?;
    Ok(Json(paging.page(found, |token| token.id.to_string(), convert::token)))
}

pub(crate) async fn create(
    State(shared): State<Shared>,
    caller: Caller,
    Body(new): Body<NewToken>,
) -> Result<(StatusCode, Json<TokenMade>), Failure> {
    caller.may(Act::Own, None)?;
    let name = new.name.trim();
    if name.is_empty() || name.chars().count() > NAME || name.chars().any(char::is_control) {
        return Err(Failure::invalid(format!("a token's name has 1 to {NAME} characters")));
    }
    let app = new.app.as_deref().map(parse).transpose()?;
    let grant = Grant { role: parse(&new.role)?, app };
    if let Some(app) = &grant.app {
        let found = shared.0.platform.store().app(app).await;
        found.map_err(|error| shared.failure(error))?;
    }
    let now = Timestamp::now();
    let expires = match new.expires_in {
        None => None,
        Some(0) => return Err(Failure::invalid("the token would have expired already")),
        Some(seconds) => {
            let expires = now.checked_add(SignedDuration::from_secs(i64::from(seconds)));
            Some(expires.map_err(Failure::invalid)?)
        }
    };
    let detail = format!("{name}: {}", grant.role);
    let app = grant.app.as_ref().map(|app| app.as_str());
    caller.note(&shared, "token.create", (app, None), &detail).await?;
    let made = shared.0.platform.create_token(name, &grant, expires).await;
    let (token, secret) = made.map_err(|error| shared.failure(error))?;
    Ok((StatusCode::CREATED, Json(TokenMade { token: convert::token(token), secret })))
}

pub(crate) async fn revoke(
    State(shared): State<Shared>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Failure> {
    caller.may(Act::Own, None)?;
    let id: TokenId = parse(&id)?;
    caller.note(&shared, "token.revoke", (None, None), id.as_str()).await?;
    let revoked = shared.0.platform.store().revoke_token(&id).await;
    revoked.map_err(|error| shared.failure(error))?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn audit(
    State(shared): State<Shared>,
    caller: Caller,
    paging: Paging,
) -> Result<Json<Page<AuditLine>>, Failure> {
    caller.may(Act::Own, None)?;
    let before = paging.cursor::<AuditId>()?;
    let store = shared.0.platform.store();
    let found = store.audit_lines(paging.app.as_ref(), before.as_ref(), paging.limit + 1).await;
    let found = found.map_err(|error| shared.failure(error))?;
    Ok(Json(paging.page(found, |line| line.id.to_string(), convert::audit_line)))
}
