//! Metarank's forms.

use std::time::Duration;

use rerankd_core::{FailReason, FirstStage, Judgment, PolicySelector, Ranking, SkipReason, Status};
use rerankd_wire::Target;
use rerankd_wire::metarank::{Cross, decode_texts, encode_embeddings};

use crate::support::{
    answer, body, decode, filtered, fixture, header, limits, refusals, reranked, scored, shown,
    with_snapshots_of,
};

#[test]
fn each_distinct_query_is_one_request_with_its_texts_in_order() {
    let body = fixture("metarank", "cross.request.json");
    let decoded = decode(&Cross, &body).unwrap();
    let target = PolicySelector {
        name: "semantic-blend".into(),
        version: Some("1.2".into()),
    };
    assert_eq!(decoded.target, Target::PolicyOrModel(target));
    assert!(
        decoded
            .requests
            .iter()
            .all(|request| request.first_stage == FirstStage::None)
    );
    with_snapshots_of("metarank", || {
        insta::assert_snapshot!("cross.decoded", format!("{:#?}", decoded.requests));
    });
}

#[test]
fn scores_come_in_the_inputs_order() {
    let request = fixture("metarank", "cross.request.json");
    let decoded = decode(&Cross, &request).unwrap();
    let cat = reranked(vec![
        scored(f64::from(-10.2_f32)),
        scored(f64::from(7.51_f32)),
    ]);
    let mut dog = reranked(vec![scored(0.1)]);
    dog.timings.total = Duration::from_millis(31);
    with_snapshots_of("metarank", || {
        insta::assert_snapshot!("cross.answer", shown(&answer(decoded, &[cat, dog])));
    });
}

#[test]
fn numbers_always_have_a_point() {
    for (score, text) in [
        (1.0, "1.0"),
        (-0.0, "-0.0"),
        (f64::from(0.1_f32), "0.1"),
        (0.1, "0.1"),
        (1.0 / 3.0, "0.3333333333333333"),
        (2f64.powi(100), "1.2676506e+30"),
        (1e300, "1.0e+300"),
    ] {
        let decoded = decode(&Cross, br#"{"input":[{"query":"q","text":"t"}]}"#).unwrap();
        let answer = answer(decoded, &[reranked(vec![scored(score)])]);
        assert_eq!(body(&answer), format!(r#"{{"scores":[{text}],"took":23}}"#));
    }
}

#[test]
fn an_empty_input_has_an_empty_answer() {
    let decoded = decode(&Cross, br#"{"input":[]}"#).unwrap();
    assert!(decoded.requests.is_empty());
    let answer = answer(decoded, &[]);
    assert_eq!(body(&answer), r#"{"scores":[],"took":0}"#);
    assert_eq!(
        header(&answer, "rerank-status"),
        "rerankd;status=skipped;reason=no-documents"
    );
}

#[test]
fn an_item_without_a_score_is_an_error_of_the_call() {
    let failed = |status, reason: &str| {
        let mut result = reranked(vec![]);
        result.ranking = Ranking::first_stage(2, reason);
        result.status = status;
        result
    };
    let unscored = |judgment| reranked(vec![scored(1.0), judgment]);
    let mut text = String::new();
    for cat in [
        unscored(Judgment::unscored("late")),
        unscored(Judgment::unscored("empty")),
        unscored(Judgment::unscored("not-finite")),
        unscored(filtered()),
        failed(Status::Skipped(SkipReason::NoText), "empty"),
        failed(Status::Failed(FailReason::Deadline), "deadline"),
        failed(Status::Failed(FailReason::Overloaded), "overloaded"),
        failed(Status::Failed(FailReason::Internal), "internal"),
        failed(Status::Failed(FailReason::PolicyFault), "policy-fault"),
        reranked(vec![scored(1.0)]),
    ] {
        let request = fixture("metarank", "cross.request.json");
        let decoded = decode(&Cross, &request).unwrap();
        let error = decoded
            .reply
            .encode(&[cat, reranked(vec![scored(1.0)])])
            .unwrap_err();
        text.push_str(&format!("{}: {error}\n", error.kind.name()));
    }
    with_snapshots_of("metarank", || {
        insta::assert_snapshot!("unscored.refusals", text)
    });
}

#[test]
fn refusals_name_the_place() {
    let many = format!(r#"{{"input":[{}]}}"#, ["1"; 9].join(","));
    let bodies = [
        "{",
        "[]",
        "{}",
        r#"{"input":null}"#,
        r#"{"input":{}}"#,
        r#"{"input":["a"]}"#,
        r#"{"input":[{"query":"q"}]}"#,
        r#"{"input":[{"text":"t"}]}"#,
        r#"{"input":[{"query":"q","text":"t"},{"query":"","text":"t"}]}"#,
        r#"{"input":[{"query":"q","text":7}]}"#,
        &many,
    ];
    with_snapshots_of("metarank", || {
        insta::assert_snapshot!("refusals", refusals(&Cross, &bodies));
    });
}

#[test]
fn the_encoder_form() {
    let body_of = |embeddings: &[Vec<f32>]| {
        let answer = encode_embeddings(embeddings, Duration::from_micros(5900)).unwrap();
        body(&answer).to_owned()
    };
    let texts = decode_texts(&fixture("metarank", "encoder.request.json"), limits()).unwrap();
    assert_eq!(texts, ["Berlin is a capital city", "My cat is fast"]);
    assert_eq!(decode_texts(br#"{"texts":[]}"#, limits()).unwrap(), [""; 0]);
    assert_eq!(
        body_of(&[vec![0.1, 1.0], vec![-0.25, 3e-8]]),
        r#"{"embeddings":[[0.1,1.0],[-0.25,3.0e-8]],"took":5}"#
    );
    assert_eq!(body_of(&[]), r#"{"embeddings":[],"took":5}"#);
    assert!(encode_embeddings(&[vec![f32::NAN]], Duration::ZERO).is_err());

    let refused = |body: &str| decode_texts(body.as_bytes(), limits()).unwrap_err().message;
    assert_eq!(
        refused(r#"{"texts":["a",1]}"#),
        "`texts[1]`: expected a string, got `1`"
    );
    assert_eq!(
        refused(r#"{"input":[]}"#),
        "`texts`: missing; expected an array"
    );
}
