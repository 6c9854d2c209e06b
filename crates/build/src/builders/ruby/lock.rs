//! What matters here of a `Gemfile` and a `Gemfile.lock`.

use std::collections::BTreeMap;

use super::super::inside;
use crate::toolchains::ruby::Want;
use crate::tree::Tree;
use crate::{Error, builders::ruby::NAME};

/// A `Gemfile.lock`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Lock {
    /// Names and versions, with their platforms as the lock writes them: `1.16.0-x86_64-linux`.
    pub(super) gems: BTreeMap<String, Vec<String>>,
    /// The same, of gems that come from a gem server alone.
    pub(super) served: Vec<(String, String)>,
    /// Folders of the codebase that are gems.
    pub(super) folders: Vec<String>,
    /// For which platforms it was made.
    pub(super) platforms: Vec<String>,
}

impl Lock {
    /// Reads it; sections and lines of another kind are passed over, as Bundler does.
    pub(super) fn parse(text: &str) -> Self {
        let mut lock = Self::default();
        let mut section = "";
        for line in text.lines() {
            let depth = line.len() - line.trim_start().len();
            let words = line.trim();
            if words.is_empty() {
                continue;
            }
            match (depth, section) {
                (0, _) => section = words,
                (2, "PATH") => {
                    lock.folders.extend(words.strip_prefix("remote: ").map(str::to_owned))
                }
                (2, "PLATFORMS") => lock.platforms.push(words.to_owned()),
                (4, "GEM" | "GIT" | "PATH") => {
                    let Some((name, rest)) = words.split_once(" (") else { continue };
                    let version = rest.trim_end_matches(')').to_owned();
                    if section == "GEM" {
                        lock.served.push((name.to_owned(), version.clone()));
                    }
                    lock.gems.entry(name.to_owned()).or_default().push(version);
                }
                _ => {}
            }
        }
        lock
    }

    pub(super) fn has(&self, gem: &str) -> bool {
        self.gems.contains_key(gem)
    }
}

/// The wish for a Ruby: of the Gemfile, else of a file for those who install one.
///
/// # Errors
///
/// [`Error::Plan`] for a wish that is not understood.
pub(super) fn want(tree: &Tree, gemfile: &str) -> Result<Option<Want>, Error> {
    let wrong = |text: &str, from: &str| Error::Plan {
        builder: NAME,
        problem: format!("`{from}` asks for Ruby `{text}`, which Tolv does not understand"),
        help: "name a version of MRI, such as `3.1.2` or `~> 3.1`".to_owned(),
    };
    let line = gemfile.lines().map(code).find_map(|line| {
        let rest = line.strip_prefix("ruby")?;
        rest.starts_with([' ', '(', '\t']).then(|| rest.trim().to_owned())
    });
    let mut files: Vec<&'static str> = vec![".ruby-version", ".tool-versions"];
    if let Some(line) = line {
        let texts = quoted(&line);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        match line.contains("file:") || line.contains(":file") {
            // The Gemfile's word is what that file says.
            true => files.retain(|file| texts.contains(file)),
            false if texts.is_empty() => {}
            false => {
                let want = Want::requirement(&texts, "Gemfile");
                return want.map(Some).ok_or_else(|| wrong(&texts.join(", "), "Gemfile"));
            }
        }
    }
    for file in files {
        let Some(text) = tree.text(file)? else { continue };
        let named = match file {
            ".tool-versions" => text.lines().find_map(|line| line.trim().strip_prefix("ruby ")),
            _ => text.lines().map(str::trim).find(|line| !line.is_empty()),
        };
        if let Some(named) = named {
            let want = Want::version(named, file);
            return want.map(Some).ok_or_else(|| wrong(named.trim(), file));
        }
    }
    Ok(None)
}

