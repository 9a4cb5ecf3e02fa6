//! Keys of the data plane: who is let in, in whose words others are refused, and keys that change while
//! the server runs.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use rerankd_tests::rerankd::Refusal;
use rerankd_tests::{Answer, Folder, Rerankd, eventually};
use serde_json::json;

const KEY: &str = "k-0123456789abcdef";
const OTHER: &str = "k-fedcba9876543210";

fn key_file(content: &str, mode: u32) -> (Folder, String) {
    let folder = Folder::new();
    let path = folder.write("keys", content);
    folder.set_mode("keys", mode);
    let path = path.to_str().expect("the path is UTF-8").to_owned();
    (folder, path)
}

fn rank(server: &Rerankd, headers: &[(&str, &str)]) -> Answer {
    let body = json!({"query": "crocs", "documents": ["crocs", "boots"]}).to_string();
    let path = "/v1/rerank/first-stage";
    server.call("POST", path, headers, body.as_bytes())
}

fn with(server: &Rerankd, key: &str) -> u16 {
    rank(server, &[("Authorization", &format!("Bearer {key}"))]).status
}

#[test]
fn only_who_has_a_key_is_answered() {
    let (_folder, file) = key_file(&format!("# search team\n{KEY}\n\n  {OTHER}  \n"), 0o600);
    let server = Rerankd::start(&["--api-key-file", &file]);
    assert_eq!((with(&server, KEY), with(&server, OTHER)), (200, 200));
    let bearer = format!("bearer {KEY}");
    assert_eq!(rank(&server, &[("Authorization", &bearer)]).status, 200);
    let prefix = format!("Bearer {}", &KEY[..KEY.len() - 1]);
    let basic = format!("Basic {KEY}");
    let long = format!("Bearer {KEY}x");
    for (headers, says) in [
        (
            &[][..],
            "no API key: send it as `Authorization: Bearer KEY`",
        ),
        (&[("Authorization", "")], "has no API key"),
        (&[("Authorization", "Bearer")], "has no API key"),
        (&[("Authorization", KEY)], "has no API key"),
        (&[("Authorization", &basic)], "has no API key"),
        (&[("Authorization", &prefix)], "the API key is not known"),
        (&[("Authorization", &long)], "the API key is not known"),
        (&[("Authorization", "Bearer # search team")], "not known"),
    ] {
        let answer = rank(&server, headers);
        assert_eq!(answer.status, 401, "{headers:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
        let message = answer.error_message();
        assert!(message.contains(says), "{message}");
        let status = answer.header("rerank-status").expect("it has one");
        assert!(status.contains("status=error"), "{status}");
        assert!(!answer.text().contains(KEY));
    }
    // Metarank's encoder form ranks nothing, and is no more open for that.
    let encoder = "/inference/encoder/anything";
    assert_eq!(server.post_text(encoder, "{}").status, 401);
    for path in ["/health/live", "/health/ready"] {
        server.get(path).ok();
    }
    assert_eq!(server.get("/nowhere").status, 404);
    let refused = [("status", "error"), ("reason", "unauthorized")];
    let refused = [&[("protocol", "native")][..], &refused].concat();
    assert_eq!(server.metric("rerankd_requests_total", &refused), 8.0);
}

#[test]
fn a_key_may_stand_in_three_headers_and_each_that_is_sent_must_be_known() {
    let (_folder, file) = key_file(&format!("{KEY}\n{OTHER}\n"), 0o600);
    let server = Rerankd::start(&["--api-key-file", &file, "--log", "debug"]);
    let (good, bad) = (format!("Bearer {KEY}"), "Bearer undefined".to_owned());
    let wrong = &format!("{KEY}x");
    for headers in [
        &[("x-api-key", KEY)][..],
        &[("api-key", KEY)],
        &[("Api-Key", OTHER)],
        &[("Authorization", &good), ("x-api-key", OTHER)],
        &[
            ("Authorization", &good),
            ("x-api-key", KEY),
            ("api-key", OTHER),
        ],
        // Continue sends the header even where it has no key for it.
        &[("Authorization", &good), ("x-api-key", "")],
    ] {
        assert_eq!(rank(&server, headers).status, 200, "{headers:?}");
    }
    for (headers, says) in [
        (&[("x-api-key", &**wrong)][..], "the API key is not known"),
        (&[("x-api-key", "")], "no API key: send it as"),
        (&[("api-key", &good)], "the API key is not known"),
        (
            &[("Authorization", &good), ("x-api-key", wrong)],
            "not all are known",
        ),
        (
            &[("Authorization", &bad), ("x-api-key", KEY)],
            "not all are known",
        ),
        (
            &[("x-api-key", KEY), ("x-api-key", wrong)],
            "not all are known",
        ),
        (
            &[("x-api-key", KEY), ("api-key", wrong)],
            "not all are known",
        ),
        (
            &[("Authorization", KEY), ("x-api-key", KEY)],
            "has no API key",
        ),
    ] {
        let answer = rank(&server, headers);
        assert_eq!(answer.status, 401, "{headers:?}");
        assert!(answer.error_message().contains(says), "{}", answer.text());
        let shown = format!("{answer:?}");
        assert!(
            !shown.contains(KEY) && !answer.text().contains(KEY),
            "{shown}"
        );
    }
    let log = server.stderr();
    assert!(!log.contains(KEY) && !log.contains(OTHER), "{log}");
}

#[test]
fn keys_change_while_the_server_runs() {
    let (folder, file) = key_file(KEY, 0o640);
    let server = Rerankd::start(&["--api-key-file", &file]);
    assert_eq!((with(&server, KEY), with(&server, OTHER)), (200, 401));
    folder.write("keys", OTHER);
    eventually("the new key is known", || {
        (with(&server, OTHER) == 200).then_some(())
    });
    assert_eq!(with(&server, KEY), 401);
    assert!(!server.stderr().contains(KEY) && !server.stderr().contains(OTHER));
}

/// As long as a key may be good after its file is not, and what a busy machine adds to it.
const GRACE: Duration = Duration::from_secs(2);
const SLACK: Duration = Duration::from_secs(8);

#[test]
fn a_file_that_cannot_be_read_as_it_should_be_makes_no_key_good() {
    let (folder, file) = key_file(KEY, 0o600);
    let server = Rerankd::start(&["--api-key-file", &file, "--log", "error"]);
    let path = PathBuf::from(&file);
    let good = || {
        folder.write("beside", KEY);
        folder.set_mode("beside", 0o600);
        std::fs::rename(folder.path().join("beside"), &path).expect("both are ours");
        let since = Instant::now();
        eventually("the key is good", || {
            (with(&server, KEY) == 200).then_some(())
        });
        assert!(since.elapsed() < GRACE + SLACK, "{:?}", since.elapsed());
    };
    let spoil: [(&dyn Fn(), &str); 3] = [
        (
            &|| std::fs::remove_file(&path).expect("it is ours"),
            "No such file",
        ),
        (
            &|| folder.set_mode("keys", 0o644),
            "its mode must be 0600 or 0640",
        ),
        (
            &|| std::fs::write(&path, "").expect("it is ours"),
            "there is no key in it",
        ),
    ];
    for (spoil, says) in spoil {
        good();
        spoil();
        let since = Instant::now();
        let mut before = Duration::ZERO;
        eventually("the key is refused", || {
            let asked = since.elapsed();
            let status = with(&server, KEY);
            assert!([200, 401].contains(&status), "{status}");
            if status == 200 {
                before = asked;
            }
            (status == 401).then_some(())
        });
        assert!(before < GRACE, "{says}: good after {before:?}");
        assert!(since.elapsed() < GRACE + SLACK, "{:?}", since.elapsed());
        eventually("the log says why", || {
            server.stderr().contains(says).then_some(())
        });
        // And so it stays; no key is none, too.
        assert_eq!(with(&server, KEY), 401);
        assert_eq!(rank(&server, &[]).status, 401);
    }
    // What never answers a reader does not hold up the server.
    std::fs::remove_file(&path).expect("it is ours");
    let made = std::process::Command::new("mkfifo")
        .arg("-m600")
        .arg(&path)
        .status();
    assert!(made.expect("there is `mkfifo`").success());
    eventually("the log says what it is", || {
        assert_eq!(with(&server, KEY), 401);
        server
            .stderr()
            .contains("it is a FIFO, not a file")
            .then_some(())
    });
    good();
    assert!(!server.stderr().contains(KEY));
}

fn refused(content: &str, mode: u32) -> Refusal {
    let (_folder, file) = key_file(content, mode);
    Rerankd::run(Rerankd::command(&["serve", "--api-key-file", &file]))
}

#[test]
fn a_wrong_file_keeps_the_server_from_starting() {
    for (content, mode, says) in [
        ("", 0o600, "there is no key in it; expected one a line"),
        ("# none\n", 0o600, "there is no key in it"),
        (
            "0123456789abcdef\nshort\n",
            0o600,
            "line 2: a key must have at least 16 characters",
        ),
        ("0123456789 abcdef\n", 0o600, "without spaces"),
        (KEY, 0o644, "its mode must be 0600 or 0640"),
        (&"x".repeat((1 << 20) + 1), 0o600, "more than 1048576 bytes"),
    ] {
        let refusal = refused(content, mode);
        assert_eq!(refusal.code, Some(1), "{refusal:?}");
        for part in ["(--api-key-file)", says] {
            assert!(refusal.stderr.contains(part), "{refusal:?}");
        }
        assert!(!refusal.stderr.contains(KEY));
    }
    let missing = ["serve", "--api-key-file", "/nonexistent/keys"];
    let refusal = Rerankd::run(Rerankd::command(&missing));
    assert!(
        refusal
            .stderr
            .contains("`/nonexistent/keys` (--api-key-file)"),
        "{refusal:?}"
    );
}

#[test]
fn with_a_key_it_listens_off_loopback() {
    let (_folder, file) = key_file(KEY, 0o600);
    let arguments = ["serve", "--listen", "0.0.0.0:0", "--api-key-file", &file];
    let server = Rerankd::spawn(Rerankd::command(&arguments));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], server.address().port()));
    let mut connection = rerankd_tests::Connection::open(address).expect("it listens");
    let path = "/v1/rerank/first-stage";
    connection
        .request("POST", path, &[("Host", "any")], b"{}")
        .expect("it is open");
    assert_eq!(connection.answer().expect("it is answered").status, 401);
}

#[test]
fn at_sighup_the_keys_are_read_anew_and_the_server_goes_on() {
    let (folder, file) = key_file(KEY, 0o600);
    let mut server = Rerankd::start(&["--api-key-file", &file]);
    assert_eq!(with(&server, KEY), 200);
    folder.write("keys", OTHER);
    folder.set_mode("keys", 0o600);
    server.hang_up();
    eventually("the signal is noticed", || {
        server.stderr().contains("(SIGHUP)").then_some(())
    });
    // At once, and not when it would be looked at again.
    assert_eq!((with(&server, KEY), with(&server, OTHER)), (401, 200));
    server.terminate();
    assert_eq!(server.exit_status().code(), Some(0));
}
