//! Brings a model of its own. The host must refuse it with `security`; the answer is an error with
//! the code and the text that the host gave.

use rerank_policy::bindings::wasi::nn::graph::{self, ExecutionTarget, GraphEncoding};
use rerank_policy::{Error, Judgment, Policy, Request, model_error};

struct LoadBytes;

impl Policy for LoadBytes {
    const MANIFEST: &'static str = faulty::manifest!("load-bytes");

    fn rerank(_request: Request) -> Result<Vec<Judgment>, Error> {
        match graph::load(&[vec![0; 16]], GraphEncoding::Onnx, ExecutionTarget::Cpu) {
            Ok(_) => Err(Error::Internal(
                "the host loaded a model from bytes".to_owned(),
            )),
            Err(error) => Err(model_error("bytes", &error)),
        }
    }
}

rerank_policy::export!(LoadBytes);
