//! The queue between policies and cores.
//!
//! Every request has a [`Lane`]. Work waits in lanes: texts to tokenize, and the rows of `compute`
//! calls. A worker that is free takes the next piece of the lane whose turn came first in virtual time:
//! the tokens that each of the lanes that have work would have been served if all shared evenly
//! (weighted fair queuing, Demers, Keshav and Shenker 1989). So a request of 1000 documents and one of
//! 10 share the cores while both are there. A lane's turn is counted in quanta of 512 tokens: requests
//! smaller than that are served in the order in which they came, as sharing would only make the
//! first of them as late as the last. Deadlines never buy priority: they only drop rows.
//!
//! Rows are taken in slices of the caller's order, which is the engine's, and by length inside a
//! slice: the head of the list is scored first, and rows that share a run are of like length. One run
//! lasts about [`RUN_TIME`]: what has started is finished, all else can be dropped at once.
//!
//! Lanes are of two classes. Background lanes (shadow runs) share among themselves in the same way,
//! but a piece of theirs is only taken while no ordinary lane has work, and what waits in them is
//! counted apart: it never makes an ordinary request seem late or unwelcome. An ordinary request may
//! still find each worker in one run of background work.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rerankd_core::Charge;

use crate::cache::Caches;
use crate::error::InferenceError;
pub use crate::job::RunOutput;
use crate::job::{EncodeJob, Job};
use crate::manifest::RowIndependence;
use crate::model::Model;
use crate::rows::RowBatch;
use crate::sync::{Condvar, Mutex, MutexGuard, now, sleep_until, thread, timeout_at};
use crate::tokenizer::{Encoding, ModelTokenizer};
use crate::worker;

/// About how long one run lasts: the granule in which work can be cancelled.
pub const RUN_TIME: Duration = Duration::from_millis(20);

/// Rows in one slice of the caller's order.
const SLICE_ROWS: usize = 32;

/// What is served of a lane before it has to let others go first, tokens: about one run of a small model.
const QUANTUM: u64 = 512;

/// Virtual time is in these parts of a token, as many lanes may share one.
const PARTS: u64 = 1024;

/// Texts tokenized as one piece of work, about half a millisecond.
const ENCODE_CHUNK: usize = 12;

/// When a request must be answered, and when its last row may start.
#[derive(Debug, Clone, Copy)]
pub struct Deadline {
    /// The answer must have left by then.
    pub at: Instant,
    /// Rows that have not started by then are late.
    pub start_by: Instant,
}

impl Deadline {
    /// A deadline `timeout` after `start`. The reserve between the last start and the answer is the
    /// larger of 5 ms and a tenth of the timeout, but at most half of it.
    pub fn after(start: Instant, timeout: Duration) -> Self {
        let reserve = (timeout / 10)
            .max(Duration::from_millis(5))
            .min(timeout / 2);
        let at = start + timeout;
        Self {
            at,
            start_by: at - reserve,
        }
    }

    /// When to stop waiting for what has started: half the reserve is left.
    pub fn results_by(&self) -> Instant {
        self.start_by + (self.at - self.start_by) / 2
    }

    /// When to give up, so that an answer that says so still leaves in time: a quarter of the
    /// reserve is left, at most 5 ms.
    pub fn give_up_at(&self) -> Instant {
        let reserve = self.at - self.start_by;
        self.at - (reserve / 4).min(Duration::from_millis(5))
    }
}

/// Counters since the start of the process.
#[derive(Debug, Default)]
pub struct Statistics {
    /// Rows that were run.
    pub rows_run: AtomicU64,
    /// Rows dropped because their deadline had come.
    pub rows_late: AtomicU64,
    /// Rows dropped because their request was gone.
    pub rows_withdrawn: AtomicU64,
    /// Runs.
    pub runs: AtomicU64,
    /// Tokens in the rows that were run.
    pub tokens_run: AtomicU64,
    /// Padding that was run beside them, tokens.
    pub tokens_padding: AtomicU64,
    /// Time spent in runs, nanoseconds, all workers together.
    pub run_ns: AtomicU64,
    /// Texts that were tokenized.
    pub texts_encoded: AtomicU64,
}

pub(crate) struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    pub(crate) statistics: Statistics,
    caches: Caches,
    workers: usize,
}

#[derive(Default)]
struct State {
    lanes: HashMap<u64, LaneQueue>,
    next_lane: u64,
    /// By [`Class`].
    classes: [ClassState; 2],
    running: Running,
    stopping: bool,
}

