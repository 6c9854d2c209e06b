//! The go builder.

use crate::Error;
use crate::plan::Plan;
use crate::toolchains::Toolchains;
use crate::tree::Tree;

/// Whether this codebase is one for it.
pub fn detect(_tree: &Tree) -> bool {
    false
}

/// What to run.
///
/// # Errors
///
/// Where the codebase cannot be built.
pub fn plan(_tree: &Tree, _toolchains: &mut Toolchains<'_>) -> Result<Plan, Error> {
    Ok(Plan::new("go", 1))
}
