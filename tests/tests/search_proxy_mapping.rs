//! What the search proxy asks the engine of mappings and names, where the engine behind it does what no healthy
//! one does on demand: is slow, refuses, lies. What healthy engines say is in `engines/mapping.rs`.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};

use rerankd_tests::upstream::{Asked, wait_for_end, write_json};
use rerankd_tests::{Answer, Connection, Folder, Rerankd, Upstream, eventually, require};
use serde_json::{Value, json};

/// A server before `upstream`, with these rules.
fn serve(upstream: &Upstream, rules: &str, flags: &[&str]) -> Rerankd {
    let folder = Folder::new();
    let from = require::policies().join("semantic-blend.wasm");
    folder.copy(&from, "policies/semantic-blend.wasm");
    let config = folder.write("rerankd.toml", rules);
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

const TYPE: (&str, &str) = ("Content-Type", "application/json");

fn call(server: &Rerankd, target: &str, headers: &[(&str, &str)], body: &Value) -> Answer {
    let mut connection = Connection::open(server.proxy_address()).expect("the proxy listens");
    let headers = [headers, &[TYPE]].concat();
    connection
        .request("POST", target, &headers, body.to_string().as_bytes())
        .expect("the proxy reads");
    connection.answer().expect("there is an answer")
}

fn search(server: &Rerankd, headers: &[(&str, &str)]) -> Answer {
    call(server, "/shop/_search", headers, &by_name("smart watch")).ok()
}

fn by_name(text: &str) -> Value {
    json!({"query": {"match": {"name": text}}})
}

/// What a look-up is about: the last part of its path that is the engine's own.
fn about(asked: &Asked) -> &'static str {
    let parts = ["_field_caps", "_resolve", "_settings"];
    let found = parts.into_iter().find(|part| asked.target().contains(part));
    found.unwrap_or("_pit")
}

/// An index `shop` with an alias `store`.
fn look_up(asked: &Asked, stream: &mut TcpStream) -> std::io::Result<bool> {
    let fields = json!({
        "name": {"text": {"type": "text"}},
        "description": {"text": {"type": "text"}},
        "brand": {"keyword": {"type": "keyword"}},
    });
    let answer = match about(asked) {
        "_field_caps" => json!({"indices": ["shop"], "fields": fields}),
        "_resolve" => json!({"aliases": [{"name": "store", "indices": ["shop"]}]}),
        "_settings" => json!({}),
        _ => json!({"aggregations": {"rerankd": {"buckets": [{"key": "shop"}]}}}),
    };
    write_json(stream, "200 OK", &answer.to_string())
}

/// Hits with texts in `name` and `description`.
fn hits(stream: &mut TcpStream) -> std::io::Result<bool> {
    let hit = |id: &str, name: &str, score: f64| {
        let source = json!({"name": name, "description": "sold here", "brand": "Acme"});
        json!({"_index": "shop", "_id": id, "_score": score, "_source": source})
    };
    let hits = [hit("1", "garden hose", 2.0), hit("2", "smart watch", 1.0)];
    write_json(
        stream,
        "200 OK",
        &json!({"hits": {"hits": hits}}).to_string(),
    )
}

fn engine(asked: &Asked, stream: &mut TcpStream) -> std::io::Result<bool> {
    match asked.is_look_up() {
        true => look_up(asked, stream),
        false => hits(stream),
    }
}

fn count(upstream: &Upstream, about_what: &str) -> usize {
    let look_ups = upstream.looked_up();
    look_ups
        .iter()
        .filter(|asked| about(asked) == about_what)
        .count()
}

