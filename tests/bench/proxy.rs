//! What the search proxy costs: requests that it passes on, against the engine itself; a reranked
//! search, against the same search and the same reranking called one after the other. In turns, on
//! kept connections, before a real OpenSearch on loopback.

use std::fmt::Write as _;
use std::path::Path;

use rerankd_tests::engine::Engine;
use serde_json::{Value, json};

use crate::Result;
use crate::client::{Call, Client, applied};
use crate::machine::Facts;
use crate::measure::{Samples, milliseconds};
use crate::passing::{self, Places};
use crate::report::QUICK;
use crate::server::Server;
use crate::texts::{Search, Texts};

/// What the page's markers say.
pub(crate) const MARKER: &str = "`make bench-proxy`";

/// The default policy, and one that ranks nothing: what the proxy adds shows best where nothing else
/// takes time.
const POLICIES: [&str; 2] = ["semantic-blend", "first-stage"];

const RULES: &str =
    "[[index]]\npattern = \"*\"\npolicies = [\"semantic-blend\", \"first-stage\"]\n";

/// Hits that are reranked.
const WINDOW: usize = 100;

/// Everything that was measured.
pub(crate) struct Findings {
    /// By what is asked: the engine itself, and through the proxy, milliseconds.
    passed: Vec<(&'static str, Samples, Samples)>,
    /// As many of them as there can be.
    throughput: Vec<passing::Line>,
    /// By policy.
    reranked: Vec<(&'static str, Reranked)>,
    look_ups: LookUps,
    quick: bool,
}

/// Searches with one policy, milliseconds.
#[derive(Default)]
struct Reranked {
    /// The differences of neighbours: through the proxy, less engine and reranking.
    added: Samples,
    engine: Samples,
    rerank: Samples,
    proxied: Samples,
}

/// The same searches by a policy that ranks nothing, through a proxy that looks mappings up and has them, and one
/// that does not, milliseconds.
#[derive(Default)]
struct LookUps {
    with: Samples,
    without: Samples,
    /// The differences of neighbours.
    added: Samples,
}

/// Measures all of it.
pub(crate) fn measure(root: &Path, texts: &Texts, quick: bool) -> Result<Findings> {
    let engine = Engine::start("opensearch");
    fill(&engine, texts);
    let upstream = format!("http://{}", engine.address());
    let config = root.join("target/tmp/rerankd-bench/proxy.toml");
    std::fs::create_dir_all(config.parent().ok_or("it lies in a folder")?)?;
    std::fs::write(&config, RULES)?;
    let config = config.to_str().ok_or("the path is no UTF-8")?;
    let proxy = ["--upstream", &upstream, "--proxy-listen", "127.0.0.1:0"];
    let flags = [&["--config", config][..], &proxy].concat();
    let server = Server::start(root, &flags)?;
    let direct = Client::new(&engine.address().to_string());
    let proxied = Client::new(server.proxy_address()?);
    let data = Client::new(server.address());
    let rounds = if quick { 30 } else { 600 };

    eprintln!("  requests that are passed on:");
    let calls = [
        Call {
            name: "a document by its id",
            path: "/bench/_doc/0-1".into(),
            body: None,
        },
        Call {
            name: "a search that is left alone",
            path: "/bench/_search".into(),
            body: Some(json!({"query": {"match": {"title": "watch"}}, "sort": ["_doc"]})),
        },
    ];
    let mut passed = Vec::new();
    for call in &calls {
        let (mut alone, mut through) = (Samples::default(), Samples::default());
        for round in 0..rounds + rounds / 5 {
            let (one, _, _) = direct.call(call)?;
            let (other, _, _) = proxied.call(call)?;
            // The engine compiles its own code in the first of them.
            if round >= rounds / 5 {
                alone.push_time(one);
                through.push_time(other);
            }
        }
        passed.push((call.name, alone, through));
    }

    eprintln!("  as many of them as there can be:");
    let places = Places {
        engine: engine.address().to_string(),
        engine_process: engine.process(),
        proxy: server.proxy_address()?,
        proxy_process: server.process(),
    };
    let throughput = passing::measure(&places, &calls, quick)?;

    eprintln!("  reranked searches:");
    let mut reranked = POLICIES.map(|policy| (policy, Reranked::default()));
    for round in 0..if quick { 6 } else { 300 } {
        for (policy, samples) in &mut reranked {
            let set = round % texts.searches.len();
            // Another query each time: nothing is remembered.
            let query = format!("{} {round}", texts.searches[set].query);
            samples.measure([&direct, &data, &proxied], policy, set, &query)?;
        }
    }
    eprintln!("  mappings that are known:");
    let data = root.join("target/tmp/rerankd-bench/without-look-ups");
    let log = data.with_extension("log");
    let flags = [&flags[..], &["--upstream-lookups", "false"]].concat();
    let other = Server::start_on(root, &data, &log, &flags)?;
    let without = Client::new(other.proxy_address()?);
    let mut look_ups = LookUps::default();
    for round in 0..if quick { 60 } else { 3000 } {
        let query = format!("{} again {round}", texts.searches[0].query);
        look_ups.measure(&proxied, &without, &query, round)?;
    }
    Ok(Findings {
        passed,
        throughput,
        reranked: reranked.into(),
        look_ups,
        quick,
    })
}

/// An index of all texts; `set` says which search's they are.
fn fill(engine: &Engine, texts: &Texts) {
    let mut lines = String::new();
    let documents = |search: &Search| search.documents.iter().map(|d| d.text.clone()).collect();
    for (set, search) in texts.searches.iter().enumerate() {
        let documents: Vec<String> = documents(search);
        for (number, text) in documents.iter().enumerate() {
            let id = json!({"index": {"_index": "bench", "_id": format!("{set}-{number}")}});
            let document = json!({"set": set, "title": text});
            // A `String` takes whatever is written to it.
            let _ = writeln!(lines, "{id}\n{document}");
        }
    }
    let one = json!({"settings": {"number_of_shards": 1, "number_of_replicas": 0},
        "mappings": {"properties": {"set": {"type": "integer"},
            "title": {"type": "text"}}}});
    engine.load(&json!({"bench": one}), lines.as_bytes());
}

/// A search over the hundred documents of one set.
fn search(set: usize, query: &str, size: usize) -> Call {
    let query = json!({"bool": {
        "filter": [{"term": {"set": set}}], "should": [{"match": {"title": query}}]}});
    Call {
        name: "a search",
        path: "/bench/_search".into(),
        body: Some(json!({"query": query, "size": size})),
    }
}

impl Reranked {
    /// One search, asked of the engine, of the hits form, and of the proxy.
    fn measure(
        &mut self,
        [direct, data, proxied]: [&Client; 3],
        policy: &str,
        set: usize,
        query: &str,
    ) -> Result<()> {
        let (engine, page, _) = direct.call(&search(set, query, WINDOW))?;
        let page: Value = serde_json::from_slice(&page)?;
        if page["hits"]["hits"].as_array().map(Vec::len) != Some(WINDOW) {
            return Err(format!("not {WINDOW} hits for `{query}`").into());
        }
        let hits = Call {
            name: "hits",
            path: format!("/v1/rerank/{policy}/hits"),
            body: Some(json!({"query": query, "response": page})),
        };
        let (rerank, _, status) = data.call(&hits)?;
        applied(&status)?;
        let mut search = search(set, query, 10);
        search.path = format!("{}?rerankd_policy={policy}", search.path);
        let (through, _, status) = proxied.call(&search)?;
        applied(&status)?;
        self.engine.push_time(engine);
        self.rerank.push_time(rerank);
        self.proxied.push_time(through);
        self.added
            .push(milliseconds(through) - milliseconds(engine) - milliseconds(rerank));
        Ok(())
    }
}

impl LookUps {
    /// One search, asked of both, who begins by turns.
    fn measure(
        &mut self,
        with: &Client,
        without: &Client,
        query: &str,
        round: usize,
    ) -> Result<()> {
        let mut search = search(0, query, 10);
        search.path = format!("{}?rerankd_policy=first-stage", search.path);
        let ask = |client: &Client| -> Result<f64> {
            let (time, _, status) = client.call(&search)?;
            applied(&status)?;
            if status.contains("mapping=unknown") {
                return Err(format!("the mapping is not known: {status}").into());
            }
            Ok(milliseconds(time))
        };
        let (one, other) = match round % 2 {
            0 => (ask(with)?, ask(without)?),
            _ => {
                let other = ask(without)?;
                (ask(with)?, other)
            }
        };
        self.with.push(one);
        self.without.push(other);
        self.added.push(one - other);
        Ok(())
    }
}

impl Findings {
    /// All tables.
    pub(crate) fn render(&self, machine: &Facts) -> Result<String> {
        let mut page = String::new();
        if self.quick {
            page.push_str(QUICK);
        }
        let met = |met: bool| if met { "met" } else { "**missed**" };
        let passed = self.passed.iter();
        let slower = passed.map(|(_, alone, through)| through.median() - alone.median());
        let slower = slower.fold(f64::NEG_INFINITY, f64::max);
        let worst = |apart: bool| {
            let lines = self
                .throughput
                .iter()
                .filter(|line| line.apart == apart && (!apart || line.connections > passing::FEW));
            lines
                .map(passing::Line::ratio)
                .fold(f64::INFINITY, f64::min)
        };
        let (shared, apart) = (worst(false), worst(true));
        let added = self
            .reranked
            .iter()
            .map(|(_, samples)| samples.added.median());
        let added = added.fold(f64::NEG_INFINITY, f64::max);
        let looked_up = self.look_ups.added.median();
        writeln!(
            page,
            "| goal | limit | measured | |\n|---|---|---|---|\n\
             | a request that is passed on, against the engine itself: median | + 0.3 ms | + {slower:.2} ms | {} |\n\
             | throughput of such requests, against the engine itself, where the engine has a core of its own and clients enough to fill it: the worst | 0.9 | {apart:.2} | {} |\n\
             | the same where client, proxy and engine share all cores: the worst | 0.9 | {shared:.2} | {} |\n\
             | a reranked search, against engine and reranking one after the other, the worse of both: median | + 1 ms | {added:+.2} ms | {} |\n\
             | a reranked search whose mapping is known, against one without look-ups: median | + 0.1 ms | {looked_up:+.3} ms | {} |\n",
            met(slower <= 0.3),
            met(apart >= 0.9),
            met(shared >= 0.9),
            met(added <= 1.0),
            met(looked_up <= 0.1),
        )?;
        let facts = ["date", "CPU", "cores", "load average before"];
        for (name, value) in machine {
            if facts.contains(name) || name.starts_with("cores taken") {
                write!(page, "{name}: {value}. ")?;
            }
        }
        page.push_str("\n\n| passed on | requests | engine, median ms | 99 % | proxy, median ms | 99 % |\n|---|---|---|---|---|---|\n");
        for (name, alone, through) in &self.passed {
            writeln!(
                page,
                "| {name} | {} | {:.2} | {:.2} | {:.2} | {:.2} |",
                alone.len(),
                alone.median(),
                alone.quantile(0.99),
                through.median(),
                through.quantile(0.99),
            )?;
        }
        writeln!(
            page,
            "\nConnections that never wait, all ways in turns. *Shared*: client, proxy and engine run on all cores, so what \
             the proxy computes comes out of the engine's share. *Apart*: the engine has one core, client and proxy another, \
             as where they are on two machines. nginx does nothing but pass requests on.\n\n{}{}",
            passing::HEAD,
            self.throughput
                .iter()
                .map(passing::Line::row)
                .collect::<Vec<_>>()
                .join("\n"),
        )?;
        writeln!(
            page,
            "\nA search with {WINDOW} hits (titles) and another query each time, medians, ms: the engine alone, size {WINDOW}; the \
             hits form with its answer; the same search through the proxy, size 10; and the median of what neighbours \
             differ by.\n\n\
             | policy | searches | engine | `/v1/rerank/POLICY/hits` | proxy | added |\n|---|---|---|---|---|---|",
        )?;
        for (policy, samples) in &self.reranked {
            writeln!(
                page,
                "| {policy} | {} | {:.2} | {:.2} | {:.2} | {:+.2} |",
                samples.added.len(),
                samples.engine.median(),
                samples.rerank.median(),
                samples.proxied.median(),
                samples.added.median(),
            )?;
        }
        let LookUps {
            with,
            without,
            added,
        } = &self.look_ups;
        writeln!(
            page,
            "\n{} such searches by `first-stage`, which ranks nothing, through a proxy that knows the mapping: {:.3} ms at the \
             median; through one with `--upstream-lookups false`: {:.3} ms; the ratio: {:.3}; the median of what \
             neighbours differ by: {:+.3} ms.",
            with.len(),
            with.median(),
            without.median(),
            with.median() / without.median(),
            added.median(),
        )?;
        Ok(page.trim_end().to_owned())
    }
}