/// What a Gemfile may read: files of the codebase that it names in quotes, and those that these name
/// where they are Ruby too; what its gems' own folders hold.
pub(super) fn read_files(tree: &Tree, gemfile: &str, lock: &Lock) -> Vec<String> {
    let mut files: Vec<String> = ["Gemfile", "Gemfile.lock", ".ruby-version", ".tool-versions"]
        .iter()
        .filter(|path| tree.is_file(path))
        .map(|path| (*path).to_owned())
        .collect();
    let mut texts = vec![gemfile.to_owned()];
    while let Some(text) = texts.pop() {
        for word in text.lines().flat_map(|line| quoted(code(line))) {
            let Some(path) = inside("", &word) else { continue };
            let path =
                [path.clone(), format!("{path}.rb")].into_iter().find(|path| tree.is_file(path));
            let Some(path) = path.filter(|path| !files.contains(path)) else { continue };
            texts.extend(tree.text(&path).ok().flatten().filter(|_| files.len() < MAX_READ));
            files.push(path);
        }
    }
    // A `gemspec` line asks for all of them.
    let specs = tree.names("").into_iter().filter(|name| name.ends_with(".gemspec"));
    let is_gem = gemfile.lines().map(code).any(|line| line.starts_with("gemspec"));
    files.extend(specs.filter(|name| is_gem && tree.is_file(name)));
    if is_gem {
        files.extend(super::super::files_below(tree, "lib"));
    }
    for folder in lock.folders.iter().filter_map(|folder| inside("", folder)) {
        if !folder.is_empty() {
            files.extend(super::super::files_below(tree, &folder));
        }
    }
    files.sort();
    files.dedup();
    files
}

/// Files that name others, at most.
const MAX_READ: usize = 100;

/// A line without its comment.
fn code(line: &str) -> &str {
    let line = line.trim();
    match line.strip_prefix('#') {
        Some(_) => "",
        None => line.split(" #").next().unwrap_or(line),
    }
}

/// What stands in quotes in a line.
fn quoted(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(start) = rest.find(['"', '\'']) {
        let quote = rest.as_bytes()[start];
        let after = &rest[start + 1..];
        let Some(end) = after.find(char::from(quote)) else { break };
        words.push(after[..end].to_owned());
        rest = &after[end + 1..];
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read() {
        let lock = Lock::parse(
            "GIT\n  remote: https://example.org/x.git\n  revision: 0a\n  specs:\n    x (1.0)\n\n\
             PATH\n  remote: engines/shop\n  specs:\n    shop (0.1.0)\n      rack (>= 2)\n\n\
             GEM\n  remote: https://rubygems.org/\n  specs:\n    nokogiri (1.16.0-x86_64-linux)\n    \
             nokogiri (1.16.0-arm64-darwin)\n    rack (3.0.8)\n\n\
             PLATFORMS\n  x86_64-linux\n  ruby\n\nDEPENDENCIES\n  rack\n\n\
             RUBY VERSION\n   ruby 3.1.2p20\n\nBUNDLED WITH\n   2.3.15\n",
        );
        assert_eq!(lock.folders, ["engines/shop"]);
        assert_eq!(lock.platforms, ["x86_64-linux", "ruby"]);
        assert_eq!(lock.gems["nokogiri"], ["1.16.0-x86_64-linux", "1.16.0-arm64-darwin"]);
        assert_eq!(lock.served.len(), 3);
        assert!(lock.has("shop") && lock.has("x") && !lock.has("ruby"));
        assert_eq!(Lock::parse("<<<<<<< HEAD\n    a (1)\n  remote: /etc\n"), Lock::default());
    }

    #[test]
    fn words_in_quotes_are_found() {
        assert_eq!(quoted(r#"gem "a", '~> 1', path: "x/y""#), ["a", "~> 1", "x/y"]);
        assert_eq!(quoted(r#"gem "a"#), [""; 0]);
        assert_eq!(quoted(code(r#"gem 'a' # 'b'"#)), ["a"]);
        assert_eq!(code("  # gem 'a'"), "");
    }
}
