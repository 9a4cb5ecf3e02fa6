//! Metarank's inference routes: pairs in, raw scores out; texts in, vectors out.

use std::sync::LazyLock;

use rerankd_tests::documents::texts;
use rerankd_tests::{Answer, Rerankd, guests};
use serde_json::{Value, json};

static SERVER: LazyLock<Rerankd> = LazyLock::new(|| guests::serve(&["--timeout-ms", "60000"]));

const MINILM: &str = "all-minilm-l6-v2";
const TINY: &str = "tiny-cross-encoder";

fn cross(model: &str, pairs: &[(&str, &str)]) -> Answer {
    let input: Vec<Value> = pairs
        .iter()
        .map(|(query, text)| json!({"query": query, "text": text}))
        .collect();
    SERVER.post(
        &format!("/inference/cross/{model}"),
        &json!({"input": input}),
    )
}

fn encode(model: &str, texts: &[&str]) -> Answer {
    SERVER.post(
        &format!("/inference/encoder/{model}"),
        &json!({"texts": texts}),
    )
}

const CROCS: [&str; 3] = [
    "Crocs Jibbitz 5-Pack Alien Shoe Charms",
    "Crocs Specialist Vent Work",
    "Crocs Kids' Baya Clog",
];

#[test]
fn scores_come_in_the_order_of_the_input() {
    for model in [MINILM, TINY] {
        let score = |text: &str| cross(model, &[("crocs", text)]).ok().numbers("scores")[0];
        let alone: Vec<f64> = CROCS.iter().map(|text| score(text)).collect();
        let pairs: Vec<_> = CROCS.iter().map(|&text| ("crocs", text)).collect();
        let answer = cross(model, &pairs).ok();
        assert_eq!(answer.header("content-type"), Some("application/json"));
        assert_eq!(answer.parameter("status"), Some("applied"));
        assert_eq!(answer.parameter("policy"), Some(model));
        let together = answer.numbers("scores");
        for (alone, together) in alone.iter().zip(&together) {
            assert!(
                (alone - together).abs() < 1e-5,
                "{model}: {alone} {together}"
            );
        }
        let reversed: Vec<_> = pairs.iter().rev().copied().collect();
        let mut backwards = cross(model, &reversed).ok().numbers("scores");
        backwards.reverse();
        assert_eq!(together, backwards, "{model}");

        let body = answer.json();
        let keys: Vec<&String> = body.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["scores", "took"]);
        assert!(body["took"].is_u64(), "{body}");
    }
}

#[test]
fn numbers_always_have_a_point() {
    // Typed clients read an integer where there is none.
    let answer = cross(TINY, &[("qwertz", "clog"), ("clog", "clog")]).ok();
    let scores = answer
        .text()
        .split_once('[')
        .and_then(|(_, rest)| rest.split_once(']'));
    let (scores, _) = scores.expect("it has scores");
    assert!(
        scores.split(',').all(|score| score.contains('.')),
        "{scores}"
    );
}

#[test]
fn several_queries_are_scored_each_with_its_texts() {
    let pairs = [
        ("clog", "a clog"),
        ("boot", "a clog"),
        ("clog", "a boot"),
        ("boot", "a boot"),
        ("clog", "a clog"),
    ];
    for model in [MINILM, TINY] {
        let answer = cross(model, &pairs).ok();
        let scores = answer.numbers("scores");
        assert_eq!(scores[0], scores[4]);
        assert!(scores[0] > scores[2] && scores[3] > scores[1], "{scores:?}");
        for (&pair, score) in pairs.iter().zip(&scores) {
            let alone = cross(model, &[pair]).ok().numbers("scores")[0];
            assert!((alone - score).abs() < 1e-5, "{pair:?}: {alone} {score}");
        }
        // Results that differ in numbers alone share a member of the status.
        let status = answer.header("rerank-status").expect("it has a status");
        assert_eq!(
            status.matches("rerankd;status=applied").count(),
            1,
            "{status}"
        );
        let window = pairs.len().to_string();
        assert_eq!(
            answer.parameter("window"),
            Some(window.as_str()),
            "{status}"
        );
    }
}

