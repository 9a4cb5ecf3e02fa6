//! The rerank APIs against the real binary: recorded requests of their clients, the rules of strict
//! readers on the raw bytes, names and defaults, scores that agree over protocols.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::LazyLock;

use rerankd_tests::documents::products;
use rerankd_tests::{Answer, Folder, Rerankd, require};
use serde_json::{Value, json};

/// Names that clients send for models, and the one that answers to them here.
const ALIASES: &str = r#"
expect = ["no-such-policy"]

[wire.aliases]
"rerank-v3.5" = "cross-encoder"
"rerank-english-v3.0" = "cross-encoder"
"rerank-2.5" = "cross-encoder"
"rerank-2" = "cross-encoder"
"jina-reranker-v2-base-multilingual" = "cross-encoder"
"BAAI/bge-reranker-base" = "cross-encoder"
"nv-rerank-qa-mistral-4b:1" = "cross-encoder"
"arn:aws:bedrock:us-west-2::foundation-model/amazon.rerank-v1:0" = "cross-encoder"
"rerankd" = "cross-encoder"
"m" = "cross-encoder"
"gone" = "no-such-policy"
"#;

static SERVER: LazyLock<Rerankd> = LazyLock::new(|| with_config(ALIASES, &[]));

fn with_config(content: &str, flags: &[&str]) -> Rerankd {
    let folder = Folder::new();
    let path = folder.write("rerankd.toml", content);
    let path = path.to_str().expect("the path is UTF-8");
    Rerankd::start(&[&["--config", path, "--timeout-ms", "60000"], flags].concat())
}

/// Where each protocol's recorded requests go.
const PATHS: [(&str, &[&str]); 13] = [
    (
        "superset",
        &[
            "/v1/rerank",
            "/v2/rerank",
            "/rerank",
            "/v1/reranking",
            "/reranking",
        ],
    ),
    ("tei", &["/", "/invocations", "/rerank", "/reranking"]),
    ("tei-predict", &["/predict", "/"]),
    ("voyage", &["/v1/rerank", "/voyage/v1/rerank"]),
    ("xinference", &["/v1/rerank"]),
    ("mixedbread", &["/v1/reranking", "/v1/rerank"]),
    ("ollama", &["/api/rerank"]),
    ("vllm", &["/rerank", "/v1/rerank", "/v2/rerank"]),
    ("vllm-score", &["/score", "/v1/score"]),
    ("infinity", &["/infinity/rerank"]),
    (
        "nvidia",
        &[
            "/v1/ranking",
            "/reranking",
            "/v1/retrieval/nvidia/reranking",
            "/v1/retrieval/nvidia/nv-rerankqa-mistral-4b-v3/reranking",
        ],
    ),
    ("bedrock", &["/bedrock/rerank"]),
    (
        "dashscope",
        &["/api/v1/services/rerank/text-rerank/text-rerank"],
    ),
];

fn recorded(protocol: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = require::root().join("host/wire/fixtures").join(protocol);
    let files = std::fs::read_dir(folder).expect("the checkout has recorded requests");
    let paths = files.map(|file| file.expect("the folder can be listed").path());
    let requests = paths.filter(|path| path.to_string_lossy().ends_with(".request.json"));
    requests
        .map(|path| {
            (
                path.clone(),
                std::fs::read(path).expect("the file can be read"),
            )
        })
        .collect()
}

#[test]
fn recorded_requests_of_every_client_are_answered() {
    for (protocol, paths) in PATHS {
        let counted = || {
            SERVER.metric(
                "rerankd_requests_total",
                &[("protocol", protocol), ("status", "applied")],
            )
        };
        for path in paths {
            // Where the path alone says it is Voyage's, a superset's body may go there, too.
            for (file, body) in recorded(protocol) {
                let before = counted();
                let answer = SERVER.post_text(path, body);
                assert_eq!(
                    answer.status,
                    200,
                    "{path} {}: {}",
                    file.display(),
                    answer.text()
                );
                assert_eq!(answer.header("content-type"), Some("application/json"));
                assert_eq!(answer.parameter("status"), Some("applied"));
                assert!(counted() > before, "{path} {}", file.display());
                assert!(
                    !answer.text().contains("\"document\":null"),
                    "{}",
                    answer.text()
                );
            }
        }
    }
}

