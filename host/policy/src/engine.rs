//! The wasmtime engine, its linker, and what keeps guests in bounds: the pooling allocator, epochs
//! and the ticker that counts them are switched on together, here and nowhere else.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rerankd_core::{Ledger, Limits};
use wasmtime::component::{HasSelf, Linker};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::bindings::Reranker;
use crate::imports::{GuestState, log};
use crate::wasi;

/// One epoch: the unit in which a guest's CPU time is counted, and in which it yields.
pub const EPOCH: Duration = Duration::from_millis(1);

/// Native stack of a guest, bytes.
const WASM_STACK_BYTES: usize = 512 << 10;

/// Instances beyond those of requests: for `describe`.
const SPARE_INSTANCES: usize = 4;

/// Core instances of one component. Rust's have 3, JavaScript's 3; Python's have 42, one for each of
/// its libraries and for each WASI interface that is stubbed, and one more for each native package
/// that a policy brings. They are counted, not kept: a higher number takes no memory.
const MAX_CORE_INSTANCES: u32 = 96;

/// Tables of one component, each of which the pool reserves in full.
const MAX_TABLES: u32 = 4;

/// Compiles and runs policies.
pub struct PolicyEngine {
    engine: Engine,
    linker: Linker<GuestState>,
    linker_with_wasi: Linker<GuestState>,
    limits: Limits,
    ledger: Arc<Ledger>,
    ticker: Arc<Ticker>,
    /// Where guests run: never on the HTTP runtime's threads. Taken at drop.
    guests: Option<tokio::runtime::Runtime>,
}

impl PolicyEngine {
    /// An engine for at most `limits.max_instances` guests at a time, run by `threads` threads.
    ///
    /// # Errors
    /// If wasmtime cannot reserve its memory, or the system gives no threads.
    pub fn new(limits: &Limits, threads: usize) -> wasmtime::Result<Self> {
        let engine = Engine::new(&config(limits))?;
        let mut linker = Linker::new(&engine);
        Reranker::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut GuestState| state)?;
        log::link(&mut linker)?;
        let mut linker_with_wasi = linker.clone();
        wasi::add_to_linker(&mut linker_with_wasi)?;
        let guests = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads.max(1))
            .thread_name("guest")
            .enable_time()
            .build()?;
        let ticker = Ticker::start(engine.clone())?;
        Ok(Self {
            engine,
            linker,
            linker_with_wasi,
            limits: limits.clone(),
            ledger: Ledger::new(limits.ledger_bounds(SPARE_INSTANCES)),
            ticker,
            guests: Some(guests),
        })
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    pub(crate) fn linker(&self, with_wasi: bool) -> &Linker<GuestState> {
        if with_wasi {
            &self.linker_with_wasi
        } else {
            &self.linker
        }
    }

    /// The limits that every guest runs under.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// What all calls hold on the host.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    pub(crate) fn guests(&self) -> &tokio::runtime::Runtime {
        self.guests
            .as_ref()
            .expect("the runtime is there until drop")
    }

    /// Epochs advance until the result is dropped or paused.
    pub(crate) fn tick(&self) -> Ticking {
        Ticking::start(&self.ticker)
    }
}

impl Drop for PolicyEngine {
    fn drop(&mut self) {
        self.ticker.stop.store(true, Ordering::Release);
        self.ticker.wake();
        if let Some(guests) = self.guests.take() {
            // May run inside another runtime, where waiting for this one is not allowed.
            guests.shutdown_background();
        }
    }
}

/// Everything about an engine. The code that it makes does not depend on `max_instances`.
pub(crate) fn config(limits: &Limits) -> Config {
    let instances = u32::try_from(limits.max_instances + SPARE_INSTANCES).unwrap_or(u32::MAX);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(instances)
        .total_memories(instances)
        .total_stacks(instances)
        .total_core_instances(instances.saturating_mul(MAX_CORE_INSTANCES))
        .total_tables(instances.saturating_mul(MAX_TABLES))
        .max_core_instances_per_component(MAX_CORE_INSTANCES)
        .max_tables_per_component(MAX_TABLES)
        .max_memories_per_component(1)
        .table_elements(20_000)
        .max_memory_size(limits.guest_memory_bytes)
        // What a policy touches for 100 documents stays mapped between requests; the rest goes back.
        // Only dirty pages are reset where Linux can tell them (6.7 and newer).
        .linear_memory_keep_resident(1 << 20)
        .pagemap_scan(Enabled::Auto)
        .table_keep_resident(32 << 10);
    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK_BYTES)
        .wasm_component_model(true)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false);
    config
}

/// The thread that advances epochs, while there is a guest to interrupt.
struct Ticker {
    guests: AtomicUsize,
    stop: AtomicBool,
    idle: Mutex<()>,
    woken: Condvar,
}

impl Ticker {
    fn start(engine: Engine) -> std::io::Result<Arc<Self>> {
        let ticker = Arc::new(Self {
            guests: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            idle: Mutex::new(()),
            woken: Condvar::new(),
        });
        let shared = Arc::clone(&ticker);
        std::thread::Builder::new()
            .name("epochs".into())
            .spawn(move || shared.run(&engine))?;
        Ok(ticker)
    }

    fn run(&self, engine: &Engine) {
        while !self.stop.load(Ordering::Acquire) {
            if self.guests.load(Ordering::Acquire) == 0 {
                let guard = self
                    .idle
                    .lock()
                    .expect("nothing panics while it holds this");
                let idle = |_: &mut ()| {
                    self.guests.load(Ordering::Acquire) == 0 && !self.stop.load(Ordering::Acquire)
                };
                drop(self.woken.wait_while(guard, idle));
            } else {
                std::thread::sleep(EPOCH);
                engine.increment_epoch();
            }
        }
    }

    fn wake(&self) {
        // Taking the lock orders this after the sleeper's check, so that no wake-up is lost.
        drop(self.idle.lock());
        self.woken.notify_one();
    }
}

/// Epochs advance while one of these is there and not paused.
pub(crate) struct Ticking {
    ticker: Arc<Ticker>,
    paused: bool,
}

impl Ticking {
    fn start(ticker: &Arc<Ticker>) -> Self {
        let mut ticking = Self {
            ticker: Arc::clone(ticker),
            paused: true,
        };
        ticking.resume();
        ticking
    }

    /// Waits for something that is not the guest: there is nobody to interrupt meanwhile, and a
    /// thread that wakes every millisecond would take a percent of the cores from the models.
    pub(crate) async fn paused<F: Future>(&mut self, future: F) -> F::Output {
        self.pause();
        let output = future.await;
        self.resume();
        output
    }

    fn pause(&mut self) {
        if !std::mem::replace(&mut self.paused, true) {
            self.ticker.guests.fetch_sub(1, Ordering::AcqRel);
        }
    }

    fn resume(&mut self) {
        if std::mem::replace(&mut self.paused, false) {
            self.ticker.guests.fetch_add(1, Ordering::AcqRel);
            self.ticker.wake();
        }
    }
}

impl Drop for Ticking {
    fn drop(&mut self) {
        self.pause();
    }
}
