//! The caches on the committed models: a hit is what a miss was, bit for bit, and nothing else is hit.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rerankd_inference::cache::Caches;
use rerankd_inference::rows::RowBatch;
use rerankd_inference::scheduler::Scheduler;
use rerankd_inference::{
    CacheSettings, CacheUsage, Deadline, Inference, InferenceConfig, InferenceError, Lane, Model,
    RunOutput, TensorData, pairs,
};

const BI_ENCODER: &str = "all-minilm-l6-v2";
const CROSS_ENCODER: &str = "tiny-cross-encoder";
const QUERY: &str = "red shoes for kids";

/// The models: one process has one ONNX Runtime.
fn models() -> &'static Inference {
    static MODELS: OnceLock<Inference> = OnceLock::new();
    MODELS.get_or_init(|| {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
        let library = if cfg!(target_os = "macos") {
            "libonnxruntime.dylib"
        } else {
            "libonnxruntime.so"
        };
        let library = root.join(".runtime/onnxruntime").join(library);
        assert!(
            library.is_file(),
            "{} is missing: run `make runtime`",
            library.display()
        );
        Inference::start(&InferenceConfig {
            openvino: None,
            onnxruntime: vec![library],
            model_folders: vec![root.join("models")],
            models: vec![BI_ENCODER.to_owned(), CROSS_ENCODER.to_owned()],
            check_file: |_| Ok(()),
            workers: Some(1),
            caches: CacheSettings::OFF,
        })
        .unwrap()
    })
}

/// The one of the model folder, whatever a test has loaded under the same name since.
fn model(name: &str) -> Arc<Model> {
    models().load(name).unwrap()
}

fn start(caches: CacheSettings) -> Scheduler {
    Scheduler::start(2, Caches::open(&caches, "this setup").unwrap()).unwrap()
}

/// Without caches: what every row is compared with.
fn plain() -> &'static Scheduler {
    static PLAIN: OnceLock<Scheduler> = OnceLock::new();
    PLAIN.get_or_init(|| start(CacheSettings::OFF))
}

fn cached() -> Scheduler {
    start(CacheSettings::default())
}

fn lane(scheduler: &Scheduler) -> Lane {
    let deadline = Deadline::after(Instant::now(), Duration::from_secs(60));
    scheduler.open_lane(deadline)
}

fn wait<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap()
        .block_on(future)
}

fn scores(scheduler: &Scheduler, name: &str, query: &str, texts: &[String]) -> Vec<u64> {
    let model = model(name);
    let lane = lane(scheduler);
    let scored = wait(pairs::score(&lane, &model, query, texts.to_vec())).unwrap();
    let bits = |score: Option<f64>| score.unwrap().to_bits();
    scored.scores.into_iter().map(bits).collect()
}

fn run(scheduler: &Scheduler, model: &Arc<Model>, texts: &[String]) -> RunOutput {
    let lane = lane(scheduler);
    wait(async {
        let encoding = lane.encode(model.tokenizer(), None, texts.to_vec()).await?;
        let batch = RowBatch::new(model, encoding.into_tensors(&model.manifest().inputs))?;
        lane.run(model, batch).await
    })
    .unwrap_or_else(|error: InferenceError| panic!("{error}"))
}

fn rows_run(scheduler: &Scheduler) -> u64 {
    let statistics = scheduler.statistics();
    statistics.rows_run.load(Ordering::Relaxed)
}

fn usage(scheduler: &Scheduler, cache: &str) -> CacheUsage {
    let caches = scheduler.caches().usage();
    let (_, usage) = caches.into_iter().find(|(name, _)| *name == cache).unwrap();
    usage
}

/// Hits and misses of a model.
fn asked(scheduler: &Scheduler, cache: &str, model: &str) -> (u64, u64) {
    let asked = usage(scheduler, cache).asked;
    let of_model = asked.into_iter().find(|(name, ..)| name == model);
    of_model.map_or((0, 0), |(_, hits, misses)| (hits, misses))
}

fn texts(count: usize) -> Vec<String> {
    let words = ["red", "shoes", "for", "kids", "laptop", "bag", "water"];
    (0..count)
        .map(|i| {
            let word = |j: usize| words[(i + j * (1 + i % 3)) % words.len()];
            let words: Vec<_> = (0..1 + (i * 5) % 20).map(word).collect();
            format!("{} number {i}", words.join(" "))
        })
        .collect()
}

