//! A model's raw scores of (query, text) pairs, and its vectors, without a policy in between: what
//! Metarank's routes ask for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rerankd_core::TokenCount;

use crate::error::InferenceError;
use crate::manifest::ModelKind;
use crate::model::Model;
use crate::reading::{Reading, Verdict};
use crate::rows::RowBatch;
use crate::scheduler::Lane;
use crate::tensor::{Tensor, TensorData};
use crate::tokenizer::Encoding;

/// Raw scores of one query and some texts.
#[derive(Debug, Clone, PartialEq)]
pub struct PairScores {
    /// In the order of the texts: a cross-encoder's logit, or a bi-encoder's cosine. `None` where
    /// text or query is not run, or the row did not run in time.
    pub scores: Vec<Option<f64>>,
    /// Whether each text was read.
    pub texts: Vec<Verdict>,
    /// Whether the query was read.
    pub query: Verdict,
    /// Positions of the texts that were cut, ascending.
    pub truncated: Vec<usize>,
    /// Whether the query was cut.
    pub query_truncated: bool,
    /// What was tokenized.
    pub tokens: TokenCount,
    /// Time spent tokenizing.
    pub tokenize: Duration,
    /// Time until the first row ran.
    pub queue: Duration,
    /// Time from then until the last row.
    pub inference: Duration,
    /// What the rows took, all workers together.
    pub run_time: Duration,
}

/// Why a text has no vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoVector {
    /// Its row did not run in time.
    Late,
    /// The model cannot read it.
    Unread,
    /// The tokenizer leaves nothing of it.
    Empty,
}

struct Rows {
    tensors: Vec<(String, Tensor)>,
    texts: Vec<Verdict>,
    query: Option<Verdict>,
    truncated: Vec<u32>,
    query_truncated: bool,
    tokens: TokenCount,
    tokenize: Duration,
    queue: Duration,
    inference: Duration,
    run_time: Duration,
}

/// Scores each text for the query.
///
/// # Errors
/// [`InferenceError`] of the tokenizer or the model.
pub async fn score(
    lane: &Lane,
    model: &Arc<Model>,
    query: &str,
    texts: Vec<String>,
) -> Result<PairScores, InferenceError> {
    let count = texts.len();
    let bi_encoder = model.manifest().kind == ModelKind::BiEncoder;
    let rows = if bi_encoder {
        let mut all = Vec::with_capacity(count + 1);
        all.push(query.to_owned());
        all.extend(texts);
        run(lane, model, Query::FirstText, all).await?
    } else {
        run(lane, model, Query::OfPairs(query.to_owned()), texts).await?
    };
    let outputs = &model.manifest().outputs;
    let query = rows.query.unwrap_or(Verdict::Read);
    let texts = rows.texts[usize::from(bi_encoder)..].to_vec();
    let truncated_rows = &rows.truncated;
    let (scores, truncated, query_truncated) = if bi_encoder {
        let vectors = vectors(&rows.tensors, outputs.embedding.as_deref());
        let scores = vectors
            .iter()
            .skip(1)
            .map(|vector| cosine(vectors[0], vector))
            .collect();
        let truncated = truncated_rows.iter().filter_map(|&row| row.checked_sub(1));
        (
            scores,
            truncated.collect::<Vec<u32>>(),
            truncated_rows.first() == Some(&0),
        )
    } else {
        let scores = vectors(&rows.tensors, outputs.score.as_deref())
            .iter()
            .map(|row| {
                row.first()
                    .map(|&logit| f64::from(logit))
                    .filter(|s| s.is_finite())
            })
            .collect();
        (scores, truncated_rows.clone(), rows.query_truncated)
    };
    Ok(PairScores {
        scores,
        texts,
        query,
        truncated: truncated.into_iter().map(|row| row as usize).collect(),
        query_truncated,
        tokens: rows.tokens,
        tokenize: rows.tokenize,
        queue: rows.queue,
        inference: rows.inference,
        run_time: rows.run_time,
    })
}

