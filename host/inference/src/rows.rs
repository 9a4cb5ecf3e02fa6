//! The inputs of one `compute`, seen as rows.
//!
//! Owns checking names, types, shapes and values against the model, and the true length of each row, so
//! that what a model is given cannot make it fail. Which rows run together is the scheduler's affair.

use rerankd_core::Charge;

use crate::backend::{Port, RunInput, View};
use crate::error::InferenceError;
use crate::model::Model;
use crate::tensor::{Tensor, TensorData};

/// Longest name and longest shape, dimensions, that a message repeats: both may be the guest's.
const SHOWN_NAME_BYTES: usize = 64;
const SHOWN_DIMENSIONS: usize = 8;

/// Checked inputs: dimension 0 is the row in each, and every row has a true length.
#[derive(Debug)]
pub struct RowBatch {
    /// In the order of the session's inputs.
    inputs: Vec<RowInput>,
    rows: usize,
    lengths: Vec<usize>,
    /// What inputs and bookkeeping take, given back with them.
    _held: Vec<Charge>,
    /// What the outputs will take.
    held_outputs: Option<Charge>,
}

/// What the queue keeps of a row beside its inputs and outputs, bytes: its length, its place in a
/// slice, its key in the row cache and what was found there.
const BOOKKEEPING_BYTES: usize = 128;

#[derive(Debug)]
struct RowInput {
    data: TensorData,
    /// Sizes of the dimensions after the first.
    row_dims: Vec<usize>,
    /// Whether `row_dims[0]` counts tokens, so that it can be cut to the row's true length.
    has_tokens: bool,
}

impl RowInput {
    fn row_elements(&self) -> usize {
        self.row_dims.iter().product()
    }
}

impl RowBatch {
    /// Checks `named` against the model's inputs and finds each row's true length: the position
    /// after the last 1 in its attention mask. A row without any is not run: its outputs are NaN.
    ///
    /// # Errors
    /// The variant of [`InferenceError`] that names what is wrong: an unknown, repeated or missing
    /// input, its type, its shape, or a value that the model does not take.
    pub fn new(model: &Model, named: Vec<(String, Tensor)>) -> Result<Self, InferenceError> {
        let ports = model.session().inputs();
        let expected = || describe(ports);
        let mut slots: Vec<Option<Tensor>> = ports.iter().map(|_| None).collect();
        for (name, tensor) in named {
            let Some(position) = ports.iter().position(|port| port.name == name) else {
                let shown = name.floor_char_boundary(SHOWN_NAME_BYTES);
                return Err(InferenceError::UnknownInput {
                    model: model.name().to_owned(),
                    input: name[..shown].to_owned(),
                    expected: expected(),
                });
            };
            if slots[position].is_some() {
                return Err(InferenceError::RepeatedInput {
                    model: model.name().to_owned(),
                    input: name,
                });
            }
            check_port(model.name(), &ports[position], &tensor)?;
            slots[position] = Some(tensor);
        }
        let mut tensors = Vec::with_capacity(ports.len());
        for (port, slot) in ports.iter().zip(slots) {
            tensors.push(slot.ok_or_else(|| InferenceError::MissingInput {
                model: model.name().to_owned(),
                input: port.name.clone(),
                expected: expected(),
            })?);
        }
        Self::from_tensors(model, ports, tensors)
    }

