//! What can go wrong with a policy: at release, and in a request.
//!
//! Three kinds that never turn into one another: the policy's own faults ([`Fault`]), the caller's
//! mistakes ([`PolicyError::InvalidRequest`]), and the host's failures.

use rerankd_core::{ErrorKind, Refused, RerankError};

use crate::store::StoreError;

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
    #[error("it made more than {limit} calls of the host (ten times --guest-host-calls)")]
    AllHostCalls { limit: usize },
    #[error("it held more than {limit_mib} MiB in tensors (--guest-tensor-mib)")]
    TensorBytes { limit_mib: usize },
    #[error("it had the host hold more than {limit_mib} MiB (--guest-host-mib)")]
    HostBytes { limit_mib: usize },
    #[error(
        "it had the host hold {held_mib} MiB, and its calls together may hold no more; above {most_mib} MiB one call answers for that (an eighth of what all may hold beyond their reserves: twice --guest-host-mib)"
    )]
    HostShare { held_mib: usize, most_mib: usize },
    #[error("it passed more than {limit_mib} MiB to the host in one call, or as its result")]
    PassedBytes { limit_mib: usize },
    #[error("it gave {rows} rows to one `{call}`; at most {limit} are taken")]
    Rows {
        call: &'static str,
        rows: usize,
        limit: usize,
    },
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
            Self::HostCalls { .. } | Self::AllHostCalls { .. } => "host-calls",
            Self::TensorBytes { .. } => "tensor-bytes",
            Self::HostBytes { .. } | Self::HostShare { .. } => "host-bytes",
            Self::PassedBytes { .. } => "passed-bytes",
            Self::Rows { .. } => "rows",
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
    Fault {
        policy: String,
        fault: Fault,
        /// What the guest logged before: for the policy's author, never for the host's log.
        log: Vec<String>,
        /// The most memory that the guest had, bytes.
        peak_memory_bytes: usize,
    },
    #[error("policy {policy}: the deadline came before any document was scored")]
    Deadline { policy: String },
    #[error("{message}")]
    InvalidRequest { at: Option<String>, message: String },
    #[error("no room for another policy instance")]
    NoInstance,
    #[error("policy {policy}: {refused}; try again")]
    NoRoom { policy: String, refused: Refused },
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
            Self::NoInstance | Self::NoRoom { .. } => ErrorKind::Overloaded,
            Self::ShuttingDown => ErrorKind::ShuttingDown,
            Self::Host { .. } => ErrorKind::Internal,
        };
        let mut error = RerankError::new(kind, self.to_string());
        if let Self::InvalidRequest { at, .. } = self {
            error.at.clone_from(at);
        }
        if kind == ErrorKind::Overloaded {
            error.retry_after = Some(std::time::Duration::from_secs(1));
        }
        error
    }
}

/// A step of the release pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Is it a component of the right world?
    Inspect,
    /// Native code is made of it, in a process of its own.
    Compile,
    /// It is asked for its manifest.
    Describe,
    /// Its models are loaded.
    Models,
    /// Its cases are run.
    Cases,
    /// It is written to the store.
    Stage,
    /// It, or another version, takes a role.
    Activate,
}

impl Step {
    /// The name used in answers and events.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inspect => "inspect",
            Self::Compile => "compile",
            Self::Describe => "describe",
            Self::Models => "models",
            Self::Cases => "cases",
            Self::Stage => "stage",
            Self::Activate => "activate",
        }
    }
}

