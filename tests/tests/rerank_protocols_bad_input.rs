//! Bad input and failures on the routes of the rerank APIs: each says what was wrong in its protocol's
//! own shape.

use std::sync::LazyLock;

use rerankd_tests::http::head;
use rerankd_tests::{Answer, Folder, Rerankd, guests};
use serde_json::{Value, json};

const MAX_BODY_BYTES: &str = "100000";

static SERVER: LazyLock<Rerankd> = LazyLock::new(|| {
    let limits = ["--max-documents", "50", "--max-body-bytes", MAX_BODY_BYTES];
    let times = ["--timeout-ms", "60000", "--body-timeout-ms", "2000"];
    guests::serve(&[limits, times].concat())
});

/// The shape of an error.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Shape {
    Superset,
    Tei,
}

use Shape::{Superset, Tei};

/// Every path, with the shape of its errors, and the start of a body that its protocol reads.
const ROUTES: [(&str, Shape, &str); 15] = [
    ("/v1/rerank", Superset, r#"{"query":"q","documents":["a"]"#),
    ("/v2/rerank", Superset, r#"{"query":"q","documents":["a"]"#),
    ("/rerank", Superset, r#"{"query":"q","documents":["a"]"#),
    ("/reranking", Superset, r#"{"query":"q","documents":["a"]"#),
    (
        "/v1/reranking",
        Superset,
        r#"{"query":"q","documents":["a"]"#,
    ),
    (
        "/voyage/v1/rerank",
        Superset,
        r#"{"query":"q","documents":["a"]"#,
    ),
    (
        "/infinity/rerank",
        Superset,
        r#"{"query":"q","documents":["a"]"#,
    ),
    ("/score", Superset, r#"{"queries":"q","documents":["a"]"#),
    ("/v1/score", Superset, r#"{"queries":"q","documents":["a"]"#),
    (
        "/v1/ranking",
        Superset,
        r#"{"query":{"text":"q"},"passages":["a"]"#,
    ),
    (
        "/bedrock/rerank",
        Superset,
        r#"{"queries":[{"textQuery":{"text":"q"}}],"sources":[{"inlineDocumentSource":{"textDocument":{"text":"a"}}}]"#,
    ),
    ("/", Tei, r#"{"query":"q","texts":["a"]"#),
    ("/invocations", Tei, r#"{"query":"q","texts":["a"]"#),
    ("/predict", Tei, r#"{"inputs":["q","a"]"#),
    (
        "/rerank",
        Superset,
        r#"{"query":"q","documents":["a"],"use_activation":null"#,
    ),
];

/// The error's text, from a body that has the shape and nothing else.
#[track_caller]
fn assert_refused(answer: &Answer, shape: Shape, status: u16, message: &str) -> Value {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.parameter("status"), Some("error"));
    let body = answer.json();
    let text = match shape {
        Superset => {
            let text = body["message"].clone();
            assert_eq!(body["detail"], text);
            assert_eq!(body["error"]["message"], text);
            assert_eq!(body["error"]["code"], status);
            assert!(body["error"]["type"].is_string());
            text
        }
        Tei => {
            let keys: Vec<&String> = body.as_object().expect("an object").keys().collect();
            assert_eq!(keys, ["error", "error_type"]);
            body["error"].clone()
        }
    };
    let text = text.as_str().expect("a text");
    assert!(text.contains(message), "expected `{message}` in: {text}");
    body
}

#[test]
fn what_is_no_json_is_refused_in_the_shape_of_the_path() {
    for (path, shape, _) in ROUTES {
        for (body, message) in [
            ("", "the body is empty"),
            ("{", "the body is not JSON: EOF while parsing"),
            ("query=clog", "the body is not JSON"),
            ("[]", "the body: expected an object, got an array"),
        ] {
            assert_refused(&SERVER.post_text(path, body), shape, 400, message);
        }
    }
    // The key says who speaks, where the path does not.
    let answer = SERVER.post_text("/rerank", r#"{"texts":7,"query":"q"}"#);
    let body = assert_refused(&answer, Tei, 422, "`texts`: expected an array, got `7`");
    assert_eq!(body["error_type"], "Validation");
}

#[test]
fn wrong_types_are_named_with_their_place() {
    for (path, shape, body, status, message) in [
        (
            "/v1/rerank",
            Superset,
            r#"{"query":"q","documents":["a",7]}"#,
            400,
            "`documents[1]`: expected a string or",
        ),
        (
            "/v2/rerank",
            Superset,
            r#"{"query":" ","documents":["a"]}"#,
            400,
            "`query`: empty",
        ),
        (
            "/rerank",
            Superset,
            r#"{"query":"q","documents":[]}"#,
            400,
            "`documents`: empty",
        ),
        (
            "/v1/rerank",
            Superset,
            r#"{"query":"q","documents":["a"],"top_n":-1}"#,
            400,
            "`top_n`",
        ),
        (
            "/v1/rerank",
            Superset,
            r#"{"query":"q","documents":["a"],"parameters":{"weight":7}}"#,
            400,
            "weight",
        ),
        (
            "/infinity/rerank",
            Superset,
            r#"{"query":"q","documents":[null]}"#,
            400,
            "`documents[0]`",
        ),
        (
            "/v1/rerank",
            Superset,
            r#"{"query":"q","documents":["a"],"top_k":"three","truncation":true}"#,
            400,
            "`top_k`",
        ),
        (
            "/score",
            Superset,
            r#"{"queries":["a","b"],"documents":["c"]}"#,
            400,
            "1 texts for 2 queries",
        ),
        (
            "/v1/ranking",
            Superset,
            r#"{"query":{"text":""},"passages":["a"]}"#,
            400,
            "`query`: empty",
        ),
        (
            "/bedrock/rerank",
            Superset,
            r#"{"queries":[]}"#,
            400,
            "exactly one query",
        ),
        (
            "/rerank",
            Tei,
            r#"{"query":"q","texts":["a",7]}"#,
            422,
            "`texts[1]`: expected a string, got `7`",
        ),
        (
            "/rerank",
            Tei,
            r#"{"query":"q","texts":[]}"#,
            400,
            "`texts`: empty",
        ),
        (
            "/rerank",
            Tei,
            r#"{"query":"","texts":[""]}"#,
            400,
            "`query`: empty",
        ),
        ("/", Tei, r#"{"query":"q"}"#, 422, "`texts`: missing"),
        (
            "/predict",
            Tei,
            r#"{"inputs":"one"}"#,
            422,
            "a pair of strings",
        ),
    ] {
        assert_refused(&SERVER.post_text(path, body), shape, status, message);
    }
}

#[test]
fn too_many_documents_and_too_large_bodies_are_told_apart() {
    let many = vec!["a"; 51];
    let superset = SERVER.post("/v1/rerank", &json!({"query": "q", "documents": many}));
    assert_refused(
        &superset,
        Superset,
        413,
        "51 documents are more than the limit of 50",
    );
    let tei = SERVER.post("/rerank", &json!({"query": "q", "texts": many}));
    assert_refused(&tei, Tei, 422, "51 documents are more than the limit of 50");
    let pairs = vec![json!(["q", "a"]); 51];
    assert_refused(
        &SERVER.post("/predict", &json!({"inputs": pairs})),
        Tei,
        422,
        "the limit of 50",
    );
    let padding = " ".repeat(100_001);
    for (path, shape, start) in ROUTES {
        let answer = SERVER.post_text(path, format!("{start}}}{padding}"));
        assert_refused(&answer, shape, 413, "(--max-body-bytes)");
    }
}

#[test]
fn unknown_models_are_404_save_where_a_protocol_says_otherwise() {
    for (path, shape, start) in ROUTES {
        if ["/predict", "/bedrock/rerank"].contains(&path) {
            continue;
        }
        let answer = SERVER.post_text(path, format!(r#"{start},"model":"bert"}}"#));
        let status = if path == "/infinity/rerank" { 400 } else { 404 };
        assert_refused(&answer, shape, status, "no policy `bert`");
    }
    let pairs = SERVER.post(
        "/score",
        &json!({"model": "first-stage", "queries": "q", "documents": ["a"]}),
    );
    assert_refused(&pairs, Superset, 400, "by its place among the others");
}

#[test]
fn another_content_type_is_415_and_none_is_json() {
    for (path, shape, start) in ROUTES {
        let body = format!("{start}}}");
        let call =
            |kind: &str| SERVER.call("POST", path, &[("Content-Type", kind)], body.as_bytes());
        for kind in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/xml",
            "jason",
        ] {
            assert_refused(&call(kind), shape, 415, "`Content-Type: application/json`");
        }
        for kind in [
            "application/json",
            "Application/JSON; charset=UTF-8",
            "application/vnd.x+json",
            "",
        ] {
            assert_eq!(call(kind).status, 200, "{path} {kind}");
        }
        assert_eq!(
            SERVER.call("POST", path, &[], body.as_bytes()).status,
            200,
            "{path}"
        );
    }
}

#[test]
fn another_method_is_405_in_the_shape_of_the_path() {
    for (path, shape, _) in ROUTES {
        for method in ["GET", "PUT", "DELETE"] {
            let answer = SERVER.call(method, path, &[], b"");
            if (method, path) == ("GET", "/") {
                assert_eq!(answer.status, 200, "health");
                continue;
            }
            assert_refused(&answer, shape, 405, "must be called with POST");
            assert_eq!(answer.header("allow"), Some("POST"));
        }
    }
}

#[test]
fn compressed_otherwise_than_gzip_is_415_and_slow_is_408() {
    for (path, shape, start) in ROUTES {
        let answer = SERVER.call(
            "POST",
            path,
            &[("Content-Encoding", "br")],
            start.as_bytes(),
        );
        assert_refused(&answer, shape, 415, "`gzip`");
    }
    let mut waiting: Vec<_> = ROUTES
        .iter()
        .map(|(path, shape, start)| {
            let mut connection = SERVER.connect();
            let begun = connection.send(head("POST", path, &[("Content-Length", "1000")]));
            begun.expect("a new connection is open");
            connection.send(start).expect("it is open");
            (connection, *shape)
        })
        .collect();
    for (connection, shape) in &mut waiting {
        let answer = connection.answer().expect("it is answered");
        assert_refused(&answer, *shape, 408, "the body did not arrive within 2s");
    }
}

#[test]
fn a_policys_fault_and_a_deadline_are_424_which_no_client_tries_again() {
    for (path, shape, start) in ROUTES {
        if ["/predict", "/bedrock/rerank"].contains(&path) {
            continue;
        }
        let answer = SERVER.post_text(path, format!(r#"{start},"model":"trap"}}"#));
        let body = assert_refused(&answer, shape, 424, "trap");
        if shape == Tei {
            assert_eq!(body["error_type"], "Backend");
        }
        assert_eq!(answer.header("retry-after"), None);
    }
    let late = json!({"model": "waits", "query": "q", "documents": ["a"], "timeout_ms": 50});
    let answer = SERVER.post("/v1/rerank", &late);
    assert_refused(&answer, Superset, 424, "waits");
    // Unless the request itself wants the order that there was.
    let body = json!({"model": "trap", "query": "q", "documents": ["a", "b"], "on_failure": "first-stage"});
    let answer = SERVER.post("/v1/rerank", &body).ok();
    assert_eq!(answer.parameter("status"), Some("failed"));
}

#[test]
fn the_operator_may_allow_first_stage_order() {
    let folder = Folder::new();
    folder.copy(
        &rerankd_tests::require::faulty("trap"),
        "policies/trap.wasm",
    );
    let config = folder.write("rerankd.toml", "[wire]\non_failure = \"first-stage\"\n");
    let policies = folder.path().join("policies");
    let text = |path: &std::path::Path| path.to_str().expect("the path is UTF-8").to_owned();
    let server = Rerankd::start(&["--config", &text(&config), "--policies", &text(&policies)]);
    let answer = server
        .post(
            "/v1/rerank",
            &json!({"query": "q", "documents": ["a", "b", "c"]}),
        )
        .ok();
    assert_eq!(answer.parameter("status"), Some("failed"));
    assert_eq!(answer.parameter("reason"), Some("policy-fault"));
    let body = answer.json();
    let results = body["results"].as_array().expect("results");
    let scores: Vec<f64> = results
        .iter()
        .filter_map(|result| result["relevance_score"].as_f64())
        .collect();
    assert_eq!(scores, [0.75, 0.5, 0.25]);
    let warning = body["meta"]["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("policy-fault"), "{warning}");
    // A score for each pair cannot be made up.
    let answer = server.post("/score", &json!({"queries": "q", "documents": ["a"]}));
    assert_refused(&answer, Superset, 424, "`documents[0]`");
    let own = json!({"query": "q", "documents": ["a"], "on_failure": "error"});
    assert_eq!(server.post("/v1/rerank", &own).status, 424);
}
