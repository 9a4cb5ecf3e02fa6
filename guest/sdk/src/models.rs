//! Models: texts in, numbers out, in one call. Built on the host's tokenizer and `wasi:nn`.

use crate::Error;
use crate::bindings::rerank::policy::tokenizer::{self, Encoding};
use crate::bindings::wasi::nn::{
    errors::{self, ErrorCode},
    graph::{self, Graph},
    tensor::TensorType,
};
use crate::reading::{Reading, Readings};

/// A model that turns a text into an embedding.
pub struct BiEncoder {
    model: Model,
}

impl BiEncoder {
    /// Opens the model that the manifest lists under this name.
    ///
    /// # Errors
    /// [`Error::Model`] if the manifest names no such model or the host has none for it.
    pub fn open(name: &str) -> Result<Self, Error> {
        Ok(Self {
            model: Model::open(name)?,
        })
    }

    /// Embeds all texts in one call. There is nothing to gain from sorting them or from calls with
    /// fewer texts: the host schedules every row by its own length.
    ///
    /// # Errors
    /// [`Error::Model`] if the tokenizer or the model failed, or answered with another shape than
    /// `[rows, dimensions]`.
    pub fn embed(&self, texts: &[String]) -> Result<Embeddings, Error> {
        if texts.is_empty() {
            return Ok(Embeddings::from_rows(
                Vec::new(),
                1,
                Vec::new(),
                Readings::default(),
            ));
        }
        let encoding = tokenizer::encode_texts(&self.model.name, texts)
            .map_err(|reason| self.model.error(&reason))?;
        let truncated = truncated_rows(&encoding, texts.len());
        let (values, dimensions) =
            self.model
                .compute(&encoding, "sentence_embedding", texts.len())?;
        Ok(Embeddings::from_rows(
            values,
            dimensions,
            truncated,
            Readings::of(encoding),
        ))
    }
}

/// What a [`BiEncoder`] made of the texts, one row a text, in their order.
pub struct Embeddings {
    /// Row-major `[rows, dimensions]`.
    values: Vec<f32>,
    /// Never 0.
    dimensions: usize,
    /// `[rows]`
    truncated: Vec<bool>,
    readings: Readings,
}

impl Embeddings {
    /// How many rows there are: as many as there were texts.
    pub fn len(&self) -> usize {
        self.truncated.len()
    }

    /// Whether there were no texts.
    pub fn is_empty(&self) -> bool {
        self.truncated.is_empty()
    }

    /// The embedding of a text, `[dimensions]`, of length 1. `None` if the row did not run, since there
    /// was no time or the model cannot read it: answer `unscored("late")` for its document, the host
    /// knows which.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn row(&self, row: usize) -> Option<&[f32]> {
        let values = &self.values[row * self.dimensions..][..self.dimensions];
        let late = values.iter().all(|value| value.is_nan());
        (!late).then_some(values)
    }

    /// Whether the text was longer than the model's window, so that the model saw only its start.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn truncated(&self, row: usize) -> bool {
        self.truncated[row]
    }

    /// How much of the text the model can read. The first call asks the host.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn reading(&self, row: usize) -> Reading {
        self.readings.row(row)
    }

    fn from_rows(
        values: Vec<f32>,
        dimensions: usize,
        truncated: Vec<bool>,
        readings: Readings,
    ) -> Self {
        Self {
            values,
            dimensions,
            truncated,
            readings,
        }
    }
}

/// A model that reads query and document together and says how well they fit.
pub struct CrossEncoder {
    model: Model,
}

impl CrossEncoder {
    /// Opens the model that the manifest lists under this name.
    ///
    /// # Errors
    /// [`Error::Model`] if the manifest names no such model or the host has none for it.
    pub fn open(name: &str) -> Result<Self, Error> {
        Ok(Self {
            model: Model::open(name)?,
        })
    }