/// Why a component did not become a policy version, or a version did not take a role.
#[derive(Debug, thiserror::Error)]
#[allow(
    missing_docs,
    reason = "each variant's message says what its fields are"
)]
pub enum ReleaseError {
    #[error("{bytes} bytes; a component may have {max_bytes} (--max-component-mib)")]
    TooLarge { bytes: usize, max_bytes: usize },
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    #[error("not a WebAssembly component: {0}")]
    NotAComponent(String),
    #[error("it imports `{0}`, which a policy is not given; a policy may import {1}")]
    UnknownImport(String, String),
    #[error("it does not export `{0}`: is it built for the world `rerank:policy/reranker@0.1.0`?")]
    MissingExport(String),
    #[error("it cannot be compiled: {0}")]
    Compile(String),
    #[error("it does not fit the contract: {0}")]
    Contract(String),
    #[error("its manifest cannot be had: `describe` failed: {0}")]
    Describe(String),
    #[error("its manifest is wrong: {0}")]
    Manifest(String),
    #[error(
        "it calls itself `{found}`, but was released as `{wanted}`: release it under its own name (a file `{found}.wasm`), or change `name` in its manifest"
    )]
    Name { found: String, wanted: String },
    #[error("the schema of its parameters is wrong: {0}")]
    Schema(String),
    #[error("the parameters set for it are wrong: {0}")]
    Parameters(String),
    #[error("it asks for fields that it is not granted: {missing}; granted: {granted}")]
    Grants { missing: String, granted: String },
    #[error("its model slot `{slot}` {problem}")]
    Model { slot: String, problem: String },
    #[error("its cases cannot be read: {0}")]
    Cases(String),
    #[error("{failed} of its {total} cases failed: {first}")]
    CasesFailed {
        failed: usize,
        total: usize,
        /// The first failure, `case: message`.
        first: String,
        /// Every result.
        report: serde_json::Value,
    },
    #[error(
        "`{name}` has a version `{version}` with other content already ({existing}); give this one another `version` in its manifest"
    )]
    Conflict {
        name: String,
        version: String,
        existing: String,
    },
    #[error(
        "{place} of this server's configuration gives it parameters that it does not take: {problem}; change the rule first, or release a version that takes them"
    )]
    Rule { place: String, problem: String },
    #[error("no policy `{0}`")]
    UnknownPolicy(String),
    #[error("no version `{wanted}` of `{name}`; there are: {known}")]
    UnknownVersion {
        name: String,
        wanted: String,
        known: String,
    },
    #[error("{0}")]
    Refused(String),
    #[error("the server has no room for it at this time: try again")]
    Busy(Step),
    #[error("the server is shutting down; nothing was changed")]
    ShuttingDown,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the host failed: {0}")]
    Host(String),
}

impl ReleaseError {
    /// What the host's log may say of it: nothing that the policy, or one of its cases, said.
    pub fn for_log(&self) -> String {
        match self {
            Self::Describe(_)
            | Self::Manifest(_)
            | Self::Name { .. }
            | Self::Schema(_)
            | Self::Parameters(_)
            | Self::Cases(_)
            | Self::CasesFailed { .. } => {
                "it is in the policy's own words: GET /v1/events has them".to_owned()
            }
            Self::Rule { place, .. } => format!(
                "{place} gives it parameters that it does not take; GET /v1/events has which"
            ),
            _ => self.to_string(),
        }
    }

    /// Whether it is what the operator's configuration says of the policy, or a model that it has, which
    /// does not fit: no fault of the component.
    pub fn is_of_configuration(&self) -> bool {
        matches!(
            self,
            Self::Parameters(_) | Self::Grants { .. } | Self::Model { .. }
        )
    }

    /// In which step it was found.
    pub fn step(&self) -> Step {
        match self {
            Self::TooLarge { .. }
            | Self::Unreadable(_)
            | Self::NotAComponent(_)
            | Self::UnknownImport(..)
            | Self::MissingExport(_) => Step::Inspect,
            Self::Compile(_) => Step::Compile,
            Self::Contract(_)
            | Self::Describe(_)
            | Self::Manifest(_)
            | Self::Name { .. }
            | Self::Schema(_)
            | Self::Parameters(_)
            | Self::Grants { .. } => Step::Describe,
            Self::Model { .. } => Step::Models,
            Self::Cases(_) | Self::CasesFailed { .. } => Step::Cases,
            Self::Busy(step) => *step,
            Self::Conflict { .. } | Self::Store(_) => Step::Stage,
            Self::Rule { .. }
            | Self::UnknownPolicy(_)
            | Self::UnknownVersion { .. }
            | Self::Refused(_)
            | Self::ShuttingDown
            | Self::Host(_) => Step::Activate,
        }
    }
}
