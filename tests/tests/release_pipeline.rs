//! Each step of the release pipeline refuses in words of its own, and what serves goes on serving.

use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rerankd_tests::admin::{AdminError, assert_refused, error, parameters};
use rerankd_tests::components::{
    self, EMPTY, echo, faulty, faulty_echo, hollow, invalid_module, module_with_memories,
    module_with_tables, with_cases, with_instances, with_manifest,
};
use rerankd_tests::usage::cpu_time;
use rerankd_tests::{Deployment, Folder, PATIENCE};
use serde_json::{Value, json};

/// Only one upload at a time: the server takes few at once.
fn server() -> MutexGuard<'static, Deployment> {
    static SERVER: LazyLock<Mutex<Deployment>> = LazyLock::new(|| {
        let server = Deployment::start(&["--guest-memory-mib", "64"]);
        server.release_echo(1, true);
        Mutex::new(server)
    });
    SERVER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A component is refused as `echo` in this step, with these words, and nothing has changed.
#[track_caller]
fn check(component: &[u8], query: &str, step: &str, parts: &[&str]) -> AdminError {
    let server = server();
    let state = || (server.detail("echo")["versions"].clone(), server.list());
    let (before, serving) = (state(), server.serving("echo"));
    let answer = server.push("echo", component, &format!("activate=true&{query}"));
    assert_refused(&answer, 422, step, parts);
    let (refused, last) = (error(&answer), server.events("", &[]).pop());
    assert_eq!(refused.code, "refused");
    assert_eq!(server.serving("echo"), serving);
    // The calls above are in the numbers of the version.
    let without_traffic = |(mut versions, list): (Value, Value)| {
        for version in versions.as_array_mut().expect("an array") {
            version["traffic"] = Value::Null;
        }
        (versions, list)
    };
    assert_eq!(without_traffic(state()), without_traffic(before));
    let event = last.expect("a refusal is an event");
    let message = format!("{step}: {}", refused.message);
    assert_eq!(
        (event.kind.as_str(), &event.data["policy"]),
        ("refused", &json!("echo"))
    );
    let noted = event.data["message"].as_str().expect("it has a message");
    assert!(message.starts_with(noted), "{noted}, not {message}");
    refused
}

#[test]
fn what_is_no_component_is_refused_before_it_is_compiled() {
    let none = "not a WebAssembly component: ";
    let start = "it does not begin like WebAssembly";
    check(b"hello", "", "inspect", &[none, start]);
    check(b"PK\x03\x04", "", "inspect", &[none, start]);
    check(b"", "", "inspect", &[none, "it is empty"]);
    let module = b"\0asm\x01\0\0\0";
    let remedy = "`rerankd policy build`";
    check(module, "", "inspect", &[none, "core module", remedy]);
}

#[test]
fn an_upload_that_was_cut_off_is_called_so() {
    let whole = echo("0.2.0");
    for length in [5, 9, whole.len() / 3, whole.len() - 1] {
        let says = ["not a WebAssembly component", "was the upload cut off?"];
        check(&whole[..length], "", "inspect", &says);
    }
}

#[test]
fn a_component_for_another_world_is_told_which_import_or_export() {
    let export = "it does not export `rerank:policy/policy@0.1.0`";
    let world = "`rerank:policy/reranker@0.1.0`";
    check(&EMPTY, "", "inspect", &[export, world]);
    let import = "it imports `wasi:";
    let may = "a policy may import wasi:nn/tensor@";
    check(&faulty("sleep"), "", "inspect", &[import, may]);
    check(&faulty("clock"), "", "inspect", &[import, may]);
    let contract = "it does not fit the contract: ";
    let module = b"\0asm\x01\0\0\0";
    check(&hollow(module), "", "describe", &[contract]);
}

#[test]
fn code_that_is_invalid_is_refused_by_the_compiler() {
    let component = hollow(&invalid_module());
    check(&component, "", "compile", &["it cannot be compiled: "]);
}

#[test]
fn a_manifest_that_is_wrong_is_refused() {
    let wrong = "its manifest is wrong: ";
    check(&faulty("not-json"), "", "describe", &[wrong, "line 1"]);
    let unknown = "unknown field `moon`";
    check(&faulty("unknown-key"), "", "describe", &[wrong, unknown]);
    let newer = with_manifest(&faulty("echo"), |manifest| {
        manifest["manifest_version"] = json!(2);
    });
    let version = "`manifest_version` is 2; this host reads 1";
    check(&newer, "", "describe", &[wrong, version]);
    let kind = with_manifest(&faulty("echo"), |manifest| {
        manifest["score_kind"] = json!("stars");
    });
    check(&kind, "", "describe", &[wrong, "`score_kind`", "`stars`"]);
    let name = "it calls itself `panic`, but was released as `echo`";
    check(&faulty("panic"), "", "describe", &[name]);
}

