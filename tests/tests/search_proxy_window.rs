//! What the window does to a search, seen from the engine: what it is asked, what it is asked again, and what
//! the client gets where the wider search fails. What real engines do is in `tests/tests/engines`.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rerankd_tests::components::{echo, with_manifest};
use rerankd_tests::rerankd::only_policies;
use rerankd_tests::scenario::plain_body;
use rerankd_tests::upstream::{Asked, write_json};
use rerankd_tests::{
    Answer, Connection, Deployment, Folder, Rerankd, Upstream, eventually, require,
};
use serde_json::{Value, json};

/// All hits that the engine has.
const HITS: usize = 400;

fn text(path: &std::path::Path) -> String {
    path.to_str().expect("the path is UTF-8").to_owned()
}

/// A server before `upstream` with the bundled policies, and this in its rule for all indices.
fn serve(upstream: &Upstream, rule: &str, flags: &[&str]) -> Rerankd {
    let folder = Folder::new();
    folder.copy(&require::policies(), "policies");
    for name in ["nearest-length", "filters-allowed", "trap"] {
        folder.copy(&require::faulty(name), &format!("policies/{name}.wasm"));
    }
    let policies = r#"["nearest-length", "semantic-blend", "filters-allowed", "trap"]"#;
    let config = format!("[[index]]\npattern = \"*\"\npolicies = {policies}\n{rule}\n");
    let config = text(&folder.write("rerankd.toml", config));
    let (policies, url) = (text(&folder.path().join("policies")), upstream.url());
    let all = [
        "--config",
        &config,
        "--policies",
        &policies,
        "--upstream",
        &url,
        "--proxy-listen",
        "127.0.0.1:0",
    ];
    Rerankd::start(&[&all, flags].concat())
}

fn call(server: &Rerankd, target: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut connection = Connection::open(server.proxy_address()).expect("the proxy listens");
    let headers = [headers, &[("Content-Type", "application/json")]].concat();
    connection
        .request("POST", target, &headers, body.as_bytes())
        .expect("the proxy reads");
    connection.answer().expect("there is an answer")
}

fn search(server: &Rerankd, more: &Value) -> Answer {
    call(server, "/shop/_search", &[], &body(more).to_string())
}

fn body(more: &Value) -> Value {
    let mut body = json!({"query": {"match": {"title": "watch"}}});
    let more = more.as_object().expect("an object").clone();
    body.as_object_mut().expect("it is one").extend(more);
    body
}

fn number(asked: &Value, name: &str, default: usize) -> usize {
    let number = asked[name].as_u64();
    number.map_or(default, |number| usize::try_from(number).expect("small"))
}

/// The page that is asked for, of hits whose texts get longer with their rank.
fn page_of(asked: &Value) -> Value {
    let (from, size) = (number(asked, "from", 0), number(asked, "size", 10));
    let has_source = asked["_source"] != json!(false);
    let hit = |rank: usize| {
        let mut hit =
            json!({"_index": "shop", "_id": rank.to_string(), "_score": 9.0 - rank as f64 / 100.0});
        if has_source {
            hit["_source"] = json!({"title": "watch".repeat(rank % 40 + 1)});
        }
        hit
    };
    let hits: Vec<Value> = (from..(from + size).min(HITS)).map(hit).collect();
    json!({
        "took": 1, "timed_out": false,
        "_shards": {"total": 2, "successful": 2, "skipped": 0, "failed": 0},
        "hits": {"total": {"value": HITS, "relation": "eq"}, "max_score": 9.0, "hits": hits},
    })
}

fn json_of(asked: &Asked) -> Value {
    serde_json::from_slice(&asked.body).unwrap_or_default()
}

fn engine(asked: &Asked, stream: &mut TcpStream) -> std::io::Result<bool> {
    write_json(stream, "200 OK", &page_of(&json_of(asked)).to_string())
}

