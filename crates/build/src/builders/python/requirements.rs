//! `requirements.txt`, read as pip reads it and held to being a lock: every package at one version.

use super::super::{files_below, inside};
use super::{How, NAME, Packages};
use crate::Error;
use crate::tree::Tree;

/// Unpinned lines that an error names.
const SHOWN: usize = 3;
/// Files that include one another this deep are a circle.
const DEEPEST: usize = 20;

/// Reads a requirements file and those it includes.
pub(super) fn read(tree: &Tree, path: &str) -> Result<Packages, Error> {
    let mut reader =
        Reader { tree, packages: Packages::default(), text: String::new(), loose: Vec::new() };
    reader.file(path, 0)?;
    let Reader { mut packages, text, loose, .. } = reader;
    if !loose.is_empty() {
        let shown = loose.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
        let more = match loose.len().saturating_sub(SHOWN) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let help = if tree.is_file("requirements.in") {
            "run `uv pip compile requirements.in -o requirements.txt` and commit it"
        } else {
            "name what the codebase imports in `requirements.in` (`git mv requirements.txt \
             requirements.in`), run `uv pip compile requirements.in -o requirements.txt` and \
             commit both"
        };
        return Err(Error::Plan {
            builder: NAME,
            problem: format!("not pinned to one version with `==`: {shown}{more}"),
            help: help.to_owned(),
        });
    }
    let hashed = text.contains("--hash") || text.contains("--require-hashes");
    packages.from = path.to_owned();
    packages.files.push(("requirements.txt".to_owned(), text.into_bytes()));
    packages.how = How::Requirements { hashed };
    packages.copies.sort();
    packages.copies.dedup();
    Ok(packages)
}

struct Reader<'a> {
    tree: &'a Tree,
    packages: Packages,
    /// All files as one, without what is the codebase's own.
    text: String,
    /// What is not pinned, with its place.
    loose: Vec<String>,
}

