//! What is no search goes through the search proxy byte for byte, both ways, and never framed twice.
//!
//! The engine here is a script, since a real one can be asked neither for half an answer nor for what
//! exactly it got; tests on real engines are `engines_*.rs`.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc;

use rerankd_tests::upstream::{wait_for_end, write_answer, write_json};
use rerankd_tests::{Connection, Rerankd, Upstream, eventually, http};

fn proxy(upstream: &Upstream, more: &[&str]) -> Rerankd {
    let url = upstream.url();
    let flags = ["--upstream", &url, "--proxy-listen", "127.0.0.1:0"];
    Rerankd::start(&[&flags, more].concat())
}

fn connect(server: &Rerankd) -> Connection {
    Connection::open(server.proxy_address()).expect("the proxy listens")
}

fn echo(stream: &mut TcpStream) -> std::io::Result<bool> {
    write_json(stream, "200 OK", "{}")
}

#[test]
fn a_request_goes_on_as_it_came_but_for_what_belongs_to_its_connection() {
    let upstream = Upstream::start(|_, stream| echo(stream));
    let server = proxy(&upstream, &["--proxy-allow-host", "shop.example"]);
    let target = "/a%2Fb/../c//d;e/_doc/%E2%98%83?pretty&x=%7B%22%7D&x=2&&y";
    let body = b"{ \"a\" : 1.0,\r\n \"a\":12345678901234567890 }";
    let mut connection = connect(&server);
    let headers = [
        ("Host", "shop.example:9200"),
        ("Authorization", "Basic dXNlcjpwYXNz"),
        ("X-Opaque-Id", "page-1"),
        (
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        ),
        (
            "Content-Type",
            "application/vnd.elasticsearch+json; compatible-with=8",
        ),
        (
            "Accept",
            "application/vnd.elasticsearch+json; compatible-with=8",
        ),
        ("Accept-Encoding", "gzip,deflate"),
        ("Rerankd-Key", "kept: this is no search"),
        ("X-Hop", "gone"),
        ("Connection", "keep-alive, X-Hop"),
        ("Keep-Alive", "timeout=5"),
        ("Proxy-Authorization", "Basic gone"),
        ("TE", "gzip"),
        ("Upgrade", "h2c"),
    ];
    connection
        .request("PUT", target, &headers, body)
        .expect("the proxy reads");
    connection.answer().expect("the engine answers").ok();
    let asked = upstream.asked().remove(0);
    assert_eq!(asked.line, format!("PUT {target} HTTP/1.1"));
    assert_eq!(asked.body, body);
    let host = upstream.address().to_string();
    assert_eq!(asked.header("host"), Some(&*host));
    for (name, value) in &headers[1..8] {
        let name = name.to_ascii_lowercase();
        assert_eq!(asked.header(&name), Some(*value), "{name}");
    }
    for (name, _) in &headers[8..] {
        let name = name.to_ascii_lowercase();
        assert_eq!(asked.header(&name), None, "{name}");
    }
    assert_eq!(asked.count("content-length"), 1);
    assert_eq!(asked.count("transfer-encoding"), 0);
}

