//! Who is active: activation, rollback, restarts, and requests that run meanwhile.

use rerankd_tests::admin::{assert_refused, parameters};
use rerankd_tests::components::{bundled, echo};
use rerankd_tests::documents::long_texts;
use rerankd_tests::{Deployment, Folder, eventually};
use serde_json::{Value, json};

fn body(digest: &str) -> Value {
    json!({"digest": digest})
}

/// What the active version and the next one back are.
fn roles(server: &Deployment) -> [Value; 2] {
    let detail = server.detail("echo");
    ["active", "rollback_to"].map(|role| detail[role]["digest"].clone())
}

#[test]
fn activations_and_rollbacks_say_what_was_before() {
    let mut server = Deployment::start(&[]);
    let [one, two, three] = [1, 2, 3].map(|n| server.release_echo(n, false));
    assert_eq!(server.ask("echo", "q", &[]).status, 404);
    let answer = server.role("echo", "rollback", &json!({}));
    let nothing = "`echo` has no earlier active version to go back to";
    assert_refused(&answer, 409, "", &[nothing]);

    let mut before = Value::Null;
    for digest in [&one, &two, &three] {
        let answer = server.role("echo", "activate", &body(digest)).ok().json();
        assert_eq!(answer["active"]["digest"], **digest, "{answer}");
        assert_eq!(answer["previous"]["digest"], before, "{answer}");
        before = json!(digest);
    }
    // Once more is no change: neither in the answer nor on the way back.
    let again = server.role("echo", "activate", &body(&three)).ok().json();
    assert_eq!(again["previous"], Value::Null, "{again}");
    let answer = server.role("echo", "rollback", &json!({})).ok().json();
    assert_eq!(
        (&answer["active"]["digest"], &answer["previous"]["digest"]),
        (&json!(two), &json!(three))
    );
    assert_eq!(server.serving("echo"), two[..8]);
    let states = |server: &Deployment| {
        [&one, &two, &three].map(|digest| server.version("echo", digest)["state"].clone())
    };
    let before = (roles(&server), states(&server));
    assert_eq!(before.0, [json!(two), json!(one)]);
    assert_eq!(
        before.1,
        [json!("staged"), json!("active"), json!("staged")]
    );
    // A rollback is no activation: there is no way forward again but to say it.
    for _ in 0..2 {
        server.restart();
        assert_eq!((roles(&server), states(&server)), before);
        assert_eq!(server.serving("echo"), two[..8]);
    }
    server.role("echo", "rollback", &json!({})).ok();
    assert_eq!(server.serving("echo"), one[..8]);
    let answer = server.role("echo", "rollback", &json!({}));
    assert_refused(&answer, 409, "", &[nothing]);
    assert_eq!(roles(&server), [json!(one), Value::Null]);
    let kinds = server.event_kinds("echo");
    let expected = [
        "staged",
        "staged",
        "staged",
        "activated",
        "activated",
        "activated",
        "rolled-back",
        "rolled-back",
    ];
    assert_eq!(kinds, expected);
}