/// Every number under `key`, as it is spelt.
fn numbers<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    let key = format!("\"{key}\":");
    let found = text.match_indices(key.as_str());
    found
        .map(|(at, _)| {
            let rest = &text[at + key.len()..];
            &rest[..rest.find([',', '}']).expect("an object ends")]
        })
        .collect()
}

/// What ML Commons does: `scores[(Integer) index] = (Double) relevance_score`, where a number without a
/// point is an Integer, and one of more than 18 characters a BigDecimal.
#[track_caller]
fn as_ml_commons_reads(answer: &Answer, score: &str, documents: usize) -> Vec<f64> {
    let text = answer.text();
    let results = text
        .split("\"data\":")
        .next()
        .expect("there is a first part");
    let spelt = numbers(results, score);
    assert_eq!(spelt.len(), documents, "{text}");
    let mut scores = vec![f64::NAN; documents];
    for (index, number) in numbers(results, "index").iter().zip(spelt) {
        assert!(number.contains('.') && number.len() <= 18, "{number}");
        assert!(!number.contains(['e', 'E']), "{number}");
        let index: usize = index.parse().expect("an index is an integer");
        scores[index] = number.parse().expect("a score is a number");
    }
    assert!(
        scores.iter().all(|score| (0.0..=1.0).contains(score)),
        "{scores:?}"
    );
    scores
}

/// Texts of products, with some that cannot be scored.
fn texts(count: usize) -> Vec<String> {
    let products = products();
    let mut texts: Vec<String> = (0..count)
        .map(|index| {
            let (_, _, fields) = &products[index % products.len()];
            format!("{} {index}", fields["title"].as_str().expect("a title"))
        })
        .collect();
    texts[count / 2] = String::new();
    texts
}

#[test]
fn ml_commons_finds_a_double_for_every_document() {
    let texts = texts(40);
    for model in ["semantic-blend", "cross-encoder", "first-stage"] {
        let body = json!({"documents": texts, "query": "smart watch", "model": model, "top_n": 40});
        let answer = SERVER.post("/v1/rerank", &body).ok();
        let scores = as_ml_commons_reads(&answer, "relevance_score", 40);
        if model != "first-stage" {
            assert_eq!(scores[20], 0.0, "the empty text");
            assert_eq!(answer.parameter("unscored"), Some("1"));
            let warnings = &answer.json()["meta"]["warnings"];
            assert!(
                warnings[0]
                    .as_str()
                    .is_some_and(|said| said.starts_with("1 of 40")),
                "{warnings}"
            );
        }
        let sources: Vec<Value> = texts
            .iter()
            .map(|text| json!({"type": "INLINE", "inlineDocumentSource": {"type": "TEXT", "textDocument": {"text": text}}}))
            .collect();
        let bedrock = json!({
            "queries": [{"type": "TEXT", "textQuery": {"text": "smart watch"}}],
            "sources": sources,
            "rerankingConfiguration": {"bedrockRerankingConfiguration": {
                "numberOfResults": 40, "modelConfiguration": {"modelArn": model}}},
        });
        let answer = SERVER.post("/bedrock/rerank", &bedrock).ok();
        assert_eq!(as_ml_commons_reads(&answer, "relevanceScore", 40), scores);
    }
}

/// The connector that docs/opensearch.md tells to make.
fn connector_of_the_docs() -> Value {
    let path = require::root().join("docs/opensearch.md");
    let page = std::fs::read_to_string(path).expect("the page is there");
    let start = "POST /_plugins/_ml/connectors/_create\n";
    let (_, rest) = page.split_once(start).expect("it has a connector");
    let (body, _) = rest.split_once("\n\n").expect("the connector ends");
    serde_json::from_str(body).expect("it is JSON")
}

