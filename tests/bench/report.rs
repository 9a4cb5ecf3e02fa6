//! The findings as tables, between the markers of `docs/benchmarks.md`.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;

use crate::Result;
use crate::end_to_end;
use crate::machine::Facts;
use crate::measure::Samples;
use crate::process::{Clients, REQUESTS, Workers};

const MARKER: &str = "`make bench`";

/// Everything that was measured.
pub(crate) struct Findings {
    pub(crate) machine: Facts,
    pub(crate) end_to_end: end_to_end::Results,
    pub(crate) starts: Samples,
    pub(crate) memory: Vec<Workers>,
    pub(crate) clients: Vec<Clients>,
    /// What `in_process.rs` printed.
    pub(crate) in_process: Value,
    /// Whether it was only tried out.
    pub(crate) quick: bool,
}

/// Writes the tables into `page`.
pub(crate) fn write(page: &Path, findings: &Findings) -> Result<()> {
    replace(page, MARKER, &findings.render()?)
}

/// Replaces what lies between the two markers of `page` that name `written_by`.
pub(crate) fn replace(page: &Path, written_by: &str, tables: &str) -> Result<()> {
    let begin = format!("<!-- written by {written_by}: begin -->");
    let end = format!("<!-- written by {written_by}: end -->");
    let text = std::fs::read_to_string(page)?;
    let (head, rest) = text.split_once(&begin).ok_or("the page lacks a marker")?;
    let (_, tail) = rest.split_once(&end).ok_or("the page lacks a marker")?;
    std::fs::write(page, format!("{head}{begin}\n{tables}\n{end}{tail}"))?;
    Ok(())
}

/// What stands above tables of a run that was too short.
pub(crate) const QUICK: &str =
    "**Tried out with `BENCH_QUICK=1`: these numbers mean nothing.**\n\n";

impl Findings {
    fn render(&self) -> Result<String> {
        let mut page = String::new();
        if self.quick {
            page.push_str(QUICK);
        }
        self.goals(&mut page)?;
        self.machine(&mut page)?;
        self.end_to_end(&mut page)?;
        self.overhead(&mut page)?;
        self.padding(&mut page)?;
        self.startup(&mut page)?;
        self.memory(&mut page)?;
        self.clients(&mut page)?;
        Ok(page.trim_end().to_owned())
    }

    fn goals(&self, page: &mut String) -> Result<()> {
        let worst = self
            .end_to_end
            .comparisons
            .iter()
            .map(|line| line.ratios.median())
            .fold(f64::NAN, f64::max);
        let overhead = self.in_process["invoke"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|line| line["documents"] == 100)
            .map_or(f64::NAN, |line| number(&line["invoke_us"]));
        let memory = self.memory_ratio();
        let met = |met: bool| if met { "met" } else { "**missed**" };
        writeln!(
            page,
            "## Goals\n\n\
             | goal | limit | measured | |\n|---|---|---|---|\n\
             | end to end against bare ONNX Runtime, the worst of all lines | 1.03 | {worst:.3} | {} |\n\
             | a policy call without inference, 100 documents | 200 µs | {overhead:.0} µs | {} |\n\
             | resident memory with 8 workers against 1 | 1.3 | {memory:.2} | {} |\n",
            met(worst <= 1.03),
            met(overhead <= 200.0),
            met(memory <= 1.3),
        )?;
        Ok(())
    }

    fn machine(&self, page: &mut String) -> Result<()> {
        writeln!(page, "## Machine\n\n| | |\n|---|---|")?;
        for (name, value) in &self.machine {
            writeln!(page, "| {name} | {value} |")?;
        }
        let runtime = self.end_to_end.greeting.split("; ").nth(2);
        let runtime = runtime.and_then(|text| text.split(',').next());
        writeln!(page, "| inference | {} |\n", runtime.unwrap_or("unknown"))?;
        Ok(())
    }

    fn end_to_end(&self, page: &mut String) -> Result<()> {
        page.push_str(
            "## End to end against bare ONNX Runtime\n\n\
             One request of 100 documents at a time over HTTP; medians, ms. The ratio is the median \
             of those of neighbours, with the middle half beside it. Pairs are left out and taken again \
             if others took more than a twentieth of the cores meanwhile.\n\n\
             | policy | precision | texts | bare | rerankd | ratio | middle half | pairs | left out |\n\
             |---|---|---|---|---|---|---|---|---|\n",
        );
        for line in &self.end_to_end.comparisons {
            writeln!(
                page,
                "| {} | {} | {} | {:.1} | {:.1} | **{:.3}** | {:.3} – {:.3} | {} | {} |",
                line.policy,
                line.precision,
                line.texts,
                line.bare.median(),
                line.rerankd.median(),
                line.ratios.median(),
                line.ratios.quantile(0.25),
                line.ratios.quantile(0.75),
                line.taken.kept,
                line.taken.disturbed,
            )?;
        }
        page.push_str(
            "\nWhere rerankd's time goes, and the same steps of the bare side; medians, ms. \"Rest\" is \
             everything else in the server (JSON, the guest, copies, waking threads), \"HTTP\" what \
             the client sees beside that.\n\n\
             | policy | precision | texts | tokenize: bare | rerankd | rows: bare | rerankd | rest | HTTP | rows a bare run |\n\
             |---|---|---|---|---|---|---|---|---|---|\n",
        );
        for line in &self.end_to_end.comparisons {
            let bare_tokenize = line.bare_tokenize.median();
            writeln!(
                page,
                "| {} | {} | {} | {:.2} | {:.2} | {:.1} | {:.1} | {:.2} | {:.2} | {} |",
                line.policy,
                line.precision,
                line.texts,
                bare_tokenize,
                line.tokenize.median(),
                line.bare.median() - bare_tokenize,
                line.inference.median(),
                line.rest.median(),
                line.http.median(),
                line.rows_a_run,
            )?;
        }
        page.push('\n');
        Ok(())
    }

