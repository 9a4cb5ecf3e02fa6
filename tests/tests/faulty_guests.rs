//! Policies that break every rule: the host names the rule, falls back to the engine's order, and
//! answers the next request as if nothing had happened.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use rerankd_tests::answer::assert_same_bits;
use rerankd_tests::documents::scored_texts;
use rerankd_tests::usage::peak_memory_mib;
use rerankd_tests::{Answer, Rerankd, documents, guests, require};
use serde_json::{Value, json};

/// Limits that are soon reached. Guests that wait have a deadline of their own.
const LIMITS: [&str; 8] = [
    "--guest-memory-mib",
    "64",
    "--guest-tensor-mib",
    "64",
    "--guest-cpu-ms",
    "600",
    "--timeout-ms",
    "60000",
];

static SERVER: LazyLock<Rerankd> = LazyLock::new(|| guests::serve(&LIMITS));

/// Three documents in an order that no model would give them.
fn request() -> Value {
    json!({
        "query": "smart watch",
        "documents": [
            {"id": "a", "score": 3.0, "fields": {"title": "Varta -V386", "text": "a battery"}},
            {"id": "b", "score": 2.0, "fields": {"title": "Philips HDR3700"}},
            {"id": "c", "score": 1.0, "fields": {"title": "Samsung Gear smart watch"}},
        ],
    })
}

fn with(mut request: Value, more: Value) -> Value {
    let more = more.as_object().expect("an object").clone();
    request.as_object_mut().expect("an object").extend(more);
    request
}

fn call(policy: &str, more: Value) -> Answer {
    SERVER.post(&format!("/v1/rerank/{policy}"), &with(request(), more))
}

/// Bits of what the default policy says, which no guest before may change.
fn healthy_scores() -> Vec<Option<f64>> {
    let request = json!({"query": "smart watch", "documents": scored_texts(12)});
    let answer = SERVER.post("/v1/rerank/semantic-blend", &request).ok();
    assert_eq!(
        answer.parameter("status"),
        Some("applied"),
        "{}",
        answer.text()
    );
    answer.scores()
}

fn assert_server_is_healthy() {
    static BEFORE: LazyLock<Vec<Option<f64>>> = LazyLock::new(|| {
        let server = guests::serve(&LIMITS);
        let request = json!({"query": "smart watch", "documents": scored_texts(12)});
        server
            .post("/v1/rerank/semantic-blend", &request)
            .ok()
            .scores()
    });
    assert_same_bits(&healthy_scores(), &BEFORE);
}

/// `NAME@DIGEST`, as the server itself calls the version.
fn label(policy: &str) -> String {
    let greeting = SERVER.greeting();
    let at = greeting.find(&format!("{policy}@"));
    let label: String = greeting[at.expect("the policy is served")..]
        .chars()
        .take(policy.len() + 9)
        .collect();
    label
}

/// A guest that ends with a fault: as an error, as the engine's order, in the metrics, and without a
/// trace for the next request.
#[track_caller]
fn check_fault(policy: &str, fault: &str, more: Value, message: &str) {
    let faults = || {
        let labels = [("policy", policy), ("fault", fault)];
        SERVER.metric("rerankd_policy_faults_total", &labels)
    };
    let faults_before = faults();

    let error = call(policy, with(more.clone(), json!({"on_failure": "error"})));
    let text = error.error_message();
    assert_eq!(
        (error.status, error.parameter("reason")),
        (424, Some("policy-fault")),
        "{text}"
    );
    let expected = format!("policy {}: ", label(policy));
    assert!(
        text.starts_with(&expected),
        "expected `{expected}` in front: {text}"
    );
    assert!(text.contains(message), "expected `{message}` in: {text}");
    assert!(!text.contains('\n'), "one line: {text}");

    assert_first_stage(&call(policy, more), policy, "policy-fault", "failed");
    assert_server_is_healthy();
    assert_eq!(faults() - faults_before, 2.0, "{policy} {fault}");
}

