//! Deploys: list, create, deploy a commit, promote, open.

use std::fmt::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tolv_api::{App, Deploy as ApiDeploy, NewDeploy, NewOperation, Operation, Page};
use tolv_model::name::{Deploy as DeployPath, DeployName};

use super::Done;
use super::args::{Deploy, Deploys, DeploysCommand, Promote, Which};
use super::failure::{Failure, harmless};
use super::follow;
use super::interrupt::{at_once, goes_on, line_end, nothing_begun, unless_interrupted};
use super::show::{CHANGED_OUTSIDE, json, short, table};
use super::target::{Target, git, shell_word};
use super::typed::Named;
use crate::settings::Settings;

/// Files of a dirty tree that are named.
const NAMED: usize = 10;

pub(super) fn deploys(args: Deploys, settings: &Settings) -> Done {
    let target = Target::of_deploy(&args.which, settings)?;
    let app = target.deploy()?.app;
    let path = format!("/v1/apps/{app}/deploys");
    match args.command {
        None => {
            let page: Page<ApiDeploy> = target.client.get(&path)?;
            if target.json {
                return Ok(json(&page)?.into_bytes());
            }
            let row = |deploy: &ApiDeploy| {
                if deploy.changed_outside {
                    let dash = || "-".to_owned();
                    let (name, note) = (deploy.name.clone(), CHANGED_OUTSIDE.to_owned());
                    return vec![name, dash(), dash(), dash(), dash(), note];
                }
                vec![
                    deploy.name.clone(),
                    deploy.release.map_or_else(|| "-".to_owned(), |number| format!("v{number}")),
                    short(deploy.commit.as_deref()),
                    distance(deploy),
                    deploy.url.clone(),
                    deploy.subject.clone().unwrap_or_default(),
                ]
            };
            let rows: Vec<_> = page.items.iter().map(row).collect();
            let heads = ["DEPLOY", "RELEASE", "COMMIT", "AHEAD/BEHIND", "URL", "SUBJECT"];
            Ok(table(&heads, &rows).into_bytes())
        }
        Some(DeploysCommand::Create { name, from, values }) => {
            let from = from.map(|from| from.to_string());
            let new = NewDeploy { name: name.to_string(), from, values };
            let deploy: ApiDeploy = target.client.send("POST", &path, &new)?;
            if target.json {
                return Ok(json(&deploy)?.into_bytes());
            }
            let mut text = format!("Made {}.\n", deploy.name);
            write!(text, "  URL  {}\n  git  {}\n", deploy.url, deploy.git).ok();
            if !deploy.wanted.is_empty() {
                let pairs: Vec<_> = deploy.wanted.iter().map(|name| format!("{name}=…")).collect();
                let pairs = pairs.join(" ");
                writeln!(
                    text,
                    "Its config waits for values: tolv config set {pairs} -d {}",
                    deploy.name
                )
                .ok();
            }
            writeln!(text, "Next: git remote add {name} {0}; git push {name} main", deploy.git)
                .ok();
            Ok(text.into_bytes())
        }
    }
}

fn distance(deploy: &ApiDeploy) -> String {
    match (deploy.ahead, deploy.behind) {
        _ if deploy.commit.is_none() => "-".to_owned(),
        (0, 0) => "even".to_owned(),
        (ahead, 0) => format!("{ahead} ahead"),
        (0, behind) => format!("{behind} behind"),
        (ahead, behind) => format!("{ahead} ahead, {behind} behind"),
    }
}

/// Pushes the current commit.
pub(super) fn deploy(args: &Deploy, settings: &Settings) -> Done {
    let target = Target::of_deploy(&args.which, settings)?;
    let path = target.path()?;
    if !args.allow_dirty {
        let app: App = target.client.get(&format!("/v1/apps/{}", target.deploy()?.app))?;
        refuse_dirty(app.root.as_deref(), settings)?;
    }
    let deploy: ApiDeploy = target.client.get(&path)?;
    if deploy.git.is_empty() {
        let why = format!("{} is what `tolv up` runs: its code is the folder's", deploy.name);
        return Err(Failure::new(why).hint("start `tolv up` again, with --watch for every change"));
    }
    let branch = deploy.branch.clone().unwrap_or_else(|| "main".to_owned());
    let mut command = git(settings);
    let server = target.client.url();
    let helper = format!("!{} git-credential", shell_word(&settings.program));
    // The empty helper first: none of the user's is asked about our token.
    let config = [
        (format!("credential.{server}.helper"), String::new()),
        (format!("credential.{server}.helper"), helper),
    ];
    command.env("GIT_CONFIG_COUNT", config.len().to_string());
    for (place, (key, value)) in config.iter().enumerate() {
        command.env(format!("GIT_CONFIG_KEY_{place}"), key);
        command.env(format!("GIT_CONFIG_VALUE_{place}"), value);
    }
    command.args(["push", "--force"]);
    if args.new_root {
        command.args(["-o", "new-root"]);
    }
    if args.no_release_phase {
        command.args(["-o", "no-release-phase"]);
    }
    command.arg(&deploy.git).arg(format!("HEAD:refs/heads/{branch}"));
    if !pushed(&mut command, &target)? {
        return Err(Failure::new(format!("{} was not deployed", deploy.name)));
    }
    let deploy: ApiDeploy = target.client.get(&path)?;
    if target.json {
        return Ok(json(&deploy)?.into_bytes());
    }
    let number = deploy.release.map_or_else(|| "-".to_owned(), |number| format!("v{number}"));
    Ok(format!("{} is at {number}, {}\n", deploy.name, deploy.url).into_bytes())
}

