//! Models on OpenVINO's plugin for ONNX Runtime: what a server says that cannot have it, and the same
//! scores as the CPU's where it is there.

use std::path::Path;

use rerankd_tests::answer::assert_same_bits;
use rerankd_tests::rerankd::Refusal;
use rerankd_tests::{Folder, Rerankd, require};
use serde_json::json;

/// A folder with the policy `cross-encoder` and its model, the provider and precision changed.
fn folder_with(provider: &str, precision: &str) -> Folder {
    let folder = Folder::new();
    let model = "models/tiny-cross-encoder";
    let copy = folder.copy(&require::model("tiny-cross-encoder"), model);
    let manifest = std::fs::read_to_string(copy.join("manifest.toml")).expect("it was copied");
    let manifest = manifest
        .replace("provider = \"cpu\"", &format!("provider = \"{provider}\""))
        .replace(
            "precision = \"fp32\"",
            &format!("precision = \"{precision}\""),
        );
    folder.write(&format!("{model}/manifest.toml"), manifest);
    folder.copy(
        &require::policies().join("cross-encoder.wasm"),
        "policies/cross-encoder.wasm",
    );
    folder
}

fn flags<'a>(models: &'a Path, policies: &'a Path, more: &[&'a str]) -> Vec<&'a str> {
    let text = |path: &'a Path| path.to_str().expect("the path is UTF-8");
    let places = ["--models", text(models), "--policies", text(policies)];
    [&places[..], more].concat()
}

/// Starts a server that must not start.
fn refused(folder: &Folder, more: &[&str]) -> Refusal {
    let (models, policies) = (folder.path().join("models"), folder.path().join("policies"));
    let start = ["serve", "--listen", "127.0.0.1:0", "--log", "error"];
    let flags = flags(&models, &policies, more);
    Rerankd::run(Rerankd::command(&[&start[..], &flags].concat()))
}

#[track_caller]
fn assert_says(refusal: &Refusal, parts: &[&str]) {
    assert_eq!(
        (refusal.code, refusal.stdout.as_str()),
        (Some(1), ""),
        "{refusal:?}"
    );
    for part in parts {
        assert!(
            refusal.stderr.contains(part),
            "expected `{part}` in: {}",
            refusal.stderr
        );
    }
    assert!(!refusal.stderr.contains("panicked"), "{}", refusal.stderr);
}

#[test]
fn a_model_for_openvino_runs_nowhere_else() {
    let folder = folder_with("openvino", "fp32");
    let missing = "execution provider `openvino` is not there";
    assert_says(
        &refused(&folder, &[]),
        &["model `tiny-cross-encoder`", missing, "--openvino"],
    );
}

#[test]
fn a_plugin_that_was_named_is_there_or_the_server_does_not_start() {
    // Even where no model asks for it.
    let folder = folder_with("cpu", "fp32");
    assert_says(
        &refused(&folder, &["--openvino", "/nonexistent/plugin.so"]),
        &["/nonexistent/plugin.so", "--openvino", "no such file"],
    );
    let file = folder.write("plugin.so", "this is a text file\n");
    let file = file.to_str().expect("the path is UTF-8");
    let refusal = refused(&folder, &["--openvino", file]);
    assert_says(&refusal, &[file, "cannot be used"]);
}

#[test]
fn provider_and_precision_must_fit() {
    let check = |provider: &str, precision: &str, said: &str| {
        let refusal = refused(&folder_with(provider, precision), &[]);
        assert_says(&refusal, &["tiny-cross-encoder/manifest.toml`", said]);
    };
    check("openvino", "int8", "must be `fp32` or `bf16`, got `int8`");
    check("cpu", "bf16", "needs `provider = \"openvino\"`, got `cpu`");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn scores_of_openvino_are_those_of_the_cpu_also_for_many_callers() {
    let plugin = require::openvino();
    let plugin = ["--openvino", plugin.to_str().expect("the path is UTF-8")];
    if !require::has_intel_cpu() {
        let refusal = refused(&folder_with("openvino", "fp32"), &plugin);
        assert_says(&refusal, &["offers no CPU", "processors of Intel alone"]);
        require::left_out(
            "scores of OpenVINO",
            "its plugin serves Intel's processors alone",
        );
        return;
    }
    let started = |provider: &str| {
        let folder = folder_with(provider, "fp32");
        let (models, policies) = (folder.path().join("models"), folder.path().join("policies"));
        let more = [&plugin[..], &["--workers", "2"]].concat();
        (Rerankd::start(&flags(&models, &policies, &more)), folder)
    };
    let (cpu, _cpu_folder) = started("cpu");
    let (openvino, _openvino_folder) = started("openvino");

    // Rows of many lengths, so that both workers run at the same time.
    let documents: Vec<String> = (1..40)
        .map(|words| "wireless mouse with a small receiver ".repeat(words % 9) + "and a cable")
        .collect();
    let body = json!({"query": "wireless mouse", "documents": documents});
    let path = "/v1/rerank/cross-encoder";
    let expected = cpu.post(path, &body).ok().scores();
    let first = openvino.post(path, &body).ok().scores();
    assert_eq!(expected.len(), documents.len());
    for (one, other) in expected.iter().zip(&first) {
        let (one, other) = (one.expect("it is scored"), other.expect("it is scored"));
        assert!((one - other).abs() < 1e-4, "{one} on the CPU, {other}");
    }

    let again = std::thread::scope(|scope| {
        let callers: Vec<_> = (0..4)
            .map(|_| scope.spawn(|| openvino.post(path, &body).ok().scores()))
            .collect();
        callers
            .into_iter()
            .map(|caller| caller.join().expect("a caller does not panic"))
            .collect::<Vec<_>>()
    });
    for scores in again {
        assert_same_bits(&scores, &first);
    }
}
