//! Who may do what on the admin plane: tokens, what they are good for, and the two private files of the
//! data folder that hold them. Only their SHA-256 is kept, save for the first one, which `serve` makes
//! and the command line reads.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::SystemTime;

use axum::http::StatusCode;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::error::AdminError;
pub use super::rights::Right;
use super::rights::of_first_format;
use crate::data_folder::DataFolder;
use crate::secret_file::Stamp;

/// The file of the token that may do everything, in clear.
pub const ADMIN_TOKEN: &str = "admin-token";
/// The file of all others.
const TOKENS: &str = "tokens.json";
/// The name of the token that may do everything.
const ADMIN: &str = "admin";
/// So that a token that has leaked is recognized.
const PREFIX: &str = "rkd_";
/// Of the file that is written. One without a number is of version 0.1, whose rights were others.
const FORMAT: u32 = 2;
/// Random bytes of a token.
const SECRET_BYTES: usize = 32;
/// Of a token that an operator put into the file.
const SHORTEST_SECRET: usize = 32;

/// Names of policies: `*` stands for any characters, or none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Glob(String);

impl Glob {
    /// Whether a name fits.
    pub fn fits(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let start = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(start) else {
            return false;
        };
        let Some(end) = parts.next_back() else {
            return rest.is_empty();
        };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(end)
    }

    /// Whether every name fits.
    pub fn fits_all(&self) -> bool {
        self.0.bytes().all(|byte| byte == b'*')
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Glob {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let good = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'*');
        if (1..=64).contains(&text.len()) && text.bytes().all(good) {
            Ok(Self(text.to_owned()))
        } else {
            Err("must be names of policies (lower-case letters, digits and `-`), with `*` for any characters, such as `shop-*`".to_owned())
        }
    }
}

impl TryFrom<String> for Glob {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
            .map_err(|problem| format!("`{text}` {problem}"))
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> Self {
        glob.0
    }
}

/// What is kept of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenRecord {
    /// What it is called in the journal of releases.
    pub name: String,
    /// Of the token's text, hexadecimal.
    #[serde(with = "hex_digest")]
    sha256: [u8; 32],
    /// Which policies it is good for.
    pub policies: Glob,
    /// What it may do with them.
    pub rights: BTreeSet<Right>,
    /// RFC 3339, UTC.
    pub created_at: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenFile {
    #[serde(default)]
    format: Option<u32>,
    tokens: Vec<TokenRecord>,
}

/// What can be read of a file of any format.
#[derive(Deserialize)]
struct AnyFormat {
    format: Option<u32>,
}

/// Whose token a request carried. An extension of every request that reaches a route.
#[derive(Debug, Clone)]
pub struct Identity(Arc<TokenRecord>);

impl Identity {
    /// The token's name: who did it.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether it has the right on a policy.
    pub fn may(&self, right: Right, policy: &str) -> bool {
        self.0.rights.contains(&right) && self.0.policies.fits(policy)
    }

    /// Whether it has the right on some policies.
    pub fn may_somewhere(&self, right: Right) -> bool {
        self.0.rights.contains(&right)
    }

    /// Whether it has the right on all policies.
    pub fn may_everywhere(&self, right: Right) -> bool {
        self.0.rights.contains(&right) && self.0.policies.fits_all()
    }

    /// The right on a policy.
    ///
    /// # Errors
    /// 403, saying which right on which policy is missing.
    pub fn require(&self, right: Right, policy: &str) -> Result<(), AdminError> {
        match self.may(right, policy) {
            true => Ok(()),
            false => {
                let policy: String = policy.chars().take(80).collect();
                Err(self.forbidden(right, &format!("on policy `{policy}`")))
            }
        }
    }

    /// 403, about a right `on` something.
    pub(super) fn forbidden(&self, right: Right, on: &str) -> AdminError {
        let message = format!(
            "token `{}` has not the right `{}` {on}",
            self.name(),
            right.name()
        );
        AdminError::new(StatusCode::FORBIDDEN, "forbidden", message).counted_as("right")
    }
}

/// The tokens of a data folder, read anew when its files change.
pub struct Tokens {
    folder: DataFolder,
    read: Mutex<Read>,
}

struct Read {
    stamps: Stamps,
    /// Whether the files could be read when `stamps` were taken.
    good: bool,
    tokens: Vec<Arc<TokenRecord>>,
}

/// Of `admin-token` and `tokens.json`.
type Stamps = [Option<Stamp>; 2];

