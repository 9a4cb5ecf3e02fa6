//! What the search proxy learns of real engines: what names stand for, which fields are full text, and what is in
//! `_source`.

use std::sync::LazyLock;

use rerankd_tests::search_page::ids;
use rerankd_tests::{Answer, Engine, Folder, Rerankd, engine, require};
use serde_json::{Value, json};

use crate::{ELASTICSEARCH, OPENSEARCH, turn};

static BEFORE_OPENSEARCH: LazyLock<Rerankd> = LazyLock::new(|| serve(&OPENSEARCH));
static BEFORE_ELASTICSEARCH: LazyLock<Rerankd> = LazyLock::new(|| serve(&ELASTICSEARCH));

/// A server with a rule for one index, one alias, one data stream and one index that is not reranked.
fn serve(engine: &Engine) -> Rerankd {
    let folder = Folder::new();
    let from = require::policies().join("semantic-blend.wasm");
    folder.copy(&from, "policies/semantic-blend.wasm");
    let rule = |pattern: &str, more: &str| format!("[[index]]\npattern = \"{pattern}\"\n{more}\n");
    let rules = [
        rule("m-shop", ""),
        rule("m-all-of-it", "fields = [\"*\"]"),
        rule("m-logs", ""),
        rule("m-private", "enabled = false"),
    ];
    let config = folder.write("rerankd.toml", rules.concat());
    let policies = folder.path().join("policies");
    let text = |path: &std::path::Path| path.to_str().expect("the path is UTF-8").to_owned();
    let (config, policies) = (text(&config), text(&policies));
    let upstream = format!("http://{}", engine.address());
    Rerankd::start(&[
        "--config",
        &config,
        "--policies",
        &policies,
        "--upstream",
        &upstream,
        "--proxy-listen",
        "127.0.0.1:0",
        "--timeout-ms",
        "60000",
    ])
}

const JSON: [(&str, &str); 1] = [("Content-Type", "application/json")];

/// An engine with indices of these tests alone, for as long as it lives.
struct Shop<'e> {
    engine: &'e Engine,
    server: &'e Rerankd,
}

/// Articles whose texts are in none of the fields that the policy reads by itself.
fn articles() -> Vec<Value> {
    let article = |name: &str, description: &str| {
        json!({
            "name": name,
            "description": description,
            "brand": "Acme",
            "in_stock": true,
            "released": "2026-01-31",
            "maker": {"story": "made by hand"},
        })
    };
    vec![
        article("watch strap", "a leather strap"),
        article("garden hose", "waters the lawn; watch your step, watch out"),
        article("smart watch", "tells the time and counts steps"),
    ]
}

impl<'e> Shop<'e> {
    fn open(engine: &'e Engine, server: &'e Rerankd) -> Self {
        let shop = Self { engine, server };
        let mapping = json!({
            "settings": {"number_of_shards": 1, "number_of_replicas": 0},
            "mappings": {"properties": {
                "name": {
                    "type": "text",
                    "copy_to": "everything",
                    "fields": {"keyword": {"type": "keyword"}, "simple": {"type": "text", "analyzer": "simple"}}
                },
                "description": {"type": "text", "copy_to": "everything"},
                "everything": {"type": "text"},
                "headline": {"type": "alias", "path": "name"},
                "brand": {"type": "keyword"},
                "in_stock": {"type": "boolean"},
                "released": {"type": "date"},
                "maker": {"properties": {"story": {"type": "text"}}},
            }},
            "aliases": {"m-store": {}},
        });
        let mut of_shop = mapping.clone();
        of_shop["settings"]["index.query.default_field"] = json!(["description^2", "name"]);
        for (name, body) in [
            ("m-shop", of_shop),
            (
                "m-private",
                json!({"mappings": mapping["mappings"], "aliases": {"m-both": {}}}),
            ),
            ("m-plain", json!({"mappings": mapping["mappings"]})),
        ] {
            shop.ask("PUT", &format!("/{name}"), &body);
            for (id, article) in articles().iter().enumerate() {
                shop.ask("PUT", &format!("/{name}/_doc/{id}?refresh=true"), article);
            }
        }
        let more = [
            json!({"add": {"index": "m-shop", "alias": "m-both"}}),
            json!({"add": {"index": "m-plain", "alias": "m-all-of-it"}}),
        ];
        shop.ask("POST", "/_aliases", &json!({"actions": more}));
        shop
    }

