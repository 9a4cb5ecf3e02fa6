//! Loops for ever in `describe`. The host must refuse it at load, in bounded time; the version that
//! serves goes on serving.

use rerank_policy::bindings::exports::rerank::policy::policy::Guest;
use rerank_policy::{Error, Judgment, Request};

struct SpinInDescribe;

// Not `Policy`, whose `describe` cannot do anything.
impl Guest for SpinInDescribe {
    fn describe() -> String {
        loop {
            std::hint::spin_loop();
        }
    }

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        Ok(faulty::in_order(&request))
    }
}

rerank_policy::export!(SpinInDescribe);
