//! What all routes of the data plane have in common: request ids, health, wrong routes and methods,
//! metrics.

use std::sync::LazyLock;

use rerankd_tests::documents::texts;
use rerankd_tests::{Rerankd, guests};
use serde_json::json;

static SERVER: LazyLock<Rerankd> = LazyLock::new(|| Rerankd::start(&["--timeout-ms", "60000"]));

const RANK: &str = r#"{"query": "clog", "documents": ["a clog"]}"#;
const PAIR: &str = r#"{"input": [{"query": "clog", "text": "a clog"}]}"#;
const TEXT: &str = r#"{"texts": ["a clog"]}"#;
const PAGE: &str = r#"{"query": "clog", "response": {"hits": {"hits": []}}}"#;

/// Every route that is called with POST, with a good body for it.
const ROUTES: [(&str, &str); 4] = [
    ("/v1/rerank/semantic-blend", RANK),
    ("/v1/rerank/semantic-blend/hits", PAGE),
    ("/inference/cross/all-minilm-l6-v2", PAIR),
    ("/inference/encoder/all-minilm-l6-v2", TEXT),
];

#[test]
fn the_callers_request_id_comes_back_and_a_strange_one_is_replaced() {
    for (path, body) in ROUTES {
        let call = |id: &str, body: &str| {
            let answer = SERVER.call("POST", path, &[("X-Request-Id", id)], body.as_bytes());
            let id = answer
                .header("x-request-id")
                .expect("it has an id")
                .to_owned();
            (answer, id)
        };
        assert_eq!(call("order-66/a", body).1, "order-66/a", "{path}");
        let (error, id) = call("order-67", "{");
        assert_eq!((error.status, id.as_str()), (400, "order-67"), "{path}");
        assert_eq!(error.json()["error"]["request_id"], "order-67");

        for strange in ["", "two words", "caf\u{e9}", &"x".repeat(129)] {
            let (_, id) = call(strange, body);
            assert_ne!(id, strange, "{path}");
            assert!(
                !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_graphic()),
                "{id}"
            );
        }
        assert_ne!(call("", body).1, call("", body).1, "{path}");
    }
}

#[test]
fn health_says_live_and_ready() {
    for (path, text) in [("/health/live", "live\n"), ("/health/ready", "ready\n")] {
        let answer = SERVER.get(path).ok();
        assert_eq!(answer.text(), text);
        assert_eq!(answer.header("rerank-status"), None);
    }
}

#[test]
fn an_unknown_route_lists_those_that_there_are() {
    for (method, path) in [
        ("GET", "/nowhere"),
        ("POST", "/v3/rerank"),
        ("POST", "/v1/rerank/a/b/c"),
        ("GET", "/v2"),
        ("GET", "/metrics"),
    ] {
        let answer = SERVER.call(method, path, &[], b"");
        assert_eq!(answer.status, 404, "{method} {path}");
        let message = answer.error_message();
        for part in [
            format!("no route `{method} {path}`").as_str(),
            "/v1/rerank/{policy}",
            "/v1/rerank/{policy}/hits",
            "/inference/cross/{model}",
            "/inference/encoder/{model}",
            "/health/ready",
            "metrics and models are on the admin plane (--admin-listen)",
        ] {
            assert!(message.contains(part), "expected `{part}` in: {message}");
        }
        assert_eq!(answer.json()["error"]["type"], "unknown_route");
    }
}

#[test]
fn another_method_is_refused_and_the_right_one_named() {
    for (path, body) in ROUTES {
        for method in ["GET", "PUT", "DELETE", "PATCH"] {
            let answer = SERVER.call(method, path, &[], body.as_bytes());
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, Some("POST")),
                "{method} {path}"
            );
            let expected = format!("`{path}` must be called with POST, not {method}");
            assert_eq!(answer.error_message(), expected);
        }
    }
}

#[test]
fn unknown_names_are_404_and_list_the_known_ones() {
    for path in [
        "/v1/rerank/semantic",
        "/v1/rerank/Semantic-Blend",
        "/v1/rerank/%20",
        "/v1/rerank/x@1",
    ] {
        let answer = SERVER.post_text(path, RANK);
        assert_eq!(answer.status, 404, "{path}");
        let message = answer.error_message();
        let known = "active: `cross-encoder`, `first-stage`, `semantic-blend`";
        assert!(
            message.starts_with("no policy `") && message.contains(known),
            "{message}"
        );
        assert_eq!(answer.json()["error"]["type"], "unknown_policy");
    }
    for (path, body) in [
        ("/inference/cross/bert", PAIR),
        ("/inference/encoder/bert", TEXT),
    ] {
        let answer = SERVER.post_text(path, body);
        assert_eq!(answer.status, 404, "{path}");
        let message = answer.error_message();
        let known = "`all-minilm-l6-v2`, `tiny-cross-encoder`";
        assert!(
            message.contains("`bert`") && message.contains(known),
            "{message}"
        );
        assert_eq!(answer.json()["error"]["type"], "unknown_model");
    }
}

