//! Changes of roles and requests, in the orders in which they may run (shuttle): what was acknowledged
//! is what is served, no request sees anything else, and what was deleted is not served any more. The
//! store is a stand-in, since a real one waits for a disk: one lock a transaction, as the real one has.
//!
//! `RERANKD_INTERLEAVINGS` says how many orders are tried of each scenario; for a night:
//! `RERANKD_INTERLEAVINGS=10000000 cargo test --release --workspace --lib interleaving`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall panic")]

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use shuttle::future::{block_on, yield_now};
use shuttle::scheduler::{PctScheduler, RandomScheduler};
use shuttle::thread;

use super::pins::Pins;
use super::turns::Turns;
use crate::catalog::table::Table;
use crate::sync::Mutex;

/// Orders that are tried of a scenario, by each of two ways of choosing them: `make test-long` tries 30
/// times as many.
const ORDERS: usize = 2000;

const NAME: &str = "blend";

/// What the store has of one name.
struct Stored {
    versions: BTreeSet<u32>,
    active: u32,
    /// All that were active, and when they were written.
    written: Vec<u32>,
}

#[derive(Clone)]
struct Server {
    turns: Arc<Turns>,
    store: Arc<Mutex<Stored>>,
    catalog: Arc<Table<u32>>,
    pins: Arc<Mutex<Pins<u32>>>,
}

impl Server {
    /// Version 1 is active; 2 and 3 are staged.
    fn start() -> Self {
        let server = Self {
            turns: Arc::default(),
            store: Arc::new(Mutex::new(Stored {
                versions: BTreeSet::from([1, 2, 3]),
                active: 1,
                written: vec![1],
            })),
            catalog: Arc::default(),
            pins: Arc::new(Mutex::new(Pins::default())),
        };
        server.catalog.set(NAME, 1);
        server
    }

    /// As `Releases::change` does: the store, then the catalog. Says whether there is such a version.
    async fn activate(&self, version: u32) -> bool {
        let server = self.clone();
        let change = async move {
            yield_now().await;
            {
                let mut stored = server.store.lock().unwrap();
                if !stored.versions.contains(&version) {
                    return false;
                }
                stored.active = version;
                stored.written.push(version);
            }
            yield_now().await;
            server.catalog.set(NAME, version);
            true
        };
        self.turns.take(change).await.unwrap()
    }

    /// As `Releases::delete` does. Says whether it is gone.
    async fn delete(&self, version: u32) -> bool {
        let server = self.clone();
        let change = async move {
            yield_now().await;
            {
                let mut stored = server.store.lock().unwrap();
                if stored.active == version {
                    return false;
                }
                stored.versions.remove(&version);
            }
            yield_now().await;
            server
                .pins
                .lock()
                .unwrap()
                .deleted(|&pinned| pinned == version);
            true
        };
        self.turns.take(change).await.unwrap()
    }

    /// As `Releases::resolve` does, for a version that is asked for.
    async fn resolve(&self, version: u32) -> Option<u32> {
        if self
            .catalog
            .get(NAME)
            .is_some_and(|active| *active == version)
        {
            return Some(version);
        }
        let (pinned, as_of) = {
            let pins = self.pins.lock().unwrap();
            (pins.find(|&pinned| pinned == version), pins.as_of())
        };
        if let Some(pinned) = pinned {
            return Some(*pinned);
        }
        yield_now().await;
        if !self.store.lock().unwrap().versions.contains(&version) {
            return None;
        }
        yield_now().await;
        drop(self.pins.lock().unwrap().keep(Arc::new(version), as_of));
        Some(version)
    }

    /// Between two changes, requests get what a restart would find.
    async fn settled(&self) {
        let server = self.clone();
        let check = async move {
            let active = server.store.lock().unwrap().active;
            assert_eq!(*server.catalog.get(NAME).unwrap(), active);
        };
        self.turns.take(check).await.unwrap();
    }
}

/// Polls a future so often, and drops it; `None` if it had not ended by then.
fn give_up_after<T>(polls: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    block_on(std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        context.waker().wake_by_ref();
        future.as_mut().poll(context).map(Some)
    }))
}

fn orders() -> usize {
    match std::env::var("RERANKD_INTERLEAVINGS") {
        Ok(orders) => orders.parse().unwrap(),
        Err(_) if std::env::var_os("RERANKD_LONG_TESTS").is_some() => 30 * ORDERS,
        Err(_) => ORDERS,
    }
}

fn try_orders(scenario: fn(Server)) {
    let orders = orders();
    let once = move || scenario(Server::start());
    shuttle::Runner::new(RandomScheduler::new(orders), shuttle::Config::default()).run(once);
    shuttle::Runner::new(PctScheduler::new(3, orders), shuttle::Config::default()).run(once);
}

fn spawn<T: 'static + Send>(
    server: &Server,
    work: impl FnOnce(Server) -> T + Send + 'static,
) -> thread::JoinHandle<T> {
    let server = server.clone();
    thread::spawn(move || work(server))
}

#[test]
fn what_was_acknowledged_is_what_is_served() {
    try_orders(|server| {
        let changes = [
            // It may be deleted before.
            spawn(&server, |server| _ = block_on(server.activate(2))),
            // Its caller hangs up.
            spawn(&server, |server| _ = give_up_after(2, server.activate(3))),
            spawn(&server, |server| {
                let deleted = block_on(server.delete(2));
                let served = block_on(server.resolve(2));
                assert!(!deleted || served.is_none(), "deleted, and served");
            }),
            spawn(&server, |server| {
                for _ in 0..3 {
                    let served = *server.catalog.get(NAME).unwrap();
                    assert!(server.store.lock().unwrap().written.contains(&served));
                    thread::yield_now();
                }
            }),
        ];
        changes
            .into_iter()
            .for_each(|change| change.join().unwrap());
        block_on(server.settled());
    });
}

#[test]
fn what_was_deleted_is_not_served_by_version_whoever_was_asking() {
    try_orders(|server| {
        let asks = [(); 2].map(|()| spawn(&server, |server| _ = block_on(server.resolve(3))));
        let deletes = spawn(&server, |server| {
            // Whether or not its caller waits.
            if give_up_after(3, server.delete(3)).is_some() {
                assert_eq!(block_on(server.resolve(3)), None);
            }
        });
        asks.into_iter().for_each(|ask| ask.join().unwrap());
        deletes.join().unwrap();
        block_on(async {
            while server.store.lock().unwrap().versions.contains(&3) {
                yield_now().await;
            }
            server.settled().await;
            assert_eq!(server.resolve(3).await, None);
        });
    });
}