#[test]
fn a_hit_equals_a_miss_bit_for_bit_and_runs_nothing() {
    let scheduler = cached();
    let texts = texts(40);
    for model in [BI_ENCODER, CROSS_ENCODER] {
        let missed = scores(&scheduler, model, QUERY, &texts);
        let after_the_first = rows_run(&scheduler);
        let hit = scores(&scheduler, model, QUERY, &texts);
        assert_eq!(hit, missed, "{model}");
        assert_eq!(rows_run(&scheduler), after_the_first, "{model}");
    }
    // One row a run: what came before it cannot show in its numbers.
    let without = scores(plain(), BI_ENCODER, QUERY, &texts);
    assert_eq!(scores(&scheduler, BI_ENCODER, QUERY, &texts), without);
    assert_eq!(asked(&scheduler, "rows", BI_ENCODER), (82, 41));
    assert_eq!(asked(&scheduler, "rows", CROSS_ENCODER), (40, 40));
}

#[test]
fn all_outputs_of_a_row_come_back() {
    let scheduler = cached();
    let model = model(BI_ENCODER);
    let texts = texts(9);
    let missed = run(&scheduler, &model, &texts);
    let hit = run(&scheduler, &model, &texts);
    assert_eq!(hit.tensors, missed.tensors);
    assert_eq!(hit.late_rows, 0);
    let names: Vec<&str> = hit.tensors.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["sentence_embedding", "pooled_embedding"]);
    let TensorData::F32(pooled) = hit.tensors[1].1.data() else {
        panic!("it is FP32")
    };
    let length = |row: &[f32]| row.iter().map(|x| x * x).sum::<f32>().sqrt();
    assert!(length(&pooled[..384]) > 1.5, "it is not normalized");
}

#[test]
fn vectors_are_in_half_precision_whether_they_are_kept_or_not() {
    let texts = texts(3);
    let model = model(BI_ENCODER);
    let output = run(plain(), &model, &texts);
    let TensorData::F32(vectors) = output.tensors[0].1.data() else {
        panic!("it is FP32")
    };
    for &element in vectors {
        // Of 23 bits of a mantissa the last 13 are gone; below 2^-14 some more.
        assert_eq!(element.to_bits() & 0x1fff, 0, "{element}");
    }
    let mut folder = std::env::temp_dir();
    folder.push(format!("rerankd-caches-{}", std::process::id()));
    let _remove = Remove(folder.clone());
    let exact = exact_copy(&model, &folder);
    let exact_output = run(plain(), &exact, &texts);
    let TensorData::F32(exact_vectors) = exact_output.tensors[0].1.data() else {
        panic!("it is FP32")
    };
    assert_ne!(exact_vectors, vectors);
    assert_ne!(exact.digest(), model.digest());
    for (rounded, exact) in vectors.iter().zip(exact_vectors) {
        assert!((rounded - exact).abs() <= exact.abs() / 2048.0 + 1e-7);
    }
}

/// The model of another folder, without rounding.
fn exact_copy(model: &Model, folder: &Path) -> Arc<Model> {
    let folder = folder.join(model.name());
    std::fs::create_dir_all(&folder).unwrap();
    for name in model.manifest().file_names() {
        std::fs::copy(model.folder().join(&name), folder.join(&name)).unwrap();
    }
    let manifest = folder.join("manifest.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let (kept, _) = text.split_once("output_precision").unwrap();
    std::fs::write(&manifest, kept).unwrap();
    models().load_from(&folder).unwrap()
}

struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn rows_that_are_known_and_rows_that_are_not_come_back_in_their_places() {
    let scheduler = cached();
    let all = texts(30);
    let every_third: Vec<_> = all.iter().step_by(3).cloned().collect();
    scores(&scheduler, BI_ENCODER, QUERY, &every_third);
    let mixed = scores(&scheduler, BI_ENCODER, QUERY, &all);
    assert_eq!(mixed, scores(plain(), BI_ENCODER, QUERY, &all));
    assert_eq!(rows_run(&scheduler), 31);
}

#[test]
fn a_document_is_known_to_a_bi_encoder_whatever_the_query_and_to_a_cross_encoder_with_it() {
    let scheduler = cached();
    let texts = texts(10);
    scores(&scheduler, BI_ENCODER, QUERY, &texts);
    let bi = scores(&scheduler, BI_ENCODER, "a bag", &texts);
    assert_eq!(rows_run(&scheduler), 12, "the second query alone ran");
    assert_eq!(bi, scores(plain(), BI_ENCODER, "a bag", &texts));
    scores(&scheduler, CROSS_ENCODER, QUERY, &texts);
    scores(&scheduler, CROSS_ENCODER, "a bag", &texts);
    assert_eq!(rows_run(&scheduler), 32, "every pair is another row");
}

#[test]
fn concurrent_requests_for_the_same_rows_agree() {
    let scheduler = cached();
    let texts = texts(20);
    let expected = scores(plain(), BI_ENCODER, QUERY, &texts);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..5 {
                    assert_eq!(scores(&scheduler, BI_ENCODER, QUERY, &texts), expected);
                }
            });
        }
    });
}

