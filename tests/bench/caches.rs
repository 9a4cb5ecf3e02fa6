//! What is known already: searches over HTTP on loopback whose documents, or all of it, were seen before.

use std::fmt::Write as _;
use std::path::Path;

use crate::Result;
use crate::machine::Facts;
use crate::measure::Samples;
use crate::report::QUICK;
use crate::server::{Client, Server};
use crate::texts::{Search, Texts};

/// What the page's markers say.
pub(crate) const MARKER: &str = "`make bench-caches`";

/// Its model is a bi-encoder: rows of documents do not depend on the query.
const POLICY: &str = "semantic-blend";

/// Documents of a search.
const DOCUMENTS: usize = 100;

/// Everything that was measured.
pub(crate) struct Findings {
    lines: Vec<Line>,
    quick: bool,
}

/// One set of texts; milliseconds, as the client sees them.
struct Line {
    texts: &'static str,
    /// The same search, its documents and its query known.
    repeated: Samples,
    /// The same documents, a query that was never asked.
    unseen: Samples,
    /// No cache.
    without: Samples,
    /// Documents a second of a first pass over them, one search at a time.
    first_pass: f64,
}

/// Measures all of it.
pub(crate) fn measure(root: &Path, texts: &[Texts], quick: bool) -> Result<Findings> {
    let rounds = if quick { 50 } else { 1000 };
    let mut lines = Vec::new();
    for texts in texts {
        let cached = Server::start_with_caches(root, &[])?;
        // Beside the other, on a data folder of its own.
        let folder = root.join("target/tmp/rerankd-bench");
        let (data, log) = (
            folder.join("data-without-caches"),
            folder.join("without-caches.log"),
        );
        let plain = Server::start_on(root, &data, &log, &[])?;
        let (known, new) = (cached.client(POLICY), plain.client(POLICY));
        let line = line(&known, &new, texts, rounds)?;
        eprintln!(
            "  {}: repeated {:.2} ms, unseen query {:.2} ms, without caches {:.1} ms",
            line.texts,
            line.repeated.median(),
            line.unseen.median(),
            line.without.median()
        );
        lines.push(line);
    }
    Ok(Findings { lines, quick })
}

fn line(cached: &Client, plain: &Client, texts: &Texts, rounds: usize) -> Result<Line> {
    let searches = &texts.searches;
    let mut line = Line {
        texts: texts.name,
        repeated: Samples::default(),
        unseen: Samples::default(),
        without: Samples::default(),
        first_pass: 0.0,
    };
    let mut seconds = 0.0;
    for search in searches {
        seconds += cached.rerank(&search.body(DOCUMENTS))?.0.as_secs_f64();
        plain.rerank(&search.body(DOCUMENTS))?;
    }
    line.first_pass = (searches.len() * DOCUMENTS) as f64 / seconds;
    // In turns, so that a moment of trouble meets all.
    for round in 0..rounds {
        let search = &searches[round % searches.len()];
        let body = search.body(DOCUMENTS);
        line.repeated.push_time(cached.post(&body)?.0);
        let unseen = Search {
            query: format!("{} {round}", search.query),
            documents: search.documents.clone(),
        };
        line.unseen
            .push_time(cached.post(&unseen.body(DOCUMENTS))?.0);
        if round.is_multiple_of(25) {
            line.without.push_time(plain.post(&body)?.0);
        }
    }
    Ok(line)
}

impl Findings {
    /// The tables.
    pub(crate) fn render(&self, machine: &Facts) -> Result<String> {
        let mut page = String::new();
        if self.quick {
            page.push_str(QUICK);
        }
        let worst = |of: fn(&Line) -> &Samples| {
            let medians = self.lines.iter().map(|line| of(line).median());
            medians.fold(f64::NEG_INFINITY, f64::max)
        };
        let met = |met: bool| if met { "met" } else { "**missed**" };
        let (repeated, unseen) = (worst(|line| &line.repeated), worst(|line| &line.unseen));
        writeln!(
            page,
            "| goal | limit | measured | |\n|---|---|---|---|\n\
             | the same search again, {DOCUMENTS} documents: median, the worst of all texts | 1 ms | {repeated:.2} ms | {} |\n\
             | a query that was never asked over {DOCUMENTS} known documents: median, the worst | 5 ms | {unseen:.2} ms | {} |\n",
            met(repeated <= 1.0),
            met(unseen <= 5.0),
        )?;
        let facts = ["date", "CPU", "cores", "load average before"];
        for (name, value) in machine {
            if facts.contains(name) || name.starts_with("cores taken") {
                write!(page, "{name}: {value}. ")?;
            }
        }
        page.push_str(
            "\n\n| texts | searches | again, median ms | 99 % | unseen query, median ms | 99 % | without caches, median ms | documents a second of a first pass |\n|---|---|---|---|---|---|---|---|\n",
        );
        for line in &self.lines {
            writeln!(
                page,
                "| {} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.1} | {:.0} |",
                line.texts,
                line.repeated.len(),
                line.repeated.median(),
                line.repeated.quantile(0.99),
                line.unseen.median(),
                line.unseen.quantile(0.99),
                line.without.median(),
                line.first_pass,
            )?;
        }
        Ok(page.trim_end().to_owned())
    }
}
