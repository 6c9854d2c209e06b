//! The secret key, and what is sealed with it.
//!
//! XChaCha20-Poly1305 with a random nonce of 24 bytes in front of each sealed text; what the text
//! belongs to is authenticated with it, so that a value cannot be moved to another deploy.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use rustix::rand::{GetRandomFlags, getrandom};
use sha2::{Digest as _, Sha256};
use tolv_model::ledger::LedgerKey;

use crate::error::{Error, KeyError};

const NONCE: usize = 24;
const TAG: usize = 16;
/// What a sealed stream begins with.
const MAGIC: &[u8] = b"tolv sealed 1\n";
/// The random part of the nonces of a stream.
const PREFIX: usize = NONCE - 5;
/// Bytes of a stream that are sealed at once.
const CHUNK: usize = 64 << 10;

/// The key that config values are sealed with. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretKey([u8; 32]);

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

impl SecretKey {
    /// Reads a key from 64 hex digits or base 64; `from` names where the text is from.
    ///
    /// # Errors
    ///
    /// [`KeyError::Syntax`].
    pub fn from_text(text: &str, from: &str) -> Result<Self, KeyError> {
        let text = text.trim();
        let digest = text.parse::<tolv_model::slug::Digest>().ok().map(|digest| digest.0);
        let bytes = digest.or_else(|| STANDARD.decode(text).ok()?.try_into().ok());
        bytes.map(Self).ok_or_else(|| KeyError::Syntax { from: from.to_owned() })
    }

    /// Reads the key in a file that only its owner may read; makes one where there is none.
    ///
    /// # Errors
    ///
    /// Every variant of [`KeyError`].
    pub fn load_or_create(path: &Path) -> Result<Self, KeyError> {
        match Self::load(path) {
            Err(KeyError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            loaded => return loaded,
        }
        Self::generate(path)?.save(path)
    }

    /// Makes a new one, for the file where none is yet.
    ///
    /// # Errors
    ///
    /// The system gives no random bytes.
    pub fn generate(path: &Path) -> Result<Self, KeyError> {
        let file = |source| KeyError::File { path: path.to_owned(), source };
        random().map(Self).map_err(|_| file(io::ErrorKind::Other.into()))
    }

    /// Writes it to a file; of two that do so at once the first stands, and both have that one.
    ///
    /// # Errors
    ///
    /// Every variant of [`KeyError`].
    pub fn save(&self, path: &Path) -> Result<Self, KeyError> {
        let file = |source| KeyError::File { path: path.to_owned(), source };
        let key = &self.0;
        let name: [u8; 8] = random().map_err(|_| file(io::ErrorKind::Other.into()))?;
        let name: String = name.iter().map(|byte| format!("{byte:02x}")).collect();
        // Whole, on the disk and under a name of its own first: a crash leaves no half of a key,
        // and of two that make one at once the first stands.
        let aside = path.with_added_extension(name);
        let made = make(path, &aside, &format!("{}\n", tolv_model::slug::Digest(*key)));
        fs::remove_file(&aside).ok();
        match made {
            Ok(()) => Ok(Self(*key)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Self::load(path),
            Err(error) => Err(file(error)),
        }
    }

    /// Loads the one in a file.
    ///
    /// # Errors
    ///
    /// It is not there, is no key, or can be read by others.
    pub fn load(path: &Path) -> Result<Self, KeyError> {
        let file = |source| KeyError::File { path: path.to_owned(), source };
        let mut from = File::open(path).map_err(file)?;
        let mode = from.metadata().map_err(file)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Open { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        from.read_to_string(&mut text).map_err(file)?;
        Self::from_text(&text, &format!("`{}`", path.display()))
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&self.0).into())
    }

    /// Seals bytes that belong to `owner`; base 64.
    pub(crate) fn seal(&self, owner: &str, bytes: &[u8]) -> Result<String, Error> {
        let nonce: [u8; NONCE] = random()?;
        let payload = Payload { msg: bytes, aad: owner.as_bytes() };
        let sealed = self
            .cipher()
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| Error::Random)?;
        Ok(STANDARD.encode([nonce.as_slice(), &sealed].concat()))
    }

    /// Opens what was sealed for `owner`; nothing where it was changed, or with another key.
    pub(crate) fn open(&self, owner: &str, sealed: &str) -> Option<Vec<u8>> {
        let bytes = STANDARD.decode(sealed).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(NONCE)?;
        let payload = Payload { msg: sealed, aad: owner.as_bytes() };
        self.cipher().decrypt(XNonce::from_slice(nonce), payload).ok()
    }

