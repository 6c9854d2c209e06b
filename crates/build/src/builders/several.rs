//! Codebases that take two builders: a page built with Node.js beside a Python program, or one that
//! the file server serves.
//!
//! The plans are joined: all layers are there before the first step, and the steps of one builder
//! run after those of the other. Whoever comes last says which process types there are.

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
pub(super) fn plan(
    tree: &Tree,
    toolchains: &mut Toolchains<'_>,
    named: &[&'static str],
) -> Result<Option<Plan>, Error> {
    if !node::detect(tree) {
        return Ok(None);
    }
    // Somebody who names one of them wants that one.
    let are_wanted =
        |names: [&str; 2]| named.is_empty() || names.iter().all(|name| named.contains(name));
    if ruby::detect(tree) && are_wanted(["node", "ruby"]) {
        if !node::builds(tree)? && !ruby::takes_node(tree)? {
            return Ok(None);
        }
        toolchains.say(Event::Heading("Building with the node and ruby builders".to_owned()));
        let mut node = node::plan(tree, toolchains)?;
        // Rails runs the app, and its assets' task runs package.json's scripts.
        node.process_types.clear();
        return Ok(Some(join("node and ruby", node, ruby::plan(tree, toolchains)?)));
    }
    if python::detect(tree) && are_wanted(["node", "python"]) {
        if !node::builds(tree)? {
            return Ok(None);
        }
        let last = named.iter().rfind(|name| ["node", "python"].contains(*name));
        toolchains.say(Event::Heading("Building with the node and python builders".to_owned()));
        let (node, python) = (node::plan(tree, toolchains)?, python::plan(tree, toolchains)?);
        return Ok(Some(match last.is_some_and(|name| *name == "node") {
            true => join("python and node", python, node),
            false => join("node and python", node, python),
        }));
    }
    let is_site = tree.is_file("static.json") && !python::detect(tree);
    if is_site && are_wanted(["node", "static"]) && node::builds(tree)? {
        toolchains.say(Event::Heading("Building with the node and static builders".to_owned()));
        let mut node = node::plan(tree, toolchains)?;
        // What `npm start` runs there is the server of developers.
        node.process_types.clear();
        let site = static_site::plan_after(tree, toolchains, true)?;
        return Ok(Some(join("node and static", node, site)));
    }
    Ok(None)
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
