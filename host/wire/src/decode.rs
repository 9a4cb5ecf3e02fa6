//! What the protocols share in reading a body: places for messages, checks that say what would be
//! right, and the options that the native form and the hits form have in common.

use std::fmt;
use std::time::Duration;

use rerankd_core::{ErrorKind, OnFailure, RerankError, RerankRequest};

use crate::json::{Json, Kind, not_finite, quoted};
use crate::value;

/// Where in the body a value stands; printed as a path (`documents[3].fields.price`).
#[derive(Clone, Copy)]
pub(crate) enum Place<'p> {
    Body,
    Key(&'p Place<'p>, &'p str),
    Item(&'p Place<'p>, usize),
}

impl<'p> Place<'p> {
    pub(crate) fn key(&'p self, key: &'p str) -> Self {
        Self::Key(self, key)
    }

    pub(crate) fn item(&'p self, index: usize) -> Self {
        Self::Item(self, index)
    }

    /// A `BadRequest` at this place.
    pub(crate) fn error(self, problem: impl fmt::Display) -> RerankError {
        match self {
            Self::Body => RerankError::new(ErrorKind::BadRequest, problem.to_string()),
            _ => RerankError::bad_request(self.to_string(), problem),
        }
    }

    /// An `Empty` at this place.
    pub(crate) fn empty(self, problem: impl fmt::Display) -> RerankError {
        RerankError {
            kind: ErrorKind::Empty,
            ..self.error(problem)
        }
    }

    /// A `TooLarge` at this place.
    pub(crate) fn too_large(self, problem: impl fmt::Display) -> RerankError {
        RerankError {
            kind: ErrorKind::TooLarge,
            ..self.error(problem)
        }
    }

    /// A `BadRequest` that says what would be right and what came.
    pub(crate) fn expected(self, wanted: impl fmt::Display, got: Json<'_>) -> RerankError {
        let got = match got.kind() {
            Kind::Number | Kind::Boolean => quoted(got.text()),
            kind => kind_name(kind).to_owned(),
        };
        let subject = if matches!(self, Self::Body) {
            "the body: "
        } else {
            ""
        };
        self.error(format_args!("{subject}expected {wanted}, got {got}"))
    }

    /// Makes sure of the kind.
    pub(crate) fn expect(self, wanted: Kind, json: Json<'_>) -> Result<(), RerankError> {
        if json.kind() == wanted {
            return Ok(());
        }
        Err(self.expected(kind_name(wanted), json))
    }

    /// A string's value.
    pub(crate) fn string(self, json: Json<'_>) -> Result<String, RerankError> {
        self.expect(Kind::String, json)?;
        Ok(json.string().unwrap_or_default().into_owned())
    }

    /// A finite number.
    pub(crate) fn number(self, json: Json<'_>) -> Result<f64, RerankError> {
        self.expect(Kind::Number, json)?;
        match json.number() {
            Some(number) => Ok(number.to_f64()),
            None => Err(self.error(not_finite(json))),
        }
    }

    /// An integer of at least 1, written as one.
    pub(crate) fn count(self, json: Json<'_>) -> Result<u64, RerankError> {
        let count = json.text().parse().ok().filter(|&count: &u64| count >= 1);
        count.ok_or_else(|| self.expected("an integer of at least 1", json))
    }

    /// A boolean.
    pub(crate) fn boolean(self, json: Json<'_>) -> Result<bool, RerankError> {
        json.boolean()
            .ok_or_else(|| self.expected("`true` or `false`", json))
    }

    /// A query's text.
    pub(crate) fn query(self, json: Json<'_>) -> Result<String, RerankError> {
        let query = self.string(json)?;
        if query.trim().is_empty() {
            return Err(self.error("empty; expected the text that was searched for"));
        }
        Ok(query)
    }

    /// The error for a key that must be there.
    pub(crate) fn missing(self, what: &str) -> RerankError {
        self.error(format_args!("missing; expected {what}"))
    }

    /// Names of fields, at least one, none twice.
    pub(crate) fn field_names(self, json: Json<'_>) -> Result<Vec<String>, RerankError> {
        self.expect(Kind::Array, json)?;
        let mut names: Vec<String> = Vec::new();
        for (index, item) in json.items().enumerate() {
            let place = self.item(index);
            let name = place.string(item)?;
            if name.is_empty() {
                return Err(place.error("empty; expected a field's name"));
            }
            if names.contains(&name) {
                return Err(place.error(format_args!("{} is named twice", quoted(&name))));
            }
            if names.len() == MAX_FIELD_NAMES {
                return Err(self.error(format_args!("more than {MAX_FIELD_NAMES} names")));
            }
            names.push(name);
        }
        if names.is_empty() {
            return Err(self.error("empty; leave it out to use the policy's own fields"));
        }
        Ok(names)
    }
}

/// Enough for any document, and few enough to compare each with each.
const MAX_FIELD_NAMES: usize = 1000;

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Body => Ok(()),
            Self::Item(parent, index) => write!(f, "{parent}[{index}]"),
            Self::Key(parent, key) => {
                let plain = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '@');
                if key.is_empty() || key.len() > 200 || !key.chars().all(plain) {
                    let shown: String = key.chars().take(60).collect();
                    return write!(f, "{parent}[{shown:?}]");
                }
                if !matches!(parent, Self::Body) {
                    write!(f, "{parent}.")?;
                }
                f.write_str(key)
            }
        }
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Null => "null",
        Kind::Boolean => "a boolean",
        Kind::Number => "a number",
        Kind::String => "a string",
        Kind::Array => "an array",
        Kind::Object => "an object",
    }
}

