//! What a search says of its reranking: `ext.rerankd {..}` in the body, `Rerankd-*` headers,
//! `rerankd_*` URL parameters, in falling priority. Below them is the rule of the index.
//!
//! The keys are the same everywhere: [`KEYS`]. A header's name has dashes for underscores. In headers
//! and parameters `fields` is a list parted by commas, `parameters` and `signals` are JSON objects,
//! and a boolean without a value is `true`.

use http::HeaderMap;
use rerankd_core::{Limits, OnFailure, PolicySelector, RerankError, RerankRequest};

use super::rules::IndexRule;
use super::url::{self, Params};
use crate::decode::{Place, UnknownKeys, refuse_explanations, take_common};
use crate::json::{self, Json, Kind, quoted};

/// All options.
const KEYS: &[&str] = &[
    "enabled",
    "policy",
    "query",
    "query_path",
    "fields",
    "window",
    "min_score",
    "keep_scores",
    "timeout_ms",
    "on_failure",
    "parameters",
    "signals",
    "key",
    "explain",
];

/// Most bytes of all options of a request together.
const MAX_BYTES: usize = 64 << 10;

const HEADER_PREFIX: &str = "rerankd-";
const PARAM_PREFIX: &str = "rerankd_";

/// Whether a URL parameter is an option of ours.
pub(super) fn is_param(name: &str) -> bool {
    name.starts_with(PARAM_PREFIX)
}

/// Whether a header is an option of ours, and none of the engine's business.
pub(super) fn is_header(name: &str) -> bool {
    name.starts_with(HEADER_PREFIX)
}

/// What holds for one search.
#[derive(Debug, Clone)]
pub(super) struct Options {
    /// Whether to rerank at all.
    pub(super) enabled: bool,
    /// Whether the search itself says `enabled`.
    pub(super) insists: bool,
    /// Whether the search itself says that it is not.
    pub(super) declines: bool,
    /// The policy, if the search names one.
    pub(super) policy: Option<(PolicySelector, String)>,
    /// Where the text of the query stands; only where the request has no text.
    pub(super) query_path: Option<String>,
    pub(super) window: usize,
    pub(super) keep_scores: bool,
    /// Which of what the policy is asked the search itself says.
    pub(super) own: OwnOptions,
    /// Everything that a policy is asked, without documents; the query may be empty.
    pub(super) request: RerankRequest,
}

/// Which options the search itself gives, of those that a policy may refuse. What the operator's rule
/// says is no mistake of the caller's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct OwnOptions {
    pub(super) parameters: bool,
    pub(super) fields: bool,
    /// `signals`, `query` or `window`.
    pub(super) others: bool,
}

impl OwnOptions {
    fn note(&mut self, key: &str) {
        match key {
            "parameters" => self.parameters = true,
            "fields" => self.fields = true,
            "signals" | "query" | "window" => self.others = true,
            _ => {}
        }
    }
}

impl Options {
    /// The options of a search: what the rule says, and above that what the search says.
    ///
    /// # Errors
    /// `BadRequest` with the place of a key that is unknown, or whose value is.
    pub(super) fn read(
        rule: Option<&IndexRule>,
        params: &Params<'_>,
        headers: &HeaderMap,
        ext: Option<Json<'_>>,
        limits: &Limits,
    ) -> Result<Self, RerankError> {
        let mut options = Self::of_rule(rule, limits);
        let most = rule.map_or(limits.max_documents, |rule| rule.max_window);
        let mut level = Level {
            options: &mut options,
            max_window: most.min(limits.max_documents),
            bytes: 0,
            has_query: false,
            has_path: false,
        };
        level.params(params)?;
        level.headers(headers)?;
        if let Some(ext) = ext {
            level.ext(ext)?;
        }
        if let (Some(rule), Some((policy, place))) = (rule, &options.policy)
            && !rule.policies.iter().any(|granted| grants(granted, policy))
        {
            let granted: Vec<String> = rule
                .policies
                .iter()
                .map(PolicySelector::to_string)
                .collect();
            return Err(RerankError::bad_request(
                place,
                format_args!(
                    "{} is not allowed for this index; allowed: {}",
                    quoted(&policy.to_string()),
                    granted.join(", ")
                ),
            ));
        }
        Ok(options)
    }

    fn of_rule(rule: Option<&IndexRule>, limits: &Limits) -> Self {
        let mut request = RerankRequest::new("", Vec::new());
        request.on_failure = Some(OnFailure::FirstStage);
        let mut options = Self {
            enabled: true,
            insists: false,
            declines: false,
            policy: None,
            query_path: None,
            window: limits.max_documents,
            keep_scores: false,
            own: OwnOptions::default(),
            request,
        };
        if let Some(rule) = rule {
            options.enabled = rule.enabled;
            options.query_path = rule.query_path.clone();
            options.window = rule.window.min(limits.max_documents);
            options.keep_scores = rule.keep_scores;
            let request = &mut options.request;
            request.fields = rule.fields.clone();
            request.min_score = rule.min_score;
            request.timeout = rule.timeout;
            request.on_failure = Some(rule.on_failure);
            request.parameters = rule.parameters.clone();
        }
        options
    }
}

/// A policy that is granted without a version is granted in each.
fn grants(granted: &PolicySelector, asked: &PolicySelector) -> bool {
    granted.name == asked.name && (granted.version.is_none() || granted.version == asked.version)
}

