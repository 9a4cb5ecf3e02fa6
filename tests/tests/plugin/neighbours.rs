//! Other plugins: processors that the engine generates beside ours, and logs of what was shown.

use rerankd_tests::Answer;
use rerankd_tests::search_page::ids;
use serde_json::{Value, json};

use crate::QUERY;
use crate::marker;
use crate::sidecar::{fresh_name, reversing};
use crate::ways::Auto;
use crate::world::{WORLD, has_auto, pipeline, search, turn};

#[test]
fn a_processor_that_the_engine_generates_beside_ours_fails_no_search() {
    let _turn = turn();
    if !has_auto() {
        eprintln!("skipped: this version generates no processors");
        return;
    }
    let _auto = Auto::all();
    let own = ids(WORLD.alone(&search(QUERY)).text());
    let ask = |places: &[&str], options: Value| {
        let mut body = search(QUERY);
        let places: serde_json::Map<String, Value> = places
            .iter()
            .map(|place| ((*place).to_owned(), json!(true)))
            .collect();
        body["ext"] = json!({"rerankd": options, "neighbours": places});
        WORLD
            .post("/products/_search?search_pipeline=_none", &body)
            .ok()
    };
    let reranked = ask(&[], json!({}));
    assert_eq!(marker::fate(&reranked).status, "applied");
    assert_ne!(ids(reranked.text()), own);
    for places in [
        &["request_last"][..],
        &["response_last"],
        &["request_last", "response_last"],
        &["request_first", "response_first"],
    ] {
        let got = ask(places, json!({}));
        assert_eq!(marker::fate(&got).status, "applied", "{places:?}");
        assert_eq!(ids(got.text()), ids(reranked.text()), "{places:?}");
    }
    // There is no place left: the search is the engine's.
    for side in ["request", "response"] {
        let places = [format!("{side}_first"), format!("{side}_last")];
        let places: Vec<&str> = places.iter().map(String::as_str).collect();
        let got = ask(&places, json!({}));
        let fate = marker::fate(&got);
        assert_eq!(
            (&*fate.status, fate.reason.as_deref()),
            ("skipped", Some("search-pipeline"))
        );
        assert_eq!(ids(got.text()), own);
    }
}

/// The ids of a page, as the log has them.
fn shown(answer: &Answer) -> Vec<String> {
    let shown = ids(answer.text());
    let plain = |id: String| id.trim_matches('"').to_owned();
    shown.into_iter().map(plain).collect()
}

/// What the log has of a search.
fn logged(answer: &Value) -> &Vec<Value> {
    answer["ext"]["logged"]["entries"]
        .as_array()
        .expect("a log")
}

#[test]
fn what_is_logged_is_what_was_shown() {
    let _turn = turn();
    if !has_auto() {
        eprintln!("skipped: there is no such plugin for this version");
        return;
    }
    let sidecar = reversing();
    let name = fresh_name();
    let options = json!({"url": sidecar.url(), "policy": "scripted", "fields": ["title", "text"], "window": 20});
    WORLD.put_pipeline(&name, &pipeline(&options)).ok();
    let path = format!("/products/_search?search_pipeline={name}");
    // Within the window, over its end, behind it, and with hits left out.
    for (id, from, size, min_score) in [
        ("a", 0, 5, 0.0),
        ("b", 15, 10, 0.0),
        ("c", 25, 5, 0.0),
        ("d", 0, 30, 0.2),
    ] {
        let mut body = search(QUERY);
        body["from"] = json!(from);
        body["size"] = json!(size);
        body["_source"] = json!(false);
        body["ext"] =
            json!({"ubi": {"query_id": format!("page-{id}")}, "rerankd": {"min_score": min_score}});
        let got = WORLD.post(&path, &body).ok();
        let shown = shown(&got);
        assert_eq!(shown.len(), size);
        let got = got.json();
        assert_eq!(got["ext"]["rerankd"]["status"], "applied", "{got}");
        assert_eq!(logged(&got).len(), 1, "{id}: {got}");
        assert_eq!(logged(&got)[0]["hits"], json!(shown), "{id}");
        // And the search is the client's.
        let query = logged(&got)[0]["query"].as_str().expect("a query");
        assert!(
            query.contains(&format!("\"from\":{from},\"size\":{size},")),
            "{query}"
        );
    }
}

#[test]
fn a_search_that_is_sent_again_is_logged_once() {
    let _turn = turn();
    if !has_auto() {
        eprintln!("skipped: there is no such plugin for this version");
        return;
    }
    let sidecar = reversing();
    let name = fresh_name();
    let options = json!({"url": sidecar.url(), "policy": "scripted", "fields": ["title"]});
    WORLD.put_pipeline(&name, &pipeline(&options)).ok();
    for index in crate::widening::articles() {
        let mut body = crate::widening::highlighted();
        body["ext"] = json!({"ubi": {"query_id": index}});
        let got = WORLD
            .post(&format!("/{index}/_search?search_pipeline={name}"), &body)
            .ok();
        let shown = shown(&got);
        let got = got.json();
        assert_eq!(got["ext"]["rerankd"]["status"], "failed", "{got}");
        assert_eq!(logged(&got).len(), 1, "{got}");
        assert_eq!(logged(&got)[0]["hits"], json!(shown));
    }
}
