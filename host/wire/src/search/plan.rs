//! What to do with one search.

use std::borrow::Cow;

use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use rerankd_core::{Limits, OnFailure, RerankError, RerankRequest, SkipReason};

use super::behind::{Apart, PageSearch};
use super::body::{Body, Fetch};
use super::kinds::{check_kind, names_pipeline, page_of, rescored};
use super::mapping::Mapping;
use super::options::{self, Options, OwnOptions};
use super::reading::Reading;
use super::rewrite::{Cut, Rewritten};
use super::rules::IndexRule;
use super::searched::Words;
use super::signed::is_signed;
use super::source::{self, Ask};
use super::url::Params;
use super::{Forward, Pass, Plan, Policies, Rules, SearchCall, Seen, Target, query_text};
use super::{lean, pins};
use crate::json;

/// More hits than this no engine gives by default (`index.max_result_window`).
pub(super) const MAX_RESULT_WINDOW: usize = 10_000;

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
            let ways = ways(call, &params, &text, &widening);
            let mut rewritten = widening.rewritten(original, ways);
            rewritten.mapping = decided.mapping;
            Plan::Rerank(Box::new(rewritten))
        }
    })
}

/// Where the searches go that are made of a client's.
#[derive(Debug, Clone)]
pub(super) struct Ways {
    /// Target of the widened search.
    pub(super) widened: String,
    /// Target of the search for the client's page alone.
    pub(super) page: String,
    /// What of the way is the same for all pages of the search.
    pub(super) identity: String,
    pub(super) drop_headers: Vec<HeaderName>,
    pub(super) content_type: Option<HeaderValue>,
}

