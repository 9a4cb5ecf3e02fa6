//! What the engine says of a search's target: which rule its indices have, and which of its fields are
//! full text. Made of the answers to the look-ups of [`Target::paths`]; holds no more of them than
//! searches ask for.

use std::collections::HashMap;
use std::sync::Arc;

use rerankd_core::SkipReason;

use super::rules::{Pattern, Rules};
use super::searched::{Boost, with_boost};
use super::target::Target;
use crate::json::{self, Json, Kind as JsonKind};

/// Types of fields whose words are searched, as `_field_caps` has them.
const FULL_TEXT: [&str; 7] = [
    "text",
    "match_only_text",
    "search_as_you_type",
    "annotated_text",
    "pattern_text",
    "semantic_text",
    "semantic",
];

/// Types that are no fields but hold some.
const OBJECTS: [&str; 2] = ["object", "nested"];

/// Most fields of a target; engines allow 1,000 for an index by default
/// (`index.mapping.total_fields.limit`).
const MOST_FIELDS: usize = 20_000;

/// Most fields of `index.query.default_field`.
const MOST_DEFAULTS: usize = 64;

/// What is known of a target.
#[derive(Debug, Clone)]
pub enum Seen {
    /// Nobody looks anything up.
    Off,
    /// The engine's answer.
    Known(Arc<Mapping>),
    /// The engine did not say, or not in time.
    Unknown,
    /// The engine was not asked yet.
    Cold,
}

/// What the mapping says of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldKind {
    /// Its words are searched, in one of the indices at least.
    FullText,
    /// A keyword, a number, a date, a vector ..
    Other,
}

/// A full-text field.
#[derive(Debug)]
pub(super) struct TextField {
    pub(super) name: Box<str>,
    /// Where its text stands in `_source`, if it is a multi-field.
    parent: Option<Box<str>>,
}

impl TextField {
    /// Whether it is another way to search the text of another field.
    pub(super) fn is_multi_field(&self) -> bool {
        self.parent.is_some()
    }

    /// The field whose text it is.
    pub(super) fn source(&self) -> &str {
        self.parent.as_deref().unwrap_or(&self.name)
    }
}

/// What the engine says of a target.
#[derive(Debug)]
pub struct Mapping {
    /// `None` where the target has no index.
    rule: Option<Result<usize, SkipReason>>,
    fields: HashMap<Box<str>, Flags>,
    /// Fewest dots first, then by name.
    texts: Vec<TextField>,
    /// As `index.query.default_field` has them, with their boosts; none is all fields.
    defaults: Vec<(String, Boost)>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Flags {
    is_full_text: bool,
    /// Whether it is a field and not only an object.
    is_leaf: bool,
}

/// Why an answer of the engine is of no use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAMapping {
    /// It is not what `_field_caps` answers.
    NotUnderstood,
    /// The target has more fields than are kept.
    TooManyFields,
}

impl std::fmt::Display for NotAMapping {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotUnderstood => f.write_str("the answer is not that of `_field_caps`"),
            Self::TooManyFields => write!(f, "the target has more than {MOST_FIELDS} fields"),
        }
    }
}

impl Mapping {
    /// `fields` is the answer of `_field_caps`; `names` and `defaults` are those of `_resolve/index` and
    /// `_settings`, where the engine gave them.
    ///
    /// # Errors
    /// Where `fields` is not understood, or too much.
    pub fn read(
        target: &Target,
        rules: &Rules,
        fields: &[u8],
        names: Option<&[u8]>,
        defaults: Option<&[u8]>,
    ) -> Result<Self, NotAMapping> {
        let caps = json::parse(fields).map_err(|_| NotAMapping::NotUnderstood)?;
        if caps.kind() != JsonKind::Object || caps.member("error").is_some() {
            return Err(NotAMapping::NotUnderstood);
        }
        // With `filter_path` an engine leaves out what is empty.
        let indices = caps.member("indices").map(strings).unwrap_or_default();
        let resolved = names.and_then(|names| json::parse(names).ok());
        let defaults = defaults.and_then(|defaults| json::parse(defaults).ok());
        let fields = kinds(caps.member("fields"))?;
        let texts = texts(&fields);
        Ok(Self {
            rule: rule_of(target, rules, &indices, resolved),
            texts,
            defaults: defaults.map_or_else(Vec::new, |said| common_defaults(said, indices.len())),
            fields,
        })
    }

    /// The rule that holds for all indices of the target, by its place in [`Rules`]. `None` where there
    /// is no index, so that what was written counts.
    pub(super) fn rule(&self) -> Option<Result<usize, SkipReason>> {
        self.rule
    }

