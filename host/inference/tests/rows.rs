//! The scheduler and ONNX Runtime on the committed models: every row comes back once, in order, and
//! no score depends on its neighbours.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rerankd_inference::rows::RowBatch;
use rerankd_inference::{
    CacheSettings, Deadline, Inference, InferenceConfig, InferenceError, Lane, Model, Tensor,
    TensorData, pairs,
};

const INT8: &str = "all-minilm-l6-v2";
const FP32: &str = "tiny-cross-encoder";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn library() -> PathBuf {
    let name = if cfg!(target_os = "macos") {
        "libonnxruntime.dylib"
    } else {
        "libonnxruntime.so"
    };
    let path = root().join(".runtime/onnxruntime").join(name);
    assert!(
        path.is_file(),
        "{} is missing: run `make runtime`",
        path.display()
    );
    path
}

fn inference() -> &'static Inference {
    static INFERENCE: OnceLock<Inference> = OnceLock::new();
    INFERENCE.get_or_init(|| {
        Inference::start(&InferenceConfig {
            openvino: None,
            onnxruntime: vec![library()],
            model_folders: vec![root().join("models")],
            models: vec![INT8.to_owned(), FP32.to_owned()],
            check_file: |_| Ok(()),
            workers: Some(2),
            caches: CacheSettings::OFF,
        })
        .unwrap()
    })
}

/// One test at a time: they measure a queue that they share.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

fn model(name: &str) -> &'static Arc<Model> {
    // For the whole run: the tests borrow it.
    Box::leak(Box::new(inference().model(name).unwrap()))
}

fn lane(timeout: Duration) -> Lane {
    inference()
        .scheduler()
        .open_lane(Deadline::after(Instant::now(), timeout))
}

fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

fn scores(name: &str, texts: &[String]) -> Vec<f64> {
    let lane = lane(Duration::from_secs(60));
    let scored = pairs::score(&lane, model(name), "red shoes for kids", texts.to_vec());
    wait(scored)
        .unwrap()
        .scores
        .into_iter()
        .map(Option::unwrap)
        .collect()
}

/// Texts of very different lengths.
fn texts() -> Vec<String> {
    let words = [
        "red", "shoes", "for", "kids", "laptop", "bag", "blue", "water", "running",
    ];
    (0..70)
        .map(|i| {
            let length = 1 + (i * 7) % 40;
            let word = |j: usize| words[(i + j * (1 + i % 3)) % words.len()];
            (0..length).map(word).collect::<Vec<_>>().join(" ")
        })
        .collect()
}

