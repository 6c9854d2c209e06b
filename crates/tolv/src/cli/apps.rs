//! Apps: list, create, destroy.

use std::fmt::Write as _;
use std::io::{BufRead as _, IsTerminal as _, Write as _};

use tolv_api::{App, Deploy, NewApp, Operation, Page};
use tolv_model::name::{AppName, Deploy as DeployPath};

use super::args::{At, Create, Destroy};
use super::failure::Failure;
use super::show::{CHANGED_OUTSIDE, json, moment, table};
use super::target::{self, Target, git, shell_word};
use super::{Done, follow};
use crate::settings::Settings;

pub(super) fn list(at: &At, settings: &Settings) -> Done {
    let target = Target::of(at, settings)?;
    let mut all: Page<App> = target.client.get("/v1/apps?limit=200")?;
    while let Some(next) = all.next.take() {
        let page: Page<App> = target.client.get(&format!("/v1/apps?limit=200&cursor={next}"))?;
        all.items.extend(page.items);
        all.next = page.next;
    }
    if target.json {
        return Ok(json(&all)?.into_bytes());
    }
    if all.items.is_empty() {
        return Ok(b"No apps yet. Make one: tolv create NAME\n".to_vec());
    }
    let has_roots = all.items.iter().any(|app| app.root.is_some());
    let row = |app: &App| {
        let mut row = match app.changed_outside {
            true => vec![app.name.clone(), CHANGED_OUTSIDE.to_owned(), "-".to_owned()],
            false => vec![app.name.clone(), app.deploys.join(", "), moment(app.created)],
        };
        row.extend(has_roots.then(|| app.root.clone().unwrap_or_else(|| "-".to_owned())));
        row
    };
    let rows: Vec<_> = all.items.iter().map(row).collect();
    let heads = ["APP", "DEPLOYS", "CREATED", "ROOT"];
    let heads = if has_roots { &heads[..] } else { &heads[..3] };
    Ok(table(heads, &rows).into_bytes())
}

pub(super) fn create(args: &Create, settings: &Settings) -> Done {
    let target = Target::of(&args.at, settings)?;
    let client = &target.client;
    let new = NewApp {
        name: args.name.to_string(),
        deploy: Some(args.first.to_string()),
        root: args.root.as_ref().map(ToString::to_string),
    };
    // A repository of several apps has a remote for each, and none that is meant without a word.
    let remote_name = match (&args.remote, &args.root) {
        (Some(name), _) => name.as_str(),
        (None, Some(_)) => args.name.as_str(),
        (None, None) => "tolv",
    };
    let app: App = client.send("POST", "/v1/apps", &new)?;
    let path = format!("/v1/apps/{}/deploys/{}", args.name, args.first);
    let deploy: Deploy = client.get(&path)?;
    let remote = match target::in_repository(settings) {
        true => Some(add_remote(remote_name, &deploy, client.url(), settings)?),
        false => None,
    };
    if target.json {
        return Ok(json(&deploy)?.into_bytes());
    }
    let mut text = format!("Made {} with its first deploy {}.\n", app.name, deploy.name);
    write!(text, "  URL  {}\n  git  {}\n", deploy.url, deploy.git).ok();
    if let Some(root) = &app.root {
        writeln!(text, "  root {root}").ok();
    }
    let next = match remote {
        Some(()) => format!("git push {remote_name} main"),
        None => format!("git remote add {remote_name} {}", deploy.git),
    };
    writeln!(text, "Next: {next}").ok();
    Ok(text.into_bytes())
}

/// Adds the remote, and tells git where the password for it is.
fn add_remote(
    name: &str,
    deploy: &Deploy,
    server: &str,
    settings: &Settings,
) -> Result<(), Failure> {
    let run = |args: &[&str]| {
        let output = git(settings).args(args).output();
        let output = output.map_err(|error| Failure::new(format!("git cannot run: {error}")))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(Failure::new(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
        }
    };
    run(&["remote", "add", "--", name, &deploy.git]).map_err(|failure| {
        Failure::new(format!("the app is made, but not the git remote: {}", failure.text))
            .hint(format!("add it under another name: git remote add NAME {}", deploy.git))
    })?;
    let helper = format!("!{} git-credential", shell_word(&settings.program));
    run(&["config", &format!("credential.{server}.helper"), &helper])
}

pub(super) fn destroy(args: &Destroy, settings: &Settings) -> Done {
    let target = Target::of(&args.at, settings)?;
    let confirm = match &args.confirm {
        Some(confirm) => confirm.clone(),
        None => ask(&args.name)?,
    };
    if confirm != args.name {
        return Err(Failure::new(format!(
            "`{confirm}` is not `{}`: nothing is destroyed",
            args.name
        )));
    }
    let failed = |error: &dyn std::fmt::Display| Failure::new(error.to_string());
    if args.name.contains('/') {
        let path: DeployPath = args.name.parse().map_err(|error| failed(&error))?;
        let address = format!(
            "/v1/apps/{}/deploys/{}?confirm={}%2F{}",
            path.app, path.name, path.app, path.name
        );
        let operation: Operation = target.client.delete(&address)?;
        follow::finish(&target, operation)?;
    } else {
        let app: AppName = args.name.parse().map_err(|error| failed(&error))?;
        target.client.delete::<()>(&format!("/v1/apps/{app}?confirm={app}"))?;
    }
    Ok(format!("{} is destroyed.\n", args.name).into_bytes())
}

fn ask(name: &str) -> Result<String, Failure> {
    let hint = format!("say it: --confirm {name}");
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(format!("`{name}` would be destroyed with all it has")).hint(hint));
    }
    let mut err = std::io::stderr();
    write!(err, "This destroys {name} with all it has. Type its name to go on: ").ok();
    err.flush().ok();
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line);
    read.map_err(|error| Failure::new(error.to_string()))?;
    Ok(line.trim().to_owned())
}
