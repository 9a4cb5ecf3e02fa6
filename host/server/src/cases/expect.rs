//! What must come out of a case, and whether it did.

use std::collections::BTreeMap;

use rerankd_core::{Outcome, RerankRequest, Reranked};
use rerankd_policy::PolicyError;
use serde::Deserialize;
use serde_json::Value;

use super::read::Documents;

/// How far a score may be from a bare number: enough for sums in another order.
const TOLERANCE: f64 = 1e-6;

/// Every status that an answer can have without being an error.
const STATUSES: [&str; 4] = ["applied", "partial", "skipped", "failed"];

/// As written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawExpectation {
    order: Option<Vec<Value>>,
    top: Option<Vec<Value>>,
    before: Option<Vec<[Value; 2]>>,
    status: Option<String>,
    unscored: Option<Vec<Value>>,
    filtered: Option<Vec<Value>>,
    scores: Option<BTreeMap<String, RawScore>>,
    error: Option<String>,
}

/// A number, or an object.
#[derive(Deserialize)]
#[serde(try_from = "Value")]
struct RawScore {
    least: f64,
    most: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRange {
    min: Option<f64>,
    max: Option<f64>,
    is: Option<f64>,
    tolerance: Option<f64>,
}

impl TryFrom<Value> for RawScore {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let about = |middle: f64, tolerance: f64| Self {
            least: middle - tolerance,
            most: middle + tolerance,
        };
        if let Some(number) = value.as_f64() {
            return Ok(about(number, TOLERANCE));
        }
        let range: RawRange = serde_json::from_value(value)
            .map_err(|error| format!("a score must be a number or an object: {error}"))?;
        match range {
            RawRange {
                is: Some(is),
                tolerance,
                min: None,
                max: None,
            } => match tolerance.unwrap_or(TOLERANCE) {
                tolerance if tolerance >= 0.0 => Ok(about(is, tolerance)),
                tolerance => Err(format!(
                    "`tolerance` must be a number from 0 on, got {tolerance}"
                )),
            },
            RawRange {
                is: None,
                tolerance: None,
                min,
                max,
            } if min.is_some() || max.is_some() => {
                let (least, most) = (
                    min.unwrap_or(f64::NEG_INFINITY),
                    max.unwrap_or(f64::INFINITY),
                );
                if least > most {
                    return Err(format!("`min` ({least}) is above `max` ({most})"));
                }
                Ok(Self { least, most })
            }
            _ => Err(
                "a score must be a number, `min` or `max` or both, or `is` with `tolerance`"
                    .to_owned(),
            ),
        }
    }
}

/// Documents are positions in the request from here on.
#[derive(Debug, Clone)]
pub(super) struct Expectation {
    order: Option<Vec<usize>>,
    top: Option<Vec<usize>>,
    before: Vec<(usize, usize)>,
    status: Option<String>,
    unscored: Option<Vec<usize>>,
    filtered: Option<Vec<usize>>,
    scores: Vec<(usize, f64, f64)>,
    error: Option<String>,
    /// What messages call the documents.
    labels: Vec<String>,
    top_n: usize,
    min_score: f64,
}

