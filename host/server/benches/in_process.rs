//! What a request costs beside inference, and what it costs to compile, load and instantiate, measured
//! inside one process: part of `make bench`. Prints JSON.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rerankd_core::{Document, Field, FirstStage, Limits, RerankRequest, Value};
use rerankd_inference::backend::onnx::OnnxRuntime;
use rerankd_inference::{CacheSettings, Deadline, Inference, InferenceConfig, Model};
use rerankd_policy::artifact::Artifact;
use rerankd_policy::version::CompiledPolicy;
use rerankd_policy::{Invoked, PolicyEngine, PolicyOptions, PolicyVersion, TrafficBook, invoke};
use rerankd_wire::native::Native;
use rerankd_wire::{Call, Protocol};
use serde_json::json;
use wasmtime::component::{Component, Linker};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};

const POLICIES: [&str; 3] = ["cross-encoder", "first-stage", "semantic-blend"];
const MODELS: [&str; 2] = ["all-minilm-l6-v2", "all-minilm-l6-v2-fp32"];

/// Internal argument: print how long models take to load, and nothing else.
const LOADS_ONLY: &str = "--loads-only";

fn main() -> anyhow::Result<()> {
    // `cargo test --benches` runs this too, to see that it works.
    let once = !std::env::args().any(|argument| argument == "--bench");
    let times = |full: usize| if once { 1 } else { full };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let component =
        |name: &str| std::fs::read(root.join(format!("guest/dist/policies/{name}.wasm")));
    let library = std::env::var_os("ORT_DYLIB_PATH").map_or_else(
        || root.join(".runtime/onnxruntime/libonnxruntime.so"),
        PathBuf::from,
    );

    if std::env::args().any(|argument| argument == LOADS_ONLY) {
        println!("{}", loads(&root, &library, times(7))?);
        return Ok(());
    }
    // A process has one environment of ONNX Runtime, and `Inference` below makes its own.
    let mut child = std::process::Command::new(std::env::current_exe()?);
    child.arg(LOADS_ONLY).args((!once).then_some("--bench"));
    let load_ms: serde_json::Value = serde_json::from_slice(&child.output()?.stdout)?;

    let limits = Limits::default();
    let engine =
        Arc::new(PolicyEngine::new(&limits, 2).map_err(|error| anyhow::anyhow!("{error:#}"))?);
    let mut compile_ms = serde_json::Map::new();
    let mut instantiate_us = serde_json::Map::new();
    for name in POLICIES {
        let bytes = component(name)?;
        let mut samples = Vec::new();
        for _ in 0..times(9) {
            let started = Instant::now();
            let artifact = Artifact::inspect(bytes.clone(), usize::MAX)?;
            let options = PolicyOptions::default();
            let policy = CompiledPolicy::compile_here(&engine, &artifact, options, &limits)?;
            samples.push(started.elapsed());
            drop(policy);
        }
        compile_ms.insert(name.to_owned(), json!(median(samples) * 1e3));
        instantiate_us.insert(
            name.to_owned(),
            json!(instantiate(&bytes, times(5000))? * 1e6),
        );
    }

    let inference = Arc::new(Inference::start(&InferenceConfig {
        openvino: None,
        onnxruntime: vec![library],
        model_folders: vec![root.join("models")],
        models: vec!["all-minilm-l6-v2".to_owned()],
        check_file: |_| Ok(()),
        workers: None,
        caches: CacheSettings::OFF,
    })?);
    let version = |name: &str| -> anyhow::Result<Arc<PolicyVersion>> {
        let artifact = Artifact::inspect(component(name)?, usize::MAX)?;
        let options = PolicyOptions::default();
        let policy = CompiledPolicy::compile_here(&engine, &artifact, options, &limits)?;
        let version = policy.bind(&TrafficBook::default(), |_, model| inference.load(model))?;
        Ok(Arc::new(version))
    };
    let bench = Bench {
        runtime: tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()?,
        engine: Arc::clone(&engine),
        inference: Arc::clone(&inference),
        limits: limits.clone(),
    };
    let first_stage = version("first-stage")?;
    let invoke = [1, 10, 100, 1000]
        .into_iter()
        .map(|documents| bench.overhead(&first_stage, documents, times(3000)))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let blend = version("semantic-blend")?;
    let (blend_rest, blend_guest) = bench.beside_the_model(&blend, times(100))?;

    let findings = json!({
        "invoke": invoke,
        "blend_rest_us": blend_rest * 1e6,
        "blend_guest_us": blend_guest * 1e6,
        "compile_ms": compile_ms,
        "instantiate_us": instantiate_us,
        "load_ms": load_ms,
    });
    println!("{findings:#}");
    Ok(())
}

