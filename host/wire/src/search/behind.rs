//! Pages that come by a search of their own: those behind the window, those that reach far behind it, and
//! those whose hits are expensive (`lean`). The widened search then fetches what the policy reads, and this
//! one what the client sees.
//!
//! A ranking says three things of the hits behind its window: on which places they stand, since those of
//! the window that are left out leave no holes; which score they may have at most; and what the highest
//! score of all is.

use std::borrow::Cow;

use http::{HeaderName, HeaderValue};
use rerankd_core::Reranked;

use super::Forward;
use super::found::{Found, NotUnderstood};
use super::lean::Filter;
use super::rewrite::Rewritten;
use crate::decode::Place;
use crate::engine::order::Order;
use crate::engine::page::{Edition, Page, Row};
use crate::json::{self, Json};

/// The search for the page, but for the page.
#[derive(Debug)]
pub(super) struct PageSearch {
    pub(super) target: String,
    pub(super) page: Apart,
    pub(super) drop_headers: Vec<HeaderName>,
    pub(super) content_type: Option<HeaderValue>,
}

/// What the search for a page asks for.
#[derive(Debug)]
pub(super) enum Apart {
    /// The page, as the client has it.
    Behind {
        /// What follows `from` and `size` in the body.
        rest: String,
        /// The last hit that it may ask for.
        most: usize,
    },
    /// The hits of the page, by name.
    Hits {
        /// What follows `from`, `size` and `post_filter` in the body.
        rest: String,
        filter: Filter,
    },
}

/// Which of the engine's hits a page needs.
struct Needed {
    from: usize,
    size: usize,
    /// Whether hits of the window are on the page.
    has_window: bool,
}

impl Rewritten<'_> {
    /// Whether the client's page comes by a search of its own: [`page_search`](Self::page_search). Then
    /// [`Found::page`] is of no use.
    pub fn is_split(&self) -> bool {
        self.page.is_some()
    }

    /// The search for the client's page; `None` where it comes with the window, or nothing was ranked.
    pub fn page_search(&self, found: &Found<'_>, reranked: &Reranked) -> Option<Forward<'static>> {
        let search = self.page.as_ref()?;
        let order = found.order(reranked)?;
        let body = match &search.page {
            Apart::Behind { rest, most } => {
                let Needed { from, size, .. } = self.needed(found, &order, *most);
                format!(r#"{{"from":{from},"size":{size}{rest}"#)
            }
            Apart::Hits { rest, filter } => {
                let rows = found.rows(order);
                let hits: Vec<usize> = rows.iter().map(|row| row.hit).collect();
                if hits.is_empty() {
                    return None;
                }
                let (filter, size) = found.filter(filter, &hits);
                format!(r#"{{"from":0,"size":{size},"post_filter":{filter}{rest}"#)
            }
        };
        Some(Forward {
            path_and_query: Cow::Owned(search.target.clone()),
            body: Cow::Owned(body.into_bytes()),
            drop_headers: search.drop_headers.clone(),
            content_type: search.content_type.clone(),
            untouched: false,
        })
    }

    /// The client's page, from the engine's answer to [`page_search`](Self::page_search).
    ///
    /// # Errors
    /// Where the answer does not fit the window: the caller sends [`original`](Self::original).
    pub fn page(
        &self,
        found: &Found<'_>,
        reranked: &Reranked,
        answer: &[u8],
    ) -> Result<Vec<u8>, NotUnderstood> {
        let answer = json::parse(answer).map_err(|_| NotUnderstood::NotJson)?;
        self.page_edited(found, reranked, answer, true)
            .map(String::into_bytes)
    }

    /// The same, without what stands around the answer.
    pub(super) fn page_text(
        &self,
        found: &Found<'_>,
        reranked: &Reranked,
        answer: Json<'_>,
    ) -> Result<String, NotUnderstood> {
        self.page_edited(found, reranked, answer, false)
    }

    fn page_edited(
        &self,
        found: &Found<'_>,
        reranked: &Reranked,
        answer: Json<'_>,
        around: bool,
    ) -> Result<String, NotUnderstood> {
        let order = found.order(reranked).ok_or(NotUnderstood::Inexact)?;
        let page = Page::read(Place::Body, answer).map_err(|_| NotUnderstood::NoHits)?;
        let max_score = found.top_score(&order);
        let most = match self.page.as_ref().map(|search| &search.page) {
            Some(Apart::Behind { most, .. }) => *most,
            Some(Apart::Hits { .. }) => {
                return found.with_hits_of(&found.rows(order), &page, max_score, around);
            }
            None => return Err(NotUnderstood::Inexact),
        };
        let needed = self.needed(found, &order, most);
        let behind = |hit: usize| {
            let own = page.hits[hit].score();
            let ceiling = order.ceiling;
            Row {
                hit,
                score: ceiling.filter(|&most| own.is_some_and(|own| own > most)),
            }
        };
        let rows: Vec<Row> = if needed.has_window {
            let documents = found.documents();
            let window = page.hits.get(..documents).ok_or(NotUnderstood::Changed)?;
            let window = found.placed(&order.window, window)?;
            let tail = (documents..page.hits.len()).map(behind);
            let all = window.into_iter().chain(tail);
            all.skip(self.cut.from).take(self.cut.size).collect()
        } else {
            (0..page.hits.len()).map(behind).collect()
        };
        let hits = page.hit_texts(&Edition {
            rows: &rows,
            max_score: None,
            keep_first_stage: self.cut.keep_scores,
            strip: None,
        });
        Ok(page.with_hits(&hits, max_score, Vec::new(), around))
    }

    fn needed(&self, found: &Found<'_>, order: &Order, most: usize) -> Needed {
        let (kept, documents) = (order.window.len(), found.documents());
        let end = self.cut.from.saturating_add(self.cut.size);
        if self.cut.from >= kept {
            // What would lie behind the last hit that the engine gives is missing, as at the end of any
            // list: the page is short, or empty.
            let from = (self.cut.from - kept + documents).min(most);
            return Needed {
                from,
                size: self.cut.size.min(most - from),
                has_window: false,
            };
        }
        Needed {
            from: 0,
            size: (documents + end.saturating_sub(kept)).min(most),
            has_window: true,
        }
    }
}
