//! A guest that its parameters drive through every function of the host: whatever it does, the server's
//! memory and CPU time are bounded, a neighbour is answered, and the fault is the guest's.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestError, TestRunner};
use rerankd_tests::documents::scored_texts;
use rerankd_tests::rerankd::only_policies;
use rerankd_tests::usage::{cpu_time, memory_mib, peak_memory_mib, reset_peak_memory};
use rerankd_tests::{Answer, Connection, Folder, Rerankd, long_tests, require};
use serde_json::{Value, json};

/// What one call of a guest may use. The deadline bounds what models and tokenizer do for it.
const GUEST_MEMORY_MIB: usize = 64;
const GUEST_TENSOR_MIB: usize = 64;
const GUEST_HOST_MIB: usize = 128;
const GUEST_CPU: Duration = Duration::from_millis(400);
const TIMEOUT: Duration = Duration::from_millis(1000);

/// What one call may take of the server's memory (docs/memory.md): the guest's memory, what the host
/// holds for it, what it passes in one call and that once more as elements, and 32 MiB for rows that run.
const CALL_MIB: usize = GUEST_MEMORY_MIB + GUEST_HOST_MIB + 2 * 17 + 32;

/// What the server may have more than at its start, as many calls as there were: a call, both caches, and
/// what the allocator keeps for the next calls.
const SERVER_MIB: usize = CALL_MIB + 96 + 256;

/// CPU time of the server for one call: the guest's, twice for what lies between two readings of the
/// clock, and both workers until the deadline.
const CALL_CPU: Duration = Duration::from_millis(3000);

/// Within this a neighbour on another connection has its ranking.
const NEIGHBOUR: Duration = Duration::from_secs(3);

/// Largest sizes of the random steps.
const MOST_TEXTS: u64 = 1_000_000;
const MOST_ROWS: u64 = 1_000_000;
const MOST_BYTES: u64 = 40 << 20;
/// Of an error's text.
const MOST_SAID: u64 = 40 << 20;

fn serve() -> Rerankd {
    let folder = Folder::new();
    folder.copy(&require::policies(), "policies");
    folder.copy(&require::faulty("puppet"), "policies/puppet.wasm");
    let (memory, tensors) = (GUEST_MEMORY_MIB.to_string(), GUEST_TENSOR_MIB.to_string());
    let host = GUEST_HOST_MIB.to_string();
    let (cpu, timeout) = (
        GUEST_CPU.as_millis().to_string(),
        TIMEOUT.as_millis().to_string(),
    );
    let policies = folder.path().join("policies");
    let limits = [
        "--guest-memory-mib",
        &memory,
        "--guest-tensor-mib",
        &tensors,
        "--guest-host-mib",
        &host,
        "--guest-cpu-ms",
        &cpu,
        "--timeout-ms",
        &timeout,
        "--workers",
        "2",
    ];
    // A policy is read at start and never again, so the files may go afterwards.
    Rerankd::start(&[&only_policies(&policies)[..], &limits].concat())
}

/// The server of all tests but one. One test at a time: each measures what its own calls cost.
fn server() -> MutexGuard<'static, Rerankd> {
    static SERVER: LazyLock<Mutex<Rerankd>> = LazyLock::new(|| Mutex::new(serve()));
    SERVER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the puppet is told, as a request.
fn request(ops: &Value, end: &Value) -> Value {
    json!({
        "query": "smart watch",
        "documents": scored_texts(3),
        "parameters": {"ops": ops, "end": end},
        "on_failure": "error",
    })
}

fn play(server: &Rerankd, ops: &Value, end: &Value) -> Answer {
    server.post("/v1/rerank/puppet", &request(ops, end))
}

/// A ranking, the guest's fault, what the guest calls the caller's mistake, or the deadline.
fn is_the_guests_own(answer: &Answer) -> bool {
    let reason = answer.parameter("reason");
    match answer.status {
        200 => true,
        400 => reason == Some("bad-request"),
        424 => matches!(reason, Some("policy-fault" | "deadline-exceeded")),
        _ => false,
    }
}

#[track_caller]
fn assert_no_error_is_logged(server: &Rerankd) {
    let log = server.stderr();
    let error = log.lines().find(|line| line.contains("ERROR"));
    assert_eq!(error, None, "an error of the host");
}

