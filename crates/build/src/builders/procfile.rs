//! A codebase with a Procfile and nothing else that is known: what it runs is there already.

use crate::Error;
use crate::plan::Plan;
use crate::toolchains::Toolchains;
use crate::tree::Tree;

/// Whether there is a Procfile.
pub(super) fn detect(tree: &Tree) -> bool {
    tree.is_file("Procfile")
}

/// Nothing to run: the source is the slug.
///
/// # Errors
///
/// None.
pub(super) fn plan(_tree: &Tree, _toolchains: &mut Toolchains<'_>) -> Result<Plan, Error> {
    let mut plan = Plan::new("procfile", 1);
    plan.notes.push("Nothing to compile: the Procfile's commands run as they are".to_owned());
    Ok(plan)
}
