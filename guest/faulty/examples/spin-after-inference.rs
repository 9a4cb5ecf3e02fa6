//! Embeds the documents once and then loops for ever. The host must end the call when its CPU
//! budget is spent: the time that it waited for its rows is not charged, the loop is.

use rerank_policy::{BiEncoder, Error, Judgment, Policy, Request};

struct SpinAfterInference;

impl Policy for SpinAfterInference {
    const MANIFEST: &'static str = faulty::manifest!("spin-after-inference", model);

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        BiEncoder::open("bi-encoder")?.embed(&faulty::texts(&request))?;
        loop {
            std::hint::spin_loop();
        }
    }
}

rerank_policy::export!(SpinAfterInference);
