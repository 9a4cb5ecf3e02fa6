//! What is wrong before there is any JSON to read: bodies that are too large, compressed, slow or cut,
//! and what is no HTTP at all.

use std::io::{ErrorKind, Write};
use std::sync::LazyLock;

use flate2::Compression;
use flate2::write::GzEncoder;
use rerankd_tests::documents::texts;
use rerankd_tests::http::head;
use rerankd_tests::{Answer, Connection, Rerankd, eventually};
use serde_json::json;

const MAX_BODY_BYTES: usize = 1 << 20;

static SERVER: LazyLock<Rerankd> = LazyLock::new(|| {
    let limit = MAX_BODY_BYTES.to_string();
    Rerankd::start(&["--max-body-bytes", &limit, "--timeout-ms", "60000"])
});

const NATIVE: &str = "/v1/rerank/semantic-blend";

const GOOD: &str = r#"{"query":"clog","documents":["a clog"]}"#;

/// An answer is the error that is expected, and the server is none the worse for it.
#[track_caller]
fn assert_refused(answer: &Answer, status: u16, message: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let text = answer.error_message();
    assert!(text.contains(message), "expected `{message}` in: {text}");
    SERVER.post_text(NATIVE, GOOD).ok();
}

/// A connection on which the head of a request was sent.
fn begin(server: &Rerankd, headers: &[(&str, &str)]) -> Connection {
    let mut connection = server.connect();
    let sent = connection.send(head("POST", NATIVE, headers));
    sent.expect("a new connection is open");
    connection
}

#[test]
fn a_body_over_the_limit_is_413_whether_it_says_its_length_or_not() {
    let limit = format!("the limit is {MAX_BODY_BYTES} bytes (--max-body-bytes)");
    let length = (MAX_BODY_BYTES + 1).to_string();
    let mut connection = begin(&SERVER, &[("Content-Length", &length)]);
    let answer = connection
        .answer()
        .expect("it is answered without a byte of body");
    assert_refused(
        &answer,
        413,
        &format!("the body has {length} bytes; {limit}"),
    );

    let mut connection = begin(&SERVER, &[("Transfer-Encoding", "chunked")]);
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    for _ in 0..=MAX_BODY_BYTES / 0x10000 {
        // It may stop reading as soon as it has seen too much.
        let _ = connection.send(&chunk);
    }
    let answer = connection.answer().expect("it is answered");
    assert_refused(&answer, 413, &format!("the body has more bytes; {limit}"));

    let padded = format!("{GOOD}{}", " ".repeat(MAX_BODY_BYTES));
    SERVER.post_text(NATIVE, &padded[..MAX_BODY_BYTES]).ok();
}

#[test]
fn a_length_that_no_body_could_have_is_413() {
    for length in ["99999999999999", "9223372036854775807"] {
        let mut connection = begin(&SERVER, &[("Content-Length", length)]);
        let answer = connection
            .answer()
            .expect("it is answered without a byte of body");
        assert_refused(&answer, 413, &format!("the body has {length} bytes"));
    }
}

#[test]
fn a_chunked_body_is_read() {
    let mut connection = begin(&SERVER, &[("Transfer-Encoding", "chunked")]);
    let (start, end) = GOOD.split_at(10);
    for chunk in [start, end, ""] {
        let chunk = format!("{:x}\r\n{chunk}\r\n", chunk.len());
        connection.send(chunk).expect("it is open");
    }
    connection.answer().expect("it is answered").ok();
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text).expect("memory takes it");
    encoder.finish().expect("memory takes it")
}

#[test]
fn a_body_may_come_in_gzip_and_in_no_other_compression() {
    let call = |encoding: &str, body: &[u8]| {
        SERVER.call("POST", NATIVE, &[("Content-Encoding", encoding)], body)
    };
    for encoding in ["br", "zstd", "deflate", "gzip, identity"] {
        let message = "a body may be compressed with `gzip` or not at all (`Content-Encoding`)";
        assert_refused(&call(encoding, GOOD.as_bytes()), 415, message);
    }
    call("identity", GOOD.as_bytes()).ok();
    let packed = gzip(GOOD.as_bytes());
    for encoding in ["gzip", "x-gzip"] {
        let answer = call(encoding, &packed).ok();
        assert_eq!(
            answer.scores(),
            SERVER.post_text(NATIVE, GOOD).ok().scores()
        );
    }
    let mut cut = packed.clone();
    cut.truncate(packed.len() - 9);
    for broken in [GOOD.as_bytes(), &packed[1..], &cut] {
        assert_refused(&call("gzip", broken), 400, "the body is not gzip");
    }
}

#[test]
fn what_is_small_when_it_is_packed_has_the_same_limit() {
    // 200 KB that would become 200 MB.
    let bomb = gzip(&vec![b' '; 200 << 20]);
    assert!(bomb.len() < MAX_BODY_BYTES);
    let answer = SERVER.call("POST", NATIVE, &[("Content-Encoding", "gzip")], &bomb);
    let message =
        format!("the body has more bytes when it is unpacked; the limit is {MAX_BODY_BYTES}");
    assert_refused(&answer, 413, &message);
    assert_eq!(SERVER.metric("rerankd_admitted_bytes", &[]), 0.0);
}

