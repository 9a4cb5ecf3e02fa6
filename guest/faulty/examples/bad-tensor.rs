//! Makes a tensor of 2 x 3 elements out of 5 bytes. The constructor has no way to say no: the host
//! may trap, or let `compute` fail. Both are policy faults; the host must not read beyond the
//! bytes.

use rerank_policy::bindings::wasi::nn::graph;
use rerank_policy::bindings::wasi::nn::tensor::{Tensor, TensorType};
use rerank_policy::{Error, Judgment, Policy, Request, model_error};

struct BadTensor;

impl Policy for BadTensor {
    const MANIFEST: &'static str = faulty::manifest!("bad-tensor", model);

    fn rerank(_request: Request) -> Result<Vec<Judgment>, Error> {
        let tensor = Tensor::new(&[2, 3], TensorType::I64, &[0; 5]);
        let fails = |error| model_error("bi-encoder", &error);
        let graph = graph::load_by_name("bi-encoder").map_err(fails)?;
        let context = graph.init_execution_context().map_err(fails)?;
        context
            .compute(vec![("input_ids".to_owned(), tensor)])
            .map_err(fails)?;
        Err(Error::Internal(
            "the host took a tensor of 5 bytes".to_owned(),
        ))
    }
}

rerank_policy::export!(BadTensor);
