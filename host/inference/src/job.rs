//! Work in progress: the texts of one tokenizer call, and the rows of one `compute`. A worker does a
//! piece and stores what came of it; whoever waits takes the whole when the last piece is done.

use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use rerankd_core::{Charge, TokenCount};
use tokio::sync::Notify;

use crate::cache::encodings::EncodingCache;
use crate::cache::rows::Recalled;
use crate::error::InferenceError;
use crate::model::Model;
use crate::reading::Reading;
use crate::rows::{RowBatch, Scratch};
use crate::scheduler::Statistics;
use crate::sync::{AtomicBool, AtomicUsize, Mutex, MutexGuard};
use crate::template::TokenRow;
use crate::tensor::{Tensor, TensorData};
use crate::tokenizer::{EncodedText, Encoding, ModelTokenizer};

/// What a `compute` gives back.
#[derive(Debug)]
pub struct RunOutput {
    /// Outputs by name, each `[rows, ..]` in the caller's order. A row that did not run is NaN in
    /// all its elements.
    pub tensors: Vec<(String, Tensor)>,
    /// How many rows did not run in time.
    pub late_rows: usize,
    /// When the first row started, if any did.
    /// For rows that were all known, when they were asked for.
    pub first_start: Option<Instant>,
    /// What all its runs took, whichever worker they ran on.
    pub run_time: Duration,
    /// What the tensors are charged with, if they are.
    pub held: Option<Charge>,
}

/// Texts of one call that are looked up where they are asked for, bytes: about 100 µs. The workers
/// do it for more.
const RECALL_BYTES: usize = 128 << 10;

/// The row of a text.
struct EncodedRow {
    row: TokenRow,
    /// Whether the text was cut.
    truncated: bool,
    /// Tokens that the row would have, had nothing been cut.
    given: usize,
    reading: Reading,
}

/// The texts of one tokenizer call.
pub(crate) struct EncodeJob {
    tokenizer: Arc<ModelTokenizer>,
    query: Option<String>,
    encoded_query: OnceLock<Result<EncodedText, InferenceError>>,
    texts: Vec<String>,
    cache: Option<Arc<EncodingCache>>,
    /// Positions of the texts that the workers have to do.
    todo: Vec<usize>,
    rows: Mutex<Vec<Option<Result<EncodedRow, InferenceError>>>>,
    remaining: AtomicUsize,
    withdrawn: AtomicBool,
    /// What texts and rows are charged with, until somebody takes the rows.
    held: Mutex<Option<Charge>>,
    done: Notify,
}

/// The rows of one `compute`.
pub(crate) struct Job {
    model: Arc<Model>,
    batch: RowBatch,
    remaining: AtomicUsize,
    withdrawn: AtomicBool,
    start_by: Instant,
    /// The rows that were known, and where to keep the others.
    recalled: Option<Recalled>,
    progress: Mutex<Progress>,
    done: Notify,
}

struct Progress {
    /// One buffer an output, filled with NaN at first; none once they were taken.
    outputs: Vec<Vec<f32>>,
    /// What the outputs are charged with.
    held: Option<Charge>,
    /// Rows that were known, have run, or are not to be run.
    rows_done: usize,
    first_start: Option<Instant>,
    run_time: Duration,
    error: Option<InferenceError>,
}

impl Job {
    pub(crate) fn new(
        model: &Arc<Model>,
        mut batch: RowBatch,
        start_by: Instant,
        recalled: Option<Recalled>,
    ) -> Self {
        let rows = batch.rows();
        let held = batch.take_held_outputs();
        let mut outputs: Vec<Vec<f32>> = model
            .output_row_dims()
            .iter()
            .map(|dims| vec![f32::NAN; rows * dims.iter().product::<usize>()])
            .collect();
        let mut rows_known = 0;
        for (row, known) in recalled.iter().flat_map(|r| r.found.iter().enumerate()) {
            if let Some(bytes) = known {
                let mut cells = row_cells(model, &mut outputs, row);
                model.row_form().unpack(bytes, &mut cells);
                rows_known += 1;
            }
        }
        // They need no run to be what they are: NaN.
        let rows_done = rows_known + batch.unrun();
        Self {
            model: Arc::clone(model),
            batch,
            remaining: AtomicUsize::new(rows - rows_done),
            withdrawn: AtomicBool::new(false),
            start_by,
            recalled,
            progress: Mutex::new(Progress {
                outputs,
                held,
                rows_done,
                first_start: (rows_done == rows).then(Instant::now),
                run_time: Duration::ZERO,
                error: None,
            }),
            done: Notify::new(),
        }
    }

    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// Each row's true length, tokens.
    pub(crate) fn lengths(&self) -> &[usize] {
        self.batch.lengths()
    }

