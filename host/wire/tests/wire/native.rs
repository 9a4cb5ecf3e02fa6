//! The native form.

use std::time::Duration;

use rerankd_core::{
    ErrorKind, FailReason, FirstStage, Judgment, PolicySelector, Ranking, RerankError, SkipReason,
    Status, Value,
};
use rerankd_wire::native::Native;
use rerankd_wire::{Protocol, Target};

use crate::support::{
    answer, body, decode, fixture, header, refusals, request, reranked, scored, shown,
    with_snapshots_of,
};

#[test]
fn recorded_requests_are_read() {
    with_snapshots_of("native", || {
        for name in ["products", "texts"] {
            let body = fixture("native", &format!("{name}.request.json"));
            let request = request(&Native, &body);
            insta::assert_snapshot!(format!("{name}.decoded"), format!("{request:#?}"));
        }
    });
}

#[test]
fn the_path_names_the_policy_and_its_version() {
    let body = fixture("native", "texts.request.json");
    let wanted = PolicySelector {
        name: "semantic-blend".into(),
        version: Some("1.2".into()),
    };
    assert_eq!(
        decode(&Native, &body).unwrap().target,
        Target::Policy(wanted)
    );
}

#[test]
fn answers() {
    let request = fixture("native", "products.request.json");
    let answer_of = |result| shown(&answer(decode(&Native, &request).unwrap(), &[result]));
    with_snapshots_of("native", || {
        let mut applied = reranked(vec![scored(0.25), scored(0.75), scored(1.0)]);
        insta::assert_snapshot!("applied.answer", answer_of(applied.clone()));

        let mut judgments = vec![Judgment::unscored("late"), scored(0.5), scored(0.0)];
        judgments[1].truncated = true;
        judgments[1].explanation = Some("model 0.5".into());
        let mut partial = reranked(judgments);
        partial.query_truncated = true;
        insta::assert_snapshot!("partial.answer", answer_of(partial));

        applied.ranking = Ranking::first_stage(3, "deadline");
        applied.status = Status::Failed(FailReason::Deadline);
        insta::assert_snapshot!("failed.answer", answer_of(applied.clone()));

        applied.ranking = Ranking::first_stage(3, "empty");
        applied.status = Status::Skipped(SkipReason::NoText);
        insta::assert_snapshot!("skipped.answer", answer_of(applied));
    });
}

