//! Clients that keep a server waiting: with heads that do not end, bodies that trickle, answers that
//! nobody reads. However many there are, others are answered, and what they make the server hold
//! is bounded.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rerankd_tests::http::head;
use rerankd_tests::upstream::{wait_for_end, write_json};
use rerankd_tests::usage::{memory_bytes, peak_memory_bytes};
use rerankd_tests::{Answer, Connection, PATIENCE, Rerankd, Upstream, eventually};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::json;

const NATIVE: &str = "/v1/rerank/first-stage";

/// Deadline of a neighbour's request: the one of the server by default.
const DEADLINE: Duration = Duration::from_secs(5);

/// This process must hold more connections than its soft limit may allow.
fn raise_own_limit() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).expect("a soft limit may be raised to the hard one");
}

fn engine() -> Upstream {
    Upstream::start(|asked, stream| match asked.target() {
        "/never" => wait_for_end(stream),
        "/large" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8388608\r\n\r\n")?;
            (0..128).try_for_each(|_| stream.write_all(&[b'x'; 64 << 10]))?;
            Ok(true)
        }
        _ => write_json(stream, "200 OK", "{}"),
    })
}

fn start(upstream: &Upstream, more: &[&str]) -> Rerankd {
    let url = upstream.url();
    let flags = ["--upstream", &url, "--proxy-listen", "127.0.0.1:0"];
    Rerankd::start(&[&flags, more].concat())
}

fn open(address: SocketAddr) -> Connection {
    Connection::open(address).expect("the system takes it")
}

fn send(address: SocketAddr, bytes: impl AsRef<[u8]>) -> Connection {
    let mut connection = open(address);
    connection.send(bytes).expect("a new connection is open");
    connection
}

fn get(address: SocketAddr, path: &str) -> Answer {
    let mut connection = send(address, head("GET", path, &[]));
    connection.answer().expect("it is answered")
}

/// A neighbour on each plane is answered within its deadline; the longest time that one took.
fn neighbours_are_answered(server: &Rerankd) -> Duration {
    let in_time = |what: &str, call: &dyn Fn() -> Answer| {
        let started = Instant::now();
        let answer = call();
        let took = started.elapsed();
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        assert!(took < DEADLINE, "{what} took {took:?}");
        took
    };
    let request = json!({"query": "clog", "documents": ["a clog"]});
    let took = [
        in_time("health", &|| server.get("/health/ready")),
        in_time("data", &|| server.post(NATIVE, &request)),
        in_time("admin", &|| {
            server.admin_call("GET", "/v1/models", &[], b"")
        }),
        in_time("proxy", &|| get(server.proxy_address(), "/_cat")),
    ];
    took.into_iter().max().unwrap_or_default()
}

fn mib(bytes: usize) -> usize {
    bytes >> 20
}

#[test]
fn unfinished_heads_on_any_plane_lock_nobody_out() {
    raise_own_limit();
    let upstream = engine();
    let few = ["--max-connections", "200", "--admin-max-connections", "200"];
    let server = start(
        &upstream,
        &[&few[..], &["--proxy-max-connections", "200"]].concat(),
    );
    let planes = [
        ("data", server.address()),
        ("admin", server.admin_address()),
        ("proxy", server.proxy_address()),
    ];
    for (plane, address) in planes {
        let heads: Vec<Connection> = (0..1100)
            .map(|number| match number % 3 {
                0 => open(address),
                1 => send(address, "GET /health/ready HTTP/1.1\r\nHost: loc"),
                // One that was answered before.
                _ => {
                    let mut connection = send(address, head("GET", "/health/live", &[]));
                    connection.answer().expect("it is answered");
                    // It may have had to make room since.
                    let _ = connection.send("GET /health");
                    connection
                }
            })
            .collect();
        let took = neighbours_are_answered(&server);
        println!("1,100 unfinished heads on {plane}: a neighbour took {took:?} at most");
        let ended = server.metric(
            "rerankd_connections_ended_total",
            &[("plane", plane), ("reason", "room")],
        );
        // The others had their answer in the reserve, or are still there.
        assert!(ended >= 400.0, "{ended}");
        let open = server.metric("rerankd_connections", &[("plane", plane)]);
        assert!(open <= 232.0, "{open}");
        drop(heads);
    }
}

