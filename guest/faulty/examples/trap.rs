//! Executes `unreachable` without a panic. The host must make a policy fault of it.

use rerank_policy::{Error, Judgment, Policy, Request};

struct Trap;

impl Policy for Trap {
    const MANIFEST: &'static str = faulty::manifest!("trap");

    fn rerank(_request: Request) -> Result<Vec<Judgment>, Error> {
        #[cfg(target_arch = "wasm32")]
        core::arch::wasm32::unreachable();
        #[cfg(not(target_arch = "wasm32"))]
        std::process::abort();
    }
}

rerank_policy::export!(Trap);
