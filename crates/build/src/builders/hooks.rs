//! Heroku's hooks of a build: `bin/pre_compile` and `bin/post_compile`, run in the codebase.

use std::path::Path;

use tolv_model::slug::Entry;

use crate::Error;
use crate::plan::Step;
use crate::tree::Tree;

/// Runs before the codebase's own code is built.
pub(super) const PRE_COMPILE: &str = "bin/pre_compile";
/// Runs when everything else is done.
pub(super) const POST_COMPILE: &str = "bin/post_compile";

/// The steps that run a hook; none where the codebase has none.
pub(super) fn steps(tree: &Tree, app: &Path, hook: &str) -> Result<Vec<Step>, Error> {
    let Some(Entry::File { executable, .. }) = tree.entries().get(hook.as_bytes()) else {
        return Ok(Vec::new());
    };
    let heading = format!("Running {hook}");
    let path = app.join(hook);
    // What names no interpreter is a script of the shell, for the kernel does not run it.
    if !tree.read(hook)?.is_some_and(|text| text.starts_with(b"#!")) {
        return Ok(vec![Step::new(heading, app, ["sh".as_ref(), path.as_os_str()])]);
    }
    let mut steps = Vec::new();
    if !executable {
        steps.push(Step::new("", app, ["chmod".as_ref(), "+x".as_ref(), path.as_os_str()]));
    }
    steps.push(Step::new(heading, app, [path.as_os_str()]));
    Ok(steps)
}
