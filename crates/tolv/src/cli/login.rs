//! Who one is to which platform.

use std::io::Read as _;

use tolv_api::Whoami;
use tolv_api::client::Client;

use super::Done;
use super::args::{At, Login};
use super::credentials::{Credentials, is_token, token_of_environment};
use super::failure::Failure;
use super::show::json;
use super::target::Target;
use crate::settings::Settings;

/// Longest token that is read.
const TOKEN: u64 = 1024;

pub(super) fn login(args: &Login, settings: &Settings) -> Done {
    if !args.url.starts_with("http://") && !args.url.starts_with("https://") {
        return Err(Failure::new(format!("`{}` is not an http:// or https:// URL", args.url)));
    }
    let token = match &args.token {
        Some(token) => token.clone(),
        None => {
            let mut text = String::new();
            let read = std::io::stdin().lock().take(TOKEN).read_to_string(&mut text);
            read.map_err(|error| Failure::new(format!("no token on standard input: {error}")))?;
            text.trim().to_owned()
        }
    };
    if token.is_empty() {
        return Err(Failure::new("no token was given").hint("tolv login URL --token tolv_…"));
    }
    if !is_token(&token) {
        return Err(Failure::new("what was given is not a token: it does not read `tolv_…` alone")
            .hint("tolv login URL --token tolv_…"));
    }
    let client = Client::new(&args.url, Some(token.clone()));
    let me: Whoami = client.get("/v1/whoami")?;
    Credentials::load(settings)?.put(client.url(), token)?;
    let text = format!(
        "Logged in to {} as {} ({}).\nNext: tolv create NAME, in the repository of an app\n",
        client.url(),
        me.name,
        me.role
    );
    Ok(text.into_bytes())
}

pub(super) fn logout(at: &At, settings: &Settings) -> Done {
    let target = Target::of(at, settings)?;
    let known = Credentials::load(settings)?.remove(target.client.url())?;
    let url = target.client.url();
    match known {
        true => Ok(format!("The token for {url} is forgotten; it is still valid.\n").into_bytes()),
        false => Err(Failure::new(format!("no token for {url} is stored"))),
    }
}

pub(super) fn whoami(at: &At, settings: &Settings) -> Done {
    let target = Target::of(at, settings)?;
    let me: Whoami = target.client.get("/v1/whoami")?;
    if target.json {
        return Ok(json(&me)?.into_bytes());
    }
    let whose = match me.apps {
        None => "all apps".to_owned(),
        Some(apps) => {
            format!("{} {}", if apps.len() == 1 { "app" } else { "apps" }, apps.join(", "))
        }
    };
    Ok(format!("{} at {}: {} for {whose}\n", me.name, target.client.url(), me.role).into_bytes())
}

/// What git asks of a credential helper (`gitcredentials`): lines of `key=value` in, the same out.
pub(super) fn git_credential(action: &str, settings: &Settings) -> Done {
    if action != "get" {
        // Storing and erasing is done by `login` and `logout`.
        return Ok(Vec::new());
    }
    let mut asked = String::new();
    let read = std::io::stdin().lock().take(64 * TOKEN).read_to_string(&mut asked);
    read.map_err(|error| Failure::new(format!("git asks for nothing: {error}")))?;
    let field = |name: &str| {
        let value = |line: &str| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        asked.lines().find_map(value).unwrap_or_default()
    };
    let server = format!("{}://{}", field("protocol"), field("host"));
    let known = Credentials::load(settings)?;
    let token = token_of_environment(settings)?;
    let token = token.or_else(|| known.token(&server).map(str::to_owned));
    Ok(match token {
        Some(token) => format!("username=tolv\npassword={token}\n").into_bytes(),
        None => Vec::new(),
    })
}
