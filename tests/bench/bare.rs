//! ONNX Runtime and a tokenizer without anything around them: what rerankd is compared with.
//!
//! [`Bare`] runs a search's rows the best way that is known: tokenized by two threads, sorted by
//! length, longest first, run by two threads with a session of one thread each, spinning off. int8
//! rows run alone (a score must not depend on its neighbours), fp32 rows in runs of at most 20 ms
//! with as many rows as proved fastest at warm-up. The query of a pair is tokenized once.
//!
//! [`Naive`] does what most Python servers do: all rows padded to the longest, in one run of one
//! session with two threads.

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ort::environment::Environment;
use ort::session::Session;
use ort::value::TensorRef;
use tokenizers::Tokenizer;

use crate::Result;
use crate::measure::Samples;
use crate::texts::Search;

/// Threads that tokenize and run rows.
pub(crate) const THREADS: usize = 2;

/// Longest run of several rows.
const RUN_TIME: Duration = Duration::from_millis(20);

/// Rows a run that are tried at warm-up for fp32.
const ROWS_A_RUN: [usize; 4] = [1, 4, 6, 8];

/// What a model makes of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An embedding; row 0 is the query.
    BiEncoder,
    /// One logit for query and document.
    CrossEncoder,
}

/// A model to compare on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Model {
    /// Its folder under `models/`.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// Whether rows may share a run.
    pub(crate) packed: bool,
    pub(crate) max_tokens: usize,
}

/// Scores in the documents' order, and what they took.
pub(crate) struct Scored {
    /// Cosines or logits.
    pub(crate) scores: Vec<f64>,
    pub(crate) tokenize: Duration,
    pub(crate) run: Duration,
}

pub(crate) struct Bare {
    rows: Rows,
    packed: bool,
    sessions: Vec<Session>,
    rows_a_run: usize,
    /// Padded tokens that fit into [`RUN_TIME`].
    tokens_a_run: usize,
}

pub(crate) struct Naive {
    rows: Rows,
    session: Session,
}

impl Bare {
    pub(crate) fn open(environment: &Environment, models: &Path, model: Model) -> Result<Self> {
        let path = models.join(model.name).join("model.onnx");
        let open = |_| -> Result<Session> {
            Ok(Session::builder(environment)?
                .with_intra_threads(1)?
                .with_inter_threads(1)?
                .with_intra_op_spinning(false)?
                .with_inter_op_spinning(false)?
                .with_memory_pattern(true)?
                .commit_from_file(&path)?)
        };
        Ok(Self {
            rows: Rows::open(models, model)?,
            packed: model.packed,
            sessions: (0..THREADS).map(open).collect::<Result<Vec<_>>>()?,
            rows_a_run: 1,
            tokens_a_run: usize::MAX,
        })
    }

    /// Finds the fastest number of rows a run for searches of this kind.
    pub(crate) fn warm_up(&mut self, search: &Search) -> Result<()> {
        self.rows_a_run = 1;
        for _ in 0..2 {
            self.score(search)?;
        }
        if !self.packed {
            return Ok(());
        }
        let scored = self.score(search)?;
        let tokens: usize = self
            .rows
            .encode(search)?
            .iter()
            .map(|row| row.ids.len())
            .sum();
        let token = scored.run.as_secs_f64() * THREADS as f64 / tokens as f64;
        self.tokens_a_run = (RUN_TIME.as_secs_f64() / token) as usize;
        let mut best = (f64::INFINITY, 1);
        for rows in ROWS_A_RUN {
            self.rows_a_run = rows;
            let mut times = Samples::default();
            for _ in 0..5 {
                times.push_time(self.score(search)?.run);
            }
            if times.median() < best.0 {
                best = (times.median(), rows);
            }
        }
        self.rows_a_run = best.1;
        Ok(())
    }

    /// How many rows a run holds at most.
    pub(crate) fn rows_a_run(&self) -> usize {
        self.rows_a_run
    }

