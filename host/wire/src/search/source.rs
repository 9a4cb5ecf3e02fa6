//! How the text that the policy reads gets into the hits, and out again.
//!
//! The hits of the client's page must be the bytes that the engine alone would have sent:
//! - where the client gets all of `_source`, or a part that has every field, nothing is added;
//! - where it gets no `_source`, it is asked for with the policy's fields only, and taken out whole;
//! - where it gets a part, the part is widened by members that the client has nothing of, and these
//!   are taken out. What is left has the order that it would have had: Elasticsearch filters the
//!   stored text as it stands (so long as nothing else makes it a map), OpenSearch through a map whose
//!   order does not change while it is small;
//! - where the client has something of such a member, or excludes it by a wildcard, the part stays as
//!   it is and the fields are asked for through `fields`, a section of its own. Elasticsearch then
//!   makes a map of the stored text, so that the order of the client's part may change: not exact.

use rerankd_core::SkipReason;

use super::body::Body;
use super::rules::matches;
use super::url::{self, Params};
use crate::engine::strip::Strip;
use crate::json::{Json, Kind};

/// What to ask for beyond what the client does.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Ask {
    /// The client's own part has everything.
    Nothing,
    /// `_source` with these fields.
    Source(Vec<String>),
    /// The client's part of `_source`, and more.
    Part {
        includes: Vec<String>,
        excludes: Vec<String>,
        /// The members of `_source` that the client has nothing of.
        added: Vec<String>,
    },
    /// These names of `fields`.
    Fields {
        names: Vec<String>,
        /// Whether nothing in the section is the client's.
        alone: bool,
        /// Whether the client has `fields` in its body.
        own_fields: bool,
    },
}

impl Ask {
    /// What to take out of the hits again.
    pub(super) fn strip(&self) -> Option<Strip> {
        match self {
            Self::Nothing => None,
            Self::Source(_) => Some(Strip::Source),
            Self::Part { added, .. } => Some(Strip::Members(added.iter().cloned().collect())),
            Self::Fields { alone: true, .. } => Some(Strip::Section),
            Self::Fields {
                names, own_fields, ..
            } => Some(Strip::Names {
                names: names.iter().cloned().collect(),
                own_fields: *own_fields,
            }),
        }
    }

    /// Whether it stands for what the client says of `_source`.
    pub(super) fn replaces_source(&self) -> bool {
        matches!(self, Self::Source(_) | Self::Part { .. })
    }

    /// Whether the hits, stripped, are surely the engine's own bytes.
    pub(super) fn is_exact(&self) -> bool {
        !matches!(self, Self::Fields { .. })
    }
}

/// The parameters that [`Ask::Source`], [`Ask::Part`] and the body's `_source` replace.
pub(super) const SOURCE_PARAMS: &[&str] = &[
    "_source",
    "_source_includes",
    "_source_excludes",
    "_source_include",
    "_source_exclude",
];

/// Most names that a search may give in one place, where they matter here: each of them is held
/// against each field of the policy. The engines' own default for the fields of an index
/// (`index.mapping.total_fields.limit`).
pub(super) const MOST_NAMES: usize = 1000;

/// Most bytes of these names together.
const MOST_NAME_BYTES: usize = 64 << 10;

/// Refuses to compare too much.
fn bounded(names: &[String]) -> Result<(), SkipReason> {
    let bytes: usize = names.iter().map(String::len).sum();
    match names.len() > MOST_NAMES || bytes > MOST_NAME_BYTES {
        true => Err(SkipReason::Limit),
        false => Ok(()),
    }
}

/// What of `_source` the client gets.
#[derive(Debug, PartialEq)]
enum Source {
    All,
    None,
    Part {
        includes: Vec<String>,
        excludes: Vec<String>,
    },
}