/// One after the other, each timed, until `stop`.
fn neighbour(server: &Rerankd, stop: impl Fn() -> bool) -> Vec<Duration> {
    let headers = [("Content-Type", "application/json")];
    let mut connection = server.connect();
    let mut took = Vec::new();
    while !stop() {
        // A new text each time: one that the model runs on.
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        let number = ASKED.fetch_add(1, Ordering::Relaxed);
        let mut documents = scored_texts(5);
        documents[0]["fields"]["title"] = json!(format!("watch number {number}"));
        let request = json!({"query": "smart watch", "documents": documents, "timeout_ms": 10_000});
        let body = request.to_string();
        let started = Instant::now();
        let answer = ask(&mut connection, &headers, body.as_bytes());
        took.push(started.elapsed());
        assert_eq!(
            answer.parameter("status"),
            Some("applied"),
            "{}",
            answer.text()
        );
    }
    took
}

fn ask(connection: &mut Connection, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let sent = connection.request("POST", "/v1/rerank/semantic-blend", headers, body);
    sent.expect("the connection is open");
    connection.answer().expect("there is an answer")
}

fn percentile(times: &mut [Duration], percent: usize) -> Duration {
    times.sort_unstable();
    times[(times.len() * percent / 100).min(times.len() - 1)]
}

