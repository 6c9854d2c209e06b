//! Tokens and the audit log.

use clap::{Args, Subcommand};
use tolv_api::{AuditLine, NewToken, Page, Token, TokenMade};
use tolv_model::access::Role;
use tolv_model::name::AppName;

use super::Done;
use super::args::At;
use super::follow;
use super::show::{json, moment, table};
use super::target::Target;
use crate::output;
use crate::settings::Settings;

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tolv tokens\n  tolv tokens create --role deploy --app shop \
    --expires 30d\n  tolv tokens create --role view --app shop --app blog\n  \
    tolv tokens revoke tok_…\n  tolv tokens recover")]
pub(crate) struct Tokens {
    #[command(subcommand)]
    pub(crate) command: Option<TokensCommand>,

    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokensCommand {
    /// Make a token: it alone goes to standard output, and is not shown again
    Create {
        /// view, deploy, config, run or admin
        #[arg(long)]
        role: Role,
        /// For this app alone; said again, for that one too. Without it, for all apps
        #[arg(long)]
        app: Vec<AppName>,
        /// How long it is valid, as in `30d`, `12h` or `15m`; for ever without it
        #[arg(long, value_name = "TIME", value_parser = super::typed::duration)]
        expires: Option<u32>,
        /// What to call it
        #[arg(long, default_value = "token")]
        name: String,
    },
    /// Revoke a token
    Revoke {
        /// Its id
        id: String,
    },
    /// Make a new token for everything, on the machine of the platform, as the owner of its state
    /// folder: TOLV_HOME, DATABASE_URL and TOLV_SECRET_KEY as `tolv serve` has them
    Recover,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tolv audit\n  tolv audit --app shop -n 100")]
pub(crate) struct Audit {
    /// Of this app alone
    #[arg(long)]
    pub(crate) app: Option<AppName>,

    /// How many lines
    #[arg(short, long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=200))]
    pub(crate) number: u16,

    #[command(flatten)]
    pub(crate) at: At,
}

/// What standard output gets of a new token: the token alone, as in `TOKEN=$(tolv tokens create …)`.
/// Standard error gets the rest.
fn alone(secret: &str, url: &str) -> Vec<u8> {
    output::note(&format!(
        "This token is not shown again.\nNext: tolv login {url} --token tolv_…\n"
    ));
    format!("{secret}\n").into_bytes()
}

pub(super) fn tokens(args: Tokens, settings: &Settings) -> Done {
    if let Some(TokensCommand::Recover) = args.command {
        let secret = crate::recover::recover(settings)?;
        return match args.at.json {
            true => Ok(json(&serde_json::json!({ "secret": secret }))?.into_bytes()),
            false => Ok(alone(&secret, "URL")),
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
                if token.changed_outside {
                    let note = "changed outside of the platform: allows nothing".to_owned();
                    let dash = || "-".to_owned();
                    return vec![token.id.clone(), token.name.clone(), dash(), dash(), note];
                }
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
            Ok(alone(&made.secret, target.client.url()))
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
        let outcome = line.outcome.clone().unwrap_or_else(|| "-".to_owned());
        let (actor, action) = (line.actor.clone(), line.action.clone());
        vec![moment(line.at), actor, action, whole, outcome, line.detail.clone()]
    };
    let rows: Vec<_> = page.items.iter().map(row).collect();
    Ok(table(&["WHEN", "WHO", "WHAT", "TO", "OUTCOME", "DETAIL"], &rows).into_bytes())
}