#[test]
fn an_empty_input_has_an_empty_answer() {
    for model in [MINILM, TINY, "cross-encoder"] {
        let answer = cross(model, &[]).ok();
        assert_eq!(answer.json()["scores"], json!([]));
        assert_eq!(answer.parameter("status"), Some("skipped"));
        assert_eq!(answer.parameter("reason"), Some("no-documents"));
    }
    assert_eq!(encode(MINILM, &[]).ok().json()["embeddings"], json!([]));
    // Still, the name must be one.
    assert_eq!(cross("bert", &[]).status, 404);
    assert_eq!(encode("bert", &[]).status, 404);
}

#[test]
fn a_policy_scores_pairs_unless_its_scores_depend_on_the_others() {
    let pairs = [("clog", "a clog"), ("clog", "a boot")];
    let request = json!({"query": "clog", "documents": ["a clog", "a boot"]});
    for policy in ["cross-encoder", "semantic-blend"] {
        let native = SERVER
            .post(&format!("/v1/rerank/{policy}"), &request)
            .ok()
            .scores();
        let scores = cross(policy, &pairs).ok().numbers("scores");
        // A score that is a single-precision number is printed as one there.
        let single = |scores: Vec<f64>| scores.into_iter().map(|score| score as f32);
        let native: Vec<f64> = native.into_iter().flatten().collect();
        assert!(
            single(scores.clone()).eq(single(native.clone())),
            "{policy}: {scores:?}, {native:?}"
        );
    }
    let refused = cross("first-stage", &pairs);
    assert_eq!(refused.status, 400);
    let message = refused.error_message();
    assert!(
        message.contains("by its place among the others"),
        "{message}"
    );
    assert!(message.contains("/v1/rerank/first-stage"), "{message}");
}

#[test]
fn what_cannot_be_scored_is_an_error_of_the_call() {
    let empty = cross(TINY, &[("clog", "a clog"), ("clog", "  ")]);
    assert_eq!(empty.status, 400);
    assert_eq!(
        empty.error_message(),
        "`input[1].text`: has no text to score"
    );
    assert_eq!(cross(MINILM, &[("clog", "")]).status, 400);

    let fault = cross("trap", &[("clog", "a clog")]);
    assert_eq!(
        (fault.status, fault.parameter("reason")),
        (424, Some("policy-fault"))
    );
    let not_finite = cross("one-nan", &[("clog", "a"), ("clog", "b")]);
    assert_eq!(
        (not_finite.status, not_finite.parameter("reason")),
        (424, Some("policy-fault"))
    );
    let filtered = cross("filters-allowed", &[("clog", "a"), ("clog", "b")]);
    assert_eq!(
        (filtered.status, filtered.parameter("reason")),
        (424, Some("policy-fault"))
    );
}

#[test]
fn vectors_are_pooled_and_not_normalized_and_give_the_cosines_of_the_cross_form() {
    let query = "shoes for children";
    let mut all = vec![query];
    all.extend(CROCS);
    let answer = encode(MINILM, &all).ok();
    assert_eq!(answer.header("rerank-status"), None, "nothing was ranked");
    let body = answer.json();
    let vectors: Vec<Vec<f64>> = body["embeddings"]
        .as_array()
        .expect("it has vectors")
        .iter()
        .map(|vector| {
            let numbers = vector.as_array().expect("a vector is an array");
            numbers.iter().filter_map(Value::as_f64).collect()
        })
        .collect();
    assert_eq!(vectors.len(), 4);
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let length = |vector: &[f64]| dot(vector, vector).sqrt();
    for vector in &vectors {
        assert_eq!(vector.len(), 384);
        assert!(
            (length(vector) - 1.0).abs() > 0.1,
            "it was normalized: {}",
            length(vector)
        );
    }
    let pairs: Vec<_> = CROCS.iter().map(|&text| (query, text)).collect();
    let cosines = cross(MINILM, &pairs).ok().numbers("scores");
    for (vector, expected) in vectors[1..].iter().zip(cosines) {
        let cosine = dot(&vectors[0], vector) / (length(&vectors[0]) * length(vector));
        // Vectors in half precision have length 1 up to 1e-4, and the cross form takes it for 1.
        assert!((cosine - expected).abs() < 1e-4, "{cosine} {expected}");
    }
    let alone = encode(MINILM, &[CROCS[1]]).ok().json();
    assert_eq!(
        alone["embeddings"][0], body["embeddings"][2],
        "no vector depends on its neighbours"
    );
}

