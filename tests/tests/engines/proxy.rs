//! Every scenario through the search proxy, against what the engine alone answers.

use std::net::SocketAddr;
use std::sync::LazyLock;

use rerankd_tests::scenario::{Call, Expectation, Scenario};
use rerankd_tests::search_page::ids;
use rerankd_tests::{Answer, Engine, Folder, Rerankd, engine, require};
use serde_json::json;

use crate::{ELASTICSEARCH, OPENSEARCH, SCENARIOS, compare, turn};

/// Items of `_msearch` whose fates `Rerank-Status` names at most.
const MOST_MEMBERS: usize = 32;

pub(crate) static BEFORE_OPENSEARCH: LazyLock<Rerankd> = LazyLock::new(|| serve(&OPENSEARCH));
pub(crate) static BEFORE_ELASTICSEARCH: LazyLock<Rerankd> = LazyLock::new(|| serve(&ELASTICSEARCH));

/// A server with the rule of `tests/scenarios/README.md` before an engine.
fn serve(engine: &Engine) -> Rerankd {
    let folder = Folder::new();
    folder.copy(&require::policies(), "policies");
    for name in ["nearest-length", "trap", "waits"] {
        folder.copy(&require::faulty(name), &format!("policies/{name}.wasm"));
    }
    let config = folder.write(
        "rerankd.toml",
        "[[index]]\npattern = \"*\"\n\
         policies = [\"nearest-length\", \"semantic-blend\", \"trap\", \"waits\"]\n",
    );
    let text = |path: &std::path::Path| path.to_str().expect("the path is UTF-8").to_owned();
    let (config, policies) = (text(&config), text(&folder.path().join("policies")));
    let upstream = format!("http://{}", engine.address());
    Rerankd::start(&[
        "--config",
        &config,
        "--policies",
        &policies,
        "--upstream",
        &upstream,
        "--proxy-listen",
        "127.0.0.1:0",
    ])
}

#[test]
fn opensearch_behind_the_proxy_is_opensearch_reranked() {
    check_all(&OPENSEARCH, BEFORE_OPENSEARCH.proxy_address());
}

#[test]
fn elasticsearch_behind_the_proxy_is_elasticsearch_reranked() {
    check_all(&ELASTICSEARCH, BEFORE_ELASTICSEARCH.proxy_address());
}

#[test]
fn pages_of_opensearch_neither_repeat_nor_lose_a_hit() {
    check_pages(&OPENSEARCH, BEFORE_OPENSEARCH.proxy_address());
}

#[test]
fn pages_of_elasticsearch_neither_repeat_nor_lose_a_hit() {
    check_pages(&ELASTICSEARCH, BEFORE_ELASTICSEARCH.proxy_address());
}

fn check_all(engine: &Engine, proxy: SocketAddr) {
    let _turn = turn(engine);
    let mut faults = Vec::new();
    let mut count = 0;
    for scenario in SCENARIOS.of(engine.name()) {
        count += 1;
        if let Err(fault) = check(scenario, engine, proxy) {
            faults.push(format!("- {}: {fault}", scenario.name));
        }
    }
    assert!(
        faults.is_empty(),
        "{} of {count} scenarios on {}:\n{}",
        faults.len(),
        engine.name(),
        faults.join("\n")
    );
}

fn check(scenario: &Scenario, engine: &Engine, proxy: SocketAddr) -> Result<(), String> {
    let saved = scenario.prepare(engine.address());
    let own = scenario.call.send(engine.address(), &saved);
    let wide = |call: &Call| call.send(engine.address(), &saved);
    let through = scenario.prepare(proxy);
    let got = scenario.with_options().send(proxy, &through);
    let status = got.header("rerank-status").unwrap_or("none").to_owned();
    let compared = match &scenario.expect {
        Expectation::Passed => compare::same(&got, &own),
        Expectation::PassedError => match own.status {
            200 => Err("the engine takes it".to_owned()),
            _ => compare::same(&got, &own),
        },
        Expectation::Skipped { .. } | Expectation::Failed { .. } => compare::same(&got, &own),
        Expectation::Reranked(expected) => {
            compare::reranked(&got, &own, &scenario.call, wide, expected)
        }
        Expectation::Permuted => compare::permuted(&got, &own, &scenario.call, wide),
        Expectation::Error { status, mentions } => engine_shaped_error(&got, *status, mentions),
        Expectation::Items { items } => {
            let wide = wide(&scenario.call.widened_items(100));
            compare::items(&got, &own, &wide, items)
        }
    };
    compared.map_err(|fault| format!("({status}) {fault}"))?;
    said(&scenario.expect, &got).map_err(|fault| format!("({status}) {fault}"))
}

