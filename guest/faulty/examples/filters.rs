//! Filters document 0 though its manifest does not say that it may. The host must call it a policy
//! fault.

use rerank_policy::{Error, Judgment, Policy, Request};

struct Filters;

impl Policy for Filters {
    const MANIFEST: &'static str = faulty::manifest!("filters", r#", "filters": false"#);

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let mut judgments = faulty::in_order(&request);
        judgments[0] = Judgment::filtered(0);
        Ok(judgments)
    }
}

rerank_policy::export!(Filters);
