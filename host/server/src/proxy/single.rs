//! `_search`: one search, one ranking.

use axum::body::Body;
use http::Response;
use rerankd_core::{ErrorKind, FailReason, OnFailure, RerankError, Reranked, SkipReason, Status};
use rerankd_wire::search::{self, Plan};
use rerankd_wire::status::{SearchStatus, search_status_header};

use super::exchange::{Exchange, Said, Sent, of, rewritten};
use super::ranking::{self, Window};
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
        let rewritten_search = match plan {
            Plan::Rerank(rewritten) => rewritten,
            Plan::Pass(pass) => {
                let status = SearchStatus::Skipped(pass.reason);
                self.count(&[status]);
                return self
                    .through(&pass.forward, sent, search_status_header(status))
                    .await;
            }
        };
        let original = |status: SearchStatus<'static>| {
            self.count(&[status]);
            self.through(
                &rewritten_search.original,
                sent,
                search_status_header(status),
            )
        };
        let admitted = app
            .admission
            .admit_search(rewritten_search.timeout, &app.inference);
        let place = match admitted {
            Ok(place) => place,
            Err(error) if rewritten_search.on_failure == OnFailure::Error => return Err(error),
            Err(_) => return original(SearchStatus::Failed(FailReason::Overloaded)).await,
        };
        let said = self.ask(&rewritten_search.widened, sent).await;
        drop(place);
        let answer = match said? {
            Said::Found(answer) => answer,
            Said::Again(status) => return original(status).await,
            Said::Final(mut response) => {
                let status = SearchStatus::Failed(FailReason::UpstreamStatus);
                self.count(&[status]);
                response.headers_mut().insert(
                    &rerankd_wire::status::RERANK_STATUS,
                    search_status_header(status),
                );
                return Ok(response);
            }
        };
        let size = answer.body.len();
        let read = off_the_runtime(size, || rewritten_search.read(&answer.body, limits));
        let mut found = match read {
            Ok(found) => found,
            Err(problem) => return original(of(problem.status())).await,
        };
        if !found.fields_read().is_empty() {
            let fields = found.fields_read().to_vec();
            self.notes.note(0, |note| note.fields = fields);
        }
        let Some(request) = found.request() else {
            let status = SearchStatus::Skipped(SkipReason::NoDocuments);
            self.count(&[status]);
            let page = found.page(None);
            return Ok(rewritten(answer.head, page, search_status_header(status)));
        };
        let shadows = Shadows::default();
        let window = Window {
            target: &rewritten_search.target,
            on_failure: rewritten_search.on_failure,
            request,
            fingerprint: found.fingerprint_input(),
            search: self.search_id(&rewritten_search.widened),
            is_first_page: found.is_first_page(),
        };
        let instance = app
            .admission
            .reserve(rewritten_search.timeout, &app.inference)
            .await;
        let ranked = self
            .proxy
            .rank(&self.asker(), window, instance.as_ref(), &shadows)
            .await;
        drop(instance);
        let status = match &ranked {
            Ok(reranked) => SearchStatus::Ranked(reranked),
            Err(error) if is_an_error(error, rewritten_search.on_failure) => {
                return Err(error.clone());
            }
            Err(error) => {
                app.telemetry.fell_back(self.kind.name(), error, self.id);
                SearchStatus::Failed(FailReason::Internal)
            }
        };
        self.count(&[status]);
        ranking::offer(app, shadows);
        let header = search_status_header(status);
        let reranked = ranked.as_ref().ok();
        if !is_ranked(reranked) && !rewritten_search.cut_is_exact {
            drop(found);
            return self.through(&rewritten_search.original, sent, header).await;
        }
        let page = off_the_runtime(size, || found.page(reranked));
        Ok(rewritten(answer.head, page, header))
    }
}

/// Whether the order is another than the engine's.
pub(super) fn is_ranked(reranked: Option<&Reranked>) -> bool {
    reranked.is_some_and(|reranked| matches!(reranked.status, Status::Applied | Status::Partial))
}

/// Whether a search that could not be ranked is answered with the error: it is the client's own, or
/// the client wants it.
pub(super) fn is_an_error(error: &RerankError, on_failure: OnFailure) -> bool {
    on_failure == OnFailure::Error
        || matches!(error.kind, ErrorKind::BadRequest | ErrorKind::TooLarge)
}