/// Median time to load each model that is there, milliseconds.
fn loads(root: &Path, library: &Path, times: usize) -> anyhow::Result<serde_json::Value> {
    let mut load_ms = serde_json::Map::new();
    let backend = OnnxRuntime::load(&[library.to_owned()], None, 1)?;
    for name in MODELS {
        let folder = root.join("models").join(name);
        if !folder.join("model.onnx").is_file() {
            continue;
        }
        let mut samples = Vec::new();
        for _ in 0..times {
            let started = Instant::now();
            let model = Model::load(&folder, &backend, 1)?;
            samples.push(started.elapsed());
            drop(model);
        }
        load_ms.insert(name.to_owned(), json!(median(samples) * 1e3));
    }
    Ok(load_ms.into())
}

struct Bench {
    runtime: tokio::runtime::Runtime,
    engine: Arc<PolicyEngine>,
    inference: Arc<Inference>,
    limits: Limits,
}

impl Bench {
    /// Calls of a policy that runs no model, with and without JSON.
    fn overhead(
        &self,
        version: &Arc<PolicyVersion>,
        documents: usize,
        times: usize,
    ) -> anyhow::Result<serde_json::Value> {
        let body: Arc<[u8]> = body(&request(documents)).into();
        let mut calls = Vec::with_capacity(times);
        let (mut decodes, mut encodes, mut wholes) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..times + times / 10 {
            let (body, limits) = (Arc::clone(&body), self.limits.clone());
            let (engine, inference) = (Arc::clone(&self.engine), Arc::clone(&self.inference));
            let version = Arc::clone(version);
            // On a thread of the runtime, as in the server.
            let one = self.runtime.spawn(async move {
                let started = Instant::now();
                let mut decoded = Native
                    .decode(&Call {
                        path: "/v1/rerank/{policy}",
                        target: "first-stage",
                        body: &body,
                        limits: &limits,
                        request_id: "",
                        unix_seconds: 0,
                    })
                    .map_err(|error| anyhow::anyhow!("{error}"))?;
                let request = decoded.requests.remove(0);
                let read = Instant::now();
                let invoked = call(&engine, &inference, &version, request).await?;
                let called = Instant::now();
                let results = [invoked.reranked];
                let answer = decoded
                    .reply
                    .encode(&results)
                    .map_err(|error| anyhow::anyhow!("{error}"))?;
                let written = Instant::now();
                drop(answer);
                Ok::<_, anyhow::Error>((read - started, called - read, written - called))
            });
            let (decode, call, encode) = self.runtime.block_on(one)??;
            if round >= times / 10 {
                calls.push(call);
                decodes.push(decode);
                encodes.push(encode);
                wholes.push(decode + call + encode);
            }
        }
        Ok(json!({
            "documents": documents,
            "invoke_us": quantile(&mut calls, 0.5) * 1e6,
            "invoke_p95_us": quantile(&mut calls, 0.95) * 1e6,
            "decode_us": median(decodes) * 1e6,
            "encode_us": median(encodes) * 1e6,
            "whole_us": median(wholes) * 1e6,
        }))
    }

