//! Takes out of hits what was fetched for the policy alone.

use super::page::Hit;
use crate::json::{Edit, without};

/// What a widened search asked for that the client did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Strip {
    /// `_source`, with nothing of it wanted by the client.
    Source,
    /// Some members of `_source`: those with one of these names, and those whose names go on behind it
    /// with a dot.
    Members(Vec<String>),
    /// The section `fields`, with nothing of it wanted by the client.
    Section,
    /// Some names of `fields`. A nested field stands in the section under the name of the nested
    /// object, so a name also goes where one of these continues it.
    Names {
        /// The names that were added.
        names: Vec<String>,
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
                let added = |key: &str| {
                    names.iter().any(|name| {
                        let rest = key.strip_prefix(name.as_str());
                        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
                    })
                };
                let source = hit.source.map(|source| without(source, added));
                source.unwrap_or_default()
            }
            Self::Section => without(hit.whole, |key| key == "fields" || key == IGNORED),
            Self::Names { names, own_fields } => names_edits(hit, names, *own_fields),
        }
    }
}

fn names_edits(hit: &Hit<'_>, names: &[String], own_fields: bool) -> Vec<Edit> {
    let added = |key: &str| {
        names.iter().any(|name| {
            let rest = name.strip_prefix(key);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
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
