//! Real engines: every scenario of `tests/scenarios`, and the engines' own clients, against the engine alone
//! and through the search proxy. One engine of each kind serves all tests of this file.

mod clients;
mod harness;
mod mapping;
mod proxy;
mod widening;

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use rerankd_tests::Engine;
use rerankd_tests::scenario::Scenarios;

static SCENARIOS: LazyLock<Scenarios> = LazyLock::new(Scenarios::read);
static OPENSEARCH: LazyLock<Engine> = LazyLock::new(|| start("opensearch"));
static ELASTICSEARCH: LazyLock<Engine> = LazyLock::new(|| start("elasticsearch"));

/// An engine with the documents of the scenarios.
fn start(name: &'static str) -> Engine {
    let engine = Engine::start(name);
    engine.load(&SCENARIOS.indices, SCENARIOS.bulk.as_bytes());
    engine
}

/// Waits until no other test of the engine runs: what one writes is in what another one finds.
fn turn(engine: &Engine) -> MutexGuard<'static, ()> {
    static TURNS: [Mutex<()>; 2] = [Mutex::new(()), Mutex::new(())];
    let place = rerankd_tests::engine::ENGINES
        .iter()
        .position(|name| *name == engine.name());
    let turn = &TURNS[place.expect("there are no other engines")];
    turn.lock().unwrap_or_else(PoisonError::into_inner)
}
