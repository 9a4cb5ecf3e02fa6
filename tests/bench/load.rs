//! rerankd under load: throughput against what is offered, small requests beside a large one, and other
//! processes on all cores.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Result;
use crate::machine::Facts;
use crate::measure::Samples;
use crate::report::QUICK;
use crate::server::Server;
use crate::texts::Texts;

/// What the page's markers say.
pub(crate) const MARKER: &str = "`make bench-load`";

/// What is asked for.
const POLICY: &str = "semantic-blend";

/// Documents of a small request, of a usual one, and of a large one.
const SMALL: usize = 10;
const USUAL: usize = 100;
const LARGE: usize = 1000;

/// What a small request has to be done in.
const TIMEOUT: Duration = Duration::from_millis(500);

/// What is offered, as a part of the capacity.
const OFFERED: [f64; 7] = [0.25, 0.5, 0.75, 0.9, 1.0, 1.5, 2.0];

/// Up to here it is below saturation.
const BELOW: f64 = 0.75;

/// Clients that wait for their turn to send; more than there are places for requests.
const CLIENTS: usize = 128;

/// Everything that was measured.
pub(crate) struct Findings {
    capacity: f64,
    /// Requests that come at random.
    steps: Vec<Step>,
    /// Requests that come at even distances, below saturation.
    even: Vec<Step>,
    alone: Samples,
    beside: Samples,
    quiet: Samples,
    crowded: Samples,
    quick: bool,
}

/// What came of one rate of requests.
#[derive(Default)]
struct Step {
    offered: f64,
    rate: f64,
    seconds: f64,
    /// Times of requests that were ranked as a whole and in time, ms.
    good: Samples,
    /// Times of refusals with 429, ms.
    refused: Samples,
    /// Requests that were ranked in part, late, or not at all.
    late: usize,
}

/// When requests come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Arrivals {
    /// As those of many users do: a Poisson process, the same in each run.
    Random,
    /// At even distances.
    Even,
}

/// What a request came to.
enum Fate {
    Good,
    Refused,
    Late,
}

/// Measures all of it.
pub(crate) fn measure(root: &Path, texts: &Texts, quick: bool) -> Result<Findings> {
    let server = Server::start(root, &[])?;
    let bodies = Bodies::new(texts);
    let seconds = |full: u64| Duration::from_secs(if quick { 2 } else { full });

    eprintln!("  what it can do:");
    let capacity = capacity(&server, &bodies, seconds(10))?;
    let step = |offered: f64, arrivals| -> Result<Step> {
        let rate = offered * capacity;
        let due = due_times(arrivals, rate, seconds(15));
        let step = offer(&server, &bodies, offered, &due, seconds(15))?;
        eprintln!(
            "    {offered:.2} of it offered: {:.0} a second good, {} refused, {} late",
            step.goodput(),
            step.refused.len(),
            step.late
        );
        Ok(step)
    };
    let steps = OFFERED.map(|offered| step(offered, Arrivals::Random));
    let steps = steps.into_iter().collect::<Result<Vec<_>>>()?;
    let below = OFFERED.into_iter().filter(|offered| *offered <= BELOW);
    eprintln!("  the same at even distances:");
    let even = below.map(|offered| step(offered, Arrivals::Even));
    let even = even.collect::<Result<Vec<_>>>()?;

    eprintln!("  small requests beside a large one:");
    let (alone, beside) = fairness(&server, &bodies, seconds(15))?;

    eprintln!("  other processes on all cores:");
    let (mut quiet, mut crowded) = (Samples::default(), Samples::default());
    for _ in 0..if quick { 1 } else { 5 } {
        quiet.extend(usual(&server, &bodies, seconds(4))?);
        let _others = Others::start()?;
        crowded.extend(usual(&server, &bodies, seconds(4))?);
    }
    Ok(Findings {
        capacity,
        steps,
        even,
        alone,
        beside,
        quiet,
        crowded,
        quick,
    })
}

/// Requests that nobody has made before.
pub(crate) struct Bodies<'t> {
    texts: &'t Texts,
    next: AtomicUsize,
}

