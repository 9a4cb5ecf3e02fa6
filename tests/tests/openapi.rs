//! The admin plane does what its own description says: that is valid OpenAPI 3.1 and has every route,
//! and schemathesis, which makes up requests from it, gets no answer that it does not describe.

use std::collections::BTreeSet;
use std::process::{Command, Output};

use rerankd_tests::{Folder, Rerankd, require};
use serde_json::Value;

/// What schemathesis looks at. A PUT or POST without a content type is refused before anything else is
/// looked at, so it gets a 415 where two of the other checks want a 401 or 405.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,negative_data_rejection,ignored_auth";

/// A stream of events has no length: it ends with the connection.
const CLOSE: (&str, &str) = ("Connection", "close");

const METHODS: [&str; 5] = ["delete", "get", "patch", "post", "put"];

fn document(server: &Rerankd) -> Value {
    let answer = server.admin_call("GET", "/v1/openapi.json", &[], b"");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.ok().json()
}

#[track_caller]
fn succeeds(command: &mut Command) -> Output {
    let output = command.output().expect("the tool is executable");
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

#[test]
fn the_description_is_valid_openapi_and_has_every_route() {
    let server = Rerankd::start(&[]);
    let document = document(&server);
    let version = document["openapi"].as_str().expect("it has a version");
    assert!(version.starts_with("3.1."), "{version}");
    let folder = Folder::new();
    let file = folder.write("openapi.json", document.to_string());
    succeeds(Command::new(require::openapi_tool("openapi-spec-validator")).arg(file));

    let source = require::root().join("host/server/src/admin/mod.rs");
    let source = std::fs::read_to_string(source).expect("the checkout has it");
    let routes = source.split("Router::new()").nth(1);
    let routes = routes.and_then(|routes| routes.split(".fallback(").next());
    let routes = routes.expect("the routes stand between the two").split('"');
    let routes: BTreeSet<&str> = routes.filter(|text| text.starts_with('/')).collect();
    let paths = document["paths"].as_object().expect("it has paths");
    let described: BTreeSet<&str> = paths.keys().map(String::as_str).collect();
    assert_eq!(described, routes);

    for (path, operations) in paths {
        let called = path
            .replace("{name}", "semantic-blend")
            .replace("{digest}", "00000000")
            .replace("/v1/events", "/v1/events?follow=false");
        for method in METHODS {
            let answer = server.admin_call(
                &method.to_uppercase(),
                &called,
                &[("Content-Type", "application/json"), CLOSE],
                b"",
            );
            assert_eq!(
                answer.status != 405,
                operations[method].is_object(),
                "{method} {path}: {}",
                answer.status
            );
        }
    }
}

#[test]
fn schemathesis_gets_no_answer_that_is_not_described() {
    let server = Rerankd::start(&[]);
    let folder = Folder::new();
    let config = require::root().join("tests/openapi/schemathesis.toml");
    let url = format!("http://{}/v1/openapi.json", server.admin_address());
    succeeds(
        Command::new(require::openapi_tool("schemathesis"))
            .args(["--config-file".as_ref(), config.as_os_str()])
            .args(["run", &url, "--checks", CHECKS])
            .env("RERANKD_TEST_TOKEN", server.admin_token())
            .current_dir(folder.path()),
    );
    // It has called routes that change something, too.
    let refusals = server.metric(
        "rerankd_admin_refusals_total",
        &[("reason", "token-missing")],
    );
    assert!(refusals > 0.0, "it tried no route without a token");
}

#[test]
fn events_are_as_described() {
    let server = Rerankd::start(&[]);
    let document = document(&server);
    let schema = &document["components"]["schemas"]["EventView"];
    let properties = schema["properties"].as_object().expect("it has properties");
    let required = schema["required"].as_array().expect("some are required");
    let answer = server
        .admin_call("GET", "/v1/events?follow=false", &[CLOSE], b"")
        .ok();
    let kind = answer.header("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/event-stream"), "{kind}");
    let text = answer.text();
    let events = text.lines().filter_map(|line| line.strip_prefix("data:"));
    let events: Vec<Value> = events
        .map(|data| serde_json::from_str(data).expect("the data is JSON"))
        .collect();
    assert!(
        events.len() >= 6,
        "three policies were staged and activated: {text}"
    );
    for event in events {
        let keys = event.as_object().expect("an event is an object");
        for key in keys.keys() {
            assert!(properties.contains_key(key), "`{key}` of {event}");
        }
        for key in required {
            let key = key.as_str().expect("a name");
            assert!(keys.contains_key(key), "no `{key}` in {event}");
        }
    }
}
