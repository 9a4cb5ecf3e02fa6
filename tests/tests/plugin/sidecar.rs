//! A sidecar that answers as a test wants it to.

use std::io::{Result, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rerankd_tests::Upstream;
use rerankd_tests::upstream::{Asked, wait_for_end, write_answer, write_json};
use serde_json::{Value, json};

/// A pipeline's name that nobody has used yet: the sidecar's address is in it.
pub(crate) fn fresh_name() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("scripted-{}", NEXT.fetch_add(1, Ordering::SeqCst))
}

/// How many documents a request has.
pub(crate) fn documents(asked: &Asked) -> usize {
    let body: Value = serde_json::from_slice(&asked.body).expect("the request is JSON");
    let documents = body["documents"].as_array();
    documents.expect("the request has documents").len()
}

/// A native answer that turns the order round.
pub(crate) fn reversed(count: usize) -> Value {
    let result =
        |place: usize| json!({"index": count - 1 - place, "score": 1.0 / (place + 1) as f64});
    let results: Vec<Value> = (0..count).map(result).collect();
    native(results)
}

/// A native answer with these results.
pub(crate) fn native(results: Vec<Value>) -> Value {
    json!({
        "policy": "scripted", "version": "00000001", "status": "applied", "score_kind": "blend",
        "results": results, "unscored": 0, "timings_ms": {"total": 0.1},
    })
}

/// A sidecar that reverses every window.
pub(crate) fn reversing() -> Upstream {
    Upstream::start(|asked, stream| {
        let answer = reversed(documents(asked));
        write_json(stream, "200 OK", &answer.to_string())
    })
}

/// One that answers every call in one way.
pub(crate) fn with(answer: fn(usize, &mut TcpStream) -> Result<bool>) -> Upstream {
    Upstream::start(move |asked, stream| answer(documents(asked), stream))
}

fn changed(
    stream: &mut TcpStream,
    count: usize,
    change: impl FnOnce(&mut Vec<Value>),
) -> Result<bool> {
    let mut answer = reversed(count);
    let results = answer["results"].as_array_mut().expect("it is a list");
    change(results);
    write_json(stream, "200 OK", &answer.to_string())
}

/// Ways to fail: a name, and whether only the time limit ends it.
pub(crate) type Fault = (
    &'static str,
    bool,
    fn(usize, &mut TcpStream) -> Result<bool>,
);

/// All ways of a sidecar to fail that a plugin must survive.
pub(crate) const FAULTS: &[Fault] = &[
    ("500", false, |_, stream| {
        write_json(
            stream,
            "500 Internal Server Error",
            "{\"status\":\"error\"}",
        )
    }),
    ("503 without a body", false, |_, stream| {
        write_answer(stream, "503 Service Unavailable", &[], b"")
    }),
    ("405 of somebody else", false, |_, stream| {
        write_answer(
            stream,
            "405 Method Not Allowed",
            &[("content-type", "text/html")],
            b"<h1>no</h1>",
        )
    }),
    ("a redirection", false, |_, stream| {
        let headers = [("location", "http://127.0.0.1:1/")];
        write_answer(stream, "307 Temporary Redirect", &headers, b"")
    }),
    ("200 without a body", false, |_, stream| {
        write_json(stream, "200 OK", "")
    }),
    ("no JSON", false, |_, stream| {
        write_json(stream, "200 OK", "<html>hello</html>")
    }),
    ("another JSON", false, |_, stream| {
        write_json(stream, "200 OK", "[1, 2, 3]")
    }),
    ("JSON without results", false, |_, stream| {
        write_json(stream, "200 OK", "{\"status\":\"applied\"}")
    }),
    ("bytes that are no text", false, |_, stream| {
        write_json(stream, "200 OK", "\u{0}\u{1}\u{feff}")
    }),
    ("JSON of great depth", false, |_, stream| {
        let deep = format!("{{\"results\":{}", "[".repeat(200_000));
        write_json(stream, "200 OK", &deep)
    }),
    ("a result too few", false, |count, stream| {
        changed(stream, count, |results| results.truncate(count - 1))
    }),
    ("a result too many", false, |count, stream| {
        changed(stream, count, |results| {
            results.push(json!({"index": count, "score": 0.001}));
        })
    }),
    ("no results", false, |count, stream| {
        changed(stream, count, |results| results.clear())
    }),
    ("a repeated index", false, |count, stream| {
        changed(stream, count, |results| results[1] = results[0].clone())
    }),
    ("a negative index", false, |count, stream| {
        changed(stream, count, |results| results[1]["index"] = json!(-1))
    }),
    ("an index behind the last", false, |count, stream| {
        changed(stream, count, |results| results[1]["index"] = json!(count))
    }),
    ("an index beyond all integers", false, |count, stream| {
        changed(stream, count, |results| {
            results[1]["index"] = json!(u64::MAX)
        })
    }),
    ("an index with a fraction", false, |count, stream| {
        changed(stream, count, |results| results[1]["index"] = json!(0.5))
    }),
    ("an index as a text", false, |count, stream| {
        changed(stream, count, |results| {
            results[1]["index"] = json!("first")
        })
    }),
    ("a score as a text", false, |count, stream| {
        changed(stream, count, |results| results[1]["score"] = json!("NaN"))
    }),
    ("a score of null", false, |count, stream| {
        changed(stream, count, |results| results[1]["score"] = Value::Null)
    }),
    ("a score beyond all numbers", false, |count, stream| {
        let answer = reversed(count).to_string();
        write_json(
            stream,
            "200 OK",
            &answer.replacen("\"score\":1.0", "\"score\":1e999", 1),
        )
    }),
    ("a connection that ends at once", false, |_, _| Ok(false)),
    ("half an answer, then the end", false, |count, stream| {
        half(count, stream)?;
        Ok(false)
    }),
    ("half an answer, then nothing", true, |count, stream| {
        half(count, stream)?;
        wait_for_end(stream)
    }),
    ("no answer", true, |_, stream| wait_for_end(stream)),
    ("an answer byte by byte", true, |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")?;
        loop {
            // It fails when the other side has had enough.
            stream.write_all(b" ")?;
            std::thread::sleep(Duration::from_millis(20));
        }
    }),
    ("an answer without an end", false, |_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")?;
        let block = [b' '; 1 << 16];
        loop {
            stream.write_all(&block)?;
        }
    }),
];

fn half(count: usize, stream: &mut TcpStream) -> Result<()> {
    let body = reversed(count).to_string();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    stream.write_all(&body.as_bytes()[..body.len() / 2])
}