#[test]
fn an_answer_comes_back_as_the_engine_wrote_it() {
    let upstream = Upstream::start(|asked, stream| match asked.target() {
        "/" => {
            let headers = [
                ("X-elastic-product", "Elasticsearch"),
                ("Warning", "299 Elasticsearch-8.19.21 \"a, b\""),
                ("Warning", "299 Elasticsearch-8.19.21 \"c\""),
                ("X-Opaque-Id", "1"),
                ("content-type", "text/plain; charset=UTF-8"),
                ("Connection", "X-Hop"),
                ("X-Hop", "gone"),
                ("Keep-Alive", "gone"),
            ];
            write_answer(stream, "200 Fine", &headers, b"bytes \xff\x00 as they are")
        }
        "/head" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n")?;
            Ok(true)
        }
        "/none" => {
            stream.write_all(b"HTTP/1.1 204 No Content\r\nx-a: b\r\n\r\n")?;
            Ok(true)
        }
        _ => {
            stream.write_all(b"HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n")?;
            Ok(true)
        }
    });
    let server = proxy(&upstream, &[]);
    let mut connection = connect(&server);
    connection.request("GET", "/", &[], b"").expect("it reads");
    let answer = connection.answer().expect("an answer").ok();
    assert_eq!(answer.body, b"bytes \xff\x00 as they are");
    let names: Vec<&str> = answer.headers.iter().map(|(name, _)| &**name).collect();
    assert_eq!(
        names,
        [
            "x-elastic-product",
            "warning",
            "warning",
            "x-opaque-id",
            "content-type",
            "content-length"
        ]
    );

    let mut connection = connect(&server);
    connection
        .send(http::head("HEAD", "/head", &[]))
        .expect("it reads");
    let answer = connection.answer_head().expect("an answer");
    assert_eq!(answer.header("content-length"), Some("12345"));
    for (target, status) in [("/none", 204), ("/tagged", 304)] {
        connection
            .send(http::head("GET", target, &[]))
            .expect("the connection goes on after an answer without a body");
        let answer = connection.answer_head().expect("an answer");
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("content-length"), None, "{target}");
        assert_eq!(answer.header("transfer-encoding"), None, "{target}");
    }
}

#[test]
fn bodies_flow_both_ways_while_they_are_made() {
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let upstream = Upstream::start(move |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
        let signal = may_go_on.lock().expect("nobody panicked").recv();
        signal.expect("the test says so");
        stream.write_all(b"6\r\nsecond\r\n0\r\n\r\n")?;
        Ok(true)
    });
    // Far below what goes through: no limit of ours is met.
    let server = proxy(&upstream, &["--max-body-bytes", "1000"]);
    let mut connection = connect(&server);
    let half = vec![b'x'; 3 << 20];
    let length = (2 * half.len()).to_string();
    let headers = [("Content-Length", &*length)];
    connection
        .send(http::head("POST", "/_bulk", &headers))
        .expect("it reads");
    connection.send(&half).expect("it reads");
    eventually("the engine has the first half", || {
        (upstream.body_bytes() == half.len()).then_some(())
    });
    connection.send(&half).expect("it reads");
    connection.answer_head().expect("the head is there").ok();
    let chunk = connection.chunk().expect("a chunk");
    assert_eq!(chunk.as_deref(), Some(&b"first"[..]));
    go_on.send(()).expect("the engine waits");
    let chunk = connection.chunk().expect("a chunk");
    assert_eq!(chunk.as_deref(), Some(&b"second"[..]));
    assert_eq!(connection.chunk().expect("the end"), None);
    let asked = upstream.asked().remove(0);
    assert_eq!(asked.body.len(), 2 * half.len());
    assert_eq!(asked.header("content-length"), Some(&*length));
}

#[test]
fn chunks_stay_chunks_with_their_trailers() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\n{}\r\n0\r\nx-sum: 7\r\n\r\n",
        )?;
        Ok(true)
    });
    let server = proxy(&upstream, &[]);
    let mut connection = connect(&server);
    let headers = [("Transfer-Encoding", "chunked"), ("TE", "trailers")];
    connection
        .send(http::head("GET", "/_cluster/health", &headers) + "3\r\nabc\r\n0\r\n\r\n")
        .expect("it reads");
    let answer = connection.answer_head().expect("a head").ok();
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    assert_eq!(answer.header("content-length"), None);
    assert_eq!(
        connection.chunk().expect("a chunk").as_deref(),
        Some(&b"{}"[..])
    );
    let asked = upstream.asked().remove(0);
    assert_eq!(asked.body, b"abc");
    assert_eq!(asked.header("transfer-encoding"), Some("chunked"));
    assert_eq!(asked.header("te"), Some("trailers"));
    assert_eq!(asked.count("content-length"), 0);
}

