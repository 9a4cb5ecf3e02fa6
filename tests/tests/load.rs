//! Many requests at a time, large ones, and clients that lose patience: nothing is lost, nobody
//! starves, and no core works for those who are gone.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicBool, Ordering};

use rerankd_tests::answer::assert_same_bits;
use rerankd_tests::documents::{long_texts, scored_texts, texts};
use rerankd_tests::http::head;
use rerankd_tests::{Answer, Connection, Rerankd, eventually, long_tests};
use serde_json::{Value, json};

const NATIVE: &str = "/v1/rerank/semantic-blend";

/// A thousand documents: seconds of work for one worker on any machine, thousands of times that of
/// one document.
static LARGE: LazyLock<String> =
    LazyLock::new(|| json!({"query": "smart watch", "documents": texts(1000)}).to_string());

/// A server with one worker, so that what is queued stays queued.
fn one_worker(flags: &[&str]) -> Rerankd {
    Rerankd::start(&[&["--workers", "1", "--timeout-ms", "60000"], flags].concat())
}

fn send(server: &Rerankd, body: &str) -> Connection {
    let mut connection = server.connect();
    let sent = connection.request("POST", NATIVE, &[], body.as_bytes());
    sent.expect("a new connection is open");
    connection
}

/// Sends the large request and waits until its rows are queued.
fn send_large(server: &Rerankd) -> Connection {
    let connection = send(server, &LARGE);
    eventually("its rows are queued", || {
        (server.metric("rerankd_queue_rows", &[]) > 500.0).then_some(())
    });
    connection
}

fn small(more: Value) -> Value {
    let mut request = json!({"query": "smart watch", "documents": texts(5)});
    let more = more.as_object().expect("an object").clone();
    request.as_object_mut().expect("an object").extend(more);
    request
}

fn assert_idle(server: &Rerankd) {
    eventually("nothing is queued or held", || {
        let gauges = [
            "queue_rows",
            "queue_tokens",
            "admitted_requests",
            "admitted_tokens",
            "admitted_bytes",
        ];
        let held = |gauge| server.metric(&format!("rerankd_{gauge}"), &[]) != 0.0;
        (!gauges.into_iter().any(held)).then_some(())
    });
}

#[test]
fn the_rows_of_a_client_that_hangs_up_are_dropped() {
    let server = one_worker(&["--row-cache-mib", "0"]);
    for form in [
        NATIVE,
        "/inference/cross/all-minilm-l6-v2",
        "/inference/encoder/all-minilm-l6-v2",
    ] {
        let titles: Vec<String> = texts(1000)
            .iter()
            .map(|document| {
                document["fields"]["text"]
                    .as_str()
                    .expect("a text")
                    .to_owned()
            })
            .collect();
        let body = match form {
            NATIVE => LARGE.clone(),
            cross if cross.contains("cross") => {
                let pair = |text: &String| json!({"query": "smart watch", "text": text});
                json!({"input": titles.iter().map(pair).collect::<Vec<_>>()}).to_string()
            }
            _ => json!({"texts": titles}).to_string(),
        };
        let count = |name: &str| server.metric(&format!("rerankd_rows_{name}_total"), &[]);
        let (run, withdrawn) = (count("run"), count("withdrawn"));
        let mut connection = server.connect();
        connection
            .request("POST", form, &[], body.as_bytes())
            .expect("it is open");
        eventually("its rows are queued", || {
            (server.metric("rerankd_queue_rows", &[]) > 500.0).then_some(())
        });
        drop(connection);
        assert_idle(&server);
        // Each row was run or dropped: none was lost, none counted twice. The query is a row, too.
        let rows = if form.contains("encoder") {
            1000.0
        } else {
            1001.0
        };
        let withdrawn = eventually("every row is run or dropped", || {
            let (run, withdrawn) = (count("run") - run, count("withdrawn") - withdrawn);
            (run + withdrawn == rows).then_some(withdrawn)
        });
        assert!(
            withdrawn > 100.0,
            "{form}: only {withdrawn} rows were dropped"
        );
        assert_eq!(count("late"), 0.0);
    }
    server.post(NATIVE, &small(json!({}))).ok();
}

