//! Django's static files: `collectstatic`, as Heroku runs it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::Path;

use tolv_model::app_json::{self, AppJson, Generator};
use tolv_model::slug::Entry;

use crate::Error;
use crate::plan::{Plan, Step};
use crate::tree::Tree;

/// Switches it off, wherever it is set to something.
const DISABLE: &str = "DISABLE_COLLECTSTATIC";
/// `manage.py` is looked for this many folders deep.
const MAX_DEPTH: usize = 3;
/// Source files that are looked into for the settings: how many, how large, and all together.
const MAX_FILES: usize = 5_000;
const MAX_FILE_BYTES: u64 = 256 << 10;
const MAX_BYTES: u64 = 32 << 20;
/// What settings that ask for a secret get while static files are collected.
const NO_SECRET: &str = "collectstatic-has-no-secret";
const SECRETS: [&str; 2] = ["SECRET_KEY", "DJANGO_SECRET_KEY"];

/// The step for a codebase that has Django among its packages; where it is left out, a note says
/// why.
pub(super) fn collect_static(
    plan: &mut Plan,
    tree: &Tree,
    app: &Path,
    interpreter: &Path,
    operator: &BTreeMap<String, OsString>,
) -> Result<Option<Step>, Error> {
    let Some(manage) = manage(tree) else { return Ok(None) };
    let declared = match tree.read(app_json::FILE)? {
        // Its mistakes are told elsewhere.
        Some(bytes) => AppJson::parse(&bytes).unwrap_or_default(),
        None => AppJson::default(),
    };
    let values: BTreeMap<&str, &str> = declared
        .env
        .iter()
        .filter_map(|(name, variable)| match variable.generator {
            Some(Generator::Secret) => Some((name.as_str(), NO_SECRET)),
            None => Some((name.as_str(), variable.value.as_deref()?)),
        })
        .collect();
    let is_on = |value: &str| !matches!(value.trim(), "" | "0" | "false");
    let by = if values.get(DISABLE).is_some_and(|value| is_on(value)) {
        Some("app.json")
    } else if operator.get(DISABLE).and_then(|value| value.to_str()).is_some_and(is_on) {
        Some("the environment")
    } else {
        None
    };
    if let Some(by) = by {
        plan.notes.push(format!("Static files are not collected: {DISABLE} is set in {by}"));
        return Ok(None);
    }
    let [staticfiles, root] = mentions(tree, ["django.contrib.staticfiles", "STATIC_ROOT"]);
    if !staticfiles {
        return Ok(None);
    }
    if !root {
        plan.notes.push("Static files are not collected: the settings have no STATIC_ROOT".into());
        return Ok(None);
    }
    let folder = manage.rsplit_once('/').map_or("", |(folder, _)| folder);
    let words = [interpreter.as_os_str(), "manage.py".as_ref(), "collectstatic".as_ref()];
    let words = words.into_iter().chain(["--noinput".as_ref()]);
    let mut step = Step::new("Collecting static files", app.join(folder), words);
    for name in SECRETS {
        step = step.env(name, NO_SECRET);
    }
    for (name, value) in values {
        if !plan.build_env.contains_key(name) && name != "PATH" {
            step = step.env(name, value);
        }
    }
    let off = "or switch it off: `\"env\": {\"DISABLE_COLLECTSTATIC\": {\"value\": \"1\"}}` in \
               app.json";
    let config = format!(
        "the settings ask for a variable that no build has, for config belongs to a deploy: give \
         it a default, declare a `value` for it in app.json's `env`, {off}"
    );
    for text in ["ImproperlyConfigured", "KeyError", "UndefinedValueError", "ValidationError"] {
        step = step.hint(text, &config);
    }
    for text in ["MissingFileError", "could not be found with", "Missing staticfiles manifest"] {
        let help =
            format!("a static file names another one that is not there: add that one, {off}");
        step = step.hint(text, help);
    }
    step = step.hint("", format!("make `python {manage} collectstatic --noinput` work, {off}"));
    Ok(Some(step))
}

/// The path of `manage.py`: the one that is least deep.
fn manage(tree: &Tree) -> Option<String> {
    let paths = tree.entries().keys().filter_map(|path| std::str::from_utf8(path).ok());
    let depth = |path: &&str| path.matches('/').count();
    let found = paths
        .filter(|path| path.rsplit('/').next() == Some("manage.py"))
        .filter(|path| tree.is_file(path) && depth(path) < MAX_DEPTH);
    found.min_by_key(depth).map(str::to_owned)
}

/// Whether any Python source mentions these outside of comments.
fn mentions(tree: &Tree, words: [&str; 2]) -> [bool; 2] {
    let sources = tree.entries().iter().filter_map(|(path, entry)| match entry {
        Entry::File { size, .. } if path.ends_with(b".py") && *size <= MAX_FILE_BYTES => {
            Some((std::str::from_utf8(path).ok()?, *size))
        }
        _ => None,
    });
    let mut found = [false; 2];
    let mut total = 0;
    for (path, size) in sources.take(MAX_FILES) {
        total += size;
        if total > MAX_BYTES || found == [true; 2] {
            break;
        }
        let Ok(Some(text)) = tree.read(path) else { continue };
        let text = String::from_utf8_lossy(&text);
        let code = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        for line in code {
            for (found, word) in found.iter_mut().zip(words) {
                *found |= line.contains(word);
            }
        }
    }
    found
}
