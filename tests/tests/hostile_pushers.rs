//! Who may push a policy brings a schema along, and parameters, and versions without number: none of it
//! takes the server's memory, or holds up anybody else.

use rerankd_tests::admin::assert_refused;
use rerankd_tests::components::{bundled, faulty, with_manifest};
use rerankd_tests::{Deployment, Folder, Rerankd, eventually};
use serde_json::{Value, json};

/// The most memory that a server has had, MiB.
fn peak_mib(server: &Rerankd) -> u64 {
    let status = format!("/proc/{}/status", server.id());
    let status = std::fs::read_to_string(status).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
    let kib: u64 = peak.and_then(|kib| kib.parse().ok()).expect("a number");
    kib >> 10
}

/// Schemas, each of which names the one before four times: a million of them in a kilobyte.
fn multiplied(key: &str, leaf: &Value) -> Value {
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
    let mut schemas = json!({"a": leaf});
    for pair in names.windows(2) {
        let before = json!({"$ref": format!("#/$defs/{}", pair[0])});
        schemas[pair[1]] = json!({key: [before, before, before, before]});
    }
    schemas
}

/// A component whose parameters have this schema.
fn with_schema(base: &str, name: &str, schema: &Value) -> Vec<u8> {
    with_manifest(&bundled(base), |manifest| {
        let manifest = manifest.as_object_mut().expect("it is an object");
        manifest.remove("models");
        manifest.insert("name".to_owned(), json!(name));
        manifest.insert("parameters".to_owned(), schema.clone());
    })
}

/// Releases a component without its cases.
fn push_without_cases(server: &Deployment, name: &str, component: &[u8], parameters: &Value) {
    let parameters = parameters.to_string();
    let parts = [
        ("component", component),
        ("parameters", parameters.as_bytes()),
        ("cases", br#"{"cases": []}"#),
    ];
    let answer = server.push_form(name, "activate=true", &parts);
    assert_eq!(answer.status, 201, "{}", answer.text());
}

/// A server with the bundled policies.
fn serve() -> Deployment {
    Deployment::of(Rerankd::start(&[]), Folder::new())
}

/// Asks a good policy until `done`; each answer comes within its deadline.
fn neighbour(server: &Rerankd, done: impl Fn() -> bool) {
    let request = json!({"query": "q", "documents": ["one", "two"], "timeout_ms": 5000});
    let mut answers = 0;
    while answers < 3 || !done() {
        let answer = server.post("/v1/rerank/first-stage", &request).ok();
        assert_eq!(answer.json()["status"], "applied", "{}", answer.text());
        answers += 1;
    }
}

#[test]
fn a_schema_that_multiplies_is_refused_and_holds_up_nobody() {
    let server = serve();
    neighbour(&server, || true);
    let before = peak_mib(&server);
    let last = json!({"$ref": "#/$defs/j"});
    let schemas = ["allOf", "anyOf", "oneOf"].map(|key| {
        [
            json!({"$defs": multiplied(key, &json!(true)), "$ref": "#/$defs/j"}),
            json!({
                "$defs": multiplied(key, &json!(false)),
                "if": {"required": ["boom"]}, "then": last,
            }),
        ]
    });
    std::thread::scope(|scope| {
        let uploads: Vec<_> = schemas
            .as_flattened()
            .iter()
            .map(|schema| {
                let server = &server;
                scope.spawn(move || {
                    let component = with_schema("semantic-blend", "bomb", schema);
                    eventually("there is a place for it", || {
                        let answer = server.push("bomb", &component, "activate=true");
                        (answer.status != 429).then_some(answer)
                    })
                })
            })
            .collect();
        neighbour(&server, || uploads.iter().all(|it| it.is_finished()));
        for upload in uploads {
            let answer = upload.join().expect("it does not panic");
            assert_refused(&answer, 422, "describe", &["more than 10000 steps"]);
        }
    });
    let grown = peak_mib(&server) - before;
    assert!(grown < 256, "{grown} MiB");
}

/// The schema is small, and so is each request; what they make of each other is not.
#[test]
fn parameters_that_never_end_to_be_checked_hold_up_nobody() {
    let server = serve();
    let inner = json!({"$ref": "#"});
    let schema = json!({"properties": {"a": {"allOf": [inner, inner]}}});
    let component = with_schema("first-stage", "deep", &schema);
    push_without_cases(&server, "deep", &component, &json!({}));
    let mut deep = json!(1);
    for _ in 0..50 {
        deep = json!({"a": deep});
    }
    let hostile =
        json!({"query": "q", "documents": ["d"], "parameters": deep, "timeout_ms": 30000});
    let good = json!({"query": "q", "documents": ["d"], "parameters": {"a": {"a": 1}}});
    server.post("/v1/rerank/deep", &good).ok();
    let before = peak_mib(&server);
    std::thread::scope(|scope| {
        let hostile = &hostile;
        let calls: Vec<_> = (0..8)
            .map(|_| {
                let server = &server;
                scope.spawn(move || {
                    let call = || server.post("/v1/rerank/deep", hostile);
                    [call(), call(), call()]
                })
            })
            .collect();
        neighbour(&server, || calls.iter().all(|it| it.is_finished()));
        for answer in calls.into_iter().flat_map(|it| it.join().expect("it ends")) {
            assert_eq!(answer.status, 400, "{}", answer.text());
            let message = answer.error_message();
            assert!(message.contains("steps"), "{message}");
        }
    });
    let grown = peak_mib(&server) - before;
    assert!(grown < 128, "{grown} MiB");
    server.post("/v1/rerank/deep", &good).ok();
}

/// What waits for the host's own work on it are few of one policy, and no release is behind them.
#[test]
fn however_much_of_that_waits_others_and_releases_have_their_turn() {
    let server = serve();
    let inner = json!({"$ref": "#"});
    let schema = json!({"properties": {"a": {"allOf": [inner, inner]}}});
    let component = with_schema("first-stage", "deep", &schema);
    push_without_cases(&server, "deep", &component, &json!({}));
    let other = with_schema("first-stage", "other", &json!({}));
    push_without_cases(&server, "other", &other, &json!({}));
    let mut deep = json!(1);
    for _ in 0..50 {
        deep = json!({"a": deep});
    }
    let hostile =
        json!({"query": "q", "documents": ["d"], "parameters": deep, "timeout_ms": 30000});
    let large = json!({"filler": "x".repeat(100_000)});
    let large = json!({"query": "q", "documents": ["d"], "parameters": large, "timeout_ms": 5000});
    std::thread::scope(|scope| {
        let calls: Vec<_> = (0..100)
            .map(|_| {
                let (server, hostile) = (&server, &hostile);
                let call = || server.post("/v1/rerank/deep", hostile).status;
                scope.spawn(move || [call(), call(), call(), call()])
            })
            .collect();
        let mut n = 0;
        while n < 3 || !calls.iter().all(|it| it.is_finished()) {
            server.post("/v1/rerank/other", &large).ok();
            push_without_cases(&server, "other", &other, &json!({"n": n}));
            n += 1;
        }
        for status in calls.into_iter().flat_map(|it| it.join().expect("it ends")) {
            assert!(matches!(status, 400 | 429), "{status}");
        }
    });
}

/// As a tree they are a hundred times their text, 25 MB each.
#[test]
fn calls_that_run_hold_no_tree_of_their_parameters() {
    let spin = with_manifest(&faulty("spin"), |manifest| {
        manifest["parameters"] = json!({});
    });
    let limits = ["--guest-cpu-ms", "150", "--max-timeout-ms", "60000"];
    let server = Deployment::of(Rerankd::start(&limits), Folder::new());
    push_without_cases(&server, "spin", &spin, &json!({}));
    let many = vec![json!({"": 0}); 37_000];
    let request = json!({
        "query": "q", "documents": ["d"], "parameters": {"a": many},
        "timeout_ms": 60_000, "on_failure": "error",
    });
    let before = peak_mib(&server);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                // Few of one policy may wait to be checked.
                let called = || server.post("/v1/rerank/spin", &request);
                let answer = eventually("it runs", || {
                    Some(called()).filter(|answer| answer.status != 429)
                });
                assert_eq!(answer.status, 424, "{}", answer.text());
                let message = answer.error_message();
                assert!(message.contains("CPU time"), "{message}");
            });
        }
    });
    let grown = peak_mib(&server) - before;
    assert!(grown < 192, "{grown} MiB");
}

