//! From what the engine found to a ranking: the policy, or a ranking of the last minute.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use rerankd_core::{OnFailure, PolicySelector, RerankError, RerankRequest, Reranked, Timings};
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

    fn has(&self, selector: &PolicySelector) -> bool {
    fn want(&self, target: &Target) {
        self.view.want(target);
    }

    fn first_page_was_unknown(&self, search: &dyn Fn() -> Vec<u8>) -> bool {
        self.view.first_page_was_unknown(search)
    }

    fn note_first_page(&self, search: &dyn Fn() -> Vec<u8>, is_unknown: bool) {
        self.view.note_first_page(search, is_unknown);
    }

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

impl Proxy {
    /// Ranks a window. `instance` is reserved for it, or why there is none: that matters only where no
    /// ranking is kept.
    ///
    /// # Errors
    /// What is wrong with the request; and where `on_failure` says so, all else.
    pub(super) async fn rank(
        &self,
        asker: &Asker<'_>,
        window: Window<'_>,
        instance: Result<&Permit, &RerankError>,
        shadows: &Shadows,
    ) -> Result<Reranked, RerankError> {
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
        if let Some(known) = self.rankings.get(&keys, window.is_first_page)
            && known.ranking.documents() == request.documents.len()
        {
            return Ok(Reranked {
                timings: Timings {
                    total: started.elapsed(),
                    ..Timings::default()
                },
                ..Reranked::clone(&known)
            });
        }
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
            on_failure: window.on_failure,
            shape: Shape::Search,
            arrived: started,
            request_id: asker.request_id,
        };
        let reranked = rerank::rerank(app, &caller, &ranker, request, admitted, shadows).await?;
        self.rankings.put(&keys, window.is_first_page, &reranked);
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
