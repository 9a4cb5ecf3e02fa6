//! Writes 100,000 log lines of 10 KB each, then ranks in the order of the request. The host must
//! cut the lines, drop all after the first hundred, and keep its memory; the ranking counts if it
//! comes in time.

use rerank_policy::{Error, Judgment, Level, Policy, Request, log};

struct ManyLogs;

impl Policy for ManyLogs {
    const MANIFEST: &'static str = faulty::manifest!("many-logs");

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let line = "x".repeat(10 * 1024);
        for _ in 0..100_000 {
            log(Level::Info, &line);
        }
        Ok(faulty::in_order(&request))
    }
}

rerank_policy::export!(ManyLogs);
