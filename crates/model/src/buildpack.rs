//! Buildpacks: which ones build an app, and how each is written.
//!
//! | written | what it is |
//! |---|---|
//! | `https://git.example.org/pack.git`, `…#v2` | a git repository; a branch, a tag, or all digits of a commit |
//! | `./packs/own`, `packs/own` | a folder of the codebase |
//! | `heroku/python`, `heroku-community/apt` | Tolv's builder of that language; else Heroku's repository of that name |
//!
//! Source: the Buildpack API of Heroku.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::source::is_hostile;

/// The name of the file in the root of a codebase that lists buildpacks, one a line.
pub const FILE: &str = ".buildpacks";
/// Most buildpacks of one app.
pub const MAX_BUILDPACKS: usize = 20;
/// Longest text of a buildpack, in bytes.
const MAX_TEXT: usize = 2048;
/// Longest name of a branch or tag, in bytes.
const MAX_REFERENCE: usize = 200;
/// Where Heroku has its own ones.
const HEROKU: &str = "https://github.com/heroku/heroku-buildpack-";

/// One buildpack, as it was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Buildpack {
    text: String,
    source: Source,
}

/// Where a buildpack is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// A git repository.
    Git {
        /// Its https URL.
        url: String,
        /// A branch, a tag or a commit; the default branch without it.
        reference: Option<String>,
        /// The language, where it is one of Heroku's own and no `#ref` is asked for.
        language: Option<String>,
    },
    /// A folder of the codebase, `/` between parts, without `.` and `..`; `""` is the root.
    Folder(String),
}

/// A text that is not a buildpack.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the buildpack `{shown}` {why}")]
pub struct BuildpackError {
    shown: String,
    why: &'static str,
}

impl Buildpack {
    /// Where it is.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl FromStr for Buildpack {
    type Err = BuildpackError;
    fn from_str(text: &str) -> Result<Self, BuildpackError> {
        let text = text.trim();
        let source = source(text).map_err(|why| BuildpackError { shown: redacted(text), why })?;
        Ok(Self { text: text.to_owned(), source })
    }
}

fn source(text: &str) -> Result<Source, &'static str> {
    if text.is_empty() {
        return Err(
            "is empty: write an https URL of a git repository, or a folder of the codebase",
        );
    }
    if text.len() > MAX_TEXT {
        return Err("is longer than 2048 bytes");
    }
    if text.chars().any(|letter| is_hostile(letter) || letter.is_whitespace()) {
        return Err("has blanks or control characters in it");
    }
    let text = text.strip_prefix("urn:buildpack:").unwrap_or(text);
    if text.to_ascii_lowercase().starts_with("https://") {
        return git(text);
    }
    if text.contains(':') {
        return Err("is not fetched: write the https URL of its git repository");
    }
    if text.starts_with('-') {
        return Err("begins with `-`: write an https URL, or a folder of the codebase");
    }
    for owner in ["heroku/", "heroku-community/"] {
        if let Some(name) = text.strip_prefix(owner) {
            let plain =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            if name.is_empty() || !name.bytes().all(plain) {
                return Err("is not the name of one of Heroku's buildpacks");
            }
            let url = format!("{HEROKU}{name}");
            return Ok(Source::Git { language: language(&url), url, reference: None });
        }
    }
    folder(text).map(Source::Folder)
}

/// `https://host/path#reference`.
fn git(text: &str) -> Result<Source, &'static str> {
    let (url, reference) = match text.split_once('#') {
        Some((url, reference)) => (url, Some(reference)),
        None => (text, None),
    };
    let rest = url.get("https://".len()..).unwrap_or_default();
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if host.is_empty() || path.trim_matches('/').is_empty() {
        return Err("names no repository");
    }
    if host.contains('@') {
        return Err("has a name or a password in its URL: a build has no credentials");
    }
    if url.contains('?') {
        return Err("has a query in its URL, which may be secret: write the plain URL");
    }
    if [".tgz", ".tar.gz", ".zip"].iter().any(|end| url.ends_with(end)) {
        return Err("is an archive: write the https URL of its git repository");
    }
    if reference.is_some_and(|reference| !is_reference(reference)) {
        return Err("has a `#` that no name of a branch, tag or commit follows");
    }
    let language = if reference.is_none() { language(url) } else { None };
    Ok(Source::Git { url: url.to_owned(), reference: reference.map(str::to_owned), language })
}

/// What git takes for a name, and nothing that it could take for something else.
fn is_reference(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/-+".contains(&byte);
    !name.is_empty()
        && name.len() <= MAX_REFERENCE
        && name.bytes().all(plain)
        && !name.starts_with(['-', '/', '.'])
        && !name.ends_with(['/', '.'])
        && !name.ends_with(".lock")
        && !["..", "//", "/."].iter().any(|part| name.contains(part))
}

/// The language of one of Heroku's own: `python`, `nodejs`.
fn language(url: &str) -> Option<String> {
    let name = url.trim_end_matches('/').trim_end_matches(".git").strip_prefix(HEROKU)?;
    (!name.contains('/')).then(|| name.to_owned())
}