fn ids(answer: &Answer) -> Vec<usize> {
    let page: Value = serde_json::from_slice(&plain_body(answer)).expect("it is JSON");
    let hits = page["hits"]["hits"].as_array().expect("it has hits");
    let id = |hit: &Value| hit["_id"].as_str().and_then(|id| id.parse().ok());
    hits.iter().map(|hit| id(hit).expect("a number")).collect()
}

#[test]
fn a_page_far_behind_the_window_has_its_text_fetched_for_the_window_alone() {
    let upstream = Upstream::start(engine);
    let server = serve(&upstream, "", &[]);
    let answer = search(&server, &json!({"size": 300, "_source": false})).ok();
    assert_eq!(answer.parameter("status"), Some("applied"), "{answer:?}");
    assert_eq!(answer.parameter("window"), Some("100"));
    let found = ids(&answer);
    assert_ne!(found[..100], (0..100).collect::<Vec<_>>());
    assert_eq!(found[100..], (100..300).collect::<Vec<_>>());
    assert!(!answer.text().contains("_source"));
    let asked: Vec<Value> = upstream.asked().iter().map(json_of).collect();
    let sizes: Vec<_> = asked
        .iter()
        .map(|asked| (&asked["size"], &asked["_source"]))
        .collect();
    let names = json!(["title", "text"]);
    assert_eq!(sizes, [(&json!(100), &names), (&json!(300), &json!(false))]);
}

#[test]
fn all_pages_are_of_one_list_that_ends_where_the_hits_do() {
    let upstream = Upstream::start(engine);
    let server = serve(&upstream, "", &[]);
    let pages = |options: Value, size: usize| -> (Vec<usize>, Vec<f64>) {
        let (mut found, mut scores) = (Vec::new(), Vec::new());
        let mut is_over = false;
        for from in (0..HITS).step_by(size) {
            let more = json!({"from": from, "size": size, "ext": {"rerankd": options}});
            let answer = search(&server, &more).ok();
            assert_eq!(answer.parameter("status"), Some("applied"), "{answer:?}");
            let page = ids(&answer);
            // Who stops at the first short page has all of it.
            assert!(page.is_empty() || !is_over, "{from}");
            is_over |= page.len() < size;
            let hits = answer.json()["hits"]["hits"]
                .as_array()
                .expect("hits")
                .clone();
            scores.extend(
                hits.iter()
                    .map(|hit| hit["_score"].as_f64().expect("a score")),
            );
            found.extend(page);
        }
        (found, scores)
    };
    for (options, left_out) in [
        (json!({}), 0),
        (json!({"min_score": 0.05}), 1),
        (json!({"policy": "filters-allowed"}), 1),
    ] {
        let (mut found, scores) = pages(options.clone(), 30);
        assert!(
            scores.is_sorted_by(|one, next| one >= next),
            "{options}: {scores:?}"
        );
        let count = found.len();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found.len(), count, "{options}: a hit stands on two pages");
        assert!(count == HITS || left_out > 0, "{options}: {count}");
        // Nothing behind the window is lost.
        assert!((100..HITS).all(|rank| found.contains(&rank)), "{options}");
    }
}

#[test]
fn a_search_that_is_too_much_with_the_window_is_asked_once_as_it_was_sent() {
    for (status, body) in [
        (
            "429 Too Many Requests",
            r#"{"error":{"type":"circuit_breaking_exception"},"status":429}"#,
        ),
        (
            "503 Service Unavailable",
            r#"{"error":{"type":"search_phase_execution_exception"},"status":503}"#,
        ),
        ("413 Payload Too Large", "too large"),
    ] {
        let upstream = Upstream::start(move |asked, stream| {
            let wide = json_of(asked)["size"] == json!(100);
            let page = page_of(&json_of(asked)).to_string();
            if wide {
                write_json(stream, status, body)
            } else {
                write_json(stream, "200 OK", &page)
            }
        });
        let server = serve(&upstream, "", &[]);
        let answer = search(&server, &json!({"size": 3})).ok();
        assert_eq!(ids(&answer), [0, 1, 2]);
        assert_eq!(answer.parameter("reason"), Some("upstream-status"));
        // The pages behind it are not asked for the window.
        let answer = search(&server, &json!({"size": 3, "from": 3})).ok();
        assert_eq!(ids(&answer), [3, 4, 5]);
        assert_eq!(answer.parameter("reason"), Some("upstream-status"));
        assert_eq!(upstream.asked().len(), 3, "{status}");
    }
    for status in ["401 Unauthorized", "403 Forbidden"] {
        let upstream = Upstream::start(move |_, stream| write_json(stream, status, "{}"));
        let server = serve(&upstream, "", &[]);
        let answer = search(&server, &json!({}));
        assert!(status.starts_with(&answer.status.to_string()));
        assert_eq!(upstream.asked().len(), 1);
    }
}

