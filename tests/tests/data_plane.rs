//! The native form, and what all routes have in common: request ids, health, errors, metrics.

use std::sync::LazyLock;

use rerankd_tests::answer::assert_same_bits;
use rerankd_tests::documents::{products, scored_texts, texts};
use rerankd_tests::{Answer, Rerankd};
use serde_json::{Value, json};

const BLEND: &str = "/v1/rerank/semantic-blend";
const CROSS: &str = "/v1/rerank/cross-encoder";
const FIRST: &str = "/v1/rerank/first-stage";

static SERVER: LazyLock<Rerankd> = LazyLock::new(|| Rerankd::start(&["--timeout-ms", "60000"]));

#[track_caller]
fn rerank(path: &str, request: Value) -> Answer {
    let answer = SERVER.post(path, &request).ok();
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer
}

/// What holds of every native answer of these documents, none of which is left out.
#[track_caller]
fn assert_is_a_ranking(answer: &Answer, documents: usize) {
    let mut order = answer.order();
    let scores = answer.scores();
    let ranks_well = order
        .windows(2)
        .all(|pair| match (scores[pair[0]], scores[pair[1]]) {
            (Some(higher), Some(lower)) => higher > lower || higher == lower && pair[0] < pair[1],
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (None, None) => pair[0] < pair[1],
        });
    assert!(ranks_well, "{order:?} {scores:?}");
    order.sort_unstable();
    assert_eq!(order, (0..documents).collect::<Vec<_>>());
    let window = documents.to_string();
    assert_eq!(answer.parameter("window"), Some(window.as_str()));
}

#[test]
fn meaning_moves_the_right_products_to_the_top() {
    let documents: Vec<Value> = products()
        .into_iter()
        .map(|(id, score, fields)| json!({"id": id, "score": score, "fields": fields}))
        .collect();
    let answer = rerank(
        BLEND,
        json!({"query": "smart watch", "documents": documents}),
    );
    assert_is_a_ranking(&answer, 20);
    let body = answer.json();
    let top: Vec<&str> = body["results"].as_array().expect("it has results")[..7]
        .iter()
        .map(|result| result["id"].as_str().expect("it has an id"))
        .collect();
    // The products that people graded 3; a battery for watches leads the engine's list.
    let graded = [
        "ic77382335",
        "ic78586548",
        "ic79550421",
        "ic78712152",
        "ic78586712",
        "ic79547855",
        "ic78586644",
    ];
    let found = graded.iter().filter(|id| top.contains(id)).count();
    assert!(found >= 5, "{found} of 7 in {top:?}");
}

#[test]
fn an_answer_has_all_keys_of_its_form() {
    let documents = json!([
        {"id": "a1", "score": 13.5, "fields": {"title": "Crocs Specialist Vent Work"}},
        {"id": 17, "score": 12, "fields": {"title": "Crocs Kids' Baya Clog", "price": 29.9, "tags": ["kids"]}},
        {"score": 11.25, "fields": {"text": "Alien shoe charms"}},
    ]);
    let request = json!({
        "query": "clogs for children", "documents": documents, "fields": ["title", "text"],
        "parameters": {"weight": 0.75}, "signals": {"country": "FR"}, "top_n": 10, "min_score": -5,
        "explain": true, "timeout_ms": 30000, "on_failure": "first-stage", "key": "user-17",
        "ordered": false,
    });
    let answer = rerank(BLEND, request);
    assert_is_a_ranking(&answer, 3);
    let body = answer.json();
    let keys: Vec<&String> = body.as_object().expect("an object").keys().collect();
    let expected = [
        "policy",
        "results",
        "score_kind",
        "status",
        "timings_ms",
        "unscored",
        "version",
    ];
    assert_eq!(keys, expected);
    assert_eq!(body["policy"], "semantic-blend");
    assert_eq!(body["status"], "applied");
    assert_eq!(body["score_kind"], "blend");
    assert_eq!(body["unscored"], 0);
    assert_eq!(body["version"].as_str(), answer.parameter("version"));
    assert_eq!(answer.parameter("status"), Some("applied"));
    assert_eq!(answer.parameter("reason"), None);
    let total = body["timings_ms"]["total"].as_f64().expect("a number");
    assert_eq!(
        answer.parameter("time").and_then(|time| time.parse().ok()),
        Some(total)
    );
    for stage in ["queue", "tokenize", "inference", "guest"] {
        let time = body["timings_ms"][stage].as_f64().expect("a number");
        assert!((0.0..=total).contains(&time), "{stage} {time} of {total}");
    }
    for result in body["results"].as_array().expect("an array") {
        let index = result["index"].as_u64().expect("an integer") as usize;
        assert_eq!(result["first_stage_rank"], index + 1);
        assert_eq!(result["first_stage_score"], [13.5, 12.0, 11.25][index]);
        assert_eq!(
            result.get("id"),
            [Some(&json!("a1")), Some(&json!("17")), None][index]
        );
        assert!(
            result["explanation"]
                .as_str()
                .is_some_and(|text| text.contains("cosine"))
        );
        // What is not so is not there.
        assert_eq!(
            (result.get("truncated"), result.get("unscored")),
            (None, None)
        );
    }
}

