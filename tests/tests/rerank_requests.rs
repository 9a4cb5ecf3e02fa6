//! Requests that real clients send to the rerank routes and that went wrong once: types, paths, marks before
//! the body, options of several vendors, what comes back of documents, who is listed first.

use std::sync::LazyLock;

use rerankd_tests::{Answer, Folder, Rerankd};
use serde_json::{Value, json};

const CONFIG: &str = r#"
default_policy = "semantic-blend"

[wire.aliases]
"*" = "semantic-blend"
"rerank-v3.5" = "cross-encoder"
"#;

static SERVER: LazyLock<(Rerankd, Folder)> = LazyLock::new(|| {
    let folder = Folder::new();
    let path = folder.write("rerankd.toml", CONFIG);
    let path = path.to_str().expect("the path is UTF-8");
    let server = Rerankd::start(&["--config", path, "--timeout-ms", "60000"]);
    (server, folder)
});

fn server() -> &'static Rerankd {
    &SERVER.0
}

fn post(path: &str, body: &Value) -> Answer {
    server().post(path, body)
}

#[test]
fn types_are_as_lax_as_those_of_the_servers_that_are_imitated() {
    let body = json!({"model": "semantic-blend", "query": "q", "documents": ["a", "b"],
        "return_documents": "true", "return_len": "true", "top_n": "1"});
    let answer = post("/v1/rerank", &body).ok().json();
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(1));
    assert!(
        answer["results"][0]["document"]["text"].is_string(),
        "{answer}"
    );
    assert!(
        answer["meta"]["tokens"]["input_tokens"].is_u64(),
        "{answer}"
    );
    let body =
        json!({"query": "q", "texts": ["a"], "truncate": "true", "truncation_direction": "RIGHT"});
    post("/rerank", &body).ok();
    // Native stays strict.
    let body = json!({"query": "q", "documents": ["a"], "top_n": "1"});
    assert_eq!(post("/v1/rerank/semantic-blend", &body).status, 400);
}

/// Whose words an answer has.
fn spoken(answer: &Value) -> &'static str {
    if answer.is_array() {
        "tei"
    } else if answer["rankings"].is_array() {
        "nvidia"
    } else if answer["timings_ms"].is_object() {
        "native"
    } else if answer["meta"]["billed_units"].is_object() {
        "superset"
    } else if answer["data"][0]["input"].is_string() {
        "mixedbread"
    } else {
        "another's"
    }
}

#[test]
fn the_bodys_keys_decide_on_every_shared_path_and_slashes_do_not() {
    let nvidia = json!({"model": "nv-rerank-qa-mistral-4b:1", "query": {"text": "q"},
        "passages": [{"text": "a"}], "truncate": "END"});
    let usual = json!({"model": "semantic-blend", "query": "q", "documents": ["a"]});
    let texts = json!({"query": "q", "texts": ["a"]});
    let mixedbread =
        json!({"model": "m", "query": "q", "input": ["a"], "top_k": null, "return_input": true});
    for path in [
        "/v1/rerank",
        "/v2/rerank",
        "/rerank",
        "/reranking",
        "/v1/reranking",
        "/v1/ranking",
        "/v1/retrieval/nvidia/reranking",
        "/v1/retrieval/nvidia/nv-rerankqa-mistral-4b-v3/reranking",
        "/",
        "/invocations",
        "/v1/rerank/",
        "//v1/rerank",
        "/v1//rerank//",
        "/v1/retrieval/nvidia//reranking/",
    ] {
        for (body, name) in [
            (&nvidia, "nvidia"),
            (&usual, "superset"),
            (&texts, "tei"),
            (&mixedbread, "mixedbread"),
        ] {
            let answer = post(path, body).ok().json();
            assert_eq!(spoken(&answer), name, "{path} {body}");
        }
    }
    let native = json!({"query": "q", "documents": ["a"]});
    let answer = post("/v1/rerank/semantic-blend/", &native).ok().json();
    assert_eq!(spoken(&answer), "native");
    server().get("/v1/models/?a=b").ok();
    server().get("//health/ready").ok();
    // What is no route stays none.
    assert_eq!(server().post("/v3/rerank/", &usual).status, 404);
}

#[test]
fn a_byte_order_mark_is_skipped_and_utf_16_is_named() {
    let body = r#"{"model":"semantic-blend","query":"q","documents":["a"]}"#;
    let marked = ["\u{feff}", body].concat();
    server().post_text("/v1/rerank", marked).ok();
    let wide: Vec<u8> = body.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let answer = server().post_text("/v1/rerank", wide);
    assert_eq!(answer.status, 400);
    assert!(
        answer
            .text()
            .contains("the body is UTF-16; expected JSON in UTF-8"),
        "{}",
        answer.text()
    );
}

