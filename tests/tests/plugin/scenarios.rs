//! Every scenario through the plugin, against what the engine without a pipeline answers.

use rerankd_tests::Answer;
use rerankd_tests::comparison::Original;
use rerankd_tests::scenario::{Call, Door, Expectation, Scenario};
use serde_json::json;

use crate::marker::{self, Read};
use crate::world::{PIPELINE, SCENARIOS, WORLD, is_whole, turn};

#[test]
fn opensearch_with_the_plugin_is_opensearch_reranked() {
    let _turn = turn();
    let (mut faults, mut count, mut refused) = (Vec::new(), 0, Vec::new());
    for scenario in SCENARIOS.of("opensearch", Door::Plugin) {
        match check(scenario) {
            Ok(true) => count += 1,
            Ok(false) => refused.push(&scenario.name),
            Err(fault) => faults.push(format!("- {}: {fault}", scenario.name)),
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults, {count} went well:\n{}",
        faults.len(),
        faults.join("\n")
    );
    eprintln!("{count} scenarios; this version cannot be asked {refused:?}");
    assert!(count > 120 && refused.len() < 10, "{refused:?}");
}

/// Whether it could be asked.
fn check(scenario: &Scenario) -> Result<bool, String> {
    let address = WORLD.engine.address();
    let saved = scenario.prepare(address);
    let searches = !matches!(scenario.expect, Expectation::Passed);
    let ask_alone = |call: &Call| match searches {
        true => alone(call).send(address, &saved),
        false => call.send(address, &saved),
    };
    let own = ask_alone(&scenario.call);
    let works = matches!(
        scenario.expect,
        Expectation::Reranked(_) | Expectation::Permuted
    );
    if works && own.status != 200 && !is_whole() {
        return Ok(false);
    }
    // What one call leaves behind is not there for the next one, such as a scroll.
    let through = scenario.prepare(address);
    let got = with_plugin(&scenario.with_options()).send(address, &through);
    let Read { answer, fates } = marker::read(&got);
    let plain = marker::read(&own).answer;
    let original = Original {
        call: &scenario.call,
        own: &plain,
        wide: ask_alone,
        documents: &SCENARIOS.documents,
    };
    let compared = original.compare(&answer, &scenario.expect);
    compared.map_err(|fault| format!("({fates:?}) {fault}"))?;
    said(&scenario.expect, &got, &fates)?;
    Ok(true)
}

/// Whether the answer says what became of each search.
fn said(
    expect: &Expectation,
    got: &Answer,
    fates: &[Option<rerankd_tests::comparison::Fate>],
) -> Result<(), String> {
    let untold = "nothing is said";
    match expect {
        Expectation::Passed | Expectation::PassedError | Expectation::Error { .. } => {
            match fates.iter().flatten().next() {
                Some(said) => Err(format!("nobody asked for a ranking: {said:?}")),
                None => Ok(()),
            }
        }
        Expectation::Items { items } => {
            for (index, (item, fate)) in items.iter().zip(fates).enumerate() {
                if !matches!(item, Expectation::Passed) {
                    let told = fate.as_ref().ok_or(untold.to_owned());
                    told.and_then(|fate| fate.tells(item))
                        .map_err(|fault| format!("item {index}: {fault}"))?;
                }
            }
            Ok(())
        }
        one => {
            let fate = fates.first().and_then(Option::as_ref).ok_or(untold)?;
            fate.tells(one)?;
            let header = got.header("rerank-status").ok_or("no Rerank-Status")?;
            match rerankd_tests::comparison::Fate::read(header) == *fate {
                true => Ok(()),
                false => Err(format!("Rerank-Status: {header}, but ext: {fate:?}")),
            }
        }
    }
}

/// The call as the engine without the plugin would take it.
fn alone(call: &Call) -> Call {
    let mut alone = call.clone();
    match &mut alone.lines {
        Some(lines) => {
            for body in lines.iter_mut().skip(1).step_by(2) {
                body["search_pipeline"] = json!("_none");
            }
        }
        None if is_search(call) => name_pipeline(&mut alone, "_none"),
        None => {}
    }
    alone
}

/// The call as the plugin takes it: by the index's default, or by name where no index is named.
fn with_plugin(call: &Call) -> Call {
    let mut call = call.clone();
    if call.path == "/_search" {
        name_pipeline(&mut call, PIPELINE);
    }
    call
}

fn is_search(call: &Call) -> bool {
    call.path.ends_with("/_search") && call.method != "PUT"
}

fn name_pipeline(call: &mut Call, name: &str) {
    let own = call.query.take().unwrap_or_default();
    let separator = if own.is_empty() { "" } else { "&" };
    call.query = Some(format!("{own}{separator}search_pipeline={name}"));
}