#[test]
fn pages_behind_a_first_one_that_was_not_ranked_are_not_ranked_either() {
    let fails = Arc::new(AtomicBool::new(true));
    let now = Arc::clone(&fails);
    let upstream = Upstream::start(move |asked, stream| {
        let mut page = page_of(&json_of(asked));
        if now.load(Ordering::SeqCst) && json_of(asked)["size"] == json!(100) {
            page["_shards"]["failed"] = json!(1);
        }
        write_json(stream, "200 OK", &page.to_string())
    });
    let server = serve(&upstream, "", &[]);
    let page = |from: usize| {
        let answer = search(&server, &json!({"from": from, "size": 5})).ok();
        (answer.parameter("reason").map(str::to_owned), ids(&answer))
    };
    let shards = Some("upstream-shards".to_owned());
    assert_eq!(page(0), (shards.clone(), (0..5).collect()));
    // All is well again, but the first page is what it was.
    fails.store(false, Ordering::SeqCst);
    assert_eq!(page(5), (shards.clone(), (5..10).collect()));
    assert_eq!(page(200), (shards, (200..205).collect()));
    let (reason, first) = page(0);
    assert_eq!(reason, None);
    assert_ne!(first, (0..5).collect::<Vec<_>>());
    assert_eq!(page(5).0, None);
}

#[test]
fn the_pages_of_an_incomplete_ranking_are_cut_from_it() {
    let turned = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&turned);
    let upstream = Upstream::start(move |asked, stream| {
        let mut page = page_of(&json_of(asked));
        let hits = page["hits"]["hits"].as_array_mut().expect("hits");
        if now.load(Ordering::SeqCst) {
            let contents: Vec<Value> = hits.iter().map(|hit| hit["_source"].clone()).collect();
            for (hit, content) in hits.iter_mut().zip(contents.into_iter().rev()) {
                hit["_source"] = content;
            }
        }
        // Nothing to read, so that the ranking lacks a score.
        hits[0]["_source"] = json!({});
        write_json(stream, "200 OK", &page.to_string())
    });
    let server = serve(&upstream, "", &[]);
    let page = |from: usize| {
        let answer = search(&server, &json!({"from": from, "size": 10})).ok();
        assert_eq!(answer.parameter("status"), Some("partial"), "{answer:?}");
        ids(&answer)
    };
    let mut first = page(0);
    turned.store(true, Ordering::SeqCst);
    // What the documents say now would be another order.
    first.extend((10..100).step_by(10).flat_map(page));
    let mut all = first.clone();
    all.sort_unstable();
    assert_eq!(all, (0..100).collect::<Vec<_>>());
    // It serves no other first page.
    assert_ne!(page(0), first[..10]);
}

#[test]
fn signed_searches_pass_and_the_log_says_so_once() {
    let upstream = Upstream::start(engine);
    let server = serve(&upstream, "", &[]);
    let signed = [(
        "Authorization",
        "AWS4-HMAC-SHA256 Credential=AKIA/20261128/eu-west-1/es/aws4_request, SignedHeaders=host, Signature=00",
    )];
    let sent = body(&json!({"size": 3})).to_string();
    for _ in 0..2 {
        let answer = call(&server, "/shop/_search", &signed, &sent).ok();
        assert_eq!(answer.parameter("status"), Some("skipped"));
        assert_eq!(answer.parameter("reason"), Some("signed"));
    }
    let asked = upstream.asked();
    assert_eq!(asked.len(), 2);
    assert!(asked.iter().all(|asked| asked.body == sent.as_bytes()));
    let said = "a client signs its searches";
    eventually("the log says so", || {
        server.stderr().contains(said).then_some(())
    });
    assert_eq!(server.stderr().matches(said).count(), 1);
}

