//! Every way to have a search reranked, and what else goes through the engine as it did.

use rerankd_tests::search_page::ids;
use rerankd_tests::upstream::Asked;
use rerankd_tests::{Answer, comparison, engine};
use serde_json::{Value, json};

use crate::QUERY;
use crate::marker;
use crate::sidecar::{fresh_name, reversing};
use crate::world::{PIPELINE, WORLD, has_auto, is_whole, pipeline, search, turn};

const NAMED: &str = "/products/_search?search_pipeline=scenarios";

/// The page of `products` as it must come.
fn expected() -> Vec<String> {
    let page = ids(WORLD.post(NAMED, &search(QUERY)).ok().text());
    let own = ids(WORLD.alone(&search(QUERY)).text());
    assert_ne!(page, own, "nothing is reranked");
    page
}

#[track_caller]
fn is_reranked(answer: &Answer, expected: &[String]) {
    let fate = marker::fate(answer);
    assert_eq!(fate.status, "applied", "{fate:?}");
    assert_eq!(fate.policy.as_deref(), Some("nearest-length"));
    assert_eq!(ids(answer.text()), expected);
    let header = answer.header("rerank-status").expect("it has the header");
    assert_eq!(comparison::Fate::read(header), fate);
}

#[test]
fn by_url_by_body_inline_and_by_default() {
    let _turn = turn();
    let expected = expected();
    let with = |pipeline: Value| {
        let mut body = search(QUERY);
        body["search_pipeline"] = pipeline;
        body
    };
    is_reranked(&WORLD.post(NAMED, &search(QUERY)).ok(), &expected);
    let path = "/products/_search";
    is_reranked(&WORLD.post(path, &with(json!(PIPELINE))).ok(), &expected);
    is_reranked(&WORLD.post(path, &search(QUERY)).ok(), &expected);
    let aliases = json!({"actions": [{"add": {"index": "products", "alias": "shop"}}]});
    WORLD.post("/_aliases", &aliases).ok();
    is_reranked(&WORLD.post("/shop/_search", &search(QUERY)).ok(), &expected);
    is_reranked(
        &WORLD.post("/prod*/_search", &search(QUERY)).ok(),
        &expected,
    );
    // The node's own sidecar, policy, token and CA: an inline pipeline may name no other host.
    let inline = pipeline(&json!({"fields": ["title", "text"]}));
    is_reranked(&WORLD.post(path, &with(inline)).ok(), &expected);
}

#[test]
fn an_inline_pipeline_cannot_choose_a_host() {
    let _turn = turn();
    let sidecar = reversing();
    let mut body = search(QUERY);
    body["search_pipeline"] = pipeline(&json!({"url": sidecar.url(), "policy": "scripted"}));
    let answer = WORLD.post("/products/_search", &body);
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.text().contains("url"), "{}", answer.text());
    assert!(sidecar.asked().is_empty());
}

#[test]
fn a_template_is_reranked_by_default_and_by_name() {
    let _turn = turn();
    if !is_whole() {
        eprintln!("skipped: this distribution comes without templates");
        return;
    }
    let expected = expected();
    let source = search("{{q}}").to_string();
    let body = json!({"source": source, "params": {"q": QUERY}});
    for path in [
        "/products/_search/template",
        "/products/_search/template?search_pipeline=scenarios",
    ] {
        is_reranked(&WORLD.post(path, &body).ok(), &expected);
    }
    let lines = format!("{{}}\n{}\n", body);
    let headers = [("Content-Type", "application/x-ndjson")];
    let address = WORLD.engine.address();
    let path = "/products/_msearch/template";
    let answer = engine::call(address, "POST", path, &headers, lines.as_bytes()).ok();
    let read = marker::read(&answer);
    let fate = read.fates[0].as_ref().expect("something is said");
    assert_eq!(fate.status, "applied");
}

#[test]
fn a_point_in_time_is_reranked_by_default_and_by_name() {
    let _turn = turn();
    let expected = expected();
    let made = WORLD
        .post(
            "/products/_search/point_in_time?keep_alive=1m",
            &Value::Null,
        )
        .ok();
    let mut body = search(QUERY);
    body["pit"] = json!({"id": made.json()["pit_id"], "keep_alive": "1m"});
    for path in ["/_search", "/_search?search_pipeline=scenarios"] {
        is_reranked(&WORLD.post(path, &body).ok(), &expected);
    }
    let ended = json!({"pit_id": [made.json()["pit_id"]]});
    WORLD.call("DELETE", "/_search/point_in_time", &ended).ok();
}

