//! Uploads and changes of roles that are wrong, come at once, or come at a bad time: each gets a clear
//! answer, and nothing is lost or half done.

use std::time::Duration;

use rerankd_tests::admin::{assert_refused, digest, encoded, error};
use rerankd_tests::components::{bundled, echo, with_manifest};
use rerankd_tests::http::head;
use rerankd_tests::{Answer, Connection, Deployment, eventually};
use serde_json::{Value, json};

/// A server with two versions of `echo`, the first of which is active.
fn two_versions() -> (Deployment, [String; 2]) {
    let server = Deployment::start(&[]);
    let digests = [server.release_echo(1, true), server.release_echo(2, false)];
    (server, digests)
}

/// A request to the admin plane of which nothing but the head is sent. The server waits for its body.
fn begin(server: &Deployment, method: &str, path: &str, media: &str, length: usize) -> Connection {
    begin_as(server, &server.admin_token(), (method, path), media, length)
}

/// The same with a token.
fn begin_as(
    server: &Deployment,
    token: &str,
    (method, path): (&str, &str),
    media: &str,
    length: usize,
) -> Connection {
    let mut connection = Connection::open(server.admin_address()).expect("the admin plane listens");
    let (host, bearer, length) = (
        server.admin_address().to_string(),
        format!("Bearer {token}"),
        length.to_string(),
    );
    let headers = [
        ("Host", host.as_str()),
        ("Authorization", &bearer),
        ("Content-Type", media),
        ("Content-Length", &length),
        ("Expect", "100-continue"),
    ];
    let head = head(method, path, &headers);
    connection.send(head).expect("the admin plane listens");
    // The server says so when it starts to read the body.
    let asked = connection.answer_head().expect("the head is read");
    assert_eq!(asked.status, 100);
    connection
}

#[test]
fn a_name_that_is_none_is_refused() {
    let server = Deployment::start(&[]);
    let component = echo("0.1.0");
    let long = "a".repeat(65);
    for name in [
        "Echo",
        "a_b",
        "-echo",
        "a.b",
        "%20",
        "%2e%2e",
        "caf%C3%A9",
        &long,
    ] {
        let answer = server.push(name, &component, "");
        let must = "`name` must have 1 to 64 lower-case letters, digits and `-`, got `";
        assert_refused(&answer, 400, "", &[must]);
    }
    assert_eq!(server.list(), json!({"policies": []}));
}

#[test]
fn a_query_or_form_that_is_wrong_says_what_would_be_right() {
    let server = Deployment::start(&[]);
    let component = echo("0.1.0");
    for (query, says) in [
        ("activate=maybe", "`activate` must be `true` or `false`"),
        ("moon=1", "no query key `moon`; there are: `activate`"),
        (
            "model=bi-encoder",
            "`model` must be SLOT:MODEL, got `bi-encoder`",
        ),
        ("parameters=7", "`parameters`: "),
        ("parameters=%7B", "`parameters`: "),
        ("parameters=%FF%FE", "`parameters`: "),
    ] {
        assert_refused(&server.push("echo", &component, query), 400, "", &[says]);
    }
    let (component, object) = (("component", &component[..]), ("parameters", &b"{}"[..]));
    for (parts, says) in [
        (vec![object], "the part `component` is missing"),
        (
            vec![component, ("moon", b"1")],
            "no part `moon`; there are: `component`",
        ),
        (
            vec![component, object, object],
            "the part `parameters` is there twice",
        ),
        (vec![component, ("parameters", b"[]")], "`parameters`: "),
        (vec![component, ("grants", b"{}")], "`grants`: "),
        (vec![component, ("grants", b"[1]")], "`grants`: "),
        (
            vec![component, ("cases", b"\xff")],
            "the part `cases` is not UTF-8",
        ),
    ] {
        assert_refused(&server.push_form("echo", "", &parts), 400, "", &[says]);
    }
    let headers = [("Content-Type", "multipart/form-data; boundary=x")];
    let broken = server.admin_call("PUT", "/v1/policies/echo", &headers, b"no form");
    assert_refused(&broken, 400, "", &["the body: "]);
    assert_eq!(server.list(), json!({"policies": []}));
}

