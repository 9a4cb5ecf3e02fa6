//! The comparison itself: an engine is equal to itself in every scenario, and its own order is nowhere
//! taken for a reranked one.

use rerankd_tests::Engine;
use rerankd_tests::comparison::{self, Original};
use rerankd_tests::scenario::{Call, Door, Expectation, Scenario};

use crate::{ELASTICSEARCH, OPENSEARCH, SCENARIOS, turn};

#[test]
fn opensearch_is_equal_to_itself() {
    check(&OPENSEARCH);
}

#[test]
fn elasticsearch_is_equal_to_itself() {
    check(&ELASTICSEARCH);
}

fn check(engine: &Engine) {
    let _turn = turn(engine);
    let faults: Vec<String> = SCENARIOS
        .of(engine.name(), Door::Proxy)
        .filter_map(|scenario| {
            let fault = against_itself(scenario, engine).err()?;
            Some(format!("{}: {fault}", scenario.name))
        })
        .collect();
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

fn against_itself(scenario: &Scenario, engine: &Engine) -> Result<(), String> {
    let address = engine.address();
    let (one, other) = (scenario.run(address), scenario.run(address));
    comparison::same(&one, &other)?;
    let works = !matches!(
        scenario.expect,
        Expectation::Passed | Expectation::PassedError
    );
    if works != (one.status == 200) && !matches!(scenario.expect, Expectation::Passed) {
        return Err(format!("status {}: {}", one.status, comparison::text(&one)));
    }
    let Expectation::Reranked(expected) = &scenario.expect else {
        return Ok(());
    };
    let saved = scenario.prepare(address);
    let wide = |call: &Call| call.send(address, &saved);
    let original = Original {
        call: &scenario.call,
        own: &other,
        wide,
        documents: &SCENARIOS.documents,
    };
    match original.reranked(&one, expected) {
        Ok(()) => Err("the engine's own order passes for a reranked one".to_owned()),
        Err(fault) if fault.starts_with("order:") || fault.starts_with("max_score") => Ok(()),
        Err(fault) => Err(fault),
    }
}
