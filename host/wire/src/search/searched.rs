//! In which fields a clause looks for its text, and whether it looks for words there: a text that is
//! compared with keywords, numbers or dates as a whole is no query that a policy could read.

use std::cell::Cell;
use std::collections::HashMap;

use super::body::Body;
use super::mapping::{FieldKind, Mapping, TextField, is_full_text, is_pattern, matching};
use super::reading::rank;
use crate::json::Json;

/// How often patterns of one search are held against the mapping; beyond that they may mean anything.
const MOST_PATTERNS: usize = 64;

/// Longest pattern that is held against the mapping, bytes; a longer one may mean anything.
const LONGEST_PATTERN: usize = 1 << 10;

/// A text of a search.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) text: String,
    pub(super) searched: Searched,
}

/// In what a text is looked for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Searched {
    /// In vectors that a model has made of it, whatever their field is.
    Meaning,
    /// In fields by name or pattern, each with its boost; without any, in the index's default fields.
    Fields(Vec<(String, Boost)>),
}

impl Searched {
    pub(super) fn defaults() -> Self {
        Self::Fields(Vec::new())
    }

    /// One name, as the key of a `match`: without a boost in it.
    pub(super) fn of_name(name: &str, boost: Boost) -> Self {
        Self::Fields(vec![(name.to_owned(), boost)])
    }

    /// A name or several, such as `title^3`.
    pub(super) fn of_json(named: Json<'_>, boost: Boost) -> Self {
        let one = named.string().into_iter();
        let names = one.chain(named.items().filter_map(Json::string));
        Self::Fields(names.map(|name| with_boost(&name, boost)).collect())
    }
}

/// How much a field or a clause counts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Boost(pub(super) f32);

impl Default for Boost {
    fn default() -> Self {
        Self(1.0)
    }
}

impl Boost {
    /// That of a query or clause; 1 where it does not say.
    pub(super) fn of(clause: Json<'_>) -> Self {
        let boost = clause.member("boost");
        boost.map_or_else(Self::default, |boost| {
            Self::read(boost.text().trim_matches('"'))
        })
    }

    fn read(text: &str) -> Self {
        let boost: Option<f32> = text.trim().parse().ok();
        boost
            .filter(|boost| boost.is_finite())
            .map_or_else(Self::default, Self)
    }

    pub(super) fn times(self, other: Self) -> Self {
        Self(self.0 * other.0)
    }
}

/// `title^3` and a boost around it.
pub(super) fn with_boost(name: &str, around: Boost) -> (String, Boost) {
    match name.rsplit_once('^') {
        Some((name, boost)) => (name.to_owned(), around.times(Boost::read(boost))),
        None => (name.to_owned(), around),
    }
}

/// What is known of the fields that a search looks into.
pub(super) struct Words<'m> {
    mapping: Option<&'m Mapping>,
    /// Fields that the search itself defines, and whether they are full text.
    declared: HashMap<String, bool>,
    /// How often a pattern may still be held against the mapping.
    patterns: Cell<usize>,
}

impl<'m> Words<'m> {
    /// Without a mapping, every field may be full text.
    pub(super) fn of(mapping: Option<&'m Mapping>, body: &Body<'_>) -> Self {
        let sections = ["runtime_mappings", "derived"].iter();
        let declared = sections.filter(|_| mapping.is_some()).flat_map(|section| {
            let section = body.member(section).into_iter();
            section.flat_map(Json::members)
        });
        let declared = declared.map(|(name, field)| {
            let kind = field.member("type").and_then(Json::string);
            (
                name.into_owned(),
                kind.is_some_and(|kind| is_full_text(&kind)),
            )
        });
        Self {
            mapping: mapping.filter(|mapping| !mapping.is_empty()),
            declared: declared.collect(),
            patterns: Cell::new(MOST_PATTERNS),
        }
    }

    /// The mapping, where it has fields.
    pub(super) fn mapping(&self) -> Option<&'m Mapping> {
        self.mapping
    }

    /// Whether one field at least may be full text. What the mapping does not have may be: it may be
    /// older than the field.
    pub(super) fn are_searched_in(&self, searched: &Searched) -> bool {
        let (Some(mapping), Searched::Fields(named)) = (self.mapping, searched) else {
            return true;
        };
        let may_be = |name: &str| match self.declared.get(name) {
            Some(&is_full_text) => is_full_text,
            None if is_pattern(name) => match self.expanded(mapping, name) {
                Some(mut found) => found.next().is_some(),
                None => true,
            },
            None => mapping.kind(name) != Some(FieldKind::Other),
        };
        if !named.is_empty() {
            return named.iter().any(|(name, _)| may_be(name));
        }
        match mapping.defaults() {
            [] => !mapping.texts().is_empty(),
            names => names.iter().any(|(name, _)| may_be(name)),
        }
    }

    /// The full-text fields that are searched, in the order in which they are named, each with its
    /// boost; what a pattern stands for has fewest dots first, then the order of `own`, then that of
    /// names. None for default fields that are all fields.
    pub(super) fn fields_of(
        &self,
        searched: &Searched,
        own: &[String],
    ) -> Vec<(&'m TextField, Boost)> {
        let (Some(mapping), Searched::Fields(named)) = (self.mapping, searched) else {
            return Vec::new();
        };
        let named = match named.is_empty() {
            true => mapping.defaults(),
            false => named,
        };
        let mut found = Vec::new();
        for (name, boost) in named {
            if is_pattern(name) {
                let expanded = self.expanded(mapping, name).into_iter().flatten();
                let mut expanded: Vec<&TextField> = expanded.collect();
                expanded.sort_by_key(|text| rank(text.source(), own));
                found.extend(expanded.into_iter().map(|text| (text, *boost)));
            } else if let Some(text) = mapping.text(name) {
                found.push((text, *boost));
            }
        }
        found
    }

    /// `None` where that was asked too often, or of too long a pattern.
    fn expanded(
        &self,
        mapping: &'m Mapping,
        pattern: &str,
    ) -> Option<impl Iterator<Item = &'m TextField> + use<'m>> {
        if pattern.len() > LONGEST_PATTERN {
            return None;
        }
        let left = self.patterns.get().checked_sub(1)?;
        self.patterns.set(left);
        Some(matching(mapping, pattern))
    }
}
