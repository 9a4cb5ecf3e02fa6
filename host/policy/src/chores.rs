//! Work for a policy outside of its sandbox: its schema, manifest, cases and parameters are read here,
//! by threads that serve nobody else, within a budget of steps and time, and may be abandoned.
//!
//! Nothing can end a thread from outside, so all that runs here charges a [`Budget`] for what it does
//! and stops by itself when that is used up, when its time is over, or when nobody waits any more.
//!
//! Releases and requests wait apart, and each have a thread that serves them first. Of one policy's
//! requests few wait and one is served at a time; those of all policies have their turns.

use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// Steps that one piece of work may take. A step is what the host does in some tens of nanoseconds to
/// some hundred, so time has a bound of its own.
pub const MAX_STEPS: u64 = 500_000;

/// Time that one piece of work may take, from its first step on.
pub const MAX_TIME: Duration = Duration::from_secs(2);

/// Threads that do it: the one serves releases first, the other requests.
const THREADS: usize = 2;

/// Pieces of releases that may wait for a thread, and as many of requests; each holds at most some MiB.
const MAX_WAITING: usize = 64;

/// Pieces that may wait of the requests of one policy.
const MAX_WAITING_OF_ONE: usize = 8;

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

/// Whose work it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose<'a> {
    /// A version's that is released, or loaded.
    Release,
    /// A request's, to the policy of this name.
    Request(&'a str),
}

type Piece = Box<dyn FnOnce() + Send>;

/// Pieces that wait.
#[derive(Default)]
struct Waiting {
    releases: VecDeque<Piece>,
    /// Requests by policy; the policy that had no turn for the longest time first.
    requests: VecDeque<(String, VecDeque<Piece>)>,
    /// Policies a request of which is served.
    served: Vec<String>,
}

/// A piece, and the policy whose request it is.
type Next = (Piece, Option<String>);

impl Waiting {
    fn add(&mut self, whose: Whose<'_>, piece: Piece) -> Result<(), Undone> {
        let policy = match whose {
            Whose::Release if self.releases.len() >= MAX_WAITING => return Err(Undone::Busy),
            Whose::Release => {
                self.releases.push_back(piece);
                return Ok(());
            }
            Whose::Request(policy) => policy,
        };
        let waiting: usize = self.requests.iter().map(|(_, pieces)| pieces.len()).sum();
        let mut policies = self.requests.iter_mut();
        let own = policies.find(|(name, _)| name == policy);
        let of_one = own.as_ref().map_or(0, |(_, pieces)| pieces.len());
        if waiting >= MAX_WAITING || of_one >= MAX_WAITING_OF_ONE {
            return Err(Undone::Busy);
        }
        match own {
            Some((_, pieces)) => pieces.push_back(piece),
            None => {
                let pieces = VecDeque::from([piece]);
                self.requests.push_back((policy.to_owned(), pieces));
            }
        }
        Ok(())
    }

    fn next(&mut self, releases_first: bool) -> Option<Next> {
        match releases_first {
            true => self.next_of_releases().or_else(|| self.next_of_requests()),
            false => self.next_of_requests().or_else(|| self.next_of_releases()),
        }
    }

    fn next_of_releases(&mut self) -> Option<Next> {
        Some((self.releases.pop_front()?, None))
    }

    fn next_of_requests(&mut self) -> Option<Next> {
        let served = &self.served;
        let mut policies = self.requests.iter();
        let turn = policies.position(|(policy, _)| !served.contains(policy))?;
        let (policy, mut pieces) = self.requests.remove(turn)?;
        let piece = pieces.pop_front()?;
        if !pieces.is_empty() {
            self.requests.push_back((policy.clone(), pieces));
        }
        self.served.push(policy.clone());
        Some((piece, Some(policy)))
    }

    fn ended(&mut self, policy: &str) {
        self.served.retain(|served| served != policy);
    }
}

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    changed: Condvar,
}

