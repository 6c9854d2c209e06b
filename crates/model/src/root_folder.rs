//! The folder of a repository that is an app's codebase, where that is not the whole repository.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::source::is_hostile;
use crate::tree_path::TreePath;

/// A relative path below the root of a repository, `/` between its names: `services/api`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RootFolder(String);

/// A text that names no folder of a repository.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the root folder `{shown}` {why}")]
pub struct RootFolderError {
    shown: String,
    why: String,
}

/// Characters of a wrong text that an error shows.
const MAX_SHOWN: usize = 200;

impl RootFolder {
    /// The path.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of a file in it, from the root of the repository.
    pub fn join(&self, name: &str) -> String {
        format!("{}/{name}", self.0)
    }
}

impl FromStr for RootFolder {
    type Err = RootFolderError;
    fn from_str(text: &str) -> Result<Self, RootFolderError> {
        let error = |why: String| {
            let shown = text.escape_debug().take(MAX_SHOWN).collect();
            RootFolderError { shown, why }
        };
        // As people and their shells write it: `./services/api/`.
        let path = text.strip_prefix("./").unwrap_or(text);
        let path = path.strip_suffix('/').filter(|path| !path.is_empty()).unwrap_or(path);
        if matches!(path, "" | ".") {
            return Err(error("is the whole repository, as without it".to_owned()));
        }
        if path.chars().any(is_hostile) {
            return Err(error("has control characters in it".to_owned()));
        }
        TreePath::new(path).map_err(|bad| {
            error(format!("{bad}: write it from the root of the repository, as in `services/api`"))
        })?;
        Ok(Self(path.to_owned()))
    }
}

impl fmt::Display for RootFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for RootFolder {
    type Error = RootFolderError;
    fn try_from(text: String) -> Result<Self, RootFolderError> {
        text.parse()
    }
}

impl From<RootFolder> for String {
    fn from(folder: RootFolder) -> Self {
        folder.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_is_taken_however_it_is_written() {
        for text in ["services/api", "./services/api", "services/api/", "./services/api/"] {
            let folder: RootFolder = text.parse().unwrap();
            assert_eq!(folder.as_str(), "services/api");
            assert_eq!(folder.join("Procfile"), "services/api/Procfile");
        }
        assert_eq!("my app".parse::<RootFolder>().unwrap().as_str(), "my app");
    }

    #[test]
    fn what_is_no_folder_of_a_repository_is_refused_with_the_reason() {
        for (text, why) in [
            ("", "is the whole repository"),
            (".", "is the whole repository"),
            ("./", "is the whole repository"),
            ("/", "is absolute"),
            ("/srv/api", "is absolute"),
            ("..", "has the name `.` or `..`"),
            ("../api", "has the name `.` or `..`"),
            ("services/../../x", "has the name `.` or `..`"),
            ("services//api", "has an empty name"),
            (".git/hooks", "take for `.git`"),
            ("services/.GIT", "take for `.git`"),
            ("a\nb", "has control characters"),
            ("a\u{202e}b", "has control characters"),
            (&"a/".repeat(300), "folders deep"),
        ] {
            let error = text.parse::<RootFolder>().unwrap_err().to_string();
            assert!(error.contains(why), "{text:?}: {error}");
            assert!(!error.contains('\n') && error.len() < 600, "{error}");
        }
    }
}
