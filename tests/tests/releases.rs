//! Versions: what decides their digest, how they are called, and how they go.

use std::collections::BTreeSet;

use redb::ReadableTable;
use rerankd_tests::Deployment;
use rerankd_tests::admin::{assert_refused, digest, parameters};
use rerankd_tests::components::{bundled, echo, faulty};
use serde_json::{Value, json};

#[test]
fn a_digest_is_of_component_parameters_grants_and_models() {
    let server = Deployment::start(&[]);
    let plain = echo("0.1.0");
    let one = parameters(&json!({"n": 1}));
    let mut digests = BTreeSet::new();
    for (component, query) in [
        (&plain, ""),
        (&echo("0.2.0"), ""),
        (&plain, &one),
        (&plain, &parameters(&json!({"n": 2}))),
        (&plain, "grant=title&grant=text"),
        (&plain, "grant=*"),
        (&plain, &format!("{one}&grant=*")),
    ] {
        let digest = server.release("echo", component, query);
        assert!(digests.insert(digest), "{query}");
        let again = server.push("echo", component, query);
        assert_eq!(again.status, 200, "{}", again.text());
        let again = again.json();
        assert_eq!(again["created"], false, "{again}");
        assert!(digests.contains(&digest_of(&again)));
    }
    // The order of keys and fields decides nothing.
    let [one, other] = [r#"{"a":1,"b":2}"#, r#"{ "b" : 2, "a" : 1 }"#].map(|text| {
        let query = format!("parameters={}", rerankd_tests::admin::encoded(text));
        server.release("echo", &plain, &query)
    });
    assert_eq!(one, other);
    let swapped = server.push("echo", &plain, "grant=text&grant=title");
    assert!(
        digests.contains(&digest_of(&swapped.json())),
        "{}",
        swapped.text()
    );

    let blend = bundled("semantic-blend");
    let default = server.release("semantic-blend", &blend, "");
    let query = "model=bi-encoder:all-minilm-l6-v2";
    // It is the default: the same model, the same digest.
    assert_eq!(server.release("semantic-blend", &blend, query), default);
}

fn digest_of(answer: &Value) -> String {
    digest(answer)
}

#[test]
fn a_version_shows_what_decided_it() {
    let server = Deployment::start(&[]);
    let component = bundled("semantic-blend");
    let query = format!(
        "grant=title&grant=text&{}",
        parameters(&json!({"weight": 0.25}))
    );
    let answer = server.push("semantic-blend", &component, &query);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let answer = answer.json();
    assert_eq!(
        (&answer["name"], &answer["state"]),
        (&json!("semantic-blend"), &json!("staged"))
    );
    assert_eq!(
        (&answer["created"], &answer["previous"]),
        (&json!(true), &Value::Null)
    );
    let version = server.version("semantic-blend", &digest(&answer));
    for (key, expected) in [
        ("version", json!("0.1.0")),
        ("state", json!("staged")),
        ("parameters", json!({"weight": 0.25})),
        ("grants", json!(["title", "text"])),
        ("allow_wasi", json!(false)),
        ("by", json!("admin")),
        ("source", json!("upload")),
    ] {
        let mut found = version[key].clone();
        if let Some(fields) = found.as_array_mut() {
            fields.sort_by_key(|field| std::cmp::Reverse(field.to_string()));
        }
        assert_eq!(found, expected, "{key}: {version}");
    }
    assert_eq!(version["component"]["bytes"], component.len());
    assert_eq!(version["models"]["bi-encoder"]["name"], "all-minilm-l6-v2");
    assert_eq!(version["manifest"]["name"], "semantic-blend");
    let imports = version["imports"].as_array().expect("an array");
    assert!(
        imports.contains(&json!("rerank:policy/tokenizer@0.1.0")),
        "{imports:?}"
    );
    let at = version["created_at"].as_str().expect("it is text");
    assert!(at.starts_with("20") && at.ends_with('Z'), "{at}");
}

#[test]
fn a_version_is_asked_for_by_digest_or_version_string() {
    let server = Deployment::start(&[]);
    let active = server.release("echo", &echo("1.0.0"), "activate=true");
    let staged = server.release("echo", &echo("2.0.0"), "");
    for (wanted, digest) in [("1.0.0", &active), ("2.0.0", &staged)] {
        for wanted in [wanted, &digest[..8], &digest[..20], digest] {
            let serving = server.serving(&format!("echo@{wanted}"));
            assert_eq!(serving, digest[..8], "{wanted}");
        }
    }
    assert_eq!(server.serving("echo"), active[..8]);
    for wanted in ["3.0.0", &staged[..7], &"0".repeat(8)] {
        let answer = server.ask(&format!("echo@{wanted}"), "q", &[]);
        assert_eq!(answer.status, 404, "{}", answer.text());
        let message = answer.error_message();
        assert!(
            message.contains(wanted) && message.contains("2.0.0"),
            "{message}"
        );
    }
    // Each is counted with the version that answered.
    let calls = |digest: &str| server.version("echo", digest)["traffic"]["calls"].clone();
    assert_eq!((calls(&active), calls(&staged)), (json!(5), json!(4)));
}

