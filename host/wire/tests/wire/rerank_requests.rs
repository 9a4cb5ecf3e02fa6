//! What clients of rerank APIs send that others would refuse, and where rerankd's own options stand.

use std::time::Duration;

use rerankd_core::{ErrorKind, Judgment, Reranked, ScoreKind, TokenCount, UnitMap};
use rerankd_wire::bedrock::Bedrock;
use rerankd_wire::hits::Hits;
use rerankd_wire::infinity::Infinity;
use rerankd_wire::mixedbread::Mixedbread;
use rerankd_wire::native::Native;
use rerankd_wire::nvidia::Nvidia;
use rerankd_wire::ollama::Ollama;
use rerankd_wire::superset::Superset;
use rerankd_wire::voyage::Voyage;
use rerankd_wire::xinference::Xinference;
use rerankd_wire::{Protocol, tei, vllm};
use serde_json::{Value, json};

use crate::rerank_apis::probabilities;
use crate::support::{answer, decode, request, scored};

/// The answer to a body, with this score for each document.
fn answered(protocol: &dyn Protocol, body: &str, scores: &[f64]) -> Value {
    let decoded =
        decode(protocol, body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"));
    let judgments = scores.iter().copied().map(scored).collect();
    let answer = answer(decoded, &[probabilities(judgments)]);
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn booleans_and_integers_may_be_what_pydantic_takes_for_them() {
    let body = r#"{"query":"q","documents":["a","b"],"return_documents":"false","top_n":"1"}"#;
    let json = answered(&Superset, body, &[0.1, 0.9]);
    assert_eq!(
        json["results"],
        json!([{"index": 1, "relevance_score": 0.9}])
    );
    let body = r#"{"query":"q","documents":["a"],"return_documents":"true","return_len":"true"}"#;
    let json = answered(&Xinference, body, &[0.5]);
    assert_eq!(json["results"][0]["document"], json!({"text": "a"}));
    assert_eq!(json["meta"]["tokens"]["input_tokens"], 12);
    let body = r#"{"query":"q","texts":["a"],"truncate":"true","truncation_direction":"RIGHT","raw_scores":"0","return_text":1}"#;
    let json = answered(&tei::Rerank, body, &[0.5]);
    assert_eq!(json, json!([{"index": 0, "text": "a", "score": 0.5}]));
    for (protocol, body) in [
        (
            &Infinity as &dyn Protocol,
            r#"{"query":"q","documents":["a"],"raw_scores":"yes"}"#,
        ),
        (
            &vllm::Rerank,
            r#"{"query":"q","documents":["a"],"use_activation":"False"}"#,
        ),
        (
            &vllm::Score,
            r#"{"queries":"q","documents":["a"],"use_activation":0}"#,
        ),
        (&tei::Predict, r#"{"inputs":["q","a"],"raw_scores":1.0}"#),
    ] {
        assert!(request(protocol, body.as_bytes()).raw_scores, "{body}");
    }
    // rerankd's own forms and options are strict.
    for (protocol, body) in [
        (
            &Native as &dyn Protocol,
            r#"{"query":"q","documents":["a"],"top_n":"1"}"#,
        ),
        (
            &Native,
            r#"{"query":"q","documents":["a"],"explain":"true"}"#,
        ),
        (
            &Superset,
            r#"{"query":"q","documents":["a"],"rerankd":{"explain":"true"}}"#,
        ),
        (
            &Superset,
            r#"{"query":"q","documents":["a"],"rerankd":{"timeout_ms":"5"}}"#,
        ),
    ] {
        let error = decode(protocol, body.as_bytes()).err().expect(body);
        assert_eq!(error.kind, ErrorKind::BadRequest, "{body}");
    }
}

#[test]
fn a_byte_order_mark_is_skipped_and_utf_16_is_refused_by_name() {
    let body = r#"{"query":"q","documents":["a"]}"#;
    for protocol in [&Superset as &dyn Protocol, &Native] {
        let marked = ["\u{feff}", body].concat();
        assert_eq!(
            request(protocol, marked.as_bytes()),
            request(protocol, body.as_bytes())
        );
        let little: Vec<u8> = body.encode_utf16().flat_map(u16::to_le_bytes).collect();
        let big: Vec<u8> = body.encode_utf16().flat_map(u16::to_be_bytes).collect();
        let with_mark = [&[0xff, 0xfe][..], &little].concat();
        for sent in [&little, &big, &with_mark] {
            let error = decode(protocol, sent).err().unwrap();
            assert_eq!(error.message, "the body is UTF-16; expected JSON in UTF-8");
        }
        // Twice is once too many.
        let twice = ["\u{feff}\u{feff}", body].concat();
        assert!(decode(protocol, twice.as_bytes()).is_err());
    }
}

#[test]
fn documents_come_back_unless_they_are_not_wanted() {
    let sent = |more: &str| format!(r#"{{"query":"q","documents":["a"]{more}}}"#);
    for (more, results, data) in [
        ("", true, false),
        (r#","return_documents":null"#, true, false),
        (r#","return_documents":false"#, false, false),
        (r#","return_documents":true"#, true, true),
    ] {
        let json = answered(&Superset, &sent(more), &[0.5]);
        let document = |wanted: bool| match wanted {
            true => json!({"text": "a"}),
            false => Value::Null,
        };
        assert_eq!(json["results"][0]["document"], document(results), "{more}");
        assert_eq!(json["data"][0]["document"], document(data), "{more}");
    }
    // vLLM's readers need them whatever was asked; Ollama's want a string; Voyage's, Infinity's and
    // Xinference's servers send none of themselves.
    let unwanted = sent(r#","return_documents":false"#);
    let vllm = answered(&vllm::Rerank, &unwanted, &[0.5]);
    assert_eq!(vllm["results"][0]["document"], json!({"text": "a"}));
    let ollama = answered(&Ollama, &sent(""), &[0.5]);
    assert_eq!(ollama["results"][0]["document"], "a");
    for protocol in [&Voyage as &dyn Protocol, &Infinity, &Xinference] {
        let json = answered(protocol, &sent(""), &[0.5]);
        assert!(!json.to_string().contains("document"), "{json}");
    }
}

#[test]
fn what_comes_back_of_a_document_is_what_was_sent() {
    let list = json!({"text": ["Green tea is steeped.", "Two minutes."], "id": 7});
    let body =
        json!({"query": "q", "documents": [list, {"text": 7}, "b"], "return_documents": true});
    let scores = [0.9, 0.5, 0.1];
    let json = answered(&Superset, &body.to_string(), &scores);
    assert_eq!(json["results"][0]["document"], list);
    assert_eq!(json["results"][1]["document"], json!({"text": 7}));
    assert_eq!(json["results"][2]["document"], json!({"text": "b"}));
    // As a string it is the text that was ranked.
    for protocol in [&Voyage as &dyn Protocol, &Infinity, &Ollama] {
        let json = answered(protocol, &body.to_string(), &scores);
        let list = if json["results"].is_array() {
            &json["results"]
        } else {
            &json["data"]
        };
        assert_eq!(list[0]["document"], "Green tea is steeped. Two minutes.");
        assert_eq!(list[1]["document"], "7");
        assert_eq!(list[2]["document"], "b");
    }
    let body = json!({"query": "q", "input": [{"title": "t"}, "b"], "rank_fields": ["title"], "return_input": true});
    let json = answered(&Mixedbread, &body.to_string(), &[0.9, 0.5]);
    assert_eq!(json["data"][0]["input"], json!({"title": "t"}));
    assert_eq!(json["data"][1]["input"], "b");
    // Fields that count are joined, lists in them too.
    let body = json!({"query": "q", "documents": [{"title": "t", "tags": ["x", "y"]}],
        "rank_fields": ["tags", "title"]});
    let json = answered(&Superset, &body.to_string(), &[0.5]);
    assert_eq!(json["results"][0]["document"]["text"], "x y t");
}

#[test]
fn no_rank_fields_are_as_good_as_none() {
    let sent = br#"{"query":"q","documents":["a",{"text":"b"}],"rank_fields":[]}"#;
    assert_eq!(request(&Superset, sent).fields, None);
}

#[test]
fn usage_has_what_the_schemas_of_clients_ask_for() {
    let usage = json!({"prompt_tokens": 12, "completion_tokens": 0, "total_tokens": 12});
    let sent = r#"{"query":"q","documents":["a"]}"#;
    for protocol in [
        &Superset as &dyn Protocol,
        &Voyage,
        &vllm::Rerank,
        &Infinity,
    ] {
        assert_eq!(answered(protocol, sent, &[0.5])["usage"], usage);
    }
    // SiliconFlow's readers add these up.
    let meta = &answered(&Superset, sent, &[0.5])["meta"];
    assert_eq!(
        meta["tokens"],
        json!({"input_tokens": 12, "output_tokens": 0})
    );
}

/// The raw scores of two documents with a score, and of one without.
fn raw_scores(map: UnitMap, kind: ScoreKind, scores: [f64; 2]) -> Vec<f64> {
    let sent = r#"{"query":{"text":"q"},"passages":[{"text":"a"},{"text":""},{"text":"b"}]}"#;
    let judgments = vec![
        scored(scores[0]),
        Judgment::unscored("empty"),
        scored(scores[1]),
    ];
    let result = Reranked {
        unit_map: map,
        score_kind: kind,
        ..probabilities(judgments)
    };
    let answer = answer(decode(&Nvidia, sent.as_bytes()).unwrap(), &[result]);
    let json: Value = serde_json::from_slice(&answer.body).unwrap();
    let rankings = json["rankings"].as_array().unwrap().iter();
    let mut logits = vec![f64::NAN; 3];
    for ranking in rankings {
        let index = ranking["index"].as_u64().unwrap();
        logits[usize::try_from(index).unwrap()] = ranking["logit"].as_f64().unwrap();
    }
    logits
}

#[test]
fn a_document_without_a_score_never_ties_with_one_that_has_one() {
    for (map, kind, scores, sentinel) in [
        // The lower bound of the scale, where there is one;
        (UnitMap::Identity, ScoreKind::Probability, [0.9, 0.75], 0.0),
        (UnitMap::Cosine, ScoreKind::Cosine, [0.9, 0.75], -1.0),
        // a logit that is as good as none;
        (UnitMap::Sigmoid, ScoreKind::Logit, [4.5, -3.5], -20.0),
        // below the lowest, where that is lower still.
        (UnitMap::Sigmoid, ScoreKind::Logit, [4.5, -33.5], -34.5),
        (UnitMap::Identity, ScoreKind::Blend, [0.5, -2.5], -3.5),
        (UnitMap::Identity, ScoreKind::Probability, [0.5, 0.0], -1.0),
    ] {
        assert_eq!(
            raw_scores(map, kind, scores),
            [scores[0], sentinel, scores[1]]
        );
    }
}

#[test]
fn rerankds_own_options_stand_under_one_key() {
    let options = r#"{"parameters":{"weight":0.5},"signals":{"country":"FR"},"timeout_ms":250,
        "on_failure":"error","min_score":0.1,"key":"user-17","explain":false}"#;
    for (protocol, body) in [
        (
            &Superset as &dyn Protocol,
            r#""query":"q","documents":["a"]"#,
        ),
        (&Voyage, r#""query":"q","documents":["a"],"top_k":null"#),
        (&Nvidia, r#""query":"q","passages":["a"]"#),
        (&tei::Rerank, r#""query":"q","texts":["a"]"#),
        (&Mixedbread, r#""query":"q","input":["a"]"#),
        (
            &Bedrock,
            r#""queries":[{"textQuery":{"text":"q"}}],"sources":[{"inlineDocumentSource":{"textDocument":{"text":"a"}}}]"#,
        ),
    ] {
        let body = format!(
            r#"{{{body},"rerankd":{options},"priority":3,"user":"u","unheard-of":{{"a":[1]}}}}"#
        );
        let request = request(protocol, body.as_bytes());
        assert_eq!(request.parameters.as_deref(), Some(r#"{"weight":0.5}"#));
        assert_eq!(request.signals.len(), 1);
        assert_eq!(request.timeout, Some(Duration::from_millis(250)));
        assert_eq!((request.min_score, request.explain), (Some(0.1), false));
        assert_eq!(request.key.as_deref(), Some("user-17"));
    }
}

#[test]
fn options_at_the_top_of_the_body_are_read_as_they_were_in_0_1() {
    let body =
        br#"{"query":"q","documents":["a"],"parameters":{"weight":0.5},"signals":{"country":"FR"},
        "timeout_ms":250,"on_failure":"error","min_score":0.1,"key":"user-17","explain":true}"#;
    let request = request(&Superset, body);
    assert_eq!(request.parameters.as_deref(), Some(r#"{"weight":0.5}"#));
    assert_eq!(request.signals.len(), 1);
    assert_eq!(request.timeout, Some(Duration::from_millis(250)));
    assert_eq!((request.min_score, request.explain), (Some(0.1), true));
    assert_eq!(request.key.as_deref(), Some("user-17"));

    let mut judged = scored(0.5);
    judged.explanation = Some("since it is so".into());
    let answer = answer(
        decode(&Superset, body).unwrap(),
        &[probabilities(vec![judged])],
    );
    let json: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(
        json["meta"]["explanations"],
        json!([{"index": 0, "explanation": "since it is so"}])
    );
}

#[test]
fn the_parameters_of_another_vendor_are_read_as_that_vendors() {
    let sent = |more: &str| format!(r#"{{"query":"q","documents":["a","b"],{more}}}"#);
    for foreign in [
        r#""parameters":{"truncate":"END"}"#,
        r#""parameters":{}"#,
        r#""parameters":{"max_chunks_per_doc":3,"instruct":"i"}"#,
        r#""parameters":{"input_type":"query"},"rerankd":{}"#,
    ] {
        let request = request(&Superset, sent(foreign).as_bytes());
        assert_eq!(request.parameters, None, "{foreign}");
    }
    let both = sent(
        r#""parameters":{"top_n":1,"return_documents":false},"rerankd":{"parameters":{"weight":1}}"#,
    );
    let decoded = request(&Superset, both.as_bytes());
    assert_eq!(decoded.parameters.as_deref(), Some(r#"{"weight":1}"#));
    assert_eq!(decoded.top_n, Some(1));
    let json = answered(&Superset, &both, &[0.1, 0.9]);
    assert_eq!(
        json["results"],
        json!([{"index": 1, "relevance_score": 0.9}])
    );
}

#[test]
fn explanations_are_refused_where_an_answer_has_no_place_for_them() {
    let page = r#"{"query":"q","response":{"hits":{"hits":[]}},"explain":true}"#;
    for (protocol, body) in [
        (&Hits as &dyn Protocol, page),
        (&Voyage, r#"{"query":"q","documents":["a"],"explain":true}"#),
        (
            &tei::Rerank,
            r#"{"query":"q","texts":["a"],"explain":true}"#,
        ),
        (&tei::Predict, r#"{"inputs":["q","a"],"explain":true}"#),
        (
            &vllm::Score,
            r#"{"queries":"q","documents":["a"],"explain":true}"#,
        ),
        (&Nvidia, r#"{"query":"q","passages":["a"],"explain":true}"#),
    ] {
        let error = decode(protocol, body.as_bytes()).err().expect(body);
        assert_eq!(error.kind, ErrorKind::BadRequest);
        assert_eq!(error.at.as_deref(), Some("explain"), "{body}");
        assert!(error.message.contains("/v1/rerank/{policy}"), "{error}");
        let off = body.replace("true", "false");
        assert!(decode(protocol, off.as_bytes()).is_ok(), "{off}");
    }
}

/// What becomes of a request of which a text was cut from 534 tokens to 512.
fn with_a_cut(protocol: &dyn Protocol, body: &str) -> Result<(), String> {
    let cut = Reranked {
        tokens: TokenCount {
            total: 520,
            longest: 512,
            longest_query: Some(3),
            longest_document: 506,
            longest_cut: Some(534),
            window: 512,
        },
        ..probabilities(vec![scored(0.5)])
    };
    let decoded =
        decode(protocol, body.as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"));
    let encoded = decoded.reply.encode(&[cut]);
    encoded.map(|_| ()).map_err(|error| {
        assert_eq!(error.kind, ErrorKind::TooLong);
        error.message
    })
}

#[test]
fn what_a_caller_says_of_cutting_is_honoured_or_refused_on_every_route() {
    let bodies: [(&dyn Protocol, &str); 10] = [
        (&Superset, r#""query":"q","documents":["a"]"#),
        (&Voyage, r#""query":"q","documents":["a"]"#),
        (&Xinference, r#""query":"q","documents":["a"]"#),
        (&Infinity, r#""query":"q","documents":["a"]"#),
        (&vllm::Rerank, r#""query":"q","documents":["a"]"#),
        (&vllm::Score, r#""queries":"q","documents":["a"]"#),
        (&Nvidia, r#""query":"q","passages":["a"]"#),
        (&tei::Rerank, r#""query":"q","texts":["a"]"#),
        (&tei::Predict, r#""inputs":["q","a"]"#),
        (
            &Bedrock,
            r#""queries":[{"textQuery":{"text":"q"}}],"sources":[{"inlineDocumentSource":{"textDocument":{"text":"a"}}}]"#,
        ),
    ];
    let whole = "`inputs` must have less than 512 tokens. Given: 534";
    for (protocol, required) in bodies {
        for (more, refusal) in [
            (r#""truncate":"NONE""#, Some(whole)),
            (r#""truncate":false"#, Some(whole)),
            (r#""truncation":false"#, Some(whole)),
            (r#""parameters":{"truncate":"NONE"}"#, Some(whole)),
            (
                r#""truncate":"START""#,
                Some("`truncate` asks to keep its end"),
            ),
            (
                r#""truncation_side":"left""#,
                Some("`truncation_side` asks"),
            ),
            (
                r#""truncation_direction":"LEFT""#,
                Some("`truncation_direction` asks"),
            ),
            (
                r#""max_tokens_per_doc":128"#,
                Some("`max_tokens_per_doc` is 128"),
            ),
            (
                r#""truncate_prompt_tokens":"64""#,
                Some("`truncate_prompt_tokens` is 64"),
            ),
            (r#""truncate":"END""#, None),
            (r#""truncate":"true""#, None),
            (r#""truncation":1"#, None),
            (r#""truncation_side":"right""#, None),
            (r#""truncate_prompt_tokens":-1"#, None),
            (r#""max_tokens_per_doc":4096"#, None),
            (r#""max_chunks_per_doc":10"#, None),
        ] {
            let body = format!("{{{required},{more}}}");
            let told = with_a_cut(protocol, &body);
            match refusal {
                None => assert_eq!(told, Ok(()), "{} {body}", protocol.name()),
                Some(part) => {
                    let told = told.expect_err(&body);
                    assert!(told.contains(part), "{} {body}: {told}", protocol.name());
                }
            }
        }
    }
    let bedrock = r#"{"queries":[{"textQuery":{"text":"q"}}],"sources":[{"inlineDocumentSource":{"textDocument":{"text":"a"}}}],
        "rerankingConfiguration":{"bedrockRerankingConfiguration":{"modelConfiguration":{"additionalModelRequestFields":{"max_tokens_per_doc":9}}}}}"#;
    let told = with_a_cut(&Bedrock, bedrock).expect_err("it is refused");
    assert!(told.contains("`max_tokens_per_doc` is 9"), "{told}");
}

#[test]
fn a_bound_that_no_text_reaches_is_kept_to() {
    let body = r#"{"query":"q","documents":["a"],"max_tokens_per_doc":10}"#;
    let short = Reranked {
        tokens: TokenCount {
            total: 12,
            longest: 7,
            longest_document: 5,
            ..TokenCount::default()
        },
        ..probabilities(vec![scored(0.5)])
    };
    let decoded = decode(&Superset, body.as_bytes()).unwrap();
    assert!(decoded.reply.encode(&[short]).is_ok());
}

#[test]
fn a_bound_on_queries_is_held_against_queries_and_one_on_documents_against_documents() {
    let told = |bounds: &str, longest_query| {
        let body = format!(r#"{{"query":"green tea","documents":["a"],{bounds}}}"#);
        let read = Reranked {
            tokens: TokenCount {
                total: 105,
                longest: 105,
                longest_query,
                longest_document: 100,
                ..TokenCount::default()
            },
            ..probabilities(vec![scored(0.5)])
        };
        let decoded = decode(&Superset, body.as_bytes()).unwrap();
        let encoded = decoded.reply.encode(&[read]);
        encoded.err().map(|error| error.message)
    };
    for bounds in [
        r#""max_query_length":64,"max_doc_length":1024"#,
        r#""max_tokens_per_query":2,"max_tokens_per_doc":100"#,
        r#""truncate_prompt_tokens":105"#,
    ] {
        assert_eq!(told(bounds, Some(2)), None, "{bounds}");
    }
    for (bounds, query, part) in [
        (
            r#""max_query_length":64,"max_doc_length":1024"#,
            Some(65),
            "`max_query_length` is 64, and a query was read with 65 tokens",
        ),
        (
            r#""max_tokens_per_query":1"#,
            Some(2),
            "`max_tokens_per_query` is 1, and a query was read with 2 tokens",
        ),
        (
            r#""max_query_length":64,"max_tokens_per_doc":99"#,
            Some(2),
            "`max_tokens_per_doc` is 99, and a document was read with 100 tokens",
        ),
        (
            r#""truncate_prompt_tokens":104"#,
            Some(2),
            "`truncate_prompt_tokens` is 104, and a text (query, document and special tokens together) was read with 105",
        ),
        // Where nobody knows which text is the query, it may be any.
        (
            r#""max_query_length":64"#,
            None,
            "`max_query_length` is 64, and a text (query, document",
        ),
    ] {
        let told = told(bounds, query).expect(bounds);
        assert!(told.contains(part), "{bounds}: {told}");
    }
}

#[test]
fn what_is_said_of_an_answer_stands_among_its_warnings() {
    for (protocol, body) in [
        (
            &Superset as &dyn Protocol,
            r#"{"query":"q","documents":["a"]}"#,
        ),
        (
            &Xinference,
            r#"{"query":"q","documents":["a"],"kwargs":"{}"}"#,
        ),
    ] {
        let decoded = decode(protocol, body.as_bytes()).unwrap();
        let mut result = probabilities(vec![scored(0.5)]);
        result.notes.stand_in = Some("for-tests".to_owned());
        let answer = answer(decoded, &[result]);
        let json: Value = serde_json::from_slice(&answer.body).unwrap();
        let warnings = json["meta"]["warnings"].as_array().unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].as_str().unwrap().contains("`for-tests`"),
            "{warnings:?}"
        );
    }
}
