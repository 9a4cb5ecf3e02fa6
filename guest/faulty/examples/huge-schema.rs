//! The schema of its parameters has 10 MB. The host must refuse it at load, and read none of it.

use rerank_policy::bindings::exports::rerank::policy::policy::Guest;
use rerank_policy::{Error, Judgment, Request};

struct HugeSchema;

// Not `Policy`, whose manifest is a part of the component.
impl Guest for HugeSchema {
    fn describe() -> String {
        let manifest = faulty::manifest!(
            "huge-schema",
            r#", "parameters": { "type": "object", "description": "MOON" }"#
        );
        manifest.replace("MOON", &"moon".repeat(2_500_000))
    }

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        Ok(faulty::in_order(&request))
    }
}

rerank_policy::export!(HugeSchema);
