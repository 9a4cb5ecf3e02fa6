//! The text that was searched for: from clauses that score, and never guessed.
//!
//! Clauses that a policy cannot read as a text (`term`, `range`, `knn`, …) say nothing. A query of
//! several texts that differ is ambiguous.

use rerankd_core::SkipReason;

use super::body::Body;
use super::searched::{Boost, Said, Searched, Words};
use super::syntax::{self, Syntax};
use super::url::Params;
use super::wrapper;
use crate::json::{self, Json, Kind};

/// Queries that are nested deeper have no text; the engines themselves stop at 20 (OpenSearch) and
/// 30 (Elasticsearch).
const MAX_DEPTH: usize = 32;

/// What a body asks for, as far as it matters here.
#[derive(Debug, Default)]
pub(super) struct Findings {
    texts: Vec<Said>,
    /// The boosts of all queries around the present one, multiplied.
    around: Boost,
    /// Whether some of it is searched in such a way that the first hits depend on how many are
    /// wanted.
    pub(super) size_matters: bool,
    /// Whether even which hits there are, and how many, may depend on how many are wanted, in a way that
    /// no search can say: its answer must be held against the client's own.
    pub(super) must_agree: bool,
    /// The most hits that a fusion of several retrievers gives.
    pub(super) fused: Option<usize>,
    /// Whether queries are fused that each give as many hits as are wanted: only first pages are good
    /// then, and a longer answer has another order.
    pub(super) one_page: bool,
}

impl Findings {
    /// The one text, of the clauses that search words.
    ///
    /// # Errors
    /// Where there is none, or several that differ.
    pub(super) fn text(&self, words: &Words<'_>) -> Result<String, SkipReason> {
        let mut texts = self.said(words).map(|said| &said.text);
        let first = texts.next().ok_or(SkipReason::NoQuery)?;
        if texts.any(|text| text != first) {
            return Err(SkipReason::AmbiguousQuery);
        }
        Ok(first.clone())
    }

    /// The texts of clauses that search words, in their order.
    pub(super) fn said(&self, words: &Words<'_>) -> impl Iterator<Item = &Said> {
        self.texts
            .iter()
            .filter(|said| words.are_searched_in(&said.searched))
    }

    /// `searched` is what the text is looked for in.
    fn text_of(&mut self, value: Option<Json<'_>>, searched: impl FnOnce() -> Searched) {
        if let Some(text) = value.and_then(Json::string) {
            self.push(&text, searched);
        }
    }

    /// Notes that no more hits than these are given.
    fn fuses(&mut self, most: usize) {
        self.fused = Some(self.fused.map_or(most, |other| other.min(most)));
    }

    /// The words of a query string; `searched` is what those without a field of their own are looked for
    /// in.
    fn words_of(&mut self, query: &str, syntax: Syntax, searched: impl Fn() -> Searched) {
        let around = self.around;
        for words in syntax::words(query, syntax).unwrap_or_default() {
            self.push(&words.text, || match &words.field {
                Some(field) => Searched::of_name(field, around),
                None => searched(),
            });
        }
    }

    fn push(&mut self, text: &str, searched: impl FnOnce() -> Searched) {
        let text = text.trim();
        if !text.is_empty() {
            self.texts.push(Said {
                text: text.to_owned(),
                searched: searched(),
            });
        }
    }
}

/// Looks for texts in a search.
///
/// # Errors
/// Where a retriever reranks, sorts or goes on behind a hit.
pub(super) fn find(body: &Body<'_>, params: &Params<'_>) -> Result<Findings, SkipReason> {
    let mut findings = Findings::default();
    let member = |name: &str| body.member(name);
    // The engines let `q` replace the query of the body.
    if let Some(q) = params.get("q") {
        findings.words_of(q, Syntax::QueryString, || match params.get("df") {
            Some(field) => Searched::of_name(field, Boost::default()),
            None => Searched::defaults(),
        });
    } else if let Some(query) = member("query") {
        of_query(query, &mut findings, 0);
    }
    if let Some(retriever) = member("retriever") {
        of_retriever(retriever, &mut findings, 0)?;
    }
    findings.size_matters |= member("knn").is_some();
    Ok(findings)
}

