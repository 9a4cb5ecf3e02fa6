//! All scores are NaN. Every document had text and no row was late, so the host must call it a
//! policy fault: no document has a finite score.

use rerank_policy::{Error, Judgment, Policy, Request};

struct Nan;

impl Policy for Nan {
    const MANIFEST: &'static str = faulty::manifest!("nan");

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let indexes = 0..request.documents.len() as u32;
        Ok(indexes
            .map(|index| Judgment::scored(index, f64::NAN))
            .collect())
    }
}

rerank_policy::export!(Nan);