#[test]
fn the_connector_of_the_docs_gets_what_ml_commons_can_read() {
    let connector = connector_of_the_docs();
    let action = &connector["actions"][0];
    assert_eq!(
        action["pre_process_function"],
        "connector.pre_process.cohere.rerank"
    );
    assert_eq!(
        action["post_process_function"],
        "connector.post_process.cohere.rerank"
    );
    let texts = texts(12);
    let documents = json!(texts).to_string();
    // Gson, which fills the template there, writes these characters so.
    let escaped = documents.replace('&', "\\u0026").replace('\'', "\\u0027");
    let mut body = action["request_body"]
        .as_str()
        .expect("a template")
        .to_owned();
    let model = connector["parameters"]["model"].as_str().expect("a name");
    for (name, value) in [
        ("documents", &*escaped),
        ("query", "smart \\u003cwatch\\u003e"),
        ("model", model),
        ("top_n", "12"),
    ] {
        body = body.replace(&format!("${{parameters.{name}}}"), value);
    }
    let url = action["url"].as_str().expect("an address");
    let path = url
        .strip_prefix("http://127.0.0.1:9500")
        .expect("it is the data plane's default address");
    let key = connector["credential"]["key"].as_str().expect("a text");
    let bearer = action["headers"]["Authorization"]
        .as_str()
        .expect("a header");
    let bearer = bearer.replace("${credential.key}", key);
    let headers = [
        ("Content-Type", "application/json"),
        ("Authorization", &*bearer),
    ];
    let answer = SERVER.call("POST", path, &headers, body.as_bytes()).ok();
    as_ml_commons_reads(&answer, "relevance_score", 12);
}

#[test]
fn elasticsearch_finds_no_key_that_it_refuses() {
    let keys = |result: &Value| -> BTreeSet<String> {
        let result = result.as_object().expect("a result is an object");
        result.keys().cloned().collect()
    };
    let set = |names: &[&str]| {
        names
            .iter()
            .map(|name| (*name).to_owned())
            .collect::<BTreeSet<_>>()
    };
    let texts = texts(10);
    let mut body = json!({"model": "rerankd", "query": "smart watch", "documents": texts});
    for result in SERVER.post("/v2/rerank", &body).ok().json()["results"]
        .as_array()
        .expect("results")
    {
        assert_eq!(keys(result), set(&["index", "relevance_score", "document"]));
        assert!(result["document"]["text"].is_string(), "{result}");
    }
    body["return_documents"] = json!(false);
    let answer = SERVER.post("/v2/rerank", &body).ok().json();
    for result in answer["results"].as_array().expect("results") {
        assert_eq!(keys(result), set(&["index", "relevance_score"]));
    }
    body["return_documents"] = json!(true);
    body["top_n"] = json!(3);
    let answer = SERVER.post("/v2/rerank", &body).ok().json();
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(3));
    for result in answer["results"].as_array().expect("results") {
        assert_eq!(keys(result), set(&["index", "relevance_score", "document"]));
        let index = result["index"].as_u64().expect("an index") as usize;
        assert_eq!(result["document"], json!({"text": texts[index]}));
    }
    let passages: Vec<Value> = texts.iter().map(|text| json!({"text": text})).collect();
    let body = json!({"model": "m", "query": {"text": "smart watch"}, "passages": passages});
    let answer = SERVER.post("/v1/ranking", &body).ok().json();
    assert_eq!(answer["rankings"].as_array().map(Vec::len), Some(10));
    for entry in answer["rankings"].as_array().expect("rankings") {
        assert_eq!(keys(entry), set(&["index", "logit"]));
    }
    let answer = SERVER
        .post("/rerank", &json!({"query": "smart watch", "texts": texts}))
        .ok();
    let ranks = answer.json();
    assert_eq!(ranks.as_array().map(Vec::len), Some(10));
    assert!(
        ranks[0]["index"].is_u64() && ranks[0]["score"].is_f64(),
        "{ranks}"
    );
}

/// The scores of an answer, in the order of the documents.
fn scores(answer: &Answer, list: &str, key: &str, count: usize) -> Vec<f64> {
    let json = answer.json();
    let results = if list.is_empty() { &json } else { &json[list] };
    let mut scores = vec![f64::NAN; count];
    for result in results.as_array().expect("a list") {
        let index = result["index"].as_u64().expect("an index") as usize;
        scores[index] = result[key].as_f64().expect("a score");
    }
    scores
}