#[test]
fn the_caches_stay_within_their_bytes_and_a_long_list_does_not_empty_them() {
    let max = 64 << 10;
    let scheduler = start(CacheSettings {
        row_bytes: max,
        encoding_bytes: max,
        file: None,
    });
    let often = texts(12);
    for _ in 0..4 {
        scores(&scheduler, CROSS_ENCODER, QUERY, &often);
    }
    let once: Vec<String> = (0..3000).map(|i| format!("seen once {i}")).collect();
    scores(&scheduler, CROSS_ENCODER, QUERY, &once);
    for cache in ["rows", "encodings"] {
        let usage = usage(&scheduler, cache);
        assert!(usage.bytes <= max as u64, "{cache}: {usage:?}");
        assert!(usage.bytes > max as u64 / 2, "{cache}: {usage:?}");
        assert!(usage.entries < 1000, "{cache}: {usage:?}");
    }
    let before = rows_run(&scheduler);
    scores(&scheduler, CROSS_ENCODER, QUERY, &often);
    let lost = rows_run(&scheduler) - before;
    assert!(lost <= 2, "{lost} of 12 rows were driven out");
}

#[test]
fn without_caches_everything_runs_and_nothing_is_reported() {
    assert_eq!(plain().caches().usage(), []);
    let other = start(CacheSettings {
        row_bytes: 0,
        ..CacheSettings::default()
    });
    let texts = texts(5);
    scores(&other, CROSS_ENCODER, QUERY, &texts);
    scores(&other, CROSS_ENCODER, QUERY, &texts);
    assert_eq!(rows_run(&other), 10);
    let encoded = &other.statistics().texts_encoded;
    assert_eq!(encoded.load(Ordering::Relaxed), 5);
}