#[test]
fn a_schema_that_is_wrong_remote_or_huge_is_refused() {
    let schema = "the schema of its parameters is wrong: ";
    check(&faulty("bad-schema"), "", "describe", &[schema, "12"]);
    let remote = "`$ref` to `https://example.com/schema.json`: only `#..` is allowed";
    check(&faulty("remote-schema"), "", "describe", &[schema, remote]);
    let huge = ["its manifest is wrong: ", "bytes; at most 131072 are read"];
    check(&faulty("huge-schema"), "", "describe", &huge);
}

#[test]
fn what_the_pool_has_no_room_for_is_refused_by_its_limit_and_its_number() {
    let compile = "it cannot be compiled: ";
    let refused = |module: &[u8], count: usize, parts: &[&str]| {
        let component = with_instances(&echo("0.2.0"), module, count);
        check(&component, "", "compile", &[&[compile], parts].concat());
    };
    let another = module_with_memories(&[1]);
    refused(&another, 1, &["2 Wasm linear memories", "maximum of 1"]);
    // 64 MiB is what this server gives.
    let large = module_with_memories(&[2000]);
    let memory = [
        "minimum byte size of 131072000",
        "the limit of 0x4000000 bytes",
    ];
    refused(&large, 1, &memory);
    let table = ["minimum element size of 20001", "the limit of 20000"];
    refused(&module_with_tables(&[20_001]), 1, &table);
    let many = ["defined tables count of 5", "limit of 1"];
    refused(&module_with_tables(&[1; 5]), 1, &many);
    let tables = [" tables, which exceeds", "maximum of 4"];
    refused(&module_with_tables(&[1]), 5, &tables);
    let nothing = module_with_memories(&[]);
    let instances = [" core module instances", "maximum of 96"];
    refused(&nothing, 97, &instances);
    let log = server().stderr();
    assert!(!log.contains("ERROR"), "{log}");
}

#[test]
fn cases_that_loop_end_with_what_all_of_a_set_may_use() {
    let case = |number: usize| {
        json!({
            "name": format!("case {number}"),
            "request": {"query": "q", "documents": ["a"]},
            "expect": {"order": [0]},
        })
    };
    let cases: Vec<Value> = (0..100).map(case).collect();
    let spins = with_cases(&faulty_echo("spin", "0.2.0"), &json!({"cases": cases}));
    let server = Deployment::start(&["--guest-cpu-ms", "100"]);
    let before = cpu_time(&server);
    let answer = server.push("echo", &spins, "");
    let spent = cpu_time(&server).saturating_sub(before);
    let failed = "100 of its 100 cases failed: `case 0`: expected a ranking, got: policy echo@";
    assert_refused(&answer, 422, "cases", &[failed]);
    // Ten times the budget of one, and what it takes to run a hundred; all of them would need ten seconds.
    assert!(spent < Duration::from_secs(3), "{spent:?}");
}

#[test]
fn a_describe_that_traps_or_grows_is_refused() {
    let failed = "its manifest cannot be had: `describe` failed: ";
    let trap = "it trapped: wasm trap: wasm `unreachable`";
    check(&faulty("trap-in-describe"), "", "describe", &[failed, trap]);
    let memory = "its 64 MiB of memory (--guest-memory-mib)";
    check(
        &faulty("grow-in-describe"),
        "",
        "describe",
        &[failed, memory],
    );
}

#[test]
fn a_describe_that_loops_keeps_nobody_waiting() {
    let server = server();
    let serving = server.serving("echo");
    let mut searches = 0;
    let started = Instant::now();
    std::thread::scope(|scope| {
        let looping = scope.spawn(|| {
            let component = faulty("spin-in-describe");
            let answer = server.push("spin-in-describe", &component, "activate=true");
            (answer, started.elapsed())
        });
        // Compiling takes longer than the loop lasts where others want the cores: it is no search's turn.
        let another = scope.spawn(|| server.release("panic", &faulty("panic"), ""));
        while !looping.is_finished() {
            assert_eq!(server.serving("echo"), serving);
            searches += 1;
        }
        let (answer, took) = looping.join().expect("it does not panic");
        another.join().expect("another release is made");
        let says = ["`describe` failed: ", "of CPU time (--guest-cpu-ms)"];
        assert_refused(&answer, 422, "describe", &says);
        assert!(took < PATIENCE, "{took:?}");
    });
    assert!(searches > 1, "{searches} searches");
}