#[test]
fn where_all_are_at_work_health_is_answered_and_others_are_told_to_come_back() {
    let upstream = engine();
    let server = start(
        &upstream,
        &[
            "--max-connections",
            "2",
            "--proxy-max-connections",
            "2",
            "--workers",
            "1",
            "--timeout-ms",
            "60000",
        ],
    );
    let busy_engine: Vec<Connection> = (0..2)
        .map(|_| send(server.proxy_address(), head("GET", "/never", &[])))
        .collect();
    let documents = rerankd_tests::documents::texts(1000);
    let request = json!({"query": "smart watch", "documents": documents}).to_string();
    let busy: Vec<Connection> = (0..2)
        .map(|_| {
            let mut connection = server.connect();
            let path = "/v1/rerank/semantic-blend";
            connection
                .request("POST", path, &[], request.as_bytes())
                .expect("it is open");
            connection
        })
        .collect();
    eventually("all places are taken by work", || {
        let busy = |plane| {
            server.metric(
                "rerankd_connections",
                &[("plane", plane), ("state", "busy")],
            )
        };
        (busy("data") == 2.0 && busy("proxy") == 2.0 && upstream.asked().len() == 2).then_some(())
    });
    let health = server.get("/health/ready").ok();
    assert_eq!(health.header("connection"), Some("close"));
    let refusals = [
        server.post(NATIVE, &json!({"query": "clog", "documents": ["a clog"]})),
        get(server.proxy_address(), "/_cat"),
    ];
    for refused in refusals {
        assert_eq!(
            (refused.status, refused.header("retry-after")),
            (429, Some("1"))
        );
        assert_eq!(refused.header("connection"), Some("close"));
        assert!(
            refused.text().contains("too many connections"),
            "{}",
            refused.text()
        );
    }
    // The planes do not take places from one another.
    assert!(server.metric("rerankd_connections_refused_total", &[("plane", "proxy")]) >= 1.0);
    drop((busy, busy_engine));
    eventually("there is room again", || {
        (get(server.proxy_address(), "/_cat").status == 200).then_some(())
    });
}

#[test]
fn heads_idle_connections_and_bodies_have_each_their_time() {
    let upstream = engine();
    let server = start(
        &upstream,
        &[
            "--head-timeout-ms",
            "300",
            "--stall-timeout-ms",
            "400",
            "--body-timeout-ms",
            "60000",
        ],
    );
    let mut idle = server.connect();
    idle.send(head("GET", "/health/live", &[]))
        .expect("it is open");
    idle.answer().expect("it is answered").ok();
    let started = Instant::now();
    let mut half = send(server.address(), "GET /health/live HTTP/1.1\r\nHost:");
    assert!(half.is_closed_by_server());
    // A byte now and then does not make it longer.
    let mut dribbled = server.connect();
    let mut sent = 0;
    eventually("a head that trickles is given up", || {
        sent += 1;
        dribbled.send("x").is_err().then_some(())
    });
    assert!(started.elapsed() < PATIENCE / 2, "{sent} bytes");
    assert!(started.elapsed() >= Duration::from_millis(600));
    // Idle connections have longer.
    idle.send(head("GET", "/health/live", &[]))
        .expect("it is open");
    idle.answer().expect("it is answered").ok();

    let length = [("Content-Length", "100000")];
    let mut slow = send(server.address(), head("POST", NATIVE, &length));
    let answer = trickle(&mut slow);
    assert_eq!(answer.status, 408);
    let message = answer.error_message();
    assert!(
        message.contains("bytes of the body came within 400ms"),
        "{message}"
    );
    let mut slow = send(server.proxy_address(), head("POST", "/a/_search", &length));
    assert_eq!(trickle(&mut slow).status, 408);
    // What goes through is the engine's business, as long as it moves.
    let mut still = send(server.proxy_address(), head("POST", "/_bulk", &length));
    still.send("x").expect("it is open");
    assert!(still.is_closed_by_server());
    let labels = [("plane", "proxy"), ("reason", "body")];
    assert_eq!(
        server.metric("rerankd_connections_ended_total", &labels),
        1.0
    );
}