    /// What calls of a policy with a model cost beside tokenizing, waiting for rows, and running
    /// them; and what of it the guest. Seconds.
    fn beside_the_model(
        &self,
        version: &Arc<PolicyVersion>,
        times: usize,
    ) -> anyhow::Result<(f64, f64)> {
        let (mut rests, mut guests) = (Vec::new(), Vec::new());
        for _ in 0..times {
            let (engine, inference) = (Arc::clone(&self.engine), Arc::clone(&self.inference));
            let version = Arc::clone(version);
            let request = request(100);
            let one = self
                .runtime
                .spawn(async move { call(&engine, &inference, &version, request).await });
            let timings = self.runtime.block_on(one)??.reranked.timings;
            rests.push(timings.total - timings.tokenize - timings.queue - timings.inference);
            guests.push(timings.guest);
        }
        Ok((median(rests), median(guests)))
    }
}

async fn call(
    engine: &Arc<PolicyEngine>,
    inference: &Arc<Inference>,
    version: &Arc<PolicyVersion>,
    request: RerankRequest,
) -> anyhow::Result<Invoked> {
    let started = Instant::now();
    let deadline = Deadline::after(started, Duration::from_secs(60));
    Ok(invoke(engine, inference, version, request, started, deadline).await?)
}

/// Store, instance and drop of a component whose imports are not called, in a pool like the host's.
/// Seconds.
fn instantiate(bytes: &[u8], times: usize) -> anyhow::Result<f64> {
    let mut config = Config::new();
    let mut pool = PoolingAllocationConfig::new();
    pool.linear_memory_keep_resident(256 << 10)
        .table_keep_resident(32 << 10);
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .epoch_interruption(true);
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let measured = || -> wasmtime::Result<Vec<Duration>> {
        let engine = Engine::new(&config)?;
        let component = Component::new(&engine, bytes)?;
        let mut linker = Linker::<()>::new(&engine);
        linker.define_unknown_imports_as_traps(&component)?;
        let pre = linker.instantiate_pre(&component)?;
        (0..times)
            .map(|_| {
                let started = Instant::now();
                let mut store = Store::new(&engine, ());
                store.set_epoch_deadline(1);
                runtime.block_on(pre.instantiate_async(&mut store))?;
                drop(store);
                Ok(started.elapsed())
            })
            .collect()
    };
    let samples = measured().map_err(|error| anyhow::anyhow!("{error:#}"))?;
    Ok(median(samples))
}

/// A request with the engine's scores and titles of about 70 characters.
fn request(documents: usize) -> RerankRequest {
    let document = |index: usize| Document {
        id: Some(format!("product-{index:04}")),
        first_stage_score: Some(20.0 - index as f64 / 64.0),
        fields: vec![Field {
            name: "title".to_owned(),
            value: Value::Text(format!(
                "Portable wireless speaker model {index}, black, with a cable of {} metres",
                index % 7 + 1
            )),
        }],
    };
    let mut request =
        RerankRequest::new("wireless speaker", (0..documents).map(document).collect());
    request.first_stage = FirstStage::Scored;
    request
}

/// The same as a native body.
fn body(request: &RerankRequest) -> Vec<u8> {
    let documents: Vec<serde_json::Value> = request
        .documents
        .iter()
        .map(|document| {
            let Value::Text(title) = &document.fields[0].value else {
                unreachable!("`request` writes texts only")
            };
            json!({"id": document.id, "score": document.first_stage_score, "fields": {"title": title}})
        })
        .collect();
    json!({"query": request.query, "documents": documents})
        .to_string()
        .into_bytes()
}

fn median(mut samples: Vec<Duration>) -> f64 {
    quantile(&mut samples, 0.5)
}

/// Seconds.
fn quantile(samples: &mut [Duration], share: f64) -> f64 {
    samples.sort_unstable();
    let place = (share * (samples.len() - 1) as f64).round() as usize;
    samples[place].as_secs_f64()
}
