//! Texts that the model cannot read, of which nothing is left, or that it sees only in part: no score is
//! made of the unknown, and every route says so.

use std::net::TcpStream;
use std::sync::LazyLock;

use rerankd_tests::upstream::{Asked, write_json};
use rerankd_tests::{Answer, Connection, Folder, Rerankd, Upstream, guests, require};
use serde_json::{Value, json};

const MINILM: &str = "all-minilm-l6-v2";
const TINY: &str = "tiny-cross-encoder";
const BLEND: &str = "semantic-blend";
const PAIRS: &str = "cross-encoder";
/// The policy that asks.
const READER: &str = "reader";

/// What the default model cannot read: other scripts, in unknown tokens or letter by letter, and
/// pictures.
const FOREIGN: [&str; 6] = [
    "运动鞋",
    "кроссовки мужские",
    "ランニングシューズ",
    "حذاء رياضي",
    "🍕",
    "🍕🚗 ★",
];

/// Of these no tokenizer leaves a token.
const INVISIBLE: [&str; 5] = [
    "\u{feff}",
    "\u{200b}\u{200b}",
    "\u{fffd}\u{fffd}",
    "\0",
    " \u{200d}\u{a0}\n",
];

static SERVER: LazyLock<Rerankd> = LazyLock::new(|| guests::serve(&["--timeout-ms", "60000"]));

fn native(policy: &str, query: &str, documents: &[&str]) -> Answer {
    let body = json!({"query": query, "documents": documents, "ordered": true});
    SERVER.post(&format!("/v1/rerank/{policy}"), &body)
}

/// A request for each route that carries only scores.
fn score_routes(policy: &str, query: &str, documents: &[&str]) -> Vec<(String, Value)> {
    let items: Vec<Value> = documents
        .iter()
        .map(|text| json!({"query": query, "text": text}))
        .collect();
    let passages: Vec<Value> = documents.iter().map(|text| json!({"text": text})).collect();
    let sources: Vec<Value> = documents
        .iter()
        .map(|text| {
            json!({"type": "INLINE", "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": text}}})
        })
        .collect();
    let usual = json!({"model": policy, "query": query, "documents": documents});
    let with = |more: Value| {
        let mut body = usual.clone();
        let more = more.as_object().expect("an object").clone();
        body.as_object_mut().expect("it is one").extend(more);
        body
    };
    let bedrock = json!({
        "queries": [{"type": "TEXT", "textQuery": {"text": query}}],
        "sources": sources,
        "rerankingConfiguration": {"type": "BEDROCK_RERANKING_MODEL", "bedrockRerankingConfiguration":
            {"modelConfiguration": {"modelArn": policy}}},
    });
    [
        ("/v1/rerank", usual.clone()),
        ("/v2/rerank", usual.clone()),
        ("/v1/rerank", with(json!({"return_len": true}))),
        (
            "/v1/rerank",
            with(json!({"top_k": null, "truncation": true})),
        ),
        ("/infinity/rerank", usual.clone()),
        (
            "/rerank",
            json!({"model": policy, "query": query, "texts": documents}),
        ),
        (
            "/v1/score",
            json!({"model": policy, "text_1": query, "text_2": documents}),
        ),
        (
            "/v1/ranking",
            json!({"model": policy, "query": {"text": query}, "passages": passages}),
        ),
        ("/bedrock/rerank", bedrock),
        (
            &format!("/inference/cross/{policy}"),
            json!({"input": items}),
        ),
    ]
    .into_iter()
    .map(|(path, body)| (path.to_owned(), body))
    .collect()
}

#[test]
fn a_document_that_the_model_cannot_read_is_unscored_and_the_others_are_not() {
    let mut documents = vec!["running shoes for men", "Nike 运动鞋", "a suitcase"];
    documents.extend(FOREIGN);
    for policy in [BLEND, PAIRS] {
        let answer = native(policy, "men's running shoes", &documents).ok();
        assert_eq!(answer.parameter("status"), Some("partial"), "{policy}");
        assert_eq!(answer.parameter("reason"), Some("unread"), "{policy}");
        assert_eq!(answer.parameter("unscored"), Some("6"), "{policy}");
        assert_eq!(answer.parameter("unread"), Some("6"), "{policy}");
        let unread: Vec<(usize, String)> = (3..9).map(|at| (at, "unread".to_owned())).collect();
        assert_eq!(answer.unscored(), unread, "{policy}");
        assert_eq!(answer.order()[0], 0, "{policy}");
    }
    // What was read has the score that it has in other company.
    let scores = |documents: &[&str]| native(PAIRS, "Nike running shoes", documents).ok().scores();
    assert_eq!(
        scores(&["Nike 运动鞋", "运动鞋"])[0],
        scores(&["Nike 运动鞋"])[0]
    );
}

