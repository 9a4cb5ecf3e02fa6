//! Real components, some of which break the rules: what their author reads of it afterwards. Needs
//! `make policies faulty runtime`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rerankd_core::{Document, FirstStage, Limits, RerankRequest, Status};
use rerankd_inference::{CacheSettings, Deadline, Inference, InferenceConfig, pairs};
use rerankd_policy::artifact::Artifact;
use rerankd_policy::traffic::{TrafficSnapshot, Words};
use rerankd_policy::version::CompiledPolicy;
use rerankd_policy::{
    Invoked, PolicyEngine, PolicyError, PolicyOptions, PolicyVersion, TrafficBook, VersionTraffic,
    invoke, invoke_in_background,
};

const MODEL: &str = "all-minilm-l6-v2";

struct Host {
    engine: Arc<PolicyEngine>,
    inference: Arc<Inference>,
}

/// One for all tests: a process has one ONNX Runtime. One worker, so that it is soon busy.
fn host() -> &'static Host {
    static HOST: OnceLock<Host> = OnceLock::new();
    HOST.get_or_init(|| {
        let name = if cfg!(target_os = "macos") {
            "libonnxruntime.dylib"
        } else {
            "libonnxruntime.so"
        };
        let inference = Inference::start(&InferenceConfig {
            openvino: None,
            onnxruntime: vec![root().join(".runtime/onnxruntime").join(name)],
            model_folders: vec![root().join("models")],
            models: vec![MODEL.to_owned()],
            check_file: |_| Ok(()),
            workers: Some(1),
            caches: CacheSettings::OFF,
        });
        Host {
            engine: Arc::new(PolicyEngine::new(&Limits::default(), 2).unwrap()),
            inference: Arc::new(inference.unwrap()),
        }
    })
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// `component`: a path below `guest/dist`, without its extension.
fn version(component: &str) -> Arc<PolicyVersion> {
    let host = host();
    let path = root()
        .join("guest/dist")
        .join(component)
        .with_extension("wasm");
    let bytes = std::fs::read(&path)
        .unwrap_or_else(|_| panic!("{} is missing: run `make policies faulty`", path.display()));
    let artifact = Artifact::inspect(bytes, usize::MAX).unwrap();
    let options = PolicyOptions::default();
    // A guest that takes all of its memory is to end by that, on a busy machine too.
    let limits = Limits {
        guest_cpu: Duration::from_secs(10),
        ..Limits::default()
    };
    let compiled = CompiledPolicy::compile_here(&host.engine, &artifact, options, &limits).unwrap();
    let find = |_: &str, model: &str| host.inference.load(model);
    Arc::new(compiled.bind(&TrafficBook::default(), find).unwrap())
}

fn request(texts: &[&str]) -> RerankRequest {
    let document = |(place, text): (usize, &&str)| Document {
        first_stage_score: Some(10.0 - place as f64),
        ..Document::from_text(*text)
    };
    let mut request = RerankRequest::new("crocs", texts.iter().enumerate().map(document).collect());
    request.first_stage = FirstStage::Scored;
    request
}

fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

fn call(version: &Arc<PolicyVersion>, request: RerankRequest) -> Result<Invoked, PolicyError> {
    let host = host();
    let now = Instant::now();
    let deadline = Deadline::after(now, Duration::from_secs(60));
    wait(invoke(
        &host.engine,
        &host.inference,
        version,
        request,
        now,
        deadline,
    ))
}

/// What is known of a component after one call with three documents.
fn after_a_call(component: &str) -> TrafficSnapshot {
    let traffic = VersionTraffic::default();
    let result = call(&version(component), request(&["one", "two", "three"]));
    traffic.record(FirstStage::Scored, &result, "request-1");
    traffic.snapshot(Words::Shown)
}

#[test]
fn a_panic_is_kept_with_message_file_line_and_request() {
    let snapshot = after_a_call("faulty/panic");
    assert_eq!((snapshot.calls, snapshot.faults), (1, 1));
    let fault = &snapshot.last_faults[0];
    assert_eq!((fault.kind, &fault.request_id[..]), ("panic", "request-1"));
    let message = fault.message.as_deref().unwrap();
    assert!(
        message.starts_with("it panicked at faulty/examples/panic.rs:12: cannot rank 3 documents"),
        "{message}"
    );
    assert!(snapshot.peak_memory_bytes >= 64 << 10, "a page at least");
}

#[test]
fn memory_that_a_fault_took_is_seen() {
    let snapshot = after_a_call("faulty/grow");
    assert_eq!(
        snapshot.faults_by_kind.get("memory"),
        Some(&1),
        "{snapshot:?}"
    );
    assert!(snapshot.peak_memory_bytes > 128 << 20, "{snapshot:?}");
}

#[test]
fn a_flood_of_lines_is_kept_cut() {
    let snapshot = after_a_call("faulty/many-logs");
    let log = snapshot.log.unwrap();
    assert_eq!(log.len(), 100);
    assert!(log.iter().all(|record| record.line.len() <= 1024));
    assert!(log[0].line.starts_with("info xxx"), "{}", log[0].line);
    assert!(
        log[99].line.ends_with("more lines were dropped)"),
        "{}",
        log[99].line
    );
}

#[test]
fn a_policy_that_keeps_the_engines_order_changes_nothing() {
    let snapshot = after_a_call("policies/first-stage");
    assert_eq!(snapshot.statuses.get("applied"), Some(&1));
    assert_eq!(
        (
            snapshot.compared,
            snapshot.top_10_moved,
            snapshot.kendall_tau
        ),
        (1, Some(0.0), Some(1.0))
    );
    assert!(snapshot.guest_ms.total > 0.0 && snapshot.model_ms.total == 0.0);
}

#[test]
fn in_the_background_a_call_ranks_alike_but_gives_way_to_ordinary_rows() {
    let host = host();
    let blend = version("policies/semantic-blend");
    let wanted = request(&["garden hose", "crocs clog for kids", "laptop bag"]);
    let in_background = |timeout: Duration| {
        let now = Instant::now();
        let deadline = Deadline::after(now, timeout);
        invoke_in_background(
            &host.engine,
            &host.inference,
            &blend,
            wanted.clone(),
            now,
            deadline,
        )
    };
    let ordinary = call(&blend, wanted.clone()).unwrap().reranked;
    let shadow = wait(in_background(Duration::from_secs(60)))
        .unwrap()
        .reranked;
    assert_eq!(shadow.status, Status::Applied);
    assert_eq!(shadow.ranking, ordinary.ranking);

    wait(async {
        let busy = tokio::spawn(async {
            let deadline = Deadline::after(Instant::now(), Duration::from_secs(60));
            let lane = host.inference.scheduler().open_lane(deadline);
            let texts = vec!["shoes of many colours for running and walking".to_owned(); 700];
            let model = host.inference.model(MODEL).unwrap();
            pairs::score(&lane, &model, "red shoes", texts)
                .await
                .unwrap()
        });
        while host.inference.scheduler().queued().1 < 300 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let starved = in_background(Duration::from_millis(100)).await;
        assert!(
            host.inference.scheduler().queued().1 > 0,
            "the host must still be busy"
        );
        assert!(
            matches!(starved, Err(PolicyError::Deadline { .. })),
            "{starved:?}"
        );
        assert!(busy.await.unwrap().scores.iter().all(Option::is_some));
    });
}
