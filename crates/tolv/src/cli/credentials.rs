//! Tokens by platform, in a file that only its owner may read.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::failure::Failure;
use crate::settings::Settings;

/// The token in `TOLV_TOKEN`, where that is set.
pub(crate) fn token_of_environment(settings: &Settings) -> Result<Option<String>, Failure> {
    let Some(token) = settings.token.as_deref().map(str::trim) else { return Ok(None) };
    match is_token(token) {
        true => Ok(Some(token.to_owned())),
        // What it is instead may be a secret of another kind.
        false => Err(Failure::new("TOLV_TOKEN is not a token: it does not read `tolv_…` alone")
            .hint("TOLV_TOKEN=$(tolv tokens create --role deploy), or unset it")),
    }
}

/// Whether a text has the form of a token.
pub(crate) fn is_token(text: &str) -> bool {
    let rest = text.strip_prefix("tolv_").unwrap_or_default();
    !rest.is_empty() && rest.len() <= MAX_TOKEN && rest.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// Letters of a token behind its prefix, which has 40 today.
const MAX_TOKEN: usize = 200;

/// What is stored.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Credentials {
    /// The platform of the last login.
    last: Option<String>,
    tokens: BTreeMap<String, String>,
    #[serde(skip)]
    path: Option<PathBuf>,
}

impl Credentials {
    /// Reads the file; nothing where there is none.
    pub(crate) fn load(settings: &Settings) -> Result<Self, Failure> {
        let Some(path) =
            settings.config_home.as_ref().map(|home| home.join("tolv/credentials.json"))
        else {
            return Ok(Self::default());
        };
        let shown = path.display().to_string();
        let mut loaded: Self = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|_| {
                Failure::new(format!("`{shown}` is not a file of credentials"))
                    .hint("remove it and log in again: tolv login URL --token tolv_…")
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::default(),
            Err(error) => return Err(Failure::new(format!("`{shown}` cannot be read: {error}"))),
        };
        loaded.path = Some(path);
        Ok(loaded)
    }

    pub(crate) fn last(&self) -> Option<&str> {
        self.last.as_deref()
    }

    pub(crate) fn token(&self, server: &str) -> Option<&str> {
        self.tokens.get(server.trim_end_matches('/')).map(String::as_str)
    }

    /// Keeps a token, and remembers its platform as the last.
    pub(crate) fn put(&mut self, server: &str, token: String) -> Result<(), Failure> {
        let server = server.trim_end_matches('/').to_owned();
        self.tokens.insert(server.clone(), token);
        self.last = Some(server);
        self.save()
    }

    /// Forgets a platform; whether it was known.
    pub(crate) fn remove(&mut self, server: &str) -> Result<bool, Failure> {
        let server = server.trim_end_matches('/');
        let known = self.tokens.remove(server).is_some();
        if self.last.as_deref() == Some(server) {
            self.last = self.tokens.keys().next().cloned();
        }
        self.save()?;
        Ok(known)
    }

    fn save(&self) -> Result<(), Failure> {
        let path = self.path.as_ref().ok_or_else(|| {
            Failure::new(
                "there is no folder for credentials: neither HOME nor XDG_CONFIG_HOME is set",
            )
        })?;
        let write = || {
            if let Some(folder) = path.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            }
            let mut text = serde_json::to_vec_pretty(self)?;
            text.push(b'\n');
            tolv_durable::write(path, &text, 0o600)
        };
        write().map_err(|error: io::Error| {
            Failure::new(format!("`{}` cannot be written: {error}", path.display()))
        })
    }
}
