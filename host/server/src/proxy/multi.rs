//! `_msearch`: several searches in one request, ranked side by side.

use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt;
use http::Response;
use rerankd_core::{FailReason, OnFailure, RerankError, Reranked, SkipReason, Status};
use rerankd_wire::search::{self, ItemPlan, MultiAnswer, MultiPlan, NotUnderstood, Rewritten};
use rerankd_wire::status::{RERANK_STATUS, SearchStatus};

use super::exchange::{Exchange, Said, Sent, of};
use super::ranking::{self, Kept, Unranked, Window};
use super::single::is_ranked;
use crate::admission::Permit;
use crate::rerank::{Shadows, off_the_runtime};

/// Searches of one request that are ranked at the same time, if there are instances for them.
const CONCURRENT_SEARCHES: usize = 8;

/// What became of the searches that were not passed.
type Ranked = Vec<Option<Result<Reranked, RerankError>>>;

impl Exchange<'_> {
    /// Answers an `_msearch`.
    ///
    /// # Errors
    /// As [`Exchange::answer`].
    pub(super) async fn multi(&self, sent: &Sent) -> Result<Response<Body>, RerankError> {
        let app = &self.proxy.app;
        let limits = &app.config.limits;
        let call = self.call(sent);
        let planned = self.planned(
            sent,
            |known| search::plan_multi(&call, &self.proxy.rules, known, limits),
            |plan| plan.hangs_on_mapping,
        );
        let mut plan = planned.await?;
        for (item, is_unknown) in plan.mapping_is_unknown.iter().enumerate() {
            if *is_unknown {
                self.notes.note(item, |note| note.is_unknown = true);
            }
        }
        self.follow_first_pages(&mut plan);
        if !plan.reranks() {
            let reason = plan.passed.unwrap_or(SkipReason::Unparsable);
            return self
                .pass_all(&plan, sent, SearchStatus::Skipped(reason))
                .await;
        }
        let original = async |status| self.pass_all(&plan, sent, status).await;
        let places = match self.admit(&plan) {
            Ok(places) => places,
            Err(error) if wants_errors(&plan) => return Err(error),
            Err(_) => return original(SearchStatus::Failed(FailReason::Overloaded)).await,
        };
        let said = self.ask(&plan.forward, sent).await;
        drop(places);
        let answer = match said? {
            Said::Found(answer) => answer,
            Said::Again(status) => return original(status).await,
            Said::Final(mut response) => {
                let failed = SearchStatus::Failed(FailReason::UpstreamStatus);
                let statuses = all(&plan, failed);
                self.count(&statuses);
                response
                    .headers_mut()
                    .insert(&RERANK_STATUS, self.notes.header_of_all(&statuses));
                return Ok(response);
            }
        };
        let size = answer.body.len();
        let read = off_the_runtime(size, || plan.read(&answer.body, limits));
        let mut found = match read {
            Ok(found) => found,
            Err(problem) => return original(of(problem.status())).await,
        };
        let shards = SearchStatus::Failed(FailReason::UpstreamShards);
        let doubtful = found.doubtful();
        if !doubtful.is_empty() {
            let Said::Found(own) = self.ask(&plan.original_of(&doubtful), sent).await? else {
                return original(shards).await;
            };
            if off_the_runtime(size, || found.settle(&own.body)).is_err() {
                return original(shards).await;
            }
        }
        for (item, answer) in found.items.iter().enumerate() {
            if let MultiAnswer::Found(found) = answer
                && !found.fields_read().is_empty()
            {
                let fields = found.fields_read().to_vec();
                self.notes.note(item, |note| note.fields = fields);
            }
        }
        let shadows = Shadows::default();
        let ranked = self.rank_all(&plan, &mut found.items, &shadows).await;
        let mut rankings: Vec<Option<Reranked>> = Vec::with_capacity(ranked.len());
        let mut statuses: Vec<Option<SearchStatus<'_>>> = Vec::with_capacity(ranked.len());
        for ((result, item), plan) in ranked.iter().zip(&found.items).zip(&plan.items) {
            let status = match (result, item, plan) {
                (Some(Ok(_)), ..) => None,
                (Some(Err(error)), _, ItemPlan::Rerank(search)) => {
                    Some(of(Status::Failed(self.failed(error, search)?)))
                }
                (Some(Err(error)), ..) => return Err(error.clone()),
                (None, MultiAnswer::Pass(status), _) => Some(of(*status)),
                (None, MultiAnswer::Found(_), _) => {
                    Some(SearchStatus::Skipped(SkipReason::NoDocuments))
                }
                (None, MultiAnswer::Again(problem), _) => Some(of(problem.status())),
            };
            rankings.push(
                result
                    .as_ref()
                    .and_then(|result| result.as_ref().ok().cloned()),
            );
            statuses.push(status);
        }
        for (index, item) in plan.items.iter().enumerate() {
            let inexact = matches!(item, ItemPlan::Rerank(search) if !search.cut_is_exact);
            let is_found = matches!(found.items[index], MultiAnswer::Found(_));
            if inexact && is_found && !is_ranked(rankings[index].as_ref()) {
                found.ask_again(index);
            }
        }
        // Once for the pages, and once for the searches of which none could be made: these alone.
        for _ in 0..2 {
            if found.outstanding(&plan, &rankings).is_empty() {
                break;
            }
            let torn = match self.ask(&plan.outstanding(&found, &rankings), sent).await? {
                Said::Found(second) => off_the_runtime(second.body.len(), || {
                    found.answered(&plan, &rankings, &second.body)
                }),
                Said::Again(_) | Said::Final(_) => {
                    found.unanswered(&plan, &rankings, NotUnderstood::Refused)
                }
            };
            for index in torn {
                if let MultiAnswer::Again(problem) = &found.items[index] {
                    statuses[index] = Some(of(problem.status()));
                    rankings[index] = None;
                }
            }
        }
        let Ok(page) = off_the_runtime(size, || found.page(&plan, &rankings)) else {
            return original(SearchStatus::Failed(FailReason::UpstreamResponse)).await;
        };
        let statuses: Vec<SearchStatus<'_>> = statuses
            .into_iter()
            .zip(&rankings)
            .map(|(status, ranking)| match (status, ranking) {
                (None, Some(reranked)) => SearchStatus::Ranked(reranked),
                (Some(status), _) => status,
                (None, None) => SearchStatus::Skipped(SkipReason::NoDocuments),
            })
            .collect();
        for (item, status) in plan.items.iter().zip(&statuses) {
            if let ItemPlan::Rerank(search) = item {
                self.note_first_page(search, *status);
            }
        }
        self.count(&statuses);
        ranking::offer(app, shadows);
        let status = self.notes.header_of_all(&statuses);
        Ok(self.rewritten(answer.head, page, status))
    }

    /// Leaves those searches to the engine whose first pages had its own order.
    fn follow_first_pages(&self, plan: &mut MultiPlan<'_>) {
        for index in 0..plan.items.len() {
            if let ItemPlan::Rerank(search) = &plan.items[index]
                && let Some(reason) = self.of_first_page(search)
            {
                plan.leave(index, Status::Failed(reason));
            }
        }
    }

    /// Sends all searches as the client meant them, and streams the answer through. `status` is that
    /// of the searches that were to be reranked.
    async fn pass_all(
        &self,
        plan: &MultiPlan<'_>,
        sent: &Sent,
        status: SearchStatus<'static>,
    ) -> Result<Response<Body>, RerankError> {
        let statuses = all(plan, status);
        for (item, status) in plan.items.iter().zip(&statuses) {
            if let ItemPlan::Rerank(search) = item {
                self.note_first_page(search, *status);
            }
        }
        self.count(&statuses);
        let header = if plan.items.is_empty() {
            self.notes.header(status)
        } else {
            self.notes.header_of_all(&statuses)
        };
        let original = self.original(plan.original(), sent);
        self.through(&original, sent, header).await
    }

    /// Places for as many searches as may be ranked side by side; at least one.
    fn admit(&self, plan: &MultiPlan<'_>) -> Result<Vec<Permit>, RerankError> {
        let app = &self.proxy.app;
        let (searches, timeout) = Self::at_a_time(plan);
        let one = || app.admission.admit_search(timeout, &app.inference);
        Ok(Self::more(one()?, searches, one))
    }

    /// Instances for as many of `windows` searches as may be ranked side by side; at least one.
    async fn reserve(
        &self,
        plan: &MultiPlan<'_>,
        windows: usize,
    ) -> Result<Vec<Permit>, RerankError> {
        let app = &self.proxy.app;
        let (searches, timeout) = Self::at_a_time(plan);
        let searches = searches.min(windows);
        // The first is waited for.
        let first = app.admission.reserve(timeout, &app.inference).await?;
        Ok(Self::more(first, searches, || app.admission.reserve_now()))
    }

    /// How many searches may be ranked side by side, and the shortest of their deadlines.
    fn at_a_time(plan: &MultiPlan<'_>) -> (usize, Option<Duration>) {
        let searches = to_rerank(plan).count().min(CONCURRENT_SEARCHES);
        let timeout = to_rerank(plan).filter_map(|search| search.timeout).min();
        (searches, timeout)
    }

    /// As many permits as there are, up to `most`.
    fn more(
        first: Permit,
        most: usize,
        one: impl Fn() -> Result<Permit, RerankError>,
    ) -> Vec<Permit> {
        let others = (1..most).map_while(|_| one().ok());
        std::iter::once(first).chain(others).collect()
    }

    /// Ranks what was found and has no kept ranking, as many searches at a time as there are instances.
    async fn rank_all(
        &self,
        plan: &MultiPlan<'_>,
        items: &mut [MultiAnswer<'_>],
        shadows: &Shadows,
    ) -> Ranked {
        let mut requests = Vec::new();
        for (index, item) in items.iter_mut().enumerate() {
            if let MultiAnswer::Found(found) = item
                && let Some(request) = found.request()
            {
                requests.push((index, request));
            }
        }
        let mut ranked: Ranked = (0..items.len()).map(|_| None).collect();
        let items = &*items;
        let asker = self.asker();
        let mut unranked: Vec<(usize, Box<Unranked>)> = Vec::new();
        for (index, request) in requests {
            let (MultiAnswer::Found(found), ItemPlan::Rerank(search)) =
                (&items[index], &plan.items[index])
            else {
                continue;
            };
            let window = Window {
                target: &search.target,
                on_failure: search.on_failure,
                request,
                fingerprint: found.fingerprint_input(),
                search: self.search_id(search),
                is_first_page: search.is_first_page(),
            };
            match self.proxy.kept(&asker, window).await {
                Ok(Kept::Ranked(reranked)) => ranked[index] = Some(Ok(*reranked)),
                Ok(Kept::No(window)) => unranked.push((index, window)),
                Err(error) => ranked[index] = Some(Err(error)),
            }
        }
        if unranked.is_empty() {
            return ranked;
        }
        let instances = self.reserve(plan, unranked.len()).await;
        let instance = instances.as_ref().map(|instances| &instances[0]);
        let side_by_side = instances.as_ref().map_or(1, Vec::len);
        let one = |(index, window): (usize, Box<Unranked>)| {
            let asker = &asker;
            async move {
                let ranked = self.proxy.rank(asker, *window, instance, shadows).await;
                (index, ranked)
            }
        };
        let mut running = futures_util::stream::iter(unranked.into_iter().map(one))
            .buffer_unordered(side_by_side);
        while let Some((index, result)) = running.next().await {
            ranked[index] = Some(result);
        }
        drop(running);
        ranked
    }
}

fn to_rerank<'p, 'a>(plan: &'p MultiPlan<'a>) -> impl Iterator<Item = &'p Rewritten<'a>> {
    plan.items.iter().filter_map(|item| match item {
        ItemPlan::Rerank(search) => Some(search.as_ref()),
        ItemPlan::Pass(_) | ItemPlan::Own(_) => None,
    })
}

fn wants_errors(plan: &MultiPlan<'_>) -> bool {
    to_rerank(plan).any(|search| search.on_failure == OnFailure::Error)
}

/// The statuses where no search was reranked; those that were to be have `status`.
fn all(plan: &MultiPlan<'_>, status: SearchStatus<'static>) -> Vec<SearchStatus<'static>> {
    let of_item = |item: &ItemPlan<'_>| match item {
        ItemPlan::Pass(reason) => SearchStatus::Skipped(*reason),
        ItemPlan::Own(status) => of(*status),
        ItemPlan::Rerank(_) => status,
    };
    if plan.items.is_empty() {
        return vec![status];
    }
    plan.items.iter().map(of_item).collect()
}
