//! Real engines: every scenario of `tests/scenarios`, and the engines' own clients, against the engine alone
//! and through the search proxy. One engine of each kind serves all tests of this file.

mod clients;
mod compare;
mod harness;
mod proxy;

use std::sync::LazyLock;

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