#[test]
fn the_encoder_form_says_what_is_wrong() {
    let check = |model: &str, body: &str, status: u16, message: &str| {
        let answer = SERVER.post_text(&format!("/inference/encoder/{model}"), body);
        assert_eq!(answer.status, status, "{body}");
        let text = answer.error_message();
        assert!(text.contains(message), "expected `{message}` in: {text}");
    };
    check(MINILM, "{", 400, "the body is not JSON");
    check(MINILM, "[]", 400, "expected an object, got an array");
    check(MINILM, "{}", 400, "`texts`: missing");
    check(
        MINILM,
        r#"{"texts": "a"}"#,
        400,
        "`texts`: expected an array",
    );
    check(
        MINILM,
        r#"{"texts": ["a", 7]}"#,
        400,
        "`texts[1]`: expected a string, got `7`",
    );
    let many = json!({"texts": vec!["a"; 1001]}).to_string();
    check(
        MINILM,
        &many,
        413,
        "1001 texts are more than the limit of 1000",
    );
    check(TINY, r#"{"texts": ["a"]}"#, 400, "it is a cross-encoder");
    check("bert", r#"{"texts": ["a"]}"#, 404, "no model `bert`");
    // The vector of the empty text would be one of the special tokens alone.
    check(
        MINILM,
        r#"{"texts": ["a", ""]}"#,
        400,
        "`texts[1]`: nothing is left of it",
    );
}

#[test]
fn many_pairs_of_many_queries_lose_nothing() {
    let texts: Vec<String> = texts(60)
        .iter()
        .map(|document| {
            document["fields"]["title"]
                .as_str()
                .expect("a title")
                .to_owned()
        })
        .collect();
    let queries = [
        "smart watch",
        "clog",
        "dvd player",
        "hard disk",
        "battery",
        "bag",
        "tv",
        "pen",
        "cup",
        "lamp",
    ];
    let pairs: Vec<(&str, &str)> = texts
        .iter()
        .enumerate()
        .map(|(index, text)| (queries[index % queries.len()], text.as_str()))
        .collect();
    let scores = cross(MINILM, &pairs).ok().numbers("scores");
    assert_eq!(scores.len(), pairs.len());
    for (&pair, &score) in pairs.iter().zip(&scores).step_by(7) {
        assert_eq!(
            cross(MINILM, &[pair]).ok().numbers("scores"),
            [score],
            "{pair:?}"
        );
    }
}

/// `count` pairs, each with a query of its own.
fn distinct_queries(count: usize) -> Value {
    let pair = |number| json!({"query": format!("clog {number}"), "text": "a clog"});
    json!({"input": (0..count).map(pair).collect::<Vec<_>>()})
}

#[test]
fn many_queries_do_not_make_a_header_that_clients_refuse() {
    let path = format!("/inference/cross/{TINY}");
    let answer = SERVER.post(&path, &distinct_queries(300)).ok();
    assert_eq!(answer.numbers("scores").len(), 300);
    let status = answer.header("rerank-status").expect("it has a status");
    // Proxies and HTTP libraries commonly allow 8 KB for all headers together.
    assert!(
        status.len() < 4096,
        "{} bytes: {}",
        status.len(),
        &status[..200]
    );
}

#[test]
fn a_call_with_many_queries_is_no_overload_by_itself() {
    let server = Rerankd::start(&["--max-instances", "1", "--timeout-ms", "60000"]);
    for name in [TINY, "cross-encoder"] {
        let answer = server
            .post(&format!("/inference/cross/{name}"), &distinct_queries(20))
            .ok();
        assert_eq!(answer.numbers("scores").len(), 20, "{name}");
    }
}
