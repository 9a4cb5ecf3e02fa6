//! Nothing of an engine's own answer depends on the window but the order and the scores: indices made for
//! what a wider search does to an engine. None of their documents is found by the scenarios.

use std::net::SocketAddr;

use rerankd_tests::search_page::ids;
use rerankd_tests::{Answer, Engine, engine};
use serde_json::{Value, json};

use crate::proxy::{BEFORE_ELASTICSEARCH, BEFORE_OPENSEARCH};
use crate::{ELASTICSEARCH, OPENSEARCH, turn};

/// An index of this name, gone at the end.
struct Index<'e> {
    engine: &'e Engine,
    name: &'static str,
}

impl<'e> Index<'e> {
    fn new(engine: &'e Engine, name: &'static str, body: &Value, documents: &[Value]) -> Self {
        let lines = documents.iter().enumerate().flat_map(|(id, document)| {
            let action = json!({"index": {"_index": name, "_id": id.to_string()}});
            [action.to_string(), document.to_string()]
        });
        let bulk: String = lines.map(|line| line + "\n").collect();
        engine.load(&json!({name: body}), bulk.as_bytes());
        Self { engine, name }
    }
}

impl Drop for Index<'_> {
    fn drop(&mut self) {
        let path = format!("/{}", self.name);
        engine::call(self.engine.address(), "DELETE", &path, &[], b"");
    }
}

const JSON: (&str, &str) = ("Content-Type", "application/json");

fn search(address: SocketAddr, index: &str, body: &Value) -> Answer {
    let path = format!("/{index}/_search");
    let answer = engine::call(address, "POST", &path, &[JSON], body.to_string().as_bytes());
    answer.ok()
}

fn with(body: &Value, more: Value) -> Value {
    let mut all = body.clone();
    let more = more.as_object().expect("an object").clone();
    all.as_object_mut().expect("an object").extend(more);
    all
}

/// The answer but for its hits and what differs from call to call.
fn frame(answer: &Answer) -> Value {
    let mut frame = answer.json();
    for name in ["took", "pit_id"] {
        frame[name] = Value::Null;
    }
    for name in ["hits", "max_score"] {
        frame["hits"][name] = Value::Null;
    }
    frame
}

fn articles() -> Vec<Value> {
    let mut articles: Vec<Value> = (0..60)
        .map(|n| json!({"title": format!("river {n}"), "text": "a river ".repeat(n % 7 + 1), "n": n}))
        .collect();
    // More than is analyzed for highlights, and without `n`.
    articles.push(json!({"title": "delta", "text": "a river and its mouth ".repeat(200)}));
    articles
}

fn articles_index() -> Value {
    json!({
        "settings": {
            "number_of_shards": 3, "number_of_replicas": 0,
            "index.highlight.max_analyzed_offset": 2000,
        },
        "mappings": {"dynamic": false, "properties": {
            "title": {"type": "text"}, "text": {"type": "text"}, "n": {"type": "integer"},
        }},
    })
}

/// All pages, each as the engine alone has it.
fn check_pages_are_the_engines(engine: &Engine, proxy: SocketAddr, body: &Value) {
    let index = Index::new(engine, "articles", &articles_index(), &articles());
    let mut failed = 0;
    for from in (0..70).step_by(10) {
        let page = with(body, json!({"from": from}));
        let own = search(engine.address(), index.name, &page);
        let got = search(proxy, index.name, &page);
        assert_eq!(got.parameter("status"), Some("failed"), "{from}: {got:?}");
        assert_eq!(got.parameter("reason"), Some("upstream-shards"));
        assert_eq!(frame(&got), frame(&own), "{from}");
        assert_eq!(ids(got.text()), ids(own.text()), "{from}");
        failed += own.json()["_shards"]["failed"].as_u64().expect("a count");
    }
    assert!(failed <= 1, "the engine itself fails on {failed} pages");

    let lines = format!("{{\"index\":\"articles\"}}\n{body}\n").repeat(2);
    let multi = |address| {
        let headers = [("Content-Type", "application/x-ndjson")];
        engine::call(address, "POST", "/_msearch", &headers, lines.as_bytes()).ok()
    };
    let (own, got) = (multi(engine.address()), multi(proxy));
    let status = got.header("rerank-status").expect("it is there");
    assert!(status.contains("upstream-shards"), "{status}");
    for item in 0..2 {
        let hits = |answer: &Answer| answer.json()["responses"][item]["hits"]["hits"].clone();
        assert_eq!(hits(&got), hits(&own));
    }
}

