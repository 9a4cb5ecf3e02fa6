//! The engine's trouble: it is down, it is slow, it breaks off. The proxy answers with an error in the
//! engine's shape or ends the connection, and never hangs.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use rcgen::CertifiedKey;
use rerankd_tests::upstream::{nobody, wait_for_end, write_answer, write_json};
use rerankd_tests::usage::memory_mib;
use rerankd_tests::{Answer, Connection, Folder, Rerankd, Upstream, eventually, http};

const SEARCH: &str = r#"{"query":{"match":{"title":"watch"}}}"#;

fn proxy(addresses: &[String], flags: &[&str]) -> Rerankd {
    let addresses = addresses.join(",");
    let upstream = ["--upstream", &addresses, "--proxy-listen", "127.0.0.1:0"];
    Rerankd::start(&[&upstream, flags].concat())
}

fn ask(server: &Rerankd, method: &str, path: &str) -> std::io::Result<Answer> {
    let mut connection = Connection::open(server.proxy_address())?;
    let headers = [("Content-Type", "application/json")];
    let body = if method == "POST" { SEARCH } else { "" };
    connection.request(method, path, &headers, body.as_bytes())?;
    connection.answer()
}

/// An error of the proxy's own, in the engine's shape.
#[track_caller]
fn is_error(answer: &Answer, status: u16, path: &str) {
    assert_eq!(answer.status, status, "{path}: {}", answer.text());
    let body = answer.json();
    assert_eq!(body["status"], status);
    assert_eq!(body["error"]["type"], "rerankd_exception");
    assert!(body["error"]["root_cause"][0]["reason"].is_string());
    let is_search = path.ends_with("search");
    assert_eq!(
        answer.parameter("status"),
        is_search.then_some("error"),
        "{path}"
    );
}

const PATHS: [(&str, &str); 3] = [
    ("POST", "/products/_search"),
    ("POST", "/products/_bulk"),
    ("GET", "/_cluster/health"),
];

#[test]
fn an_engine_that_is_down_is_an_error_and_one_that_is_back_is_used() {
    let address = nobody();
    let server = proxy(&[format!("http://{address}")], &[]);
    for (method, path) in PATHS {
        let answer = ask(&server, method, path).expect("an answer");
        is_error(&answer, 503, path);
    }
    assert_eq!(server.get("/health/ready").status, 200);
    let _engine = Upstream::start_on(address, |_, stream| write_json(stream, "200 OK", "{}"));
    ask(&server, "GET", "/").expect("an answer").ok();
}

#[test]
fn an_engine_that_is_slow_is_a_timeout() {
    let upstream = Upstream::start(|_, stream| wait_for_end(stream));
    let limits = [
        "--upstream-timeout-ms",
        "200",
        "--upstream-idle-timeout-ms",
        "300",
    ];
    let server = proxy(&[upstream.url()], &limits);
    for (ended, (method, path)) in PATHS.into_iter().enumerate() {
        let started = Instant::now();
        let answer = ask(&server, method, path).expect("an answer");
        is_error(&answer, 504, path);
        assert!(started.elapsed() >= Duration::from_millis(200));
        upstream.wait_for_ended(ended + 1);
    }
}

#[test]
fn an_engine_that_stands_still_within_an_answer_ends_it() {
    let upstream = Upstream::start(|_, stream| {
        stream.write_all(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"took\"",
        )?;
        wait_for_end(stream)
    });
    let limits = [
        "--upstream-timeout-ms",
        "200",
        "--upstream-idle-timeout-ms",
        "300",
    ];
    let server = proxy(&[upstream.url()], &limits);
    let answer = ask(&server, "POST", "/products/_search").expect("an answer");
    is_error(&answer, 504, "/products/_search");
    // The head is on its way already; nobody can take the rest for whole.
    ask(&server, "GET", "/_cluster/health").expect_err("the answer is cut");
}

#[test]
fn half_an_answer_is_never_taken_for_a_whole_one() {
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"took\"",
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n7\r\n{\"took\"\r\n",
    ] {
        let upstream = Upstream::start(move |_, stream| {
            stream.write_all(head.as_bytes())?;
            Ok(false)
        });
        let server = proxy(&[upstream.url()], &[]);
        let answer = ask(&server, "POST", "/products/_search").expect("an answer");
        is_error(&answer, 502, "/products/_search");
        ask(&server, "GET", "/_cluster/health").expect_err("the answer is cut");
    }
}

#[test]
fn what_is_no_http_is_an_error() {
    for said in ["SSH-2.0-OpenSSH_9.9\r\n", "HTTP/1.1 200 OK\r\nbroken", ""] {
        let upstream = Upstream::start(move |_, stream| {
            stream.write_all(said.as_bytes())?;
            Ok(false)
        });
        let server = proxy(&[upstream.url()], &[]);
        for (method, path) in PATHS {
            let answer = ask(&server, method, path).expect("an answer");
            is_error(&answer, 502, path);
        }
    }
}