    /// Asks the engine alone.
    fn ask(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = body.to_string();
        let answer = engine::call(self.engine.address(), method, path, &JSON, body.as_bytes());
        assert!(answer.status < 300, "{method} {path}: {}", answer.text());
        answer
    }

    /// Searches through the proxy.
    fn search(&self, target: &str, body: &Value) -> Answer {
        let address = self.server.proxy_address();
        engine::call(address, "POST", target, &JSON, body.to_string().as_bytes()).ok()
    }

    /// The same, and the answer when the engine is known: a look-up of a busy engine may take longer
    /// than a search waits.
    fn known(&self, target: &str, body: &Value) -> Answer {
        rerankd_tests::eventually("the engine has said what is asked", || {
            let answer = self.search(target, body);
            (answer.parameter("mapping") != Some("unknown")).then_some(answer)
        })
    }

    fn reason(&self, target: &str, body: &Value) -> String {
        let answer = self.known(target, body);
        let reason = answer.parameter("reason").or(answer.parameter("status"));
        reason.expect("there is a status").to_owned()
    }

    fn fields(&self, target: &str, body: &Value) -> String {
        let answer = self.known(target, body);
        assert_eq!(answer.parameter("status"), Some("applied"), "{answer:?}");
        answer.parameter("fields").unwrap_or_default().to_owned()
    }
}

impl Drop for Shop<'_> {
    fn drop(&mut self) {
        for name in ["m-shop", "m-private", "m-plain"] {
            let path = format!("/{name}");
            let _ = engine::call(self.engine.address(), "DELETE", &path, &JSON, b"");
        }
    }
}

fn by(field: &str, text: &str) -> Value {
    json!({"query": {"match": {field: text}}})
}

#[test]
fn opensearch_says_what_names_stand_for() {
    names(&OPENSEARCH, &BEFORE_OPENSEARCH);
    data_streams(&OPENSEARCH, &BEFORE_OPENSEARCH);
}

#[test]
fn elasticsearch_says_what_names_stand_for() {
    names(&ELASTICSEARCH, &BEFORE_ELASTICSEARCH);
}

fn names(engine: &Engine, server: &Rerankd) {
    let _turn = turn(engine);
    let shop = Shop::open(engine, server);
    let watch = by("name", "watch");
    for (target, reason) in [
        ("/m-shop/_search", "applied"),
        ("/m-store/_search", "applied"),
        ("/m-sho*/_search", "applied"),
        ("/m-st*/_search", "applied"),
        ("/m-shop,m-store/_search", "applied"),
        ("/m-*,-m-private,-m-plain/_search", "applied"),
        ("/%3Cm-shop%3E/_search", "applied"),
        (
            "/m-shop,m-missing/_search?ignore_unavailable=true",
            "applied",
        ),
        ("/_search?index=m-shop", "applied"),
        ("/_search?index=m-store", "applied"),
        ("/_search?index=m-plain", "no-rule"),
        ("/m-shop/_search?index=m-plain", "applied"),
        ("/m-private/_search", "disabled"),
        ("/m-pri*/_search", "disabled"),
        ("/m-both/_search", "rules-differ"),
        ("/m-all-of-it/_search", "applied"),
        ("/m-plain/_search", "no-rule"),
        ("/m-*/_search", "rules-differ"),
    ] {
        assert_eq!(shop.reason(target, &watch), reason, "{target}");
    }
    let own = shop
        .ask("POST", "/m-shop/_search?index=m-plain", &watch)
        .json();
    assert_eq!(
        own["hits"]["hits"][0]["_index"], "m-shop",
        "the path is above the parameter"
    );
    let opening = match engine.name() {
        "opensearch" => "/m-store/_search/point_in_time?keep_alive=1m",
        _ => "/m-store/_pit?keep_alive=1m",
    };
    let opened_by = |address| {
        let answer = engine::call(address, "POST", opening, &JSON, b"")
            .ok()
            .json();
        let id = answer.get("id").or(answer.get("pit_id"));
        id.expect("it has an id").clone()
    };
    for address in [server.proxy_address(), engine.address()] {
        let mut search = watch.clone();
        search["pit"] = json!({"id": opened_by(address)});
        assert_eq!(shop.reason("/_search", &search), "applied");
    }
}

