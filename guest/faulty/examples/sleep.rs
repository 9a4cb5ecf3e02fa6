//! Sleeps for an hour in a host call of WASI. Without `allow_wasi` the host must refuse it at
//! load, for it imports more than the contract; with it, the host must end the call at the
//! deadline, and no thread may wait out the hour.

mod wasi {
    wit_bindgen::generate!({ path: "wit", world: "sleeper", generate_all });
}

use rerank_policy::{Error, Judgment, Policy, Request};
use wasi::wasi::clocks::monotonic_clock::subscribe_duration;
use wasi::wasi::io::poll::poll;

struct Sleep;

impl Policy for Sleep {
    const MANIFEST: &'static str = faulty::manifest!("sleep");

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let an_hour = 3_600_000_000_000;
        poll(&[&subscribe_duration(an_hour)]);
        Ok(faulty::in_order(&request))
    }
}

rerank_policy::export!(Sleep);
