//! Policies that other toolchains than Rust's made: the same ranking, the same limits, and faults that
//! say what went wrong in their own language.

use std::sync::LazyLock;

use rerankd_tests::documents::{products, scored_texts, texts};
use rerankd_tests::{Answer, Folder, Rerankd, long_tests, require};
use serde_json::{Value, json};

const LANGUAGES: [&str; 2] = ["python", "javascript"];

/// One server for all tests, as it takes a while to compile a whole runtime for each policy. Its memory
/// limit is soon reached by a guest that has none of its own; the CPU time leaves room for a busy machine.
static SERVER: LazyLock<Rerankd> = LazyLock::new(|| {
    // A policy is read at start and never again, so the files may go afterwards.
    let folder = Folder::new();
    folder.copy(&require::policies(), "policies");
    for language in LANGUAGES {
        for example in ["semantic-blend", "faulty/faulty"] {
            let component = require::example(&format!("{example}-{language}"));
            let file = component.file_name().expect("a file has a name");
            folder.copy(&component, &format!("policies/{}", file.to_string_lossy()));
        }
    }
    let policies = folder.path().join("policies");
    let policies = policies.to_str().expect("the path is UTF-8");
    let limits = ["--guest-memory-mib", "64", "--guest-cpu-ms", "1000"];
    Rerankd::start(&[&["--policies", policies], &limits[..]].concat())
});

/// The same request to the Rust policy and to that of each language.
#[track_caller]
fn check_same_ranking(request: &Value) {
    let rust = SERVER.post("/v1/rerank/semantic-blend", request).ok();
    for language in LANGUAGES {
        let path = format!("/v1/rerank/semantic-blend-{language}");
        let other = SERVER.post(&path, request).ok();
        assert_eq!(
            other.parameter("status"),
            rust.parameter("status"),
            "{language}: {}",
            other.text()
        );
        assert_eq!(other.unscored(), rust.unscored(), "{language}");
        let (scores, expected) = (other.scores(), rust.scores());
        assert_eq!(scores.len(), expected.len(), "{language}");
        for (at, scores) in scores.iter().zip(&expected).enumerate() {
            let (Some(score), Some(expected)) = scores else {
                assert_eq!(scores.0, scores.1, "{language}, document {at}");
                continue;
            };
            assert!(
                (score - expected).abs() < 1e-6,
                "{language}, document {at}: {score} instead of {expected}"
            );
        }
        let truncated = |answer: &Answer| -> Vec<Value> {
            let body = answer.json();
            let results = body["results"].as_array().expect("an array of results");
            let mut truncated: Vec<_> = results
                .iter()
                .filter(|result| result["truncated"] == true)
                .map(|result| result["index"].clone())
                .collect();
            truncated.sort_by_key(Value::as_u64);
            truncated
        };
        assert_eq!(truncated(&other), truncated(&rust), "{language}");
    }
}

#[test]
fn every_language_ranks_as_rust_does() {
    check_same_ranking(&json!({"query": "smart watch", "documents": scored_texts(100)}));
    check_same_ranking(&json!({"query": "smart watch", "documents": texts(20)}));
    check_same_ranking(&json!({"query": "smart watch", "documents": texts(20), "ordered": true}));
    for weight in [0.0, 0.3, 1.0] {
        let documents = scored_texts(20);
        check_same_ranking(&json!({
            "query": "smart watch", "documents": documents, "parameters": {"weight": weight}
        }));
    }
}

#[test]
fn every_language_reads_values_as_rust_does() {
    let documents: Vec<Value> = products()
        .into_iter()
        .zip([
            json!("Really?"),
            json!(["one", " ", "two "]),
            json!(7),
            json!(-2.5),
            json!(true),
            json!({"a": 1}),
            json!([1, 2]),
            json!("\u{a0}\n"),
            json!("智能手表。"),
            json!("🕰 e\u{301}"),
        ])
        .map(|((id, score, fields), value)| {
            json!({"id": id, "score": score, "fields": {"title": value, "text": fields["title"]}})
        })
        .chain([
            json!({"score": 1.0, "fields": {}}),
            json!({"score": 2.0, "fields": {"title": " "}}),
            json!({"score": 1.0, "fields": {"text": "watch ".repeat(3000)}}),
        ])
        .collect();
    check_same_ranking(&json!({"query": "smart watch", "documents": documents}));
    check_same_ranking(&json!({
        "query": "smart watch", "documents": documents, "fields": ["text", "title"]
    }));
    check_same_ranking(
        &json!({"query": "q", "documents": [{"score": 1.0, "fields": {"text": "alone"}}]}),
    );
    check_same_ranking(&json!({"query": "q", "documents": ["a", " "]}));
}

