//! The search proxy's half that is bytes to bytes: which paths are searches, what a search asks for,
//! the widened search that fetches the whole window, and the client's page cut from its answer.
//!
//! The server asks [`endpoint`] what a path is, reads the bodies of searches alone, and asks [`plan`]
//! (or [`plan_multi`]) what to do with one:
//! - [`Plan::Pass`]: send [`Pass::forward`] and stream the answer through;
//! - [`Plan::Rerank`]: send [`Rewritten::widened`]; give the answer to [`Rewritten::read`], its
//!   [`Found::request`] to a policy, and the result to [`Found::page`]. Where the engine refuses the
//!   widened search, or its answer is not understood, [`Rewritten::original`] goes out instead.
//!
//! Where [`Rewritten::is_split`], the page itself comes by [`Rewritten::page_search`] after that. Where
//! [`Found::doubt`], the widened answer counts only if the search as it was sent agrees with it.
//!
//! Reading order: `rules` (what the operator says), `options` (what the client says), `plan` (which
//! searches are reranked), `target` and `mapping` (what the engine is asked of the indices, and what it
//! says), `kinds`, `sorts`, `signed`, `query_text`, `syntax`, `wrapper`, `searched` and `reading` (what is
//! searched for, where, and which fields are read), `source`, `pins`, `body` (what goes out), `rewrite` and
//! `found` (what comes back), `behind` and `lean` (pages by a search of their own), `multi` (`_msearch`),
//! `template`, `error`.

mod behind;
mod body;
mod error;
mod found;
mod kinds;
mod lean;
mod mapping;
mod multi;
mod options;
mod pins;
mod plan;
mod query_text;
mod reading;
mod rewrite;
mod rules;
mod searched;
mod signed;
mod sorts;
mod source;
mod syntax;
mod target;
mod template;
mod url;
mod wrapper;

use std::borrow::Cow;

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use rerankd_core::SkipReason;

pub use error::{encode_engine_error, names_result_window};
pub use found::{Found, NotUnderstood};
pub use mapping::{Mapping, NotAMapping, Seen};
pub use multi::{ItemPlan, MultiAnswer, MultiFound, MultiPlan, plan_multi};
pub use plan::plan;
pub use reading::FieldChoice;
pub use rewrite::Rewritten;
pub use rules::{IndexRule, Policies, Rules};
pub use target::{LookupPaths, PIT_PATH, Target, pit_body, pit_indices, pit_opened, pit_opening};
pub use template::{Template, template_as_sent, with_status};

/// What a path of the engine's API is to the proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// `/_search`, `/{index}/_search`, `/{index}/{type}/_search`, by `GET` or `POST`.
    Search {
        /// The index expression of the path, percent-decoded.
        index: Option<String>,
    },
    /// `/_msearch`, `/{index}/_msearch`, `/{index}/{type}/_msearch`, by `GET` or `POST`.
    MultiSearch {
        /// The index expression of the path, percent-decoded; items may name their own.
        index: Option<String>,
    },
    /// `/_search/template`, `/{index}/_search/template`, by `GET` or `POST`.
    Template {
        /// The index expression of the path, percent-decoded.
        index: Option<String>,
    },
    /// `/_msearch/template`, `/{index}/_msearch/template`, by `GET` or `POST`.
    MultiTemplate {
        /// The index expression of the path, percent-decoded; items may name their own.
        index: Option<String>,
    },
    /// Anything else: streamed through, and nothing of it read.
    Other,
}

/// What `path` (raw, without the query) is.
pub fn endpoint(method: &Method, path: &str) -> Endpoint {
    if method != Method::GET && method != Method::POST {
        return Endpoint::Other;
    }
    let Some(rest) = path.strip_prefix('/') else {
        return Endpoint::Other;
    };
    // The engines do not mind a slash at the end.
    let mut segments = rest.trim_end_matches('/').split('/').rev();
    let mut last = segments.next().unwrap_or_default();
    let is_template = last == "template";
    if is_template {
        last = segments.next().unwrap_or_default();
    }
    let before: Vec<&str> = segments.collect();
    // The index is the first segment of one or two; a type stands behind it.
    let index = match before.as_slice() {
        [] => None,
        [index] | [_, index] => match url::decoded(index) {
            Some(index) if !index.is_empty() && !index.starts_with('_') => Some(index),
            Some(index) if index == "_all" => Some(index),
            _ => return Endpoint::Other,
        },
        _ => return Endpoint::Other,
    };
    if let [kind, _] = before.as_slice()
        && (kind.is_empty() || (kind.starts_with('_') && *kind != "_doc"))
    {
        return Endpoint::Other;
    }
    match (last, is_template) {
        ("_search", false) => Endpoint::Search { index },
        ("_msearch", false) => Endpoint::MultiSearch { index },
        ("_search", true) => Endpoint::Template { index },
        ("_msearch", true) => Endpoint::MultiTemplate { index },
        _ => Endpoint::Other,
    }
}

/// A search as the client sent it.
#[derive(Debug, Clone, Copy)]
pub struct SearchCall<'a> {
    /// The index expression of the path, percent-decoded.
    pub index: Option<&'a str>,
    /// `GET` or `POST`.
    pub method: &'a Method,
    /// The raw path.
    pub path: &'a str,
    /// The raw query, without the question mark.
    pub query: Option<&'a str>,
    /// The client's headers.
    pub headers: &'a HeaderMap,
    /// The whole body, decompressed.
    pub body: &'a [u8],
}

/// What to do with a search.
#[derive(Debug)]
pub enum Plan<'a> {
    /// Nothing is reranked.
    Pass(Pass<'a>),
    /// Fetch the window, rerank it, cut the page.
    Rerank(Box<Rewritten<'a>>),
}

impl Plan<'_> {
    /// Whether another plan may come of it when the mapping is known.
    pub fn hangs_on_mapping(&self) -> bool {
        match self {
            Self::Rerank(rewritten) => rewritten.mapping.hangs,
            Self::Pass(pass) => pass.mapping.hangs,
        }
    }

    /// Whether the engine did not say what it was asked of the mapping.
    pub fn mapping_is_unknown(&self) -> bool {
        match self {
            Self::Rerank(rewritten) => rewritten.mapping.is_unknown,
            Self::Pass(pass) => pass.mapping.is_unknown,
        }
    }
}

/// A search that goes through as it is, but for options of ours.
#[derive(Debug)]
pub struct Pass<'a> {
    /// What to send.
    pub forward: Forward<'a>,
    /// Why nothing is reranked.
    pub reason: SkipReason,
    mapping: plan::MappingUse,
}

/// A request as it goes to the engine. Where nothing of ours was in it, these are the client's very
/// bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Forward<'a> {
    /// The request target, raw.
    pub path_and_query: Cow<'a, str>,
    /// The body, not compressed.
    pub body: Cow<'a, [u8]>,
    /// Headers that must not go on: `rerankd-*`.
    pub drop_headers: Vec<HeaderName>,
    /// The `Content-Type` to send in place of the client's, where a search without a body got one.
    pub content_type: Option<HeaderValue>,
    untouched: bool,
}

impl Forward<'_> {
    /// Whether target and body are the client's own, so that the body may go on as it came, compressed
    /// or not. Headers are another matter: [`drop_headers`](Self::drop_headers).
    pub fn is_untouched(&self) -> bool {
        self.untouched
    }
}
