//! What hostile policies, clients and pushers cost: the server's memory and CPU time, and the latency of
//! a neighbour that asks for rankings meanwhile, on a connection of its own.

mod attack;
mod neighbour;

use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::Result;
use crate::machine::Facts;
use crate::report::QUICK;
use crate::server::{Memory, Server};
use crate::texts::Texts;

use attack::{Attack, Target};
use neighbour::{Neighbour, Seen};

/// What the page's markers say.
pub(crate) const MARKER: &str = "`make bench-hostile`";

/// Single hostile calls, of which the dearest is shown.
const CALLS: usize = 3;

/// How many do it at the same time where memory is read.
const CROWD: usize = 8;

/// A neighbour's p99 beside one that is hostile, as a multiple of its p99 alone.
const MOST_P99: f64 = 2.0;

/// Everything that was seen.
pub(crate) struct Findings {
    ready: Memory,
    quiet: Seen,
    lines: Vec<Line>,
    quick: bool,
}

/// What one kind of attack came to.
struct Line {
    attack: Attack,
    /// How often it was tried in all.
    tried: usize,
    /// CPU seconds of the server for one attempt alone, the dearest; `None` where an attempt is no call.
    cpu: Option<f64>,
    /// Most resident memory with [`CROWD`] at a time, MiB.
    peak: f64,
    /// The neighbour beside one.
    beside_one: Seen,
    /// The neighbour beside [`CROWD`].
    beside_many: Seen,
    /// What the attacker was told last.
    answer: String,
}

/// One server for each kind of attack, so that peaks do not mix.
pub(crate) fn measure(root: &Path, texts: &Texts, quick: bool) -> Result<Findings> {
    let seconds = Duration::from_secs(if quick { 2 } else { 5 });
    let start = || Server::start_as_it_comes(root, &Target::flags(root)?);
    let server = start()?;
    let target = Target::prepare(&server);
    let ready = server.memory()?;
    eprintln!("nobody hostile:");
    let nobody = AtomicBool::new(false);
    let quiet = Neighbour::new(&target, texts).ask_for(seconds, &nobody)?;
    drop(server);

    let mut lines = Vec::new();
    for attack in Attack::ALL {
        eprintln!("{}:", attack.name());
        let server = start()?;
        let target = Target::prepare(&server);
        let mut tried = 0;
        let mut answer = String::new();
        let mut cpu = None;
        if attack.is_a_call() {
            let mut dearest = 0.0_f64;
            for _ in 0..CALLS {
                let before = server.cpu()?;
                answer = attack.once(&target)?;
                dearest = dearest.max((server.cpu()? - before).as_secs_f64());
                tried += 1;
            }
            cpu = Some(dearest);
        }
        let (one, beside_one, said) = beside(attack, &target, texts, 1, seconds)?;
        let (many, beside_many, _) = beside(attack, &target, texts, CROWD, seconds)?;
        if answer.is_empty() {
            answer = said;
        }
        lines.push(Line {
            attack,
            tried: tried + one + many,
            cpu,
            peak: server.memory()?.peak,
            beside_one,
            beside_many,
            answer,
        });
    }
    Ok(Findings {
        ready,
        quiet,
        lines,
        quick,
    })
}

/// The neighbour's times beside some attackers, how often those tried, and what one was told last.
fn beside(
    attack: Attack,
    target: &Target,
    texts: &Texts,
    attackers: usize,
    time: Duration,
) -> Result<(usize, Seen, String)> {
    let stop = AtomicBool::new(false);
    let neighbour = Neighbour::new(target, texts);
    std::thread::scope(|scope| {
        let attacking: Vec<_> = (0..attackers)
            .map(|_| {
                scope.spawn(|| {
                    attack
                        .go_on(target, &stop)
                        .map_err(|error| error.to_string())
                })
            })
            .collect();
        let started = Instant::now();
        let seen = neighbour.ask_for(time, &stop);
        stop.store(true, Ordering::Release);
        let mut tried = 0;
        let mut said = String::new();
        for attacker in attacking {
            let (times, last) = attacker.join().map_err(|_| "an attacker panicked")??;
            tried += times;
            said = last;
        }
        eprintln!(
            "  {attackers} at a time: {tried} attempts in {:.1} s",
            started.elapsed().as_secs_f64()
        );
        Ok((tried, seen?, said))
    })
}

impl Findings {
    /// All tables.
    pub(crate) fn render(&self, machine: &Facts) -> Result<String> {
        let mut page = String::new();
        if self.quick {
            page.push_str(QUICK);
        }
        let date = machine.iter().find(|(name, _)| *name == "date");
        let date = date.map_or("", |(_, date)| date.as_str());
        let alone = self.quiet.latencies.quantile(0.99);
        let ratio = |seen: &Seen| seen.latencies.quantile(0.99) / alone;
        let worst = self.lines.iter().filter(|line| line.attack.is_a_policy());
        let worst = worst.map(|line| ratio(&line.beside_one));
        let worst = worst.fold(f64::NAN, f64::max);
        let honest = self.lines.iter().find(|line| line.attack == Attack::Honest);
        let honest = honest.map_or(f64::NAN, |line| ratio(&line.beside_one));
        let lost: usize = self
            .lines
            .iter()
            .map(|line| line.beside_one.lost + line.beside_many.lost)
            .sum();
        let met = |met: bool| if met { "met" } else { "**missed**" };
        write!(
            page,
            "{date}; the server as it comes, {:.0} MiB when ready. The neighbour ranks ten titles after the other: \
             alone {:.1} ms at the median, {alone:.1} ms at 99 %.\n\n\
             | goal | limit | measured | |\n|---|---|---|---|\n\
             | a neighbour's 99 % beside one hostile policy, against alone, the worst | {MOST_P99} | {worst:.2} | {} |\n\
             | the same, against beside one caller that ranks 100 new titles after the other | {MOST_P99} | {:.2} | {} |\n\
             | requests of a neighbour that were not answered within their deadline | 0 | {lost} | {} |\n\n\
             Memory is the most that was resident with {CROWD} at a time; CPU is what one attempt alone took.\n\n\
             | attack | tried | memory, MiB | CPU, s | neighbour's 99 %, ms, beside one (ratio) | beside {CROWD} | slowest | what the attacker is told |\n\
             |---|---|---|---|---|---|---|---|\n",
            self.ready.resident,
            self.quiet.latencies.median(),
            met(worst <= MOST_P99),
            worst / honest,
            met(worst / honest <= MOST_P99),
            met(lost == 0),
        )?;
        for line in &self.lines {
            let slowest = line.beside_one.latencies.quantile(1.0);
            let slowest = slowest.max(line.beside_many.latencies.quantile(1.0));
            writeln!(
                page,
                "| {} | {} | {:.0} | {} | {:.1} ({:.2}) | {:.1} | {slowest:.0} | {} |",
                line.attack.name(),
                line.tried,
                line.peak,
                line.cpu
                    .map_or_else(|| "–".to_owned(), |cpu| format!("{cpu:.2}")),
                line.beside_one.latencies.quantile(0.99),
                ratio(&line.beside_one),
                line.beside_many.latencies.quantile(0.99),
                line.answer,
            )?;
        }
        Ok(page.trim_end().to_owned())
    }
}
