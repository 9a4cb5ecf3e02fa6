//! From what the engine found to a ranking: the policy, or a ranking of the last minute.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

use rerankd_core::{OnFailure, PolicySelector, RerankError, RerankRequest, Reranked, Timings};
use rerankd_policy::split;
use rerankd_wire::search::Policies;

use super::Proxy;
use super::cache::Key;
use crate::app::App;
use crate::fields;
use crate::rerank::{self, Caller, Ranker, Shadows};

/// What is known of policies, for planning.
pub(super) struct Known<'a>(pub(super) &'a App);

impl Policies for Known<'_> {
    fn fields(&self, selector: &PolicySelector) -> Option<Vec<String>> {
        fields::of_policy(self.0, &selector.name)
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
    /// What the window is.
    pub(super) fingerprint: &'a [u8],
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
    /// Ranks a window, for which an instance is reserved.
    ///
    /// # Errors
    /// What is wrong with the request; and where `on_failure` says so, all else.
    pub(super) async fn rank(
        &self,
        asker: &Asker<'_>,
        window: Window<'_>,
        shadows: &Shadows,
    ) -> Result<Reranked, RerankError> {
        let started = Instant::now();
        let app = &self.app;
        let mut request = window.request;
        request.on_failure = Some(window.on_failure);
        let side = split::split_key(asker.key.as_deref(), request.key.as_deref(), &request.query);
        let chosen = app.releases.resolve(window.target, side).await?;
        let key = Key::new(&chosen.placed.version, &request, window.fingerprint);
        if let Some(known) = self.rankings.get(&key)
            && known.ranking.documents() == request.documents.len()
        {
            return Ok(Reranked {
                timings: Timings {
                    total: started.elapsed(),
                    ..Timings::default()
                },
                ..known
            });
        }
        let ranker = Ranker::Policy(chosen);
        let admitted =
            app.admission
                .admit_reserved(ranker.digest(), &request, started, &app.inference);
        // The permit is held until the ranking is there.
        let (_permit, admitted) = match admitted {
            Ok((permit, deadline)) => (Some(permit), Ok(deadline)),
            Err(error) => (None, Err(error)),
        };
        let caller = Caller {
            protocol: asker.protocol,
            on_failure: window.on_failure,
            arrived: started,
            request_id: asker.request_id,
        };
        let reranked = rerank::rerank(app, &caller, &ranker, request, admitted, shadows).await?;
        self.rankings.put(key, &reranked);
        Ok(reranked)
    }
}

/// Offers what is to be run beside the answers, when they are made.
pub(super) fn offer(app: &Arc<App>, shadows: Shadows) {
    rerank::offer(app, shadows);
}
