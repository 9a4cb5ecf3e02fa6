//! Work for a policy outside of its sandbox: its schema, manifest, cases and parameters are read here,
//! by threads that serve nobody else, within a budget of steps and time, and may be abandoned.
//!
//! Nothing can end a thread from outside, so all that runs here charges a [`Budget`] for what it does
//! and stops by itself when that is used up, when its time is over, or when nobody waits any more.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Steps that one piece of work may take. A step is what the host does in some tens of nanoseconds to
/// some hundred, so time has a bound of its own.
pub const MAX_STEPS: u64 = 500_000;

/// Time that one piece of work may take, from its first step on.
pub const MAX_TIME: Duration = Duration::from_secs(2);

/// Threads that do it.
const THREADS: usize = 2;

/// Pieces that may wait for a thread; each holds at most some MiB.
const MAX_WAITING: usize = 64;

/// Steps between two looks at the clock.
const LOOK_EVERY: u64 = 4096;

/// The same for work that is done where it stands.
const LOOK_EVERY_IN_PLACE: u64 = 256;

/// Why work was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Undone {
    /// It would take more steps or time than there are, or nobody waits for it any more.
    #[error("takes more than {MAX_STEPS} steps or {} s of the host", MAX_TIME.as_secs())]
    Exhausted,
    /// Too much of it waits already.
    #[error("waits behind too many other policies and requests: try again")]
    Busy,
    /// It panicked.
    #[error("made the host panic")]
    Panicked,
}

/// What work may still cost.
#[derive(Debug)]
pub struct Budget {
    left: Cell<u64>,
    until_look: Cell<u64>,
    look_every: u64,
    until: Option<Instant>,
    given_up: Option<Arc<AtomicBool>>,
}

impl Budget {
    /// So many steps, without a look at the clock.
    pub fn steps(steps: u64) -> Self {
        Self {
            left: Cell::new(steps),
            until_look: Cell::new(u64::MAX),
            look_every: u64::MAX,
            until: None,
            given_up: None,
        }
    }

    /// So many steps, and so much time from now on: for work that is done where it stands.
    pub fn in_place(steps: u64, time: Duration) -> Self {
        Self {
            left: Cell::new(steps),
            until_look: Cell::new(LOOK_EVERY_IN_PLACE),
            look_every: LOOK_EVERY_IN_PLACE,
            until: Some(Instant::now() + time),
            given_up: None,
        }
    }

    /// Takes steps.
    ///
    /// # Errors
    /// [`Undone::Exhausted`]: the work must stop.
    pub fn charge(&self, steps: u64) -> Result<(), Undone> {
        let left = self.left.get().checked_sub(steps);
        self.left.set(left.unwrap_or(0));
        left.ok_or(Undone::Exhausted)?;
        match self.until_look.get().checked_sub(steps) {
            Some(rest) => self.until_look.set(rest),
            None => {
                self.until_look.set(self.look_every);
                self.look()?;
            }
        }
        Ok(())
    }

    /// Whether there is time left and anybody waits.
    ///
    /// # Errors
    /// [`Undone::Exhausted`]: the work must stop.
    pub fn look(&self) -> Result<(), Undone> {
        let late = self.until.is_some_and(|until| Instant::now() >= until);
        let unwanted = self
            .given_up
            .as_ref()
            .is_some_and(|given_up| given_up.load(Ordering::Relaxed));
        if late || unwanted {
            self.left.set(0);
            return Err(Undone::Exhausted);
        }
        Ok(())
    }
}

type Piece = Box<dyn FnOnce() + Send>;

/// The threads, there from the first piece on.
static QUEUE: LazyLock<SyncSender<Piece>> = LazyLock::new(|| {
    let (send, receive) = sync_channel::<Piece>(MAX_WAITING);
    let receive = Arc::new(Mutex::new(receive));
    for _ in 0..THREADS {
        let receive = Arc::clone(&receive);
        let thread = std::thread::Builder::new().name("chores".to_owned());
        // Without any thread the queue fills up, and each piece is answered with `Busy`.
        if let Err(error) = thread.spawn(move || work(&receive)) {
            tracing::error!(%error, "the system gives no thread");
        }
    }
    send
});

fn work(queue: &Mutex<Receiver<Piece>>) {
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        match next {
            Ok(piece) => piece(),
            Err(_) => return,
        }
    }
}

/// Sets the flag at drop: whoever waited has gone.
struct GivenUp(Arc<AtomicBool>);

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Does `work` on a thread of its own kind, within [`MAX_STEPS`] and [`MAX_TIME`]. Dropping the future
/// has it stop at its next look at the budget. Needs no runtime.
///
/// # Errors
/// [`Undone`] if it was not begun or broke off; what `work` itself says of its budget is its result.
pub async fn run<T: Send + 'static>(
    work: impl FnOnce(&Budget) -> T + Send + 'static,
) -> Result<T, Undone> {
    let given_up = Arc::new(AtomicBool::new(false));
    let _guard = GivenUp(Arc::clone(&given_up));
    let (send, receive) = oneshot::channel();
    let piece = Box::new(move || {
        if given_up.load(Ordering::Relaxed) {
            return;
        }
        let budget = Budget {
            left: Cell::new(MAX_STEPS),
            until_look: Cell::new(LOOK_EVERY),
            look_every: LOOK_EVERY,
            until: Some(Instant::now() + MAX_TIME),
            given_up: Some(given_up),
        };
        let done = catch_unwind(AssertUnwindSafe(|| work(&budget)));
        let _ = send.send(done.map_err(|_| Undone::Panicked));
    });
    QUEUE.try_send(piece).map_err(|error| match error {
        TrySendError::Full(_) | TrySendError::Disconnected(_) => Undone::Busy,
    })?;
    receive.await.unwrap_or(Err(Undone::Panicked))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build();
        runtime.expect("the system gives one").block_on(work)
    }

    /// Runs until its budget stops it; says how.
    fn endless(budget: &Budget, step: u64) -> Undone {
        loop {
            if let Err(stopped) = budget.charge(step) {
                return stopped;
            }
        }
    }

    #[test]
    fn work_ends_with_its_steps_and_with_who_waits_for_it() {
        let done = block_on(run(|budget| endless(budget, 1)));
        assert_eq!(done, Ok(Undone::Exhausted));
        // Steps cost nothing here: only that nobody waits ends it.
        let (tell, told) = std::sync::mpsc::channel();
        let left = run(move |budget| {
            budget.left.set(u64::MAX);
            let stopped = endless(budget, 1);
            tell.send(stopped).expect("the test waits");
        });
        let waited =
            block_on(async { tokio::time::timeout(Duration::from_millis(20), left).await });
        assert!(waited.is_err(), "it ended by itself");
        let stopped = told.recv_timeout(MAX_TIME / 2);
        assert_eq!(stopped, Ok(Undone::Exhausted), "it went on after that");
    }

    #[test]
    fn a_panic_ends_no_thread() {
        for _ in 0..2 * THREADS {
            let done = block_on(run(|_| {
                assert!(std::hint::black_box(false), "on purpose");
            }));
            assert_eq!(done, Err(Undone::Panicked));
        }
        assert_eq!(block_on(run(|_| 7)), Ok(7));
    }
}