#[test]
fn the_first_page_of_a_scroll_and_all_others_are_the_engines_own() {
    let _turn = turn();
    let mut body = search(QUERY);
    body["size"] = json!(5);
    let first = WORLD.post("/products/_search?scroll=1m", &body).ok();
    assert_eq!(marker::fate(&first).reason.as_deref(), Some("scroll"));
    assert_eq!(ids(first.text()), ids(WORLD.alone(&body).text()));
    let id = first.json()["_scroll_id"].clone();
    let next = WORLD
        .post("/_search/scroll", &json!({"scroll": "1m", "scroll_id": id}))
        .ok();
    assert_eq!(marker::object(&next), Value::Null);
    body["from"] = json!(5);
    assert_eq!(ids(next.text()), ids(WORLD.alone(&body).text()));
    WORLD
        .call("DELETE", "/_search/scroll", &json!({"scroll_id": id}))
        .ok();
}

#[test]
fn none_switches_it_off_and_no_index_means_no_default() {
    let _turn = turn();
    for path in ["/products/_search?search_pipeline=_none", "/_search"] {
        let answer = WORLD.post(path, &search(QUERY)).ok();
        assert_eq!(marker::object(&answer), Value::Null, "{path}");
        assert_eq!(answer.header("rerank-status"), None, "{path}");
    }
}

#[test]
fn an_msearch_says_of_each_item_what_became_of_it() {
    let _turn = turn();
    let expected = expected();
    let mut by_name = search(QUERY);
    by_name["search_pipeline"] = json!(PIPELINE);
    let mut sorted = search(QUERY);
    sorted["sort"] = json!(["sku"]);
    let mut failing = search(QUERY);
    failing["ext"] = json!({"rerankd": {"policy": "trap"}});
    let mut off = search(QUERY);
    off["search_pipeline"] = json!("_none");
    let lines: String = [search(QUERY), by_name, sorted, failing, off]
        .iter()
        .map(|body| format!("{{\"index\":\"products\"}}\n{body}\n"))
        .collect();
    let headers = [("Content-Type", "application/x-ndjson")];
    let address = WORLD.engine.address();
    let answer = engine::call(address, "POST", "/_msearch", &headers, lines.as_bytes()).ok();
    let body = answer.json();
    let said = |item: usize| {
        let said = &body["responses"][item]["ext"]["rerankd"];
        (said["status"].clone(), said["reason"].clone())
    };
    for item in [0, 1] {
        assert_eq!(said(item).0, "applied", "{item}");
        assert_eq!(ids(&body["responses"][item].to_string()), expected);
    }
    assert_eq!(said(2), (json!("skipped"), json!("sort")));
    assert_eq!(said(3), (json!("failed"), json!("policy-fault")));
    assert_eq!(said(4), (Value::Null, Value::Null));
    // The engine takes no pipeline in the URL or in a header line here.
    let path = "/_msearch?search_pipeline=scenarios";
    let answer = engine::call(address, "POST", path, &headers, lines.as_bytes());
    assert_eq!(answer.status, 400, "{}", answer.text());
}

#[test]
fn what_happened_is_told_in_full() {
    let _turn = turn();
    let answer = WORLD.post(NAMED, &search(QUERY)).ok();
    let said = marker::object(&answer);
    assert_eq!(said["status"], "applied");
    assert_eq!(said["policy"], "nearest-length");
    assert_eq!(said["version"].as_str().map(str::len), Some(8), "{said}");
    assert!(
        said["window"].as_u64().is_some_and(|window| window > 30),
        "{said}"
    );
    assert!(
        said["time"].as_f64().is_some_and(|time| time > 0.0),
        "{said}"
    );
    let header = answer.header("rerank-status").expect("it has the header");
    assert!(header.starts_with("rerankd;status=applied;"), "{header}");
    assert_eq!(
        answer
            .headers
            .iter()
            .filter(|(name, _)| name == "rerank-status")
            .count(),
        1
    );
}

#[test]
fn answers_in_other_formats_are_reranked_all_the_same() {
    let _turn = turn();
    let expected = expected();
    let yaml = WORLD
        .post("/products/_search?format=yaml", &search(QUERY))
        .ok();
    let found: Vec<String> = yaml
        .text()
        .lines()
        .filter_map(|line| line.trim().strip_prefix("_id: ").map(str::to_owned))
        .collect();
    assert_eq!(found, expected);
    let parts = WORLD
        .post(
            "/products/_search?filter_path=hits.hits._id",
            &search(QUERY),
        )
        .ok();
    assert_eq!(ids(parts.text()), expected);
    let status = parts.header("rerank-status").expect("it has the header");
    assert!(status.contains("status=applied"), "{status}");
}

