//! All pages are cut from one list, whatever is left out of it and wherever they lie.

use rerankd_tests::search_page::ids;
use rerankd_tests::upstream::write_json;
use rerankd_tests::{Answer, Upstream};
use serde_json::{Value, json};

use crate::sidecar::{documents, fresh_name, native, reversing};
use crate::world::{WORLD, pipeline, search, turn};
use crate::{QUERY, marker};

const WINDOW: usize = 20;

fn path(sidecar: &Upstream, options: &Value) -> String {
    let mut all = json!({
        "url": sidecar.url(), "policy": "scripted", "fields": ["title", "text"], "window": WINDOW,
    });
    let options = options.as_object().expect("options are an object").clone();
    all.as_object_mut().expect("an object").extend(options);
    let name = fresh_name();
    WORLD.put_pipeline(&name, &pipeline(&all)).ok();
    format!("/products/_search?search_pipeline={name}")
}

fn page(path: &str, from: usize, size: usize) -> Answer {
    let mut body = search(QUERY);
    body["from"] = json!(from);
    body["size"] = json!(size);
    body["_source"] = json!(false);
    WORLD.post(path, &body).ok()
}

fn scores(answer: &Answer) -> Vec<f64> {
    let body = answer.json();
    let hits = body["hits"]["hits"].as_array().expect("a list of hits");
    let score = |hit: &Value| hit["_score"].as_f64().expect("a score");
    hits.iter().map(score).collect()
}

/// All pages of a size, to the first that is empty: their ids and scores. Each but the last is full.
fn all(path: &str, size: usize) -> (Vec<String>, Vec<f64>) {
    let (mut found, mut all_scores, mut last) = (Vec::new(), Vec::new(), size);
    for from in (0..).step_by(size) {
        let page = page(path, from, size);
        let shown = ids(page.text());
        assert!(shown.is_empty() || last == size, "a hole before {from}");
        if shown.is_empty() {
            break;
        }
        assert_eq!(marker::fate(&page).status, "applied");
        last = shown.len();
        found.extend(shown);
        all_scores.extend(scores(&page));
    }
    (found, all_scores)
}

fn own() -> Vec<String> {
    let mut body = search(QUERY);
    body["size"] = json!(1000);
    ids(WORLD.alone(&body).text())
}

/// The engine's first hits reversed, as far as they are kept, and what follows them.
fn expected(kept: usize) -> Vec<String> {
    let own = own();
    let mut list: Vec<String> = own[..WINDOW].iter().rev().take(kept).cloned().collect();
    list.extend_from_slice(&own[WINDOW..]);
    list
}

#[test]
fn no_score_is_higher_than_the_one_before_it_on_any_page() {
    let _turn = turn();
    let sidecar = reversing();
    let path = path(&sidecar, &json!({}));
    let (found, scores) = all(&path, 7);
    assert_eq!(found, expected(WINDOW));
    assert!(found.len() > 2 * WINDOW, "only {} hits", found.len());
    assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    // The engine's own scores are far above the reversed ones.
    assert_eq!(scores[WINDOW], scores[WINDOW - 1]);
}

#[test]
fn what_min_score_leaves_out_leaves_no_hole() {
    let _turn = turn();
    let sidecar = reversing();
    // Scores are 1, 1/2, 1/3 ..: eight are kept.
    let path = path(&sidecar, &json!({"min_score": 0.12}));
    let whole = expected(8);
    for size in [5, 7, 50, 100] {
        let (found, scores) = all(&path, size);
        assert_eq!(found, whole, "pages of {size}");
        assert!(scores.is_sorted_by(|a, b| a >= b), "{scores:?}");
    }
}

#[test]
fn what_a_policy_leaves_out_leaves_no_hole_either() {
    let _turn = turn();
    let sidecar = Upstream::start(|asked, stream| {
        let count = documents(asked);
        let kept = (0..count).rev().take(6).enumerate();
        let result =
            |(place, index)| json!({"index": index, "score": 1.0 / f64::from(place as u32 + 1)});
        let mut answer = native(kept.map(result).collect());
        answer["filtered"] = json!(count.saturating_sub(6));
        write_json(stream, "200 OK", &answer.to_string())
    });
    let path = path(&sidecar, &json!({}));
    for size in [4, 30] {
        assert_eq!(all(&path, size).0, expected(6), "pages of {size}");
    }
}