#[test]
fn models_that_are_missing_or_of_another_kind_are_refused() {
    let waits = || faulty_echo("waits", "0.2.0");
    let slot = "its model slot `bi-encoder` ";
    let unknown = with_manifest(&waits(), |manifest| {
        manifest["models"][0]["default"] = json!("no-such-model");
    });
    check(&unknown, "", "models", &[slot, "no-such-model"]);
    let query = "model=bi-encoder:moon";
    check(&waits(), query, "models", &[slot, "moon"]);
    let query = "model=bi-encoder:tiny-cross-encoder";
    let kind = ["tiny-cross-encoder", "cross-encoder"];
    check(&waits(), query, "models", &[&[slot][..], &kind].concat());
    let query = "model=moon:all-minilm-l6-v2";
    let known = "its model slot `moon` does not exist; its manifest has: bi-encoder";
    check(&waits(), query, "models", &[known]);
}

/// A name is one folder of `--models`: it leads to no other, and what is said of it shows no other file.
#[test]
fn a_name_of_a_model_is_no_path() {
    let folder = Folder::new();
    let secret = "password = hunter2";
    folder.write("outside/manifest.toml", secret);
    folder.write(
        "models/broken/manifest.toml",
        format!("name = \"broken\"\n{secret}\n"),
    );
    let models = folder.path().join("models");
    let models = models.to_str().expect("the path is UTF-8");
    let server = Deployment::start(&["--models", models]);
    let waits = |default: &str| {
        with_manifest(&faulty_echo("waits", "0.2.0"), |manifest| {
            manifest["models"][0]["default"] = json!(default);
        })
    };
    let absolute = folder.path().join("outside");
    let absolute = absolute.to_str().expect("the path is UTF-8");
    let must = "must be one folder's name";
    let names = [
        "../outside",
        "x/../../outside",
        absolute,
        "..",
        ".",
        ".hidden",
        "",
    ];
    for name in names {
        let query = format!("model=bi-encoder:{}", name.replace('/', "%2F"));
        let answer = server.push("echo", &waits("x"), &query);
        assert_refused(&answer, 400, "", &["`model`", must]);
        assert!(!answer.text().contains("hunter2"), "{}", answer.text());
    }
    for name in ["../outside", "..", ".hidden", "a\u{1b}b"] {
        let answer = server.push("echo", &waits(name), "");
        assert_refused(
            &answer,
            422,
            "models",
            &["its model slot `bi-encoder` ", must],
        );
        assert!(!answer.text().contains("hunter2"), "{}", answer.text());
    }
    // One that is its own, and broken: where, not what stands there.
    let answer = server.push("echo", &waits("broken"), "");
    assert_refused(&answer, 422, "models", &["broken/manifest.toml`: line 2: "]);
    assert!(!answer.text().contains("hunter2"), "{}", answer.text());
    for path in [
        "/inference/encoder/..%2Foutside",
        "/inference/cross/..%2Foutside",
    ] {
        let answer = server.post_text(path, "{}");
        assert!([400, 404].contains(&answer.status), "{}", answer.text());
        assert!(!answer.text().contains("hunter2"), "{}", answer.text());
    }
}

#[test]
fn parameters_that_break_the_schema_are_refused() {
    let component = faulty_echo("wrong-inputs", "0.2.0");
    let wrong = "the parameters set for it are wrong: ";
    let moon = parameters(&json!({"case": "moon"}));
    check(&component, &moon, "describe", &[wrong, "case"]);
    let unknown = parameters(&json!({"case": "name", "moon": 1}));
    check(&component, &unknown, "describe", &[wrong, "moon"]);
    let none = faulty_echo("trap", "0.2.0");
    let any = parameters(&json!({"weight": 1}));
    check(&none, &any, "describe", &[wrong, "weight"]);
}

#[test]
fn grants_that_leave_out_a_field_name_it() {
    let component = echo("0.2.0");
    let asks = "it asks for fields that it is not granted: ";
    let parts = [asks, "`text`; granted: `title`"];
    check(&component, "grant=title", "describe", &parts);
    let parts = [asks, "`text`, `title`"];
    let parts_or = [asks, "`title`, `text`"];
    let refused = {
        let answer = server().push("echo", &component, "grant=price");
        error(&answer)
    };
    let has = |parts: &[&str]| parts.iter().all(|part| refused.message.contains(part));
    assert!(has(&parts) || has(&parts_or), "{refused:?}");
}

