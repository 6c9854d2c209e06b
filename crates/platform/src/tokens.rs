//! Tokens: what proves who asks.
//!
//! A token is `tolv_` and 40 characters of base 32, 200 random bits. Only its SHA-256 is stored:
//! a hash without salt is enough for a secret that cannot be guessed.

use jiff::Timestamp;
use tolv_model::access::{Grant, Role};
use tolv_model::slug::Digest;
use tolv_store::Token;

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
        if self.store().has_tokens().await? {
            return Ok(None);
        }
        let grant = Grant { role: Role::Admin, app: None };
        Ok(Some(self.create_token("owner", &grant, None).await?.1))
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
        let text = new_text()?;
        let store = self.store();
        let token =
            store.create_token(name, grant, &token_hash(&text), expires, Timestamp::now()).await?;
        Ok((token, text))
    }
}

/// What is stored of a token.
pub fn token_hash(text: &str) -> Digest {
    Digest::of(text.as_bytes())
}

fn new_text() -> Result<String, Error> {
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
        let (one, two) = (new_text().unwrap(), new_text().unwrap());
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