#[test]
fn a_reranked_answer_is_packed_for_who_takes_it() {
    let upstream = Upstream::start(engine);
    let server = serve(&upstream, "", &[]);
    let sent = body(&json!({"size": 100})).to_string();
    let plain = call(&server, "/shop/_search", &[], &sent).ok();
    assert_eq!(plain.header("content-encoding"), None);
    for accepted in ["gzip", "gzip, deflate, br"] {
        let headers = [("Accept-Encoding", accepted)];
        let packed = call(&server, "/shop/_search", &headers, &sent).ok();
        assert_eq!(packed.header("content-encoding"), Some("gzip"));
        assert_eq!(packed.parameter("status"), Some("applied"));
        assert_eq!(plain_body(&packed), plain.body);
        assert!(packed.body.len() * 3 < plain.body.len());
    }
    let headers = [("Accept-Encoding", "identity, gzip;q=0")];
    let refused = call(&server, "/shop/_search", &headers, &sent).ok();
    assert_eq!(refused.header("content-encoding"), None);
}

#[test]
fn an_operators_mistake_ends_in_the_engines_page_and_a_callers_in_an_error() {
    let upstream = Upstream::start(engine);
    let folder = Folder::new();
    let taking = |version: &str, names: &[&str]| {
        let any = names.iter().map(|name| ((*name).to_owned(), json!({})));
        let properties: serde_json::Map<String, Value> = any.collect();
        with_manifest(&echo(version), |manifest| {
            // There is no more room than the manifest has.
            manifest["fields"] = json!(["title"]);
            manifest["parameters"] =
                json!({"additionalProperties": false, "properties": properties});
        })
    };
    let policies = folder.path().join("policies");
    std::fs::create_dir(&policies).expect("the folder is new");
    let data = text(&folder.path().join("data"));
    let places = [&only_policies(&policies)[..], &["--data-dir", &data]].concat();
    let mut plain = Deployment::of(Rerankd::start(&places), Folder::new());
    plain.release("echo", &taking("1.0.0", &[]), "activate=true");
    plain.release("echo", &taking("2.0.0", &["boost"]), "activate=true");
    plain.kill();
    let rule = "[[index]]\npattern = \"shop\"\npolicies = [\"echo\"]\nparameters = { boost = 2 }\n";
    let config = text(&folder.write("rerankd.toml", rule));
    let url = upstream.url();
    let flags = [
        "--config",
        &config,
        "--upstream",
        &url,
        "--proxy-listen",
        "127.0.0.1:0",
    ];
    let server = Rerankd::start(&[&places[..], &flags].concat());
    let server = Deployment::of(server, folder);
    let answer = search(&server, &json!({})).ok();
    assert_eq!(answer.parameter("status"), Some("applied"), "{answer:?}");

    // The version that serves now does not know what the rule says.
    let json_type = [("Content-Type", "application/json")];
    let path = "/v1/policies/echo/rollback";
    server.admin_call("POST", path, &json_type, b"{}").ok();
    let answer = search(&server, &json!({"size": 3})).ok();
    assert_eq!(answer.parameter("status"), Some("failed"), "{answer:?}");
    assert_eq!(answer.parameter("reason"), Some("rule"));
    assert_eq!(ids(&answer), [0, 1, 2]);
    let labels = [
        ("protocol", "search"),
        ("status", "failed"),
        ("reason", "rule"),
    ];
    assert_eq!(server.metric("rerankd_requests_total", &labels), 1.0);
    let sent = body(&json!({}));
    let lines = format!("{{}}\n{sent}\n");
    let answer = call(&server, "/shop/_msearch", &[], &lines);
    assert_eq!(answer.parameter("status"), Some("failed"), "{answer:?}");

    // What the caller says itself is its own.
    let own = json!({"ext": {"rerankd": {"parameters": {"bost": 2}}}});
    let answer = search(&server, &own);
    assert_eq!(answer.status, 400, "{answer:?}");
    assert!(answer.text().contains("bost"), "{}", answer.text());
    let answer = search(
        &server,
        &json!({"ext": {"rerankd": {"on_failure": "error"}}}),
    );
    assert_eq!(answer.status, 424, "{answer:?}");
    assert!(
        answer.text().contains("the index rule does not fit"),
        "{}",
        answer.text()
    );
}

