//! Calls itself until the stack is full. The host must make a policy fault of it and keep its own
//! stack.

use rerank_policy::{Error, Judgment, Policy, Request};

struct Overflow;

impl Policy for Overflow {
    const MANIFEST: &'static str = faulty::manifest!("overflow");

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let depth = descend(request.documents.len() as u64);
        Ok(vec![Judgment::scored(0, depth as f64)])
    }
}

rerank_policy::export!(Overflow);

/// What follows the call keeps it from becoming a loop; that it could return, from being cut out.
/// It has nothing in memory, so it is the call stack that fills up, not the guest's own stack.
#[inline(never)]
fn descend(depth: u64) -> u64 {
    if depth == u64::MAX {
        return depth;
    }
    let below = descend(depth + 1);
    (below >> 1) ^ below.wrapping_mul(depth)
}