impl Tokens {
    /// Reads the tokens; makes the one that may do everything if there is none.
    ///
    /// # Errors
    /// A sentence that names the file that is wrong.
    pub fn open(folder: DataFolder) -> Result<Self, String> {
        if folder.read_private(ADMIN_TOKEN)?.is_none() {
            folder.create(ADMIN_TOKEN, &format!("{}\n", new_secret()?))?;
        }
        let stamps = stamps(&folder);
        let tokens = read(&folder)?;
        Ok(Self {
            folder,
            read: Mutex::new(Read {
                stamps,
                good: true,
                tokens,
            }),
        })
    }

    /// Whose token a text is. All tokens are compared, each in constant time.
    pub fn identify(&self, presented: &str) -> Option<Identity> {
        let digest = digest(presented);
        let read = self.fresh();
        let mut found = None;
        for token in &read.tokens {
            if bool::from(token.sha256.ct_eq(&digest)) {
                found = Some(Identity(Arc::clone(token)));
            }
        }
        found
    }

    /// Whether a token is good still, for what it was good for when a request came with it.
    pub fn still_has(&self, identity: &Identity) -> bool {
        self.fresh()
            .tokens
            .iter()
            .any(|token| **token == *identity.0)
    }

    fn fresh(&self) -> MutexGuard<'_, Read> {
        let mut read = self
            .read
            .lock()
            .expect("nothing panics while it holds the tokens");
        read.refresh(&self.folder);
        read
    }
}

impl Read {
    fn refresh(&mut self, folder: &DataFolder) {
        let now = stamps(folder);
        let changed = now != self.stamps;
        if !changed && self.good {
            return;
        }
        self.stamps = now;
        match read(folder) {
            Ok(tokens) => {
                self.tokens = tokens;
                self.good = true;
            }
            Err(error) => {
                // A token that was revoked by a hand that slipped must not stay good.
                self.tokens.clear();
                if changed {
                    tracing::error!(%error, "no token is good until this is mended");
                }
                self.good = false;
            }
        }
    }
}

fn stamps(folder: &DataFolder) -> Stamps {
    [ADMIN_TOKEN, TOKENS].map(|name| Stamp::of(&folder.file(name)))
}

fn read(folder: &DataFolder) -> Result<Vec<Arc<TokenRecord>>, String> {
    let mut tokens = Vec::new();
    if let Some(text) = folder.read_private(ADMIN_TOKEN)? {
        let secret = text.trim();
        if secret.len() < SHORTEST_SECRET {
            return Err(format!(
                "`{}` must hold a token of at least {SHORTEST_SECRET} characters; remove it, and `rerankd serve` makes one",
                folder.file(ADMIN_TOKEN).display()
            ));
        }
        tokens.push(TokenRecord {
            name: ADMIN.to_owned(),
            sha256: digest(secret),
            policies: Glob("*".to_owned()),
            rights: Right::ALL.iter().copied().collect(),
            created_at: String::new(),
        });
    }
    tokens.extend(read_file(folder)?.tokens);
    Ok(tokens.into_iter().map(Arc::new).collect())
}

fn read_file(folder: &DataFolder) -> Result<TokenFile, String> {
    let none = TokenFile {
        format: Some(FORMAT),
        tokens: Vec::new(),
    };
    let Some(text) = folder.read_private(TOKENS)? else {
        return Ok(none);
    };
    parse_file(&text).map_err(|problem| format!("`{}`: {problem}", folder.file(TOKENS).display()))
}

/// A file of this format or of the first one, whose tokens keep what they had.
fn parse_file(text: &str) -> Result<TokenFile, String> {
    let of_any: AnyFormat = serde_json::from_str(text).map_err(|error| error.to_string())?;
    match of_any.format {
        None | Some(FORMAT) => {}
        Some(other) => {
            return Err(format!(
                "its `format` is {other}; this rerankd reads {FORMAT}, and files of version 0.1, which have none"
            ));
        }
    }
    let mut file: TokenFile = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if file.format.replace(FORMAT).is_none() {
        for token in &mut file.tokens {
            token.rights = of_first_format(&token.rights, token.policies.fits_all())
                .map_err(|problem| format!("token `{}`: {problem}", token.name))?;
        }
    }
    Ok(file)
}

fn write_file(folder: &DataFolder, file: &TokenFile) -> Result<(), String> {
    let text = serde_json::to_string_pretty(file).expect("plain values always serialize");
    folder.replace(TOKENS, &format!("{text}\n"))
}