fn highlighted() -> Value {
    json!({
        "query": {"multi_match": {"query": "river", "fields": ["title", "text"]}},
        "highlight": {"fields": {"text": {}}},
    })
}

/// Pages whose hits are fetched apart from the window: none fails but the one with the hit that fails, and
/// that one as in the engine's own pages.
fn check_a_page_fails_alone(engine: &Engine, proxy: SocketAddr, body: &Value) {
    let index = Index::new(engine, "articles", &articles_index(), &articles());
    let (mut seen, mut failed, mut own_failed) = (Vec::new(), 0, 0);
    for from in (0..70).step_by(10) {
        let page = with(body, json!({"from": from}));
        let own = search(engine.address(), index.name, &page);
        own_failed += own.json()["_shards"]["failed"].as_u64().expect("a count");
        let got = search(proxy, index.name, &page);
        assert_eq!(got.parameter("status"), Some("applied"), "{from}: {got:?}");
        let shards = got.json()["_shards"].clone();
        let found = ids(got.text());
        if shards["failed"] == 0 {
            assert_eq!(frame(&got), frame(&own_or(&own, &shards)), "{from}");
            assert_eq!(found.len(), 10.min(61_usize.saturating_sub(from)), "{from}");
        } else {
            failed += 1;
            assert!(shards["failures"][0]["reason"].is_object(), "{shards}");
        }
        seen.extend(found);
    }
    assert_eq!((failed, own_failed), (1, 1));
    let count = seen.len();
    assert!((52..=60).contains(&count), "{count}");
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "a hit stands on two pages");
}

/// The engine's answer as if its shards were those.
fn own_or(own: &Answer, shards: &Value) -> Answer {
    let mut page = own.json();
    page["_shards"] = shards.clone();
    Answer {
        body: page.to_string().into_bytes(),
        ..own.clone()
    }
}

#[test]
fn hits_that_only_the_window_would_lose_are_not_lost_in_opensearch() {
    let _turn = turn(&OPENSEARCH);
    let proxy = BEFORE_OPENSEARCH.proxy_address();
    let scripted = json!({
        "query": {"multi_match": {"query": "river", "fields": ["title", "text"]}},
        "script_fields": {"twice": {"script": "2 * doc['n'].value"}},
    });
    for body in [highlighted(), scripted] {
        check_a_page_fails_alone(&OPENSEARCH, proxy, &body);
        // Asked in one search, since it may be stopped before its end.
        let timed = with(&body, json!({"timeout": "1m"}));
        check_pages_are_the_engines(&OPENSEARCH, proxy, &timed);
    }
}

#[test]
fn hits_that_only_the_window_would_lose_are_not_lost_in_elasticsearch() {
    let _turn = turn(&ELASTICSEARCH);
    let proxy = BEFORE_ELASTICSEARCH.proxy_address();
    check_a_page_fails_alone(&ELASTICSEARCH, proxy, &highlighted());
    let timed = with(&highlighted(), json!({"timeout": "1m"}));
    check_pages_are_the_engines(&ELASTICSEARCH, proxy, &timed);
}

#[test]
fn a_shard_that_fails_without_us_too_does_not_keep_the_others_from_a_ranking() {
    let _turn = turn(&OPENSEARCH);
    let index = Index::new(&OPENSEARCH, "articles", &articles_index(), &articles());
    // Fails where documents are scored: in every search, whatever its size.
    let score = json!({"source": "1 + doc['n'].value"});
    let matching = json!({"multi_match": {"query": "river", "fields": ["title", "text"]}});
    let body = json!({"query": {"script_score": {"query": matching, "script": score}}});
    let proxy = BEFORE_OPENSEARCH.proxy_address();
    let mut seen = Vec::new();
    for from in (0..70).step_by(10) {
        let page = with(&body, json!({"from": from}));
        let own = search(OPENSEARCH.address(), index.name, &page);
        assert_eq!(own.json()["_shards"]["failed"], 1);
        let got = search(proxy, index.name, &page);
        assert_eq!(got.parameter("status"), Some("applied"), "{got:?}");
        assert_eq!(frame(&got), frame(&own));
        seen.extend(ids(got.text()));
    }
    let own = search(
        OPENSEARCH.address(),
        index.name,
        &with(&body, json!({"size": 100})),
    );
    let mut all = ids(own.text());
    assert_ne!(seen, all);
    seen.sort();
    all.sort();
    assert_eq!(seen, all);
}

