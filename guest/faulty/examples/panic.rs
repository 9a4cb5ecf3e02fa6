//! Panics. The host must answer with a policy fault that has the message, the file and the line.

use rerank_policy::{Error, Judgment, Policy, Request};

struct Panic;

impl Policy for Panic {
    const MANIFEST: &'static str = faulty::manifest!("panic");

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let n = request.documents.len();
        panic!("cannot rank {n} documents");
    }
}

rerank_policy::export!(Panic);