    /// Rows that have not started by then are late.
    pub(crate) fn start_by(&self) -> Instant {
        self.start_by
    }

    /// Resolves when every row has run or never will.
    pub(crate) async fn done(&self) {
        self.done.notified().await;
    }

    /// Says that rows which have not started need not.
    pub(crate) fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_withdrawn(&self) -> bool {
        self.withdrawn.load(Ordering::Relaxed)
    }

    /// Runs some rows on the calling thread and stores their outputs.
    pub(crate) fn run(&self, rows: &[usize], scratch: &mut Scratch, statistics: &Statistics) {
        let lengths = self.batch.lengths();
        let longest = rows.iter().map(|&row| lengths[row]).max().unwrap_or(0);
        let tokens: usize = rows.iter().map(|&row| lengths[row]).sum();
        let started = Instant::now();
        let cost = self.model.cost();
        let inputs = self.batch.gather(rows, scratch);
        let before = cost.clock().now();
        let result = self.model.session().run(&inputs);
        cost.observe(rows.len() * longest, cost.clock().now() - before);
        let took = started.elapsed();
        statistics.runs.fetch_add(1, Ordering::Relaxed);
        statistics
            .rows_run
            .fetch_add(rows.len() as u64, Ordering::Relaxed);
        statistics
            .tokens_run
            .fetch_add(tokens as u64, Ordering::Relaxed);
        let padding = rows.len() * longest - tokens;
        statistics
            .tokens_padding
            .fetch_add(padding as u64, Ordering::Relaxed);
        statistics
            .run_ns
            .fetch_add(took.as_nanos() as u64, Ordering::Relaxed);
        match result {
            Ok(outputs) => self.store(rows, &outputs, started, took),
            Err(problem) => self.fail(problem),
        }
    }

    fn store(&self, rows: &[usize], outputs: &[Tensor], started: Instant, took: Duration) {
        let mut data: Vec<&[f32]> = Vec::with_capacity(outputs.len());
        for (position, tensor) in outputs.iter().enumerate() {
            let row_dims = &self.model.output_row_dims()[position];
            let TensorData::F32(cells) = tensor.data() else {
                unreachable!("a session's outputs are FP32")
            };
            if tensor.dims().first() != Some(&rows.len()) || tensor.dims()[1..] != row_dims[..] {
                return self.fail(format!(
                    "output {position} of {} rows has the shape {:?}; expected {row_dims:?} a row",
                    rows.len(),
                    tensor.dims()
                ));
            }
            data.push(cells);
        }
        let form = self.model.row_form();
        let packs = self.recalled.is_some() || !form.is_exact();
        let mut progress = self.progress();
        // A row that was still running when the outputs were taken may be kept, but has no place.
        let is_late = progress.outputs.is_empty();
        for (from, &row) in rows.iter().enumerate() {
            let given: Vec<&[f32]> = data
                .iter()
                .map(|cells| {
                    let stride = cells.len() / rows.len();
                    &cells[from * stride..(from + 1) * stride]
                })
                .collect();
            let packed = if packs { form.pack(&given) } else { None };
            if !is_late {
                let mut cells = row_cells(&self.model, &mut progress.outputs, row);
                match &packed {
                    Some(bytes) if !form.is_exact() => form.unpack(bytes, &mut cells),
                    _ => {
                        for (cells, given) in cells.iter_mut().zip(given) {
                            cells.copy_from_slice(given);
                        }
                    }
                }
            }
            if let (Some(bytes), Some(recalled)) = (packed, &self.recalled) {
                recalled.keep(row, bytes);
            }
        }
        progress.rows_done += rows.len();
        progress.run_time += took;
        progress.first_start = Some(progress.first_start.map_or(started, |at| at.min(started)));
    }

    /// Notes a failure and drops the rest.
    pub(crate) fn fail(&self, problem: String) {
        let model = self.model.name().to_owned();
        self.progress()
            .error
            .get_or_insert(InferenceError::Run { model, problem });
        self.withdrawn.store(true, Ordering::Relaxed);
    }