#[test]
fn neighbours_are_as_many_as_the_client_wants() {
    let _turn = turn(&ELASTICSEARCH);
    let documents: Vec<Value> = (0..254)
        .map(|n| {
            let angle = f64::from(n) / 50.0;
            json!({
                "title": if n % 9 == 0 { "river" } else { "lake" },
                "group": n % 5,
                "place": [angle.sin(), angle.cos()],
            })
        })
        .collect();
    let vectors = json!({"type": "dense_vector", "dims": 2, "index": true, "similarity": "cosine"});
    let body = json!({
        "settings": {"number_of_shards": 3, "number_of_replicas": 0},
        "mappings": {"properties": {
            "title": {"type": "text"}, "group": {"type": "integer"}, "place": vectors,
        }},
    });
    let index = Index::new(&ELASTICSEARCH, "places", &body, &documents);
    let near = json!({"field": "place", "query_vector": [0.5, 0.8]});
    let by_words = json!({"match": {"title": "river"}});
    let aggs = json!({"groups": {"terms": {"field": "group"}}});
    let section = json!({"query": by_words, "knn": near, "aggs": aggs});
    let clause = json!({
        "query": {"bool": {"should": [by_words, {"knn": near}]}}, "aggs": aggs,
    });
    let few = with(&near, json!({"num_candidates": 4}));
    let few = json!({"query": {"bool": {"should": [by_words, {"knn": few}]}}, "aggs": aggs});
    let proxy = BEFORE_ELASTICSEARCH.proxy_address();
    for body in [section, clause, few] {
        for size in [10, 25] {
            let mut seen = Vec::new();
            let mut own_hits = Vec::new();
            for from in (0..100).step_by(size) {
                let page = with(&body, json!({"from": from, "size": size}));
                let own = search(ELASTICSEARCH.address(), index.name, &page);
                let got = search(proxy, index.name, &page);
                assert_eq!(got.parameter("status"), Some("applied"), "{got:?}");
                assert_eq!(frame(&got), frame(&own), "{body}");
                seen.extend(ids(got.text()));
                own_hits.extend(ids(own.text()));
            }
            seen.sort();
            own_hits.sort();
            assert_eq!(seen, own_hits, "{body}");
        }
    }
}

#[test]
fn scores_never_rise_from_page_to_page_behind_the_window() {
    let _turn = turn(&ELASTICSEARCH);
    let index = Index::new(&ELASTICSEARCH, "articles", &articles_index(), &articles());
    let proxy = BEFORE_ELASTICSEARCH.proxy_address();
    let mut scores: Vec<f64> = Vec::new();
    let mut seen = Vec::new();
    for from in (0..70).step_by(7) {
        let body = json!({
            "query": {"match": {"text": "river"}}, "from": from, "size": 7, "_source": false,
            "ext": {"rerankd": {"window": 15, "min_score": 0.01}},
        });
        let page = search(proxy, index.name, &body);
        assert_eq!(page.parameter("status"), Some("applied"), "{page:?}");
        let hits = page.json()["hits"]["hits"]
            .as_array()
            .expect("hits")
            .clone();
        // No page is short before the last.
        assert!(hits.len() == 7 || from + 14 > 61, "{from}: {}", hits.len());
        scores.extend(
            hits.iter()
                .map(|hit| hit["_score"].as_f64().expect("a score")),
        );
        seen.extend(ids(page.text()));
    }
    assert!(scores.is_sorted_by(|one, next| one >= next), "{scores:?}");
    let count = seen.len();
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), count, "a hit stands on two pages");
}
