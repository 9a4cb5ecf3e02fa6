//! What is refused on the routes of the rerank APIs, and in whose words.

use std::time::Duration;

use rerankd_core::{ErrorKind, RerankError};
use rerankd_wire::bedrock::Bedrock;
use rerankd_wire::dashscope::DashScope;
use rerankd_wire::infinity::Infinity;
use rerankd_wire::mixedbread::Mixedbread;
use rerankd_wire::nvidia::Nvidia;
use rerankd_wire::ollama::Ollama;
use rerankd_wire::superset::Superset;
use rerankd_wire::voyage::Voyage;
use rerankd_wire::xinference::Xinference;
use rerankd_wire::{Protocol, tei, vllm};
use serde_json::{Value, json};

use crate::rerank_apis::error_of;
use crate::support::{refusals, with_snapshots_of};

#[test]
fn refusals_name_the_place() {
    let many = json!({"query": "q", "documents": vec!["d"; 9]}).to_string();
    let usual = [
        "{",
        "[]",
        "{}",
        r#"{"query":"q"}"#,
        r#"{"query":"q","documents":null}"#,
        r#"{"query":"q","documents":[]}"#,
        r#"{"query":"q","documents":"d"}"#,
        r#"{"query":"q","documents":{"text":"d"}}"#,
        r#"{"documents":["d"]}"#,
        r#"{"query":" ","documents":["d"]}"#,
        r#"{"query":7,"documents":["d"]}"#,
        r#"{"query":{"image":"u"},"documents":["d"]}"#,
        r#"{"query":"q","documents":["d",7]}"#,
        r#"{"query":"q","documents":["d",null]}"#,
        r#"{"query":"q","documents":[{"image":"u"}]}"#,
        r#"{"query":"q","documents":[{"title":"t"}]}"#,
        r#"{"query":"q","documents":[{"title":"t"}],"rank_fields":["body"]}"#,
        r#"{"query":"q","documents":["d"],"top_n":-1}"#,
        r#"{"query":"q","documents":["d"],"top_n":1.5}"#,
        r#"{"query":"q","documents":["d"],"top_n":"three"}"#,
        r#"{"query":"q","documents":["d"],"model":7}"#,
        r#"{"query":"q","documents":["d"],"return_documents":"perhaps"}"#,
        r#"{"query":"q","documents":["d"],"return_documents":2}"#,
        r#"{"query":"q","documents":["d"],"timeout_ms":0}"#,
        r#"{"query":"q","documents":["d"],"on_failure":"retry"}"#,
        r#"{"query":"q","documents":["d"],"rerankd":7}"#,
        r#"{"query":"q","documents":["d"],"rerankd":{"min_score":"0.5","explains":true}}"#,
        r#"{"query":"q","documents":["d"],"rerankd":{"min-score":0.5,"explains":true}}"#,
        r#"{"query":"q","documents":["d"],"rerankd":{"key":"k"},"key":"k"}"#,
        r#"{"query":"q","documents":["d"],"truncate":"MIDDLE"}"#,
        r#"{"query":"q","documents":["d"],"truncate":7}"#,
        r#"{"query":"q","documents":["d"],"parameters":{"truncate":"MIDDLE"}}"#,
        r#"{"query":"q","documents":["d"],"truncation":"perhaps"}"#,
        r#"{"query":"q","documents":["d"],"truncation_side":"both"}"#,
        r#"{"query":"q","documents":["d"],"max_tokens_per_doc":0}"#,
        r#"{"query":"q","documents":["d"],"truncate_prompt_tokens":-2}"#,
        &many,
    ];
    let folder_and_refusals = [
        ("superset", refusals(&Superset, &usual)),
        (
            "voyage",
            refusals(
                &Voyage,
                &[
                    r#"{"query":"q","documents":["d"],"truncation":7}"#,
                    r#"{"query":"q","documents":["d"],"explain":true}"#,
                    r#"{"query":"q","documents":["d"],"rerankd":{"explain":true}}"#,
                ],
            ),
        ),
        (
            "xinference",
            refusals(
                &Xinference,
                &[r#"{"query":"q","documents":["d"],"return_len":"many"}"#],
            ),
        ),
        (
            "infinity",
            refusals(
                &Infinity,
                &[r#"{"query":"q","documents":["d"],"raw_scores":7}"#],
            ),
        ),
        (
            "vllm",
            refusals(
                &vllm::Rerank,
                &[
                    r#"{"query":{"content":[{"type":"image_url"}]},"documents":["d"]}"#,
                    r#"{"query":"q","documents":{"content":[{"image_url":{}}]}}"#,
                    r#"{"query":"q","documents":["d"],"use_activation":7}"#,
                ],
            ),
        ),
        (
            "vllm-score",
            refusals(
                &vllm::Score,
                &[
                    "[]",
                    r#"{"documents":["d"]}"#,
                    r#"{"queries":"q"}"#,
                    r#"{"queries":[],"documents":["d"]}"#,
                    r#"{"queries":"q","documents":[]}"#,
                    r#"{"text_1":["a","b"],"text_2":["c","d","e"]}"#,
                    r#"{"queries":["a",""],"documents":["c","d"]}"#,
                    r#"{"queries":"q","documents":["c",7]}"#,
                ],
            ),
        ),
        (
            "tei",
            refusals(
                &tei::Rerank,
                &[
                    "{",
                    r#"{"query":"q"}"#,
                    r#"{"query":"q","texts":[]}"#,
                    r#"{"query":"","texts":["a"]}"#,
                    r#"{"query":"q","texts":["a",{"text":"b"}]}"#,
                    r#"{"query":"q","texts":["a"],"truncation_direction":"up"}"#,
                    r#"{"query":"q","texts":["a"],"raw_scores":"perhaps"}"#,
                    &many.replace("documents", "texts"),
                ],
            ),
        ),
        (
            "tei-predict",
            refusals(
                &tei::Predict,
                &[
                    "{}",
                    r#"{"inputs":"one text"}"#,
                    r#"{"inputs":[]}"#,
                    r#"{"inputs":["a"]}"#,
                    r#"{"inputs":[["a","b"],["c"]]}"#,
                    r#"{"inputs":[["a","b"],"c"]}"#,
                ],
            ),
        ),
        (
            "nvidia",
            refusals(
                &Nvidia,
                &[
                    r#"{"query":{"text":"q"},"passages":[{"text":"a"},{"image":"b"}]}"#,
                    r#"{"query":"q"}"#,
                    r#"{"query":"q","passages":[]}"#,
                ],
            ),
        ),
        (
            "mixedbread",
            refusals(
                &Mixedbread,
                &[
                    r#"{"query":"q","input":[]}"#,
                    r#"{"query":"q","input":"a"}"#,
                    r#"{"query":"q","input":["a"],"top_k":"many"}"#,
                    r#"{"query":"q","input":["a"],"return_input":"perhaps"}"#,
                ],
            ),
        ),
        (
            "dashscope",
            refusals(
                &DashScope,
                &[
                    "{}",
                    r#"{"input":"q"}"#,
                    r#"{"input":{"query":"q"}}"#,
                    r#"{"input":{"query":"q","documents":["a",7]}}"#,
                    r#"{"input":{"query":"q","documents":["a"]},"parameters":{"top_n":"many"}}"#,
                ],
            ),
        ),
        (
            "ollama",
            refusals(
                &Ollama,
                &[r#"{"query":"q"}"#, r#"{"query":"q","documents":[7]}"#],
            ),
        ),
        (
            "bedrock",
            refusals(
                &Bedrock,
                &[
                    "{}",
                    r#"{"queries":[]}"#,
                    r#"{"queries":[{"type":"TEXT"}]}"#,
                    r#"{"queries":[{"textQuery":{"text":"q"}}]}"#,
                    r#"{"queries":[{"textQuery":{"text":"q"}}],"sources":[]}"#,
                    r#"{"rerankingConfiguration":{"bedrockRerankingConfiguration":{"modelConfiguration":{"additionalModelRequestFields":{"max_tokens_per_doc":"few"}}}}}"#,
                    r#"{"queries":[{"textQuery":{"text":"q"}}],"sources":[{}]}"#,
                    r#"{"queries":[{"textQuery":{"text":"q"}}],"sources":[{"inlineDocumentSource":{"textDocument":{"text":1}}}]}"#,
                ],
            ),
        ),
    ];
    for (folder, text) in folder_and_refusals {
        with_snapshots_of(folder, || insta::assert_snapshot!("refusals", text));
    }
}

fn json_of(protocol: &dyn Protocol, error: &RerankError) -> (u16, Value) {
    let answer = protocol.encode_error(error, "6f-1");
    assert_eq!(answer.headers["content-type"], "application/json");
    (
        answer.status.as_u16(),
        serde_json::from_slice(&answer.body).unwrap(),
    )
}

#[test]
fn one_error_body_serves_all_who_look_alike() {
    let error = RerankError::bad_request("documents[3]", "expected a string");
    let message = "`documents[3]`: expected a string";
    let expected = json!({
        "message": message,
        "detail": message,
        "error": {"message": message, "type": "bad_request", "param": "documents[3]", "code": 400},
    });
    for protocol in [
        &Superset as &dyn Protocol,
        &Voyage,
        &Xinference,
        &Infinity,
        &vllm::Rerank,
        &vllm::Score,
        &Nvidia,
        &Bedrock,
        &Mixedbread,
        &Ollama,
    ] {
        assert_eq!(
            json_of(protocol, &error),
            (400, expected.clone()),
            "{}",
            protocol.name()
        );
    }
    for (kind, status, of_infinity) in [
        (ErrorKind::UnknownModel, 404, 400),
        (ErrorKind::UnknownPolicy, 404, 400),
        (ErrorKind::TooLarge, 413, 413),
        (ErrorKind::UnsupportedMediaType, 415, 415),
        (ErrorKind::PolicyFault, 424, 424),
        (ErrorKind::DeadlineExceeded, 424, 424),
        (ErrorKind::Overloaded, 429, 429),
        (ErrorKind::Internal, 500, 500),
        (ErrorKind::ShuttingDown, 503, 503),
    ] {
        let (code, body) = json_of(&Superset, &error_of(kind));
        assert_eq!((code, &body["error"]["code"]), (status, &json!(status)));
        let (code, body) = json_of(&Infinity, &error_of(kind));
        assert_eq!(
            (code, &body["error"]["code"]),
            (of_infinity, &json!(of_infinity))
        );
    }
}

#[test]
fn text_embeddings_inference_has_statuses_and_types_of_its_own() {
    let placed = |kind| RerankError {
        kind,
        ..RerankError::bad_request("texts", "what was wrong")
    };
    for (error, status, error_type) in [
        (error_of(ErrorKind::BadRequest), 400, "Validation"),
        (placed(ErrorKind::BadRequest), 422, "Validation"),
        (placed(ErrorKind::Empty), 400, "Empty"),
        (placed(ErrorKind::TooLarge), 422, "Validation"),
        (error_of(ErrorKind::TooLarge), 413, "Validation"),
        (error_of(ErrorKind::TooLong), 422, "Validation"),
        (error_of(ErrorKind::Overloaded), 429, "Overloaded"),
        (error_of(ErrorKind::UnknownModel), 404, "Backend"),
        (error_of(ErrorKind::PolicyFault), 424, "Backend"),
        (error_of(ErrorKind::DeadlineExceeded), 424, "Backend"),
        (error_of(ErrorKind::ShuttingDown), 503, "Unhealthy"),
        (error_of(ErrorKind::MethodNotAllowed), 405, "Validation"),
        (error_of(ErrorKind::UnsupportedMediaType), 415, "Validation"),
    ] {
        for protocol in [&tei::Rerank as &dyn Protocol, &tei::Predict] {
            let (code, body) = json_of(protocol, &error);
            assert_eq!(code, status, "{error:?}");
            assert_eq!(
                body,
                json!({"error": error.message, "error_type": error_type})
            );
        }
    }
}

#[test]
fn overload_says_when_to_come_back() {
    let error = error_of(ErrorKind::Overloaded).with_retry_after(Duration::from_millis(1200));
    for protocol in [&Superset as &dyn Protocol, &tei::Rerank, &Infinity] {
        let answer = protocol.encode_error(&error, "6f-1");
        assert_eq!(answer.headers["retry-after"], "2", "{}", protocol.name());
    }
}