#[test]
fn one_connection_serves_many_requests_good_and_bad() {
    let mut connection = SERVER.connect();
    for body in [RANK, "{", RANK, "", RANK] {
        connection
            .request("POST", "/v1/rerank/semantic-blend", &[], body.as_bytes())
            .expect("the connection is open");
        let answer = connection.answer().expect("it is answered");
        assert_eq!(answer.status, if body == RANK { 200 } else { 400 });
    }
}

#[test]
fn metrics_move_by_what_happened() {
    let server = guests::serve(&["--timeout-ms", "60000"]);
    let requests = |protocol: &str, status: &str, reason: &str| {
        let labels = [
            ("protocol", protocol),
            ("status", status),
            ("reason", reason),
        ];
        server.metric("rerankd_requests_total", &labels)
    };
    let total = |name: &str| server.metric(name, &[]);
    let documents =
        |outcome: &str| server.metric("rerankd_documents_total", &[("outcome", outcome)]);
    let native =
        |policy: &str, body: &serde_json::Value| server.post(&format!("/v1/rerank/{policy}"), body);

    // The policies' cases ran before they were activated; they are no requests, but their rows are rows.
    let at_start = ["rerankd_rows_run_total", "rerankd_texts_encoded_total"].map(total);
    let rows = || total("rerankd_rows_run_total") - at_start[0];
    let encoded = || total("rerankd_texts_encoded_total") - at_start[1];
    assert_eq!(total("rerankd_requests_total"), 0.0);
    assert_eq!(total("rerankd_policy_calls_total"), 0.0);

    native(
        "semantic-blend",
        &json!({"query": "clog", "documents": texts(10)}),
    )
    .ok();
    assert_eq!(requests("native", "applied", ""), 1.0);
    assert_eq!(documents("scored"), 10.0);
    // The query is a row, too.
    assert_eq!(rows(), 11.0);
    assert_eq!(encoded(), 11.0);
    let blend = [("policy", "semantic-blend")];
    assert_eq!(server.metric("rerankd_policy_calls_total", &blend), 1.0);
    assert!(server.metric("rerankd_policy_guest_seconds_total", &blend) > 0.0);
    assert!(server.metric("rerankd_policy_peak_memory_bytes", &blend) > 65536.0);
    for stage in ["queue", "tokenize", "inference", "guest", "total"] {
        let count = server.metric("rerankd_stage_seconds_count", &[("stage", stage)]);
        assert_eq!(count, 1.0, "{stage}");
    }
    assert!(total("rerankd_run_seconds_total") > 0.0);
    assert!(total("rerankd_tokens_run_total") > 100.0);

    native(
        "cross-encoder",
        &json!({"query": "clog", "documents": ["a clog", "", "a boot"]}),
    )
    .ok();
    // The reason of a partial ranking differs from document to document.
    assert_eq!(requests("native", "partial", ""), 1.0);
    assert_eq!((documents("scored"), documents("unscored")), (12.0, 1.0));
    assert_eq!(rows(), 13.0);

    native(
        "filters-allowed",
        &json!({"query": "clog", "documents": ["a", "b"]}),
    )
    .ok();
    assert_eq!((documents("scored"), documents("filtered")), (13.0, 1.0));
    native("first-stage", &json!({"query": "clog", "documents": []}));
    assert_eq!(requests("native", "error", "bad-request"), 1.0);
    native("nobody", &json!({"query": "clog", "documents": ["a"]}));
    assert_eq!(requests("native", "error", "unknown-policy"), 1.0);
    native("trap", &json!({"query": "clog", "documents": ["a"]})).ok();
    assert_eq!(requests("native", "failed", "policy-fault"), 1.0);
    let trap = [("policy", "trap"), ("fault", "trap")];
    assert_eq!(server.metric("rerankd_policy_faults_total", &trap), 1.0);
    native(
        "trap",
        &json!({"query": "clog", "documents": ["a"], "on_failure": "error"}),
    );
    assert_eq!(requests("native", "error", "policy-fault"), 1.0);
    assert_eq!(server.metric("rerankd_policy_faults_total", &trap), 2.0);

    server
        .post_text("/v1/rerank/semantic-blend/hits", PAGE)
        .ok();
    assert_eq!(requests("hits", "skipped", "no-documents"), 1.0);
    server
        .post_text("/inference/cross/tiny-cross-encoder", PAIR)
        .ok();
    assert_eq!(requests("metarank", "applied", ""), 1.0);
    server.post_text("/inference/encoder/tiny-cross-encoder", TEXT);
    assert_eq!(requests("metarank-encoder", "error", "bad-request"), 1.0);

    for gauge in [
        "queue_rows",
        "queue_tokens",
        "admitted_requests",
        "admitted_tokens",
    ] {
        assert_eq!(total(&format!("rerankd_{gauge}")), 0.0, "{gauge}");
    }
    for counter in ["rerankd_rows_late_total", "rerankd_rows_withdrawn_total"] {
        assert_eq!(total(counter), 0.0, "{counter}");
    }
    let metrics = server.admin_call("GET", "/metrics", &[], b"");
    let content_type = metrics.header("content-type").expect("it has a type");
    assert!(
        content_type.starts_with("application/openmetrics-text"),
        "{content_type}"
    );
    assert!(metrics.text().ends_with("# EOF\n"));
}
