//! Searches through the search proxy, where the engine behind it does what no healthy one does: its
//! answers are recorded ones, cut, packed, refused or replaced as the test says. What healthy engines
//! answer is in `engines_*.rs`.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rerankd_tests::documents::{recorded, recorded_query};
use rerankd_tests::scenario::plain_body;
use rerankd_tests::upstream::{Asked, wait_for_end, write_answer, write_json};
use rerankd_tests::{Answer, Connection, Folder, Rerankd, Upstream, require};
use serde_json::{Value, json};

const RECORDED: &str = "chorus-smart-watch";

/// A server before `upstream`, with some policies that work and some that do not. The rule is for all
/// indices.
fn serve(upstream: &Upstream, rule: &str, flags: &[&str]) -> Rerankd {
    let folder = Folder::new();
    for name in ["semantic-blend", "first-stage"] {
        let from = require::policies().join(format!("{name}.wasm"));
        folder.copy(&from, &format!("policies/{name}.wasm"));
    }
    for name in ["trap", "waits"] {
        folder.copy(&require::faulty(name), &format!("policies/{name}.wasm"));
    }
    let policies = r#"["semantic-blend", "first-stage", "trap", "waits"]"#;
    let config = format!("[[index]]\npattern = \"*\"\npolicies = {policies}\n{rule}\n");
    let config = folder.write("rerankd.toml", config);
    let policies = folder.path().join("policies");
    let text = |path: &std::path::Path| path.to_str().expect("the path is UTF-8").to_owned();
    let (config, policies, url) = (text(&config), text(&policies), upstream.url());
    let all = [
        "--config",
        &config,
        "--policies",
        &policies,
        "--upstream",
        &url,
        "--proxy-listen",
        "127.0.0.1:0",
        "--timeout-ms",
        "60000",
    ];
    Rerankd::start(&[&all, flags].concat())
}

fn call(server: &Rerankd, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let mut connection = Connection::open(server.proxy_address()).expect("the proxy listens");
    let headers = [headers, &[("Content-Type", "application/json")]].concat();
    connection
        .request("POST", target, &headers, body)
        .expect("the proxy reads");
    connection.answer().expect("there is an answer")
}

/// The recorded search, with more of a body.
fn search(more: &Value) -> Vec<u8> {
    let mut body = json!({"query": {"match": {"title": recorded_query(RECORDED)}}});
    let more = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("it is one").extend(more);
    body.to_string().into_bytes()
}

/// What an engine with the recorded hits answers to a search.
fn answer_to(asked: &[u8]) -> String {
    page_of(asked, false).to_string()
}

/// The page that is asked for. With `turned`, the same hits with the same scores have the contents of
/// each other.
fn page_of(asked: &[u8], turned: bool) -> Value {
    let asked: Value = serde_json::from_slice(asked).unwrap_or_default();
    let number = |name: &str, default: usize| {
        let number = asked[name].as_u64();
        number.map_or(default, |number| usize::try_from(number).expect("small"))
    };
    let (from, size) = (number("from", 0), number("size", 10));
    let mut page: Value = serde_json::from_str(&recorded(RECORDED)).expect("it is JSON");
    let hits = page["hits"]["hits"].as_array_mut().expect("it has hits");
    if turned {
        let contents: Vec<Value> = hits.iter().map(|hit| hit["_source"].clone()).collect();
        for (hit, content) in hits.iter_mut().zip(contents.into_iter().rev()) {
            hit["_source"] = content;
        }
    }
    let all = hits.len();
    *hits = hits.drain(from.min(all)..(from + size).min(all)).collect();
    page
}

fn engine(asked: &Asked, stream: &mut TcpStream) -> std::io::Result<bool> {
    let headers = [
        ("X-elastic-product", "Elasticsearch"),
        (
            "content-type",
            "application/vnd.elasticsearch+json;compatible-with=8",
        ),
    ];
    write_answer(
        stream,
        "200 OK",
        &headers,
        answer_to(&asked.body).as_bytes(),
    )
}

fn ids(page: &Value) -> Vec<String> {
    let hits = page["hits"]["hits"].as_array().expect("it has hits");
    let id = |hit: &Value| hit["_id"].as_str().expect("a hit has an id").to_owned();
    hits.iter().map(id).collect()
}

