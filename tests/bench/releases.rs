//! Releases while searches run: swaps, the memory of many swaps, a large component that compiles
//! meanwhile, and what the single steps of a release take. Slices with and without what is measured
//! take turns, under the same load.

mod load;
mod report;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rerankd_tests::guests::with_version;
use serde_json::Value;

use crate::Result;
use crate::measure::Samples;
use crate::server::{Admin, Server};
use crate::texts::Texts;
use load::{Load, Outcome};

/// What the page's markers say.
pub(crate) const MARKER: &str = "`make bench-releases`";

const POLICY: &str = "semantic-blend";

/// Documents of a request.
const DOCUMENTS: usize = 10;

/// The parameters of the two versions.
const WEIGHTS: [f64; 2] = [0.2, 0.8];

/// Between two swaps.
const SWAP_GAP: Duration = Duration::from_millis(200);

/// One slice of a comparison with swaps and without.
const SLICE: Duration = Duration::from_secs(5);

/// A slice without a compilation; one with it is as long as that takes.
const LONG_SLICE: Duration = Duration::from_secs(20);

/// Swaps before memory is read for the first time.
const WARM_UP: usize = 500;

/// The steps of a release, as the log names them.
const STEPS: [&str; 7] = [
    "inspect", "compile", "describe", "models", "cases", "stage", "activate",
];

/// Everything that was measured.
pub(crate) struct Findings {
    /// Requests a second.
    rate: f64,
    /// Documents that tell the versions apart, and all.
    telling: (usize, usize),
    swaps: Compared,
    /// Of one swap, as the admin plane's client sees it, milliseconds.
    swap: Samples,
    memory: Memory,
    compile: Compared,
    component_bytes: usize,
    /// From the upload's start to its answer, seconds.
    uploads: Samples,
    /// By [`STEPS`], milliseconds.
    steps: Vec<(&'static str, Samples)>,
    /// From the request to the answer.
    whole: Samples,
    quick: bool,
}

/// The same load without something and with it.
#[derive(Default)]
struct Compared {
    without: Outcome,
    with: Outcome,
}

/// Resident memory, MiB, after so many swaps.
struct Memory {
    readings: Vec<(usize, f64)>,
    swaps_per_second: f64,
    load: Outcome,
}

/// Measures all of it.
pub(crate) fn measure(root: &Path, texts: &Texts, quick: bool) -> Result<Findings> {
    let folder = Folder::new(root.join("target/tmp/rerankd-bench/releases"))?;
    let log = folder.0.join("log");
    // A busy machine shall be slow here, not refuse.
    let flags = ["--log", "error", "--compile-timeout-ms", "600000"];
    let server = Server::start_on(root, &folder.0.join("data"), &log, &flags)?;
    let admin = server.admin();
    let blend = component(&root.join(format!("guest/dist/policies/{POLICY}.wasm")))?;
    let digests = WEIGHTS
        .iter()
        .map(|weight| {
            // `{"weight":0.2}`
            let query = format!("parameters=%7B%22weight%22%3A{weight}%7D");
            admin.upload(POLICY, &query, &blend)
        })
        .collect::<Result<Vec<_>>>()?;
    admin.activate(POLICY, &digests[0])?;
    let bodies = texts.searches.iter().map(|search| search.body(DOCUMENTS));
    let load = Load::new(&server, POLICY, &digests, bodies.collect())?;
    let mut swaps = Swaps {
        admin: &admin,
        digests: &digests,
        done: 0,
    };
    eprintln!("swaps, at {:.0} requests/s:", load.rate());
    let (compared, swap) = swapping(&load, &mut swaps, if quick { 1 } else { 6 })?;
    eprintln!("memory over many swaps:");
    let memory = memory(
        &server,
        &load,
        &mut swaps,
        if quick { 1000 } else { 10_500 },
    )?;
    eprintln!("a large component that compiles meanwhile:");
    let large = large(root, &blend)?;
    let (compile, uploads) = compiling(&load, &admin, &large, if quick { 1 } else { 3 })?;
    drop(server);
    eprintln!("steps of a release:");
    let (steps, whole) = steps(root, &folder.0, &blend, if quick { 3 } else { 15 })?;
    Ok(Findings {
        rate: load.rate(),
        telling: load.telling(),
        swaps: compared,
        swap,
        memory,
        compile,
        component_bytes: large.len(),
        uploads,
        steps,
        whole,
        quick,
    })
}

/// Swaps two versions.
struct Swaps<'a> {
    admin: &'a Admin,
    digests: &'a [String],
    done: usize,
}

impl Swaps<'_> {
    fn swap(&mut self) -> Result<Duration> {
        self.done += 1;
        let digest = &self.digests[self.done % self.digests.len()];
        self.admin.activate(POLICY, digest)
    }
}

/// Slices without swaps and with one every [`SWAP_GAP`].
fn swapping(load: &Load, swaps: &mut Swaps<'_>, rounds: u64) -> Result<(Compared, Samples)> {
    let (mut compared, mut swap) = (Compared::default(), Samples::default());
    for round in 0..rounds {
        let end = Instant::now() + SLICE;
        compared
            .without
            .add(load.run(round, || Instant::now() < end)?);
        let with = beside(load, round, || {
            let started = Instant::now();
            for number in 1.. {
                let due = started + SWAP_GAP * number;
                if due >= started + SLICE {
                    break;
                }
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                swap.push_time(swaps.swap()?);
            }
            Ok(())
        })?;
        compared.with.add(with);
        compared.tell();
    }
    Ok((compared, swap))
}

