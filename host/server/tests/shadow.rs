//! Shadow runs of real components on the real host: what is compared, what is dropped, and that they
//! end with the process. Needs `make policies faulty runtime`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rerankd::admission::Admission;
use rerankd::shadow::{MAX_QUEUED_JOBS, MAX_REQUEST_BYTES, Shadow, ShadowJob};
use rerankd_core::{
    Document, FailReason, FirstStage, Judgment, Limits, Notes, Outcome, Ranking, RerankRequest,
    Reranked, ScoreKind, Status, Timings, TokenCount, UnitMap,
};
use rerankd_inference::{CacheSettings, Deadline, Inference, InferenceConfig, pairs};
use rerankd_policy::TrafficBook;
use rerankd_policy::artifact::Artifact;
use rerankd_policy::traffic::{ShadowSnapshot, Words};
use rerankd_policy::version::CompiledPolicy;
use rerankd_policy::{PolicyEngine, PolicyOptions, PolicyVersion, VersionTraffic};

const MODEL: &str = "all-minilm-l6-v2";
const LIVE: &str = "0123456789abcdef";

fn limits() -> Limits {
    Limits {
        max_instances: 4,
        ..Limits::default()
    }
}

struct Host {
    engine: Arc<PolicyEngine>,
    inference: Arc<Inference>,
}

/// One for all tests: a process has one ONNX Runtime.
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
            engine: Arc::new(PolicyEngine::new(&limits(), 2).unwrap()),
            inference: Arc::new(inference.unwrap()),
        }
    })
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A shadow version, compared with [`LIVE`]. One at a time: work of one test keeps the others' jobs out.
struct Fixture {
    _turn: MutexGuard<'static, ()>,
    shadow: Shadow,
    admission: Admission,
    version: Arc<PolicyVersion>,
    traffic: Arc<VersionTraffic>,
}

impl Fixture {
    /// `component`: its name in `guest/dist/faulty`.
    fn new(component: &str) -> Self {
        static TURN: Mutex<()> = Mutex::new(());
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let path = root().join(format!("guest/dist/faulty/{component}.wasm"));
        let bytes = std::fs::read(&path)
            .unwrap_or_else(|_| panic!("{} is missing: run `make faulty`", path.display()));
        let engine = &host().engine;
        let compiled = {
            let artifact = Artifact::inspect(bytes, usize::MAX).unwrap();
            let options = PolicyOptions::default();
            CompiledPolicy::compile_here(engine, &artifact, options, &limits()).unwrap()
        };
        let find = |_: &str, model: &str| host().inference.load(model);
        let traffic = Arc::<VersionTraffic>::default();
        traffic.shadow.begin(LIVE);
        Self {
            _turn: turn,
            shadow: Shadow::default(),
            admission: Admission::new(&limits()),
            version: Arc::new(compiled.bind(&TrafficBook::default(), find).unwrap()),
            traffic,
        }
    }

    fn job(&self, live: Reranked) -> ShadowJob {
        ShadowJob {
            engine: Arc::clone(&host().engine),
            inference: Arc::clone(&host().inference),
            version: Arc::clone(&self.version),
            traffic: Arc::clone(&self.traffic),
            against: LIVE.to_owned(),
            request: request(),
            live,
            request_id: "request-1".to_owned(),
        }
    }

    fn offer(&self, live: Reranked) {
        self.shadow.offer(&self.admission, self.job(live));
    }

    fn comparison(&self) -> ShadowSnapshot {
        self.traffic.shadow.snapshot().unwrap()
    }