/// Takes options of one carrier after the other, each above those before it.
struct Level<'o> {
    options: &'o mut Options,
    max_window: usize,
    bytes: usize,
    /// Whether the present carrier gave a text, or the place of one. A text is above a place of the
    /// same carrier, and either is above both of a lower one.
    has_query: bool,
    has_path: bool,
}

impl Level<'_> {
    fn params(&mut self, params: &Params<'_>) -> Result<(), RerankError> {
        self.begin();
        let mut seen: Vec<&str> = Vec::new();
        for param in params.iter().filter(|param| is_param(&param.name)) {
            let place = Place::Body.key(&param.name);
            let key = &param.name[PARAM_PREFIX.len()..];
            known(key, place)?;
            if seen.contains(&key) {
                return Err(place.error("stands twice in the URL; expected it once"));
            }
            seen.push(key);
            self.take_text(key, place, &param.value)?;
        }
        self.end();
        Ok(())
    }

    fn headers(&mut self, headers: &HeaderMap) -> Result<(), RerankError> {
        self.begin();
        for name in headers.keys().filter(|name| is_header(name.as_str())) {
            let shown = format!("Rerankd-{}", &name.as_str()[HEADER_PREFIX.len()..]);
            let place = Place::Body.key(&shown);
            let key = name.as_str()[HEADER_PREFIX.len()..].replace('-', "_");
            known(&key, place)?;
            let mut values = headers.get_all(name).iter();
            let value = values
                .next()
                .map(|value| value.as_bytes())
                .unwrap_or_default();
            if values.next().is_some() {
                return Err(place.error("stands twice in the headers; expected it once"));
            }
            let value = std::str::from_utf8(value)
                .map_err(|_| place.error("is not UTF-8; expected text in UTF-8"))?;
            self.take_text(&key, place, value)?;
        }
        self.end();
        Ok(())
    }

    fn ext(&mut self, ext: Json<'_>) -> Result<(), RerankError> {
        self.begin();
        let outer = Place::Body.key("ext");
        let place = outer.key("rerankd");
        place.expect(Kind::Object, ext)?;
        self.count(place, ext.text().len())?;
        let mut unknown = UnknownKeys::default();
        let mut seen: Vec<String> = Vec::new();
        for (key, value) in ext.members() {
            if !KEYS.contains(&&*key) {
                unknown.push(&key);
                continue;
            }
            if seen.iter().any(|seen| *seen == key) {
                return Err(place.key(&key).error("stands twice; expected it once"));
            }
            if !value.is_null() {
                self.take(&key, place.key(&key), value)?;
            }
            seen.push(key.into_owned());
        }
        unknown.finish(place, KEYS, "")?;
        self.end();
        Ok(())
    }

    fn begin(&mut self) {
        (self.has_query, self.has_path) = (false, false);
    }

    fn end(&mut self) {
        if self.has_query {
            self.options.query_path = None;
        } else if self.has_path {
            self.options.request.query.clear();
        }
    }

    fn count(&mut self, place: Place<'_>, bytes: usize) -> Result<(), RerankError> {
        self.bytes += bytes;
        if self.bytes > MAX_BYTES {
            return Err(place.error(format_args!(
                "all options together have more than the limit of {MAX_BYTES} bytes"
            )));
        }
        Ok(())
    }

    /// An option of a header or a parameter: its text is made JSON.
    fn take_text(&mut self, key: &str, place: Place<'_>, text: &str) -> Result<(), RerankError> {
        self.count(place, key.len() + text.len())?;
        let string = |text: &str| serde_json::Value::from(text).to_string();
        let text = text.trim();
        let json = match key {
            "policy" | "query" | "query_path" | "on_failure" | "key" => string(text),
            "fields" => serde_json::Value::from(url::list(text)).to_string(),
            "enabled" | "keep_scores" | "explain" if text.is_empty() => "true".to_owned(),
            _ if json::parse(text.as_bytes()).is_ok() => text.to_owned(),
            _ => string(text),
        };
        self.take(key, place, json::parse(json.as_bytes())?)
    }

    fn take(&mut self, key: &str, place: Place<'_>, value: Json<'_>) -> Result<(), RerankError> {
        let options = &mut *self.options;
        options.own.note(key);
        match key {
            "enabled" => {
                options.enabled = place.boolean(value)?;
                options.insists = options.enabled;
                options.declines = !options.enabled;
            }
            "policy" => {
                let selector = PolicySelector::parse(&place.query(value)?);
                options.policy = Some((selector, place.to_string()));
            }
            "query_path" => {
                options.query_path = Some(place.query(value)?);
                self.has_path = true;
            }
            "window" => {
                let window = usize::try_from(place.count(value)?).unwrap_or(usize::MAX);
                if window > self.max_window {
                    return Err(place.error(format_args!(
                        "{window} is more than the limit of {} for this index",
                        self.max_window
                    )));
                }
                options.window = window;
            }
            "keep_scores" => options.keep_scores = place.boolean(value)?,
            "explain" => refuse_explanations(place, place.boolean(value)?)?,
            _ => {
                take_common(&mut options.request, key, place, value)?;
                self.has_query |= key == "query";
            }
        }
        Ok(())
    }
}

fn known(key: &str, place: Place<'_>) -> Result<(), RerankError> {
    if KEYS.contains(&key) {
        return Ok(());
    }
    let mut unknown = UnknownKeys::default();
    unknown.push(key);
    unknown.finish(place, KEYS, "")
}