    /// Seals bytes of any length that belong to `owner`, in chunks: STREAM with XChaCha20-Poly1305.
    ///
    /// ```text
    ///  MAGIC, prefix of 19 bytes, then chunks: CHUNK bytes and a tag of 16; the last one is shorter
    ///  nonce of a chunk: prefix, its number in 4 bytes, 1 for the last one
    /// ```
    pub(crate) fn seal_stream(&self, owner: &str, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let prefix: [u8; PREFIX] = random()?;
        let cipher = self.cipher();
        let count = bytes.len().div_ceil(CHUNK).max(1);
        let mut sealed = Vec::with_capacity(MAGIC.len() + PREFIX + bytes.len() + count * TAG);
        sealed.extend_from_slice(MAGIC);
        sealed.extend_from_slice(&prefix);
        for number in 0..count {
            let end = bytes.len().min((number + 1) * CHUNK);
            let payload = Payload { msg: &bytes[number * CHUNK..end], aad: owner.as_bytes() };
            let nonce = chunk_nonce(&prefix, number, number + 1 == count).ok_or(Error::Random)?;
            let chunk = cipher.encrypt(XNonce::from_slice(&nonce), payload);
            sealed.extend(chunk.map_err(|_| Error::Random)?);
        }
        Ok(sealed)
    }

    /// Opens what [`SecretKey::seal_stream`] sealed for `owner`; nothing where a byte of it was
    /// changed, cut off or added.
    pub(crate) fn open_stream(&self, owner: &str, sealed: &[u8]) -> Option<Vec<u8>> {
        let rest = sealed.strip_prefix(MAGIC)?;
        let (prefix, rest) = rest.split_first_chunk::<PREFIX>()?;
        let cipher = self.cipher();
        let count = rest.len().div_ceil(CHUNK + TAG).max(1);
        let mut bytes = Vec::with_capacity(rest.len());
        for number in 0..count {
            let end = rest.len().min((number + 1) * (CHUNK + TAG));
            let chunk = rest.get(number * (CHUNK + TAG)..end)?;
            let payload = Payload { msg: chunk, aad: owner.as_bytes() };
            let nonce = chunk_nonce(prefix, number, number + 1 == count)?;
            bytes.extend(cipher.decrypt(XNonce::from_slice(&nonce), payload).ok()?);
        }
        Some(bytes)
    }

    /// A short text that is equal for equal values of one owner and says nothing else of them:
    /// an HMAC under a key of its own, 16 hex digits.
    pub(crate) fn fingerprint(&self, owner: &str, value: &[u8]) -> String {
        let key = Sha256::new().chain_update(b"tolv fingerprint").chain_update(self.0).finalize();
        let length = (owner.len() as u64).to_be_bytes();
        let code = hmac(&key.into(), &[&length, owner.as_bytes(), value]);
        code[..8].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The key that the rows of ledgers are hashed with.
    pub(crate) fn ledger_key(&self) -> LedgerKey {
        hmac(&self.0, &[b"tolv ledger"]).into()
    }

    /// The key of the codes of rows.
    pub(crate) fn row_key(&self) -> RowKey {
        RowKey(code(&hmac(&self.0, &[b"tolv rows"]), &[]))
    }
}

/// What rows of the database are authenticated with.
#[derive(Clone)]
pub(crate) struct RowKey(Hmac<Sha256>);

impl RowKey {
    /// What authenticates a row, in hex.
    pub(crate) fn mac(&self, row: &[u8]) -> String {
        let bytes: [u8; 32] = self.0.clone().chain_update(row).finalize().into_bytes().into();
        tolv_model::slug::Digest(bytes).to_string()
    }

    /// Whether it authenticates a row.
    pub(crate) fn is_mac(&self, row: &[u8], mac: &str) -> bool {
        let mac = mac.parse::<tolv_model::slug::Digest>();
        mac.is_ok_and(|mac| self.0.clone().chain_update(row).verify_slice(&mac.0).is_ok())
    }
}

/// HMAC-SHA256 (RFC 2104).
fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    code(key, parts).finalize().into_bytes().into()
}

fn code(key: &[u8; 32], parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut block = [0; 64];
    block[..key.len()].copy_from_slice(key);
    let mut code = <Hmac<Sha256> as Mac>::new(&block.into());
    parts.iter().for_each(|part| code.update(part));
    code
}

fn chunk_nonce(prefix: &[u8; PREFIX], number: usize, is_last: bool) -> Option<[u8; NONCE]> {
    let mut nonce = [0; NONCE];
    nonce[..PREFIX].copy_from_slice(prefix);
    nonce[PREFIX..NONCE - 1].copy_from_slice(&u32::try_from(number).ok()?.to_be_bytes());
    nonce[NONCE - 1] = u8::from(is_last);
    Some(nonce)
}

