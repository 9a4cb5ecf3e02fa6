//! `_search`: one search, one ranking.

use axum::body::Body;
use http::Response;
use rerankd_core::{ErrorKind, FailReason, OnFailure, RerankError, Reranked, SkipReason, Status};
use rerankd_wire::search::{self, Plan, Rewritten};
use rerankd_wire::status::{RERANK_STATUS, SearchStatus};

use super::exchange::{Exchange, Said, Sent, of};
use super::ranking::{self, Kept, Window};
use crate::rerank::{Shadows, off_the_runtime};

impl Exchange<'_> {
    /// Answers a search.
    ///
    /// # Errors
    /// As [`Exchange::answer`].
    pub(super) async fn single(&self, sent: &Sent) -> Result<Response<Body>, RerankError> {
        let app = &self.proxy.app;
        let limits = &app.config.limits;
        let call = self.call(sent);
        let planned = self.planned(
            sent,
            |known| search::plan(&call, &self.proxy.rules, known, limits),
            Plan::hangs_on_mapping,
        );
        let plan = planned.await?;
        if plan.mapping_is_unknown() {
            self.notes.note(0, |note| note.is_unknown = true);
        }
        match plan {
            Plan::Rerank(search) => self.reranked(&search, sent).await,
            Plan::Pass(pass) => {
                let status = SearchStatus::Skipped(pass.reason);
                self.count(&[status]);
                let original = self.original(&pass.forward, sent);
                self.through(&original, sent, self.notes.header(status))
                    .await
            }
        }
    }

    async fn reranked(
        &self,
        search: &Rewritten<'_>,
        sent: &Sent,
    ) -> Result<Response<Body>, RerankError> {
        let app = &self.proxy.app;
        let limits = &app.config.limits;
        if let Some(reason) = self.of_first_page(search) {
            // The page before had the engine's own order.
            return self
                .as_sent(search, sent, SearchStatus::Failed(reason))
                .await;
        }
        let admitted = app.admission.admit_search(search.timeout, &app.inference);
        let place = match admitted {
            Ok(place) => place,
            Err(error) if search.on_failure == OnFailure::Error => return Err(error),
            Err(_) => {
                let status = SearchStatus::Failed(FailReason::Overloaded);
                return self.as_sent(search, sent, status).await;
            }
        };
        let said = self.ask(&search.widened, sent).await;
        drop(place);
        let answer = match said? {
            Said::Found(answer) => answer,
            Said::Again(status) => return self.as_sent(search, sent, status).await,
            Said::Final(response) => return Ok(self.refused(response)),
        };
        let size = answer.body.len();
        let read = off_the_runtime(size, || search.read(&answer.body, limits));
        let mut found = match read {
            Ok(found) => found,
            Err(problem) => return self.as_sent(search, sent, of(problem.status())).await,
        };
        if let Some(doubt) = found.doubt() {
            let status = of(doubt.status());
            let original = self.original(&search.original, sent);
            match self.ask(&original, sent).await? {
                Said::Found(own) => {
                    if !off_the_runtime(size, || found.agrees(&own.body)) {
                        self.note_first_page(search, status);
                        self.count(&[status]);
                        let page = own.body.to_vec();
                        return Ok(self.rewritten(own.head, page, self.notes.header(status)));
                    }
                }
                Said::Again(_) => return self.as_sent(search, sent, status).await,
                Said::Final(response) => return Ok(self.refused(response)),
            }
        }
        if !found.fields_read().is_empty() {
            let fields = found.fields_read().to_vec();
            self.notes.note(0, |note| note.fields = fields);
        }
        let Some(request) = found.request() else {
            let status = SearchStatus::Skipped(SkipReason::NoDocuments);
            if search.is_split() {
                return self.as_sent(search, sent, status).await;
            }
            self.count(&[status]);
            let page = found.page(None);
            return Ok(self.rewritten(answer.head, page, self.notes.header(status)));
        };
        let shadows = Shadows::default();
        let window = Window {
            target: &search.target,
            on_failure: search.on_failure,
            request,
            fingerprint: found.fingerprint_input(),
            search: self.search_id(search),
            is_first_page: search.is_first_page(),
        };
        let asker = self.asker();
        let ranked = match self.proxy.kept(&asker, window).await {
            Ok(Kept::Ranked(reranked)) => Ok(*reranked),
            Ok(Kept::No(window)) => {
                let instance = app.admission.reserve(search.timeout, &app.inference).await;
                self.proxy
                    .rank(&asker, *window, instance.as_ref(), &shadows)
                    .await
            }
            Err(error) => Err(error),
        };
        let status = match &ranked {
            Ok(reranked) => SearchStatus::Ranked(reranked),
            Err(error) => of(Status::Failed(self.failed(error, search)?)),
        };
        ranking::offer(app, shadows);
        self.note_first_page(search, status);
        let header = self.notes.header(status);
        let reranked = ranked.as_ref().ok();
        if !is_ranked(reranked) && !search.cut_is_exact {
            self.count(&[status]);
            let original = self.original(&search.original, sent);
            return self.through(&original, sent, header).await;
        }
        if let Some(reranked) = reranked
            && let Some(page_search) = search.page_search(&found, reranked)
        {
            return match self.ask(&page_search, sent).await? {
                Said::Found(answer) => {
                    let size = answer.body.len();
                    let page =
                        off_the_runtime(size, || search.page(&found, reranked, &answer.body));
                    match page {
                        Ok(page) => {
                            self.count(&[status]);
                            Ok(self.rewritten(answer.head, page, header))
                        }
                        Err(problem) => self.as_sent(search, sent, of(problem.status())).await,
                    }
                }
                Said::Again(status) => self.as_sent(search, sent, status).await,
                Said::Final(response) => Ok(self.refused(response)),
            };
        }
        self.count(&[status]);
        let page = off_the_runtime(size, || found.page(reranked));
        Ok(self.rewritten(answer.head, page, header))
    }

    /// Sends the search as the client meant it, and streams the answer through.
    async fn as_sent(
        &self,
        search: &Rewritten<'_>,
        sent: &Sent,
        status: SearchStatus<'static>,
    ) -> Result<Response<Body>, RerankError> {
        self.note_first_page(search, status);
        self.count(&[status]);
        let original = self.original(&search.original, sent);
        self.through(&original, sent, self.notes.header(status))
            .await
    }

    /// The engine's refusal to a caller who may not ask.
    fn refused(&self, mut response: Response<Body>) -> Response<Body> {
        let status = SearchStatus::Failed(FailReason::UpstreamStatus);
        self.count(&[status]);
        let headers = response.headers_mut();
        headers.insert(&RERANK_STATUS, self.notes.header(status));
        response
    }

    /// Why a page has the engine's own order, where its first page had.
    pub(super) fn of_first_page(&self, search: &Rewritten<'_>) -> Option<FailReason> {
        let follows = !search.is_first_page() && search.on_failure == OnFailure::FirstStage;
        follows
            .then(|| self.proxy.unranked.of(&self.pages_id(search)))
            .flatten()
    }

    /// Notes what the pages behind a first one follow.
    pub(super) fn note_first_page(&self, search: &Rewritten<'_>, status: SearchStatus<'_>) {
        if !search.is_first_page() {
            return;
        }
        let failed = match status {
            SearchStatus::Failed(reason) => Some(reason),
            SearchStatus::Ranked(reranked) => match reranked.status {
                Status::Failed(reason) => Some(reason),
                _ => None,
            },
            SearchStatus::Skipped(_) | SearchStatus::Error(_) => None,
        };
        self.proxy.unranked.note(self.pages_id(search), failed);
    }

    /// Why there is no ranking, where that ends in the engine's own page.
    ///
    /// # Errors
    /// What is the caller's own mistake, and all where the search wants that.
    pub(super) fn failed(
        &self,
        error: &RerankError,
        search: &Rewritten<'_>,
    ) -> Result<FailReason, RerankError> {
        let is_mistake = matches!(error.kind, ErrorKind::BadRequest | ErrorKind::TooLarge);
        if is_mistake && search.is_callers(error) {
            return Err(error.clone());
        }
        if search.on_failure == OnFailure::Error {
            return Err(match is_mistake {
                // The caller can change nothing about it.
                true => RerankError {
                    kind: ErrorKind::PolicyFault,
                    message: format!("the index rule does not fit the policy: {}", error.message),
                    ..error.clone()
                },
                false => error.clone(),
            });
        }
        let telemetry = &self.proxy.app.telemetry;
        if let (true, Some(at)) = (is_mistake, &error.at) {
            telemetry.rule_does_not_fit(self.kind.name(), at, self.id);
            return Ok(FailReason::Rule);
        }
        telemetry.fell_back(self.kind.name(), error, self.id);
        Ok(match is_mistake {
            true => FailReason::PolicyFault,
            false => FailReason::Internal,
        })
    }
}

/// Whether the order is another than the engine's.
pub(super) fn is_ranked(reranked: Option<&Reranked>) -> bool {
    reranked.is_some_and(|reranked| matches!(reranked.status, Status::Applied | Status::Partial))
}