#[test]
fn a_route_that_lists_scores_puts_unread_documents_last_and_warns() {
    let documents = ["电饭煲", "green tea", "water for tea", "рисоварка"];
    let body = json!({"model": BLEND, "query": "tea", "documents": documents});
    let answer = SERVER.post("/v1/rerank", &body).ok();
    let last: Vec<usize> = answer.order()[2..].to_vec();
    assert_eq!(last, [0, 3]);
    assert_eq!(answer.parameter("unread"), Some("2"));
    let body = answer.json();
    let warning = body["meta"]["warnings"][0].as_str().expect("it warns");
    assert!(
        warning.contains("2 of 4") && warning.contains("`unread` 2"),
        "{warning}"
    );
    // A score for each pair, or none at all.
    for path in ["/v1/score", "/inference/cross/semantic-blend"] {
        let routes = score_routes(BLEND, "tea", &documents);
        let (_, body) = routes
            .iter()
            .find(|(own, _)| own == path)
            .expect("it is one");
        let answer = SERVER.post(path, body);
        assert_eq!(answer.status, 424, "{path}: {answer:?}");
        assert!(answer.text().contains("cannot read"), "{path}");
    }
}

#[test]
fn a_query_that_the_model_cannot_read_ends_in_the_order_of_the_documents() {
    let documents = ["Nike 运动鞋 男款", "running shoes", "a suitcase"];
    for query in FOREIGN {
        for policy in [BLEND, PAIRS] {
            let answer = native(policy, query, &documents).ok();
            assert_eq!(answer.parameter("status"), Some("skipped"), "{query}");
            assert_eq!(answer.parameter("reason"), Some("unread"), "{query}");
            assert_eq!(
                answer.parameter("unread"),
                None,
                "of the documents nobody knows"
            );
            assert_eq!(answer.order(), [0, 1, 2], "{query}");
            let body = answer.json();
            assert_eq!(body["reason"], "unread");
            assert_eq!(body["query_unread"], true);
            assert_eq!(body["unscored"], 3);
        }
        let response = json!({"took": 1, "hits": {"max_score": 2.5, "hits": [
            {"_id": "a", "_score": 2.5, "_source": {"title": documents[0]}},
            {"_id": "b", "_score": 1.5, "_source": {"title": documents[1]}},
        ]}});
        let body = json!({"query": query, "response": response});
        let answer = SERVER.post(&format!("/v1/rerank/{BLEND}/hits"), &body).ok();
        assert_eq!(answer.parameter("reason"), Some("unread"), "{query}");
        assert_eq!(answer.json(), response);
    }
    // The error that the caller wants is for what fails; here is nothing to do.
    let body = json!({"query": "运动鞋", "documents": documents, "on_failure": "error"});
    let answer = SERVER.post(&format!("/v1/rerank/{BLEND}"), &body).ok();
    assert_eq!(answer.parameter("reason"), Some("unread"));
}

#[test]
fn a_query_that_the_model_cannot_read_is_an_error_where_only_scores_are_told() {
    for policy in [BLEND, PAIRS] {
        for (path, body) in score_routes(policy, "运动鞋", &["运动鞋 Nike", "电饭煲", "sneakers"])
        {
            let answer = SERVER.post(&path, &body);
            assert_eq!(answer.status, 424, "{path}: {answer:?}");
            let message = answer.text();
            assert!(
                message.contains("cannot read the query"),
                "{path}: {message}"
            );
            assert!(message.contains(policy), "{path}: {message}");
            assert_eq!(answer.parameter("status"), Some("error"), "{path}");
            assert_eq!(answer.parameter("reason"), Some("unread"), "{path}");
        }
        for (path, body) in score_routes(policy, "shoes", &["运动鞋", "🍕"]) {
            let answer = SERVER.post(&path, &body);
            assert_eq!(answer.status, 424, "{path}: {answer:?}");
            let message = answer.text();
            assert!(
                message.contains("cannot read any of the documents"),
                "{path}: {message}"
            );
        }
    }
    for model in [MINILM, TINY] {
        let input = json!({"input": [{"query": "运动鞋", "text": "shoes"}]});
        let answer = SERVER.post(&format!("/inference/cross/{model}"), &input);
        assert_eq!(answer.status, 424, "{model}: {answer:?}");
        assert!(answer.text().contains("cannot read the query"), "{model}");
    }
    // Who asks for an order all the same is told that it is one.
    let body = json!({"model": BLEND, "query": "运动鞋", "documents": ["a", "b"], "on_failure": "first-stage"});
    let answer = SERVER.post("/v1/rerank", &body).ok();
    assert_eq!(answer.order(), [0, 1]);
    assert_eq!(answer.parameter("status"), Some("skipped"));
    let body = answer.json();
    let score = |place: usize| body["results"][place]["relevance_score"].as_f64();
    assert!(score(0) > score(1), "{body}");
    let warning = body["meta"]["warnings"][0].as_str().expect("it warns");
    assert!(warning.contains("unread"), "{warning}");
}

