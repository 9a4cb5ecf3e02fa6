//! One request after the other over HTTP, in turns with the same rows on bare ONNX Runtime.

use std::path::Path;
use std::time::{Duration, Instant};

use ort::environment::Environment;

use crate::Result;
use crate::bare::{Bare, Kind, Model, Naive};
use crate::machine::Processors;
use crate::measure::{Samples, milliseconds};
use crate::server::{Answer, Server};
use crate::texts::{Search, Texts};

/// The share of the cores that others may take in a turn that counts.
const DISTURBED: f64 = 0.05;

/// A model, and the policy that runs it.
struct Subject {
    policy: &'static str,
    precision: &'static str,
    model: Model,
}

const SUBJECTS: [Subject; 4] = [
    Subject {
        policy: "semantic-blend",
        precision: "int8",
        model: Model {
            name: "all-minilm-l6-v2",
            kind: Kind::BiEncoder,
            packed: false,
            max_tokens: 256,
        },
    },
    Subject {
        policy: "semantic-blend",
        precision: "fp32",
        model: Model {
            name: "all-minilm-l6-v2-fp32",
            kind: Kind::BiEncoder,
            packed: true,
            max_tokens: 256,
        },
    },
    Subject {
        policy: "cross-encoder",
        precision: "int8",
        model: Model {
            name: "bench-cross-encoder-int8",
            kind: Kind::CrossEncoder,
            packed: false,
            max_tokens: 512,
        },
    },
    Subject {
        policy: "cross-encoder",
        precision: "fp32",
        model: Model {
            name: "bench-cross-encoder-fp32",
            kind: Kind::CrossEncoder,
            packed: true,
            max_tokens: 512,
        },
    },
];

/// The operator's bindings for the models of one precision.
fn bindings(precision: &str) -> [&'static str; 4] {
    match precision {
        "int8" => [
            "--bind-model",
            "semantic-blend.bi-encoder=all-minilm-l6-v2",
            "--bind-model",
            "cross-encoder.cross-encoder=bench-cross-encoder-int8",
        ],
        _ => [
            "--bind-model",
            "semantic-blend.bi-encoder=all-minilm-l6-v2-fp32",
            "--bind-model",
            "cross-encoder.cross-encoder=bench-cross-encoder-fp32",
        ],
    }
}

/// One line of the table: rerankd against the best bare run.
pub(crate) struct Comparison {
    pub(crate) texts: &'static str,
    pub(crate) policy: &'static str,
    pub(crate) precision: &'static str,
    pub(crate) rows_a_run: usize,
    pub(crate) bare: Samples,
    pub(crate) bare_tokenize: Samples,
    pub(crate) rerankd: Samples,
    /// Of rerankd's time to that of bare just before or after it, for the same search.
    pub(crate) ratios: Samples,
    pub(crate) tokenize: Samples,
    pub(crate) inference: Samples,
    /// In the server, beside tokenizing and inference.
    pub(crate) rest: Samples,
    /// What the client sees beside the server's own time.
    pub(crate) http: Samples,
    pub(crate) taken: Taken,
}

/// One line of the table: naive padding against rerankd.
pub(crate) struct Padding {
    pub(crate) texts: &'static str,
    pub(crate) precision: &'static str,
    pub(crate) naive: Samples,
    pub(crate) rerankd: Samples,
    /// Of the naive time to rerankd's.
    pub(crate) ratios: Samples,
}

/// The server, and HTTP without any model.
pub(crate) struct WithoutModel {
    pub(crate) documents: usize,
    pub(crate) wall: Samples,
    pub(crate) server: Samples,
}

#[derive(Default)]
pub(crate) struct Results {
    pub(crate) comparisons: Vec<Comparison>,
    pub(crate) paddings: Vec<Padding>,
    pub(crate) without_model: Vec<WithoutModel>,
    pub(crate) greeting: String,
}

