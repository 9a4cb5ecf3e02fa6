//! What can go wrong with a policy: at release, and in a request.
//!
//! Three kinds that never turn into one another: the policy's own faults ([`Fault`]), the caller's
//! mistakes ([`PolicyError::InvalidRequest`]), and the host's failures.

use rerankd_core::{ErrorKind, RerankError};

/// How a policy broke its contract or a limit.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(
    missing_docs,
    reason = "each variant's message says what its fields are"
)]
pub enum Fault {
    #[error("it panicked at {file}:{line}: {message}")]
    Panic {
        message: String,
        file: String,
        line: u32,
    },
    #[error("it trapped: {message}")]
    Trap { message: String },
    #[error("its stack overflowed")]
    StackOverflow,
    #[error("it used more than its {limit_ms} ms of CPU time (--guest-cpu-ms)")]
    CpuTime { limit_ms: u64 },
    #[error("it wanted more than its {limit_mib} MiB of memory (--guest-memory-mib)")]
    Memory { limit_mib: usize },
    #[error("it made more than {limit} calls to the tokenizer and the models (--guest-host-calls)")]
    HostCalls { limit: usize },
    #[error("it held more than {limit_mib} MiB in tensors (--guest-tensor-mib)")]
    TensorBytes { limit_mib: usize },
    #[error("it made a tensor that is none: {problem}")]
    BadTensor { problem: String },
    #[error("it judged document {index}, but there are only {documents}")]
    IndexOutOfRange { index: u32, documents: usize },
    #[error("it judged document {index} twice")]
    IndexTwice { index: u32 },
    #[error("it left out {missing} of {documents} documents, the first is document {first}")]
    MissingDocuments {
        missing: usize,
        documents: usize,
        first: usize,
    },
    #[error("it filtered document {index}, but its manifest does not say `\"filters\": true`")]
    Filtered { index: u32 },
    #[error("it gave none of {documents} documents a finite score ({reason})")]
    NoScore { documents: usize, reason: String },
    #[error("it failed on a model: {message}")]
    Model { message: String },
    #[error("it failed: {message}")]
    Internal { message: String },
}

impl Fault {
    /// The name used in metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Panic { .. } => "panic",
            Self::Trap { .. } => "trap",
            Self::StackOverflow => "stack-overflow",
            Self::CpuTime { .. } => "cpu-time",
            Self::Memory { .. } => "memory",
            Self::HostCalls { .. } => "host-calls",
            Self::TensorBytes { .. } => "tensor-bytes",
            Self::BadTensor { .. } => "bad-tensor",
            Self::IndexOutOfRange { .. } => "index-out-of-range",
            Self::IndexTwice { .. } => "index-twice",
            Self::MissingDocuments { .. } => "missing-documents",
            Self::Filtered { .. } => "filtered",
            Self::NoScore { .. } => "no-score",
            Self::Model { .. } => "model",
            Self::Internal { .. } => "internal",
        }
    }
}

/// Why a call of a policy gave no ranking.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(
    missing_docs,
    reason = "each variant's message says what its fields are"
)]
pub enum PolicyError {
    #[error("policy {policy}: {fault}")]
    Fault { policy: String, fault: Fault },
    #[error("policy {policy}: the deadline came before any document was scored")]
    Deadline { policy: String },
    #[error("{message}")]
    InvalidRequest { at: Option<String>, message: String },
    #[error("no room for another policy instance")]
    NoInstance,
    #[error("the server is shutting down")]
    ShuttingDown,
    #[error("the host failed while it ran policy {policy}: {message}")]
    Host { policy: String, message: String },
}

impl PolicyError {
    /// The same failure in the words of every protocol.
    pub fn to_rerank_error(&self) -> RerankError {
        let kind = match self {
            Self::Fault { .. } => ErrorKind::PolicyFault,
            Self::Deadline { .. } => ErrorKind::DeadlineExceeded,
            Self::InvalidRequest { .. } => ErrorKind::BadRequest,
            Self::NoInstance => ErrorKind::Overloaded,
            Self::ShuttingDown => ErrorKind::ShuttingDown,
            Self::Host { .. } => ErrorKind::Internal,
        };
        let mut error = RerankError::new(kind, self.to_string());
        if let Self::InvalidRequest { at, .. } = self {
            error.at.clone_from(at);
        }
        if matches!(self, Self::NoInstance) {
            error.retry_after = Some(std::time::Duration::from_secs(1));
        }
        error
    }
}

/// Why a component did not become a policy version.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[allow(
    missing_docs,
    reason = "each variant's message says what its fields are"
)]
pub enum ReleaseError {
    #[error("not a WebAssembly component: {0}")]
    NotAComponent(String),
    #[error("it imports `{0}`, which a policy is not given; a policy may import {1}")]
    UnknownImport(String, String),
    #[error("it does not export `{0}`: is it built for the world `rerank:policy/reranker@0.1.0`?")]
    MissingExport(String),
    #[error("it does not fit the contract: {0}")]
    Contract(String),
    #[error("its manifest cannot be had: `describe` failed: {0}")]
    Describe(String),
    #[error("its manifest is wrong: {0}")]
    Manifest(String),
    #[error("the schema of its parameters is wrong: {0}")]
    Schema(String),
    #[error("the parameters set for it are wrong: {0}")]
    Parameters(String),
    #[error("its model slot `{slot}` {problem}")]
    Model { slot: String, problem: String },
}
