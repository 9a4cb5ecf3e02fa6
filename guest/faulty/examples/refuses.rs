//! Finds fault with the request. The host must answer it as a bad request, with the text, not as a
//! policy fault.

use rerank_policy::{Error, Judgment, Policy, Request};

struct Refuses;

impl Policy for Refuses {
    const MANIFEST: &'static str = faulty::manifest!("refuses");

    fn rerank(_request: Request) -> Result<Vec<Judgment>, Error> {
        Err(Error::InvalidRequest("the moon is not full".to_owned()))
    }
}

rerank_policy::export!(Refuses);
