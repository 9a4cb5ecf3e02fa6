//! The hits form on responses that a real Elasticsearch gave: other order, other scores, and not one
//! byte more.

use std::sync::LazyLock;

use rerankd_tests::answer::raw_object;
use rerankd_tests::documents::{recorded, recorded_query};
use rerankd_tests::{Answer, Rerankd, guests};
use serde_json::value::RawValue;
use serde_json::{Value, json};

static SERVER: LazyLock<Rerankd> = LazyLock::new(|| guests::serve(&["--timeout-ms", "60000"]));

const BLEND: &str = "/v1/rerank/semantic-blend/hits";

/// Reranks a recorded response, sent as it is.
#[track_caller]
fn rerank(path: &str, name: &str, options: &str) -> Answer {
    let query = Value::from(recorded_query(name));
    let body = format!(
        r#"{{"query":{query},"response":{}{options}}}"#,
        recorded(name)
    );
    SERVER.post_text(path, body).ok()
}

/// A response, taken apart into texts as they were printed.
struct Page {
    /// The response with `@` in place of the hits and the maximum.
    frame: String,
    max_score: Option<String>,
    hits: Vec<Hit>,
}

struct Hit {
    id: String,
    score: Option<f64>,
    /// The hit with `@` in place of its score.
    frame: String,
}

fn page(response: &str) -> Page {
    let member = |json: &str, name: &str| -> Option<Box<RawValue>> {
        raw_object(json.as_bytes())
            .get(name)
            .map(|&value| value.to_owned())
    };
    let outer = member(response, "hits").expect("it has hits");
    let list = member(outer.get(), "hits").expect("it has hits");
    let max_score = member(outer.get(), "max_score").map(|max| max.get().to_owned());
    let mut frame = response.replacen(list.get(), "@", 1);
    if let Some(max_score) = &max_score {
        let with = |value: &str| format!("\"max_score\":{value}");
        frame = frame.replacen(&with(max_score), &with("@"), 1);
    }
    let hits: Vec<&RawValue> = serde_json::from_str(list.get()).expect("a list of hits");
    let hit = |hit: &&RawValue| {
        let score = member(hit.get(), "_score").map(|score| score.get().to_owned());
        let key = "\"_score\":";
        let old = format!("{key}{}", score.as_deref().unwrap_or_default());
        Hit {
            id: member(hit.get(), "_id")
                .expect("a hit has an id")
                .get()
                .to_owned(),
            score: score.and_then(|score| score.parse().ok()),
            frame: hit.get().replacen(&old, &format!("{key}@"), 1),
        }
    };
    Page {
        frame,
        max_score,
        hits: hits.iter().map(hit).collect(),
    }
}

/// The hits are those of the response in another order, each the same but for its score; nothing else
/// has changed but `max_score`, which is the first hit's; and scores never rise.
#[track_caller]
fn assert_only_reordered(answer: &Answer, response: &str) -> Page {
    let (before, after) = (page(response), page(answer.text()));
    assert_eq!(before.frame, after.frame);
    let sorted = |page: &Page| {
        let mut hits: Vec<_> = page
            .hits
            .iter()
            .map(|hit| (hit.id.clone(), hit.frame.clone()))
            .collect();
        hits.sort();
        hits
    };
    assert_eq!(sorted(&before), sorted(&after));
    let scores: Vec<f64> = after.hits.iter().filter_map(|hit| hit.score).collect();
    assert!(
        scores.is_sorted_by(|higher, lower| higher >= lower),
        "{scores:?}"
    );
    let max_score = after
        .max_score
        .as_deref()
        .and_then(|max| max.parse::<f64>().ok());
    assert_eq!(max_score, after.hits.first().and_then(|hit| hit.score));
    after
}

/// Scores of a page that the native form gives for the same fields.
fn ids(page: &Page) -> Vec<&str> {
    page.hits
        .iter()
        .map(|hit| hit.id.trim_matches('"'))
        .collect()
}

#[test]
fn a_recorded_page_is_reordered_and_nothing_else() {
    for (name, window) in [("chorus-smart-watch", "20"), ("chorus-aggregations", "5")] {
        let answer = rerank(BLEND, name, "");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.parameter("status"), Some("applied"));
        assert_eq!(answer.parameter("window"), Some(window));
        let after = assert_only_reordered(&answer, &recorded(name));
        assert_ne!(ids(&after), ids(&page(&recorded(name))), "{name}");
    }
}

