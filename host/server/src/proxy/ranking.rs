//! From what the engine found to a ranking: the policy, or a ranking of the last minute.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use rerankd_core::{OnFailure, PolicySelector, RerankError, RerankRequest, Reranked, Timings};
use rerankd_policy::catalog::Chosen;
use rerankd_policy::split;
use rerankd_wire::search::{FieldChoice, Policies, Seen, Target};

use super::Proxy;
use super::cache::{Keys, SearchId};
use super::lookup::View;
use crate::admission::Permit;
use crate::app::App;
use crate::fields;
use crate::rerank::{self, Caller, Ranker, Shadows, Shape, off_the_runtime};

/// What is known of policies and mappings, for planning.
pub(super) struct Known<'a> {
    pub(super) app: &'a App,
    pub(super) view: View<'a>,
}

impl Policies for Known<'_> {
    fn fields(&self, selector: &PolicySelector) -> Option<Vec<String>> {
        fields::of_policy(self.app, &selector.name)
    }

    fn choice(&self, selector: &PolicySelector) -> Option<FieldChoice> {
        fields::choice_of_policy(self.app, &selector.name)
    }

    fn mapping(&self, target: &Target) -> Seen {
        self.view.mapping(target)
    }

    fn want(&self, target: &Target) {
        self.view.want(target);
    }

    fn first_page_was_unknown(&self, search: &dyn Fn() -> Vec<u8>) -> bool {
        self.view.first_page_was_unknown(search)
    }

    fn note_first_page(&self, search: &dyn Fn() -> Vec<u8>, is_unknown: bool) {
        self.view.note_first_page(search, is_unknown);
    }

    fn has(&self, selector: &PolicySelector) -> bool {
        self.app.releases.has(selector).is_ok()
    }

    fn filters(&self, selector: &PolicySelector) -> bool {
        let route = self.app.releases.catalog().route(&selector.name);
        route.is_some_and(|route| route.versions().any(|version| version.manifest().filters))
    }
}

/// A window that is to be ranked.
pub(super) struct Window<'a> {
    /// Who shall.
    pub(super) target: &'a PolicySelector,
    /// What to say when nobody can.
    pub(super) on_failure: OnFailure,
    /// The window's documents, and how.
    pub(super) request: RerankRequest,
    /// What was asked of the policy, and about which hits.
    pub(super) fingerprint: &'a [u8],
    /// Who asked the engine, and what.
    pub(super) search: SearchId,
    /// Whether the client's page begins with the first hit.
    pub(super) is_first_page: bool,
}

/// Who asks.
pub(super) struct Asker<'a> {
    /// `search` or `msearch`.
    pub(super) protocol: &'static str,
    /// The header `Rerankd-Key`.
    pub(super) key: Option<Cow<'a, str>>,
    /// Names the call in logs.
    pub(super) request_id: &'a str,
}

/// Whether there is a ranking of a window.
pub(super) enum Kept {
    Ranked(Box<Reranked>),
    No(Box<Unranked>),
}

/// A window that no kept ranking holds for.
pub(super) struct Unranked {
    request: RerankRequest,
    on_failure: OnFailure,
    is_first_page: bool,
    chosen: Chosen,
    keys: Keys,
}

impl Proxy {
    /// The kept ranking of a window: it needs no instance.
    ///
    /// # Errors
    /// Those of choosing the policy's version.
    pub(super) async fn kept(
        &self,
        asker: &Asker<'_>,
        window: Window<'_>,
    ) -> Result<Kept, RerankError> {
        let started = Instant::now();
        let app = &self.app;
        let mut request = window.request;
        request.on_failure = Some(window.on_failure);
        let side = split::split_key(asker.key.as_deref(), request.key.as_deref(), &request.query);
        let chosen = app.releases.resolve(window.target, side).await?;
        let keys = off_the_runtime(estimated_bytes(&request), || {
            Keys::new(
                chosen.placed.version.digest(),
                &request,
                window.fingerprint,
                &window.search,
            )
        });
        let unranked = Unranked {
            request,
            on_failure: window.on_failure,
            is_first_page: window.is_first_page,
            chosen,
            keys,
        };
        Ok(match self.kept_for(&unranked, started) {
            Some(reranked) => Kept::Ranked(Box::new(reranked)),
            None => Kept::No(Box::new(unranked)),
        })
    }

    fn kept_for(&self, window: &Unranked, started: Instant) -> Option<Reranked> {
        let known = self.rankings.get(&window.keys, window.is_first_page)?;
        if known.ranking.documents() != window.request.documents.len() {
            return None;
        }
        let timings = Timings {
            total: started.elapsed(),
            ..Timings::default()
        };
        Some(Reranked {
            timings,
            ..Reranked::clone(&known)
        })
    }

    /// Ranks a window. `instance` is reserved for it, or why there is none.
    ///
    /// # Errors
    /// What is wrong with the request; and where `on_failure` says so, all else.
    pub(super) async fn rank(
        &self,
        asker: &Asker<'_>,
        window: Unranked,
        instance: Result<&Permit, &RerankError>,
        shadows: &Shadows,
    ) -> Result<Reranked, RerankError> {
        let started = Instant::now();
        let app = &self.app;
        // The same may have been ranked while an instance was waited for.
        if let Some(reranked) = self.kept_for(&window, started) {
            return Ok(reranked);
        }
        let Unranked {
            request,
            on_failure,
            is_first_page,
            chosen,
            keys,
        } = window;
        let ranker = Ranker::Policy(chosen);
        let admit = |_| {
            let admission = &app.admission;
            admission.admit_reserved(ranker.digest(), &request, started, &app.inference)
        };
        let admitted = instance.map_err(RerankError::clone).and_then(admit);
        // The permit is held until the ranking is there.
        let (_permit, admitted) = match admitted {
            Ok((permit, deadline)) => (Some(permit), Ok(deadline)),
            Err(error) => (None, Err(error)),
        };
        let caller = Caller {
            protocol: asker.protocol,
            on_failure,
            shape: Shape::Search,
            arrived: started,
            request_id: asker.request_id,
        };
        let reranked = rerank::rerank(app, &caller, &ranker, request, admitted, shadows).await?;
        self.rankings.put(&keys, is_first_page, &reranked);
        Ok(reranked)
    }
}

/// Bytes in the documents' values.
fn estimated_bytes(request: &RerankRequest) -> usize {
    let fields = request
        .documents
        .iter()
        .flat_map(|document| &document.fields);
    fields.map(|field| field.value.size_bytes()).sum()
}

/// Offers what is to be run beside the answers, when they are made.
pub(super) fn offer(app: &Arc<App>, shadows: Shadows) {
    rerank::offer(app, shadows);
}