#[test]
fn what_nobody_knows_is_ranked_by_the_catch_all_and_what_somebody_knows_is_not() {
    let policy = |model: &str| {
        let body = json!({"model": model, "query": "q", "documents": ["a"]});
        let answer = post("/v1/rerank", &body).ok();
        assert_eq!(answer.json()["model"], model);
        answer
            .parameter("policy")
            .expect("it was ranked")
            .to_owned()
    };
    assert_eq!(policy("whatever/a-client:calls-it"), "semantic-blend");
    assert_eq!(policy("rerank-v3.5"), "cross-encoder");
    assert_eq!(policy("first-stage"), "first-stage");
    // A version that is not there is a mistake, and no foreign model.
    let body = json!({"model": "semantic-blend@0badbeef", "query": "q", "documents": ["a"]});
    assert_eq!(post("/v1/rerank", &body).status, 404);
    // Xinference's client asks before it ranks.
    let model = server().get("/v1/models/whatever").ok().json();
    assert_eq!(model["model_name"], "semantic-blend");
}

#[test]
fn a_policy_that_is_expected_is_not_ranked_by_the_catch_all() {
    let folder = Folder::new();
    let path = folder.write("rerankd.toml", CONFIG);
    let path = path.to_str().expect("the path is UTF-8");
    let server = Rerankd::start(&["--config", path, "--expect", "mine"]);
    for (model, status) in [("mine", 404), ("mine@1.0.0", 404), ("yours", 200)] {
        let body = json!({"model": model, "query": "q", "documents": ["a"]});
        let answer = server.post("/v1/rerank", &body);
        assert_eq!(answer.status, status, "{model}: {}", answer.text());
    }
}

#[test]
fn the_default_policy_is_listed_first_and_stand_ins_last() {
    let models = server().get("/v1/models").ok().json();
    let names: Vec<&str> = models["data"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|model| model["id"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "semantic-blend",
            "first-stage",
            "cross-encoder",
            "rerank-v3.5"
        ]
    );
    let warned = |model: &str| {
        let body = json!({"model": model, "query": "q", "documents": ["a"]});
        let answer = post("/v2/rerank", &body).ok();
        answer.json()["meta"]["warnings"].to_string()
    };
    let warning = warned("rerank-v3.5");
    for part in ["`tiny-cross-encoder`", "stands in", "scores mean nothing"] {
        assert!(warning.contains(part), "{warning}");
    }
    assert_eq!(warned("semantic-blend"), "null");
}

#[test]
fn documents_come_back_as_they_were_sent() {
    let body = json!({"query": "green tea", "return_documents": true, "documents": [
        {"text": ["Green tea is steeped.", "Two minutes."]}, {"text": "bridge"}]});
    let results = post("/v1/rerank", &body).ok().json()["results"].clone();
    assert_eq!(results[0]["document"], body["documents"][0]);
    assert_eq!(results[1]["document"], body["documents"][1]);
    // The list was ranked as the text that it is.
    let joined = json!({"query": "green tea", "documents":
        ["Green tea is steeped. Two minutes.", "bridge"]});
    let as_text = post("/v1/rerank", &joined).ok().json()["results"].clone();
    assert_eq!(results[0]["relevance_score"], as_text[0]["relevance_score"]);
    // Where nobody says whether they are wanted, they are there.
    assert_eq!(as_text[1]["document"], json!({"text": "bridge"}));
}

#[test]
fn an_empty_passage_stands_below_every_score() {
    for model in ["semantic-blend", "rerank-v3.5"] {
        let body = json!({"model": model, "query": {"text": "tea"},
            "passages": [{"text": "green tea"}, {"text": ""}]});
        let rankings = post("/v1/ranking", &body).ok().json()["rankings"].clone();
        let logit = |rank: usize| rankings[rank]["logit"].as_f64().expect("a number");
        assert_eq!(
            (&rankings[0]["index"], &rankings[1]["index"]),
            (&json!(0), &json!(1))
        );
        assert!(logit(1) < logit(0), "{model}: {rankings}");
    }
}

