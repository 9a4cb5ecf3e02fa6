//! Calls `compute` with inputs that are wrong in the way that the parameter `case` says. The host must
//! answer with an error that says what it expected; the answer is that error's code and text.
//!
//! | `case` | what is wrong |
//! |---|---|
//! | `name` | `input_ids` is called `words` |
//! | `type` | `input_ids` is FP32 |
//! | `shape` | `input_ids` has one column more than the mask |
//! | `missing` | there is no `attention_mask` |
//! | `rank` | all inputs have one dimension |
//! | `rows` | `input_ids` has one row more than the mask |

use rerank_policy::bindings::rerank::policy::tokenizer;
use rerank_policy::bindings::wasi::nn::graph;
use rerank_policy::bindings::wasi::nn::tensor::{Tensor, TensorType};
use rerank_policy::{Error, Judgment, Policy, Request, model_error};

struct WrongInputs;

impl Policy for WrongInputs {
    const MANIFEST: &'static str = faulty::manifest!(
        "wrong-inputs",
        model,
        r#", "parameters": {
            "type": "object",
            "properties": {
                "case": { "enum": ["name", "type", "shape", "missing", "rank", "rows"] }
            },
            "required": ["case"],
            "additionalProperties": false
        }"#
    );

    fn rerank(request: Request) -> Result<Vec<Judgment>, Error> {
        let parameters: serde_json::Value = rerank_policy::parameters(&request)?;
        let case = parameters["case"].as_str().unwrap_or_default();

        let encoding = tokenizer::encode_texts("bi-encoder", &faulty::texts(&request));
        let right = encoding
            .and_then(|encoding| encoding.tensors())
            .map_err(Error::Model)?;
        let wrong = right
            .into_iter()
            .filter_map(|input| spoil(case, input))
            .collect();

        let fails = |error| model_error("bi-encoder", &error);
        let graph = graph::load_by_name("bi-encoder").map_err(fails)?;
        let context = graph.init_execution_context().map_err(fails)?;
        context.compute(wrong).map_err(fails)?;
        Err(Error::Internal(format!(
            "the host took the wrong inputs of the case `{case}`"
        )))
    }
}

rerank_policy::export!(WrongInputs);

/// An input as the case wants it; `None` if it is left out.
fn spoil(case: &str, (name, tensor): (String, Tensor)) -> Option<(String, Tensor)> {
    let dimensions = tensor.dimensions();
    let (rows, columns) = (dimensions[0], dimensions[1]);
    let tensor = match (case, name.as_str()) {
        ("name", "input_ids") => return Some(("words".to_owned(), tensor)),
        ("missing", "attention_mask") => return None,
        ("type", "input_ids") => zeros(&[rows, columns], TensorType::Fp32),
        ("shape", "input_ids") => zeros(&[rows, columns + 1], TensorType::I64),
        ("rows", "input_ids") => zeros(&[rows + 1, columns], TensorType::I64),
        ("rank", _) => Tensor::new(&[rows * columns], TensorType::I64, &tensor.data()),
        _ => tensor,
    };
    Some((name, tensor))
}

/// `element_type` is FP32 or I64.
fn zeros(dimensions: &[u32], element_type: TensorType) -> Tensor {
    let bytes = if element_type == TensorType::Fp32 {
        4
    } else {
        8
    };
    let elements: u32 = dimensions.iter().product();
    Tensor::new(
        dimensions,
        element_type,
        &vec![0; elements as usize * bytes],
    )
}
