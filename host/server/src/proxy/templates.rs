//! Search templates: the engine renders them for the caller, and what comes of it is a search like any
//! other. Where it cannot be rendered, the template goes through as it came.

use bytes::Bytes;
use rerankd_core::{FailReason, SkipReason};
use rerankd_wire::search::{self, ItemPlan, Plan, SearchCall, Template};
use rerankd_wire::status::SearchStatus;

use super::Kind;
use super::exchange::{Exchange, Found, Rendered, Said, Sent};
use super::ranking::Known;
use crate::admission::Permit;

/// Templates of one request that are rendered at the same time.
const CONCURRENT_RENDERINGS: usize = 8;

impl Exchange<'_> {
    /// Has the engine render the template, or each of several, with the caller's credentials.
    ///
    /// # Errors
    /// Why the request goes through as it is.
    pub(super) async fn render(&self, sent: &mut Sent) -> Result<(), SearchStatus<'static>> {
        sent.rendered = Some(self.rendered(sent).await?);
        Ok(())
    }

    async fn rendered(&self, sent: &Sent) -> Result<Rendered, SearchStatus<'static>> {
        let skipped = SearchStatus::Skipped;
        let call = self.call_as_sent(sent);
        let template = Template::read(&call, self.kind == Kind::MultiSearch);
        let template = template.map_err(skipped)?;
        let blank = template.blank();
        self.check(&SearchCall {
            path: template.path,
            body: &blank,
            ..call
        })
        .map_err(skipped)?;
        let renderings = template.renderings();
        let mut said: Vec<Found> = Vec::with_capacity(renderings.len());
        for some in renderings.chunks(CONCURRENT_RENDERINGS) {
            let mut asking = Vec::with_capacity(some.len());
            for rendering in some {
                asking.push(self.ask(rendering, sent));
            }
            for answer in futures_util::future::join_all(asking).await {
                match answer {
                    Ok(Said::Found(found)) => said.push(found),
                    Ok(Said::Again(SearchStatus::Failed(FailReason::Overloaded))) => {
                        return Err(SearchStatus::Failed(FailReason::Overloaded));
                    }
                    Ok(Said::Again(_) | Said::Final(_)) | Err(_) => {
                        return Err(skipped(SkipReason::Template));
                    }
                }
            }
        }
        // What is made of them is no longer than all of them, with the heads that were sent.
        let bytes = said.iter().map(|found| found.body.len()).sum::<usize>() + sent.plain.len();
        let mut room = Permit::default();
        let admitted = self.proxy.app.admission.admit_bytes(&mut room, bytes);
        admitted.map_err(|_| SearchStatus::Failed(FailReason::Overloaded))?;
        let (body, has_options) = template.rendered(&said).map_err(skipped)?;
        Ok(Rendered {
            path: template.path.to_owned(),
            body: Bytes::from(body),
            has_options,
            _room: room,
        })
    }

    /// Whether a search in that place would be reranked if it had a text.
    fn check(&self, blank: &SearchCall<'_>) -> Result<(), SkipReason> {
        let (rules, lookups) = (&self.proxy.rules, &self.proxy.lookups);
        let caller = lookups.caller(&self.head.headers);
        // What a mapping may change is seen when the search is there.
        let known = Known {
            app: &self.proxy.app,
            view: lookups.view(&caller, false),
        };
        let limits = &self.proxy.app.config.limits;
        let mut reasons = Vec::new();
        if self.kind == Kind::MultiSearch {
            // What is wrong with options of ours is said when the search is there.
            let Ok(plan) = search::plan_multi(blank, rules, &known, limits) else {
                return Ok(());
            };
            if plan.hangs_on_mapping {
                return Ok(());
            }
            reasons.extend(plan.passed);
            for item in &plan.items {
                match item {
                    ItemPlan::Pass(reason) => reasons.push(*reason),
                    ItemPlan::Own(_) | ItemPlan::Rerank(_) => return Ok(()),
                }
            }
        } else {
            match search::plan(blank, rules, &known, limits) {
                Ok(plan) if plan.hangs_on_mapping() => return Ok(()),
                Ok(Plan::Pass(pass)) => reasons.push(pass.reason),
                Ok(Plan::Rerank(_)) | Err(_) => return Ok(()),
            }
        }
        match reasons.iter().all(|reason| *reason != SkipReason::NoQuery) {
            true => Err(reasons.first().copied().unwrap_or(SkipReason::Template)),
            false => Ok(()),
        }
    }
}