    /// What came of `requests` offers, once it did.
    async fn after(&self, requests: u64) -> ShadowSnapshot {
        loop {
            let seen = self.comparison();
            if seen.compared + seen.failed + seen.dropped >= requests {
                return seen;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

fn request() -> RerankRequest {
    let texts = ["one", "two", "three"].map(Document::from_text);
    RerankRequest::new("crocs", texts.to_vec())
}

/// An answer of the live version with these scores.
fn live(status: Status, scores: &[f64]) -> Reranked {
    let judge = |&score: &f64| Judgment {
        outcome: Outcome::Scored(score),
        truncated: false,
        explanation: None,
    };
    Reranked {
        policy: "p".into(),
        version: LIVE[..8].into(),
        status,
        score_kind: ScoreKind::Blend,
        unit_map: UnitMap::Identity,
        first_stage: FirstStage::None,
        ranking: Ranking::new(scores.iter().map(judge).collect()),
        query_truncated: false,
        notes: Notes::default(),
        tokens: TokenCount::default(),
        timings: Timings::default(),
    }
}

fn applied(scores: &[f64]) -> Reranked {
    live(Status::Applied, scores)
}

/// On one thread: what is offered without a pause waits together.
fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

#[test]
fn a_shadows_ranking_is_compared_with_the_answer() {
    // It scores 0, -1, -2.
    let fixture = Fixture::new("echo");
    wait(async {
        fixture.offer(applied(&[0.0, -1.0, -2.0]));
        fixture.offer(applied(&[1.0, 2.0, 3.0]));
        let seen = fixture.after(2).await;
        assert_eq!((seen.compared, seen.failed, seen.dropped), (2, 0, 0));
        assert_eq!(seen.against, LIVE);
        assert_eq!(seen.kendall_tau, Some(0.0), "once alike, once reversed");
        assert_eq!(seen.overlap_at_10, Some(1.0));
        // 0 and 3, on the average of the documents and of the requests.
        assert_eq!(
            (seen.score_shift, seen.score_shift_signed),
            (Some(1.5), Some(-1.5))
        );
        let traffic = fixture.traffic.snapshot(Words::Shown);
        assert_eq!(traffic.calls, 0, "nobody was answered");
        assert!(traffic.peak_memory_bytes > 0);
    });
}

#[test]
fn a_shadows_fault_is_counted_and_kept_for_its_author() {
    let fixture = Fixture::new("panic");
    wait(async {
        fixture.offer(applied(&[1.0, 2.0, 3.0]));
        let seen = fixture.after(1).await;
        assert_eq!((seen.compared, seen.failed, seen.kendall_tau), (0, 1, None));
        let traffic = fixture.traffic.snapshot(Words::Shown);
        let fault = &traffic.last_faults[0];
        assert!(fault.shadow && fault.kind == "panic" && fault.request_id == "request-1");
        assert_eq!(traffic.faults, 0);
    });
}

#[test]
fn a_full_queue_drops_what_comes_and_is_worked_off() {
    let fixture = Fixture::new("echo");
    wait(async {
        for _ in 0..MAX_QUEUED_JOBS + 4 {
            fixture.offer(applied(&[1.0, 2.0, 3.0]));
        }
        assert_eq!(fixture.shadow.queued(), MAX_QUEUED_JOBS);
        assert_eq!(
            fixture.shadow.copy(&fixture.traffic, LIVE, &request()),
            None
        );
        assert_eq!(fixture.comparison().dropped, 5);
        let seen = fixture.after(MAX_QUEUED_JOBS as u64 + 5).await;
        assert_eq!(seen.compared, MAX_QUEUED_JOBS as u64);
        // The task had ended; another job starts another one.
        fixture.offer(applied(&[1.0, 2.0, 3.0]));
        let seen = fixture.after(MAX_QUEUED_JOBS as u64 + 6).await;
        assert_eq!(seen.compared, MAX_QUEUED_JOBS as u64 + 1);
    });
}

#[test]
fn nothing_is_taken_while_more_than_half_is_admitted() {
    let fixture = Fixture::new("echo");
    wait(async {
        let admit = async || {
            let requests = [request()];
            let inference = &host().inference;
            fixture
                .admission
                .admit("ranker", &requests, Instant::now(), inference)
                .await
                .unwrap()
        };
        let two = [admit().await, admit().await];
        fixture.offer(applied(&[1.0, 2.0, 3.0]));
        assert_eq!(
            (fixture.shadow.queued(), fixture.comparison().dropped),
            (1, 0)
        );
        let third = admit().await;
        fixture.offer(applied(&[1.0, 2.0, 3.0]));
        assert_eq!(
            (fixture.shadow.queued(), fixture.comparison().dropped),
            (1, 1)
        );
        drop((two, third));
        fixture.offer(applied(&[1.0, 2.0, 3.0]));
        assert_eq!(fixture.after(3).await.compared, 2);
    });
}

#[test]
fn nothing_is_taken_while_ordinary_rows_wait() {
    let fixture = Fixture::new("echo");
    let inference = &host().inference;
    wait(async {
        let deadline = Deadline::after(Instant::now(), Duration::from_secs(60));
        let lane = inference.scheduler().open_lane(deadline);
        let texts = vec!["shoes of many colours for running".to_owned(); 700];
        let model = inference.model(MODEL).unwrap();
        let busy = pairs::score(&lane, &model, "red shoes", texts);
        let offered = async {
            while inference.scheduler().queued().1 < 300 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            fixture.offer(applied(&[1.0, 2.0, 3.0]));
        };
        tokio::select! {
            _ = busy => panic!("700 rows ran before 300 of them were seen waiting"),
            () = offered => {}
        }
    });
    assert_eq!(
        (fixture.shadow.queued(), fixture.comparison().dropped),
        (0, 1)
    );
}

#[test]
fn a_large_request_is_not_copied() {
    let fixture = Fixture::new("echo");
    let copy = |request: &RerankRequest| fixture.shadow.copy(&fixture.traffic, LIVE, request);
    assert_eq!(copy(&request()), Some(request()));
    assert_eq!(fixture.comparison().dropped, 0);
    let long = Document::from_text("x".repeat(MAX_REQUEST_BYTES));
    assert_eq!(copy(&RerankRequest::new("crocs", vec![long])), None);
    assert_eq!(fixture.comparison().dropped, 1);
}

#[test]
fn answers_without_a_ranking_or_of_another_version_are_passed_over() {
    let fixture = Fixture::new("echo");
    wait(async {
        fixture.offer(live(
            Status::Failed(FailReason::PolicyFault),
            &[1.0, 2.0, 3.0],
        ));
        let mut job = fixture.job(applied(&[1.0, 2.0, 3.0]));
        job.against = "another".to_owned();
        fixture.shadow.offer(&fixture.admission, job);
        let other = fixture.shadow.copy(&fixture.traffic, "another", &request());
        assert_eq!((fixture.shadow.queued(), other), (0, None));
        assert_eq!(fixture.comparison().dropped, 0);
    });
}

#[test]
fn when_the_process_goes_down_what_waits_and_what_runs_is_dropped() {
    // It takes all its CPU time, 200 ms.
    let fixture = Fixture::new("spin");
    wait(async {
        for _ in 0..5 {
            fixture.offer(applied(&[1.0, 2.0, 3.0]));
        }
        while fixture.shadow.queued() == 5 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        fixture.shadow.stop();
        assert_eq!(
            (fixture.shadow.queued(), fixture.comparison().dropped),
            (0, 4)
        );
        fixture.offer(applied(&[1.0, 2.0, 3.0]));
        assert_eq!(
            fixture.shadow.copy(&fixture.traffic, LIVE, &request()),
            None
        );
        assert_eq!(
            (fixture.shadow.queued(), fixture.comparison().dropped),
            (0, 6)
        );
        // The one that ran lets go of its version without having ended.
        while Arc::strong_count(&fixture.version) > 1 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(fixture.comparison().failed, 0);
    });
}
