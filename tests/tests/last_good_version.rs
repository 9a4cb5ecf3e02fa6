//! What answered goes on answering, whatever is wrong with what was to take its place.

use std::path::{Path, PathBuf};

use rerankd_tests::{Answer, Folder, Rerankd, require};
use serde_json::{Value, json};

/// The policy; the slot of its model is called `cross-encoder`, too.
const POLICY: &str = "/v1/policies/cross-encoder";

fn call(server: &Rerankd, method: &str, path: &str, body: &Value) -> Answer {
    let headers = [("Content-Type", "application/json")];
    server.admin_call(method, path, &headers, body.to_string().as_bytes())
}

/// The digest of the version that answers.
#[track_caller]
fn answering(server: &Rerankd) -> String {
    let request = json!({"query": "clog", "documents": ["a clog", "a boot"]});
    let answer = server.post("/v1/rerank/cross-encoder", &request).ok();
    assert_eq!(answer.parameter("status"), Some("applied"));
    let version = answer.parameter("version").map(str::to_owned);
    version.expect("it has a version")
}

/// A copy of the stand-in model under another name.
fn second_model(folder: &Folder) -> PathBuf {
    let from = require::model("tiny-cross-encoder");
    folder.copy(&from, "models/tiny-cross-encoder");
    let to = folder.copy(&from, "models/tiny-second");
    let manifest = std::fs::read_to_string(to.join("manifest.toml")).expect("it is there");
    let renamed = manifest.replace("\"tiny-cross-encoder\"", "\"tiny-second\"");
    assert_ne!(renamed, manifest);
    folder.write("models/tiny-second/manifest.toml", renamed);
    to
}

fn folders_called(name: &str, below: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(below).expect("the folder can be listed");
    let folders = entries.map(|entry| entry.expect("the folder can be listed").path().join(name));
    folders.filter(|folder| folder.is_dir()).collect()
}

#[test]
fn a_rollback_to_what_cannot_be_loaded_changes_nothing() {
    let folder = Folder::new();
    let second = second_model(&folder);
    let component = require::policies().join("cross-encoder.wasm");
    folder.copy(&component, "policies/cross-encoder.wasm");
    let text = |name: &str| {
        let path = folder.path().join(name);
        path.to_str().expect("the path is UTF-8").to_owned()
    };
    let (policies, models) = (text("policies"), text("models"));
    let mut server = Rerankd::start(&["--policies", &policies, "--models", &models]);
    let first = answering(&server);

    // Another version answers for a while, with a model of its own; then the first one again.
    let path = format!("{POLICY}?activate=true&model=cross-encoder:tiny-second");
    let bytes = std::fs::read(&component).expect("it is there");
    let headers = [("Content-Type", "application/wasm")];
    let pushed = server.admin_call("PUT", &path, &headers, &bytes);
    assert_eq!(pushed.status, 201, "{}", pushed.text());
    let middle = answering(&server);
    assert_ne!(middle, first);
    let activate = format!("{POLICY}/activate");
    call(&server, "POST", &activate, &json!({"digest": first})).ok();
    assert_eq!(answering(&server), first);

    server.kill();
    std::fs::remove_dir_all(second).expect("it is ours");
    let kept = folders_called("tiny-second", &server.data_dir().join("models"));
    assert_eq!(kept.len(), 1, "the store keeps the models of its versions");
    std::fs::remove_dir_all(&kept[0]).expect("it is ours");
    server.restart();
    assert_eq!(answering(&server), first);

    let rollback = format!("{POLICY}/rollback");
    let answer = call(&server, "POST", &rollback, &json!({}));
    assert!(answer.status >= 400, "{}", answer.text());
    let message = answer.json()["error"]["message"].clone();
    let message = message.as_str().expect("an error has a message");
    assert!(message.contains("`tiny-second`"), "{message}");
    assert_eq!(answering(&server), first);
    let shown = call(&server, "GET", POLICY, &json!({})).ok().json();
    let active = shown["active"]["digest"].as_str().expect("one is active");
    assert!(active.starts_with(&first), "{active}");
    // After a restart, too.
    server.restart();
    assert_eq!(answering(&server), first);
}

#[test]
fn a_stored_version_has_the_cpu_time_of_its_release_or_of_today_whichever_is_more() {
    let folder = Folder::new();
    folder.write("policies/README.md", "");
    let text = |name: &str| {
        let path = folder.path().join(name);
        path.to_str().expect("the path is UTF-8").to_owned()
    };
    let (policies, data) = (text("policies"), text("data"));
    let request = json!({
        "query": "clog", "documents": ["a clog"], "on_failure": "error", "timeout_ms": 60_000,
    });
    let component = std::fs::read(require::faulty("spin")).expect("it is there");
    let mut stored = false;
    for (configured, effective) in [("60", "60"), ("90", "90"), ("30", "60")] {
        let server = Rerankd::start(&[
            "--policies",
            &policies,
            "--data-dir",
            &data,
            "--guest-cpu-ms",
            configured,
        ]);
        if !std::mem::replace(&mut stored, true) {
            let headers = [("Content-Type", "application/wasm")];
            let path = "/v1/policies/spin?activate=true";
            let answer = server.admin_call("PUT", path, &headers, &component);
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
        let answer = server.post("/v1/rerank/spin", &request);
        let expected = format!("it used more than its {effective} ms of CPU time (--guest-cpu-ms)");
        let message = answer.error_message();
        assert!(message.contains(&expected), "{configured}: {message}");
    }
}