    /// Accounts for rows that have run or never will.
    pub(crate) fn rows_done(&self, rows: usize) {
        if self.remaining.fetch_sub(rows, Ordering::AcqRel) == rows {
            self.done.notify_one();
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress
            .lock()
            .expect("nothing panics while it holds the outputs")
    }

    /// Takes the outputs. A row that is still running is NaN.
    pub(crate) fn finish(&self) -> Result<RunOutput, InferenceError> {
        let mut progress = self.progress();
        if let Some(error) = progress.error.take() {
            return Err(error);
        }
        let outputs = std::mem::take(&mut progress.outputs);
        let ports = self.model.session().outputs();
        let tensors = ports
            .iter()
            .zip(self.model.output_row_dims())
            .zip(outputs)
            .map(|((port, row_dims), data)| {
                let mut dims = vec![self.batch.rows()];
                dims.extend(row_dims);
                let tensor = Tensor::new(dims, TensorData::F32(data))
                    .expect("the buffer was made for this shape");
                (port.name.clone(), tensor)
            })
            .collect();
        Ok(RunOutput {
            tensors,
            late_rows: self.batch.rows() - progress.rows_done,
            first_start: progress.first_start,
            run_time: progress.run_time,
            held: progress.held.take(),
        })
    }
}

/// The cells of one row, by output.
fn row_cells<'o>(model: &Model, outputs: &'o mut [Vec<f32>], row: usize) -> Vec<&'o mut [f32]> {
    outputs
        .iter_mut()
        .zip(model.output_row_dims())
        .map(|(buffer, dims)| {
            let stride: usize = dims.iter().product();
            &mut buffer[row * stride..(row + 1) * stride]
        })
        .collect()
}

impl EncodeJob {
    pub(crate) fn new(
        tokenizer: &Arc<ModelTokenizer>,
        query: Option<String>,
        texts: Vec<String>,
        cache: Option<&Arc<EncodingCache>>,
        held: Option<Charge>,
    ) -> Self {
        let mut job = Self {
            tokenizer: Arc::clone(tokenizer),
            query,
            encoded_query: OnceLock::new(),
            rows: Mutex::default(),
            remaining: AtomicUsize::new(0),
            texts,
            cache: cache.map(Arc::clone),
            todo: Vec::new(),
            withdrawn: AtomicBool::new(false),
            held: Mutex::new(held),
            done: Notify::new(),
        };
        let rows = job.recall();
        job.todo = (0..rows.len()).filter(|&row| rows[row].is_none()).collect();
        job.remaining = AtomicUsize::new(job.todo.len());
        job.rows = Mutex::new(rows);
        job
    }

    /// The rows of the texts that are known, if it takes next to no time to find out.
    fn recall(&self) -> Vec<Option<Result<EncodedRow, InferenceError>>> {
        let unknown = || self.texts.iter().map(|_| None).collect();
        let bytes: usize = self.texts.iter().chain(&self.query).map(String::len).sum();
        let Some(cache) = self.cache.as_ref().filter(|_| bytes <= RECALL_BYTES) else {
            return unknown();
        };
        if let Some(query) = &self.query {
            let Some(query) = cache.recall(&self.tokenizer, query) else {
                return unknown();
            };
            let _ = self.encoded_query.set(Ok(self.tokenizer.as_query(&query)));
            cache.count(self.tokenizer.model(), 1, 0);
        }
        let rows: Vec<_> = self
            .texts
            .iter()
            .map(|text| {
                let text = cache.recall(&self.tokenizer, text)?;
                Some(self.assemble(&text))
            })
            .collect();
        cache.count(self.tokenizer.model(), rows.iter().flatten().count(), 0);
        rows
    }

    /// How many texts the workers have to do.
    pub(crate) fn missing(&self) -> usize {
        self.todo.len()
    }

    /// Resolves when every text is tokenized.
    pub(crate) async fn done(&self) {
        self.done.notified().await;
    }

    /// Says that texts which have not been tokenized need not be.
    pub(crate) fn withdraw(&self) {
        self.withdrawn.store(true, Ordering::Relaxed);
    }

