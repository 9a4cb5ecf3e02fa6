//! Calls the host as its parameters say: any function, with any sizes, types, names and orders. Whatever
//! it is told, the host must keep its memory and its time, and call what goes wrong the guest's fault.
//!
//! `ops` is a list of steps, each an object whose `do` says what; numbers that are missing are 0, and
//! what a step makes (tensors, encodings, models, errors) stays until it is dropped. `at` chooses among
//! them, from the first one on and around.
//!
//! | `do` | what |
//! |---|---|
//! | `encode` | `texts` texts of `bytes` bytes; `say`: `query` (the query itself), `words` or one long word; with `pairs`, as pairs; then `cut` texts that are too long |
//! | `read-encoding`, `tensors` | lengths and cuts of an encoding; its tensors |
//! | `tensor` | a tensor `name` of `dims`, `type` and `bytes` bytes, all `fill` |
//! | `ids` | inputs of the model: `rows` rows of `tokens` tokens with the number `id`, `mask` and `type_id` |
//! | `load`, `load-bytes` | the model `name`, `times` times; one of `bytes` bytes |
//! | `compute` | runs the last `take` tensors |
//! | `read-tensor` | dimensions, type and data of a tensor, `times` times |
//! | `read-error` | code and text of an error |
//! | `drop` | a tensor, an encoding and an error |
//! | `log` | `times` lines of `bytes` bytes |
//! | `fill`, `copy` | writes, or moves, `bytes` bytes of memory, `times` times |
//! | `loop`, `recurse`, `trap` | for ever; until the stack ends; at once |
//! | `panic` | with a message of `bytes` bytes |
//! | `repeat` | the steps `ops`, `times` times |
//!
//! `end` is what it returns: `judgments` many (all documents, if missing), each with an `explanation` and a
//! `reason` of so many bytes; or the `error` (`invalid-request`, `model`, `internal`) of `bytes` bytes; or
//! `last`, what the host said last, if it said anything.

use rerank_policy::bindings::rerank::policy::tokenizer::{self, Encoding};
use rerank_policy::bindings::wasi::nn::errors;
use rerank_policy::bindings::wasi::nn::graph::{self, ExecutionTarget, GraphEncoding};
use rerank_policy::bindings::wasi::nn::inference::GraphExecutionContext;
use rerank_policy::bindings::wasi::nn::tensor::{Tensor, TensorType};
use rerank_policy::{Error, Judgment, Level, Outcome, Policy, Request, log};
use serde_json::Value;

const MODEL: &str = "bi-encoder";

struct Puppet;

impl Policy for Puppet {
    const MANIFEST: &'static str = faulty::manifest!(
        "puppet",
        model,
        r#", "parameters": {
            "type": "object",
            "properties": { "ops": { "type": "array" }, "end": { "type": "object" } },
            "additionalProperties": false
        }"#
    );

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let parameters: Value = rerank_policy::parameters(&request)?;
        let mut hands = Hands {
            query: request.query.clone(),
            ..Hands::default()
        };
        hands.all(&parameters["ops"]);
        let said = hands.errors.last().map(|error| error.data());
        end(&request, &parameters["end"], said)
    }
}

rerank_policy::export!(Puppet);

/// What it holds.
#[derive(Default)]
struct Hands {
    query: String,
    encodings: Vec<Encoding>,
    tensors: Vec<(String, Tensor)>,
    models: Vec<GraphExecutionContext>,
    errors: Vec<errors::Error>,
}

impl Hands {
    fn all(&mut self, ops: &Value) {
        for op in ops.as_array().into_iter().flatten() {
            self.one(op);
        }
    }

