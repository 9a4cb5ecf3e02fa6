//! What to do with one search.

use std::borrow::Cow;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use rerankd_core::{Limits, OnFailure, RerankError, RerankRequest, SkipReason};

use super::body::Body;
use super::mapping::Mapping;
use super::options::{self, Options};
use super::reading::Reading;
use super::rewrite::{Cut, Rewritten};
use super::rules::IndexRule;
use super::searched::Words;
use super::source::{self, Ask};
use super::url::Params;
use super::{Forward, Pass, Plan, Policies, Rules, SearchCall, Seen, Target, query_text};
use crate::json::{self, Json};

/// More hits than this no engine gives by default (`index.max_result_window`).
const MAX_RESULT_WINDOW: usize = 10_000;

/// Hits on a page whose search does not say.
const DEFAULT_SIZE: usize = 10;

/// Decides what to do with a search.
///
/// # Errors
/// `BadRequest` for options of ours that are unknown or out of bounds, with the place.
pub fn plan<'a>(
    call: &SearchCall<'a>,
    rules: &Rules,
    policies: &dyn Policies,
    limits: &Limits,
) -> Result<Plan<'a>, RerankError> {
    let params = Params::read(call.query);
    let text = Text::of(call, &params);
    let early = early_reason(call.headers, &params, &text);
    let body = match early {
        Some(_) => Err(SkipReason::ContentType),
        None => Body::read(&text.bytes),
    };
    let early = early.or(body.as_ref().err().copied());
    let body = body.unwrap_or_else(|_| Body::empty());
    let decided = decide(
        &Asked {
            index: call.index.or(params.get("index")),
            body: &body,
            params: &params,
            option_params: &params,
            headers: call.headers,
            head: None,
            early,
        },
        &Deciders {
            rules,
            policies,
            limits,
        },
    )?;
    let original = original(call, &params, &text, &body);
    Ok(match decided.decision {
        Decision::Pass(reason) => Plan::Pass(Pass {
            forward: original,
            reason,
            mapping: decided.mapping,
        }),
        Decision::Rerank(widening) => {
            let widened = widened(call, &params, &text, &widening);
            let mut rewritten = widening.rewritten(original, widened);
            rewritten.mapping = decided.mapping;
            Plan::Rerank(Box::new(rewritten))
        }
    })
}

/// The text of a body, wherever it stands.
struct Text<'a> {
    bytes: Cow<'a, [u8]>,
    in_url: bool,
    /// What it is said to be, if anything is.
    content_type: Option<HeaderValue>,
}

/// What may carry a body in the URL.
const BODY_PARAMS: [&str; 2] = ["source", "source_content_type"];

impl<'a> Text<'a> {
    fn of(call: &SearchCall<'a>, params: &Params<'_>) -> Self {
        if call.body.is_empty()
            && let Some(source) = params.get(BODY_PARAMS[0])
        {
            let content_type = params.get(BODY_PARAMS[1]);
            return Self {
                bytes: Cow::Owned(source.as_bytes().to_vec()),
                in_url: true,
                content_type: content_type.and_then(|name| HeaderValue::from_str(name).ok()),
            };
        }
        Self {
            bytes: Cow::Borrowed(call.body),
            in_url: false,
            content_type: call.headers.get(CONTENT_TYPE).cloned(),
        }
    }

    /// The `Content-Type` for a body that is there only now, and must agree with what the client
    /// accepts.
    fn new_content_type(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        if !self.in_url && headers.contains_key(CONTENT_TYPE) {
            return None;
        }
        let versioned = |value: &&HeaderValue| {
            let text = value.to_str().unwrap_or_default();
            !text.contains(',') && text.contains("compatible-with") && is_json(text)
        };
        let accepted = || headers.get(ACCEPT).filter(versioned).cloned();
        let said = self.content_type.clone();
        Some(
            said.or_else(accepted)
                .unwrap_or(HeaderValue::from_static("application/json")),
        )
    }
}

/// What rules a search out before anything of it is read.
fn early_reason(headers: &HeaderMap, params: &Params<'_>, text: &Text<'_>) -> Option<SkipReason> {
    if !text.bytes.trim_ascii().is_empty() {
        let said = text.content_type.as_ref().map(|value| value.to_str());
        if !said.is_some_and(|said| said.is_ok_and(is_json)) {
            return Some(SkipReason::ContentType);
        }
    }
    answer_reason(headers, params)
}