#[test]
fn a_vector_of_what_nobody_reads_is_refused() {
    let encode = |texts: &[&str]| {
        SERVER.post(
            &format!("/inference/encoder/{MINILM}"),
            &json!({"texts": texts}),
        )
    };
    for (texts, status, place) in [
        (["tea", "运动鞋"], 424, "texts[1]"),
        (["\u{200b}", "tea"], 400, "texts[0]"),
    ] {
        let answer = encode(&texts);
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(answer.text().contains(place), "{answer:?}");
    }
    assert_eq!(encode(&["tea", "Nike 运动鞋"]).status, 200);
}

#[test]
fn a_text_of_which_no_token_is_left_is_empty() {
    let mut documents = INVISIBLE.to_vec();
    documents.extend([
        "The committee met on Tuesday.",
        "Water should be below boiling for leaves.",
    ]);
    for policy in [BLEND, PAIRS] {
        let answer = native(policy, "tea", &documents).ok();
        assert_eq!(answer.parameter("status"), Some("partial"), "{policy}");
        assert_eq!(answer.parameter("reason"), Some("empty"), "{policy}");
        let empty: Vec<(usize, String)> = (0..5).map(|at| (at, "empty".to_owned())).collect();
        assert_eq!(answer.unscored(), empty, "{policy}");
        let answer = native(policy, "tea", &INVISIBLE).ok();
        assert_eq!(answer.parameter("reason"), Some("no-text"), "{policy}");
    }
    for (path, body) in score_routes(BLEND, "tea", &["tea", "\u{200b}"]) {
        let answer = SERVER.post(&path, &body);
        let is_of_pairs = path.contains("score") || path.contains("cross");
        assert_eq!(
            answer.status,
            if is_of_pairs { 400 } else { 200 },
            "{path}: {answer:?}"
        );
    }
    let input =
        json!({"input": [{"query": "tea", "text": "tea"}, {"query": "tea", "text": "\u{feff}"}]});
    for model in [MINILM, TINY] {
        let answer = SERVER.post(&format!("/inference/cross/{model}"), &input);
        assert_eq!(answer.status, 400, "{model}: {answer:?}");
        assert!(answer.text().contains("has no text"), "{model}: {answer:?}");
    }
}

#[test]
fn a_query_of_which_no_token_is_left_is_an_empty_query() {
    for query in INVISIBLE {
        for policy in [BLEND, PAIRS] {
            let mut routes = score_routes(policy, query, &["tea", "bridge"]);
            let hits = json!({"hits": {"hits": [{"_id": "a", "_score": 1.0, "_source": {"title": "tea"}}]}});
            routes.push((
                format!("/v1/rerank/{policy}"),
                json!({"query": query, "documents": ["tea"]}),
            ));
            routes.push((
                format!("/v1/rerank/{policy}/hits"),
                json!({"query": query, "response": hits}),
            ));
            for (path, body) in routes {
                let answer = SERVER.post(&path, &body);
                assert_eq!(answer.status, 400, "{path} {query:?}: {answer:?}");
                assert!(
                    answer.text().contains("empty"),
                    "{path} {query:?}: {answer:?}"
                );
            }
        }
    }
    // A policy without a model tokenizes nothing: it has its own idea of a query.
    assert_eq!(native("first-stage", "\u{200b}", &["tea"]).status, 200);
}