/// Before anybody is admitted, so that nothing else bounds it.
#[test]
fn asking_for_versions_that_are_not_there_costs_no_memory() {
    let server = serve();
    let component = with_schema("first-stage", "large", &json!({}));
    for n in 0..20 {
        let parameters = json!({"n": n, "filler": "x".repeat(200_000)});
        push_without_cases(&server, "large", &component, &parameters);
    }
    let before = peak_mib(&server);
    let request = json!({"query": "q", "documents": ["d"]});
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let answer = server.post("/v1/rerank/large@nothing", &request);
                    assert_eq!(answer.status, 404, "{}", answer.text());
                    assert!(answer.text().len() < 4096, "{}", answer.text());
                }
            });
        }
    });
    let grown = peak_mib(&server) - before;
    assert!(grown < 64, "{grown} MiB");
}

/// Before anybody is admitted as well: each is loaded for it, and none stays for long.
#[test]
fn asking_for_one_stored_version_after_the_other_holds_up_nobody() {
    let server = serve();
    let component = with_schema("first-stage", "many", &json!({}));
    for n in 0..12 {
        push_without_cases(&server, "many", &component, &json!({"n": n}));
    }
    let detail = server.detail("many");
    let versions = detail["versions"].as_array().expect("it has some");
    let paths: Vec<String> = versions
        .iter()
        .filter_map(|version| version["digest"].as_str())
        .map(|digest| format!("/v1/rerank/many@{digest}"))
        .collect();
    assert_eq!(paths.len(), 12);
    let before = peak_mib(&server);
    let request = json!({"query": "q", "documents": ["d"]});
    std::thread::scope(|scope| {
        let askers: Vec<_> = (0..200)
            .map(|asker| {
                let (server, paths, request) = (&server, &paths, &request);
                scope.spawn(move || {
                    let ask = |n: usize| server.post(&paths[(asker + n) % 12], request).status;
                    [ask(0), ask(1), ask(2)]
                })
            })
            .collect();
        neighbour(&server, || askers.iter().all(|it| it.is_finished()));
        for status in askers
            .into_iter()
            .flat_map(|it| it.join().expect("it ends"))
        {
            assert!(matches!(status, 200 | 429), "{status}");
        }
    });
    let grown = peak_mib(&server) - before;
    assert!(grown < 96, "{grown} MiB");
    eventually("there is a place again", || {
        (server.post(&paths[0], &request).status == 200).then_some(())
    });
}