#[test]
fn a_client_that_hangs_up_ends_its_guest_too() {
    // The first stage is none of the models' work: what is held is held by the guest alone.
    let server =
        rerankd_tests::guests::serve(&["--guest-cpu-ms", "60000", "--timeout-ms", "60000"]);
    let request = small(json!({})).to_string();
    let mut connection = server.connect();
    connection
        .request("POST", "/v1/rerank/spin", &[], request.as_bytes())
        .expect("it is open");
    eventually("the guest runs", || {
        (server.metric("rerankd_admitted_requests", &[]) == 1.0).then_some(())
    });
    drop(connection);
    assert_idle(&server);
}

#[test]
fn what_is_late_is_said_and_the_head_of_the_list_is_scored_first() {
    let server = one_worker(&[]);
    // Far more than one worker can do in the time.
    let documents: Vec<Value> = scored_texts(1000)
        .into_iter()
        .map(|mut document| {
            let text = document["fields"]["text"].as_str().expect("it has a text");
            document["fields"]["text"] = json!(text.repeat(4));
            document
        })
        .collect();
    let late_rows = || server.metric("rerankd_rows_late_total", &[]);
    // Where others want the cores, the shortest time may not be enough for any of it.
    let mut times = [1500, 3000, 6000, 12_000].into_iter();
    let partial = times.find_map(|timeout_ms| {
        let request =
            json!({"query": "smart watch", "documents": documents, "timeout_ms": timeout_ms});
        let late = late_rows();
        let answer = server.post(NATIVE, &request).ok();
        let partial = answer.parameter("status") == Some("partial");
        partial.then_some((timeout_ms, answer, late_rows() - late))
    });
    let (timeout_ms, answer, late_rows) = partial.expect("some time is enough for a part");
    assert_eq!(answer.parameter("reason"), Some("late"));
    let time = answer.parameter("time").and_then(|time| time.parse().ok());
    let time: f64 = time.expect("it says how long it took");
    // A tenth of the time is kept in reserve for this.
    assert!(
        time < f64::from(timeout_ms),
        "the answer left {time} ms after the request came"
    );

    let scores = answer.scores();
    assert_eq!(scores.len(), 1000);
    let scored = scores.iter().flatten().count();
    let late = answer.unscored();
    assert_eq!(scored + late.len(), 1000);
    assert!(late.iter().all(|(_, reason)| reason == "late"));
    assert_eq!(late_rows, late.len() as f64, "one row a document");

    // Rows run in slices of 32: all before the last slice that was begun are scored.
    let first_late = late[0].0;
    let last_scored = scores.iter().rposition(Option::is_some);
    let last_scored = last_scored.expect("some are scored");
    assert!(
        first_late + 64 > last_scored,
        "{first_late} is late, {last_scored} is not"
    );

    // Unscored documents follow in the engine's order.
    let order = answer.order();
    assert!(order[scored..].is_sorted(), "{:?}", &order[scored..]);
    assert_idle(&server);
}

#[test]
fn a_deadline_that_nothing_can_meet_is_the_engines_order_or_an_error() {
    let server = one_worker(&[]);
    // Tokenizing alone takes longer than that.
    let request = json!({
        "query": "smart watch", "documents": long_texts(1000), "ordered": true, "timeout_ms": 100,
    });
    let mut failing = request.clone();
    failing["on_failure"] = json!("error");
    let answer = server.post(NATIVE, &request).ok();
    assert_eq!(
        answer.parameter("status"),
        Some("failed"),
        "{:?}",
        answer.headers
    );
    assert_eq!(answer.parameter("reason"), Some("deadline"));
    assert_eq!(answer.order(), (0..1000).collect::<Vec<_>>());
    assert_eq!(answer.unscored()[999], (999, "late".to_owned()));
    assert_idle(&server);

    let error = server.post(NATIVE, &failing);
    assert_eq!(
        (error.status, error.parameter("reason")),
        (424, Some("deadline-exceeded"))
    );
    let message = error.error_message();
    assert!(
        message.contains("the deadline came before any document was scored"),
        "{message}"
    );
    assert_idle(&server);
    let next = server.post(NATIVE, &small(json!({}))).ok();
    assert_eq!(next.parameter("status"), Some("applied"));
}

