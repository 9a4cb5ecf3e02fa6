//! Filters document 0, as its manifest says it may; the others are scored in the order of the
//! request. Not faulty: the host must leave document 0 out.

use rerank_policy::{Error, Judgment, Policy, Request};

struct FiltersAllowed;

impl Policy for FiltersAllowed {
    const MANIFEST: &'static str = faulty::manifest!("filters-allowed", r#", "filters": true"#);

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let mut judgments = faulty::in_order(&request);
        judgments[0] = Judgment::filtered(0);
        Ok(judgments)
    }
}

rerank_policy::export!(FiltersAllowed);
