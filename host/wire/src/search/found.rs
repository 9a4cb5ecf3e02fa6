//! The answer to a widened search: the documents for the policy, and the client's page.

use std::collections::{HashMap, HashSet};

use rerankd_core::{FailReason, Field, Limits, RerankRequest, Reranked, SkipReason, Status};

use super::error::names_result_window;
use super::lean::Filter;
use super::rewrite::{Cut, Rewritten};
use crate::decode::Place;
use crate::engine;
use crate::engine::order::Order;
use crate::engine::page::{Edition, Hit, Page, Row};
use crate::json::{self, Json, Kind};

/// Why an answer to a widened search cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotUnderstood {
    /// It is not JSON.
    NotJson,
    /// It has no `hits.hits`, or something else in its place.
    NoHits,
    /// One of the indices has a smaller `index.max_result_window` than the widened search needs.
    ResultWindow,
    /// It is an error, of one search of several.
    Refused,
    /// The engine's own page cannot be cut from it, and there is no ranking.
    Inexact,
    /// Its hits say by what the engine sorted them, which a new order would contradict.
    Sorted,
    /// Shards have failed, or run out of time, that perhaps do not in the search as it was sent.
    Shards,
    /// It counts other hits than the search as it was sent.
    Size,
    /// The hits have changed between two searches for one page.
    Changed,
}

impl NotUnderstood {
    /// What `Rerank-Status` says of the original search, sent instead.
    pub fn status(self) -> Status {
        match self {
            Self::NotJson | Self::NoHits | Self::Changed => {
                Status::Failed(FailReason::UpstreamResponse)
            }
            Self::ResultWindow => Status::Skipped(SkipReason::ResultWindow),
            Self::Refused => Status::Failed(FailReason::UpstreamStatus),
            // Whoever asks again knows better why there is no ranking.
            Self::Inexact => Status::Failed(FailReason::Internal),
            Self::Sorted => Status::Skipped(SkipReason::Sort),
            Self::Shards => Status::Failed(FailReason::UpstreamShards),
            Self::Size => Status::Skipped(SkipReason::SizeDependent),
        }
    }
}

/// What the engine found for a widened search.
pub struct Found<'b> {
    request: Option<RerankRequest>,
    read: Vec<String>,
    fingerprint_input: Vec<u8>,
    /// How many hits are reranked: the window, or all where there are fewer.
    documents: usize,
    min_score: Option<f64>,
    /// Why the search as it was sent must be asked too.
    doubt: Option<NotUnderstood>,
    page: Page<'b>,
    cut: &'b Cut,
}

impl<'b> Found<'b> {
    pub(super) fn read(
        search: &'b Rewritten<'_>,
        answer: &'b [u8],
        limits: &Limits,
    ) -> Result<Self, NotUnderstood> {
        let answer = json::parse(answer).map_err(|_| NotUnderstood::NotJson)?;
        Self::of(search, answer, limits)
    }

    pub(super) fn of(
        search: &'b Rewritten<'_>,
        answer: Json<'b>,
        limits: &Limits,
    ) -> Result<Self, NotUnderstood> {
        let cut = &search.cut;
        let failures = answer
            .member("_shards")
            .and_then(|shards| shards.member("failures"));
        if failures.is_some_and(|failures| names_result_window(failures.text().as_bytes())) {
            return Err(NotUnderstood::ResultWindow);
        }
        let page = Page::read(Place::Body, answer).map_err(|_| NotUnderstood::NoHits)?;
        if page.hits.iter().any(|hit| hit.is_sorted) {
            return Err(NotUnderstood::Sorted);
        }
        let doubt = if is_incomplete(answer) {
            // A shard that fails where hits are fetched has counted them before.
            if !cut.is_counted || lost_hits(answer, page.hits.len(), cut.wanted) {
                return Err(NotUnderstood::Shards);
            }
            Some(NotUnderstood::Shards)
        } else {
            search.must_agree.then_some(NotUnderstood::Size)
        };
        let documents = page.hits.len().min(cut.window).min(limits.max_documents);
        let window = &page.hits[..documents];
        let mut request = search.request.clone();
        (request.first_stage, request.documents) = engine::documents(window);
        let shows_all = |names: &Vec<String>| names.iter().any(|name| name.contains('*'));
        if let Some(names) = cut.fields.as_ref().filter(|names| !shows_all(names)) {
            let names: HashSet<&str> = names.iter().map(String::as_str).collect();
            for document in &mut request.documents {
                let named = |field: &Field| names.contains(field.name.as_str());
                document.fields.retain(named);
            }
        }
        // Of the fields that somebody named: what is chosen may change between two pages.
        let fingerprint_input = fingerprint_input(&request, window);
        let read = cut
            .reading
            .as_ref()
            .map(|reading| reading.settle(&mut request));
        Ok(Self {
            read: read.unwrap_or_default(),
            fingerprint_input,
            min_score: request.min_score,
            request: (documents > 0).then_some(request),
            documents,
            doubt,
            page,
            cut,
        })
    }