#[test]
fn scores_out_of_the_ordinary_are_normalized_as_in_rust() {
    for scores in [[3.0, 3.0, 3.0], [-1.7e308, 0.0, 1.7e308], [-3.0, -2.0, 5.0]] {
        let documents: Vec<Value> = ["watch", "clock", "battery"]
            .iter()
            .zip(scores)
            .map(|(text, score)| json!({"score": score, "fields": {"text": text}}))
            .collect();
        check_same_ranking(&json!({"query": "smart watch", "documents": documents}));
    }
}

#[test]
fn what_a_policy_in_another_language_says_reaches_its_caller() {
    for language in LANGUAGES {
        let explained = json!({"query": "watch", "documents": ["a watch"], "explain": true});
        let path = format!("/v1/rerank/semantic-blend-{language}");
        let answer = SERVER.post(&path, &explained).ok();
        let explanation = answer.json()["results"][0]["explanation"].to_string();
        assert!(explanation.contains("The cosine is 0."), "{explanation}");
    }
}

/// An error of the policy: its status, and all that its message must have.
#[track_caller]
fn check_fault(language: &str, case: &str, status: u16, messages: &[&str]) {
    let request = json!({
        "query": "watch",
        "documents": ["a watch"],
        "parameters": {"case": case},
        "on_failure": "error",
    });
    let answer = SERVER.post(&format!("/v1/rerank/faulty-{language}"), &request);
    let text = answer.error_message();
    assert_eq!(answer.status, status, "{language}: {text}");
    for message in messages {
        assert!(text.contains(message), "{language} {case}: {text}");
    }
    // The next request meets nothing of it.
    let healthy = json!({"query": "watch", "documents": ["a watch", "a lamp"]});
    let answer = SERVER.post("/v1/rerank/semantic-blend", &healthy).ok();
    assert_eq!(answer.parameter("status"), Some("applied"));
}

#[test]
fn errors_of_the_contract_are_answers_in_every_language() {
    for language in LANGUAGES {
        check_fault(
            language,
            "refuses",
            400,
            &[&format!(
                "policy faulty-{language}: `case`: the policy refuses it"
            )],
        );
        check_fault(language, "internal", 424, &["it does not know"]);
        check_fault(language, "foreign-model", 424, &["`other`"]);
    }
}

#[test]
fn an_exception_becomes_a_fault_with_its_message_and_line() {
    for (language, error, file) in [
        ("python", "ValueError: no such case", "faulty.py"),
        ("javascript", "RangeError: no such case", "faulty.js"),
    ] {
        let source = require::root().join(format!("guest/faulty/{language}/{file}"));
        let source = std::fs::read_to_string(source).expect("the checkout has it");
        let line = source
            .lines()
            .position(|line| line.contains("no such case"));
        let place = format!("{file}:{}", line.expect("it throws") + 1);
        check_fault(language, "throws", 424, &[&place, error]);
    }
}

#[test]
fn no_language_leads_out_of_the_limits() {
    for language in LANGUAGES {
        check_fault(language, "loops", 424, &["1000 ms"]);
        check_fault(language, "grows", 424, &["64 MiB"]);
    }
    check_fault("python", "recurses", 424, &["RecursionError"]);
    check_fault(
        "javascript",
        "recurses",
        424,
        &["InternalError: too much recursion"],
    );
}

