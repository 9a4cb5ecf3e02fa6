//! `rerankd policy`: a project is made, built, checked and tested; the commands that need a server say
//! clearly that there is none.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::LazyLock;

use rerankd_tests::{Folder, Rerankd, require};
use serde_json::{Value, json};

/// `rerankd policy ARGUMENTS`, with nothing of this machine's own servers.
fn policy(arguments: &[&str]) -> Output {
    let mut command = Rerankd::command(&[&["policy"], arguments].concat());
    command
        // Kept from run to run: the SDK's dependencies need not be compiled again.
        .env("CARGO_TARGET_DIR", require::target().join("tmp/projects"))
        .env("XDG_STATE_HOME", require::target().join("tmp/no-state"));
    command.output().expect("the binary is executable")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    let said = (stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(code), "{said:?}");
}

#[track_caller]
fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", stdout(output)))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is UTF-8")
}

/// A project that was made and built.
struct Project {
    folder: Folder,
    made: Output,
    built: Output,
}

impl Project {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join("boost").join(name)
    }
}

/// Built once for all tests.
static PROJECT: LazyLock<Project> = LazyLock::new(|| {
    let folder = Folder::new();
    let path = folder.path().join("boost");
    Project {
        made: policy(&["new", "boost", "--path", text(&path), "--json"]),
        built: policy(&["build", text(&path), "--json"]),
        folder,
    }
});

#[test]
fn a_new_project_builds_and_passes_its_cases_as_it_is() {
    let project = &*PROJECT;
    assert_code(&project.made, 0);
    assert_code(&project.built, 0);
    let built = json_of(&project.built);
    let component = project.path("boost.wasm");
    assert_eq!(built["path"], text(&component));
    assert_eq!(built["cases"], 3);
    let imports = built["imports"].as_array().expect("a list");
    let foreign = |import: &&Value| !import.to_string().contains("rerank:policy/");
    assert_eq!(imports.iter().find(foreign), None);

    let checked = policy(&["check", text(&component), "--json"]);
    assert_code(&checked, 0);
    let checked = json_of(&checked);
    assert_eq!(checked["good"], true, "{checked}");
    assert_eq!(checked["sha256"], built["sha256"]);

    let tested = policy(&["test", text(&component), "--json"]);
    assert_code(&tested, 0);
    let tested = json_of(&tested);
    assert_eq!(
        (&tested["total"], &tested["failed"]),
        (&json!(3), &json!(0))
    );

    let tested = policy(&["test", text(&component)]);
    assert!(
        stdout(&tested).contains("3 of 3 cases passed"),
        "{}",
        stdout(&tested)
    );
}

#[test]
fn a_project_has_the_whole_sdk_and_no_path_of_this_machine() {
    let project = &*PROJECT;
    assert_code(&project.made, 0);
    let same = |ours: &str, theirs: &str| {
        let mut ours = files_below(&require::root().join(ours));
        // What was frozen is no part of it.
        ours.retain(|path| !path.starts_with("released"));
        let theirs = files_below(&project.path(theirs));
        ours.sort();
        assert_eq!(ours, theirs);
    };
    same("guest/sdk/src", "vendor/rerank-policy/src");
    same("wit", "vendor/rerank-policy/wit");
    assert_code(&project.built, 0);
    let component = std::fs::read(project.path("boost.wasm")).expect("it was built");
    let component = String::from_utf8_lossy(&component);
    let home = std::env::var("HOME").expect("the user has a home");
    for folder in [text(&require::root()), &home] {
        assert!(!component.contains(&format!("{folder}/")), "{folder}");
    }
}

