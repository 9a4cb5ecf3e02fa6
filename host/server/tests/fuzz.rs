//! The fuzz targets `artifact` and `manifest` (docs/fuzzing.md) without libFuzzer.

use std::path::Path;

#[path = "../../../fuzz/src/artifact.rs"]
#[allow(unreachable_pub, reason = "it is public where it is a library")]
mod artifact;
#[path = "../../../fuzz/src/manifest.rs"]
#[allow(unreachable_pub, reason = "it is public where it is a library")]
mod manifest;
#[path = "../../../fuzz/src/replay.rs"]
#[allow(unreachable_pub, reason = "it is public where it is a library")]
mod replay;

#[test]
fn no_component_and_no_cases_break_a_promise() {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    replay::replay("artifact", artifact::run, 60_000, scratch);
}

#[test]
fn no_manifest_and_no_schema_break_a_promise() {
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    replay::replay("manifest", manifest::run, 20_000, scratch);
}