#[test]
fn times_of_phases_profile_and_total_stay() {
    let _turn = turn();
    let mut body = search(QUERY);
    body["profile"] = json!(true);
    body["suggest"] = json!({"spelling": {"text": "gardn", "term": {"field": "title"}}});
    let path = "/products/_search?phase_took=true";
    let got = WORLD.post(path, &body).ok();
    assert_eq!(marker::fate(&got).status, "applied");
    let own = WORLD
        .post(&format!("{path}&search_pipeline=_none"), &body)
        .ok();
    let (got, own) = (got.json(), own.json());
    let keys = |value: &Value| -> Vec<String> {
        value
            .as_object()
            .expect("an object")
            .keys()
            .cloned()
            .collect()
    };
    let mut expected = keys(&own);
    expected.push("ext".to_owned());
    expected.sort();
    let mut found = keys(&got);
    found.sort();
    assert_eq!(found, expected);
    assert_eq!(keys(&got["phase_took"]), keys(&own["phase_took"]));
    let shards = |value: &Value| value["profile"]["shards"].as_array().map(Vec::len);
    assert_eq!(shards(&got), shards(&own));
    assert!(shards(&got) > Some(0));
    assert_eq!(got["hits"]["total"], own["hits"]["total"]);
    assert_eq!(got["suggest"], own["suggest"]);
}

#[test]
fn the_engines_own_searches_for_groups_are_left_alone() {
    let _turn = turn();
    let sidecar = reversing();
    let options = json!({"url": sidecar.url(), "policy": "scripted", "fields": ["title", "text"]});
    let name = fresh_name();
    WORLD.put_pipeline(&name, &pipeline(&options)).ok();
    let mut body = search(QUERY);
    body["collapse"] = json!({"field": "brand", "inner_hits": {"name": "others", "size": 3}});
    let path = format!("/products/_search?search_pipeline={name}");
    let got = WORLD.post(&path, &body).ok();
    let lines = |asked: &Asked| asked.line.clone();
    let asked: Vec<String> = sidecar.asked().iter().map(lines).collect();
    assert_eq!(asked, ["POST /v1/rerank/scripted HTTP/1.1"]);
    let page = got.json();
    let hits = page["hits"]["hits"].as_array().expect("a list of hits");
    assert!(hits.len() > 3);
    for hit in hits {
        // Asked for one by one: groups of a search without a pipeline would be ranked by the default one.
        let group = json!({"match": {"brand": hit["fields"]["brand"][0]}});
        let mut search = search(QUERY);
        search["size"] = json!(3);
        search["query"] = json!({"bool": {"must": search["query"].clone(), "filter": group}});
        let own = WORLD.alone(&search).json();
        assert_eq!(hit["inner_hits"]["others"]["hits"], own["hits"]);
    }
    let headers = got.headers.iter();
    assert_eq!(
        headers.filter(|(name, _)| name == "rerank-status").count(),
        1
    );
}

#[test]
fn a_response_processor_alone_reranks_the_page_that_it_gets() {
    let _turn = turn();
    let sidecar = reversing();
    let options = json!({"url": sidecar.url(), "policy": "scripted", "fields": ["title", "text"]});
    let name = fresh_name();
    let made = json!({"response_processors": [{"rerankd": options}]});
    WORLD.put_pipeline(&name, &made).ok();
    let mut body = search(QUERY);
    body["from"] = json!(10);
    let got = WORLD
        .post(&format!("/products/_search?search_pipeline={name}"), &body)
        .ok();
    let mut own = ids(WORLD.alone(&body).text());
    own.reverse();
    assert_eq!(ids(got.text()), own);
    let sent: Value = serde_json::from_slice(&sidecar.asked()[0].body).expect("it is JSON");
    assert_eq!(sent["documents"].as_array().map(Vec::len), Some(10));
}

#[test]
fn the_engines_own_counts_are_right() {
    let _turn = turn();
    let name = fresh_name();
    let options = json!({"url": WORLD.sidecar_url(), "policies": ["nearest-length", "trap"]});
    WORLD.put_pipeline(&name, &pipeline(&options)).ok();
    let path = format!("/products/_search?search_pipeline={name}");
    let failing = |on_failure: &str| {
        let mut body = search(QUERY);
        body["ext"] = json!({"rerankd": {"policy": "trap", "on_failure": on_failure}});
        body
    };
    for _ in 0..3 {
        WORLD.post(&path, &search(QUERY)).ok();
    }
    WORLD.post(&path, &failing("first-stage")).ok();
    assert_eq!(WORLD.post(&path, &failing("error")).status, 424);
    let stats = WORLD
        .call("GET", "/_nodes/stats/search_pipeline", &Value::Null)
        .ok()
        .json();
    let node = stats["nodes"]
        .as_object()
        .and_then(|nodes| nodes.values().next());
    let pipelines = &node.expect("there is a node")["search_pipeline"]["pipelines"][name.as_str()];
    let counts = |side: &str| {
        let stats = &pipelines[side];
        (
            stats["count"].as_u64(),
            stats["failed"].as_u64(),
            stats["current"].as_u64(),
        )
    };
    assert_eq!(
        counts("request"),
        (Some(5), Some(0), Some(0)),
        "{pipelines}"
    );
    assert_eq!(
        counts("response"),
        (Some(5), Some(1), Some(0)),
        "{pipelines}"
    );
    let processors = pipelines["response_processors"].as_array().expect("a list");
    assert!(
        processors[0]
            .as_object()
            .is_some_and(|one| one.contains_key("rerankd")),
        "{pipelines}"
    );
}