#[test]
fn what_was_cut_is_told_on_every_route() {
    let sentence = "The committee met on Tuesday and spoke about the budget of next year. ";
    let long = format!("{}The answer is here.", sentence.repeat(40));
    for policy in [BLEND, PAIRS] {
        let mut routes = score_routes(policy, "where is the answer", &[&long, "short", &long]);
        let hits: Vec<Value> = [&*long, "short", &*long]
            .iter()
            .map(|text| json!({"_id": "a", "_score": 1.0, "_source": {"title": text}}))
            .collect();
        routes.push((
            format!("/v1/rerank/{policy}"),
            json!({"query": "where is the answer", "documents": [long, "short", long]}),
        ));
        routes.push((
            format!("/v1/rerank/{policy}/hits"),
            json!({"query": "where is the answer", "response": {"hits": {"hits": hits}}}),
        ));
        for (path, body) in routes {
            let answer = SERVER.post(&path, &body).ok();
            assert_eq!(
                answer.parameter("truncated"),
                Some("2"),
                "{path}: {answer:?}"
            );
            let body = answer.json();
            if let Some(meta) = body.get("meta") {
                let warned = meta["warnings"].to_string();
                assert!(
                    warned.contains("2 of 3 documents were cut"),
                    "{path}: {warned}"
                );
            }
        }
        let answer = native(policy, &long, &["short"]).ok();
        assert!(
            answer
                .header("rerank-status")
                .is_some_and(|status| status.contains(";query-truncated")),
            "{answer:?}"
        );
        assert_eq!(answer.parameter("truncated"), None);
    }
    // A policy that does not say it itself.
    let body = json!({"query": "where is the answer", "documents": ["short", long]});
    let answer = SERVER.post(&format!("/v1/rerank/{READER}"), &body).ok();
    assert_eq!(answer.parameter("truncated"), Some("1"), "{answer:?}");
    assert_eq!(answer.json()["results"][1]["truncated"], true);
    for model in [MINILM, TINY] {
        let input = json!({"input": [{"query": "the answer", "text": long}]});
        let answer = SERVER
            .post(&format!("/inference/cross/{model}"), &input)
            .ok();
        assert_eq!(answer.parameter("truncated"), Some("1"), "{model}");
    }
}

#[test]
fn an_answer_made_by_a_stand_in_warns() {
    for (policy, stand_in) in [(BLEND, None), (PAIRS, Some(TINY))] {
        for (path, body) in score_routes(policy, "tea", &["green tea", "a bridge"]) {
            let answer = SERVER.post(&path, &body).ok();
            assert_eq!(answer.parameter("stand-in"), stand_in, "{path}: {answer:?}");
            let body = answer.json();
            if let Some(meta) = body.get("meta").filter(|_| stand_in.is_some()) {
                let warned = meta["warnings"].to_string();
                assert!(warned.contains("stands in"), "{path}: {warned}");
            }
        }
    }
}

#[test]
fn a_policy_can_ask_how_much_is_read() {
    let ask = |query: &str| {
        let body = json!({"query": query, "explain": true, "documents": ["running shoes", "Nike 运动鞋", "运动鞋", "\u{200b}"]});
        SERVER.post(&format!("/v1/rerank/{READER}"), &body).ok()
    };
    let said = |answer: &Answer| -> Vec<String> {
        let results = answer.json()["results"]
            .as_array()
            .expect("it has results")
            .clone();
        let mut said: Vec<(u64, String)> = results
            .iter()
            .map(|one| {
                let explanation = one["explanation"].as_str().expect("it explains").to_owned();
                (one["index"].as_u64().expect("a number"), explanation)
            })
            .collect();
        said.sort();
        said.into_iter().map(|(_, said)| said).collect()
    };
    let answer = ask("shoes");
    assert_eq!(answer.parameter("status"), Some("applied"));
    assert_eq!(
        said(&answer),
        [
            "unread 0.00, run true, empty false, row true, query run true",
            "unread 0.43, run true, empty false, row true, query run true",
            "unread 1.00, run false, empty false, row false, query run true",
            "unread 1.00, run false, empty true, row false, query run true",
        ]
    );
    // While the query is not read, no row is run; what the policy makes of that is its own affair.
    let answer = ask("运动鞋");
    assert_eq!(answer.parameter("status"), Some("applied"));
    let first = &said(&answer)[0];
    assert_eq!(
        first,
        "unread 0.00, run true, empty false, row false, query run false"
    );
}

#[test]
fn unread_text_is_no_fault_of_the_policy() {
    let faults = || SERVER.metric("rerankd_policy_faults_total", &[("policy", BLEND)]);
    let before = faults();
    for _ in 0..5 {
        native(BLEND, "运动鞋", &["shoes"]).ok();
        native(BLEND, "shoes", &["运动鞋"]).ok();
        native(BLEND, "\u{200b}", &["shoes"]);
    }
    assert!((faults() - before).abs() < 0.5);
}

/// A copy of a model under another name, with a manifest that says more.
fn copy_of_model(folder: &Folder, of: &str, name: &str, more: &str) {
    let from = require::model(of);
    folder.copy(&from, &format!("models/{name}"));
    let manifest = std::fs::read_to_string(from.join("manifest.toml")).expect("it is there");
    let manifest = manifest.replace(
        &format!("name = \"{of}\""),
        &format!("name = \"{name}\"\n{more}"),
    );
    folder.write(&format!("models/{name}/manifest.toml"), manifest);
}

