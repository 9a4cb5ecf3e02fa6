//! What became of a version's calls, as its author reads it: `GET /v1/policies/{name}`.

use rerankd_tests::components::{bundled, echo, faulty, faulty_echo};
use rerankd_tests::documents::scored_texts;
use rerankd_tests::{Deployment, require};
use serde_json::{Value, json};

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("no number: {value}"))
}

#[test]
fn a_fault_is_shown_with_its_message_place_and_request() {
    let server = Deployment::start(&[]);
    let digest = server.release("panic", &faulty("panic"), "activate=true");
    let answer = server
        .ask(
            "panic",
            "the secret query",
            &[("X-Request-Id", "search-42")],
        )
        .ok();
    assert_eq!(answer.parameter("status"), Some("failed"));
    let traffic = &server.version("panic", &digest)["traffic"];
    assert_eq!(
        (&traffic["calls"], &traffic["faults"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(traffic["faults_by_kind"], json!({"panic": 1}));
    let fault = &traffic["last_faults"][0];
    assert_eq!(
        (&fault["kind"], &fault["request_id"]),
        (&json!("panic"), &json!("search-42"))
    );
    let source = require::root().join("guest/faulty/examples/panic.rs");
    let source = std::fs::read_to_string(source).expect("the guest has its source");
    let mut lines = source.lines();
    let line = lines.position(|line| line.trim_start().starts_with("panic!("));
    let place = format!("panic.rs:{}", 1 + line.expect("it panics"));
    let message = fault["message"].as_str().expect("it has a message");
    assert!(
        message.contains(&place) && message.contains("cannot rank 3 documents"),
        "{message}"
    );
    assert!(!traffic.to_string().contains("secret"), "{traffic}");

    // The last ones are kept, the latest last.
    for number in 0..30 {
        server
            .ask("panic", "q", &[("X-Request-Id", &format!("r{number}"))])
            .ok();
    }
    let traffic = &server.version("panic", &digest)["traffic"];
    let faults = traffic["last_faults"].as_array().expect("an array");
    let ids: Vec<_> = faults
        .iter()
        .map(|fault| fault["request_id"].clone())
        .collect();
    let expected: Vec<_> = (10..30).map(|number| json!(format!("r{number}"))).collect();
    assert_eq!((traffic["faults"].as_u64(), ids), (Some(31), expected));
}

#[test]
fn deadlines_and_bad_requests_are_no_faults() {
    let server = Deployment::start(&[]);
    let waits = server.release("waits", &faulty("waits"), "activate=true");
    let body = json!({"query": "q", "documents": ["a"], "timeout_ms": 300});
    let answer = server.post("/v1/rerank/waits", &body).ok();
    assert_eq!(answer.parameter("reason"), Some("deadline"));
    let traffic = &server.version("waits", &waits)["traffic"];
    assert_eq!(
        (&traffic["faults"], &traffic["deadline"]),
        (&json!(0), &json!(1)),
        "{traffic}"
    );

    let refuses = server.release("refuses", &faulty("refuses"), "activate=true");
    assert_eq!(server.ask("refuses", "q", &[]).status, 400);
    let traffic = &server.version("refuses", &refuses)["traffic"];
    assert_eq!(
        (&traffic["faults"], &traffic["errors"]),
        (&json!(0), &json!({"invalid-request": 1}))
    );
}

#[test]
fn log_lines_are_kept_up_to_a_limit() {
    let server = Deployment::start(&["--guest-cpu-ms", "60000", "--timeout-ms", "60000"]);
    let digest = server.release("many-logs", &faulty("many-logs"), "activate=true");
    server
        .ask("many-logs", "q", &[("X-Request-Id", "chatty")])
        .ok();
    let traffic = &server.version("many-logs", &digest)["traffic"];
    let log = traffic["log"].as_array().expect("an array");
    assert!((1..=100).contains(&log.len()), "{}", log.len());
    for record in log {
        let line = record["line"].as_str().expect("it is text");
        assert_eq!(record["request_id"], "chatty");
        assert!(line.len() <= 1024, "{} bytes", line.len());
    }
    let first = log[0]["line"].as_str().expect("it is text");
    assert!(first.contains("xxxx"), "{first}");
}

#[test]
fn time_memory_and_change_are_shown() {
    let server = Deployment::start(&["--timeout-ms", "60000", "--workers", "1"]);
    let digest = server.release(
        "semantic-blend",
        &bundled("semantic-blend"),
        "activate=true",
    );
    let body = json!({"query": "smart watch", "documents": scored_texts(20)});
    for _ in 0..3 {
        server.post("/v1/rerank/semantic-blend", &body).ok();
    }
    let traffic = &server.version("semantic-blend", &digest)["traffic"];
    assert_eq!(
        (&traffic["calls"], &traffic["compared"]),
        (&json!(3), &json!(3)),
        "{traffic}"
    );
    assert_eq!(traffic["statuses"], json!({"applied": 3}));
    let (guest, model) = (&traffic["guest_ms"], &traffic["model_ms"]);
    for time in [guest, model] {
        let [total, mean, max] = ["total", "mean", "max"].map(|key| number(&time[key]));
        assert!(mean > 0.0 && mean <= max && max <= total, "{time}");
        assert!((total - 3.0 * mean).abs() < 1e-6 * total, "{time}");
    }
    assert!(
        number(&traffic["peak_memory_bytes"]) >= 65_536.0,
        "{traffic}"
    );
    let moved = number(&traffic["top_10_moved"]);
    let tau = number(&traffic["kendall_tau"]);
    assert!(
        (0.1..=1.0).contains(&moved) && (-1.0..1.0).contains(&tau),
        "{moved} {tau}"
    );

    // One that keeps the engine's order changes nothing.
    let digest = server.release("echo", &echo("0.1.0"), "activate=true");
    let body = json!({"query": "q", "documents": scored_texts(20)});
    server.post("/v1/rerank/echo", &body).ok();
    let traffic = &server.version("echo", &digest)["traffic"];
    assert_eq!(
        (&traffic["top_10_moved"], &traffic["kendall_tau"]),
        (&json!(0.0), &json!(1.0))
    );
    assert_eq!(number(&traffic["model_ms"]["total"]), 0.0);
    let labels = [("policy", "echo"), ("version", &digest[..8])];
    assert_eq!(server.metric("rerankd_policy_calls_total", &labels), 1.0);
}

#[test]
fn what_a_policy_says_is_withheld_from_who_may_only_read() {
    let server = Deployment::start(&[]);
    let digest = server.release("panic", &faulty("panic"), "activate=true");
    server.ask("panic", "q", &[]).ok();
    let refused = server.push("panic", &faulty_echo("panic", "9.0.0"), "");
    assert_eq!(refused.status, 422);
    let as_who = |token: &str, path: &str| {
        let bearer = format!("Bearer {token}");
        server
            .admin_call("GET", path, &[("Authorization", &bearer)], b"")
            .ok()
    };
    let reader = server.token("reader", "*", "read");
    let pusher = server.token("pusher", "panic", "read,push");
    let author = server.token("author", "panic", "read,texts");
    for (token, is_shown) in [(&reader, false), (&pusher, false), (&author, true)] {
        let detail = as_who(token, "/v1/policies/panic").json();
        let traffic = &detail["versions"][0]["traffic"];
        assert_eq!(detail["versions"][0]["digest"], digest);
        assert_eq!(traffic["faults"], 1);
        assert_eq!(traffic["log"].is_array(), is_shown, "{traffic}");
        let fault = &traffic["last_faults"][0];
        assert_eq!(fault["message"].is_string(), is_shown, "{fault}");
        assert_eq!(fault["kind"], "panic");
        let events = as_who(token, "/v1/events?follow=false");
        assert_eq!(events.text().contains("it calls itself"), is_shown);
        assert!(!events.text().contains("cannot rank"), "{}", events.text());
    }
}
