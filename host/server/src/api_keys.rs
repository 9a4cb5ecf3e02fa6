//! Who may call the data plane: keys out of a file, asked for as `Authorization: Bearer KEY`, or as
//! `x-api-key: KEY` or `api-key: KEY`, as some clients send them. Whoever sends several must know each.
//!
//! The file has one key a line; empty lines and lines that begin with `#` do not count. It is read anew
//! when it changes, so a key can be added or taken away while the server runs. A file that cannot be read
//! as it should be (gone, empty, open to others) makes no key good, after a short grace. In memory there
//! are only SHA-256 digests, compared in constant time.

use std::path::Path;

use axum::http::{HeaderMap, header};
use rerankd_core::{ErrorKind, RerankError};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::fresh::{Fresh, Lapse};
use crate::secret_file::{self, Group};

/// Shorter keys can be guessed.
const MIN_KEY_BYTES: usize = 16;

/// Far more keys than a file should have; bounds what a wrong file costs.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// Headers that have a key and nothing else.
const PLAIN: [&str; 2] = ["x-api-key", "api-key"];

type Sha256Digest = [u8; 32];

/// The keys, if any are asked for.
#[derive(Debug, Default)]
pub struct ApiKeys(Option<Fresh<Vec<Sha256Digest>>>);

impl ApiKeys {
    /// Reads the file; without one, everybody may call.
    ///
    /// # Errors
    /// A sentence that names the file, the line and what would be right.
    pub fn open(file: Option<&Path>) -> Result<Self, String> {
        let Some(file) = file else {
            return Ok(Self(None));
        };
        let path = file.to_owned();
        let load = move || {
            read(&path)
                .map_err(|problem| format!("`{}` (--api-key-file): {problem}", path.display()))
        };
        let files = vec![file.to_owned()];
        let fresh = Fresh::new("--api-key-file", files, Lapse::Ends, load)?;
        Ok(Self(Some(fresh)))
    }

    /// Whether callers need one.
    pub fn are_asked_for(&self) -> bool {
        self.0.is_some()
    }

    /// Whether who sent these headers may call.
    ///
    /// # Errors
    /// `Unauthorized`.
    pub fn check(&self, headers: &HeaderMap) -> Result<(), RerankError> {
        let Some(keys) = &self.0 else {
            return Ok(());
        };
        let refused = |problem: &str| Err(RerankError::new(ErrorKind::Unauthorized, problem));
        let mut given = Vec::new();
        for value in headers.get_all(header::AUTHORIZATION) {
            let Some(key) = bearer(value.as_bytes()) else {
                return refused("`Authorization` has no API key: expected `Bearer KEY`");
            };
            given.push(key);
        }
        let plain = PLAIN.into_iter().flat_map(|name| headers.get_all(name));
        let plain = plain.map(|value| value.as_bytes().trim_ascii());
        // Clients without a key send the header all the same.
        given.extend(plain.filter(|key| !key.is_empty()));
        if given.is_empty() {
            return refused(
                "no API key: send it as `Authorization: Bearer KEY`, `x-api-key: KEY` or `api-key: KEY`",
            );
        }
        let keys = keys.get();
        let is_known = |key: &[u8]| {
            let digest: Sha256Digest = Sha256::digest(key).into();
            // All are compared: how long it takes says nothing of where one fits.
            let known = keys
                .iter()
                .flat_map(|keys| keys.iter())
                .fold(subtle::Choice::from(0), |known, one| {
                    known | one.ct_eq(&digest)
                });
            bool::from(known)
        };
        let several = given.len() > 1;
        match given.into_iter().all(is_known) {
            true => Ok(()),
            false if several => refused(
                "of the API keys that were sent (`Authorization`, `x-api-key`, `api-key`) not all are known",
            ),
            false => refused("the API key is not known"),
        }
    }
}

/// The key behind `Bearer`, in any case, as clients write it in several.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, key) = value.split_at_checked("Bearer ".len())?;
    (scheme.eq_ignore_ascii_case(b"bearer ")).then_some(key.trim_ascii())
}

fn read(path: &Path) -> Result<Vec<Sha256Digest>, String> {
    let bytes = secret_file::read(path, Group::Reads, MAX_FILE_BYTES)?;
    let text = String::from_utf8(bytes)
        .map_err(|_| "it is no text; expected one key a line".to_owned())?;
    let mut keys = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let key = line.trim();
        if key.is_empty() || key.starts_with('#') {
            continue;
        }
        if key.len() < MIN_KEY_BYTES || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!(
                "line {}: a key must have at least {MIN_KEY_BYTES} characters, all of them printable ASCII without spaces, such as `openssl rand -hex 32` makes",
                index + 1
            ));
        }
        keys.push(Sha256::digest(key.as_bytes()).into());
    }
    if keys.is_empty() {
        return Err("there is no key in it; expected one a line".to_owned());
    }
    Ok(keys)
}