    /// `None` for a name that the mapping does not have.
    pub(super) fn kind(&self, name: &str) -> Option<FieldKind> {
        if is_the_engines(name) {
            return Some(FieldKind::Other);
        }
        let Some(flags) = self.fields.get(name) else {
            return self.is_below_another_kind(name).then_some(FieldKind::Other);
        };
        Some(match flags.is_full_text {
            true => FieldKind::FullText,
            false => FieldKind::Other,
        })
    }

    /// Whether the nearest field above a name is none of full text, and no object: what lies in a
    /// `flattened` or `flat_object` field has no entry of its own.
    fn is_below_another_kind(&self, name: &str) -> bool {
        let mut rest = name;
        while let Some((above, _)) = rest.rsplit_once('.') {
            if let Some(flags) = self.fields.get(above) {
                return flags.is_leaf && !flags.is_full_text;
            }
            rest = above;
        }
        false
    }

    /// Whether it has no field at all, so that nothing can be said of any.
    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The full-text fields, multi-fields too: fewest dots first, then by name.
    pub(super) fn texts(&self) -> &[TextField] {
        &self.texts
    }

    /// A full-text field by its name.
    pub(super) fn text(&self, name: &str) -> Option<&TextField> {
        let key = depth_first(name);
        let found = self
            .texts
            .binary_search_by(|text| depth_first(&text.name).cmp(&key));
        found.ok().map(|at| &self.texts[at])
    }

    /// The fields that are searched where a query names none; none is all.
    pub(super) fn defaults(&self) -> &[(String, Boost)] {
        &self.defaults
    }

    /// What it takes in memory, bytes.
    pub fn held_bytes(&self) -> usize {
        const BESIDE: usize = 64;
        let names = self.fields.keys().map(|name| name.len() + BESIDE);
        let texts = self.texts.iter().map(|text| {
            let parent = text.parent.as_deref().map_or(0, str::len);
            text.name.len() + parent + BESIDE
        });
        let defaults = self.defaults.iter().map(|(name, _)| name.len() + BESIDE);
        size_of::<Self>() + names.chain(texts).chain(defaults).sum::<usize>()
    }
}

/// Whether it is a field of the engine's own: `_id`, `_index`, `_source` ..
fn is_the_engines(name: &str) -> bool {
    name.starts_with('_')
}

fn depth_first(name: &str) -> (usize, &str) {
    (name.matches('.').count(), name)
}

fn kinds(fields: Option<Json<'_>>) -> Result<HashMap<Box<str>, Flags>, NotAMapping> {
    let mut kinds = HashMap::new();
    for (name, types) in fields.into_iter().flat_map(Json::members) {
        if is_the_engines(&name) {
            continue;
        }
        if kinds.len() == MOST_FIELDS {
            return Err(NotAMapping::TooManyFields);
        }
        let mut flags = Flags::default();
        for (kind, _) in types.members() {
            flags.is_full_text |= is_full_text(&kind);
            // Not a type, but that some of the indices have no such field.
            flags.is_leaf |= !OBJECTS.contains(&&*kind) && kind != "unmapped";
        }
        kinds.insert(Box::from(&*name), flags);
    }
    Ok(kinds)
}

fn texts(fields: &HashMap<Box<str>, Flags>) -> Vec<TextField> {
    let full = fields.iter().filter(|(_, flags)| flags.is_full_text);
    let mut texts: Vec<TextField> = full
        .map(|(name, _)| TextField {
            name: name.clone(),
            parent: parent(fields, name).map(Box::from),
        })
        .collect();
    texts.sort_unstable_by(|a, b| depth_first(&a.name).cmp(&depth_first(&b.name)));
    texts
}

/// The field that a multi-field is a part of: what lies below a field that is no object is one.
fn parent<'n>(fields: &HashMap<Box<str>, Flags>, name: &'n str) -> Option<&'n str> {
    let (mut found, mut rest) = (None, name);
    while let Some((above, _)) = rest.rsplit_once('.') {
        if fields.get(above).is_some_and(|flags| flags.is_leaf) {
            found = Some(above);
        }
        rest = above;
    }
    found
}

/// A string, or the strings of an array.
fn strings(json: Json<'_>) -> Vec<String> {
    match json.string() {
        Some(one) => vec![one.into_owned()],
        None => json
            .items()
            .filter_map(|item| Some(item.string()?.into_owned()))
            .collect(),
    }
}

