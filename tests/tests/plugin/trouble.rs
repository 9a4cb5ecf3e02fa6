//! A sidecar in trouble: the engine's own page, whole, at the latest when the time is up.

use std::time::{Duration, Instant};

use rerankd_tests::search_page::ids;
use rerankd_tests::upstream::{nobody, wait_for_end, write_json};
use rerankd_tests::{Answer, Upstream, comparison, engine, eventually};
use serde_json::{Value, json};

use crate::sidecar::{FAULTS, documents, fresh_name, reversed, reversing, with};
use crate::world::{WORLD, pipeline, search, turn};
use crate::{QUERY, marker};

/// How much later than its time limit a search may be on a busy machine.
const SLACK: Duration = Duration::from_secs(3);

/// What is said of a sidecar that cannot be reached, breaks off, or answers what is no ranking.
const SIDECARS: &[&str] = &["sidecar-unavailable", "sidecar-status", "sidecar-response"];

/// A page that needs all of the work: cut, with less than the policy reads.
fn page() -> Value {
    let mut body = search(QUERY);
    body["from"] = json!(2);
    body["size"] = json!(5);
    body["_source"] = json!(["sku"]);
    body
}

/// Makes a pipeline with a sidecar and more options; the path of a search with it.
fn path(url: &str, options: &Value) -> String {
    let mut all = json!({"url": url, "policy": "scripted", "fields": ["title", "text"]});
    let options = options.as_object().expect("options are an object").clone();
    all.as_object_mut().expect("an object").extend(options);
    let name = fresh_name();
    WORLD.put_pipeline(&name, &pipeline(&all)).ok();
    format!("/products/_search?search_pipeline={name}")
}

/// Whether an answer is the engine's own page, marked as failed for one of these reasons.
fn is_own_page(answer: &Answer, reasons: &[&str]) -> Result<(), String> {
    let read = marker::read(answer);
    let own = marker::read(&WORLD.alone(&page())).answer;
    comparison::same(&read.answer, &own)?;
    let fate = read.fates[0].clone().ok_or("nothing is said")?;
    let reason = fate.reason.as_deref().unwrap_or_default();
    match fate.status == "failed" && reasons.contains(&reason) {
        true => Ok(()),
        false => Err(format!("said: {fate:?}")),
    }
}

