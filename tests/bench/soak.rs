//! Mixed traffic for a long time, and whether memory grows.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::Result;
use crate::load::{Bodies, Client};
use crate::machine::Facts;
use crate::report::QUICK;
use crate::server::Server;
use crate::texts::Texts;

/// What the page's markers say.
pub(crate) const MARKER: &str = "`make soak`";

/// How long, unless `SOAK_MINUTES` says otherwise.
const MINUTES: u64 = 30;

/// How often memory is looked at.
const PERIOD: Duration = Duration::from_secs(5);

/// Memory may grow by so much from the second third to the end, as a part of it: what allocators and
/// the sizes of requests make of it.
const NOISE: f64 = 0.03;

/// What was seen.
pub(crate) struct Findings {
    minutes: f64,
    /// By status, ascending.
    answers: Vec<(u16, u64)>,
    /// Seconds since the start, and resident memory, MiB.
    memory: Vec<(f64, f64)>,
    quick: bool,
}

/// Keeps a server busy, and watches it.
pub(crate) fn measure(root: &Path, texts: &Texts, quick: bool) -> Result<Findings> {
    let minutes = std::env::var("SOAK_MINUTES").ok();
    let minutes = minutes.map(|minutes| minutes.parse::<u64>()).transpose()?;
    let time = Duration::from_secs(60 * minutes.unwrap_or(if quick { 1 } else { MINUTES }));
    let server = Server::start_with_caches(root, &[])?;
    let bodies = Bodies::new(texts);
    let counts: [AtomicU64; 1000] = std::array::from_fn(|_| AtomicU64::new(0));
    let mut memory = Vec::new();
    let started = Instant::now();
    let running = || started.elapsed() < time;
    std::thread::scope(|scope| {
        let clients = (0..6).map(|client| {
            let (server, bodies, counts) = (&server, &bodies, &counts);
            scope.spawn(move || -> Result<(), String> {
                let connection = Client::new(server);
                let mut round = client;
                while running() {
                    let body = request(bodies, round);
                    let (status, _) = connection.send(&body).map_err(|error| error.to_string())?;
                    if let Some(count) = counts.get(usize::from(status)) {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    round += 1;
                }
                Ok(())
            })
        });
        let clients: Vec<_> = clients.collect();
        while running() {
            std::thread::sleep(PERIOD.min(time / 10));
            memory.push((started.elapsed().as_secs_f64(), server.memory()?.resident));
        }
        for client in clients {
            client.join().map_err(|_| "a client panicked")??;
        }
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    let answers = (0_u16..).zip(counts.map(AtomicU64::into_inner));
    Ok(Findings {
        minutes: time.as_secs_f64() / 60.0,
        answers: answers.filter(|(_, count)| *count > 0).collect(),
        memory,
        quick,
    })
}

/// All kinds of requests in turns: small, usual and large ones, such that are late, and such that are
/// wrong.
fn request(bodies: &Bodies<'_>, round: usize) -> String {
    let plenty = Duration::from_secs(30);
    match round % 16 {
        0 => bodies.next(1000, plenty),
        1 => bodies.next(200, Duration::from_millis(20)),
        2 => "{\"query\": \"no documents\"}".to_owned(),
        3 => bodies.next(1, plenty),
        4..=7 => bodies.next(100, plenty),
        _ => bodies.next(10, plenty),
    }
}

impl Findings {
    /// Resident memory in the middle third and in the last, MiB: medians.
    fn thirds(&self) -> (f64, f64) {
        let third = |number: usize| {
            let size = self.memory.len() / 3;
            let values = self.memory.iter().skip(number * size).take(size);
            let values: crate::measure::Samples = values.map(|(_, resident)| *resident).collect();
            values.median()
        };
        (third(1), third(2))
    }

    /// Median resident memory of each sixth of the time, MiB: whether it still climbs or has settled.
    fn sixths(&self) -> Vec<String> {
        let size = self.memory.len().div_ceil(6).max(1);
        let parts = self.memory.chunks(size).map(|part| {
            let values: crate::measure::Samples =
                part.iter().map(|(_, resident)| *resident).collect();
            format!("{:.0}", values.median())
        });
        parts.collect()
    }

    /// All tables.
    ///
    /// # Errors
    /// Memory grew: a bench that sees a leak must not pass for a good one.
    pub(crate) fn render(&self, machine: &Facts) -> Result<String> {
        let mut page = String::new();
        if self.quick {
            page.push_str(QUICK);
        }
        let (middle, last) = self.thirds();
        let growth = last / middle - 1.0;
        let slope = (last - middle) / (self.minutes / 3.0) * 60.0;
        let date = machine.iter().find(|(name, _)| *name == "date");
        let date = date.map_or("", |(_, date)| date.as_str());
        let answers: Vec<String> = self
            .answers
            .iter()
            .map(|(status, count)| format!("{count} with {status}"))
            .collect();
        write!(
            page,
            "{date}, {:.0} minutes, 6 clients that never wait, requests with 1 to 1000 documents, late ones and wrong ones: \
             {} answers.\n\n\
             | resident memory, MiB | |\n|---|---|\n| after the first look | {:.0} |\n\
             | each sixth of the time, median | {} |\n\
             | middle third, median | {middle:.0} |\n| last third, median | {last:.0} |\n| growth | {:+.1} % |\n\
             | as a slope | {slope:+.1} MiB an hour |",
            self.minutes,
            answers.join(", "),
            self.memory.first().map_or(f64::NAN, |(_, first)| *first),
            self.sixths().join(", "),
            100.0 * growth,
        )?;
        if growth > NOISE {
            return Err(format!("memory grew by {:.1} %:\n{page}", 100.0 * growth).into());
        }
        Ok(page)
    }
}