#[test]
fn optional_keys_are_absent() {
    let answer = rerank(
        BLEND,
        json!({"query": "clog", "documents": ["a clog", "a boot"]}),
    );
    let body = answer.json();
    assert_eq!(body["score_kind"], "cosine");
    for result in body["results"].as_array().expect("an array") {
        let keys: Vec<&String> = result.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["index", "score"]);
    }
    assert_eq!(body.get("query_truncated"), None);
    assert_eq!(body.get("reason"), None);
}

#[test]
fn null_means_absent() {
    let request = json!({
        "query": "clog", "documents": [{"id": null, "score": null, "fields": null}, {"fields": {"text": "a clog", "x": null}}],
        "fields": null, "parameters": null, "signals": null, "top_n": null, "min_score": null,
        "explain": null, "timeout_ms": null, "on_failure": null, "key": null, "ordered": null,
    });
    let answer = rerank(BLEND, request);
    assert_eq!(answer.order(), [1, 0]);
    assert_eq!(answer.unscored(), [(0, "empty".to_owned())]);
}

#[test]
fn the_first_stage_counts_only_where_there_is_one() {
    let documents = |first_score: Value| {
        json!([
            {"score": first_score, "fields": {"text": "a garden hose"}},
            {"score": 1.0, "fields": {"text": "a clog for children"}},
        ])
    };
    let answer = |documents: Value, ordered: bool| {
        let weight = json!({"weight": 0.0});
        rerank(
            BLEND,
            json!({"query": "clog", "documents": documents, "ordered": ordered, "parameters": weight}),
        )
    };
    let scored = answer(documents(json!(5.0)), false);
    assert_eq!(
        scored.order(),
        [0, 1],
        "the engine's scores alone decide with weight 0"
    );
    assert_eq!(scored.json()["results"][0]["first_stage_score"], 5.0);

    // A score is missing: the others mean nothing.
    let ranked = answer(documents(Value::Null), true);
    assert_eq!(ranked.order(), [0, 1]);
    assert_eq!(ranked.json()["results"][1]["first_stage_rank"], 2);
    assert_eq!(ranked.json()["results"][1].get("first_stage_score"), None);

    let none = answer(documents(Value::Null), false);
    assert_eq!(
        none.order(),
        [1, 0],
        "without a first stage meaning alone decides"
    );
    assert_eq!(none.json()["score_kind"], "cosine");
}

#[test]
fn ties_keep_the_order_of_the_request() {
    let documents = vec!["the same words"; 40];
    for path in [BLEND, CROSS, FIRST] {
        let answer = rerank(path, json!({"query": "words", "documents": documents}));
        assert_eq!(answer.order(), (0..40).collect::<Vec<_>>(), "{path}");
        let scores = answer.scores();
        assert_same_bits(&scores, &vec![scores[0]; 40]);
    }
}

