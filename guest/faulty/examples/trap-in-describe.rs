//! Traps in `describe`. The host must refuse it at load; the version that serves goes on serving.

use rerank_policy::bindings::exports::rerank::policy::policy::Guest;
use rerank_policy::{Error, Judgment, Request};

struct TrapInDescribe;

// Not `Policy`, whose `describe` cannot do anything.
impl Guest for TrapInDescribe {
    fn describe() -> String {
        panic!("nothing to say");
    }

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        Ok(faulty::in_order(&request))
    }
}

rerank_policy::export!(TrapInDescribe);