impl Expectation {
    /// Finds the documents that are named.
    pub(super) fn resolve(raw: RawExpectation, request: &RerankRequest) -> Result<Self, String> {
        let documents = Documents::of(request);
        let list = |key: &str, names: Option<Vec<Value>>| -> Result<Option<Vec<usize>>, String> {
            let found = names.map(|names| {
                names
                    .iter()
                    .map(|name| position(&documents, name))
                    .collect()
            });
            found
                .transpose()
                .map_err(|problem: String| format!("`expect.{key}`: {problem}"))
        };
        let error_only = raw.error.is_some();
        let expectation = Self {
            order: list("order", raw.order)?,
            top: list("top", raw.top)?,
            unscored: list("unscored", raw.unscored)?.map(sorted),
            filtered: list("filtered", raw.filtered)?.map(sorted),
            before: pairs(&documents, raw.before)
                .map_err(|problem| format!("`expect.before`: {problem}"))?,
            scores: scores(&documents, raw.scores)
                .map_err(|problem| format!("`expect.scores`: {problem}"))?,
            status: raw.status,
            error: raw.error,
            labels: labels(request),
            top_n: request.top_n.unwrap_or(usize::MAX),
            min_score: request.min_score.unwrap_or(f64::NEG_INFINITY),
        };
        if let Some(status) = &expectation.status
            && !STATUSES.contains(&status.as_str())
        {
            return Err(format!(
                "`expect.status`: no status `{status}`; there are {}",
                STATUSES.join(", ")
            ));
        }
        let others = expectation.order.is_some()
            || expectation.top.is_some()
            || expectation.status.is_some()
            || expectation.unscored.is_some()
            || expectation.filtered.is_some()
            || !expectation.before.is_empty()
            || !expectation.scores.is_empty();
        match (error_only, others) {
            (true, true) => Err("`expect.error`: a refused request has nothing else to expect".to_owned()),
            (false, false) => Err(
                "`expect`: empty; it takes `order`, `top`, `before`, `status`, `unscored`, `filtered`, `scores` or `error`".to_owned(),
            ),
            _ => Ok(expectation),
        }
    }

    /// `None` if all is as expected, else what was not.
    pub(super) fn judge(&self, result: &Result<Reranked, PolicyError>) -> Option<String> {
        match (result, &self.error) {
            (Err(PolicyError::InvalidRequest { message, .. }), Some(wanted)) => (!message
                .contains(wanted.as_str()))
            .then(|| format!("expected an error with `{wanted}`, got: {message}")),
            (Err(PolicyError::Fault { .. } | PolicyError::Deadline { .. }), None)
                if self.status.as_deref() == Some("failed") =>
            {
                None
            }
            (Err(error), Some(wanted)) => {
                Some(format!("expected an error with `{wanted}`, got: {error}"))
            }
            (Err(error), None) => Some(format!("expected a ranking, got: {error}")),
            (Ok(reranked), Some(wanted)) => Some(format!(
                "expected an error with `{wanted}`, got the status {}",
                reranked.status.name()
            )),
            (Ok(reranked), None) => self.judge_ranking(reranked),
        }
    }

    fn judge_ranking(&self, reranked: &Reranked) -> Option<String> {
        let ranking = &reranked.ranking;
        let with = |wanted: fn(&Outcome) -> bool| -> Vec<usize> {
            let judgments = ranking.judgments().iter().enumerate();
            let fitting = judgments.filter(|(_, judgment)| wanted(&judgment.outcome));
            fitting.map(|(index, _)| index).collect()
        };
        // What an answer to the request would show.
        let scored: Vec<usize> = ranking.order()[..ranking.scored()]
            .iter()
            .copied()
            .filter(|&index| {
                ranking
                    .score(index)
                    .is_some_and(|score| score >= self.min_score)
            })
            .take(self.top_n)
            .collect();
        let status = reranked.status.name();
        if let Some(wanted) = self.status.as_deref().filter(|wanted| *wanted != status) {
            return Some(format!("expected the status {wanted}, got {status}"));
        }
        self.judge_list("the order", self.order.as_deref(), &scored)
            .or_else(|| {
                let top = self.top.as_deref()?;
                let got = &scored[..top.len().min(scored.len())];
                self.judge_list(&format!("the first {}", top.len()), Some(top), got)
            })
            .or_else(|| self.judge_pairs(ranking.order()))
            .or_else(|| {
                let unscored = with(|outcome| matches!(outcome, Outcome::Unscored(_)));
                self.judge_list("unscored", self.unscored.as_deref(), &unscored)
            })
            .or_else(|| {
                let filtered = with(|outcome| matches!(outcome, Outcome::Filtered));
                self.judge_list("filtered", self.filtered.as_deref(), &filtered)
            })
            .or_else(|| self.judge_scores(|index| ranking.score(index)))
    }

