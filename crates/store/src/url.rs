//! Where the database is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Not the address of a database.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// An unknown scheme.
    #[error("the database's URL must begin with `sqlite:` or `postgres://`, not `{0}`")]
    Scheme(String),
    /// No path.
    #[error("`sqlite:` wants a path, as in `sqlite:/var/lib/tolv/db.sqlite`")]
    NoPath,
    /// Not a URL; the text is not shown, for it may hold a password.
    #[error("the database's URL cannot be read: {0}")]
    Syntax(String),
}

/// Where the database is: a file of SQLite's or a server of PostgreSQL's. Its `Debug` and
/// `Display` hide a password.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(pub(crate) Place);

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Sqlite(PathBuf),
    Postgres(String),
}

impl DatabaseUrl {
    /// A file of SQLite's.
    pub fn file(path: &Path) -> Self {
        Self(Place::Sqlite(path.to_owned()))
    }
}

impl FromStr for DatabaseUrl {
    type Err = DatabaseUrlError;

    /// Reads `sqlite:PATH`, `sqlite://PATH`, `postgres://…` and `postgresql://…`.
    fn from_str(text: &str) -> Result<Self, DatabaseUrlError> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            let path = path.split('?').next().unwrap_or_default();
            return match path {
                "" | ":memory:" => Err(DatabaseUrlError::NoPath),
                path => Ok(Self::file(Path::new(path))),
            };
        }
        let parsed = url::Url::parse(text);
        match parsed {
            Ok(url) if matches!(url.scheme(), "postgres" | "postgresql") => {
                Ok(Self(Place::Postgres(text.to_owned())))
            }
            Ok(url) => Err(DatabaseUrlError::Scheme(url.scheme().to_owned())),
            Err(error) => Err(DatabaseUrlError::Syntax(error.to_string())),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Place::Postgres(text) => {
                let Ok(mut url) = url::Url::parse(text) else {
                    return f.write_str("postgres://…");
                };
                if url.password().is_some() && url.set_password(Some("****")).is_err() {
                    return f.write_str("postgres://…");
                }
                // It may also be a parameter.
                if url.query_pairs().any(|(name, _)| name == "password") {
                    url.set_query(None);
                    return write!(f, "{url}?…");
                }
                write!(f, "{url}")
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_passwords_hidden() {
        let show = |text: &str| text.parse::<DatabaseUrl>().map(|url| url.to_string());
        assert_eq!(show("sqlite:/a/b.sqlite").unwrap(), "sqlite:/a/b.sqlite");
        assert_eq!(show("sqlite:///a/b?mode=rwc").unwrap(), "sqlite:/a/b");
        assert_eq!(
            show("postgres://tolv:s3cret@db:5432/tolv").unwrap(),
            "postgres://tolv:****@db:5432/tolv"
        );
        let parameter = "postgres:///tolv?host=/run/postgresql&password=s3cret";
        assert_eq!(show(parameter).unwrap(), "postgres:///tolv?…");
        for bad in ["", "mysql://x/y", "sqlite:", "sqlite::memory:", "no url at all"] {
            let error = show(bad).unwrap_err().to_string();
            assert!(!error.is_empty());
        }
    }
}
