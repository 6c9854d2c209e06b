//! Scripts of the codebase that the process types run, looked at in the slug: what cannot be
//! executed is told before anything tries it.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use tolv_model::name::ProcessType;
use tolv_model::slug::Entry;

use crate::files;
use crate::source::{as_path, shown};

/// Bytes of a script that are looked at.
const HEAD: u64 = 1024;
/// Shells, whose first argument is a script.
const SHELLS: [&str; 5] = ["sh", "bash", "dash", "zsh", "ksh"];

/// What is wrong with scripts that the commands name, a sentence each.
pub(crate) fn warnings(
    types: &BTreeMap<ProcessType, String>,
    entries: &[(Vec<u8>, Entry)],
    slug: &Path,
) -> Vec<String> {
    let mut warnings = Vec::new();
    for (kind, command) in types {
        let Some((path, is_program)) = script(command) else { continue };
        let entry = entries.iter().find(|(known, _)| known == path.as_bytes());
        let Some((_, Entry::File { executable, .. })) = entry else { continue };
        let name = shown(path.as_bytes());
        if is_program && !executable {
            warnings.push(format!(
                "the process type `{kind}` runs `{name}`, which is not executable: run \
                 `git update-index --add --chmod=+x {name}` and commit"
            ));
        }
        if has_crlf(&slug.join(as_path(path.as_bytes()))) {
            warnings.push(format!(
                "the process type `{kind}` runs `{name}`, whose lines end with CR LF, so that no \
                 shell runs it: save it with LF, and add `{name} text eol=lf` to `.gitattributes`"
            ));
        }
    }
    warnings
}

/// The file of the codebase that a command runs, and whether it is the program itself.
fn script(command: &str) -> Option<(String, bool)> {
    let mut words = command.split_whitespace().skip_while(|word| {
        *word == "exec" || word.split_once('=').is_some_and(|(name, _)| !name.contains('/'))
    });
    let program = words.next()?;
    let base = program.rsplit('/').next().unwrap_or(program);
    if SHELLS.contains(&base) {
        let first = words.find(|word| !word.starts_with('-'))?;
        return Some((own(first)?, false));
    }
    // A name alone is looked up in `PATH`.
    if program.contains('/') { Some((own(program)?, true)) } else { None }
}

/// A path of the codebase, however a command that runs in it writes that.
fn own(word: &str) -> Option<String> {
    let word = word.trim_matches(['"', '\'']);
    let word = word.strip_prefix("/app/").or_else(|| word.strip_prefix("$HOME/")).unwrap_or(word);
    crate::builders::inside("", word)
}

/// Whether a file is a script whose first line ends with CR LF.
fn has_crlf(path: &Path) -> bool {
    let mut head = Vec::new();
    let read = files::open(path).and_then(|file| file.take(HEAD).read_to_end(&mut head));
    if read.is_err() || head.contains(&0) {
        return false;
    }
    let end = head.iter().position(|&byte| byte == b'\n');
    end.is_some_and(|end| head[..end].ends_with(b"\r"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_that_a_command_runs() {
        for (command, wanted) in [
            ("./start.sh", Some(("start.sh", true))),
            ("exec bin/../bin/start --port=$PORT", Some(("bin/start", true))),
            ("A=b C='d' /app/start.sh", Some(("start.sh", true))),
            ("sh start.sh x", Some(("start.sh", false))),
            ("bash -eu 'start.sh'", Some(("start.sh", false))),
            ("/bin/sh -c", None),
            ("start.sh", None),
            ("/usr/bin/env x", None),
            ("../start.sh", None),
            ("", None),
        ] {
            let found = script(command);
            let found = found.as_ref().map(|(path, is_program)| (path.as_str(), *is_program));
            assert_eq!(found, wanted, "{command}");
        }
    }
}
