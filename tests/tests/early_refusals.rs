//! Requests that are refused before their body was read: the answer reaches clients that send all of it
//! first, and no client can hold a connection by sending on.

use std::process::Command;

use rerankd_tests::http::head;
use rerankd_tests::{Folder, Rerankd, eventually, require};
use serde_json::Value;

const KEY: &str = "k-0123456789abcdef";

/// A server that reads a megabyte, of who has the key.
fn start() -> (Rerankd, Folder) {
    let folder = Folder::new();
    let keys = folder.write("keys", format!("{KEY}\n"));
    folder.set_mode("keys", 0o600);
    let keys = keys.to_str().expect("the path is UTF-8");
    let server = Rerankd::start(&["--api-key-file", keys, "--max-body-bytes", "1048576"]);
    (server, folder)
}

/// What each client of a program got: its name, the status, and the message. The program sends 24 MiB to
/// three addresses: one that takes less, one without a key, and one that is none.
fn judge(mut program: Command) {
    let (server, _folder) = start();
    let output = program
        .env("SERVER", format!("http://{}", server.address()))
        .env("SERVER_KEY", KEY)
        .output()
        .expect("the program is executable");
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}");
    let mut clients = 0;
    for line in said.lines().filter(|line| line.starts_with('{')) {
        let client: Value = serde_json::from_str(line).expect("a line is JSON");
        for (case, status, part) in [
            ("large", 413, "the limit is 1048576 bytes"),
            ("no key", 401, "no API key"),
            ("nowhere", 404, "no route `POST /nowhere`"),
        ] {
            assert_eq!(client[case]["status"], status, "{case}: {line}");
            let body = client[case]["body"].as_str().expect("a text");
            assert!(body.contains(part), "{case}: {line}");
        }
        clients += 1;
    }
    assert!(clients >= 2, "{said}\n{errors}");
}

#[test]
fn clients_in_python_see_the_refusal_of_a_large_body() {
    let mut program = Command::new(require::python_clients("clients"));
    program.arg(require::root().join("tests/clients/python/large_body.py"));
    judge(program);
}

#[test]
fn clients_in_javascript_see_the_refusal_of_a_large_body() {
    let mut program = Command::new(require::root().join("scripts/npm"));
    program.arg("--prefix").arg(require::node_clients());
    program.args(["run", "--silent", "large-body"]);
    judge(program);
}

#[test]
fn a_connection_goes_on_when_the_rest_of_a_body_was_read() {
    let (server, _folder) = start();
    let mut connection = server.connect();
    let body = vec![b' '; 300_000];
    for _ in 0..3 {
        connection
            .request("POST", "/v1/rerank", &[], &body)
            .expect("it is open");
        assert_eq!(connection.answer().expect("it is answered").status, 401);
    }
    let key = format!("Bearer {KEY}");
    let headers = [("Authorization", &*key)];
    let body = br#"{"query": "q", "documents": ["a"]}"#;
    connection
        .request("POST", "/v1/rerank", &headers, body)
        .expect("it is open");
    assert_eq!(connection.answer().expect("it is answered").status, 200);
}

#[test]
fn who_sends_no_more_or_too_much_is_not_waited_for() {
    let (server, _folder) = start();
    // It announces a body and does not send it.
    let mut silent = server.connect();
    silent
        .send(head("POST", "/nowhere", &[("Content-Length", "1000000")]))
        .expect("it is open");
    assert_eq!(silent.answer().expect("it is answered").status, 404);
    // It announces more than is read on, and is told that this is the end.
    let mut endless = server.connect();
    let length = (1_u64 << 40).to_string();
    endless
        .send(head("POST", "/nowhere", &[("Content-Length", &length)]))
        .expect("it is open");
    let answer = endless.answer().expect("it is answered");
    assert_eq!(
        (answer.status, answer.header("connection")),
        (404, Some("close"))
    );
    let piece = vec![b' '; 1 << 20];
    eventually("it is ended", || {
        endless.send(&piece).is_err().then_some(())
    });
    eventually("it is ended", || silent.is_closed_by_server().then_some(()));
    // Who asks whether to send a body is told no, and nothing is read.
    let mut polite = server.connect();
    let expects = [("Content-Length", "1000000"), ("Expect", "100-continue")];
    polite
        .send(head("POST", "/nowhere", &expects))
        .expect("it is open");
    assert_eq!(polite.answer().expect("it is answered").status, 404);
}