    /// Scores the pairs (`query`, text) of all texts in one call. There is nothing to gain from
    /// sorting them or from calls with fewer texts: the host schedules every row by its own length.
    ///
    /// # Errors
    /// [`Error::Model`] if the tokenizer or the model failed, or answered with another shape than
    /// `[rows, 1]`.
    pub fn score(&self, query: &str, texts: &[String]) -> Result<PairScores, Error> {
        if texts.is_empty() {
            return Ok(PairScores {
                logits: Vec::new(),
                truncated: Vec::new(),
                query_truncated: false,
                readings: Readings::default(),
            });
        }
        let encoding = tokenizer::encode_pairs(&self.model.name, query, texts)
            .map_err(|reason| self.model.error(&reason))?;
        let truncated = truncated_rows(&encoding, texts.len());
        let query_truncated = encoding.query_truncated();
        let (logits, labels) = self.model.compute(&encoding, "logits", texts.len())?;
        if labels != 1 {
            return Err(self
                .model
                .error(&format!("expected one logit a row, got {labels}")));
        }
        Ok(PairScores {
            logits,
            truncated,
            query_truncated,
            readings: Readings::of(encoding),
        })
    }
}

/// What a [`CrossEncoder`] made of the pairs, one row a text, in their order.
pub struct PairScores {
    /// `[rows]`
    logits: Vec<f32>,
    /// `[rows]`
    truncated: Vec<bool>,
    query_truncated: bool,
    readings: Readings,
}

impl PairScores {
    /// How many rows there are: as many as there were texts.
    pub fn len(&self) -> usize {
        self.logits.len()
    }

    /// Whether there were no texts.
    pub fn is_empty(&self) -> bool {
        self.logits.is_empty()
    }

    /// The pair's logit, unbounded, higher is better; [`sigmoid`](crate::sigmoid) makes a
    /// probability of it. `None` if the row did not run, since there was no time or the model cannot
    /// read it: answer `unscored("late")` for its document, the host knows which.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn logit(&self, row: usize) -> Option<f64> {
        let logit = f64::from(self.logits[row]);
        (!logit.is_nan()).then_some(logit)
    }

    /// Whether the text did not fit the model's window, so that the model saw only its start.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn truncated(&self, row: usize) -> bool {
        self.truncated[row]
    }

    /// Whether the query filled more than half the model's window and was cut to that half.
    pub fn query_truncated(&self) -> bool {
        self.query_truncated
    }

    /// How much of the text the model can read. The first call asks the host.
    ///
    /// # Panics
    /// If there is no such row.
    pub fn reading(&self, row: usize) -> Reading {
        self.readings.row(row)
    }

    /// How much of the query the model can read; `None` if there were no texts.
    pub fn query_reading(&self) -> Option<Reading> {
        self.readings.query()
    }
}

/// An error of `wasi:nn` as the policy's error: ``model `NAME`: CODE: TEXT``.
pub fn model_error(name: &str, error: &errors::Error) -> Error {
    let code = match error.code() {
        ErrorCode::InvalidArgument => "invalid-argument",
        ErrorCode::InvalidEncoding => "invalid-encoding",
        ErrorCode::Timeout => "timeout",
        ErrorCode::RuntimeError => "runtime-error",
        ErrorCode::UnsupportedOperation => "unsupported-operation",
        ErrorCode::TooLarge => "too-large",
        ErrorCode::NotFound => "not-found",
        ErrorCode::Security => "security",
        ErrorCode::Unknown => "unknown",
    };
    Error::Model(format!("model `{name}`: {code}: {}", error.data()))
}

struct Model {
    name: String,
    graph: Graph,
}

impl Model {
    fn open(name: &str) -> Result<Self, Error> {
        let graph = graph::load_by_name(name).map_err(|error| model_error(name, &error))?;
        Ok(Self {
            name: name.to_owned(),
            graph,
        })
    }

