//! Fails and says so. The host must call it a policy fault, with the text.

use rerank_policy::{Error, Judgment, Policy, Request};

struct Internal;

impl Policy for Internal {
    const MANIFEST: &'static str = faulty::manifest!("internal");

    fn rerank(_request: Request) -> Result<Vec<Judgment>, Error> {
        Err(Error::Internal("the moon fell down".to_owned()))
    }
}

rerank_policy::export!(Internal);