/// Turns what the system generates on or off, for the length of a test.
pub(crate) struct Auto;

impl Auto {
    fn on() -> Self {
        Self::set(json!(["rerankd_auto"]));
        Self
    }

    /// With those of other plugins.
    pub(crate) fn all() -> Self {
        Self::set(json!(["*"]));
        Self
    }

    fn set(value: Value) {
        let settings =
            json!({"persistent": {"cluster.search.enabled_system_generated_factories": value}});
        WORLD.call("PUT", "/_cluster/settings", &settings).ok();
    }
}

impl Drop for Auto {
    fn drop(&mut self) {
        Self::set(Value::Null);
    }
}

#[test]
fn an_option_in_a_search_is_enough_where_the_cluster_allows_it() {
    let _turn = turn();
    if !has_auto() {
        eprintln!("skipped: this version generates no processors");
        return;
    }
    let expected = expected();
    let mut body = search(QUERY);
    body["ext"] = json!({"rerankd": {"fields": ["title", "text"]}});
    let off = WORLD
        .post("/products/_search?search_pipeline=_none", &body)
        .ok();
    assert_eq!(
        marker::object(&off),
        Value::Null,
        "nobody has allowed it yet"
    );
    let auto = Auto::on();
    let paths = [
        "/products/_search?search_pipeline=_none",
        "/products,empty/_search?search_pipeline=_none",
    ];
    for path in paths {
        is_reranked(&WORLD.post(path, &body).ok(), &expected);
    }
    // A search that does not ask for it is not reranked.
    let plain = WORLD.post(paths[0], &search(QUERY)).ok();
    assert_eq!(marker::object(&plain), Value::Null);
    let mut none = body.clone();
    none["search_pipeline"] = json!("_none");
    let lines = format!("{{\"index\":\"products\"}}\n{none}\n");
    let headers = [("Content-Type", "application/x-ndjson")];
    let address = WORLD.engine.address();
    let multi = engine::call(address, "POST", "/_msearch", &headers, lines.as_bytes()).ok();
    assert_eq!(
        marker::read(&multi).fates[0]
            .as_ref()
            .map(|fate| &*fate.status),
        Some("applied")
    );
    drop(auto);
    let off = WORLD.post(paths[0], &body).ok();
    assert_eq!(marker::object(&off), Value::Null);
}

#[test]
fn no_search_is_reranked_twice() {
    let _turn = turn();
    if !has_auto() {
        eprintln!("skipped: this version generates no processors");
        return;
    }
    let sidecar = reversing();
    let name = fresh_name();
    let options = json!({"url": sidecar.url(), "policy": "scripted", "fields": ["title", "text"]});
    WORLD.put_pipeline(&name, &pipeline(&options)).ok();
    let path = format!("/products/_search?search_pipeline={name}");
    let once = WORLD.post(&path, &search(QUERY)).ok();
    assert_eq!(sidecar.asked().len(), 1);
    let _auto = Auto::on();
    let mut body = search(QUERY);
    body["ext"] = json!({"rerankd": {}});
    let both = WORLD.post(&path, &body).ok();
    assert_eq!(ids(both.text()), ids(once.text()));
    assert_eq!(sidecar.asked().len(), 2);
    assert_eq!(marker::object(&both)["policy"], "scripted");
    assert_eq!(
        both.headers
            .iter()
            .filter(|(name, _)| name == "rerank-status")
            .count(),
        1
    );
    // Nor where a pipeline has the processors twice.
    let twice = json!({
        "request_processors": [{"rerankd_window": options}, {"rerankd_window": options}],
        "response_processors": [{"rerankd": {}}, {"rerankd": {}}],
    });
    WORLD.put_pipeline(&name, &twice).ok();
    let got = WORLD.post(&path, &search(QUERY)).ok();
    assert_eq!(ids(got.text()), ids(once.text()));
    assert_eq!(sidecar.asked().len(), 3);
}
