//! What is wrong is refused by the engine's own 400, which names it, and harms nobody.

use rerankd_tests::Answer;
use serde_json::{Value, json};

use crate::sidecar::fresh_name;
use crate::world::{WORLD, pipeline, search, turn};
use crate::{QUERY, marker};

/// Wrong options of the processors, and what the refusal must name.
fn configurations() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"windows": 5}), "windows"),
        (json!({"window": 0}), "window"),
        (json!({"window": -1}), "window"),
        (json!({"window": "many"}), "window"),
        (json!({"window": 1.5}), "window"),
        (json!({"window": 1_000_000_000}), "window"),
        (json!({"window": []}), "window"),
        (json!({"window": 200, "max_window": 100}), "window"),
        (json!({"timeout_ms": 0}), "timeout_ms"),
        (json!({"timeout_ms": -5}), "timeout_ms"),
        (json!({"timeout_ms": "soon"}), "timeout_ms"),
        (json!({"timeout_ms": 1_000_000_000}), "timeout_ms"),
        (json!({"on_failure": "ignore"}), "on_failure"),
        (json!({"on_failure": 1}), "on_failure"),
        (json!({"url": "nowhere"}), "url"),
        (json!({"url": "ftp://127.0.0.1/"}), "url"),
        (json!({"url": ""}), "url"),
        (json!({"url": 9500}), "url"),
        (json!({"url": "http://user:secret@127.0.0.1:9500"}), "url"),
        (json!({"policy": ""}), "policy"),
        (json!({"policy": 5}), "policy"),
        (json!({"policy": "../admin"}), "policy"),
        (json!({"policies": "one"}), "policies"),
        (json!({"policies": [1]}), "policies"),
        (json!({"policies": []}), "policies"),
        (json!({"policy": "a", "policies": ["b"]}), "polic"),
        (json!({"fields": "title"}), "fields"),
        (json!({"fields": [1]}), "fields"),
        (json!({"fields": []}), "fields"),
        (json!({"query_path": ""}), "query_path"),
        (json!({"query_path": 5}), "query_path"),
        (json!({"rescore": "always"}), "rescore"),
        (json!({"parameters": 5}), "parameters"),
        (json!({"signals": "FR"}), "signals"),
        (json!({"keep_scores": "maybe"}), "keep_scores"),
        (json!({"min_score": "low"}), "min_score"),
        (json!({"max_concurrent_calls": 0}), "max_concurrent_calls"),
        (
            json!({"max_concurrent_calls": "all"}),
            "max_concurrent_calls",
        ),
    ]
}

/// Wrong `ext.rerankd` of a search, and what the refusal must name.
fn options() -> Vec<(Value, &'static str)> {
    vec![
        (json!("first-stage"), "rerankd"),
        (json!(true), "rerankd"),
        (json!([]), "rerankd"),
        (json!({"windows": 5}), "windows"),
        (json!({"url": "http://127.0.0.1:1/"}), "url"),
        (json!({"max_concurrent_calls": 5}), "max_concurrent_calls"),
        (json!({"window": 1_000_000_000}), "window"),
        (json!({"window": 0}), "window"),
        (json!({"window": -1}), "window"),
        (json!({"window": 1.5}), "window"),
        (json!({"window": "5x"}), "window"),
        (json!({"window": {"size": 5}}), "window"),
        (json!({"enabled": "maybe"}), "enabled"),
        (json!({"policy": 5}), "policy"),
        (json!({"policy": "not-granted"}), "not-granted"),
        (json!({"policy": "../admin"}), "policy"),
        (json!({"query": 5}), "query"),
        (json!({"query": {"text": "a"}}), "query"),
        (json!({"fields": "title"}), "fields"),
        (json!({"fields": [5]}), "fields"),
        (json!({"timeout_ms": 0}), "timeout_ms"),
        (json!({"timeout_ms": "soon"}), "timeout_ms"),
        (json!({"on_failure": "ignore"}), "on_failure"),
        (json!({"parameters": []}), "parameters"),
        (json!({"signals": "FR"}), "signals"),
        (json!({"key": {}}), "key"),
        (json!({"explain": true}), "explain"),
        (json!({"explain": "false"}), "explain"),
        (json!({"keep_scores": "maybe"}), "keep_scores"),
        (json!({"min_score": "low"}), "min_score"),
        (json!({"query": "a".repeat(1 << 20)}), "rerankd"),
        (json!({"signals": {"all": "a".repeat(70_000)}}), "rerankd"),
        (json!({"signals": {"deep": nested(80)}}), "rerankd"),
        (json!({"fields": ["*".repeat(20_000)]}), "fields"),
    ]
}

/// What an answer lacks of the engine's own 400 that names `name`.
fn is_refused(answer: &Answer, name: &str) -> Result<(), String> {
    let body = answer.json();
    let text = body["error"].to_string();
    let short: String = text.chars().take(400).collect();
    match answer.status == 400 && body["status"] == 400 && text.contains(name) {
        true if text.len() > 8000 => Err(format!("an error of {} characters", text.len())),
        true => Ok(()),
        false => Err(format!("{} {short}", answer.status)),
    }
}

fn all_well(faults: &[String]) {
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
    let answer = WORLD.post("/products/_search", &search(QUERY)).ok();
    assert_eq!(marker::fate(&answer).status, "applied");
}

#[test]
fn a_wrong_configuration_is_refused_when_it_is_put_and_named() {
    let _turn = turn();
    let name = fresh_name();
    let mut faults = Vec::new();
    for (options, key) in configurations() {
        let answer = WORLD.put_pipeline(&name, &pipeline(&options));
        if let Err(fault) = is_refused(&answer, key) {
            faults.push(format!("- rerankd_window {options}: {fault}"));
        }
        let made = json!({"response_processors": [{"rerankd": options}]});
        let alone = WORLD.put_pipeline(&name, &made);
        if let Err(fault) = is_refused(&alone, key) {
            faults.push(format!("- rerankd {options}: {fault}"));
        }
    }
    let answer = WORLD.call("GET", &format!("/_search/pipeline/{name}"), &Value::Null);
    if answer.status != 404 {
        faults.push(format!("- this was kept: {}", answer.text()));
    }
    all_well(&faults);
}

#[test]
fn wrong_options_of_a_search_are_refused_and_named() {
    let _turn = turn();
    let mut faults = Vec::new();
    for (options, key) in options() {
        let mut body = search(QUERY);
        body["ext"] = json!({"rerankd": options});
        let answer = WORLD.post("/products/_search", &body);
        if let Err(fault) = is_refused(&answer, key) {
            let short: String = options.to_string().chars().take(60).collect();
            faults.push(format!("- {short}: {fault}"));
        }
    }
    all_well(&faults);
}

#[test]
fn options_hold_up_no_shard_and_no_other_search() {
    let _turn = turn();
    // They are read on the node that was asked; the shards get the search as it always was.
    let mut body = search(QUERY);
    body["ext"] = json!({"rerankd": {"signals": {"deep": nested(50)}}});
    let answer = WORLD.post("/products,archive/_search", &body).ok();
    assert_eq!(answer.json()["_shards"]["failed"], 0);
    all_well(&[]);
}

fn nested(depth: usize) -> Value {
    (0..depth).fold(json!(1), |inner, _| json!({"a": inner}))
}
