//! The fields that a policy reads where nobody names them: those that the search looks into, then the
//! full-text fields of the mapping. And what patterns stand for where somebody does.
//!
//! Which of them are in `_source` no mapping says to those who may only search (fields that others are
//! copied to and aliases are not, and some indices keep nothing of it): the hits do. So a few more are
//! fetched than are read, and of those that the window's hits have, the first are.

use std::collections::{HashMap, HashSet};

use rerankd_core::{Document, RerankRequest, Value};

use super::mapping::{Mapping, is_pattern, matching};
use super::query_text::Findings;
use super::rules::Pattern;
use super::searched::Words;

/// Fields that are read where nobody names them.
const MOST_READ: usize = 4;

/// Fields that are fetched for that.
const MOST_FETCHED: usize = 8;

/// Fields that are read where somebody names patterns; a policy's own list of fields may be no longer.
const MOST_OF_PATTERNS: usize = 32;

/// Clauses whose fields are looked at for that.
const MOST_CLAUSES: usize = 256;

/// Text of these fields that a policy is given of a document, bytes.
const MOST_TEXT_BYTES: usize = 64 << 10;

/// How the fields that a policy reads may be chosen for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FieldChoice {
    /// Fields that it reads besides those that can be chosen, such as a price.
    pub kept: Vec<String>,
    /// The fields that it may be given; `None` is any.
    pub grants: Option<Vec<String>>,
}

/// Fields that are chosen when the hits are there.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Reading {
    /// Names in falling priority; patterns only where no mapping says what they stand for.
    pub(super) candidates: Vec<String>,
    /// Those of them that somebody named one by one: they are read whatever the hits have of them.
    named: HashSet<String>,
    most: usize,
}

impl Reading {
    /// What to read for a search that nobody names fields for. `own` are the fields of the policy itself.
    /// `None` where the mapping has none to choose.
    pub(super) fn of_search(
        findings: &Findings,
        query: &str,
        words: &Words<'_>,
        own: &[String],
        choice: &FieldChoice,
    ) -> Option<Self> {
        let mapping = words.mapping()?;
        let grants: Option<HashSet<&str>> = choice
            .grants
            .as_ref()
            .map(|grants| grants.iter().map(String::as_str).collect());
        let mut candidates: Vec<String> = Vec::new();
        let searched = searched(findings, query, words, own);
        let all = by_depth(mapping, own);
        let names = searched.iter().copied().chain(all);
        let granted = |name: &&str| grants.as_ref().is_none_or(|grants| grants.contains(name));
        for name in names.filter(granted) {
            if candidates.len() == MOST_FETCHED {
                break;
            }
            if !candidates.iter().any(|other| other == name) {
                candidates.push(name.to_owned());
            }
        }
        (!candidates.is_empty()).then_some(Self {
            candidates,
            named: HashSet::new(),
            most: MOST_READ,
        })
    }

    /// What to read for a search with fields that somebody named; `None` where no pattern is among them.
    pub(super) fn of_names(named: &[String], mapping: Option<&Mapping>) -> Option<Self> {
        if !named.iter().any(|name| is_pattern(name)) {
            return None;
        }
        let literal: HashSet<String> = named
            .iter()
            .filter(|name| !is_pattern(name))
            .cloned()
            .collect();
        let mut chosen = Chosen::new(&literal, MOST_OF_PATTERNS);
        let mut patterns = 0;
        for name in named {
            if !is_pattern(name) {
                chosen.add(name);
                continue;
            }
            patterns += 1;
            match mapping {
                _ if patterns > MOST_OF_PATTERNS => {}
                Some(mapping) => matching(mapping, name)
                    .filter(|text| !text.is_multi_field())
                    .for_each(|text| chosen.add(&text.name)),
                None => chosen.add(name),
            }
        }
        Some(Self {
            candidates: chosen.names,
            named: literal,
            most: MOST_OF_PATTERNS,
        })
    }

    /// The names of all that may be needed: `own` are the policy's fields, which it reads where none of
    /// the candidates has text.
    pub(super) fn fetched(&self, own: Option<&Vec<String>>) -> Vec<String> {
        let mut names = self.candidates.clone();
        for name in own.into_iter().flatten() {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        names
    }

    /// Chooses the fields now that the hits are there: those that some of them have as text, and those
    /// that somebody named one by one. Returns them; none leaves the policy its own.
    pub(super) fn settle(&self, request: &mut RerankRequest) -> Vec<String> {
        let names = self.chosen(&request.documents);
        if !names.is_empty() {
            for document in &mut request.documents {
                cut(document, &names);
            }
            request.fields = Some(names.clone());
        }
        names
    }

    fn chosen(&self, documents: &[Document]) -> Vec<String> {
        let with_text = documents.iter().flat_map(|document| &document.fields);
        let with_text = with_text.filter(|field| has_text(&field.value));
        let mut present: Vec<&str> = Vec::new();
        let mut seen = HashSet::new();
        for field in with_text {
            if seen.insert(field.name.as_str()) {
                present.push(&field.name);
            }
        }
        present.sort_unstable_by_key(|name| (depth(name), *name));
        let mut chosen = Chosen::new(&self.named, self.most);
        for candidate in &self.candidates {
            if is_pattern(candidate) {
                let pattern = Pattern::new(candidate);
                let meant = present.iter().filter(|name| pattern.matches(name));
                meant.for_each(|name| chosen.add(name));
            } else if self.named.contains(candidate) || seen.contains(candidate.as_str()) {
                chosen.add(candidate);
            }
        }
        chosen.names
    }
}

/// Names in the order in which they were added, each once.
struct Chosen<'n> {
    names: Vec<String>,
    seen: HashSet<String>,
    /// Names that are taken whatever their number.
    named: &'n HashSet<String>,
    /// How many others still are.
    room: usize,
}

