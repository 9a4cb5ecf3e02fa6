//! Document 0 has the score NaN, the others 1 / (1 + index). The host must take document 0 as
//! `unscored("not-finite")`, put it behind the others, and call the ranking partial.

use rerank_policy::{Error, Judgment, Policy, Request};

struct OneNan;

impl Policy for OneNan {
    const MANIFEST: &'static str = faulty::manifest!("one-nan");

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let judge = |index: u32| match index {
            0 => Judgment::scored(index, f64::NAN),
            _ => Judgment::scored(index, 1.0 / (1.0 + f64::from(index))),
        };
        Ok((0..request.documents.len() as u32).map(judge).collect())
    }
}

rerank_policy::export!(OneNan);
