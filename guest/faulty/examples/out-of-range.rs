//! Judges a document that the request does not have: the last judgment has the index n of n
//! documents. The host must call it a policy fault.

use rerank_policy::{Error, Judgment, Policy, Request};

struct OutOfRange;

impl Policy for OutOfRange {
    const MANIFEST: &'static str = faulty::manifest!("out-of-range");

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let mut judgments = faulty::in_order(&request);
        if let Some(last) = judgments.last_mut() {
            last.index += 1;
        }
        Ok(judgments)
    }
}

rerank_policy::export!(OutOfRange);
