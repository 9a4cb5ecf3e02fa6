//! How the outputs of a row are kept, and to what they are rounded.
//!
//! A model's `output_precision` holds for every row, whether it is kept or not, and whether it comes
//! from the model or from a cache: what is kept is exactly what was given out.

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::backend::Port;
use crate::manifest::{ModelManifest, OutputPrecision};

/// The most that is kept of one row, bytes.
const MAX_ROW_BYTES: usize = 64 << 10;

/// The form of a model's output rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowForm {
    /// Elements of a row, by output.
    elements: Vec<usize>,
    half: Option<HalfForm>,
}

/// A vector of length 1 in half precision; the same vector before normalization is told by its
/// length, in single precision.
#[derive(Debug, Clone, PartialEq, Eq)]
struct HalfForm {
    /// Position of the normalized vector among the outputs.
    normalized: usize,
    /// Position of the vector before normalization.
    pooled: Option<usize>,
}

impl RowForm {
    /// `row_dims`: for each output, the sizes of its dimensions after the first.
    pub fn new(manifest: &ModelManifest, outputs: &[Port], row_dims: &[Vec<usize>]) -> Self {
        let position = |name: Option<&str>| {
            outputs
                .iter()
                .position(|port| Some(port.name.as_str()) == name)
        };
        let half = match manifest.execution.output_precision {
            OutputPrecision::Fp32 => None,
            OutputPrecision::Fp16 => position(manifest.outputs.embedding.as_deref()),
        };
        Self {
            elements: row_dims.iter().map(|dims| dims.iter().product()).collect(),
            half: half.map(|normalized| HalfForm {
                normalized,
                pooled: position(manifest.outputs.pooled.as_deref()),
            }),
        }
    }

    /// Whether a row is small enough to be kept.
    pub fn fits(&self) -> bool {
        self.row_bytes() <= MAX_ROW_BYTES
    }

    /// What a row takes when it is kept, bytes.
    pub fn row_bytes(&self) -> usize {
        match &self.half {
            None => self.elements.iter().sum::<usize>() * size_of::<f32>(),
            Some(half) => {
                self.elements[half.normalized] * size_of::<f16>()
                    + half.pooled.map_or(0, |_| size_of::<f32>())
            }
        }
    }

    /// Whether outputs are given as the model computes them.
    pub fn is_exact(&self) -> bool {
        self.half.is_none()
    }

    /// What is kept of a row: `None` if an element is not finite.
    pub fn pack(&self, outputs: &[&[f32]]) -> Option<Vec<u8>> {
        if !outputs.iter().all(|row| row.iter().all(|x| x.is_finite())) {
            return None;
        }
        let mut bytes = Vec::with_capacity(self.row_bytes());
        match &self.half {
            None => {
                for &row in outputs {
                    bytes.extend(row.iter().flat_map(|x| x.to_le_bytes()));
                }
            }
            Some(half) => {
                let vector = outputs[half.normalized];
                let mut halves = vec![f16::ZERO; vector.len()];
                halves.convert_from_f32_slice(vector);
                bytes.extend(halves.iter().flat_map(|x| x.to_le_bytes()));
                if let Some(pooled) = half.pooled {
                    let squares: f64 = outputs[pooled].iter().map(|&x| f64::from(x).powi(2)).sum();
                    bytes.extend((squares.sqrt() as f32).to_le_bytes());
                }
            }
        }
        Some(bytes)
    }

    /// Writes a row that [`pack`](Self::pack) made.
    pub fn unpack(&self, bytes: &[u8], outputs: &mut [&mut [f32]]) {
        let Some(half) = &self.half else {
            let mut values = bytes.as_chunks::<4>().0.iter();
            for row in outputs {
                for (cell, value) in row.iter_mut().zip(&mut values) {
                    *cell = f32::from_le_bytes(*value);
                }
            }
            return;
        };
        let vector_bytes = self.elements[half.normalized] * size_of::<f16>();
        let (vector, length) = bytes.split_at(vector_bytes);
        let halves: Vec<f16> = vector
            .as_chunks::<2>()
            .0
            .iter()
            .map(|&value| f16::from_le_bytes(value))
            .collect();
        halves.convert_to_f32_slice(outputs[half.normalized]);
        if let (Some(pooled), Some(&length)) = (half.pooled, length.first_chunk::<4>()) {
            let length = f32::from_le_bytes(length);
            for (cell, half) in outputs[pooled].iter_mut().zip(halves) {
                *cell = half.to_f32() * length;
            }
        }
    }
}