impl Ways {
    /// Those of one search of several: its target is that of the whole.
    pub(super) fn of_item(identity: String) -> Self {
        Self {
            widened: String::new(),
            page: String::new(),
            identity,
            drop_headers: Vec::new(),
            content_type: None,
        }
    }
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
    if is_signed(headers, params) {
        return Some(SkipReason::Signed);
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

/// Parameters of what each hit of a page that is shown needs.
const PARAMS_OF_A_HIT: [&str; 5] = [
    "docvalue_fields",
    "explain",
    "seq_no_primary_term",
    "stored_fields",
    "version",
];

/// Parameters of what such a page needs beside its hits.
const PARAMS_BESIDE_HITS: [&str; 5] = [
    "stats",
    "suggest_field",
    "suggest_mode",
    "suggest_size",
    "suggest_text",
];

/// Whether a parameter of the client's has no place in a search that is made of its own.
type LeftOut<'f> = &'f dyn Fn(&str) -> bool;

fn ways(call: &SearchCall<'_>, params: &Params<'_>, text: &Text<'_>, widening: &Widening) -> Ways {
    let in_body = |name: &str| {
        options::is_param(name) || matches!(name, "from" | "size") || BODY_PARAMS.contains(&name)
    };
    let is_source = |name: &str| source::SOURCE_PARAMS.contains(&name);
    let (of_a_hit, beside) = (
        |name: &str| is_source(name) || PARAMS_OF_A_HIT.contains(&name),
        |name: &str| PARAMS_BESIDE_HITS.contains(&name),
    );
    // What is said anew in the body, or left out, by the widened search and by that for the page.
    let (widened, page): (LeftOut<'_>, LeftOut<'_>) = match &widening.page {
        None => (
            &|name| widening.ask.replaces_source() && is_source(name),
            &|_| false,
        ),
        Some(Apart::Behind { .. }) => (&|name| of_a_hit(name) || beside(name), &|_| false),
        Some(Apart::Hits { .. }) => (&of_a_hit, &beside),
    };
    Ways {
        widened: params.target(call.path, |name| !in_body(name) && !widened(name)),
        page: params.target(call.path, |name| !in_body(name) && !page(name)),
        identity: params.target(call.path, |name| !in_body(name)),
        drop_headers: drop_headers(call.headers),
        content_type: text.new_content_type(call.headers),
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

/// By how many searches a page comes, and of which kind.
enum Kind {
    /// One: all of it.
    Whole,
    /// Two: the text of the window, and the page.
    Behind { most: usize },
    /// Two: all but what makes hits expensive, and the hits of the page with that.
    Lean(lean::Filter),
}

/// How a search is widened.
pub(super) struct Widening {
    /// Its body.
    pub(super) body: String,
    ask: Ask,
    target: rerankd_core::PolicySelector,
    request: RerankRequest,
    cut_is_exact: bool,
    must_agree: bool,
    own: OwnOptions,
    /// The body that is the same for all pages of the search.
    identity: String,
    /// Where the page comes by a search of its own.
    page: Option<Apart>,
    cut: Cut,
}

impl Widening {
    pub(super) fn rewritten<'a>(self, original: Forward<'a>, ways: Ways) -> Rewritten<'a> {
        let widened = Forward {
            path_and_query: Cow::Owned(ways.widened),
            body: Cow::Owned(self.body.into_bytes()),
            drop_headers: ways.drop_headers.clone(),
            content_type: ways.content_type.clone(),
            untouched: false,
        };
        Rewritten {
            original,
            widened,
            identity: (ways.identity, self.identity),
            page: self.page.map(|page| PageSearch {
                target: ways.page,
                page,
                drop_headers: ways.drop_headers,
                content_type: ways.content_type,
            }),
            must_agree: self.must_agree,
            own: self.own,
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
    let may_be_reranked =
        asked.early.is_none() && page_of(asked).is_ok() && check_kind(asked, true).is_ok();
    // Where nothing is reranked whatever the mapping is, nobody asks for it.
    let target = || Target::of(asked.index, asked.body, asked.option_params, asked.head);
    let target = may_be_reranked.then(target);
    let pages = || of_all_pages(asked);
    let is_first = page_of(asked).is_ok_and(|(from, _)| from == 0);
    let seen = match target.as_ref().map(|target| by.policies.mapping(target)) {
        None => Seen::Off,
        // Pages are cut from one list: what became known since the first one is for the next search.
        Some(Seen::Known(_) | Seen::Cold)
            if !is_first && by.policies.first_page_was_unknown(&pages) =>
        {
            Seen::Unknown
        }
        Some(seen) => seen,
    };
    let want = || {
        if let (Seen::Cold, Some(target)) = (&seen, &target) {
            by.policies.want(target);
        }
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
    );
    // Options that are wrong by one rule may be right by another.
    let options = options.inspect_err(|_| want())?;
    let decision = match widening(asked, by, rule, &options, mapping) {
        Ok(widening) => Decision::Rerank(Box::new(widening)),
        Err(reason) => Decision::Pass(reason),
    };
    let hangs = match &decision {
        _ if !matches!(seen, Seen::Cold | Seen::Unknown) => false,
        Decision::Rerank(_) => true,
        Decision::Pass(SkipReason::AmbiguousQuery) => true,
        // There may be another rule than that of what was written.
        Decision::Pass(SkipReason::Disabled | SkipReason::NoRule) => {
            !options.declines
                && !by.rules.indices.is_empty()
                && is_for_some_rule(asked, by, &options)
        }
        Decision::Pass(SkipReason::WindowExceeded) => {
            by.rules.indices.len() > 1 && is_for_some_rule(asked, by, &options)
        }
        Decision::Pass(_) => false,
    };
    if hangs {
        want();
    }
    match &seen {
        Seen::Known(_) if is_first => by.policies.note_first_page(&pages, false),
        Seen::Unknown if is_first && hangs => by.policies.note_first_page(&pages, true),
        _ => {}
    }
    Ok(Decided {
        decision,
        mapping: MappingUse {
            hangs,
            is_unknown: hangs && matches!(seen, Seen::Unknown),
        },
    })
}

/// What of a search is the same for all its pages, whatever is known of the mapping.
fn of_all_pages(asked: &Asked<'_>) -> Vec<u8> {
    let is_same = |name: &str| !options::is_param(name) && !matches!(name, "from" | "size");
    let params = asked.params.target("", is_same);
    let head = asked.head.and_then(Body::whole).map(|head| head.text());
    let body = asked.body.asking((0, 0), Fetch::Asked(&Ask::Nothing), &[]);
    format!("{:?}", (asked.index, params, head, body)).into_bytes()
}

/// Whether a search may be reranked by one of the rules, whichever holds for it: it has a text, and its
/// page is within what engines give.
fn is_for_some_rule(asked: &Asked<'_>, by: &Deciders<'_>, options: &Options) -> bool {
    let rules = || by.rules.indices.iter().chain(&by.rules.default_rule);
    if !rules().any(|rule| rule.enabled || options.insists) {
        return false;
    }
    let (Ok((from, size)), Ok(findings)) =
        (page_of(asked), query_text::find(asked.body, asked.params))
    else {
        return false;
    };
    let most = MAX_RESULT_WINDOW.min(findings.fused.unwrap_or(usize::MAX));
    if (findings.one_page && from > 0) || from.saturating_add(size) > most {
        return false;
    }
    let at_path = |path: &String| {
        let whole = asked.body.whole();
        whole.is_some_and(|whole| query_text::at_path(whole, path).is_some())
    };
    let mut paths = rules().filter_map(|rule| rule.query_path.as_ref());
    let is_known = !options.request.query.is_empty()
        || query_text::of_context(asked.body).is_some()
        || options.query_path.as_ref().is_some_and(at_path)
        || paths.any(at_path);
    is_known || findings.text(&Words::of(None, asked.body)) != Err(SkipReason::NoQuery)
}

fn widening(
    asked: &Asked<'_>,
    by: &Deciders<'_>,
    rule: Result<&IndexRule, SkipReason>,
    options: &Options,
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
    check_kind(asked, rule.keep_rescore)?;
    if !options.insists && !rule.search_pipelines && names_pipeline(asked) {
        return Err(SkipReason::SearchPipeline);
    }

    let findings = query_text::find(asked.body, asked.params)?;
    if findings.one_page && from > 0 {
        return Err(SkipReason::Unparsable);
    }
    // A fusion has no more hits than it ranks, and refuses to be asked for more.
    let fused = findings.fused.unwrap_or(usize::MAX);
    let rescored = rescored(asked)?.unwrap_or(usize::MAX);
    let window = options.window.min(fused).min(rescored);
    let end = from.saturating_add(size);
    let is_beyond = end > MAX_RESULT_WINDOW.min(fused) || (findings.one_page && end > window);
    if window == 0 || is_beyond {
        return Err(SkipReason::WindowExceeded);
    }
    let mut cut_is_exact = !findings.size_matters;
    let must_agree = findings.must_agree;

    let words = Words::of(mapping, asked.body);
    let mut request = options.request.clone();
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

    let named = options.policy.as_ref().map(|(policy, _)| policy);
    let target = named.unwrap_or(default).clone();
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
    let pins = pins::pins(asked.body, size);
    // Hits that the ranking leaves out are followed by those behind the window.
    let leaves_out = request.min_score.is_some() || by.policies.filters(&target);
    let most = MAX_RESULT_WINDOW.min(fused).min(rescored.max(end));
    let left_out = if leaves_out { window } else { 0 };
    let wanted = window.max(end).max((end + left_out).min(most));
    // The text of the window is enough for the policy.
    let is_split = from >= window || (end > 2 * window && ask != Ask::Nothing);
    let is_plain = cut_is_exact && !must_agree && rescored == usize::MAX;
    let kind = if is_split {
        Kind::Behind { most }
    } else if is_plain && 2 * size <= wanted && lean::pays(asked.body, asked.params) {
        Kind::Lean(lean::Filter::of(asked.body))
    } else {
        Kind::Whole
    };
    let (body, wanted, page) = match kind {
        Kind::Whole => (
            asked.body.asking((0, wanted), Fetch::Asked(&ask), &pins),
            wanted,
            None,
        ),
        Kind::Behind { most } => (
            asked.body.asking((0, window), Fetch::Text(&needed), &pins),
            window,
            Some(Apart::Behind {
                rest: asked.body.rest(Fetch::Asked(&Ask::Nothing), &pins),
                most,
            }),
        ),
        Kind::Lean(filter) => (
            asked.body.asking((0, wanted), Fetch::Lean(&needed), &pins),
            wanted,
            Some(Apart::Hits {
                rest: asked.body.rest(Fetch::Hits, &pins),
                filter,
            }),
        ),
    };
    // Whatever the policy reads: that may be chosen anew between two pages.
    let client = Fetch::Asked(&Ask::Nothing);
    let identity = asked.body.asking((0, window), client, &pins);
    let has = |name: &str| asked.body.member(name).is_some();
    Ok(Widening {
        body,
        target,
        own: options.own,
        request,
        cut_is_exact: cut_is_exact && page.is_none(),
        must_agree,
        identity,
        cut: Cut {
            window,
            wanted,
            from,
            size,
            is_counted: !has("collapse") && !has("retriever"),
            strip: ask.strip(),
            fields: named,
            reading,
            keep_scores: options.keep_scores,
        },
        page,
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
