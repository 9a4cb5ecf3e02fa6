//! Takes out of hits what was fetched for the policy alone.

use std::collections::{BTreeSet, HashSet};
use std::ops::Bound;

use super::page::Hit;
use crate::json::{Edit, without};

/// What a widened search asked for that the client did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Strip {
    /// `_source`, with nothing of it wanted by the client.
    Source,
    /// Some members of `_source`: those with one of these names, which have no dot, and those whose
    /// names go on behind it with a dot.
    Members(HashSet<String>),
    /// The section `fields`, with nothing of it wanted by the client.
    Section,
    /// Some names of `fields`. A nested field stands in the section under the name of the nested
    /// object, so a name also goes where one of these continues it.
    Names {
        /// The names that were added.
        names: BTreeSet<String>,
        /// Whether the client itself asked for `fields`: then values that the mapping ignored
        /// (`ignored_field_values`) are the client's.
        own_fields: bool,
    },
}

/// Comes with `fields`, for values that the mapping ignores.
const IGNORED: &str = "ignored_field_values";

impl Strip {
    /// The edits of a hit.
    pub(super) fn edits(&self, hit: &Hit<'_>) -> Vec<Edit> {
        match self {
            Self::Source => without(hit.whole, |key| key == "_source"),
            Self::Members(names) => {
                let root = |key: &str| key.find('.').unwrap_or(key.len());
                let added = |key: &str| names.contains(&key[..root(key)]);
                let source = hit.source.map(|source| without(source, added));
                source.unwrap_or_default()
            }
            Self::Section => without(hit.whole, |key| key == "fields" || key == IGNORED),
            Self::Names { names, own_fields } => names_edits(hit, names, *own_fields),
        }
    }
}

fn names_edits(hit: &Hit<'_>, names: &BTreeSet<String>, own_fields: bool) -> Vec<Edit> {
    let added = |key: &str| {
        if names.contains(key) {
            return true;
        }
        // Those that begin with it stand together.
        let below = format!("{key}.");
        let from = (Bound::Included(below.as_str()), Bound::Unbounded);
        let mut behind = names.range::<str, _>(from);
        behind.next().is_some_and(|name| name.starts_with(&below))
    };
    let section_empties = hit
        .fields
        .is_some_and(|fields| fields.members().all(|(key, _)| added(&key)));
    let mut edits = without(hit.whole, |key| {
        (key == "fields" && section_empties) || (key == IGNORED && !own_fields)
    });
    if let Some(fields) = hit.fields.filter(|_| !section_empties) {
        edits.extend(without(fields, added));
    }
    edits
}
