//! A version that answers a share of the requests, and one that runs beside the answers.

use std::collections::BTreeSet;

use rerankd_tests::admin::assert_refused;
use rerankd_tests::components::faulty_echo;
use rerankd_tests::{Deployment, eventually};
use serde_json::{Value, json};

const KEYS: usize = 400;

fn canary(server: &Deployment, digest: &str, percent: f64) -> Value {
    let body = json!({"digest": digest, "percent": percent});
    server.role("echo", "canary", &body).ok().json()
}

/// Whom the canary answers, of [`KEYS`] keys in `Rerankd-Key`.
fn members(server: &Deployment, canary: &str) -> BTreeSet<usize> {
    let answered = |key: &usize| {
        let key = format!("user-{key}");
        let answer = server.ask("echo", "shoes", &[("Rerankd-Key", &key)]).ok();
        answer.json()["version"] == canary[..8]
    };
    (0..KEYS).filter(answered).collect()
}

#[test]
fn a_canary_answers_its_share_of_the_keys_and_keeps_them() {
    let mut server = Deployment::start(&[]);
    let (active, new) = (server.release_echo(1, true), server.release_echo(2, false));
    let summary = canary(&server, &new, 10.0);
    assert_eq!(
        summary["canary"],
        json!({"digest": new, "version": "0.1.0", "percent": 10.0})
    );
    assert_eq!(server.version("echo", &new)["state"], "canary");
    // Hashes decide, so these numbers are the same in every run: 40 of 400 are expected, and 6 are a
    // standard deviation.
    let tenth = members(&server, &new);
    assert!((16..=64).contains(&tenth.len()), "{}", tenth.len());
    canary(&server, &new, 50.0);
    let half = members(&server, &new);
    assert!((160..=240).contains(&half.len()), "{}", half.len());
    assert!(tenth.is_subset(&half), "a key left as the share grew");
    server.restart();
    assert_eq!(server.detail("echo")["canary"]["percent"], 50.0);
    assert_eq!(members(&server, &new), half);
    canary(&server, &new, 10.0);
    assert_eq!(members(&server, &new), tenth);
    canary(&server, &new, 100.0);
    assert_eq!(members(&server, &new).len(), KEYS);
    let summary = canary(&server, &new, 0.0);
    assert_eq!(summary["canary"], Value::Null);
    assert_eq!(server.version("echo", &new)["state"], "staged");
    assert_eq!(members(&server, &new).len(), 0);
    assert_eq!(server.serving("echo"), active[..8]);
}

#[test]
fn a_share_can_be_less_than_a_percent() {
    let server = Deployment::start(&[]);
    let (_, new) = (server.release_echo(1, true), server.release_echo(2, false));
    canary(&server, &new, 0.5);
    assert!(members(&server, &new).len() <= 10);
    assert_eq!(server.detail("echo")["canary"]["percent"], 0.5);
}

#[test]
fn header_then_key_then_query_say_on_which_side_a_request_is() {
    let server = Deployment::start(&[]);
    let (_, new) = (server.release_echo(1, true), server.release_echo(2, false));
    canary(&server, &new, 50.0);
    let side = |header: Option<&str>, key: Option<&str>, query: &str, page: usize| {
        let mut body = json!({"query": query, "documents": [format!("page {page}")]});
        if let Some(key) = key {
            body["key"] = json!(key);
        }
        let mut headers = vec![("Content-Type", "application/json")];
        headers.extend(header.map(|header| ("Rerankd-Key", header)));
        let body = body.to_string();
        let answer = server
            .call("POST", "/v1/rerank/echo", &headers, body.as_bytes())
            .ok();
        answer.json()["version"] == new[..8]
    };
    let texts: Vec<String> = (0..24).map(|number| format!("text {number}")).collect();
    let alone: Vec<bool> = texts.iter().map(|text| side(None, None, text, 0)).collect();
    assert!(alone.contains(&true) && alone.contains(&false));
    for (index, text) in texts.iter().enumerate() {
        let (expected, other) = (alone[index], &texts[(index + 1) % texts.len()]);
        for page in 0..3 {
            assert_eq!(side(None, None, text, page), expected, "query {text}");
            assert_eq!(side(None, Some(text), other, page), expected, "key {text}");
            assert_eq!(
                side(Some(text), Some(other), "x", page),
                expected,
                "header {text}"
            );
        }
        // An empty key is none.
        assert_eq!(side(Some(""), Some(""), text, 0), expected);
    }
}

#[test]
fn the_hits_route_is_split_as_well() {
    let server = Deployment::start(&[]);
    let (_, new) = (server.release_echo(1, true), server.release_echo(2, false));
    canary(&server, &new, 100.0);
    let body = json!({"query": "q", "response": {"hits": {"hits": [
        {"_id": "a", "_score": 2.0, "_source": {"title": "a"}},
        {"_id": "b", "_score": 1.0, "_source": {"title": "b"}}]}}});
    let answer = server.post("/v1/rerank/echo/hits", &body).ok();
    assert_eq!(answer.parameter("version"), Some(&new[..8]));
}

