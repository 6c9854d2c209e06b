//! The documents: the commands they show exist, the files they link to are there.

use std::path::Path;

use super::{files, has_extension, read, shown};
use crate::CHORES;
use crate::steps::Failure;

/// Where the program's commands are declared.
const ARGS: &str = "crates/tolv/src/args.rs";

/// Documents that a newcomer reads first; they must exist.
const WANTED: &[&str] = &[
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "LICENSE-MIT",
    "LICENSE-APACHE",
];

pub(super) fn check(root: &Path) -> Result<Vec<String>, Failure> {
    let mut problems: Vec<String> = WANTED
        .iter()
        .filter(|name| !root.join(name).is_file())
        .map(|name| format!("{name}: missing"))
        .collect();
    let subcommands = subcommands(&read(&root.join(ARGS))?);
    if subcommands.is_empty() {
        problems.push(format!("{ARGS}: found no `enum Command` with the program's commands"));
    }
    let chores: Vec<String> = CHORES.iter().map(|(name, _)| (*name).to_owned()).collect();
    for path in files(root, &|path| has_extension(path, "md"))? {
        let name = shown(root, &path);
        let text = read(&path)?;
        for (prefix, known) in [
            ("cargo xtask ", &chores),
            ("cargo run --release -- ", &subcommands),
            ("tolv ", &subcommands),
        ] {
            for word in commands(&text, prefix) {
                if !known.contains(&word) {
                    problems.push(format!("{name}: shows `{prefix}{word}`, which does not exist"));
                }
            }
        }
        let folder = path.parent().unwrap_or(root);
        for target in links(&text).into_iter().filter(|target| !folder.join(target).exists()) {
            problems.push(format!("{name}: links to {target}, which is not there"));
        }
    }
    Ok(problems)
}

/// The names of the variants of `enum Command`, and of `enum Platform` that it includes, as clap
/// spells them.
pub(super) fn subcommands(args: &str) -> Vec<String> {
    let body = |head: &'static str| {
        let lines = args.lines().skip_while(move |line| !line.contains(head)).skip(1);
        lines.take_while(|line| *line != "}")
    };
    body("enum Command {")
        .chain(body("enum Platform {"))
        .filter_map(|line| line.strip_prefix("    "))
        .filter(|line| line.starts_with(|first: char| first.is_ascii_uppercase()))
        .map(|line| {
            let mut kebab = String::new();
            for letter in line.chars().take_while(char::is_ascii_alphanumeric) {
                if letter.is_ascii_uppercase() && !kebab.is_empty() {
                    kebab.push('-');
                }
                kebab.push(letter.to_ascii_lowercase());
            }
            kebab
        })
        .collect()
}

/// The word after `prefix` in each line of code that begins with it, in fenced blocks and in
/// `spans`. A leading prompt does not count.
pub(super) fn commands(text: &str, prefix: &str) -> Vec<String> {
    let mut code: Vec<&str> = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if fenced {
            code.push(line.trim_start().trim_start_matches("$ "));
        } else {
            code.extend(line.split('`').skip(1).step_by(2));
        }
    }
    code.iter()
        .filter_map(|line| line.strip_prefix(prefix))
        .map(|rest| rest.split_whitespace().next().unwrap_or_default())
        .filter(|word| word.starts_with(|first: char| first.is_ascii_lowercase()))
        .map(str::to_owned)
        .collect()
}

/// Targets of `[text](target)` that are files.
pub(super) fn links(text: &str) -> Vec<&str> {
    text.split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(target, _)| target))
        .map(|target| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains("://") && !target.contains(' '))
        .collect()
}