#[test]
fn a_models_manifest_says_which_scripts_it_reads() {
    let folder = Folder::new();
    copy_of_model(&folder, MINILM, "my-model", "scripts = [\"Cyrillic\"]");
    let ours = folder.path().join("models");
    let ours = ours.to_str().expect("the path is UTF-8");
    let bundled = require::root().join("models");
    let bundled = bundled.to_str().expect("the path is UTF-8");
    let bound = [
        "--models",
        ours,
        "--models",
        bundled,
        "--bind-model",
        "semantic-blend.bi-encoder=my-model",
    ];
    let server = Rerankd::start(&bound);
    let body =
        json!({"query": "кроссовки", "documents": ["кроссовки мужские", "sneakers", "运动鞋"]});
    let answer = server.post(&format!("/v1/rerank/{BLEND}"), &body).ok();
    assert_eq!(
        answer.unscored(),
        [(1, "unread".to_owned()), (2, "unread".to_owned())]
    );
    drop(server);

    copy_of_model(&folder, MINILM, "my-model", "scripts = [\"Latn\"]");
    let serve = [&["serve", "--listen", "127.0.0.1:0"], &bound[..]].concat();
    let refusal = Rerankd::run(Rerankd::command(&serve));
    assert_eq!(refusal.code, Some(1), "{refusal:?}");
    for part in [
        "`scripts` has `Latn`",
        "Latin, Greek, Cyrillic",
        "manifest.toml",
    ] {
        assert!(refusal.stderr.contains(part), "`{part}`: {refusal:?}");
    }
}

#[test]
fn cases_inside_a_component_do_not_keep_the_operators_model_out() {
    let folder = Folder::new();
    // It reads no English: every case of the bundled policy fails on it.
    copy_of_model(
        &folder,
        TINY,
        "japanese",
        "scripts = [\"Hiragana\", \"Katakana\", \"Han\"]",
    );
    let ours = folder.path().join("models");
    let ours = ours.to_str().expect("the path is UTF-8");
    let bundled = require::root().join("models");
    let bundled = bundled.to_str().expect("the path is UTF-8");
    let server = Rerankd::start(&[
        "--models",
        ours,
        "--models",
        bundled,
        "--bind-model",
        "cross-encoder.cross-encoder=japanese",
    ]);
    let answer = server.post(
        &format!("/v1/rerank/{PAIRS}"),
        &json!({"query": "tea", "documents": ["tea"]}),
    );
    assert_eq!(answer.ok().parameter("reason"), Some("unread"));
}

/// An engine with two hits.
fn engine(_: &Asked, stream: &mut TcpStream) -> std::io::Result<bool> {
    write_json(stream, "200 OK", PAGE)
}

const PAGE: &str = r#"{"took":1,"timed_out":false,"_shards":{"total":1,"successful":1,"skipped":0,"failed":0},"hits":{"total":{"value":2,"relation":"eq"},"max_score":2.0,"hits":[{"_index":"shop","_id":"a","_score":2.0,"_source":{"title":"a suitcase"}},{"_index":"shop","_id":"b","_score":1.0,"_source":{"title":"running shoes"}}]}}"#;

#[test]
fn a_search_whose_query_nobody_reads_is_the_engines_own_page() {
    let upstream = Upstream::start(engine);
    let folder = Folder::new();
    let config = folder.write(
        "rerankd.toml",
        "[[index]]\npattern = \"*\"\npolicies = [\"semantic-blend\"]\n",
    );
    let (config, url) = (config.to_str().expect("the path is UTF-8"), upstream.url());
    let server = Rerankd::start(&[
        "--config",
        config,
        "--upstream",
        &url,
        "--proxy-listen",
        "127.0.0.1:0",
    ]);
    for (query, reason) in [("运动鞋", "unread"), ("\u{200b}", "no-query")] {
        let body = json!({"query": {"match": {"title": query}}}).to_string();
        let mut connection = Connection::open(server.proxy_address()).expect("the proxy listens");
        let headers = [("Content-Type", "application/json")];
        connection
            .request("POST", "/shop/_search", &headers, body.as_bytes())
            .expect("the proxy reads");
        let answer = connection.answer().expect("there is an answer").ok();
        assert_eq!(answer.parameter("status"), Some("skipped"), "{answer:?}");
        assert_eq!(answer.parameter("reason"), Some(reason), "{answer:?}");
        assert_eq!(answer.text(), PAGE);
    }
}
