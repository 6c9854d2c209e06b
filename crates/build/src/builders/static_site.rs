//! A folder of files, served by the platform's own file server.
//!
//! The folder is `root` of `static.json` (the file of Heroku's static buildpack), or the codebase's
//! root where an `index.html` stands there. Beside a `package.json` the folder may be one that its
//! build makes. The server is the `tolv` binary itself,
//! mounted read-only into the app's sandbox, so that a site is a process like any other: it binds
//! `PORT` and logs to its streams.

use std::path::PathBuf;

use tolv_model::name::ProcessType;
use tolv_model::static_json::{FILE, StaticJson};

use crate::Error;
use crate::plan::{Plan, Toolchain};
use crate::toolchains::Toolchains;
use crate::tree::Tree;

/// Where the file server's program stands in the sandbox.
const SERVER: &str = "/toolchain/tolv";

/// Whether a folder is declared, or the root has an `index.html`.
pub(super) fn detect(tree: &Tree) -> bool {
    tree.is_file(FILE) || tree.is_file("index.html")
}

/// Nothing to run; the process type `web` serves the folder.
///
/// # Errors
///
/// [`Error::Plan`] for a `static.json` that cannot be read or names no folder of the codebase.
pub(super) fn plan(tree: &Tree, toolchains: &mut Toolchains<'_>) -> Result<Plan, Error> {
    plan_after(tree, toolchains, false)
}

/// As [`plan`]. `is_built` says that steps before may make the folder.
pub(super) fn plan_after(
    tree: &Tree,
    toolchains: &mut Toolchains<'_>,
    is_built: bool,
) -> Result<Plan, Error> {
    let mut plan = Plan::new("static", 2);
    let rules = rules(tree, &mut plan)?;
    let root = match &rules {
        Some(rules) => root(tree, rules, is_built)?,
        None => ".".to_owned(),
    };
    plan.notes.push(format!("Serving the files of `{root}`"));
    plan.toolchains.push(Toolchain {
        version: "tolv's file server".to_owned(),
        source: toolchains.tolv.clone(),
        target: server(toolchains),
        at_run: true,
    });
    // The root is checked to be plain words, so this is one simple command.
    let server = server(toolchains);
    let config = if rules.is_some() { " --config static.json" } else { "" };
    let command = format!("{} static-server {root}{config}", server.display());
    plan.process_types.insert(ProcessType::web(), command);
    Ok(plan)
}

/// A mount's target where there are mounts, the program's own path elsewhere.
fn server(toolchains: &Toolchains<'_>) -> PathBuf {
    if toolchains.layout.app == std::path::Path::new("/app") {
        SERVER.into()
    } else {
        toolchains.tolv.clone()
    }
}

/// What `static.json` says, if it is there.
fn rules(tree: &Tree, plan: &mut Plan) -> Result<Option<StaticJson>, Error> {
    let Some(text) = tree.text(FILE)? else { return Ok(None) };
    let wrong = |why: String| {
        let help = r#"the least is the folder to serve, as in `{"root": "public"}`"#;
        wrong(format!("`static.json`: {why}"), help)
    };
    let rules = StaticJson::parse(&text).map_err(wrong)?;
    for key in StaticJson::unknown_keys(&text).map_err(wrong)? {
        plan.warnings.push(format!("`static.json`: the key `{}` is not used", key.escape_debug()));
    }
    if rules.https_only {
        plan.notes.push("Plain HTTP is redirected to HTTPS (https_only)".to_owned());
    }
    Ok(Some(rules))
}

fn wrong(problem: String, help: &str) -> Error {
    Error::Plan { builder: "static", problem, help: help.to_owned() }
}

fn root(tree: &Tree, rules: &StaticJson, is_built: bool) -> Result<String, Error> {
    let root = rules.root.as_deref().unwrap_or("public_html");
    let folder = root.trim_end_matches('/').trim_start_matches("./");
    if folder.is_empty() || folder == "." {
        return Ok(".".to_owned());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    let shown = folder.escape_debug();
    if folder.starts_with(['/', '-'])
        || folder.split('/').any(|part| part.is_empty() || part == "..")
        || !folder.chars().all(plain)
    {
        let help = "name a folder of the codebase with letters, digits, `.`, `_`, `-` and `/`";
        return Err(wrong(format!("`root` in `static.json` is `{shown}`"), help));
    }
    if !is_built && !tree.is_dir(folder) {
        let help = "create and commit the folder, or correct `root`; a folder that git ignores \
                    does not enter a build";
        return Err(wrong(format!("`static.json` serves `{shown}`, which is no folder"), help));
    }
    Ok(folder.to_owned())
}

#[cfg(test)]
mod tests;
