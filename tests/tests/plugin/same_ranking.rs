//! The same hits are ranked the same, whichever way they come to a policy.

use rerankd_tests::search_page::ids;
use rerankd_tests::{Answer, Rerankd, engine};
use serde_json::{Value, json};

use crate::QUERY;
use crate::world::{PIPELINE, WORLD, search, turn};

/// Scores as the engine has them: single precision.
fn scores(answer: &Answer) -> Vec<f32> {
    let body = answer.json();
    let hits = body["hits"]["hits"].as_array().expect("a list of hits");
    let score = |hit: &Value| hit["_score"].as_f64().expect("a score") as f32;
    hits.iter().map(score).collect()
}

#[test]
fn the_same_hits_are_ranked_the_same_through_plugin_proxy_and_endpoint() {
    let _turn = turn();
    let upstream = format!("http://{}", WORLD.engine.address());
    for policy in ["semantic-blend", "cross-encoder"] {
        let proxy = Rerankd::start(&[
            "--upstream",
            &upstream,
            "--proxy-listen",
            "127.0.0.1:0",
            "--default-policy",
            policy,
        ]);
        let body = |options: Value| {
            let mut body = search(QUERY);
            body["size"] = json!(100);
            body["ext"] = options;
            body
        };
        let fields = json!(["title", "text"]);
        let options = json!({"url": WORLD.sidecar_url(), "policy": policy, "fields": fields});
        WORLD
            .put_pipeline("one-policy", &crate::world::pipeline(&options))
            .ok();
        let path = "/products/_search?search_pipeline=one-policy";
        let plugin = WORLD.post(path, &body(json!({"rerankd": {}}))).ok();
        let mut plain = body(json!({}));
        plain.as_object_mut().expect("an object").remove("ext");
        let own = WORLD.alone(&plain);
        let headers = [
            ("Content-Type", "application/json"),
            ("Rerankd-Fields", "title,text"),
        ];
        let through = engine::call(
            proxy.proxy_address(),
            "POST",
            "/products/_search?search_pipeline=_none",
            &headers,
            plain.to_string().as_bytes(),
        )
        .ok();
        let hits = json!({"query": QUERY, "fields": fields, "response": own.json()});
        let endpoint = WORLD
            .sidecar
            .post(&format!("/v1/rerank/{policy}/hits"), &hits)
            .ok();
        assert_ne!(ids(plugin.text()), ids(own.text()), "nothing is reranked");
        assert_eq!(ids(plugin.text()), ids(through.text()), "{policy}: proxy");
        assert_eq!(ids(plugin.text()), ids(endpoint.text()), "{policy}: hits");
        for (other, answer) in [("proxy", &through), ("hits", &endpoint)] {
            for (one, other_score) in scores(&plugin).iter().zip(scores(answer)) {
                let apart = (one - other_score).abs();
                assert!(apart <= 1e-6, "{policy}, {other}: {one} {other_score}");
            }
        }
    }
}

#[test]
fn pages_neither_repeat_nor_lose_a_hit() {
    let _turn = turn();
    let page = |from: usize, size: usize| {
        let mut body = search(QUERY);
        body["from"] = json!(from);
        body["size"] = json!(size);
        body["_source"] = json!(false);
        body["ext"] = json!({"rerankd": {"policy": "semantic-blend", "window": 30}});
        let path = format!("/products/_search?search_pipeline={PIPELINE}");
        ids(WORLD.post(&path, &body).ok().text())
    };
    let whole = page(0, 60);
    assert!(whole.len() > 35, "only {} hits", whole.len());
    let pages = (0..whole.len()).step_by(7);
    // From the window on the engine's own order goes on, page by page.
    let joined: Vec<String> = pages.flat_map(|from| page(from, 7)).collect();
    assert_eq!(joined, whole);
    let mut once = joined.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), joined.len(), "a hit stands twice");
}