    pub(crate) fn score(&mut self, search: &Search) -> Result<Scored> {
        let started = Instant::now();
        let rows = self.rows.encode(search)?;
        let tokenize = started.elapsed();
        let runs = plan(&rows, self.rows_a_run, self.tokens_a_run);
        let next = AtomicUsize::new(0);
        let outputs = Mutex::new(vec![Vec::new(); rows.len()]);
        let work = |session: &mut Session| -> Result<(), String> {
            while let Some(run) = runs.get(next.fetch_add(1, Ordering::Relaxed)) {
                let chosen: Vec<&Row> = run.iter().map(|&row| &rows[row]).collect();
                let values = run_rows(session, &chosen).map_err(|error| error.to_string())?;
                let mut outputs = outputs.lock().map_err(|_| "a thread panicked")?;
                for (&row, value) in run.iter().zip(values) {
                    outputs[row] = value;
                }
            }
            Ok(())
        };
        on_threads(self.sessions.iter_mut().collect(), work)?;
        let outputs = outputs.into_inner().map_err(|_| "a thread panicked")?;
        Ok(Scored {
            scores: self.rows.scores(&outputs),
            tokenize,
            run: started.elapsed() - tokenize,
        })
    }
}

impl Naive {
    pub(crate) fn open(environment: &Environment, models: &Path, model: Model) -> Result<Self> {
        let path = models.join(model.name).join("model.onnx");
        Ok(Self {
            rows: Rows::open(models, model)?,
            session: Session::builder(environment)?
                .with_intra_threads(THREADS)?
                .commit_from_file(&path)?,
        })
    }

    pub(crate) fn score(&mut self, search: &Search) -> Result<Scored> {
        let started = Instant::now();
        let rows = self.rows.encode(search)?;
        let tokenize = started.elapsed();
        let outputs = run_rows(&mut self.session, &rows.iter().collect::<Vec<_>>())?;
        Ok(Scored {
            scores: self.rows.scores(&outputs),
            tokenize,
            run: started.elapsed() - tokenize,
        })
    }
}

/// Row positions of each run, longest first.
fn plan(rows: &[Row], rows_a_run: usize, tokens_a_run: usize) -> Vec<Vec<usize>> {
    let mut order: Vec<usize> = (0..rows.len()).collect();
    order.sort_by_key(|&row| std::cmp::Reverse(rows[row].ids.len()));
    let mut runs: Vec<Vec<usize>> = Vec::new();
    for row in order {
        match runs.last_mut() {
            Some(run)
                if run.len() < rows_a_run
                    && (run.len() + 1) * rows[run[0]].ids.len() <= tokens_a_run =>
            {
                run.push(row);
            }
            _ => runs.push(vec![row]),
        }
    }
    runs
}

/// Runs rows padded to the longest of them; one output a row.
fn run_rows(session: &mut Session, rows: &[&Row]) -> Result<Vec<Vec<f32>>> {
    let columns = rows.iter().map(|row| row.ids.len()).max().unwrap_or(0);
    let mut cells = [(); 3].map(|()| vec![0_i64; rows.len() * columns]);
    for (index, row) in rows.iter().enumerate() {
        for (position, &id) in row.ids.iter().enumerate() {
            let cell = index * columns + position;
            cells[0][cell] = i64::from(id);
            cells[1][cell] = 1;
            cells[2][cell] = i64::from(position >= row.first_segment);
        }
    }
    let tensor = |data| TensorRef::from_array_view(([rows.len(), columns], data));
    let outputs = session.run(ort::inputs![
        "input_ids" => tensor(&cells[0][..])?,
        "attention_mask" => tensor(&cells[1][..])?,
        "token_type_ids" => tensor(&cells[2][..])?,
    ])?;
    let (_, data) = outputs[0].try_extract_tensor::<f32>()?;
    let width = data.len() / rows.len();
    Ok(data.chunks(width).map(<[f32]>::to_vec).collect())
}