    /// Does some of the [`missing`](Self::missing) texts on the calling thread.
    pub(crate) fn encode(&self, missing: std::ops::Range<usize>, statistics: &Statistics) {
        if self.withdrawn.load(Ordering::Relaxed) {
            return;
        }
        let texts = &self.todo[missing];
        let mut known = 0;
        let encoded: Vec<_> = texts
            .iter()
            .map(|&position| {
                let (text, was_known) = self.encode_text(&self.texts[position])?;
                known += usize::from(was_known);
                self.assemble(&text)
            })
            .collect();
        statistics
            .texts_encoded
            .fetch_add((texts.len() - known) as u64, Ordering::Relaxed);
        if let Some(cache) = &self.cache {
            cache.count(self.tokenizer.model(), known, texts.len() - known);
        }
        let mut rows = self
            .rows
            .lock()
            .expect("nothing panics while it holds the rows");
        for (&position, row) in texts.iter().zip(encoded) {
            rows[position] = Some(row);
        }
    }

    /// A text's encoding, and whether it was known.
    fn encode_text(&self, text: &str) -> Result<(Arc<EncodedText>, bool), InferenceError> {
        match &self.cache {
            Some(cache) => cache.encode(&self.tokenizer, text),
            None => Ok((Arc::new(self.tokenizer.encode_text(text)?), false)),
        }
    }

    fn assemble(&self, text: &EncodedText) -> Result<EncodedRow, InferenceError> {
        let mut given = text.given() + self.tokenizer.special_tokens(self.query.is_some());
        let (row, truncated) = match &self.query {
            None => self.tokenizer.assemble_single(text),
            Some(query) => {
                let query = self
                    .encoded_query
                    .get_or_init(|| {
                        let (query, _) = self.encode_text(query)?;
                        Ok(self.tokenizer.as_query(&query))
                    })
                    .as_ref()
                    .map_err(Clone::clone)?;
                given += query.given();
                self.tokenizer.assemble_pair(query, text)
            }
        };
        Ok(EncodedRow {
            row,
            truncated,
            given,
            reading: text.reading(),
        })
    }

    /// Accounts for texts that were tokenized, or that panicked.
    pub(crate) fn texts_done(&self, texts: usize) {
        if self.remaining.fetch_sub(texts, Ordering::AcqRel) == texts {
            self.done.notify_one();
        }
    }

    /// Takes what texts and rows are charged with.
    pub(crate) fn take_held(&self) -> Option<Charge> {
        let mut held = self
            .held
            .lock()
            .expect("nothing panics while it holds the charge");
        held.take()
    }

    /// Takes the rows.
    pub(crate) fn finish(&self) -> Result<Encoding, InferenceError> {
        let rows = std::mem::take(
            &mut *self
                .rows
                .lock()
                .expect("nothing panics while it holds the rows"),
        );
        let query = self
            .encoded_query
            .get()
            .and_then(|query| query.as_ref().ok());
        let mut encoding = Encoding {
            query_truncated: query.is_some_and(EncodedText::truncated),
            query_reading: query.map(EncodedText::reading),
            special_tokens: self.tokenizer.special_tokens(self.query.is_some()),
            ..Encoding::default()
        };
        let of_query = query.map(|query| query.ids().len());
        // What a row has beside its text.
        let beside = encoding.special_tokens + of_query.unwrap_or(0);
        for (position, row) in rows.into_iter().enumerate() {
            let row = row.unwrap_or_else(|| {
                // Nobody else withdraws a call that is waited for.
                if self.withdrawn.load(Ordering::Relaxed) {
                    return Err(InferenceError::ShuttingDown);
                }
                Err(InferenceError::Tokenizer {
                    model: self.tokenizer.model().to_owned(),
                    problem: format!("it panicked on text {position}"),
                })
            });
            let EncodedRow {
                row,
                truncated,
                given,
                reading,
            } = row?;
            encoding.readings.push(reading);
            // What is not run is seen by no model.
            if encoding.is_run(position) {
                encoding.tokens.add(TokenCount {
                    total: row.ids.len() as u64,
                    longest: row.ids.len() as u64,
                    longest_query: of_query.map(|tokens| tokens as u64),
                    longest_document: row.ids.len().saturating_sub(beside) as u64,
                    longest_cut: (given > row.ids.len()).then_some(given as u64),
                    window: self.tokenizer.max_tokens() as u64,
                });
            }
            if truncated {
                encoding
                    .truncated
                    .push(u32::try_from(position).unwrap_or(u32::MAX));
            }
            encoding.rows.push(row);
        }
        Ok(encoding)
    }
}