#[test]
fn the_mapping_chooses_fields_and_clauses_and_the_status_names_the_fields() {
    let upstream = Upstream::with_look_ups(engine);
    let server = serve(&upstream, "", &[]);
    let answer = search(&server, &[]);
    assert_eq!(answer.parameter("status"), Some("applied"), "{answer:?}");
    assert_eq!(answer.parameter("fields"), Some("name,description"));
    assert_eq!(answer.parameter("mapping"), None);
    assert_eq!(answer.json()["hits"]["hits"][0]["_id"], "2");

    let listing = json!({"query": {"match": {"brand": "Acme"}}});
    let answer = call(&server, "/shop/_search", &[], &listing).ok();
    assert_eq!(answer.parameter("reason"), Some("no-query"));
    assert_eq!(answer.json()["hits"]["hits"][0]["_id"], "1");
}

#[test]
fn a_cold_look_up_is_shared_and_its_answer_serves_those_who_follow() {
    const CALLERS: usize = 8;
    let upstream = Upstream::with_look_ups(engine);
    let server = serve(&upstream, "", &[]);
    let together = Barrier::new(CALLERS);
    std::thread::scope(|scope| {
        for _ in 0..CALLERS {
            scope.spawn(|| {
                together.wait();
                search(&server, &[])
            });
        }
    });
    search(&server, &[]);
    assert_eq!(count(&upstream, "_field_caps"), 1);
    assert_eq!(upstream.asked().len(), CALLERS + 1);
}

#[test]
fn a_search_does_not_wait_for_a_slow_look_up_to_its_end() {
    let is_slow = Arc::new(AtomicBool::new(true));
    let slow = Arc::clone(&is_slow);
    let upstream = Upstream::with_look_ups(move |asked, stream| {
        if asked.is_look_up() {
            eventually("the look-up is answered", || {
                (!slow.load(Ordering::SeqCst)).then_some(())
            });
        }
        engine(asked, stream)
    });
    let server = serve(&upstream, "", &[]);
    let answer = search(&server, &[]);
    // The policy's own fields are in no hit.
    assert_eq!(answer.parameter("reason"), Some("no-text"), "{answer:?}");
    assert_eq!(answer.parameter("mapping"), Some("unknown"));
    is_slow.store(false, Ordering::SeqCst);
    // It went on without the search that began it.
    eventually("what came of the look-up serves", || {
        let answer = search(&server, &[]);
        (answer.parameter("fields") == Some("name,description")).then_some(())
    });
    assert_eq!(count(&upstream, "_field_caps"), 1);
}

#[test]
fn pages_are_cut_from_one_order_though_the_mapping_becomes_known_between_them() {
    let is_slow = Arc::new(AtomicBool::new(true));
    let slow = Arc::clone(&is_slow);
    let upstream = Upstream::with_look_ups(move |asked, stream| {
        if asked.is_look_up() {
            eventually("the look-up is answered", || {
                (!slow.load(Ordering::SeqCst)).then_some(())
            });
            return look_up(asked, stream);
        }
        // By `title`, which the policy reads by itself, the other way round than by `name`.
        let hit = |id: &str, title: &str, name: &str, score: f64| {
            let source = json!({"title": title, "name": name});
            json!({"_index": "shop", "_id": id, "_score": score, "_source": source})
        };
        let hits = [
            hit("1", "smart watch", "garden hose", 1.0),
            hit("2", "garden hose", "smart watch", 1.0),
        ];
        write_json(
            stream,
            "200 OK",
            &json!({"hits": {"hits": hits}}).to_string(),
        )
    });
    let server = serve(&upstream, "", &[]);
    let page = |from: usize, text: &str| {
        let mut body = by_name(text);
        body["from"] = json!(from);
        body["size"] = json!(1);
        let answer = call(&server, "/shop/_search", &[], &body).ok();
        let id = answer.json()["hits"]["hits"][0]["_id"].clone();
        (id, answer)
    };
    let (first, answer) = page(0, "smart watch");
    assert_eq!(
        (first.as_str(), answer.parameter("mapping")),
        (Some("1"), Some("unknown"))
    );
    is_slow.store(false, Ordering::SeqCst);
    eventually("the mapping is known", || {
        let (first, answer) = page(0, "a smart watch");
        let is_known = answer.parameter("mapping").is_none();
        is_known.then(|| assert_eq!(first, "2"))
    });
    assert_eq!(page(1, "smart watch").0, "2");
}

