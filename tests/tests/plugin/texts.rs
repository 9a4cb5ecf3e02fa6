//! Queries that the model cannot read, of which nothing is left, or that it sees only in part.

use rerankd_tests::search_page::ids;
use rerankd_tests::{Answer, comparison};
use serde_json::{Value, json};

use crate::world::{WORLD, search, turn};
use crate::{QUERY, marker};

/// A search that is ranked by another text than that of its query.
fn ask(query: &str, more: &Value) -> Answer {
    let mut options = json!({"policy": "semantic-blend", "query": query, "timeout_ms": 30_000});
    let more = more.as_object().expect("an object").clone();
    options.as_object_mut().expect("an object").extend(more);
    let mut body = search(QUERY);
    body["ext"] = json!({"rerankd": options});
    WORLD.post("/products/_search", &body).ok()
}

#[track_caller]
fn is_left_alone(got: &Answer, reason: &str) -> String {
    let read = marker::read(got);
    let own = marker::read(&WORLD.alone(&search(QUERY))).answer;
    comparison::same(&read.answer, &own).unwrap_or_else(|fault| panic!("{fault}"));
    let fate = marker::fate(got);
    assert_eq!(
        (&*fate.status, fate.reason.as_deref()),
        ("skipped", Some(reason))
    );
    let header = got.header("rerank-status").expect("it has the header");
    assert!(
        header.starts_with(&format!("rerankd;status=skipped;reason={reason}")),
        "{header}"
    );
    header.to_owned()
}

#[test]
fn a_query_of_which_nothing_is_left_leaves_the_search_alone() {
    let _turn = turn();
    for on_failure in ["first-stage", "error"] {
        let got = ask("\u{200b}\u{200b}", &json!({"on_failure": on_failure}));
        is_left_alone(&got, "no-query");
    }
}

#[test]
fn a_query_that_the_model_cannot_read_leaves_the_search_alone() {
    let _turn = turn();
    for on_failure in ["first-stage", "error"] {
        let got = ask("运动鞋", &json!({"on_failure": on_failure}));
        let header = is_left_alone(&got, "unread");
        // Nobody knows of the documents.
        assert!(!header.contains(";unread="), "{header}");
    }
}

#[test]
fn a_query_that_is_cut_is_said_to_be() {
    let _turn = turn();
    let got = ask(&"garden shoe ".repeat(1000), &json!({}));
    assert_eq!(marker::object(&got)["query_truncated"], json!(true));
    let header = got.header("rerank-status").expect("it has the header");
    assert!(header.contains(";query-truncated;"), "{header}");
    assert!(!marker::object(&ask(QUERY, &json!({})))["query_truncated"].is_boolean());
}

#[test]
fn no_pattern_of_fields_holds_up_the_engine() {
    let _turn = turn();
    let stars = format!("{}zz", "*".repeat(17));
    let body = json!({"query": {"multi_match": {"query": "a", "fields": [stars]}}, "ext": {"rerankd": {}}});
    let got = WORLD.post("/products/_search", &body).ok();
    assert_eq!(marker::fate(&got).reason.as_deref(), Some("no-query"));
    let got = ask(QUERY, &json!({"fields": [stars, "*t*i*t*l*e*"]}));
    assert_eq!(marker::object(&got)["fields"], json!(["title"]));
    assert!(!ids(got.text()).is_empty());
}
