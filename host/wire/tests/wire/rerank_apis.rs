//! The rerank APIs: who is told from whom, what recorded requests mean, and the rules by which one
//! answer fits the most clients.

use proptest::collection::vec;
use proptest::prelude::*;
use rerankd_core::{
    ErrorKind, FailReason, Judgment, Outcome, Ranking, RerankError, Reranked, ScoreKind, Status,
    TokenCount, UnitMap,
};
use rerankd_wire::dashscope::DashScope;
use rerankd_wire::mixedbread::Mixedbread;
use rerankd_wire::ollama::Ollama;
use rerankd_wire::superset::Superset;
use rerankd_wire::{
    PROTOCOLS, Protocol, SHARED_PATHS, infinity, nvidia, routes, tei, vllm, voyage,
};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::support::{
    answer, body, decode, filtered, fixture, fixture_folder, header, request, reranked, scored,
    shown, with_snapshots_of,
};

/// A finished request of a policy that gives probabilities.
pub(crate) fn probabilities(judgments: Vec<Judgment>) -> Reranked {
    Reranked {
        score_kind: ScoreKind::Probability,
        tokens: TokenCount {
            total: 12,
            ..TokenCount::default()
        },
        ..reranked(judgments)
    }
}

/// A result for each request: 0.25 for the first document, 0.75 for the second.
fn results(decoded: &rerankd_wire::Decoded<'_>) -> Vec<Reranked> {
    let requests = decoded.requests.iter();
    requests
        .map(|request| {
            let scores = (0..request.documents.len()).map(|index| scored([0.25, 0.75][index % 2]));
            probabilities(scores.collect())
        })
        .collect()
}

#[test]
fn recorded_requests_mean_what_their_clients_want_and_are_answered_in_their_words() {
    for &protocol in &PROTOCOLS[3..] {
        let mut files: Vec<String> = std::fs::read_dir(fixture_folder(protocol.name()))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".request.json"))
            .collect();
        files.sort();
        for file in files {
            let sent = fixture(protocol.name(), &file);
            let decoded = decode(protocol, &sent).unwrap();
            let mut text = format!("{:?}\n", decoded.target);
            for request in &decoded.requests {
                text.push_str(&format!(
                    "{:?} fields {:?} top_n {:?} raw_scores {} on_failure {:?}\n",
                    request.query,
                    request.fields,
                    request.top_n,
                    request.raw_scores,
                    request.on_failure
                ));
                for document in &request.documents {
                    text.push_str(&format!("  {:?}\n", document.fields));
                }
            }
            let results = results(&decoded);
            text.push_str(&shown(&answer(decoded, &results)));
            let name = file.replace(".request.json", "");
            with_snapshots_of(protocol.name(), || insta::assert_snapshot!(name, text));
        }
    }
}

