//! The findings about releases as tables.

use std::fmt::Write as _;

use super::load::{CLIENTS, Outcome};
use super::{DOCUMENTS, Findings, SWAP_GAP, WARM_UP, WEIGHTS};
use crate::Result;
use crate::machine::Facts;
use crate::report::QUICK;

impl Findings {
    /// All tables.
    pub(crate) fn render(&self, machine: &Facts) -> Result<String> {
        let mut page = String::new();
        if self.quick {
            page.push_str(QUICK);
        }
        self.goals(&mut page)?;
        let facts = ["date", "CPU", "cores", "load average before"];
        for (name, value) in machine {
            if facts.contains(name) || name.starts_with("cores taken") {
                write!(page, "{name}: {value}. ")?;
            }
        }
        page.push_str("\n\n");
        self.latencies(&mut page)?;
        self.memory(&mut page)?;
        self.steps(&mut page)?;
        Ok(page.trim_end().to_owned())
    }

    fn goals(&self, page: &mut String) -> Result<()> {
        let lost = self.swaps.lost() + self.compile.lost() + self.memory.load.lost;
        let mixed = self.swaps.mixed() + self.compile.mixed() + self.memory.load.mixed;
        let (swaps, compile) = (self.swaps.ratio(), self.compile.ratio());
        let memory = self.memory_ratio();
        let met = |met: bool| if met { "met" } else { "**missed**" };
        writeln!(
            page,
            "| goal | limit | measured | |\n|---|---|---|---|\n\
             | requests lost, and answers that mix two versions | 0, 0 | {lost}, {mixed} | {} |\n\
             | 99th percentile with a swap every {} ms, against none | 1.2 | {swaps:.3} | {} |\n\
             | resident memory after {} swaps, against after {WARM_UP} | 1.05 | {memory:.3} | {} |\n\
             | 99th percentile while a component of {:.0} MiB compiles, against none | 1.3 | {compile:.3} | {} |\n",
            met(lost + mixed == 0),
            SWAP_GAP.as_millis(),
            met(swaps <= 1.2),
            self.memory.readings.last().map_or(0, |(swaps, _)| *swaps),
            met(memory <= 1.05),
            mebibytes(self.component_bytes),
            met(compile <= 1.3),
        )?;
        Ok(())
    }

    fn latencies(&self, page: &mut String) -> Result<()> {
        let (telling, documents) = self.telling;
        writeln!(
            page,
            "The load: {CLIENTS} clients, each with its own connection and at random times, together {:.0} \
             requests a second, half of what one client gets that never waits; {DOCUMENTS} titles a request. \
             The time goes from when a request was due until its answer was read. The two versions are \
             `{}` with weight {} and {}: of {documents} documents {telling} tell them apart, and every answer \
             must have the scores of the version that it names.\n\n\
             | | requests | median | 95 % | 99 % | longest, ms | lost | mixed |\n\
             |---|---|---|---|---|---|---|---|",
            self.rate,
            super::POLICY,
            WEIGHTS[0],
            WEIGHTS[1],
        )?;
        let lines = [
            ("no swaps", &self.swaps.without),
            ("a swap every 200 ms", &self.swaps.with),
            ("nothing compiles", &self.compile.without),
            ("a large component compiles", &self.compile.with),
            ("swaps without a pause", &self.memory.load),
        ];
        for (what, outcome) in lines {
            line(page, what, outcome)?;
        }
        writeln!(
            page,
            "\nA swap takes {:.1} ms (median) of who asks for it, {:.1} ms (99 %). The large component has \
             {:.1} MiB: `{}`, with the same policy in Python and twice in JavaScript nested in it. From \
             upload to answer it took {:.0} s (median).\n",
            self.swap.median(),
            self.swap.quantile(0.99),
            mebibytes(self.component_bytes),
            super::POLICY,
            self.uploads.median(),
        )?;
        Ok(())
    }

    /// The last reading to the one after [`WARM_UP`].
    fn memory_ratio(&self) -> f64 {
        let readings = &self.memory.readings;
        let reading = |at: Option<&(usize, f64)>| at.map_or(f64::NAN, |(_, resident)| *resident);
        let first = readings.iter().find(|(swaps, _)| *swaps == WARM_UP);
        reading(readings.last()) / reading(first)
    }

    fn memory(&self, page: &mut String) -> Result<()> {
        writeln!(
            page,
            "Resident memory under the same load, with swaps one after the other ({:.0} a second):\n",
            self.memory.swaps_per_second
        )?;
        let (mut head, mut rule, mut values) = (
            "| swaps |".to_owned(),
            "|---|".to_owned(),
            "| MiB |".to_owned(),
        );
        for (swaps, resident) in &self.memory.readings {
            write!(head, " {swaps} |")?;
            rule.push_str("---|");
            write!(values, " {resident:.0} |")?;
        }
        writeln!(page, "{head}\n{rule}\n{values}\n")?;
        Ok(())
    }

    fn steps(&self, page: &mut String) -> Result<()> {
        writeln!(
            page,
            "The steps of a release of `{}` that is new and becomes active, without load, medians of {} \
             (\"stage\" makes component, code and record durable, \"activate\" the role):\n",
            super::POLICY,
            self.whole.len(),
        )?;
        let (mut head, mut rule, mut values) = ("|".to_owned(), "|".to_owned(), "|".to_owned());
        let whole = ("whole request", &self.whole);
        let steps = self.steps.iter().map(|(step, samples)| (*step, samples));
        for (step, samples) in steps.chain([whole]) {
            write!(head, " {step} |")?;
            rule.push_str("---|");
            write!(values, " {:.1} ms |", samples.median())?;
        }
        writeln!(page, "{head}\n{rule}\n{values}\n")?;
        Ok(())
    }
}

fn line(page: &mut String, what: &str, outcome: &Outcome) -> Result<()> {
    let latency = &outcome.latency;
    writeln!(
        page,
        "| {what} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {} | {} |",
        latency.len() + outcome.lost,
        latency.median(),
        latency.quantile(0.95),
        latency.quantile(0.99),
        latency.quantile(1.0),
        outcome.lost,
        outcome.mixed,
    )?;
    Ok(())
}

fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
