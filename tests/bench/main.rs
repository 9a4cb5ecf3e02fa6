//! `make bench`: rerankd side by side with bare ONNX Runtime, and its process as a whole. Prints what
//! it does, and writes the tables into `docs/benchmarks.md`, between its markers.
//!
//! Knows the binary and HTTP only. What is measured inside the process comes from
//! `host/server/benches/in_process.rs`, as a file. `run.sh` runs both, and then the part about releases,
//! which can be run alone (`make bench-releases`).

mod bare;
mod caches;
mod client;
mod end_to_end;
mod footprint;
mod hostile;
mod load;
mod machine;
mod measure;
mod passing;
mod plugin;
mod process;
mod proxy;
mod releases;
mod report;
mod server;
mod soak;
mod texts;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use machine::Processors;

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let [what, page] = &std::env::args().skip(1).collect::<Vec<_>>()[..] else {
        eprintln!(
            "usage: rerankd-bench IN_PROCESS.json|releases|proxy|caches|plugin|load|footprint|hostile|soak PAGE.md (see run.sh)"
        );
        return ExitCode::from(2);
    };
    let done = match what.as_str() {
        "releases" => run_part(Path::new(page), Part::Releases),
        "proxy" => run_part(Path::new(page), Part::Proxy),
        "load" => run_part(Path::new(page), Part::Load),
        "footprint" => run_part(Path::new(page), Part::Footprint),
        "hostile" => run_part(Path::new(page), Part::Hostile),
        "soak" => run_part(Path::new(page), Part::Soak),
        "plugin" => run_part(Path::new(page), Part::Plugin),
        "caches" => run_part(Path::new(page), Part::Caches),
        in_process => run(Path::new(in_process), Path::new(page)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A part of the page that has markers of its own and can be measured alone.
#[derive(Clone, Copy)]
enum Part {
    Releases,
    Proxy,
    Load,
    Footprint,
    Hostile,
    Soak,
    Plugin,
    Caches,
}

fn run_part(page: &Path, part: Part) -> Result<()> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = tests.parent().ok_or("tests/ lies in no folder")?;
    let machine = machine::describe(root);
    let texts = texts::load(&tests.join("bench/texts"))?;
    let before = Processors::read(&[])?;
    let machine = || machine::with_others(machine, &before);
    let (marker, tables) = match part {
        Part::Releases => {
            let findings = releases::measure(root, &texts[0], is_quick())?;
            (releases::MARKER, findings.render(&machine()?)?)
        }
        Part::Proxy => {
            let findings = proxy::measure(root, &texts[0], is_quick())?;
            (proxy::MARKER, findings.render(&machine()?)?)
        }
        Part::Caches => {
            let findings = caches::measure(root, &texts, is_quick())?;
            (caches::MARKER, findings.render(&machine()?)?)
        }
        Part::Load => {
            let findings = load::measure(root, &texts[0], is_quick())?;
            (load::MARKER, findings.render(&machine()?)?)
        }
        Part::Footprint => {
            let findings = footprint::measure(root, &texts[0], is_quick())?;
            (footprint::MARKER, findings.render(&machine()?)?)
        }
        Part::Hostile => {
            let findings = hostile::measure(root, &texts[0], is_quick())?;
            (hostile::MARKER, findings.render(&machine()?)?)
        }
        Part::Soak => {
            let findings = soak::measure(root, &texts[0], is_quick())?;
            (soak::MARKER, findings.render(&machine()?)?)
        }
        Part::Plugin => {
            let findings = plugin::measure(root, &texts[0], is_quick())?;
            (plugin::MARKER, findings.render(&machine()?)?)
        }
    };
    report::replace(page, marker, &tables)?;
    eprintln!("wrote {}", page.display());
    Ok(())
}

/// Whether it is only tried out.
fn is_quick() -> bool {
    std::env::var_os("BENCH_QUICK").is_some()
}

fn run(in_process: &Path, page: &Path) -> Result<()> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = tests.parent().ok_or("tests/ lies in no folder")?;
    let quick = is_quick();
    let seconds = |full| Duration::from_secs(if quick { 2 } else { full });
    let machine = machine::describe(root);
    let before = Processors::read(&[])?;
    let texts = texts::load(&tests.join("bench/texts"))?;
    let library = std::env::var_os("ORT_DYLIB_PATH").map_or_else(
        || root.join(".runtime/onnxruntime/libonnxruntime.so"),
        PathBuf::from,
    );
    let environment = ort::init_from(library)?.with_telemetry(false).build()?;

    eprintln!("end to end, in turns with bare ONNX Runtime:");
    let end_to_end = end_to_end::measure(root, &environment, &texts, seconds(30))?;
    eprintln!("start:");
    let starts = process::starts(root, if quick { 3 } else { 9 })?;
    eprintln!("memory after {} requests:", process::REQUESTS);
    let requests = if quick { 20 } else { process::REQUESTS };
    let memory = process::memory(root, &texts, requests)?;
    eprintln!("several clients:");
    let clients = process::concurrency(root, &texts[0], seconds(10))?;

    report::write(
        page,
        &report::Findings {
            machine: machine::with_others(machine, &before)?,
            end_to_end,
            starts,
            memory,
            clients,
            in_process: serde_json::from_slice(&std::fs::read(in_process)?)?,
            quick,
        },
    )?;
    eprintln!("wrote {}", page.display());
    Ok(())
}