#[test]
fn a_canary_that_is_activated_is_no_canary_any_more() {
    let server = Deployment::start(&[]);
    let (old, new) = (server.release_echo(1, true), server.release_echo(2, false));
    canary(&server, &new, 30.0);
    server
        .role("echo", "activate", &json!({"digest": new}))
        .ok();
    let detail = server.detail("echo");
    assert_eq!(detail["canary"], Value::Null);
    assert_eq!(
        (
            &detail["active"]["digest"],
            &detail["rollback_to"]["digest"]
        ),
        (&json!(new), &json!(old))
    );
    assert_eq!(members(&server, &new).len(), KEYS);
    // Without an active version there is nobody for the rest.
    let other = server.release("panic", &rerankd_tests::components::faulty("panic"), "");
    let body = json!({"digest": other, "percent": 5});
    let answer = server.role("panic", "canary", &body);
    assert_refused(&answer, 409, "", &["`panic` has no active version"]);
}

/// The shadow's comparison, when it has come to `count` of `key`.
fn comparison(server: &Deployment, digest: &str, key: &str, count: u64) -> Value {
    eventually("the shadow has run", || {
        let comparison = server.version("echo", digest)["shadow_comparison"].clone();
        (comparison[key].as_u64()? >= count).then_some(comparison)
    })
}

#[test]
fn a_shadow_is_compared_and_changes_no_answer() {
    let mut server = Deployment::start(&[]);
    let (active, shadow) = (server.release_echo(1, true), server.release_echo(2, false));
    let answer = |query: &str| {
        let mut body = server.ask("echo", query, &[]).ok().json();
        body["timings_ms"] = Value::Null;
        body
    };
    let before: Vec<Value> = (0..5).map(|n| answer(&format!("query {n}"))).collect();
    let summary = server
        .role("echo", "shadow", &json!({"digest": shadow}))
        .ok()
        .json();
    assert_eq!(summary["shadow"]["digest"], shadow);
    let mut asked = 0;
    let compared = eventually("five were compared", || {
        let query = asked % 5;
        assert_eq!(answer(&format!("query {query}")), before[query]);
        asked += 1;
        let comparison = server.version("echo", &shadow)["shadow_comparison"].clone();
        (comparison["compared"].as_u64()? >= 5).then_some(comparison)
    });
    assert_eq!(compared["against"], active);
    for (key, expected) in [
        ("kendall_tau", 1.0),
        ("overlap_at_10", 1.0),
        ("score_shift", 0.0),
    ] {
        assert_eq!(compared[key], expected, "{compared}");
    }
    assert_eq!(compared["failed"], 0);
    let version = server.version("echo", &shadow);
    assert_eq!(
        (&version["state"], &version["traffic"]["calls"]),
        (&json!("shadow"), &json!(0))
    );
    let short = &shadow[..8];
    let counted = server.metric("rerankd_shadow_compared_total", &[("version", short)]);
    assert!(counted >= 5.0, "{counted}");

    server.restart();
    assert_eq!(server.detail("echo")["shadow"]["digest"], shadow);
    let ended = server
        .role("echo", "shadow", &json!({"digest": null}))
        .ok()
        .json();
    assert_eq!(ended["shadow"], Value::Null);
    assert_eq!(server.detail("echo")["shadow"], Value::Null);
}

#[test]
fn faults_of_a_shadow_reach_its_author_and_nobody_else() {
    let server = Deployment::start(&["--probation-min-calls", "1"]);
    let active = server.release_echo(1, true);
    let shadow = server.release("echo", &faulty_echo("panic", "0.2.0"), "");
    server
        .role("echo", "shadow", &json!({"digest": shadow}))
        .ok();
    let mut last = String::new();
    let failed = eventually("the shadow has failed", || {
        let answer = server.ask("echo", "q", &[]).ok();
        assert_eq!(answer.parameter("status"), Some("applied"));
        assert_eq!(answer.json()["version"], active[..8]);
        last = answer
            .header("x-request-id")
            .expect("it has an id")
            .to_owned();
        let comparison = server.version("echo", &shadow)["shadow_comparison"].clone();
        (comparison["failed"].as_u64()? >= 2).then_some(comparison)
    });
    assert_eq!(
        (&failed["compared"], &failed["kendall_tau"]),
        (&json!(0), &Value::Null)
    );
    let comparison_later = comparison(&server, &shadow, "failed", 2);
    assert_eq!(comparison_later["against"], active);
    let traffic = &server.version("echo", &shadow)["traffic"];
    assert_eq!(
        (&traffic["calls"], &traffic["faults"]),
        (&json!(0), &json!(0)),
        "{traffic}"
    );
    let fault = &traffic["last_faults"][0];
    assert_eq!(
        (&fault["kind"], &fault["shadow"]),
        (&json!("panic"), &json!(true)),
        "{fault}"
    );
    // A shadow is not on probation.
    assert_eq!(server.detail("echo")["shadow"]["digest"], shadow);
    assert_eq!(server.metric("rerankd_policies_taken_back_total", &[]), 0.0);
}