#[test]
fn one_document_has_a_score_with_and_without_a_first_stage() {
    for document in [
        json!("a clog"),
        json!({"score": 3, "fields": {"text": "a clog"}}),
    ] {
        for path in [BLEND, CROSS, FIRST] {
            let answer = rerank(path, json!({"query": "clog", "documents": [document]}));
            let score = answer.scores()[0].expect("it is scored");
            assert!(score.is_finite(), "{path}: {score}");
            assert_eq!(answer.parameter("status"), Some("applied"));
        }
    }
}

#[test]
fn first_stage_keeps_the_engines_order() {
    let answer = rerank(
        FIRST,
        json!({"query": "clog", "documents": scored_texts(30)}),
    );
    assert_eq!(answer.order(), (0..30).collect::<Vec<_>>());
    assert_eq!(answer.scores()[8], Some(99.0));
}

#[test]
fn top_n_and_min_score_cut_the_results() {
    let request = |more: Value| {
        let mut request = json!({"query": "smart watch", "documents": texts(20)});
        let more = more.as_object().expect("an object").clone();
        request.as_object_mut().expect("an object").extend(more);
        rerank(BLEND, request)
    };
    let all = request(json!({}));
    assert_is_a_ranking(&all, 20);
    let (order, scores) = (all.order(), all.scores());
    assert_eq!(request(json!({"top_n": 3})).order(), order[..3]);
    assert_eq!(request(json!({"top_n": 1000})).order(), order);

    // The score that is printed is the one that is compared.
    let seventh = scores[order[6]].expect("it is scored");
    let cut = request(json!({"min_score": seventh}));
    let above = order
        .iter()
        .filter(|&&index| scores[index] >= Some(seventh))
        .count();
    assert!(above < 20, "{scores:?}");
    assert_eq!(cut.order(), order[..above]);
    assert_eq!(cut.parameter("status"), Some("applied"));
    assert_eq!(
        request(json!({"min_score": seventh, "top_n": 5})).order(),
        order[..5]
    );
    assert!(request(json!({"min_score": 2})).order().is_empty());
}

#[test]
fn unscored_documents_follow_in_the_order_of_the_request() {
    let documents = json!([
        "", {"fields": {"price": 3}}, "a clog", {"id": "nothing"}, {"fields": {"text": "   "}}, "a boot",
    ]);
    for path in [BLEND, CROSS] {
        let answer = rerank(path, json!({"query": "clog", "documents": documents}));
        assert_is_a_ranking(&answer, 6);
        assert_eq!(answer.order(), [2, 5, 0, 1, 3, 4]);
        let empty: Vec<_> = [0, 1, 3, 4].map(|index| (index, "empty".to_owned())).into();
        assert_eq!(answer.unscored(), empty);
        assert_eq!(answer.parameter("status"), Some("partial"));
        assert_eq!(answer.parameter("reason"), Some("empty"));
        assert_eq!(answer.parameter("unscored"), Some("4"));
        assert_eq!(answer.json()["unscored"], 4);
        // `min_score` is about scores; `top_n` is about results.
        let cut = json!({"query": "clog", "documents": documents, "min_score": 2, "top_n": 3});
        assert_eq!(rerank(path, cut).order(), [0, 1, 3]);
    }
}

#[test]
fn without_any_text_there_is_nothing_to_do() {
    for path in [BLEND, CROSS] {
        let answer = rerank(
            path,
            json!({"query": "clog", "documents": ["", {"fields": {"n": 1}}]}),
        );
        assert_eq!(answer.parameter("status"), Some("skipped"));
        assert_eq!(answer.parameter("reason"), Some("no-text"));
        assert_eq!(answer.json()["reason"], "no-text");
        assert_eq!(answer.order(), [0, 1]);
    }
}

#[test]
fn what_was_cut_is_marked() {
    let long = "word ".repeat(2_000);
    for path in [BLEND, CROSS] {
        let request = json!({"query": "clog", "documents": [long, "a clog"]});
        let answer = rerank(path, request).json();
        for result in answer["results"].as_array().expect("an array") {
            let expected = (result["index"] == 0).then_some(&json!(true)).cloned();
            assert_eq!(
                result.get("truncated").cloned(),
                expected,
                "{path} {result}"
            );
        }
        assert_eq!(answer.get("query_truncated"), None, "{path}");
    }
    let answer = rerank(
        CROSS,
        json!({"query": long, "documents": ["a clog", "a boot"]}),
    )
    .json();
    assert_eq!(answer["query_truncated"], true);
    assert_eq!(answer["results"][0].get("truncated"), None);
}