/// Decides how to get `needed`.
///
/// # Errors
/// Where the client rules out every way, or its own wishes are not understood.
pub(super) fn ask(
    body: &Body<'_>,
    params: &Params<'_>,
    needed: &[String],
) -> Result<Ask, SkipReason> {
    if needed.is_empty() {
        return Ok(Ask::Nothing);
    }
    let stored = stored_fields(body, params)?;
    let no_fields = stored
        .as_ref()
        .is_some_and(|names| names.iter().any(|name| name == "_none_"));
    match source(body, params, stored.as_deref())? {
        Source::All => Ok(Ask::Nothing),
        _ if no_fields => Err(SkipReason::StoredFields),
        Source::None => Ok(Ask::Source(needed.to_vec())),
        Source::Part { includes, excludes } => {
            bounded(&includes)?;
            bounded(&excludes)?;
            let patterns = (Patterns::of(&includes), Patterns::of(&excludes));
            let has_not = |name: &&String| !has(&patterns.0, &patterns.1, name);
            let missing: Vec<String> = needed.iter().filter(has_not).cloned().collect();
            if missing.is_empty() {
                return Ok(Ask::Nothing);
            }
            match widened_part(&includes, &excludes, &missing) {
                Some(part) => Ok(part),
                None => through_fields(body, params, stored.unwrap_or_default(), &missing),
            }
        }
    }
}

fn stored_fields(body: &Body<'_>, params: &Params<'_>) -> Result<Option<Vec<String>>, SkipReason> {
    if let Some(value) = params.get("stored_fields") {
        return Ok(Some(url::list(value)));
    }
    let stored = body.member("stored_fields");
    stored.map(strings).transpose()
}

fn source(
    body: &Body<'_>,
    params: &Params<'_>,
    stored: Option<&[String]>,
) -> Result<Source, SkipReason> {
    if let Some(source) = source_of_params(params) {
        return Ok(source);
    }
    match body.member("_source") {
        Some(source) => source_of_body(source),
        None => {
            let scripts = body.member("script_fields").is_some();
            let left_out = match stored {
                Some(names) => !names.iter().any(|name| name == "_source"),
                None => scripts,
            };
            Ok(if left_out { Source::None } else { Source::All })
        }
    }
}

/// The engines let these replace all that the body says.
fn source_of_params(params: &Params<'_>) -> Option<Source> {
    let either = |name: &str, old: &str| params.get(name).or_else(|| params.get(old));
    let source = params.get("_source");
    let includes = either("_source_includes", "_source_include");
    let excludes = either("_source_excludes", "_source_exclude");
    if source.is_none() && includes.is_none() && excludes.is_none() {
        return None;
    }
    if source == Some("false") {
        return Some(Source::None);
    }
    let includes = includes.or(source.filter(|&source| source != "true"));
    Some(part(
        includes.map(url::list).unwrap_or_default(),
        excludes.map(url::list).unwrap_or_default(),
    ))
}

fn source_of_body(source: Json<'_>) -> Result<Source, SkipReason> {
    Ok(match source.kind() {
        Kind::Boolean if source.boolean() == Some(false) => Source::None,
        Kind::Boolean => Source::All,
        Kind::String | Kind::Array => part(strings(source)?, Vec::new()),
        Kind::Object => {
            let (mut includes, mut excludes) = (Vec::new(), Vec::new());
            for (key, value) in source.members() {
                match &*key {
                    "includes" | "include" => includes = strings(value)?,
                    "excludes" | "exclude" => excludes = strings(value)?,
                    _ => return Err(SkipReason::Unparsable),
                }
            }
            part(includes, excludes)
        }
        Kind::Null | Kind::Number => return Err(SkipReason::Unparsable),
    })
}

fn part(includes: Vec<String>, excludes: Vec<String>) -> Source {
    let all = includes.is_empty() || includes.iter().any(|name| name == "*");
    if all && excludes.is_empty() {
        return Source::All;
    }
    Source::Part { includes, excludes }
}

/// A string, or an array of them.
fn strings(json: Json<'_>) -> Result<Vec<String>, SkipReason> {
    let string = |json: Json<'_>| json.string().map(|text| text.into_owned());
    let found = match json.kind() {
        Kind::Array => json.items().map(string).collect(),
        _ => string(json).map(|one| vec![one]),
    };
    found.ok_or(SkipReason::Unparsable)
}

/// Patterns, each with the one for what lies below it.
struct Patterns<'a>(Vec<(&'a str, String)>);

impl<'a> Patterns<'a> {
    fn of(patterns: &'a [String]) -> Self {
        let with_below = |pattern: &'a String| (pattern.as_str(), format!("{pattern}.*"));
        Self(patterns.iter().map(with_below).collect())
    }
}