/// Runs that have started and not ended, by the address of their model, which their jobs keep.
#[derive(Default)]
struct Running(HashMap<usize, usize>);

/// Which lanes come first: in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    Ordinary,
    Background,
}

#[derive(Default)]
struct ClassState {
    /// Virtual time, [`PARTS`] of a token.
    clock: u64,
    queued_tokens: usize,
    queued_rows: usize,
}

struct LaneQueue {
    class: Class,
    /// When it came, by its class's clock.
    came: u64,
    /// Tokens served since then.
    served: u64,
    encodings: VecDeque<(Arc<EncodeJob>, std::ops::Range<usize>)>,
    jobs: VecDeque<QueuedJob>,
}

struct QueuedJob {
    job: Arc<Job>,
    /// Slices of row positions; longest row first inside each.
    slices: VecDeque<VecDeque<usize>>,
    pending_tokens: usize,
}

/// A piece of work for one worker.
pub(crate) enum Piece {
    Encode(Arc<EncodeJob>, std::ops::Range<usize>),
    Run(Arc<Job>, Vec<usize>),
}

/// One request's place in the queue. Dropping it, or a call on it, drops what has not started.
pub struct Lane {
    shared: Arc<Shared>,
    id: u64,
    deadline: Deadline,
}

/// The queue and its workers.
pub struct Scheduler {
    shared: Arc<Shared>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Scheduler {
    /// Starts `workers` threads (at least one), which look into these caches first.
    ///
    /// # Errors
    /// If the system gives no thread.
    pub fn start(workers: usize, caches: Caches) -> std::io::Result<Self> {
        let workers = workers.max(1);
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            wake: Condvar::new(),
            statistics: Statistics::default(),
            caches,
            workers,
        });
        let threads = (0..workers)
            .map(|index| {
                let shared = Arc::clone(&shared);
                thread::Builder::new()
                    .name(format!("rows-{index}"))
                    .spawn(move || worker::work(&shared))
            })
            .collect::<std::io::Result<Vec<_>>>()?;
        Ok(Self { shared, threads })
    }

    /// A place in the queue for one request.
    pub fn open_lane(&self, deadline: Deadline) -> Lane {
        self.open(Class::Ordinary, deadline)
    }

    /// A place for work that nobody waits for: its texts and rows are taken only while no ordinary
    /// lane has anything to take.
    pub fn open_background_lane(&self, deadline: Deadline) -> Lane {
        self.open(Class::Background, deadline)
    }

    fn open(&self, class: Class, deadline: Deadline) -> Lane {
        let mut state = self.shared.lock();
        let id = state.next_lane;
        state.next_lane += 1;
        let queue = LaneQueue {
            class,
            came: state.of(class).clock,
            served: 0,
            encodings: VecDeque::new(),
            jobs: VecDeque::new(),
        };
        state.lanes.insert(id, queue);
        drop(state);
        Lane {
            shared: Arc::clone(&self.shared),
            id,
            deadline,
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.shared.workers
    }

    /// Counters since the start.
    pub fn statistics(&self) -> &Statistics {
        &self.shared.statistics
    }

    /// What was computed before.
    pub fn caches(&self) -> &Caches {
        &self.shared.caches
    }

    /// Tokens and rows that wait, without those of background lanes.
    pub fn queued(&self) -> (usize, usize) {
        self.queued_in(Class::Ordinary)
    }

    /// Tokens and rows that wait in background lanes.
    pub fn queued_in_background(&self) -> (usize, usize) {
        self.queued_in(Class::Background)
    }

    fn queued_in(&self, class: Class) -> (usize, usize) {
        let mut state = self.shared.lock();
        let queued = state.of(class);
        (queued.queued_tokens, queued.queued_rows)
    }

    /// How long a new request may have to wait for its first row, at a guess: one run of each
    /// ordinary lane that has work. Zero if none has.
    pub fn expected_wait(&self) -> Duration {
        let waiting = self
            .shared
            .lock()
            .lanes
            .values()
            .filter(|lane| lane.class == Class::Ordinary && lane.has_work())
            .count();
        RUN_TIME * u32::try_from(waiting).unwrap_or(u32::MAX) / self.shared.workers as u32
    }
}

