//! Leaves the last document out. The host must call it a policy fault.

use rerank_policy::{Error, Judgment, Policy, Request};

struct Missing;

impl Policy for Missing {
    const MANIFEST: &'static str = faulty::manifest!("missing");

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let mut judgments = faulty::in_order(&request);
        judgments.pop();
        Ok(judgments)
    }
}

rerank_policy::export!(Missing);