/// Only OpenSearch has them in what the tests run.
fn data_streams(engine: &Engine, server: &Rerankd) {
    let _turn = turn(engine);
    let shop = Shop::open(engine, server);
    let template = json!({
        "index_patterns": ["m-logs"],
        "data_stream": {},
        "template": {"mappings": {"properties": {"message": {"type": "text"}}}},
    });
    shop.ask("PUT", "/_index_template/m-logs", &template);
    for message in ["watch dog started", "watch dog barks"] {
        let body = json!({"@timestamp": "2026-11-28T00:00:00Z", "message": message});
        shop.ask("POST", "/m-logs/_doc?refresh=true", &body);
    }
    let search = by("message", "watch dog");
    let reasons = ["/m-logs/_search", "/m-lo*/_search"].map(|target| shop.reason(target, &search));
    shop.ask("DELETE", "/_data_stream/m-logs", &json!({}));
    shop.ask("DELETE", "/_index_template/m-logs", &json!({}));
    assert_eq!(reasons, ["applied", "applied"]);
}

#[test]
fn a_listing_of_opensearch_by_what_is_no_full_text_keeps_its_order() {
    listings(&OPENSEARCH, &BEFORE_OPENSEARCH);
}

#[test]
fn a_listing_of_elasticsearch_by_what_is_no_full_text_keeps_its_order() {
    listings(&ELASTICSEARCH, &BEFORE_ELASTICSEARCH);
}

fn listings(engine: &Engine, server: &Rerankd) {
    let _turn = turn(engine);
    let shop = Shop::open(engine, server);
    for listing in [
        by("brand", "Acme"),
        by("in_stock", "true"),
        by("released", "2026-01-31"),
        by("name.keyword", "smart watch"),
        json!({"query": {"multi_match": {"query": "Acme", "fields": ["brand", "name.key*"]}}}),
        json!({"query": {"query_string": {"query": "Acme", "default_field": "brand"}}}),
        json!({"query": {"bool": {"must": [by("brand", "Acme")["query"], by("in_stock", "true")["query"]]}}}),
    ] {
        let answer = shop.known("/m-store/_search", &listing);
        assert_eq!(answer.parameter("reason"), Some("no-query"), "{listing}");
        let own = shop.ask("POST", "/m-store/_search", &listing);
        assert_eq!(ids(answer.text()), ids(own.text()));
    }
    // The text counts, and the keyword is none.
    let both = json!({"query": {"bool": {"must": [
        by("name", "smart watch")["query"],
        by("brand", "Acme")["query"],
    ]}}});
    assert_eq!(shop.reason("/m-store/_search", &both), "applied");
}

#[test]
fn opensearch_is_reranked_by_the_texts_that_its_mapping_has() {
    texts(&OPENSEARCH, &BEFORE_OPENSEARCH);
}

#[test]
fn elasticsearch_is_reranked_by_the_texts_that_its_mapping_has() {
    texts(&ELASTICSEARCH, &BEFORE_ELASTICSEARCH);
}

fn texts(engine: &Engine, server: &Rerankd) {
    let _turn = turn(engine);
    let shop = Shop::open(engine, server);
    for (target, body, fields) in [
        (
            "/m-shop/_search",
            by("name", "watch"),
            "name,description,maker.story",
        ),
        (
            "/m-shop/_search",
            by("maker.story", "hand"),
            "maker.story,description,name",
        ),
        // Neither an alias nor what others are copied to is in any hit.
        (
            "/m-shop/_search",
            by("headline", "watch"),
            "description,name,maker.story",
        ),
        (
            "/m-shop/_search",
            by("everything", "watch"),
            "description,name,maker.story",
        ),
        (
            "/m-shop/_search",
            by("name.simple", "watch"),
            "name,description,maker.story",
        ),
        (
            "/m-shop/_search",
            json!({"query": {"multi_match": {"query": "watch", "fields": ["name", "desc*^3"]}}}),
            "description,name,maker.story",
        ),
        // The index's own default: `description^2`, `name`.
        (
            "/m-shop/_search?q=watch",
            json!({}),
            "description,name,maker.story",
        ),
        (
            "/m-all-of-it/_search",
            by("name", "watch"),
            "description,name,maker.story",
        ),
    ] {
        assert_eq!(shop.fields(target, &body), fields, "{target} {body}");
    }
    // The client asks for no source, and gets none.
    let body = json!({"query": {"match": {"name": "smart watch"}}, "_source": false});
    let answer = shop.known("/m-store/_search", &body);
    assert_eq!(
        answer.parameter("fields"),
        Some("name,description,maker.story")
    );
    assert!(!answer.text().contains("_source"), "{}", answer.text());
    assert_eq!(ids(answer.text())[0], "\"2\"");
}