#[test]
fn a_request_framed_both_ways_goes_on_framed_once_and_ends_its_connection() {
    let upstream = Upstream::start(|_, stream| echo(stream));
    let server = proxy(&upstream, &[]);
    for path in ["/_bulk", "/products/_search"] {
        for headers in [
            [("Content-Length", "6"), ("Transfer-Encoding", "chunked")],
            [("Transfer-Encoding", "chunked"), ("Content-Length", "6")],
            [("Content-Length", "600"), ("Transfer-Encoding", "chunked")],
        ] {
            let before = upstream.asked().len();
            let mut connection = connect(&server);
            let hidden = http::head("DELETE", "/products", &[]);
            connection
                .send(http::head("POST", path, &headers) + "2\r\n{}\r\n0\r\n\r\n" + &hidden)
                .expect("the head is read");
            let answer = connection.answer().expect("an answer");
            assert!([200, 400].contains(&answer.status), "{answer:?}");
            assert!(connection.is_closed_by_server());
            for asked in upstream.asked().drain(..).skip(before) {
                assert_eq!(asked.line, format!("POST {path} HTTP/1.1"));
                assert_eq!(asked.body, b"{}");
                let framings = asked.count("content-length") + asked.count("transfer-encoding");
                assert_eq!(framings, 1, "{asked:?}");
            }
        }
    }
}

#[test]
fn a_framing_that_nobody_can_be_sure_of_is_refused() {
    let upstream = Upstream::start(|_, stream| echo(stream));
    let server = proxy(&upstream, &[]);
    for headers in [
        "Content-Length: 2\r\nContent-Length: 3\r\n",
        "Content-Length: +2\r\n",
        "Content-Length: 2, 3\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: chunked\r\n folded\r\n",
    ] {
        let mut connection = connect(&server);
        let request = format!("POST /_bulk HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{{}}\n");
        connection.send(request).expect("the head is read");
        let answer = connection.answer().expect("an answer");
        assert_eq!(answer.status, 400, "{headers:?}");
        assert!(connection.is_closed_by_server(), "{headers:?}");
    }
    assert_eq!(upstream.asked().len(), 0);
}

#[test]
fn tunnels_other_protocols_and_other_hosts_are_refused_in_the_engines_shape() {
    let upstream = Upstream::start(|_, stream| echo(stream));
    let server = proxy(&upstream, &[]);
    for (request, word) in [
        ("CONNECT elsewhere:443 HTTP/1.1\r\n", "CONNECT"),
        ("GET http://elsewhere/_search HTTP/1.1\r\n", "target"),
        ("OPTIONS * HTTP/1.1\r\n", "target"),
        (
            "GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
            "Upgrade",
        ),
    ] {
        let mut connection = connect(&server);
        connection
            .send(format!("{request}Host: elsewhere\r\n\r\n"))
            .expect("it reads");
        let answer = connection.answer().expect("an answer");
        assert_eq!(answer.status, 400, "{request}");
        let body = answer.json();
        assert_eq!(body["status"], 400, "{body}");
        let reason = body["error"]["reason"].as_str().expect("it says why");
        assert!(reason.contains(word), "{reason}");
        assert_eq!(body["error"]["root_cause"][0]["type"], "rerankd_exception");
    }
    assert_eq!(upstream.asked().len(), 0);
}

#[test]
fn a_client_that_waits_for_100_continue_gets_it() {
    let upstream = Upstream::start(|_, stream| echo(stream));
    let server = proxy(&upstream, &[]);
    let mut connection = connect(&server);
    let headers = [("Content-Length", "3"), ("Expect", "100-continue")];
    connection
        .send(http::head("POST", "/_bulk", &headers))
        .expect("it reads");
    let answer = connection.answer_head().expect("an interim answer");
    assert_eq!(answer.status, 100);
    connection.send("abc").expect("it reads");
    connection.answer().expect("an answer").ok();
    assert_eq!(upstream.asked().remove(0).body, b"abc");
}

#[test]
fn who_hangs_up_ends_the_engines_work() {
    let upstream = Upstream::start(|_, stream| wait_for_end(stream));
    let server = proxy(&upstream, &[]);
    for (ended, path) in [(1, "/_reindex"), (2, "/products/_search")] {
        let mut connection = connect(&server);
        connection
            .request("POST", path, &[], b"{}")
            .expect("it reads");
        eventually("the engine is asked", || {
            (upstream.asked().len() == ended).then_some(())
        });
        drop(connection);
        upstream.wait_for_ended(ended);
    }
}
