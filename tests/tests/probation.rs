//! A version that took a role and fails too often is taken back, and only for faults of its own.

use rerankd_tests::admin::assert_refused;
use rerankd_tests::components::{echo, faulty_echo};
use rerankd_tests::{Deployment, eventually};
use serde_json::{Value, json};

const TEN_CALLS: [&str; 2] = ["--probation-min-calls", "10"];

fn taken_back(server: &Deployment) -> f64 {
    server.metric("rerankd_policies_taken_back_total", &[])
}

/// Asks, with an answer in every case: a fault is the engine's order.
fn ask(server: &Deployment, times: usize) {
    for _ in 0..times {
        server.ask("echo", "q", &[]).ok();
    }
}

/// Waits until a version was taken back; what the event says.
fn message_of_taking_back(server: &Deployment, digest: &str) -> String {
    // It is counted when all is done; the journal is written before the swap.
    eventually("it is counted", || (taken_back(server) > 0.0).then_some(()));
    let event = eventually("a version is taken back", || {
        let mut events = server.events("", &[]).into_iter();
        events.find(|event| event.kind == "taken-back")
    });
    assert_eq!(
        (&event.data["digest"], &event.data["who"]),
        (&json!(digest), &json!("rerankd"))
    );
    event.data["message"]
        .as_str()
        .expect("it says why")
        .to_owned()
}

#[test]
fn a_version_that_fails_gives_way_to_its_predecessor() {
    let mut server = Deployment::start(&TEN_CALLS);
    let good = server.release("echo", &echo("1.0.0"), "activate=true");
    let bad = server.release("echo", &faulty_echo("trap", "2.0.0"), "activate=true");
    // The way back must not be cut off.
    let role = "only a version without a role can be deleted";
    assert_refused(
        &server.delete("echo", &good),
        409,
        "",
        &["the version to roll back to", role],
    );
    ask(&server, 9);
    assert_eq!(
        server.serving("echo"),
        bad[..8],
        "the tenth call is the last"
    );
    let message = message_of_taking_back(&server, &bad);
    assert!(message.contains("10 of its 10 calls"), "{message}");
    assert!(
        message.contains(&format!("{} answers again", &good[..8])),
        "{message}"
    );
    let answer = server.ask("echo", "q", &[]).ok();
    assert_eq!(answer.json()["version"], good[..8]);
    assert_eq!(answer.parameter("status"), Some("applied"));
    assert_eq!(taken_back(&server), 1.0);
    let detail = server.detail("echo");
    assert_eq!(
        (&detail["active"]["digest"], &detail["rollback_to"]),
        (&json!(good), &Value::Null)
    );
    assert_eq!(server.version("echo", &bad)["state"], "staged");
    let kinds = server.event_kinds("echo");
    assert!(kinds.contains(&"fault".to_owned()), "{kinds:?}");
    server.restart();
    assert_eq!(server.serving("echo"), good[..8]);
    // Nobody is kept from trying again, and it is watched again.
    server
        .role("echo", "activate", &json!({"digest": bad}))
        .ok();
    ask(&server, 10);
    eventually("it is taken back again", || {
        (server.serving("echo") == good[..8]).then_some(())
    });
}

#[test]
fn a_canary_that_fails_loses_its_share() {
    let server = Deployment::start(&TEN_CALLS);
    let good = server.release("echo", &echo("1.0.0"), "activate=true");
    let bad = server.release("echo", &faulty_echo("trap", "2.0.0"), "");
    let canary = json!({"digest": bad, "percent": 100});
    server.role("echo", "canary", &canary).ok();
    ask(&server, 10);
    let message = message_of_taking_back(&server, &bad);
    assert!(message.contains("its share is 0 % now"), "{message}");
    let detail = server.detail("echo");
    assert_eq!(
        (&detail["active"]["digest"], &detail["canary"]),
        (&json!(good), &Value::Null)
    );
    assert_eq!(server.serving("echo"), good[..8]);
    assert_eq!(server.delete("echo", &bad).status, 204);
}

#[test]
fn a_version_without_a_predecessor_stays() {
    let server = Deployment::start(&TEN_CALLS);
    let bad = server.release("echo", &faulty_echo("trap", "1.0.0"), "activate=true");
    ask(&server, 30);
    let traffic = server.version("echo", &bad)["traffic"].clone();
    assert_eq!(traffic["faults"], 30);
    assert_eq!(server.serving("echo"), bad[..8]);
    assert_eq!(taken_back(&server), 0.0);
}

#[test]
fn bad_requests_and_deadlines_neither_accuse_nor_excuse() {
    let server = Deployment::start(&TEN_CALLS);
    let good = server.release("echo", &echo("1.0.0"), "activate=true");
    for guest in ["refuses", "waits"] {
        let version = server.release("echo", &faulty_echo(guest, guest), "activate=true");
        for _ in 0..12 {
            let body = json!({"query": "q", "documents": ["a"], "timeout_ms": 50});
            let answer = server.post("/v1/rerank/echo", &body);
            assert!(matches!(answer.status, 200 | 400), "{}", answer.text());
        }
        assert_eq!(server.version("echo", &version)["traffic"]["calls"], 12);
        assert_eq!(
            server.detail("echo")["active"]["digest"],
            version,
            "{guest}"
        );
        server.role("echo", "rollback", &json!({})).ok();
    }
    assert_eq!(taken_back(&server), 0.0);

    // 300 requests that it refuses, as it wants an object, do not hide ten faults.
    let bad = server.release(
        "echo",
        &faulty_echo("wrong-inputs", "2.0.0"),
        &activated_with("name"),
    );
    for _ in 0..300 {
        let body = json!({"query": "q", "documents": ["a"], "parameters": {"case": "moon"}});
        assert_eq!(server.post("/v1/rerank/echo", &body).status, 400);
    }
    assert_eq!(server.serving("echo"), bad[..8]);
    ask(&server, 9);
    message_of_taking_back(&server, &bad);
    assert_eq!(server.serving("echo"), good[..8]);
}

fn activated_with(case: &str) -> String {
    let parameters = rerankd_tests::admin::parameters(&json!({"case": case}));
    format!("activate=true&{parameters}")
}

#[test]
fn who_is_asked_for_by_version_is_not_on_probation() {
    let server = Deployment::start(&TEN_CALLS);
    server.release("echo", &echo("1.0.0"), "activate=true");
    let bad = server.release("echo", &faulty_echo("trap", "2.0.0"), "activate=true");
    for _ in 0..20 {
        server.ask("echo@2.0.0", "q", &[]).ok();
    }
    assert_eq!(server.serving("echo"), bad[..8]);
    assert_eq!(taken_back(&server), 0.0);
}

#[test]
fn probation_can_be_switched_off() {
    for flags in [["--probation-s", "0"], ["--probation-max-faults", "100"]] {
        let server = Deployment::start(&[&TEN_CALLS[..], &flags].concat());
        server.release("echo", &echo("1.0.0"), "activate=true");
        let bad = server.release("echo", &faulty_echo("trap", "2.0.0"), "activate=true");
        ask(&server, 20);
        assert_eq!(server.serving("echo"), bad[..8], "{flags:?}");
        assert_eq!(taken_back(&server), 0.0);
    }
}
