//! Request ids: the client's where it is usable, else a new one in the form of a UUID.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes ids that do not repeat and tell nothing. Keyed at random, so that two routers differ.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    keys: [RandomState; 2],
    next: AtomicU64,
}

impl Ids {
    pub(crate) fn make(&self) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let [high, low] = self.keys.each_ref().map(|key| key.hash_one(number));
        format!(
            "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
            high >> 32,
            (high >> 16) & 0xffff,
            high & 0xfff,
            (low >> 48) & 0x3fff | 0x8000,
            low & 0xffff_ffff_ffff,
        )
    }
}

/// Whether a client's id is passed on: 20 to 200 letters, digits and `-`.
pub(crate) fn is_usable(id: &[u8]) -> bool {
    (20..=200).contains(&id.len())
        && id.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_id_is_usable_and_not_repeated() {
        let ids = Ids::default();
        let made: std::collections::HashSet<_> = (0..1000).map(|_| ids.make()).collect();
        assert_eq!(made.len(), 1000);
        assert!(made.iter().all(|id| is_usable(id.as_bytes()) && id.len() == 36), "{made:?}");
    }

    #[test]
    fn only_plain_ids_of_some_length_are_kept() {
        assert!(is_usable(&[b'a'; 20]) && is_usable(&[b'Z'; 200]) && is_usable(&[b'-'; 36]));
        assert!(!is_usable(&[b'a'; 19]) && !is_usable(&[b'a'; 201]) && !is_usable(b""));
        assert!(!is_usable(b"aaaaaaaaaaaaaaaaaaaa b") && !is_usable(b"aaaaaaaaaaaaaaaaaaaa\"x"));
    }
}