#[test]
fn a_small_request_does_not_wait_for_a_large_one() {
    let server = one_worker(&[]);
    let alone = server.post(NATIVE, &small(json!({}))).ok().scores();
    let mut large = send_large(&server);
    let large_is_done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let waiter = scope.spawn(|| {
            let answer = large.answer().expect("it is answered").ok();
            large_is_done.store(true, Ordering::SeqCst);
            answer
        });
        for _ in 0..3 {
            let answer = server.post(NATIVE, &small(json!({}))).ok();
            assert!(
                !large_is_done.load(Ordering::SeqCst),
                "it waited for a thousand documents"
            );
            assert_same_bits(&answer.scores(), &alone);
        }
        let large: Answer = waiter.join().expect("it does not panic");
        assert_eq!(
            large.parameter("status"),
            Some("applied"),
            "nor was the large one starved"
        );
    });
}

#[test]
fn more_tokens_than_there_is_room_for_are_429_with_the_time_to_come_back() {
    let server = one_worker(&["--max-queued-tokens", "300"]);
    let mut large = send_large(&server);
    let refused = server.post(NATIVE, &small(json!({})));
    assert_eq!(
        (refused.status, refused.parameter("reason")),
        (429, Some("overloaded"))
    );
    let message = refused.error_message();
    assert!(
        message.contains("too much text is waiting for its turn"),
        "{message}"
    );
    let seconds: u32 = refused
        .header("retry-after")
        .and_then(|seconds| seconds.parse().ok())
        .expect("it says when to come back");
    assert!((1..=120).contains(&seconds), "{seconds}");

    // Who would rather have the engine's order than an error says so.
    let fallback = server
        .post(NATIVE, &small(json!({"on_failure": "first-stage"})))
        .ok();
    assert_eq!(fallback.parameter("status"), Some("failed"));
    assert_eq!(fallback.parameter("reason"), Some("overloaded"));
    assert_eq!(fallback.order(), [0, 1, 2, 3, 4]);

    let pair = json!({"input": [{"query": "q", "text": "word ".repeat(500)}]});
    let refused = server.post("/inference/cross/all-minilm-l6-v2", &pair);
    assert_eq!(
        (refused.status, refused.header("retry-after").is_some()),
        (429, true)
    );
    let texts = json!({"texts": ["word ".repeat(2000)]});
    let refused = server.post("/inference/encoder/all-minilm-l6-v2", &texts);
    assert_eq!(
        (refused.status, refused.header("retry-after").is_some()),
        (429, true)
    );

    // The one that is larger than all the room was not refused: it would be for ever.
    assert_eq!(
        large
            .answer()
            .expect("it is answered")
            .ok()
            .parameter("status"),
        Some("applied")
    );
    assert_idle(&server);
    server.post(NATIVE, &small(json!({}))).ok();
}

#[test]
fn a_request_waits_for_an_instance_as_long_as_its_deadline_allows() {
    let server = one_worker(&["--max-instances", "1", "--row-cache-mib", "0"]);
    let mut large = send_large(&server);
    let refused = server.post(NATIVE, &small(json!({"timeout_ms": 400})));
    assert_eq!(refused.status, 429, "{}", refused.text());
    let message = refused.error_message();
    let said = "too many requests are running, and none of them ended in time (--max-instances)";
    // Where its rows could not start in time either, that is said at once.
    let early = "no row could start before the deadline";
    assert!(
        message.contains(said) || message.contains(early),
        "{message}"
    );
    // This one has the time.
    let waited = server.post(NATIVE, &small(json!({}))).ok();
    assert_eq!(waited.parameter("status"), Some("applied"));
    let large = large.answer().expect("it is answered").ok();
    assert_eq!(large.parameter("status"), Some("applied"));
    // Whoever hangs up while it waits leaves the line.
    let first = send_large(&server);
    let second = send(&server, &small(json!({})).to_string());
    eventually("both are in the line", || {
        (server.metric("rerankd_admitted_requests", &[]) == 2.0).then_some(())
    });
    drop(second);
    drop(first);
    assert_idle(&server);
    server.post(NATIVE, &small(json!({}))).ok();
}

