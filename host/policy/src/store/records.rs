//! What the store knows: versions, names and the journal, as JSON, so that they can grow. A key that
//! is not known is skipped (a newer rerankd wrote it), one that is missing has its default.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Earlier actives that a name remembers.
pub const MAX_HISTORY: usize = 20;

/// Longest message of a journal entry, bytes; a longer one is cut.
pub const MAX_MESSAGE_BYTES: usize = 4096;

/// One version of a policy: all that decides its rankings, and where it comes from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VersionRecord {
    /// Digest of all that decides a ranking; with `name` the key.
    pub digest: String,
    /// The policy's name.
    pub name: String,
    /// The version string of its manifest.
    pub version: String,
    /// SHA-256 of the component, hex.
    pub component: String,
    /// The component's size.
    pub component_bytes: u64,
    /// The contract that it was built for, such as `rerank:policy@0.1.0`.
    pub contract: String,
    /// The interfaces that it imports.
    pub imports: Vec<String>,
    /// What its `describe` said.
    pub manifest: Value,
    /// Its models by slot.
    pub models: BTreeMap<String, ModelRef>,
    /// Parameters that the operator set.
    pub parameters: Map<String, Value>,
    /// Fields that it may see; none: those of its name's rule.
    pub grants: Option<Vec<String>>,
    /// Whether it is linked with WASI.
    pub allow_wasi: bool,
    /// Limits by name, in the unit that the name says.
    pub limits: BTreeMap<String, u64>,
    /// Report of its cases; none: it brought none.
    pub cases: Option<Value>,
    /// The cases themselves, where they came beside the component.
    pub case_source: Option<String>,
    /// When it was staged, milliseconds since 1970.
    pub created_at_ms: u64,
    /// Who staged it.
    pub by: String,
    /// Where it came from: an upload, or a file's path.
    pub source: String,
}

/// A model by name and digest.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelRef {
    /// Its name.
    pub name: String,
    /// Digest of all that decides its scores.
    pub digest: String,
}

/// A policy's name and which versions play which role.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct NameRecord {
    /// The policy's name.
    pub name: String,
    /// Digest of the version that serves.
    pub active: Option<String>,
    /// Since when, milliseconds since 1970.
    pub active_since_ms: Option<u64>,
    /// Digests of earlier actives, the latest last, at most [`MAX_HISTORY`]: rollback takes the last.
    pub history: Vec<String>,
    /// The version that gets a share of the requests.
    pub canary: Option<Canary>,
    /// Digest of the version that is called without being answered with.
    pub shadow: Option<String>,
}

/// A version that gets a share of the requests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Canary {
    /// The version's digest.
    pub digest: String,
    /// Its share, 0 to 100, finite.
    pub percent: f64,
    /// Since when, milliseconds since 1970.
    pub since_ms: u64,
}

/// What a version is to its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// It serves.
    Active,
    /// It gets a share of the requests.
    Canary,
    /// It is called without being answered with.
    Shadow,
    /// It serves after a rollback.
    RollbackTarget,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "the active version",
            Self::Canary => "the canary",
            Self::Shadow => "the shadow",
            Self::RollbackTarget => "the version to roll back to",
        })
    }
}

impl NameRecord {
    /// What the version with this digest is to the name; the first of several.
    pub fn role_of(&self, digest: &str) -> Option<Role> {
        let mut roles = self.roles();
        roles.find(|(_, own)| *own == digest).map(|(role, _)| role)
    }

    /// Every role that is filled, with the digest that fills it.
    pub(super) fn roles(&self) -> impl Iterator<Item = (Role, &str)> {
        let canary = self.canary.as_ref().map(|canary| &canary.digest);
        [
            (Role::Active, self.active.as_ref()),
            (Role::Canary, canary),
            (Role::Shadow, self.shadow.as_ref()),
            (Role::RollbackTarget, self.history.last()),
        ]
        .into_iter()
        .filter_map(|(role, digest)| Some((role, digest?.as_str())))
    }
}

/// Something that happened.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct JournalEntry {
    /// Its place: each entry's is larger than all before, also after a restart; the first is 1.
    pub seq: u64,
    /// When, milliseconds since 1970.
    pub at_ms: u64,
    /// What: `staged`, `activated`, ...
    pub kind: String,
    /// The policy's name.
    pub policy: String,
    /// The version's digest.
    pub digest: Option<String>,
    /// The version's string.
    pub version: Option<String>,
    /// Whose doing it was.
    pub who: String,
    /// More, for people; at most [`MAX_MESSAGE_BYTES`].
    pub message: Option<String>,
}

/// A [`JournalEntry`] that has no place in the journal yet.
#[derive(Debug, Clone, Default, PartialEq)]
#[allow(missing_docs, reason = "the fields are `JournalEntry`'s")]
pub struct JournalDraft {
    pub at_ms: u64,
    pub kind: String,
    pub policy: String,
    pub digest: Option<String>,
    pub version: Option<String>,
    pub who: String,
    pub message: Option<String>,
}

impl JournalDraft {
    pub(super) fn numbered(self, seq: u64) -> JournalEntry {
        let mut message = self.message;
        if let Some(text) = &mut message {
            text.truncate(text.floor_char_boundary(MAX_MESSAGE_BYTES));
        }
        JournalEntry {
            seq,
            at_ms: self.at_ms,
            kind: self.kind,
            policy: self.policy,
            digest: self.digest,
            version: self.version,
            who: self.who,
            message,
        }
    }
}
