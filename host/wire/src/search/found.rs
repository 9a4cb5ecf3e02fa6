//! The answer to a widened search: the documents for the policy, and the client's page.

use std::collections::HashSet;

use rerankd_core::{FailReason, Field, Limits, RerankRequest, Reranked, SkipReason, Status};

use super::error::names_result_window;
use super::rewrite::Cut;
use crate::decode::Place;
use crate::engine;
use crate::engine::order::Order;
use crate::engine::page::{Edition, Hit, Page, Row};
use crate::json::{self, Json};

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
}

impl NotUnderstood {
    /// What `Rerank-Status` says of the original search, sent instead.
    pub fn status(self) -> Status {
        match self {
            Self::NotJson | Self::NoHits => Status::Failed(FailReason::UpstreamResponse),
            Self::ResultWindow => Status::Skipped(SkipReason::ResultWindow),
            Self::Refused => Status::Failed(FailReason::UpstreamStatus),
            // Whoever asks again knows better why there is no ranking.
            Self::Inexact => Status::Failed(FailReason::Internal),
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
    page: Page<'b>,
    cut: &'b Cut,
}

impl<'b> Found<'b> {
    pub(super) fn read(
        request: &RerankRequest,
        cut: &'b Cut,
        answer: &'b [u8],
        limits: &Limits,
    ) -> Result<Self, NotUnderstood> {
        let answer = json::parse(answer).map_err(|_| NotUnderstood::NotJson)?;
        Self::of(request, cut, answer, limits)
    }

    pub(super) fn of(
        request: &RerankRequest,
        cut: &'b Cut,
        answer: Json<'b>,
        limits: &Limits,
    ) -> Result<Self, NotUnderstood> {
        let failures = answer
            .member("_shards")
            .and_then(|shards| shards.member("failures"));
        if failures.is_some_and(|failures| names_result_window(failures.text().as_bytes())) {
            return Err(NotUnderstood::ResultWindow);
        }
        let page = Page::read(Place::Body, answer).map_err(|_| NotUnderstood::NoHits)?;
        let documents = page.hits.len().min(cut.window).min(limits.max_documents);
        let window = &page.hits[..documents];
        let mut request = request.clone();
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
            page,
            cut,
        })
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

    /// Whether the client's page begins with the first hit.
    pub fn is_first_page(&self) -> bool {
        self.cut.from == 0
    }

    /// How many hits there are to rerank.
    pub fn documents(&self) -> usize {
        self.documents
    }

    /// The client's page: reranked, or else, with `None` or a status that did not rank, the engine's
    /// own.
    ///
    /// The window keeps its places: where hits of it are left out, its last pages are shorter, and
    /// the hits behind it stay on the pages where the engine has them. So pages never repeat a hit.
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
        let ranked = reranked.filter(|reranked| {
            matches!(reranked.status, Status::Applied | Status::Partial)
                && reranked.ranking.documents() == self.documents
        });
        let end = self.cut.from.saturating_add(self.cut.size);
        let Some(reranked) = ranked else {
            let hits = self.cut.from..end.min(self.page.hits.len());
            let rows: Vec<Row> = hits.map(|hit| Row { hit, score: None }).collect();
            return edition(&rows, None, false);
        };
        let keep_scores = self.cut.keep_scores;
        let order = Order::new(
            &self.page.hits,
            &reranked.ranking,
            self.min_score,
            keep_scores,
        );
        let top = order.window.first().or(order.tail.first());
        let max_score = self.page.top_score(top);
        let in_window = order.window.into_iter().take(end).skip(self.cut.from);
        let behind = self.cut.from.saturating_sub(self.documents);
        let tail_end = end.saturating_sub(self.documents);
        let in_tail = order.tail.into_iter().take(tail_end).skip(behind);
        let rows: Vec<Row> = in_window.chain(in_tail).collect();
        edition(&rows, Some(max_score), keep_scores)
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
