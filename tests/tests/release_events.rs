//! `GET /v1/events`: what happened, in order, for who may know.

use std::time::Instant;

use rerankd_tests::admin::{Event, assert_refused, events_in};
use rerankd_tests::components::{echo, faulty};
use rerankd_tests::{Connection, Deployment, PATIENCE, Rerankd, eventually};
use serde_json::json;

fn ids(events: &[Event]) -> Vec<u64> {
    events.iter().map(|event| event.id).collect()
}

#[test]
fn everything_that_happens_is_an_event_in_its_order() {
    let mut server = Deployment::start(&[]);
    let (one, two) = (server.release_echo(1, true), server.release_echo(2, false));
    let body = json!({"digest": two});
    let share = |percent: u32| json!({"digest": two, "percent": percent});
    server.role("echo", "shadow", &body).ok();
    server.role("echo", "shadow", &json!({"digest": null})).ok();
    server.role("echo", "canary", &share(5)).ok();
    server.role("echo", "canary", &share(0)).ok();
    server.role("echo", "activate", &body).ok();
    server.role("echo", "rollback", &json!({})).ok();
    assert_eq!(server.push("echo", b"hello", "").status, 422);
    assert_eq!(server.delete("echo", &two).status, 204);
    let panic = server.release("panic", &faulty("panic"), "activate=true");
    server.ask("panic", "q", &[("X-Request-Id", "r1")]).ok();
    let events = eventually("the fault is noted", || {
        let events = server.events("", &[]);
        (events.last()?.kind == "fault").then_some(events)
    });
    let expected = [
        ("staged", Some(&one)),
        ("activated", Some(&one)),
        ("staged", Some(&two)),
        ("shadow", Some(&two)),
        ("shadow", None),
        ("canary", Some(&two)),
        ("canary", Some(&two)),
        ("activated", Some(&two)),
        ("rolled-back", Some(&one)),
        ("refused", None),
        ("deleted", Some(&two)),
        ("staged", Some(&panic)),
        ("activated", Some(&panic)),
        ("fault", Some(&panic)),
    ];
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event.kind.as_str(), event.data["digest"].as_str()))
        .collect();
    let expected = expected.map(|(kind, digest)| (kind, digest.map(String::as_str)));
    assert_eq!(seen, expected);
    assert!(
        ids(&events).is_sorted_by(|one, next| one < next),
        "{events:?}"
    );
    for event in &events {
        let who = if event.kind == "fault" {
            "rerankd"
        } else {
            "admin"
        };
        assert_eq!(event.data["who"], who, "{event:?}");
        let at = event.data["at"].as_str().expect("it has a time");
        assert!(at.starts_with("20") && at.ends_with('Z'), "{at}");
    }
    assert_eq!(events[13].data["message"], "panic in request r1");
    server.restart();
    assert_eq!(
        server.events("", &[]),
        events,
        "the journal outlives the process"
    );
}

#[test]
fn a_reader_resumes_after_the_last_event_that_it_had() {
    let server = Deployment::start(&[]);
    for n in 1..=3 {
        server.release_echo(n, true);
    }
    let all = server.events("", &[]);
    assert_eq!(all.len(), 6);
    for (index, event) in all.iter().enumerate() {
        let id = event.id.to_string();
        assert_eq!(
            server.events("", &[("Last-Event-ID", &id)]),
            all[index + 1..]
        );
        assert_eq!(server.events(&format!("after={id}"), &[]), all[index + 1..]);
        // A browser that comes back sends both, and means the header.
        let both = server.events("after=0", &[("Last-Event-ID", &id)]);
        assert_eq!(both, all[index + 1..]);
    }
    for headers in [[("Last-Event-ID", "moon")], [("Last-Event-ID", "-1")]] {
        let answer = server.admin_call("GET", "/v1/events?follow=false", &headers, b"");
        assert_refused(
            &answer,
            400,
            "",
            &["`Last-Event-ID` must be the `id` of an event"],
        );
    }
    for query in ["after=moon", "follow=maybe", "moon=1"] {
        let answer = server.admin_call("GET", &format!("/v1/events?{query}"), &[], b"");
        assert_refused(&answer, 400, "", &[]);
    }
}