#[test]
fn options_of_vendors_and_ours_do_not_meet() {
    let mut body = json!({"model": "semantic-blend", "query": "q", "documents": ["a"],
        "parameters": {"truncate": "END"}, "rank_fields": []});
    let usage = post("/v1/rerank", &body).ok().json()["usage"].clone();
    assert_eq!(usage["completion_tokens"], 0);
    body["rerankd"] = json!({"parameters": {"weight": 0.5}, "min_score": 0.999});
    assert_eq!(post("/v1/rerank", &body).ok().json()["results"], json!([]));
    body["rerankd"] = json!({"parameters": {"wait": 0.5}});
    let refused = post("/v1/rerank", &body);
    assert_eq!(refused.status, 400);
    assert!(refused.text().contains("wait"), "{}", refused.text());
    // As in 0.1.
    let old = json!({"query": "q", "documents": ["a"], "parameters": {"wait": 0.5}});
    assert_eq!(post("/v1/rerank", &old).status, 400);
}

#[test]
fn what_is_said_of_long_texts_is_honoured_or_refused() {
    let long = "clog ".repeat(600);
    let documents = json!(["a clog", long]);
    for (path, more, part) in [
        (
            "/v1/rerank",
            json!({"truncate": "NONE"}),
            "must have less than 256 tokens",
        ),
        (
            "/v1/rerank",
            json!({"truncation": false}),
            "must have less than 256 tokens",
        ),
        (
            "/v1/rerank",
            json!({"truncation_side": "left"}),
            "`truncation_side` asks to keep its end",
        ),
        (
            "/v1/rerank",
            json!({"truncate_prompt_tokens": 64}),
            "`truncate_prompt_tokens` is 64",
        ),
        (
            "/v2/rerank",
            json!({"max_tokens_per_doc": 64}),
            "`max_tokens_per_doc` is 64",
        ),
    ] {
        let mut body = json!({"model": "semantic-blend", "query": "clog", "documents": documents});
        for (key, value) in more.as_object().expect("an object") {
            body[key] = value.clone();
        }
        let refused = post(path, &body);
        assert_eq!(refused.status, 400, "{more}");
        assert!(refused.text().contains(part), "{more}: {}", refused.text());
    }
    let body = json!({"model": "semantic-blend", "query": "clog", "documents": documents,
        "max_tokens_per_doc": 4096, "truncate_prompt_tokens": -1, "truncate": "END"});
    post("/v1/rerank", &body).ok();
    // A bound on queries is no business of documents, nor the other way round: where both are one row, where
    // each has its own, and without a policy.
    let longer = "clog ".repeat(50);
    for model in ["cross-encoder", "semantic-blend", "all-minilm-l6-v2"] {
        for (query, document, kept, broken) in [
            (
                "clog",
                longer.as_str(),
                "max_query_length",
                "max_doc_length",
            ),
            (
                longer.as_str(),
                "clog",
                "max_doc_length",
                "max_query_length",
            ),
        ] {
            let mut body = json!({"model": model, "query": query, "documents": [document]});
            body[kept] = json!(40);
            body[broken] = json!(1024);
            post("/v1/rerank", &body).ok();
            body[broken] = json!(40);
            let refused = post("/v1/rerank", &body);
            assert_eq!(refused.status, 400, "{model} {body}");
            let part = format!("`{broken}` is 40");
            assert!(refused.text().contains(&part), "{}", refused.text());
        }
    }
    // Short texts are not cut by a bound that they keep to.
    let body = json!({"query": "clog", "documents": ["a clog"], "max_tokens_per_doc": 64});
    post("/v2/rerank", &body).ok();
}

#[test]
fn explanations_that_would_not_be_shown_are_refused_by_name() {
    let page = json!({"hits": {"hits": [{"_score": 1.0, "_source": {"title": "a clog"}}]}});
    let path = "/v1/rerank/semantic-blend/hits";
    let mut body = json!({"query": "clog", "response": page, "explain": true});
    let refused = post(path, &body);
    assert_eq!(refused.status, 400);
    assert!(
        refused.error_message().contains("`explain`"),
        "{}",
        refused.text()
    );
    body["explain"] = json!(false);
    post(path, &body).ok();
}

#[test]
fn fields_may_be_named() {
    let documents =
        json!([{"name": "a hammer", "about": "clog"}, {"name": "clog", "about": "a hammer"}]);
    let first = |fields: Value| {
        let body = json!({"model": "semantic-blend", "query": "clog", "documents": documents,
            "rank_fields": fields, "return_documents": true});
        post("/v1/rerank", &body).ok().json()["results"][0].clone()
    };
    assert_eq!(first(json!(["name"]))["index"], 1);
    let best = first(json!(["about"]));
    assert_eq!(best["index"], 0);
    assert_eq!(
        best["document"],
        json!({"text": "clog", "name": "a hammer", "about": "clog"})
    );
}