#[test]
fn without_a_first_stage_there_are_no_ranks_and_without_explain_no_explanations() {
    let request = br#"{"query":"q","documents":["a",{"fields":{}}],"top_n":1}"#;
    let mut result = reranked(vec![scored(0.5), Judgment::unscored("empty")]);
    result.first_stage = FirstStage::None;
    let answer = answer(decode(&Native, request).unwrap(), &[result]);
    let results = body(&answer).split("\"timings_ms\"").next().unwrap();
    insta::assert_snapshot!(results, @r#"{"policy":"semantic-blend","version":"3f2a91c0","status":"partial","score_kind":"blend","results":[{"index":0,"score":0.5}],"unscored":1,"#);
}

#[test]
fn the_first_stage_needs_a_score_on_every_document() {
    let first_stage = |body: &str| {
        let request = request(&Native, body.as_bytes());
        let scores = request
            .documents
            .iter()
            .map(|document| document.first_stage_score);
        (request.first_stage, scores.collect::<Vec<_>>())
    };
    let both = r#"{"query":"q","documents":[{"score":2},{"score":1.5}]}"#;
    assert_eq!(
        first_stage(both),
        (FirstStage::Scored, vec![Some(2.0), Some(1.5)])
    );
    let one = r#"{"query":"q","documents":[{"score":2},{"score":null}]}"#;
    assert_eq!(first_stage(one), (FirstStage::None, vec![None, None]));
    let ordered = r#"{"query":"q","ordered":true,"documents":[{"score":2},"text"]}"#;
    assert_eq!(first_stage(ordered), (FirstStage::Ranked, vec![None, None]));
}

#[test]
fn half_a_surrogate_pair_is_replaced_also_in_nested_values_and_names() {
    let body = br#"{"query":"\udc5f q","documents":[{"fields":{"\ud83d":"a\ud83db","o":["\ud83d",1,"\ud83d\udc5f\\u"]}}]}"#;
    let request = request(&Native, body);
    assert_eq!(request.query, "\u{fffd} q");
    let fields = &request.documents[0].fields;
    assert_eq!(fields[0].name, "\u{fffd}");
    assert_eq!(fields[0].value, Value::Text("a\u{fffd}b".into()));
    let nested = r#"["\ufffd",1,"\ud83d\udc5f\\u"]"#;
    assert_eq!(fields[1].value, Value::Json(nested.into()));
    assert!(serde_json::from_str::<serde_json::Value>(nested).is_ok());
}

#[test]
fn the_last_of_two_equal_keys_counts() {
    let body = br#"{"query":"a","query":"b","documents":[{"fields":{"x":1,"y":2,"x":3}}]}"#;
    let request = request(&Native, body);
    assert_eq!(request.query, "b");
    let fields: Vec<_> = request.documents[0]
        .fields
        .iter()
        .map(|field| (&*field.name, &field.value))
        .collect();
    assert_eq!(
        fields,
        [("y", &Value::Integer(2)), ("x", &Value::Integer(3))]
    );
}

#[test]
fn every_refusal_says_where_what_and_what_would_be_right() {
    let many = format!(
        r#"{{"query":"q","documents":[{}]}}"#,
        ["\"d\""; 9].join(",")
    );
    let deep = format!(
        r#"{{"query":"q","documents":[{{"fields":{{"f":{}{}}}}}]}}"#,
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let all_deep = "[".repeat(10_000) + &"]".repeat(10_000);
    let unclosed = "[".repeat(10_000);
    let documents = |documents: &str| format!(r#"{{"query":"q","documents":{documents}}}"#);
    let option = |option: &str| format!(r#"{{"query":"q","documents":["d"],{option}}}"#);
    let bodies: Vec<String> = [
        "",
        "  \n",
        "[]",
        "\"text\"",
        "null",
        "{\"query\":\n  q}",
        "{} {}",
        "{\"query\":\"q\"",
        "{}",
        r#"{"query":"q"}"#,
        r#"{"documents":["d"]}"#,
        r#"{"query":null,"documents":["d"]}"#,
        r#"{"query":" \t","documents":["d"]}"#,
        r#"{"query":["q"],"documents":["d"]}"#,
        r#"{"quary":"q","Documents":["d"],"topN":3,"extra":null}"#,
        &unclosed,
        &all_deep,
        &deep,
        &many,
    ]
    .into_iter()
    .map(str::to_owned)
    .chain(
        [
            "[]",
            "{}",
            "\"d\"",
            "[1]",
            "[\"d\",null]",
            r#"["d",{"text":"t","title":"u"}]"#,
            r#"[{"id":true}]"#,
            r#"[{"score":"1"}]"#,
            r#"[{"score":1e999}]"#,
            r#"[{"fields":["a"]}]"#,
            r#"[{"fields":{"price":1e999}}]"#,
            r#"[{"fields":{"odd name":{"a":[1,-1e400]}}}]"#,
            r#"[{"fields":{"n":[1,1e999]}}]"#,
        ]
        .map(documents),
    )
    .chain(
        [
            r#""top_n":0"#,
            r#""top_n":-1"#,
            r#""top_n":2.5"#,
            r#""top_n":"3""#,
            r#""min_score":true"#,
            r#""min_score":1e999"#,
            r#""explain":1"#,
            r#""ordered":"yes""#,
            r#""timeout_ms":0"#,
            r#""on_failure":"firststage""#,
            r#""on_failure":false"#,
            r#""key":17"#,
            r#""parameters":[]"#,
            r#""parameters":{"a":1e999}"#,
            r#""signals":"FR""#,
            r#""signals":{"n":1e999}"#,
            r#""fields":"text""#,
            r#""fields":[]"#,
            r#""fields":["text",""]"#,
            r#""fields":["text","text"]"#,
            r#""fields":["text",1]"#,
            r#""fields":["text","titel"]"#,
            r#""parameters":{"fields":["titel"]}"#,
            r#""window":3"#,
        ]
        .map(option),
    )
    .collect();
    let bodies: Vec<&str> = bodies.iter().map(String::as_str).collect();
    with_snapshots_of("native", || {
        insta::assert_snapshot!("refusals", refusals(&Native, &bodies));
    });
}

#[test]
fn a_body_that_is_not_utf8_is_refused_with_the_byte() {
    let error = decode(&Native, b"{\"query\":\"\xff\"}").err().unwrap();
    assert_eq!(
        error.message,
        "the body is not UTF-8: byte 10 starts no character"
    );
}

#[test]
fn a_ranking_of_another_request_is_an_internal_error() {
    let body = fixture("native", "texts.request.json");
    let one = reranked(vec![scored(1.0)]);
    for results in [vec![], vec![one.clone()], vec![one.clone(), one]] {
        let error = decode(&Native, &body)
            .unwrap()
            .reply
            .encode(&results)
            .unwrap_err();
        assert_eq!(error.kind, ErrorKind::Internal);
    }
}

#[test]
fn error_bodies() {
    let bad = RerankError::bad_request("documents[3].id", "expected a string, got `true`");
    let overloaded = RerankError::new(ErrorKind::Overloaded, "no room for 12000 tokens");
    let overloaded = overloaded.with_retry_after(Duration::from_millis(1200));
    with_snapshots_of("native", || {
        let answer = Native.encode_error(&bad, "01hx");
        insta::assert_snapshot!("bad-request.answer", shown(&answer));
        let answer = Native.encode_error(&overloaded, "01hy");
        insta::assert_snapshot!("overloaded.answer", shown(&answer));
    });
    let soon = RerankError::new(ErrorKind::ShuttingDown, "x").with_retry_after(Duration::ZERO);
    assert_eq!(header(&Native.encode_error(&soon, ""), "retry-after"), "1");
}
