//! Loops for ever in `rerank`. The host must end the call when its CPU budget is spent (a policy
//! fault), and other requests must not notice.

use rerank_policy::{Error, Judgment, Policy, Request};

struct Spin;

impl Policy for Spin {
    const MANIFEST: &'static str = faulty::manifest!("spin");

    fn rerank(_request: Request) -> Result<Vec<Judgment>, Error> {
        loop {
            std::hint::spin_loop();
        }
    }
}

rerank_policy::export!(Spin);
