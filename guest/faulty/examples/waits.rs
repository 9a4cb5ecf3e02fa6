//! Embeds all documents again and again, for ever, each time with other texts, so that no cache
//! helps. It spends its whole deadline waiting, next to no CPU time of its own: the host must end
//! it at the deadline, and its rows must not keep others from theirs.

use rerank_policy::{BiEncoder, Error, Judgment, Policy, Request};

struct Waits;

impl Policy for Waits {
    const MANIFEST: &'static str = faulty::manifest!("waits", model);

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let model = BiEncoder::open("bi-encoder")?;
        let texts = faulty::texts(&request);
        for round in 0_u64.. {
            let others: Vec<_> = texts.iter().map(|text| format!("{round} {text}")).collect();
            model.embed(&others)?;
        }
        Ok(faulty::in_order(&request))
    }
}

rerank_policy::export!(Waits);
