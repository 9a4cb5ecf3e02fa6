//! How the text that the policy reads gets into the hits, and out again.
//!
//! The hits of the client's page must be the bytes that the engine alone would have sent. So a
//! section of the hit is used that the client has no part in, and goes as a whole:
//! - where the client gets all of `_source`, or a part that has every field, nothing is added;
//! - where it gets no `_source`, it is asked for with the policy's fields only, and taken out;
//! - where it gets a part of `_source`, that part stays as it is, since what the engine prints of one
//!   (order, empty objects) depends on all that is in it. The policy's fields are asked for through
//!   `fields` instead, which is a section of its own;
//! - where the client uses that section too, single names of it are taken out.

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
            Self::Fields { alone: true, .. } => Some(Strip::Section),
            Self::Fields {
                names, own_fields, ..
            } => Some(Strip::Names {
                names: names.clone(),
                own_fields: *own_fields,
            }),
        }
    }

    /// Whether the hits, stripped, are surely the engine's own bytes. The engine keeps `fields` in a
    /// hash table, whose order may change with what is added.
    pub(super) fn is_exact(&self) -> bool {
        !matches!(self, Self::Fields { alone: false, .. })
    }
}

/// The parameters that [`Ask::Source`] and the body's `_source` replace.
pub(super) const SOURCE_PARAMS: &[&str] = &[
    "_source",
    "_source_includes",
    "_source_excludes",
    "_source_include",
    "_source_exclude",
];

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
            if needed.iter().all(|name| has(&includes, &excludes, name)) {
                return Ok(Ask::Nothing);
            }
            through_fields(body, params, stored.unwrap_or_default(), needed)
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

/// Whether a part of `_source` has the whole of a field. Says no when in doubt.
fn has(includes: &[String], excludes: &[String], name: &str) -> bool {
    let below = format!("{name}.");
    let covers = |pattern: &String| {
        matches(pattern, name) || {
            let parent = name.strip_prefix(pattern.as_str());
            parent.is_some_and(|rest| rest.starts_with('.'))
                || matches(&format!("{pattern}.*"), name)
        }
    };
    let touches = |pattern: &String| {
        let literal = pattern.split('*').next().unwrap_or_default();
        covers(pattern) || literal.starts_with(&below) || {
            literal.len() < pattern.len() && below.starts_with(literal)
        }
    };
    (includes.is_empty() || includes.iter().any(covers)) && !excludes.iter().any(touches)
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

    let missing = needed
        .iter()
        .filter(|name| !client.iter().any(|own| matches(own, name)));
    let names: Vec<String> = missing.cloned().collect();
    if names.is_empty() {
        return Ok(Ask::Nothing);
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
