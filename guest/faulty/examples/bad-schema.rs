//! The schema of its parameters is no JSON Schema. The host must refuse it at load.

use rerank_policy::{Error, Judgment, Policy, Request};

struct BadSchema;

impl Policy for BadSchema {
    const MANIFEST: &'static str =
        faulty::manifest!("bad-schema", r#", "parameters": { "type": 12 }"#);

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        Ok(faulty::in_order(&request))
    }
}

rerank_policy::export!(BadSchema);