/// The order that the policy gives the recorded page.
fn expected(server: &Rerankd) -> Vec<String> {
    expected_of(server, false)
}

fn expected_of(server: &Rerankd, turned: bool) -> Vec<String> {
    let response = page_of(br#"{"size":100}"#, turned);
    let body = json!({"query": recorded_query(RECORDED), "response": response});
    ids(&server
        .post("/v1/rerank/semantic-blend/hits", &body)
        .ok()
        .json())
}

#[test]
fn a_page_is_cut_from_the_reranked_window_and_keeps_the_engines_head() {
    let upstream = Upstream::start(engine);
    let server = serve(&upstream, "", &[]);
    let expected = expected(&server);
    let own = ids(&serde_json::from_str(&answer_to(b"{}")).expect("JSON"));
    assert_ne!(expected[..10], own, "the policy changes nothing");
    let headers = [
        ("Authorization", "Basic YTpi"),
        ("Accept-Encoding", "gzip"),
        ("Rerankd-Key", "u1"),
    ];
    let answer = call(
        &server,
        "/products/_search?pretty",
        &headers,
        &search(&json!({})),
    )
    .ok();
    let page = serde_json::from_slice(&plain_body(&answer)).expect("it is JSON");
    assert_eq!(ids(&page), expected[..10]);
    assert_eq!(answer.parameter("status"), Some("applied"), "{answer:?}");
    assert_eq!(answer.parameter("window"), Some("20"));
    assert_eq!(answer.header("x-elastic-product"), Some("Elasticsearch"));
    assert_eq!(
        answer.header("content-type"),
        Some("application/vnd.elasticsearch+json;compatible-with=8")
    );
    let asked = upstream.asked().remove(0);
    let body: Value = serde_json::from_slice(&asked.body).expect("JSON");
    assert_eq!((&body["from"], &body["size"]), (&json!(0), &json!(100)));
    assert_eq!(asked.target(), "/products/_search?pretty");
    assert_eq!(asked.header("authorization"), Some("Basic YTpi"));
    assert_eq!(asked.header("accept-encoding"), Some("identity"));
    assert_eq!(asked.header("rerankd-key"), None);
}

#[test]
fn all_pages_are_of_one_ranking_that_was_made_once() {
    let upstream = Upstream::start(engine);
    // Else a model that knows the rows would hide a ranking that was made again.
    let server = serve(&upstream, "", &["--row-cache-mib", "0"]);
    let mut seen = Vec::new();
    let mut rows = Vec::new();
    for from in [0, 4, 8, 12, 16] {
        let page = search(&json!({"from": from, "size": 4}));
        let answer = call(&server, "/products/_search", &[], &page).ok();
        assert_eq!(answer.parameter("status"), Some("applied"));
        seen.extend(ids(&answer.json()));
        rows.push(server.metric("rerankd_rows_run_total", &[]));
    }
    assert_eq!(seen, expected(&server));
    assert_eq!(rows, [rows[0]; 5], "a later page ran a model again");
}

/// Ids of hits `from` to `from + 5`, as the search of these headers shows them.
fn five(server: &Rerankd, headers: &[(&str, &str)], from: usize) -> Vec<String> {
    let page = search(&json!({"from": from, "size": 5}));
    let answer = call(server, "/products/_search", headers, &page).ok();
    assert_eq!(answer.parameter("status"), Some("applied"), "{answer:?}");
    ids(&answer.json())
}

#[test]
fn nobody_gets_the_order_that_was_made_of_what_another_may_read() {
    // As with field-level security: the hits and their scores are the same for all.
    let upstream = Upstream::start(|asked, stream| {
        let is_b = [
            ("authorization", "Bearer b"),
            ("es-security-runas-user", "b"),
            ("cookie", "user=b"),
        ];
        let turned = is_b
            .iter()
            .any(|&(name, value)| asked.header(name) == Some(value));
        write_json(stream, "200 OK", &page_of(&asked.body, turned).to_string())
    });
    let server = serve(&upstream, "", &[]);
    let orders = [expected_of(&server, false), expected_of(&server, true)];
    assert_ne!(orders[0][..5], orders[1][..5]);
    let a: &[(&str, &str)] = &[("Authorization", "Bearer a")];
    let as_b = ("Es-Security-Runas-User", "b");
    let callers: [(&[(&str, &str)], usize); 6] = [
        (a, 0),
        (&[("Authorization", "Bearer b")], 1),
        (&[("Authorization", "Bearer a"), as_b], 1),
        (&[("Authorization", "Bearer a"), ("Cookie", "user=b")], 1),
        // What `Connection` names does not get to the engine.
        (&[("Connection", "es-security-runas-user"), as_b], 0),
        (a, 0),
    ];
    for from in [0, 5] {
        for (headers, order) in callers {
            let page = five(&server, headers, from);
            assert_eq!(page, orders[order][from..from + 5], "{headers:?}, {from}");
        }
    }
}

#[test]
fn a_kept_ranking_is_for_who_asked_by_all_headers_but_the_harmless_ones() {
    let upstream = Upstream::start(engine);
    // Else a model that knows the rows would hide a ranking that was made again.
    let server = serve(&upstream, "", &["--row-cache-mib", "0"]);
    let rows = || server.metric("rerankd_rows_run_total", &[]);
    let mut ran = 0.0;
    let mut call_again = |headers: &[(&str, &str)], target: &str, is_new: bool| {
        let page = search(&json!({"size": 5}));
        let answer = call(&server, target, headers, &page).ok();
        assert_eq!(answer.parameter("status"), Some("applied"), "{answer:?}");
        let now = rows();
        assert_eq!(
            now > ran,
            is_new,
            "{headers:?} {target}: {ran} to {now} rows"
        );
        ran = now;
    };
    let target = "/products/_search";
    call_again(&[], target, true);
    let id = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let harmless = [
        ("Accept-Encoding", "gzip"),
        ("User-Agent", "another/1.0"),
        ("X-Elastic-Client-Meta", "es=8.19"),
        ("X-Opaque-Id", "1"),
        ("X-Request-Id", "2"),
        ("traceparent", id),
        ("tracestate", "a=b"),
    ];
    call_again(&harmless, target, false);
    for header in [
        ("Authorization", "ApiKey YTpi"),
        ("Cookie", "sid=1"),
        ("Es-Security-Runas-User", "b"),
        ("Opendistro_Security_Impersonate_As", "b"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Proxy-User", "b"),
    ] {
        call_again(&[header], target, true);
        call_again(&[header, harmless[0]], target, false);
    }
    // A credential may stand in the URL.
    call_again(&[], "/products/_search?jwt=b", true);
    call_again(&[], target, false);
}

#[test]
fn a_later_page_is_cut_from_the_order_of_its_own_first_page() {
    let changed = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&changed);
    let upstream = Upstream::start(move |asked, stream| {
        let page = page_of(&asked.body, now.load(Ordering::SeqCst));
        write_json(stream, "200 OK", &page.to_string())
    });
    let server = serve(&upstream, "", &[]);
    let orders = [expected_of(&server, false), expected_of(&server, true)];
    assert_eq!(five(&server, &[], 0), orders[0][..5]);
    changed.store(true, Ordering::SeqCst);
    // The contents of the hits have changed, the pages go on where the first ended.
    assert_eq!(five(&server, &[], 5), orders[0][5..10]);
    // Another caller's later page has no first page that it could go on from.
    assert_eq!(
        five(&server, &[("Authorization", "x")], 5),
        orders[1][5..10]
    );
    // A first page is what the documents say now, and the pages behind it follow it.
    assert_eq!(five(&server, &[], 0), orders[1][..5]);
    assert_eq!(five(&server, &[], 5), orders[1][5..10]);
    changed.store(false, Ordering::SeqCst);
    assert_eq!(five(&server, &[], 0), orders[0][..5]);
    assert_eq!(five(&server, &[], 15), orders[0][15..]);
}

#[test]
fn packed_bodies_are_read_and_an_engine_that_packs_unasked_is_too() {
    let upstream = Upstream::start(|asked, stream| {
        let body = gzip(answer_to(&asked.body).as_bytes());
        let headers = [
            ("content-type", "application/json"),
            ("Content-Encoding", "gzip"),
        ];
        write_answer(stream, "200 OK", &headers, &body)
    });
    let server = serve(&upstream, "", &[]);
    let packed = gzip(&search(&json!({})));
    let headers = [("Content-Encoding", "gzip")];
    let answer = call(&server, "/products/_search", &headers, &packed).ok();
    assert_eq!(answer.parameter("status"), Some("applied"));
    assert_eq!(answer.header("content-encoding"), None);
    assert_eq!(ids(&answer.json()), expected(&server)[..10]);
    assert_eq!(upstream.asked()[0].header("content-encoding"), None);

    // Passed: both as they came.
    let packed = gzip(&search(&json!({"sort": ["price"]})));
    let answer = call(&server, "/products/_search", &headers, &packed).ok();
    assert_eq!(answer.parameter("reason"), Some("sort"));
    assert_eq!(answer.header("content-encoding"), Some("gzip"));
    let asked = upstream.asked().remove(1);
    assert_eq!(asked.body, packed);
    assert_eq!(asked.header("content-encoding"), Some("gzip"));
}

#[test]
fn what_the_engine_refuses_is_asked_again_as_the_client_meant_it() {
    let upstream = Upstream::start(|asked, stream| {
        let body: Value = serde_json::from_slice(&asked.body).unwrap_or_default();
        match body["size"].as_u64() {
            Some(3) => write_json(stream, "404 Not Found", r#"{"error":"of 3","status":404}"#),
            _ => write_json(stream, "400 Bad Request", r#"{"error":"of 100"}"#),
        }
    });
    let server = serve(&upstream, "", &[]);
    let sent = search(&json!({"size": 3}));
    let answer = call(&server, "/products/_search", &[], &sent);
    assert_eq!(answer.status, 404);
    assert_eq!(answer.text(), r#"{"error":"of 3","status":404}"#);
    assert_eq!(answer.parameter("status"), Some("failed"));
    assert_eq!(answer.parameter("reason"), Some("upstream-status"));
    let asked = upstream.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[1].body, sent);
}

#[test]
fn an_answer_that_is_not_understood_is_asked_for_again_and_goes_through() {
    for strange in ["[1]", r#"{"hits":{"hits":{}}}"#, "no JSON"] {
        let upstream = Upstream::start(move |_, stream| write_json(stream, "200 OK", strange));
        let server = serve(&upstream, "", &[]);
        let answer = call(&server, "/products/_search", &[], &search(&json!({}))).ok();
        assert_eq!(answer.text(), strange);
        assert_eq!(answer.parameter("status"), Some("failed"));
        assert_eq!(answer.parameter("reason"), Some("upstream-response"));
        assert_eq!(upstream.asked().len(), 2);
    }
}

#[test]
fn what_is_too_large_to_be_read_goes_through() {
    let upstream = Upstream::start(engine);
    let server = serve(&upstream, "", &["--max-rewrite-bytes", "2000"]);
    let sent = search(&json!({"size": 2}));
    let answer = call(&server, "/products/_search", &[], &sent).ok();
    assert_eq!(answer.parameter("reason"), Some("upstream-response"));
    assert_eq!(answer.text(), answer_to(&sent));
    assert_eq!(upstream.asked()[1].body, sent);

    let sent = search(&json!({"size": 2, "stats": ["x".repeat(3000)]}));
    let answer = call(&server, "/products/_search", &[("Rerankd-Key", "a")], &sent).ok();
    assert_eq!(answer.parameter("status"), Some("skipped"));
    assert_eq!(answer.parameter("reason"), Some("limit"));
    let asked = upstream.asked().remove(2);
    assert_eq!(asked.body, sent);
    assert_eq!(asked.header("rerankd-key"), None);
}

#[test]
fn a_policy_that_fails_costs_nothing_but_the_order() {
    let upstream = Upstream::start(engine);
    let server = serve(&upstream, "timeout_ms = 200", &[]);
    for (policy, reason) in [("trap", "policy-fault"), ("waits", "deadline")] {
        for from in [0, 7] {
            let own = json!({"from": from, "size": 7});
            let sent = search(&json!({
                "from": from, "size": 7, "ext": {"rerankd": {"policy": policy}},
            }));
            let answer = call(&server, "/products/_search", &[], &sent).ok();
            assert_eq!(answer.parameter("status"), Some("failed"), "{policy}");
            assert_eq!(answer.parameter("reason"), Some(reason));
            let alone = answer_to(own.to_string().as_bytes());
            assert_eq!(answer.text(), alone, "{policy}, from {from}");
        }
        let sent = search(&json!({
            "ext": {"rerankd": {"policy": policy, "on_failure": "error"}},
        }));
        let answer = call(&server, "/products/_search", &[], &sent);
        assert_eq!(answer.status, 424);
        assert_eq!(answer.json()["error"]["type"], "rerankd_exception");
        assert_eq!(answer.json()["status"], 424);
        assert_eq!(answer.parameter("status"), Some("error"));
    }
    let labels = [("protocol", "search"), ("status", "failed")];
    assert_eq!(server.metric("rerankd_requests_total", &labels), 4.0);
}

#[test]
fn without_room_the_engines_page_comes_at_once() {
    let upstream = Upstream::start(engine);
    let server = serve(&upstream, "timeout_ms = 60000", &["--max-instances", "1"]);
    // It waits until its connection ends.
    let mut waiting = Connection::open(server.proxy_address()).expect("the proxy listens");
    let slow = search(&json!({"ext": {"rerankd": {"policy": "waits"}}}));
    waiting
        .request(
            "POST",
            "/products/_search",
            &[("Content-Type", "application/json")],
            &slow,
        )
        .expect("the proxy reads");
    rerankd_tests::eventually("the first search runs", || {
        let admitted = server.metric("rerankd_admitted_requests", &[]) == 1.0;
        (admitted && upstream.asked().len() == 1).then_some(())
    });
    // It waits for the instance.
    let mut next = Connection::open(server.address()).expect("the data plane listens");
    let body = json!({"query": "q", "documents": ["d"], "timeout_ms": 60_000}).to_string();
    next.request(
        "POST",
        "/v1/rerank/waits",
        &[("Content-Type", "application/json")],
        body.as_bytes(),
    )
    .expect("the data plane reads");
    rerankd_tests::eventually("the line is full", || {
        (server.metric("rerankd_admitted_requests", &[]) == 2.0).then_some(())
    });
    let sent = search(&json!({"size": 3}));
    let answer = call(&server, "/products/_search", &[], &sent).ok();
    assert_eq!(answer.text(), answer_to(&sent));
    assert_eq!(answer.parameter("status"), Some("failed"));
    assert_eq!(answer.parameter("reason"), Some("overloaded"));
    let last = upstream.asked().pop().expect("the engine was asked");
    assert_eq!(last.body, sent, "the search was widened for nothing");

    let sent = search(&json!({"ext": {"rerankd": {"on_failure": "error"}}}));
    let answer = call(&server, "/products/_search", &[], &sent);
    assert_eq!(answer.status, 429);
    assert!(answer.header("retry-after").is_some());
    assert_eq!(answer.json()["status"], 429);

    drop((waiting, next));
    rerankd_tests::eventually("its room is free again", || {
        (server.metric("rerankd_admitted_requests", &[]) == 0.0).then_some(())
    });
}

#[test]
fn searches_that_wait_for_the_engine_keep_nobody_from_a_ranking() {
    let upstream = Upstream::start(|asked, stream| match asked.target() {
        "/slow/_search" => wait_for_end(stream),
        _ => engine(asked, stream),
    });
    let server = serve(&upstream, "", &["--max-instances", "1"]);
    let slow = [(); 3].map(|()| {
        let mut connection = Connection::open(server.proxy_address()).expect("the proxy listens");
        let headers = [("Content-Type", "application/json")];
        let sent = connection.request("POST", "/slow/_search", &headers, &search(&json!({})));
        sent.expect("the proxy reads");
        connection
    });
    rerankd_tests::eventually("the engine is asked", || {
        (upstream.asked().len() == slow.len()).then_some(())
    });
    assert_eq!(server.metric("rerankd_admitted_requests", &[]), 0.0);
    // By the data plane, and by another search.
    let expected = expected(&server);
    let answer = call(&server, "/products/_search", &[], &search(&json!({}))).ok();
    assert_eq!(answer.parameter("status"), Some("applied"), "{answer:?}");
    assert_eq!(ids(&answer.json()), expected[..10]);
    drop(slow);
}

#[test]
fn wrong_options_are_refused_before_the_engine_is_asked() {
    let upstream = Upstream::start(engine);
    let server = serve(&upstream, "", &[]);
    for (options, word) in [
        (json!({"no_such_key": "first-stage"}), "no_such_key"),
        (json!({"window": 0}), "window"),
        (json!({"policy": "cross-encoder"}), "cross-encoder"),
        (json!({"upstream": "http://elsewhere"}), "upstream"),
    ] {
        let sent = search(&json!({"ext": {"rerankd": options}}));
        let answer = call(&server, "/products/_search", &[], &sent);
        assert_eq!(answer.status, 400, "{word}");
        let body = answer.json();
        let reason = body["error"]["reason"].as_str().expect("it says why");
        assert!(reason.contains(word), "{reason}");
        assert_eq!(answer.parameter("status"), Some("error"));
    }
    assert_eq!(upstream.asked().len(), 0);
}

#[test]
fn searches_of_one_request_are_ranked_each_by_itself() {
    let upstream = Upstream::start(|asked, stream| {
        let lines: Vec<&[u8]> = asked.body.split(|&byte| byte == b'\n').collect();
        let items: Vec<String> = lines
            .chunks_exact(2)
            .map(|item| match serde_json::from_slice::<Value>(item[0]) {
                Ok(head) if head["index"] == "missing" => {
                    r#"{"error":{"type":"index_not_found_exception"},"status":404}"#.to_owned()
                }
                _ => answer_to(item[1]),
            })
            .collect();
        let body = format!(r#"{{"took":1,"responses":[{}]}}"#, items.join(","));
        write_json(stream, "200 OK", &body)
    });
    let server = serve(&upstream, "", &[]);
    let expected = expected(&server);
    let text = |more: Value| String::from_utf8(search(&more)).expect("it is JSON");
    let sent = format!(
        "{{}}\n{}\n{{\"index\":\"missing\"}}\n{}\n{{}}\n{}\n{{}}\n{}\n",
        text(json!({"size": 5})),
        text(json!({})),
        text(json!({"size": 2, "sort": ["price"]})),
        text(json!({"size": 5, "from": 5})),
    );
    let answer = call(&server, "/products/_msearch", &[], sent.as_bytes()).ok();
    let responses = answer.json()["responses"].clone();
    assert_eq!(ids(&responses[0]), expected[..5]);
    assert_eq!(responses[1]["status"], 404);
    assert_eq!(ids(&responses[2]).len(), 2);
    assert_eq!(ids(&responses[3]), expected[5..10]);
    let status = answer.header("rerank-status").expect("it is there");
    let members: Vec<&str> = status.split(", ").collect();
    for (item, word) in ["applied", "failed", "skipped;reason=sort", "applied"]
        .iter()
        .enumerate()
    {
        assert!(members[item].contains(word), "{status}");
        assert!(members[item].contains(&format!("item={item}")), "{status}");
    }
}

/// Packs with stored blocks: RFC 1951 without its compression, RFC 1952 around it.
fn gzip(text: &[u8]) -> Vec<u8> {
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks = text.chunks(usize::from(u16::MAX)).peekable();
    while let Some(block) = blocks.next() {
        packed.push(u8::from(blocks.peek().is_none()));
        let length = u16::try_from(block.len()).expect("chunks are that small");
        packed.extend(length.to_le_bytes());
        packed.extend((!length).to_le_bytes());
        packed.extend(block);
    }
    let mut crc = u32::MAX;
    for byte in text {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    packed.extend((!crc).to_le_bytes());
    let length = u32::try_from(text.len()).expect("it is small");
    packed.extend(length.to_le_bytes());
    packed
}
