//! Blends meaning with the first stage: the cosine of query and document embeddings, and what the
//! engine thought of the document. README.md has the formula.

use rerank_policy::{
    BiEncoder, Error, FirstStage, Judgment, Policy, Request, dot, first_stage_value, min_max,
    parameters, text_of, z_score,
};
use serde::Deserialize;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Parameters {
    /// 0 ..= 1
    weight: f64,
    normalization: Normalization,
    fields: Vec<String>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            weight: 0.8,
            normalization: Normalization::MinMax,
            fields: vec!["title".to_owned(), "text".to_owned()],
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Normalization {
    MinMax,
    ZScore,
}

struct SemanticBlend;

impl Policy for SemanticBlend {
    const MANIFEST: &'static str = include_str!("../manifest.json");

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let parameters: Parameters = parameters(&request)?;
        let similarities = similarities(&request, &parameters.fields)?;
        if request.first_stage == FirstStage::None {
            Ok(judge_by_cosine(&similarities, request.explain))
        } else {
            Ok(judge_by_blend(&similarities, &request, &parameters))
        }
    }
}

rerank_policy::export!(SemanticBlend);

/// How near one document is to the query.
struct Similarity {
    /// -1 ..= 1
    cosine: f64,
    /// Whether the model saw only the start of the document's text.
    truncated: bool,
}

/// The error is the reason why the document is unscored.
type Comparison = Result<Similarity, &'static str>;

/// Embeds the query and all texts in one call. One element a document.
fn similarities(request: &Request, fields: &[String]) -> Result<Vec<Comparison>, Error> {
    // Row 0 is the query.
    let mut texts = vec![request.query.clone()];
    let mut rows = Vec::with_capacity(request.documents.len());
    for document in &request.documents {
        rows.push(text_of(document, fields).map(|text| {
            texts.push(text);
            texts.len() - 1
        }));
    }
    if texts.len() == 1 {
        return Ok(rows.iter().map(|_| Err("empty")).collect());
    }

    let embeddings = BiEncoder::open("bi-encoder")?.embed(&texts)?;
    let similarity = |row: Option<usize>| {
        let row = row.ok_or("empty")?;
        // Without the query's own row there is nothing to compare with: all documents are late.
        let query = embeddings.row(0).ok_or("late")?;
        let document = embeddings.row(row).ok_or("late")?;
        // Rounding may lead out of the range of a cosine.
        let cosine = dot(query, document).clamp(-1.0, 1.0);
        if cosine.is_nan() {
            return Err("not-finite");
        }
        Ok(Similarity {
            cosine,
            truncated: embeddings.truncated(row),
        })
    };
    Ok(rows.into_iter().map(similarity).collect())
}

/// The score is the cosine itself: no document moves another's.
fn judge_by_cosine(similarities: &[Comparison], explain: bool) -> Vec<Judgment> {
    let judge = |(index, similarity): (u32, &Comparison)| match similarity {
        Err(reason) => Judgment::unscored(index, reason),
        Ok(Similarity { cosine, truncated }) => {
            let judgment = Judgment::scored(index, *cosine).with_truncated(*truncated);
            if explain {
                judgment
                    .with_explanation(format!("The cosine of query and document is {cosine:.4}."))
            } else {
                judgment
            }
        }
    };
    (0..).zip(similarities).map(judge).collect()
}

fn judge_by_blend(
    similarities: &[Comparison],
    request: &Request,
    parameters: &Parameters,
) -> Vec<Judgment> {
    let cosines: Vec<_> = similarities
        .iter()
        .map(|similarity| similarity.as_ref().ok().map(|similarity| similarity.cosine))
        .collect();
    let first_stage: Vec<_> = (0..request.documents.len())
        .map(|position| first_stage_value(request, position))
        .collect();
    let parts = normalized(&cosines, &first_stage, parameters.normalization);

    let judge = |position: usize| {
        let index = position as u32;
        let (similarity, parts) = match (&similarities[position], &parts[position]) {
            (Ok(similarity), Some(parts)) => (similarity, parts),
            (Err(reason), _) => return Judgment::unscored(index, reason),
            // The contract gives every document a first-stage score, or none of them.
            (Ok(_), None) => return Judgment::unscored(index, "failed"),
        };
        let judgment = Judgment::scored(index, parts.blend(parameters.weight))
            .with_truncated(similarity.truncated);
        if request.explain {
            let explanation = parts.explain(similarity.cosine, first_stage[position], parameters);
            judgment.with_explanation(explanation)
        } else {
            judgment
        }
    };
    (0..similarities.len()).map(judge).collect()
}