#[test]
fn a_form_does_what_a_query_does() {
    let server = Deployment::start(&[]);
    let by_query = server.release_echo(7, false);
    let grants = "grant=title&grant=text";
    let granted = server.release("echo", &echo("0.1.0"), grants);
    let component = echo("0.1.0");
    let component = ("component", &component[..]);
    let parts = [component, ("parameters", br#"{"n": 7}"#)];
    let answer = server.push_form("echo", "activate=true", &parts);
    assert_eq!((answer.status, digest(&answer.json())), (200, by_query));
    assert_eq!(answer.json()["state"], "active");
    let parts = [component, ("grants", br#"["title", "text"]"#)];
    let answer = server.push_form("echo", "", &parts);
    assert_eq!((answer.status, digest(&answer.json())), (200, granted));
}

#[test]
fn roles_are_given_to_versions_that_there_are() {
    let (server, [active, staged]) = two_versions();
    let (digest, version) = (
        json!({"digest": "0".repeat(64)}),
        json!({"version": "9.9.9"}),
    );
    let short = json!({"digest": staged[..7]});
    for body in [digest, version, short] {
        let wanted = body["digest"].as_str().or(body["version"].as_str());
        let says = format!(
            "no version `{}` of `echo`; there are: ",
            wanted.expect("one")
        );
        for role in ["activate", "canary", "shadow"] {
            let mut body = body.clone();
            if role == "canary" {
                body["percent"] = json!(5);
            }
            let known = [says.as_str(), &active[..8], &staged[..8]];
            assert_refused(&server.role("echo", role, &body), 404, "", &known);
        }
    }
    let body = json!({"digest": staged});
    for role in ["activate", "shadow"] {
        assert_refused(
            &server.role("moon", role, &body),
            404,
            "",
            &["no policy `moon`"],
        );
    }
    let answer = server.role("moon", "rollback", &json!({}));
    assert_refused(&answer, 404, "", &["no policy `moon`"]);
    let answer = server.delete("echo", &"0".repeat(64));
    assert_refused(&answer, 404, "", &["no version `0000"]);
    let answer = server.admin_call("GET", "/v1/policies/moon", &[], b"");
    assert_refused(&answer, 404, "", &["no policy `moon`"]);
    let several = json!({"version": "0.1.0"});
    for role in ["activate", "shadow"] {
        let says = ["several versions", &active[..8], &staged[..8]];
        assert_refused(&server.role("echo", role, &several), 409, "", &says);
    }
    let own = json!({"digest": active});
    let answer = server.role("echo", "shadow", &own);
    assert_refused(&answer, 409, "", &["cannot be its own shadow"]);
}

#[test]
fn a_change_of_roles_that_is_no_such_thing_is_refused() {
    let (server, [active, staged]) = two_versions();
    let either = "the body must have either `digest` or `version`";
    let check = |role: &str, body: Value, says: &str| {
        assert_refused(&server.role("echo", role, &body), 400, "", &[says]);
    };
    check("activate", json!({}), either);
    check(
        "activate",
        json!({"digest": staged, "version": "0.1.0"}),
        either,
    );
    check(
        "activate",
        json!({"digst": staged}),
        "unknown field `digst`",
    );
    check("activate", json!(null), "the body: ");
    check("activate", json!({"digest": 7}), "the body: ");
    check("rollback", json!({"to": staged}), "unknown field `to`");
    check(
        "canary",
        json!({"digest": staged}),
        "missing field `percent`",
    );
    for percent in [json!(-1), json!(100.5), json!(1e300)] {
        let body = json!({"digest": staged, "percent": percent});
        check("canary", body, "`percent` must be 0 to 100, got ");
    }
    let own = json!({"digest": active, "percent": 10});
    let answer = server.role("echo", "canary", &own);
    assert_refused(&answer, 409, "", &["is the active version already"]);
    let path = "/v1/policies/echo/activate";
    let headers = [("Content-Type", "application/json")];
    let large = vec![b' '; 100 << 10];
    let answer = server.admin_call("POST", path, &headers, &large);
    assert!(matches!(answer.status, 400 | 413), "{}", answer.text());
    assert_eq!(server.detail("echo")["active"]["digest"], active);
    assert_eq!(
        server.event_kinds("echo"),
        ["staged", "activated", "staged"]
    );
}

#[test]
fn a_version_string_means_one_component() {
    let server = Deployment::start(&[]);
    let first = server.release("echo", &echo("1.0.0"), "activate=true");
    let other = with_manifest(&echo("1.0.0"), |manifest| {
        manifest["description"] = json!("another");
    });
    let answer = server.push("echo", &other, "activate=true");
    assert_refused(
        &answer,
        409,
        "stage",
        &["`echo`", "`1.0.0`", "of another component"],
    );
    assert_eq!(error(&answer).code, "conflict");
    assert_eq!(server.serving("echo"), first[..8]);
    let renamed = with_manifest(&other, |manifest| manifest["version"] = json!("1.0.1"));
    let second = server.release("echo", &renamed, "activate=true");
    assert_eq!(server.serving("echo"), second[..8]);
    // Another name may have the same string.
    let panic = with_manifest(&rerankd_tests::components::faulty("panic"), |manifest| {
        manifest["version"] = json!("1.0.0");
    });
    server.release("panic", &panic, "");
}

/// Every file that a server keeps of components and their code.
fn kept(server: &Deployment) -> Vec<String> {
    let mut kept = Vec::new();
    let mut todo = ["components", "compiled", "tmp"]
        .map(|name| server.data_dir().join(name))
        .to_vec();
    while let Some(folder) = todo.pop() {
        for entry in std::fs::read_dir(&folder).expect("it is there") {
            let path = entry.expect("it reads").path();
            match path.is_dir() {
                true => todo.push(path),
                false => kept.push(path.display().to_string()),
            }
        }
    }
    kept.sort();
    kept
}

#[test]
fn what_is_refused_leaves_nothing_on_the_disk() {
    let server = Deployment::start(&[]);
    server.release("echo", &echo("1.0.0"), "activate=true");
    let before = kept(&server);
    assert_eq!(
        before.len(),
        3,
        "a component, its code and a digest: {before:?}"
    );
    for n in 0..5 {
        let other = with_manifest(&echo("1.0.0"), |manifest| {
            manifest["description"] = json!(format!("n{n}"));
        });
        assert_refused(
            &server.push("echo", &other, ""),
            409,
            "stage",
            &["of another component"],
        );
    }
    let digest_like = with_manifest(&bundled("semantic-blend"), |manifest| {
        manifest["name"] = json!("echo");
        manifest["version"] = json!("0123456789abcdef".repeat(4));
    });
    let says = ["`version` has 64 hex digits", "such as `1.0.0`"];
    let answer = server.push("echo", &digest_like, "activate=true");
    assert_refused(&answer, 422, "describe", &says);
    let failing = json!({"cases": [{
        "name": "never", "request": {"query": "q", "documents": ["d"]},
        "expect": {"status": "skipped"},
    }]});
    let failing = rerankd_tests::components::with_cases(&echo("2.0.0"), &failing);
    assert_refused(
        &server.push("echo", &failing, ""),
        422,
        "cases",
        &["`never`"],
    );
    assert_eq!(kept(&server), before);
    // The same component is good under another name, and with other parameters.
    let query = rerankd_tests::admin::parameters(&json!({"n": 1}));
    server.release("echo", &echo("1.0.0"), &query);
    assert_eq!(kept(&server), before);
}

/// Pushes two components at the same time.
fn at_once(server: &Deployment, components: [&[u8]; 2]) -> [Answer; 2] {
    std::thread::scope(|scope| {
        let pushes = components
            .map(|component| scope.spawn(move || server.push("echo", component, "activate=true")));
        pushes.map(|push| push.join().expect("it does not panic"))
    })
}

#[test]
fn two_uploads_of_one_name_at_once_both_end_well() {
    let server = Deployment::start(&[]);
    let different = at_once(&server, [&echo("0.2.0"), &echo("0.3.0")]);
    let digests = different.map(|answer| {
        assert_eq!(answer.status, 201, "{}", answer.text());
        digest(&answer.json())
    });
    let detail = server.detail("echo");
    let (active, earlier) = (
        &detail["active"]["digest"],
        &detail["rollback_to"]["digest"],
    );
    assert!(digests.iter().any(|digest| active == digest), "{detail}");
    assert!(digests.iter().any(|digest| earlier == digest), "{detail}");
    assert_ne!(active, earlier);

    let same = at_once(&server, [&echo("0.4.0"), &echo("0.4.0")]);
    let mut statuses = same.each_ref().map(|answer| answer.status);
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 201], "{same:?}");
    assert_eq!(digest(&same[0].json()), digest(&same[1].json()));

    let other = with_manifest(&echo("0.5.0"), |manifest| {
        manifest["description"] = json!("b")
    });
    let conflicting = at_once(&server, [&echo("0.5.0"), &other]);
    let mut statuses = conflicting.each_ref().map(|answer| answer.status);
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409], "{conflicting:?}");
    let winner = conflicting.iter().find(|answer| answer.status == 201);
    let winner = digest(&winner.expect("one").json());
    assert_eq!(server.serving("echo"), winner[..8]);
    assert_eq!(server.list()["policies"][0]["versions"], 4);
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing() {
    let (server, [active, _]) = two_versions();
    let component = echo("0.2.0");
    let before = server.list();
    let media = "application/wasm";
    let mut broken = begin(&server, "PUT", "/v1/policies/echo", media, component.len());
    broken
        .send(&component[..component.len() / 2])
        .expect("it is taken");
    broken.finish_sending();
    if let Ok(answer) = broken.answer() {
        assert_eq!(answer.status, 400, "{}", answer.text());
    }
    assert_eq!(
        (server.list(), server.serving("echo")),
        (before, active[..8].to_owned())
    );
}

#[test]
fn uploads_that_do_not_come_keep_nobody_from_uploading() {
    let (server, [active, staged]) = two_versions();
    let component = echo("0.2.0");
    let media = "application/wasm";
    let held: Vec<Connection> = (0..8)
        .map(|_| begin(&server, "PUT", "/v1/policies/echo", media, component.len()))
        .collect();
    assert_eq!(server.push("echo", &component, "").status, 201);
    // Nothing else waits for them.
    assert_eq!(server.serving("echo"), active[..8]);
    server
        .role("echo", "activate", &json!({"digest": staged}))
        .ok();
    drop(held);
}

#[test]
fn an_upload_that_trickles_is_408() {
    let server = Deployment::start(&["--stall-timeout-ms", "300"]);
    let media = "application/wasm";
    let mut slow = begin(&server, "PUT", "/v1/policies/echo", media, 1 << 20);
    for _ in 0..50 {
        std::thread::park_timeout(Duration::from_millis(20));
        if slow.send("x").is_err() {
            break;
        }
    }
    let answer = slow.answer().expect("it is answered");
    assert_refused(&answer, 408, "", &["bytes of the body came within 300ms"]);
}

#[test]
fn more_bytes_of_uploads_than_there_is_room_for_are_told_to_come_back() {
    // Four times the largest upload: 8 MiB.
    let server = Deployment::start(&["--max-component-mib", "1"]);
    let media = "application/wasm";
    let length = 2 << 20;
    // A token has half of that at most.
    let others = ["one", "two"].map(|name| server.token(name, "*", "push"));
    let mut held: Vec<Connection> = [0, 0, 1, 1]
        .map(|other: usize| {
            let call = ("PUT", "/v1/policies/echo");
            begin_as(&server, &others[other], call, media, length)
        })
        .into();
    for upload in &mut held {
        upload.send(vec![0; length - 1]).expect("it is taken");
    }
    eventually("all of them are there", || {
        (server.metric("rerankd_upload_bytes", &[]) >= 4.0 * (length - 1) as f64).then_some(())
    });
    let refused = server.push("echo", &echo("0.1.0"), "");
    assert_refused(&refused, 429, "", &["other uploads are under way"]);
    assert_eq!(refused.header("retry-after"), Some("5"));
    drop(held);
    eventually("there is room again", || {
        let answer = server.push("echo", &echo("0.1.0"), "activate=true");
        (answer.status == 201).then_some(())
    });
}

/// Uploads that hold room and come so slowly that they are never there; their threads end with the server.
fn trickle(server: &Deployment, token: &str, count: usize) {
    let length = 2 << 20;
    for _ in 0..count {
        let call = ("PUT", "/v1/policies/echo");
        let mut upload = begin_as(server, token, call, "application/wasm", length);
        // What is begun with this much takes the room of all of it.
        let _ = upload.send(vec![0; length * 2 / 3]);
        std::thread::spawn(move || {
            while upload.send([0; 1 << 10]).is_ok() {
                std::thread::park_timeout(Duration::from_millis(50));
            }
        });
    }
}

#[test]
fn uploads_that_trickle_keep_nobody_from_a_rollback_or_an_upload() {
    // Room for 8 MiB, of which each of these takes 2 MiB. They come faster than nothing.
    let small = ["--max-component-mib", "1", "--stall-timeout-ms", "1000"];
    let server = Deployment::start(&small);
    let first = server.release_echo(1, true);
    server.release_echo(2, true);
    let hostile = ["one", "two"].map(|name| server.token(name, "*", "push"));
    trickle(&server, &hostile[0], 4);
    let held = server.metric("rerankd_upload_bytes", &[]);
    assert!(held <= (4 << 20) as f64, "a token holds {held} bytes");
    // Another token finds room at once.
    assert_eq!(server.push("echo", &echo("0.3.0"), "").status, 201);
    // Where several tokens hold all of it, a small body needs none, and who trickles has to go.
    trickle(&server, &hostile[1], 4);
    server.role("echo", "rollback", &json!({})).ok();
    assert_eq!(server.serving("echo"), first[..8]);
    eventually("there is room for an upload", || {
        let answer = server.push("echo", &echo("0.4.0"), "");
        (answer.status == 201).then_some(())
    });
    eventually("who trickled is gone", || {
        (server.metric("rerankd_upload_bytes", &[]) <= (4 << 20) as f64).then_some(())
    });
}

/// What a request that came in time says when the rest of it comes while the server goes down.
#[track_caller]
fn assert_too_late(answer: std::io::Result<Answer>) {
    // The connection may have been closed instead.
    if let Ok(answer) = answer {
        let says = "the server is shutting down; nothing was changed";
        assert_refused(&answer, 503, "", &[says]);
        assert_eq!(error(&answer).code, "shutting_down");
    }
}

#[test]
fn nothing_changes_while_the_server_goes_down() {
    let (mut server, [active, staged]) = two_versions();
    let before = server.list();
    let component = echo("0.2.0");
    let media = "application/wasm";
    let path = "/v1/policies/echo?activate=true";
    let mut upload = begin(&server, "PUT", path, media, component.len());
    upload.send(&component[..1000]).expect("it is taken");
    let body = json!({"digest": staged}).to_string();
    let path = "/v1/policies/echo/activate";
    let mut activation = begin(&server, "POST", path, "application/json", body.len());
    server.terminate();
    eventually("it drains", || {
        server.stderr().contains("draining").then_some(())
    });
    let sent = upload.send(&component[1000..]);
    assert_too_late(sent.and_then(|()| upload.answer()));
    let sent = activation.send(&body);
    assert_too_late(sent.and_then(|()| activation.answer()));
    assert!(server.exit_status().success());
    server.restart();
    assert_eq!(
        (server.list(), server.serving("echo")),
        (before, active[..8].to_owned())
    );
    let query = format!("activate=true&parameters={}", encoded("{\"n\":1}"));
    assert_eq!(server.push("echo", &component, &query).status, 201);
}