/// What rules a search out since its answer would not be what can be read.
pub(super) fn answer_reason(headers: &HeaderMap, params: &Params<'_>) -> Option<SkipReason> {
    let foreign = |text: &str| {
        let text = text.to_ascii_lowercase();
        ["yaml", "cbor", "smile"]
            .iter()
            .any(|kind| text.contains(kind))
    };
    let mut accepted = headers.get_all(ACCEPT).iter();
    let foreign_accept = accepted.any(|value| value.to_str().is_ok_and(foreign));
    let format = params.get("format").filter(|format| !format.is_empty());
    if foreign_accept || format.is_some_and(|format| !is_json(format)) {
        return Some(SkipReason::ContentType);
    }
    params.get("filter_path").map(|_| SkipReason::FilterPath)
}

/// Whether this is JSON to the engines: `application/json`, a versioned `application/vnd…+json`, or
/// the short name of `format`.
pub(super) fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let essence = essence.to_ascii_lowercase();
    let vendor = essence.strip_prefix("application/vnd.elasticsearch");
    matches!(&*essence, "json" | "application/json") || vendor == Some("+json")
}

/// The headers that are ours.
pub(super) fn drop_headers(headers: &HeaderMap) -> Vec<HeaderName> {
    let ours = headers
        .keys()
        .filter(|name| options::is_header(name.as_str()));
    ours.cloned().collect()
}

/// The request target without parameters of ours.
pub(super) fn original_target<'a>(call: &SearchCall<'a>, params: &Params<'_>) -> Cow<'a, str> {
    match call.query {
        None => Cow::Borrowed(call.path),
        Some(_) if params.iter().any(|param| options::is_param(&param.name)) => {
            Cow::Owned(params.target(call.path, |name| !options::is_param(name)))
        }
        Some(query) => Cow::Owned(format!("{}?{query}", call.path)),
    }
}

fn original<'a>(
    call: &SearchCall<'a>,
    params: &Params<'_>,
    text: &Text<'a>,
    body: &Body<'_>,
) -> Forward<'a> {
    let drop_headers = drop_headers(call.headers);
    let stripped = body.without_options();
    if let (true, Some(stripped)) = (text.in_url, &stripped) {
        let wanted = |name: &str| !options::is_param(name) && !BODY_PARAMS.contains(&name);
        return Forward {
            path_and_query: Cow::Owned(params.target(call.path, wanted)),
            body: Cow::Owned(stripped.clone().into_bytes()),
            drop_headers,
            content_type: text.new_content_type(call.headers),
            untouched: false,
        };
    }
    let untouched =
        stripped.is_none() && !params.iter().any(|param| options::is_param(&param.name));
    Forward {
        path_and_query: original_target(call, params),
        body: match stripped {
            Some(stripped) => Cow::Owned(stripped.into_bytes()),
            None => Cow::Borrowed(call.body),
        },
        drop_headers,
        content_type: None,
        untouched,
    }
}

fn widened<'a>(
    call: &SearchCall<'a>,
    params: &Params<'_>,
    text: &Text<'a>,
    widening: &Widening,
) -> Forward<'a> {
    let replaced = |name: &str| {
        matches!(name, "from" | "size")
            || BODY_PARAMS.contains(&name)
            || (widening.ask.replaces_source() && source::SOURCE_PARAMS.contains(&name))
    };
    let wanted = |name: &str| !options::is_param(name) && !replaced(name);
    Forward {
        path_and_query: Cow::Owned(params.target(call.path, wanted)),
        body: Cow::Owned(widening.body.clone().into_bytes()),
        drop_headers: drop_headers(call.headers),
        content_type: text.new_content_type(call.headers),
        untouched: false,
    }
}

/// One search, alone or of several.
pub(super) struct Asked<'x> {
    pub(super) index: Option<&'x str>,
    pub(super) body: &'x Body<'x>,
    /// The parameters that say what to search for.
    pub(super) params: &'x Params<'x>,
    /// The parameters that may be options of ours.
    pub(super) option_params: &'x Params<'x>,
    pub(super) headers: &'x HeaderMap,
    /// The head of a search of several.
    pub(super) head: Option<&'x Body<'x>>,
    /// Why nothing is reranked, if that is known already.
    pub(super) early: Option<SkipReason>,
}

/// What a decision rests on besides the search.
pub(super) struct Deciders<'x> {
    pub(super) rules: &'x Rules,
    pub(super) policies: &'x dyn Policies,
    pub(super) limits: &'x Limits,
}

pub(super) enum Decision {
    Pass(SkipReason),
    Rerank(Box<Widening>),
}

/// A decision, and what of the mapping went into it.
pub(super) struct Decided {
    pub(super) decision: Decision,
    pub(super) mapping: MappingUse,
}

/// What a decision has to do with a mapping that is not known.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct MappingUse {
    /// Whether another decision may come of it when the mapping is known.
    pub(super) hangs: bool,
    /// Whether that is so, and the engine was asked and did not say.
    pub(super) is_unknown: bool,
}