#[test]
fn all_protocols_give_the_same_scores_and_raw_ones_are_metaranks() {
    const QUERY: &str = "smart watch";
    let mut documents = texts(8);
    documents[4] = "a word".to_owned();
    let pairs: Vec<Value> = documents
        .iter()
        .map(|text| json!({"query": QUERY, "text": text}))
        .collect();
    for (model, raw_of, map) in [
        (
            "cross-encoder",
            "tiny-cross-encoder",
            (|logit: f64| 1.0 / (1.0 + (-logit).exp())) as fn(f64) -> f64,
        ),
        ("semantic-blend", "all-minilm-l6-v2", |cosine: f64| {
            (1.0 + cosine) / 2.0
        }),
    ] {
        let raw = SERVER
            .post(
                &format!("/inference/cross/{raw_of}"),
                &json!({"input": pairs}),
            )
            .ok()
            .numbers("scores");
        let body = |key: &str, more: Value| {
            let mut body = json!({"model": model, "query": QUERY, key: documents});
            for (name, value) in more.as_object().expect("an object") {
                body[name] = value.clone();
            }
            body
        };
        let call = |path: &str, body: Value, list: &str, key: &str| {
            scores(&SERVER.post(path, &body).ok(), list, key, 8)
        };
        let none = || json!({});
        let unit = [
            call(
                "/v1/rerank",
                body("documents", none()),
                "results",
                "relevance_score",
            ),
            call(
                "/v1/rerank",
                body("documents", json!({"top_k": null, "truncation": true})),
                "data",
                "relevance_score",
            ),
            call(
                "/v1/rerank",
                body("documents", json!({"kwargs": "{}"})),
                "results",
                "relevance_score",
            ),
            call(
                "/rerank",
                body("documents", json!({"use_activation": true})),
                "results",
                "relevance_score",
            ),
            call(
                "/infinity/rerank",
                body("documents", none()),
                "results",
                "relevance_score",
            ),
            call("/rerank", body("texts", none()), "", "score"),
            call(
                "/score",
                json!({"model": model, "queries": QUERY, "documents": documents}),
                "data",
                "score",
            ),
        ];
        for scores in &unit {
            assert_eq!(scores, &unit[0], "{model}");
            for (score, raw) in scores.iter().zip(&raw) {
                assert!((score - map(*raw)).abs() < 1e-6, "{model}: {score} {raw}");
            }
        }
        for scores in [
            call(
                "/rerank",
                body("documents", json!({"use_activation": false})),
                "results",
                "relevance_score",
            ),
            call(
                "/infinity/rerank",
                body("documents", json!({"raw_scores": true})),
                "results",
                "relevance_score",
            ),
            call(
                "/rerank",
                body("texts", json!({"raw_scores": true})),
                "",
                "score",
            ),
            call("/v1/ranking", body("passages", none()), "rankings", "logit"),
        ] {
            for (score, raw) in scores.iter().zip(&raw) {
                assert!((score - raw).abs() < 1e-4, "{model}: {score} {raw}");
            }
        }
    }
}

#[test]
fn no_score_depends_on_the_order_of_the_documents() {
    let texts = texts(12);
    let backwards: Vec<&String> = texts.iter().rev().collect();
    for model in ["semantic-blend", "cross-encoder"] {
        let call = |documents: Value| {
            let body = json!({"model": model, "query": "smart watch", "documents": documents});
            scores(
                &SERVER.post("/v2/rerank", &body).ok(),
                "results",
                "relevance_score",
                12,
            )
        };
        let mut reversed = call(json!(backwards));
        reversed.reverse();
        assert_eq!(call(json!(texts)), reversed, "{model}");
    }
}

