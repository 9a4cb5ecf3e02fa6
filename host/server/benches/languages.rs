//! What a policy costs in other languages than Rust: the same policy, from each toolchain, in turns in
//! one process. `make bench-languages` writes its tables into docs/benchmarks.md.
//!
//! Compiling happens in a child process at the lowest priority, as it does when a policy is deployed:
//! `languages --compile IN.wasm OUT`.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use rerankd_core::{Document, Field, FirstStage, Limits, RerankRequest, Value};
use rerankd_inference::{CacheSettings, Deadline, Inference, InferenceConfig};
use rerankd_policy::artifact::Artifact;
use rerankd_policy::version::CompiledPolicy;
use rerankd_policy::{Invoked, PolicyEngine, PolicyOptions, PolicyVersion, TrafficBook, invoke};
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

/// Internal argument: compile a component, print what that took.
const COMPILE: &str = "--compile";

/// The languages, that which the others are compared with first, and each one's component.
const LANGUAGES: [(&str, &str); 3] = [
    ("Rust", "policies/semantic-blend"),
    ("Python", "examples/semantic-blend-python"),
    ("JavaScript", "examples/semantic-blend-javascript"),
];

/// Around what this writes.
const BEGIN: &str = "<!-- written by `make bench-languages`: begin -->\n";
const END: &str = "<!-- written by `make bench-languages`: end -->";

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [flag, component, out] = &arguments[..]
        && flag == COMPILE
    {
        return compile(component.as_ref(), out.as_ref());
    }
    // `cargo test --benches` runs this too, to see that it works.
    let once = !arguments.iter().any(|argument| argument == "--bench");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let bench = Bench::start(&root, once)?;
    let mut tables = String::new();
    bench.components(&mut tables)?;
    bench.calls(&mut tables)?;
    print!("{tables}");
    match arguments.iter().find(|argument| argument.ends_with(".md")) {
        Some(page) => write_into(&root.join(page), &tables),
        None => Ok(()),
    }
}

struct Bench {
    root: PathBuf,
    once: bool,
    runtime: tokio::runtime::Runtime,
    engine: Arc<PolicyEngine>,
    inference: Arc<Inference>,
    limits: Limits,
}

impl Bench {
    fn start(root: &Path, once: bool) -> anyhow::Result<Self> {
        let limits = Limits {
            // What they need is measured, and may be more than they get by default.
            guest_cpu: Duration::from_secs(10),
            ..Limits::default()
        };
        let library = std::env::var_os("ORT_DYLIB_PATH").map_or_else(
            || root.join(".runtime/onnxruntime/libonnxruntime.so"),
            PathBuf::from,
        );
        let engine = PolicyEngine::new(&limits, 2).map_err(|error| anyhow::anyhow!("{error:#}"))?;
        Ok(Self {
            root: root.to_owned(),
            once,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .build()?,
            engine: Arc::new(engine),
            inference: Arc::new(Inference::start(&InferenceConfig {
                openvino: None,
                onnxruntime: vec![library],
                model_folders: vec![root.join("models")],
                models: vec!["all-minilm-l6-v2".to_owned()],
                check_file: |_| Ok(()),
                workers: None,
                caches: CacheSettings::OFF,
            })?),
            limits,
        })
    }

    fn times(&self, full: usize) -> usize {
        match (self.once, std::env::var_os("BENCH_QUICK").is_some()) {
            (true, _) => 1,
            (false, true) => full.div_ceil(5),
            (false, false) => full,
        }
    }

    fn path(&self, component: &str) -> PathBuf {
        self.root.join(format!("guest/dist/{component}.wasm"))
    }

    /// Size, compiling, loading what was compiled, instances.
    fn components(&self, tables: &mut String) -> anyhow::Result<()> {
        tables.push_str(
            "Compiling in a child process with `nice -n 19`, with one thread and with two: how long it took, \
             its CPU time (which is what counts where others want the cores), and its most resident \
             memory. Then what happens with the compiled code.\n\n\
             | | component | compiled | 1 thread | CPU | memory | 2 threads | CPU | memory | read back \
             | store, instance and drop |\n|---|---|---|---|---|---|---|---|---|---|---|\n",
        );
        let folder = self.root.join("target/bench");
        std::fs::create_dir_all(&folder)?;
        let out = folder.join("language.cwasm");
        for (language, component) in LANGUAGES {
            let path = self.path(component);
            let alone = self.compile_in_child(&path, &out, 1)?;
            let both = self.compile_in_child(&path, &out, 2)?;
            let engine = pooled_engine()?;
            let mut reads = Vec::new();
            for _ in 0..self.times(21) {
                let started = Instant::now();
                // SAFETY: this process's own child has just written the file, for the same engine.
                let component = unsafe { Component::deserialize_file(&engine, &out) };
                component.map_err(|error| anyhow::anyhow!("{error:#}"))?;
                reads.push(started.elapsed().as_secs_f64());
            }
            let instance = instantiate(&engine, &out, self.times(1000))?;
            writeln!(
                tables,
                "| {language} | {} | {} | {} | {} | {} | {} |",
                mib(std::fs::metadata(&path)?.len()),
                mib(std::fs::metadata(&out)?.len()),
                alone.cells(),
                both.cells(),
                seconds(median(&mut reads)),
                seconds(instance),
            )?;
        }
        Ok(())
    }