#[test]
fn later_pages_are_planned_by_what_was_known_for_the_first_one() {
    let is_slow = Arc::new(AtomicBool::new(true));
    let slow = Arc::clone(&is_slow);
    let upstream = Upstream::with_look_ups(move |asked, stream| {
        if asked.is_look_up() {
            eventually("the look-up is answered", || {
                (!slow.load(Ordering::SeqCst)).then_some(())
            });
        }
        engine(asked, stream)
    });
    let server = serve(&upstream, "", &[]);
    // `brand` is a keyword: where that is known, the other text is the query.
    let page = |from: usize, caller: &str| {
        let must = json!([{"match": {"name": "smart watch"}}, {"match": {"brand": "Acme"}}]);
        let body = json!({"query": {"bool": {"must": must}}, "from": from, "size": 1});
        let headers = [("es-security-runas-user", caller)];
        let answer = call(&server, "/shop/_search", &headers, &body).ok();
        let of = |name: &str| answer.parameter(name).map(str::to_owned);
        (of("status").expect("there is one"), of("mapping"))
    };
    let unknown = ("skipped".to_owned(), Some("unknown".to_owned()));
    let known = ("applied".to_owned(), None);
    assert_eq!(page(0, "carol"), unknown);
    is_slow.store(false, Ordering::SeqCst);
    eventually("the mapping is known", || {
        let answer = search(&server, &[("es-security-runas-user", "carol")]);
        answer.parameter("mapping").is_none().then_some(())
    });
    assert_eq!(page(1, "carol"), unknown);
    // It is so for that caller's search alone, until its first page is asked for again.
    eventually("another's mapping is known", || {
        (page(0, "dave") == known).then_some(())
    });
    assert_eq!(page(1, "dave"), known);
    assert_eq!(page(0, "carol"), known);
    assert_eq!(page(1, "carol"), known);
}

#[test]
fn what_is_passed_whatever_the_mapping_is_asks_nothing_and_waits_for_nothing() {
    let upstream = Upstream::with_look_ups(|asked, stream| match asked.is_look_up() {
        true => wait_for_end(stream),
        false => hits(stream),
    });
    let server = serve(&upstream, "", &[]);
    for (body, reason) in [
        (
            json!({"query": {"match": {"name": "a"}}, "size": 0}),
            "size-zero",
        ),
        (
            json!({"query": {"match": {"name": "a"}}, "sort": ["price"]}),
            "sort",
        ),
        (
            json!({"query": {"match": {"name": "a"}}, "from": 10_000}),
            "window-exceeded",
        ),
        (json!({"query": {"match_all": {}}}), "no-query"),
    ] {
        let answer = call(&server, "/shop/_search", &[], &body).ok();
        assert_eq!(answer.parameter("reason"), Some(reason));
        assert_eq!(answer.parameter("mapping"), None);
    }
    let off = [("Rerankd-Enabled", "false")];
    let answer = call(&server, "/shop/_search", &off, &by_name("a")).ok();
    assert_eq!(answer.parameter("reason"), Some("disabled"));
    // Nor is it where a rule is looked for: no rule reranks what has no text.
    let rules = "[[index]]\npattern = \"shop\"\n\n[[index]]\npattern = \"logs\"\nenabled = false\n";
    let ruled = serve(&upstream, rules, &[]);
    for (index, reason) in [("other", "no-rule"), ("logs", "disabled")] {
        let path = format!("/{index}/_search");
        for (headers, body) in [
            (&[][..], json!({"query": {"match_all": {}}})),
            (
                &[][..],
                json!({"query": {"match": {"name": "a"}}, "from": 10_000}),
            ),
            (&off[..], by_name("a")),
        ] {
            let answer = call(&ruled, &path, headers, &body).ok();
            assert_eq!(answer.parameter("reason"), Some(reason), "{body}");
            assert_eq!(answer.parameter("mapping"), None, "{body}");
        }
    }
    assert_eq!(
        call(&server, "/shop/_count", &[], &by_name("a"))
            .ok()
            .status,
        200
    );
    assert!(upstream.looked_up().is_empty());
}

