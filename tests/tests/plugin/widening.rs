//! Searches that the engine answers as they are sent, and not for a whole window: nothing fails and no hit is
//! lost that would not without the plugin.

use std::sync::OnceLock;

use rerankd_tests::search_page::ids;
use rerankd_tests::{Answer, comparison, engine};
use serde_json::{Value, json};

use crate::sidecar::{fresh_name, reversing};
use crate::world::{WORLD, is_whole, pipeline, turn};
use crate::{QUERY, marker};

/// Two indices, of one shard and of three, with 60 short articles and one that is too long to be highlighted
/// and has no price: the last hit of each search.
pub(crate) fn articles() -> [&'static str; 2] {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        for (name, shards) in [("articles-1", 1), ("articles-3", 3)] {
            let index = json!({
                // Searches of all indices do not find it.
                "settings": {"number_of_shards": shards, "number_of_replicas": 0, "index.hidden": true},
                "mappings": {"properties": {
                    "title": {"type": "text"}, "body": {"type": "text"}, "price": {"type": "double"},
                    "tags": {"type": "object", "enabled": false},
                }},
            });
            WORLD.call("PUT", &format!("/{name}"), &index).ok();
            let mut lines = String::new();
            let mut add = |id: usize, document: Value| {
                lines += &format!("{{\"index\":{{\"_id\":\"{id}\"}}}}\n{document}\n");
            };
            for id in 0..60 {
                let body = format!("{QUERY} {}", "good ".repeat(id % 7));
                add(id, json!({"title": format!("article {id}"), "body": body, "price": id, "tags": ["b", "a"]}));
            }
            let long = format!("{QUERY} {}", "word ".repeat(280_000));
            add(60, json!({"title": "a long article", "body": long, "tags": [{"a": 1}]}));
            let headers = [("Content-Type", "application/x-ndjson")];
            let path = format!("/{name}/_bulk?refresh=true");
            let address = WORLD.engine.address();
            let answer = engine::call(address, "POST", &path, &headers, lines.as_bytes()).ok();
            assert_eq!(answer.json()["errors"], false);
        }
    });
    ["articles-1", "articles-3"]
}

pub(crate) fn highlighted() -> Value {
    json!({
        "query": {"match": {"body": QUERY}},
        "highlight": {"fields": {"body": {}}},
    })
}

fn with_scripts() -> Value {
    json!({
        "query": {"match": {"body": QUERY}},
        "script_fields": {"doubled": {"script": "doc['price'].value * 2"}},
    })
}

fn alone(index: &str, body: &Value) -> Answer {
    WORLD.post(&format!("/{index}/_search?search_pipeline=_none"), body)
}

/// The engine's own answer, marked so.
fn is_own(got: &Answer, own: &Answer, reason: &str) -> Result<(), String> {
    let read = marker::read(got);
    comparison::same(&read.answer, &marker::read(own).answer)?;
    let fate = read.fates[0].clone().ok_or("nothing is said")?;
    match fate.status == "failed" && fate.reason.as_deref() == Some(reason) {
        true => Ok(()),
        false => Err(format!("said: {fate:?}")),
    }
}

/// A pipeline with a sidecar that reverses.
fn named(url: &str, options: &Value) -> String {
    let mut all = json!({"url": url, "policy": "scripted", "fields": ["title"]});
    let options = options.as_object().expect("options are an object").clone();
    all.as_object_mut().expect("an object").extend(options);
    let name = fresh_name();
    WORLD.put_pipeline(&name, &pipeline(&all)).ok();
    name
}

