//! The engine's own mapping decides what is a text, and which fields are read where nobody names them.

use std::sync::OnceLock;

use rerankd_tests::search_page::ids;
use rerankd_tests::{Answer, engine};
use serde_json::{Value, json};

use crate::marker;
use crate::sidecar::{fresh_name, reversing};
use crate::world::{WORLD, pipeline, turn};

/// A small shop whose texts are `name` and `description`.
const SHOP: &str = "shop-of-names";

fn shop() {
    static MADE: OnceLock<()> = OnceLock::new();
    MADE.get_or_init(|| {
        let index = json!({
            "settings": {"number_of_shards": 1, "number_of_replicas": 0, "index.hidden": true},
            "mappings": {"properties": {
                "name": {"type": "text", "fields": {"raw": {"type": "keyword"}, "parts": {"type": "text"}}},
                "description": {"type": "text"},
                "all": {"type": "text"},
                "brand": {"type": "keyword"},
                "in_stock": {"type": "boolean"},
                "seller": {"properties": {"about": {"type": "text"}}},
            }},
        });
        WORLD.call("PUT", &format!("/{SHOP}"), &index).ok();
        let mut lines = String::new();
        for (id, text) in ["red watch", "steel watch for divers", "watch strap", "wall clock"].iter().enumerate() {
            let document = json!({
                "name": text, "description": format!("A {text}, number {id}."), "brand": "Acme",
                "in_stock": id % 2 == 0, "seller": {"about": "watches since 1901"},
            });
            lines += &format!("{{\"index\":{{\"_id\":\"{id}\"}}}}\n{document}\n");
        }
        let headers = [("Content-Type", "application/x-ndjson")];
        let path = format!("/{SHOP}/_bulk?refresh=true");
        engine::call(WORLD.engine.address(), "POST", &path, &headers, lines.as_bytes()).ok();
    });
}

fn ask(options: &Value, body: &Value) -> Answer {
    shop();
    let mut all = json!({"url": WORLD.sidecar_url(), "policy": "semantic-blend"});
    all.as_object_mut()
        .expect("an object")
        .extend(options.as_object().expect("an object").clone());
    let name = fresh_name();
    WORLD.put_pipeline(&name, &pipeline(&all)).ok();
    WORLD
        .post(&format!("/{SHOP}/_search?search_pipeline={name}"), body)
        .ok()
}

#[test]
fn a_listing_by_keyword_or_boolean_keeps_its_order() {
    let _turn = turn();
    let listings = [
        json!({"match": {"in_stock": "true"}}),
        json!({"match": {"brand": "Acme"}}),
        json!({"multi_match": {"query": "Acme", "fields": ["brand", "name.raw"]}}),
        json!({"query_string": {"query": "brand:Acme"}}),
        json!({"simple_query_string": {"query": "Acme", "fields": ["bra*"]}}),
    ];
    for query in listings {
        let got = ask(&json!({}), &json!({"query": query}));
        assert_eq!(
            marker::fate(&got).reason.as_deref(),
            Some("no-query"),
            "{query}"
        );
    }
    // Beside a text they say nothing.
    let query =
        json!({"bool": {"must": [{"match": {"name": "watch"}}, {"match": {"brand": "Acme"}}]}});
    let got = ask(&json!({}), &json!({"query": query}));
    assert_eq!(marker::fate(&got).status, "applied");
}