/// Whether `Rerank-Status` says what became of the search.
fn said(expect: &Expectation, got: &Answer) -> Result<(), String> {
    let header = got.header("rerank-status");
    match expect {
        Expectation::Passed if header.is_some() => Err("nobody asked for a ranking".to_owned()),
        Expectation::Passed | Expectation::PassedError => Ok(()),
        Expectation::Items { items } => {
            let fates = fates(header.unwrap_or_default());
            for (index, item) in items.iter().enumerate().take(MOST_MEMBERS) {
                let fate = fates.iter().find(|fate| fate.covers(index));
                let fate = fate.map_or("", |fate| fate.parameters);
                if !matches!(item, Expectation::Passed) {
                    one_said(item, fate).map_err(|fault| format!("item {index}: {fault}"))?;
                }
            }
            Ok(())
        }
        one => one_said(one, header.unwrap_or_default()),
    }
}

fn one_said(expect: &Expectation, fate: &str) -> Result<(), String> {
    let wanted: &[String] = &match expect {
        Expectation::Skipped { reason } => {
            ["status=skipped".to_owned(), format!("reason={reason}")].to_vec()
        }
        Expectation::Failed { reason } => {
            ["status=failed".to_owned(), format!("reason={reason}")].to_vec()
        }
        Expectation::Error { .. } => vec!["status=error".to_owned()],
        Expectation::Permuted => vec!["policy=\"semantic-blend\"".to_owned()],
        _ => vec!["policy=\"nearest-length\"".to_owned()],
    };
    let parameters: Vec<&str> = fate.split(';').collect();
    let lacks = wanted
        .iter()
        .find(|one| !parameters.contains(&one.as_str()));
    let ranked = ["status=applied", "status=partial"];
    let is_ranked = parameters.iter().any(|one| ranked.contains(one));
    let must_be = matches!(expect, Expectation::Permuted | Expectation::Reranked(_));
    match lacks {
        Some(lacks) => Err(format!("Rerank-Status lacks {lacks}: `{fate}`")),
        None if must_be != is_ranked => Err(format!("Rerank-Status: `{fate}`")),
        None => Ok(()),
    }
}

/// What `Rerank-Status` says of some searches in a row.
struct Fate<'a> {
    first: usize,
    count: usize,
    parameters: &'a str,
}

impl Fate<'_> {
    fn covers(&self, index: usize) -> bool {
        (self.first..self.first + self.count).contains(&index)
    }
}

fn fates(header: &str) -> Vec<Fate<'_>> {
    let fate = |member| {
        let number = |key: &str| {
            let value = str::split(member, ';').find_map(|one| one.trim().strip_prefix(key))?;
            value.parse().ok()
        };
        Some(Fate {
            first: number("item=")?,
            count: number("items=").unwrap_or(1),
            parameters: member,
        })
    };
    header.split(", ").filter_map(fate).collect()
}

fn engine_shaped_error(got: &Answer, status: u16, mentions: &str) -> Result<(), String> {
    let body = got.json();
    let reason = body["error"]["reason"].as_str().unwrap_or_default();
    let shaped = body["error"]["type"].is_string()
        && body["error"]["root_cause"][0]["reason"] == body["error"]["reason"]
        && body["status"] == status;
    match got.status == status && shaped && reason.contains(mentions) {
        true => Ok(()),
        false => Err(format!("status {}: {body}", got.status)),
    }
}

/// All hits on pages of 7, and on one page, by a policy with a model.
fn check_pages(engine: &Engine, proxy: SocketAddr) {
    let _turn = turn(engine);
    let search = |address: SocketAddr, from: usize, size: usize| {
        let body = json!({
            "query": {"match": {"title": "garden shoe"}},
            "from": from,
            "size": size,
            "_source": false,
        });
        let headers = [
            ("Content-Type", "application/json"),
            ("Rerankd-Policy", "semantic-blend"),
        ];
        let body = body.to_string();
        let path = "/products/_search";
        ids(
            engine::call(address, "POST", path, &headers, body.as_bytes())
                .ok()
                .text(),
        )
    };
    let mut own = search(engine.address(), 0, 100);
    let whole = search(proxy, 0, 100);
    assert!(own.len() > 5 * 7, "only {} hits", own.len());
    assert_ne!(whole, own, "nothing is reranked");
    let pages = (0..own.len()).step_by(7);
    let joined: Vec<String> = pages.flat_map(|from| search(proxy, from, 7)).collect();
    assert_eq!(joined, whole);
    let mut found = joined;
    found.sort();
    own.sort();
    assert_eq!(found, own);
}
