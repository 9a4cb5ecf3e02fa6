//! Allocates memory for ever and touches all of it. The host must stop it at the memory limit.
//! Rust aborts when an allocation fails, so the instance traps with `unreachable` and no panic
//! message: only the host knows that it was the limit.

use rerank_policy::{Error, Judgment, Policy, Request};

struct Grow;

impl Policy for Grow {
    const MANIFEST: &'static str = faulty::manifest!("grow");

    fn rerank(_request: Request) -> Result<Vec<Judgment>, Error> {
        let mut blocks = Vec::new();
        loop {
            blocks.push(vec![1_u8; 1 << 20]);
            std::hint::black_box(&blocks);
        }
    }
}

rerank_policy::export!(Grow);