    /// Runs all rows. Returns the values of one output, row-major `[rows, width]`, and `width`,
    /// which is never 0.
    fn compute(
        &self,
        encoding: &Encoding,
        output: &str,
        rows: usize,
    ) -> Result<(Vec<f32>, usize), Error> {
        let inputs = encoding.tensors().map_err(|reason| self.error(&reason))?;
        let context = self
            .graph
            .init_execution_context()
            .map_err(|error| model_error(&self.name, &error))?;
        let outputs = context
            .compute(inputs)
            .map_err(|error| model_error(&self.name, &error))?;
        let (_, tensor) = outputs
            .into_iter()
            .find(|(name, _)| name == output)
            .ok_or_else(|| self.error(&format!("it has no output `{output}`")))?;
        let (dimensions, element_type, data) = (tensor.dimensions(), tensor.ty(), tensor.data());
        floats(rows, &dimensions, element_type, &data)
            .map_err(|reason| self.error(&format!("output `{output}`: {reason}")))
    }

    fn error(&self, reason: &str) -> Error {
        Error::Model(format!("model `{}`: {reason}", self.name))
    }
}

/// The elements of a tensor that must be `FP32 [rows, width]`, and the width, which must not be 0.
fn floats(
    rows: usize,
    dimensions: &[u32],
    element_type: TensorType,
    data: &[u8],
) -> Result<(Vec<f32>, usize), String> {
    let width = match *dimensions {
        [first, width] if first as usize == rows && width > 0 => width as usize,
        _ => return Err(format!("expected [{rows}, n], got {dimensions:?}")),
    };
    let (elements, rest) = data.as_chunks::<4>();
    if element_type != TensorType::Fp32 || !rest.is_empty() || elements.len() != rows * width {
        return Err(format!(
            "expected {} elements of FP32, got {} bytes",
            rows * width,
            data.len()
        ));
    }
    let values = elements
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect();
    Ok((values, width))
}

/// `[rows]`: which texts were cut.
fn truncated_rows(encoding: &Encoding, rows: usize) -> Vec<bool> {
    let mut truncated = vec![false; rows];
    for row in encoding.truncated() {
        if let Some(row) = truncated.get_mut(row as usize) {
            *row = true;
        }
    }
    truncated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_late_only_if_all_of_it_is_nan() {
        let values = vec![1.0, 0.0, f32::NAN, f32::NAN, f32::NAN, 1.0];
        let embeddings =
            Embeddings::from_rows(values, 2, vec![false, true, false], Readings::default());
        assert_eq!(embeddings.len(), 3);
        assert_eq!(embeddings.row(0), Some(&[1.0, 0.0][..]));
        assert_eq!(embeddings.row(1), None);
        assert!(embeddings.row(2).is_some());
        assert_eq!(
            [0, 1, 2].map(|row| embeddings.truncated(row)),
            [false, true, false]
        );
    }

    #[test]
    fn an_output_of_another_shape_is_refused() {
        let data: Vec<u8> = [1.0_f32, 2.0]
            .iter()
            .flat_map(|value| value.to_le_bytes())
            .collect();
        assert_eq!(
            floats(2, &[2, 1], TensorType::Fp32, &data),
            Ok((vec![1.0, 2.0], 1))
        );
        assert_eq!(
            floats(1, &[1, 2], TensorType::Fp32, &data),
            Ok((vec![1.0, 2.0], 2))
        );
        for (rows, dimensions, element_type, bytes) in [
            (3, &[2, 1][..], TensorType::Fp32, 8),
            (2, &[2], TensorType::Fp32, 8),
            (2, &[2, 0], TensorType::Fp32, 0),
            (2, &[2, 1], TensorType::I32, 8),
            (2, &[2, 1], TensorType::Fp32, 7),
            (2, &[2, 2], TensorType::Fp32, 8),
        ] {
            assert!(floats(rows, dimensions, element_type, &data[..bytes]).is_err());
        }
    }
}
