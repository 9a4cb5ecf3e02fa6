//! What wasmtime generates from `wit/`, and nothing else.
//!
//! The world is that of the frozen contract with the abilities that came after it. A component imports
//! those that it uses; the host links all of them.

#![allow(
    missing_docs,
    unreachable_pub,
    reason = "generated; documented in wit/"
)]

wasmtime::component::bindgen!({
    path: ["../../wit", "../../wit/reading"],
    inline: "
        package rerankd:host;

        world reranker {
            include rerank:policy/reranker@0.1.0;
            import rerank:reading/reading@0.1.0;
        }
    ",
    world: "rerankd:host/reranker",
    with: {
        "wasi:nn/tensor.tensor": crate::imports::nn::GuestTensor,
        "wasi:nn/graph.graph": crate::imports::nn::GuestGraph,
        "wasi:nn/inference.graph-execution-context": crate::imports::nn::GuestContext,
        "wasi:nn/errors.error": crate::imports::nn::GuestError,
        "rerank:policy/tokenizer.encoding": crate::imports::tokenizer::GuestEncoding,
    },
    imports: {
        "wasi:nn/inference.[method]graph-execution-context.compute": async | trappable,
        "rerank:policy/tokenizer.encode-pairs": async | trappable,
        "rerank:policy/tokenizer.encode-texts": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    require_store_data_send: true,
});

pub use exports::rerank::policy::policy as exported;
pub use rerank::policy as contract;
pub use rerank::reading;
pub use wasi::nn;