impl<'t> Bodies<'t> {
    pub(crate) fn new(texts: &'t Texts) -> Self {
        Self {
            texts,
            next: AtomicUsize::new(0),
        }
    }

    /// The next one: other texts than all before it, of the usual lengths.
    pub(crate) fn next(&self, documents: usize, timeout: Duration) -> String {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let search = &self.texts.searches[number % self.texts.searches.len()];
        let documents: Vec<Value> = (0..documents)
            .map(|position| {
                let document = &search.documents[(number + position) % search.documents.len()];
                let text = format!("{} {number}", document.text);
                json!({"score": document.score, "fields": {"title": text}})
            })
            .collect();
        json!({
            "query": search.query,
            "documents": documents,
            "timeout_ms": timeout.as_millis() as u64,
            "on_failure": "error",
        })
        .to_string()
    }
}

/// One connection.
pub(crate) struct Client {
    agent: ureq::Agent,
    url: String,
}

impl Client {
    pub(crate) fn new(server: &Server) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false);
        Self {
            agent: config.build().into(),
            url: format!("http://{}/v1/rerank/{POLICY}", server.address()),
        }
    }

    /// Sends a request; status and body.
    pub(crate) fn send(&self, body: &str) -> Result<(u16, Vec<u8>)> {
        let request = self.agent.post(&self.url).content_type("application/json");
        let mut answer = request.send(body)?;
        let status = answer.status().as_u16();
        Ok((status, answer.body_mut().read_to_vec()?))
    }

    fn fate(&self, body: &str) -> Result<Fate> {
        let (status, answer) = self.send(body)?;
        match status {
            200 => {
                let answer: Value = serde_json::from_slice(&answer)?;
                let good = answer["status"] == "applied";
                Ok(if good { Fate::Good } else { Fate::Late })
            }
            429 => Ok(Fate::Refused),
            424 => Ok(Fate::Late),
            _ => Err(format!("{status}: {}", String::from_utf8_lossy(&answer)).into()),
        }
    }
}