    /// Why the answer holds only if the search as it was sent has the same failures, and counts the
    /// same: [`agrees`](Self::agrees). Where it does not, that search's answer is the client's.
    pub fn doubt(&self) -> Option<NotUnderstood> {
        self.doubt
    }

    /// Whether the engine's answer to the search as it was sent tells of the same hits, from the same
    /// shards.
    pub fn agrees(&self, own: &[u8]) -> bool {
        json::parse(own).is_ok_and(|own| self.agrees_with(own))
    }

    pub(super) fn agrees_with(&self, own: Json<'_>) -> bool {
        let wide = self.page.response;
        let same = |one: Option<Json<'_>>, other: Option<Json<'_>>| {
            one.map(Json::text) == other.map(Json::text)
        };
        let total = |answer: Json<'_>| -> Option<String> {
            let total = answer.member("hits")?.member("total")?;
            Some(total.text().to_owned())
        };
        let aggregations = |answer: Json<'_>| {
            answer
                .member("aggregations")
                .map(Json::text)
                .map(str::to_owned)
        };
        let (counted, own_counted) = (aggregations(wide), aggregations(own));
        own.member("hits").is_some()
            && ["_shards", "timed_out"]
                .iter()
                .all(|name| same(wide.member(name), own.member(name)))
            && total(wide) == total(own)
            && (counted.is_none() || counted == own_counted)
    }

    /// What to ask the policy; `None` where nothing was found, and the second time.
    pub fn request(&mut self) -> Option<RerankRequest> {
        self.request.take()
    }

    /// What was asked of the policy, and about which hits: query, parameters, signals, fields, and of
    /// each hit of the window the index, the id and the score. Not what is in the hits: engines show
    /// different contents of one hit to different callers.
    pub fn fingerprint_input(&self) -> &[u8] {
        &self.fingerprint_input
    }

    /// The fields that were chosen for the policy to read; none where somebody named them one by one, or
    /// the policy reads its own.
    pub fn fields_read(&self) -> &[String] {
        &self.read
    }

    /// How many hits there are to rerank.
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// The client's page: reranked, or else, with `None` or a status that did not rank, the engine's
    /// own.
    ///
    /// All pages are cut from one list without holes: what the ranking keeps of the window, then the hits
    /// behind it. So pages neither repeat nor lose a hit, and none is short before the last.
    pub fn page(&self, reranked: Option<&Reranked>) -> Vec<u8> {
        let around = |edition: &Edition<'_>| self.page.edited_around(edition);
        self.cut(reranked, around).into_bytes()
    }

    /// The same, without what stands around the answer.
    pub(super) fn page_text(&self, reranked: Option<&Reranked>) -> String {
        self.cut(reranked, |edition| self.page.edited(edition))
    }

    fn cut(&self, reranked: Option<&Reranked>, edit: impl Fn(&Edition<'_>) -> String) -> String {
        let edition = |rows, max_score, keep_first_stage| {
            edit(&Edition {
                rows,
                max_score,
                keep_first_stage,
                strip: self.cut.strip.as_ref(),
            })
        };
        let end = self.cut.from.saturating_add(self.cut.size);
        let Some(order) = reranked.and_then(|reranked| self.order(reranked)) else {
            let hits = self.cut.from.min(self.page.hits.len())..end.min(self.page.hits.len());
            let rows: Vec<Row> = hits.map(|hit| Row { hit, score: None }).collect();
            return edition(&rows, None, false);
        };
        let max_score = self.top_score(&order);
        edition(&self.rows(order), Some(max_score), self.cut.keep_scores)
    }

    /// The hits of the page in their order.
    pub(super) fn rows(&self, order: Order) -> Vec<Row> {
        let all = order.window.into_iter().chain(order.tail);
        all.skip(self.cut.from).take(self.cut.size).collect()
    }

    /// The filter for these hits, and how many may come of it.
    pub(super) fn filter(&self, filter: &Filter, hits: &[usize]) -> (String, usize) {
        filter.text(&self.page, hits)
    }

    /// The answer with the hits of `rows` as another answer has them. Where shards failed in that one, their
    /// hits are missing, as in the engine's own pages, and it is said.
    ///
    /// # Errors
    /// `Changed` where a hit is missing though no shard failed.
    pub(super) fn with_hits_of(
        &self,
        rows: &[Row],
        other: &Page<'_>,
        max_score: String,
        around: bool,
    ) -> Result<String, NotUnderstood> {
        let has_failed = is_incomplete(other.response);
        let rows = match has_failed {
            true => {
                let one = |row: &Row| self.placed(std::slice::from_ref(row), &other.hits).ok();
                rows.iter().filter_map(one).flatten().collect()
            }
            false => self.placed(rows, &other.hits)?,
        };
        let hits = other.hit_texts(&Edition {
            rows: &rows,
            max_score: None,
            keep_first_stage: self.cut.keep_scores,
            strip: None,
        });
        let mut edits = Vec::new();
        if let (true, Some(own), Some(failed)) = (
            has_failed,
            self.page.response.member("_shards"),
            other.response.member("_shards"),
        ) {
            edits.push((own.span(), failed.text().to_owned()));
        }
        Ok(self.page.with_hits(&hits, max_score, edits, around))
    }

    /// The same rows, where they stand among the hits of another answer.
    ///
    /// # Errors
    /// `Changed` where one is not among them, or two have one name.
    pub(super) fn placed(&self, rows: &[Row], hits: &[Hit<'_>]) -> Result<Vec<Row>, NotUnderstood> {
        let mut places = HashMap::with_capacity(hits.len());
        for (place, hit) in hits.iter().enumerate() {
            if places.insert(hit.name(), place).is_some() {
                return Err(NotUnderstood::Changed);
            }
        }
        let row = |row: &Row| {
            let place = places.get(&self.page.hits[row.hit].name());
            place.map(|&hit| Row {
                hit,
                score: row.score,
            })
        };
        let rows: Option<Vec<Row>> = rows.iter().map(row).collect();
        rows.ok_or(NotUnderstood::Changed)
    }

    /// The hits in the order of a ranking; `None` where it did not rank, or not these.
    pub(super) fn order(&self, reranked: &Reranked) -> Option<Order> {
        let is_ranked = matches!(reranked.status, Status::Applied | Status::Partial);
        (is_ranked && reranked.ranking.documents() == self.documents).then(|| {
            Order::new(
                &self.page.hits,
                &reranked.ranking,
                self.min_score,
                self.cut.keep_scores,
            )
        })
    }

    /// The score that stands at the top of all pages.
    pub(super) fn top_score(&self, order: &Order) -> String {
        let top = order.window.first().or(order.tail.first());
        self.page.top_score(top)
    }
}

impl std::fmt::Debug for Found<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Found")
            .field("hits", &self.page.hits.len())
            .field("documents", &self.documents)
            .finish_non_exhaustive()
    }
}