#[test]
fn calls_of_another_language_share_nothing() {
    let request = json!({"query": "smart watch", "documents": scored_texts(10)});
    for language in LANGUAGES {
        let path = format!("/v1/rerank/semantic-blend-{language}");
        let first = SERVER.post(&path, &request).ok().scores();
        let all: Vec<_> = std::thread::scope(|scope| {
            let calls: Vec<_> = (0..16)
                .map(|_| scope.spawn(|| SERVER.post(&path, &request).ok().scores()))
                .collect();
            calls
                .into_iter()
                .map(|call| call.join().expect("no call panics"))
                .collect()
        });
        assert_eq!(all, vec![first; 16], "{language}");
    }
}

/// `rerankd policy ARGUMENTS` in a folder, which must go well; gives what it printed. A server that is named is
/// the one to push to.
fn policy(folder: &Folder, server: Option<&Rerankd>, arguments: &[&str]) -> String {
    let path = std::env::var("PATH").expect("there is a PATH");
    // Where there is no npm, this one finds a Node.js for it. It looks for another npm first, so it comes last.
    let scripts = require::root().join("scripts");
    let mut command = Rerankd::command(&[&["policy"], arguments].concat());
    command
        .env("PATH", format!("{path}:{}", scripts.display()))
        .current_dir(folder.path());
    if let Some(server) = server {
        command
            .env(
                "RERANKD_ADMIN",
                format!("http://{}", server.admin_address()),
            )
            .env("RERANKD_TOKEN", server.admin_token());
    }
    let output = command.output().expect("the binary is executable");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {stderr}\n{said}");
    said
}

/// A new project in a language, built; `own` is where it would get its toolchain, `shared` where that is
/// already.
fn build_project(language: &str, own: &str, shared: &str) -> (Folder, String) {
    let folder = Folder::new();
    let name = format!("boost-{language}");
    let made = policy(&folder, None, &["new", &name, "--lang", language]);
    let next = format!("rerankd policy push {name}/{name}.wasm --activate");
    assert!(made.contains(&next), "{made}");
    let shared = require::root().join(shared);
    assert!(
        shared.exists(),
        "no {}: run `make examples`",
        shared.display()
    );
    let own = folder.path().join(&name).join(own);
    std::os::unix::fs::symlink(&shared, own).expect("the folder is ours");
    let built = policy(&folder, None, &["build", &name]);
    assert!(built.contains("cases    3"), "{built}");
    assert!(!built.contains("wasi:cli"), "{built}");
    (folder, name)
}

fn test_project(folder: &Folder, name: &str) {
    let component = format!("{name}/{name}.wasm");
    let tested = policy(folder, None, &["test", &component]);
    assert!(tested.contains("3 of 3 cases passed"), "{tested}");
}

/// On a server that compiles it when nothing else wants the processor.
fn serve_project(folder: &Folder, name: &str) {
    let component = format!("{name}/{name}.wasm");
    let pushed = policy(folder, Some(&SERVER), &["push", &component, "--activate"]);
    assert!(pushed.contains("cases: 3 of 3 passed"), "{pushed}");
    let request = json!({"query": "smart watch", "documents": [
        {"id": "disk", "score": 10.0, "fields": {"title": "Philips HDR3700 hard disk"}},
        {"id": "watch", "score": 3.0, "fields": {"title": "Galaxy Smart Watch"}},
    ]});
    let answer = SERVER.post(&format!("/v1/rerank/{name}"), &request).ok();
    assert_eq!(answer.scores(), [Some(1.0), Some(0.3)], "{name}");
}

#[test]
fn a_new_project_in_javascript_builds_and_passes_its_cases() {
    let shared = "guest/examples/javascript/node_modules";
    let (folder, name) = build_project("javascript", "node_modules", shared);
    test_project(&folder, &name);
    if long_tests("a_new_project_in_javascript_serves") {
        serve_project(&folder, &name);
    }
}

#[test]
fn a_new_project_in_python_builds() {
    let (folder, name) = build_project("python", ".venv", ".venv/python");
    // To compile a whole CPython takes long.
    if long_tests("a_new_project_in_python_passes_its_cases_and_serves") {
        test_project(&folder, &name);
        serve_project(&folder, &name);
    }
}
