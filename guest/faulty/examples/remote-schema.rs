//! The schema of its parameters refers to another host. The host must refuse it at load, without a
//! request to anywhere.

use rerank_policy::{Error, Judgment, Policy, Request};

struct RemoteSchema;

impl Policy for RemoteSchema {
    const MANIFEST: &'static str = faulty::manifest!(
        "remote-schema",
        r#", "parameters": { "$ref": "https://example.com/schema.json" }"#
    );

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        Ok(faulty::in_order(&request))
    }
}

rerank_policy::export!(RemoteSchema);