#[test]
fn a_model_is_a_policy_a_version_an_alias_or_the_default() {
    let policy = |model: Value| {
        let body = json!({"model": model, "query": "q", "documents": ["a clog"]});
        let answer = SERVER.post("/v1/rerank", &body).ok();
        let named = answer.json()["model"]
            .as_str()
            .expect("it has a model")
            .to_owned();
        (
            answer.parameter("policy").expect("a policy").to_owned(),
            named,
        )
    };
    let pair = |policy: &str, named: &str| (policy.to_owned(), named.to_owned());
    assert_eq!(
        policy(json!("cross-encoder")),
        pair("cross-encoder", "cross-encoder")
    );
    assert_eq!(
        policy(json!("cross-encoder@0.1.0")),
        pair("cross-encoder", "cross-encoder@0.1.0")
    );
    assert_eq!(
        policy(json!("rerank-v3.5")),
        pair("cross-encoder", "rerank-v3.5")
    );
    for default in [Value::Null, json!("")] {
        assert_eq!(policy(default), pair("semantic-blend", "semantic-blend"));
    }
    let body = json!({"model": "default/not-specified", "query": "q", "documents": ["a clog"]});
    let answer = SERVER.post("/infinity/rerank", &body).ok();
    assert_eq!(answer.parameter("policy"), Some("semantic-blend"));

    let server = with_config("default_policy = \"first-stage\"\n", &[]);
    let body = json!({"query": "q", "documents": ["a clog"]});
    assert_eq!(
        server.post("/rerank", &body).ok().parameter("policy"),
        Some("first-stage")
    );
    drop(server);
    let server = Rerankd::start(&["--default-policy", "cross-encoder@0.1.0"]);
    assert_eq!(
        server.post("/rerank", &body).ok().parameter("policy"),
        Some("cross-encoder")
    );
    let info = server.get("/info").ok().json();
    assert_eq!(info["model_id"], "cross-encoder");
}

#[test]
fn without_a_default_policy_the_only_one_answers_or_an_error_says_what_is_missing() {
    let body = json!({"query": "q", "documents": ["a clog"]});
    let folder = Folder::new();
    let policies = folder.path().join("policies");
    let policies = policies.to_str().expect("the path is UTF-8");
    folder.copy(
        &require::policies().join("first-stage.wasm"),
        "policies/first-stage.wasm",
    );
    let server = Rerankd::start(&["--policies", policies]);
    assert_eq!(
        server.post("/v1/rerank", &body).ok().parameter("policy"),
        Some("first-stage")
    );
    drop(server);
    folder.copy(
        &require::policies().join("cross-encoder.wasm"),
        "policies/cross-encoder.wasm",
    );
    let server = Rerankd::start(&["--policies", policies]);
    for path in ["/v1/rerank", "/infinity/rerank"] {
        let answer = server.post(path, &body);
        let message = answer.json()["message"]
            .as_str()
            .expect("a message")
            .to_owned();
        assert!(message.contains("`--default-policy`"), "{message}");
        assert!(
            message.contains("active: `cross-encoder`, `first-stage`"),
            "{message}"
        );
    }
    let answer = server.post("/rerank", &json!({"query": "q", "texts": ["a"]}));
    assert_eq!(
        (answer.status, &answer.json()["error_type"]),
        (404, &json!("Backend"))
    );
    assert_eq!(server.get("/info").status, 404);
}

#[test]
fn text_embeddings_inference_says_what_it_did_in_headers() {
    let body = json!({"query": "clog", "texts": ["a clog", "a boot", "a clog"]});
    let answer = SERVER.post("/rerank", &body).ok();
    let ranks = answer.json();
    let order: Vec<u64> = ranks
        .as_array()
        .expect("an array")
        .iter()
        .filter_map(|rank| rank["index"].as_u64())
        .collect();
    assert_eq!(
        order,
        [2, 0, 1],
        "equal scores come with the higher index first"
    );
    assert_eq!(answer.header("x-compute-characters"), Some("30"));
    for name in [
        "x-compute-type",
        "x-compute-time",
        "x-compute-tokens",
        "x-total-time",
        "x-tokenization-time",
        "x-queue-time",
        "x-inference-time",
    ] {
        assert!(answer.header(name).is_some(), "{name}");
    }
    let usage = SERVER.post(
        "/rerank",
        &json!({"query": "clog", "documents": ["a clog", "a boot", "a clog"]}),
    );
    let tokens = usage.ok().json()["usage"]["total_tokens"]
        .as_u64()
        .expect("a count");
    assert_eq!(
        answer.header("x-compute-tokens"),
        Some(tokens.to_string().as_str())
    );
    // Three texts and a query of at least a word and two marks each.
    assert!(tokens >= 12, "{tokens}");

    let long = "clog ".repeat(600);
    let body = json!({"query": "clog", "texts": ["a clog", long], "truncate": false});
    let refused = SERVER.post("/rerank", &body);
    assert_eq!(refused.status, 422);
    let error = refused.json();
    assert_eq!(error["error_type"], "Validation");
    let message = error["error"].as_str().expect("a text");
    assert!(
        message.starts_with(
            "Input validation error: `inputs` must have less than 256 tokens. Given: "
        ),
        "{message}"
    );
    let given: u64 = message
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .expect("a count");
    assert!(given > 600, "{message}");
    let body = json!({"query": "clog", "texts": ["a clog", long]});
    SERVER.post("/rerank", &body).ok();
}