    fn one(&mut self, op: &Value) {
        let number = |key: &str| op[key].as_u64().unwrap_or(0) as usize;
        let times = number("times").max(1);
        let bytes = number("bytes");
        let at = number("at");
        match op["do"].as_str().unwrap_or_default() {
            "encode" => self.encode(op, number("texts"), bytes),
            "read-encoding" => {
                if let Some(encoding) = pick(&self.encodings, at) {
                    let _ = (encoding.lengths(), encoding.truncated());
                    let _ = encoding.query_truncated();
                }
            }
            "tensors" => {
                let tensors = pick(&self.encodings, at).map(Encoding::tensors);
                self.tensors.extend(tensors.into_iter().flatten().flatten());
            }
            "tensor" => {
                let dims: Vec<u32> = op["dims"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|dim| dim.as_u64().unwrap_or(0) as u32)
                    .collect();
                let data = vec![number("fill") as u8; bytes];
                let name = op["name"].as_str().unwrap_or("input_ids").to_owned();
                let tensor = Tensor::new(&dims, element_type(&op["type"]), &data);
                self.tensors.push((name, tensor));
            }
            "ids" => self.ids(op, number("rows"), number("tokens")),
            "load" => {
                for _ in 0..times {
                    let name = op["name"].as_str().unwrap_or(MODEL);
                    let loaded = graph::load_by_name(name);
                    match loaded.and_then(|graph| graph.init_execution_context()) {
                        Ok(model) => self.models.push(model),
                        Err(error) => self.errors.push(error),
                    }
                }
            }
            "load-bytes" => {
                let graph = [vec![7; bytes]];
                let loaded = graph::load(&graph, GraphEncoding::Onnx, ExecutionTarget::Cpu);
                self.errors.extend(loaded.err());
            }
            "compute" => {
                let taken = self.tensors.len().saturating_sub(number("take"));
                let inputs = self.tensors.split_off(taken);
                match pick(&self.models, at).map(|model| model.compute(inputs)) {
                    Some(Ok(outputs)) => self.tensors.extend(outputs),
                    Some(Err(error)) => self.errors.push(error),
                    None => {}
                }
            }
            "read-tensor" => {
                for _ in 0..times {
                    if let Some((_, tensor)) = pick(&self.tensors, at) {
                        let _ = (tensor.dimensions(), tensor.ty(), tensor.data());
                    }
                }
            }
            "read-error" => {
                if let Some(error) = pick(&self.errors, at) {
                    let _ = (error.code(), error.data());
                }
            }
            "drop" => {
                drop_one(&mut self.tensors, at);
                drop_one(&mut self.encodings, at);
                drop_one(&mut self.errors, at);
            }
            "log" => {
                let line = "l".repeat(bytes);
                for _ in 0..times {
                    log(Level::Info, &line);
                }
            }
            "fill" => {
                let mut memory = vec![0_u8; bytes];
                for round in 0..times {
                    memory.fill(round as u8);
                    std::hint::black_box(&mut memory);
                }
            }
            "copy" => {
                let mut memory = vec![1_u8; bytes];
                for _ in 0..times {
                    memory.copy_within(1.., 0);
                    std::hint::black_box(&mut memory);
                }
            }
            "loop" => loop {
                std::hint::spin_loop();
            },
            "recurse" => recurse(0),
            "trap" => std::process::abort(),
            "panic" => panic!("{}", "p".repeat(bytes)),
            "repeat" => {
                for _ in 0..times {
                    self.all(&op["ops"]);
                }
            }
            _ => {}
        }
    }

    fn encode(&mut self, op: &Value, texts: usize, bytes: usize) {
        let text = match op["say"].as_str() {
            Some("query") => self.query.clone(),
            Some("words") => "red shoe ".repeat(bytes / 9),
            _ => "x".repeat(bytes),
        };
        let mut texts = vec![text; texts];
        let cut = op["cut"].as_u64().unwrap_or(0) as usize;
        texts.resize(texts.len() + cut, "a ".repeat(300));
        let encoded = if op["pairs"] == true {
            tokenizer::encode_pairs(MODEL, &self.query, &texts)
        } else {
            tokenizer::encode_texts(MODEL, &texts)
        };
        self.encodings.extend(encoded);
    }

    fn ids(&mut self, op: &Value, rows: usize, tokens: usize) {
        let dims = [rows as u32, tokens as u32];
        let inputs = [
            ("input_ids", "id"),
            ("attention_mask", "mask"),
            ("token_type_ids", "type_id"),
        ];
        for (name, key) in inputs {
            let cell = op[key].as_i64().unwrap_or(i64::from(key == "mask"));
            let data = cell.to_le_bytes().repeat(rows.saturating_mul(tokens));
            let tensor = Tensor::new(&dims, TensorType::I64, &data);
            self.tensors.push((name.to_owned(), tensor));
        }
    }
}

/// `said`: by the last error that is held.
fn end(request: &Request, end: &Value, said: Option<String>) -> Result<Vec<Judgment>, Error> {
    let text = |key: &str| "e".repeat(end[key].as_u64().unwrap_or(0) as usize);
    match end["error"].as_str() {
        Some("last") => {
            if let Some(said) = said {
                return Err(Error::Model(said));
            }
        }
        Some("invalid-request") => return Err(Error::InvalidRequest(text("bytes"))),
        Some("model") => return Err(Error::Model(text("bytes"))),
        Some(_) => return Err(Error::Internal(text("bytes"))),
        None => {}
    }
    let mut judgments = faulty::in_order(request);
    if let Some(count) = end["judgments"].as_u64() {
        let last = judgments.last().cloned();
        judgments.resize_with(count as usize, || {
            last.clone().unwrap_or_else(|| Judgment::scored(0, 0.0))
        });
    }
    let (explanation, reason) = (text("explanation"), text("reason"));
    for judgment in &mut judgments {
        if !explanation.is_empty() {
            judgment.explanation = Some(explanation.clone());
        }
        if !reason.is_empty() {
            judgment.outcome = Outcome::Unscored(reason.clone());
        }
    }
    Ok(judgments)
}

fn pick<T>(from: &[T], at: usize) -> Option<&T> {
    from.get(at.checked_rem(from.len())?)
}

fn drop_one<T>(from: &mut Vec<T>, at: usize) {
    if let Some(at) = at.checked_rem(from.len()) {
        drop(from.swap_remove(at));
    }
}

fn element_type(name: &Value) -> TensorType {
    match name.as_str().unwrap_or_default() {
        "FP16" => TensorType::Fp16,
        "FP32" => TensorType::Fp32,
        "FP64" => TensorType::Fp64,
        "BF16" => TensorType::Bf16,
        "U8" => TensorType::U8,
        "I32" => TensorType::I32,
        _ => TensorType::I64,
    }
}

#[allow(unconditional_recursion)]
fn recurse(depth: u64) {
    std::hint::black_box(depth);
    recurse(depth + 1);
    std::hint::black_box(depth);
}
