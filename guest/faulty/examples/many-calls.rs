//! Calls the tokenizer for ever. The host must stop it at the limit on calls, or at the deadline.

use rerank_policy::bindings::rerank::policy::tokenizer;
use rerank_policy::{Error, Judgment, Policy, Request};

struct ManyCalls;

impl Policy for ManyCalls {
    const MANIFEST: &'static str = faulty::manifest!("many-calls", model);

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let texts = [request.query];
        loop {
            tokenizer::encode_texts("bi-encoder", &texts).map_err(Error::Model)?;
        }
    }
}

rerank_policy::export!(ManyCalls);