/// A size: each order of magnitude as often as the others, up to as large as it may be.
fn size(most: u64) -> impl Strategy<Value = u64> {
    (0..=64 - most.leading_zeros()).prop_flat_map(move |bits| {
        0..=most.min(1_u64.checked_shl(bits).map_or(u64::MAX, |it| it - 1))
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => Just("input_ids".to_owned()),
        2 => Just("attention_mask".to_owned()),
        2 => Just("token_type_ids".to_owned()),
        1 => "\\PC{0,20}",
        1 => Just("n".repeat(100_000)),
    ]
}

fn cell() -> impl Strategy<Value = i64> {
    prop_oneof![4 => 0..30_000_i64, 2 => 0..3_i64, 1 => -3..0_i64, 1 => any::<i64>()]
}

fn dims() -> impl Strategy<Value = Vec<u64>> {
    let dim = prop_oneof![4 => 0..40_u64, 1 => Just(u64::from(u32::MAX)), 1 => 0..100_000_u64];
    prop_oneof![
        8 => proptest::collection::vec(dim, 0..5),
        1 => Just(vec![1; 50_000]),
    ]
}

fn step() -> impl Strategy<Value = Value> {
    let says = proptest::sample::select(vec!["query", "words", "one word"]);
    let types = vec!["FP16", "FP32", "FP64", "BF16", "U8", "I32", "I64"];
    let many = proptest::sample::select(types);
    let at = || 0..6_u64;
    let encode = (size(MOST_TEXTS), size(20_000), says, any::<bool>(), size(1000)).prop_map(
        |(texts, bytes, say, pairs, cut)| {
            // As much as the guest has room for.
            let bytes = bytes.min((8 << 20) / texts.max(1));
            json!({"do": "encode", "texts": texts, "bytes": bytes, "say": say, "pairs": pairs, "cut": cut})
        },
    );
    let tensor = (name(), dims(), many, size(MOST_BYTES), 0..3_u64).prop_map(
        |(name, dims, element, bytes, fill)| {
            let size = if element == "FP32" { 4 } else { 8 };
            let fitting = dims
                .iter()
                .try_fold(size, |all: u64, &dim| all.checked_mul(dim))
                .filter(|&all| all <= MOST_BYTES);
            // Every other one is what it says.
            let bytes = if bytes % 2 == 0 { fitting.unwrap_or(bytes) } else { bytes };
            json!({"do": "tensor", "name": name, "dims": dims, "type": element, "bytes": bytes, "fill": fill})
        },
    );
    let ids = (size(MOST_ROWS), 0..300_u64, cell(), 0..3_i64, 0..3_i64).prop_map(
        |(rows, tokens, id, mask, type_id)| {
            json!({"do": "ids", "rows": rows, "tokens": tokens, "id": id, "mask": mask, "type_id": type_id})
        },
    );
    let others = vec![
        "read-encoding",
        "tensors",
        "read-error",
        "drop",
        "recurse",
        "trap",
        "loop",
    ];
    prop_oneof![
        4 => encode,
        3 => tensor,
        4 => ids,
        5 => (1..4_u64, at()).prop_map(|(take, at)| json!({"do": "compute", "take": take, "at": at})),
        4 => (1..2000_u64, any::<bool>()).prop_map(|(times, known)| {
            let name = if known { "bi-encoder" } else { "nobody" };
            json!({"do": "load", "name": name, "times": if known { 1 } else { times }})
        }),
        1 => size(MOST_BYTES).prop_map(|bytes| json!({"do": "load-bytes", "bytes": bytes})),
        3 => (at(), size(1000)).prop_map(|(at, times)| json!({"do": "read-tensor", "at": at, "times": times})),
        3 => (size(200_000), size(MOST_BYTES)).prop_map(|(times, bytes)| json!({"do": "log", "times": times, "bytes": bytes})),
        1 => (size(10_000), size(MOST_BYTES)).prop_map(|(times, bytes)| json!({"do": "fill", "times": times, "bytes": bytes})),
        1 => (size(10_000), 1..MOST_BYTES).prop_map(|(times, bytes)| json!({"do": "copy", "times": times, "bytes": bytes})),
        1 => size(MOST_BYTES).prop_map(|bytes| json!({"do": "panic", "bytes": bytes})),
        6 => (proptest::sample::select(others), at()).prop_map(|(what, at)| json!({"do": what, "at": at})),
    ]
}

fn steps() -> impl Strategy<Value = Value> {
    let some = || proptest::collection::vec(step(), 0..6);
    let repeated = (some(), size(10_000))
        .prop_map(|(ops, times)| json!({"do": "repeat", "times": times, "ops": ops}));
    let one = prop_oneof![6 => step(), 1 => repeated];
    proptest::collection::vec(one, 1..10).prop_map(Value::from)
}

fn end() -> impl Strategy<Value = Value> {
    let errors = proptest::sample::select(vec!["invalid-request", "model", "internal", "last"]);
    prop_oneof![
        3 => Just(json!({})),
        2 => (size(100_000), size(2_000)).prop_map(|(judgments, bytes)| {
            // As much as the guest has room for.
            let bytes = bytes.min((16 << 20) / judgments.max(1));
            json!({"judgments": judgments, "explanation": bytes, "reason": bytes / 2})
        }),
        2 => (errors, size(MOST_SAID)).prop_map(|(error, bytes)| json!({"error": error, "bytes": bytes})),
    ]
}

/// How long to go on: some seconds, with `RERANKD_LONG_TESTS=1` five minutes, or as many seconds as
/// `RERANKD_PUPPET_SECONDS` says: a night, say.
fn budget() -> Duration {
    let named = std::env::var("RERANKD_PUPPET_SECONDS").ok();
    let named = named.map(|text| text.parse().expect("RERANKD_PUPPET_SECONDS is a number"));
    match named {
        Some(seconds) => Duration::from_secs(seconds),
        None if long_tests("the puppet for five minutes") => Duration::from_secs(300),
        None => Duration::from_secs(6),
    }
}

#[test]
fn whatever_a_guest_does_the_server_keeps_its_bounds_and_its_neighbours() {
    let budget = budget();
    let _turn = server();
    // Its memory is its own from the start on.
    let server = serve();
    let done = AtomicBool::new(false);
    let (result, played, mut neighbours) = std::thread::scope(|scope| {
        let neighbours = scope.spawn(|| neighbour(&server, || done.load(Ordering::Relaxed)));
        let started = Instant::now();
        let before = peak_memory_mib(&server);
        let played = Cell::new(0);
        let (most_grown, most_in_all) = (Cell::new(0), Cell::new(0));
        let most_cpu = Cell::new(Duration::ZERO);
        let config = ProptestConfig {
            cases: 4,
            max_shrink_iters: 60,
            // A case that failed once stands in the source as a test of its own.
            failure_persistence: None,
            ..ProptestConfig::default()
        };
        let play_one = |(ops, end): (Value, Value)| {
            played.set(played.get() + 1);
            let cpu_before = cpu_time(&server);
            reset_peak_memory(&server);
            let at_rest = memory_mib(&server);
            let answer = play(&server, &ops, &end);
            let cpu = cpu_time(&server).saturating_sub(cpu_before);
            let peak = peak_memory_mib(&server);
            let (grown, in_all) = (peak.saturating_sub(at_rest), peak.saturating_sub(before));
            most_in_all.set(most_in_all.get().max(in_all));
            most_grown.set(most_grown.get().max(grown));
            most_cpu.set(most_cpu.get().max(cpu));
            prop_assert!(
                is_the_guests_own(&answer),
                "{} {}",
                answer.status,
                &answer.text()[..answer.text().floor_char_boundary(500)]
            );
            prop_assert!(!server.stderr().contains("ERROR"), "{}", server.stderr());
            prop_assert!(grown <= CALL_MIB, "{grown} MiB for one call");
            prop_assert!(in_all <= SERVER_MIB, "{in_all} MiB more than at the start");
            prop_assert!(cpu <= CALL_CPU, "{cpu:?} of CPU time");
            Ok::<(), TestCaseError>(())
        };
        // As many as there is time for. A runner runs its cases once.
        let mut result = Ok(());
        while result.is_ok() && started.elapsed() < budget {
            result = TestRunner::new(config.clone()).run(&(steps(), end()), play_one);
        }
        done.store(true, Ordering::Relaxed);
        eprintln!(
            "{} op lists: at most {} MiB and {:?} of CPU time for one, {} MiB more than at the start",
            played.get(),
            most_grown.get(),
            most_cpu.get(),
            most_in_all.get()
        );
        let neighbours = neighbours.join().expect("the neighbour is answered");
        (result, played.get(), neighbours)
    });
    let slowest = percentile(&mut neighbours, 100);
    eprintln!(
        "{} neighbours, 99th percentile {:?}, slowest {slowest:?}",
        neighbours.len(),
        percentile(&mut neighbours, 99),
    );
    match result {
        Ok(()) => {}
        Err(TestError::Fail(reason, (ops, end))) => panic!("{reason}\nops: {ops}\nend: {end}"),
        Err(error) => panic!("{error}"),
    }
    assert!(played >= 4, "{played}");
    assert!(slowest <= NEIGHBOUR, "{slowest:?}");
}

/// Token ids that no table has, and what else a graph would stumble over, are the guest's error before
/// anything runs.
#[test]
fn numbers_that_no_graph_takes_are_the_guests_fault() {
    let server = server();
    let faults = || {
        let labels = [("policy", "puppet"), ("fault", "model")];
        server.metric("rerankd_policy_faults_total", &labels)
    };
    let cases = [
        (
            json!({"id": 30_522}),
            "`input_ids` must hold numbers from 0 to 30521, got 30522",
        ),
        (
            json!({"id": 4_242_424_242_i64}),
            "`input_ids` must hold numbers from 0 to 30521, got 4242424242",
        ),
        (
            json!({"id": -1}),
            "`input_ids` must hold numbers from 0 to 30521, got -1",
        ),
        (
            json!({"mask": 7}),
            "`attention_mask` must hold numbers from 0 to 1, got 7",
        ),
        (
            json!({"type_id": 2}),
            "`token_type_ids` must hold numbers from 0 to 1, got 2",
        ),
        (
            json!({"tokens": 600}),
            "must have at most 256 tokens a row; row 0 has 600",
        ),
        (
            json!({"rows": 0}),
            "must have at least one row and one token",
        ),
    ];
    for (spoilt, message) in cases {
        let mut ids = json!({"do": "ids", "rows": 3, "tokens": 4, "id": 5});
        let all = ids.as_object_mut().expect("an object");
        all.extend(spoilt.as_object().expect("an object").clone());
        let ops = json!([{"do": "load"}, ids, {"do": "compute", "take": 3}]);
        let before = faults();
        let answer = play(&server, &ops, &json!({"error": "last"}));
        assert_eq!(
            (answer.status, answer.parameter("reason")),
            (424, Some("policy-fault")),
            "{}",
            answer.text()
        );
        let text = answer.error_message();
        assert!(text.contains(message), "expected `{message}` in: {text}");
        assert_eq!(faults() - before, 1.0, "{message}");
    }
    // The highest number that there is runs.
    let ids = json!({"do": "ids", "rows": 3, "tokens": 4, "id": 30_521, "type_id": 1});
    let ops = json!([{"do": "load"}, ids, {"do": "compute", "take": 3}]);
    let answer = play(&server, &ops, &json!({"error": "last"})).ok();
    assert_eq!(answer.parameter("status"), Some("applied"));
    assert_no_error_is_logged(&server);
    assert!(
        !server.stderr().contains("4242424242"),
        "a guest's number is in the log"
    );
}

/// A budget that counted an epoch as a millisecond let each of these compute for many seconds.
#[test]
fn work_of_the_host_is_charged_as_what_it_takes() {
    let server = server();
    // What may be passed in one call is 16 MiB.
    let bytes = 12 << 20;
    let tensor = json!({"do": "tensor", "dims": [bytes / 8], "type": "I64", "bytes": bytes});
    let for_ever = [
        json!([{"do": "log", "bytes": bytes, "times": 1_000_000}]),
        json!([tensor, {"do": "read-tensor", "times": 1_000_000}]),
        json!([{"do": "fill", "bytes": bytes, "times": 1_000_000}]),
        json!([{"do": "copy", "bytes": bytes, "times": 1_000_000}]),
        json!([{"do": "repeat", "times": 1_000_000, "ops": [{"do": "load-bytes", "bytes": bytes}]}]),
        json!([{"do": "repeat", "times": 1_000_000, "ops": [{"do": "load", "name": "nobody"}, {"do": "drop"}]}]),
    ];
    for ops in for_ever {
        let before = cpu_time(&server);
        let mut request = request(&ops, &json!({}));
        // Others may want the cores, too: it is the CPU time that shall end it.
        request["timeout_ms"] = json!(60_000);
        let answer = server.post("/v1/rerank/puppet", &request);
        let used = cpu_time(&server).saturating_sub(before);
        let text = answer.error_message();
        assert_eq!(answer.parameter("reason"), Some("policy-fault"), "{text}");
        let limits = ["of CPU time (--guest-cpu-ms)", "--guest-host-calls)"];
        assert!(limits.iter().any(|limit| text.contains(limit)), "{text}");
        assert!(used <= CALL_CPU, "{used:?} of CPU time: {text}");
    }
    assert_no_error_is_logged(&server);
}

#[test]
fn a_hostile_policy_at_work_costs_its_neighbours_little() {
    const AT_WORK: Duration = Duration::from_millis(800);
    let server = server();
    let started = Instant::now();
    let mut alone = neighbour(&server, || started.elapsed() > AT_WORK);
    let before = percentile(&mut alone, 99);
    eprintln!(
        "alone: 99th percentile {before:?}, median {:?}",
        percentile(&mut alone, 50)
    );
    // What may be passed in one call is 16 MiB.
    let bytes = 12 << 20;
    let tensor = json!({"do": "tensor", "dims": [bytes / 8], "type": "I64", "bytes": bytes});
    let hostile = [
        ("a loop", json!([{"do": "loop"}])),
        (
            "memory.fill",
            json!([{"do": "fill", "bytes": bytes, "times": 1_000_000}]),
        ),
        (
            "log",
            json!([{"do": "log", "bytes": bytes, "times": 1_000_000}]),
        ),
        (
            "data",
            json!([tensor, {"do": "read-tensor", "times": 1_000_000}]),
        ),
        (
            "rows",
            json!([{"do": "encode", "texts": 4_000, "say": "words", "bytes": 2000}, {"do": "tensors"},
                   {"do": "load"}, {"do": "compute", "take": 3}]),
        ),
    ];
    for (what, ops) in hostile {
        let stop = AtomicBool::new(false);
        let cpu_before = cpu_time(&server);
        let (mut beside, calls) = std::thread::scope(|scope| {
            let hostile = scope.spawn(|| {
                let mut calls = 0;
                while !stop.load(Ordering::Relaxed) {
                    let answer = play(&server, &ops, &json!({}));
                    assert!(is_the_guests_own(&answer), "{}", answer.text());
                    calls += 1;
                }
                calls
            });
            let started = Instant::now();
            let beside = neighbour(&server, || started.elapsed() > AT_WORK);
            stop.store(true, Ordering::Relaxed);
            (beside, hostile.join().expect("it is answered"))
        });
        let after = percentile(&mut beside, 99);
        eprintln!(
            "{what}: {calls} calls, {:?} of CPU time in all, memory {} MiB at most; {} neighbours, 99th percentile {after:?}, median {:?}",
            cpu_time(&server).saturating_sub(cpu_before),
            peak_memory_mib(&server),
            beside.len(),
            percentile(&mut beside, 50),
        );
        // A machine that is busy with something else has made either slow.
        let most = (20 * before).max(Duration::from_millis(500));
        assert!(after <= most, "{what}: {before:?}, {after:?}");
    }
}