#[test]
fn the_query_of_a_bi_encoder_that_was_cut_is_reported_too() {
    let long = "word ".repeat(2_000);
    let answer = rerank(
        BLEND,
        json!({"query": long, "documents": ["a clog", "a boot"]}),
    )
    .json();
    assert_eq!(answer["query_truncated"], true, "{answer}");
}

#[test]
fn ids_may_repeat_and_a_string_is_a_document() {
    let documents = json!([
        {"id": "a", "fields": {"text": "a boot"}}, "a clog", {"id": "a", "fields": {"text": "a clog"}},
    ]);
    let answer = rerank(BLEND, json!({"query": "clog", "documents": documents}));
    assert_is_a_ranking(&answer, 3);
    let scores = answer.scores();
    assert_eq!(scores[1], scores[2]);
    assert_eq!(answer.order(), [1, 2, 0]);
    let body = answer.json();
    assert_eq!(body["results"][0].get("id"), None);
    assert_eq!(
        (&body["results"][1]["id"], &body["results"][2]["id"]),
        (&json!("a"), &json!("a"))
    );
}

#[test]
fn fields_name_what_is_read_and_in_which_order() {
    let documents = json!([{"fields": {"title": "x", "brand": "crocs", "kind": "clog"}}]);
    let score = |more: Value| {
        let mut request = json!({"query": "crocs clog", "documents": documents});
        let more = more.as_object().expect("an object").clone();
        request.as_object_mut().expect("an object").extend(more);
        rerank(BLEND, request).scores()
    };
    let plain =
        |text: &str| rerank(BLEND, json!({"query": "crocs clog", "documents": [text]})).scores();
    assert_same_bits(&score(json!({})), &plain("x"));
    assert_same_bits(
        &score(json!({"fields": ["brand", "kind"]})),
        &plain("crocs. clog"),
    );
    assert_same_bits(
        &score(json!({"fields": ["kind", "brand"]})),
        &plain("clog. crocs"),
    );
    let parameters = json!({"parameters": {"fields": ["kind", "brand"]}});
    assert_same_bits(&score(parameters), &plain("clog. crocs"));
}

#[test]
fn parameters_change_the_ranking() {
    let score = |parameters: Value| {
        let request = json!({"query": "clog", "documents": ["a clog"], "parameters": parameters});
        let answer = rerank(CROSS, request);
        let kind = answer.json()["score_kind"]
            .as_str()
            .expect("a kind")
            .to_owned();
        (answer.scores()[0].expect("it is scored"), kind)
    };
    let (logit, kind) = score(json!({"activation": "raw"}));
    assert_eq!(kind, "logit");
    let (probability, kind) = score(json!({}));
    assert_eq!(kind, "probability");
    assert!(
        (probability - 1.0 / (1.0 + (-logit).exp())).abs() < 1e-12,
        "{logit} {probability}"
    );
    assert!(
        logit > 2.0,
        "the query's only word is in the document: {logit}"
    );
}

#[test]
fn a_version_can_be_named() {
    let request = json!({"query": "clog", "documents": ["a clog"]});
    let version = rerank(BLEND, request.clone())
        .parameter("version")
        .map(str::to_owned);
    let version = version.expect("it has a version");
    assert_eq!(version.len(), 8);
    rerank(&format!("{BLEND}@{version}"), request.clone());
    rerank(&format!("{BLEND}@0.1.0"), request.clone());
    for wrong in ["00000000", &version[..7], "0.2.0", ""] {
        let answer = SERVER.post(&format!("{BLEND}@{wrong}"), &request);
        assert_eq!(answer.status, 404, "{wrong}");
        let message = answer.error_message();
        assert!(
            message.contains(&format!(
                "no version `{wrong}` of `semantic-blend`; there are: {version} (0.1.0)"
            )),
            "{message}"
        );
    }
}
