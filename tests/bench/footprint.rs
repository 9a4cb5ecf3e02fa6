//! What the server takes as it comes: time until it listens, memory with its caches on, its size on disk.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::Result;
use crate::load::{Bodies, Client};
use crate::machine::Facts;
use crate::measure::Samples;
use crate::report::QUICK;
use crate::server::{Memory, Server};
use crate::texts::Texts;

/// What the page's markers say.
pub(crate) const MARKER: &str = "`make bench-footprint`";

/// Requests before memory is read, and documents in each; none was seen before.
const REQUESTS: usize = 200;
const DOCUMENTS: usize = 100;

/// Requests that fill the cache file: about as many documents as it keeps.
const TO_FILL: usize = 750;

/// Limits of the goals.
const READY_MS: f64 = 1000.0;
const RESIDENT_MIB: f64 = 150.0;

/// What was seen.
pub(crate) struct Findings {
    starts: Samples,
    /// On an empty data folder.
    first_starts: Samples,
    /// With a cache file that is full, and how large that is, MiB.
    starts_with_file: Samples,
    file_mib: f64,
    ready: Memory,
    after: Memory,
    binary_mib: f64,
    quick: bool,
}

/// Starts it some times, and keeps it busy once.
pub(crate) fn measure(root: &Path, texts: &Texts, quick: bool) -> Result<Findings> {
    let times = if quick { 3 } else { 15 };
    eprintln!("start:");
    let first_starts = starts(times, || Server::start_first(root))?;
    let starts = starts(times, || Server::start_with_caches(root, &[]))?;
    eprintln!("memory:");
    let server = Server::start_with_caches(root, &[])?;
    let ready = server.memory()?;
    ask(&server, texts, if quick { 20 } else { REQUESTS }, DOCUMENTS)?;
    let after = server.memory()?;
    drop(server);

    eprintln!("start with a cache file:");
    let file = root.join("target/tmp/rerankd-bench/rows.cache");
    if file.exists() {
        std::fs::remove_file(&file)?;
    }
    let flag = [
        "--cache-file",
        file.to_str().ok_or("a path that is no text")?,
    ];
    let server = Server::start_with_caches(root, &flag)?;
    ask(&server, texts, if quick { 2 } else { TO_FILL }, DOCUMENTS)?;
    drop(server);
    let starts_with_file = self::starts(times, || Server::start_with_caches(root, &flag))?;
    Ok(Findings {
        starts,
        first_starts,
        starts_with_file,
        file_mib: mebibytes(&file)?,
        ready,
        after,
        binary_mib: mebibytes(&root.join("target/release/rerankd"))?,
        quick,
    })
}

/// Milliseconds from the start of the process to the line that says that it listens.
fn starts(times: usize, start: impl Fn() -> Result<Server>) -> Result<Samples> {
    let mut samples = Samples::default();
    for _ in 0..times {
        samples.push_time(start()?.start);
    }
    Ok(samples)
}

fn ask(server: &Server, texts: &Texts, requests: usize, documents: usize) -> Result<()> {
    let (bodies, client) = (Bodies::new(texts), Client::new(server));
    let started = Instant::now();
    for _ in 0..requests {
        let (status, _) = client.send(&bodies.next(documents, Duration::from_secs(60)))?;
        if status != 200 {
            return Err(format!("status {status} after {:?}", started.elapsed()).into());
        }
    }
    Ok(())
}

fn mebibytes(file: &Path) -> Result<f64> {
    Ok(std::fs::metadata(file)?.len() as f64 / f64::from(1 << 20))
}

impl Findings {
    /// All tables.
    pub(crate) fn render(&self, machine: &Facts) -> Result<String> {
        let mut page = String::new();
        if self.quick {
            page.push_str(QUICK);
        }
        let date = machine.iter().find(|(name, _)| *name == "date");
        let date = date.map_or("", |(_, date)| date.as_str());
        let (start, resident) = (self.starts.median(), self.after.resident);
        let met = |met: bool| if met { "met" } else { "**missed**" };
        write!(
            page,
            "{date}\n\n\
             | goal | limit | measured | |\n|---|---|---|---|\n\
             | start to listening, median | {READY_MS:.0} ms | {start:.0} ms | {} |\n\
             | resident after {REQUESTS} requests of {DOCUMENTS} new titles | {RESIDENT_MIB:.0} MiB | {resident:.0} MiB | {} |\n\n\
             | | |\n|---|---|\n\
             | start to listening, the slowest | {:.0} ms |\n\
             | the first start, which compiles the policies, median | {:.0} ms |\n\
             | start with a cache file of {:.0} MiB, median | {:.0} ms |\n\
             | resident when ready | {:.0} MiB |\n\
             | resident at most until then | {:.0} MiB |\n\
             | of what is resident, not pages of files | {:.0} MiB |\n\
             | the binary, with its policies, its admin page and the template of a policy | {:.1} MiB |",
            met(start <= READY_MS),
            met(resident <= RESIDENT_MIB),
            self.starts.quantile(1.0),
            self.first_starts.median(),
            self.file_mib,
            self.starts_with_file.median(),
            self.ready.resident,
            self.after.peak,
            self.after.anonymous,
            self.binary_mib,
        )?;
        Ok(page)
    }
}
