//! From a ranking to what rerank APIs list: every document once, with a printed score, best first.
//!
//! Clients place scores by index and break on a missing one (OpenSearch's ML Commons, Elasticsearch,
//! Open WebUI), so documents without a score are listed too, behind those that have one, and counted
//! in warnings.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use rerankd_core::{ErrorKind, Outcome, RerankError, Reranked, SkipReason, Status};
use serde_json::value::RawValue;

use crate::json::quoted;
use crate::numbers::Printed;

/// What the scores of an answer are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scale {
    /// In `[0, 1]`.
    Unit,
    /// As the policy has them.
    Raw,
}

/// Which of two documents with the same score comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ties {
    /// That which comes first in the request.
    InOrder,
    /// That which comes last.
    Reversed,
}

/// How to list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wish {
    pub(crate) scale: Scale,
    pub(crate) ties: Ties,
    /// How many, at most.
    pub(crate) top_n: Option<usize>,
    /// Nothing below this printed score.
    pub(crate) min_score: Option<f64>,
}

/// A listed ranking.
#[derive(Debug)]
pub(crate) struct Listing {
    /// Best first.
    pub(crate) lines: Vec<Line>,
    /// What a caller should know of the scores; mostly nothing.
    pub(crate) warnings: Vec<String>,
}

/// A listed document.
#[derive(Debug)]
pub(crate) struct Line {
    /// Its position in the request.
    pub(crate) index: usize,
    /// A JSON number with a point.
    pub(crate) score: Box<RawValue>,
}

/// Lists a ranking.
///
/// # Errors
/// `PolicyFault` for a score outside of the range that its policy declares.
pub(crate) fn list(result: &Reranked, wish: &Wish) -> Result<Listing, RerankError> {
    let documents = result.ranking.documents();
    let (mut listed, mut warnings) = match result.status {
        Status::Failed(reason) => {
            let warning = format!(
                "reranking failed ({}): documents are in the order of the request, and a score only says its place",
                reason.name()
            );
            (by_place(documents, wish.scale), vec![warning])
        }
        // No document has a score that could be shown.
        Status::Skipped(reason @ SkipReason::Unread) => {
            let warning = format!(
                "nothing was reranked ({}): documents are in the order of the request, and a score only says its place",
                reason.name()
            );
            (by_place(documents, wish.scale), vec![warning])
        }
        _ => by_score(result, wish)?,
    };
    if let Some(min_score) = wish.min_score {
        listed.retain(|(_, printed)| printed.value >= min_score);
    }
    listed.truncate(wish.top_n.unwrap_or(usize::MAX));
    if result.query_truncated {
        warnings.push("the query was cut to fit the model".to_owned());
    }
    if result.notes.truncated > 0 {
        warnings.push(format!(
            "{} of {documents} documents were cut to fit the model, and scored by their beginning",
            result.notes.truncated
        ));
    }
    if let Some(model) = &result.notes.stand_in {
        warnings.push(format!(
            "the scores mean nothing: the model {} is for tests, and stands in until a trained one is bound",
            quoted(model)
        ));
    }
    let lines = listed.into_iter().map(|(index, printed)| Line {
        index,
        score: number(printed),
    });
    Ok(Listing {
        lines: lines.collect(),
        warnings,
    })
}

/// The printed score of a pair.
///
/// # Errors
/// As [`list`].
pub(crate) fn score(
    score: f64,
    result: &Reranked,
    scale: Scale,
) -> Result<Box<RawValue>, RerankError> {
    Ok(number(printed(score, result, scale)?))
}

/// A printed score as a part of an answer.
fn number(printed: Printed) -> Box<RawValue> {
    RawValue::from_string(printed.text).expect("a printed number is JSON")
}

fn printed(score: f64, result: &Reranked, scale: Scale) -> Result<Printed, RerankError> {
    match scale {
        Scale::Raw => Ok(Printed::raw(score)),
        Scale::Unit => result
            .unit_map
            .apply(score)
            .map(Printed::unit)
            .ok_or_else(|| {
                RerankError::new(
                    ErrorKind::PolicyFault,
                    format!(
                        "policy `{}`: the score {score} is not in the range of its kind (`{}`); its manifest may declare another map to [0, 1] (`blend_map`)",
                        result.policy,
                        result.score_kind.name()
                    ),
                )
            }),
    }
}

type Listed = Vec<(usize, Printed)>;

/// Scores that fall strictly from the first document to the last, within `(0, 1)`.
fn by_place(documents: usize, scale: Scale) -> Listed {
    let score = |index: usize| (documents - index) as f64 / (documents + 1) as f64;
    let print = match scale {
        Scale::Unit => Printed::unit,
        Scale::Raw => Printed::raw,
    };
    (0..documents)
        .map(|index| (index, print(score(index))))
        .collect()
}

/// The scored by their printed scores, then the unscored, then the filtered.
fn by_score(result: &Reranked, wish: &Wish) -> Result<(Listed, Vec<String>), RerankError> {
    let mut listed: Listed = Vec::with_capacity(result.ranking.documents());
    let (mut unscored, mut filtered) = (Vec::new(), Vec::new());
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, judgment) in result.ranking.judgments().iter().enumerate() {
        match &judgment.outcome {
            Outcome::Scored(score) => listed.push((index, printed(*score, result, wish.scale)?)),
            Outcome::Unscored(reason) => {
                unscored.push(index);
                *reasons.entry(reason).or_default() += 1;
            }
            Outcome::Filtered => filtered.push(index),
        }
    }
    if wish.ties == Ties::Reversed {
        for indices in [&mut unscored, &mut filtered] {
            indices.reverse();
        }
        listed.sort_by_key(|&(index, _)| Reverse(index));
    }
    // Stable: ties stay as they are.
    listed.sort_by(|(_, a), (_, b)| b.value.total_cmp(&a.value));
    let last = match (wish.scale, listed.last()) {
        (Scale::Raw, Some((_, lowest))) => lowest.clone(),
        _ => Printed::unit(0.0),
    };
    let mut warnings = Vec::new();
    if !unscored.is_empty() {
        let reasons: Vec<String> = reasons
            .into_iter()
            .map(|(reason, count)| format!("{} {count}", quoted(reason)))
            .collect();
        warnings.push(format!(
            "{} of {} documents could not be scored and follow at {}: {}",
            unscored.len(),
            result.ranking.documents(),
            last.text,
            reasons.join(", ")
        ));
    }
    if !filtered.is_empty() {
        warnings.push(format!(
            "{} of {} documents were filtered by the policy and follow at {}",
            filtered.len(),
            result.ranking.documents(),
            last.text
        ));
    }
    for index in unscored.into_iter().chain(filtered) {
        listed.push((index, last.clone()));
    }
    Ok((listed, warnings))
}