/// The pooled vector of each text, not normalized, in the order of the texts, or why it has none. Falls
/// back to the normalized vector if the model gives no other.
///
/// # Errors
/// [`InferenceError`] of the tokenizer or the model; a cross-encoder has no vectors.
pub async fn embed(
    lane: &Lane,
    model: &Arc<Model>,
    texts: Vec<String>,
) -> Result<Vec<Result<Vec<f32>, NoVector>>, InferenceError> {
    let outputs = &model.manifest().outputs;
    let Some(name) = outputs.pooled.as_deref().or(outputs.embedding.as_deref()) else {
        return Err(InferenceError::UnusableModel {
            model: model.name().to_owned(),
            problem: "it is a cross-encoder: it scores pairs and has no vectors".to_owned(),
        });
    };
    let rows = run(lane, model, Query::None, texts).await?;
    let vectors = vectors(&rows.tensors, Some(name));
    let embedded = vectors
        .into_iter()
        .zip(rows.texts)
        .map(|(vector, text)| match text {
            Verdict::Empty => Err(NoVector::Empty),
            Verdict::Unread => Err(NoVector::Unread),
            Verdict::Read if vector.iter().all(|x| x.is_finite()) => Ok(vector.to_vec()),
            Verdict::Read => Err(NoVector::Late),
        });
    Ok(embedded.collect())
}

/// Where the query of some texts is.
enum Query {
    None,
    FirstText,
    OfPairs(String),
}

async fn run(
    lane: &Lane,
    model: &Arc<Model>,
    query: Query,
    texts: Vec<String>,
) -> Result<Rows, InferenceError> {
    let started = Instant::now();
    let query_is_first = matches!(query, Query::FirstText);
    let of_pairs = match query {
        Query::OfPairs(query) => Some(query),
        Query::None | Query::FirstText => None,
    };
    let mut encoding: Encoding = lane.encode(model.tokenizer(), of_pairs, texts).await?;
    if query_is_first {
        encoding.tell_query(&[0]);
    }
    let (truncated, query_truncated) = (encoding.truncated.clone(), encoding.query_truncated);
    let tokens = encoding.tokens;
    let verdict = |reading: &Reading| reading.verdict;
    let texts = encoding.readings.iter().map(verdict).collect();
    let query = encoding.query_reading.as_ref().map(verdict);
    let batch = RowBatch::new(model, encoding.into_tensors(&model.manifest().inputs))?;
    let encoded = Instant::now();
    let output = lane.run(model, batch).await?;
    let first_start = output.first_start.unwrap_or_else(Instant::now);
    Ok(Rows {
        tensors: output.tensors,
        texts,
        query,
        truncated,
        query_truncated,
        tokens,
        tokenize: encoded - started,
        queue: first_start - encoded,
        inference: first_start.elapsed(),
        run_time: output.run_time,
    })
}

/// The rows of an output.
fn vectors<'t>(tensors: &'t [(String, Tensor)], name: Option<&str>) -> Vec<&'t [f32]> {
    let tensor = tensors
        .iter()
        .find(|(output, _)| Some(output.as_str()) == name);
    match tensor.map(|(_, tensor)| (tensor.dims(), tensor.data())) {
        Some((dims, TensorData::F32(data))) if dims[0] > 0 => {
            data.chunks(data.len() / dims[0]).collect()
        }
        _ => Vec::new(),
    }
}

/// The dot product of two vectors of length 1, of which rounding may lead out of the range of a cosine;
/// `None` if a row is NaN.
fn cosine(a: &[f32], b: &[f32]) -> Option<f64> {
    let dot: f32 = a.iter().zip(b).map(|(x, y)| x * y).sum();
    dot.is_finite().then(|| f64::from(dot.clamp(-1.0, 1.0)))
}