/// The engine's own order, exactly, and said to be so.
#[track_caller]
fn assert_first_stage(answer: &Answer, policy: &str, reason: &str, unscored: &str) {
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.parameter("status"), Some("failed"));
    assert_eq!(answer.parameter("reason"), Some(reason));
    assert_eq!(answer.parameter("policy"), Some(policy));
    let body = answer.json();
    assert_eq!(
        (&body["status"], &body["reason"]),
        (&json!("failed"), &json!(reason))
    );
    let results = json!([
        {"index": 0, "id": "a", "unscored": unscored, "first_stage_rank": 1, "first_stage_score": 3.0},
        {"index": 1, "id": "b", "unscored": unscored, "first_stage_rank": 2, "first_stage_score": 2.0},
        {"index": 2, "id": "c", "unscored": unscored, "first_stage_rank": 3, "first_stage_score": 1.0},
    ]);
    assert_eq!((&body["results"], &body["unscored"]), (&results, &json!(3)));
}

#[test]
fn every_faulty_guest_is_named_in_a_test() {
    let tests = [
        include_str!("engines/proxy.rs"),
        include_str!("faulty_guests.rs"),
        include_str!("host_memory.rs"),
        include_str!("policies_at_start.rs"),
        include_str!("puppet_guest.rs"),
        include_str!("release_pipeline.rs"),
        include_str!("unread.rs"),
        include_str!("what_a_policy_sees.rs"),
    ];
    for name in guests::all() {
        let quoted = format!("\"{name}\"");
        assert!(
            tests.iter().any(|test| test.contains(&quoted)),
            "guest/faulty/examples/{name}.rs: no test names it"
        );
    }
}

#[test]
fn a_guest_that_crashes_is_a_fault() {
    check_fault(
        "trap",
        "trap",
        json!({}),
        "it trapped: wasm trap: wasm `unreachable`",
    );
    check_fault(
        "overflow",
        "stack-overflow",
        json!({}),
        "its stack overflowed",
    );
    let limit = "it wanted more than its 64 MiB of memory (--guest-memory-mib)";
    check_fault("grow", "memory", json!({}), limit);
}

#[test]
fn a_panic_shows_its_message_file_and_line() {
    let source = require::root().join("guest/faulty/examples/panic.rs");
    let source = std::fs::read_to_string(source).expect("the guest has its source");
    let line = 1 + source
        .lines()
        .position(|line| line.trim_start().starts_with("panic!("))
        .expect("it panics");
    let expected = format!("examples/panic.rs:{line}: cannot rank 3 documents");
    check_fault("panic", "panic", json!({}), &expected);
    // What a guest says may hold document data: it is for its caller, not for the host's log.
    assert!(
        !SERVER.stderr().contains("cannot rank"),
        "{}",
        SERVER.stderr()
    );
}

#[test]
fn a_guest_that_misjudges_is_a_fault() {
    let range = "it judged document 3, but there are only 3";
    check_fault("out-of-range", "index-out-of-range", json!({}), range);
    check_fault(
        "twice",
        "index-twice",
        json!({}),
        "it judged document 0 twice",
    );
    let left_out = "it left out 1 of 3 documents, the first is document 2";
    check_fault("missing", "missing-documents", json!({}), left_out);
    let filtered = "it filtered document 0, but its manifest does not say `\"filters\": true`";
    check_fault("filters", "filtered", json!({}), filtered);
    check_fault(
        "nan",
        "no-score",
        json!({}),
        "none of 3 documents a finite score",
    );
    check_fault(
        "internal",
        "internal",
        json!({}),
        "it failed: the moon fell down",
    );
}

#[test]
fn a_guest_that_wants_too_much_of_the_host_is_a_fault() {
    let calls = "more than 10000 calls to the tokenizer and the models (--guest-host-calls)";
    check_fault("many-calls", "host-calls", json!({}), calls);
    let tensors = "it held more than 64 MiB in tensors (--guest-tensor-mib)";
    check_fault("many-tensors", "tensor-bytes", json!({}), tensors);
}

