//! What is wrong with a pipeline is no fault of those who search through it.

use rerankd_tests::Upstream;
use rerankd_tests::search_page::ids;
use rerankd_tests::upstream::{nobody, write_json};
use serde_json::{Value, json};

use crate::sidecar::fresh_name;
use crate::world::{WORLD, pipeline, search, turn};
use crate::{QUERY, marker};

#[test]
fn parameters_that_the_policy_refuses_are_refused_when_the_pipeline_is_put() {
    let _turn = turn();
    let name = fresh_name();
    let put = |parameters: Value| {
        let url = WORLD.sidecar_url();
        let options = json!({"url": url, "policy": "semantic-blend", "parameters": parameters});
        WORLD.put_pipeline(&name, &pipeline(&options))
    };
    for parameters in [
        json!({"weight": 5}),
        json!({"weights": 0.5}),
        json!({"fields": []}),
    ] {
        let got = put(parameters.clone());
        assert_eq!(got.status, 400, "{parameters}: {}", got.text());
        assert!(got.text().contains("parameters"), "{}", got.text());
    }
    let kept = WORLD.call("GET", &format!("/_search/pipeline/{name}"), &Value::Null);
    assert_eq!(kept.status, 404);
    put(json!({"weight": 0.5, "fields": ["title"]})).ok();
}

#[test]
fn a_pipeline_can_be_put_before_its_sidecar_is_there() {
    let _turn = turn();
    let url = format!("http://{}", nobody());
    let options = json!({"url": url, "policy": "semantic-blend", "parameters": {"weight": 5}});
    WORLD.put_pipeline(&fresh_name(), &pipeline(&options)).ok();
}

/// A sidecar that refuses what stands at a place of the request, but for the first time.
fn refusing(at: &'static str) -> Upstream {
    let asked = std::sync::atomic::AtomicUsize::new(0);
    Upstream::start(move |_, stream| {
        let first = asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == 0;
        let error = json!({"type": "bad_request", "code": 400, "message": format!("`{at}`: wrong"), "at": at});
        match first {
            true => write_json(stream, "404 Not Found", "{}"),
            false => {
                let body = json!({"status": "error", "error": error}).to_string();
                write_json(stream, "400 Bad Request", &body)
            }
        }
    })
}

#[test]
fn parameters_that_no_longer_fit_leave_the_engines_page() {
    let _turn = turn();
    for (at, reason) in [
        ("parameters.weight", "rule"),
        ("fields[0]", "rule"),
        ("query", "bad-request"),
    ] {
        let sidecar = refusing(at);
        let options = json!({
            "url": sidecar.url(), "policy": "scripted", "fields": ["title"], "parameters": {"weight": 5},
        });
        let name = fresh_name();
        WORLD.put_pipeline(&name, &pipeline(&options)).ok();
        let path = format!("/products/_search?search_pipeline={name}");
        let got = WORLD.post(&path, &search(QUERY)).ok();
        let said = marker::object(&got);
        assert_eq!(
            (&said["status"], &said["reason"]),
            (&json!("failed"), &json!(reason))
        );
        assert!(
            said["message"]
                .as_str()
                .is_some_and(|text| text.contains(at)),
            "{said}"
        );
        assert_eq!(ids(got.text()), ids(WORLD.alone(&search(QUERY)).text()));
        let mut wants_errors = search(QUERY);
        wants_errors["ext"] = json!({"rerankd": {"on_failure": "error"}});
        assert_eq!(WORLD.post(&path, &wants_errors).status, 424);
    }
}

#[test]
fn the_same_is_refused_where_the_search_said_it() {
    let _turn = turn();
    let sidecar = refusing("parameters.weight");
    let options =
        json!({"url": sidecar.url(), "policy": "scripted", "fields": ["title"], "parameters": {}});
    let name = fresh_name();
    WORLD.put_pipeline(&name, &pipeline(&options)).ok();
    let mut body = search(QUERY);
    body["ext"] = json!({"rerankd": {"parameters": {"weight": 5}}});
    let got = WORLD.post(&format!("/products/_search?search_pipeline={name}"), &body);
    assert_eq!(got.status, 400, "{}", got.text());
    assert!(got.text().contains("parameters.weight"), "{}", got.text());
}

#[test]
fn documents_that_are_too_large_for_the_sidecar_fail_no_search() {
    let _turn = turn();
    let sidecar = Upstream::start(|_, stream| {
        let error =
            json!({"type": "too_large", "code": 413, "message": "the body has too many bytes"});
        let body = json!({"status": "error", "error": error}).to_string();
        write_json(stream, "413 Payload Too Large", &body)
    });
    let options = json!({"url": sidecar.url(), "policy": "scripted", "fields": ["title"]});
    let name = fresh_name();
    WORLD.put_pipeline(&name, &pipeline(&options)).ok();
    let got = WORLD
        .post(
            &format!("/products/_search?search_pipeline={name}"),
            &search(QUERY),
        )
        .ok();
    assert_eq!(marker::fate(&got).reason.as_deref(), Some("too-large"));
    assert_eq!(ids(got.text()), ids(WORLD.alone(&search(QUERY)).text()));
}