/// The rule of all indices of a target.
fn rule_of(
    target: &Target,
    rules: &Rules,
    indices: &[String],
    resolved: Option<Json<'_>>,
) -> Option<Result<usize, SkipReason>> {
    let ways = ways(resolved);
    let mut rule = None;
    let mut spare = None;
    for index in indices {
        let stream = stream_of(index);
        let through = ways.get(index.as_str()).into_iter().flatten();
        let names = std::iter::once(index.as_str())
            .chain(stream)
            .chain(target.one_name())
            .chain(through.map(String::as_str));
        let found = rules.place(names);
        let hidden = index.starts_with('.') && stream.is_none();
        let own = match found {
            Some(place) => Ok(place),
            // The engine's own indices, which only a pattern brought in.
            None if hidden && !target.says(index) => {
                spare = Some(Err(SkipReason::NoRule));
                continue;
            }
            None => Err(SkipReason::NoRule),
        };
        rule = Some(match (rule, own) {
            (None, own) => own,
            (Some(Ok(one)), Ok(other)) if one != other => Err(SkipReason::RulesDiffer),
            (Some(Err(SkipReason::NoRule)), _) | (_, Err(_)) => Err(SkipReason::NoRule),
            (Some(rule), Ok(_)) => rule,
        });
    }
    rule.or(spare)
}

/// The aliases and data streams through which the target got to each of its indices.
fn ways(resolved: Option<Json<'_>>) -> HashMap<String, Vec<String>> {
    let mut ways: HashMap<String, Vec<String>> = HashMap::new();
    let Some(resolved) = resolved else {
        return ways;
    };
    for (section, members) in [("aliases", "indices"), ("data_streams", "backing_indices")] {
        for way in resolved.member(section).into_iter().flat_map(Json::items) {
            let Some(name) = way.member("name").and_then(Json::string) else {
                continue;
            };
            for index in way.member(members).map(strings).unwrap_or_default() {
                ways.entry(index)
                    .or_default()
                    .push(name.clone().into_owned());
            }
        }
    }
    // Elasticsearch lists the streams of an alias, OpenSearch what they are made of.
    for index in resolved.member("indices").into_iter().flat_map(Json::items) {
        let text = |name: &str| index.member(name).and_then(Json::string);
        if let (Some(name), Some(stream)) = (text("name"), text("data_stream")) {
            let mut through = ways.get(&*stream).cloned().unwrap_or_default();
            through.push(stream.into_owned());
            ways.entry(name.into_owned()).or_default().extend(through);
        }
    }
    ways
}

/// The data stream of a backing index: `.ds-NAME-000001` (OpenSearch), `.ds-NAME-2026.01.31-000001`.
fn stream_of(index: &str) -> Option<&str> {
    let local = index.rsplit_once(':').map_or(index, |(_, local)| local);
    let rest = local.strip_prefix(".ds-")?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (name, generation) = rest.rsplit_once('-')?;
    if !digits(generation) {
        return None;
    }
    let dated = name.rsplit_once('-').filter(|(name, date)| {
        let parts: Vec<&str> = date.split('.').collect();
        !name.is_empty() && parts.len() == 3 && parts.iter().all(|part| digits(part))
    });
    Some(dated.map_or(name, |(name, _)| name)).filter(|name| !name.is_empty())
}

/// What all indices have as `index.query.default_field`; nothing where they differ, or one has none.
fn common_defaults(said: Json<'_>, indices: usize) -> Vec<(String, Boost)> {
    const SETTING: &str = "index.query.default_field";
    let mut of_indices = said.members().map(|(_, index)| {
        let value = index.member("settings")?.member(SETTING)?;
        let names = strings(value);
        let names = names.iter().flat_map(|name| name.split(','));
        let names = names.map(|name| with_boost(name.trim(), Boost::default()));
        Some(names.collect::<Vec<_>>())
    });
    let Some(Some(first)) = of_indices.next() else {
        return Vec::new();
    };
    let mut count = 1;
    for other in of_indices {
        count += 1;
        if other.as_ref() != Some(&first) {
            return Vec::new();
        }
    }
    let is_all = first.iter().any(|(name, _)| name == "*");
    match count == indices && !is_all && first.len() <= MOST_DEFAULTS {
        true => first,
        false => Vec::new(),
    }
}

/// Whether a name stands for all fields of some form.
pub(super) fn is_pattern(name: &str) -> bool {
    name.contains('*')
}

/// Whether the words of fields of this type are searched.
pub(super) fn is_full_text(kind: &str) -> bool {
    FULL_TEXT.contains(&kind)
}

/// The full-text fields that a pattern stands for, fewest dots first, then by name.
pub(super) fn matching<'m>(
    mapping: &'m Mapping,
    pattern: &str,
) -> impl Iterator<Item = &'m TextField> + use<'m> {
    let pattern = Pattern::new(pattern);
    let texts = mapping.texts().iter();
    texts.filter(move |text| pattern.matches(&text.name))
}