/// Positions in an order that has nothing to do with length or number.
fn shuffled(count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by_key(|&i| (i as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    order
}

fn compare(name: &str, same: impl Fn(f64, f64) -> bool) {
    let texts = texts();
    let in_company = scores(name, &texts);
    let order = shuffled(texts.len());
    let moved: Vec<String> = order.iter().map(|&i| texts[i].clone()).collect();
    for (position, score) in scores(name, &moved).into_iter().enumerate() {
        let original = in_company[order[position]];
        assert!(
            same(score, original),
            "{name} shuffled: {score} and {original}"
        );
    }
    for (index, text) in texts.iter().enumerate().step_by(7) {
        let alone = scores(name, std::slice::from_ref(text))[0];
        assert!(
            same(alone, in_company[index]),
            "{name} alone: {alone}, {}",
            in_company[index]
        );
    }
}

#[test]
fn an_int8_score_is_bit_equal_alone_shuffled_and_in_company() {
    let _turn = turn();
    compare(INT8, |a, b| a.to_bits() == b.to_bits());
}

#[test]
fn an_fp32_score_stays_within_1e_5_alone_shuffled_and_in_company() {
    let _turn = turn();
    compare(FP32, |a, b| (a - b).abs() <= 1e-5);
}

fn tensor(dims: &[usize], data: TensorData) -> Tensor {
    Tensor::new(dims.to_vec(), data).unwrap()
}

fn good_inputs() -> Vec<(String, Tensor)> {
    ["input_ids", "attention_mask", "token_type_ids"]
        .into_iter()
        .map(|name| {
            (
                name.to_owned(),
                tensor(&[2, 4], TensorData::I64(vec![1; 8])),
            )
        })
        .collect()
}

fn refusal(change: impl FnOnce(&mut Vec<(String, Tensor)>)) -> String {
    let mut inputs = good_inputs();
    change(&mut inputs);
    RowBatch::new(model(INT8), inputs).unwrap_err().to_string()
}

#[test]
fn wrong_inputs_get_an_error_that_names_them() {
    assert!(RowBatch::new(model(INT8), good_inputs()).is_ok());
    let all = "`input_ids` I64 [rows, tokens], `attention_mask` I64 [rows, tokens], `token_type_ids` I64 [rows, tokens]";
    assert_eq!(
        refusal(|inputs| inputs[0].0 = "ids".into()),
        format!("model `{INT8}` has no input `ids`; its inputs are: {all}")
    );
    assert_eq!(
        refusal(|inputs| drop(inputs.remove(1))),
        format!("model `{INT8}`: input `attention_mask` is missing; its inputs are: {all}")
    );
    assert_eq!(
        refusal(|inputs| inputs[1].0 = "input_ids".into()),
        format!("model `{INT8}`: input `input_ids` is given twice")
    );
    assert_eq!(
        refusal(|inputs| inputs[0].1 = tensor(&[2, 4], TensorData::F32(vec![1.0; 8]))),
        format!("model `{INT8}`: input `input_ids` must be I64, got FP32")
    );
    assert_eq!(
        refusal(|inputs| inputs[0].1 = tensor(&[8], TensorData::I64(vec![1; 8]))),
        format!("model `{INT8}`: input `input_ids` must have the shape [rows, tokens], got [8]")
    );
    assert_eq!(
        refusal(|inputs| inputs[2].1 = tensor(&[4, 2], TensorData::I64(vec![1; 8]))),
        format!(
            "model `{INT8}`: input `token_type_ids` must have the shape of `attention_mask`, [2, 4], got [4, 2]"
        )
    );
    let long = |inputs: &mut Vec<(String, Tensor)>| {
        for (_, each) in inputs {
            *each = tensor(&[1, 300], TensorData::I64(vec![1; 300]));
        }
    };
    assert_eq!(
        refusal(long),
        format!(
            "model `{INT8}`: input `attention_mask` must have at most 256 tokens a row; row 0 has 300, got [1, 300]"
        )
    );
}

#[test]
fn a_row_that_did_not_run_in_time_is_nan_and_the_rest_is_not() {
    let _turn = turn();
    let many: Vec<String> = texts().iter().cycle().take(700).cloned().collect();
    let lane = lane(Duration::from_millis(150));
    let started = Instant::now();
    let scored = wait(pairs::score(&lane, model(INT8), "red shoes", many)).unwrap();
    let late = scored.scores.iter().filter(|score| score.is_none()).count();
    assert!(
        late > 0,
        "700 texts cannot be scored in 150 ms on two threads"
    );
    // Slices run in the engine's order: what was scored lies at the head.
    let last_scored = scored.scores.iter().rposition(Option::is_some);
    assert!(
        last_scored.is_none_or(|last| last < 700 - late + 2 * 32),
        "{last_scored:?}, {late}"
    );
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(
        inference().scheduler().queued(),
        (0, 0),
        "late rows are dropped at once"
    );
}

#[test]
fn the_rows_of_a_caller_that_is_gone_are_dropped_at_once() {
    let _turn = turn();
    let withdrawn = || {
        inference()
            .scheduler()
            .statistics()
            .rows_withdrawn
            .load(Ordering::Relaxed)
    };
    let before = withdrawn();
    let many: Vec<String> = texts().iter().cycle().take(700).cloned().collect();
    wait(async {
        let lane = lane(Duration::from_secs(60));
        let scoring = pairs::score(&lane, model(INT8), "red shoes", many);
        let gone = tokio::time::timeout(Duration::from_millis(100), scoring).await;
        assert!(gone.is_err());
    });
    assert!(withdrawn() > before);
}

#[test]
fn a_short_request_is_not_starved_by_a_long_one() {
    let _turn = turn();
    let many: Vec<String> = texts().iter().cycle().take(700).cloned().collect();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap()
        .block_on(async {
            let long = tokio::spawn(async move {
                let lane = lane(Duration::from_secs(60));
                pairs::score(&lane, model(INT8), "red shoes", many)
                    .await
                    .unwrap();
            });
            while inference().scheduler().queued().1 < 100 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let lane = lane(Duration::from_secs(60));
            pairs::score(&lane, model(INT8), "red shoes", texts()[..5].to_vec())
                .await
                .unwrap();
            assert!(!long.is_finished(), "five rows come before the last of 700");
            long.await.unwrap();
        });
}

#[test]
fn small_requests_are_served_in_the_order_in_which_they_came() {
    let _turn = turn();
    // Rows of int8 run alone: lanes could take turns at each.
    let eight = texts()[30..38].to_vec();
    let lanes: Vec<Lane> = (0..8).map(|_| lane(Duration::from_secs(60))).collect();
    let started = Instant::now();
    let times = wait(async {
        let request = |lane: Lane| {
            let texts = eight.clone();
            tokio::spawn(async move {
                let scored = pairs::score(&lane, model(INT8), "red shoes", texts);
                scored.await.map(|_| started.elapsed())
            })
        };
        let requests: Vec<_> = lanes.into_iter().map(request).collect();
        let mut times = Vec::new();
        for request in requests {
            times.push(request.await.unwrap().unwrap());
        }
        times
    });
    assert!(
        times[0] < times[7] / 2,
        "the first has to wait for the others: {times:?}"
    );
    assert!(times[1] < times[6], "in the order: {times:?}");
}

fn background_lane(timeout: Duration) -> Lane {
    inference()
        .scheduler()
        .open_background_lane(Deadline::after(Instant::now(), timeout))
}

/// 700 texts: more than a second's work for two threads.
fn many() -> Vec<String> {
    texts().iter().cycle().take(700).cloned().collect()
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn background_work_starts_only_when_no_ordinary_work_waits() {
    let _turn = turn();
    let scheduler = inference().scheduler();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap()
        .block_on(async {
            let long = tokio::spawn(async move {
                let lane = lane(Duration::from_secs(60));
                let scored = pairs::score(&lane, model(INT8), "red shoes", many());
                scored.await.unwrap()
            });
            until(|| scheduler.queued().1 >= 100).await;
            let hurried = background_lane(Duration::from_millis(50));
            let five = texts()[..5].to_vec();
            let scoring = pairs::score(&hurried, model(INT8), "red shoes", five.clone());
            let in_vain = tokio::time::timeout(Duration::from_millis(50), scoring).await;
            let waiting = scheduler.queued().1;
            assert!(waiting > 0, "the long request must outlast the hurried one");
            assert!(
                in_vain.is_err(),
                "a background row ran before ordinary ones"
            );
            drop(hurried);
            let patient = background_lane(Duration::from_secs(60));
            let scored = pairs::score(&patient, model(INT8), "red shoes", five).await;
            assert_eq!(
                scheduler.queued(),
                (0, 0),
                "every ordinary row was taken before the first background one"
            );
            assert!(scored.unwrap().scores.iter().all(Option::is_some));
            assert!(long.await.unwrap().scores.iter().all(Option::is_some));
        });
}

#[test]
fn background_work_is_counted_apart_and_goes_with_its_lane() {
    let _turn = turn();
    let scheduler = inference().scheduler();
    let withdrawn = || {
        scheduler
            .statistics()
            .rows_withdrawn
            .load(Ordering::Relaxed)
    };
    let before = withdrawn();
    wait(async {
        let lane = background_lane(Duration::from_secs(60));
        let scoring = pairs::score(&lane, model(INT8), "red shoes", many());
        let queued = until(|| scheduler.queued_in_background().1 >= 100);
        tokio::select! {
            _ = scoring => panic!("700 rows ran before 100 of them were seen waiting"),
            () = queued => {}
        }
    });
    assert_eq!(scheduler.queued_in_background(), (0, 0));
    assert!(withdrawn() > before);
    wait(async {
        let lane = background_lane(Duration::from_secs(60));
        let scoring = pairs::score(&lane, model(INT8), "red shoes", many());
        let seen = async {
            until(|| scheduler.queued_in_background().1 >= 100).await;
            (scheduler.queued(), scheduler.expected_wait())
        };
        tokio::select! {
            _ = scoring => panic!("700 rows ran before 100 of them were seen waiting"),
            seen = seen => assert_eq!(seen, ((0, 0), Duration::ZERO)),
        }
    });
}

#[test]
fn background_lanes_share_evenly_among_themselves() {
    let _turn = turn();
    let scheduler = inference().scheduler();
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .unwrap()
        .block_on(async {
            let long = tokio::spawn(async move {
                let lane = background_lane(Duration::from_secs(60));
                let scored = pairs::score(&lane, model(INT8), "red shoes", many());
                scored.await.unwrap();
            });
            until(|| scheduler.queued_in_background().1 >= 100).await;
            let lane = background_lane(Duration::from_secs(60));
            let five = texts()[..5].to_vec();
            pairs::score(&lane, model(INT8), "red shoes", five)
                .await
                .unwrap();
            assert!(!long.is_finished(), "five rows come before the last of 700");
            long.await.unwrap();
        });
}

#[test]
fn a_runtime_that_is_missing_or_is_none_gives_one_clear_sentence() {
    let start = |path: PathBuf| {
        let config = InferenceConfig {
            openvino: None,
            onnxruntime: vec![path],
            model_folders: Vec::new(),
            models: Vec::new(),
            check_file: |_| Ok(()),
            workers: Some(1),
            caches: CacheSettings::OFF,
        };
        Inference::start(&config).err().unwrap()
    };
    let missing = start("/nonexistent/libonnxruntime.so".into());
    assert!(matches!(missing, InferenceError::RuntimeMissing { .. }));
    assert_eq!(
        missing.to_string(),
        "ONNX Runtime is missing: no library at `/nonexistent/libonnxruntime.so`; `make runtime` fetches it, or name one with --onnxruntime or ORT_DYLIB_PATH"
    );
    let text = start(root().join("Cargo.toml"));
    assert!(
        matches!(text, InferenceError::RuntimeUnusable { .. }),
        "{text}"
    );
}

#[test]
fn a_model_that_may_have_one_worker_is_run_by_one_at_a_time() {
    let _turn = turn();
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("one-worker");
    let original = root().join("models").join(INT8);
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["model.onnx", "tokenizer.json"] {
        std::fs::copy(original.join(file), folder.join(file)).unwrap();
    }
    let manifest = std::fs::read_to_string(original.join("manifest.toml")).unwrap();
    let one_worker = manifest
        .replace(INT8, "one-worker")
        .replace("[execution]", "[execution]\nworkers = 1");
    std::fs::write(folder.join("manifest.toml"), one_worker).unwrap();
    let inference = inference();
    let limited = inference.load_from(&folder).unwrap();
    let other = inference.load(FP32).unwrap();

    let batch = |model: &Model| {
        let cells = || tensor(&[20, 40], TensorData::I64(vec![1; 800]));
        let names = ["input_ids", "attention_mask", "token_type_ids"];
        RowBatch::new(model, names.map(|name| (name.to_owned(), cells())).into()).unwrap()
    };
    let lane = || {
        let deadline = Deadline::after(Instant::now(), Duration::from_secs(60));
        inference.scheduler().open_lane(deadline)
    };
    let lanes = [lane(), lane(), lane()];
    let started = Instant::now();
    let (one, two, beside) = wait(async {
        tokio::join!(
            lanes[0].run(&limited, batch(&limited)),
            lanes[1].run(&limited, batch(&limited)),
            lanes[2].run(&other, batch(&other)),
        )
    });
    let took = started.elapsed();
    let outputs = [one.unwrap(), two.unwrap(), beside.unwrap()];
    assert!(outputs.iter().all(|output| output.late_rows == 0));
    let run = outputs[0].run_time + outputs[1].run_time;
    assert!(run <= took, "runs of {run:?} in {took:?}: two at a time");
}