impl<'n> Chosen<'n> {
    /// No more than `most`, if so many are not `named` already.
    fn new(named: &'n HashSet<String>, most: usize) -> Self {
        Self {
            names: Vec::new(),
            seen: HashSet::new(),
            named,
            room: most.saturating_sub(named.len()),
        }
    }

    fn add(&mut self, name: &str) {
        let is_named = self.named.contains(name);
        if self.seen.contains(name) || (!is_named && self.room == 0) {
            return;
        }
        self.room -= usize::from(!is_named);
        self.seen.insert(name.to_owned());
        self.names.push(name.to_owned());
    }
}

/// The fields that the clauses with the query's text look into, the highest boost first.
fn searched<'m>(
    findings: &Findings,
    query: &str,
    words: &Words<'m>,
    own: &[String],
) -> Vec<&'m str> {
    let is_the_query = findings.said(words).any(|said| said.text == query);
    let said = findings
        .said(words)
        .filter(|said| !is_the_query || said.text == query);
    let said = said.take(MOST_CLAUSES);
    let mut boosts: HashMap<&'m str, (f32, usize)> = HashMap::new();
    for (text, boost) in said.flat_map(|said| words.fields_of(&said.searched, own)) {
        let order = boosts.len();
        let known = boosts.entry(text.source()).or_insert((boost.0, order));
        known.0 = known.0.max(boost.0);
    }
    let mut names: Vec<(&str, (f32, usize))> = boosts.into_iter().collect();
    names.sort_by(|(_, (one, first)), (_, (other, second))| {
        other.total_cmp(one).then(first.cmp(second))
    });
    names.into_iter().map(|(name, _)| name).collect()
}

/// Fewest dots first, then the policy's own order.
pub(super) fn rank(name: &str, own: &[String]) -> (usize, usize) {
    let place = own.iter().position(|other| other == name);
    (depth(name), place.unwrap_or(usize::MAX))
}

fn depth(name: &str) -> usize {
    name.matches('.').count()
}

/// All full-text fields but multi-fields: fewest dots first, then the policy's own in its order, then by
/// name.
fn by_depth<'m>(mapping: &'m Mapping, own: &[String]) -> impl Iterator<Item = &'m str> {
    let texts = mapping.texts().iter().filter(|text| !text.is_multi_field());
    // They stand by depth and name already; only the policy's own are to be brought forward.
    let mut own: Vec<&'m str> = own
        .iter()
        .filter_map(|name| mapping.text(name))
        .filter(|text| !text.is_multi_field())
        .map(|text| &*text.name)
        .collect();
    own.sort_by_key(|name| depth(name));
    own.reverse();
    let mut texts = texts.map(|text| &*text.name).peekable();
    std::iter::from_fn(move || {
        let next_depth = texts.peek().map(|name| depth(name));
        match own.last() {
            Some(name) if next_depth.is_none_or(|next| depth(name) <= next) => own.pop(),
            _ => texts.next(),
        }
    })
}

fn has_text(value: &Value) -> bool {
    match value {
        Value::Text(text) => !text.trim().is_empty(),
        Value::Texts(texts) => texts.iter().any(|text| !text.trim().is_empty()),
        _ => false,
    }
}

/// Leaves a document no more text of these fields than [`MOST_TEXT_BYTES`], in their order.
fn cut(document: &mut Document, names: &[String]) {
    let size: usize = document
        .fields
        .iter()
        .map(|field| field.value.size_bytes())
        .sum();
    if size <= MOST_TEXT_BYTES {
        return;
    }
    let mut room = MOST_TEXT_BYTES;
    for name in names {
        let field = document.fields.iter_mut().find(|field| field.name == *name);
        match field.map(|field| &mut field.value) {
            Some(Value::Text(text)) => cut_text(text, &mut room),
            Some(Value::Texts(texts)) => {
                texts.iter_mut().for_each(|text| cut_text(text, &mut room));
                texts.retain(|text| !text.is_empty());
            }
            _ => {}
        }
    }
    document.fields.retain(|field| match &field.value {
        Value::Text(text) => !(text.is_empty() && names.contains(&field.name)),
        Value::Texts(texts) => !(texts.is_empty() && names.contains(&field.name)),
        _ => true,
    });
}

fn cut_text(text: &mut String, room: &mut usize) {
    if text.len() > *room {
        text.truncate(text.floor_char_boundary(*room));
        *room = 0;
    }
    *room -= text.len().min(*room);
}
