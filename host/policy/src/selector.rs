//! What names a version, each kind with a type of its own: its digest, which nobody chooses; the string
//! that its author chose; and what a caller says, which may be either.
//!
//! Digests are looked up as digests. A string that an author chose selects nothing but versions that
//! have this very string, even where it looks like a digest.

use std::fmt;

/// Shortest head of a digest that names a version.
pub const MIN_DIGEST_DIGITS: usize = 8;

/// Digits of a digest.
pub const DIGEST_DIGITS: usize = 64;

/// The digest of all that decides a version's rankings: SHA-256, 64 hex digits in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VersionDigest(String);

impl VersionDigest {
    /// A whole digest that a caller names; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == DIGEST_DIGITS && is_hex(text)).then(|| Self(text.to_owned()))
    }

    /// One that the store or the host itself made.
    pub(crate) fn known(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// All its digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its first 8 digits, for people.
    pub fn short(&self) -> &str {
        short(&self.0)
    }
}

/// The first 8 digits of a digest, for people.
pub(crate) fn short(digest: &str) -> &str {
    &digest[..digest.floor_char_boundary(MIN_DIGEST_DIGITS)]
}

impl fmt::Display for VersionDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What an author calls a version.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct VersionString(String);

impl VersionString {
    /// The string of a new version.
    ///
    /// # Errors
    /// It looks like a whole digest.
    pub fn new(text: &str) -> Result<Self, String> {
        // In upper case too: people copy digests as they please.
        if VersionDigest::parse(&text.to_ascii_lowercase()).is_some() {
            return Err(format!(
                "`version` has {DIGEST_DIGITS} hex digits, as the digest of a version has: give it a version such as `1.0.0`"
            ));
        }
        Ok(Self::known(text))
    }

    /// One that the store has: older rerankds took any.
    pub(crate) fn known(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Which version of a policy somebody means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionSelector {
    /// The one with this digest.
    Digest(VersionDigest),
    /// The one whose digest begins so.
    DigestHead(String),
    /// The one whose author called it so.
    Version(VersionString),
    /// Whatever fits: a whole digest, else a version's string, else the head of a digest.
    Any(String),
}

impl VersionSelector {
    /// What a caller says is a digest, or the head of one; what can be neither selects nothing.
    pub fn digest(text: &str) -> Self {
        match VersionDigest::parse(text) {
            Some(digest) => Self::Digest(digest),
            None => Self::DigestHead(text.to_owned()),
        }
    }

    /// What a caller says is a version's string.
    pub fn version(text: &str) -> Self {
        Self::Version(VersionString::known(text))
    }

    /// What a caller wrote behind a name's `@`.
    pub fn any(text: &str) -> Self {
        Self::Any(text.to_owned())
    }

    /// Those of `versions` that are meant: those that fit in the first way that any of them fits in.
    pub(crate) fn select<'a, T>(&self, versions: &'a [T]) -> Vec<&'a T>
    where
        T: Named,
    {
        let all = |fits: &dyn Fn(&T) -> bool| versions.iter().filter(|it| fits(it)).collect();
        let by_digest = |wanted: &str| all(&|it: &T| it.digest() == wanted);
        let by_head = |wanted: &str| match is_head(wanted) {
            true => all(&|it: &T| it.digest().starts_with(wanted)),
            false => Vec::new(),
        };
        let by_string = |wanted: &str| all(&|it: &T| it.version_string() == wanted);
        match self {
            Self::Digest(digest) => by_digest(digest.as_str()),
            Self::DigestHead(head) => by_head(head),
            Self::Version(version) => by_string(version.as_str()),
            Self::Any(text) => {
                let mut found: Vec<&T> = by_digest(text);
                if found.is_empty() {
                    found = by_string(text);
                }
                if found.is_empty() {
                    found = by_head(text);
                }
                found
            }
        }
    }
}

impl fmt::Display for VersionSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Digest(digest) => digest.as_str(),
            Self::Version(version) => version.as_str(),
            Self::DigestHead(text) | Self::Any(text) => text,
        };
        f.write_str(&text[..text.floor_char_boundary(80)])
    }
}

/// What can be named.
pub(crate) trait Named {
    fn digest(&self) -> &str;
    fn version_string(&self) -> &str;
}

/// Whether a text may be the head of a digest, or all of it.
pub(crate) fn is_head(text: &str) -> bool {
    (MIN_DIGEST_DIGITS..=DIGEST_DIGITS).contains(&text.len()) && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    text.bytes().all(digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One(&'static str, &'static str);

    impl Named for One {
        fn digest(&self) -> &str {
            self.0
        }
        fn version_string(&self) -> &str {
            self.1
        }
    }

    fn selected(selector: &VersionSelector, versions: &[One]) -> Vec<&'static str> {
        let found = selector.select(versions);
        found.into_iter().map(|version| version.0).collect()
    }

    #[test]
    fn what_an_author_says_selects_nothing_but_his_own() {
        let victim: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let other: &str = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210";
        // As an older rerankd stored them.
        let versions = [One(victim, "1.0.0"), One(other, victim)];
        let digest = VersionSelector::digest(victim);
        assert_eq!(selected(&digest, &versions), [victim]);
        assert_eq!(selected(&VersionSelector::any(victim), &versions), [victim]);
        assert_eq!(
            selected(&VersionSelector::version(victim), &versions),
            [other]
        );
        let head = VersionSelector::digest(&victim[..8]);
        assert_eq!(selected(&head, &versions), [victim]);
        let versions = [One(victim, "1.0.0"), One(other, "01234567")];
        assert_eq!(selected(&head, &versions), [victim]);
        // Behind an `@` the very string is nearer than a part of something.
        assert_eq!(
            selected(&VersionSelector::any("01234567"), &versions),
            [other]
        );
        assert_eq!(
            selected(&VersionSelector::any("012345678"), &versions),
            [victim]
        );
        assert_eq!(
            selected(&VersionSelector::any("0123456"), &versions),
            [""; 0]
        );
        assert_eq!(
            selected(&VersionSelector::version("012345678"), &versions),
            [""; 0]
        );
    }

    #[test]
    fn a_version_string_is_no_digest() {
        assert!(VersionString::new("1.0.0").is_ok());
        assert!(VersionString::new(&"a".repeat(63)).is_ok());
        for digest in ["a".repeat(64), "A".repeat(64)] {
            let error = VersionString::new(&digest).expect_err("it is one");
            assert!(error.contains("64 hex digits"), "{error}");
        }
        let versions = [One("a", "x"), One("", "abc")];
        for text in ["", "a", "abc", "0123456G", &"a".repeat(65)] {
            assert_eq!(selected(&VersionSelector::digest(text), &versions), [""; 0]);
        }
    }
}