#[test]
fn the_data_plane_says_who_is_there() {
    let models = SERVER.get("/v1/models").ok().json();
    let names: BTreeSet<&str> = models["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|model| model["id"].as_str())
        .collect();
    for name in [
        "cross-encoder",
        "semantic-blend",
        "rerank-v3.5",
        "BAAI/bge-reranker-base",
    ] {
        assert!(names.contains(name), "{names:?}");
    }
    for (name, policy) in [
        ("semantic-blend", "semantic-blend"),
        ("BAAI%2Fbge-reranker-base", "cross-encoder"),
    ] {
        let model = SERVER.get(&format!("/v1/models/{name}")).ok().json();
        assert_eq!(
            (&model["model_type"], &model["model_name"]),
            (&json!("rerank"), &json!(policy))
        );
    }
    // Whoever fetches documents for a policy learns here which fields it reads.
    let default = SERVER.get("/v1/models/_default").ok().json();
    assert_eq!(default["model_name"], "semantic-blend");
    let named = SERVER.get("/v1/models/semantic-blend").ok().json();
    assert_eq!(named["fields"], default["fields"]);
    assert_eq!(named["fields"], json!(["title", "text"]), "{named}");
    // And whether a search may name others for it.
    assert_eq!(named["field_choice"], json!({"kept": []}), "{named}");
    let unknown = SERVER.get("/v1/models/bert");
    assert_eq!(unknown.status, 404);
    assert!(
        unknown.json()["detail"]
            .as_str()
            .is_some_and(|text| text.contains("`bert`"))
    );
    // Xinference's client looks there whether it has to send a key.
    let asks = SERVER.get("/v1/cluster/auth").ok().json();
    assert_eq!(asks, json!({"auth": false}));
    for path in ["/", "/health", "/ping"] {
        assert_eq!(SERVER.get(path).ok().text(), "", "{path}");
    }
    let info = SERVER.get("/info").ok().json();
    assert_eq!(info["model_id"], "semantic-blend");
    assert_eq!(info["max_input_length"], 256);
    assert_eq!(info["max_client_batch_size"], 1000);
    assert!(info["model_type"]["reranker"].is_object());
}

#[test]
fn metrics_of_text_embeddings_inference_are_there_where_they_are_wanted() {
    assert_eq!(SERVER.get("/metrics").status, 404);
    let server = with_config("[wire]\ntei_metrics = true\n", &[]);
    server
        .post("/rerank", &json!({"query": "q", "texts": ["a", "b"]}))
        .ok();
    server.post("/rerank", &json!({"query": "q", "texts": []}));
    let answer = server.get("/metrics").ok();
    assert!(
        answer
            .header("content-type")
            .is_some_and(|kind| kind.starts_with("text/plain"))
    );
    let text = answer.text();
    for line in [
        "te_request_count{method=\"batch\"} 2",
        "te_request_success{method=\"batch\"} 1",
        "te_request_failure{err=\"validation\"} 1",
        "te_predict_count 2",
        "te_queue_size 0",
        "te_request_duration_count 1",
    ] {
        assert!(
            text.lines().any(|own| own == line),
            "expected `{line}` in:\n{text}"
        );
    }
}