    fn compile_in_child(
        &self,
        component: &Path,
        out: &Path,
        threads: usize,
    ) -> anyhow::Result<Compiled> {
        let mut runs = Vec::new();
        for _ in 0..self.times(3) {
            let output = Command::new("nice")
                .args(["-n", "19"])
                .arg(std::env::current_exe()?)
                .arg(COMPILE)
                .args([component, out])
                .env("RAYON_NUM_THREADS", threads.to_string())
                .output()?;
            let said = String::from_utf8_lossy(&output.stdout);
            let numbers: Vec<f64> = said
                .split_whitespace()
                .map_while(|word| word.parse().ok())
                .collect();
            let [seconds, cpu_seconds, peak_bytes] = numbers[..] else {
                anyhow::bail!("compiling: {}", String::from_utf8_lossy(&output.stderr));
            };
            runs.push(Compiled {
                seconds,
                cpu_seconds,
                peak_bytes,
            });
        }
        runs.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
        Ok(runs.swap_remove(runs.len() / 2))
    }

    /// Calls of each language in turns, so that what disturbs one disturbs the others.
    fn calls(&self, tables: &mut String) -> anyhow::Result<()> {
        let versions = LANGUAGES
            .iter()
            .map(|(_, component)| self.version(component))
            .collect::<anyhow::Result<Vec<_>>>()?;
        tables.push_str(
            "\nOne call, in turns; medians. \"No text\" are documents of which the policy has nothing to \
             embed, so that it asks for no model. \"Guest\" is the call without tokenizing, waiting for \
             rows and running them; \"times\" are the medians of the ratios to Rust's call beside it.\n\n\
             | | documents | no text | guest | 95 % | times | whole call | times | memory |\n\
             |---|---|---|---|---|---|---|---|---|\n",
        );
        for documents in [10, 100, 1000] {
            let mut empty = vec![Vec::new(); versions.len()];
            let mut calls: Vec<Vec<Invoked>> = versions.iter().map(|_| Vec::new()).collect();
            let rounds = self.times(if documents > 100 { 10 } else { 100 });
            for _ in 0..rounds {
                for (at, version) in versions.iter().enumerate() {
                    let without = request(documents, false);
                    empty[at].push(guest_seconds(&self.call(version, without)?));
                    calls[at].push(self.call(version, request(documents, true))?);
                }
            }
            for (at, (language, _)) in LANGUAGES.iter().enumerate() {
                let column = |of: usize, number: fn(&Invoked) -> f64| -> Vec<f64> {
                    calls[of].iter().map(number).collect()
                };
                let times = |number: fn(&Invoked) -> f64| {
                    let pairs = column(at, number).into_iter().zip(column(0, number));
                    median(&mut pairs.map(|(own, rust)| own / rust).collect::<Vec<_>>())
                };
                writeln!(
                    tables,
                    "| {language} | {documents} | {} | {} | {} | {:.1} | {} | {:.2} | {} |",
                    seconds(median(&mut empty[at])),
                    seconds(median(&mut column(at, guest_seconds))),
                    seconds(quantile(&mut column(at, guest_seconds), 0.95)),
                    times(guest_seconds),
                    seconds(median(&mut column(at, whole_seconds))),
                    times(whole_seconds),
                    mib(calls[at][0].peak_memory_bytes as u64),
                )?;
            }
        }
        Ok(())
    }

    fn version(&self, component: &str) -> anyhow::Result<Arc<PolicyVersion>> {
        let path = self.path(component);
        let bytes = std::fs::read(&path)
            .with_context(|| format!("cannot read `{}`; run `make examples`", path.display()))?;
        let artifact = Artifact::inspect(bytes, usize::MAX)?;
        let options = PolicyOptions::default();
        let policy = CompiledPolicy::compile_here(&self.engine, &artifact, options, &self.limits)?;
        let version = policy.bind(&TrafficBook::default(), |_, model| {
            self.inference.load(model)
        })?;
        Ok(Arc::new(version))
    }