fn files_below(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder is there") {
            let path = entry.expect("the folder can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let relative = path.strip_prefix(root).expect("it lies below");
                found.push(relative.to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The SDK's documentation is the tutorial: what it shows is what one types.
#[test]
fn the_sdks_examples_compile_in_a_project_as_they_stand() {
    let sdk = require::root().join("guest/sdk/src/lib.rs");
    let sdk = std::fs::read_to_string(sdk).expect("it is there");
    let lines = sdk.lines().map_while(|line| line.strip_prefix("//!"));
    let lines: Vec<&str> = lines
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect();
    let blocks = lines.split(|line| line.starts_with("```"));
    let examples = blocks.filter(|block| block.iter().any(|line| line.contains("export!(")));
    let examples: Vec<String> = examples
        .map(|block| {
            let code = block.iter().filter(|line| !line.starts_with("# "));
            code.copied().collect::<Vec<_>>().join("\n")
        })
        .collect();
    let with_parameters = |example: &&String| example.contains("parameters(&request)");
    assert!(
        examples.iter().any(|example| with_parameters(&example)),
        "{examples:?}"
    );
    for (number, example) in examples.iter().enumerate() {
        let folder = Folder::new();
        let name = format!("example-{number}");
        let path = folder.path().join(&name);
        assert_code(&policy(&["new", &name, "--path", text(&path)]), 0);
        folder.write(&format!("{name}/src/lib.rs"), example);
        assert_code(&policy(&["build", text(&path)]), 0);
    }
}

#[test]
fn a_project_that_does_not_compile_says_why() {
    let folder = Folder::new();
    let path = folder.path().join("broken");
    assert_code(&policy(&["new", "broken", "--path", text(&path)]), 0);
    folder.write("broken/src/lib.rs", "fn broken( {}");
    let built = policy(&["build", text(&path)]);
    assert_code(&built, 1);
    let said = stderr(&built);
    assert!(
        said.contains("does not compile") && said.contains("src/lib.rs:1"),
        "{said}"
    );
    assert!(!path.join("broken.wasm").exists());
}

#[test]
fn names_and_folders_that_will_not_do_are_refused() {
    let refused = |arguments: &[&str], reason: &str| {
        let output = policy(arguments);
        assert_code(&output, 2);
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    };
    refused(&["new", "No Name"], "lower-case letters, digits and `-`");
    refused(
        &["new", "boost", "--lang", "cobol"],
        "possible values: rust, python, javascript",
    );
    let folder = Folder::new();
    folder.write("something", "");
    refused(
        &["new", "boost", "--path", text(folder.path())],
        "is not empty",
    );
    refused(&["build", text(folder.path())], "manifest.json");
    refused(&["test", "no-such.wasm"], "cannot read `no-such.wasm`");
}

#[test]
fn the_bundled_policies_and_the_examples_pass_their_cases() {
    let bundled = ["cross-encoder", "first-stage", "semantic-blend"];
    let bundled = bundled.map(|name| require::policies().join(format!("{name}.wasm")));
    let examples = ["semantic-blend-python", "semantic-blend-javascript"].map(require::example);
    for component in bundled.into_iter().chain(examples) {
        let output = policy(&["test", text(&component), "--json"]);
        assert_code(&output, 0);
        let report = json_of(&output);
        assert!(report["total"].as_u64() >= Some(4), "{report}");
    }
}

#[test]
fn a_case_that_fails_says_what_was_expected_and_what_came() {
    let component = require::policies().join("first-stage.wasm");
    let folder = Folder::new();
    let case = |name: &str, expect: Value| {
        json!({"name": name, "expect": expect, "request": {"query": "q", "documents": [
            {"id": "a", "score": 1.0}, {"id": "b", "score": 2.0}, {"id": "c", "score": 3.0}]}})
    };
    let expectations = [
        (
            json!({"order": ["a", "b", "c"]}),
            "expected the order a, b, c, got c, b, a",
        ),
        (json!({"top": ["b"]}), "expected the first 1 b, got c"),
        (
            json!({"before": [["b", "a"], ["a", "c"]]}),
            "expected `a` before `c`, got c, b, a",
        ),
        (
            json!({"status": "partial"}),
            "expected the status partial, got applied",
        ),
        (json!({"unscored": ["a"]}), "expected unscored a, got none"),
        (json!({"filtered": ["a"]}), "expected filtered a, got none"),
        (
            json!({"scores": {"a": 1.5}}),
            "expected for `a` a score from 1.499999 to 1.500001, got 1",
        ),
        (
            json!({"scores": {"b": {"max": 1.5}}}),
            "expected for `b` a score of at most 1.5, got 2",
        ),
        (
            json!({"error": "no"}),
            "expected an error with `no`, got the status applied",
        ),
    ];
    let cases = expectations.iter().enumerate();
    let cases: Vec<Value> = cases
        .map(|(number, (expect, _))| case(&number.to_string(), expect.clone()))
        .chain([case(
            "good",
            json!({"order": [2, 1, 0], "scores": {"c": {"min": 3.0}}}),
        )])
        .collect();
    let file = folder.write("cases/all.json", json!({"cases": cases}).to_string());
    let output = policy(&["test", text(&component), text(&file), "--json"]);
    assert_code(&output, 1);
    let report = json_of(&output);
    assert_eq!(
        (&report["passed"], &report["failed"]),
        (&json!(1), &json!(9))
    );
    for (number, (_, message)) in expectations.iter().enumerate() {
        assert_eq!(report["results"][number]["message"], *message);
    }
    // A folder is all of its files.
    folder.write(
        "cases/more.json",
        json!({"cases": [case("one more", json!({"top": ["c"]}))]}).to_string(),
    );
    let output = policy(&[
        "test",
        text(&component),
        text(&folder.path().join("cases")),
        "--json",
    ]);
    assert_eq!(json_of(&output)["total"], 11);
}

#[test]
fn a_fault_fails_a_case_unless_it_is_expected() {
    let component = require::faulty("panic");
    let folder = Folder::new();
    let request = json!({"query": "q", "documents": ["a lamp"]});
    let cases = json!({"cases": [
        {"name": "ranks", "request": request, "expect": {"order": [0]}},
        {"name": "fails", "request": request, "expect": {"status": "failed"}}]});
    let file = folder.write("cases.json", cases.to_string());
    let output = policy(&["test", text(&component), text(&file), "--json"]);
    assert_code(&output, 1);
    let report = json_of(&output);
    let message = report["results"][0]["message"].as_str().expect("it failed");
    assert!(
        message.starts_with("expected a ranking, got: policy panic@"),
        "{message}"
    );
    assert!(message.contains("it panicked at"), "{message}");
    assert_eq!(report["results"][1]["passed"], true);
}

#[test]
fn cases_that_make_no_sense_are_refused() {
    let component = require::policies().join("first-stage.wasm");
    let folder = Folder::new();
    let one = |request: Value, expect: Value| {
        json!({"cases": [{"name": "n", "request": request, "expect": expect}]}).to_string()
    };
    let good = json!({"query": "q", "documents": [{"id": "a"}, {"id": "twin"}, {"id": "twin"}]});
    let many: Vec<Value> = (0..101)
        .map(
            |number| json!({"name": number.to_string(), "request": good, "expect": {"top": ["a"]}}),
        )
        .collect();
    let refusals = [
        ("{".to_owned(), "EOF while parsing"),
        (
            "{\"case\": []}".to_owned(),
            "unknown field `case`, expected `cases`",
        ),
        (
            one(good.clone(), json!({})),
            "`expect`: empty; it takes `order`",
        ),
        (
            one(good.clone(), json!({"sorted": []})),
            "unknown field `sorted`, expected one of `order`",
        ),
        (
            one(good.clone(), json!({"top": ["b"]})),
            "`expect.top`: the request has no document `b`",
        ),
        (
            one(good.clone(), json!({"top": ["twin"]})),
            "2 documents are called `twin`",
        ),
        (
            one(good.clone(), json!({"order": [3]})),
            "no document at position 3; it has 3",
        ),
        (
            one(
                good.clone(),
                json!({"scores": {"a": {"is": 1, "tolerance": -1}}}),
            ),
            "`tolerance` must be a number from 0 on, got -1",
        ),
        (
            one(good.clone(), json!({"scores": {"a": {"min": 2, "max": 1}}})),
            "`min` (2) is above `max` (1)",
        ),
        (
            one(good.clone(), json!({"status": "fine"})),
            "no status `fine`",
        ),
        (
            one(good.clone(), json!({"scores": {"a": "high"}})),
            "a score must be a number",
        ),
        (
            one(good.clone(), json!({"scores": {"a": {"is": 1, "min": 0}}})),
            "`min` or `max` or both",
        ),
        (
            one(good.clone(), json!({"error": "x", "top": [0]})),
            "nothing else to expect",
        ),
        (
            one(json!({"query": "q"}), json!({"top": [0]})),
            "case `n`: `request`: `documents`: ",
        ),
        (json!({"cases": many}).to_string(), "more than 100 cases"),
        (" ".repeat(256 * 1024 + 1), "at most 262144 are read"),
    ];
    for (cases, reason) in refusals {
        let file = folder.write("cases.json", &cases);
        let output = policy(&["test", text(&component), text(&file)]);
        assert_code(&output, 2);
        let said = stderr(&output);
        assert!(
            said.contains(reason) && said.contains("cases.json"),
            "{said}"
        );
    }
}

#[test]
fn check_says_which_step_a_component_fails() {
    let folder = Folder::new();
    let no_component = folder.write("no.wasm", "\0asm\x01\0\0\0");
    let first_stage = require::policies().join("first-stage.wasm");
    let semantic = require::policies().join("semantic-blend.wasm");
    let [clock, not_json, remote_schema] =
        ["clock", "not-json", "remote-schema"].map(require::faulty);
    let spins = require::faulty("spin-in-describe");
    let config = folder.write(
        "rerankd.toml",
        "[policies.first-stage.parameters]\nweight = 0.5\n",
    );
    let bad = folder.write(
        "cases.json",
        json!({"cases": [{"name": "n", "request": {"query": "q", "documents": ["a", "b"]},
            "expect": {"order": [1, 0]}}]})
        .to_string(),
    );
    let python = require::example("semantic-blend-python");
    let steps: [(&[&str], &str, &str); 14] = [
        (
            &[text(&no_component)],
            "inspect",
            "not a WebAssembly component: it is a core module",
        ),
        (&[text(&clock)], "inspect", "it imports `wasi:clocks"),
        (&[text(&not_json)], "describe", "its manifest is wrong"),
        (
            &[text(&remote_schema)],
            "describe",
            "the schema of its parameters is wrong",
        ),
        (
            &[text(&first_stage), "--parameters", "{\"a\": 1}"],
            "describe",
            "unknown parameter",
        ),
        (
            &[text(&semantic), "--grant", "text"],
            "describe",
            "fields that it is not granted: `title`",
        ),
        (
            &[text(&semantic), "--model", "bi-encoder=none"],
            "models",
            "no model `none`",
        ),
        (
            &[text(&semantic), "--model", "bi-encoder=tiny-cross-encoder"],
            "models",
            "needs a bi-encoder",
        ),
        (
            &[text(&spins), "--guest-cpu-ms", "100"],
            "describe",
            "it used more than its 100 ms of CPU time",
        ),
        (
            &[text(&first_stage), "--name", "other"],
            "describe",
            "it calls itself `first-stage`, but was released as `other`",
        ),
        (
            &[text(&python), "--max-component-mib", "1"],
            "inspect",
            "a component may have 1048576",
        ),
        (
            &[text(&python), "--compile-timeout-ms", "1"],
            "compile",
            "(--compile-timeout-ms)",
        ),
        (
            &[text(&first_stage), "--cases", text(&bad)],
            "cases",
            "1 of its 1 cases failed: `n`: expected the order 1, 0",
        ),
        (
            &[text(&first_stage), "--config", text(&config)],
            "describe",
            "unknown parameter",
        ),
    ];
    for (arguments, step, reason) in steps {
        let output = policy(&[&["check", "--json"], arguments].concat());
        assert_code(&output, 1);
        let checked = json_of(&output);
        let list = checked["steps"].as_array().expect("a list").iter();
        let failed: Vec<&Value> = list.filter(|step| step["result"] == "failed").collect();
        assert_eq!(failed.len(), 1, "{checked}");
        assert_eq!(failed[0]["step"], step, "{checked}");
        assert!(
            failed[0]["detail"].to_string().contains(reason),
            "{checked}"
        );
    }
    let shown = stdout(&policy(&["check", text(&no_component)]));
    assert!(
        shown.contains("would refuse it at step `inspect`"),
        "{shown}"
    );
    let shown = stdout(&policy(&["check", text(&clock), "--allow-wasi"]));
    assert!(shown.contains("\ngood: clock@"), "{shown}");
}

/// Commands that ask a server.
fn remote_commands(component: &str) -> Vec<Vec<&str>> {
    vec![
        vec!["push", component, "--activate"],
        vec!["list"],
        vec!["list", "boost"],
        vec!["activate", "boost", "0.1.0"],
        vec!["rollback", "boost"],
        vec!["canary", "boost", "0.1.0", "10"],
        vec!["shadow", "boost", "--off"],
        vec!["delete", "boost", "3f2a91c0"],
        vec!["events"],
    ]
}

#[test]
fn where_no_server_listens_it_says_how_to_start_one() {
    // A port that was free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let url = format!("http://{}", port.expect("loopback has a free port"));
    let component = require::policies().join("first-stage.wasm");
    for command in remote_commands(text(&component)) {
        let output = policy(&[&command[..], &["--to", &url, "--json"]].concat());
        assert_code(&output, 3);
        let said = stderr(&output);
        assert!(
            said.contains(&format!("nothing listens at `{url}`")),
            "{said}"
        );
        assert!(
            said.contains("start the server with `rerankd serve`"),
            "{said}"
        );
        assert_eq!(json_of(&output)["error"]["code"], "unreachable");
    }
}

#[test]
fn the_data_plane_is_told_from_the_admin_plane() {
    let server = Rerankd::start(&[]);
    let url = format!("http://{}", server.address());
    let component = require::policies().join("first-stage.wasm");
    for command in remote_commands(text(&component)) {
        let output = policy(&[&command[..], &["--to", &url]].concat());
        assert_code(&output, 3);
        assert!(
            stderr(&output).contains("is the data plane"),
            "{}",
            stderr(&output)
        );
    }
}

#[test]
fn another_server_is_no_admin_plane_and_gets_nothing_by_redirect() {
    let answers = [
        (
            "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 6\r\n\r\n<html>",
            "is not rerankd's admin plane: it answered 200 OK",
        ),
        (
            "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "is not rerankd's admin plane: it answered 404",
        ),
        (
            "HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n",
            "answers with a redirect",
        ),
        ("SSH-2.0-OpenSSH_9.9\r\n", "cannot be asked"),
    ];
    for (answer, reason) in answers {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        let server = std::thread::spawn(move || {
            let (mut connection, _) = listener.accept().expect("the client connects");
            let mut request = [0; 4096];
            let read = connection.read(&mut request).expect("the client asks");
            connection
                .write_all(answer.as_bytes())
                .expect("the client listens");
            String::from_utf8_lossy(&request[..read]).into_owned()
        });
        let arguments = ["list", "--to", &url, "--token", "secret"];
        let output = policy(&arguments);
        assert_code(&output, 3);
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
        let request = server.join().expect("the server does not panic");
        assert!(
            request.starts_with("GET /v1/policies HTTP/1.1\r\n"),
            "{request}"
        );
        assert!(
            request.contains("authorization: Bearer secret\r\n"),
            "{request}"
        );
    }
}

#[test]
fn what_cannot_be_sent_is_refused_before_anybody_is_asked() {
    let component = require::policies().join("first-stage.wasm");
    let component = text(&component);
    let folder = Folder::new();
    let module = folder.write("module.wasm", "\0asm\x01\0\0\0");
    let refusals: [(&[&str], i32, &str); 8] = [
        (
            &["push", text(&module)],
            1,
            "is not a WebAssembly component: it is a core module",
        ),
        (&["push", "no-such.wasm"], 2, "cannot read `no-such.wasm`"),
        (
            &["push", component, "--name", "No"],
            2,
            "lower-case letters",
        ),
        (
            &["push", component, "--parameters", "[]"],
            2,
            "must be a JSON object",
        ),
        (
            &["push", component, "--model", "slot"],
            2,
            "must be SLOT=NAME",
        ),
        (
            &["list", "--to", "ftp://localhost"],
            2,
            "is neither http nor https",
        ),
        (
            &["list", "--to", "https://localhost:1", "--ca", component],
            2,
            "there is no certificate in it",
        ),
        (
            &["canary", "boost", "0.1.0", "101"],
            2,
            "101 is not in 0..=100",
        ),
    ];
    for (arguments, code, reason) in refusals {
        let output = policy(arguments);
        assert_code(&output, code);
        assert!(stderr(&output).contains(reason), "{}", stderr(&output));
    }
}
