//! The queue, its workers and those who wait, in the orders in which their threads may run (shuttle):
//! no row is lost, none runs twice, and no worker sleeps while there is work, which shuttle sees as a
//! deadlock. The models are real but for their sessions, which note the rows that they run.
//!
//! `RERANKD_INTERLEAVINGS` says how many orders are tried of each scenario; for a night:
//! `RERANKD_INTERLEAVINGS=10000000 cargo test --release --workspace --lib interleaving`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use shuttle::scheduler::{PctScheduler, RandomScheduler};

use crate::backend::{Backend, Port, RunInput, Session, View};
use crate::cache::Caches;
use crate::rows::RowBatch;
use crate::scheduler::{Lane, Scheduler};
use crate::sync::{beginning, reset_clock};
use crate::{
    Deadline, ElementType, InferenceError, Model, ModelManifest, RunOutput, Tensor, TensorData,
};

/// Orders that are tried of a scenario, by each of two ways of choosing them: `make test-long` tries 30
/// times as many.
const ORDERS: usize = 1000;

/// The first token of each row that ran, and how often.
static RAN: std::sync::Mutex<BTreeMap<i64, usize>> = std::sync::Mutex::new(BTreeMap::new());

/// One scenario at a time: they share [`RAN`].
static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());

/// Whether threads are shuttle's: not where a model is loaded.
static INSIDE: AtomicBool = AtomicBool::new(false);

/// A row that begins with it ends when one that begins with [`AWAITED`] has run.
const WAITING: i64 = 99;
const AWAITED: i64 = 98;

struct Notes {
    inputs: [Port; 3],
    outputs: [Port; 1],
    /// Runs at one time, and how many there may be.
    running: AtomicUsize,
    most: usize,
}

impl Session for Notes {
    fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// A row's score is its first token.
    fn run(&self, inputs: &[RunInput<'_>]) -> Result<Vec<Tensor>, String> {
        let View::I64(ids) = inputs[0].view else {
            return Err("ids are integers".to_owned());
        };
        let firsts = ids.chunks(inputs[0].dims[1]).map(|row| row[0]);
        if INSIDE.load(Ordering::Relaxed) {
            let running = self.running.fetch_add(1, Ordering::Relaxed) + 1;
            shuttle::thread::yield_now();
            while firsts.clone().any(|first| first == WAITING)
                && !RAN.lock().unwrap().contains_key(&AWAITED)
            {
                shuttle::thread::yield_now();
            }
            self.running.fetch_sub(1, Ordering::Relaxed);
            if running > self.most {
                return Err(format!("{running} runs at one time"));
            }
        }
        let mut ran = RAN.lock().unwrap();
        let scores: Vec<f32> = firsts
            .map(|first| {
                *ran.entry(first).or_default() += 1;
                first as f32
            })
            .collect();
        drop(ran);
        let tensor = Tensor::new(vec![scores.len(), 1], TensorData::F32(scores));
        Ok(vec![tensor.map_err(|error| error.to_string())?])
    }
}

struct Notebook;

impl Backend for Notebook {
    fn open(
        &self,
        manifest: &ModelManifest,
        _: &Path,
        _: &[u8],
    ) -> Result<Box<dyn Session>, InferenceError> {
        let port = |name: &str, element_type, last| Port {
            name: name.to_owned(),
            element_type: Some(element_type),
            dims: vec![None, last],
        };
        let input = |name: &str| port(name, ElementType::I64, None);
        let inputs = &manifest.inputs;
        let types = inputs.type_ids.as_deref().unwrap();
        let score = manifest.outputs.score.as_deref().unwrap();
        Ok(Box::new(Notes {
            inputs: [input(&inputs.ids), input(&inputs.mask), input(types)],
            outputs: [port(score, ElementType::F32, Some(1))],
            running: AtomicUsize::new(0),
            most: manifest.execution.workers.unwrap(),
        }))
    }

    fn version(&self) -> &str {
        "notebook"
    }
}

/// The model for tests, run by so many workers at most.
fn model(workers: usize) -> Arc<Model> {
    let name = "tiny-cross-encoder";
    let from = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../../models")
        .join(name);
    let to = std::env::temp_dir()
        .join(format!(
            "rerankd-interleaving-{}-{workers}",
            std::process::id()
        ))
        .join(name);
    std::fs::create_dir_all(&to).unwrap();
    for file in ["model.onnx", "tokenizer.json"] {
        std::fs::copy(from.join(file), to.join(file)).unwrap();
    }
    let manifest = std::fs::read_to_string(from.join("manifest.toml")).unwrap();
    // `[execution]` is its last table. Two rows of four tokens a run.
    let manifest = format!(
        "{}\nworkers = {workers}\nrun_tokens = 8\n",
        manifest.trim_end()
    );
    std::fs::write(to.join("manifest.toml"), manifest).unwrap();
    let model = Model::load(&to, &Notebook, workers).unwrap();
    std::fs::remove_dir_all(to.parent().unwrap()).unwrap();
    Arc::new(model)
}

fn models() -> &'static [Arc<Model>; 2] {
    static MODELS: OnceLock<[Arc<Model>; 2]> = OnceLock::new();
    MODELS.get_or_init(|| [model(1), model(2)])
}

