//! Tokens: what proves who asks.
//!
//! A token is `tolv_` and 40 characters of base 32, 200 random bits. Only its SHA-256 is stored:
//! a hash without salt is enough for a secret that cannot be guessed.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use tolv_model::access::Grant;
use tolv_model::slug::Digest;
use tolv_store::{DatabaseUrl, SecretKey, Store, Token};

use super::error::Error;
use super::platform::Platform;

const PREFIX: &str = "tolv_";
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const BYTES: usize = 25;

impl Platform {
    /// The first token, for everything; nothing where there is one already.
    ///
    /// # Errors
    ///
    /// The store fails.
    pub async fn first_token(&self) -> Result<Option<String>, Error> {
        // Something ran here before, then: it is not the first start, and nothing to wait for.
        if !self.0.prepared.is_cancelled() {
            return Ok(None);
        }
        let text = new_token_text()?;
        let store = self.store();
        let made = store.create_first_token("owner", &token_hash(&text), Timestamp::now()).await?;
        Ok(made.map(|_| text))
    }

    /// Makes a token; its text is not to be had again.
    ///
    /// # Errors
    ///
    /// The store fails.
    pub async fn create_token(
        &self,
        name: &str,
        grant: &Grant,
        expires: Option<Timestamp>,
    ) -> Result<(Token, String), Error> {
        let text = new_token_text()?;
        let store = self.store();
        let token =
            store.create_token(name, grant, &token_hash(&text), expires, Timestamp::now()).await?;
        Ok((token, text))
    }
}

/// The state of a platform that may be running: what `tolv serve` would open.
#[derive(Debug)]
pub struct State<'a> {
    /// Its folder.
    pub home: &'a Path,
    /// Where its database is; in the folder without it.
    pub database: Option<DatabaseUrl>,
    /// Its key; in the folder without it.
    pub secret_key: Option<SecretKey>,
}

/// Makes another token for everything, for the owner of the state folder, and writes that down in
/// the audit log.
///
/// # Errors
///
/// [`Error::NoState`] and [`Error::NotOwner`]; the database is that of another version, or cannot
/// be reached; the key is wrong.
pub async fn recover_token(state: State<'_>) -> Result<String, Error> {
    let home = state.home;
    let stat = std::fs::metadata(home)
        .map_err(|source| Error::NoState { path: home.to_owned(), source })?;
    let user = rustix::process::geteuid().as_raw();
    if stat.uid() != user {
        return Err(Error::NotOwner { path: home.to_owned(), owner: stat.uid(), user });
    }
    // Nothing is made here that `serve` has not made: an empty database would be another platform.
    let existing = |name: &str| -> Result<PathBuf, Error> {
        let path = home.join(name);
        match std::fs::metadata(&path) {
            Ok(_) => Ok(path),
            Err(source) => Err(Error::NoState { path, source }),
        }
    };
    let database = match state.database {
        Some(database) => database,
        None => DatabaseUrl::file(&existing("db.sqlite")?),
    };
    let key = match state.secret_key {
        Some(key) => key,
        None => SecretKey::load_or_create(&existing("secret-key")?)?,
    };
    let store = Store::connect(&database, &key)?;
    store.check().await?;
    let text = new_token_text()?;
    let actor = format!("tolv tokens recover (uid {user})");
    store.recover_token("recovered", &token_hash(&text), &actor, Timestamp::now()).await?;
    Ok(text)
}

/// What is stored of a token.
pub fn token_hash(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

/// The text of a new token.
///
/// # Errors
///
/// The system has no random bytes.
pub fn new_token_text() -> Result<String, Error> {
    let bytes = tolv_store::random::<BYTES>()?;
    let mut text = PREFIX.to_owned();
    // Five bytes are eight letters.
    for five in bytes.chunks(5) {
        let bits = five.iter().fold(0_u64, |bits, &byte| bits << 8 | u64::from(byte));
        for place in (0..8).rev() {
            let index = usize::try_from(bits >> (5 * place) & 31).unwrap_or(0);
            text.push(char::from(ALPHABET[index]));
        }
    }
    Ok(text)
}

/// Random bytes as hex digits.
pub(super) fn random_hex<const N: usize>() -> Result<String, Error> {
    Ok(tolv_store::random::<N>()?.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_look_like_tokens_and_differ() {
        let (one, two) = (new_token_text().unwrap(), new_token_text().unwrap());
        assert_ne!(one, two);
        let rest = one.strip_prefix("tolv_").unwrap();
        assert_eq!(rest.len(), 40);
        assert!(rest.bytes().all(|byte| ALPHABET.contains(&byte)));
    }

    #[test]
    fn secrets_are_hex() {
        let text = random_hex::<32>().unwrap();
        assert_eq!(text.len(), 64);
        assert_ne!(text, random_hex::<32>().unwrap());
    }
}