/// Runs `git push`; whether it succeeded. Ctrl-C ends git, and not what it had begun.
fn pushed(command: &mut Command, target: &Target) -> Result<bool, Failure> {
    let failed = |error| Failure::new(format!("git cannot run: {error}"));
    let mut git = command.stdout(Stdio::null()).spawn().map_err(failed)?;
    let handle = pidfd_open(Pid::from_child(&git), PidfdFlags::empty()).ok();
    if let Some(ended) = unless_interrupted(move || git.wait())? {
        let ended = ended.map_err(failed)?;
        if ended.signal() != Some(Signal::INT.as_raw()) {
            return Ok(ended.success());
        }
        line_end();
    }
    // A terminal tells git too; whoever tells this process alone does not.
    handle.and_then(|git| pidfd_send_signal(git, Signal::INT).ok());
    let (client, path) = (target.client.clone(), format!("{}/operations?limit=20", target.path()?));
    // Git may have been the first to hear of it: this process's own signal is still to come then.
    let found = at_once(move || client.get::<Page<Operation>>(&path));
    let items = found.and_then(Result::ok).map(|page| page.items).unwrap_or_default();
    let mine = |operation: &&Operation| operation.kind == "deploy" && !operation.state.is_over();
    Err(items.iter().find(mine).map_or_else(
        || {
            let hint = target.deploy().map(|deploy| format!("tolv operations -d {deploy}"));
            nothing_begun("the deploy", format!("what goes on: {}", hint.unwrap_or_default()))
        },
        goes_on,
    ))
}

/// Refuses files that differ from the commit, where they are of the app's root folder.
fn refuse_dirty(root: Option<&str>, settings: &Settings) -> Result<(), Failure> {
    let mut command = git(settings);
    command.args(["status", "--porcelain"]);
    if let Some(root) = root {
        command.arg("--").arg(format!(":(top,literal){root}"));
    }
    let output = command.output();
    let output = output.map_err(|error| Failure::new(format!("git cannot run: {error}")))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(Failure::new(text.trim().trim_start_matches("fatal: ").to_owned())
            .hint("a commit is deployed: git init, git add, git commit"));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let files: Vec<_> = text.lines().filter_map(|line| line.get(3..)).collect();
    if files.is_empty() {
        return Ok(());
    }
    let mut shown = files.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    if files.len() > NAMED {
        write!(shown, " and {} more", files.len() - NAMED).ok();
    }
    Err(Failure::new(format!("files differ from the commit: {}", harmless(&shown)))
        .hint("commit them, or deploy the commit as it is: --allow-dirty"))
}

pub(super) fn promote(args: &Promote, settings: &Settings) -> Done {
    let mut which = args.which.clone();
    let Named::Deploy(from) = &args.from else {
        return Err(Failure::new(
            "what `tolv up` runs here is not promoted: it is not of a commit",
        )
        .hint("push the commit: git push tolv HEAD:main"));
    };
    if which.deploy.is_none() {
        // To the production of the same app.
        let (app, name) = (from.app.clone(), DeployName::production());
        which.deploy = Some(Named::Deploy(DeployPath { app, name }));
    }
    let target = Target::of_deploy(&which, settings)?;
    let from = args.from.to_string();
    let no_release_phase = args.no_release_phase;
    let operation = follow::ask(&target, &NewOperation::Promote { from, no_release_phase })?;
    if target.json {
        return Ok(json(&operation)?.into_bytes());
    }
    let number = operation.release.unwrap_or_default();
    Ok(format!("{} runs the slug of {}: v{number}\n", operation.deploy, args.from).into_bytes())
}

pub(super) fn open(which: &Which, settings: &Settings) -> Done {
    let target = Target::of_deploy(which, settings)?;
    let deploy: ApiDeploy = target.client.get(&target.path()?)?;
    if target.json {
        return Ok(json(&deploy)?.into_bytes());
    }
    // A machine without a desktop has no such program: then the address alone must do.
    let opened = Command::new("xdg-open")
        .env("PATH", &settings.search_path)
        .arg(&deploy.url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let said = if opened.is_ok_and(|status| status.success()) { "Opened " } else { "" };
    Ok(format!("{said}{}\n", deploy.url).into_bytes())
}