    fn call(
        &self,
        version: &Arc<PolicyVersion>,
        request: RerankRequest,
    ) -> anyhow::Result<Invoked> {
        let (engine, inference) = (Arc::clone(&self.engine), Arc::clone(&self.inference));
        let version = Arc::clone(version);
        let call = self.runtime.spawn(async move {
            let started = Instant::now();
            let deadline = Deadline::after(started, Duration::from_secs(60));
            invoke(&engine, &inference, &version, request, started, deadline).await
        });
        Ok(self.runtime.block_on(call)??)
    }
}

struct Compiled {
    seconds: f64,
    cpu_seconds: f64,
    peak_bytes: f64,
}

impl Compiled {
    fn cells(&self) -> String {
        format!(
            "{} | {} | {}",
            seconds(self.seconds),
            seconds(self.cpu_seconds),
            mib(self.peak_bytes as u64)
        )
    }
}

/// Compiles as the host does. Prints seconds, those of the CPU, and the process's most resident bytes.
fn compile(component: &Path, out: &Path) -> anyhow::Result<()> {
    let started = Instant::now();
    let engine = pooled_engine()?;
    let code = engine
        .precompile_component(&std::fs::read(component)?)
        .map_err(|error| anyhow::anyhow!("{error:#}"))?;
    std::fs::write(out, code)?;
    let took = started.elapsed().as_secs_f64();
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let status = read("/proc/self/status");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.split_whitespace().next()?.parse::<u64>().ok());
    // User and system time, in hundredths, after the program's name (proc_pid_stat(5)).
    let stat = read("/proc/self/stat");
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
    let cpu = ticks
        .filter_map(|ticks| ticks.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0;
    println!("{took} {cpu} {}", kib.unwrap_or(0) << 10);
    Ok(())
}

/// The host's engine, as far as code and instances depend on it.
fn pooled_engine() -> anyhow::Result<Engine> {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_memories(8)
        .total_core_instances(1000)
        .max_core_instances_per_component(96)
        .max_tables_per_component(4)
        .max_memory_size(256 << 20)
        .linear_memory_keep_resident(1 << 20)
        .table_keep_resident(32 << 10);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .epoch_interruption(true);
    Engine::new(&config).map_err(|error| anyhow::anyhow!("{error:#}"))
}

/// Store, instance and drop of a component whose imports are not called, seconds.
fn instantiate(engine: &Engine, compiled: &Path, times: usize) -> anyhow::Result<f64> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let measured = || -> wasmtime::Result<Vec<f64>> {
        // SAFETY: this process's own child has just written the file, for the same engine.
        let component = unsafe { Component::deserialize_file(engine, compiled)? };
        let mut linker = Linker::<()>::new(engine);
        linker.define_unknown_imports_as_traps(&component)?;
        let pre = linker.instantiate_pre(&component)?;
        (0..times)
            .map(|_| {
                let started = Instant::now();
                let mut store = Store::new(engine, ());
                store.set_epoch_deadline(1);
                runtime.block_on(pre.instantiate_async(&mut store))?;
                drop(store);
                Ok(started.elapsed().as_secs_f64())
            })
            .collect()
    };
    Ok(median(
        &mut measured().map_err(|error| anyhow::anyhow!("{error:#}"))?,
    ))
}

/// A request with the engine's scores and titles of about 70 characters, or none.
fn request(documents: usize, with_text: bool) -> RerankRequest {
    let document = |index: usize| Document {
        id: Some(format!("product-{index:04}")),
        first_stage_score: Some(20.0 - index as f64 / 64.0),
        fields: vec![Field {
            name: "title".to_owned(),
            value: Value::Text(match with_text {
                true => format!(
                    "Portable wireless speaker model {index}, black, with a cable of {} metres",
                    index % 7 + 1
                ),
                false => String::new(),
            }),
        }],
    };
    let mut request =
        RerankRequest::new("wireless speaker", (0..documents).map(document).collect());
    request.first_stage = FirstStage::Scored;
    request
}

fn guest_seconds(invoked: &Invoked) -> f64 {
    invoked.reranked.timings.guest.as_secs_f64()
}

fn whole_seconds(invoked: &Invoked) -> f64 {
    invoked.reranked.timings.total.as_secs_f64()
}

fn median(samples: &mut [f64]) -> f64 {
    quantile(samples, 0.5)
}

fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[(share * (samples.len() - 1) as f64).round() as usize]
}

fn seconds(seconds: f64) -> String {
    match seconds {
        s if s >= 1.0 => format!("{s:.1} s"),
        s if s >= 1e-3 => format!("{:.1} ms", s * 1e3),
        s => format!("{:.0} µs", s * 1e6),
    }
}

fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn write_into(page: &Path, tables: &str) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(page)?;
    let (before, rest) = text.split_once(BEGIN).context("no place for the tables")?;
    let (_, after) = rest.split_once(END).context("no end of the tables")?;
    Ok(std::fs::write(
        page,
        format!("{before}{BEGIN}{tables}{END}{after}"),
    )?)
}