/// Sends a byte at a time until there is an answer.
fn trickle(connection: &mut Connection) -> Answer {
    for _ in 0..50 {
        std::thread::park_timeout(Duration::from_millis(20));
        if connection.send(" ").is_err() {
            break;
        }
    }
    connection.answer().expect("it is answered")
}

/// A call whose answer is as large as itself.
fn large_page(bytes: usize) -> String {
    let hit =
        json!({"_id": "a", "_score": 1.0, "_source": {"title": "clog", "blob": "x".repeat(bytes)}});
    json!({"query": "clog", "response": {"hits": {"hits": [hit]}}}).to_string()
}

#[test]
fn clients_that_never_read_cost_a_bounded_memory_and_no_drain_time() {
    raise_own_limit();
    let upstream = engine();
    let mut server = start(
        &upstream,
        &[
            "--max-answer-bytes",
            "33554432",
            "--stall-timeout-ms",
            "60000",
        ],
    );
    neighbours_are_answered(&server);
    let before = memory_bytes(&server);
    let body = large_page(16 << 20);
    let length = body.len().to_string();
    let mut deaf = Vec::new();
    let mut longest = Duration::ZERO;
    // Of each the system holds some MiB.
    for number in 0..10 {
        let headers = [
            ("Content-Length", length.as_str()),
            ("Content-Type", "application/json"),
        ];
        let mut client = send(
            server.address(),
            head("POST", "/v1/rerank/first-stage/hits", &headers),
        );
        client.send(&body).expect("it is read");
        client.answer_head().expect("it is answered");
        deaf.push(client);
        let held = server.metric("rerankd_answer_bytes", &[("plane", "data")]);
        assert!(held <= (48 << 20) as f64, "{held}");
        if number % 4 == 3 {
            longest = longest.max(neighbours_are_answered(&server));
        }
    }
    for _ in 0..100 {
        deaf.push(send(server.proxy_address(), head("GET", "/large", &[])));
    }
    longest = longest.max(neighbours_are_answered(&server));
    eventually("some of them stand still", || {
        let waiting = |plane| {
            server.metric(
                "rerankd_connections",
                &[("plane", plane), ("state", "answer")],
            )
        };
        (waiting("data") > 0.0 && waiting("proxy") > 50.0).then_some(())
    });
    let (data, proxy) = (
        server.metric("rerankd_answer_bytes", &[("plane", "data")]),
        server.metric("rerankd_answer_bytes", &[("plane", "proxy")]),
    );
    let peak = peak_memory_bytes(&server).saturating_sub(before);
    println!(
        "clients that never read: {} MiB more at most, a neighbour took {longest:?} at most; answers held: {data} and {proxy} bytes",
        mib(peak)
    );
    assert!(data > 0.0 && data <= (48 << 20) as f64, "{data}");
    assert!(proxy > 0.0 && proxy <= (48 << 20) as f64, "{proxy}");
    assert!(mib(peak) < 250, "{} MiB", mib(peak));
    let started = Instant::now();
    server.terminate();
    assert_eq!(server.exit_status().code(), Some(0));
    let took = started.elapsed();
    println!("drained in {took:?}");
    assert!(took < Duration::from_secs(15), "{took:?}");
    assert!(server.stderr().contains("drained"), "{}", server.stderr());
    drop(deaf);
}