#[test]
fn a_guest_runs_the_models_of_its_manifest_and_no_others() {
    let foreign = "model `all-minilm-l6-v2`: not-found: no model `all-minilm-l6-v2`: the policy's \
                   manifest names `bi-encoder`";
    check_fault("foreign-model", "model", json!({}), foreign);
    let bytes = "security: a policy brings no model bytes of its own: use `load-by-name`";
    check_fault("load-bytes", "model", json!({}), bytes);
}

#[test]
fn wrong_inputs_are_named_with_what_would_be_right() {
    let inputs = "`input_ids` I64 [rows, tokens], `attention_mask` I64 [rows, tokens], \
                  `token_type_ids` I64 [rows, tokens]";
    let check = |case: &str, message: &str| {
        let parameters = json!({"parameters": {"case": case}});
        let message = format!("invalid-argument: model `all-minilm-l6-v2`{message}");
        check_fault("wrong-inputs", "model", parameters, &message);
    };
    check(
        "name",
        &format!(" has no input `words`; its inputs are: {inputs}"),
    );
    check(
        "missing",
        &format!(": input `attention_mask` is missing; its inputs are: {inputs}"),
    );
    check("type", ": input `input_ids` must be I64, got FP32");
    check(
        "rank",
        ": input `input_ids` must have the shape [rows, tokens], got [",
    );
    let shape = ": input `input_ids` must have the shape of `attention_mask`, [3, ";
    check("shape", shape);
    check("rows", shape);
    let bytes = "it made a tensor that is none: 5 bytes are no whole number of 8-byte elements";
    check_fault("bad-tensor", "bad-tensor", json!({}), bytes);
}

#[test]
fn a_guest_that_loops_ends_with_its_cpu_time() {
    let limit = "it used more than its 600 ms of CPU time (--guest-cpu-ms)";
    check_fault("spin", "cpu-time", json!({}), limit);
}

#[test]
fn time_in_a_model_is_not_the_guests_and_a_loop_after_it_is() {
    let limit = "it used more than its 600 ms of CPU time (--guest-cpu-ms)";
    check_fault("spin-after-inference", "cpu-time", json!({}), limit);

    // Rows that take longer than the whole CPU budget: a guest that waits for them and returns is
    // fine, one that loops afterwards is not.
    let server = guests::serve(&[
        "--workers",
        "1",
        "--guest-cpu-ms",
        "100",
        "--timeout-ms",
        "60000",
    ]);
    let request = json!({
        "query": "smart watch", "documents": scored_texts(200), "on_failure": "error",
    });
    let patient = server.post("/v1/rerank/semantic-blend", &request).ok();
    assert_eq!(patient.parameter("status"), Some("applied"));
    let inference = &patient.json()["timings_ms"]["inference"];
    assert!(
        inference.as_f64() > Some(100.0),
        "the rows are too few for this test: {inference}"
    );

    let looping = server.post("/v1/rerank/spin-after-inference", &request);
    let limit = "it used more than its 100 ms of CPU time (--guest-cpu-ms)";
    assert!(
        looping.error_message().contains(limit),
        "{}",
        looping.text()
    );
}

#[test]
fn other_requests_do_not_notice_guests_that_loop() {
    let expected = healthy_scores();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                assert_first_stage(&call("spin", json!({})), "spin", "policy-fault", "failed")
            });
        }
        for _ in 0..3 {
            assert_same_bits(&healthy_scores(), &expected);
        }
    });
}

#[test]
fn a_guest_that_waits_ends_at_the_deadline() {
    for policy in ["waits", "sleep"] {
        let timeout = json!({"timeout_ms": 400});
        let started = Instant::now();
        let error = call(
            policy,
            with(timeout.clone(), json!({"on_failure": "error"})),
        );
        // `sleep` would wait for an hour, `waits` for ever.
        assert!(started.elapsed() < Duration::from_secs(10), "{policy}");
        assert_eq!(
            (error.status, error.parameter("reason")),
            (424, Some("deadline-exceeded"))
        );
        let expected = "the deadline came before any document was scored";
        assert_eq!(
            error.error_message(),
            format!("policy {}: {expected}", label(policy))
        );
        assert_first_stage(&call(policy, timeout), policy, "deadline", "late");
        assert_server_is_healthy();
    }
}