#[test]
fn the_fields_that_are_searched_are_read_and_named() {
    let _turn = turn();
    let reads = |options: Value, query: Value| {
        let got = ask(&options, &json!({"query": query, "_source": ["brand"]}));
        let said = marker::object(&got);
        assert_eq!(said["status"], "applied", "{said}");
        let header = got
            .header("rerank-status")
            .expect("it has the header")
            .to_owned();
        let names: Vec<&str> = said["fields"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        assert!(
            header.contains(&format!("fields=\"{}\"", names.join(","))),
            "{header} {said}"
        );
        // What was fetched for that is taken out again.
        assert!(
            got.json()["hits"]["hits"]
                .as_array()
                .expect("hits")
                .iter()
                .all(|hit| { hit["_source"] == json!({"brand": "Acme"}) })
        );
        names.join(" ")
    };
    let one = json!({"match": {"name": "watch"}});
    assert_eq!(
        reads(json!({}), one.clone()),
        "name description seller.about"
    );
    let boosted = json!({"multi_match": {"query": "watch", "fields": ["name", "description^2"]}});
    assert_eq!(reads(json!({}), boosted), "description name seller.about");
    let inner = json!({"match": {"name.parts": "watch"}});
    assert_eq!(reads(json!({}), inner), "name description seller.about");
    // What a pipeline names is resolved in the same way.
    assert_eq!(
        reads(json!({"fields": ["*"]}), one.clone()),
        "description name seller.about"
    );
    assert_eq!(
        reads(json!({"fields": ["seller.*", "name"]}), one),
        "seller.about name"
    );
}

#[test]
fn fields_that_somebody_names_are_those() {
    let _turn = turn();
    let sidecar = reversing();
    let body = json!({"query": {"match": {"name": "watch"}}});
    let options =
        json!({"url": sidecar.url(), "policy": "scripted", "fields": ["description", "none"]});
    let got = ask(&options, &body);
    assert_eq!(marker::fate(&got).status, "applied");
    assert_eq!(marker::object(&got)["fields"], Value::Null);
    let sent: Value = serde_json::from_slice(&sidecar.asked()[0].body).expect("it is JSON");
    assert_eq!(sent["fields"], json!(["description", "none"]));
}

#[test]
fn what_is_read_changes_the_order() {
    let _turn = turn();
    let body = json!({"query": {"match": {"description": "watch"}}});
    let best = ask(&json!({"parameters": {"weight": 1.0}}), &body);
    let named = ask(
        &json!({"parameters": {"weight": 1.0}, "fields": ["description", "name", "seller.about"]}),
        &body,
    );
    assert_eq!(ids(best.text()), ids(named.text()));
    let hits = |answer: &Answer| answer.json()["hits"]["hits"].clone();
    assert_eq!(hits(&best), hits(&named));
}

#[test]
fn a_point_in_time_and_an_alias_have_the_mapping_of_their_index() {
    let _turn = turn();
    shop();
    let aliases = json!({"actions": [{"add": {"index": SHOP, "alias": "store-of-names", "is_hidden": true}}]});
    WORLD.post("/_aliases", &aliases).ok();
    let name = fresh_name();
    let options = json!({"url": WORLD.sidecar_url(), "policy": "semantic-blend"});
    WORLD.put_pipeline(&name, &pipeline(&options)).ok();
    let query = json!({"query": {"match": {"brand": "Acme"}}});
    let got = WORLD
        .post(
            &format!("/store-of-names/_search?search_pipeline={name}"),
            &query,
        )
        .ok();
    assert_eq!(marker::fate(&got).reason.as_deref(), Some("no-query"));
    let path = format!("/{SHOP}/_search/point_in_time?keep_alive=1m");
    let pit = WORLD.post(&path, &Value::Null).ok().json()["pit_id"].clone();
    let mut body = query;
    body["pit"] = json!({"id": pit, "keep_alive": "1m"});
    let got = WORLD
        .post(&format!("/_search?search_pipeline={name}"), &body)
        .ok();
    assert_eq!(marker::fate(&got).reason.as_deref(), Some("no-query"));
    body["query"] = json!({"match": {"name": "watch"}});
    let got = WORLD
        .post(&format!("/_search?search_pipeline={name}"), &body)
        .ok();
    assert_eq!(marker::object(&got)["fields"][0], "name");
    WORLD
        .call(
            "DELETE",
            "/_search/point_in_time",
            &json!({"pit_id": [pit]}),
        )
        .ok();
}