/// An empty folder, gone at drop.
fn folder(name: &str) -> Remove {
    let path = std::env::temp_dir().join(format!("rerankd-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).unwrap();
    Remove(path)
}

fn on_file(path: &Path) -> CacheSettings {
    CacheSettings {
        file: Some(path.to_owned()),
        ..CacheSettings::default()
    }
}

#[test]
fn a_restart_on_a_file_is_warm() {
    let folder = folder("cache-file");
    let path = folder.0.join("rows");
    let texts = texts(20);
    let first = start(on_file(&path));
    let missed = scores(&first, BI_ENCODER, QUERY, &texts);
    // What waits is written when the scheduler goes.
    drop(first);
    let second = start(on_file(&path));
    assert_eq!(scores(&second, BI_ENCODER, QUERY, &texts), missed);
    assert_eq!(rows_run(&second), 0);
    assert_eq!(usage(&second, "rows").entries, 21);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let other = Caches::open(&on_file(&path), "this setup").err().unwrap();
    let said = other.to_string();
    assert!(
        said.ends_with("(--cache-file): another process has it open"),
        "{said}"
    );
}

#[test]
fn a_file_of_another_setup_or_a_damaged_one_starts_empty() {
    let folder = folder("cache-damage");
    let path = folder.0.join("rows");
    let texts = texts(20);
    let missed = scores(&start(on_file(&path)), BI_ENCODER, QUERY, &texts);
    let good = std::fs::read(&path).unwrap();
    let entries = |fingerprint: &str| {
        let caches = Caches::open(&on_file(&path), fingerprint).unwrap();
        caches.usage()[0].1.entries
    };
    assert_eq!(entries("this setup"), 21);
    assert_eq!(entries("another"), 0);
    assert_eq!(entries("this setup"), 0, "it was dropped");

    let cut = good[..good.len() / 3].to_vec();
    let noise: Vec<u8> = (0..9000_u32).map(|i| (i * 31 % 251) as u8).collect();
    for bytes in [cut, noise] {
        std::fs::write(&path, bytes).unwrap();
        assert_eq!(entries("this setup"), 0);
    }
    // A byte in every part of the file that is not empty: of a row, of a page's head, of neither.
    let written: Vec<usize> = (4096..good.len()).filter(|&at| good[at] != 0).collect();
    let mut dropped = 0;
    for &position in written.iter().step_by(written.len() / 40) {
        let mut bytes = good.clone();
        bytes[position] ^= 0x10;
        std::fs::write(&path, bytes).unwrap();
        let scheduler = start(on_file(&path));
        dropped += usize::from(usage(&scheduler, "rows").entries == 0);
        assert_eq!(
            scores(&scheduler, BI_ENCODER, QUERY, &texts),
            missed,
            "{position}"
        );
    }
    assert!(dropped > 20, "only {dropped} of 40 were noticed");
}

#[test]
fn a_file_does_not_grow_without_end() {
    let folder = folder("cache-bound");
    let path = folder.0.join("rows");
    let max = 256 << 10;
    let settings = CacheSettings {
        row_bytes: max,
        encoding_bytes: 0,
        file: Some(path.clone()),
    };
    for round in 0..8 {
        let scheduler = start(settings.clone());
        let once: Vec<String> = (0..3000).map(|i| format!("seen {round} {i}")).collect();
        scores(&scheduler, CROSS_ENCODER, QUERY, &once);
        let usage = usage(&scheduler, "rows");
        assert!(usage.bytes <= max as u64, "{usage:?}");
    }
    let kept = start(settings);
    assert!(usage(&kept, "rows").entries > 100);
    assert!(usage(&kept, "rows").bytes <= max as u64);
    let size = std::fs::metadata(&path).unwrap().len();
    assert!(size < 12 * max as u64, "{size} bytes");
}

/// Text as it comes and as it should not: scripts, marks, long words, spaces, nothing at all.
fn text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        6 => "[a-z]{1,12}",
        2 => "[A-Z][a-zéüß]{0,8}[.,!?]?",
        1 => "[\\u{4e00}-\\u{4fff}]{1,6}",
        1 => "[a-z]{90,130}",
        1 => "[ \\t\\n]{1,40}",
        1 => "e[\\u{300}-\\u{36f}]{1,30}",
        1 => "\\PC{1,6}",
        1 => Just("[SEP] [CLS]".to_owned()),
        1 => Just("\u{0}\u{200b}\u{feff}\u{1f469}\u{200d}\u{1f680}".to_owned()),
    ];
    prop_oneof![
        1 => Just(String::new()),
        8 => prop::collection::vec(piece, 0..300).prop_map(|pieces| pieces.join(" ")),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn a_row_of_known_encodings_is_the_row_of_new_ones(
        query in text(),
        texts in prop::collection::vec(text(), 1..6),
        paired: bool,
    ) {
        static CACHED: OnceLock<Scheduler> = OnceLock::new();
        let cached = CACHED.get_or_init(cached);
        let encode = |scheduler: &Scheduler, texts: &[String]| {
            let model = model(CROSS_ENCODER);
            let query = paired.then(|| query.clone());
            wait(lane(scheduler).encode(model.tokenizer(), query, texts.to_vec())).unwrap()
        };
        let expected = encode(plain(), &texts);
        let hits = || asked(cached, "encodings", CROSS_ENCODER).0;
        prop_assert_eq!(&encode(cached, &texts), &expected);
        let before = hits();
        prop_assert_eq!(&encode(cached, &texts), &expected);
        prop_assert!(hits() >= before + texts.len() as u64);
        // Known with another query, and with a new text among them.
        let mut mixed = texts.clone();
        mixed.insert(texts.len() / 2, format!("{query} new"));
        prop_assert_eq!(encode(cached, &mixed), encode(plain(), &mixed));
    }
}

#[test]
fn texts_too_many_to_look_up_at_once_are_the_same() {
    let scheduler = cached();
    let long: Vec<String> = (0..40).map(|i| format!("{i} shoe ").repeat(900)).collect();
    let model = model(BI_ENCODER);
    let encode =
        |of: &Scheduler| wait(lane(of).encode(model.tokenizer(), None, long.clone())).unwrap();
    let expected = encode(plain());
    assert_eq!(expected.truncated.len(), 40);
    assert_eq!(encode(&scheduler), expected);
    assert_eq!(encode(&scheduler), expected);
    assert_eq!(asked(&scheduler, "encodings", BI_ENCODER), (40, 40));
}