    fn judge_list(&self, what: &str, wanted: Option<&[usize]>, got: &[usize]) -> Option<String> {
        let wanted = wanted.filter(|wanted| *wanted != got)?;
        Some(format!(
            "expected {what} {}, got {}",
            self.named(wanted),
            self.named(got)
        ))
    }

    fn judge_pairs(&self, order: &[usize]) -> Option<String> {
        let mut ranks = vec![None; self.labels.len()];
        for (rank, &index) in order.iter().enumerate() {
            if let Some(place) = ranks.get_mut(index) {
                *place = Some(rank);
            }
        }
        let rank = |index: usize| ranks.get(index).copied().flatten();
        let wrong = self.before.iter().find(|(first, second)| {
            match (rank(*first), rank(*second)) {
                (Some(first), Some(second)) => first > second,
                // What is filtered has no rank.
                _ => true,
            }
        });
        let (first, second) = wrong?;
        Some(format!(
            "expected `{}` before `{}`, got {}",
            self.labels[*first],
            self.labels[*second],
            self.named(order)
        ))
    }

    fn judge_scores(&self, score: impl Fn(usize) -> Option<f64>) -> Option<String> {
        self.scores.iter().find_map(|&(index, least, most)| {
            let got = score(index);
            if got.is_some_and(|score| (least..=most).contains(&score)) {
                return None;
            }
            let wanted = match (least.is_finite(), most.is_finite()) {
                (true, true) => format!("from {} to {}", rounded(least), rounded(most)),
                (true, false) => format!("of at least {least}"),
                _ => format!("of at most {most}"),
            };
            let got = got.map_or_else(|| "none".to_owned(), |score| score.to_string());
            Some(format!(
                "expected for `{}` a score {wanted}, got {got}",
                self.labels[index]
            ))
        })
    }

    fn named(&self, indexes: &[usize]) -> String {
        const MOST: usize = 20;
        if indexes.is_empty() {
            return "none".to_owned();
        }
        let shown = indexes.iter().take(MOST);
        let shown: Vec<&str> = shown.map(|&index| self.labels[index].as_str()).collect();
        let more = if indexes.len() > MOST { ", …" } else { "" };
        format!("{}{more}", shown.join(", "))
    }
}

/// To the digits that matter beside [`TOLERANCE`].
fn rounded(bound: f64) -> f64 {
    (bound * 1e9).round() / 1e9
}

fn sorted(mut indexes: Vec<usize>) -> Vec<usize> {
    indexes.sort_unstable();
    indexes
}

fn position(documents: &Documents<'_>, name: &Value) -> Result<usize, String> {
    match name {
        Value::String(id) => documents.by_id(id),
        Value::Number(number) => match number.as_u64() {
            Some(index) => documents.by_index(usize::try_from(index).unwrap_or(usize::MAX)),
            None => Err(format!("{number} is no position: they count from 0")),
        },
        other => Err(format!(
            "expected a document's id or its position, got {other}"
        )),
    }
}

fn pairs(
    documents: &Documents<'_>,
    raw: Option<Vec<[Value; 2]>>,
) -> Result<Vec<(usize, usize)>, String> {
    raw.into_iter()
        .flatten()
        .map(|[first, second]| Ok((position(documents, &first)?, position(documents, &second)?)))
        .collect()
}

/// A key is an id, or else a position.
fn scores(
    documents: &Documents<'_>,
    raw: Option<BTreeMap<String, RawScore>>,
) -> Result<Vec<(usize, f64, f64)>, String> {
    let of = |(name, range): (String, RawScore)| {
        let index = documents
            .by_id(&name)
            .or_else(|problem| match name.parse::<usize>() {
                Ok(index) => documents.by_index(index),
                Err(_) => Err(problem),
            })?;
        Ok((index, range.least, range.most))
    };
    raw.into_iter().flatten().map(of).collect()
}

/// The id, or else the position.
fn labels(request: &RerankRequest) -> Vec<String> {
    let label = |(index, document): (usize, &rerankd_core::Document)| {
        document
            .id
            .clone()
            .map_or_else(|| index.to_string(), |id| id.chars().take(80).collect())
    };
    request.documents.iter().enumerate().map(label).collect()
}
