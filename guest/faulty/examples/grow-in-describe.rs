//! Wants more and more memory in `describe`. The host must refuse it at load, in bounded memory; the
//! version that serves goes on serving.

use rerank_policy::bindings::exports::rerank::policy::policy::Guest;
use rerank_policy::{Error, Judgment, Request};

struct GrowInDescribe;

// Not `Policy`, whose `describe` cannot do anything.
impl Guest for GrowInDescribe {
    fn describe() -> String {
        let mut text = String::new();
        loop {
            text.push_str(&"moon".repeat(1 << 18));
        }
    }

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        Ok(faulty::in_order(&request))
    }
}

rerank_policy::export!(GrowInDescribe);