#[test]
fn whatever_a_sidecar_does_the_page_is_the_engines_own_and_in_time() {
    let _turn = turn();
    let mut faults = Vec::new();
    for (name, until_deadline, answer) in FAULTS {
        let sidecar = with(*answer);
        let limit = if *until_deadline { 400 } else { 20_000 };
        let path = path(&sidecar.url(), &json!({"timeout_ms": limit}));
        let started = Instant::now();
        let got = WORLD.post(&path, &page());
        let took = started.elapsed();
        let reasons: &[&str] = match until_deadline {
            true => &["deadline"],
            false => SIDECARS,
        };
        if let Err(fault) = is_own_page(&got, reasons) {
            faults.push(format!("- {name}: {fault}"));
        }
        let latest = if *until_deadline {
            Duration::from_millis(400)
        } else {
            Duration::ZERO
        };
        if took > latest + SLACK {
            faults.push(format!("- {name}: took {took:?}"));
        }
        if sidecar.asked().len() != 1 {
            faults.push(format!("- {name}: asked {} times", sidecar.asked().len()));
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn the_same_faults_are_errors_of_the_engine_where_that_is_wanted() {
    let _turn = turn();
    let mut faults = Vec::new();
    for (name, until_deadline, answer) in FAULTS {
        let sidecar = with(*answer);
        let limit = if *until_deadline { 300 } else { 20_000 };
        let options = json!({"timeout_ms": limit, "on_failure": "error"});
        let got = WORLD.post(&path(&sidecar.url(), &options), &page());
        let body = got.json();
        let expected = if *until_deadline { 424 } else { 502 };
        if got.status != expected
            || body["status"] != expected
            || !body["error"]["reason"].is_string()
        {
            faults.push(format!("- {name}: {} {body}", got.status));
        }
    }
    assert!(
        faults.is_empty(),
        "{} faults:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn a_sidecar_that_comes_back_ranks_the_next_search() {
    let _turn = turn();
    let address = nobody();
    let path = path(&format!("http://{address}"), &json!({}));
    let got = WORLD.post(&path, &page()).ok();
    is_own_page(&got, &["sidecar-unavailable"]).unwrap_or_else(|fault| panic!("{fault}"));
    let sidecar = Upstream::start_on(address, |asked, stream| {
        write_json(stream, "200 OK", &reversed(documents(asked)).to_string())
    });
    let got = WORLD.post(&path, &page()).ok();
    assert_eq!(marker::fate(&got).status, "applied");
    // What a broken connection leaves behind does not reach the next search either.
    assert_eq!(sidecar.asked().len(), 1);
}

#[test]
fn kept_connections_that_died_meanwhile_cost_no_ranking() {
    let _turn = turn();
    // It ends each connection after its answer without saying so.
    let sidecar = Upstream::start(|asked, stream| {
        write_json(stream, "200 OK", &reversed(documents(asked)).to_string())?;
        Ok(false)
    });
    let path = path(&sidecar.url(), &json!({}));
    for round in 0..5 {
        let got = WORLD.post(&path, &page()).ok();
        let fate = marker::fate(&got);
        assert_eq!(fate.status, "applied", "{round}: {fate:?}");
    }
}

#[test]
fn a_full_sidecar_is_said_to_be_full() {
    let _turn = turn();
    let full = with(|_, stream| {
        let body =
            r#"{"status":"error","error":{"type":"overloaded","code":429,"message":"no room"}}"#;
        write_json(stream, "429 Too Many Requests", body)
    });
    let got = WORLD.post(&path(&full.url(), &json!({})), &page()).ok();
    is_own_page(&got, &["overloaded"]).unwrap_or_else(|fault| panic!("{fault}"));
    let path = path(&full.url(), &json!({"on_failure": "error"}));
    let got = WORLD.post(&path, &page());
    assert_eq!(got.status, 429, "{}", got.text());
    assert!(got.text().contains("no room"), "{}", got.text());
}

#[test]
fn calls_beyond_the_bound_fall_back_at_once_and_plain_searches_feel_nothing() {
    let _turn = turn();
    let hanging = Upstream::start(|_, stream| wait_for_end(stream));
    let limit = Duration::from_millis(2500);
    let options = json!({"timeout_ms": 2500, "max_concurrent_calls": 4});
    let path = path(&hanging.url(), &options);
    let address = WORLD.engine.address();
    let asked = |path: &str| {
        let started = Instant::now();
        let json_type = [("Content-Type", "application/json")];
        let body = page().to_string();
        let got = engine::call(address, "POST", path, &json_type, body.as_bytes()).ok();
        (got, started.elapsed())
    };
    let (reranked, plain) = std::thread::scope(|scope| {
        let searches: Vec<_> = (0..60).map(|_| scope.spawn(|| asked(&path))).collect();
        eventually("four calls hang", || {
            (hanging.asked().len() >= 4).then_some(())
        });
        let plain: Vec<Duration> = (0..20)
            .map(|_| asked("/products/_search?search_pipeline=_none").1)
            .collect();
        let reranked: Vec<_> = searches
            .into_iter()
            .map(|search| search.join().expect("a search does not panic"))
            .collect();
        (reranked, plain)
    });
    assert_eq!(hanging.asked().len(), 4, "no more than four calls");
    let reason = |got: &Answer| marker::fate(got).reason.unwrap_or_default();
    let late = reranked.iter().filter(|(got, _)| reason(got) == "deadline");
    assert_eq!(late.count(), 4);
    for (got, took) in &reranked {
        is_own_page(got, &["deadline", "overloaded"]).unwrap_or_else(|fault| panic!("{fault}"));
        let latest = match reason(got).as_str() {
            "overloaded" => limit / 2,
            _ => limit + SLACK,
        };
        assert!(*took < latest, "{} after {took:?}", reason(got));
    }
    let slowest = plain.iter().max().expect("there are some");
    assert!(*slowest < limit / 2, "a plain search took {slowest:?}");
    // Every place is free again.
    let (got, _) = asked(&path);
    assert_eq!(reason(&got), "deadline");
}

#[test]
fn what_the_sidecar_is_asked_is_what_the_policy_needs_and_no_more() {
    let _turn = turn();
    let sidecar = reversing();
    let options = json!({"parameters": {"weight": 0.5}, "signals": {"shop": "fr"}});
    let path = path(&sidecar.url(), &options);
    let mut body = page();
    body["ext"] = json!({"rerankd": {"key": "user-17", "signals": {"country": "FR"}}});
    let headers = [
        ("Content-Type", "application/json"),
        ("Authorization", "Basic c2VjcmV0OnNlY3JldA=="),
        ("Cookie", "session=secret"),
    ];
    let text = body.to_string();
    engine::call(
        WORLD.engine.address(),
        "POST",
        &path,
        &headers,
        text.as_bytes(),
    )
    .ok();
    // Before that, whether it takes the parameters.
    let asked = sidecar.asked();
    assert_eq!(asked.len(), 2);
    let asked = &asked[1];
    assert_eq!(asked.line, "POST /v1/rerank/scripted HTTP/1.1");
    assert_eq!(asked.count("authorization") + asked.count("cookie"), 0);
    assert_eq!(asked.count("upgrade"), 0, "HTTP/1.1 from the start");
    let sent: Value = serde_json::from_slice(&asked.body).expect("it is JSON");
    assert_eq!(sent["query"], QUERY);
    assert_eq!(sent["key"], "user-17");
    assert_eq!(sent["parameters"], json!({"weight": 0.5}));
    assert_eq!(sent["signals"]["country"], "FR");
    let documents = sent["documents"].as_array().expect("documents");
    assert!(documents.len() > 20, "the whole window");
    for document in documents {
        let keys: Vec<&String> = document["fields"]
            .as_object()
            .expect("fields")
            .keys()
            .collect();
        assert!(
            keys.iter()
                .all(|key| ["title", "text"].contains(&key.as_str())),
            "{document}"
        );
        assert!(document["score"].is_number(), "{document}");
    }
    assert!(!asked.body.windows(6).any(|bytes| bytes == b"secret"));
}

#[test]
fn a_policy_that_does_not_exist_is_told_in_the_sidecars_words() {
    let _turn = turn();
    let options = json!({"policy": "nobody-knows"});
    let got = WORLD
        .post(&path(&WORLD.sidecar_url(), &options), &page())
        .ok();
    is_own_page(&got, &["unknown-policy"]).unwrap_or_else(|fault| panic!("{fault}"));
    let options = json!({"policy": "nobody-knows", "on_failure": "error"});
    let got = WORLD.post(&path(&WORLD.sidecar_url(), &options), &page());
    assert_eq!(got.status, 424, "{}", got.text());
    assert!(
        got.text().contains("no policy `nobody-knows`"),
        "{}",
        got.text()
    );
}

#[test]
fn the_engines_own_ignore_failure_never_lets_an_uncut_window_out() {
    let _turn = turn();
    let url = format!("http://{}", nobody());
    let options =
        json!({"url": url, "policy": "scripted", "fields": ["title"], "on_failure": "error"});
    let name = fresh_name();
    let made = json!({
        "request_processors": [{"rerankd_window": options}],
        "response_processors": [{"rerankd": {"ignore_failure": true}}],
    });
    WORLD.put_pipeline(&name, &made).ok();
    let got = WORLD
        .post(
            &format!("/products/_search?search_pipeline={name}"),
            &page(),
        )
        .ok();
    assert_eq!(ids(got.text()), ids(WORLD.alone(&page()).text()));
}