/// Small requests a second of a few clients that each wait for their answer.
fn capacity(server: &Server, bodies: &Bodies<'_>, time: Duration) -> Result<f64> {
    let done = AtomicUsize::new(0);
    let started = Instant::now();
    std::thread::scope(|scope| {
        let clients = (0..4).map(|_| {
            scope.spawn(|| {
                let client = Client::new(server);
                while started.elapsed() < time {
                    let body = bodies.next(SMALL, Duration::from_secs(30));
                    match client.fate(&body).map_err(|error| error.to_string())? {
                        Fate::Good => done.fetch_add(1, Ordering::Relaxed),
                        _ => return Err("a request was not ranked".to_owned()),
                    };
                }
                Ok(())
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.join().map_err(|_| "a client panicked")??;
        }
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    Ok(done.into_inner() as f64 / started.elapsed().as_secs_f64())
}

/// Small requests when they are due, whether or not there are answers. Their time is from when they were due.
fn offer(
    server: &Server,
    bodies: &Bodies<'_>,
    offered: f64,
    due: &[Duration],
    time: Duration,
) -> Result<Step> {
    let next = AtomicUsize::new(0);
    let step = Mutex::new(Step {
        offered,
        rate: due.len() as f64 / time.as_secs_f64(),
        seconds: time.as_secs_f64(),
        ..Step::default()
    });
    let started = Instant::now() + Duration::from_millis(200);
    std::thread::scope(|scope| {
        let clients = (0..CLIENTS).map(|_| {
            scope.spawn(|| {
                let client = Client::new(server);
                loop {
                    let Some(due) = due.get(next.fetch_add(1, Ordering::Relaxed)) else {
                        return Ok::<(), String>(());
                    };
                    let body = bodies.next(SMALL, TIMEOUT);
                    let due = started + *due;
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let fate = client.fate(&body).map_err(|error| error.to_string())?;
                    let took = due.elapsed();
                    let mut step = step.lock().map_err(|error| error.to_string())?;
                    match fate {
                        Fate::Good if took <= TIMEOUT => step.good.push_time(took),
                        Fate::Refused => step.refused.push_time(took),
                        Fate::Good | Fate::Late => step.late += 1,
                    }
                }
            })
        });
        for client in clients.collect::<Vec<_>>() {
            client.join().map_err(|_| "a client panicked")??;
        }
        Ok::<(), Box<dyn std::error::Error>>(())
    })?;
    Ok(step.into_inner()?)
}

/// When requests are due, at `rate` a second.
fn due_times(arrivals: Arrivals, rate: f64, time: Duration) -> Vec<Duration> {
    if arrivals == Arrivals::Even {
        let count = (rate * time.as_secs_f64()) as usize;
        return (0..count)
            .map(|number| Duration::from_secs_f64(number as f64 / rate))
            .collect();
    }
    // Knuth's MMIX generator: it only has to look random.
    let mut state: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut uniform = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    };
    let mut at = 0.0;
    let mut due = Vec::new();
    loop {
        at -= uniform().ln() / rate;
        if at >= time.as_secs_f64() {
            return due;
        }
        due.push(Duration::from_secs_f64(at));
    }
}

/// Small requests, one each 100 ms: alone, and while a client sends large ones without a pause.
fn fairness(server: &Server, bodies: &Bodies<'_>, time: Duration) -> Result<(Samples, Samples)> {
    let small = || -> Result<Samples> {
        let client = Client::new(server);
        let mut times = Samples::default();
        let started = Instant::now();
        while started.elapsed() < time {
            let body = bodies.next(SMALL, Duration::from_secs(30));
            let sent = Instant::now();
            match client.fate(&body)? {
                Fate::Good => times.push_time(sent.elapsed()),
                _ => return Err("a small request was not ranked".into()),
            }
            std::thread::sleep(Duration::from_millis(100).saturating_sub(sent.elapsed()));
        }
        Ok(times)
    };
    let alone = small()?;
    let over = AtomicBool::new(false);
    let beside = std::thread::scope(|scope| {
        let large = scope.spawn(|| {
            let client = Client::new(server);
            while !over.load(Ordering::Relaxed) {
                let body = bodies.next(LARGE, Duration::from_secs(60));
                match client.fate(&body).map_err(|error| error.to_string())? {
                    Fate::Good => {}
                    _ => return Err("a large request was not ranked".to_owned()),
                }
            }
            Ok(())
        });
        std::thread::sleep(Duration::from_millis(300));
        let beside = small();
        over.store(true, Ordering::Relaxed);
        large.join().map_err(|_| "a client panicked")??;
        beside
    })?;
    Ok((alone, beside))
}

/// Usual requests, one after the other.
fn usual(server: &Server, bodies: &Bodies<'_>, time: Duration) -> Result<Samples> {
    let client = Client::new(server);
    let mut times = Samples::default();
    let started = Instant::now();
    while started.elapsed() < time {
        let body = bodies.next(USUAL, Duration::from_secs(60));
        let sent = Instant::now();
        match client.fate(&body)? {
            Fate::Good => times.push_time(sent.elapsed()),
            _ => return Err("a request was not ranked".into()),
        }
    }
    Ok(times)
}

/// A process for each core that does nothing but compute, until this is dropped.
struct Others(Vec<Child>);

impl Others {
    fn start() -> Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let mut others = Self(Vec::new());
        for _ in 0..cores {
            // It ends by itself should this process be killed.
            let child = Command::new("timeout")
                .args(["60", "sh", "-c", "while :; do :; done"])
                .spawn()?;
            others.0.push(child);
        }
        Ok(others)
    }
}

impl Drop for Others {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // `timeout` ends what it started when it is told to end.
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
    }
}

impl Step {
    /// Good answers a second.
    fn goodput(&self) -> f64 {
        self.good.len() as f64 / self.seconds
    }

    fn spread(&self) -> f64 {
        self.good.quantile(0.99) / self.good.median()
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
        let best = self.steps.iter().map(Step::goodput).fold(0.0, f64::max);
        let full = self.steps.iter().filter(|step| step.offered >= 1.0);
        let kept = full.map(Step::goodput).fold(f64::INFINITY, f64::min) / best;
        let refusals: Samples = self
            .steps
            .iter()
            .filter(|step| step.refused.len() > 0)
            .map(|step| step.refused.quantile(0.99))
            .collect();
        let refusal = refusals.quantile(1.0);
        let spread = |steps: &[Step]| {
            let below = steps.iter().filter(|step| step.offered <= BELOW);
            below.map(Step::spread).fold(0.0, f64::max)
        };
        let (random, even) = (spread(&self.steps), spread(&self.even));
        let fair = self.beside.quantile(0.99) / self.alone.quantile(0.99);
        let crowd = self.crowded.median() / self.quiet.median();
        writeln!(
            page,
            "| goal | limit | measured | |\n|---|---|---|---|\n\
             | good answers a second from full load on, against the best | 0.95 | {kept:.3} | {} |\n\
             | a refusal with 429, 99 %, the worst of all rates | 50 ms | {refusal:.1} ms | {} |\n\
             | 99 % against the median, up to {BELOW} of the capacity, requests at even distances, the worst | 3 | {even:.2} | {} |\n\
             | the same, requests at random | 3 | {random:.2} | {} |\n\
             | {SMALL} documents beside requests with {LARGE}: 99 % against that alone | 3 | {fair:.2} | {} |\n\
             | {USUAL} documents beside a busy process on each core: median against that on a quiet machine | 2.2 | {crowd:.2} | {} |\n",
            met(kept >= 0.95),
            met(refusal <= 50.0),
            met(even <= 3.0),
            met(random <= 3.0),
            met(fair <= 3.0),
            met(crowd <= 2.2),
        )?;
        let facts = ["date", "CPU", "cores", "load average before"];
        for (name, value) in machine {
            if facts.contains(name) {
                write!(page, "{name}: {value}. ")?;
            }
        }
        writeln!(
            page,
            "\n\nRequests with {SMALL} titles that nobody has asked for before, to be done in {} ms. The capacity is what 4 \
             clients get that wait for their answers: {:.0} a second. Requests come at random (a Poisson process), and then \
             at even distances, whether or not there are answers; times are from when they were due, ms. *Late*: ranked \
             in part, or not in time.\n\n\
             | requests | offered | a second | good a second | against the best | refused | late | median | 99 % | ratio | refusal, 99 % |\n\
             |---|---|---|---|---|---|---|---|---|---|---|",
            TIMEOUT.as_millis(),
            self.capacity,
        )?;
        let random = self.steps.iter().map(|step| ("at random", step));
        let even = self.even.iter().map(|step| ("even", step));
        for (arrivals, step) in random.chain(even) {
            let refusal = match step.refused.len() {
                0 => String::new(),
                _ => format!("{:.1}", step.refused.quantile(0.99)),
            };
            writeln!(
                page,
                "| {arrivals} | {:.2} | {:.0} | {:.0} | {:.3} | {} | {} | {:.1} | {:.1} | {:.2} | {refusal} |",
                step.offered,
                step.rate,
                step.goodput(),
                step.goodput() / best,
                step.refused.len(),
                step.late,
                step.good.median(),
                step.good.quantile(0.99),
                step.spread(),
            )?;
        }
        writeln!(
            page,
            "\n| | requests | median ms | 99 % |\n|---|---|---|---|\n\
             | {SMALL} documents each 100 ms, alone | {} | {:.1} | {:.1} |\n\
             | the same while a client sends requests with {LARGE} | {} | {:.1} | {:.1} |\n\
             | {USUAL} documents, one client, a quiet machine | {} | {:.1} | {:.1} |\n\
             | the same beside a busy process on each core | {} | {:.1} | {:.1} |",
            self.alone.len(),
            self.alone.median(),
            self.alone.quantile(0.99),
            self.beside.len(),
            self.beside.median(),
            self.beside.quantile(0.99),
            self.quiet.len(),
            self.quiet.median(),
            self.quiet.quantile(0.99),
            self.crowded.len(),
            self.crowded.median(),
            self.crowded.quantile(0.99),
        )?;
        Ok(page.trim_end().to_owned())
    }
}