fn case(name: &str, order: [&str; 2]) -> Value {
    json!({
        "name": name,
        "request": {"query": "q", "documents": [{"id": "a", "fields": {}}, {"id": "b", "fields": {}}]},
        "expect": {"order": order},
    })
}

#[test]
fn a_case_that_fails_is_named() {
    let cases =
        json!({"cases": [case("as it came", ["a", "b"]), case("the wrong way", ["b", "a"])]});
    let failed = ["1 of its 2 cases failed: `the wrong way`: "];
    let component = with_cases(&echo("0.2.0"), &cases);
    check(&component, "", "cases", &failed);
    let server = server();
    let before = server.list();
    let beside = cases.to_string();
    let parts = [
        ("component", &echo("0.2.0")[..]),
        ("cases", beside.as_bytes()),
    ];
    assert_refused(&server.push_form("echo", "", &parts), 422, "cases", &failed);
    assert_eq!(server.list(), before);
}

#[test]
fn cases_that_are_none_are_refused() {
    let unreadable = "its cases cannot be read: ";
    for (cases, says) in [
        (json!({"cases": 7}), "cases"),
        (json!({"moon": []}), "moon"),
    ] {
        let component = with_cases(&echo("0.2.0"), &cases);
        check(&component, "", "cases", &[unreadable, says]);
    }
    let once = json!({"cases": []});
    let twice = with_cases(&with_cases(&echo("0.2.0"), &once), &once);
    let says = "there are two sections `rerank:cases`";
    check(&twice, "", "cases", &[unreadable, says]);
    let huge = components::with_section(&echo("0.2.0"), "rerank:cases", &vec![b' '; 300 << 10]);
    let says = "at most 262144 are read";
    check(&huge, "", "cases", &[unreadable, says]);
}

#[test]
fn what_the_cases_came_to_is_shown() {
    let server = server();
    let cases = json!({"cases": [case("as it came", ["a", "b"])]});
    let component = with_cases(&echo("0.3.0"), &cases);
    let answer = server.push("echo", &component, "");
    assert_eq!(answer.status, 201, "{}", answer.text());
    let answer = answer.json();
    let result = &answer["cases"]["results"][0];
    assert_eq!(
        (&result["name"], &result["passed"]),
        (&json!("as it came"), &json!(true))
    );
    for (key, count) in [("total", 1), ("passed", 1), ("failed", 0)] {
        assert_eq!(answer["cases"][key], count, "{answer}");
    }
    let digest = answer["digest"].as_str().expect("it has a digest");
    let version = server.version("echo", digest);
    assert_eq!(version["cases"], answer["cases"]);
    assert_eq!(server.delete("echo", digest).status, 204);
}

#[test]
fn a_component_over_the_limit_is_refused_early() {
    let server = Deployment::start(&["--max-component-mib", "1"]);
    let active = server.release_echo(1, true);
    let flag = "(--max-component-mib)";
    // One is read, as parts of a form may stand beside a component; the other is not.
    let limit = "1572864 bytes; a component may have 1048576";
    for (mib, parts) in [(1.5, [limit, flag]), (3.0, ["the body is larger", flag])] {
        let mut component = EMPTY.to_vec();
        component.resize((mib * f64::from(1 << 20)) as usize, 0);
        let answer = server.push("echo", &component, "activate=true");
        assert_refused(&answer, 413, "inspect", &parts);
    }
    // What is only announced is not waited for.
    let mut connection =
        rerankd_tests::Connection::open(server.admin_address()).expect("the admin plane listens");
    let (host, bearer) = (
        server.admin_address().to_string(),
        format!("Bearer {}", server.admin_token()),
    );
    let headers = [
        ("Host", host.as_str()),
        ("Authorization", &bearer),
        ("Content-Type", "application/wasm"),
        ("Content-Length", "1073741824"),
    ];
    let head = rerankd_tests::http::head("PUT", "/v1/policies/echo", &headers);
    let started = Instant::now();
    connection.send(head).expect("the server listens");
    let answer = connection.answer().expect("it answers at once");
    assert_refused(&answer, 413, "inspect", &["the body is larger", flag]);
    assert!(started.elapsed() < Duration::from_secs(20));
    assert_eq!(server.serving("echo"), active[..8]);
}