/// The next event of a stream.
fn next(stream: &mut Connection) -> Event {
    loop {
        let chunk = stream.chunk().expect("it goes on").expect("it goes on");
        let text = String::from_utf8(chunk).expect("it is UTF-8");
        // A line without an event shows that the stream is alive.
        if let [event] = &events_in(&text)[..] {
            return event.clone();
        }
    }
}

#[test]
fn events_come_as_they_happen_and_end_with_the_server() {
    let mut server = Deployment::start(&[]);
    let one = server.release_echo(1, true);
    let last = server
        .events("", &[])
        .last()
        .expect("there are some")
        .id
        .to_string();
    let mut whole = server.follow_events(&[]);
    let mut resumed = server.follow_events(&[("Last-Event-ID", &last)]);
    assert_eq!(next(&mut whole).kind, "staged");
    assert_eq!(next(&mut whole).data["digest"], one);
    for n in 2..=4 {
        let digest = server.release_echo(n, true);
        for kind in ["staged", "activated"] {
            let event = next(&mut resumed);
            assert_eq!(
                (event.kind.as_str(), &event.data["digest"]),
                (kind, &json!(digest))
            );
            assert_eq!(next(&mut whole), event);
        }
    }
    server.terminate();
    for mut stream in [whole, resumed] {
        // A proper end, not a broken connection.
        assert_eq!(stream.chunk().expect("it is a proper end"), None);
    }
    assert!(server.exit_status().success());
}

#[test]
fn a_stream_ends_with_its_token() {
    let server = Deployment::start(&[]);
    server.release_echo(1, true);
    let follow = |token: &str| {
        let bearer = format!("Bearer {token}");
        let mut stream = Connection::open(server.admin_address()).expect("it listens");
        let host = server.admin_address().to_string();
        let headers = [("Host", host.as_str()), ("Authorization", &bearer)];
        stream
            .request("GET", "/v1/events", &headers, b"")
            .expect("it listens");
        assert_eq!(stream.answer_head().expect("it answers").status, 200);
        assert_eq!(next(&mut stream).kind, "staged");
        assert_eq!(next(&mut stream).kind, "activated");
        stream
    };
    let revoke = |name: &str| {
        let data = server.data_dir().to_str().expect("the path is UTF-8");
        let revoked = ["token", "revoke", name, "--data-dir", data];
        let revoked = Rerankd::run(Rerankd::command(&revoked));
        assert_eq!(revoked.code, Some(0), "{revoked:?}");
    };
    let mut silent = follow(&server.token("one", "*", "read,texts"));
    let mut other = follow(&server.token("other", "*", "read"));
    revoke("one");
    // Though nothing happens.
    let started = Instant::now();
    assert_eq!(silent.chunk().expect("it is a proper end"), None);
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
    // Others go on, and what happens right after a token was revoked is not told any more.
    server.release_echo(2, false);
    assert_eq!(next(&mut other).kind, "staged");
    revoke("other");
    server.release_echo(3, false);
    assert_eq!(other.chunk().expect("it is a proper end"), None);
}

#[test]
fn a_token_reads_of_its_own_policies_only() {
    let server = Deployment::start(&[]);
    server.release("echo", &echo("0.1.0"), "activate=true");
    server.release("panic", &faulty("panic"), "activate=true");
    let token = server.token("echo-reader", "ec*", "read");
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str())];
    let events = server.events("", &headers);
    let policies: Vec<_> = events
        .iter()
        .map(|event| event.data["policy"].clone())
        .collect();
    assert_eq!(policies, ["echo", "echo"]);
    assert!(
        events
            .iter()
            .all(|event| event.data.get("message").is_none()),
        "{events:?}"
    );
    // And so does a stream: what comes for others is passed over.
    let last = events[1].id.to_string();
    let list = server
        .admin_call("GET", "/v1/policies", &headers, b"")
        .ok()
        .json();
    assert_eq!(list["policies"].as_array().map(Vec::len), Some(1), "{list}");
    server.release("panic", &faulty("panic"), "grant=*");
    server.release("echo", &echo("0.2.0"), "");
    let resumed = server.events("", &[headers[0], ("Last-Event-ID", &last)]);
    assert_eq!(resumed.len(), 1);
    assert_eq!(resumed[0].data["version"], "0.2.0");
}
