//! Its manifest is not JSON. The host must refuse it at load.

use rerank_policy::{Error, Judgment, Policy, Request};

struct NotJson;

impl Policy for NotJson {
    const MANIFEST: &'static str = "hello";

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        Ok(faulty::in_order(&request))
    }
}

rerank_policy::export!(NotJson);
