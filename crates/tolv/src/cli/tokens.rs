//! Tokens and the audit log.

use tolv_api::{AuditLine, NewToken, Page, Token, TokenMade};

use super::Done;
use super::args::{Audit, Tokens, TokensCommand};
use super::follow;
use super::show::{json, moment, table};
use super::target::Target;
use crate::settings::Settings;

/// Said of a new token.
const ONCE: &str = "This token is shown this once.";

pub(super) fn tokens(args: Tokens, settings: &Settings) -> Done {
    if let Some(TokensCommand::Recover) = args.command {
        let secret = crate::recover::recover(settings)?;
        return match args.at.json {
            true => Ok(json(&serde_json::json!({ "secret": secret }))?.into_bytes()),
            false => Ok(format!("{secret}\n{ONCE}\nNext: tolv login URL --token …\n").into_bytes()),
        };
    }
    let target = Target::of(&args.at, settings)?;
    match args.command {
        // It needs no platform to talk to.
        Some(TokensCommand::Recover) => Ok(Vec::new()),
        None => {
            let page = follow::list::<Token>(&target, "/v1/tokens", 200)?;
            if target.json {
                return Ok(json(&page)?.into_bytes());
            }
            let row = |token: &Token| {
                vec![
                    token.id.clone(),
                    token.name.clone(),
                    token.role.clone(),
                    token.apps.as_ref().map_or_else(|| "all".to_owned(), |apps| apps.join(",")),
                    token.expires.map_or_else(|| "never".to_owned(), |at| at.to_string()),
                ]
            };
            let rows: Vec<_> = page.items.iter().map(row).collect();
            Ok(table(&["TOKEN", "NAME", "ROLE", "APPS", "EXPIRES"], &rows).into_bytes())
        }
        Some(TokensCommand::Create { role, app, expires, name }) => {
            let new = NewToken {
                name,
                role: role.to_string(),
                apps: (!app.is_empty()).then(|| app.iter().map(ToString::to_string).collect()),
                expires_in: expires,
            };
            let made: TokenMade = target.client.send("POST", "/v1/tokens", &new)?;
            if target.json {
                return Ok(json(&made)?.into_bytes());
            }
            let text = format!(
                "{}\n{ONCE}\nNext: tolv login {} --token …\n",
                made.secret,
                target.client.url()
            );
            Ok(text.into_bytes())
        }
        Some(TokensCommand::Revoke { id }) => {
            target.client.delete::<()>(&format!("/v1/tokens/{id}"))?;
            Ok(format!("{id} is revoked.\n").into_bytes())
        }
    }
}

pub(super) fn audit(args: &Audit, settings: &Settings) -> Done {
    let target = Target::of(&args.at, settings)?;
    let app = args.app.as_ref().map(|app| format!("&app={app}")).unwrap_or_default();
    let page: Page<AuditLine> =
        target.client.get(&format!("/v1/audit?limit={}{app}", args.number))?;
    if target.json {
        return Ok(json(&page)?.into_bytes());
    }
    let row = |line: &AuditLine| {
        let whole = match (&line.app, &line.deploy) {
            (Some(app), Some(deploy)) => format!("{app}/{deploy}"),
            (Some(app), None) => app.clone(),
            (None, _) => "-".to_owned(),
        };
        vec![moment(line.at), line.actor.clone(), line.action.clone(), whole, line.detail.clone()]
    };
    let rows: Vec<_> = page.items.iter().map(row).collect();
    Ok(table(&["WHEN", "WHO", "WHAT", "TO", "DETAIL"], &rows).into_bytes())
}