#[test]
fn no_thread_waits_on_behind_a_guest_that_sleeps() {
    let mut server = guests::serve(&LIMITS);
    let sleep = || {
        let request = with(request(), json!({"timeout_ms": 100}));
        let answer = server.post("/v1/rerank/sleep", &request);
        assert_first_stage(&answer, "sleep", "deadline", "late");
    };
    sleep();
    if let Some(threads) = threads(&server) {
        (0..5).for_each(|_| sleep());
        let after =
            rerankd_tests::eventually("the threads are gone", || threads_at_most(&server, threads));
        assert!(after <= threads);
    }
    server.terminate();
    assert!(server.exit_status().success());
}

/// What the system says about threads, where it says so in files.
fn threads(server: &Rerankd) -> Option<usize> {
    Some(
        std::fs::read_dir(format!("/proc/{}/task", server.id()))
            .ok()?
            .count(),
    )
}

fn threads_at_most(server: &Rerankd, most: usize) -> Option<usize> {
    threads(server).filter(|&threads| threads <= most)
}

#[test]
fn a_flood_of_log_lines_costs_no_memory_and_spoils_no_ranking() {
    let answer = call("many-logs", json!({})).ok();
    assert_eq!(
        answer.parameter("status"),
        Some("applied"),
        "{}",
        answer.text()
    );
    assert_eq!(answer.order(), [0, 1, 2]);
    assert!(
        !SERVER.stderr().contains("xxxx"),
        "a guest's log is not the host's"
    );
    // A gigabyte was logged.
    let peak = peak_memory_mib(&SERVER);
    assert!(peak < 880, "{peak} MiB");
    assert_server_is_healthy();
}

#[test]
fn a_refusal_is_the_callers_mistake_whatever_on_failure_says() {
    for on_failure in ["error", "first-stage"] {
        let answer = call("refuses", json!({"on_failure": on_failure}));
        assert_eq!(
            (answer.status, answer.parameter("reason")),
            (400, Some("bad-request"))
        );
        assert_eq!(
            answer.error_message(),
            "policy refuses: the moon is not full"
        );
    }
    assert_server_is_healthy();
}

#[test]
fn one_score_that_is_not_finite_spoils_no_other() {
    let answer = call("one-nan", json!({})).ok();
    assert_eq!(answer.parameter("status"), Some("partial"));
    assert_eq!(answer.parameter("reason"), Some("not-finite"));
    assert_eq!(answer.parameter("unscored"), Some("1"));
    assert_eq!(answer.order(), [1, 2, 0]);
    assert_eq!(answer.scores(), [None, Some(0.5), Some(1.0 / 3.0)]);
    assert_eq!(answer.unscored(), [(0, "not-finite".to_owned())]);
}

#[test]
fn a_policy_that_may_filter_leaves_documents_out() {
    let answer = call("filters-allowed", json!({})).ok();
    assert_eq!(answer.parameter("status"), Some("applied"));
    assert_eq!(answer.order(), [1, 2]);
    // So that a short list of results can be told from a list that was cut.
    assert_eq!(answer.json()["filtered"], 1);

    let response = documents::recorded("chorus-smart-watch");
    let body = format!(r#"{{"query": "smart watch", "response": {response}}}"#);
    let hits = SERVER
        .post_text("/v1/rerank/filters-allowed/hits", body)
        .ok()
        .json();
    let original: Value = serde_json::from_str(&response).expect("it is JSON");
    assert_eq!(hits["hits"]["total"], original["hits"]["total"]);
    let ids = |response: &Value| -> Vec<Value> {
        let hits = response["hits"]["hits"].as_array().expect("it has hits");
        hits.iter().map(|hit| hit["_id"].clone()).collect()
    };
    assert_eq!(ids(&hits), ids(&original)[1..]);
}