#[test]
fn an_ambiguous_version_string_is_the_active_version_or_an_error() {
    let server = Deployment::start(&[]);
    let [one, other] = [1, 2].map(|n| server.release_echo(n, false));
    let answer = server.ask("echo@0.1.0", "q", &[]);
    assert_eq!(answer.status, 404, "{}", answer.text());
    let answer = server.role("echo", "activate", &json!({"version": "0.1.0"}));
    let says = [
        "names several versions of `echo`",
        &one[..8],
        &other[..8],
        "say the digest",
    ];
    assert_refused(&answer, 409, "", &says);
    // One that was only staged answers by its digest, and nobody by the name alone.
    assert_eq!(server.serving(&format!("echo@{}", &one[..8])), one[..8]);
    assert_eq!(server.ask("echo", "q", &[]).status, 404);
    server
        .role("echo", "activate", &json!({"digest": other}))
        .ok();
    assert_eq!(server.serving("echo@0.1.0"), other[..8]);
    assert_eq!(server.serving("echo"), other[..8]);
}

/// As an older rerankd let it in: a version whose author called it by another's digest.
#[test]
fn a_stored_version_that_is_called_like_a_digest_takes_nothing_out_of_service() {
    let mut server = Deployment::start(&[]);
    let victim = server.release("echo", &echo("1.0.0"), "activate=true");
    let active = server.release("echo", &echo("2.0.0"), "activate=true");
    let evil = server.release("echo", &echo("6.6.6"), "");
    server.kill();
    let database = server.data_dir().join("releases.redb");
    let database = redb::Database::open(database).expect("the server is gone");
    let writing = database.begin_write().expect("nobody else writes");
    {
        type Versions = redb::TableDefinition<'static, (&'static str, &'static str), &'static [u8]>;
        let mut versions = writing
            .open_table(Versions::new("versions"))
            .expect("it is there");
        let key = ("echo", evil.as_str());
        let mut record: Value = {
            let record = versions.get(key).expect("it reads");
            let record = record.expect("it is there");
            serde_json::from_slice(record.value()).expect("it is JSON")
        };
        record["version"] = json!(victim);
        let record = record.to_string();
        versions
            .insert(key, record.as_bytes())
            .expect("there is room");
    }
    writing.commit().expect("there is room");
    drop(database);
    server.restart();
    assert_eq!(server.serving("echo"), active[..8]);
    for wanted in [&victim, &active, &evil] {
        for head in [&wanted[..], &wanted[..8]] {
            assert_eq!(server.serving(&format!("echo@{head}")), wanted[..8]);
        }
    }
    server.role("echo", "rollback", &json!({})).ok();
    assert_eq!(server.serving("echo"), victim[..8]);
    server.kill();
    server.restart();
    assert_eq!(server.serving("echo"), victim[..8]);
    for wanted in [&active, &victim] {
        server
            .role("echo", "activate", &json!({"digest": wanted}))
            .ok();
        assert_eq!(server.serving("echo"), wanted[..8]);
    }
    // By the string that it has, as a string, it is still to be had; and it goes by its digest.
    server
        .role("echo", "shadow", &json!({"version": victim}))
        .ok();
    let detail = server.detail("echo");
    assert_eq!(detail["shadow"]["digest"], evil, "{detail}");
    server
        .role("echo", "shadow", &json!({"version": null}))
        .ok();
    assert_eq!(server.delete("echo", &evil).status, 204);
    assert_eq!(server.serving(&format!("echo@{victim}")), victim[..8]);
}

#[test]
fn what_was_deleted_is_gone_for_good() {
    let mut server = Deployment::start(&[]);
    let active = server.release_echo(1, true);
    let staged = server.release_echo(2, false);
    let pinned = format!("echo@{}", &staged[..8]);
    assert_eq!(server.serving(&pinned), staged[..8]);
    assert_eq!(server.delete("echo", &staged).status, 204);
    for restarted in [false, true] {
        assert_eq!(server.ask(&pinned, "q", &[]).status, 404, "{restarted}");
        assert_refused(&server.delete("echo", &staged), 404, "", &[&staged]);
        assert_eq!(server.list()["policies"][0]["versions"], 1);
        assert_eq!(server.serving("echo"), active[..8]);
        server.restart();
    }
    // And it can come back.
    let answer = server.push("echo", &echo("0.1.0"), &parameters(&json!({"n": 2})));
    assert_eq!((answer.status, digest(&answer.json())), (201, staged));
    // A name goes with its last version.
    let panic = server.release("panic", &faulty("panic"), "");
    assert_eq!(server.delete("panic", &panic[..8]).status, 204);
    let answer = server.admin_call("GET", "/v1/policies/panic", &[], b"");
    assert_refused(&answer, 404, "", &["no policy `panic`"]);
}

#[test]
fn a_version_with_a_role_cannot_be_deleted() {
    let server = Deployment::start(&[]);
    let digests: Vec<String> = (1..=5).map(|n| server.release_echo(n, n <= 2)).collect();
    let body = |digest: &String| json!({"digest": digest});
    server
        .role(
            "echo",
            "canary",
            &json!({"digest": digests[2], "percent": 1}),
        )
        .ok();
    server.role("echo", "shadow", &body(&digests[3])).ok();
    let roles = [
        "the version to roll back to",
        "the active version",
        "canary",
        "shadow",
    ];
    for (digest, role) in digests.iter().zip(roles) {
        let only = "only a version without a role can be deleted";
        assert_refused(
            &server.delete("echo", digest),
            409,
            "",
            &["`echo`", role, only],
        );
    }
    assert_eq!(server.delete("echo", &digests[4]).status, 204);
    // A predecessor that is not the next target may go; a rollback passes it over.
    server.role("echo", "activate", &body(&digests[2])).ok();
    assert_eq!(server.delete("echo", &digests[0]).status, 204);
    server.role("echo", "rollback", &json!({})).ok();
    assert_eq!(server.serving("echo"), digests[1][..8]);
    let answer = server.role("echo", "rollback", &json!({}));
    assert_refused(&answer, 409, "", &["no earlier active version"]);
}
