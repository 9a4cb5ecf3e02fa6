//! Every scenario through the search proxy, against what the engine alone answers.

use std::net::SocketAddr;
use std::sync::LazyLock;

use rerankd_tests::comparison::{Fate, Original};
use rerankd_tests::scenario::{Call, Door, Expectation, Scenario};
use rerankd_tests::search_page::ids;
use rerankd_tests::{Answer, Engine, Folder, Rerankd, engine, require};
use serde_json::json;

use crate::{ELASTICSEARCH, OPENSEARCH, SCENARIOS, turn};

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
    for scenario in SCENARIOS.of(engine.name(), Door::Proxy) {
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
    let original = Original {
        call: &scenario.call,
        own: &own,
        wide,
        documents: &SCENARIOS.documents,
    };
    let compared = original.compare(&got, &scenario.expect);
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
            let members = members(header.unwrap_or_default());
            for (index, item) in items.iter().enumerate().take(MOST_MEMBERS) {
                let fate = members.iter().find(|member| member.covers(index));
                let fate = Fate::read(fate.map_or("", |fate| fate.parameters));
                fate.tells(item)
                    .map_err(|fault| format!("item {index}: {fault}"))?;
            }
            Ok(())
        }
        one => Fate::read(header.unwrap_or_default()).tells(one),
    }
}

/// What `Rerank-Status` says of some searches in a row.
struct Member<'a> {
    first: usize,
    count: usize,
    parameters: &'a str,
}

impl Member<'_> {
    fn covers(&self, index: usize) -> bool {
        (self.first..self.first + self.count).contains(&index)
    }
}

fn members(header: &str) -> Vec<Member<'_>> {
    let read = |member| {
        let number = |key: &str| {
            let value = str::split(member, ';').find_map(|one| one.trim().strip_prefix(key))?;
            value.parse().ok()
        };
        Some(Member {
            first: number("item=")?,
            count: number("items=").unwrap_or(1),
            parameters: member,
        })
    };
    header.split(", ").filter_map(read).collect()
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