#[test]
fn a_search_that_fails_for_the_window_alone_is_answered_as_it_was_sent() {
    let _turn = turn();
    let sidecar = reversing();
    let name = named(&sidecar.url(), &json!({}));
    let mut faults = Vec::new();
    for index in articles() {
        // With one shard the whole search fails, with three a part of it.
        let reason = match index {
            "articles-1" => "upstream-status",
            _ => "upstream-shards",
        };
        for (kind, body) in [("highlight", highlighted()), ("script", with_scripts())] {
            if kind == "script" && !is_whole() {
                // The older distributions come without scripts.
                continue;
            }
            for from in [0, 20, 40] {
                let mut body = body.clone();
                body["from"] = json!(from);
                let own = alone(index, &body).ok();
                assert_eq!(own.json()["_shards"]["failed"], 0, "{index} {kind} {from}");
                let path = format!("/{index}/_search?search_pipeline={name}");
                if let Err(fault) = is_own(&WORLD.post(&path, &body), &own, reason) {
                    faults.push(format!("- {index}, {kind}, from {from}: {fault}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(sidecar.asked().is_empty());
}

#[test]
fn partial_results_that_are_not_allowed_do_not_fail_the_search() {
    let _turn = turn();
    let sidecar = reversing();
    let name = named(&sidecar.url(), &json!({}));
    let [_, index] = articles();
    let own = alone(index, &highlighted()).ok();
    let path =
        format!("/{index}/_search?allow_partial_search_results=false&search_pipeline={name}");
    let got = WORLD.post(&path, &highlighted());
    is_own(&got, &own, "upstream-status").unwrap_or_else(|fault| panic!("{fault}"));
}

#[test]
fn a_search_that_fails_as_it_is_sent_is_reranked_with_its_failures() {
    let _turn = turn();
    let sidecar = reversing();
    let name = named(&sidecar.url(), &json!({}));
    if !is_whole() {
        eprintln!("skipped: this distribution comes without scripts");
        return;
    }
    let [alone_in_its_shard, index] = articles();
    // A shard cannot be searched: it has an article without a price.
    let script = "doc['price'].value >= 0";
    let body = json!({
        "query": {"bool": {"must": {"match": {"body": QUERY}}, "filter": {"script": {"script": script}}}},
        "size": 5,
    });
    let own = alone(index, &body).ok();
    assert_eq!(own.json()["_shards"]["failed"], 1);
    let path = format!("/{index}/_search?search_pipeline={name}");
    let got = WORLD.post(&path, &body).ok();
    assert_eq!(marker::fate(&got).status, "applied");
    assert_eq!(
        got.json()["_shards"]["failures"],
        own.json()["_shards"]["failures"]
    );
    let mut wide = body.clone();
    wide["size"] = json!(100);
    let mut expected = ids(alone(index, &wide).ok().text());
    expected.reverse();
    expected.truncate(5);
    assert_eq!(ids(got.text()), expected);
    // Or what it finds cannot be shown.
    let mut body = highlighted();
    body["size"] = json!(61);
    let own = alone(index, &body).ok();
    assert_eq!(own.json()["_shards"]["failed"], 1);
    let got = WORLD.post(&path, &body).ok();
    assert_eq!(marker::fate(&got).status, "applied");
    let mut expected = ids(own.text());
    expected.reverse();
    assert_eq!(ids(got.text()), expected);
    // Where nothing is found, the engine's error is its own.
    let own = alone(alone_in_its_shard, &body);
    let path = format!("/{alone_in_its_shard}/_search?search_pipeline={name}");
    let got = WORLD.post(&path, &body);
    assert_ne!(own.status, 200);
    assert_eq!((got.status, got.json()), (own.status, own.json()));
}

#[test]
fn items_of_an_msearch_and_inline_pipelines_are_no_exception() {
    let _turn = turn();
    let sidecar = reversing();
    let name = named(&sidecar.url(), &json!({}));
    let mut lines = String::new();
    for index in articles() {
        let mut body = highlighted();
        body["search_pipeline"] = json!(name);
        lines += &format!("{{\"index\":\"{index}\"}}\n{body}\n");
    }
    let headers = [("Content-Type", "application/x-ndjson")];
    let address = WORLD.engine.address();
    let got = engine::call(address, "POST", "/_msearch", &headers, lines.as_bytes()).ok();
    let got = got.json();
    for (item, index) in articles().iter().enumerate() {
        let item = &got["responses"][item];
        let own = alone(index, &highlighted()).ok().json();
        assert_eq!(item["hits"], own["hits"], "{index}");
        assert_eq!(item["_shards"], own["_shards"], "{index}");
        assert_eq!(item["ext"]["rerankd"]["status"], "failed");
        let mut inline = highlighted();
        inline["search_pipeline"] = pipeline(&json!({"fields": ["title"]}));
        let got = WORLD.post(&format!("/{index}/_search"), &inline).ok();
        assert_eq!(marker::fate(&got).status, "failed");
        assert_eq!(got.json()["hits"], own["hits"], "{index}");
    }
}

#[test]
fn such_a_failure_is_an_error_where_that_is_wanted() {
    let _turn = turn();
    let sidecar = reversing();
    let name = named(&sidecar.url(), &json!({"on_failure": "error"}));
    for index in articles() {
        let path = format!("/{index}/_search?search_pipeline={name}");
        let got = WORLD.post(&path, &highlighted());
        assert_eq!(got.status, 502, "{}", got.text());
        assert!(got.text().contains("window"), "{}", got.text());
    }
}

#[test]
fn a_processor_of_somebody_else_that_cannot_take_the_window_does_not_fail_the_search() {
    let _turn = turn();
    if !is_whole() {
        eprintln!("skipped: this distribution comes without such a processor");
        return;
    }
    let sidecar = reversing();
    let options = json!({"url": sidecar.url(), "policy": "scripted", "fields": ["title"]});
    let name = fresh_name();
    // It fails on hits whose field cannot be sorted.
    let sorts = json!({"sort": {"field": "tags"}});
    let made = json!({
        "request_processors": [{"rerankd_window": options}],
        "response_processors": [sorts, {"rerankd": {}}],
    });
    WORLD.put_pipeline(&name, &made).ok();
    let [index, _] = articles();
    let path = format!("/{index}/_search?search_pipeline={name}");
    let got = WORLD
        .post(&path, &json!({"query": {"match": {"body": QUERY}}}))
        .ok();
    assert_eq!(marker::fate(&got).status, "failed");
    let body = got.json();
    let hits = body["hits"]["hits"].as_array().expect("a list of hits");
    assert_eq!(hits.len(), 10);
    assert!(
        hits.iter()
            .all(|hit| hit["_source"]["tags"] == json!(["a", "b"])),
        "{body}"
    );
}
