//! What a request asks for: the path of its URL as names of folders and files.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// The one folder whose name may begin with a dot: RFC 8615 puts public files there.
const WELL_KNOWN: &str = ".well-known";

/// A path below the root, made of plain names only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    /// Relative; empty for the root itself.
    pub(crate) path: PathBuf,
    /// Whether a folder is asked for: the URL's path ends with `/`.
    pub(crate) folder: bool,
}

/// Why there is no target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// No path of a URL.
    Malformed,
    /// A path that nothing may be found at, such as one with `..` or a hidden name.
    Nowhere,
}

impl Target {
    /// Reads the path of a URL.
    pub(crate) fn parse(path: &str) -> Result<Self, Refused> {
        let path = path.strip_prefix('/').ok_or(Refused::Malformed)?;
        let (names, folder) = match path.strip_suffix('/') {
            Some(names) => (names, true),
            None => (path, path.is_empty()),
        };
        let mut target = Self { path: PathBuf::new(), folder };
        if path.is_empty() {
            return Ok(target);
        }
        for name in names.split('/') {
            let name = decode(name).ok_or(Refused::Malformed)?;
            if name.contains(&0) {
                return Err(Refused::Malformed);
            }
            // Pushed, a name with a slash would be a path, and the path takes `.` for nothing.
            if name.is_empty() || name == b"." || name.contains(&b'/') {
                return Err(Refused::Nowhere);
            }
            target.path.push(OsStr::from_bytes(&name));
        }
        if is_hidden(&target.path) { Err(Refused::Nowhere) } else { Ok(target) }
    }

    /// The path as rules are compared with it: decoded, each name once.
    pub(crate) fn as_text(&self) -> String {
        let end = if self.folder && !self.path.as_os_str().is_empty() { "/" } else { "" };
        format!("/{}{end}", self.path.display())
    }

    /// The path of the URL with a `/` at its end.
    pub(crate) fn as_folder(&self) -> String {
        let mut url = String::from("/");
        for name in &self.path {
            encode(name.as_bytes(), &mut url);
            url.push('/');
        }
        url
    }
}

/// Whether a relative path has anything but plain names, or a name that begins with a dot.
pub(crate) fn is_hidden(path: &Path) -> bool {
    path.components().enumerate().any(|(place, component)| match component {
        Component::Normal(name) if place == 0 && name == WELL_KNOWN => false,
        Component::Normal(name) => name.as_bytes().starts_with(b"."),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
            true
        }
    })
}

/// Replaces each `%XX`; nothing if one is not.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let code = digit()? * 16 + digit()?;
            decoded.push(u8::try_from(code).ok()?);
        } else {
            decoded.push(byte);
        }
    }
    Some(decoded)
}

fn encode(bytes: &[u8], url: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            url.push('%');
            for digit in [byte >> 4, byte & 15] {
                url.extend(
                    char::from_digit(digit.into(), 16).map(|digit| digit.to_ascii_uppercase()),
                );
            }
        }
    }
}

#[cfg(test)]
mod tests;
