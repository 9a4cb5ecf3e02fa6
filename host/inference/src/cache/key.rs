//! Names of cache entries: the first 128 bits of a SHA-256 of all that decides the value.
//!
//! A cryptographic digest, since texts come from anywhere: nobody can make two texts with one key
//! on purpose, and by chance it does not happen.

use sha2::{Digest, Sha256};

/// 128 bits of a SHA-256.
pub type Key = [u8; 16];

/// Makes keys that share a beginning.
#[derive(Clone)]
pub struct KeyMaker(Sha256);

impl KeyMaker {
    /// `parts`: what all the keys have in common.
    pub fn new(parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Self(hash)
    }

    /// The key of what these bytes say.
    pub fn key(&self, bytes: &[u8]) -> Key {
        let mut hash = self.0.clone();
        hash.update(bytes);
        let digest: [u8; 32] = hash.finalize().into();
        let [head, _] = digest.as_chunks::<16>().0 else {
            unreachable!("32 bytes are twice 16")
        };
        *head
    }
}