#[test]
fn bodies_that_trickle_do_not_hold_up_the_end_of_the_process() {
    let upstream = engine();
    let mut server = start(&upstream, &["--drain-ms", "60000", "--timeout-ms", "60000"]);
    let length = [("Content-Length", "1000000")];
    let json = ("Content-Type", "application/json");
    let bearer = format!("Bearer {}", server.admin_token());
    let admin = server.admin_address().to_string();
    let wasm = [
        ("Host", admin.as_str()),
        length[0],
        ("Content-Type", "application/wasm"),
        ("Authorization", &bearer),
    ];
    let mut clients = vec![
        send(
            server.address(),
            head("POST", "/v1/rerank/first-stage", &[length[0], json]),
        ),
        send(
            server.admin_address(),
            head("PUT", "/v1/policies/slow", &wasm),
        ),
        send(
            server.proxy_address(),
            head("POST", "/products/_bulk", &[length[0], json]),
        ),
    ];
    eventually("all are waited for", || {
        let waiting = ["data", "admin", "proxy"].map(|plane| {
            let labels = [("plane", plane), ("state", "body")];
            server.metric("rerankd_connections", &labels)
        });
        (waiting == [1.0; 3]).then_some(())
    });
    let trickling = std::thread::spawn(move || {
        // Until the server has ended all of them.
        while !clients.is_empty() {
            clients.retain_mut(|client| client.send(" ").is_ok());
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    let started = Instant::now();
    server.terminate();
    assert_eq!(server.exit_status().code(), Some(0));
    let took = started.elapsed();
    assert!(took < Duration::from_secs(20), "{took:?}");
    assert!(server.stderr().contains("drained"), "{}", server.stderr());
    trickling.join().expect("it sees the end");
}

#[test]
fn who_takes_nothing_of_an_answer_is_cut_off_in_time() {
    let upstream = engine();
    let server = start(&upstream, &["--stall-timeout-ms", "300"]);
    let deaf = send(server.proxy_address(), head("GET", "/large", &[]));
    eventually("it is cut off", || {
        let labels = [("plane", "proxy"), ("reason", "answer")];
        (server.metric("rerankd_connections_ended_total", &labels) == 1.0).then_some(())
    });
    eventually("nothing is held for it", || {
        (server.metric("rerankd_answer_bytes", &[("plane", "proxy")]) == 0.0).then_some(())
    });
    upstream.wait_for_ended(1);
    drop(deaf);
}

#[test]
fn requests_that_come_in_one_stream_are_answered_no_faster_than_answers_are_taken() {
    let server = Rerankd::start(&[]);
    server.get("/health").ok();
    let before = memory_bytes(&server);
    let stream = TcpStream::connect(server.address()).expect("it listens");
    stream
        .set_write_timeout(Some(Duration::from_millis(300)))
        .expect("it is a time");
    let requests = head("GET", "/health", &[]).repeat(2000);
    let mut sent = 0;
    // Until nobody reads them any more; an answer is several times as long as a request.
    while sent < 256 << 20 {
        match (&stream).write(requests.as_bytes()) {
            Ok(written) => sent += written,
            Err(_) => break,
        }
    }
    let more = memory_bytes(&server).saturating_sub(before);
    println!(
        "{} MiB of requests without reading: {} MiB more",
        mib(sent),
        mib(more)
    );
    assert!(sent < 64 << 20, "{sent}");
    assert!(mib(more) < 24, "{} MiB", mib(more));
    server.get("/health").ok();
}

/// A body of so many bytes in chunks of one byte, without the last chunk.
fn one_byte_chunks(bytes: usize) -> Vec<u8> {
    b"1\r\n \r\n".repeat(bytes)
}

#[test]
fn a_body_in_chunks_of_one_byte_takes_the_memory_of_its_bytes() {
    const BYTES: usize = 2 << 20;
    let upstream = engine();
    let server = start(&upstream, &["--body-timeout-ms", "60000"]);
    neighbours_are_answered(&server);
    let (host, bearer) = (
        server.admin_address().to_string(),
        format!("Bearer {}", server.admin_token()),
    );
    let chunked = ("Transfer-Encoding", "chunked");
    let upload = [
        ("Host", host.as_str()),
        ("Authorization", &bearer),
        ("Content-Type", "application/wasm"),
        chunked,
    ];
    let calls = [
        ("data", server.address(), head("POST", NATIVE, &[chunked])),
        (
            "proxy",
            server.proxy_address(),
            head("POST", "/a/_search", &[chunked]),
        ),
        (
            "admin",
            server.admin_address(),
            head("PUT", "/v1/policies/echo", &upload),
        ),
    ];
    let chunks = one_byte_chunks(BYTES);
    for (plane, address, head) in calls {
        let before = memory_bytes(&server);
        let mut connection = send(address, head);
        connection.send(&chunks).expect("it is read");
        let held = || {
            let metric = if plane == "admin" {
                "rerankd_upload_bytes"
            } else {
                "rerankd_admitted_bytes"
            };
            server.metric(metric, &[])
        };
        eventually("all of it is there", || {
            (held() >= BYTES as f64).then_some(())
        });
        let (counted, more) = (
            held() as usize,
            memory_bytes(&server).saturating_sub(before),
        );
        println!(
            "{plane}: {BYTES} chunks of one byte: {counted} bytes are counted, {} KiB more",
            more >> 10
        );
        assert!(counted <= BYTES * 3 / 2 + 1024, "{counted}");
        // It was 28 to 37 times the bytes.
        assert!(more < BYTES * 6, "{more}");
    }
}

#[test]
fn a_request_without_one_host_is_400_on_all_planes() {
    let upstream = engine();
    let server = start(&upstream, &[]);
    let planes = [
        server.address(),
        server.admin_address(),
        server.proxy_address(),
    ];
    for address in planes {
        for (headers, says) in [
            ("", "`Host` is missing"),
            (
                "Host: localhost\r\nHost: localhost\r\n",
                "`Host` is there more than once",
            ),
        ] {
            let mut connection = send(
                address,
                format!("GET /health/live HTTP/1.1\r\n{headers}\r\n"),
            );
            let answer = connection.answer().expect("it is answered");
            assert_eq!(answer.status, 400, "{}", answer.text());
            assert!(answer.text().contains(says), "{}", answer.text());
            assert!(connection.is_closed_by_server());
        }
    }
    for address in [server.address(), server.proxy_address()] {
        let mut connection = send(address, "GET /health/live HTTP/1.0\r\n\r\n");
        assert_eq!(connection.answer().expect("it is answered").status, 200);
    }
}

/// A server under other limits of open files.
fn limited(limits: &str, flags: &[&str]) -> Command {
    let rerankd = Rerankd::command(&[&["serve", "--listen", "127.0.0.1:0"], flags].concat());
    let mut command = Command::new("sh");
    command.args(["-c", &format!("{limits}; exec \"$0\" \"$@\"")]);
    command.arg(rerankd.get_program()).args(rerankd.get_args());
    for (name, value) in rerankd.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

#[test]
fn the_limit_of_open_files_is_raised_or_bounds_the_connections() {
    raise_own_limit();
    let server = Rerankd::spawn(limited("ulimit -Sn 200", &[]));
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).expect("it runs");
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"));
    let numbers: Vec<&str> = line.expect("there is one").split_whitespace().collect();
    assert_eq!(numbers[3], numbers[4], "{numbers:?}");
    let silent: Vec<Connection> = (0..400).map(|_| server.connect()).collect();
    server.get("/health/ready").ok();
    drop(silent);

    let server = Rerankd::spawn(limited("ulimit -n 400", &[]));
    let says = "the limit of open files does not suffice";
    assert!(server.stderr().contains(says), "{}", server.stderr());
    let silent: Vec<Connection> = (0..600).map(|_| server.connect()).collect();
    server.get("/health/ready").ok();
    server.admin_call("GET", "/v1/models", &[], b"").ok();
    assert!(
        !server.stderr().contains("cannot accept"),
        "{}",
        server.stderr()
    );
    drop(silent);

    let refused = Rerankd::run(limited("ulimit -n 150", &["--log", "error"]));
    assert_eq!(refused.code, Some(1), "{refused:?}");
    let says = "this process may open 150 files at a time (`ulimit -n`), and needs at least 224";
    assert!(refused.stderr.contains(says), "{refused:?}");
}