#[test]
fn a_hit_that_goes_between_two_searches_costs_its_own_search_the_ranking_and_no_other() {
    let upstream = Upstream::start(|asked, stream| {
        let lines: Vec<&[u8]> = asked.body.split(|&byte| byte == b'\n').collect();
        let one = |lines: &[&[u8]]| {
            let search: Value = serde_json::from_slice(lines[1]).unwrap_or_default();
            let named = search["post_filter"]["bool"]["filter"][1]["ids"]["values"].as_array();
            let Some(named) = named else {
                return page_of(&search);
            };
            let mut page = page_of(&json!({"size": HITS}));
            let hits = page["hits"]["hits"].as_array_mut().expect("it has hits");
            hits.retain(|hit| named.contains(&hit["_id"]));
            if search["query"]["match"]["title"] == "gone" {
                hits.pop();
            }
            page
        };
        let pages: Vec<Value> = lines.chunks_exact(2).map(one).collect();
        let all = json!({"took": 1, "responses": pages});
        write_json(stream, "200 OK", &all.to_string())
    });
    let server = serve(&upstream, "", &[]);
    let search =
        |title: &str| json!({"query": {"match": {"title": title}}, "size": 5, "highlight": {}});
    let lines = format!("{{}}\n{}\n{{}}\n{}\n", search("watch"), search("gone"));
    let answer = call(&server, "/shop/_msearch", &[], &lines).ok();
    let status = answer.header("rerank-status").expect("it is there");
    let members: Vec<&str> = status.split(", ").collect();
    assert!(members[0].contains("status=applied"), "{status}");
    assert!(members[1].contains("reason=upstream-response"), "{status}");
    let ids = |item: usize| -> Vec<Value> {
        let hits = answer.json()["responses"][item]["hits"]["hits"].clone();
        let hits = hits.as_array().expect("it has hits").clone();
        hits.iter().map(|hit| hit["_id"].clone()).collect()
    };
    assert_eq!(ids(1), ["0", "1", "2", "3", "4"]);
    assert_eq!(ids(0).len(), 5);
    assert_ne!(ids(0), ids(1));
    let searches = upstream.asked().into_iter();
    let searches = searches.filter(|asked| asked.target().contains("_msearch"));
    let counts = searches.map(|asked| asked.body.iter().filter(|&&byte| byte == b'\n').count() / 2);
    assert_eq!(counts.collect::<Vec<_>>(), [2, 2, 1]);
}

