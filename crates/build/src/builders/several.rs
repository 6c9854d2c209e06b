//! Codebases that take two builders: a page built with Node.js beside a Python program, or one that
//! the file server serves.
//!
//! The plans are joined: all layers are there before the first step, and the steps of one builder
//! run after those of the other. Whoever comes last says which process types there are.

use tolv_model::app_json::{self, AppJson};

use super::{node, python, ruby, static_site};
use crate::plan::{LIBRARIES, Plan};
use crate::toolchains::Toolchains;
use crate::tree::Tree;
use crate::{Error, Event};

/// The joined plan, where a codebase takes two builders.
///
/// # Errors
///
/// Those of the builders.
pub(super) fn plan(tree: &Tree, toolchains: &mut Toolchains<'_>) -> Result<Option<Plan>, Error> {
    if !node::detect(tree) {
        return Ok(None);
    }
    if ruby::detect(tree) {
        if !node::builds(tree)? && !ruby::takes_node(tree)? {
            return Ok(None);
        }
        toolchains.say(Event::Heading("Building with the node and ruby builders".to_owned()));
        let mut node = node::plan(tree, toolchains)?;
        // Rails runs the app, and its assets' task runs package.json's scripts.
        node.process_types.clear();
        return Ok(Some(join("node and ruby", node, ruby::plan(tree, toolchains)?)));
    }
    if python::detect(tree) {
        let named = named(tree)?;
        let is_named = |name: &str| named.iter().any(|pack| pack == name);
        // Somebody who names one of them wants that one.
        let wanted = named.is_empty() || is_named("node") && is_named("python");
        if !wanted || !node::builds(tree)? {
            return Ok(None);
        }
        let last = named.iter().rfind(|name| ["node", "python"].contains(&name.as_str()));
        toolchains.say(Event::Heading("Building with the node and python builders".to_owned()));
        let (node, python) = (node::plan(tree, toolchains)?, python::plan(tree, toolchains)?);
        return Ok(Some(match last.is_some_and(|name| name == "node") {
            true => join("python and node", python, node),
            false => join("node and python", node, python),
        }));
    }
    if tree.is_file("static.json") && node::builds(tree)? {
        toolchains.say(Event::Heading("Building with the node and static builders".to_owned()));
        let mut node = node::plan(tree, toolchains)?;
        // What `npm start` runs there is the server of developers.
        node.process_types.clear();
        let site = static_site::plan_after(tree, toolchains, true)?;
        return Ok(Some(join("node and static", node, site)));
    }
    Ok(None)
}

/// The builders that `buildpacks` of app.json stands for, in its order.
fn named(tree: &Tree) -> Result<Vec<String>, Error> {
    let Some(bytes) = tree.read(app_json::FILE)? else { return Ok(Vec::new()) };
    let app = AppJson::parse(&bytes).map_err(|error| Error::Manifest(Box::new(error)))?;
    let names = app.buildpacks.iter().filter_map(|url| {
        let name = url.trim_end_matches(".git").rsplit('/').next()?;
        let name = name.trim_start_matches("heroku-buildpack-");
        match name.split(['#', '.']).next()? {
            "nodejs" | "node" => Some("node".to_owned()),
            other => Some(other.to_owned()),
        }
    });
    Ok(names.collect())
}

fn join(builder: &'static str, first: Plan, last: Plan) -> Plan {
    fn both<T>(first: Vec<T>, last: Vec<T>) -> Vec<T> {
        first.into_iter().chain(last).collect()
    }
    let mut joined = Plan {
        builder,
        // Both decide what is made.
        version: first.version * 1000 + last.version,
        notes: both(first.notes, last.notes),
        warnings: both(first.warnings, last.warnings),
        toolchains: both(first.toolchains, last.toolchains),
        layers: both(first.layers, last.layers),
        steps: both(first.steps, last.steps),
        build_env: first.build_env,
        build_path: both(first.build_path, last.build_path),
        prune: both(first.prune, last.prune),
        keep: both(first.keep, last.keep),
        process_types: first.process_types,
        env: first.env,
        // The programs of the one that runs the app come first.
        path: both(last.path, first.path),
        secrets: both(first.secrets, last.secrets),
    };
    let libraries: Vec<String> =
        [&joined.env, &last.env].iter().filter_map(|env| env.get(LIBRARIES).cloned()).collect();
    joined.build_env.extend(last.build_env);
    joined.process_types.extend(last.process_types);
    joined.env.extend(last.env);
    if !libraries.is_empty() {
        let libraries = libraries.join(":");
        joined.build_env.insert(LIBRARIES.to_owned(), libraries.clone().into());
        joined.env.insert(LIBRARIES.to_owned(), libraries);
    }
    joined
}

#[cfg(test)]
mod tests;