#[test]
fn the_hits_form_ranks_like_the_native_form() {
    let response: Value =
        serde_json::from_str(&recorded("chorus-smart-watch")).expect("it is JSON");
    let hits = response["hits"]["hits"].as_array().expect("it has hits");
    let documents: Vec<Value> = hits
        .iter()
        .map(|hit| json!({"id": hit["_id"], "score": hit["_score"], "fields": hit["_source"]}))
        .collect();
    for options in [
        json!({}),
        json!({"weight": 0.3, "normalization": "z-score"}),
    ] {
        let request =
            json!({"query": "smart watch", "documents": documents, "parameters": options});
        let native = SERVER.post("/v1/rerank/semantic-blend", &request).ok();
        let answer = rerank(
            BLEND,
            "chorus-smart-watch",
            &format!(r#","parameters":{options}"#),
        );
        let page = page(answer.text());
        let scores = native.scores();
        let expected: Vec<_> = native
            .order()
            .into_iter()
            .map(|index| {
                (
                    hits[index]["_id"].as_str().expect("it has an id"),
                    scores[index],
                )
            })
            .collect();
        let got: Vec<_> = ids(&page)
            .into_iter()
            .zip(page.hits.iter().map(|hit| hit.score))
            .collect();
        assert_eq!(got, expected);
    }
}

#[test]
fn the_products_that_people_graded_come_first() {
    let answer = rerank(BLEND, "chorus-smart-watch", "");
    let page = page(answer.text());
    let about: Value =
        serde_json::from_str(&recorded("chorus-smart-watch.about")).expect("it is JSON");
    let grades = &about["judgments"]["grades"];
    let ndcg: f64 = ndcg_at_10(&ids(&page), grades, &about["judgments"]["ideal"]);
    let engine = about["judgments"]["ndcg_at_10"]["engine"]
        .as_f64()
        .expect("it is recorded");
    assert!(
        ndcg > engine + 0.2,
        "NDCG@10 {ndcg:.4}, the engine's {engine}"
    );
}

/// With linear gain, as the recorded values.
fn ndcg_at_10(ids: &[&str], grades: &Value, ideal: &Value) -> f64 {
    let gain = |grades: Vec<f64>| -> f64 {
        let discounted = grades.iter().take(10).enumerate();
        discounted
            .map(|(rank, grade)| grade / (rank as f64 + 2.0).log2())
            .sum()
    };
    let ideal = ideal.as_array().expect("a list of grades").iter();
    let grade = |id: &&str| grades[*id].as_f64().unwrap_or(0.0);
    gain(ids.iter().map(grade).collect()) / gain(ideal.filter_map(Value::as_f64).collect())
}

#[test]
fn a_page_without_hits_is_unchanged_and_skipped() {
    let answer = rerank(BLEND, "chorus-no-hits", "");
    assert_eq!(answer.text(), recorded("chorus-no-hits"));
    assert_eq!(answer.parameter("status"), Some("skipped"));
    assert_eq!(answer.parameter("reason"), Some("no-documents"));
}

#[test]
fn hits_without_scores_are_ranked_by_their_places() {
    // Elasticsearch gives no scores with a sort of its own.
    let response = recorded("chorus-sorted");
    assert!(page(&response).hits.iter().all(|hit| hit.score.is_none()));
    let answer = rerank(BLEND, "chorus-sorted", "");
    assert_eq!(answer.parameter("status"), Some("applied"));
    let after = assert_only_reordered(&answer, &response);
    assert!(after.hits.iter().all(|hit| hit.score.is_some()));

    let kept = rerank("/v1/rerank/first-stage/hits", "chorus-sorted", "");
    assert_eq!(ids(&page(kept.text())), ids(&page(&response)));
}

#[test]
fn odd_sources_come_back_byte_for_byte() {
    let response = recorded("odd-sources");
    let answer = rerank(BLEND, "odd-sources", "");
    let after = assert_only_reordered(&answer, &response);
    assert_eq!(answer.parameter("status"), Some("partial"));
    assert_eq!(answer.parameter("reason"), Some("empty"));
    // Those without any text keep the engine's order behind the others.
    let without_text = ["no-text-fields", "empty-strings", "empty-source"];
    assert_eq!(answer.parameter("unscored"), Some("3"));
    assert_eq!(ids(&after)[10..], without_text);
    // Equal documents with equal scores tie, and ties keep the engine's order.
    let place = |id: &str| {
        ids(&after)
            .iter()
            .position(|other| *other == id)
            .expect("it is there")
    };
    assert_eq!(place("same-2"), place("same-1") + 1);

    let cross = rerank("/v1/rerank/cross-encoder/hits", "odd-sources", "");
    assert_only_reordered(&cross, &response);
}

#[test]
fn fields_name_what_the_policy_reads_of_a_hit() {
    // Three hits have tags, five have no title and no text or empty ones.
    let answer = rerank(BLEND, "odd-sources", r#","fields":["tags"]"#);
    let after = assert_only_reordered(&answer, &recorded("odd-sources"));
    assert_eq!(answer.parameter("unscored"), Some("10"));
    let mut tagged = ids(&after)[..3].to_vec();
    tagged.sort_unstable();
    assert_eq!(tagged, ["arrays", "empty-strings", "no-text-fields"]);

    let nested = rerank(
        BLEND,
        "odd-sources",
        r#","parameters":{"fields":["variants.size","brand.name"]}"#,
    );
    let after = assert_only_reordered(&nested, &recorded("odd-sources"));
    // Numbers in an array are no text.
    assert_eq!(nested.parameter("reason"), Some("no-text"));
    assert_eq!(nested.text(), recorded("odd-sources"));
    assert_eq!(after.hits.len(), 13);
}

#[test]
fn only_the_window_is_reranked() {
    let response = recorded("chorus-smart-watch");
    let answer = rerank(BLEND, "chorus-smart-watch", r#","window":5"#);
    let after = assert_only_reordered(&answer, &response);
    assert_eq!(answer.parameter("window"), Some("5"));
    let (before, after) = (page(&response), after);
    assert_eq!(ids(&after)[5..], ids(&before)[5..]);
    let (mut before, mut after) = (ids(&before)[..5].to_vec(), ids(&after)[..5].to_vec());
    assert_ne!(before, after);
    before.sort_unstable();
    after.sort_unstable();
    assert_eq!(before, after);
}

#[test]
fn keep_scores_keeps_the_engines_scores_beside_the_new_ones() {
    let options = r#","window":15,"keep_scores":true"#;
    let answer = rerank(BLEND, "chorus-smart-watch", options).json();
    let before: Value = serde_json::from_str(&recorded("chorus-smart-watch")).expect("it is JSON");
    let hits = |response: &Value| {
        let hits = response["hits"]["hits"].as_array();
        hits.expect("it has hits").clone()
    };
    let (before, after) = (hits(&before), hits(&answer));
    assert_eq!(answer["hits"]["max_score"], after[0]["_score"]);
    for (position, hit) in after.iter().enumerate() {
        let same = before.iter().find(|old| old["_id"] == hit["_id"]);
        let same = same.expect("it is one of the hits");
        assert_eq!(hit["fields"]["_first_stage_score"], json!([same["_score"]]));
        assert_eq!(hit["_source"], same["_source"]);
        // What was not reranked has no other score than its own.
        let is_own = hit["_score"] == same["_score"];
        assert_eq!(is_own, position >= 15, "{position}: {hit}");
    }
    assert_ne!(after[0]["_id"], before[0]["_id"]);
}

#[test]
fn min_score_leaves_hits_out_and_the_total_as_it_was() {
    let all = page(rerank(BLEND, "chorus-smart-watch", "").text());
    let third = all.hits[2].score.expect("it is scored");
    let answer = rerank(
        BLEND,
        "chorus-smart-watch",
        &format!(r#","min_score":{third}"#),
    );
    let cut = page(answer.text());
    let above = all
        .hits
        .iter()
        .filter(|hit| hit.score >= Some(third))
        .count();
    assert_eq!(ids(&cut), ids(&all)[..above]);
    assert_eq!(cut.frame, all.frame, "the total is the engine's");
}

#[test]
fn a_failure_leaves_the_page_exactly_as_it_was() {
    let response = recorded("chorus-smart-watch");
    for (policy, options, reason) in [
        ("trap", "", "policy-fault"),
        (
            "trap",
            r#","keep_scores":true,"min_score":5"#,
            "policy-fault",
        ),
        ("waits", r#","timeout_ms":50"#, "deadline"),
    ] {
        let answer = rerank(
            &format!("/v1/rerank/{policy}/hits"),
            "chorus-smart-watch",
            options,
        );
        assert_eq!(answer.parameter("status"), Some("failed"));
        assert_eq!(answer.parameter("reason"), Some(reason));
        assert_eq!(answer.text(), response);
    }
    let body = format!(r#"{{"query":"q","on_failure":"error","response":{response}}}"#);
    let error = SERVER.post_text("/v1/rerank/trap/hits", body);
    assert_eq!(
        (error.status, error.parameter("reason")),
        (424, Some("policy-fault"))
    );
}
