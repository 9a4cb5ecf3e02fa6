//! Its manifest has a key that no manifest has. The host must refuse it at load and name the key.

use rerank_policy::{Error, Judgment, Policy, Request};

struct UnknownKey;

impl Policy for UnknownKey {
    const MANIFEST: &'static str = faulty::manifest!("unknown-key", r#", "moon": "full""#);

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        Ok(faulty::in_order(&request))
    }
}

rerank_policy::export!(UnknownKey);