/// The two parts of a score, normalized.
#[derive(Clone, Debug, PartialEq)]
struct Parts {
    cosine: f64,
    first_stage: f64,
}

/// Both parts, normalized over the documents that have both: the others must not move a score.
fn normalized(
    cosines: &[Option<f64>],
    first_stage: &[Option<f64>],
    normalization: Normalization,
) -> Vec<Option<Parts>> {
    let normalize = match normalization {
        Normalization::MinMax => min_max,
        Normalization::ZScore => z_score,
    };
    let both = || cosines.iter().zip(first_stage);
    let cosines: Vec<_> = both()
        .map(|(cosine, first_stage)| first_stage.and(*cosine))
        .collect();
    let first_stage: Vec<_> = both()
        .map(|(cosine, first_stage)| cosine.and(*first_stage))
        .collect();
    normalize(&cosines)
        .into_iter()
        .zip(normalize(&first_stage))
        .map(|(cosine, first_stage)| {
            Some(Parts {
                cosine: cosine?,
                first_stage: first_stage?,
            })
        })
        .collect()
}

impl Parts {
    fn blend(&self, weight: f64) -> f64 {
        weight * self.cosine + (1.0 - weight) * self.first_stage
    }

    fn explain(&self, cosine: f64, first_stage: Option<f64>, parameters: &Parameters) -> String {
        let weight = parameters.weight;
        let normalization = match parameters.normalization {
            Normalization::MinMax => "min-max",
            Normalization::ZScore => "z-score",
        };
        format!(
            "The score is {weight:.2} * {:.4} (cosine {cosine:.4}) + {:.2} * {:.4} (first stage \
             {:.4}), after {normalization} normalization.",
            self.cosine,
            1.0 - weight,
            self.first_stage,
            first_stage.unwrap_or(f64::NAN),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_manifest() {
        let manifest: serde_json::Value =
            serde_json::from_str(SemanticBlend::MANIFEST).expect("the manifest is JSON");
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

    #[test]
    fn both_parts_are_normalized_and_weighed() {
        let cosines = [Some(0.2), Some(0.6), Some(0.4)];
        let first_stage = [Some(30.0), Some(10.0), Some(20.0)];
        let parts = normalized(&cosines, &first_stage, Normalization::MinMax);
        for (parts, expected) in parts.into_iter().zip([0.25, 0.75, 0.5]) {
            let score = parts.expect("all are scored").blend(0.75);
            assert!((score - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn what_was_not_scored_moves_no_score() {
        for normalization in [Normalization::MinMax, Normalization::ZScore] {
            let two = normalized(
                &[Some(0.1), Some(0.3)],
                &[Some(2.0), Some(1.0)],
                normalization,
            );
            let three = normalized(
                &[Some(0.1), None, Some(0.3)],
                &[Some(2.0), Some(1e6), Some(1.0)],
                normalization,
            );
            assert_eq!(three, [two[0].clone(), None, two[1].clone()]);
        }
    }

    #[test]
    fn one_document_and_ties_have_a_score() {
        for (normalization, tied) in [(Normalization::MinMax, 0.5), (Normalization::ZScore, 0.0)] {
            let expected = Parts {
                cosine: tied,
                first_stage: tied,
            };
            let one = normalized(&[Some(0.7)], &[Some(3.0)], normalization);
            assert_eq!(one, [Some(expected.clone())]);
            let same = normalized(&[Some(0.7); 3], &[Some(3.0); 3], normalization);
            assert_eq!(same, vec![Some(expected); 3]);
        }
    }
}