/// The text that OpenSearch's own rerank pipelines are given: `ext.rerank.query_context`.
pub(super) fn of_context(body: &Body<'_>) -> Option<String> {
    let context = body
        .member("ext")?
        .member("rerank")?
        .member("query_context")?;
    let text = match context.member("query_text") {
        Some(text) => text.string()?.into_owned(),
        None => at_path(body.whole()?, &context.member("query_text_path")?.string()?)?,
    };
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// The text at a path such as `query.bool.must[0].match.title.query`. A part of a path may be a key
/// with dots in it.
pub(super) fn at_path(json: Json<'_>, path: &str) -> Option<String> {
    at_path_from(json, path, 0)
}

fn at_path_from(json: Json<'_>, path: &str, depth: usize) -> Option<String> {
    // Each step may take a key and an item.
    if depth > 2 * MAX_DEPTH {
        return None;
    }
    let below = |json, path| at_path_from(json, path, depth + 1);
    if path.is_empty() {
        let text = json.string()?;
        return (!text.trim().is_empty()).then(|| text.trim().to_owned());
    }
    if let Some(rest) = path.strip_prefix('[') {
        let (index, rest) = rest.split_once(']')?;
        let item = json.items().nth(index.parse().ok()?)?;
        return below(item, rest.strip_prefix('.').unwrap_or(rest));
    }
    json.members().find_map(|(key, value)| {
        let rest = path.strip_prefix(&*key)?;
        match rest.as_bytes().first() {
            Some(b'.') => below(value, &rest[1..]),
            Some(b'[') | None => below(value, rest),
            Some(_) => None,
        }
    })
}

fn of_query(query: Json<'_>, findings: &mut Findings, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    for (kind, clause) in query.members() {
        let mut inner = |name: &str| {
            if let Some(query) = clause.member(name) {
                let around = findings.around;
                findings.around = around.times(Boost::of(clause));
                of_queries(query, findings, depth + 1);
                findings.around = around;
            }
        };
        match &*kind {
            "bool" => {
                inner("must");
                inner("should");
            }
            "dis_max" => inner("queries"),
            "hybrid" => {
                inner("queries");
                findings.size_matters = true;
                match clause.member("pagination_depth") {
                    None => findings.one_page = true,
                    // What it does not understand is refused.
                    Some(depth) => {
                        findings.fuses(depth.text().trim_matches('"').parse().unwrap_or(0))
                    }
                }
            }
            "wrapper" => of_wrapper(clause, findings, depth + 1),
            // Translated by a pipeline, which has the engine ask in another way each time.
            "agentic" => {
                findings.text_of(clause.member("query_text"), || Searched::Meaning);
                findings.size_matters = true;
            }
            "function_score" | "script_score" | "nested" => inner("query"),
            "constant_score" => inner("filter"),
            "boosting" => inner("positive"),
            "match" | "match_phrase" | "match_phrase_prefix" | "match_bool_prefix" => {
                for (name, field) in clause.members() {
                    let boost = findings.around.times(Boost::of(field));
                    let searched = || Searched::of_name(&name, boost);
                    findings.text_of(Some(field), searched);
                    findings.text_of(field.member("query"), searched);
                }
            }
            "multi_match" | "combined_fields" => {
                let around = findings.around;
                findings.text_of(clause.member("query"), || fields_of(clause, around));
            }
            "query_string" => plain(clause, Syntax::QueryString, findings),
            "simple_query_string" => plain(clause, Syntax::Simple, findings),
            "sparse_vector" => {
                findings.text_of(clause.member("query"), || Searched::Meaning);
            }
            "semantic" => {
                findings.text_of(clause.member("query"), || Searched::Meaning);
                findings.size_matters = true;
                // Of vectors, it finds as many neighbours as hits are wanted.
                findings.must_agree = true;
            }
            "neural" | "neural_sparse" => {
                for (_, field) in clause.members() {
                    findings.text_of(field.member("query_text"), || Searched::Meaning);
                }
                findings.size_matters = true;
            }
            "text_expansion" => {
                for (_, field) in clause.members() {
                    findings.text_of(field.member("model_text"), || Searched::Meaning);
                }
            }
            "knn" => findings.size_matters = true,
            _ => {}
        }
    }
}