impl Drop for Scheduler {
    /// What has started ends; whoever waits for more is told.
    fn drop(&mut self) {
        self.shared.stop();
        self.shared.wake.notify_all();
        for thread in self.threads.drain(..) {
            // A worker catches the panics of what it runs; there is nothing to do about its own.
            let _ = thread.join();
        }
    }
}

impl Lane {
    /// The request's deadline.
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Tokenizes texts, each alone or, with a query, each as the second of a pair.
    ///
    /// # Errors
    /// [`InferenceError::Tokenizer`], or [`InferenceError::ShuttingDown`].
    pub async fn encode(
        &self,
        tokenizer: &Arc<ModelTokenizer>,
        query: Option<String>,
        texts: Vec<String>,
    ) -> Result<Encoding, InferenceError> {
        let encoded = self.encode_held(tokenizer, query, texts, None).await;
        encoded.map(|(encoding, _)| encoding)
    }

    /// As [`encode`](Self::encode), of texts that are charged: `held` is for them and
    /// [`Encoding::most_bytes`]. It is given back with the encoding, or when the last worker is done
    /// with the texts.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub async fn encode_held(
        &self,
        tokenizer: &Arc<ModelTokenizer>,
        query: Option<String>,
        texts: Vec<String>,
        held: Option<Charge>,
    ) -> Result<(Encoding, Option<Charge>), InferenceError> {
        let cache = self.shared.caches.encodings();
        let job = Arc::new(EncodeJob::new(tokenizer, query, texts, cache, held));
        let count = job.missing();
        if count > 0 {
            let chunks = (0..count)
                .step_by(ENCODE_CHUNK)
                .map(|start| (Arc::clone(&job), start..(start + ENCODE_CHUNK).min(count)));
            self.shared.submit(self.id, |queue| {
                queue.encodings.extend(chunks);
                (0, 0)
            })?;
            let _withdraw = OnDrop(|| job.withdraw());
            job.done().await;
        }
        let encoding = job.finish()?;
        Ok((encoding, job.take_held()))
    }

    /// Runs a batch of rows and gives their outputs back in the same order.
    ///
    /// Returns before the deadline's `start_by` plus half the reserve: rows that have not run by
    /// then are NaN, and so are rows of no token.
    ///
    /// # Errors
    /// [`InferenceError::Run`] if the model fails, or [`InferenceError::ShuttingDown`].
    pub async fn run(
        &self,
        model: &Arc<Model>,
        batch: RowBatch,
    ) -> Result<RunOutput, InferenceError> {
        let cache = self.shared.caches.rows();
        let recalled = cache.and_then(|cache| cache.recall(model, &batch));
        let mut missing = match &recalled {
            Some(recalled) => recalled.missing(),
            None => (0..batch.rows()).collect(),
        };
        missing.retain(|&row| batch.lengths()[row] > 0);
        let job = Arc::new(Job::new(model, batch, self.deadline.start_by, recalled));
        let rows = missing.len();
        if rows == 0 {
            return job.finish();
        }
        let tokens: usize = missing.iter().map(|&row| job.lengths()[row]).sum();
        let slices = plan(model, job.lengths(), missing);
        let queued = QueuedJob {
            job: Arc::clone(&job),
            slices,
            pending_tokens: tokens,
        };
        self.shared.submit(self.id, |queue| {
            queue.jobs.push_back(queued);
            (tokens, rows)
        })?;
        // Runs also when the caller's future is dropped: its rows must not take a core.
        let _withdraw = OnDrop(|| self.shared.withdraw(self.id, &job, false));
        let deadline = self.deadline;
        tokio::select! {
            biased;
            () = job.done() => {}
            () = sleep_until(deadline.start_by) => {
                self.shared.withdraw(self.id, &job, true);
                let last = deadline.results_by();
                // What has started may still finish; what does not is late.
                let _ = timeout_at(last, job.done()).await;
            }
        }
        job.finish()
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.shared.lock().lanes.remove(&self.id);
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state
            .lock()
            .expect("nothing panics while it holds the queue")
    }

    /// Adds work to a lane; `add` returns the tokens and rows that it added.
    fn submit(
        &self,
        lane: u64,
        add: impl FnOnce(&mut LaneQueue) -> (usize, usize),
    ) -> Result<(), InferenceError> {
        let mut state = self.lock();
        if state.stopping {
            return Err(InferenceError::ShuttingDown);
        }
        let State { lanes, classes, .. } = &mut *state;
        let queue = lanes
            .get_mut(&lane)
            .expect("a lane lives as long as its handle");
        let class = &mut classes[queue.class as usize];
        if !queue.has_work() {
            queue.come_back(class.clock);
        }
        let (tokens, rows) = add(queue);
        class.queued_tokens += tokens;
        class.queued_rows += rows;
        drop(state);
        self.wake.notify_all();
        Ok(())
    }

    /// Takes a job's waiting rows out of the queue.
    fn withdraw(&self, lane: u64, job: &Arc<Job>, late: bool) {
        job.withdraw();
        let mut state = self.lock();
        let Some(queue) = state.lanes.get_mut(&lane) else {
            return;
        };
        let Some(position) = queue
            .jobs
            .iter()
            .position(|queued| Arc::ptr_eq(&queued.job, job))
        else {
            return;
        };
        let queued = queue
            .jobs
            .remove(position)
            .expect("the position was just found");
        let class = queue.class;
        self.discard(state.of(class), &queued, late);
    }

    /// Accounts for rows that will not run.
    fn discard(&self, class: &mut ClassState, queued: &QueuedJob, late: bool) {
        let rows: usize = queued.slices.iter().map(VecDeque::len).sum();
        class.queued_tokens -= queued.pending_tokens;
        class.queued_rows -= rows;
        let counter = if late {
            &self.statistics.rows_late
        } else {
            &self.statistics.rows_withdrawn
        };
        counter.fetch_add(rows as u64, Ordering::Relaxed);
        queued.job.rows_done(rows);
    }

    /// From now on nothing is taken, and nothing that waited is waited for.
    fn stop(&self) {
        let mut state = self.lock();
        state.stopping = true;
        let State { lanes, classes, .. } = &mut *state;
        for queue in lanes.values_mut() {
            for (job, texts) in queue.encodings.drain(..) {
                job.withdraw();
                job.texts_done(texts.len());
            }
            let class = &mut classes[queue.class as usize];
            for queued in queue.jobs.drain(..) {
                queued.job.withdraw();
                self.discard(class, &queued, false);
            }
        }
    }

    /// The next piece of work; blocks until there is one. `None` when the scheduler stops.
    pub(crate) fn next_piece(&self) -> Option<Piece> {
        let mut state = self.lock();
        loop {
            if state.stopping {
                return None;
            }
            if let Some(piece) = self.take(&mut state) {
                return Some(piece);
            }
            state = self
                .wake
                .wait(state)
                .expect("nothing panics while it holds the queue");
        }
    }

    /// Says that a run of a model has ended.
    pub(crate) fn run_ended(&self, model: &Model) {
        self.lock().running.remove(model);
        if model.workers() < self.workers {
            // Others may have found no room for it.
            self.wake.notify_all();
        }
    }

    fn take(&self, state: &mut State) -> Option<Piece> {
        loop {
            let State {
                lanes,
                classes,
                running,
                ..
            } = &mut *state;
            let (&id, _) = lanes
                .iter()
                .filter(|(_, queue)| queue.may_start(running))
                .min_by_key(|(id, queue)| (queue.class, queue.turn(), **id))?;
            let class = lanes.get(&id)?.class;
            let sharing = lanes
                .values()
                .filter(|queue| queue.class == class && queue.has_work())
                .count();
            let queue = lanes.get_mut(&id)?;
            let class = &mut classes[class as usize];
            if let Some((job, texts)) = queue.encodings.pop_front() {
                class.charge(queue, texts.len(), sharing);
                return Some(Piece::Encode(job, texts));
            }
            let queued = queue.jobs.front_mut()?;
            let late = now() >= queued.job.start_by();
            if late || queued.job.is_withdrawn() {
                let queued = queue.jobs.pop_front()?;
                self.discard(class, &queued, late);
                continue;
            }
            let (rows, tokens, cost) = queued.take_run(self.workers);
            let job = Arc::clone(&queued.job);
            running.add(job.model());
            if queued.slices.is_empty() {
                queue.jobs.pop_front();
            }
            class.charge(queue, cost, sharing);
            class.queued_tokens -= tokens;
            class.queued_rows -= rows.len();
            return Some(Piece::Run(job, rows));
        }
    }
}