#[test]
fn hits_without_a_score_stand_between_the_scored_and_the_rest() {
    let _turn = turn();
    let sidecar = Upstream::start(|asked, stream| {
        let count = documents(asked);
        let scored = (0..count).rev().take(6).enumerate();
        let result =
            |(place, index)| json!({"index": index, "score": 0.1 / f64::from(place as u32 + 1)});
        let mut results: Vec<Value> = scored.map(result).collect();
        let left = count.saturating_sub(6);
        results.extend(
            (0..left).map(|index| json!({"index": index, "score": null, "unscored": "unread"})),
        );
        let mut answer = native(results);
        answer["status"] = json!("partial");
        answer["unscored"] = json!(left);
        answer["unread"] = json!(left);
        write_json(stream, "200 OK", &answer.to_string())
    });
    let path = path(&sidecar, &json!({}));
    let own = own();
    let mut list: Vec<String> = own[WINDOW - 6..WINDOW].iter().rev().cloned().collect();
    list.extend_from_slice(&own[..WINDOW - 6]);
    list.extend_from_slice(&own[WINDOW..]);
    let (mut found, mut all_scores) = (Vec::new(), Vec::new());
    for from in (0..list.len()).step_by(9) {
        let page = page(&path, from, 9);
        let said = marker::object(&page);
        assert_eq!(
            (&said["status"], &said["reason"]),
            (&json!("partial"), &json!("unread"))
        );
        assert_eq!(said["unread"], WINDOW - 6, "{said}");
        found.extend(ids(page.text()));
        all_scores.extend(scores(&page));
    }
    assert_eq!(found, list);
    assert!(all_scores.is_sorted_by(|a, b| a >= b), "{all_scores:?}");
}

#[test]
fn a_page_behind_the_window_that_cannot_be_ranked_is_the_engines_own() {
    let _turn = turn();
    let sidecar =
        Upstream::start(|_, stream| write_json(stream, "500 Internal Server Error", "{}"));
    let path = path(&sidecar, &json!({}));
    for (from, size) in [(WINDOW, 7), (WINDOW + 3, 7), (10, 40)] {
        let got = page(&path, from, size);
        assert_eq!(marker::fate(&got).status, "failed");
        assert_eq!(ids(got.text()), own()[from..from + size]);
        let own = page("/products/_search?search_pipeline=_none", from, size).json();
        assert_eq!(got.json()["hits"], own["hits"]);
    }
}

/// Searches that the shards of an index have run.
fn searches() -> u64 {
    let stats = WORLD
        .call("GET", "/products/_stats/search", &Value::Null)
        .ok()
        .json();
    stats["_all"]["total"]["search"]["query_total"]
        .as_u64()
        .expect("a count")
}

#[test]
fn texts_are_fetched_for_the_window_alone() {
    let _turn = turn();
    let sidecar = reversing();
    let path = path(&sidecar, &json!({}));
    let before = searches();
    let got = page(&path, 0, 1000);
    // A search of its own has the texts, in each of the three shards.
    assert_eq!(searches() - before, 6);
    assert_eq!(ids(got.text()), expected(WINDOW));
    let sent: Value = serde_json::from_slice(&sidecar.asked()[0].body).expect("it is JSON");
    let texts = sent["documents"].as_array().expect("documents").iter();
    let with_text = texts
        .filter(|document| document["fields"]["title"].is_string())
        .count();
    assert!(with_text > WINDOW / 2, "{with_text}");
    let body = got.json();
    let hits = body["hits"]["hits"].as_array().expect("a list of hits");
    assert!(hits.iter().all(|hit| hit.get("_source").is_none()));
    // Where the window is all there is to see, one search has everything.
    let before = searches();
    page(&path, 0, 10);
    assert_eq!(searches() - before, 3);
}

#[test]
fn what_the_engine_has_rescored_is_the_first_stage_where_the_pipeline_says_so() {
    let _turn = turn();
    let sidecar = reversing();
    let mut body = search(QUERY);
    body["size"] = json!(30);
    let by_garden = json!({"rescore_query": {"match": {"text": "garden"}}});
    body["rescore"] = json!({"window_size": 15, "query": by_garden});
    let own = ids(WORLD.alone(&body).text());
    let left = WORLD.post(&path(&sidecar, &json!({})), &body).ok();
    assert_eq!(marker::fate(&left).reason.as_deref(), Some("rescore"));
    let kept = WORLD
        .post(&path(&sidecar, &json!({"rescore": "keep"})), &body)
        .ok();
    assert_eq!(marker::object(&kept)["window"], 15);
    // Behind it stand hits that were not rescored.
    let mut list: Vec<String> = own[..15].iter().rev().cloned().collect();
    list.extend_from_slice(&own[15..]);
    assert_eq!(ids(kept.text()), list);
}