/// Measures everything; `budget` is the time for one line of the first table.
pub(crate) fn measure(
    root: &Path,
    environment: &Environment,
    texts: &[Texts],
    budget: Duration,
) -> Result<Results> {
    let mut results = Results::default();
    let models = root.join("models");
    for precision in ["int8", "fp32"] {
        let server = Server::start(root, &bindings(precision))?;
        results.greeting.clone_from(&server.greeting);
        for subject in SUBJECTS.iter().filter(|s| s.precision == precision) {
            let mut bare = Bare::open(environment, &models, subject.model)?;
            for texts in texts {
                let comparison = compare(subject, texts, &mut bare, &server, budget)?;
                eprintln!(
                    "  {} {} {}: {:.1} ms, bare {:.1} ms, ratio {:.3} ({:?})",
                    subject.policy,
                    precision,
                    texts.name,
                    comparison.rerankd.median(),
                    comparison.bare.median(),
                    comparison.ratios.median(),
                    comparison.taken
                );
                results.comparisons.push(comparison);
            }
        }
        let subject = SUBJECTS.iter().find(|s| s.precision == precision);
        let subject = subject.ok_or("no model of this precision")?;
        let mut naive = Naive::open(environment, &models, subject.model)?;
        for texts in texts {
            let padding = pad(subject, texts, &mut naive, &server, budget / 2)?;
            eprintln!(
                "  naive padding {precision} {}: {:.1} ms, {:.2} times",
                texts.name,
                padding.naive.median(),
                padding.ratios.median()
            );
            results.paddings.push(padding);
        }
        if precision == "int8" {
            results.without_model = without_model(&server, &texts[0])?;
        }
    }
    Ok(results)
}

fn compare(
    subject: &Subject,
    texts: &Texts,
    bare: &mut Bare,
    server: &Server,
    budget: Duration,
) -> Result<Comparison> {
    let client = server.client(subject.policy);
    let searches = &texts.searches;
    let bodies: Vec<Vec<u8>> = searches.iter().map(|s| s.body(s.documents.len())).collect();
    bare.warm_up(&searches[0])?;
    for (search, body) in searches.iter().zip(&bodies) {
        let (_, answer) = client.rerank(body)?;
        check(subject, search, &bare.score(search)?.scores, &answer)?;
    }
    let mut comparison = Comparison {
        texts: texts.name,
        policy: subject.policy,
        precision: subject.precision,
        rows_a_run: bare.rows_a_run(),
        bare: Samples::default(),
        bare_tokenize: Samples::default(),
        rerankd: Samples::default(),
        ratios: Samples::default(),
        tokenize: Samples::default(),
        inference: Samples::default(),
        rest: Samples::default(),
        http: Samples::default(),
        taken: Taken::default(),
    };
    let turn = |round: usize| {
        let which = round / 2 % searches.len();
        let mut run_bare = || -> Result<_> {
            let started = Instant::now();
            let scored = bare.score(&searches[which])?;
            Ok((milliseconds(started.elapsed()), scored.tokenize))
        };
        let before = if round.is_multiple_of(2) {
            Some(run_bare()?)
        } else {
            None
        };
        let (wall, answer) = client.rerank(&bodies[which])?;
        let bare = match before {
            Some(bare) => bare,
            None => run_bare()?,
        };
        Ok((bare, milliseconds(wall), answer))
    };
    let turns = Turns { server, budget };
    let taken = turns.take(turn, |((bare, bare_tokenize), wall, answer)| {
        let total = answer.timing("total");
        let (tokenize, queue) = (answer.timing("tokenize"), answer.timing("queue"));
        let inference = answer.timing("inference");
        comparison.bare.push(bare);
        comparison.bare_tokenize.push_time(bare_tokenize);
        comparison.rerankd.push(wall);
        comparison.ratios.push(wall / bare);
        comparison.tokenize.push(tokenize);
        comparison.inference.push(queue + inference);
        comparison.rest.push(total - tokenize - queue - inference);
        comparison.http.push(wall - total);
    })?;
    comparison.taken = taken;
    Ok(comparison)
}