    fn from_tensors(
        model: &Model,
        ports: &[Port],
        tensors: Vec<Tensor>,
    ) -> Result<Self, InferenceError> {
        let mask_name = &model.manifest().inputs.mask;
        let mask_position = ports
            .iter()
            .position(|port| &port.name == mask_name)
            .expect("a loaded model has its mask input");
        let mask_dims = tensors[mask_position].dims().to_vec();
        let (rows, columns) = (mask_dims[0], mask_dims[1]);
        let wrong_shape = |position: usize, problem: String| InferenceError::WrongShape {
            model: model.name().to_owned(),
            input: ports[position].name.clone(),
            problem,
            got: shown_dims(&tensors[position]),
        };
        if rows == 0 || columns == 0 {
            return Err(wrong_shape(
                mask_position,
                "must have at least one row and one token".into(),
            ));
        }
        for (position, tensor) in tensors.iter().enumerate() {
            let dims = tensor.dims();
            let same_tokens = dims.len() != 2 || dims[1] == columns;
            if dims[0] != rows || !same_tokens {
                let problem = format!("must have the shape of `{mask_name}`, {mask_dims:?}");
                return Err(wrong_shape(position, problem));
            }
        }
        let TensorData::I64(mask) = tensors[mask_position].data() else {
            unreachable!("checked against the port, and a loaded model's mask is I64")
        };
        let lengths: Vec<usize> = mask
            .chunks(columns)
            .map(|row| {
                row.iter()
                    .rposition(|&cell| cell != 0)
                    .map_or(0, |last| last + 1)
            })
            .collect();
        let max_tokens = model.manifest().max_tokens;
        if let Some(row) = lengths.iter().position(|&length| length > max_tokens) {
            let problem = format!(
                "must have at most {max_tokens} tokens a row; row {row} has {}",
                lengths[row]
            );
            return Err(wrong_shape(mask_position, problem));
        }
        for (port, tensor) in ports.iter().zip(&tensors) {
            check_values(model, port, tensor)?;
        }
        let inputs = tensors
            .into_iter()
            .map(|tensor| {
                let (dims, data) = tensor.into_parts();
                RowInput {
                    data,
                    has_tokens: dims.len() == 2,
                    row_dims: dims[1..].to_vec(),
                }
            })
            .collect();
        Ok(Self {
            inputs,
            rows,
            lengths,
            _held: Vec::new(),
            held_outputs: None,
        })
    }

    /// What so many rows of a model take while they run, beside their inputs and outputs, bytes.
    pub fn bookkeeping_bytes(model: &Model, rows: usize) -> usize {
        rows.saturating_mul(BOOKKEEPING_BYTES + model.row_form().row_bytes())
    }

    /// Keeps what its inputs and bookkeeping are charged with until the last worker is done with
    /// them, and `outputs` for [`RunOutput::held`](crate::job::RunOutput::held).
    #[must_use]
    pub fn holding(mut self, inputs: Vec<Charge>, outputs: Charge) -> Self {
        self._held = inputs;
        self.held_outputs = Some(outputs);
        self
    }

    pub(crate) fn take_held_outputs(&mut self) -> Option<Charge> {
        self.held_outputs.take()
    }

    /// How many rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Each row's true length, tokens; 0 of one that is not to be run.
    pub fn lengths(&self) -> &[usize] {
        &self.lengths
    }

    /// How many rows are not to be run.
    pub(crate) fn unrun(&self) -> usize {
        self.lengths.iter().filter(|&&length| length == 0).count()
    }

    /// Writes all that a row gives to the model, cut to its true length: what rows that are equal have
    /// in common, and no others.
    pub(crate) fn write_row(&self, row: usize, into: &mut Vec<u8>) {
        for input in &self.inputs {
            let stride = input.row_elements();
            let take = if input.has_tokens {
                self.lengths[row]
            } else {
                stride
            };
            let cells = row * stride..row * stride + take;
            into.extend((take as u32).to_le_bytes());
            match &input.data {
                TensorData::I64(data) => write_integers(&data[cells], into),
                TensorData::F32(data) => {
                    into.extend(data[cells].iter().flat_map(|x| x.to_le_bytes()));
                }
            }
        }
    }