impl State {
    fn of(&mut self, class: Class) -> &mut ClassState {
        &mut self.classes[class as usize]
    }
}

impl ClassState {
    /// Counts tokens of a lane that is taken from, while so many have work.
    fn charge(&mut self, lane: &mut LaneQueue, tokens: usize, sharing: usize) {
        let turn = lane.turn();
        lane.served += tokens as u64;
        let passed = tokens as u64 * PARTS / sharing.max(1) as u64;
        self.clock = turn.max(self.clock + passed);
    }
}

impl LaneQueue {
    /// When its next piece is due, by its class's clock.
    fn turn(&self) -> u64 {
        self.came + self.served / QUANTUM * QUANTUM * PARTS
    }

    /// It gets work after it had none. A request keeps its place over its own steps, but time without work
    /// earns it no more than a quantum.
    fn come_back(&mut self, clock: u64) {
        let earliest = clock.saturating_sub(QUANTUM * PARTS);
        if self.turn() < earliest {
            (self.came, self.served) = (earliest, 0);
        }
    }

    fn has_work(&self) -> bool {
        !self.encodings.is_empty() || !self.jobs.is_empty()
    }

    /// Is there anything that a worker may take now? Rows whose model has all the workers that it may
    /// have wait without keeping other lanes' work.
    fn may_start(&self, running: &Running) -> bool {
        let has_room =
            |queued: &QueuedJob| queued.job.is_withdrawn() || running.has_room(queued.job.model());
        !self.encodings.is_empty() || self.jobs.front().is_some_and(has_room)
    }
}

