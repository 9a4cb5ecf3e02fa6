//! Target `manifest`: what a policy says of itself, its schema of parameters, and parameters that are
//! held against it.
//!
//! The first byte says what the rest is: `s` is a schema, anything else a manifest; behind the first
//! byte 0xFF come parameters, several objects parted by more of them.
//!
//! Promises: nothing panics; time and memory are bounded whatever the schema (the limits of the run);
//! a refusal is a short message.

use rerankd_core::FirstStage;
use rerankd_policy::PolicyManifest;
use rerankd_policy::chores::{Budget, MAX_STEPS};
use rerankd_policy::parameters::{ParameterSchema, Unchecked};
use serde_json::Value;

/// Longest message, bytes.
const MOST_MESSAGE: usize = 4 << 10;

/// Runs one input.
///
/// # Panics
/// Where a promise is broken.
pub fn run(input: &[u8]) {
    let [mode, rest @ ..] = input else {
        return;
    };
    let mut parts = rest.split(|&byte| byte == 0xff);
    let Some(text) = parts.next().and_then(|part| std::str::from_utf8(part).ok()) else {
        return;
    };
    let parameters: Vec<Value> = parts
        .take(4)
        .filter_map(|part| serde_json::from_slice(part).ok())
        .filter(Value::is_object)
        .collect();
    if *mode == b's' {
        if let Ok(schema) = serde_json::from_str::<Value>(text) {
            check(Some(&schema), &parameters);
        }
        return;
    }
    match PolicyManifest::parse(text) {
        Err(problem) => short(&problem),
        Ok(manifest) => {
            check(manifest.parameters.as_ref(), &parameters);
            manifest.raw_scores_parameter();
            for first_stage in [FirstStage::Scored, FirstStage::Ranked, FirstStage::None] {
                manifest.is_set_relative(first_stage);
                for parameters in &parameters {
                    let kind = manifest.score_kind(first_stage, parameters);
                    manifest.unit_map(kind);
                }
            }
        }
    }
}

fn check(schema: Option<&Value>, parameters: &[Value]) {
    let budget = || Budget::steps(MAX_STEPS);
    let schema = match ParameterSchema::compile(schema, &budget()) {
        Ok(schema) => schema,
        Err(Ok(problem)) => return short(&problem),
        // It takes too many steps, and has stopped.
        Err(Err(_)) => return,
    };
    for parameters in parameters {
        let whole = schema.check(parameters, &budget());
        let partial = schema.check_partial(parameters, &budget());
        if whole.is_ok() {
            // What may be missing is all that the two differ in.
            let wrong = matches!(partial, Err(Unchecked::Wrong(_)));
            assert!(!wrong, "{partial:?} of what is whole");
        }
        for result in [whole, partial] {
            if let Err(Unchecked::Wrong(error)) = result {
                short(&error.message);
            }
        }
    }
}

fn short(message: &str) {
    let length = message.len();
    assert!(
        length > 0 && length <= MOST_MESSAGE,
        "a message of {length} bytes"
    );
}
