//! Policies that the server refuses to load: it says in one line which file it was and what is wrong
//! with it, and does not start.

use std::path::PathBuf;

use rerankd_tests::rerankd::Refusal;
use rerankd_tests::{Folder, Rerankd, eventually, require};

/// Starts a server with one policy file and nothing else.
fn start_with(folder: &Folder, flags: &[&str]) -> Refusal {
    let policies = folder.path().join("policies");
    let policies = policies.to_str().expect("the path is UTF-8");
    let arguments = [
        &[
            "serve",
            "--listen",
            "127.0.0.1:0",
            "--log",
            "error",
            "--policies",
            policies,
        ],
        flags,
    ];
    Rerankd::run(Rerankd::command(&arguments.concat()))
}

/// The one line that names the file and has all of `messages` in it.
#[track_caller]
fn assert_refused(refusal: &Refusal, file: &str, messages: &[&str]) {
    assert_eq!(refusal.code, Some(1), "{refusal:?}");
    assert_eq!(refusal.stdout, "", "it must not say that it listens");
    let line = refusal.stderr.trim_end();
    assert!(!line.contains('\n'), "more than one line: {line}");
    assert!(line.starts_with("rerankd: "), "{line}");
    for message in [&[file], messages].concat() {
        assert!(line.contains(message), "expected `{message}` in: {line}");
    }
    for trace in ["panicked", "backtrace", "RUST_BACKTRACE", "<unknown>"] {
        assert!(!line.contains(trace), "{line}");
    }
}

#[track_caller]
fn check_guest(name: &str, messages: &[&str]) {
    check_file(
        &format!("{name}.wasm"),
        std::fs::read(require::faulty(name)).expect("it is there"),
        messages,
    );
}

#[track_caller]
fn check_file(file: &str, bytes: Vec<u8>, messages: &[&str]) {
    let folder = Folder::new();
    folder.write(&format!("policies/{file}"), bytes);
    assert_refused(&start_with(&folder, &[]), file, messages);
}

fn bundled(name: &str) -> PathBuf {
    require::policies().join(format!("{name}.wasm"))
}

#[test]
fn a_manifest_that_is_none_is_refused() {
    check_guest("not-json", &["its manifest is wrong", "line 1 column 1"]);
    check_guest(
        "unknown-key",
        &["its manifest is wrong", "unknown field `moon`"],
    );
}

#[test]
fn a_schema_that_is_none_or_reaches_out_is_refused() {
    check_guest(
        "bad-schema",
        &["the schema of its parameters is wrong", "12"],
    );
    let remote = "`$ref` to `https://example.com/schema.json`: only `#..` is allowed";
    check_guest("remote-schema", &[remote]);
}

#[test]
fn a_guest_that_loops_in_describe_is_refused_in_bounded_time() {
    check_guest("spin-in-describe", &["`describe` failed", "of CPU time"]);
}

#[test]
fn wasi_is_refused_unless_it_is_allowed() {
    for (name, import) in [("sleep", "`wasi:"), ("clock", "`wasi:")] {
        check_guest(
            name,
            &["it imports", import, "a policy may import wasi:nn/tensor@"],
        );
    }
}

#[test]
fn what_is_no_component_is_refused() {
    check_file(
        "garbage.wasm",
        b"hello".to_vec(),
        &["not a WebAssembly component"],
    );
    check_file("empty.wasm", Vec::new(), &["not a WebAssembly component"]);
    let core_module = b"\0asm\x01\0\0\0".to_vec();
    check_file("module.wasm", core_module, &["not a WebAssembly component"]);
    let whole = std::fs::read(bundled("first-stage")).expect("it is there");
    for length in [9, whole.len() / 2, whole.len() - 1] {
        let file = "first-stage.wasm";
        check_file(
            file,
            whole[..length].to_vec(),
            &["not a WebAssembly component"],
        );
    }
    // A component, but one without the contract's export.
    let nothing = b"\0asm\x0d\0\x01\0".to_vec();
    check_file(
        "nothing.wasm",
        nothing,
        &["it does not export `rerank:policy/policy@0.1.0`"],
    );
}

#[test]
fn a_file_must_be_called_like_its_policy() {
    let bytes = std::fs::read(bundled("first-stage")).expect("it is there");
    check_file(
        "another.wasm",
        bytes,
        &["it calls itself `first-stage`", "first-stage.wasm"],
    );
}

#[test]
fn two_policies_of_one_name_are_refused() {
    let folder = Folder::new();
    folder.copy(&bundled("first-stage"), "policies/first-stage.wasm");
    let again = folder.copy(&bundled("first-stage"), "more/first-stage.wasm");
    let more = again
        .parent()
        .and_then(|more| more.to_str())
        .expect("it is UTF-8");
    let refusal = start_with(&folder, &["--policies", more]);
    assert_refused(
        &refusal,
        "more/first-stage.wasm",
        &["are both called `first-stage`"],
    );
}

#[test]
fn one_bad_policy_among_good_ones_is_named() {
    let folder = Folder::new();
    folder.copy(&require::policies(), "policies");
    folder.write("policies/garbage.wasm", "hello");
    assert_refused(
        &start_with(&folder, &[]),
        "garbage.wasm",
        &["not a WebAssembly component"],
    );
}

#[test]
fn a_folder_that_is_not_there_says_how_to_build_policies() {
    let missing = start_with(&Folder::new(), &[]);
    assert_refused(
        &missing,
        "policies`",
        &["no policies at", "`make policies`", "--policies"],
    );
}

