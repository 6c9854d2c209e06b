//! One module per language; each looks at the source and says what to run.
//!
//! Order matters where a codebase shows signs of several: the first that fits wins, and the build
//! output names it. `Procfile` alone comes last.

use crate::Error;
use crate::plan::Plan;
use crate::toolchains::Toolchains;
use crate::tree::Tree;

pub mod go;
pub mod node;
pub mod procfile;
pub mod python;
pub mod rust;
pub mod static_site;

/// One language, as data.
struct Builder {
    name: &'static str,
    /// What `detect` looks for, in words.
    signs: &'static str,
    detect: fn(&Tree) -> bool,
    plan: fn(&Tree, &mut Toolchains<'_>) -> Result<Plan, Error>,
}

/// In the order in which they are asked.
const BUILDERS: [Builder; 6] = [
    Builder {
        name: "python",
        signs: "uv.lock, requirements.txt, pyproject.toml",
        detect: python::detect,
        plan: python::plan,
    },
    Builder { name: "node", signs: "package.json", detect: node::detect, plan: node::plan },
    Builder { name: "rust", signs: "Cargo.toml", detect: rust::detect, plan: rust::plan },
    Builder { name: "go", signs: "go.mod", detect: go::detect, plan: go::plan },
    Builder {
        name: "static",
        signs: "static.json, index.html",
        detect: static_site::detect,
        plan: static_site::plan,
    },
    Builder {
        name: "procfile",
        signs: "Procfile",
        detect: procfile::detect,
        plan: procfile::plan,
    },
];

/// The plan of the first builder that knows this codebase.
///
/// # Errors
///
/// [`Error::Plan`] where none does, and the builder's own.
pub fn plan(tree: &Tree, toolchains: &mut Toolchains<'_>) -> Result<Plan, Error> {
    if let Some(builder) = BUILDERS.iter().find(|builder| (builder.detect)(tree)) {
        return (builder.plan)(tree, toolchains);
    }
    let signs: Vec<_> =
        BUILDERS.iter().map(|builder| format!("{} ({})", builder.signs, builder.name)).collect();
    let what = if tree.entries().is_empty() { "the codebase has no files" } else { "no builder fits" };
    Err(Error::Plan {
        builder: "detect",
        problem: format!("{what}; looked in its root for {}", signs.join(", ")),
        help: "add one of these files, or a `Procfile` with a line such as `web: ./server`".into(),
    })
}

#[cfg(test)]
mod tests;
