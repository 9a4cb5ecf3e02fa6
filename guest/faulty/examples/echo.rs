//! Shows what a policy sees. Not faulty: every document has the score 0 - index and an explanation, a
//! compact JSON object:
//!
//! ```json
//! {"query": "..", "first_stage": "scored", "top_n": 10, "explain": true, "parameters": {},
//!  "signals": {"user": {"text": "u1"}}, "documents": 3,
//!  "document": {"id": "a", "score": 7.5, "fields": {"title": {"text": ".."}}}}
//! ```
//!
//! A value is an object of one member, named like its case in the contract. What is absent is null.

use rerank_policy::{Document, Error, FirstStage, Judgment, NamedValue, Policy, Request, Value};
use serde_json::{Map, Value as Json, json};

struct Echo;

impl Policy for Echo {
    const MANIFEST: &'static str =
        faulty::manifest!("echo", r#", "parameters": { "type": "object" }"#);

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let parameters: Json = rerank_policy::parameters(&request)?;
        let first_stage = match request.first_stage {
            FirstStage::Scored => "scored",
            FirstStage::Ranked => "ranked",
            FirstStage::None => "none",
        };
        let judge = |(index, document): (u32, &Document)| {
            let seen = json!({
                "query": request.query,
                "first_stage": first_stage,
                "top_n": request.top_n,
                "explain": request.explain,
                "parameters": parameters,
                "signals": named(&request.signals),
                "documents": request.documents.len(),
                "document": {
                    "id": document.id,
                    "score": document.score,
                    "fields": named(&document.fields),
                },
            });
            Judgment::scored(index, 0.0 - f64::from(index)).with_explanation(seen.to_string())
        };
        Ok((0..).zip(&request.documents).map(judge).collect())
    }
}

rerank_policy::export!(Echo);

fn named(values: &[NamedValue]) -> Json {
    let members = values
        .iter()
        .map(|NamedValue { name, value }| (name.clone(), tagged(value)));
    Json::Object(members.collect::<Map<_, _>>())
}

fn tagged(value: &Value) -> Json {
    match value {
        Value::Text(text) => json!({ "text": text }),
        Value::Texts(texts) => json!({ "texts": texts }),
        Value::Number(number) => json!({ "number": number }),
        Value::Integer(integer) => json!({ "integer": integer }),
        Value::Numbers(numbers) => json!({ "numbers": numbers }),
        Value::Boolean(boolean) => json!({ "boolean": boolean }),
        Value::Vector(vector) => json!({ "vector": vector }),
        Value::Json(json) => json!({ "json": json }),
    }
}