/// What is put there later is released, so nothing is wrong with it; but it may be a mistake.
#[test]
fn an_empty_folder_is_warned_of_and_served() {
    let folder = Folder::new();
    folder.write("policies/README.md", "nothing here");
    let policies = folder.path().join("policies");
    let server = Rerankd::start(&["--policies", policies.to_str().expect("it is UTF-8")]);
    assert!(
        server.greeting().contains("(policies: ;"),
        "{}",
        server.greeting()
    );
    eventually("it is warned of", || {
        let warned = "a folder of policies is empty";
        server.stderr().contains(warned).then_some(())
    });
    let request = serde_json::json!({"query": "q", "documents": ["d"]});
    let answer = server.post("/v1/rerank/first-stage", &request);
    assert_eq!(answer.status, 404, "{}", answer.text());
}

/// The same file keeps a first start from being one, and a later one from nothing.
#[test]
fn a_file_that_turned_bad_leaves_the_stored_version_in_place() {
    let folder = Folder::new();
    folder.copy(&bundled("first-stage"), "policies/first-stage.wasm");
    let policies = folder.path().join("policies");
    let mut server = Rerankd::start(&["--policies", policies.to_str().expect("it is UTF-8")]);
    let request = serde_json::json!({"query": "q", "documents": ["d"]});
    let version = |server: &Rerankd| {
        let answer = server.post("/v1/rerank/first-stage", &request).ok();
        answer.json()["version"].clone()
    };
    let before = version(&server);
    server.kill();
    folder.write("policies/first-stage.wasm", "hello");
    server.restart();
    assert_eq!(version(&server), before);
    eventually("the log says why", || {
        let said = server.stderr();
        let refused = said.contains("a file of a policy folder was refused");
        (refused && said.contains("not a WebAssembly component")).then_some(())
    });
}

#[test]
fn what_the_operator_says_of_a_policy_must_fit_it() {
    let check = |config: &str, messages: &[&str]| {
        let folder = Folder::new();
        folder.copy(&require::policies(), "policies");
        let config = folder.write("rerankd.toml", config);
        let config = config.to_str().expect("the path is UTF-8");
        assert_refused(&start_with(&folder, &["--config", config]), "", messages);
    };
    let weight = "[policies.semantic-blend.parameters]\nweight = 7\n";
    check(
        weight,
        &["semantic-blend.wasm", "`parameters.weight`", "maximum of 1"],
    );
    let unknown = "[policies.first-stage.parameters]\nweight = 0.5\n";
    check(unknown, &["first-stage.wasm", "unknown parameter"]);
    let slot = "[policies.semantic-blend.models]\nencoder = \"all-minilm-l6-v2\"\n";
    check(
        slot,
        &[
            "semantic-blend.wasm",
            "`encoder`",
            "its manifest has: bi-encoder",
        ],
    );
    let kind = "[policies.semantic-blend.models]\nbi-encoder = \"tiny-cross-encoder\"\n";
    check(
        kind,
        &["needs a bi-encoder, but `tiny-cross-encoder` is a cross-encoder"],
    );
    let model = "[policies.semantic-blend.models]\nbi-encoder = \"nothing\"\n";
    check(
        model,
        &[
            "no model `nothing`",
            "all-minilm-l6-v2",
            "tiny-cross-encoder",
        ],
    );
}

/// What a policy may see must be settled before it sees anything.
#[test]
fn grants_may_be_set_before_there_is_a_policy() {
    let folder = Folder::new();
    folder.write("policies/README.md", "");
    let config = folder.write(
        "rerankd.toml",
        "[policies.echo]\ngrants = [\"title\", \"text\"]\n",
    );
    let policies = folder.path().join("policies");
    let text = |path: &std::path::Path| path.to_str().expect("it is UTF-8").to_owned();
    let (config, policies) = (text(&config), text(&policies));
    let server = Rerankd::start(&["--config", &config, "--policies", &policies]);
    eventually("it is said, as it may be a mistake", || {
        let said = "speaks of a policy that there is not yet";
        server.stderr().contains(said).then_some(())
    });
    let echo = std::fs::read(require::faulty("echo")).expect("it is there");
    let push = |query: &str| {
        let path = format!("/v1/policies/echo?activate=true&{query}");
        server.admin_call("PUT", &path, &[("Content-Type", "application/wasm")], &echo)
    };
    let beyond = push("grant=title&grant=text&grant=price");
    assert_eq!(beyond.status, 422, "{}", beyond.text());
    assert!(
        beyond.text().contains("(by the configuration)"),
        "{}",
        beyond.text()
    );
    assert_eq!(push("").status, 201);
    let request = serde_json::json!({
        "query": "q", "explain": true, "fields": ["title", "price"],
        "documents": [{"fields": {"title": "Clog", "price": 29.9}}],
    });
    let answer = server.post("/v1/rerank/echo", &request).ok();
    assert!(answer.text().contains("Clog"), "{}", answer.text());
    assert!(!answer.text().contains("29.9"), "{}", answer.text());
}

/// Not every policy can do without what the request brings.
#[test]
fn a_policy_may_require_a_parameter_of_every_request() {
    let folder = Folder::new();
    folder.copy(
        &require::faulty("wrong-inputs"),
        "policies/wrong-inputs.wasm",
    );
    let policies = folder.path().join("policies");
    let server = Rerankd::start(&["--policies", policies.to_str().expect("it is UTF-8")]);
    let request = serde_json::json!({"query": "q", "documents": ["d"]});
    let answer = server.post("/v1/rerank/wrong-inputs", &request);
    assert_eq!(answer.status, 400, "{}", answer.text());
    assert!(answer.error_message().contains("case"), "{}", answer.text());
}
