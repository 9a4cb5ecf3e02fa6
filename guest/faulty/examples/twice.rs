//! Judges document 0 twice and leaves the last one out, so that the number of judgments is right.
//! With one document it judges that twice. The host must call it a policy fault.

use rerank_policy::{Error, Judgment, Policy, Request};

struct Twice;

impl Policy for Twice {
    const MANIFEST: &'static str = faulty::manifest!("twice");

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let mut judgments = faulty::in_order(&request);
        if judgments.len() > 1 {
            judgments.pop();
        }
        judgments.push(Judgment::scored(0, 0.5));
        Ok(judgments)
    }
}

rerank_policy::export!(Twice);