/// As many swaps as there can be, one after the other.
fn memory(server: &Server, load: &Load, swaps: &mut Swaps<'_>, all: usize) -> Result<Memory> {
    let mut readings = Vec::new();
    let started = Instant::now();
    let outcome = beside(load, 0, || {
        for number in 1..=all {
            swaps.swap()?;
            if number == WARM_UP || number % 1000 == 0 || number == all {
                let resident = server.memory()?.resident;
                eprintln!("  after {number}: {resident:.1} MiB");
                readings.push((number, resident));
            }
        }
        Ok(())
    })?;
    Ok(Memory {
        readings,
        swaps_per_second: all as f64 / started.elapsed().as_secs_f64(),
        load: outcome,
    })
}

/// Slices without a compilation and with one.
fn compiling(load: &Load, admin: &Admin, large: &[u8], rounds: u64) -> Result<(Compared, Samples)> {
    let (mut compared, mut uploads) = (Compared::default(), Samples::default());
    for round in 0..rounds {
        let end = Instant::now() + LONG_SLICE;
        compared
            .without
            .add(load.run(round, || Instant::now() < end)?);
        // Another version string, another digest: nothing that was compiled before fits.
        let component = with_version(large, &format!("9.9.{round}"));
        let with = beside(load, round, || {
            let started = Instant::now();
            admin.upload(POLICY, "activate=false", &component)?;
            uploads.push(started.elapsed().as_secs_f64());
            Ok(())
        })?;
        compared.with.add(with);
        compared.tell();
    }
    Ok((compared, uploads))
}

/// The load for as long as `work` takes.
fn beside(load: &Load, seed: u64, work: impl FnOnce() -> Result<()>) -> Result<Outcome> {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            let outcome = load.run(seed, || !done.load(Ordering::Relaxed));
            outcome.map_err(|error| error.to_string())
        });
        let result = work();
        done.store(true, Ordering::Relaxed);
        let outcome = running.join().map_err(|_| "a client panicked")??;
        result.map(|()| outcome)
    })
}

/// What the log says of releases of components that are new each time.
fn steps(
    root: &Path,
    folder: &Path,
    component: &[u8],
    times: usize,
) -> Result<(Vec<(&'static str, Samples)>, Samples)> {
    let log = folder.join("steps");
    let flags = ["--log", "rerankd_policy=debug", "--log-format", "json"];
    let server = Server::start_on(root, &folder.join("data-of-steps"), &log, &flags)?;
    let admin = server.admin();
    let mut whole = Samples::default();
    for number in 0..times {
        let component = with_version(component, &format!("8.{}.{}", number / 10, number % 10));
        let started = Instant::now();
        admin.upload(POLICY, "activate=true", &component)?;
        whole.push_time(started.elapsed());
    }
    drop(server);
    let text = std::fs::read_to_string(&log)?;
    let lines: Vec<Value> = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .filter(|line: &Value| line["message"] == "released")
        .collect();
    let uploads = lines.len().saturating_sub(times);
    let steps = STEPS.map(|step| {
        let key = format!("{step}_ms");
        let of = |line: &Value| line[&key].as_f64();
        (step, lines[uploads..].iter().filter_map(of).collect())
    });
    Ok((steps.into(), whole))
}

/// A component of some 40 MiB whose code is real: the policy, and nested in it, where nobody calls
/// them, the same policy in Python and twice in JavaScript.
fn large(root: &Path, policy: &[u8]) -> Result<Vec<u8>> {
    let mut large = policy.to_vec();
    for language in ["python", "javascript", "javascript"] {
        let path = root.join(format!("guest/dist/examples/{POLICY}-{language}.wasm"));
        let nested = component(&path)?;
        // A section with id 4 is a component; its length is LEB128.
        large.push(4);
        let mut length = nested.len();
        while length >= 0x80 {
            large.push((length & 0x7f) as u8 | 0x80);
            length >>= 7;
        }
        large.push(length as u8);
        // Cases of a nested component are nobody's, and its version string must not be found.
        large.extend(without_version(&nested));
    }
    Ok(large)
}

/// The nested policies' manifests must not look like the outer one's.
fn without_version(component: &[u8]) -> Vec<u8> {
    const KEY: &[u8] = b"\"version\": \"0.1.0\"";
    let mut component = component.to_vec();
    let found = (0..component.len()).filter(|&at| component[at..].starts_with(KEY));
    for at in found.collect::<Vec<_>>() {
        component[at + KEY.len() - 2] = b'9';
    }
    component
}

fn component(path: &Path) -> Result<Vec<u8>> {
    let error = |error| format!("{}: {error} (`make policies examples`)", path.display());
    Ok(std::fs::read(path).map_err(error)?)
}

impl Compared {
    /// The 99th percentile with against that without.
    fn ratio(&self) -> f64 {
        self.with.latency.quantile(0.99) / self.without.latency.quantile(0.99)
    }

    fn lost(&self) -> usize {
        self.without.lost + self.with.lost
    }

    fn mixed(&self) -> usize {
        self.without.mixed + self.with.mixed
    }

    fn tell(&self) {
        eprintln!(
            "  99 % in {:.1} ms, without {:.1} ms, ratio {:.3}; lost {}, mixed {} {:?}",
            self.with.latency.quantile(0.99),
            self.without.latency.quantile(0.99),
            self.ratio(),
            self.lost(),
            self.mixed(),
            self.with.problem.as_ref().or(self.without.problem.as_ref()),
        );
    }
}

/// An empty folder, removed at drop.
struct Folder(PathBuf);

impl Folder {
    fn new(path: PathBuf) -> Result<Self> {
        if path.exists() {
            std::fs::remove_dir_all(&path)?;
        }
        std::fs::create_dir_all(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // What is left goes before the next run.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
