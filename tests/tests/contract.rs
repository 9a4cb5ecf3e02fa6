//! Released contracts stay as they are, and the host goes on serving what was built for them.
//!
//! `RERANKD_RECORD_CONTRACT=1` records the scores of the stored components anew (`make record-contract`).

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use rerankd_tests::documents::{products, scored_texts};
use rerankd_tests::{Folder, Rerankd, require};
use serde_json::{Value, json};

/// The one that `wit/` develops, and the folder that keeps what was released of it.
const RELEASED: &str = "0.1";

/// How far a score may be from the recorded one: other processors round sums in the model otherwise, and
/// min-max normalization stretches the difference.
const TOLERANCE: f64 = 2e-3;

#[test]
fn the_contract_is_what_was_released() {
    let current = texts(&require::root().join("wit"));
    let package = format!("package rerank:policy@{RELEASED}.");
    for (file, text) in current.iter().filter(|(file, _)| !file.contains('/')) {
        assert!(
            text.contains(&package),
            "{file}: a new version of the contract needs a folder in `wit/released/` and stored \
             components in `tests/fixtures/` of its own; then move `RELEASED` here"
        );
    }
    let released = texts(&require::root().join("wit/released").join(RELEASED));
    let names = |texts: &BTreeMap<String, String>| texts.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&current), names(&released), "files in `wit/`");
    for (file, text) in &current {
        assert!(
            *text == released[file],
            "wit/{file} is not what was released as {RELEASED}: components that were built for it would no \
             longer fit. What is new goes into a new function or interface of a package with a new version"
        );
    }
}

/// Packages beside it: folders of `wit/`, and what they are called where they are frozen.
const ABILITIES: [(&str, &str); 1] = [("reading", "reading-0.1")];