/// The fields that a clause names in `fields` or `default_field`.
fn fields_of(clause: Json<'_>, around: Boost) -> Searched {
    let named = clause
        .member("fields")
        .or_else(|| clause.member("default_field"));
    named.map_or_else(Searched::defaults, |named| {
        Searched::of_json(named, around.times(Boost::of(clause)))
    })
}

/// One query or an array of them.
fn of_queries(queries: Json<'_>, findings: &mut Findings, depth: usize) {
    if queries.kind() == Kind::Array {
        for query in queries.items() {
            of_query(query, findings, depth);
        }
    } else {
        of_query(queries, findings, depth);
    }
}

/// How many hits a fusion has that does not say.
const DEFAULT_RANK_WINDOW: usize = 10;

fn of_retriever(
    retriever: Json<'_>,
    findings: &mut Findings,
    depth: usize,
) -> Result<(), SkipReason> {
    if depth > MAX_DEPTH {
        return Ok(());
    }
    for (kind, inner) in retriever.members() {
        match &*kind {
            "standard" => {
                if inner.member("sort").is_some() {
                    return Err(SkipReason::Sort);
                }
                if inner.member("search_after").is_some() {
                    return Err(SkipReason::SearchAfter);
                }
                if let Some(query) = inner.member("query") {
                    of_query(query, findings, depth + 1);
                }
            }
            "rrf" | "linear" => {
                let window = inner.member("rank_window_size");
                let window = window.map_or(Some(DEFAULT_RANK_WINDOW), |window| {
                    window.text().trim_matches('"').parse().ok()
                });
                findings.fuses(window.ok_or(SkipReason::Unparsable)?);
                // The short form: one text for several fields.
                findings.text_of(inner.member("query"), || fields_of(inner, Boost::default()));
                let retrievers = inner.member("retrievers");
                // Each of them is asked for as many as the fusion ranks, whatever the page.
                let must_agree = findings.must_agree;
                for item in retrievers.iter().flat_map(|retrievers| retrievers.items()) {
                    let item = item.member("retriever").unwrap_or(item);
                    of_retriever(item, findings, depth + 1)?;
                }
                findings.must_agree = must_agree;
            }
            "knn" => findings.size_matters = true,
            // A weight, a normalizer, a name, a filter.
            _ if inner.kind() != Kind::Object => {}
            "filter" => {}
            // Reranks, pins, diversifies, or is not known.
            _ => return Err(SkipReason::RerankedAlready),
        }
    }
    Ok(())
}

fn plain(clause: Json<'_>, syntax: Syntax, findings: &mut Findings) {
    if let Some(text) = clause.member("query").and_then(Json::string) {
        let around = findings.around;
        findings.words_of(&text, syntax, || fields_of(clause, around));
    }
}

/// A query in base64.
fn of_wrapper(clause: Json<'_>, findings: &mut Findings, depth: usize) {
    let text = clause.member("query").and_then(Json::string);
    let Some(bytes) = text.and_then(|text| wrapper::decoded(&text)) else {
        return;
    };
    if let Ok(query) = json::parse(&bytes) {
        // What is missing in there cannot be written into it.
        findings.must_agree |= query.text().contains("knn");
        of_query(query, findings, depth);
    }
}