#[test]
fn a_node_that_is_down_is_passed_over_and_nothing_is_done_twice() {
    let well = Upstream::start(|_, stream| write_json(stream, "200 OK", "{}"));
    let server = proxy(&[format!("http://{}", nobody()), well.url()], &[]);
    for _ in 0..4 {
        for (method, path) in PATHS {
            ask(&server, method, path).expect("an answer").ok();
        }
    }
    let bulks = well.asked();
    let bulks = bulks
        .iter()
        .filter(|asked| asked.target().ends_with("_bulk"));
    assert_eq!(bulks.count(), 4);

    // One that takes a request and breaks off may have done it.
    let ill = Upstream::start(|_, _| Ok(false));
    let server = proxy(&[ill.url()], &[]);
    let answer = ask(&server, "POST", "/products/_bulk").expect("an answer");
    is_error(&answer, 502, "/products/_bulk");
    assert_eq!(ill.asked().len(), 1);
}

#[test]
fn only_what_changes_nothing_is_sent_to_a_second_node() {
    for (method, path) in PATHS {
        let ill = Upstream::start(|_, _| Ok(false));
        let well = Upstream::start(|_, stream| write_json(stream, "200 OK", "{}"));
        // A look-up would have its turn, too.
        let flags = ["--upstream-lookups", "false"];
        let server = proxy(&[ill.url(), well.url()], &flags);
        let answer = ask(&server, method, path).expect("an answer");
        assert_eq!(ill.asked().len(), 1, "{path}");
        if path.ends_with("_bulk") {
            is_error(&answer, 502, path);
            assert_eq!(well.asked().len(), 0, "{path}");
        } else {
            answer.ok();
        }
    }
}

#[test]
fn a_search_whose_body_does_not_come_holds_nothing() {
    let upstream = Upstream::start(|_, stream| write_json(stream, "200 OK", "{}"));
    let server = proxy(&[upstream.url()], &["--body-timeout-ms", "200"]);
    let mut connection = Connection::open(server.proxy_address()).expect("the proxy listens");
    let headers = [("Content-Length", "100")];
    connection
        .send(http::head("POST", "/products/_search", &headers) + "{")
        .expect("it reads");
    let answer = connection.answer().expect("an answer");
    is_error(&answer, 408, "/products/_search");
    assert_eq!(upstream.asked().len(), 0);
}

#[test]
fn a_server_that_goes_down_finishes_what_runs() {
    let upstream = Upstream::start(|_, stream| {
        std::thread::sleep(Duration::from_millis(300));
        write_json(stream, "200 OK", "{}")
    });
    let mut server = proxy(&[upstream.url()], &[]);
    let mut connection = Connection::open(server.proxy_address()).expect("the proxy listens");
    connection
        .request("GET", "/_cluster/health", &[], b"")
        .expect("it reads");
    eventually("the engine is asked", || {
        (upstream.asked().len() == 1).then_some(())
    });
    server.terminate();
    connection.answer().expect("an answer").ok();
    assert!(server.exit_status().success());
}