/// Makes the key's file at `path` by way of `aside`; fails where there is one.
fn make(path: &Path, aside: &Path, text: &str) -> io::Result<()> {
    let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(aside)?;
    out.write_all(text.as_bytes())?;
    out.sync_all()?;
    fs::hard_link(aside, path)?;
    // Without its name the key is lost, and with it whatever was sealed.
    tolv_durable::sync_folder_of(path)
}

/// Random bytes of the system.
///
/// # Errors
///
/// [`Error::Random`].
pub fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match getrandom(&mut bytes[filled..], GetRandomFlags::empty()) {
            Ok(more) => filled += more,
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return Err(Error::Random),
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_sealed_opens_for_its_owner_alone(bytes: Vec<u8>, owner in "[a-z]{1,9}") {
            let key = SecretKey([7; 32]);
            let sealed = key.seal(&owner, &bytes).unwrap();
            prop_assert_eq!(key.open(&owner, &sealed), Some(bytes));
            prop_assert_eq!(key.open("another owner", &sealed), None);
            prop_assert_eq!(SecretKey([8; 32]).open(&owner, &sealed), None);
        }
    }

    #[test]
    fn a_stream_opens_whole_or_not_at_all() {
        let key = SecretKey([7; 32]);
        for length in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK] {
            let bytes: Vec<u8> = (0..length).map(|n| n.to_le_bytes()[0]).collect();
            let sealed = key.seal_stream("a", &bytes).unwrap();
            assert_eq!(key.open_stream("a", &sealed), Some(bytes.clone()), "{length}");
            assert_eq!(key.open_stream("b", &sealed), None);
            assert_eq!(SecretKey([8; 32]).open_stream("a", &sealed), None);
            let start = MAGIC.len() + PREFIX;
            // Cut off between chunks, in one, chunks swapped, a byte changed.
            assert_eq!(key.open_stream("a", &sealed[..sealed.len() - 1]), None);
            let mut changed = sealed.clone();
            changed[start] ^= 1;
            assert_eq!(key.open_stream("a", &changed), None);
            if length > CHUNK + 1 {
                assert_eq!(key.open_stream("a", &sealed[..start + CHUNK + TAG]), None);
                let (one, two) = sealed[start..].split_at(CHUNK + TAG);
                let (two, three) = two.split_at(CHUNK + TAG);
                let swapped = [&sealed[..start], two, one, three].concat();
                assert_eq!(key.open_stream("a", &swapped), None);
            }
        }
    }

    #[test]
    fn a_key_is_made_once_and_only_its_owner_may_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret-key");
        let key = SecretKey::load_or_create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(SecretKey::load_or_create(&path).unwrap(), key);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(SecretKey::load_or_create(&path), Err(KeyError::Open { .. })));
    }

    #[test]
    fn of_many_that_make_a_key_at_once_all_have_the_same() {
        for _ in 0..20 {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("secret-key");
            let together = std::sync::Barrier::new(8);
            let keys: Vec<_> = std::thread::scope(|scope| {
                let make = || {
                    together.wait();
                    SecretKey::load_or_create(&path).unwrap()
                };
                let threads: Vec<_> = (0..8).map(|_| scope.spawn(make)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert!(keys.iter().all(|key| *key == keys[0]));
        }
    }

    #[test]
    fn a_key_is_hex_or_base64() {
        let hex = "0707070707070707070707070707070707070707070707070707070707070707";
        let base64 = STANDARD.encode([7; 32]);
        assert_eq!(SecretKey::from_text(hex, "x").unwrap(), SecretKey([7; 32]));
        assert_eq!(SecretKey::from_text(&base64, "x").unwrap(), SecretKey([7; 32]));
        let error = SecretKey::from_text("hunter2", "TOLV_SECRET_KEY").unwrap_err().to_string();
        assert!(error.contains("TOLV_SECRET_KEY") && !error.contains("hunter2"));
    }

    #[test]
    fn fingerprints_tell_values_apart_and_hide_them() {
        let key = SecretKey([7; 32]);
        assert_eq!(key.fingerprint("a", b"x"), key.fingerprint("a", b"x"));
        assert_ne!(key.fingerprint("a", b"x"), key.fingerprint("a", b"y"));
        assert_ne!(key.fingerprint("a", b"x"), key.fingerprint("b", b"x"));
        assert_ne!(key.fingerprint("a", b"x"), SecretKey([8; 32]).fingerprint("a", b"x"));
        // Computed with Python's `hmac`.
        assert_eq!(key.fingerprint("a", b"x"), "b0fe68728436f4e6");
    }
}