/// Runs `work` on all of `with`, each on its own thread; the first on this one.
fn on_threads<T: Send>(
    with: Vec<T>,
    work: impl Fn(T) -> Result<(), String> + Sync,
) -> Result<(), String> {
    let mut with = with.into_iter();
    let Some(own) = with.next() else {
        return Ok(());
    };
    std::thread::scope(|scope| {
        let work = &work;
        let others: Vec<_> = with.map(|one| scope.spawn(move || work(one))).collect();
        let mut result = work(own);
        for other in others {
            result = result.and(other.join().unwrap_or_else(|_| Err("it panicked".into())));
        }
        result
    })
}

/// Token ids with special tokens.
struct Row {
    ids: Vec<u32>,
    /// Tokens with type id 0.
    first_segment: usize,
}

/// Makes rows of texts, and scores of outputs.
struct Rows {
    tokenizer: Tokenizer,
    kind: Kind,
    max_tokens: usize,
    /// `[CLS]` and `[SEP]`.
    special: [u32; 2],
}

impl Rows {
    fn open(models: &Path, model: Model) -> Result<Self> {
        let path = models.join(model.name).join("tokenizer.json");
        let mut tokenizer = Tokenizer::from_file(path).map_err(|error| error.to_string())?;
        tokenizer.with_padding(None);
        tokenizer
            .with_truncation(None)
            .map_err(|error| error.to_string())?;
        let id = |token| tokenizer.token_to_id(token).ok_or(format!("no {token}"));
        Ok(Self {
            special: [id("[CLS]")?, id("[SEP]")?],
            kind: model.kind,
            max_tokens: model.max_tokens,
            tokenizer,
        })
    }

    /// The rows of a search, tokenized by [`THREADS`] threads.
    fn encode(&self, search: &Search) -> Result<Vec<Row>> {
        let query = self.ids(&search.query)?;
        let mut texts: Vec<&str> = search.documents.iter().map(|d| d.text.as_str()).collect();
        if self.kind == Kind::BiEncoder {
            texts.insert(0, &search.query);
        }
        let next = AtomicUsize::new(0);
        let rows = Mutex::new(Vec::with_capacity(texts.len()));
        let work = |_| {
            let mut own = Vec::new();
            loop {
                let position = next.fetch_add(1, Ordering::Relaxed);
                let Some(text) = texts.get(position) else {
                    break;
                };
                own.push((position, self.row(&query, self.ids(text)?)));
            }
            rows.lock()
                .map_err(|_| "a thread panicked")?
                .append(&mut own);
            Ok(())
        };
        on_threads((0..THREADS).collect(), work)?;
        let mut rows = rows.into_inner().map_err(|_| "a thread panicked")?;
        rows.sort_by_key(|&(position, _)| position);
        Ok(rows.into_iter().map(|(_, row)| row).collect())
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>, String> {
        let encoded = self.tokenizer.encode_fast(text, false);
        Ok(encoded
            .map_err(|error| error.to_string())?
            .get_ids()
            .to_vec())
    }

    fn row(&self, query: &[u32], text: Vec<u32>) -> Row {
        let [start, separator] = self.special;
        let mut ids = vec![start];
        if self.kind == Kind::CrossEncoder {
            ids.extend(query);
            ids.push(separator);
        }
        let first_segment = match self.kind {
            Kind::CrossEncoder => ids.len(),
            Kind::BiEncoder => usize::MAX,
        };
        ids.extend(text);
        ids.truncate(self.max_tokens - 1);
        ids.push(separator);
        Row { ids, first_segment }
    }

    fn scores(&self, outputs: &[Vec<f32>]) -> Vec<f64> {
        match self.kind {
            Kind::CrossEncoder => outputs.iter().map(|logit| f64::from(logit[0])).collect(),
            Kind::BiEncoder => {
                let dot = |row: &Vec<f32>| {
                    let products = outputs[0].iter().zip(row);
                    products.map(|(&a, &b)| f64::from(a) * f64::from(b)).sum()
                };
                outputs[1..].iter().map(dot).collect()
            }
        }
    }
}