    fn overhead(&self, page: &mut String) -> Result<()> {
        page.push_str(
            "## Host and sandbox without inference\n\n\
             The policy `first-stage` in process, medians, µs: the call (fresh store, instance, \
             guest, checks), with its 95th percentile, and JSON, which is apart from it.\n\n\
             | documents | call | 95 % | read JSON | write JSON | together |\n|---|---|---|---|---|---|\n",
        );
        for line in self.in_process["invoke"].as_array().into_iter().flatten() {
            writeln!(
                page,
                "| {} | {:.0} | {:.0} | {:.0} | {:.0} | {:.0} |",
                line["documents"],
                number(&line["invoke_us"]),
                number(&line["invoke_p95_us"]),
                number(&line["decode_us"]),
                number(&line["encode_us"]),
                number(&line["whole_us"]),
            )?;
        }
        writeln!(
            page,
            "\n`semantic-blend` on 100 titles, all that is neither tokenizing nor waiting for rows nor \
             running them: {:.0} µs, of which the guest {:.0} µs.\n",
            number(&self.in_process["blend_rest_us"]),
            number(&self.in_process["blend_guest_us"]),
        )?;
        page.push_str(
            "The same over HTTP on loopback, one connection, µs:\n\n\
             | documents | client | 95 % | of that in the server |\n|---|---|---|---|\n",
        );
        for line in &self.end_to_end.without_model {
            writeln!(
                page,
                "| {} | {:.0} | {:.0} | {:.0} |",
                line.documents,
                line.wall.median() * 1e3,
                line.wall.quantile(0.95) * 1e3,
                line.server.median() * 1e3,
            )?;
        }
        page.push('\n');
        Ok(())
    }

    fn padding(&self, page: &mut String) -> Result<()> {
        page.push_str(
            "## Naive padding against the scheduler\n\n\
             All rows padded to the longest, in one run of one session with two threads (ONNX \
             Runtime's defaults), against a request to rerankd; bi-encoder, medians, ms.\n\n\
             | precision | texts | padded | rerankd | times faster |\n|---|---|---|---|---|\n",
        );
        for line in &self.end_to_end.paddings {
            writeln!(
                page,
                "| {} | {} | {:.0} | {:.0} | {:.2} |",
                line.precision,
                line.texts,
                line.naive.median(),
                line.rerankd.median(),
                line.ratios.median(),
            )?;
        }
        page.push('\n');
        Ok(())
    }

    fn startup(&self, page: &mut String) -> Result<()> {
        page.push_str("## Compile, load, instantiate, start\n\n| step | median |\n|---|---|\n");
        for (name, time) in members(&self.in_process["compile_ms"]) {
            writeln!(
                page,
                "| check and compile `{name}` | {:.1} ms |",
                number(time)
            )?;
        }
        for (name, time) in members(&self.in_process["instantiate_us"]) {
            writeln!(
                page,
                "| store, instance and drop of `{name}` | {:.1} µs |",
                number(time)
            )?;
        }
        for (name, time) in members(&self.in_process["load_ms"]) {
            writeln!(page, "| load `{name}` | {:.0} ms |", number(time))?;
        }
        writeln!(
            page,
            "| process start to ready, default policies and models | {:.0} ms |\n",
            self.starts.median()
        )?;
        Ok(())
    }

    fn memory_ratio(&self) -> f64 {
        match &self.memory[..] {
            [one, .., many] => many.after.resident / one.after.resident,
            _ => f64::NAN,
        }
    }

    fn memory(&self, page: &mut String) -> Result<()> {
        writeln!(
            page,
            "## Memory\n\nThe process with its default models, MiB, when ready and after {REQUESTS} \
             requests of 100 titles and of 100 passages in turns.\n\n\
             | workers | resident when ready | after | of that anonymous | peak |\n|---|---|---|---|---|"
        )?;
        for line in &self.memory {
            writeln!(
                page,
                "| {} | {:.0} | {:.0} | {:.0} | {:.0} |",
                line.workers,
                line.ready.resident,
                line.after.resident,
                line.after.anonymous,
                line.after.peak,
            )?;
        }
        writeln!(
            page,
            "\n8 workers take {:.2} times what 1 takes.\n",
            self.memory_ratio()
        )?;
        Ok(())
    }

    fn clients(&self, page: &mut String) -> Result<()> {
        page.push_str(
            "## Several clients\n\n\
             `semantic-blend`, int8, titles; each client sends its next request when the last was \
             answered. For information: this depends on the machine more than on anything else.\n\n\
             | documents | clients | requests/s | documents/s | median ms | 95 % ms |\n|---|---|---|---|---|---|\n",
        );
        for line in &self.clients {
            writeln!(
                page,
                "| {} | {} | {:.1} | {:.0} | {:.0} | {:.0} |",
                line.documents,
                line.clients,
                line.requests_per_second,
                line.requests_per_second * line.documents as f64,
                line.latency.median(),
                line.latency.quantile(0.95),
            )?;
        }
        Ok(())
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}

fn members(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flatten()
}