/// How a search is widened.
pub(super) struct Widening {
    /// Its body.
    pub(super) body: String,
    ask: Ask,
    target: rerankd_core::PolicySelector,
    request: RerankRequest,
    cut_is_exact: bool,
    cut: Cut,
}

impl Widening {
    pub(super) fn rewritten<'a>(
        self,
        original: Forward<'a>,
        widened: Forward<'a>,
    ) -> Rewritten<'a> {
        Rewritten {
            original,
            widened,
            target: self.target,
            on_failure: self.request.on_failure.unwrap_or(OnFailure::FirstStage),
            timeout: self.request.timeout,
            key: self.request.key.clone(),
            window: self.cut.window,
            cut_is_exact: self.cut_is_exact,
            mapping: MappingUse::default(),
            request: self.request,
            cut: self.cut,
        }
    }
}

/// Decides what to do with one search.
///
/// # Errors
/// `BadRequest` for options of ours.
pub(super) fn decide(asked: &Asked<'_>, by: &Deciders<'_>) -> Result<Decided, RerankError> {
    let seen = match asked.early.is_none() && page_of(asked).is_ok() && check_kind(asked).is_ok() {
        true => {
            let target = Target::of(asked.index, asked.body, asked.option_params, asked.head);
            by.policies.mapping(&target)
        }
        // Whatever the mapping is, nothing is reranked.
        false => Seen::Off,
    };
    let mapping = match &seen {
        Seen::Known(mapping) => Some(&**mapping),
        Seen::Off | Seen::Unknown | Seen::Cold => None,
    };
    let rule = by.rules.of_target(asked.index, mapping);
    let options = Options::read(
        rule.ok(),
        asked.option_params,
        asked.headers,
        asked.body.options(),
        by.limits,
    )?;
    let by_search = rule.is_ok_and(|rule| rule.enabled) && !options.enabled;
    let decision = match widening(asked, by, rule, options, mapping) {
        Ok(widening) => Decision::Rerank(Box::new(widening)),
        Err(reason) => Decision::Pass(reason),
    };
    let hangs = match &decision {
        Decision::Rerank(_) => true,
        Decision::Pass(SkipReason::Disabled) => !by_search,
        Decision::Pass(SkipReason::AmbiguousQuery) => true,
        // There may be another rule than that of what was written.
        Decision::Pass(SkipReason::NoRule) => !by.rules.indices.is_empty(),
        Decision::Pass(SkipReason::WindowExceeded) => by.rules.indices.len() > 1,
        Decision::Pass(_) => false,
    };
    Ok(Decided {
        decision,
        mapping: MappingUse {
            hangs: hangs && matches!(seen, Seen::Cold | Seen::Unknown),
            is_unknown: hangs && matches!(seen, Seen::Unknown),
        },
    })
}

fn widening(
    asked: &Asked<'_>,
    by: &Deciders<'_>,
    rule: Result<&IndexRule, SkipReason>,
    options: Options,
    mapping: Option<&Mapping>,
) -> Result<Widening, SkipReason> {
    if let Some(reason) = asked.early {
        return Err(reason);
    }
    let rule = rule?;
    let default = rule.policies.first().ok_or(SkipReason::Disabled)?;
    if !options.enabled {
        return Err(SkipReason::Disabled);
    }
    let (from, size) = page_of(asked)?;
    check_kind(asked)?;
    if !options.insists && !rule.search_pipelines && names_pipeline(asked) {
        return Err(SkipReason::SearchPipeline);
    }

    let findings = query_text::find(asked.body, asked.params)?;
    // A fusion has no more hits than it ranks, and refuses to be asked for more.
    let fused = findings.fused.unwrap_or(usize::MAX);
    let window = options.window.min(fused);
    let end = from.saturating_add(size);
    if from >= window || end > MAX_RESULT_WINDOW.min(fused) {
        return Err(SkipReason::WindowExceeded);
    }
    let mut cut_is_exact = !findings.size_matters;

    let words = Words::of(mapping, asked.body);
    let mut request = options.request;
    if request.query.is_empty() {
        request.query = match &options.query_path {
            Some(path) => asked
                .body
                .whole()
                .and_then(|whole| query_text::at_path(whole, path))
                .ok_or(SkipReason::NoQuery)?,
            None => match query_text::of_context(asked.body) {
                Some(text) => text,
                None => findings.text(&words)?,
            },
        };
    }

    let target = options
        .policy
        .map_or_else(|| default.clone(), |(policy, _)| policy);
    if !by.policies.has(&target) {
        return Err(SkipReason::NoPolicy);
    }
    let of_policy = || by.policies.fields(&target).unwrap_or_default();
    let of_parameters = fields_of(request.parameters.as_deref());
    let named = request.fields.clone().map(|mut named| {
        named.extend(of_parameters.clone());
        named
    });
    let own = of_policy();
    let reading = match &named {
        Some(named) => Reading::of_names(named, words.mapping()),
        None if of_parameters.is_empty() => by.policies.choice(&target).and_then(|choice| {
            Reading::of_search(&findings, &request.query, &words, &own, &choice)
        }),
        None => None,
    };
    let named = match (&reading, named) {
        (Some(reading), named) => Some(reading.fetched(named.is_none().then_some(&own))),
        (None, named) => named,
    };
    let needed = named.clone().unwrap_or_else(|| {
        let mut needed = own;
        needed.extend(of_parameters);
        needed
    });
    if needed.len() > source::MOST_NAMES {
        return Err(SkipReason::Limit);
    }
    let ask = source::ask(asked.body, asked.params, &needed)?;
    cut_is_exact &= ask.is_exact();
    Ok(Widening {
        body: asked.body.widened(window.max(end), &ask),
        target,
        request,
        cut_is_exact,
        cut: Cut {
            window,
            from,
            size,
            strip: ask.strip(),
            fields: named,
            reading,
            keep_scores: options.keep_scores,
        },
        ask,
    })
}

