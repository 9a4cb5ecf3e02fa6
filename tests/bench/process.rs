//! The process as a whole: how soon it is ready, its memory, and several clients at a time.

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::Result;
use crate::measure::Samples;
use crate::server::{Memory, Server};
use crate::texts::Texts;

/// Requests before memory is read.
pub(crate) const REQUESTS: usize = 200;

/// Memory with some number of workers.
pub(crate) struct Workers {
    pub(crate) workers: usize,
    /// When the server was ready.
    pub(crate) ready: Memory,
    /// After [`REQUESTS`].
    pub(crate) after: Memory,
}

/// Throughput with some number of clients.
pub(crate) struct Clients {
    pub(crate) clients: usize,
    pub(crate) documents: usize,
    pub(crate) requests_per_second: f64,
    pub(crate) latency: Samples,
}

/// Times from the start of the process to its greeting, milliseconds.
pub(crate) fn starts(root: &Path, times: usize) -> Result<Samples> {
    let mut samples = Samples::default();
    for _ in 0..times {
        samples.push_time(Server::start(root, &[])?.start);
    }
    Ok(samples)
}

/// Memory with 1 worker and with 8, after requests of 100 titles and of 100 passages in turns.
pub(crate) fn memory(root: &Path, texts: &[Texts], requests: usize) -> Result<Vec<Workers>> {
    let bodies: Vec<Vec<u8>> = texts
        .iter()
        .flat_map(|texts| &texts.searches)
        .map(|search| search.body(search.documents.len()))
        .collect();
    [1, 8]
        .into_iter()
        .map(|workers| {
            let server = Server::start(root, &["--workers", &workers.to_string()])?;
            let client = server.client("semantic-blend");
            let ready = server.memory()?;
            for request in 0..requests {
                client.rerank(&bodies[request % bodies.len()])?;
            }
            let after = server.memory()?;
            eprintln!("  {workers} workers: {after:?}");
            Ok(Workers {
                workers,
                ready,
                after,
            })
        })
        .collect()
}

/// Several clients that each send the next request when the last was answered.
pub(crate) fn concurrency(root: &Path, texts: &Texts, each: Duration) -> Result<Vec<Clients>> {
    let server = Server::start(root, &[])?;
    let mut lines = Vec::new();
    for documents in [10, 100] {
        for clients in [1, 4, 16] {
            let body = texts.searches[0].body(documents);
            let latency = Mutex::new(Samples::default());
            let failure = Mutex::new(None);
            let started = Instant::now();
            std::thread::scope(|scope| {
                for _ in 0..clients {
                    scope.spawn(|| {
                        let client = server.client("semantic-blend");
                        while started.elapsed() < each {
                            match client.rerank(&body) {
                                Ok((took, _)) => {
                                    if let Ok(mut latency) = latency.lock() {
                                        latency.push_time(took);
                                    }
                                }
                                Err(error) => {
                                    if let Ok(mut failure) = failure.lock() {
                                        *failure = Some(error.to_string());
                                    }
                                    return;
                                }
                            }
                        }
                    });
                }
            });
            let took = started.elapsed().as_secs_f64();
            if let Some(failure) = failure.into_inner().map_err(|_| "a client panicked")? {
                return Err(failure.into());
            }
            let latency = latency.into_inner().map_err(|_| "a client panicked")?;
            lines.push(Clients {
                clients,
                documents,
                requests_per_second: latency.len() as f64 / took,
                latency,
            });
        }
    }
    Ok(lines)
}
