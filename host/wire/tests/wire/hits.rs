//! The hits form.

use std::path::Path;

use rerankd_core::{Document, FailReason, FirstStage, Judgment, SkipReason, Status, Value};
use rerankd_wire::hits::Hits;

use crate::support::{
    answer, body, decode, filtered, fixture, header, refusals, request, reranked, scored,
    with_snapshots_of,
};

/// The answer for the odd response, with five hits in the window and one behind it.
fn odd_answer(judgments: Vec<Judgment>, more_options: &str) -> String {
    let response = String::from_utf8(fixture("hits", "odd.response.json")).unwrap();
    let request = format!(r#"{{"query":"clog","window":5,"response":{response}{more_options}}}"#);
    let decoded = decode(&Hits, request.as_bytes()).unwrap();
    body(&answer(decoded, &[reranked(judgments)])).to_owned()
}

fn five_judgments() -> Vec<Judgment> {
    vec![
        scored(0.25),
        Judgment::unscored("empty"),
        scored(0.75),
        filtered(),
        scored(-2.0),
    ]
}

#[test]
fn the_recorded_request_is_read() {
    let request = request(&Hits, &fixture("hits", "odd.request.json"));
    with_snapshots_of("hits", || {
        insta::assert_snapshot!("odd.decoded", format!("{request:#?}"));
    });
}

#[test]
fn the_answer_is_the_response_with_its_hits_in_another_order() {
    with_snapshots_of("hits", || {
        insta::assert_snapshot!("odd.answer", odd_answer(five_judgments(), ""));
        let min_score = r#","min_score":0.25"#;
        insta::assert_snapshot!(
            "odd-min-score.answer",
            odd_answer(five_judgments(), min_score)
        );
        let keep = r#","keep_scores":true"#;
        insta::assert_snapshot!("odd-keep-scores.answer", odd_answer(five_judgments(), keep));
    });
}

#[test]
fn a_ranking_that_changes_nothing_changes_no_byte() {
    let response = String::from_utf8(fixture("hits", "odd.response.json")).unwrap();
    // All unscored: the engine's order, and each its own score.
    let unscored = vec![Judgment::unscored("late"); 5];
    let without_max_score = |text: &str| text.replace("1.35e1", "13.50");
    assert_eq!(odd_answer(unscored, ""), without_max_score(&response));
}

#[test]
fn a_failed_or_skipped_ranking_leaves_the_response_exactly_as_it_was() {
    let response = String::from_utf8(fixture("hits", "odd.response.json")).unwrap();
    for status in [
        Status::Failed(FailReason::Deadline),
        Status::Failed(FailReason::PolicyFault),
        Status::Skipped(SkipReason::NoText),
    ] {
        for options in ["", r#","keep_scores":true,"min_score":5"#] {
            let request =
                format!(r#"{{"query":"clog","window":5,"response":{response}{options}}}"#);
            let mut result = reranked(five_judgments());
            result.status = status;
            let answer = answer(decode(&Hits, request.as_bytes()).unwrap(), &[result]);
            assert_eq!(body(&answer), response);
            let reason = format!(
                "status={};reason={}",
                status.name(),
                status.reason().unwrap()
            );
            assert!(header(&answer, "rerank-status").contains(&reason));
        }
    }
}

#[test]
fn a_response_without_hits_is_skipped() {
    let response = r#"{"took":1, "hits":{"total":{"value":0},"max_score":null,"hits":[ ]}}"#;
    let request = format!(r#"{{"query":"clog","response": {response} }}"#);
    let decoded = decode(&Hits, request.as_bytes()).unwrap();
    assert!(decoded.requests.is_empty());
    let answer = answer(decoded, &[]);
    assert_eq!(body(&answer), response);
    assert_eq!(
        header(&answer, "rerank-status"),
        "rerankd;status=skipped;reason=no-documents"
    );
    assert_eq!(header(&answer, "content-type"), "application/json");
}

#[test]
fn an_answer_without_any_hit_left_has_no_max_score() {
    let response =
        r#"{"hits":{"max_score":2.5,"hits":[ {"_id":"a","_score":2.5} , {"_id":"b"}	]}}"#;
    let request = format!(r#"{{"query":"clog","response":{response}}}"#);
    let decoded = decode(&Hits, request.as_bytes()).unwrap();
    assert_eq!(decoded.requests[0].first_stage, FirstStage::Ranked);
    let answer = answer(decoded, &[reranked(vec![filtered(), filtered()])]);
    assert_eq!(
        body(&answer),
        "{\"hits\":{\"max_score\":null,\"hits\":[ ]}}"
    );
}

#[test]
fn a_null_score_is_replaced_on_scored_hits_and_stays_on_the_others() {
    let hits = r#"{"_id":"a","_score":null},{"_id":"b","_score":null,"sort":[1]},{"_id":"c","_score":null}"#;
    let request =
        format!(r#"{{"query":"q","window":2,"response":{{"hits":{{"hits":[{hits}]}}}}}}"#);
    let decoded = decode(&Hits, request.as_bytes()).unwrap();
    assert_eq!(decoded.requests[0].first_stage, FirstStage::Ranked);
    let answer = answer(
        decoded,
        &[reranked(vec![Judgment::unscored("empty"), scored(1.0)])],
    );
    assert_eq!(
        body(&answer),
        r#"{"hits":{"hits":[{"_id":"b","_score":1.0,"sort":[1]},{"_id":"a","_score":null},{"_id":"c","_score":null}]}}"#
    );
}

#[test]
fn kept_scores_go_into_the_fields_that_are_there() {
    for (hit, wanted) in [
        (
            r#"{"_score":2.50}"#,
            r#"{"_score":0.5,"fields":{"_first_stage_score":[2.50]}}"#,
        ),
        (
            r#"{"_score":2,"fields":{ }}"#,
            r#"{"_score":0.5,"fields":{"_first_stage_score":[2] }}"#,
        ),
        (
            r#"{"fields":{ "a":[1]},"_score":2}"#,
            r#"{"fields":{"_first_stage_score":[2], "a":[1]},"_score":0.5}"#,
        ),
        (
            r#"{"_score":2,"fields":{"_first_stage_score":[7]}}"#,
            r#"{"_score":0.5,"fields":{"_first_stage_score":[2]}}"#,
        ),
        (r#"{"_score":null}"#, r#"{"_score":0.5}"#),
        ("{}", "{}"),
    ] {
        let request = format!(
            r#"{{"query":"q","keep_scores":true,"response":{{"hits":{{"max_score":9,"hits":[{hit}]}}}}}}"#
        );
        let answer = answer(
            decode(&Hits, request.as_bytes()).unwrap(),
            &[reranked(vec![scored(0.5)])],
        );
        assert_eq!(
            body(&answer),
            format!(r#"{{"hits":{{"max_score":0.5,"hits":[{wanted}]}}}}"#)
        );
    }
}

#[test]
fn the_tail_is_not_in_the_window_and_does_not_rise_above_it() {
    let hits = [9.0, 8.0, 0.5]
        .map(|score| format!(r#"{{"_score":{score}}}"#))
        .join(",");
    let request =
        format!(r#"{{"query":"q","window":1,"response":{{"hits":{{"hits":[{hits}]}}}}}}"#);
    let decoded = decode(&Hits, request.as_bytes()).unwrap();
    assert_eq!(decoded.requests[0].documents.len(), 1);
    let answer = answer(decoded, &[reranked(vec![scored(0.75)])]);
    let wanted = r#"{"hits":{"hits":[{"_score":0.75},{"_score":0.75},{"_score":0.5}]}}"#;
    assert_eq!(body(&answer), wanted);
}

#[test]
fn refusals_name_the_place_in_the_response() {
    let hit = r#"{"_id":"x"}"#;
    let many = format!(r#"{{"hits":{{"hits":[{}]}}}}"#, [hit; 9].join(","));
    let response = |response: &str| format!(r#"{{"query":"q","response":{response}}}"#);
    let mut bodies: Vec<String> = [
        "\"{}\"",
        "[]",
        "{}",
        r#"{"error":{"type":"index_not_found_exception"},"status":404}"#,
        r#"{"hits":null}"#,
        r#"{"hits":{"total":3}}"#,
        r#"{"hits":{"hits":{}}}"#,
        r#"{"hits":{"hits":[{},7]}}"#,
        r#"{"hits":{"hits":[{"_source":"x"}]}}"#,
        r#"{"hits":{"hits":[{"fields":[1]}]}}"#,
        &many,
    ]
    .map(response)
    .into();
    bodies.push(format!(r#"{{"query":"q","window":9,"response":{many}}}"#));
    bodies.push(r#"{"query":"q","responce":{"hits":{"hits":[]}},"top_n":3}"#.into());
    bodies.push(r#"{"query":"q","response":null}"#.into());
    bodies.push(r#"{"query":"q","response":{"hits":{"hits":[]}},"window":0}"#.into());
    bodies.push(r#"{"query":"q","response":{"hits":{"hits":[]}},"keep_scores":1}"#.into());
    bodies.push(r#"{"response":{"hits":{"hits":[]}}}"#.into());
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    with_snapshots_of("hits", || {
        insta::assert_snapshot!("refusals", refusals(&Hits, &bodies));
    });
}

#[test]
fn what_lies_too_deep_is_left_out_and_goes_back_unchanged() {
    let deep = r#"{"a":"#.repeat(10_000) + "1" + &"}".repeat(10_000);
    let long_name = format!(r#"{{"{}":1}}"#, "n".repeat(2000));
    let source = format!(r#"{{"deep":{deep},"title":"t","long":{long_name}}}"#);
    let response = format!(r#"{{"hits":{{"hits":[{{"_score":1,"_source":{source}}}]}}}}"#);
    let request = format!(r#"{{"query":"q","response":{response}}}"#);
    let decoded = decode(&Hits, request.as_bytes()).unwrap();
    let title = Document {
        first_stage_score: Some(1.0),
        ..field("title", Value::Text("t".into()))
    };
    assert_eq!(decoded.requests[0].documents, [title]);
    let answer = answer(decoded, &[reranked(vec![scored(0.5)])]);
    assert_eq!(
        body(&answer),
        response.replace(r#""_score":1,"#, r#""_score":0.5,"#)
    );
}

fn field(name: &str, value: Value) -> Document {
    Document {
        fields: vec![rerankd_core::Field {
            name: name.into(),
            value,
        }],
        ..Document::default()
    }
}

/// Responses that a real Elasticsearch gave, where the repository has them.
#[test]
fn real_responses_come_back_with_every_hit_unharmed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/elasticsearch");
    let Ok(entries) = std::fs::read_dir(folder) else {
        return;
    };
    for path in entries.map(|entry| entry.unwrap().path()) {
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.ends_with(".json") || name.ends_with(".about.json") {
            continue;
        }
        let response = std::fs::read_to_string(&path).unwrap();
        let response = response.trim();
        let request = format!(r#"{{"query":"q","window":8,"response":{response}}}"#);
        let decoded = decode(&Hits, request.as_bytes()).unwrap();
        let Some(documents) = decoded
            .requests
            .first()
            .map(|request| request.documents.len())
        else {
            continue;
        };
        // Backwards, with the scores of a model.
        let judgments = (0..documents)
            .map(|index| scored(index as f64 / 8.0))
            .collect();
        let answered = answer(decoded, &[reranked(judgments)]);
        assert_eq!(
            body(&answered).matches("\"_index\"").count(),
            response.matches("\"_index\"").count()
        );
        // The same characters, but for scores: digits, points, signs and nulls.
        let letters = |text: &str| {
            let mut kept: Vec<char> = text.replace("null", "").chars().collect();
            kept.retain(|c| !matches!(c, '0'..='9' | '.' | '-' | '+' | 'e' | 'E'));
            kept.sort_unstable();
            kept
        };
        assert_eq!(letters(body(&answered)), letters(response), "{name}");
        let again = serde_json::from_slice::<serde::de::IgnoredAny>(&answered.body);
        assert!(again.is_ok(), "{name}");
    }
}
