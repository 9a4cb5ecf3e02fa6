//! What components and servers say is shown by `rerankd policy`, and never steers the terminal.

use std::path::Path;
use std::process::Output;

use rerankd_tests::components::{faulty, with_manifest};
use rerankd_tests::upstream::{write_answer, write_json};
use rerankd_tests::{Folder, Rerankd, Upstream, require};
use serde_json::{Value, json};

/// `rerankd policy ARGUMENTS`, with nothing of this machine's own servers.
fn policy(arguments: &[&str]) -> Output {
    let mut command = Rerankd::command(&[&["policy"], arguments].concat());
    command.env("XDG_STATE_HOME", require::target().join("tmp/no-state"));
    command.output().expect("the binary is executable")
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn assert_code(output: &Output, code: i32) {
    let said = (stdout(output), stderr(output));
    assert_eq!(output.status.code(), Some(code), "{said:?}");
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("the path is UTF-8")
}

/// What a terminal would obey: control characters in one byte or two, and what turns text round.
fn steers(text: &str) -> bool {
    text.contains(|c: char| {
        let turns = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200f}');
        (c.is_control() && !matches!(c, '\n' | '\t')) || turns
    })
}

#[test]
fn what_a_component_says_steers_no_terminal() {
    let evil = "\u{1b}]0;mine\u{7}\u{9b}2J\u{202e}\r\u{8}";
    let folder = Folder::new();
    // What it says of itself.
    let described = with_manifest(&faulty("echo"), |manifest| {
        manifest["description"] = json!(&evil[..8]);
    });
    let described = folder.write("echo.wasm", described);
    let checked = policy(&["check", text(&described)]);
    assert_code(&checked, 0);
    assert!(
        stdout(&checked).contains("\\u001b]0;mine"),
        "{}",
        stdout(&checked)
    );
    // What it says when it fails: the message is a text in its memory.
    let mut panics = faulty("panic");
    let (said, instead) = (b"cannot rank ", b"\x1b[2J\xc2\x9bm\n\r\x07k ");
    let found = panics.windows(said.len()).position(|window| window == said);
    let at = found.expect("the message is there");
    panics[at..at + said.len()].copy_from_slice(instead);
    let panics = folder.write("panic.wasm", panics);
    // And what its cases are called.
    let cases = json!({"cases": [{"name": format!("{evil}\nok  fake"),
        "request": {"query": "q", "documents": ["a lamp"]}, "expect": {"top": [0]}}]});
    let cases = folder.write("cases.json", cases.to_string());
    let arguments = ["test", text(&panics), text(&cases)];
    let tested = policy(&arguments);
    assert_code(&tested, 1);
    let table = stdout(&tested);
    assert!(
        table.contains("\\u001b]0;mine\\u0007\\u009b2J\\u202e\\u000d\\u0008\\u000aok"),
        "{table}"
    );
    // What a policy says while it runs is cut and cleaned where it enters.
    assert!(table.contains("\u{fffd}[2J\u{fffd}m"), "{table}");
    let pretends = table
        .lines()
        .any(|line| line.starts_with("ok") || line.starts_with("\\u000d"));
    assert!(!pretends, "{table}");
    let as_json = policy(&[&arguments[..], &["--json"]].concat());
    let message = json_of(&as_json)["results"][0]["message"].clone();
    let message = message.as_str().expect("it failed").to_owned();
    assert!(message.contains("\u{fffd}[2J\u{fffd}m"), "{message:?}");
    // The file's name is somebody's text, too.
    let named = folder.write("\u{1b}[31m\u{9d}.wasm", "no component");
    let refused = policy(&["check", text(&named), "--name", "x"]);
    let missing = policy(&["test", &format!("{}x", text(&named))]);
    for output in [&checked, &tested, &as_json, &refused, &missing] {
        for said in [stdout(output), stderr(output)] {
            assert!(!steers(&said), "{said:?}");
        }
    }
    assert!(
        stderr(&missing).contains("\\u001b[31m\\u009d"),
        "{}",
        stderr(&missing)
    );
}

#[test]
fn what_a_server_says_steers_no_terminal() {
    let evil = "\u{1b}]0;mine\u{7}\u{9b}2J\u{202e}";
    let version = json!({"version": evil, "digest": evil});
    let policies = json!({"policies": [{"name": evil, "active": version, "versions": 1}]});
    let event = json!({"at": evil, "kind": evil, "policy": evil, "version": evil, "digest": evil,
        "who": evil, "message": format!("{evil}\nfake")});
    let server = Upstream::start(move |asked, stream| {
        let events = [("content-type", "text/event-stream")];
        match asked.target() {
            "/v1/policies" => write_json(stream, "200 OK", &policies.to_string()),
            "/v1/events?follow=false" => {
                let body = format!("data: {event}\n\n");
                write_answer(stream, "200 OK", &events, body.as_bytes())?;
                Ok(false)
            }
            _ => {
                let error = json!({"error": {"code": "refused", "message": evil, "step": evil}});
                write_json(stream, "422 Unprocessable Entity", &error.to_string())
            }
        }
    });
    let url = server.url();
    for arguments in [
        &["list"][..],
        &["events"],
        &["rollback", "x"],
        &["list", "x"],
    ] {
        for json in [&[][..], &["--json"]] {
            let all = [arguments, &["--to", &url, "--token", "t"], json].concat();
            let output = policy(&all);
            let (out, err) = (stdout(&output), stderr(&output));
            assert!(!steers(&out) && !steers(&err), "{all:?}: {out:?} {err:?}");
            assert!(
                format!("{out}{err}").contains("\\u001b]0;mine\\u0007\\u009b2J\\u202e"),
                "{all:?}: {out}{err}"
            );
            if json.is_empty() {
                continue;
            }
            let said: Value = serde_json::from_str(out.trim_end()).expect("it is JSON");
            assert!(said.to_string().contains('\u{9b}'), "{said}");
        }
    }
}

/// A path may have line feeds: what follows one must not look like a message of rerankd's own.
#[test]
fn a_path_makes_no_message_of_its_own() {
    let evil = "/nonexistent\nrerankd: all is well\n";
    for arguments in [
        &["policy", "build", evil][..],
        &["policy", "test", evil],
        &["serve", "--api-key-file", evil, "--log", "error"],
        &["check", evil],
    ] {
        let ended = Rerankd::run(Rerankd::command(arguments));
        assert_ne!(ended.code, Some(0), "{ended:?}");
        let own = |line: &&str| line.starts_with("rerankd: ");
        assert_eq!(ended.stderr.lines().filter(own).count(), 1, "{ended:?}");
        assert!(!ended.stderr.contains("\nrerankd: all"), "{ended:?}");
    }
}