impl Running {
    fn key(model: &Model) -> usize {
        std::ptr::from_ref(model).addr()
    }

    fn has_room(&self, model: &Model) -> bool {
        let runs = self.0.get(&Self::key(model));
        runs.is_none_or(|&runs| runs < model.workers())
    }

    fn add(&mut self, model: &Model) {
        *self.0.entry(Self::key(model)).or_default() += 1;
    }

    fn remove(&mut self, model: &Model) {
        if let Entry::Occupied(mut runs) = self.0.entry(Self::key(model)) {
            *runs.get_mut() -= 1;
            if *runs.get() == 0 {
                runs.remove();
            }
        }
    }
}

impl QueuedJob {
    /// Takes the rows of the next run, with their tokens and the tokens that the run costs.
    fn take_run(&mut self, workers: usize) -> (Vec<usize>, usize, usize) {
        let lengths = self.job.lengths();
        let model = self.job.model();
        let mut rows = Vec::new();
        let mut tokens = 0;
        let Some(slice) = self.slices.front_mut() else {
            return (rows, 0, 0);
        };
        match model.manifest().execution.row_independence {
            RowIndependence::None => rows.extend(slice.drain(..)),
            RowIndependence::Alone => rows.extend(slice.pop_front()),
            RowIndependence::Packed => {
                // The last rows are shared out between the workers, so that none of them waits long;
                // runs much smaller than the others would cost more than the wait.
                let whole = model.tokens_within(RUN_TIME);
                let share = self.pending_tokens.div_ceil(workers.min(model.workers()));
                let budget = whole.min(share.max(whole / 2));
                // A row joins a run if padding it costs less than another run.
                let slack = model.cost().slack();
                let longest = slice.front().map_or(0, |&row| lengths[row]);
                while let Some(&row) = slice.front() {
                    let fits =
                        (rows.len() + 1) * longest <= budget && longest - lengths[row] <= slack;
                    if !rows.is_empty() && !fits {
                        break;
                    }
                    rows.push(row);
                    slice.pop_front();
                }
            }
        }
        if slice.is_empty() {
            self.slices.pop_front();
        }
        let longest = rows.iter().map(|&row| lengths[row]).max().unwrap_or(0);
        tokens += rows.iter().map(|&row| lengths[row]).sum::<usize>();
        self.pending_tokens -= tokens;
        let cost = rows.len() * longest;
        (rows, tokens, cost)
    }
}

/// Slices of these positions, which are in the caller's order, longest row first inside each.
fn plan(model: &Model, lengths: &[usize], positions: Vec<usize>) -> VecDeque<VecDeque<usize>> {
    if model.manifest().execution.row_independence == RowIndependence::None {
        return VecDeque::from([VecDeque::from(positions)]);
    }
    positions
        .chunks(SLICE_ROWS)
        .map(|slice| {
            let mut slice = slice.to_vec();
            slice.sort_by_key(|&row| std::cmp::Reverse(lengths[row]));
            VecDeque::from(slice)
        })
        .collect()
}

/// Runs a closure when it goes out of scope, also when a future is dropped.
struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
