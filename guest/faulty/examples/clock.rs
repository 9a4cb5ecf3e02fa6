//! Reads the clock and 16 random bytes, both twice, through WASI. Without `allow_wasi` the host
//! must refuse it at load; with it, the clock must stand still and the bytes be the same in every
//! call. Every document has the score 0 - index and, as explanation, what it saw: `{"now":
//! [[seconds, nanoseconds], [..]], "random": [[byte, ..], [..]]}`.

mod wasi {
    wit_bindgen::generate!({ path: "wit", world: "clock-reader", generate_all });
}

use rerank_policy::{Error, Judgment, Policy, Request};
use wasi::wasi::clocks::wall_clock;
use wasi::wasi::random::random::get_random_bytes;

struct Clock;

impl Policy for Clock {
    const MANIFEST: &'static str = faulty::manifest!("clock");

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let time = || {
            let now = wall_clock::now();
            (now.seconds, now.nanoseconds)
        };
        let seen = serde_json::json!({
            "now": [time(), time()],
            "random": [get_random_bytes(16), get_random_bytes(16)],
        });
        let judge = |index| {
            Judgment::scored(index, 0.0 - f64::from(index)).with_explanation(seen.to_string())
        };
        Ok((0..request.documents.len() as u32).map(judge).collect())
    }
}

rerank_policy::export!(Clock);
