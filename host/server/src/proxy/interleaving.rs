//! Requests and the state of the engine's addresses, in the orders in which they may run (shuttle): one
//! that is out is tried by one request within a pause, is tried again after its pause whichever has its turn
//! and whatever became of earlier tries, and requests that fail together count once.
//!
//! `RERANKD_INTERLEAVINGS` says how many orders are tried of each scenario; for a night:
//! `RERANKD_INTERLEAVINGS=10000000 cargo test --release --workspace --lib interleaving`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread;

use super::nodes::{FIRST_PAUSE, LONGEST_PAUSE, Nodes};
use crate::sync::{beginning, now, pass};

/// Orders that are tried of a scenario, by each of two ways of choosing them: `make test-long` tries 30
/// times as many.
const ORDERS: usize = 5000;

const NODES: usize = 2;

struct Engine {
    nodes: Nodes,
    is_up: [AtomicBool; NODES],
    /// When each was tried.
    tries: [Mutex<Vec<Instant>>; NODES],
}

/// What a request is like.
#[derive(Clone, Copy)]
enum Request {
    Repeatable,
    Once,
    /// Its client is gone before anything comes of it.
    HungUp,
}

impl Engine {
    /// The node that answered.
    fn ask(&self, request: Request) -> Option<usize> {
        let at = now();
        let turns = self.nodes.order(at, !matches!(request, Request::Once));
        let mut seen: Vec<usize> = turns.iter().map(|turn| turn.node()).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..NODES).collect::<Vec<_>>(), "each once");
        for (place, turn) in turns.into_iter().enumerate() {
            let (node, tries) = (turn.node(), turn.tries());
            if tries {
                assert_eq!(place, 0, "a try is the first thing that a request does");
                let mut tries = self.tries[node].lock().unwrap();
                for other in &*tries {
                    let apart = at.max(*other) - at.min(*other);
                    assert!(
                        apart >= FIRST_PAUSE,
                        "two requests try node {node} within {apart:?}"
                    );
                }
                tries.push(at);
            }
            thread::yield_now();
            let is_up = self.is_up[node].load(Ordering::SeqCst);
            match request {
                Request::HungUp => return None,
                _ if is_up => {
                    turn.well();
                    return Some(node);
                }
                _ => turn.failed(now()),
            }
        }
        None
    }

    fn set(&self, node: usize, is_up: bool) {
        self.is_up[node].store(is_up, Ordering::SeqCst);
    }

    /// Whether a node is out: the last in an order that tries nothing.
    fn is_out(&self, node: usize) -> bool {
        let place = |_| {
            let turns = self.nodes.order(beginning(), true);
            turns.iter().position(|turn| turn.node() == node)
        };
        [(); NODES].map(place) == [Some(NODES - 1); NODES]
    }
}

/// Runs requests side by side.
fn together<const N: usize>(engine: &Arc<Engine>, requests: [Request; N]) {
    let threads = requests.map(|request| {
        let engine = Arc::clone(engine);
        thread::spawn(move || _ = engine.ask(request))
    });
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
}

fn orders() -> usize {
    match std::env::var("RERANKD_INTERLEAVINGS") {
        Ok(orders) => orders.parse().unwrap(),
        Err(_) if std::env::var_os("RERANKD_LONG_TESTS").is_some() => 30 * ORDERS,
        Err(_) => ORDERS,
    }
}

fn try_orders(scenario: fn(&Arc<Engine>)) {
    let orders = orders();
    let once = move || {
        pass(2 * LONGEST_PAUSE);
        scenario(&Arc::new(Engine {
            nodes: Nodes::new(NODES),
            is_up: [(); NODES].map(|()| AtomicBool::new(true)),
            tries: [(); NODES].map(|()| Mutex::default()),
        }));
    };
    shuttle::Runner::new(RandomScheduler::new(orders), shuttle::Config::default()).run(once);
    shuttle::Runner::new(PctScheduler::new(3, orders), shuttle::Config::default()).run(once);
}

/// The node is well again, and nobody is at work: the next request that may be repeated finds out.
fn comes_back(engine: &Engine, node: usize) {
    engine.set(node, true);
    if engine.is_out(node) {
        assert_eq!(engine.ask(Request::Repeatable), Some(node));
    }
    let mut answered = [0; NODES];
    for _ in 0..2 * NODES {
        answered[engine.ask(Request::Once).unwrap()] += 1;
    }
    assert_eq!(answered, [2; NODES]);
}

#[test]
fn requests_that_fail_together_count_once_and_the_node_comes_back() {
    try_orders(|engine| {
        use Request::{HungUp, Once, Repeatable};
        engine.set(0, false);
        together(engine, [Repeatable, Once, Repeatable, HungUp]);
        pass(FIRST_PAUSE);
        comes_back(engine, 0);
    });
}

#[test]
fn a_try_that_tells_nothing_is_made_again() {
    try_orders(|engine| {
        use Request::{HungUp, Once, Repeatable};
        engine.set(1, false);
        assert_eq!(engine.ask(Repeatable), Some(0));
        assert_eq!(engine.ask(Repeatable), Some(0));
        assert!(engine.is_out(1));
        pass(FIRST_PAUSE);
        together(engine, [HungUp, Repeatable, HungUp, Once]);
        pass(2 * FIRST_PAUSE);
        comes_back(engine, 1);
    });
}

/// As long as its client likes.
#[test]
fn a_try_that_takes_long_keeps_nobody_from_another() {
    try_orders(|engine| {
        use Request::{Once, Repeatable};
        engine.set(1, false);
        assert_eq!(engine.ask(Repeatable), Some(0));
        assert_eq!(engine.ask(Repeatable), Some(0));
        pass(FIRST_PAUSE);
        let slow = engine.nodes.order(now(), true);
        assert!(slow[0].node() == 1 && slow[0].tries());
        together(engine, [Repeatable, Once, Repeatable]);
        assert!(engine.is_out(1), "within a pause nobody else tries");
        pass(FIRST_PAUSE);
        comes_back(engine, 1);
        drop(slow);
        comes_back(engine, 1);
    });
}

/// A body that its client sends bit by bit is a try where nothing else is.
#[test]
fn what_may_not_be_done_twice_tries_where_it_is_the_nodes_turn() {
    try_orders(|engine| {
        engine.set(0, false);
        together(engine, [Request::Repeatable; NODES]);
        assert!(engine.is_out(0));
        pass(FIRST_PAUSE);
        engine.set(0, true);
        let answered = [(); NODES].map(|()| engine.ask(Request::Once));
        assert!(answered.contains(&Some(0)), "{answered:?}");
    });
}

#[test]
fn when_all_are_out_all_are_asked() {
    try_orders(|engine| {
        use Request::{Once, Repeatable};
        engine.set(0, false);
        engine.set(1, false);
        together(engine, [Repeatable, Once, Repeatable]);
        engine.set(1, true);
        // No pause is over, and there is no other.
        assert_eq!(engine.ask(Once), Some(1));
        pass(Duration::from_secs(60));
        comes_back(engine, 0);
    });
}