/// Rows of so many tokens.
fn batch_of(tokens: usize, model: &Model, firsts: &[i64]) -> RowBatch {
    let cells = tokens * firsts.len();
    let tensor =
        |cells: Vec<i64>| Tensor::new(vec![firsts.len(), tokens], TensorData::I64(cells)).unwrap();
    let ids = |cell: usize| match cell % tokens {
        0 => firsts[cell / tokens],
        _ => 1,
    };
    let inputs = &model.manifest().inputs;
    let named = vec![
        (inputs.ids.clone(), tensor((0..cells).map(ids).collect())),
        (inputs.mask.clone(), tensor(vec![1; cells])),
        (inputs.type_ids.clone().unwrap(), tensor(vec![1; cells])),
    ];
    RowBatch::new(model, named).unwrap()
}

fn batch(model: &Model, firsts: &[i64]) -> RowBatch {
    batch_of(4, model, firsts)
}

fn far() -> Deadline {
    Deadline::after(beginning(), Duration::from_secs(7200))
}

/// Comes after some looks at the clock.
fn near() -> Deadline {
    Deadline::after(beginning(), Duration::from_millis(40))
}

/// Each row has its own score, or NaN where it did not run; how many did not.
fn late(output: &RunOutput, firsts: &[i64]) -> usize {
    let TensorData::F32(scores) = output.tensors[0].1.data() else {
        panic!("scores are numbers");
    };
    assert_eq!(scores.len(), firsts.len());
    let pairs = scores.iter().zip(firsts);
    let late = pairs.filter(|(score, _)| score.is_nan()).count();
    for (score, first) in scores.iter().zip(firsts) {
        assert!(
            score.is_nan() || *score == *first as f32,
            "{score}: not its own"
        );
    }
    assert_eq!(late, output.late_rows);
    late
}

fn run(lane: &Lane, model: &Arc<Model>, firsts: &[i64]) -> usize {
    let output = shuttle::future::block_on(lane.run(model, batch(model, firsts)));
    late(&output.unwrap(), firsts)
}

/// Polls a future so often, and drops it.
fn give_up_after(polls: usize, future: impl Future) {
    let mut future = pin!(future);
    let mut left = polls;
    shuttle::future::block_on(std::future::poll_fn(|context| {
        if left == 0 || future.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        left -= 1;
        context.waker().wake_by_ref();
        Poll::Pending
    }));
}

fn orders() -> usize {
    match std::env::var("RERANKD_INTERLEAVINGS") {
        Ok(orders) => orders.parse().unwrap(),
        Err(_) if std::env::var_os("RERANKD_LONG_TESTS").is_some() => 30 * ORDERS,
        Err(_) => ORDERS,
    }
}

/// Tries the orders of a scenario.
fn try_orders(scenario: impl Fn() + Copy + Send + Sync + 'static) {
    let _turn = TURN
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    models();
    let orders = orders();
    let once = move || {
        reset_clock();
        RAN.lock().unwrap().clear();
        scenario();
        let ran = RAN.lock().unwrap();
        assert!(ran.values().all(|&times| times == 1), "twice: {ran:?}");
    };
    INSIDE.store(true, Ordering::Relaxed);
    shuttle::Runner::new(RandomScheduler::new(orders), shuttle::Config::default()).run(once);
    shuttle::Runner::new(PctScheduler::new(3, orders), shuttle::Config::default()).run(once);
}

/// The same with a queue, of which nothing is left when the scenario ends. `rows` are submitted in it.
fn try_orders_of_calls(rows: usize, scenario: fn(&Arc<Scheduler>)) {
    try_orders(move || {
        let scheduler = Arc::new(Scheduler::start(2, Caches::default()).unwrap());
        scenario(&scheduler);
        assert_eq!(scheduler.queued(), (0, 0));
        assert_eq!(scheduler.queued_in_background(), (0, 0));
        let statistics = scheduler.statistics();
        let count = |counter: &AtomicU64| usize::try_from(counter.load(Ordering::Relaxed)).unwrap();
        let gone = count(&statistics.rows_late) + count(&statistics.rows_withdrawn);
        // What has started when its caller gives up may still run.
        drop(Arc::into_inner(scheduler).expect("nobody else has it"));
        let ran = RAN.lock().unwrap();
        assert_eq!(ran.len() + gone, rows, "{gone} rows given up; ran: {ran:?}");
    });
}

fn spawn(
    scheduler: &Arc<Scheduler>,
    work: impl FnOnce(&Scheduler) + Send + 'static,
) -> shuttle::thread::JoinHandle<()> {
    let scheduler = Arc::clone(scheduler);
    shuttle::thread::spawn(move || work(&scheduler))
}

