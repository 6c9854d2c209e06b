//! The path of a file in a tree that a stranger made: checked once, here, and safe to open below
//! a folder afterwards.
//!
//! Refused are: an empty name, `.`, `..`, an absolute path, a NUL, and `.git` in every spelling
//! that some file system takes for it (as git's `verify_path` and fsck know them): in any case,
//! with trailing dots, spaces or a stream name (NTFS), as `git~1` (its short name), with the code
//! points in it that HFS+ ignores.

use std::fmt;

/// Most bytes of a name in a path: what Linux takes.
pub const MAX_NAME_BYTES: usize = 255;
/// Most bytes of a path, well below what the system takes with a folder in front of it.
pub const MAX_PATH_BYTES: usize = 3072;
/// Most names in a path.
pub const MAX_DEPTH: usize = 256;

/// A relative path, `/` between its names.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Vec<u8>);

/// Why bytes are not a [`TreePath`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TreePathError {
    /// Nothing between two slashes, at the end, or at all.
    #[error("has an empty name")]
    Empty,
    /// A slash in front.
    #[error("is absolute")]
    Absolute,
    /// `.` or `..`.
    #[error("has the name `.` or `..`")]
    Dots,
    /// A zero byte.
    #[error("has a zero byte")]
    Zero,
    /// A spelling of `.git`.
    #[error("has a name that some file systems take for `.git`")]
    Git,
    /// A name is longer than [`MAX_NAME_BYTES`].
    #[error("has a name of more than 255 bytes")]
    LongName,
    /// It is longer than [`MAX_PATH_BYTES`].
    #[error("has more than 3072 bytes")]
    Long,
    /// It has more names than [`MAX_DEPTH`].
    #[error("is more than 256 folders deep")]
    Deep,
}

impl TreePath {
    /// Checks a path.
    ///
    /// # Errors
    ///
    /// The first reason against it.
    pub fn new(path: impl Into<Vec<u8>>) -> Result<Self, TreePathError> {
        let path = path.into();
        check(&path)?;
        Ok(Self(path))
    }

    /// The path.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path as bytes of the caller's own.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The folder that it is in, empty for the root, and its own name.
    pub fn split(&self) -> (&[u8], &[u8]) {
        match self.0.iter().rposition(|&byte| byte == b'/') {
            Some(at) => (&self.0[..at], &self.0[at + 1..]),
            None => (&[], &self.0),
        }
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

fn check(path: &[u8]) -> Result<(), TreePathError> {
    match path {
        [] => return Err(TreePathError::Empty),
        [b'/', ..] => return Err(TreePathError::Absolute),
        path if path.len() > MAX_PATH_BYTES => return Err(TreePathError::Long),
        path if path.contains(&0) => return Err(TreePathError::Zero),
        _ => {}
    }
    for (depth, name) in path.split(|&byte| byte == b'/').enumerate() {
        match name {
            [] => return Err(TreePathError::Empty),
            b"." | b".." => return Err(TreePathError::Dots),
            name if name.len() > MAX_NAME_BYTES => return Err(TreePathError::LongName),
            _ if depth >= MAX_DEPTH => return Err(TreePathError::Deep),
            name => {
                // Windows takes a backslash for a slash.
                if name.split(|&byte| byte == b'\\').any(is_git) {
                    return Err(TreePathError::Git);
                }
            }
        }
    }
    Ok(())
}

fn is_git(name: &[u8]) -> bool {
    is_ntfs_git(name) || is_hfs_git(name)
}

/// `.git` or `git~1`, then nothing but dots and spaces up to the end or a colon.
fn is_ntfs_git(name: &[u8]) -> bool {
    let begins = |wanted: &[u8]| {
        name.get(..wanted.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(wanted))
    };
    let length = if begins(b".git") {
        4
    } else if begins(b"git~1") {
        5
    } else {
        return false;
    };
    let rest = name[length..].iter().take_while(|&&byte| byte != b':');
    rest.copied().all(|byte| byte == b'.' || byte == b' ')
}

/// `.git` once the code points that HFS+ ignores are taken out.
fn is_hfs_git(name: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(name) else { return false };
    text.chars().filter(|&c| !is_ignored(c)).collect::<String>().eq_ignore_ascii_case(".git")
}

/// git's `next_hfs_char`.
fn is_ignored(c: char) -> bool {
    matches!(
        c,
        '\u{200c}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{206a}'..='\u{206f}' | '\u{feff}'
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_names_are_taken_as_they_are() {
        for good in [
            "a",
            "a/b",
            ".gitignore",
            ".github/x",
            "..a",
            "a..",
            "...",
            "git",
            "git~2",
            ".gitx",
            " ",
            "a\\b",
            "new\nline",
            "-rf",
            ".git-index",
            "a:b",
            "x.git",
            ".git_",
            "d\u{e9}j\u{e0}",
        ] {
            assert_eq!(TreePath::new(good).unwrap().as_bytes(), good.as_bytes(), "{good}");
        }
        assert!(TreePath::new(&b"caf\xe9"[..]).is_ok());
        assert_eq!(TreePath::new("a/b/c").unwrap().split(), (&b"a/b"[..], &b"c"[..]));
        assert_eq!(TreePath::new("c").unwrap().split(), (&b""[..], &b"c"[..]));
    }

    #[test]
    fn what_leads_elsewhere_is_refused() {
        use TreePathError::{Absolute, Deep, Dots, Empty, Long, LongName, Zero};
        let refused = |path: &str| TreePath::new(path).unwrap_err();
        for (path, why) in [
            ("", Empty),
            ("a//b", Empty),
            ("a/", Empty),
            ("/", Absolute),
            ("/etc/passwd", Absolute),
            (".", Dots),
            ("..", Dots),
            ("a/..", Dots),
            ("../a", Dots),
            ("a/./b", Dots),
            ("a\0", Zero),
        ] {
            assert_eq!(refused(path), why, "{path:?}");
        }
        assert_eq!(refused(&"x".repeat(256)), LongName);
        assert_eq!(refused(&"x/".repeat(2000)), Long);
        assert_eq!(refused(&format!("{}x", "x/".repeat(256))), Deep);
        assert!(TreePath::new(format!("{}x", "x/".repeat(255))).is_ok());
    }

    #[test]
    fn git_is_refused_in_every_spelling() {
        for name in [
            ".git",
            ".GIT",
            ".Git",
            ".git.",
            ".git ",
            ".git. .",
            "git~1",
            "GIT~1",
            "git~1.",
            ".git::$INDEX_ALLOCATION",
            ".git:x",
            ".g\u{200c}it",
            "\u{feff}.git",
            ".GI\u{206f}T",
        ] {
            for path in [
                name.to_owned(),
                format!("a/{name}"),
                format!("{name}/hooks/x"),
                format!("a\\{name}"),
            ] {
                assert_eq!(TreePath::new(path.as_str()), Err(TreePathError::Git), "{path:?}");
            }
        }
    }
}