fn pad(
    subject: &Subject,
    texts: &Texts,
    naive: &mut Naive,
    server: &Server,
    budget: Duration,
) -> Result<Padding> {
    let client = server.client(subject.policy);
    let searches = &texts.searches;
    let bodies: Vec<Vec<u8>> = searches.iter().map(|s| s.body(s.documents.len())).collect();
    for (search, body) in searches.iter().zip(&bodies) {
        naive.score(search)?;
        client.rerank(body)?;
    }
    let mut padding = Padding {
        texts: texts.name,
        precision: subject.precision,
        naive: Samples::default(),
        rerankd: Samples::default(),
        ratios: Samples::default(),
    };
    let turn = |round: usize| {
        let which = round % searches.len();
        let (wall, _) = client.rerank(&bodies[which])?;
        let started = Instant::now();
        naive.score(&searches[which])?;
        let took = milliseconds(started.elapsed());
        // Its threads go on spinning for a moment, on the cores of the other side.
        std::thread::sleep(Duration::from_millis(50));
        Ok((took, milliseconds(wall)))
    };
    Turns { server, budget }.take(turn, |(naive, wall)| {
        padding.naive.push(naive);
        padding.rerankd.push(wall);
        padding.ratios.push(naive / wall);
    })?;
    Ok(padding)
}

/// What a request costs that runs no model: the policy `first-stage`.
fn without_model(server: &Server, texts: &Texts) -> Result<Vec<WithoutModel>> {
    let client = server.client("first-stage");
    let search = &texts.searches[0];
    [1, 10, 100]
        .into_iter()
        .map(|documents| {
            let body = search.body(documents);
            let mut line = WithoutModel {
                documents,
                wall: Samples::default(),
                server: Samples::default(),
            };
            for round in 0..1200 {
                let (wall, answer) = client.rerank(&body)?;
                if round >= 200 {
                    line.wall.push_time(wall);
                    line.server.push(answer.timing("total"));
                }
            }
            Ok(line)
        })
        .collect()
}

/// Turns of both sides until enough were undisturbed.
struct Turns<'s> {
    server: &'s Server,
    budget: Duration,
}

/// How many turns, and how many were left out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Taken {
    pub(crate) kept: usize,
    pub(crate) disturbed: usize,
}

impl Turns<'_> {
    /// Calls `turn` with 0, 1, …, and `keep` with what it gave, unless others took more than
    /// [`DISTURBED`] of the cores meanwhile: then the same turn is taken again. Goes on for `budget`
    /// of undisturbed turns, but at least 8, and until both sides went first equally often with each
    /// search; gives up waiting for quiet after four times the budget.
    fn take<T>(
        &self,
        mut turn: impl FnMut(usize) -> Result<T>,
        mut keep: impl FnMut(T),
    ) -> Result<Taken> {
        let mut taken = Taken::default();
        let mut quiet = Duration::ZERO;
        let started = Instant::now();
        while taken.kept < 8 || taken.kept % 4 != 0 || quiet < self.budget {
            let patient = started.elapsed() < self.budget * 4;
            let before = Processors::read(&[self.server.process()])?;
            let turn_started = Instant::now();
            let result = turn(taken.kept)?;
            let took = turn_started.elapsed();
            let after = Processors::read(&[self.server.process()])?;
            if patient && after.taken_by_others_since(&before) > DISTURBED {
                taken.disturbed += 1;
                continue;
            }
            keep(result);
            taken.kept += 1;
            // Without patience, time passes faster.
            quiet += if patient { took } else { self.budget / 8 };
        }
        Ok(taken)
    }
}

/// Both sides must have run the same rows: their scores are the same.
fn check(subject: &Subject, search: &Search, bare: &[f64], answer: &Answer) -> Result<()> {
    let expected: Vec<f64> = match subject.model.kind {
        Kind::CrossEncoder => bare
            .iter()
            .map(|logit| 1.0 / (1.0 + (-logit).exp()))
            .collect(),
        Kind::BiEncoder => {
            let first_stage: Vec<f64> = search.documents.iter().map(|d| d.score).collect();
            let (cosines, first_stage) = (min_max(bare), min_max(&first_stage));
            let both = cosines.iter().zip(&first_stage);
            both.map(|(cosine, score)| 0.8 * cosine + 0.2 * score)
                .collect()
        }
    };
    let scores = answer.scores()?;
    let differences = scores.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    let largest = differences.fold(0.0, f64::max);
    if scores.len() == expected.len() && largest < 1e-4 {
        return Ok(());
    }
    Err(format!(
        "{} {}: a score differs by {largest} from that of the same row on bare ONNX Runtime",
        subject.policy, subject.model.name
    )
    .into())
}

fn min_max(values: &[f64]) -> Vec<f64> {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    values
        .iter()
        .map(|value| (value - low) / (high - low))
        .collect()
}