#[test]
fn all_rows_come_back_once_and_each_to_its_caller() {
    try_orders_of_calls(9, |scheduler| {
        let calls = [
            spawn(scheduler, |scheduler| {
                let lane = scheduler.open_lane(far());
                assert_eq!(run(&lane, &models()[0], &[11, 12, 13]), 0);
                assert_eq!(run(&lane, &models()[1], &[14]), 0);
            }),
            spawn(scheduler, |scheduler| {
                let lane = scheduler.open_lane(far());
                assert_eq!(run(&lane, &models()[0], &[21, 22]), 0);
            }),
            spawn(scheduler, |scheduler| {
                let lane = scheduler.open_background_lane(far());
                assert_eq!(run(&lane, &models()[1], &[31, 32, 33]), 0);
            }),
        ];
        calls.into_iter().for_each(|call| call.join().unwrap());
    });
}

#[test]
fn no_worker_sleeps_while_there_is_work() {
    try_orders_of_calls(4, |scheduler| {
        let calls = [
            spawn(scheduler, |scheduler| {
                let (lane, model) = (scheduler.open_lane(far()), &models()[1]);
                let firsts = [WAITING, AWAITED];
                // As many tokens as a run has: each by itself.
                let output = lane.run(model, batch_of(8, model, &firsts));
                let output = shuttle::future::block_on(output).unwrap();
                assert_eq!(late(&output, &firsts), 0);
            }),
            spawn(scheduler, |scheduler| {
                let lane = scheduler.open_lane(far());
                assert_eq!(run(&lane, &models()[0], &[11, 12]), 0);
            }),
        ];
        calls.into_iter().for_each(|call| call.join().unwrap());
    });
}

#[test]
fn what_is_given_up_or_late_keeps_nobody_waiting() {
    try_orders_of_calls(12, |scheduler| {
        let calls = [
            spawn(scheduler, |scheduler| {
                let lane = scheduler.open_lane(far());
                assert_eq!(run(&lane, &models()[0], &[11, 12, 13]), 0);
            }),
            spawn(scheduler, |scheduler| {
                let lane = scheduler.open_lane(far());
                let model = &models()[0];
                give_up_after(1, lane.run(model, batch(model, &[21, 22, 23])));
                assert_eq!(run(&lane, &models()[1], &[24]), 0);
            }),
            spawn(scheduler, |scheduler| {
                let lane = scheduler.open_lane(near());
                run(&lane, &models()[0], &[31, 32, 33]);
            }),
            spawn(scheduler, |scheduler| {
                let lane = scheduler.open_background_lane(near());
                let model = &models()[1];
                give_up_after(3, lane.run(model, batch(model, &[41, 42])));
            }),
        ];
        calls.into_iter().for_each(|call| call.join().unwrap());
    });
}

#[test]
fn texts_are_tokenized_beside_rows_and_those_given_up_are_let_go() {
    try_orders_of_calls(2, |scheduler| {
        let texts = |count: usize| {
            (0..count)
                .map(|text| format!("watch {text}"))
                .collect::<Vec<_>>()
        };
        let calls = [
            spawn(scheduler, move |scheduler| {
                let model = &models()[1];
                let lane = scheduler.open_lane(far());
                let encoding = lane.encode(model.tokenizer(), Some("watch".to_owned()), texts(13));
                let encoding = shuttle::future::block_on(encoding).unwrap();
                assert_eq!(encoding.rows.len(), 13);
                assert_eq!(run(&lane, model, &[11, 12]), 0);
            }),
            spawn(scheduler, move |scheduler| {
                let lane = scheduler.open_lane(far());
                give_up_after(1, lane.encode(models()[0].tokenizer(), None, texts(30)));
                let encoding = lane.encode(models()[0].tokenizer(), None, texts(1));
                assert_eq!(shuttle::future::block_on(encoding).unwrap().rows.len(), 1);
            }),
        ];
        calls.into_iter().for_each(|call| call.join().unwrap());
    });
}

#[test]
fn a_queue_that_stops_tells_whoever_waits() {
    try_orders(|| {
        let scheduler = Scheduler::start(2, Caches::default()).unwrap();
        let calls = [10, 20].map(|first| {
            let lane = scheduler.open_lane(far());
            shuttle::thread::spawn(move || {
                let model = &models()[1];
                let texts = vec!["watch".to_owned(); 25];
                let encoding = lane.encode(model.tokenizer(), None, texts);
                match shuttle::future::block_on(encoding) {
                    Ok(encoding) => assert_eq!(encoding.rows.len(), 25),
                    Err(error) => assert!(matches!(error, InferenceError::ShuttingDown), "{error}"),
                }
                let firsts = [first, first + 1, first + 2];
                match shuttle::future::block_on(lane.run(model, batch(model, &firsts))) {
                    Ok(output) => drop(late(&output, &firsts)),
                    Err(error) => assert!(matches!(error, InferenceError::ShuttingDown), "{error}"),
                }
            })
        });
        drop(scheduler);
        let _ = calls.map(|call| call.join().unwrap());
    });
}