/// Each of them takes milliseconds: nothing of that is overload.
#[test]
fn a_burst_beyond_the_instances_is_served() {
    let server = Rerankd::start(&["--max-instances", "4", "--timeout-ms", "60000"]);
    let alone = server.post(NATIVE, &small(json!({}))).ok().scores();
    let mut connections: Vec<Connection> = (0..80).map(|_| server.connect()).collect();
    let body = small(json!({})).to_string();
    for connection in &mut connections {
        let sent = connection.request("POST", NATIVE, &[], body.as_bytes());
        sent.expect("a new connection is open");
    }
    for connection in &mut connections {
        let answer = connection.answer().expect("it is answered").ok();
        assert_eq!(answer.parameter("status"), Some("applied"));
        assert_same_bits(&answer.scores(), &alone);
    }
    assert_idle(&server);
}

#[test]
fn more_bytes_than_there_is_room_for_are_429() {
    let room = [
        "--max-body-bytes",
        "10000",
        "--max-bytes-in-flight",
        "10000",
    ];
    let server = one_worker(&room);
    let body = format!("{}{}", small(json!({})), " ".repeat(7000));
    // All but its last byte: so many bytes are held, whenever they are counted.
    let mut held = server.connect();
    let length = body.len().to_string();
    held.send(head("POST", NATIVE, &[("Content-Length", &length)]))
        .expect("it is open");
    held.send(&body[..body.len() - 1]).expect("it is open");
    eventually("it is held", || {
        (server.metric("rerankd_admitted_bytes", &[]) > 7000.0).then_some(())
    });
    let refused = server.post_text(NATIVE, &body);
    assert_eq!(
        (refused.status, refused.header("retry-after").is_some()),
        (429, true)
    );
    let message = refused.error_message();
    assert!(message.contains("too many bytes in flight"), "{message}");
    held.send(&body[body.len() - 1..]).expect("it is open");
    held.answer().expect("it is answered").ok();
    server.post_text(NATIVE, &body).ok();
    assert_idle(&server);
}

#[test]
fn a_request_that_could_not_start_in_time_is_refused_at_once() {
    let server = one_worker(&[]);
    let large = send_large(&server);
    let refused = server.post(NATIVE, &small(json!({"timeout_ms": 10})));
    assert_eq!(
        (refused.status, refused.header("retry-after")),
        (429, Some("1"))
    );
    let message = refused.error_message();
    assert!(
        message.contains("no row could start before the deadline"),
        "{message}"
    );
    drop(large);
    assert_idle(&server);
}

/// Requests of several sizes from several clients, each again and again: every answer is the one that
/// the request had alone.
fn storm(server: &Rerankd, clients: usize, rounds: usize) {
    let requests: Vec<(String, Value)> = (0..8)
        .map(|kind| {
            let policy = ["semantic-blend", "cross-encoder"][kind % 2];
            let documents = match kind {
                0..4 => texts(1 + 9 * kind),
                _ => scored_texts(3 * kind),
            };
            let query = ["smart watch", "battery", "dvd player"][kind % 3];
            let path = format!("/v1/rerank/{policy}");
            (path, json!({"query": query, "documents": documents}))
        })
        .collect();
    let alone: Vec<_> = requests
        .iter()
        .map(|(path, body)| server.post(path, body).ok().scores())
        .collect();
    std::thread::scope(|scope| {
        for client in 0..clients {
            let (requests, alone) = (&requests, &alone);
            scope.spawn(move || {
                for round in 0..rounds {
                    let kind = (client + 3 * round) % requests.len();
                    let (path, body) = &requests[kind];
                    let scores = server.post(path, body).ok().scores();
                    if kind % 2 == 0 {
                        assert_same_bits(&scores, &alone[kind]);
                    } else {
                        assert_close(&scores, &alone[kind]);
                    }
                }
            });
        }
    });
    assert_idle(server);
}

/// What fp32 models promise.
#[track_caller]
fn assert_close(one: &[Option<f64>], other: &[Option<f64>]) {
    assert_eq!(one.len(), other.len());
    for (one, other) in one.iter().flatten().zip(other.iter().flatten()) {
        assert!((one - other).abs() <= 1e-5, "{one} against {other}");
    }
}

#[test]
fn every_one_of_many_clients_gets_its_own_answer() {
    storm(&Rerankd::start(&["--timeout-ms", "60000"]), 12, 6);
}

#[test]
fn a_long_storm_loses_nothing() {
    if long_tests("a_long_storm_loses_nothing") {
        storm(&Rerankd::start(&["--timeout-ms", "60000"]), 32, 60);
    }
}