#[test]
fn a_caller_who_may_not_look_up_is_served_by_what_is_written_and_sees_nobody_elses_mapping() {
    let upstream = Upstream::with_look_ups(|asked, stream| {
        let may = asked.header("authorization") == Some("Basic YWRtaW46YQ==");
        match asked.is_look_up() && !may {
            true => write_json(stream, "403 Forbidden", r#"{"status":403}"#),
            false => engine(asked, stream),
        }
    });
    let server = serve(&upstream, "", &[]);
    let admin = [("Authorization", "Basic YWRtaW46YQ==")];
    let user = [("Authorization", "Basic dXNlcjpi")];
    let fields = |answer: &Answer| answer.parameter("fields").map(str::to_owned);
    assert!(fields(&search(&server, &admin)).is_some());
    for _ in 0..2 {
        let answer = search(&server, &user);
        assert_eq!(answer.parameter("mapping"), Some("unknown"), "{answer:?}");
        assert_eq!(fields(&answer), None);
        let listing = json!({"query": {"match": {"brand": "Acme"}}});
        let answer = call(&server, "/shop/_search", &user, &listing).ok();
        assert_ne!(answer.parameter("reason"), Some("no-query"));
    }
    assert!(fields(&search(&server, &admin)).is_some());
    assert_eq!(
        count(&upstream, "_field_caps"),
        2,
        "a refusal is kept for a while"
    );
}

#[test]
fn nothing_of_the_callers_headers_but_credentials_goes_along_with_a_look_up() {
    let upstream = Upstream::with_look_ups(engine);
    let server = serve(&upstream, "", &[]);
    let headers = [
        ("Authorization", "ApiKey abc"),
        ("Cookie", "session=1"),
        ("es-security-runas-user", "carol"),
        ("ES-Client-Authentication", "SharedSecret abc"),
        ("X-Secret", "1"),
        ("X-Forwarded-For", "10.0.0.1"),
        ("X-Opaque-Id", "mine"),
        ("Rerankd-Window", "20"),
    ];
    search(&server, &headers);
    let look_ups = upstream.looked_up();
    assert_eq!(look_ups.len(), 3);
    for asked in look_ups {
        assert!(asked.line.starts_with("GET /"), "{}", asked.line);
        let mut names: Vec<&str> = asked.headers.iter().map(|(name, _)| &**name).collect();
        names.sort_unstable();
        let expected = [
            "accept",
            "accept-encoding",
            "authorization",
            "cookie",
            "es-client-authentication",
            "es-security-runas-user",
            "host",
            "x-opaque-id",
        ];
        assert_eq!(names, expected);
        assert_eq!(asked.header("authorization"), Some("ApiKey abc"));
    }
}

#[test]
fn the_operators_credentials_for_look_ups_go_on_look_ups_alone() {
    let upstream = Upstream::with_look_ups(engine);
    let folder = Folder::new();
    let file = folder.write("lookup", "lookups:secret\n");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&file, mode).expect("it is this user's");
    let file = file.to_str().expect("the path is UTF-8");
    let server = serve(&upstream, "", &["--upstream-lookup-auth", file]);
    for caller in ["Basic dXNlcjpi", "ApiKey abc", "Negotiate YII="] {
        let answer = search(&server, &[("Authorization", caller), ("Cookie", "a=b")]);
        assert!(answer.parameter("fields").is_some(), "{caller}: {answer:?}");
    }
    let look_ups = upstream.looked_up();
    assert_eq!(look_ups.len(), 3, "one for all callers");
    for asked in look_ups {
        let ours = Some("Basic bG9va3VwczpzZWNyZXQ=");
        assert_eq!(
            (asked.header("authorization"), asked.header("cookie")),
            (ours, None)
        );
    }
    for asked in upstream.asked() {
        assert_ne!(
            asked.header("authorization"),
            Some("Basic bG9va3VwczpzZWNyZXQ=")
        );
    }
}