#[test]
fn bodies_that_do_not_arrive_are_408_and_hold_nothing_up() {
    let server = Rerankd::start(&["--body-timeout-ms", "3000", "--timeout-ms", "60000"]);
    // More of them than there are threads for HTTP, with no body and with the start of one.
    let mut waiting: Vec<_> = (0..40)
        .map(|number| {
            let mut connection = begin(&server, &[("Content-Length", "1000")]);
            if number % 2 == 1 {
                connection.send(r#"{"query""#).expect("it is open");
            }
            connection
        })
        .collect();
    let request = json!({"query": "clog", "documents": texts(3)});
    server.post(NATIVE, &request).ok();
    for connection in &mut waiting {
        let answer = connection.answer().expect("it is answered");
        assert_eq!(answer.status, 408);
        let message = answer.error_message();
        assert!(
            message.contains("the body did not arrive within 3s"),
            "{message}"
        );
        let closed = connection.is_closed_by_server();
        assert!(
            closed,
            "what is left of the body must not be read as a request"
        );
    }
    assert_eq!(server.metric("rerankd_admitted_bytes", &[]), 0.0);
    server.post(NATIVE, &request).ok();
}

#[test]
fn bodies_that_are_announced_and_do_not_come_shut_nobody_out() {
    let server = Rerankd::start(&["--timeout-ms", "60000"]);
    // As large as a body may be; together far more than --max-bytes-in-flight. None of it is sent.
    let announced = (32_usize << 20).to_string();
    let idle: Vec<_> = (0..20)
        .map(|_| begin(&server, &[("Content-Length", &announced)]))
        .collect();
    server.post_text(NATIVE, GOOD).ok();
    drop(idle);
}

#[test]
fn small_chunked_bodies_are_no_overload_however_many_come_at_a_time() {
    let server = Rerankd::start(&["--timeout-ms", "60000"]);
    let mut connections: Vec<_> = (0..20)
        .map(|_| begin(&server, &[("Transfer-Encoding", "chunked")]))
        .collect();
    let chunk = format!("{:x}\r\n{GOOD}\r\n0\r\n\r\n", GOOD.len());
    for connection in &mut connections {
        connection.send(&chunk).expect("it is open");
    }
    for connection in &mut connections {
        connection.answer().expect("it is answered").ok();
    }
}

#[test]
fn a_head_that_does_not_end_is_given_up() {
    let server = Rerankd::start(&["--idle-timeout-ms", "500"]);
    let mut silent = server.connect();
    let mut half = server.connect();
    half.send("POST /v1/rerank/semantic-blend HTTP/1.1\r\nHost:")
        .expect("it is open");
    assert!(half.is_closed_by_server());
    assert!(silent.is_closed_by_server());
}

#[test]
fn a_client_that_gives_up_in_the_middle_of_a_body_leaves_nothing_behind() {
    for cut in ["", r#"{"query":"#] {
        let mut connection = begin(&SERVER, &[("Content-Length", "1000")]);
        connection.send(cut).expect("it is open");
        connection.finish_sending();
        match connection.answer() {
            Ok(answer) => assert_refused(&answer, 400, "the body broke off"),
            // A client that is gone need not be told.
            Err(error) => {
                let gone = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
                assert!(gone.contains(&error.kind()), "{error}");
            }
        }
    }
    eventually("no byte is held for those who are gone", || {
        (SERVER.metric("rerankd_admitted_bytes", &[]) == 0.0).then_some(())
    });
}

#[test]
fn what_is_no_http_is_refused_and_harms_nobody() {
    let long = "x".repeat(2 << 20);
    let requests = [
        "\x16\x03\x01\x02\0\x01\0\0\0\0\r\n\r\n".to_owned(),
        "hello\r\n\r\n".to_owned(),
        head("POST", &format!("/{long}"), &[]),
        head("GET", "/health/live", &[("X-Long", &long)]),
        head("POST", NATIVE, &[("Content-Length", "-1")]),
        head(
            "POST",
            NATIVE,
            &[("Content-Length", "1"), ("Content-Length", "2")],
        ),
    ];
    for request in requests {
        let mut connection = SERVER.connect();
        // It may have seen enough before it has seen all.
        let _ = connection.send(&request);
        if let Ok(answer) = connection.answer() {
            let start: String = request.chars().take(40).collect();
            assert!(
                (400..500).contains(&answer.status),
                "{} {start:?}",
                answer.status
            );
        }
        SERVER.get("/health/ready").ok();
    }
}

#[test]
fn a_strange_path_is_only_a_strange_path() {
    for path in [
        "/v1/rerank/..%2f..%2fetc%2fpasswd",
        "/v1/rerank/%ff%fe",
        "//v1//rerank//a//b",
        "/v1/rerank/a%00b",
    ] {
        let answer = SERVER.post_text(path, GOOD);
        assert!(
            (400..500).contains(&answer.status),
            "{path}: {}",
            answer.status
        );
    }
}