fn folder(text: &str) -> Result<String, &'static str> {
    if text.starts_with('/') || text.starts_with('~') {
        return Err("is a path of a machine: write a folder of the codebase, as in `./buildpack`");
    }
    let mut parts = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err("leaves the codebase"),
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// For messages: without credentials and query, harmless and short.
fn redacted(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = match text.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), text),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    let whole = format!("{scheme}{host}{path}").escape_debug().to_string();
    whole.chars().take(200).collect()
}

impl fmt::Display for Buildpack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for Buildpack {
    type Error = BuildpackError;
    fn try_from(text: String) -> Result<Self, BuildpackError> {
        text.parse()
    }
}

impl From<Buildpack> for String {
    fn from(buildpack: Buildpack) -> Self {
        buildpack.text
    }
}

/// Reads a `.buildpacks`: one a line; blank lines and lines that begin with `#` say nothing.
///
/// # Errors
///
/// The first line that is not a buildpack, with its number; too many of them.
pub fn parse_list(text: &str) -> Result<Vec<Buildpack>, String> {
    let mut all = Vec::new();
    for (place, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let place = place + 1;
        all.push(line.parse().map_err(|error| format!("`{FILE}` line {place}: {error}"))?);
        if all.len() > MAX_BUILDPACKS {
            return Err(format!("`{FILE}` line {place}: more than {MAX_BUILDPACKS} buildpacks"));
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        text.parse::<Buildpack>().unwrap().source
    }

    #[test]
    fn urls_folders_and_names_of_herokus() {
        let git = |url: &str, reference: Option<&str>, language: Option<&str>| Source::Git {
            url: url.to_owned(),
            reference: reference.map(str::to_owned),
            language: language.map(str::to_owned),
        };
        let url = "https://git.example.org/a/pack.git";
        assert_eq!(source(url), git(url, None, None));
        assert_eq!(source(&format!("{url}#v2.1")), git(url, Some("v2.1"), None));
        let python = "https://github.com/heroku/heroku-buildpack-python";
        assert_eq!(source(python), git(python, None, Some("python")));
        assert_eq!(source(&format!("{python}#v301")), git(python, Some("v301"), None));
        assert_eq!(source("heroku/python"), git(python, None, Some("python")));
        let apt = "https://github.com/heroku/heroku-buildpack-apt";
        assert_eq!(source("urn:buildpack:heroku-community/apt"), git(apt, None, Some("apt")));
        for folder in ["./packs/own", "packs/own/", "packs//./own"] {
            assert_eq!(source(folder), Source::Folder("packs/own".to_owned()), "{folder}");
        }
        assert_eq!(source("."), Source::Folder(String::new()));
    }

    #[test]
    fn whatever_else_is_refused_with_the_reason_and_no_secret() {
        for (text, why) in [
            ("", "is empty"),
            ("ssh://git@git.example.org/a", "is not fetched"),
            ("git@git.example.org:a/b.git", "is not fetched"),
            ("http://git.example.org/a", "is not fetched"),
            ("git://git.example.org/a", "is not fetched"),
            ("file:///etc", "is not fetched"),
            ("ext::sh", "is not fetched"),
            ("ext::sh -c x", "has blanks"),
            ("--upload-pack=x", "begins with `-`"),
            ("https://", "names no repository"),
            ("https://git.example.org/", "names no repository"),
            ("https://ada:s3cret@git.example.org/a", "has a name or a password"),
            ("https://git.example.org/a?token=s3cret", "has a query"),
            ("https://git.example.org/a.tgz", "is an archive"),
            ("https://git.example.org/a#", "has a `#`"),
            ("https://git.example.org/a#--upload-pack=x", "has a `#`"),
            ("https://git.example.org/a#a..b", "has a `#`"),
            ("https://git.example.org/a#a:b", "has a `#`"),
            ("/srv/pack", "is a path of a machine"),
            ("~/pack", "is a path of a machine"),
            ("../pack", "leaves the codebase"),
            ("packs/../../x", "leaves the codebase"),
            ("heroku/Python", "is not the name"),
        ] {
            let error = text.parse::<Buildpack>().unwrap_err();
            assert!(error.why.starts_with(why), "{text}: {error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        }
        assert!(format!("https://x/{}", "a".repeat(MAX_TEXT)).parse::<Buildpack>().is_err());
    }

    #[test]
    fn a_list_has_one_a_line_and_an_error_its_line() {
        let list = parse_list("\u{feff}# of ours\r\n\r\nheroku/nodejs\r\n./own\n").unwrap();
        assert_eq!(
            list.iter().map(Buildpack::as_str).collect::<Vec<_>>(),
            ["heroku/nodejs", "./own"]
        );
        let error = parse_list("./own\n\n../x\n").unwrap_err();
        assert_eq!(error, "`.buildpacks` line 3: the buildpack `../x` leaves the codebase");
        assert!(parse_list(&"./own\n".repeat(MAX_BUILDPACKS + 1)).is_err());
    }
}
