//! What the plugin of OpenSearch costs: a reranked search, against the same search and the same reranking called
//! one after the other; and searches that are not reranked, while the sidecar of others hangs. In turns, on
//! kept connections, on loopback.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rerankd_tests::upstream::wait_for_end;
use rerankd_tests::{Engine, Setup, Upstream, require};
use serde_json::{Value, json};

use crate::Result;
use crate::client::{Call, Client, applied};
use crate::machine::Facts;
use crate::measure::{Samples, milliseconds};
use crate::report::QUICK;
use crate::server::Server;
use crate::texts::Texts;

/// What the page's markers say.
pub(crate) const MARKER: &str = "`make bench-plugin`";

/// One that ranks nothing, where what the hop adds shows best, and the default.
const POLICIES: [&str; 2] = ["first-stage", "semantic-blend"];

/// Hits that are reranked, and bytes of each one's text.
const WINDOW: usize = 100;
const TEXT_BYTES: usize = 500;

/// Searches that wait for a sidecar that does not answer.
const HANGING: usize = 60;

/// Everything that was measured.
pub(crate) struct Findings {
    /// By policy.
    reranked: Vec<(&'static str, Reranked)>,
    /// Searches without a pipeline, milliseconds: while nothing else runs, and while [`HANGING`] wait.
    alone: Samples,
    beside: Samples,
    quick: bool,
}

/// Searches with one policy, milliseconds.
#[derive(Default)]
struct Reranked {
    /// The differences of neighbours: through the plugin, less engine and reranking.
    added: Samples,
    engine: Samples,
    rerank: Samples,
    plugin: Samples,
}

/// Measures all of it.
pub(crate) fn measure(root: &Path, texts: &Texts, quick: bool) -> Result<Findings> {
    let server = Server::start(root, &[])?;
    let engine = Engine::start_with(
        "opensearch",
        &Setup {
            plugins: vec![require::plugin(3)],
            settings: vec![
                format!("rerankd.url=http://{}", server.address()),
                "rerankd.timeout_ms=20000".to_owned(),
            ],
            ..Setup::default()
        },
    );
    fill(&engine, texts);
    let direct = Client::new(&engine.address().to_string());
    let data = Client::new(server.address());
    let mut reranked = POLICIES.map(|policy| (policy, Reranked::default()));
    for (policy, _) in &reranked {
        let options = json!({"policy": policy, "fields": ["text"], "window": WINDOW});
        make_pipeline(&engine, policy, &options);
    }

    eprintln!("  reranked searches:");
    let rounds = if quick { 6 } else { 300 };
    for round in 0..warm_up_rounds(quick) + rounds {
        let warming_up = round < warm_up_rounds(quick);
        for (policy, samples) in &mut reranked {
            // The model takes most of the time, which is not what is asked here.
            if *policy != POLICIES[0] && (warming_up || round % 5 != 0) {
                continue;
            }
            let set = round % texts.searches.len();
            // Another query each time.
            let query = format!("{} {round}", texts.searches[set].query);
            let mut unwatched = Reranked::default();
            let samples = if warming_up { &mut unwatched } else { samples };
            samples.measure(&direct, &data, policy, set, &query)?;
        }
    }

    eprintln!("  plain searches while others hang:");
    let (mut alone, mut beside) = (Samples::default(), Samples::default());
    let hanging = Upstream::start(|_, stream| wait_for_end(stream));
    let options = json!({"url": hanging.url(), "policy": "none", "fields": ["text"],
        "window": WINDOW, "timeout_ms": 4000, "max_concurrent_calls": HANGING});
    make_pipeline(&engine, "hanging", &options);
    for round in 0..if quick { 1 } else { 6 } {
        plain(&direct, texts, &mut alone, quick)?;
        std::thread::scope(|scope| {
            let searches: Vec<_> = (0..HANGING)
                .map(|number| {
                    let (query, set) = (&texts.searches[0].query, number % texts.searches.len());
                    let client = Client::new(&engine.address().to_string());
                    scope.spawn(move || {
                        let found = client.call(&search("hanging", set, query, 10));
                        found.map(drop).map_err(|error| error.to_string())
                    })
                })
                .collect();
            rerankd_tests::eventually("all of them hang", || {
                (hanging.asked().len() == (round + 1) * HANGING).then_some(())
            });
            plain(&direct, texts, &mut beside, quick)?;
            for search in searches {
                search.join().map_err(|_| "a client panicked")??;
            }
            Ok::<(), Box<dyn std::error::Error>>(())
        })?;
    }
    Ok(Findings {
        reranked: reranked.into(),
        alone,
        beside,
        quick,
    })
}

/// Searches before the first that counts: the engine compiles its code while it runs, and that of a node in
/// service is compiled.
fn warm_up_rounds(quick: bool) -> usize {
    if quick { 2 } else { 3000 }
}

/// Searches without a pipeline for about two seconds at most.
fn plain(direct: &Client, texts: &Texts, samples: &mut Samples, quick: bool) -> Result<()> {
    let started = Instant::now();
    for round in 0..if quick { 20 } else { 300 } {
        let set = round % texts.searches.len();
        let call = search("_none", set, &texts.searches[set].query, 10);
        let (took, _, _) = direct.call(&call)?;
        samples.push_time(took);
        // The others wait no longer than their time limit.
        if started.elapsed() > Duration::from_secs(2) {
            break;
        }
    }
    Ok(())
}

fn make_pipeline(engine: &Engine, name: &str, options: &Value) {
    let body = json!({"request_processors": [{"rerankd_window": options}],
        "response_processors": [{"rerankd": {}}]});
    let json = [("Content-Type", "application/json")];
    let path = format!("/_search/pipeline/{name}");
    let body = body.to_string();
    rerankd_tests::engine::call(engine.address(), "PUT", &path, &json, body.as_bytes()).ok();
}

/// An index of texts of [`TEXT_BYTES`]; `set` says which search's they are.
fn fill(engine: &Engine, texts: &Texts) {
    let mut lines = String::new();
    for (set, search) in texts.searches.iter().enumerate() {
        let titles = search.documents.iter().map(|document| &*document.text);
        let titles: Vec<&str> = titles.collect();
        for number in 0..WINDOW {
            let mut text = String::new();
            for title in titles.iter().cycle().skip(number) {
                text.push_str(title);
                text.push(' ');
                if text.len() >= TEXT_BYTES {
                    break;
                }
            }
            text.truncate(text.floor_char_boundary(TEXT_BYTES));
            let id = json!({"index": {"_index": "bench", "_id": format!("{set}-{number}")}});
            let document = json!({"set": set, "text": text});
            // A `String` takes whatever is written to it.
            let _ = writeln!(lines, "{id}\n{document}");
        }
    }
    let one = json!({"settings": {"number_of_shards": 1, "number_of_replicas": 0},
        "mappings": {"properties": {"set": {"type": "integer"}, "text": {"type": "text"}}}});
    engine.load(&json!({"bench": one}), lines.as_bytes());
}

/// A search over the hundred documents of one set.
fn search(pipeline: &str, set: usize, query: &str, size: usize) -> Call {
    let query = json!({"bool": {
        "filter": [{"term": {"set": set}}], "should": [{"match": {"text": query}}]}});
    Call {
        name: "a search",
        path: format!("/bench/_search?search_pipeline={pipeline}"),
        body: Some(json!({"query": query, "size": size})),
    }
}

impl Reranked {
    /// One search, asked of the engine, of the native form, and of the engine with the plugin.
    fn measure(
        &mut self,
        direct: &Client,
        data: &Client,
        policy: &str,
        set: usize,
        query: &str,
    ) -> Result<()> {
        let (engine, page, _) = direct.call(&search("_none", set, query, WINDOW))?;
        let page: Value = serde_json::from_slice(&page)?;
        let hits = page["hits"]["hits"].as_array().ok_or("no hits")?;
        if hits.len() != WINDOW {
            return Err(format!("not {WINDOW} hits for `{query}`").into());
        }
        let documents: Vec<Value> = hits
            .iter()
            .map(|hit| {
                json!({"id": hit["_id"], "score": hit["_score"],
                    "fields": {"text": hit["_source"]["text"]}})
            })
            .collect();
        let call = Call {
            name: "native",
            path: format!("/v1/rerank/{policy}"),
            body: Some(json!({"query": query, "documents": documents})),
        };
        let (rerank, _, status) = data.call(&call)?;
        applied(&status)?;
        let (through, _, status) = direct.call(&search(policy, set, query, 10))?;
        applied(&status)?;
        self.engine.push_time(engine);
        self.rerank.push_time(rerank);
        self.plugin.push_time(through);
        self.added
            .push(milliseconds(through) - milliseconds(engine) - milliseconds(rerank));
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
        let added = self.reranked.iter();
        let added = added.map(|(_, samples)| samples.added.median());
        let added = added.fold(f64::NEG_INFINITY, f64::max);
        let slower = self.beside.quantile(0.99) / self.alone.quantile(0.99);
        writeln!(
            page,
            "| goal | limit | measured | |\n|---|---|---|---|\n\
             | a reranked search, against engine and reranking one after the other, the worse of both: median | + 1 ms | {added:+.2} ms | {} |\n\
             | searches without reranking while {HANGING} others wait for a sidecar that hangs: 99 % | 2 times | {slower:.2} times | {} |\n",
            met(added <= 1.0),
            met(slower <= 2.0),
        )?;
        let facts = ["date", "CPU", "cores", "load average before"];
        for (name, value) in machine {
            if facts.contains(name) || name.starts_with("cores taken") {
                write!(page, "{name}: {value}. ")?;
            }
        }
        writeln!(
            page,
            "\n\nA search with {WINDOW} hits, each with a text of {TEXT_BYTES} bytes, and another query each time, medians, ms: the \
             engine alone, size {WINDOW}; rerankd's native form with these hits; the same search with the plugin, size 10; \
             and the median of what neighbours differ by.\n\n\
             | policy | searches | engine | `/v1/rerank/POLICY` | plugin | added |\n|---|---|---|---|---|---|",
        )?;
        for (policy, samples) in &self.reranked {
            writeln!(
                page,
                "| {policy} | {} | {:.2} | {:.2} | {:.2} | {:+.2} |",
                samples.added.len(),
                samples.engine.median(),
                samples.rerank.median(),
                samples.plugin.median(),
                samples.added.median(),
            )?;
        }
        writeln!(
            page,
            "\n| searches without reranking | searches | median ms | 99 % |\n|---|---|---|---|"
        )?;
        let waiting = format!("while {HANGING} others wait");
        for (name, samples) in [("alone", &self.alone), (&waiting, &self.beside)] {
            writeln!(
                page,
                "| {name} | {} | {:.2} | {:.2} |",
                samples.len(),
                samples.median(),
                samples.quantile(0.99),
            )?;
        }
        Ok(page.trim_end().to_owned())
    }
}