/// Whether a part of `_source` has the whole of a field. Says no when in doubt.
fn has(includes: &Patterns<'_>, excludes: &Patterns<'_>, name: &str) -> bool {
    let below = format!("{name}.");
    let covers = |(pattern, all_below): &(&str, String)| {
        let parent = name.strip_prefix(pattern);
        matches(pattern, name)
            || parent.is_some_and(|rest| rest.starts_with('.'))
            || matches(all_below, name)
    };
    let touches = |both: &(&str, String)| {
        let pattern = both.0;
        let literal = pattern.split('*').next().unwrap_or_default();
        covers(both) || literal.starts_with(&below) || {
            literal.len() < pattern.len() && below.starts_with(literal)
        }
    };
    (includes.0.is_empty() || includes.0.iter().any(covers)) && !excludes.0.iter().any(touches)
}

/// A name that no member has: keeps a filter a filter, since without one Elasticsearch sends the
/// stored text as it stands, spaces and all.
const NO_MEMBER: &str = "_rerankd";

/// The client's part and the members that it lacks, where it has nothing of these at all.
fn widened_part(includes: &[String], excludes: &[String], missing: &[String]) -> Option<Ask> {
    let mut part = (includes.to_vec(), excludes.to_vec());
    let mut added: Vec<String> = Vec::new();
    for name in missing {
        let root = name.split('.').next().unwrap_or_default();
        let excluded = excludes.iter().any(|exclude| exclude == root);
        let shown = (includes.is_empty() || includes.iter().any(|include| reaches(include, root)))
            && !excluded;
        let cut = |exclude: &String| exclude != root && reaches(exclude, root);
        if shown || name.contains('*') || excludes.iter().any(cut) {
            return None;
        }
        part.1.retain(|exclude| exclude != root);
        if !includes.is_empty() {
            part.0.push(name.clone());
        }
        if !added.iter().any(|other| other == root) {
            added.push(root.to_owned());
        }
    }
    let (includes, mut excludes) = part;
    if includes.is_empty() && excludes.is_empty() {
        excludes.push(NO_MEMBER.to_owned());
    }
    Some(Ask::Part {
        includes,
        excludes,
        added,
    })
}

/// Whether a pattern can be about a member or something in it. Says yes when in doubt.
fn reaches(pattern: &str, root: &str) -> bool {
    let below = format!("{root}.");
    match pattern.split_once('*') {
        Some((literal, _)) => below.starts_with(literal) || literal.starts_with(&below),
        None => pattern == root || pattern.starts_with(&below),
    }
}

fn through_fields(
    body: &Body<'_>,
    params: &Params<'_>,
    stored: Vec<String>,
    needed: &[String],
) -> Result<Ask, SkipReason> {
    let member = |name: &str| body.member(name);
    let mut client = stored;
    let own_fields = member("fields");
    for list in [own_fields, member("docvalue_fields")]
        .into_iter()
        .flatten()
    {
        if list.kind() != Kind::Array {
            return Err(SkipReason::Unparsable);
        }
        for item in list.items() {
            let name = item.string().or_else(|| item.member("field")?.string());
            client.push(name.ok_or(SkipReason::Unparsable)?.into_owned());
        }
    }
    client.extend(
        params
            .get("docvalue_fields")
            .map(url::list)
            .unwrap_or_default(),
    );
    let scripts = member("script_fields");
    client.extend(
        scripts
            .iter()
            .flat_map(|scripts| scripts.members())
            .map(|(name, _)| name.into_owned()),
    );
    let collapse = member("collapse").and_then(|collapse| collapse.member("field")?.string());
    client.extend(collapse.map(|field| field.into_owned()));
    bounded(&client)?;

    let missing = needed
        .iter()
        .filter(|name| !client.iter().any(|own| matches(own, name)));
    let names: Vec<String> = missing.cloned().collect();
    if names.is_empty() {
        return Ok(Ask::Nothing);
    }
    if !client.is_empty() && names.iter().any(|name| name.contains('*')) {
        return Err(SkipReason::StoredFields);
    }
    // Fields of one nested object share one member of the section.
    let root = |name: &str| name.split('.').next().map(str::to_owned);
    let entangled = |name: &String| {
        name.contains('.')
            && client
                .iter()
                .any(|own| own.contains('.') && root(own) == root(name))
    };
    if names.iter().any(entangled) {
        return Err(SkipReason::StoredFields);
    }
    Ok(Ask::Fields {
        names,
        alone: client.is_empty(),
        own_fields: own_fields.is_some(),
    })
}
