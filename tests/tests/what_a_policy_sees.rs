//! What a policy sees: what it was granted, in the types that it came in, and nothing of the world.

use std::sync::LazyLock;

use rerankd_tests::{Rerankd, guests};
use serde_json::{Value, json};

/// The policies that say what they see.
const ECHO: &str = "echo";
const CLOCK: &str = "clock";

static SERVER: LazyLock<Rerankd> = LazyLock::new(|| guests::serve(&["--timeout-ms", "60000"]));

#[test]
fn with_wasi_the_clock_stands_still_and_randomness_repeats() {
    let seen = || {
        let answer = SERVER
            .post(
                &format!("/v1/rerank/{CLOCK}"),
                &json!({"query": "q", "documents": ["d"], "explain": true}),
            )
            .ok()
            .json();
        let explanation = answer["results"][0]["explanation"]
            .as_str()
            .expect("it explains");
        serde_json::from_str::<Value>(explanation).expect("it is JSON")
    };
    let first = seen();
    assert_eq!(
        first["now"][0], first["now"][1],
        "a clock that runs is a timing oracle"
    );
    assert_eq!(first["random"][0].as_array().map(Vec::len), Some(16));
    assert_ne!(first["random"][0], first["random"][1]);
    assert_eq!(first, seen());
}

/// What the policy `echo` saw of a request, at each document. Nothing that it sees is `hidden`.
fn echoed(headers: &[(&str, &str)], request: &Value) -> Vec<Value> {
    let path = format!("/v1/rerank/{ECHO}");
    let answer = SERVER
        .call("POST", &path, headers, request.to_string().as_bytes())
        .ok()
        .json();
    let results = answer["results"].as_array().expect("it has results");
    let explanation = |result: &Value| {
        let text = result["explanation"].as_str().expect("it explains");
        assert!(!text.contains("hidden"), "{text}");
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
    };
    results.iter().map(explanation).collect()
}

#[test]
fn a_policy_sees_what_it_was_granted_and_never_a_header() {
    let mut request = json!({
        "query": "clog",
        "documents": [
            {"id": "a", "score": 2.5, "fields": {"title": "Clog", "price": 29.9, "margin": "hidden-1"}},
            {"id": "a", "fields": {"text": "Boot", "margin": "hidden-2"}},
        ],
        "explain": true,
        "top_n": 2,
        "signals": {"country": "FR"},
        "parameters": {"mood": [1, 2]},
        "key": "hidden-3",
    });
    let headers = [("Authorization", "Bearer hidden-4"), ("Cookie", "hidden-5")];
    let see = |request: &Value| echoed(&headers, request);

    let seen = see(&request);
    assert_eq!(
        seen[0],
        json!({
            "query": "clog", "first_stage": "none", "top_n": 2, "explain": true,
            "parameters": {"mood": [1, 2]}, "signals": {"country": {"text": "FR"}}, "documents": 2,
            // One document has no score, so none has: the first stage is all or nothing.
            "document": {"id": "a", "score": null, "fields": {"title": {"text": "Clog"}}},
        })
    );
    assert_eq!(
        seen[1]["document"]["fields"],
        json!({"text": {"text": "Boot"}})
    );

    request["fields"] = json!(["price"]);
    request["ordered"] = json!(true);
    let seen = see(&request);
    assert_eq!(seen[0]["first_stage"], "ranked");
    assert_eq!(
        seen[0]["document"]["fields"],
        json!({"title": {"text": "Clog"}, "price": {"number": 29.9}})
    );

    request["documents"][1]["score"] = json!(-1);
    let seen = see(&request);
    assert_eq!(seen[0]["first_stage"], "scored");
    assert_eq!(
        (&seen[0]["document"]["score"], &seen[1]["document"]["score"]),
        (&json!(2.5), &json!(-1.0))
    );
}

#[test]
fn values_keep_their_types() {
    let fields = json!({
        "text": "a", "texts": ["a", "b"], "number": 0.5, "integer": 7, "big": 1e300,
        "numbers": [1, 2.5], "boolean": false, "json": {"a": [null]}, "mixed": [1, "a"], "nothing": null,
    });
    let names: Vec<&str> = fields
        .as_object()
        .expect("an object")
        .keys()
        .map(String::as_str)
        .collect();
    let request = json!({
        "query": "q", "explain": true, "signals": fields, "documents": ["d"],
    });
    let tagged = json!({
        "text": {"text": "a"}, "texts": {"texts": ["a", "b"]}, "number": {"number": 0.5},
        "integer": {"integer": 7}, "big": {"number": 1e300}, "numbers": {"numbers": [1.0, 2.5]},
        "boolean": {"boolean": false}, "json": {"json": "{\"a\":[null]}"},
        "mixed": {"json": "[1,\"a\"]"},
    });
    let seen = echoed(&[], &request);
    assert_eq!(seen[0]["signals"], tagged);
    assert_eq!(
        seen[0]["document"]["fields"],
        json!({"text": {"text": "d"}})
    );

    let request = json!({
        "query": "q", "explain": true, "fields": names, "documents": [{"fields": fields}],
    });
    assert_eq!(echoed(&[], &request)[0]["document"]["fields"], tagged);
}