impl Reader<'_> {
    fn file(&mut self, path: &str, depth: usize) -> Result<(), Error> {
        let missing = || Error::Plan {
            builder: NAME,
            problem: format!("there is no file `{path}`"),
            help: "commit it, or remove the line that includes it".to_owned(),
        };
        let text = self.tree.text(path)?.filter(|_| depth < DEEPEST).ok_or_else(missing)?;
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (number, line) in lines(&text) {
            let place = format!("{path} line {number}");
            if let Some(included) = option(&line, &["-r", "--requirement"]) {
                let included = self.inside(folder, included, &place)?;
                self.file(&included, depth + 1)?;
            } else if option(&line, &["-c", "--constraint"]).is_some() {
                // Nothing is left to constrain where all is pinned.
            } else if let Some(links) = option(&line, &["-f", "--find-links"]) {
                if links.contains("://") {
                    self.put(&line);
                } else {
                    let links = self.inside(folder, links, &place)?;
                    self.packages.copies.extend(files_below(self.tree, &links));
                    self.put(&format!("--find-links ./{links}"));
                }
            } else if let Some(local) = option(&line, &["-e", "--editable"]) {
                self.requirement(folder, local, &place)?;
            } else if line.starts_with('-') {
                self.put(&line);
            } else {
                self.requirement(folder, &line, &place)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, line: &str) {
        self.text.push_str(line);
        self.text.push('\n');
    }

    fn inside(&self, folder: &str, path: &str, place: &str) -> Result<String, Error> {
        inside(folder, path).ok_or_else(|| Error::Plan {
            builder: NAME,
            problem: format!("{place}: `{}` is outside the codebase", path.escape_debug()),
            help: "take it into the codebase, or publish it and name it with a version".to_owned(),
        })
    }

    fn requirement(&mut self, folder: &str, line: &str, place: &str) -> Result<(), Error> {
        if let Some(path) = local(line) {
            let path = self.inside(folder, path, place)?;
            if self.tree.is_file(&path) {
                let rest = line.split_once(char::is_whitespace).map_or("", |(_, rest)| rest);
                self.put(format!("./{path} {rest}").trim_end());
                self.packages.copies.push(path);
            } else if self.tree.is_file(&super::below(&path, "pyproject.toml"))
                || self.tree.is_file(&super::below(&path, "setup.py"))
            {
                if !self.packages.own.contains(&path) {
                    self.packages.own.push(path);
                }
            } else {
                return Err(Error::Plan {
                    builder: NAME,
                    problem: format!("{place}: `{}` is no package", line.escape_debug()),
                    help: "commit its files, or remove the line".to_owned(),
                });
            }
            return Ok(());
        }
        if is_exact(line) {
            self.put(line);
        } else {
            let shown = line.split(" --").next().unwrap_or_default();
            self.loose.push(format!("`{}` ({place})", shown.escape_debug()));
        }
        Ok(())
    }
}

/// Logical lines with the number of their first: continued ones joined, comments and empty ones
/// left out.
fn lines(text: &str) -> Vec<(usize, String)> {
    let mut all: Vec<(usize, String)> = Vec::new();
    let mut continues = false;
    for (place, line) in text.lines().enumerate() {
        let comment = line.trim_start().starts_with('#');
        let (line, more) = match line.strip_suffix('\\') {
            Some(line) if !comment => (line, true),
            _ => (line, false),
        };
        match all.last_mut() {
            Some((_, last)) if continues => last.push_str(line),
            _ => all.push((place + 1, line.to_owned())),
        }
        continues = more;
    }
    for (_, line) in &mut all {
        let is_comment =
            |at: &usize| *at == 0 || line[..*at].ends_with(|c: char| c.is_whitespace());
        let end = line.match_indices('#').map(|(at, _)| at).find(is_comment);
        let words = line[..end.unwrap_or(line.len())].split_whitespace().collect::<Vec<_>>();
        *line = words.join(" ");
    }
    all.retain(|(_, line)| !line.is_empty());
    all
}

/// The value of an option: `-r x`, `-rx`, `--requirement=x`.
fn option<'a>(line: &'a str, names: &[&str]) -> Option<&'a str> {
    let rest = names.iter().find_map(|name| {
        let rest = line.strip_prefix(name)?;
        let parted = rest.starts_with([' ', '=']) || !name.starts_with("--");
        parted.then_some(rest)
    })?;
    Some(rest.trim_start_matches([' ', '=']).trim())
}

/// The path of a requirement that is a folder or an archive of the codebase.
fn local(line: &str) -> Option<&str> {
    let word = line.split_whitespace().next()?;
    let second = line.split_whitespace().nth(1);
    if second == Some("@") || word.contains("://") || word.contains('@') {
        return None;
    }
    // `.[extra]`: what the extra needs has to stand in the file itself.
    let path = word.split('[').next().unwrap_or(word).split(';').next()?;
    let archive = [".whl", ".tar.gz", ".zip"].iter().any(|end| path.ends_with(end));
    (path.starts_with('.') || path.contains('/') || archive).then_some(path)
}

/// Whether a requirement names one version: `==`, an address, or a commit.
fn is_exact(line: &str) -> bool {
    let line = line.split(" --").next().unwrap_or_default();
    let vcs = ["git+", "hg+", "svn+", "bzr+"].iter().any(|scheme| line.contains(scheme));
    if vcs {
        let address = line.split(['#', ' ', ';']).find(|part| part.contains("+")).unwrap_or("");
        let revision = address.rsplit_once('@').map_or("", |(_, revision)| revision);
        return revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit());
    }
    if line.contains("://") {
        return true;
    }
    let wish = line.split(';').next().unwrap_or_default();
    let wish = match wish.split_once('[') {
        Some((_, rest)) => rest.split_once(']').map_or("", |(_, rest)| rest),
        None => wish.trim_start_matches(|c: char| c.is_alphanumeric() || "._-".contains(c)),
    };
    let wish = wish.trim().trim_start_matches('(').trim_end_matches(')');
    wish.split(',').any(|part| {
        let version =
            part.trim().strip_prefix("==").map(|rest| rest.trim_start_matches('=').trim());
        version.is_some_and(|version| !version.is_empty() && !version.contains('*'))
    })
}