/// Each part with its length in front, so that no two inputs run together.
fn fingerprint_input(request: &RerankRequest, window: &[Hit<'_>]) -> Vec<u8> {
    let mut input = Vec::new();
    let mut add = |part: &[u8]| {
        input.extend_from_slice(&part.len().to_le_bytes());
        input.extend_from_slice(part);
    };
    add(request.query.as_bytes());
    add(request.parameters.as_deref().unwrap_or_default().as_bytes());
    // Both print in the same way whenever they are the same.
    add(format!("{:?}", request.signals).as_bytes());
    add(format!("{:?}", request.fields).as_bytes());
    for hit in window {
        for part in [hit.index, hit.id, hit.score] {
            add(part.map_or("", Json::text).as_bytes());
        }
    }
    input
}

/// Whether shards have failed, or ran out of time.
fn is_incomplete(answer: Json<'_>) -> bool {
    let failed = answer.member("_shards").is_some_and(|shards| {
        let count = shards.member("failed");
        count.is_some_and(|count| count.text() != "0") || shards.member("failures").is_some()
    });
    let is_true = |name: &str| {
        answer
            .member(name)
            .is_some_and(|value| value.text() == "true")
    };
    failed || is_true("timed_out")
}

/// Whether there are fewer hits than were counted and wanted; also where nobody knows.
fn lost_hits(answer: Json<'_>, hits: usize, wanted: usize) -> bool {
    let total = answer.member("hits").and_then(|hits| hits.member("total"));
    let (count, is_all) = match total {
        Some(total) if total.kind() == Kind::Object => {
            let relation = total.member("relation");
            let is_all = relation.is_some_and(|relation| relation.text() == "\"eq\"");
            (total.member("value"), is_all)
        }
        other => (other, true),
    };
    let Some(count) = count.and_then(|count| count.text().parse::<usize>().ok()) else {
        return true;
    };
    match is_all {
        true => hits < wanted.min(count),
        false => hits < wanted || count < wanted,
    }
}