/// The keys that the body of any request for reranking may have.
const COMMON_KEYS: &[&str] = &[
    "query",
    "fields",
    "parameters",
    "signals",
    "min_score",
    "explain",
    "timeout_ms",
    "on_failure",
    "key",
];

/// Reads the body of a form that has the common keys and `own_keys`; `take` gets each of the latter
/// that is not null. The request has no documents yet.
///
/// # Errors
/// `BadRequest`, also for keys that are neither and for a missing query.
pub(crate) fn read_body<'a>(
    body: Json<'a>,
    own_keys: &[&str],
    mut take: impl FnMut(&str, Place<'_>, Json<'a>) -> Result<(), RerankError>,
) -> Result<RerankRequest, RerankError> {
    Place::Body.expect(Kind::Object, body)?;
    let mut request = RerankRequest::new("", Vec::new());
    let mut unknown = UnknownKeys::default();
    for (key, value) in body.members() {
        let own = own_keys.contains(&&*key);
        if !own && !COMMON_KEYS.contains(&&*key) {
            unknown.push(&key);
        } else if value.is_null() {
            // The same as no key.
        } else if own {
            take(&key, Place::Body.key(&key), value)?;
        } else {
            take_common(&mut request, &key, Place::Body.key(&key), value)?;
        }
    }
    unknown.finish(Place::Body, &[COMMON_KEYS, own_keys].concat(), "")?;
    if request.query.is_empty() {
        return Err(Place::Body
            .key("query")
            .missing("the text that was searched for"));
    }
    Ok(request)
}

/// Takes the value of a common key into `request`.
///
/// # Errors
/// `BadRequest` at `place`.
pub(crate) fn take_common(
    request: &mut RerankRequest,
    key: &str,
    place: Place<'_>,
    value: Json<'_>,
) -> Result<(), RerankError> {
    match key {
        "query" => request.query = place.query(value)?,
        "fields" => request.fields = Some(place.field_names(value)?),
        "parameters" => {
            place.expect(Kind::Object, value)?;
            let text = value
                .portable_text()
                .map_err(|problem| place.error(problem))?;
            request.parameters = Some(text);
        }
        "signals" => request.signals = value::fields(place, value)?,
        "min_score" => request.min_score = Some(place.number(value)?),
        "explain" => request.explain = place.boolean(value)?,
        "timeout_ms" => request.timeout = Some(Duration::from_millis(place.count(value)?)),
        "on_failure" => request.on_failure = Some(on_failure(place, value)?),
        // An anonymous user is often an empty string; as a key it would put all of them on the
        // same side of a canary.
        "key" => request.key = Some(place.string(value)?).filter(|key| !key.is_empty()),
        _ => {}
    }
    Ok(())
}

/// Refuses `explain: true` in forms that show no explanations: nobody shall look for them in vain.
///
/// # Errors
/// `BadRequest` at `place`, where they are `wanted`.
pub(crate) fn refuse_explanations(place: Place<'_>, wanted: bool) -> Result<(), RerankError> {
    if wanted {
        return Err(place.error(
            "answers of this form have no place for explanations; leave it out, or ask /v1/rerank/{policy}",
        ));
    }
    Ok(())
}

fn on_failure(place: Place<'_>, value: Json<'_>) -> Result<OnFailure, RerankError> {
    const WANTED: &str = "`first-stage` or `error`";
    match value.string().as_deref() {
        Some("first-stage") => Ok(OnFailure::FirstStage),
        Some("error") => Ok(OnFailure::Error),
        Some(other) => Err(place.error(format_args!("expected {WANTED}, got {}", quoted(other)))),
        None => Err(place.expected(WANTED, value)),
    }
}

/// Collects the keys of one object that nobody knows, to name them all at once.
#[derive(Default)]
pub(crate) struct UnknownKeys(Vec<String>);

impl UnknownKeys {
    pub(crate) fn push(&mut self, key: &str) {
        self.0.push(key.to_owned());
    }

    /// Fails if there were any. `known` holds what is right; `hint` is added to the message.
    pub(crate) fn finish(
        self,
        place: Place<'_>,
        known: &[&str],
        hint: &str,
    ) -> Result<(), RerankError> {
        const MOST: usize = 10;
        if self.0.is_empty() {
            return Ok(());
        }
        let mut problem = String::from(if self.0.len() == 1 {
            "unknown key "
        } else {
            "unknown keys "
        });
        for (index, key) in self.0.iter().take(MOST).enumerate() {
            if index > 0 {
                problem.push_str(", ");
            }
            problem.push_str(&quoted(key));
            if let Some(meant) = closest(key, known) {
                problem.push_str(&format!(" (did you mean `{meant}`?)"));
            }
        }
        if self.0.len() > MOST {
            problem.push_str(&format!(" and {} more", self.0.len() - MOST));
        }
        let known: Vec<String> = known.iter().map(|key| format!("`{key}`")).collect();
        Err(place.error(format_args!(
            "{problem}; the known ones are {}{hint}",
            known.join(", ")
        )))
    }
}

/// The known key that `key` may be a slip of.
fn closest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    const LONGEST: usize = 40;
    if key.len() > LONGEST {
        return None;
    }
    let with_distance = known
        .iter()
        .map(|&known| (distance(&key.to_lowercase(), known), known));
    let (distance, closest) = with_distance.min()?;
    (distance <= closest.len() / 3).then_some(closest)
}

/// Levenshtein's distance: how many letters to add, drop or change.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, in_a) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &in_b) in b.iter().enumerate() {
            let changed = diagonal + usize::from(in_a != in_b);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