#[test]
fn a_body_says_which_protocol_it_speaks() {
    let told = |path: &str, body: &str| {
        let routes = routes();
        let route = routes.iter().find(|route| route.path == path).unwrap();
        route.protocol(body.as_bytes()).name()
    };
    for &path in SHARED_PATHS {
        for (body, name) in [
            (r#"{"documents":["a"],"query":"q","top_n":1}"#, "superset"),
            (r#"{"documents":[],"top_n":1,"top_k":1}"#, "superset"),
            (
                r#"{"documents":[],"top_k":null,"truncation":true}"#,
                "voyage",
            ),
            (r#"{"documents":[],"top_k":3}"#, "voyage"),
            (r#"{"documents":[],"kwargs":"{}"}"#, "xinference"),
            (r#"{"documents":[],"return_len":null}"#, "xinference"),
            (r#"{"documents":[],"use_activation":null}"#, "vllm"),
            (r#"{"texts":[]}"#, "tei"),
            (r#"{"texts":null,"top_n":1}"#, "tei"),
            (r#"{"inputs":[]}"#, "tei-predict"),
            (r#"{"query":{"text":"q"},"passages":[]}"#, "nvidia"),
            (r#"{"query":"q","input":[],"top_k":1}"#, "mixedbread"),
            (r#"{"input":{"query":"q"}}"#, "dashscope"),
        ] {
            assert_eq!(told(path, body), name, "{path} {body}");
        }
    }
    for (path, name) in [
        ("/v1/rerank", "superset"),
        ("/v2/rerank", "superset"),
        ("/rerank", "superset"),
        ("/v1/reranking", "superset"),
        ("/reranking", "superset"),
        ("/", "tei"),
        ("/invocations", "tei"),
        ("/v1/ranking", "nvidia"),
        ("/v1/retrieval/{vendor}/reranking", "nvidia"),
        ("/v1/retrieval/{vendor}/{model}/reranking", "nvidia"),
    ] {
        for body in ["", "{", "[]", "null", "{}", r#"{"query":"q"}"#] {
            assert_eq!(told(path, body), name, "{path} {body}");
        }
    }
    // Paths of one protocol alone.
    for (path, body, name) in [
        ("/voyage/v1/rerank", r#"{"documents":[]}"#, "voyage"),
        ("/predict", r#"{"texts":[]}"#, "tei-predict"),
        ("/score", r#"{"texts":[]}"#, "vllm-score"),
        ("/v1/score", "{}", "vllm-score"),
        ("/infinity/rerank", r#"{"texts":[]}"#, "infinity"),
        ("/bedrock/rerank", r#"{"documents":[]}"#, "bedrock"),
        ("/api/rerank", r#"{"top_k":1}"#, "ollama"),
        (
            "/api/v1/services/rerank/text-rerank/text-rerank",
            r#"{"documents":[]}"#,
            "dashscope",
        ),
    ] {
        assert_eq!(told(path, body), name, "{path} {body}");
    }
}

#[test]
fn no_path_belongs_to_two_protocols() {
    let mut paths: Vec<&str> = routes().iter().map(|route| route.path).collect();
    let count = paths.len();
    paths.sort_unstable();
    paths.dedup();
    assert_eq!(paths.len(), count);
    assert!(SHARED_PATHS.iter().all(|path| paths.contains(path)));
}

/// Scores of one document each, as the superset prints them.
fn printed(map: UnitMap, score: f64) -> String {
    let sent = r#"{"query":"q","documents":["a"]}"#;
    let decoded = decode(&Superset, sent.as_bytes()).unwrap();
    let result = Reranked {
        unit_map: map,
        ..probabilities(vec![scored(score)])
    };
    let answer = answer(decoded, &[result]);
    lines(body(&answer))[0].1.clone()
}

#[derive(Deserialize)]
struct Line {
    index: usize,
    relevance_score: Box<RawValue>,
}

#[derive(Deserialize)]
struct Lines {
    results: Vec<Line>,
}

/// Index and number of each result, the number as it is spelt.
fn lines(body: &str) -> Vec<(usize, String)> {
    let lines: Lines = serde_json::from_str(body).unwrap();
    let lines = lines.results.into_iter();
    lines
        .map(|line| (line.index, line.relevance_score.get().to_owned()))
        .collect()
}

#[test]
fn scores_have_a_point_at_most_15_decimals_and_no_exponent() {
    for (score, text) in [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1.0, "1.0"),
        (0.1, "0.1"),
        (0.5, "0.5"),
        (1.0 / 3.0, "0.333333333333333"),
        (0.002_511_463_513_809_853_4, "0.00251146351381"),
        (0.999_999_999_999_999_9, "1.0"),
        (1e-15, "0.000000000000001"),
        (4.9e-16, "0.0"),
        (1e-300, "0.0"),
        (1.000_000_1, "1.0"),
    ] {
        assert_eq!(
            printed(UnitMap::Identity, score).trim_start_matches('-'),
            text.trim_start_matches('-')
        );
    }
    assert_eq!(printed(UnitMap::Sigmoid, 0.0), "0.5");
    assert_eq!(printed(UnitMap::Sigmoid, -800.0), "0.0");
    assert_eq!(printed(UnitMap::Sigmoid, 800.0), "1.0");
    assert_eq!(printed(UnitMap::Cosine, -1.0), "0.0");
    assert_eq!(printed(UnitMap::Cosine, 0.5), "0.75");
}

#[test]
fn a_score_out_of_its_range_is_the_policys_fault() {
    let sent = r#"{"query":"q","documents":["a"]}"#;
    let decoded = decode(&Superset, sent.as_bytes()).unwrap();
    let result = probabilities(vec![scored(1.5)]);
    let error = decoded.reply.encode(&[result]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::PolicyFault);
    assert!(error.message.contains("`blend_map`"), "{error}");
}

#[test]
fn raw_scores_are_the_shortest_f32_with_a_point() {
    let decoded = |raw: bool| {
        let body = if raw {
            br#"{"query":"q","texts":["a"],"raw_scores":true}"#.as_slice()
        } else {
            br#"{"query":"q","texts":["a"]}"#
        };
        decode(&tei::Rerank, body).unwrap()
    };
    assert!(decoded(true).requests[0].raw_scores && !decoded(false).requests[0].raw_scores);
    for (score, text) in [
        (3.0, "3.0"),
        (-10.2, "-10.2"),
        (f64::from(-0.067_123_f32), "-0.067123"),
        (1.0 / 3.0, "0.33333334"),
    ] {
        let result = Reranked {
            unit_map: UnitMap::Sigmoid,
            ..probabilities(vec![scored(score)])
        };
        let answer = answer(decoded(true), &[result]);
        assert_eq!(body(&answer), format!(r#"[{{"index":0,"score":{text}}}]"#));
    }
}

#[test]
fn all_documents_come_back_and_warnings_count_those_without_a_score() {
    let judgments = vec![
        filtered(),
        Judgment::unscored("late"),
        scored(0.2),
        Judgment::unscored("empty"),
        scored(0.9),
        Judgment::unscored("empty"),
    ];
    let sent = r#"{"query":"q","documents":["a","b","c","d","e","f"]}"#;
    let listed = answer(
        decode(&Superset, sent.as_bytes()).unwrap(),
        &[probabilities(judgments.clone())],
    );
    let order: Vec<usize> = lines(body(&listed))
        .iter()
        .map(|(index, _)| *index)
        .collect();
    assert_eq!(order, [4, 2, 1, 3, 5, 0]);
    let json: Value = serde_json::from_slice(&listed.body).unwrap();
    assert_eq!(
        json["meta"]["warnings"],
        json!([
            "3 of 6 documents could not be scored and follow at 0.0: `empty` 2, `late` 1",
            "1 of 6 documents were filtered by the policy and follow at 0.0"
        ])
    );
    // What nobody asked for is there once.
    assert_eq!(json["results"][0]["document"], json!({"text": "e"}));
    assert!(json["data"].as_array().unwrap().iter().all(|result| {
        result
            .as_object()
            .unwrap()
            .keys()
            .all(|key| key == "index" || key == "relevance_score")
    }));

    // Of a probability the floor is known, raw or not.
    let raw = r#"{"query":"q","texts":["a","b","c","d","e","f"],"raw_scores":true}"#;
    let listed = answer(
        decode(&tei::Rerank, raw.as_bytes()).unwrap(),
        &[probabilities(judgments)],
    );
    let order: Vec<(u64, f64)> = serde_json::from_slice::<Vec<Value>>(&listed.body)
        .unwrap()
        .iter()
        .map(|rank| {
            (
                rank["index"].as_u64().unwrap(),
                rank["score"].as_f64().unwrap(),
            )
        })
        .collect();
    assert_eq!(
        order,
        [(4, 0.9), (2, 0.2), (5, 0.0), (3, 0.0), (1, 0.0), (0, 0.0)]
    );
}

#[test]
fn ties_keep_the_order_save_where_clients_know_another() {
    let documents = r#"["a","b","c","d"]"#;
    let tied = || probabilities([0.5, 0.7, 0.5, 0.5].map(scored).to_vec());
    let sent = format!(r#"{{"query":"q","documents":{documents}}}"#);
    let listed = answer(decode(&Superset, sent.as_bytes()).unwrap(), &[tied()]);
    let order: Vec<usize> = lines(body(&listed))
        .iter()
        .map(|(index, _)| *index)
        .collect();
    assert_eq!(order, [1, 0, 2, 3]);
    let sent = format!(r#"{{"query":"q","texts":{documents}}}"#);
    let listed = answer(decode(&tei::Rerank, sent.as_bytes()).unwrap(), &[tied()]);
    assert_eq!(
        body(&listed),
        r#"[{"index":1,"score":0.7},{"index":3,"score":0.5},{"index":2,"score":0.5},{"index":0,"score":0.5}]"#
    );
}

#[test]
fn order_and_min_score_go_by_what_is_printed() {
    // They differ behind the last decimal that is printed.
    let scores = vec![scored(0.5), scored(0.500_000_000_000_000_1), scored(0.4)];
    let sent = r#"{"query":"q","documents":["a","b","c"],"min_score":0.5}"#;
    let listed = answer(
        decode(&Superset, sent.as_bytes()).unwrap(),
        &[probabilities(scores)],
    );
    assert_eq!(
        lines(body(&listed)),
        [(0, "0.5".to_owned()), (1, "0.5".to_owned())]
    );
}

#[test]
fn where_first_stage_order_is_allowed_scores_fall_with_the_rank_and_a_warning_says_so() {
    let sent = r#"{"query":"q","documents":["a","b","c"],"on_failure":"first-stage"}"#;
    let failed = || Reranked {
        status: Status::Failed(FailReason::Deadline),
        ranking: Ranking::first_stage(3, "late"),
        ..probabilities(vec![])
    };
    let listed = answer(decode(&Superset, sent.as_bytes()).unwrap(), &[failed()]);
    assert_eq!(
        lines(body(&listed)),
        [
            (0, "0.75".to_owned()),
            (1, "0.5".to_owned()),
            (2, "0.25".to_owned())
        ]
    );
    assert!(
        body(&listed).contains("reranking failed (deadline)"),
        "{}",
        body(&listed)
    );
    assert!(header(&listed, "rerank-status").contains("status=failed;reason=deadline"));

    // A form with a score for each pair has no room for that.
    let score = r#"{"queries":"q","documents":["a","b","c"]}"#;
    let decoded = decode(&vllm::Score, score.as_bytes()).unwrap();
    let error = decoded.reply.encode(&[failed()]).unwrap_err();
    assert_eq!(error.kind, ErrorKind::DeadlineExceeded);
    assert_eq!(
        error.message,
        "`documents[0]`: was not scored before the deadline"
    );
}

#[test]
fn a_text_that_does_not_fit_is_an_error_only_for_those_who_want_it_whole() {
    let cut = || Reranked {
        tokens: TokenCount {
            total: 512,
            longest: 512,
            longest_cut: Some(534),
            window: 512,
            ..TokenCount::default()
        },
        ..probabilities(vec![scored(0.5)])
    };
    let encode = |protocol: &dyn Protocol, body: &str| {
        let decoded = decode(protocol, body.as_bytes()).unwrap();
        decoded.reply.encode(&[cut()])
    };
    for (protocol, body) in [
        (
            &tei::Rerank as &dyn Protocol,
            r#"{"query":"q","texts":["a"],"truncate":false}"#,
        ),
        (&tei::Predict, r#"{"inputs":["q","a"],"truncate":false}"#),
        (
            &voyage::Voyage,
            r#"{"query":"q","documents":["a"],"truncation":false}"#,
        ),
    ] {
        let error = encode(protocol, body).unwrap_err();
        assert_eq!(error.kind, ErrorKind::TooLong);
        assert_eq!(
            error.message,
            "Input validation error: `inputs` must have less than 512 tokens. Given: 534"
        );
        encode(protocol, &body.replace("false", "true")).unwrap();
        encode(protocol, &body.replace("false", "null")).unwrap();
    }
    // Only the end of a text can be cut, which is no use to who wants to keep it.
    for (direction, fits) in [("left", false), ("Left", false), ("right", true)] {
        let body = format!(r#"{{"query":"q","texts":["a"],"truncation_direction":"{direction}"}}"#);
        let answer = encode(&tei::Rerank, &body);
        assert_eq!(answer.is_ok(), fits, "{direction}");
        if let Err(error) = answer {
            assert_eq!(error.kind, ErrorKind::TooLong);
            assert!(
                error.message.contains("`truncation_direction`"),
                "{error:?}"
            );
        }
    }
}

#[test]
fn documents_may_be_objects_whose_fields_are_named() {
    let body = |more: &str| {
        format!(
            r#"{{"query":"q","documents":[{{"title":"t","body":"b","price":3,"tags":["x"]}}]{more}}}"#
        )
    };
    let named = request(
        &Superset,
        body(r#","rank_fields":["body","price"]"#).as_bytes(),
    );
    assert_eq!(
        named.fields,
        Some(vec!["body".to_owned(), "price".to_owned()])
    );
    // The policy decides what else it is shown.
    assert_eq!(named.documents[0].fields.len(), 4);

    let sent = body(r#","rank_fields":["body","price"],"return_documents":true"#);
    let listed = answer(
        decode(&Superset, sent.as_bytes()).unwrap(),
        &[probabilities(vec![scored(0.5)])],
    );
    let json: Value = serde_json::from_slice(&listed.body).unwrap();
    assert_eq!(
        json["results"][0]["document"],
        json!({"text": "b 3", "title": "t", "body": "b", "price": 3, "tags": ["x"]})
    );

    let mixed = br#"{"query":"q","documents":["a",{"title":"t"}],"rank_fields":["title"]}"#;
    assert_eq!(
        request(&Superset, mixed).fields,
        Some(vec!["title".to_owned(), "text".to_owned()])
    );
    let texts = br#"{"query":"q","documents":["a"],"rank_fields":["title"]}"#;
    assert_eq!(request(&Superset, texts).fields, None);
}

#[test]
fn null_means_the_default_everywhere() {
    for (protocol, required) in [
        (
            &Superset as &dyn Protocol,
            r#""query":"q","documents":["a"]"#,
        ),
        (&voyage::Voyage, r#""query":"q","documents":["a"]"#),
        (&vllm::Rerank, r#""query":"q","documents":["a"]"#),
        (&vllm::Score, r#""queries":"q","documents":["a"]"#),
        (&infinity::Infinity, r#""query":"q","documents":["a"]"#),
        (&nvidia::Nvidia, r#""query":"q","passages":["a"]"#),
        (&tei::Rerank, r#""query":"q","texts":["a"]"#),
        (&tei::Predict, r#""inputs":["q","a"]"#),
        (&Mixedbread, r#""query":"q","input":["a"]"#),
        (&Ollama, r#""query":"q","documents":["a"]"#),
        (&DashScope, r#""input":{"query":"q","documents":["a"]}"#),
    ] {
        let keys = [
            "model",
            "top_n",
            "top_k",
            "return_documents",
            "rank_fields",
            "max_chunks_per_doc",
            "max_tokens_per_doc",
            "truncation",
            "use_activation",
            "raw_scores",
            "return_text",
            "truncate",
            "truncation_direction",
            "return_len",
            "kwargs",
            "return_input",
            "truncation_side",
            "truncate_prompt_tokens",
            "rerankd",
            "parameters",
            "signals",
            "timeout_ms",
            "on_failure",
            "min_score",
            "key",
            "explain",
        ];
        let nulls: Vec<String> = keys.iter().map(|key| format!(r#""{key}":null"#)).collect();
        let with = format!("{{{required},{}}}", nulls.join(","));
        let without = format!("{{{required}}}");
        let with = decode(protocol, with.as_bytes()).unwrap();
        let without = decode(protocol, without.as_bytes()).unwrap();
        assert_eq!(with.requests, without.requests, "{}", protocol.name());
        assert_eq!(with.target, without.target);
        let results = results(&with);
        assert_eq!(answer(with, &results), answer(without, &results));
    }
}

#[test]
fn top_n_of_none_null_or_too_many_is_all() {
    for (top, count) in [
        ("null", 3),
        ("0", 3),
        ("1", 1),
        ("3", 3),
        ("99999999999999999999", 3),
        ("\"2\"", 2),
        ("2.0", 2),
        ("true", 1),
    ] {
        let sent = format!(r#"{{"query":"q","documents":["a","b","c"],"top_n":{top}}}"#);
        let decoded = decode(&Superset, sent.as_bytes()).unwrap();
        let results = results(&decoded);
        assert_eq!(
            lines(body(&answer(decoded, &results))).len(),
            count,
            "{top}"
        );
    }
}

fn judgment() -> impl Strategy<Value = Judgment> {
    prop_oneof![
        4 => prop_oneof![Just(0.5), Just(0.0), Just(1.0), 0.0..=1.0, 0.0..1e-14].prop_map(scored),
        1 => prop_oneof![Just("empty"), Just("late")].prop_map(Judgment::unscored),
        1 => Just(filtered()),
    ]
}

proptest! {
    /// What ML Commons and Elasticsearch rely on.
    #[test]
    fn every_document_comes_back_once_with_a_number_that_strict_readers_take(
        judgments in vec(judgment(), 1..8),
        top_n in proptest::option::of(1..12_usize),
    ) {
        let count = judgments.len();
        let documents = vec!["d"; count];
        let sent = json!({"query": "q", "documents": documents, "top_n": top_n}).to_string();
        let decoded = decode(&Superset, sent.as_bytes()).unwrap();
        let listed = answer(decoded, &[probabilities(judgments.clone())]);
        let lines = lines(body(&listed));
        prop_assert_eq!(lines.len(), top_n.unwrap_or(count).min(count));
        let mut seen: Vec<usize> = lines.iter().map(|(index, _)| *index).collect();
        seen.sort_unstable();
        seen.dedup();
        prop_assert_eq!(seen.len(), lines.len());
        let mut before = 1.0;
        for (index, number) in &lines {
            prop_assert!(number.len() <= 18 && number.contains('.'), "{}", number);
            prop_assert!(!number.contains(['e', 'E']), "{}", number);
            let value: f64 = number.parse().unwrap();
            prop_assert!((0.0..=1.0).contains(&value) && value <= before);
            before = value;
            match judgments[*index].outcome {
                Outcome::Scored(score) => prop_assert!((score - value).abs() < 1e-15),
                _ => prop_assert_eq!(value, 0.0),
            }
        }
    }
}

/// Errors of a place that only the server knows.
pub(crate) fn error_of(kind: ErrorKind) -> RerankError {
    RerankError::new(kind, "what was wrong")
}