#[test]
fn credentials_that_are_good_for_one_request_are_not_used_for_another() {
    let upstream = Upstream::with_look_ups(engine);
    let server = serve(&upstream, "", &[]);
    for scheme in ["Negotiate YII=", "Digest username=\"a\""] {
        let answer = search(&server, &[("Authorization", scheme)]);
        assert_eq!(answer.parameter("mapping"), Some("unknown"), "{scheme}");
    }
    assert!(upstream.looked_up().is_empty());
}

#[test]
fn whatever_comes_of_a_look_up_no_search_becomes_an_error() {
    let answers = [
        "",
        "no JSON",
        "[]",
        "{}",
        r#"{"error":"x"}"#,
        r#"{"indices":{},"fields":[7,{"a":[]}]}"#,
        r#"{"indices":["shop"],"fields":{"name":{"text":7}}}"#,
    ];
    for answer in answers {
        let upstream = Upstream::with_look_ups(move |asked, stream| match asked.is_look_up() {
            true => write_json(stream, "200 OK", answer),
            false => hits(stream),
        });
        let server = serve(&upstream, "", &[]);
        search(&server, &[]);
    }
    let upstream = Upstream::with_look_ups(|asked, stream| match asked.is_look_up() {
        // Breaks off.
        true => Ok(false),
        false => hits(stream),
    });
    let server = serve(&upstream, "", &[]);
    assert_eq!(search(&server, &[]).parameter("mapping"), Some("unknown"));
}

