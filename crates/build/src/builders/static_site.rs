//! A folder of files, served by the platform's own file server.
//!
//! The folder is `root` of `static.json` (the name and key that Heroku's static buildpack uses), or
//! the codebase's root where an `index.html` stands there. The server is the `tolv` binary itself,
//! mounted read-only into the app's sandbox, so that a site is a process like any other: it binds
//! `PORT` and logs to its streams.

use std::path::PathBuf;

use tolv_model::name::ProcessType;

use crate::Error;
use crate::plan::{Plan, Toolchain};
use crate::toolchains::Toolchains;
use crate::tree::Tree;

/// Where the file server's program stands in the sandbox.
const SERVER: &str = "/toolchain/tolv";
/// Keys of `static.json` that mean something here; the others are named in a warning.
const KNOWN: [&str; 1] = ["root"];

/// Whether a folder is declared, or the root has an `index.html`.
pub(super) fn detect(tree: &Tree) -> bool {
    tree.is_file("static.json") || tree.is_file("index.html")
}

/// Nothing to run; the process type `web` serves the folder.
///
/// # Errors
///
/// [`Error::Plan`] for a `static.json` that cannot be read or names no folder of the codebase.
pub(super) fn plan(tree: &Tree, toolchains: &mut Toolchains<'_>) -> Result<Plan, Error> {
    let mut plan = Plan::new("static", 1);
    let root = root(tree, &mut plan)?;
    plan.notes.push(format!("Serving the files of `{root}`"));
    plan.toolchains.push(Toolchain {
        version: "tolv's file server".to_owned(),
        source: toolchains.tolv.clone(),
        target: server(toolchains),
        at_run: true,
    });
    // The root is checked to be plain words, so this is one simple command.
    let server = server(toolchains);
    let command = format!("{} static-server {root}", server.display());
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

fn root(tree: &Tree, plan: &mut Plan) -> Result<String, Error> {
    let wrong = |problem: String, help: &str| Error::Plan {
        builder: "static",
        problem,
        help: help.to_owned(),
    };
    let Some(text) = tree.text("static.json")? else { return Ok(".".to_owned()) };
    let help = r#"write the folder to serve, as in `{"root": "public"}`"#;
    let json: serde_json::Value = serde_json::from_str(&text)
        .map_err(|bad| wrong(format!("`static.json` is not JSON: {bad}"), help))?;
    let Some(json) = json.as_object() else {
        return Err(wrong("`static.json` is not a JSON object".to_owned(), help));
    };
    for key in json.keys().filter(|key| !KNOWN.contains(&key.as_str())) {
        plan.warnings.push(format!("`static.json`: the key `{}` is not used", key.escape_debug()));
    }
    let root = match json.get("root") {
        None => "public_html",
        Some(serde_json::Value::String(root)) => root,
        Some(_) => return Err(wrong("`root` in `static.json` is not a string".to_owned(), help)),
    };
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
    if !tree.is_dir(folder) {
        let help = "create and commit the folder, or correct `root`; a folder that git ignores \
                    does not enter a build";
        return Err(wrong(format!("`static.json` serves `{shown}`, which is no folder"), help));
    }
    Ok(folder.to_owned())
}

#[cfg(test)]
mod tests;
