//! What holds of every request: order and company of the documents do not change their scores, and
//! one bad document does not change the others.

use std::sync::LazyLock;

use proptest::prelude::*;
use rerankd_tests::answer::assert_same_bits;
use rerankd_tests::documents::products;
use rerankd_tests::{Answer, Rerankd};
use serde_json::{Value, json};

static SERVER: LazyLock<Rerankd> = LazyLock::new(|| Rerankd::start(&["--timeout-ms", "60000"]));

/// How far scores of an fp32 model may lie apart where its rows share runs with others.
const FP32_TOLERANCE: f64 = 1e-5;

/// Each case is a few requests to a real model.
fn config() -> ProptestConfig {
    ProptestConfig {
        cases: 64,
        max_shrink_iters: 200,
        // A case that failed once stands in the source as a test of its own.
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// Words that the test model has in its vocabulary, and some that it has not.
fn text() -> impl Strategy<Value = String> {
    let words = vec![
        "clog",
        "boot",
        "smart",
        "watch",
        "battery",
        "kids",
        "red",
        "42",
        "dvd",
        "player",
        "für",
        "uhren時計",
        "qwertz",
        "a",
        "the",
        "-",
        "V386",
        "wasserdicht",
    ];
    let sentence = proptest::collection::vec(proptest::sample::select(words), 1..25)
        .prop_map(|words| words.join(" "));
    let titles: Vec<String> = products()
        .into_iter()
        .map(|(_, _, fields)| {
            fields["title"]
                .as_str()
                .expect("a product has a title")
                .to_owned()
        })
        .collect();
    // More letters than the rest has, whatever that is: else nobody reads it.
    let odd = ("\\PC{1,20}", "[a-z]{21,30}").prop_map(|(odd, word)| format!("{odd} {word}"));
    prop_oneof![3 => sentence, 1 => proptest::sample::select(titles), 1 => odd]
}

fn query() -> impl Strategy<Value = String> {
    proptest::sample::select(vec![
        "smart watch",
        "clog",
        "red boot kids",
        "dvd",
        "für kids",
    ])
    .prop_map(str::to_owned)
}

/// Documents, and the same in another order: the second holds positions in the first.
fn shuffled() -> impl Strategy<Value = (Vec<String>, Vec<usize>)> {
    proptest::collection::vec(text(), 1..20).prop_flat_map(|texts| {
        let positions: Vec<usize> = (0..texts.len()).collect();
        (Just(texts), Just(positions).prop_shuffle())
    })
}

/// What a document without anything to score may look like.
fn bad_document() -> impl Strategy<Value = Value> {
    proptest::sample::select(vec![
        json!({}),
        json!({"fields": {}}),
        json!({"fields": {"text": ""}}),
        json!({"fields": {"title": " \t", "text": "\u{a0}"}}),
        json!({"fields": {"price": 29.9, "brand": "crocs"}}),
        json!({"fields": {"text": [1, 2], "title": {"a": "clog"}}}),
        json!({"fields": {"text": null}}),
    ])
}

fn rerank(policy: &str, request: &Value) -> Answer {
    SERVER.post(&format!("/v1/rerank/{policy}"), request).ok()
}

fn scores(policy: &str, query: &str, documents: &[String]) -> Vec<Option<f64>> {
    rerank(policy, &json!({"query": query, "documents": documents})).scores()
}

/// Equal bit by bit where the model runs each row alone (int8), else within the tolerance.
#[track_caller]
fn assert_same_scores(policy: &str, one: &[Option<f64>], other: &[Option<f64>]) {
    if policy == "semantic-blend" {
        return assert_same_bits(one, other);
    }
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().zip(other) {
        let (Some(one), Some(other)) = (one, other) else {
            panic!("{one:?} against {other:?}");
        };
        assert!(
            (one - other).abs() <= FP32_TOLERANCE,
            "{one} against {other}"
        );
    }
}

const MODEL_POLICIES: [&str; 2] = ["semantic-blend", "cross-encoder"];

proptest! {
    #![proptest_config(config())]

    #[test]
    fn without_a_first_stage_no_permutation_changes_a_score(
        query in query(), (texts, positions) in shuffled(),
    ) {
        for policy in MODEL_POLICIES {
            let expected = scores(policy, &query, &texts);
            prop_assert!(expected.iter().all(Option::is_some), "{:?}", expected);
            let permuted: Vec<String> = positions.iter().map(|&at| texts[at].clone()).collect();
            let got = scores(policy, &query, &permuted);
            let expected: Vec<_> = positions.iter().map(|&at| expected[at]).collect();
            assert_same_scores(policy, &got, &expected);
        }
    }

    #[test]
    fn no_score_depends_on_company(query in query(), texts in proptest::collection::vec(text(), 1..8)) {
        for policy in MODEL_POLICIES {
            let together = scores(policy, &query, &texts);
            for (index, text) in texts.iter().enumerate() {
                let alone = scores(policy, &query, std::slice::from_ref(text));
                assert_same_scores(policy, &alone, &together[index..=index]);
            }
        }
    }

    #[test]
    fn a_bad_document_changes_no_other(
        query in query(),
        texts in proptest::collection::vec((text(), 0..1000_i32), 1..10),
        bad in bad_document(),
        bad_score in -2000..2000_i32,
        at in any::<proptest::sample::Index>(),
        normalization in proptest::sample::select(vec!["min-max", "z-score"]),
    ) {
        for scored in [false, true] {
            let mut documents: Vec<Value> = texts
                .iter()
                .map(|(text, score)| match scored {
                    true => json!({"score": f64::from(*score) / 8.0, "fields": {"text": text}}),
                    false => json!({"fields": {"text": text}}),
                })
                .collect();
            let parameters = json!({"normalization": normalization});
            let request = |documents: &[Value], policy: &str| match policy {
                "semantic-blend" => json!({"query": query, "documents": documents, "parameters": parameters}),
                _ => json!({"query": query, "documents": documents}),
            };
            let without = MODEL_POLICIES.map(|policy| rerank(policy, &request(&documents, policy)));

            let at = at.index(documents.len() + 1);
            let mut bad = bad.clone();
            if scored {
                bad["score"] = json!(bad_score);
            }
            documents.insert(at, bad);
            for (policy, without) in MODEL_POLICIES.iter().zip(without) {
                let answer = rerank(policy, &request(&documents, policy));
                prop_assert_eq!(answer.unscored(), [(at, "empty".to_owned())]);
                prop_assert_eq!(answer.parameter("status"), Some("partial"));

                let mut scores = answer.scores();
                scores.remove(at);
                assert_same_scores(policy, &scores, &without.scores());

                let mut order = answer.order();
                prop_assert_eq!(order.pop(), Some(at), "it follows the others");
                let order: Vec<usize> = order.into_iter().map(|index| index - usize::from(index > at)).collect();
                prop_assert_eq!(order, without.order());
            }
        }
    }

    #[test]
    fn the_first_stage_is_kept_by_the_policy_that_keeps_it(
        scores in proptest::collection::vec(-1e6..1e6_f64, 1..30),
    ) {
        let documents: Vec<Value> = scores.iter().map(|score| json!({"score": score})).collect();
        let answer = rerank("first-stage", &json!({"query": "q", "documents": documents}));
        let expected: Vec<_> = scores.iter().copied().map(Some).collect();
        assert_same_bits(&answer.scores(), &expected);
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        prop_assert_eq!(answer.order(), order);
    }

    #[test]
    fn whatever_the_body_is_the_answer_is_no_500(body in body()) {
        for path in [
            "/v1/rerank/semantic-blend",
            "/v1/rerank/cross-encoder/hits",
            "/inference/cross/tiny-cross-encoder",
            "/inference/encoder/all-minilm-l6-v2",
        ] {
            let answer = SERVER.post_text(path, &body);
            prop_assert!([200, 400, 413, 424].contains(&answer.status), "{} {}", answer.status, answer.text());
            if answer.status != 200 {
                prop_assert!(!answer.error_message().is_empty());
            }
        }
    }
}

/// Bodies that are nearly right: a good one with a part cut out, doubled, or replaced.
fn body() -> impl Strategy<Value = Vec<u8>> {
    let good = proptest::sample::select(vec![
        r#"{"query":"q","documents":[{"id":"a","score":1.5,"fields":{"title":"t","n":[1,2]}},"text"],"top_n":1}"#,
        r#"{"query":"q","response":{"hits":{"max_score":2.0,"hits":[{"_id":"a","_score":2.0,"_source":{"text":"t"}}]}},"window":3}"#,
        r#"{"input":[{"query":"q","text":"t"},{"query":"r","text":"u"}]}"#,
        r#"{"texts":["t","é👟"]}"#,
    ]);
    let pieces = proptest::sample::select(vec![
        "null",
        "\"",
        "{",
        "]",
        ",",
        "-1",
        "1e999",
        "\\ud83d",
        "\u{0}",
        "[[[[",
        "\"query\":",
        "true",
    ]);
    (
        good,
        pieces,
        any::<proptest::sample::Index>(),
        any::<proptest::sample::Index>(),
        0..3_u8,
    )
        .prop_map(|(good, piece, from, to, how)| {
            let mut bytes = good.as_bytes().to_vec();
            let (from, to) = (from.index(bytes.len()), to.index(bytes.len()));
            let range = from.min(to)..from.max(to).min(from.min(to) + 12);
            match how {
                0 => drop(bytes.drain(range)),
                1 => drop(bytes.splice(range, piece.bytes())),
                _ => {
                    let again = bytes[range.clone()].to_vec();
                    bytes.splice(range.end..range.end, again);
                }
            }
            bytes
        })
}
