//! Tokens and the audit log.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use tolv_api::{AuditLine, NewToken, Page, Token, TokenMade, Whoami};
use tolv_model::access::{Act, Grant, GrantedApps};
use tolv_model::id::AuditId;

use crate::auth::Caller;
use crate::error::Failure;
use crate::extract::{Body, Paging, Path, parse};
use crate::{Shared, convert};

/// Longest name of a token.
const NAME: usize = 60;
/// Most apps that a token names.
const APPS: usize = 100;

pub(crate) async fn whoami(caller: Caller) -> Json<Whoami> {
    let token = caller.token;
    Json(Whoami {
        name: token.name,
        role: token.grant.role.to_string(),
        apps: token.grant.apps.names(),
        expires: token.expires,
    })
}

pub(crate) async fn list(
    State(shared): State<Shared>,
    caller: Caller,
    paging: Paging,
) -> Result<Json<Page<Token>>, Failure> {
    caller.may(Act::Own, None)?;
    // The id of what somebody else put there is any text.
    let after = paging.cursor::<String>()?;
    let found = shared.0.platform.store().tokens(after.as_deref(), paging.limit).await;
    let found = found.map_err(|error| shared.failure(error))?;
    Ok(Json(paging.page(found, |token| token.id().to_owned(), convert::stored_token)))
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
    let apps = match &new.apps {
        None => GrantedApps::All,
        Some(names) if !(1..=APPS).contains(&names.len()) => {
            return Err(Failure::invalid(format!("a token is for 1 to {APPS} apps, or for all")));
        }
        Some(names) => {
            GrantedApps::Only(names.iter().map(|name| parse(name)).collect::<Result<_, _>>()?)
        }
    };
    let grant = Grant { role: parse(&new.role)?, apps };
    let now = Timestamp::now();
    let expires = match new.expires_in {
        None => None,
        Some(0) => return Err(Failure::invalid("the token would have expired already")),
        Some(seconds) => {
            let expires = now.checked_add(SignedDuration::from_secs(i64::from(seconds)));
            Some(expires.map_err(Failure::invalid)?)
        }
    };
    let detail = format!("{name}: {} for {}", grant.role, grant.apps);
    // In the list of an app where it is for one alone.
    let app = match &new.apps {
        Some(names) if names.len() == 1 => names.first().map(String::as_str),
        _ => None,
    };
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
    caller.note(&shared, "token.revoke", (None, None), &id).await?;
    let revoked = shared.0.platform.store().revoke_token(&id).await;
    revoked.map_err(|error| shared.failure(error))?;
    shared.0.known_tokens.forget(&id);
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
    let found = store.audit_lines(paging.app.as_ref(), before.as_ref(), paging.limit).await;
    let found = found.map_err(|error| shared.failure(error))?;
    Ok(Json(paging.page(found, |line| line.id.to_string(), convert::audit_line)))
}
