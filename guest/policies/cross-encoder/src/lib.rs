//! Scores every pair of query and document with a cross-encoder. No score depends on another
//! document, and none on the first stage.

use rerank_policy::{
    CrossEncoder, Error, Judgment, PairScores, Policy, Request, parameters, sigmoid, text_of,
};
use serde::Deserialize;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Parameters {
    activation: Activation,
    fields: Vec<String>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            activation: Activation::Sigmoid,
            fields: vec!["title".to_owned(), "text".to_owned()],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Activation {
    Sigmoid,
    Raw,
}

struct Pairs;

impl Policy for Pairs {
    const MANIFEST: &'static str = include_str!("../manifest.json");

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let parameters: Parameters = parameters(&request)?;

        let mut texts = Vec::with_capacity(request.documents.len());
        let mut rows = Vec::with_capacity(request.documents.len());
        for document in &request.documents {
            rows.push(text_of(document, &parameters.fields).map(|text| {
                texts.push(text);
                texts.len() - 1
            }));
        }
        if texts.is_empty() {
            return Ok((0..)
                .zip(rows)
                .map(|(index, _)| Judgment::unscored(index, "empty"))
                .collect());
        }

        let scores = CrossEncoder::open("cross-encoder")?.score(&request.query, &texts)?;
        let judge = |(index, row)| match row {
            Some(row) => judge(index, row, &scores, parameters.activation, request.explain),
            None => Judgment::unscored(index, "empty"),
        };
        Ok((0..).zip(rows).map(judge).collect())
    }
}

rerank_policy::export!(Pairs);

fn judge(
    index: u32,
    row: usize,
    scores: &PairScores,
    activation: Activation,
    explain: bool,
) -> Judgment {
    let Some(logit) = scores.logit(row) else {
        return Judgment::unscored(index, "late");
    };
    if logit.is_infinite() {
        return Judgment::unscored(index, "not-finite");
    }
    let score = match activation {
        Activation::Sigmoid => sigmoid(logit),
        Activation::Raw => logit,
    };
    let judgment = Judgment::scored(index, score).with_truncated(scores.truncated(row));
    if explain {
        judgment.with_explanation(explanation(logit, scores.query_truncated()))
    } else {
        judgment
    }
}

fn explanation(logit: f64, query_truncated: bool) -> String {
    let cut = if query_truncated {
        "; the query was too long, the model saw only its start"
    } else {
        ""
    };
    format!(
        "The model's logit is {logit:.4}, a probability of {:.4}{cut}.",
        sigmoid(logit)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_manifest() {
        let manifest: serde_json::Value =
            serde_json::from_str(Pairs::MANIFEST).expect("the manifest is JSON");
        let properties = manifest["parameters"]["properties"]
            .as_object()
            .expect("an object");
        let defaults = properties
            .iter()
            .map(|(name, schema)| (name.clone(), schema["default"].clone()))
            .collect();
        let defaults: Parameters =
            serde_json::from_value(serde_json::Value::Object(defaults)).expect("they fit");
        assert_eq!(defaults, Parameters::default());
        assert_eq!(manifest["fields"], serde_json::json!(defaults.fields));
    }
}