/// An engine that renders `{"id": TEXT}` to a search of that text.
fn templates(asked: &Asked, stream: &mut TcpStream) -> std::io::Result<bool> {
    let body = json_of(asked);
    match asked.target() {
        "/_render/template" if body["id"] == json!("missing") => write_json(
            stream,
            "404 Not Found",
            r#"{"error":"no such template","status":404}"#,
        ),
        "/_render/template" => {
            let options = match body["params"]["window"].as_u64() {
                Some(window) => json!({"rerankd": {"window": window}}),
                None => json!({}),
            };
            let search =
                json!({"query": {"match": {"title": body["id"]}}, "explain": true, "ext": options});
            write_json(
                stream,
                "200 OK",
                &json!({"template_output": search}).to_string(),
            )
        }
        target if target.contains("search/template") => write_json(
            stream,
            "404 Not Found",
            r#"{"error":"as it was sent","status":404}"#,
        ),
        "/_msearch" => {
            let lines: Vec<&[u8]> = asked.body.split(|&byte| byte == b'\n').collect();
            let items: Vec<String> = lines
                .chunks_exact(2)
                .map(|item| {
                    page_of(&serde_json::from_slice(item[1]).unwrap_or_default()).to_string()
                })
                .collect();
            let body = format!(r#"{{"took":1,"responses":[{}]}}"#, items.join(","));
            write_json(stream, "200 OK", &body)
        }
        _ => engine(asked, stream),
    }
}

#[test]
fn a_template_is_the_search_that_the_engine_renders() {
    let upstream = Upstream::start(templates);
    let server = serve(&upstream, "", &[]);
    let target = "/shop/_search/template?routing=a&rerankd_key=u";
    let headers = [("Authorization", "Basic YTpi"), ("Rerankd-Key", "u")];
    let sent = r#"{"id":"watch","params":{},"profile":true}"#;
    let answer = call(&server, target, &headers, sent).ok();
    assert_eq!(answer.parameter("status"), Some("applied"), "{answer:?}");
    assert_ne!(ids(&answer), (0..10).collect::<Vec<_>>());
    let asked = upstream.asked();
    assert_eq!(asked[0].target(), "/_render/template");
    assert_eq!(asked[0].body, sent.as_bytes());
    assert_eq!(asked[1].target(), "/shop/_search?routing=a");
    let widened = json_of(&asked[1]);
    assert_eq!(
        (&widened["size"], &widened["profile"]),
        (&json!(100), &json!(true))
    );
    // The engine takes it from beside the template alone.
    assert_eq!(widened.get("explain"), None);
    for asked in &asked {
        assert_eq!(asked.header("authorization"), Some("Basic YTpi"));
        assert_eq!(asked.header("rerankd-key"), None);
    }

    // Where it cannot be rendered, or not exactly, it goes as it came.
    for (target, sent, asked_before) in [
        ("/shop/_search/template", r#"{"id":"missing"}"#, 3),
        ("/shop/_search/template?size=3", r#"{"id":"watch"}"#, 4),
    ] {
        let answer = call(&server, target, &[], sent);
        assert_eq!(
            (answer.status, answer.parameter("reason")),
            (404, Some("template"))
        );
        let asked = upstream.asked();
        assert_eq!(
            asked.last().map(|asked| &asked.body[..]),
            Some(sent.as_bytes())
        );
        assert!(asked.len() >= asked_before);
    }
    // Options in a template hold, and never get to the engine.
    let sent = r#"{"id":"watch","params":{"window":20}}"#;
    let answer = call(&server, "/shop/_search/template", &[], sent).ok();
    assert_eq!(answer.parameter("window"), Some("20"), "{answer:?}");
    let last = upstream.asked().pop().expect("it was asked");
    assert!(!String::from_utf8_lossy(&last.body).contains("rerankd"));
}

#[test]
fn templates_of_one_request_are_the_searches_that_the_engine_renders() {
    let upstream = Upstream::start(templates);
    let server = serve(&upstream, "", &[]);
    let lines = |id: &str| {
        format!("{{\"index\":\"shop\"}}\n{{\"id\":\"watch\"}}\n{{}}\n{{\"id\":\"{id}\"}}\n")
    };
    let answer = call(&server, "/_msearch/template", &[], &lines("strap")).ok();
    let status = answer.header("rerank-status").expect("it is there");
    assert_eq!(status.matches("status=applied").count(), 2, "{status}");
    let targets: Vec<String> = upstream
        .asked()
        .iter()
        .map(|asked| asked.target().to_owned())
        .collect();
    assert_eq!(
        targets,
        ["/_render/template", "/_render/template", "/_msearch"]
    );
    let answer = call(&server, "/_msearch/template", &[], &lines("missing"));
    assert_eq!(
        (answer.status, answer.parameter("reason")),
        (404, Some("template"))
    );
    let last = upstream.asked().pop().expect("it was asked");
    assert_eq!(last.body, lines("missing").as_bytes());
}