#[test]
fn abilities_are_what_was_released() {
    let wit = require::root().join("wit");
    let is_ability = |path: &Path| {
        path.is_dir()
            && !["deps", "released"]
                .iter()
                .any(|other| path.ends_with(other))
    };
    let folders = std::fs::read_dir(&wit).expect("the checkout has the contract");
    let folders =
        folders.filter(|entry| is_ability(&entry.as_ref().expect("it can be listed").path()));
    assert_eq!(folders.count(), ABILITIES.len(), "each has a line here");
    for (folder, frozen) in ABILITIES {
        let read = |path: PathBuf| {
            std::fs::read_to_string(&path)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let file = format!("{folder}.wit");
        let current = read(wit.join(folder).join(&file));
        let released = read(wit.join("released").join(frozen).join(&file));
        assert!(
            current == released,
            "wit/{folder}/{file} is not what was released as {frozen}: what is new goes into a package of its own"
        );
    }
}

/// A server with the stored components, and their names. One for all tests, as it takes a while to
/// compile a whole runtime for each policy. The CPU time leaves room for a busy machine.
static STORED: LazyLock<(Rerankd, Vec<String>)> = LazyLock::new(|| {
    let folder = Folder::new();
    let mut names = Vec::new();
    for entry in std::fs::read_dir(fixtures()).expect("the checkout has the stored components") {
        let path = entry.expect("the folder can be listed").path();
        let file = path.file_name().expect("a file has a name");
        if let Some(name) = file.to_string_lossy().strip_suffix(".wasm.zst") {
            folder.write(&format!("policies/{name}.wasm"), unpacked(&path));
            names.push(name.to_owned());
        }
    }
    names.sort();
    let policies = folder.path().join("policies");
    let policies = policies.to_str().expect("the path is UTF-8");
    // A policy is read at start and never again, so the files may go afterwards.
    let server = Rerankd::start(&["--policies", policies, "--guest-cpu-ms", "2000"]);
    (server, names)
});

/// How often what a call needs fits into its CPU time.
const HEADROOM: f64 = 2.0;

#[test]
fn a_thousand_documents_need_half_of_the_cpu_time_at_most() {
    let limit_ms = default_guest_cpu_ms();
    let (stored, names) = &*STORED;
    for name in names {
        check_headroom(stored, name, limit_ms);
    }
    let bundled = Rerankd::start(&["--guest-cpu-ms", "2000"]);
    check_headroom(&bundled, "cross-encoder", limit_ms);
}

#[track_caller]
fn check_headroom(server: &Rerankd, policy: &str, limit_ms: f64) {
    let spent = || server.metric("rerankd_policy_cpu_seconds_total", &[("policy", policy)]);
    let request = json!({
        "query": "smart watch", "documents": scored_texts(1000), "timeout_ms": 60_000, "on_failure": "error",
    });
    let mut least = f64::INFINITY;
    // The first call finds nothing in the processor's caches, and no row of its model known.
    for _ in 0..2 {
        let before = spent();
        let answer = server.post(&format!("/v1/rerank/{policy}"), &request).ok();
        assert_eq!(answer.parameter("status"), Some("applied"), "{policy}");
        least = least.min(1000.0 * (spent() - before));
    }
    let ratio = limit_ms / least;
    eprintln!(
        "{policy}: {least:.1} ms of CPU time for 1000 documents, {ratio:.1} times fits into {limit_ms} ms"
    );
    assert!(
        ratio >= HEADROOM,
        "{policy}: {least:.1} ms of {limit_ms} ms (--guest-cpu-ms)"
    );
}

/// The default of `--guest-cpu-ms`.
fn default_guest_cpu_ms() -> f64 {
    let printed = Rerankd::run(Rerankd::command(&["serve", "--print-config"]));
    let mut lines = printed.stdout.lines();
    let value = lines.find_map(|line| line.strip_prefix("guest_cpu_ms = "));
    let value = value.unwrap_or_else(|| panic!("no guest_cpu_ms in: {printed:?}"));
    value.parse().expect("it is a number")
}

#[test]
fn stored_components_are_served_as_on_the_first_day() {
    let (server, names) = &*STORED;
    let rankings: BTreeMap<String, Value> = names
        .iter()
        .map(|name| {
            let answer = server.post(&format!("/v1/rerank/{name}"), &request());
            let answer = answer.ok();
            assert_eq!(answer.parameter("status"), Some("applied"), "{name}");
            let ranking = json!({"order": answer.order(), "scores": answer.scores()});
            (name.clone(), ranking)
        })
        .collect();

    let path = fixtures().join("rankings.json");
    if std::env::var_os("RERANKD_RECORD_CONTRACT").is_some_and(|value| value == "1") {
        let text = serde_json::to_string_pretty(&rankings).expect("JSON can be written");
        std::fs::write(&path, text + "\n").expect("the checkout is writable");
        return;
    }
    let recorded = std::fs::read_to_string(&path).expect("the checkout has the rankings");
    let recorded: BTreeMap<String, Value> = serde_json::from_str(&recorded).expect("it is JSON");
    assert_eq!(*names, recorded.keys().cloned().collect::<Vec<_>>());
    for (name, recorded) in &recorded {
        check_ranking(name, &rankings[name], recorded);
    }
}

/// The same scores, and the same order but for documents whose scores are as good as the same.
#[track_caller]
fn check_ranking(name: &str, ranking: &Value, recorded: &Value) {
    let numbers = |of: &Value, key: &str| -> Vec<f64> {
        let numbers = of[key].as_array().expect("an array");
        let number = |number: &Value| number.as_f64().expect("a number");
        numbers.iter().map(number).collect()
    };
    let (scores, expected) = (numbers(ranking, "scores"), numbers(recorded, "scores"));
    assert_eq!(scores.len(), expected.len(), "{name}");
    for (at, (score, expected)) in scores.iter().zip(&expected).enumerate() {
        assert!(
            (score - expected).abs() <= TOLERANCE,
            "{name}, document {at}: {score}, recorded was {expected}"
        );
    }
    let order = |of: &Value| numbers(of, "order");
    for (place, (document, recorded)) in order(ranking).iter().zip(order(recorded)).enumerate() {
        let difference = expected[*document as usize] - expected[recorded as usize];
        assert!(
            difference.abs() <= TOLERANCE,
            "{name}, place {place}: document {document}, recorded was {recorded}"
        );
    }
}

/// Twenty products with the engine's scores.
fn request() -> Value {
    let document = |(id, score, fields): (String, f64, Value)| json!({"id": id, "score": score, "fields": {"title": fields["title"], "text": fields["text"]}});
    let documents: Vec<Value> = products().into_iter().map(document).collect();
    json!({"query": "smart watch", "documents": documents, "timeout_ms": 60000})
}

fn fixtures() -> PathBuf {
    require::root().join(format!("tests/fixtures/contract-{RELEASED}"))
}

fn unpacked(path: &Path) -> Vec<u8> {
    let packed = std::fs::File::open(path).expect("the file is there");
    let mut component = Vec::new();
    ruzstd::decoding::StreamingDecoder::new(packed)
        .expect("it is a frame of zstd")
        .read_to_end(&mut component)
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    component
}

/// The WIT files of a package and of those that it depends on, by their paths in its folder.
fn texts(folder: &Path) -> BTreeMap<String, String> {
    let mut texts = BTreeMap::new();
    for below in ["", "deps/nn/"] {
        let entries = std::fs::read_dir(folder.join(below)).expect("the checkout has the contract");
        for entry in entries {
            let path = entry.expect("the folder can be listed").path();
            if path.extension().is_some_and(|extension| extension == "wit") {
                let file = path.file_name().expect("a file has a name");
                let text = std::fs::read_to_string(&path).expect("it is text");
                texts.insert(format!("{below}{}", file.to_string_lossy()), text);
            }
        }
    }
    texts
}