    /// Copies some rows, cut to the longest of them, into `scratch` and returns them as the inputs
    /// of a run, in the order of the session's inputs.
    pub fn gather<'s>(&self, rows: &[usize], scratch: &'s mut Scratch) -> Vec<RunInput<'s>> {
        let columns = rows.iter().map(|&row| self.lengths[row]).max().unwrap_or(0);
        scratch.buffers.clear();
        for input in &self.inputs {
            let stride = input.row_elements();
            let take = if input.has_tokens { columns } else { stride };
            scratch.buffers.push(match &input.data {
                TensorData::I64(data) => TensorData::I64(gather_rows(data, rows, stride, take)),
                TensorData::F32(data) => TensorData::F32(gather_rows(data, rows, stride, take)),
            });
        }
        self.inputs
            .iter()
            .zip(&scratch.buffers)
            .map(|(input, buffer)| {
                let mut dims = vec![rows.len()];
                if input.has_tokens {
                    dims.push(columns);
                } else {
                    dims.extend(&input.row_dims);
                }
                let view = match buffer {
                    TensorData::I64(data) => View::I64(data),
                    TensorData::F32(data) => View::F32(data),
                };
                RunInput { dims, view }
            })
            .collect()
    }
}

/// A worker's buffers for gathered rows.
#[derive(Debug, Default)]
pub struct Scratch {
    buffers: Vec<TensorData>,
}

/// Integers in as many bytes each as the largest needs, that number before them: a digest is taken of
/// them, and most are small.
fn write_integers(cells: &[i64], into: &mut Vec<u8>) {
    // What is negative sets the highest bit.
    let all = cells.iter().fold(0_u64, |all, &cell| all | cell as u64);
    if u8::try_from(all).is_ok() {
        into.push(1);
        into.extend(cells.iter().map(|&cell| cell as u8));
    } else if u16::try_from(all).is_ok() {
        into.push(2);
        into.extend(cells.iter().flat_map(|&cell| (cell as u16).to_le_bytes()));
    } else {
        into.push(8);
        into.extend(cells.iter().flat_map(|cell| cell.to_le_bytes()));
    }
}

fn gather_rows<T: Copy>(data: &[T], rows: &[usize], stride: usize, take: usize) -> Vec<T> {
    let mut gathered = Vec::with_capacity(rows.len() * take);
    for &row in rows {
        gathered.extend_from_slice(&data[row * stride..row * stride + take]);
    }
    gathered
}

/// Whether all that a graph would look up is there: a graph that is asked for the row of a table that
/// it does not have fails as a whole, and so do all rows of the run. What is masked is looked up too.
fn check_values(model: &Model, port: &Port, tensor: &Tensor) -> Result<(), InferenceError> {
    let (Some(bound), TensorData::I64(cells)) = (model.value_bound(&port.name), tensor.data())
    else {
        return Ok(());
    };
    let wrong = |cell: &&i64| u64::try_from(**cell).map_or(true, |value| value >= bound);
    match cells.iter().find(wrong) {
        Some(&got) => Err(InferenceError::WrongValue {
            model: model.name().to_owned(),
            input: port.name.clone(),
            most: bound.saturating_sub(1),
            got,
        }),
        None => Ok(()),
    }
}

fn shown_dims(tensor: &Tensor) -> Vec<usize> {
    let dims = tensor.dims();
    dims[..dims.len().min(SHOWN_DIMENSIONS)].to_vec()
}

fn check_port(model: &str, port: &Port, tensor: &Tensor) -> Result<(), InferenceError> {
    if port.element_type != Some(tensor.element_type()) {
        return Err(InferenceError::WrongType {
            model: model.to_owned(),
            input: port.name.clone(),
            expected: port
                .element_type
                .expect("a loaded model's inputs have supported types"),
            got: tensor.element_type(),
        });
    }
    let fits = port.dims.len() == tensor.dims().len()
        && port
            .dims
            .iter()
            .zip(tensor.dims())
            .all(|(want, &got)| want.is_none_or(|w| w == got));
    if fits {
        return Ok(());
    }
    Err(InferenceError::WrongShape {
        model: model.to_owned(),
        input: port.name.clone(),
        problem: format!("must have the shape {}", port.shape()),
        got: shown_dims(tensor),
    })
}

fn describe(ports: &[Port]) -> String {
    let each: Vec<String> = ports.iter().map(ToString::to_string).collect();
    each.join(", ")
}