#[test]
fn the_way_back_from_an_upload_that_activates_is_its_predecessor() {
    let server = Deployment::start(&[]);
    let one = server.release("echo", &echo("1.0.0"), "activate=true");
    let answer = server.push("echo", &echo("2.0.0"), "activate=true");
    assert_eq!(answer.status, 201, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(answer["state"], "active", "{answer}");
    assert_eq!(
        answer["previous"],
        json!({"digest": one, "version": "1.0.0"})
    );
    // The same again is no change.
    let again = server
        .push("echo", &echo("2.0.0"), "activate=true")
        .ok()
        .json();
    assert_eq!(again["previous"], Value::Null, "{again}");
    server.role("echo", "rollback", &json!({})).ok();
    assert_eq!(server.serving("echo"), one[..8]);
}

#[test]
fn a_role_survives_a_kill() {
    let mut server = Deployment::start(&[]);
    for n in 1..=3 {
        let digest = server.release_echo(n, true);
        // At once: what was acknowledged counts.
        server.restart();
        assert_eq!(server.serving("echo"), digest[..8]);
    }
    server.role("echo", "rollback", &json!({})).ok();
    server.restart();
    assert_eq!(server.detail("echo")["active"]["version"], "0.1.0");
    let kinds = server.event_kinds("echo");
    assert_eq!(kinds.last().map(String::as_str), Some("rolled-back"));
    assert_eq!(kinds.len(), 7, "a restart is no event: {kinds:?}");
}

#[test]
fn a_request_keeps_the_version_with_which_it_began() {
    let server = Deployment::start(&["--workers", "1", "--timeout-ms", "60000"]);
    let release = |weight: f64, activate: bool| {
        let query = parameters(&json!({"weight": weight}));
        let component = bundled("semantic-blend");
        server.release(
            "semantic-blend",
            &component,
            &format!("activate={activate}&{query}"),
        )
    };
    let (old, new) = (release(1.0, true), release(0.0, false));
    let request = |count: usize| {
        let mut documents = Vec::new();
        for (index, text) in long_texts(count).into_iter().enumerate() {
            documents.push(json!({"score": 100.0 - index as f64, "fields": {"text": text}}));
        }
        json!({"query": "smart watch", "documents": documents})
    };
    let long = request(64);
    let ask = |policy: &str| server.post(&format!("/v1/rerank/{policy}"), &long).ok();
    std::thread::scope(|scope| {
        let running = scope.spawn(|| ask("semantic-blend"));
        eventually("it runs", || {
            (server.metric("rerankd_admitted_requests", &[]) > 0.0).then_some(())
        });
        server.role("semantic-blend", "activate", &body(&new)).ok();
        // The next one is the new version's, and need not wait for the old one's.
        assert_eq!(server.serving("semantic-blend"), new[..8]);
        assert!(!running.is_finished(), "it was too short to show anything");
        let answer = running.join().expect("it does not panic");
        assert_eq!(answer.json()["version"], old[..8]);
        assert_eq!(answer.parameter("status"), Some("applied"));
        // It is wholly the old version's.
        let alone = ask(&format!("semantic-blend@{}", &old[..8]));
        assert_eq!(answer.order(), alone.order());
        rerankd_tests::answer::assert_same_bits(&answer.scores(), &alone.scores());
        let other = ask("semantic-blend");
        assert_eq!(other.json()["version"], new[..8]);
        assert_ne!(answer.order(), other.order());
    });
}

#[test]
fn every_answer_is_wholly_one_versions_while_versions_are_swapped() {
    let server = Deployment::start(&[]);
    let digests = [server.release_echo(1, true), server.release_echo(2, false)];
    let swaps = 20;
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..2)
            .map(|_| scope.spawn(|| ask_until(&server, &digests, swaps)))
            .collect();
        for swap in 1..=swaps {
            server
                .role("echo", "activate", &body(&digests[swap % 2]))
                .ok();
        }
        server.role("echo", "shadow", &json!({"digest": null})).ok();
        let seen: Vec<_> = asking
            .into_iter()
            .map(|asking| asking.join().expect("no answer was mixed"))
            .collect();
        assert!(seen.iter().all(|seen| *seen > 0), "{seen:?}");
    });
}

/// Asks until all swaps are done; how many answers there were.
fn ask_until(server: &Deployment, digests: &[String; 2], swaps: usize) -> usize {
    for asked in 1.. {
        let answer = server.ask("echo", "q", &[]).ok();
        let body = answer.json();
        let version = body["version"].as_str().expect("it names its version");
        let n = 1 + digests
            .iter()
            .position(|digest| digest[..8] == *version)
            .expect("one of them");
        for result in body["results"].as_array().expect("an array") {
            let explanation = result["explanation"].as_str().expect("it explains itself");
            let seen: Value = serde_json::from_str(explanation).expect("it is JSON");
            assert_eq!(seen["parameters"]["n"], n, "{body}");
        }
        let activations = server.event_kinds("echo");
        if activations
            .iter()
            .filter(|kind| *kind == "activated")
            .count()
            > swaps
        {
            return asked;
        }
    }
    unreachable!("it goes on until the swaps are done")
}

#[test]
fn a_version_of_another_configuration_goes_on_as_it_was_released() {
    let folder = Folder::new();
    let config = folder.write(
        "rerankd.toml",
        "[policies.echo]\nparameters = { n = 1, of = \"file\" }\n",
    );
    let config = config.to_str().expect("the path is UTF-8").to_owned();
    folder.copy(
        &rerankd_tests::require::faulty("echo"),
        "policies/echo.wasm",
    );
    let server = Deployment::start_in(folder, &["--config", &config]);
    // What an upload says goes over what the configuration says.
    let query = format!("activate=true&{}", parameters(&json!({"n": 2})));
    let digest = server.release("echo", &echo("0.2.0"), &query);
    let version = server.version("echo", &digest);
    assert_eq!(version["parameters"], json!({"n": 2, "of": "file"}));
    assert_eq!(server.serving("echo"), digest[..8]);
}