#[test]
fn an_engine_behind_tls_is_checked_against_the_ca_that_was_given() {
    let folder = Folder::new();
    let names = vec!["127.0.0.1".to_owned()];
    let CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(names).expect("the names are good");
    folder.write("cert.pem", cert.pem());
    folder.write("key.pem", signing_key.serialize_pem());
    folder.set_mode("key.pem", 0o600);
    let file = |name: &str| {
        let path = folder.path().join(name);
        path.to_str().expect("the path is UTF-8").to_owned()
    };
    // The other proxy plays the engine: it speaks TLS.
    let plain = Upstream::start(|_, stream| write_json(stream, "200 OK", r#"{"a":1}"#));
    let tls = [
        "--proxy-tls-cert",
        &file("cert.pem"),
        "--proxy-tls-key",
        &file("key.pem"),
    ];
    let engine = proxy(&[plain.url()], &tls);
    let url = format!("https://{}", engine.proxy_address());
    let server = proxy(
        std::slice::from_ref(&url),
        &["--upstream-ca", &file("cert.pem")],
    );
    let answer = ask(&server, "GET", "/").expect("an answer").ok();
    assert_eq!(answer.text(), r#"{"a":1}"#);

    let other = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]);
    folder.write("other.pem", other.expect("the name is good").cert.pem());
    let server = proxy(&[url], &["--upstream-ca", &file("other.pem")]);
    let answer = ask(&server, "GET", "/").expect("an answer");
    is_error(&answer, 503, "/");
    assert_eq!(plain.asked().len(), 1);
}

#[test]
fn a_certificate_that_says_it_is_an_authority_is_trusted_as_what_it_is() {
    let folder = Folder::new();
    // As `openssl req -x509` makes them.
    let made = |name: &str, days: [i32; 2], san: &str| {
        let mut params = rcgen::CertificateParams::new(vec![san.to_owned()]).expect("a good name");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.not_before = rcgen::date_time_ymd(days[0], 1, 1);
        params.not_after = rcgen::date_time_ymd(days[1], 1, 1);
        let key = rcgen::KeyPair::generate().expect("there is randomness");
        let certificate = params.self_signed(&key).expect("the parameters are good");
        folder.write(&format!("{name}.pem"), certificate.pem());
        folder.write(&format!("{name}-key.pem"), key.serialize_pem());
        folder.set_mode(&format!("{name}-key.pem"), 0o600);
    };
    made("good", [2020, 2090], "127.0.0.1");
    made("past", [2020, 2021], "127.0.0.1");
    made("elsewhere", [2020, 2090], "search.internal");
    let plain = Upstream::start(|_, stream| write_json(stream, "200 OK", r#"{"a":1}"#));
    for (name, problem) in [
        ("good", None),
        ("past", Some("expired")),
        ("elsewhere", Some("name")),
    ] {
        let file = |end: &str| {
            let path = folder.path().join(format!("{name}{end}.pem"));
            path.to_str().expect("the path is UTF-8").to_owned()
        };
        let (certificate, key) = (file(""), file("-key"));
        let tls = ["--proxy-tls-cert", &certificate, "--proxy-tls-key", &key];
        let engine = proxy(&[plain.url()], &tls);
        let url = format!("https://{}", engine.proxy_address());
        let server = proxy(&[url], &["--upstream-ca", &certificate]);
        let answer = ask(&server, "GET", "/").expect("an answer");
        match problem {
            None => assert_eq!(answer.ok().text(), r#"{"a":1}"#),
            Some(problem) => {
                is_error(&answer, 503, "/");
                let said = answer.text().to_lowercase();
                assert!(said.contains(problem), "{said}");
                assert!(said.contains("--upstream-ca"), "{said}");
            }
        }
    }
}

const CHUNKED: [(&str, &str); 2] = [
    ("Content-Type", "application/json"),
    ("Transfer-Encoding", "chunked"),
];

#[test]
fn a_clients_broken_body_is_its_own_fault_and_no_nodes() {
    let nodes = [(); 2].map(|()| Upstream::start(|_, stream| write_json(stream, "200 OK", "{}")));
    let server = proxy(&[nodes[0].url(), nodes[1].url()], &[]);
    let begin = |path: &str, chunks: &str| {
        let mut connection = Connection::open(server.proxy_address()).expect("the proxy listens");
        let begun = http::head("POST", path, &CHUNKED) + chunks;
        connection.send(begun).expect("it reads");
        connection
    };
    for path in ["/products/_bulk", "/products/_search", "/products/_bulk"] {
        let answer = begin(path, "5\r\nhello\r\nno number\r\n").answer();
        let answer = answer.expect("an answer");
        is_error(&answer, 400, path);
        assert!(answer.text().contains("the body broke off"), "{answer:?}");
    }
    let came = || nodes[0].body_bytes() + nodes[1].body_bytes();
    for _ in 0..4 {
        let before = came();
        let hangs_up = begin("/products/_bulk", "5\r\nhello\r\n");
        eventually("a node gets the first bytes", || {
            (came() > before).then_some(())
        });
        drop(hangs_up);
    }
    // Each of the connections to the engine that were begun has ended.
    eventually("the engine's connections end", || {
        let ended = nodes.iter().map(Upstream::ended).sum::<usize>();
        (ended >= 6).then_some(())
    });
    for _ in 0..4 {
        ask(&server, "GET", "/_cluster/health")
            .expect("an answer")
            .ok();
        ask(&server, "POST", "/products/_bulk")
            .expect("an answer")
            .ok();
    }
    let whole = nodes.each_ref().map(|node| node.asked().len());
    assert_eq!(whole, [4, 4], "a node was left alone");
    assert!(!server.stderr().contains("no answer of the search engine"));
}

#[test]
fn a_body_that_stands_still_is_the_clients() {
    let upstream = Upstream::start(|_, stream| write_json(stream, "200 OK", "{}"));
    let server = proxy(&[upstream.url()], &["--upstream-idle-timeout-ms", "300"]);
    let mut connection = Connection::open(server.proxy_address()).expect("the proxy listens");
    let begun = http::head("POST", "/products/_bulk", &CHUNKED) + "5\r\nhello\r\n";
    connection.send(begun).expect("it reads");
    let answer = connection.answer().expect("an answer");
    is_error(&answer, 408, "/products/_bulk");
}

/// As engines do with a body that is larger than they take.
#[test]
fn an_engine_that_refuses_a_body_early_is_well() {
    const TAKEN: usize = 64 << 10;
    let refusing = || {
        let socket = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = socket.local_addr().expect("it is bound");
        std::thread::spawn(move || {
            for mut stream in socket.incoming().map_while(Result::ok) {
                // What is not read makes of the end a reset.
                let mut taken = vec![0; TAKEN];
                let _ = stream.read_exact(&mut taken);
                let close = [("connection", "close")];
                let _ = write_answer(&mut stream, "413 Content Too Large", &close, b"{}");
            }
        });
        format!("http://{address}")
    };
    let other = Upstream::start(|_, stream| write_json(stream, "200 OK", "{}"));
    let server = proxy(&[refusing(), other.url()], &[]);
    let mut refused = 0;
    for _ in 0..16 {
        let mut connection = Connection::open(server.proxy_address()).expect("the proxy listens");
        let length = (8 << 20).to_string();
        let headers = [("Content-Length", length.as_str())];
        let head = http::head("POST", "/products/_bulk", &headers);
        connection.send(head).expect("it reads");
        // It may close before all of it is there.
        let _ = (0..128).try_for_each(|_| connection.send([b'x'; 64 << 10]));
        // Where the engine's answer got lost with the connection, or ours, there is none, or 502.
        match connection.answer() {
            Ok(answer) if answer.status == 413 => refused += 1,
            Ok(answer) => assert!([200, 502].contains(&answer.status), "{answer:?}"),
            Err(_) => {}
        }
    }
    assert!(refused > 0, "nobody learned why");
    assert_eq!(other.asked().len(), 8, "the address was left alone");
}

#[test]
fn a_node_that_is_back_is_used_again() {
    let well = Upstream::start(|_, stream| write_json(stream, "200 OK", "{}"));
    let address = nobody();
    let server = proxy(&[format!("http://{address}"), well.url()], &[]);
    let ask = || ask(&server, "GET", "/").expect("an answer").ok();
    ask();
    ask();
    let back = Upstream::start_on(address, |_, stream| write_json(stream, "200 OK", "{}"));
    eventually("the node is asked again", || {
        ask();
        (!back.asked().is_empty()).then_some(())
    });
    let before = back.asked().len();
    for _ in 0..4 {
        ask();
    }
    assert_eq!(back.asked().len() - before, 2);
}

#[test]
fn an_engine_that_talks_without_end_costs_a_bounded_time_and_no_memory() {
    // Heads, headers and informational answers that never end.
    let endless: [(&'static [u8], &'static [u8], u16); 3] = [
        (b"HTTP/1.1 200 OK\r\n", b"a: b\r\n", 502),
        (b"HTTP/1.1 200 OK\r\na: ", b"bbbbbbbb", 502),
        (b"", b"HTTP/1.1 102 Processing\r\n\r\n", 504),
    ];
    let limits = [
        "--upstream-timeout-ms",
        "300",
        "--upstream-idle-timeout-ms",
        "300",
    ];
    for (head, more, status) in endless {
        let upstream = Upstream::start(move |_, stream| {
            stream.write_all(head)?;
            let more = more.repeat(1000);
            loop {
                stream.write_all(&more)?;
                // Else it takes the cores that the proxy needs.
                std::thread::sleep(Duration::from_micros(100));
            }
        });
        let server = proxy(&[upstream.url()], &limits);
        let before = memory_mib(&server);
        for (method, path) in PATHS {
            let started = Instant::now();
            let answer = ask(&server, method, path).expect("an answer");
            is_error(&answer, status, path);
            assert!(started.elapsed() < Duration::from_secs(5));
            assert_eq!(server.get("/health/ready").status, 200);
        }
        let grown = memory_mib(&server).saturating_sub(before);
        assert!(grown < 64, "{grown} MiB more are resident");
    }
}

#[test]
fn an_answer_of_many_headers_goes_through() {
    let upstream = Upstream::start(|_, stream| {
        let warnings = [("Warning", "299 Elasticsearch \"old\""); 500];
        write_answer(stream, "200 OK", &warnings, b"{}")
    });
    let server = proxy(&[upstream.url()], &[]);
    let answer = ask(&server, "GET", "/").expect("an answer").ok();
    let warnings = answer.headers.iter().filter(|(name, _)| name == "warning");
    assert_eq!(warnings.count(), 500);
}

#[test]
fn what_an_engine_says_beyond_its_answer_is_nobodys_answer() {
    let upstream = Upstream::start(|_, stream| {
        let more = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{{}}{more}");
        stream.write_all(answer.as_bytes())?;
        Ok(true)
    });
    let server = proxy(&[upstream.url()], &[]);
    for _ in 0..20 {
        let answer = ask(&server, "GET", "/").expect("an answer").ok();
        assert_eq!(answer.text(), "{}");
    }
}