/// The fields that parameters name, as those of the bundled policies do.
fn fields_of(parameters: Option<&str>) -> Vec<String> {
    let parameters = parameters.and_then(|text| json::parse(text.as_bytes()).ok());
    let fields = parameters.and_then(|parameters| parameters.member("fields"));
    let names = fields.iter().flat_map(|fields| fields.items());
    names
        .filter_map(|name| Some(name.string()?.into_owned()))
        .collect()
}

/// `from` and `size`, where the URL is above the body.
fn page_of(asked: &Asked<'_>) -> Result<(usize, usize), SkipReason> {
    if asked.params.repeats(&["from", "size"]) {
        return Err(SkipReason::Unparsable);
    }
    let number = |name: &str, default: usize| {
        let text = match asked.params.get(name) {
            Some(text) => Cow::Borrowed(text),
            None => match asked.body.member(name) {
                Some(json) => json.string().unwrap_or(Cow::Borrowed(json.text())),
                None => return Ok(default),
            },
        };
        text.parse().map_err(|_| SkipReason::Unparsable)
    };
    let (from, size) = (number("from", 0)?, number("size", DEFAULT_SIZE)?);
    if size == 0 {
        return Err(SkipReason::SizeZero);
    }
    Ok((from, size))
}

/// Rules out searches whose order is not ours to change.
fn check_kind(asked: &Asked<'_>) -> Result<(), SkipReason> {
    let has = |name: &str| asked.body.member(name).is_some();
    if asked.params.get("scroll").is_some() {
        return Err(SkipReason::Scroll);
    }
    if has("search_after") {
        return Err(SkipReason::SearchAfter);
    }
    if has("slice") {
        return Err(SkipReason::Slice);
    }
    let by_score = match asked.params.get("sort") {
        Some(sort) => sort
            .split(',')
            .all(|sort| matches!(sort, "_score" | "_score:desc")),
        None => asked.body.member("sort").is_none_or(is_by_score),
    };
    if !by_score {
        return Err(SkipReason::Sort);
    }
    if has("rescore") {
        return Err(SkipReason::Rescore);
    }
    if has("rank") || has("sub_searches") {
        return Err(SkipReason::RerankedAlready);
    }
    Ok(())
}

/// Whether a `sort` is what searches have without one. The engines then leave it out themselves, and
/// no hit has `sort` values that could contradict the new order.
fn is_by_score(sort: Json<'_>) -> bool {
    if let Some(name) = sort.string() {
        return name == "_score";
    }
    let mut parts = sort.items();
    match (parts.next(), parts.next()) {
        (Some(one), None) => is_by_score(one),
        (None, _) => {
            let mut keys = sort.members();
            let (Some((key, order)), None) = (keys.next(), keys.next()) else {
                return false;
            };
            let order = order.member("order").unwrap_or(order);
            key == "_score" && order.string().is_some_and(|order| order == "desc")
        }
        _ => false,
    }
}

fn names_pipeline(asked: &Asked<'_>) -> bool {
    let in_url = asked.params.get("search_pipeline").map(Cow::Borrowed);
    let in_body = asked.body.member("search_pipeline");
    let name = in_url.or_else(|| Some(in_body?.string().unwrap_or(Cow::Borrowed(""))));
    name.is_some_and(|name| name != "_none")
}