/// Makes a token and returns its text, which is kept nowhere.
///
/// # Errors
/// A sentence: the name is none or taken, the rights make no sense, or the file cannot be written.
pub fn create(
    folder: &DataFolder,
    name: &str,
    policies: Glob,
    rights: BTreeSet<Right>,
) -> Result<String, String> {
    rerankd_policy::manifest::check_name("NAME", name)?;
    if rights.contains(&Right::Texts) && !rights.contains(&Right::Read) {
        return Err("`texts` adds to what `read` shows: --rights read,texts".to_owned());
    }
    if rights.contains(&Right::Metrics) && !policies.fits_all() {
        return Err(format!(
            "`metrics` names all policies, so it needs --policies '*', not `{}`: make two tokens",
            policies.as_str()
        ));
    }
    let _lock = folder.lock()?;
    let mut file = read_file(folder)?;
    if name == ADMIN || file.tokens.iter().any(|token| token.name == name) {
        return Err(format!(
            "there is a token `{name}` already: take another name, or `rerankd token revoke` it first"
        ));
    }
    let secret = new_secret()?;
    file.tokens.push(TokenRecord {
        name: name.to_owned(),
        sha256: digest(&secret),
        policies,
        rights,
        created_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
    });
    write_file(folder, &file)?;
    Ok(secret)
}

/// The tokens that were made, oldest first, without the one that may do everything.
///
/// # Errors
/// A sentence that names the file.
pub fn list(folder: &DataFolder) -> Result<Vec<TokenRecord>, String> {
    Ok(read_file(folder)?.tokens)
}

/// Makes a token worthless.
///
/// # Errors
/// A sentence: there is none of that name, or the file cannot be written.
pub fn revoke(folder: &DataFolder, name: &str) -> Result<(), String> {
    if name == ADMIN {
        return Err(format!(
            "the token `{ADMIN}` is the file `{}`: remove that and start the server anew, which makes another",
            folder.file(ADMIN_TOKEN).display()
        ));
    }
    let _lock = folder.lock()?;
    let mut file = read_file(folder)?;
    let before = file.tokens.len();
    file.tokens.retain(|token| token.name != name);
    if file.tokens.len() == before {
        return Err(format!("no token `{name}`: `rerankd token list` has all"));
    }
    write_file(folder, &file)
}

fn new_secret() -> Result<String, String> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| format!("no random bytes: {error}"))?;
    Ok(format!("{PREFIX}{}", hex::encode(bytes)))
}

fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

mod hex_digest {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        digest: &[u8; 32],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(digest))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; 32], D::Error> {
        let text = String::deserialize(deserializer)?;
        let mut digest = [0; 32];
        hex::decode_to_slice(&text, &mut digest)
            .map_err(|error| serde::de::Error::custom(format!("no SHA-256: {error}")))?;
        Ok(digest)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::admin) fn identity(policies: &str, rights: &[Right]) -> Identity {
        Identity(Arc::new(TokenRecord {
            name: "shop".to_owned(),
            sha256: digest("x"),
            policies: policies.parse().expect("it is a glob"),
            rights: rights.iter().copied().collect(),
            created_at: String::new(),
        }))
    }

    #[test]
    fn a_glob_fits_whole_names() {
        for (glob, fit, others) in [
            ("shop", vec!["shop"], vec!["", "sho", "shop-", "a-shop"]),
            (
                "shop-*",
                vec!["shop-", "shop-a", "shop-a-b"],
                vec!["shop", "a-shop-b"],
            ),
            ("*-shop", vec!["-shop", "a-shop"], vec!["shop", "a-shop-b"]),
            ("a*a", vec!["aa", "aba", "aaa"], vec!["a", "ab", "abab"]),
            (
                "a*b*c",
                vec!["abc", "a-b-c", "abbc"],
                vec!["ac", "acb", "ab"],
            ),
            ("a*bc*bc", vec!["abcbc", "a-bc-bc"], vec!["abc"]),
            ("*", vec!["", "shop"], vec![]),
        ] {
            let glob: Glob = glob.parse().expect("it is a glob");
            for name in fit {
                assert!(glob.fits(name), "{glob:?} {name}");
            }
            for name in others {
                assert!(!glob.fits(name), "{glob:?} {name}");
            }
        }
    }

    #[test]
    fn a_right_counts_on_the_policies_of_its_token_alone() {
        let shop = identity("shop-*", &[Right::Read, Right::Push]);
        assert!(shop.may(Right::Push, "shop-a") && shop.require(Right::Push, "shop-a").is_ok());
        assert!(shop.may_somewhere(Right::Read) && !shop.may_everywhere(Right::Read));
        for (right, policy) in [(Right::Activate, "shop-a"), (Right::Push, "books")] {
            assert!(!shop.may(right, policy));
            let error = shop.require(right, policy).expect_err("it may not");
            assert_eq!(error.status(), StatusCode::FORBIDDEN);
            let said = format!(
                "token `shop` has not the right `{}` on policy `{policy}`",
                right.name()
            );
            assert_eq!(error.to_string(), said);
        }
        assert!(identity("**", &[Right::Read]).may_everywhere(Right::Read));
    }
}