/// The threads are there from the first piece on.
static QUEUE: LazyLock<Arc<Queue>> = LazyLock::new(|| {
    let queue = Arc::<Queue>::default();
    for number in 0..THREADS {
        let own = Arc::clone(&queue);
        let thread = std::thread::Builder::new().name("chores".to_owned());
        // Without any thread the queue fills up, and each piece is answered with `Busy`.
        if let Err(error) = thread.spawn(move || own.work(number == 0)) {
            tracing::error!(%error, "the system gives no thread");
        }
    }
    queue
});

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, whose: Whose<'_>, piece: Piece) -> Result<(), Undone> {
        self.waiting().add(whose, piece)?;
        self.changed.notify_all();
        Ok(())
    }

    fn work(&self, releases_first: bool) {
        let mut waiting = self.waiting();
        loop {
            let Some((piece, policy)) = waiting.next(releases_first) else {
                let changed = self.changed.wait(waiting);
                waiting = changed.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(waiting);
            piece();
            waiting = self.waiting();
            if let Some(policy) = policy {
                waiting.ended(&policy);
                // The policy's next may be one that another thread may do.
                self.changed.notify_all();
            }
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

/// Does `work` on a thread of its own kind, within [`MAX_STEPS`] and [`MAX_TIME`], when it is its turn.
/// Dropping the future has it stop at its next look at the budget. Needs no runtime.
///
/// # Errors
/// [`Undone`] if it was not begun or broke off; what `work` itself says of its budget is its result.
pub async fn run<T: Send + 'static>(
    whose: Whose<'_>,
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
    QUEUE.add(whose, piece)?;
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
        let done = block_on(run(Whose::Release, |budget| endless(budget, 1)));
        assert_eq!(done, Ok(Undone::Exhausted));
        // Steps cost nothing here: only that nobody waits ends it.
        let (tell, told) = std::sync::mpsc::channel();
        let left = run(Whose::Release, move |budget| {
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
            let done = block_on(run(Whose::Release, |_| {
                assert!(std::hint::black_box(false), "on purpose");
            }));
            assert_eq!(done, Err(Undone::Panicked));
        }
        assert_eq!(block_on(run(Whose::Release, |_| 7)), Ok(7));
    }

    /// Pieces that write their number down.
    struct Numbered(Arc<Mutex<Vec<u32>>>);

    impl Numbered {
        fn piece(&self, number: u32) -> Piece {
            let done = Arc::clone(&self.0);
            Box::new(move || done.lock().expect("nobody panics").push(number))
        }

        /// Does the next piece, and gives its number.
        fn next(&self, waiting: &mut Waiting, releases_first: bool) -> Option<(u32, String)> {
            let (piece, policy) = waiting.next(releases_first)?;
            piece();
            let done = self.0.lock().expect("nobody panics").pop()?;
            Some((done, policy.unwrap_or_default()))
        }
    }

    #[test]
    fn one_policy_takes_no_place_from_releases_and_few_from_others() {
        let (mut waiting, numbered) = (Waiting::default(), Numbered(Arc::default()));
        let greedy = Whose::Request("greedy");
        for number in 0..MAX_WAITING_OF_ONE {
            let number = u32::try_from(number).expect("it is small");
            assert_eq!(waiting.add(greedy, numbered.piece(number)), Ok(()));
        }
        assert_eq!(waiting.add(greedy, numbered.piece(99)), Err(Undone::Busy));
        let other = Whose::Request("other");
        assert_eq!(waiting.add(other, numbered.piece(100)), Ok(()));
        for _ in 0..MAX_WAITING {
            assert_eq!(waiting.add(Whose::Release, numbered.piece(200)), Ok(()));
        }
        let one_more = waiting.add(Whose::Release, numbered.piece(201));
        assert_eq!(one_more, Err(Undone::Busy));

        let is = |number, policy: &str| Some((number, policy.to_owned()));
        assert_eq!(numbered.next(&mut waiting, true), is(200, ""));
        assert_eq!(numbered.next(&mut waiting, false), is(0, "greedy"));
        assert_eq!(numbered.next(&mut waiting, false), is(100, "other"));
        assert_eq!(
            numbered.next(&mut waiting, false),
            is(200, ""),
            "one at a time"
        );
        waiting.ended("greedy");
        assert_eq!(numbered.next(&mut waiting, false), is(1, "greedy"));
        while numbered.next(&mut waiting, true).is_some() {
            waiting.ended("greedy");
        }
        assert!(waiting.releases.is_empty() && waiting.requests.is_empty());
    }

    #[test]
    fn requests_of_all_policies_together_have_a_bound_too() {
        let (mut waiting, numbered) = (Waiting::default(), Numbered(Arc::default()));
        let mut policies = 0..;
        let added = policies.find(|policy: &usize| {
            let name = policy.to_string();
            waiting.add(Whose::Request(&name), numbered.piece(0)) == Err(Undone::Busy)
        });
        assert_eq!(added, Some(MAX_WAITING));
    }
}
