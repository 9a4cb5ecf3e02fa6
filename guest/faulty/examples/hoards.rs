//! Makes the host hold, copy or repeat `n` of something, `times` times, keeping what it gets, as the
//! parameter `case` says. The host must end it at a limit that it names, and its memory must stay within
//! the bound on what a call holds; what it says must come out short.
//!
//! | `case` | what |
//! |---|---|
//! | `rows` | runs `n` rows of one token |
//! | `texts` | keeps encodings of `n` texts of one letter |
//! | `tensors` | keeps tensors of `n` bytes, then waits for ever |
//! | `outputs` | keeps the outputs of `n` rows of one token |
//! | `dimensions` | keeps tensors of one element and `n` dimensions |
//! | `names` | keeps the errors of inputs whose names have `n` letters |
//! | `copies` | has a tensor of `n` bytes given back |
//! | `internal` | fails with an error of `n` control characters |
//! | `invalid` | refuses the request with an error of `n` control characters |
//! | `panic` | says that it panicked, in `n` control characters, and traps |
//! | `explains` | explains each score, and leaves the last document out for a reason, in `n` control characters |
//! | `logs` | logs `n` control characters, `times` times |

use rerank_policy::bindings::rerank::policy::{log, tokenizer};
use rerank_policy::bindings::wasi::nn::graph;
use rerank_policy::bindings::wasi::nn::inference::GraphExecutionContext;
use rerank_policy::bindings::wasi::nn::tensor::{Tensor, TensorType};
use rerank_policy::{Error, Judgment, Level, Policy, Request, model_error};

struct Hoards;

impl Policy for Hoards {
    const MANIFEST: &'static str = faulty::manifest!(
        "hoards",
        model,
        r#", "parameters": {
            "type": "object",
            "properties": {
                "case": { "type": "string" },
                "n": { "type": "integer", "minimum": 0 },
                "times": { "type": "integer", "minimum": 1 }
            },
            "additionalProperties": false
        }"#
    );

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let parameters: serde_json::Value = rerank_policy::parameters(&request)?;
        let number = |name: &str, usual| parameters[name].as_u64().unwrap_or(usual) as usize;
        let (n, times) = (number("n", 0), number("times", 1));
        let said = || "\u{1}".repeat(n);
        match parameters["case"].as_str().unwrap_or_default() {
            "rows" => drop(run(&context()?, n)?),
            "outputs" => {
                let context = context()?;
                let kept: Result<Vec<_>, Error> = (0..times).map(|_| run(&context, n)).collect();
                drop(kept?);
            }
            "texts" => {
                let texts = vec!["x".to_owned(); n];
                let encode = |_| tokenizer::encode_texts("bi-encoder", &texts);
                let kept: Result<Vec<_>, String> = (0..times).map(encode).collect();
                drop(kept.map_err(Error::Model)?);
            }
            "tensors" => {
                let kept: Vec<Tensor> = (0..times).map(|_| bytes(n)).collect();
                for round in 0_u64.. {
                    let text = format!("{round} {}", request.query);
                    drop(tokenizer::encode_texts("bi-encoder", &[text]).map_err(Error::Model)?);
                }
                drop(kept);
            }
            "dimensions" => {
                let one = |_| Tensor::new(&vec![1; n], TensorType::U8, &[0]);
                drop((0..times).map(one).collect::<Vec<_>>());
            }
            "names" => {
                let context = context()?;
                let wrong = |_| context.compute(vec![("x".repeat(n), bytes(1))]).err();
                drop((0..times).map(wrong).collect::<Vec<_>>());
            }
            "copies" => {
                let tensor = bytes(n);
                for _ in 0..times {
                    drop(tensor.data());
                }
            }
            "internal" => return Err(Error::Internal(said())),
            "invalid" => return Err(Error::InvalidRequest(said())),
            "panic" => {
                log::panicked(&said(), &said(), 1);
                std::process::abort();
            }
            "explains" => {
                let explained = |judgment: Judgment| judgment.with_explanation(said());
                let mut judgments: Vec<_> = faulty::in_order(&request)
                    .into_iter()
                    .map(explained)
                    .collect();
                let last = judgments.pop().map_or(0, |judgment| judgment.index);
                judgments.push(Judgment::unscored(last, &said()));
                return Ok(judgments);
            }
            "logs" => {
                let said = said();
                (0..times).for_each(|_| rerank_policy::log(Level::Info, &said));
            }
            other => return Err(Error::InvalidRequest(format!("no case `{other}`"))),
        }
        Ok(faulty::in_order(&request))
    }
}

rerank_policy::export!(Hoards);

fn context() -> Result<GraphExecutionContext, Error> {
    let fails = |error| model_error("bi-encoder", &error);
    let graph = graph::load_by_name("bi-encoder").map_err(fails)?;
    graph.init_execution_context().map_err(fails)
}

/// A tensor of a type that no model takes.
fn bytes(n: usize) -> Tensor {
    Tensor::new(&[n as u32], TensorType::U8, &vec![0; n])
}

/// Runs rows of one token.
fn run(context: &GraphExecutionContext, rows: usize) -> Result<Vec<(String, Tensor)>, Error> {
    let filled = |value: i64| {
        let data: Vec<u8> = std::iter::repeat_n(value.to_le_bytes(), rows)
            .flatten()
            .collect();
        Tensor::new(&[rows as u32, 1], TensorType::I64, &data)
    };
    let inputs = [
        ("input_ids", 101),
        ("attention_mask", 1),
        ("token_type_ids", 0),
    ];
    let inputs = inputs.map(|(name, value)| (name.to_owned(), filled(value)));
    let outputs = context.compute(inputs.into());
    outputs.map_err(|error| model_error("bi-encoder", &error))
}