#[test]
fn rules_hold_for_what_a_name_stands_for_in_each_search_of_several() {
    let upstream = Upstream::with_look_ups(|asked, stream| {
        if asked.is_look_up() {
            return match asked.target().contains("secret") {
                true => write_json(stream, "403 Forbidden", r#"{"status":403}"#),
                false => look_up(asked, stream),
            };
        }
        let hit = json!({"_index": "shop", "_id": "1", "_score": 1, "_source": {"name": "a"}});
        let one = json!({"hits": {"hits": [hit]}, "status": 200});
        let searches = asked.body.split(|&byte| byte == b'\n').count() / 2;
        let answer = json!({"responses": vec![one; searches]});
        write_json(stream, "200 OK", &answer.to_string())
    });
    let server = serve(&upstream, "[[index]]\npattern = \"shop\"\n", &[]);
    let lines = [
        json!({"index": "store"}),
        by_name("a"),
        json!({"index": ["shop", "store"]}),
        by_name("a"),
        json!({"index": "secret"}),
        by_name("a"),
    ];
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let mut connection = Connection::open(server.proxy_address()).expect("the proxy listens");
    let headers = [("Content-Type", "application/x-ndjson")];
    connection
        .request("POST", "/_msearch", &headers, body.as_bytes())
        .expect("the proxy reads");
    let answer = connection.answer().expect("there is an answer").ok();
    let status = answer.header("rerank-status").expect("there is one");
    let members: Vec<&str> = status.split(", ").collect();
    assert_eq!(members.len(), 3, "{status}");
    for reranked in &members[..2] {
        assert!(reranked.contains("status=applied"), "{status}");
        assert!(reranked.ends_with(";fields=\"name\""), "{status}");
    }
    assert!(members[2].contains("reason=no-rule"), "{status}");
    assert!(members[2].ends_with(";mapping=unknown"), "{status}");
}

#[test]
fn a_point_in_time_has_the_rule_of_what_it_was_opened_for() {
    let upstream = Upstream::with_look_ups(|asked, stream| {
        if asked.target().starts_with("/store/_pit") {
            return write_json(stream, "200 OK", r#"{"id":"opened-here"}"#);
        }
        engine(asked, stream)
    });
    let server = serve(&upstream, "[[index]]\npattern = \"shop\"\n", &[]);
    let opened = call(&server, "/store/_pit?keep_alive=1m", &[], &json!(null)).ok();
    assert_eq!(opened.text(), r#"{"id":"opened-here"}"#);
    let mut body = by_name("smart watch");
    body["pit"] = json!({"id": "opened-here"});
    let answer = call(&server, "/_search", &[], &body).ok();
    assert_eq!(answer.parameter("status"), Some("applied"), "{answer:?}");
    assert_eq!(count(&upstream, "_pit"), 0, "the proxy saw it opened");

    body["pit"] = json!({"id": "opened-elsewhere"});
    let answer = call(&server, "/_search", &[], &body).ok();
    assert_eq!(answer.parameter("status"), Some("applied"), "{answer:?}");
    assert_eq!(count(&upstream, "_pit"), 1);
    let asked = upstream.looked_up();
    let pit = asked
        .iter()
        .find(|asked| about(asked) == "_pit")
        .expect("it was");
    let body: Value = serde_json::from_slice(&pit.body).expect("it is JSON");
    assert_eq!(
        (&body["size"], &body["pit"]["id"]),
        (&json!(0), &json!("opened-elsewhere"))
    );
}

#[test]
fn of_several_searches_those_are_looked_up_that_may_be_reranked() {
    let upstream = Upstream::with_look_ups(|asked, stream| {
        if asked.is_look_up() {
            return look_up(asked, stream);
        }
        let hit = json!({"_index": "shop", "_id": "1", "_score": 1, "_source": {"name": "a"}});
        let one = json!({"hits": {"hits": [hit]}, "status": 200});
        let searches = asked.body.split(|&byte| byte == b'\n').count() / 2;
        let answer = json!({"responses": vec![one; searches]});
        write_json(stream, "200 OK", &answer.to_string())
    });
    let server = serve(&upstream, "", &[]);
    let mut body = format!("{}\n{}\n", json!({"index": "shop"}), by_name("a"));
    for n in 0..40 {
        let listing = json!({"query": {"match_all": {}}});
        body.push_str(&format!(
            "{}\n{listing}\n",
            json!({"index": format!("logs-{n}")})
        ));
    }
    let mut connection = Connection::open(server.proxy_address()).expect("the proxy listens");
    let headers = [("Content-Type", "application/x-ndjson")];
    connection
        .request("POST", "/_msearch", &headers, body.as_bytes())
        .expect("the proxy reads");
    let answer = connection.answer().expect("there is an answer").ok();
    let status = answer.header("rerank-status").expect("there is one");
    assert!(status.starts_with("rerankd;status=applied;"), "{status}");
    let look_ups = upstream.looked_up();
    assert!(
        look_ups.iter().all(|asked| asked.target().contains("shop")),
        "{look_ups:?}"
    );
}

#[test]
fn what_is_too_long_to_be_looked_up_is_not_known() {
    let upstream = Upstream::with_look_ups(engine);
    let server = serve(&upstream, "", &[]);
    let mut body = by_name("smart watch");
    body["pit"] = json!({"id": "made-up-".repeat(20_000)});
    let answer = call(&server, "/_search", &[], &body).ok();
    assert_eq!(answer.parameter("mapping"), Some("unknown"), "{answer:?}");
    assert!(upstream.looked_up().is_empty());
}

#[test]
fn nothing_is_looked_up_where_the_operator_says_so() {
    let upstream = Upstream::with_look_ups(engine);
    let server = serve(&upstream, "", &["--upstream-lookups", "false"]);
    let answer = search(&server, &[]);
    assert_eq!(answer.parameter("mapping"), None);
    assert_eq!(answer.parameter("reason"), Some("no-text"), "{answer:?}");
    assert!(upstream.looked_up().is_empty());
}
