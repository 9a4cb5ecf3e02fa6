//! Makes tensors of 8 MiB for ever and keeps them all. They live in the host, so the limit on
//! linear memory does not see them: the host must stop it at the limit on bytes in tensors.

use rerank_policy::bindings::wasi::nn::tensor::{Tensor, TensorType};
use rerank_policy::{Error, Judgment, Policy, Request};

struct ManyTensors;

impl Policy for ManyTensors {
    const MANIFEST: &'static str = faulty::manifest!("many-tensors");

    fn rerank(_request: Request) -> Result<Vec<Judgment>, Error> {
        let zeros = vec![0_u8; 8 << 20];
        let mut tensors = Vec::new();
        loop {
            tensors.push(Tensor::new(&[2 << 20], TensorType::Fp32, &zeros));
        }
    }
}

rerank_policy::export!(ManyTensors);
